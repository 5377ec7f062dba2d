"""y as dicts: texts with candidate labels of their own."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, log_softmax, logsumexp
from sklearn.model_selection import cross_val_predict
from tiny_estimators import ARCHITECTURES

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.data.dataset import TextDataset
from sklearn_gliclass.data.own_labels import OwnLabels
from sklearn_gliclass.model.losses import problem_loss
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

TEXTS = ["a late goal", "a new law", "so happy", "so sad", "the match", "a vote", "glad", "tears"] * 2
TOPIC = [{"sports": 1, "politics": 0}, {"sports": 0, "politics": 1}]
MOOD = [{"joy": 1, "grief": 0, "anger": 0}, {"joy": 0, "grief": 1, "anger": 0}]
MIXTURE = [*TOPIC, *MOOD, *TOPIC, *MOOD] * 2
EXCLUSIVE = {"problem_type": "single_label_classification"}
CLASSES = ["anger", "grief", "joy", "politics", "sports"]
LEARNING = {"max_epochs": 40, "lr": 4e-3, "others_lr": 4e-3, "shuffle_labels": False}


def tiny(**hyperparameters):
    return GLiClassClassifier(**{**TINY, "random_state": 0, **hyperparameters})


@pytest.mark.parametrize("options", [{}, EXCLUSIVE], ids=["decisions", "exclusive"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_classifier_learns_a_mixture_of_tasks(architecture, options):
    encoder = TINY_ENCODERS[ARCHITECTURES[architecture]]
    clf = tiny(architecture_type=architecture, encoder_config=encoder, **LEARNING, **options)
    clf.fit(TEXTS[:8], MIXTURE[:8])
    assert clf.classes_.tolist() == CLASSES
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < 0.05 * losses[0]
    if architecture != "bi-encoder":  # their prompts have other labels in the prediction than in this short training
        return
    scores = pd.DataFrame(clf.decision_function(TEXTS), columns=CLASSES)
    pairs = zip(MIXTURE, (row for _, row in scores.iterrows()), strict=True)
    assert all(row[list(labels)].idxmax() == max(labels, key=labels.get) for labels, row in pairs)


@pytest.mark.parametrize(
    "container", [list, tuple, pd.Series, lambda y: np.array(y, dtype=object), lambda y: pd.DataFrame({"labels": y})]
)
def test_containers_of_dicts_are_read_alike(container):
    expected = tiny().fit(TEXTS, MIXTURE).predict_proba(TEXTS)
    np.testing.assert_array_equal(tiny().fit(TEXTS, container(MIXTURE)).predict_proba(TEXTS), expected)


def test_prompts_hold_the_labels_of_their_text(monkeypatch):
    """A text's prompt has its own labels only, in the uni-encoder."""
    seen = []
    text_batch = TextDataset._text_inputs

    def record(self, rows, orders):
        seen.extend((int(row), sorted(order)) for row, order in zip(rows, orders, strict=True))
        return text_batch(self, rows, orders)

    monkeypatch.setattr(TextDataset, "_text_inputs", record)
    tiny(architecture_type="uni-encoder", max_epochs=1).fit(TEXTS, MIXTURE)
    assert {row for row, _ in seen} == set(range(len(TEXTS)))
    for row, labels in seen:
        assert [CLASSES[label] for label in labels] == sorted(MIXTURE[row])


@pytest.mark.parametrize("is_exclusive", [False, True])
def test_loss_is_that_of_the_offered_labels(is_exclusive):
    rng = np.random.RandomState(0)
    logits, own = rng.randn(2, 3), OwnLabels(-1.0 if is_exclusive else -100.0, is_exclusive)
    values = np.array([[1.0, own.not_offered, 0.0], [0.25, 0.25, 0.5]])
    targets = own.of_prompts(values, [np.arange(3)] * 2)
    config = tiny(**(EXCLUSIVE if is_exclusive else {"focal_loss_alpha": -1, "focal_loss_gamma": 0}))
    config = config.fit(TEXTS, MIXTURE).config_
    loss = problem_loss(config, torch.from_numpy(logits), torch.from_numpy(targets)).item()
    if is_exclusive:
        first = -log_softmax(logits[0, [0, 2]])[0]
        expected = (first - (values[1] * log_softmax(logits[1])).sum()) / 2
    else:
        kept = np.array([[True, False, True], [True] * 3])
        p = expit(logits)
        losses = -(values * np.log(p) + (1 - values) * np.log(1 - p))
        expected = losses[kept].mean()
    assert loss == pytest.approx(expected, rel=1e-6)


def test_values_of_other_labels_have_no_effect():
    """All labels in each dict equal an indicator matrix."""
    whole = [{label: float(label in row and row[label]) for label in CLASSES} for row in MIXTURE]
    matrix = pd.DataFrame(whole)[CLASSES].astype(int)
    options = {"max_epochs": 2, "dropout": 0.0, "shuffle_labels": False}
    as_dicts = tiny(**options).fit(TEXTS, whole).decision_function(TEXTS)
    np.testing.assert_allclose(as_dicts, tiny(**options).fit(TEXTS, matrix).decision_function(TEXTS), atol=1e-4)
    own = tiny(**options).fit(TEXTS, MIXTURE).decision_function(TEXTS)
    assert not np.allclose(own, as_dicts, atol=1e-3)


def test_pretrained_fit_reads_new_labels_afterwards(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, [min(row) for row in MIXTURE]).save_pretrained(tmp_path)
    clf = GLiClassClassifier(pretrained=str(tmp_path), max_epochs=2, random_state=0).fit(TEXTS, MIXTURE)
    assert clf.freeze_encoder_ is False  # no label probe, which would fix the labels
    other = clf.with_labels(["weather", "joy"])
    assert other.predict_proba(TEXTS).shape == (len(TEXTS), 2)
    clf.save_pretrained(tmp_path / "new")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "new")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), clf.predict_proba(TEXTS), atol=1e-6)


def test_known_texts_are_those_of_a_zero_shot_fit():
    """A mixture has no boundary of its own, as its labels are not those of each text."""
    clf = tiny(**EXCLUSIVE).fit(TEXTS, MIXTURE)
    scores = 0.5 * clf.decision_function(TEXTS)  # cosines times 10, with a logit scale of 20
    middle = 2.4 + np.log(len(CLASSES))
    np.testing.assert_allclose(clf.known_proba(TEXTS), expit(1.6 * (logsumexp(scores, axis=1) - middle)), rtol=1e-5)


def test_weights_early_stopping_and_folds_take_dicts():
    weight = np.r_[np.ones(8), np.zeros(8)]
    half = tiny().fit(TEXTS, MIXTURE, sample_weight=weight)
    np.testing.assert_array_equal(half.predict(TEXTS), tiny().fit(TEXTS[:8], MIXTURE[:8]).predict(TEXTS))
    stopped = tiny(early_stopping=True, validation_fraction=0.25, n_iter_no_change=1).fit(TEXTS, MIXTURE)
    assert "valid_loss" in stopped.history_[-1]
    clf = tiny().partial_fit(TEXTS[:8], MIXTURE[:8], classes=[*CLASSES, "weather"])
    assert clf.partial_fit(TEXTS, MIXTURE).n_iter_ == 2
    folds = cross_val_predict(tiny(), np.array(TEXTS), np.array(MIXTURE, dtype=object), cv=2)
    assert folds.shape == (len(TEXTS), len(CLASSES))


@pytest.mark.parametrize(
    ("y", "options", "error", "message"),
    [
        ([*MIXTURE[:15], None], {}, ValueError, "1 missing dict"),
        ([*MIXTURE[:15], ["joy"]], {}, TypeError, "a list at row 15"),
        ([*MIXTURE[:15], {}], {}, ValueError, "an empty dict at row 15"),
        ([*MIXTURE[:15], {"joy": 2}], {}, ValueError, "value 2 for the label 'joy' at row 15"),
        ([*MIXTURE[:15], {"joy": "yes"}], {}, TypeError, "value 'yes' for the label 'joy'"),
        ([*MIXTURE[:15], {"joy": 1, 3: 0}], {}, ValueError, "classes of one type"),
        ([*MIXTURE[:15], {"joy": 1, "anger": 1}], EXCLUSIVE, ValueError, "the sum 2 at row 15"),
        ([*MIXTURE[:15], {"joy": 1}], EXCLUSIVE, ValueError, "only one label at row 15"),
        ([{"joy": 1}] * 16, {}, ValueError, "at least 2 classes"),
        (MIXTURE, {"class_weight": "balanced"}, ValueError, "class_weight='balanced' needs the same labels"),
        (MIXTURE, {"freeze_encoder": True}, ValueError, "freeze_encoder=True needs the same labels"),
        (MIXTURE, {"calibrate": "cv"}, ValueError, "calibrate='cv' needs the same labels"),
    ],
)
def test_wrong_dicts_raise(y, options, error, message):
    with pytest.raises(error, match=message):
        tiny(**options).fit(TEXTS, y)


def test_unknown_labels_of_partial_fit_raise():
    clf = tiny().partial_fit(TEXTS, MIXTURE)
    with pytest.raises(ValueError, match=r"not among the classes .*: \['weather'\]"):
        clf.partial_fit(["rain"], [{"weather": 1}])
    assert clf.n_iter_ == 1
