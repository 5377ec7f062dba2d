"""Saving and loading: checkpoint folders, and the state that pickle, joblib, deepcopy and skops store."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from ._version import __version__
from .data.tokenizer import load_tokenizer, read_tokenizer
from .estimator_file import ESTIMATOR_FILE, check_given_again, read_estimator, write_estimator
from .fitted import FittedModel
from .label_fit import LABEL_FIT_FILE, LabelFit, save_label_fit
from .model import GLiClassModelConfig
from .model.folders import read_unchanged, replace_folder
from .model.precision import require_device
from .model.torch_internals import unwrap
from .model.weights import named_weights, read_json, read_weights, skeleton
from .model_card import CARD_FILE, build_card, is_own_card
from .training.adapters import Adapters
from .warn import warn

if TYPE_CHECKING:
    from .model import GLiClassModel

__all__ = [
    "SKOPS_TRUSTED_TYPES", "check_given_again", "checked_state", "load_model", "load_tokenizers", "pack_fitted",
    "problem_type", "read_config", "read_estimator", "read_unchanged", "save_estimator", "sign_state", "unpack_fitted",
]  # fmt: skip

LABEL_TOKENIZER_FOLDER = "label_tokenizer"

# All types of this package in a fitted estimator that skops stores, for its argument `trusted`.
SKOPS_TRUSTED_TYPES = [
    "sklearn_gliclass.classifier.GLiClassClassifier",
    "sklearn_gliclass.regressor.GLiClassRegressor",
    "sklearn_gliclass.training.arguments.RLTrainerConfig",
    "sklearn_gliclass.training.arguments.TrainingArguments",
]

STATE_FORMAT = 1  # of what pickle, joblib and skops store
_STATE_KEY = "_sklearn_gliclass"

# Files of a checkpoint. A save replaces them, and keeps all other files of the folder.
_CHECKPOINT_FILES = {
    ESTIMATOR_FILE, LABEL_TOKENIZER_FOLDER, LABEL_FIT_FILE, "config.json", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja",
    "sentence_bert_config.json", "adapter_config.json",
}  # fmt: skip
# Patterns of the files of weights, also those of earlier saves in several files or in another format.
WEIGHT_PATTERNS = [
    f"{name}{end}"
    for name in ("model[.-]*safetensors", "adapter_model.safetensors", "pytorch_model[.-]*bin", "adapter_model.bin")
    for end in ("", ".index.json")
]
_TEXT_FILES = (".json", ".txt", ".jinja")


# -- checkpoint folder ---------------------------------------------------------------------------------------


def save_estimator(estimator, folder, metrics=None, for_gliclass: bool = True, name: str | None = None) -> None:
    """Write model, tokenizers and ``estimator.json`` to a folder, without pickle.

    The save is atomic: the files are written to a temporary folder, which then replaces `folder` in one step. Other
    files in the folder are kept.

    Parameters
    ----------
    estimator : BaseGLiClass
        A fitted estimator.
    folder : str or Path
        Folder to write; ``~`` is expanded.
    metrics : dict of str to float, optional
        Results of an evaluation, for the model card.
    for_gliclass : bool, default=True
        Whether the package ``gliclass`` can load the folder too, for which tied encoders are written twice.
    name : str, optional
        Name in the line of the model card that loads the estimator. If None, that of the folder.

    Raises
    ------
    ValueError
        If the estimator holds values that cannot be saved.
    OSError
        If the folder cannot be written.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"save_pretrained takes the name of a folder, a str or Path, got {folder!r}.")
    if not isinstance(for_gliclass, (bool, np.bool_)):
        raise TypeError(f"for_gliclass must be True or False, got {for_gliclass!r}.")
    target = Path(folder).expanduser().resolve()
    with replace_folder(target, is_checkpoint_file, [LABEL_TOKENIZER_FOLDER], [CARD_FILE]) as temporary:
        try:
            if is_own_card(target / CARD_FILE):  # otherwise, the user's own is kept
                card = build_card(estimator, metrics, name or target.name)
                (temporary / CARD_FILE).write_text(str(card), encoding="utf-8")
            _write_checkpoint(estimator, temporary, for_gliclass)
        except SafetensorError as error:  # a full disk, among others
            raise OSError(f"The weights cannot be written to {str(target)!r}: {error}") from error


def is_checkpoint_file(name: str) -> bool:
    """Return whether a save writes a file of this name, so that one of an earlier save is not kept."""
    return name in _CHECKPOINT_FILES or any(fnmatch.fnmatchcase(name, pattern) for pattern in WEIGHT_PATTERNS)


def _write_checkpoint(estimator, folder: Path, for_gliclass: bool) -> None:
    fitted = estimator.fitted_
    write_estimator(estimator, folder)  # first, as it raises for values that cannot be saved
    unwrap(fitted.model).save_pretrained(folder, for_gliclass=for_gliclass)
    if fitted.label_fit is not None:
        save_label_fit(fitted.label_fit, folder)
    fitted.tokenizer.save_pretrained(folder)
    if fitted.label_tokenizer is not None:
        fitted.label_tokenizer.save_pretrained(folder / LABEL_TOKENIZER_FOLDER)


def read_config(folder: Path) -> GLiClassModelConfig:
    """Read the configuration of a checkpoint folder.

    Raises
    ------
    OSError
        If ``config.json`` is damaged.
    ValueError
        If it is not the configuration of a GLiClass model.
    """
    fields = read_json(Path(folder) / "config.json")
    if not isinstance(fields.get("model_type"), str):
        raise ValueError(f"{str(folder)!r} is not a GLiClass checkpoint: its config.json has no model_type.")
    try:
        return GLiClassModelConfig.from_dict(fields)
    except (AttributeError, LookupError, StrictDataclassError, TypeError, ValueError) as error:
        raise _invalid_configuration(folder, error) from error


def _invalid_configuration(folder: Path, error: Exception) -> ValueError:
    path = str(Path(folder) / "config.json")
    return ValueError(f"{path!r} is not a valid configuration: {error} Restore the file, or save the estimator again.")


def problem_type(folder: Path) -> Any:
    """Read the problem type of a checkpoint."""
    return read_config(folder).problem_type


def load_model(folder: Path, config: GLiClassModelConfig | None = None) -> GLiClassModel:
    """Load the model of a checkpoint folder.

    Parameters
    ----------
    folder : Path
        The folder.
    config : GLiClassModelConfig, optional
        Configuration that replaces that of the folder. A calibrator is left out if it has none.

    Raises
    ------
    OSError
        If a file is missing or damaged.
    ValueError
        If the weights do not match the configuration; the message names them.
    """
    from .model import GLiClassModel  # imports the models of transformers, which takes long

    stored = read_config(folder)
    config = stored if config is None else config
    try:
        skeleton(GLiClassModel, config)
    except TypeError as error:  # old versions of transformers do not check the types of the fields
        raise _invalid_configuration(folder, error) from error
    weights = read_weights(Path(folder))
    if stored.use_calibrator and not config.use_calibrator:
        weights = {name: weight for name, weight in weights.items() if not name.startswith("calibrator.")}
    return GLiClassModel.from_weights(config, weights, f"The checkpoint {str(folder)!r}")


def load_tokenizers(folder: Path, config: GLiClassModelConfig):
    """Load the tokenizer of the texts and, if the folder has one, that of the label encoder."""
    label_folder = Path(folder) / LABEL_TOKENIZER_FOLDER
    of_labels = load_tokenizer(label_folder, config.label_model_config) if label_folder.is_dir() else None
    return load_tokenizer(folder, config.encoder_config), of_labels


# -- version of what is stored -----------------------------------------------------------------------------------


def sign_state(state: dict) -> dict:
    """Return the state of an estimator with the version and format that stored it."""
    return {**state, _STATE_KEY: {"version": __version__, "format": STATE_FORMAT}}


@contextlib.contextmanager
def checked_state(state: dict, name: str):
    """Yield the state without its version; errors in reading the state of another version say what to do.

    Parameters
    ----------
    state : dict
        Result of :func:`sign_state`, or a state without a version.
    name : str
        Class of the estimator, for the error message.

    Raises
    ------
    ValueError
        If another version stored the state, and this version cannot read it.
    """
    stored = {"version": "0.1.0", "format": 1, **state.get(_STATE_KEY, {})}
    version = stored["version"]
    message = (
        f"This {name} was stored by sklearn_gliclass {version} in format {stored['format']}; this is version "
        f"{__version__}, which reads formats up to {STATE_FORMAT}. Load it with the version that stored it (pip "
        f'install "sklearn-gliclass=={version}"), and save it with save_pretrained: later versions load its folders.'
    )
    if stored["format"] > STATE_FORMAT:
        raise ValueError(message)
    try:
        yield {key: value for key, value in state.items() if key != _STATE_KEY}
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if version == __version__:
            raise
        raise ValueError(f"{message} ({type(error).__name__}: {error})") from error


# -- state of basic types: strings, numbers, arrays, dicts and lists ---------------------------------------------


def pack_fitted(fitted: FittedModel) -> dict:
    """Convert a fitted model to basic types, for pickle, joblib, deepcopy and skops.

    Parameters
    ----------
    fitted : FittedModel
        The fitted model.

    Returns
    -------
    dict
        Strings, numbers, arrays, dicts and lists. Tied weights and shared tokenizers are stored once.

    Raises
    ------
    ValueError
        If the model has modules that are not part of its configuration.
    """
    label_tokenizer = fitted.label_tokenizer
    if label_tokenizer is not None:
        shared = label_tokenizer is fitted.tokenizer
        label_tokenizer = "shared" if shared else _pack_tokenizer(label_tokenizer)
    return {
        "model": _pack_model(fitted.model),
        "tokenizer": _pack_tokenizer(fitted.tokenizer),
        "label_tokenizer": label_tokenizer,
        "label_names": None if fitted.label_names is None else [str(name) for name in fitted.label_names],
        "max_length": int(fitted.max_length),
        **({} if fitted.adapters is None else {"adapters": _pack_adapters(fitted.adapters)}),
        **({} if fitted.label_fit is None else {"label_fit": _pack_label_fit(fitted.label_fit)}),
    }


def unpack_fitted(state: dict, device: str) -> FittedModel:
    """Restore a fitted model from the state of :func:`pack_fitted`.

    Parameters
    ----------
    state : dict
        The state.
    device : str
        Hyperparameter of the estimator. If this machine does not have the device, the model is put on the CPU, with a
        warning.
    """
    tokenizer, label_tokenizer = _unpack_tokenizer(state["tokenizer"]), state["label_tokenizer"]
    if label_tokenizer is not None:
        label_tokenizer = tokenizer if label_tokenizer == "shared" else _unpack_tokenizer(label_tokenizer)
    model = _unpack_model(state["model"])
    nn.Module.to(model, _available_device(device))  # in place; the `to` of transformers has no types
    adapters = _unpack_adapters(state["adapters"]) if "adapters" in state else None
    label_fit = _unpack_label_fit(state["label_fit"]) if "label_fit" in state else None
    names, max_length = state["label_names"], state["max_length"]
    return FittedModel(model, tokenizer, label_tokenizer, names, max_length, adapters, label_fit)


def _pack_label_fit(label_fit: LabelFit) -> dict:
    return {"labels": list(label_fit.labels), "change": label_fit.change.numpy()}


def _unpack_label_fit(state: dict) -> LabelFit:
    return LabelFit(tuple(state["labels"]), torch.tensor(np.asarray(state["change"])))


def _pack_adapters(adapters: Adapters) -> dict:
    weights = {name: tensor.float().numpy() for name, tensor in adapters.weights().items()}
    return {"rank": adapters.rank, "alpha": adapters.alpha, "names": adapters.names, "weights": weights}


def _unpack_adapters(state: dict) -> Adapters:
    weights = {name: torch.tensor(np.asarray(array)) for name, array in state["weights"].items()}
    return Adapters(state["rank"], state["alpha"], [list(names) for names in state["names"]], weights)


def _available_device(device: str) -> str:
    try:
        return require_device(device)
    except ValueError as error:
        warn(f"{error} The model is on the CPU.")
        return "cpu"


def _pack_model(model) -> dict:
    """Pack configuration and weights, on the CPU, with tied weights under one name."""
    weights, types, seen = {}, {}, set()
    for name, tensor in named_weights(model).items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        tensor = tensor.detach().cpu()
        if tensor.dtype in _BIT_TYPES:  # NumPy has no such dtype: the bits are stored as integers
            types[name] = str(tensor.dtype).removeprefix("torch.")
            tensor = tensor.contiguous().view(_BIT_TYPES[tensor.dtype])
        weights[name] = tensor.numpy()
    config = unwrap(model).config.to_json_string(use_diff=False)
    return {"config": config, "weights": weights, "types": types}


_BIT_TYPES = {torch.bfloat16: torch.int16}


def _unpack_model(state: dict) -> GLiClassModel:
    from .model import GLiClassModel  # imports the models of transformers, which takes long

    config = GLiClassModelConfig(**json.loads(state["config"]))
    # Copied: copy.copy passes the arrays of the original model, and joblib read-only ones.
    weights = {name: torch.tensor(np.asarray(array)) for name, array in state["weights"].items()}
    types = {str(dtype).removeprefix("torch."): dtype for dtype in _BIT_TYPES}
    for name, dtype in state["types"].items():
        weights[name] = weights[name].view(types[dtype])
    return GLiClassModel.from_weights(config, weights, "The stored estimator")


def _pack_tokenizer(tokenizer) -> dict[str, str]:
    """Pack the files of a fast tokenizer, which are texts, by name."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix in _TEXT_FILES]
        return {path.name: path.read_text(encoding="utf-8") for path in paths}


def _unpack_tokenizer(files: dict[str, str]):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            if name != Path(name).name or Path(name).suffix not in _TEXT_FILES:
                raise ValueError(f"{name!r} is not the name of a tokenizer file; the stored estimator is damaged.")
            Path(folder, name).write_text(text, encoding="utf-8")
        return read_tokenizer(folder)
