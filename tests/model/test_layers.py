import numpy as np
import pytest
import torch
from tiny_models import randomize

from sklearn_gliclass.model.layers import LayerwiseAttention, LstmSeq2SeqEncoder, Projector


def arrays(module):
    return {name: value.numpy().astype(float) for name, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_projector_is_linear_activation_linear():
    projector = randomize(Projector(6, 10, 4, "relu", dropout=0.5))
    w = arrays(projector)
    x = torch.randn(3, 6)
    hidden = np.maximum(x.numpy() @ w["linear_1.weight"].T + w["linear_1.bias"], 0)
    expected = hidden @ w["linear_2.weight"].T + w["linear_2.bias"]
    np.testing.assert_allclose(projector(x).detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu", "gelu_new", "quick_gelu"])
def test_identity_projector_returns_its_input(activation):
    projector = Projector(6, 12, 6, activation)
    projector.init_identity()
    x = 3 * torch.randn(50, 6)
    torch.testing.assert_close(projector(x), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_rows", [3, 40])
def test_fit_outputs_makes_the_smallest_change(n_rows):
    projector = randomize(Projector(6, 12, 4, "gelu")).double()
    x, wanted = torch.randn(n_rows, 6).double(), torch.randn(n_rows, 4).double()
    before = arrays(projector)
    hidden = projector.act(projector.linear_1(x)).detach().numpy()
    projector.fit_outputs(x, wanted)
    after = arrays(projector)
    missing = wanted.numpy() - hidden @ before["linear_2.weight"].T - before["linear_2.bias"]
    least = np.linalg.lstsq(hidden, missing, rcond=None)[0]  # the smallest of all solutions
    np.testing.assert_allclose(after["linear_2.weight"] - before["linear_2.weight"], least.T, atol=1e-8)
    np.testing.assert_array_equal(after["linear_2.bias"], before["linear_2.bias"])
    if n_rows == 3:
        torch.testing.assert_close(projector(x), wanted)


def test_identity_projector_is_trained():
    projector = Projector(6, 12, 6, "gelu")
    projector.init_identity()
    projector(torch.randn(5, 6)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in projector.parameters())


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
def test_identity_projector_needs_a_fitting_activation(activation):
    with pytest.raises(ValueError, match=r"projector_hidden_act with f\(x\) - f\(-x\) = x"):
        Projector(6, 12, 6, activation).init_identity()


@pytest.mark.parametrize("widths", [(6, 11, 6), (6, 12, 4), (4, 12, 6)])
def test_identity_projector_needs_fitting_widths(widths):
    with pytest.raises(ValueError, match=r"twice\s+the encoder's hidden size"):
        Projector(*widths, "gelu").init_identity()


def lstm_direction(w, states, suffix=""):
    """The four gates of Hochreiter & Schmidhuber 1997, as torch orders them: input, forget, cell, output."""
    size = w[f"lstm.weight_hh_l0{suffix}"].shape[1]
    h, c, outputs = np.zeros(size), np.zeros(size), []
    for state in states:
        gates = w[f"lstm.weight_ih_l0{suffix}"] @ state + w[f"lstm.bias_ih_l0{suffix}"]
        gates = gates + w[f"lstm.weight_hh_l0{suffix}"] @ h + w[f"lstm.bias_hh_l0{suffix}"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]])
def test_lstm_runs_in_both_directions_over_the_mask(mask):
    lstm = randomize(LstmSeq2SeqEncoder(6))
    w, states = arrays(lstm), torch.randn(1, 4, 6)
    output, moved = lstm(states, torch.tensor([mask]))
    own = states[0].numpy()[np.array(mask, bool)]
    expected = np.concatenate([lstm_direction(w, own), lstm_direction(w, own[::-1], "_reverse")[::-1]], axis=1)
    assert output.shape[2] == 6  # both directions in the width of the encoder
    assert moved.tolist() == [sorted(map(bool, mask), reverse=True)]
    np.testing.assert_allclose(output[0, : len(own)].detach(), expected, rtol=1e-4, atol=1e-6)


def test_lstm_of_a_text_without_tokens():
    output, mask = LstmSeq2SeqEncoder(6)(torch.randn(2, 3, 6), torch.tensor([[0, 0, 0], [1, 1, 1]]))
    assert output.isfinite().all()
    assert mask.tolist() == [[False] * 3, [True] * 3]


def test_lstm_needs_an_even_width():
    with pytest.raises(ValueError, match="even hidden size, got 7"):
        LstmSeq2SeqEncoder(7)


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [1, 1, 0, 0]])
def test_layerwise_attention_weights_the_layers(mask):
    """Squeeze and excitation over layers: each has a weight from the mean of its states, without padding."""
    attention = randomize(LayerwiseAttention(3, 6))
    w = arrays(attention)
    layers = torch.randn(3, 1, 4, 6)
    own = layers[:, 0].numpy()[:, np.array(mask, bool)]
    squeezed = (own @ w["squeeze.weight"].T + w["squeeze.bias"]).mean(axis=1)[:, 0]
    excited = np.maximum(w["W1.weight"] @ squeezed + w["W1.bias"], 0)
    weights = sigmoid(w["W2.weight"] @ excited + w["W2.bias"])
    mixed = np.einsum("k,kld->ld", weights, layers[:, 0].numpy())
    expected = mixed @ w["output_projection.weight"].T + w["output_projection.bias"]
    output = attention(tuple(layers), torch.tensor([mask]))
    np.testing.assert_allclose(output[0].detach(), expected, rtol=1e-5, atol=1e-6)
