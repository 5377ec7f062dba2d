"""Class prototypes, against the formula on the model without interpolation."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid

from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig
from sklearn_gliclass.samples import TargetPart
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training import prototypes

TEXTS = ["the goal was late", "the vote is near", "a film of the year", "a goal and a match", "a law and a vote",
         "a new film and a song", "the match was won"]  # fmt: skip
LABELS = ["sports", "politics", "art", "sports", "politics", "art", "sports"]
NEW = ["a late match", "a law was near", "a song", "the year of the goal"]
WEIGHTS = np.array([1.0, 0.5, 2.0, 3.0, 1.0, 1.0, 0.2])
SOFT = np.random.RandomState(0).dirichlet(np.ones(3), len(TEXTS))
MULTI = np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2, 0]]
EXACT = {**TINY, "dtype": "float64", "max_epochs": 3, "random_state": 0, "dropout": 0.0}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@torch.no_grad()
def points(clf, texts):
    """Return the embeddings of texts and labels that the dot product takes, and the logit scale."""
    model = clf.model_.model
    states = clf.fitted_.engine()._pool_labels(np.arange(len(clf.label_names_)))
    text = model.project_text(torch.from_numpy(clf.fitted_.engine().embeddings(texts)))
    return text.numpy(), model.classes_projector(states).numpy(), model.logit_scale.item()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("y", ["classes", "soft"])
def test_labels_are_interpolated_with_their_prototypes(y, share, normalize, frozen):
    options = {**EXACT, "normalize_features": normalize, "freeze_encoder": frozen}
    y = LABELS if y == "classes" else SOFT

    def fitted(share):
        return GLiClassClassifier(**options, label_centroid_share=share).fit(TEXTS, y, sample_weight=WEIGHTS)

    before, after = fitted(0), fitted(share)
    text, labels, scale = points(before, TEXTS)
    members = SOFT if y is SOFT else (np.array(LABELS)[:, None] == before.classes_).astype(float)
    means = (members * WEIGHTS[:, None]).T @ text
    turned = unit((1 - share) * unit(labels) + share * unit(means)) * np.linalg.norm(labels, axis=1, keepdims=True)
    if normalize:
        turned = unit(turned)
    expected = scale * points(before, NEW)[0] @ turned.T
    np.testing.assert_allclose(after.decision_function(NEW), expected, rtol=1e-6, atol=1e-8)
    assert not np.allclose(before.decision_function(NEW), expected, rtol=1e-3)


def test_interpolation_weight_of_one_equals_nearest_centroid():
    clf = GLiClassClassifier(**EXACT, label_centroid_share=1).fit(TEXTS, LABELS)
    train, test = points(clf, TEXTS)[0], points(clf, NEW)[0]
    centroids = NearestCentroid().fit(train, LABELS)
    nearest = centroids.classes_[cosine_similarity(test, centroids.centroids_).argmax(axis=1)]
    assert clf.predict(NEW).tolist() == nearest.tolist()


def test_class_without_a_text_stays():
    y = np.column_stack([SOFT[:, :2] / SOFT[:, :2].sum(axis=1, keepdims=True), np.zeros(len(TEXTS))])
    before, after = (GLiClassClassifier(**EXACT, label_centroid_share=s).fit(TEXTS, y) for s in (0, 1))
    moved = np.abs(before.decision_function(NEW) - after.decision_function(NEW)).max(axis=0)
    assert moved[2] < 1e-6 < moved[:2].min()


def test_prototypes_of_large_classes_use_evenly_spaced_rows(monkeypatch):
    monkeypatch.setattr(prototypes, "MAX_ROWS_PER_CLASS", 2)
    classes = np.array([0, 1, 0, 0, 1, 0, 0])
    for targets in (classes, np.eye(2)[classes]):
        part = TargetPart(slice(0, 2), np.arange(7), targets, np.ones(7))
        assert sorted(prototypes._rows(part)) == [0, 1, 4, 6]


@pytest.mark.parametrize(
    ("options", "y", "share"),
    [
        ({}, LABELS, 0.5),
        ({}, SOFT, 0.5),
        ({"label_centroid_share": 0.25}, LABELS, 0.25),
        ({"label_centroid_share": 0}, MULTI, 0.0),
        ({}, MULTI, 0.0),
        ({"scorer_type": "mlp"}, LABELS, 0.0),
        ({"scorer_type": "weighted-dot"}, LABELS, 0.0),
        ({"architecture_type": "uni-encoder"}, LABELS, 0.0),
        ({"architecture_type": "bi-encoder-fused"}, LABELS, 0.0),
    ],
)
def test_label_centroid_share_none_is_resolved(options, y, share):
    clf = GLiClassClassifier(**{**EXACT, "max_epochs": 1, **options}).fit(TEXTS, y)
    assert clf.label_centroid_share_ == share
    if share == 0:
        with pytest.raises(ValueError, match=r"label_centroid_share=0\.3 has no effect here"):
            clf.set_params(label_centroid_share=0.3).fit(TEXTS, y)


@pytest.mark.parametrize(
    "train",
    [
        lambda clf: clf.set_params(max_epochs=0).fit(TEXTS, LABELS),
        lambda clf: clf.partial_fit(TEXTS, LABELS),
        lambda clf: clf.set_params(max_epochs=0, rl=RLTrainerConfig(max_epochs=1)).fit(TEXTS, LABELS),
    ],
    ids=["no epoch", "partial_fit", "reinforcement alone"],
)
def test_labels_are_not_interpolated_without_supervised_epochs(train):
    interpolated, plain = (train(GLiClassClassifier(**EXACT, label_centroid_share=share)) for share in (1, 0))
    np.testing.assert_array_equal(interpolated.decision_function(NEW), plain.decision_function(NEW))


def test_labels_protected_by_ewc_are_not_interpolated():
    def twice(share):
        clf = GLiClassClassifier(**EXACT, ewc_lambda=1.0, warm_start=True, label_centroid_share=0).fit(TEXTS, LABELS)
        return clf.set_params(label_centroid_share=share).fit(NEW, ["sports", "politics", "art", "art"])

    np.testing.assert_array_equal(twice(1).decision_function(TEXTS), twice(0).decision_function(TEXTS))
