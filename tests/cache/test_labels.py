"""Cached label embeddings: computed once, and never those of other weights or labels."""

import copy
import pickle

import numpy as np
import pytest
import torch
from tiny_estimators import FOOD, OPTIONS, X

from sklearn_gliclass import GLiClassClassifier

LABEL_ENCODERS = ["bi-encoder", "bi-encoder-fused"]


@pytest.fixture(params=LABEL_ENCODERS)
def clf(request):
    return GLiClassClassifier(**OPTIONS, architecture_type=request.param).fit(X, FOOD)


def count_label_passes(clf, monkeypatch):
    passes, original = [], clf.model_.model.pool_labels

    def pool_labels(**inputs):
        passes.append(len(inputs["class_input_ids"]))
        return original(**inputs)

    monkeypatch.setattr(clf.model_.model, "pool_labels", pool_labels)
    return passes


def test_labels_are_encoded_once_for_all_predictions(clf, monkeypatch):
    passes = count_label_passes(clf, monkeypatch)
    expected = [clf.predict_proba([text]) for text in X]
    assert passes == [2]
    np.testing.assert_allclose(clf.predict_proba(X), np.concatenate(expected), atol=1e-6)
    assert passes == [2]


def test_labels_of_several_prompts_are_encoded_and_projected_once(clf, monkeypatch):
    many = clf.with_labels([f"label {number}" for number in range(7)]).set_params(max_num_classes=3)
    passes, projections = count_label_passes(many, monkeypatch), []
    projector = many.model_.model.classes_projector
    handle = projector.register_forward_hook(lambda module, inputs, output: projections.append(len(output)))
    expected = many.decision_function(X)
    np.testing.assert_array_equal(many.decision_function(X), expected)
    handle.remove()
    assert passes == [7]
    assert projections == [7]


def test_transform_of_a_bi_encoder_encodes_no_labels(monkeypatch):
    clf = GLiClassClassifier(**OPTIONS).fit(X, FOOD)
    expected = clf.transform(X)
    passes = count_label_passes(clf, monkeypatch)
    np.testing.assert_array_equal(clf.transform(X), expected)
    assert passes == []


def change_one_weight(clf):
    with torch.no_grad():
        clf.model_.model.biencoder_projector.linear_2.bias.add_(1.0)


def change_the_label_projector(clf):
    with torch.no_grad():
        clf.model_.model.classes_projector.linear_2.weight.mul_(2.0)


def change_under_torch(clf):
    """Change weights without an increase of their version counters, as fused optimisers do."""
    for parameter in clf.model_.parameters():
        parameter.data.mul_(1.5)


def load_other_weights(clf):
    other = GLiClassClassifier(**{**OPTIONS, "random_state": 1}, architecture_type=clf.architecture_type).fit(X, FOOD)
    clf.model_.load_state_dict(other.model_.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        lambda clf: clf.partial_fit(X[::-1], FOOD),
        lambda clf: clf.set_params(warm_start=True).fit(X, FOOD[::-1]),
        change_one_weight,
        change_the_label_projector,
        change_under_torch,
        load_other_weights,
        lambda clf: setattr(clf, "model_", copy.deepcopy(clf.model_).requires_grad_(False)),
    ],
)
def test_cached_labels_are_dropped_when_weights_change(clf, change):
    clf.predict_proba(X)
    change(clf)
    found = clf.decision_function(X)
    clf.fitted_.label_cache._entry = (None, None)
    np.testing.assert_array_equal(found, clf.decision_function(X))


def test_copies_have_caches_of_their_own(clf):
    clf.predict_proba(X)
    copies = [pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)]
    for other in copies:
        assert other.fitted_.label_cache is not clf.fitted_.label_cache
        np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
    empty = GLiClassClassifier(**OPTIONS, architecture_type=clf.architecture_type).fit(X, FOOD)
    assert len(pickle.dumps(clf)) == len(pickle.dumps(empty))
