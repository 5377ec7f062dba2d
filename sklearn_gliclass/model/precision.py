"""Number formats and devices by name."""

import contextlib

import torch

from .onednn import OneDNNInference, OneDNNLinear, onednn_pays

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def weight_dtype(dtype: str) -> torch.dtype:
    """The type of the weights: bfloat16 is mixed precision, its weights stay float32."""
    return torch.float64 if dtype == "float64" else torch.float32


def autocast(device, dtype: str, inference: bool = False):
    """How matrix products are computed: in bfloat16, where `dtype` says so; in float32 by the faster library.

    Parameters
    ----------
    device : str or torch.device
        Where the model is.
    dtype : str
        A key of ``DTYPES``.
    inference : bool, default=False
        No gradient is asked for, and the weights stay as they are while the result is in use.

    Returns
    -------
    context manager
        May be entered many times.
    """
    kind = torch.device(device).type
    if dtype == "bfloat16":
        return torch.autocast(kind, torch.bfloat16)
    if dtype == "float32" and kind == "cpu" and onednn_pays(inference):
        return OneDNNInference() if inference else OneDNNLinear()
    return contextlib.nullcontext()


def find_device(device: str) -> str:
    """Resolve "auto" to a GPU, where there is one.

    Raises
    ------
    ValueError
        This is not the name of a device.
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
    """Resolve a device as :func:`find_device` does, and raise a ValueError where this machine lacks it."""
    found = find_device(device)
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} is not available on this machine ({reason}); set device='auto' or device='cpu'."
        ) from error
    return found
