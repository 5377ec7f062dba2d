"""A name for the weights of a module: equal weights have equal names, in every process."""

import copy
import hashlib
import weakref

import torch
from torch import nn

_SAMPLE_STRIDE = 4099  # a prime: columns of a matrix are not skipped over

# Module -> (what a look at it shows, its fingerprint or the module that it is a copy of).
_known: "weakref.WeakKeyDictionary[nn.Module, tuple]" = weakref.WeakKeyDictionary()


def fingerprint(module: nn.Module) -> str:
    """Hash of the names, types and values of all weights; worked out again only where they may have changed."""
    look = _look(module)
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
    """Hash the weights anew next time: they have been trained."""
    _known.pop(module, None)


def copy_with_fingerprint(module: nn.Module) -> nn.Module:
    """A deep copy that need not be hashed while it stays as it is."""
    copied = copy.deepcopy(module)
    _known[copied] = (_look(copied), weakref.ref(module))
    return copied


def _look(module: nn.Module) -> tuple:
    """What can be seen in a millisecond. Fused optimisers don't count a tensor's versions up: a sample of values."""
    return tuple(
        (name, tensor.data_ptr(), tensor._version, tensor.dtype, tensor.device, sample_sum(tensor))
        for name, tensor in module.named_parameters()
    )


def sample_sum(tensor: torch.Tensor) -> float:
    """Sum of every 4099th value."""
    return float(tensor.detach().reshape(-1)[::_SAMPLE_STRIDE].sum(dtype=torch.float64))


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.named_parameters():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
