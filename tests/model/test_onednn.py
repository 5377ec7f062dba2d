"""Linear layers of oneDNN against those of torch."""

import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertModel

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model import onednn, precision
from sklearn_gliclass.model.onednn import (
    OneDNNInference,
    OneDNNLinear,
    infer_linear,
    is_onednn_faster,
    linear,
    linear_gelu,
)
from sklearn_gliclass.model.packed import disable_packing, run_encoder
from sklearn_gliclass.model.precision import autocast
from sklearn_gliclass.testing import TINY

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN")


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the products that oneDNN computes."""
    seen = []
    monkeypatch.setattr(onednn, "linear", lambda *args: seen.append(tuple(args[0].shape)) or linear(*args))
    return seen


def random(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(300, 128), (4, 75, 128)])
def test_values_and_gradients_equal_those_of_torch(shape, bias, calls):
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


def test_strided_inputs_are_supported(calls):
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
def test_unsupported_products_use_torch(inputs, weight, calls):
    with OneDNNLinear():
        outputs = F.linear(inputs, weight)
    assert torch.equal(outputs, F.linear(inputs, weight))
    assert calls == []


def test_gelu_runs_in_training_mode(calls):
    """Validation during the training runs this: oneDNN computes the product."""
    inputs, weight, bias = random(300, 128), random(160, 128), random(160)
    with OneDNNLinear():
        outputs = linear_gelu(inputs, weight, bias)
    torch.testing.assert_close(outputs, F.gelu(F.linear(inputs, weight, bias)), rtol=1e-4, atol=1e-5)
    assert calls == [(300, 128)]


@pytest.fixture
def inferred(monkeypatch):
    """Shape of the inputs, layout of the weight and activation of oneDNN's products without gradients."""
    seen = []

    def note(inputs, weight, *bias, activation):
        seen.append((tuple(inputs.shape), weight.layout, activation))
        return infer_linear(inputs, weight, *bias, activation=activation)

    monkeypatch.setattr(onednn, "infer_linear", note)
    return seen


@pytest.mark.parametrize("bias", [random(160), None], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", [(300, 128), (4, 75, 128)])
@pytest.mark.parametrize(("function", "activation"), [(F.linear, "none"), (linear_gelu, "gelu")])
def test_inference_agrees_with_torch(function, activation, shape, bias, inferred):
    """The first product uses the weight directly, later ones its copy in oneDNN's layout, for any number of rows."""
    inputs, weight = random(*shape), nn.Parameter(random(160, 128))
    products = OneDNNInference()
    for some in (inputs, inputs, inputs[:, :128] if inputs.dim() == 3 else inputs[:250]):
        with products, torch.inference_mode():
            outputs = function(some, weight, bias)
        expected = some.double() @ weight.double().T + (0 if bias is None else bias)
        if activation == "gelu":  # the exact formula
            expected = expected * (1 + torch.erf(expected / 2**0.5)) / 2
        torch.testing.assert_close(outputs.double(), expected, rtol=1e-5, atol=1e-5)
    assert [layout for _, layout, _ in inferred] == [torch.strided, torch._mkldnn, torch._mkldnn]
    assert inferred[0] == (shape, torch.strided, activation)


def test_inference_does_not_cache_computed_weights(inferred):
    """They are not cached, and may have any memory layout."""
    products = OneDNNInference()
    for number in range(3):
        inputs, weight = random(128, 300).T, random(160 + number, 128)
        with products, torch.inference_mode():
            torch.testing.assert_close(F.linear(inputs, weight), inputs @ weight.T, rtol=1e-4, atol=1e-4)
    assert len(inferred) == 3
    assert products.weights == {}


def test_inference_leaves_small_products_to_torch(inferred):
    inputs, weight = random(2, 128), random(160, 128)
    with OneDNNInference(), torch.inference_mode():
        assert torch.equal(F.linear(inputs, weight), inputs @ weight.T)
        assert torch.equal(linear_gelu(inputs, weight), F.gelu(inputs @ weight.T))
    assert inferred == []


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_activation_is_fused_if_it_is_exact_gelu(activation, inferred):
    """The exact GELU is fused with the product; other activations are computed separately."""
    encoder = BertModel(
        BertConfig(vocab_size=50, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
                   hidden_act=activation)
    ).eval()  # fmt: skip
    ids = torch.randint(3, 50, (10, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        with disable_packing():
            expected = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        with OneDNNInference():
            outputs = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    assert [name for _, _, name in inferred].count("gelu") == (2 if activation == "gelu" else 0)


@pytest.mark.parametrize("architecture_type", ["uni-encoder", "bi-encoder"])
def test_predictions_agree_between_libraries(architecture_type, monkeypatch, inferred):
    texts = [f"{word} {number} text" for word in ("good", "bad") for number in range(200)]
    clf = GLiClassClassifier(architecture_type=architecture_type, random_state=0, **TINY).fit(
        texts, ["good", "bad"] * 200
    )
    probabilities = []
    for pays in (True, False):
        inferred.clear()
        monkeypatch.setattr(precision, "is_onednn_faster", lambda inference=False, pays=pays: pays)
        monkeypatch.setattr(onednn, "MIN_MULTIPLICATIONS", 1000)
        probabilities.append(clf.predict_proba(texts))
        assert bool(inferred) is pays
    np.testing.assert_allclose(*probabilities, atol=1e-5)


def test_weights_may_change_between_calls(monkeypatch):
    """A copy in oneDNN's layout is never older than the call."""
    monkeypatch.setattr(precision, "is_onednn_faster", lambda inference=False: True)
    monkeypatch.setattr(onednn, "MIN_MULTIPLICATIONS", 1000)
    texts = [f"text {number}" for number in range(400)]
    clf = GLiClassClassifier(random_state=0, **TINY).fit(texts, ["a", "b"] * 200)
    before = clf.predict_proba(texts)
    clf.partial_fit(texts, ["b", "a"] * 200)
    after = clf.predict_proba(texts)
    monkeypatch.setattr(precision, "is_onednn_faster", lambda inference=False: False)
    np.testing.assert_allclose(after, clf.predict_proba(texts), atol=1e-5)
    assert abs(after - before).max() > 1e-4


@pytest.mark.parametrize("inference", [False, True])
def test_speedup_is_measured_once_per_process(inference, monkeypatch):
    assert isinstance(is_onednn_faster(inference), bool)
    monkeypatch.setattr(onednn, "time", None)
    is_onednn_faster(inference)


@pytest.mark.parametrize(("context", "product"), [(OneDNNLinear, "linear"), (OneDNNInference, "infer_linear")])
def test_speedup_is_that_of_the_products(context, product, monkeypatch):
    function = getattr(onednn, product)

    def slow(*args, **kwargs):
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return function(*args, **kwargs)

    monkeypatch.setattr(onednn, product, slow)
    assert onednn.measure_speedup.__wrapped__(context) < 0.5


@pytest.mark.parametrize(("measured", "inference", "pays"), [
    (1.3, False, True), (1.2, False, False), (1.05, True, True), (0.95, True, False),
])  # fmt: skip
def test_onednn_is_used_above_the_minimum_speedup(measured, inference, pays, monkeypatch):
    monkeypatch.setattr(onednn, "measure_speedup", lambda context: measured)
    assert is_onednn_faster(inference) is pays


@pytest.mark.parametrize(("dtype", "pays", "inference", "expected"), [
    ("float32", True, False, OneDNNLinear),
    ("float32", True, True, OneDNNInference),
    *((dtype, pays, inference, expected) for inference in (False, True) for dtype, pays, expected in [
        ("float32", False, precision.contextlib.nullcontext),
        ("float64", True, precision.contextlib.nullcontext),
        ("bfloat16", True, torch.autocast),
    ]),
])  # fmt: skip
def test_onednn_is_used_for_float32_on_cpu(dtype, pays, inference, expected, monkeypatch):
    monkeypatch.setattr(precision, "is_onednn_faster", lambda inference: pays)
    assert type(autocast("cpu", dtype, inference)) is expected
