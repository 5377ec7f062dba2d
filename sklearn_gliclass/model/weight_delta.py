"""Quantised weight deltas: the difference of two sets of weights, with 4 bits per number and a scale per block."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .fingerprint import fingerprint

BLOCK = 64  # numbers that share a scale
_LEVELS = 7  # a number is an integer in -7..7, times the scale of its block


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise to two numbers per byte, and a float16 scale for each block of 64.

    Examples
    --------
    >>> packed, scales = quantize(torch.tensor([0.875, -0.875, 0.125, 0.0]))
    >>> packed.numel(), dequantize(packed, scales, torch.Size([4])).tolist()
    (32, [0.875, -0.875, 0.125, 0.0])
    """
    flat = values.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = (blocks.abs().amax(dim=1) / _LEVELS).half()
    # float16 may round a tiny scale to zero, in which case the block is zero.
    steps = blocks / scales.float().clamp_min(torch.finfo(torch.float16).tiny).unsqueeze(1)
    levels = (steps.round().clamp(-_LEVELS, _LEVELS) + 8).to(torch.uint8).flatten()
    return levels[0::2] | (levels[1::2] << 4), scales


def dequantize(packed: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
    """Restore the values of :func:`quantize`, in float32."""
    levels = torch.stack([packed & 15, packed >> 4], dim=1).flatten().float() - 8
    values = levels.view(-1, BLOCK) * scales.float().unsqueeze(1)
    return values.flatten()[: shape.numel()].view(shape)


def write_weight_delta(base: nn.Module, tuned: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the delta from the weights of `base` to those of `tuned`, without tensors that are equal."""
    tensors = {}
    weights = base.state_dict()
    for name, tensor in tuned.state_dict().items():
        if not torch.equal(tensor, weights[name]):
            tensors[f"{name}.packed"], tensors[f"{name}.scales"] = quantize(tensor - weights[name])
    save_file(tensors, path, metadata={**metadata, "base": fingerprint(base)})


@torch.no_grad()
def add_weight_delta(module: nn.Module, path: Path) -> None:
    """Add a delta of :func:`write_weight_delta` to the module that it was computed for."""
    with safe_open(path, "pt") as file:
        belongs_to = file.metadata()["base"]
    if fingerprint(module) != belongs_to:
        raise ValueError(
            f"The weight delta in {str(path)!r} belongs to other weights than those of the encoder that was found. Set "
            "encoder_model=... to load the encoder without the delta, or remove the local folder of its name."
        )
    tensors = load_file(path)
    weights = module.state_dict()
    for name in {key.rpartition(".")[0] for key in tensors}:
        weights[name] += dequantize(tensors[f"{name}.packed"], tensors[f"{name}.scales"], weights[name].shape)
