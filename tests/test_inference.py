"""The inference engine against the model called on one text after the other."""

import numpy as np
import pytest
import torch
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny_of

from sklearn_gliclass import inference
from sklearn_gliclass.inference import InferenceEngine
from sklearn_gliclass.model import packed

MIXED = ["", "a", *TEXTS, "the goal, the match, the law and the vote " * 4, "a vote"]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_engine_agrees_with_a_plain_loop(architecture, dtype, tolerance, monkeypatch):
    clf = tiny_of(architecture, dtype=dtype).fit(TEXTS, LABELS)
    layout = clf.fitted_.layout()
    plain = []
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(packed, "BERT_LIKE", {})
        for text in MIXED:
            tokens = layout.tokenize([text])
            inputs = layout.batch([tokens[0]], [np.arange(2)])
            output = clf.model_(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            plain.append(output.logits[0].numpy())
    engine = InferenceEngine(clf.model_, layout, dtype=dtype)
    np.testing.assert_allclose(engine.logits(MIXED), plain, atol=tolerance)
    np.testing.assert_allclose(engine.logits(MIXED[:1]), plain[:1], atol=tolerance)


def count_tokens(encoder):
    """Record the number of tokens of the encoder's calls."""
    seen = []
    encoder.embeddings.word_embeddings.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].numel()))
    return seen


def test_equal_texts_are_computed_once():
    clf = tiny_of("bi-encoder", tie_encoders=False).fit(TEXTS, LABELS)
    seen = count_tokens(clf.model_.encoder)
    logits = clf.decision_function(["a goal", "a vote", "a goal", "a goal"])
    assert sum(seen) == sum(len(clf.tokenizer_(text).input_ids) for text in ("a goal", "a vote"))
    assert logits[0] == logits[2] == logits[3] != logits[1]


def test_labels_are_encoded_once():
    """The reference encodes all labels again for each text."""
    clf = tiny_of("bi-encoder", tie_encoders=False, max_batch_tokens=8).fit(TEXTS, LABELS)
    seen = count_tokens(clf.model_.model.label_encoder)
    clf.predict(TEXTS)
    assert seen == [sum(len(clf.tokenizer_(label).input_ids) for label in set(LABELS))]


@pytest.mark.parametrize("scorer", ["simple", "hopfield"])  # the labels of hopfield affect each other
def test_bi_encoder_reads_the_texts_once_for_all_its_labels(scorer):
    names = [f"{side} {thing}" for side in ("left", "right") for thing in ("hand", "foot", "eye", "ear")]
    options = {"scorer_type": scorer, "max_num_classes": 3, "max_epochs": 1, "tie_encoders": False}
    clf = tiny_of("bi-encoder", **options).fit(TEXTS, names)
    seen = count_tokens(clf.model_.encoder)
    logits = clf.decision_function(TEXTS)
    assert sum(seen) == sum(len(clf.tokenizer_(text).input_ids) for text in set(TEXTS))
    for first in (0, 3, 6):
        part = InferenceEngine(clf.model_, clf.fitted_.layout(clf.label_names_[first : first + 3])).logits(TEXTS)
        np.testing.assert_allclose(logits[:, first : first + 3], part, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_texts_are_processed_in_blocks(architecture, monkeypatch):
    clf = tiny_of(architecture, long_texts="truncate").fit(TEXTS, LABELS)
    texts = [*TEXTS, "a " * 200, *TEXTS[::-1]]
    with pytest.warns(UserWarning, match="1 of 17 texts are too long"):
        whole = clf.decision_function(texts)
    monkeypatch.setattr(inference, "TEXTS_AT_ONCE", 3)
    with pytest.warns(UserWarning, match="1 of 17 texts are too long"):
        blocks = clf.decision_function(texts)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)
    assert np.array_equal(blocks[:8], blocks[:8:-1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_order_of_the_rows_does_not_change_a_bit(architecture):
    texts = [" ".join(["a goal", "the vote", "late"][: 1 + i % 3] * (1 + i % 7)) + f" {i}" for i in range(40)]
    clf = tiny_of(architecture, max_batch_tokens=64).fit(TEXTS, LABELS)
    order = np.random.RandomState(0).permutation(40)
    logits = clf.decision_function(texts)
    assert np.array_equal(logits[order], clf.decision_function([texts[row] for row in order]))
    np.testing.assert_allclose(logits[:3], clf.decision_function(texts[:3]), atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_near_float32(architecture):
    clf = tiny_of(architecture, max_epochs=5).fit(TEXTS, LABELS)
    layout = clf.fitted_.layout()
    exact, rough = (InferenceEngine(clf.model_, layout, dtype=dtype).logits(TEXTS) for dtype in ("float32", "bfloat16"))
    assert exact.dtype == rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.1, rtol=0.05)
    assert not np.array_equal(rough, exact)


def test_embeddings_are_the_pooled_states():
    clf = tiny_of("bi-encoder").fit(TEXTS, LABELS)
    ids = clf.tokenizer_(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        states = clf.model_.encoder(input_ids=ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state
    embeddings = clf.transform(TEXTS)
    assert embeddings.shape == (8, 32)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings[0], states[0].mean(dim=0).numpy(), atol=1e-5)
    assert clf.get_feature_names_out()[:2].tolist() == ["gliclassclassifier0", "gliclassclassifier1"]


def test_out_of_memory_halves_the_batch():
    clf = tiny_of("bi-encoder").fit(TEXTS, LABELS)
    expected = clf.decision_function(TEXTS)
    engine = clf.fitted_.engine()
    model, sizes = engine.model, []
    original = model.forward

    def small(input_ids=None, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return original(input_ids=input_ids, **kwargs)

    model.forward = small
    logits = engine.logits(TEXTS)
    assert max(sizes) > 2
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-5)
    del model.forward
