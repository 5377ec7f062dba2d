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
    """Resolve "auto" to a GPU, where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
