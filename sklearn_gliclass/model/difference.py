"""Weights as a small difference to other weights: 4 bits a number, a scale a block."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .fingerprint import fingerprint

BLOCK = 64  # numbers that share a scale
_LEVELS = 7  # a number is one of -7..7 times its block's scale


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers a byte, and a float16 scale for each block of 64.

    Examples
    --------
    >>> packed, scales = quantize(torch.tensor([0.875, -0.875, 0.125, 0.0]))
    >>> packed.numel(), dequantize(packed, scales, torch.Size([4])).tolist()
    (32, [0.875, -0.875, 0.125, 0.0])
    """
    flat = values.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = (blocks.abs().amax(dim=1) / _LEVELS).half()
    # float16 may round a tiny scale to zero: such a block is zero.
    steps = blocks / scales.float().clamp_min(torch.finfo(torch.float16).tiny).unsqueeze(1)
    levels = (steps.round().clamp(-_LEVELS, _LEVELS) + 8).to(torch.uint8).flatten()
    return levels[0::2] | (levels[1::2] << 4), scales


def dequantize(packed: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
    """What :func:`quantize` packed, in float32."""
    levels = torch.stack([packed & 15, packed >> 4], dim=1).flatten().float() - 8
    values = levels.view(-1, BLOCK) * scales.float().unsqueeze(1)
    return values.flatten()[: shape.numel()].view(shape)


def write_difference(base: nn.Module, tuned: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write what turns the weights of `base` into those of `tuned`; tensors that are equal are left out."""
    tensors = {}
    weights = base.state_dict()
    for name, tensor in tuned.state_dict().items():
        if not torch.equal(tensor, weights[name]):
            tensors[f"{name}.packed"], tensors[f"{name}.scales"] = quantize(tensor - weights[name])
    save_file(tensors, path, metadata={**metadata, "base": fingerprint(base)})


@torch.no_grad()
def add_difference(module: nn.Module, path: Path, share: float = 1.0) -> None:
    """Add a difference that :func:`write_difference` wrote, or a share of it, to the module that it belongs to."""
    with safe_open(path, "pt") as file:
        belongs_to = file.metadata()["base"]
    if fingerprint(module) != belongs_to:
        raise ValueError(
            f"The difference in {str(path)!r} belongs to other weights than those that were found. Name the encoder "
            "with encoder_model=..., which starts from it as it is; or remove the folder that stands in its place."
        )
    tensors = load_file(path)
    weights = module.state_dict()
    for name in {key.rpartition(".")[0] for key in tensors}:
        weights[name] += share * dequantize(tensors[f"{name}.packed"], tensors[f"{name}.scales"], weights[name].shape)
