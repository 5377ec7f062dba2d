"""Weights by name: read from files without staying tied to them, and checked against what a configuration builds."""

import copy
import json
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PretrainedConfig

from .isolation import process_lock

SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_NAMES_SHOWN = 5
_MAX_SKELETONS = 8
# torch.compile puts the module that it wraps under this name.
_COMPILED = "_orig_mod."
# transformers' base models have a pooler, which nothing here reads; files often lack it.
_POOLER = re.compile(r"(^|\.)pooler\.")


# -- files ---------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict:
    """Read a JSON object; a damaged file raises an ``OSError`` that names it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(
            f"{str(path)!r} is damaged ({error}): it must hold JSON. Restore or download it again."
        ) from error
    if not isinstance(content, dict):
        raise OSError(f"{str(path)!r} is damaged: it must hold a JSON object. Restore or download it again.")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a folder into memory; later changes of the files do not reach them.

    Parameters
    ----------
    folder : Path
        Holds ``model.safetensors`` or, from older programs, ``pytorch_model.bin``; one file or several with an index.

    Returns
    -------
    dict of str to Tensor
        On the CPU, in the types of the file.

    Raises
    ------
    OSError
        There is no such file, or it is damaged.
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
    advice = "save or download the checkpoint again"
    if (folder / "adapter_config.json").is_file():
        advice = "it holds an adapter alone: load it with peft, merge it with merge_and_unload(), and save that model"
    raise OSError(f"The folder {str(folder)!r} holds no weights ({SAFETENSORS}); {advice}.")


def _shard_names(path: Path) -> list[str]:
    names = read_json(path).get("weight_map")
    names = sorted(set(names.values())) if isinstance(names, dict) else []
    if not names or any(not isinstance(name, str) or name != Path(name).name for name in names):
        raise OSError(f"{str(path)!r} is damaged: its weight_map must name files of the folder.")
    return names


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        # The tensors of safetensors are views of the mapped file: who truncates it would end this process.
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own message advises to run what the file holds
        raise OSError("it holds something else than weights, and is not read further") from None
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


# -- what a configuration builds -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Skeleton:
    """Names and shapes of the weights that a configuration builds.

    Attributes
    ----------
    shapes : dict of str to torch.Size
        By name, as in the state dict.
    shared : list of list of str
        Names that stand for one and the same tensor.
    """

    shapes: dict[str, torch.Size]
    shared: list[list[str]]


_skeletons: "OrderedDict[tuple, Skeleton]" = OrderedDict()


def skeleton(model_class: type[nn.Module], config: PretrainedConfig) -> Skeleton:
    """Return names and shapes of the weights; the model is built without memory, once for each configuration."""
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


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` has wrapped, or the model itself."""
    return getattr(model, "_orig_mod", model)


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a model under the names that its configuration builds.

    Modules that ``torch.compile`` has wrapped are unwrapped.

    Raises
    ------
    ValueError
        Names or shapes differ from what the configuration builds, because modules were replaced or changed from
        outside: such a model could be saved, but not loaded.
    """
    model = unwrap(model)
    weights = {name.replace(_COMPILED, ""): tensor for name, tensor in model.state_dict().items()}
    shapes = skeleton(type(model), model.config).shapes
    missing, unexpected = shapes.keys() - weights.keys(), weights.keys() - shapes.keys()
    mismatched = [(n, t.shape, shapes[n]) for n, t in weights.items() if n in shapes and t.shape != shapes[n]]
    if missing or unexpected or mismatched:
        raise ValueError(
            "The model cannot be saved, because its configuration does not build its weights: "
            f"{describe_differences(missing, unexpected, mismatched)}. Modules were changed after the model was built: "
            "merge adapters first (peft: model = model.merge_and_unload()), remove parametrizations "
            "(torch.nn.utils.parametrize.remove_parametrizations) and pruning (torch.nn.utils.prune.remove), and "
            "undo changes of model_.config."
        )
    return weights


def fill_shared(weights: Mapping[str, Tensor], shared: Iterable[list[str]], source: str) -> dict[str, Tensor]:
    """Return the weights with every name of a tensor that is stored under one of its names.

    Raises
    ------
    ValueError
        Two names of one tensor have different values.
    """
    filled = dict(weights)
    for names in shared:
        present = [name for name in names if name in weights]
        for name in present[1:]:
            if not _equal(weights[present[0]], weights[name]):
                raise ValueError(
                    f"{source}: {present[0]} and {name} are one weight in this configuration, and have different "
                    "values. The configuration does not belong to the weights (tie_encoders?); save the model again."
                )
        filled.update(dict.fromkeys(names, weights[present[0]]) if present else {})
    return filled


def _equal(first: Tensor, second: Tensor) -> bool:
    return first is second or (first.shape == second.shape and torch.equal(first, second))


# -- differences ---------------------------------------------------------------------------------------------


def check_loaded(model: nn.Module, info: dict, source: str, whole: bool = True) -> None:
    """Raise where the weights given were not those that the model needs.

    Parameters
    ----------
    model : PreTrainedModel
        The model that was loaded.
    info : dict
        What transformers reports with ``output_loading_info=True``.
    source : str
        Where the weights came from, for the message.
    whole : bool, default=True
        The weights are those of this model alone. False: of an encoder, whose file may hold the heads of other tasks.

    Raises
    ------
    ValueError
        Weights are missing, unexpected or of another shape; the message names them.
    """
    patterns = _ignored_patterns(model)
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


def _ignored_patterns(model: nn.Module) -> list[str]:
    modules = (module for module in model.modules() if hasattr(module, "_keys_to_ignore_on_load_unexpected"))
    return [pattern for module in modules for pattern in module._keys_to_ignore_on_load_unexpected or ()]


def _is_ignored(name: str, patterns: list[str]) -> bool:
    # Older programs stored buffers that are computed today.
    return name.endswith(("position_ids", "inv_freq")) or any(re.search(pattern, name) for pattern in patterns)


def _is_inside(name: str, model: nn.Module) -> bool:
    """Whether a name is that of a part of the encoder, not of a head beside it."""
    first = name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
    return first in dict(model.named_children()) and not _POOLER.search(name)


def describe_differences(missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[tuple]) -> str:
    """Name the differences: the first five of each kind, and how many there are.

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
