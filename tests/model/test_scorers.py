from math import erf

import numpy as np
import pytest
import torch
from tiny_models import randomize, tiny_config

from sklearn_gliclass.model import scorers
from sklearn_gliclass.model.scorers import (
    DOT_PRODUCT_SCORERS,
    MLP_HIDDEN_SIZES,
    RESERVED_AXIS,
    SCORERS,
    TEXT_COMPONENT,
    TOKEN_SCORERS,
    _drop,
)

WIDTH, HEADS = 8, 2


def linear(weights, name, x):
    result = x @ weights[f"{name}.weight"].T
    return result + weights[f"{name}.bias"] if f"{name}.bias" in weights else result


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def layer_norm(weights, name, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mlp(weights, name, x, activation):
    for layer in ("0", "2"):
        x = activation(linear(weights, f"{name}.{layer}", x))
    return linear(weights, f"{name}.4", x)[..., 0]


def simple(w, text, labels):
    return np.array([text @ label for label in labels])


def weighted_dot(w, text, labels):
    """Both are projected to two halves: [text half 1, label half 1, text half 2 * label half 2] enters an MLP."""
    text_1, text_2 = np.split(linear(w, "proj_text", text), 2)
    scores = []
    for label in labels:
        label_1, label_2 = np.split(linear(w, "proj_label", label), 2)
        hidden = relu(linear(w, "out_mlp.0", np.concatenate([text_1, label_1, text_2 * label_2])))
        scores.append(linear(w, "out_mlp.3", hidden)[0])
    return np.array(scores)


def mlp_scorer(w, text, labels):
    return np.array([mlp(w, "mlp", np.concatenate([text, label]), relu) for label in labels])


def hopfield(w, text, labels):
    """Labels are the queries, the text is key and value; one softmax over the labels, beta = 4."""
    attention = softmax(4.0 * linear(w, "q_proj", labels) @ linear(w, "k_proj", text))
    return mlp(w, "mlp", labels + attention[:, None] * linear(w, "v_proj", text), relu)


def cross_attention(w, tokens, labels):
    query = linear(w, "q", layer_norm(w, "q_norm", labels))
    key = linear(w, "k", layer_norm(w, "kv_norm", tokens))
    value = linear(w, "v", tokens)
    size = WIDTH // HEADS
    context = np.concatenate(
        [
            softmax(key[:, part] @ query[:, part].T / np.sqrt(size)).T @ value[:, part]
            for part in (slice(i * size, (i + 1) * size) for i in range(HEADS))
        ],
        axis=1,
    )
    context = layer_norm(w, "norm", linear(w, "out", context))
    return mlp(w, "score_mlp", np.concatenate([context, labels], axis=1), gelu)


# f(weights, text (hidden,) or tokens (length, hidden), labels (labels, hidden)) -> (labels,)
FORMULAS = {
    "simple": simple,
    "weighted-dot": weighted_dot,
    "mlp": mlp_scorer,
    "hopfield": hopfield,
    "cross-attn": cross_attention,
}


def make(name, **options):
    config = tiny_config("uni-encoder", scorer_type=name, **{"scorer_num_heads": HEADS, **options})
    return randomize(SCORERS[name](config, WIDTH))


def random_inputs(name, shared=False):
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(*((3, 5, WIDTH) if name in TOKEN_SCORERS else (3, WIDTH)), generator=generator)
    classes = torch.randn(1 if shared else 3, 4, WIDTH, generator=generator)
    text_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]])
    class_mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    return text, classes, text_mask, class_mask[:1] if shared else class_mask


def test_every_scorer_has_a_formula():
    assert set(SCORERS) == set(FORMULAS)


@pytest.mark.parametrize("shared", [False, True], ids=["own labels", "shared labels"])
@pytest.mark.parametrize("name", SCORERS)
def test_scorers_agree_with_formulas(name, shared):
    """The reference lets padding tokens and empty label slots take part."""
    scorer = make(name)
    weights = {key: value.numpy().astype(float) for key, value in scorer.state_dict().items()}
    text, classes, text_mask, class_mask = random_inputs(name, shared)
    with torch.no_grad():
        logits = scorer(text, classes, text_mask, class_mask).numpy()
    assert logits.shape == (3, 4)
    for row in range(3):
        own_text = text[row].numpy()[text_mask[row].bool().numpy()] if name in TOKEN_SCORERS else text[row].numpy()
        real = class_mask[0 if shared else row].bool().numpy()
        expected = FORMULAS[name](weights, own_text, classes[0 if shared else row].numpy()[real])
        np.testing.assert_allclose(logits[row, real], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_without_masks_use_all_tokens_and_labels(name):
    scorer = make(name)
    text, classes, text_mask, class_mask = random_inputs(name)
    with torch.no_grad():
        ones = scorer(text, classes, torch.ones_like(text_mask), torch.ones_like(class_mask))
        torch.testing.assert_close(scorer(text, classes), ones)


@pytest.mark.parametrize("name", SCORERS)
def test_text_without_tokens_or_labels_gives_finite_numbers_and_gradients(name):
    scorer = make(name)
    text, classes, text_mask, class_mask = random_inputs(name)
    text.requires_grad_()
    logits = scorer(text, classes, torch.zeros_like(text_mask), torch.zeros_like(class_mask))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert text.grad.isfinite().all()


@pytest.mark.parametrize("name", MLP_HIDDEN_SIZES)
def test_scorer_mlp_has_the_configured_width(name):
    """The reference ignores the configured width. The default is that of checkpoints: 256, or 1024 for cross-attn."""
    layers = {"cross-attn": "score_mlp"}.get(name, "mlp")
    default = {"mlp": 256, "hopfield": 256, "cross-attn": 1024}[name]
    for asked, width in ((None, default), (12, 12)):
        first, _, second, _, last = getattr(make(name, scorer_mlp_hidden_size=asked), layers)
        assert (first.out_features, second.out_features, last.out_features) == (width, width // 2, 1)


@pytest.mark.parametrize("shared", [False, True], ids=["own labels", "shared labels"])
@pytest.mark.parametrize("width", [1, 5, 64])
@pytest.mark.parametrize("name", sorted(DOT_PRODUCT_SCORERS))
def test_dot_product_to_start_with(name, width, shared):
    """For any previous weights; the other hidden units have no effect."""
    scorer = randomize(SCORERS[name](tiny_config("uni-encoder", scorer_type=name), width))
    scorer.init_dot_product()
    generator = torch.Generator().manual_seed(1)
    text, classes = torch.randn(3, width, generator=generator), torch.randn(3, 4, width, generator=generator)
    expected = np.einsum("bd,bcd->bc", text.numpy().astype(float), (classes[:1] if shared else classes).numpy())
    with torch.no_grad():
        logits = scorer(text, classes[:1] if shared else classes)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_weighted_dot_learns_with_all_of_its_weights_from_a_dot_product():
    width = 16  # 64 hidden units, of which 32 make up the dot product
    scorer = randomize(SCORERS["weighted-dot"](tiny_config("uni-encoder", scorer_type="weighted-dot"), width))
    scorer.init_dot_product()
    start = {name: weight.clone() for name, weight in scorer.named_parameters()}
    optimizer = torch.optim.SGD(scorer.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    text, classes = torch.randn(3, width, generator=generator), torch.randn(3, 4, width, generator=generator)
    target = torch.randn(3, 4, generator=generator)
    losses = []
    for _ in range(3):
        loss = (scorer(text, classes) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]
    for name, weight in scorer.named_parameters():
        assert not torch.equal(weight, start[name]), name
        if name == "out_mlp.0.weight":  # the units without an initial effect are trained too
            assert (weight[32:] != start[name][32:]).any(dim=1).all()


@pytest.mark.parametrize(
    ("n_prompts", "n_labels", "share"),
    [(1, 5, 0.3), (3, 5, 0.0), (1, 20, 0.3)],
    ids=["shared labels and dropout", "own labels without dropout", "more shared labels than hidden units"],
)
def test_gradients_of_weighted_dot_are_slopes(n_prompts, n_labels, share):
    """Inputs and weights against finite differences, with seeded dropout."""
    scorer = randomize(
        SCORERS["weighted-dot"](tiny_config("uni-encoder", scorer_type="weighted-dot", dropout=share), 4)
    )
    scorer.double().train()
    generator = torch.Generator().manual_seed(2)
    text = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    classes = torch.randn(n_prompts, n_labels, 4, generator=generator, dtype=torch.float64)
    names, weights = zip(*scorer.named_parameters(), strict=True)

    def score(text, classes, *weights):
        torch.manual_seed(0)
        return torch.func.functional_call(scorer, dict(zip(names, weights, strict=True)), (text, classes))

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(score, [x.detach().requires_grad_() for x in (text, classes, *weights)])


@pytest.mark.parametrize(("low", "tolerance"), [(False, 1e-5), (True, 0.05)], ids=["float32", "bfloat16"])
def test_labels_that_texts_share_score_as_labels_of_their_own(low, tolerance):
    """With more labels than hidden units, which are computed in another order for shared labels."""
    scorer = randomize(SCORERS["weighted-dot"](tiny_config("uni-encoder", scorer_type="weighted-dot", dropout=0.0), 4))
    generator = torch.Generator().manual_seed(2)
    text, classes = torch.randn(3, 4, generator=generator), torch.randn(1, 20, 4, generator=generator)
    results = []
    for labels in (classes, classes.expand(3, -1, -1)):
        scorer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = scorer(text, labels)
        logits.float().square().sum().backward()
        results.append([logits.detach().float(), *(parameter.grad for parameter in scorer.parameters())])
    for shared, own in zip(*results, strict=True):
        torch.testing.assert_close(shared, own, rtol=0.0, atol=tolerance * float(own.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("share", [1e-9, 0.1, 0.5, 0.9])
def test_dropout_of_hidden_units(share, dtype):
    """The number of zeros is that of a binomial distribution; other values are only scaled."""
    torch.manual_seed(0)
    values = torch.rand(50, 40, 51).add(1.0).to(dtype)
    dropped, kept = _drop(values.clone(), share)
    gone = dropped == 0
    assert kept == pytest.approx(1 - share, abs=2**-17)
    for axis in ((0, 1), (0, 2), (1, 2)):
        n = values.numel() / gone.sum(axis).numel()
        assert (gone.double().mean(axis) - share).abs().max() < 5 * (share * (1 - share) / n) ** 0.5
    assert torch.equal(dropped[~gone], values[~gone])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_of_nearly_all_hidden_units_still_has_a_mean(dtype):
    torch.manual_seed(0)
    dropped, kept = _drop(torch.ones(100, 100, dtype=dtype), 1 - 1e-9)
    assert kept > 0
    assert (dropped == 0).double().mean() > 0.99


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_dropout_of_weighted_dot_keeps_the_mean_and_is_for_training_only(share):
    torch.manual_seed(0)
    config = tiny_config("uni-encoder", scorer_type="weighted-dot", dropout=share)
    scorer = randomize(SCORERS["weighted-dot"](config, 16)).eval()
    text, classes = torch.randn(1, 16), torch.randn(1, 4, 16)
    with torch.no_grad():
        exact = scorer(text, classes)
        torch.testing.assert_close(scorer(text, classes), exact)
        dropped = scorer.train()(text.expand(20_000, -1), classes)
    torch.testing.assert_close(
        dropped.mean(dim=0, keepdim=True), exact, rtol=0.0, atol=5 * float(dropped.std(dim=0).max()) / 140 + 1e-5
    )
    assert (dropped.std(dim=0) > 1e-3).all() == bool(share)


def test_cross_attention_needs_a_divisible_width():
    with pytest.raises(ValueError, match=r"divisible by scorer_num_heads, got 8 and 3"):
        make("cross-attn", scorer_num_heads=3)


def test_attention_dropout_is_for_training_only():
    scorer = make("cross-attn", scorer_attn_dropout=0.9)
    inputs = random_inputs("cross-attn")
    torch.testing.assert_close(scorer(*inputs), scorer(*inputs))
    scorer.train()
    assert not torch.equal(scorer(*inputs), scorer(*inputs))


def directions(n, seed):
    """Random vectors of norm 1 that are 0 on the reserved axis."""
    vectors = np.random.RandomState(seed).randn(n, WIDTH)
    vectors[:, RESERVED_AXIS] = 0.0
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["simple", "weighted-dot", "mlp"])
def test_scorers_start_as_the_cosines_of_some_labels(name):
    texts, labels = directions(20, seed=0), directions(5, seed=1)
    scorer = make(name).float()
    classes = torch.from_numpy(labels).float()
    assert scorer.init_cosine(classes, scale=20.0) == 1.0
    with torch.no_grad():
        cosines = scorer(torch.from_numpy(texts).float(), classes.unsqueeze(0))
    np.testing.assert_allclose(cosines, texts @ labels.T, atol=1e-5)


def test_hopfield_starts_as_the_logarithm_of_a_softmax_over_scaled_cosines():
    """The logarithm is interpolated between its knots, in NumPy."""
    texts, labels = directions(20, seed=0), directions(5, seed=1)
    on_axis = np.eye(WIDTH)[RESERVED_AXIS] * TEXT_COMPONENT + texts * np.sqrt(1 - TEXT_COMPONENT**2)
    scorer = make("hopfield")
    classes = torch.from_numpy(labels).float()
    scale = scorer.init_cosine(classes, scale=6.0)
    with torch.no_grad():
        logits = scorer(torch.from_numpy(on_axis).float(), classes.unsqueeze(0)).numpy()
    probabilities = np.apply_along_axis(softmax, 1, scale * texts @ labels.T)
    knots = 2.0 ** -(np.arange(scorer.n_knots + 1) / scorer.knots_per_octave)
    assert probabilities.min() > knots[-1]
    np.testing.assert_allclose(logits, np.interp(probabilities, knots[::-1], np.log(knots)[::-1]), atol=1e-4)
    assert np.abs(logits - np.log(probabilities)).max() < 0.02  # of a chord between neighbouring knots


@pytest.mark.parametrize("n_labels", [4, 9])
@pytest.mark.parametrize("name", ["weighted-dot", "mlp", "hopfield"])
def test_hidden_units_without_effect_are_left_out_with_their_gradients(name, n_labels, monkeypatch):
    """Those of a scorer that is initialised as a cosine: logits and gradients are those of all units."""
    texts, labels = directions(6, seed=0), directions(n_labels, seed=1)
    inputs = torch.from_numpy(texts).float(), torch.from_numpy(labels).float().unsqueeze(0)
    numbers, results = [], []

    def count(layer, following):
        live = select(layer, following)
        numbers.append(len(layer.weight[live]) / len(layer.weight))
        return live

    select = scorers._live_units
    for replacement in (count, lambda layer, following: slice(None)):
        monkeypatch.setattr(scorers, "_live_units", replacement)
        scorer = make(name)
        scorer.max_pairs = 3
        scorer.init_cosine(inputs[1][0], scale=1.0)
        logits = scorer(*inputs)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in scorer.parameters())])
    assert max(numbers) < 0.5
    for part, whole in zip(*results, strict=True):
        torch.testing.assert_close(part, whole)


@pytest.mark.parametrize("name", ["simple", "weighted-dot", "mlp", "hopfield"])
def test_scorers_are_compiled_as_one_graph(name):
    scorer, inputs = make(name), random_inputs(name)
    compiled = torch.compile(scorer, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), scorer(*inputs))


@pytest.mark.parametrize("name", ["weighted-dot", "mlp"])
def test_pairs_have_the_values_of_their_hidden_units(name):
    """All units, and those that are left after the initialisation as the cosine of five labels."""
    scorer = make(name)
    assert scorer.count_values() == (256 if name == "mlp" else 4 * WIDTH)
    scorer.max_pairs = 3
    scorer.init_cosine(torch.from_numpy(directions(5, seed=1)).float(), scale=1.0)
    with torch.no_grad():
        assert scorer.count_values() == (5 if name == "mlp" else 6)
