"""oneDNN's linear layers against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sklearn_gliclass.model import onednn, precision
from sklearn_gliclass.model.onednn import OneDNNLinear, linear, onednn_pays
from sklearn_gliclass.model.precision import autocast

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN")


@pytest.fixture
def calls(monkeypatch):
    """The shapes that go to oneDNN."""
    seen = []
    monkeypatch.setattr(onednn, "linear", lambda *args: seen.append(tuple(args[0].shape)) or linear(*args))
    return seen


def random(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(300, 128), (4, 75, 128)])
def test_values_and_gradients(shape, bias, calls):
    layer = nn.Linear(128, 160, bias=bias)
    results = []
    for context in (OneDNNLinear(), precision.contextlib.nullcontext()):
        inputs = random(*shape).requires_grad_()
        layer.zero_grad()
        with context:
            outputs = layer(inputs)
        outputs.square().mean().backward()
        results.append([outputs, inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    assert calls == [shape]
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", ["inputs", "weight", "bias", "weight and bias"])
def test_gradients_beside_frozen_parts(frozen):
    results = []
    for function in (linear, F.linear):
        parts = {"inputs": random(300, 128), "weight": random(160, 128), "bias": random(160)}
        for name, part in parts.items():
            part.requires_grad_(name not in frozen)
        function(*parts.values()).square().mean().backward()
        results.append({name: part.grad for name, part in parts.items() if part.grad is not None})
    assert results[0].keys() == results[1].keys() == {"inputs", "weight", "bias"} - set(frozen.split(" and "))
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], rtol=1e-4, atol=1e-5)


def test_inputs_that_are_no_whole_blocks_of_memory(calls):
    inputs, weight = random(128, 300).T, random(160, 128)
    with OneDNNLinear():
        torch.testing.assert_close(F.linear(inputs, weight), inputs @ weight.T, rtol=1e-4, atol=1e-4)
    assert calls == [(300, 128)]


@pytest.mark.parametrize(
    ("inputs", "weight"),
    [
        (random(2, 128), random(160, 128)),
        (random(300, 128).double(), random(160, 128).double()),
        (random(300, 128).bfloat16(), random(160, 128).bfloat16()),
        (random(300, 128), random(128, 160).T),
    ],
    ids=["small", "float64", "bfloat16", "weight in columns"],
)
def test_what_stays_with_torch(inputs, weight, calls):
    with OneDNNLinear():
        outputs = F.linear(inputs, weight)
    assert torch.equal(outputs, F.linear(inputs, weight))
    assert calls == []


def test_one_measurement_a_process(monkeypatch):
    assert isinstance(onednn_pays(), bool)
    monkeypatch.setattr(onednn, "time", None)
    onednn_pays()


@pytest.mark.parametrize(("dtype", "pays", "expected"), [
    ("float32", True, OneDNNLinear),
    ("float32", False, precision.contextlib.nullcontext),
    ("float64", True, precision.contextlib.nullcontext),
    ("bfloat16", True, torch.autocast),
])  # fmt: skip
def test_where_it_is_used(dtype, pays, expected, monkeypatch):
    monkeypatch.setattr(precision, "onednn_pays", lambda: pays)
    assert type(autocast("cpu", dtype)) is expected
