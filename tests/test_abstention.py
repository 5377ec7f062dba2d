"""Abstention: `known_proba`, and `unknown_label` wherever a classifier predicts."""

import pickle

import numpy as np
import pytest
from scipy.special import expit, log_softmax, logsumexp
from sklearn.model_selection import GridSearchCV, cross_val_score
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.abstention import Evidence, answer_unknown, measure_evidence

NEW = ["a late goal", "a law", "qu\u00e9 tal", "the match and the vote"]
THREE = ["sports", "politics", "food", "politics", "sports", "food", "sports", "politics"]
NONE = "none of these"


@pytest.fixture(scope="module")
def clf():
    return tiny(unknown_label=NONE).fit(TEXTS, THREE)


def set_threshold(clf, texts=NEW):
    """Set a threshold between the probabilities, so that some of the texts are unknown."""
    return clf.set_params(unknown_threshold=float(np.median(clf.known_proba(texts))))


def test_evidence_equals_its_formula():
    rng = np.random.RandomState(0)
    logits, classes, weight = rng.normal(size=(6, 4)), rng.randint(4, size=6), rng.rand(6)
    evidence = measure_evidence(logits, 20.0, classes, weight, Evidence(is_cosine=True))
    scaled, own = logits / 2, np.eye(4, dtype=bool)[classes]
    assert evidence.match == pytest.approx(np.average(scaled[own], weights=weight))
    others = logsumexp(np.where(own, -np.inf, scaled), axis=1) - np.log(3)
    assert evidence.mismatch == pytest.approx(np.average(others, weights=weight))
    known = np.logaddexp(evidence.match, evidence.mismatch + np.log(3))
    share = 0.3 + 0.07 * np.log(4)
    boundary = (1 - share) * known + share * (evidence.mismatch + np.log(4))
    expected = expit(1.6 * (logsumexp(scaled, axis=1) - boundary))
    np.testing.assert_allclose(evidence.known_proba(logits, 20.0), expected)


def test_other_logits_are_known_at_their_mean_and_unknown_at_that_of_other_labels():
    evidence = Evidence(is_cosine=False, match=6.0, mismatch=-9.0, weight=1.0)
    known, unknown = np.array([[6.0, -9.0]]), np.array([[-9.0, -9.0]])
    odds = np.log(evidence.known_proba(np.concatenate([known, unknown]), 5.0) ** -1 - 1)
    share = 0.3 + 0.07 * np.log(2)
    np.testing.assert_allclose(odds, [-1.0, (1 - share) / share], atol=1e-3)


def test_the_free_energy_of_log_probabilities_is_that_of_centred_ones():
    rng = np.random.RandomState(0)
    logits, classes = log_softmax(rng.normal(size=(6, 4)), axis=1), rng.randint(4, size=6)
    np.testing.assert_allclose(logsumexp(logits, axis=1), 0.0, atol=1e-12)
    kind = Evidence(is_cosine=False, is_centred=True)
    centred = logits - logits.mean(axis=1, keepdims=True)
    evidence = measure_evidence(logits, 1.0, classes, np.ones(6), kind)
    assert evidence.match == pytest.approx(centred[range(6), classes].mean())
    order = evidence.known_proba(logits, 1.0).argsort()
    assert order.tolist() == logsumexp(centred, axis=1).argsort().tolist()


@pytest.mark.parametrize("scorer_type", ["simple", "weighted-dot", "hopfield"])
def test_frozen_fits_with_many_classes_abstain(scorer_type):
    """The more labels there are, the higher is the free energy of any text."""
    things = [
        "guitar", "apple", "banana", "car", "horse", "saw", "river", "mountain", "king", "doctor", "winter", "rain",
    ]  # fmt: skip
    texts = [text.format(thing) for thing in things for text in ("I saw a {}", "the {} is old", "tell me about {}")]
    clf = GLiClassClassifier(freeze_encoder=True, scorer_type=scorer_type, device="cpu", random_state=0)
    clf.fit(texts, np.repeat(things, 3))
    others = ["the parliament votes on the budget", "please reset my password", "he solved the equation", "shares fell"]
    known, unknown = clf.known_proba([f"there was one more {thing}" for thing in things]), clf.known_proba(others)
    assert ((known >= 0.5).mean() + (unknown < 0.5).mean()) / 2 >= 0.75


def test_evidence_of_batches_is_averaged_by_weight():
    parts = [Evidence(True, 4.0, 1.0, 3.0), Evidence(True, 8.0, 3.0, 1.0)]
    assert parts[1].merge(parts[0]) == Evidence(True, 5.0, 1.5, 4.0)
    assert parts[0].merge(Evidence(True)) is parts[0]


def test_predict_answers_the_unknown_label_below_the_threshold(clf):
    known = set_threshold(clf).known_proba(NEW)
    best = clf.classes_[clf.predict_proba(NEW).argmax(axis=1)]
    expected = np.where(known >= clf.unknown_threshold, best, NONE)
    predicted = clf.predict(NEW)
    assert predicted.tolist() == expected.tolist()
    assert 0 < (predicted == NONE).sum() < len(NEW)
    assert clf.predict_labels(NEW).tolist() == predicted.tolist()
    assert clf.score(NEW, predicted) == 1.0
    assert clf.predict(NEW[:1]).dtype == predicted.dtype  # does not depend on the texts


def test_unknown_threshold_auto_is_a_half(clf):
    expected = np.where(clf.known_proba(NEW) >= 0.5, clf.set_params(unknown_label=None).predict(NEW), NONE)
    clf.set_params(unknown_label=NONE, unknown_threshold="auto")
    assert clf.predict(NEW).tolist() == expected.tolist()


@pytest.mark.parametrize(("classes", "unknown"), [([1, 2], -1), ([1.0, 2.0], 7), (["a", "b"], "a longer answer")])
def test_the_unknown_label_has_the_type_of_the_classes(classes, unknown):
    clf = tiny(max_epochs=0, unknown_label=unknown, unknown_threshold=1 - 1e-12).fit(TEXTS, np.array(classes * 4))
    assert set(clf.predict(NEW).tolist()) == {unknown}


@pytest.mark.parametrize(
    ("classes", "unknown", "message"),
    [
        (["sports", "politics"], "sports", "is one of the classes"),
        (["sports", "politics"], -1, "give a str"),
        (["sports", "politics"], ["none"], "give a str"),
        ([1, 2], "none", r"their type \(int\)"),
        ([1, 2], True, r"their type \(int\)"),
        (np.array([1, 2], np.uint8), -1, "cannot stand among the classes"),
        ([True, False], True, "is one of the classes"),
        ([1.0, 2.0], float("nan"), "is a missing value"),
    ],
)
def test_other_unknown_labels_raise(classes, unknown, message):
    y = np.tile(classes, 4)
    with pytest.raises(ValueError, match=message):
        tiny(unknown_label=unknown).fit(TEXTS, y)


def test_multi_label_raises_and_knows_the_most_probable_label():
    y = np.random.RandomState(0).randint(2, size=(8, 3))
    with pytest.raises(ValueError, match="row of zeros"):
        tiny(unknown_label=NONE).fit(TEXTS, y)
    clf = tiny(label_names=["sea", "sky", "food"]).fit(TEXTS, y)
    np.testing.assert_allclose(clf.known_proba(NEW), clf.predict_proba(NEW).max(axis=1))


@pytest.mark.parametrize("value", [0.0, 1.0, "best"])
def test_invalid_thresholds_raise(clf, value):
    with pytest.raises(ValueError, match="'unknown_threshold' parameter"):
        tiny(unknown_threshold=value).fit(TEXTS, THREE)
    clf = pickle.loads(pickle.dumps(clf)).set_params(unknown_threshold=value)
    with pytest.raises(ValueError, match="unknown_threshold must be"):
        clf.predict(NEW)


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder"])
def test_saved_classifiers_abstain_alike(architecture, tmp_path):
    clf = set_threshold(tiny(unknown_label=NONE, architecture_type=architecture).fit(TEXTS, THREE))
    clf.save_pretrained(tmp_path)
    for loaded in (GLiClassClassifier.from_pretrained(tmp_path), pickle.loads(pickle.dumps(clf))):
        np.testing.assert_allclose(loaded.known_proba(NEW), clf.known_proba(NEW), rtol=1e-6)
        assert loaded.predict(NEW).tolist() == clf.predict(NEW).tolist()


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder"])
def test_exported_classifiers_abstain_alike(architecture, tmp_path):
    pytest.importorskip("onnxruntime")
    from sklearn_gliclass.onnx import OnnxClassifier

    clf = set_threshold(tiny(unknown_label=NONE, architecture_type=architecture).fit(TEXTS, THREE))
    clf.export_onnx(tmp_path / "model")
    exported = OnnxClassifier(tmp_path / "model")
    np.testing.assert_allclose(exported.known_proba(NEW), clf.known_proba(NEW), atol=1e-5)
    assert exported.predict(NEW).tolist() == clf.predict(NEW).tolist()
    other = exported.with_labels(["sea", "sky"])
    np.testing.assert_allclose(other.known_proba(NEW), clf.with_labels(["sea", "sky"]).known_proba(NEW), atol=1e-5)
    with pytest.raises(ValueError, match="is one of the classes"):
        exported.with_labels(["sea", NONE])


def test_with_labels_keeps_the_evidence_of_the_training(clf):
    other = clf.with_labels(["politics", "food", "sea"])
    assert other._evidence == clf._evidence
    assert other.unknown_label == NONE
    with pytest.raises(ValueError, match="is one of the classes"):
        clf.with_labels(["politics", NONE])


def test_zero_shot_classifiers_abstain(clf, tmp_path):
    clf.save_pretrained(tmp_path)
    zero = GLiClassClassifier(pretrained=str(tmp_path), unknown_label=NONE).fit(None, ["sea", "sky", "food"])
    logits = zero.decision_function(NEW) * 10 / zero.model_.model.logit_scale.item()
    expected = expit(1.6 * (logsumexp(logits, axis=1) - np.log(3) - 2.4))
    np.testing.assert_allclose(zero.known_proba(NEW), expected, rtol=1e-4)
    zero.set_params(unknown_threshold=1 - 1e-9)
    assert set(zero.predict(NEW)) == {NONE}


def test_training_rows_measure_the_evidence():
    texts = [f"{text} {number}" for number in range(5) for text in TEXTS]
    clf = tiny(early_stopping=True, validation_fraction=0.2, max_epochs=1).fit(texts, LABELS * 5)
    assert clf._evidence["weight"] == 32  # of 40 rows


def test_partial_fit_adds_to_the_evidence():
    clf = tiny(unknown_label=NONE).partial_fit(TEXTS, THREE).partial_fit(TEXTS[:4], THREE[:4])
    assert clf._evidence["weight"] == 12
    assert clf.known_proba(NEW).shape == (4,)


def test_searches_and_folds_abstain():
    scores = cross_val_score(tiny(unknown_label=NONE, unknown_threshold=1 - 1e-12), TEXTS, LABELS, cv=2)
    assert scores.tolist() == [0.0, 0.0]  # all texts are unknown
    search = GridSearchCV(tiny(unknown_label=NONE), {"unknown_threshold": [1e-12, 1 - 1e-12]}, cv=2)
    assert search.fit(TEXTS, LABELS).best_params_ == {"unknown_threshold": 1e-12}


def test_the_server_abstains(clf):
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    from fastapi.testclient import TestClient

    from sklearn_gliclass.serve import create_app

    with TestClient(create_app(set_threshold(clf))) as client:
        answer = client.post("/predict", json={"texts": NEW}).json()
        assert answer["predictions"] == clf.predict(NEW).tolist()
        answer = client.post("/labels", json={"texts": NEW, "labels": ["sea", "sky"]}).json()
        assert answer["predictions"] == clf.with_labels(["sea", "sky"]).predict(NEW).tolist()
        answer = client.post("/labels", json={"texts": NEW, "labels": ["sea", NONE]})
        assert answer.status_code == 422
        assert "is one of the classes" in answer.json()["detail"]


def test_answers_keep_the_dtype_of_objects():
    answers = answer_unknown(np.array(["a", "b"], object), np.array([False, True]), NONE)
    assert answers.dtype == object
    assert answers.tolist() == [NONE, "b"]
