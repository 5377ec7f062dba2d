"""Fingerprints of weights: equal weights have equal fingerprints, in every process."""

import copy
import hashlib
import weakref
from collections import Counter, OrderedDict

import torch
from torch import nn

from .locks import ForkSafeLock
from .torch_internals import Model, change_counter
from .traversal import collect_parameters, walk

_SAMPLE_STRIDE = 4099  # a prime, so that all columns of a matrix are sampled

_IMMUTABLE = (str, int, float, bool, type(None), type, torch.dtype)

# Modules and their copies that share weights. An origin may be deleted before its copies, which still share them.
_sharing: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
_sharing_lock = ForkSafeLock()  # for each use of the set: another thread may load an encoder meanwhile

# Module -> (state for change detection, its fingerprint or the module that it is a copy of).
_known: "weakref.WeakKeyDictionary[nn.Module, tuple]" = weakref.WeakKeyDictionary()


def fingerprint(module: nn.Module) -> str:
    """Return a hash of the names, types and values of all weights, computed again only if they may have changed."""
    look = _detect_state(module)
    seen, known = _known.get(module, (None, None))
    if seen == look:
        if isinstance(known, str):
            return known
        source = known()
        digest = fingerprint(source) if source is not None else _digest(module)
    else:
        digest = _digest(module)
    _known[module] = (look, digest)
    return digest


def forget(module: nn.Module) -> None:
    """Discard the fingerprint of a module whose weights have been trained."""
    _known.pop(module, None)


def copy_with_fingerprint(module: Model, shares_weights: bool = False, memo: dict | None = None) -> Model:
    """Return a deep copy that shares the fingerprint until it is changed.

    Parameters
    ----------
    module : torch.nn.Module
        Module to copy.
    shares_weights : bool, default=False
        Whether both have the same weights in memory, for modules that are not trained; see :func:`own_trained_weights`.
    memo : dict, optional
        Copies by the id of their originals, as in ``copy.deepcopy``; it is extended.
    """
    memo = {} if memo is None else memo
    keep_hooks(module, memo)
    copied = _copy_around_weights(module, memo) if shares_weights else copy.deepcopy(module, memo)
    _known[copied] = (_detect_state(copied), weakref.ref(module))
    if shares_weights:
        with _sharing_lock.hold():
            _sharing.update([module, copied])
    return copied


def keep_hooks(module: nn.Module, memo: dict) -> None:
    """Let a copy have the hooks of a module, and not copies of them with all that they belong to."""
    for part in walk([module]):
        for name, hooks in vars(part).items():
            if name.endswith("_hooks") and hooks:
                memo.update((id(hook), hook) for hook in hooks.values())


def _copy_around_weights(module: Model, memo: dict) -> Model:
    """Copy a module deeply, with new parameters that have the same memory."""
    if id(module) in memo:
        return memo[id(module)]
    copied = memo[id(module)] = type(module).__new__(type(module))
    copied.__dict__ = {name: _copy_attribute(name, value, memo) for name, value in vars(module).items()}
    return copied


def _copy_attribute(name: str, value, memo: dict):
    if name == "_modules":
        return {key: child and _copy_around_weights(child, memo) for key, child in value.items()}
    if name == "_parameters":
        return {key: None if weight is None else _copy_parameter(weight, memo) for key, weight in value.items()}
    if isinstance(value, _IMMUTABLE):
        return value
    if type(value) in (dict, OrderedDict, set) and not value:  # a module has a dozen of them, for hooks
        return type(value)()
    return copy.deepcopy(value, memo)


def _copy_parameter(weight: nn.Parameter, memo: dict) -> nn.Parameter:
    """Copy a parameter, which may be that of several modules."""
    if id(weight) not in memo:
        # The version counter is shared with the memory.
        memo[id(weight)] = nn.Parameter(weight.detach(), weight.requires_grad)
    return memo[id(weight)]


def own_trained_weights(model: nn.Module) -> None:
    """Give the parameters that are trained memory of their own, where that is shared with other models."""
    with _sharing_lock.hold():
        sharing = set(_sharing)
    copies = [module for module in walk([model]) if module in sharing]
    trained = [parameter for parameter in collect_parameters(copies) if parameter.requires_grad]
    if not trained:  # a frozen fit, which does not look at all copies
        return
    distinct = {id(parameter): parameter for parameter in collect_parameters(sharing)}
    n_owners = Counter(parameter.data_ptr() for parameter in distinct.values())
    for parameter in trained:
        if n_owners[parameter.data_ptr()] > 1:
            parameter.data = parameter.data.clone()


def _detect_state(module: nn.Module) -> tuple:
    """Return a state that detects most changes within a millisecond.

    It includes a sample of values, as fused optimisers do not increase the version counter of a tensor.
    """
    return tuple(
        (name, tensor.data_ptr(), change_counter(tensor), tensor.dtype, tensor.device, sample_sum(tensor))
        for name, tensor in module.named_parameters()
    )


def sample_sum(tensor: torch.Tensor) -> float:
    """Compute the sum of every 4099th value."""
    return float(tensor.detach().reshape(-1)[::_SAMPLE_STRIDE].sum(dtype=torch.float64))


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.named_parameters():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
