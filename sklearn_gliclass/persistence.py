"""Saving and loading: the checkpoint folder, and the plain form that pickle, joblib, deepcopy and skops store."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from skorch.history import History
from transformers import AutoTokenizer

from .data.tokenizer import load_tokenizer
from .model import GLiClassModelConfig
from .model.loading import quiet_transformers
from .training import RLTrainerConfig
from .warn import warn

if TYPE_CHECKING:
    from .model import GLiClassModel

ESTIMATOR_FILE = "estimator.json"
LABEL_TOKENIZER_FOLDER = "label_tokenizer"

# What a fitted estimator knows beside its model; each may be missing.
_FITTED = (
    "classes_", "label_names_", "target_mean_", "target_scale_", "shrinkage_", "n_features_in_", "feature_names_in_",
    "logit_offset_", "_y_kind", "_one_dimensional", "_fitted_on_texts",
)  # fmt: skip
# Hyperparameters that name folders of this machine.
_OF_THE_PLACE = ("pretrained", "memory")
_RECORDED_VERSIONS = ("sklearn-gliclass", "torch", "transformers", "scikit-learn", "skorch", "numpy")


# -- checkpoint folder ---------------------------------------------------------------------------------------


def save_estimator(estimator, folder) -> None:
    """Write model, tokenizers and ``estimator.json``; no pickle."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        estimator.model_.save_pretrained(folder)
    estimator.tokenizer_.save_pretrained(folder)
    if estimator.label_tokenizer_ is not None:
        estimator.label_tokenizer_.save_pretrained(folder / LABEL_TOKENIZER_FOLDER)
    parameters = estimator.get_params(deep=False).items()
    hyperparameters, left_out = _json_values({name: v for name, v in parameters if name not in _OF_THE_PLACE})
    if left_out:
        warn(
            f"The hyperparameter(s) {left_out} are no plain values and were not saved; give them again to "
            "from_pretrained."
        )
    record = {
        "estimator": type(estimator).__name__,
        "hyperparameters": hyperparameters,
        "fitted": {name: _plain(getattr(estimator, name)) for name in _FITTED if hasattr(estimator, name)},
        "versions": _versions(),
    }
    (folder / ESTIMATOR_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_estimator(folder: Path) -> dict | None:
    """The content of ``estimator.json``; None for a checkpoint of another program."""
    path = folder / ESTIMATOR_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    for part in ("hyperparameters", "fitted"):
        record[part] = {name: _from_plain(value) for name, value in record[part].items()}
    return record


def problem_type(folder: Path) -> str | None:
    """What kind of y the checkpoint was trained on."""
    return GLiClassModelConfig.from_pretrained(folder).problem_type


def load_model(folder: Path, config: GLiClassModelConfig | None = None) -> GLiClassModel:
    """The model of a checkpoint folder."""
    from .model import GLiClassModel  # late: takes transformers' models with it

    with quiet_transformers():
        return GLiClassModel.from_pretrained(folder, config=config)


def load_tokenizers(folder: Path, config: GLiClassModelConfig):
    """The text's tokenizer and, where the folder has one, the label encoder's."""
    label_folder = folder / LABEL_TOKENIZER_FOLDER
    of_labels = load_tokenizer(label_folder, config.label_model_config) if label_folder.is_dir() else None
    return load_tokenizer(folder, config.encoder_config), of_labels


def _json_values(parameters: dict) -> tuple[dict, list[str]]:
    kept, left_out = {}, []
    for name, value in parameters.items():
        try:
            plain = _plain(value)
            json.dumps(plain)
        except TypeError:
            left_out.append(name)
        else:
            kept[name] = plain
    return kept, left_out


def _plain(value):
    """JSON for NumPy's scalars and arrays, dicts whose keys are no strings, and what `rl` is told."""
    if isinstance(value, RLTrainerConfig):
        return {"RLTrainerConfig": value.get_params(deep=False)}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str if value.dtype.kind != "O" else "O"}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        return {"items": [[_plain(key), _plain(item)] for key, item in value.items()]}
    return value


def _from_plain(value):
    if isinstance(value, dict) and set(value) == {"array", "dtype"}:
        return np.array(value["array"], dtype=value["dtype"])
    if isinstance(value, dict) and set(value) == {"RLTrainerConfig"}:
        return RLTrainerConfig(**value["RLTrainerConfig"])
    if isinstance(value, dict) and set(value) == {"items"}:
        return dict(value["items"])
    return value


def _versions() -> dict[str, str]:
    versions = {}
    for name in _RECORDED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the package itself, used from a source tree
            versions[name] = "unknown"
    return versions


# -- plain state: strings, numbers and arrays only -----------------------------------------------------------


def pack_model(model: GLiClassModel) -> dict:
    """Configuration and weights on the CPU; weights that are tied stand once."""
    weights, seen = {}, set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in seen:
            seen.add(place)
            weights[name] = tensor.detach().cpu().numpy()
    return {"config": model.config.to_json_string(use_diff=False), "weights": weights}


def unpack_model(state: dict) -> GLiClassModel:
    """The model again."""
    from transformers.initialization import no_init_weights

    from .model import GLiClassModel  # late: takes transformers' models with it

    config = GLiClassModelConfig(**json.loads(state["config"]))
    with torch.random.fork_rng(devices=[]), no_init_weights():
        model = GLiClassModel(config)
    weights = {name: torch.tensor(array) for name, array in state["weights"].items()}
    for dtype in {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}:
        model.to(dtype)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = model.all_tied_weights_keys
    tensors = model.state_dict()
    shared = {tensors[name].data_ptr() for name in weights if name in tensors}
    lost = [
        name
        for name in missing
        if name not in tied and name not in tied.values() and tensors[name].data_ptr() not in shared
    ]
    if lost or unexpected:
        raise ValueError(f"The stored weights do not fit the stored configuration: {[*lost, *unexpected][:5]}.")
    model.tie_weights()
    return model.eval()


def pack_tokenizer(tokenizer) -> dict[str, str]:
    """A tokenizer's files by name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}


def unpack_tokenizer(files: dict[str, str]):
    """The tokenizer again."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def pack_state(state: dict) -> dict:
    """The state of a fitted estimator without torch, tokenizer and skorch objects; no optimiser state."""
    shared = state["label_tokenizer_"] is state["tokenizer_"]
    packed = {
        **state,
        "model_": pack_model(state["model_"]),
        "tokenizer_": pack_tokenizer(state["tokenizer_"]),
        "label_tokenizer_": None
        if state["label_tokenizer_"] is None or shared
        else pack_tokenizer(state["label_tokenizer_"]),
        "_shares_tokenizer": shared,
    }
    if "history_" in state:
        packed["history_"] = [dict(row) for row in state["history_"]]
    for name in ("net_", "rl_net_", "config_", "_pieces", "_label_pieces"):
        packed.pop(name, None)
    return packed


def unpack_state(packed: dict) -> dict:
    """What :func:`pack_state` packed; the estimator makes its net and pieces anew."""
    state = {
        **packed,
        "model_": unpack_model(packed["model_"]),
        "tokenizer_": unpack_tokenizer(packed["tokenizer_"]),
    }
    if state.pop("_shares_tokenizer"):
        state["label_tokenizer_"] = state["tokenizer_"]
    elif packed["label_tokenizer_"] is not None:
        state["label_tokenizer_"] = unpack_tokenizer(packed["label_tokenizer_"])
    if "history_" in state:
        state["history_"] = History(state["history_"])
    return state
