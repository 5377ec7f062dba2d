"""Quantised weight deltas: their accuracy, and that they convert the weights of one module to those of another."""

import pytest
import torch
from safetensors import safe_open
from torch import nn

from sklearn_gliclass.model.weight_delta import BLOCK, add_weight_delta, dequantize, quantize, write_weight_delta


@pytest.mark.parametrize("shape", [(3,), (64,), (5, 30), (128, 64)])
def test_quantisation_error_is_at_most_half_a_step(shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    packed, scales = quantize(values)
    restored = dequantize(packed, scales, values.shape)
    n_blocks = -(-values.numel() // BLOCK)
    assert packed.dtype == torch.uint8
    assert packed.numel() == n_blocks * BLOCK // 2
    padded = torch.zeros(n_blocks * BLOCK)
    padded[: values.numel()] = (restored - values).abs().flatten()
    largest = torch.zeros(n_blocks * BLOCK)
    largest[: values.numel()] = values.abs().flatten()
    step = largest.view(-1, BLOCK).amax(1) / 7
    assert (padded.view(-1, BLOCK).amax(1) <= 0.505 * step).all()


def test_zeros_stay_zero():
    assert (dequantize(*quantize(torch.zeros(10)), torch.Size([10])) == 0).all()


def test_difference_leads_from_one_module_to_another(tmp_path):
    torch.manual_seed(0)
    base, tuned = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2)), nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2))
    tuned.load_state_dict(base.state_dict())
    with torch.no_grad():
        tuned[0].weight += 0.01 * torch.randn(8, 32)
    path = tmp_path / "difference.safetensors"
    write_weight_delta(base, tuned, path, {"seed": "0"})
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"0.weight.packed", "0.weight.scales"}  # equal tensors are left out
        assert file.metadata()["seed"] == "0"
    before = (tuned[0].weight - base[0].weight).norm()
    add_weight_delta(base, path)
    assert (tuned[0].weight - base[0].weight).norm() < 0.12 * before
    assert torch.equal(tuned[1].weight, base[1].weight)


def test_difference_to_another_module_raises(tmp_path):
    base, tuned = nn.Linear(4, 4), nn.Linear(4, 4)
    write_weight_delta(base, tuned, tmp_path / "d.safetensors", {})
    with pytest.raises(ValueError, match="belongs to other weights"):
        add_weight_delta(nn.Sequential(nn.Linear(4, 4)), tmp_path / "d.safetensors")
