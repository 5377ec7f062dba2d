"""Label embeddings and token attributions against NumPy, plain forward passes and finite differences."""

import numpy as np
import pytest
import torch
from sampling import sampled
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass.explain import compute_label_embeddings, compute_token_attributions
from sklearn_gliclass.testing import TINY_ENCODERS

OF_ARCHITECTURE = {"encoder-decoder": ("t5", "bart"), "encoder-decoder-cls": ("t5", "bart"), "decoder-kv": ("qwen3",)}
# All encoder families in all architectures that support them.
FAMILIES = [
    (architecture, family, prompt_first)
    for architecture in ARCHITECTURES
    for family in TINY_ENCODERS
    if (family in OF_ARCHITECTURE[architecture] if architecture in OF_ARCHITECTURE else family not in ("bart", "qwen3"))
    for prompt_first in ([False, True] if architecture in ("uni-encoder", "bi-encoder-fused") else [False])
]


def fitted(architecture, family, **hyperparameters):
    options = {"architecture_type": architecture, "encoder_config": TINY_ENCODERS[family], "dtype": "float64"}
    return tiny(**options, max_epochs=2, **hyperparameters).fit(TEXTS, LABELS)


def attribute(clf, text, label=1, **options):
    return compute_token_attributions(clf.model_, clf.fitted_.layout(), text, label, **options)


@pytest.mark.parametrize(("architecture", "family", "prompt_first"), sampled(FAMILIES, 9))
def test_attributions_add_up(architecture, family, prompt_first):
    """They sum to the difference of the logits (Sundararajan et al. 2017), up to the error of the integration."""
    clf = fitted(architecture, family, prompt_first=prompt_first)
    found = attribute(clf, TEXTS[1], n_steps=200)
    assert found.logit == pytest.approx(clf._logits([TEXTS[1]])[0, 1], abs=1e-6)
    # T5 is not smooth near the mean token, and normalises in float32.
    tolerance = 0.3 if family == "t5" else 1e-2
    assert found.values.sum() == pytest.approx(found.logit - found.baseline, abs=tolerance)
    assert np.abs(found.values).max() > 1e-3
    assert [TEXTS[1][start:end].strip() for start, end in found.spans] == TEXTS[1].split()


def test_one_step_agrees_with_finite_differences():
    """The gradient at the middle of the path, in the direction of each token."""
    clf = fitted("bi-encoder", "bert")
    model, layout = clf.model_, clf.fitted_.layout()
    found = attribute(clf, TEXTS[0], n_steps=1)
    arrays = layout.batch([layout.tokenize([TEXTS[0]])[0]], [np.arange(2)])
    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    table = model.get_input_embeddings().weight.detach()
    tokens = table[inputs["input_ids"][0]]
    way = tokens - table.mean(dim=0)
    way[[0, -1]] = 0  # [CLS] and [SEP] are constant

    def logit(embeddings):
        with torch.no_grad():
            states = model.encoder(inputs_embeds=embeddings[None], attention_mask=inputs["attention_mask"])
            core = model.model
            text = core.project_text(core.pool_text(states.last_hidden_state, inputs["attention_mask"])[0])
            labels = core.project_classes(core.pool_labels(inputs["class_input_ids"], inputs["class_attention_mask"]))
            return float(core.score(text, labels[None], None, None)[0, 1])

    step, middle = 1e-5, tokens - 0.5 * way
    for index in range(1, len(tokens) - 1):
        own = torch.zeros_like(way)
        own[index] = way[index]
        slope = (logit(middle + step * own) - logit(middle - step * own)) / (2 * step)
        assert found.values[index - 1] == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert found.baseline == pytest.approx(logit(tokens - way))


def test_attributions_do_not_change_the_model():
    clf = fitted("encoder-decoder", "bart")
    before = clf.decision_function(TEXTS)
    clf.model_.requires_grad_(False)
    attribute(clf, TEXTS[0])
    np.testing.assert_array_equal(clf.decision_function(TEXTS), before)
    assert all(parameter.grad is None for parameter in clf.model_.parameters() if not parameter.requires_grad)
    assert not any(module._forward_hooks for module in clf.model_.modules())
    clf.model_.requires_grad_(True)


def test_attributions_of_truncated_texts_and_several_prompts():
    labels = [f"topic {i}" for i in range(8)]
    clf = tiny(architecture_type="uni-encoder", max_num_classes=3, max_length=40, long_texts="truncate").fit(
        TEXTS, labels
    )
    text = "a goal and a match " * 30
    layout = clf.fitted_.layout()
    for label in (0, 7):
        found = attribute(clf, text, label, max_num_classes=3)
        room = layout.text_room(layout.prompt_length(np.arange(6, 8) if label == 7 else np.arange(3)))
        assert len(found.values) == len(found.spans) == room
        assert found.logit == pytest.approx(float(logits_of(clf, text)[label]), abs=1e-5)


def logits_of(clf, text):
    with pytest.warns(UserWarning, match="too long"):
        return clf._logits([text])[0]


def test_attributions_with_an_lstm():
    found = attribute(fitted("bi-encoder", "bert", use_lstm=True), TEXTS[0], n_steps=200)
    assert found.values.sum() == pytest.approx(found.logit - found.baseline, abs=1e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_label_embeddings_are_the_mean_over_the_texts(architecture):
    clf = tiny_of(architecture, dtype="float64").fit(TEXTS, LABELS)
    layout, texts = clf.fitted_.layout(), TEXTS * 3
    single = []
    for text in texts:
        arrays = layout.batch([layout.tokenize([text])[0]], [np.arange(2)])
        with torch.no_grad():
            output = clf.model_(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        single.append(output.class_embeddings[0].numpy())
    embeddings = compute_label_embeddings(clf.model_, layout, texts)
    np.testing.assert_allclose(embeddings, np.mean(single, axis=0), atol=1e-10)
    if architecture == "bi-encoder":
        np.testing.assert_allclose(embeddings, compute_label_embeddings(clf.model_, layout), atol=1e-10)


def test_label_embeddings_in_chunks():
    labels = [f"topic {i}" for i in range(8)]
    clf = tiny(dtype="float64", max_num_classes=3).fit(TEXTS, labels)
    layout = clf.fitted_.layout()
    chunked = compute_label_embeddings(clf.model_, layout, max_num_classes=3)
    np.testing.assert_allclose(chunked, compute_label_embeddings(clf.model_, layout), atol=1e-10)
