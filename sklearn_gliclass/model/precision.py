"""Floating point types and devices by name."""

import contextlib

import torch

from .onednn import OneDNNInference, OneDNNLinear, is_onednn_faster

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def weight_dtype(dtype: str) -> torch.dtype:
    """Return the dtype of the weights, which is float32 for mixed precision with bfloat16."""
    return torch.float64 if dtype == "float64" else torch.float32


def autocast(device, dtype: str, inference: bool = False):
    """Return the context for matrix products: autocast to bfloat16, or in float32 the faster library.

    Parameters
    ----------
    device : str or torch.device
        Device of the model.
    dtype : str
        A key of ``DTYPES``.
    inference : bool, default=False
        Whether no gradients are computed and the weights are constant while the context is in use.

    Returns
    -------
    context manager
        Reusable context manager.
    """
    kind = torch.device(device).type
    if dtype == "bfloat16":
        return torch.autocast(kind, torch.bfloat16)
    if dtype == "float32" and kind == "cpu" and is_onednn_faster(inference):
        return OneDNNInference() if inference else OneDNNLinear()
    return contextlib.nullcontext()


def find_device(device: str) -> str:
    """Resolve "auto" to a GPU if one is available.

    Raises
    ------
    ValueError
        If this is not the name of a device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not a device of torch; give 'auto', 'cpu', 'cuda', 'cuda:1' (the second GPU) or "
            "'mps'."
        ) from None
    return device


def require_device(device: str) -> str:
    """Resolve a device as :func:`find_device` does, and raise a ValueError if it is not available."""
    found = find_device(device)
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} is not available on this machine ({reason}); set device='auto' or device='cpu'."
        ) from error
    return found
