"""Reading of weights into memory, and validation against the configuration of the model."""

import copy
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from .isolation import process_lock
from .torch_internals import remove_compiled_prefix, unwrap
from .transformers_internals import unexpected_patterns

SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_NAMES_SHOWN = 5
_MAX_SKELETONS = 8
# Pooler of transformers' base models, which is not used here, and often missing in files.
_POOLER = re.compile(r"(^|\.)pooler\.")


# -- files ---------------------------------------------------------------------------------------------------


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON object, or array with ``kind=list``; a damaged file raises an ``OSError`` with its name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(
            f"{str(path)!r} is damaged ({error}): it must hold JSON. Restore or download it again."
        ) from error
    if not isinstance(content, kind):
        what = "object" if kind is dict else "array"
        raise OSError(f"{str(path)!r} is damaged: it must hold a JSON {what}. Restore or download it again.")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a folder into memory, as copies that later changes of the files do not affect.

    Parameters
    ----------
    folder : Path
        Folder of ``model.safetensors`` or the older ``pytorch_model.bin``, in one file or in several with an index.

    Returns
    -------
    dict of str to Tensor
        State dict on the CPU, with the dtypes of the file.

    Raises
    ------
    OSError
        If there is no such file, or it is damaged.
    """
    weights = {}
    for path in _weight_files(folder):
        read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
        try:
            weights.update(read(path))
        except FileNotFoundError as error:
            raise OSError(f"{str(path)!r} is missing; save or download the checkpoint again.") from error
        except (SafetensorError, RuntimeError, EOFError, OSError) as error:
            raise OSError(
                f"{str(path)!r} is damaged or incomplete ({error}); save or download the checkpoint again."
            ) from error
    return weights


def _weight_files(folder: Path) -> list[Path]:
    for single, index in ((SAFETENSORS, INDEX), (TORCH, TORCH_INDEX)):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return [folder / name for name in _shard_names(folder / index)]
    hint = "save or download the checkpoint again"
    if (folder / "adapter_config.json").is_file():
        hint = "it holds only an adapter: load it with peft, merge it with merge_and_unload(), and save that model"
    raise OSError(f"The folder {str(folder)!r} holds no weights ({SAFETENSORS}); {hint}.")


def _shard_names(path: Path) -> list[str]:
    names = read_json(path).get("weight_map")
    names = sorted(set(names.values())) if isinstance(names, dict) else []
    if not names or any(not isinstance(name, str) or name != Path(name).name for name in names):
        raise OSError(f"{str(path)!r} is damaged: its weight_map must name files of the folder.")
    return names


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        # Copied: the tensors of safetensors are views of the mapped file, and its truncation would kill the process.
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's message recommends weights_only=False, which runs code
        raise OSError("it holds other objects than weights, which are not loaded") from None
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


# -- weights of a configuration -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Skeleton:
    """Names and shapes of the weights that a configuration builds.

    Attributes
    ----------
    shapes : dict of str to torch.Size
        Shapes by the names of the state dict.
    shared : list of list of str
        Groups of names of one tensor (tied weights).
    """

    shapes: dict[str, torch.Size]
    shared: list[list[str]]


_skeletons: "OrderedDict[tuple, Skeleton]" = OrderedDict()


def skeleton(model_class: type[nn.Module], config: PretrainedConfig) -> Skeleton:
    """Return names and shapes of the weights; the model is built on the meta device, once per configuration."""
    key = model_class, config.to_json_string(use_diff=False)
    with process_lock():
        if key not in _skeletons:
            with torch.device("meta"):
                model = model_class(copy.deepcopy(config))
            tensors = model.state_dict(keep_vars=True)
            shared: dict[int, list[str]] = {}
            for name, tensor in tensors.items():
                shared.setdefault(id(tensor), []).append(name)
            _skeletons[key] = Skeleton(
                {name: tensor.shape for name, tensor in tensors.items()},
                [names for names in shared.values() if len(names) > 1],
            )
            while len(_skeletons) > _MAX_SKELETONS:
                _skeletons.popitem(last=False)
        return _skeletons[key]


def named_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the state dict of a model, with the names of modules that ``torch.compile`` has wrapped restored.

    Raises
    ------
    ValueError
        If names or shapes do not match the configuration, because modules were replaced or changed: such a model could
        be saved, but not loaded.
    """
    model = unwrap(model)
    weights = {remove_compiled_prefix(name): tensor for name, tensor in model.state_dict().items()}
    shapes = skeleton(type(model), model.config).shapes
    missing, unexpected = shapes.keys() - weights.keys(), weights.keys() - shapes.keys()
    mismatched = [(n, t.shape, shapes[n]) for n, t in weights.items() if n in shapes and t.shape != shapes[n]]
    if missing or unexpected or mismatched:
        raise ValueError(
            "The model cannot be saved, because its weights do not match its configuration: "
            f"{describe_differences(missing, unexpected, mismatched)}. Modules were changed after the model was built: "
            "merge adapters first (peft: model = model.merge_and_unload()), remove parametrizations "
            "(torch.nn.utils.parametrize.remove_parametrizations) and pruning (torch.nn.utils.prune.remove), and "
            "revert changes of model_.config."
        )
    return weights


def fill_shared(weights: Mapping[str, Tensor], shared: Iterable[list[str]], source: str) -> dict[str, Tensor]:
    """Add the missing names of tied weights that are stored under one of their names.

    Raises
    ------
    ValueError
        If two names of tied weights have different values.
    """
    filled = dict(weights)
    for names in shared:
        present = [name for name in names if name in weights]
        for name in present[1:]:
            if not _equal(weights[present[0]], weights[name]):
                raise ValueError(
                    f"{source}: {present[0]} and {name} are tied weights in this configuration, but have different "
                    'values. If gliclass has trained the encoders further, set "tie_encoders" to false in config.json; '
                    "otherwise, the files do not belong together: save the model again."
                )
        filled.update(dict.fromkeys(names, weights[present[0]]) if present else {})
    return filled


def _equal(first: Tensor, second: Tensor) -> bool:
    return first is second or (first.shape == second.shape and torch.equal(first, second))


# -- differences ---------------------------------------------------------------------------------------------


def check_loaded(model: nn.Module, info: dict, source: str, whole: bool = True) -> None:
    """Raise if the weights that were loaded do not match the model.

    Parameters
    ----------
    model : PreTrainedModel
        The model that was loaded.
    info : dict
        Report of transformers with ``output_loading_info=True``.
    source : str
        Origin of the weights, for the error message.
    whole : bool, default=True
        Whether the file may hold only weights of this model. If False, it may hold heads of other tasks too.

    Raises
    ------
    ValueError
        If weights are missing, unexpected or of another shape; the message names them.
    """
    patterns = [pattern for module in model.modules() for pattern in unexpected_patterns(module)]
    buffers = {name for name, _ in model.named_buffers()}
    unexpected = [
        name
        for name in info["unexpected_keys"]
        if not _is_ignored(name, patterns) and name not in buffers and (whole or _is_inside(name, model))
    ]
    missing = [name for name in info["missing_keys"] if not _POOLER.search(name)]
    mismatched = [tuple(entry) for entry in info["mismatched_keys"] if not _POOLER.search(entry[0])]
    if missing or unexpected or mismatched:
        raise ValueError(
            f"{source} does not hold the weights that its config.json describes: "
            f"{describe_differences(missing, unexpected, mismatched)}. Files are incomplete, or config.json was edited "
            "or belongs to other weights: download or save the checkpoint again."
        )


def _is_ignored(name: str, patterns: list[str]) -> bool:
    # Older versions of transformers stored buffers that are now computed.
    return name.endswith(("position_ids", "inv_freq")) or any(re.search(pattern, name) for pattern in patterns)


def _is_inside(name: str, model: nn.Module) -> bool:
    """Return whether a name belongs to the encoder, and not to a head."""
    first = name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
    return first in dict(model.named_children()) and not _POOLER.search(name)


def has_one_name_of_ties(model: PreTrainedModel, info: dict) -> bool:
    """Return whether all missing weights are tied to others that were found.

    Parameters
    ----------
    model : PreTrainedModel
        The model that was loaded.
    info : dict
        Report of transformers with ``output_loading_info=True``.
    """
    missing = {name for name in info["missing_keys"] if not _POOLER.search(name)}
    groups = skeleton(type(model), model.config).shared
    return bool(missing) and missing <= {n for names in groups if not missing.issuperset(names) for n in names}


def describe_differences(missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[tuple]) -> str:
    """Describe the differences: their number, and the first five of each kind.

    Examples
    --------
    >>> describe_differences(["a.weight"], [], [("b.weight", (2,), (3,))])
    '1 missing (a.weight); 1 of another shape (b.weight: (2,) in place of (3,))'
    """
    shapes = [f"{name}: {tuple(found)} in place of {tuple(needed)}" for name, found, needed in mismatched]
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(shapes)}
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:_NAMES_SHOWN])}{', ...' if len(names) > _NAMES_SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    )
