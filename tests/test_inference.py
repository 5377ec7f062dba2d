"""The inference engine against the model called on one text after the other."""

import numpy as np
import pytest
import torch
from test_classifier import ARCHITECTURES, LABELS, TEXTS, tiny_of

from sklearn_gliclass.inference import InferenceEngine


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_to_the_plain_loop(architecture):
    clf = tiny_of(architecture, dtype="float64").fit(TEXTS, LABELS)
    layout = clf._layout(clf.label_names_)
    both = np.arange(2)
    plain = []
    with torch.no_grad():
        for text in TEXTS:
            tokens = layout.tokenize([text])
            inputs = {name: torch.from_numpy(array) for name, array in layout.batch([tokens[0]], [both]).items()}
            plain.append(clf.model_(**inputs).logits[0].numpy())
    engine = InferenceEngine(clf.model_, layout, dtype="float64")
    np.testing.assert_allclose(engine.logits(TEXTS), plain, atol=1e-10)


def test_equal_texts_are_computed_once():
    clf = tiny_of("bi-encoder").fit(TEXTS, LABELS)
    seen = []
    encoder = clf.model_.encoder
    original = encoder.forward

    def note(input_ids=None, **kwargs):
        seen.append(len(input_ids))
        return original(input_ids=input_ids, **kwargs)

    encoder.forward = note
    logits = clf.decision_function(["a goal", "a vote", "a goal", "a goal"])
    assert sum(seen) == 2
    assert logits[0] == logits[2] == logits[3] != logits[1]


def test_labels_are_encoded_once():
    """Defect 10: the reference encodes all labels again for every text."""
    clf = tiny_of("bi-encoder", max_batch_tokens=8).fit(TEXTS, LABELS)
    calls = []
    encoder = clf.model_.model.label_encoder
    original = encoder.forward

    def note(input_ids=None, **kwargs):
        calls.append(len(input_ids))
        return original(input_ids=input_ids, **kwargs)

    encoder.forward = note
    clf.predict(TEXTS)
    assert calls == [2]


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


def test_too_little_memory_halves_the_batch():
    clf = tiny_of("bi-encoder").fit(TEXTS, LABELS)
    expected = clf.decision_function(TEXTS)
    engine = clf._engine()
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
