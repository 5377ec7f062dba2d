"""Layers with a gradient of their own against those of transformers, with the same masks of dropout."""

import pytest
import torch
from test_packed import MIXED, batch_of, encoder_of, gradients, some_of

from sklearn_gliclass.model import bert_layer
from sklearn_gliclass.model.bert_layer import fuses, sample_mask
from sklearn_gliclass.model.onednn import OneDNNLinear
from sklearn_gliclass.model.packed import run_encoder

RATES = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}
NO_DROPOUT = dict.fromkeys(RATES, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7])
def test_masks_keep_the_share_of_the_rate(rate, dtype):
    values = torch.ones(301, 333, dtype=dtype)  # an odd number of them
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        mask = sample_mask(values, rate)
        masks.append(mask.keep(values))
        assert mask.scale == pytest.approx(1 / (1 - rate))
    assert set(masks[0].unique().tolist()) == {0.0, 1.0}
    error = (rate * (1 - rate) / values.numel()) ** 0.5
    assert masks[0].mean().item() == pytest.approx(1 - rate, abs=4 * error)
    assert torch.equal(masks[0], masks[1])
    assert (masks[0] * masks[2]).mean().item() == pytest.approx((1 - rate) ** 2, abs=8 * error)
    assert masks[0][:, 1:].mul(masks[0][:, :-1]).mean().item() == pytest.approx((1 - rate) ** 2, abs=8 * error)


def test_extreme_rates_keep_all_or_nothing():
    assert sample_mask(torch.ones(3), 0.0) is None
    assert not sample_mask(torch.ones(3), 1.0).keep(torch.ones(3)).any()


def drop(values, p=0.5, training=True, inplace=False):
    mask = sample_mask(values, p if training else 0.0)
    return values if mask is None else mask.keep(values) * mask.scale


def test_dropout_and_gradients_equal_those_of_transformers(monkeypatch):
    """Texts of one length are one group without padding, so that the masks have the same shapes in both passes."""
    encoder = encoder_of("bert", attn_implementation="eager", **RATES).double().train()
    ids, mask = batch_of([6] * 4, encoder)
    monkeypatch.setattr(torch.nn.functional, "dropout", drop)
    results = []
    for run in (encoder, lambda attention_mask, input_ids: run_encoder(encoder, attention_mask, input_ids=input_ids)):
        torch.manual_seed(0)
        states = run(attention_mask=mask, input_ids=ids).last_hidden_state
        results.append((states, gradients(encoder, states, mask)))
    (plain, expected), (ours, found) = results
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-9, msg=name)
    with torch.no_grad():
        quiet = run_encoder(encoder.eval(), mask, input_ids=ids).last_hidden_state
    assert not torch.allclose(ours, quiet, atol=0.01)


@pytest.mark.parametrize("selects", [False, True], ids=["all", "some queries"])
def test_gradient_with_dropout_is_the_slope(selects):
    """Padded texts, against the difference quotient along a random direction, with the same random numbers."""
    encoder = encoder_of("bert", **RATES).double().train()
    ids, mask = batch_of(MIXED, encoder)
    read = some_of(mask) if selects else mask.bool()
    weights = list(encoder.encoder.parameters())

    def loss():
        torch.manual_seed(0)
        states = run_encoder(encoder, mask, read=read, input_ids=ids).last_hidden_state[read]
        return (states * torch.linspace(-1, 1, states.numel()).double().view_as(states)).sum()

    torch.autograd.backward(loss())
    direction = [torch.randn(weight.shape, dtype=weight.dtype) for weight in weights]
    expected = sum((weight.grad * step).sum() for weight, step in zip(weights, direction, strict=True))
    sides = []
    for size in (1e-6, -1e-6):
        with torch.no_grad():
            for weight, step in zip(weights, direction, strict=True):
                weight.add_(step, alpha=size)
        sides.append(loss().item())
        with torch.no_grad():
            for weight, step in zip(weights, direction, strict=True):
                weight.sub_(step, alpha=size)
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("pairs", [0, 30, 10**9], ids=["one length each", "some padding", "one group"])
def test_groups_do_not_change_gradients(pairs, monkeypatch):
    monkeypatch.setattr(bert_layer, "PAIRS_PER_GROUP", pairs)
    encoder = encoder_of("bert", **NO_DROPOUT).double().train()
    ids, mask = batch_of(MIXED, encoder)
    ours = gradients(encoder, run_encoder(encoder, mask, input_ids=ids).last_hidden_state, mask)
    plain = gradients(encoder, encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-9, atol=1e-10, msg=name)


def test_groups_join_similar_lengths(monkeypatch):
    monkeypatch.setattr(bert_layer, "PAIRS_PER_GROUP", 30)
    lengths = torch.tensor([1, 2, 7, 7, 8, 20])
    layout = bert_layer.plan_heads(lengths, lengths, n_heads=2)
    assert [(group.n_texts, group.length, group.bias is None) for group in layout.groups] == [
        (2, 2, False), (3, 8, False), (1, 20, True)
    ]  # fmt: skip
    assert len(layout.keys) == 2 * (2 * 2 + 3 * 8 + 20)
    assert torch.equal(layout.keys[layout.from_keys], torch.arange(2 * 45))


@pytest.mark.parametrize("frozen", ["query.weight", "value.bias", "LayerNorm", "intermediate", "layer.0"])
def test_frozen_parts_have_no_gradient(frozen):
    encoder = encoder_of("bert", **NO_DROPOUT).double().train()
    ids, mask = batch_of(MIXED, encoder)
    expected = gradients(encoder, encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    for name, weight in encoder.named_parameters():
        weight.requires_grad_(frozen not in name and (frozen != "layer.0" or "embeddings" not in name))
    found = gradients(encoder, run_encoder(encoder, mask, input_ids=ids).last_hidden_state, mask)
    trained = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert found.keys() == expected.keys() & trained
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-10, msg=name)


def test_onednn_computes_the_same(monkeypatch):
    monkeypatch.setattr("sklearn_gliclass.model.onednn.MIN_MULTIPLICATIONS", 0)
    encoder = encoder_of("bert", **NO_DROPOUT).train()
    ids, mask = batch_of(MIXED, encoder)
    plain = gradients(encoder, run_encoder(encoder, mask, input_ids=ids).last_hidden_state, mask)
    with OneDNNLinear():
        states = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    for name, gradient in gradients(encoder, states, mask).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-4, msg=name)


def test_other_layers_are_computed_by_autograd():
    layer = encoder_of("bert", **RATES).encoder.layer[0]
    states = torch.ones(1, 32)
    assert fuses(layer, states, 9)
    assert not fuses(layer, states.double(), 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fuses(layer, states, 9)
    assert not fuses(layer.eval(), states, 129)
    assert fuses(layer.train(), states, 129)  # with dropout
    handle = layer.output.dense.register_forward_hook(lambda *_: None)
    assert not fuses(layer, states, 9)
    handle.remove()
    assert fuses(layer, states, 9)
    assert not fuses(encoder_of("bert", hidden_act="relu").encoder.layer[0], states, 9)
