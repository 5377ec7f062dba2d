"""Number formats and devices by name."""

import contextlib

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def weight_dtype(dtype: str) -> torch.dtype:
    """The type of the weights: bfloat16 is mixed precision, its weights stay float32."""
    return torch.float64 if dtype == "float64" else torch.float32


def autocast(device, dtype: str):
    """Run the matrix products in bfloat16, where `dtype` says so."""
    if dtype != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def find_device(device: str) -> str:
    """Resolve "auto" to a GPU, where there is one."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
