"""Ctrl-C in a fit, and fits in threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from test_all_or_nothing import FOOD, OPTIONS, PRICE, X, failing

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig


def interrupted(calls, **options):
    """Build a classifier with one batch per epoch whose training is interrupted in epoch number `calls`."""
    callbacks = failing("on_batch_end", KeyboardInterrupt(), calls)
    return GLiClassClassifier(**{**OPTIONS, "max_epochs": 9, "callbacks": callbacks, **options})


@pytest.mark.parametrize("wrap", [lambda clf: clf, make_pipeline], ids=["alone", "pipeline"])
def test_interrupted_fit_keeps_the_complete_epochs(wrap):
    model = wrap(interrupted(4))
    with pytest.warns(UserWarning, match=r"the 3 epoch\(s\) trained so far are kept") as record:
        model.fit(X, FOOD)
    assert {warning.filename for warning in record} == {__file__}
    clf = model[-1] if wrap is make_pipeline else model
    assert clf.n_iter_ == len(clf.history_) == 3
    assert all("train_loss" in row for row in clf.history_)
    assert not clf.model_.training
    assert clf.set_params(callbacks=None).partial_fit(X, FOOD).n_iter_ == 4


def test_interrupted_reinforcement_keeps_the_supervised_epochs():
    clf = interrupted(11, rl=RLTrainerConfig(max_epochs=5))
    with pytest.warns(UserWarning, match="interrupted"):
        clf.fit(X, FOOD)
    assert 9 <= clf.n_iter_ < 14


def test_interrupt_in_the_first_epoch_propagates():
    clf = interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, FOOD)
    assert not hasattr(clf, "fitted_")


@pytest.mark.parametrize(
    "call",
    [
        lambda clf: GridSearchCV(clf, {"dropout": [0.0]}, cv=2, error_score="raise").fit(X, FOOD),
        lambda clf: GridSearchCV(make_pipeline(clf), {}, cv=2, error_score="raise").fit(X, FOOD),
        lambda clf: cross_val_score(clf, X, FOOD, cv=2, error_score="raise"),
        lambda clf: OneVsRestClassifier(clf).fit(X, [*FOOD[:6], "third", "third"]),
    ],
    ids=["search", "search of a pipeline", "cross-validation", "meta-estimator"],
)
def test_interrupt_inside_of_a_library_propagates(call):
    names = {"label_names": None}
    with pytest.raises(KeyboardInterrupt):
        call(interrupted(2).set_params(**names))


def test_interrupt_in_a_hidden_fit_propagates():
    """A regressor without ridge regression fits on halves of the rows, too, to estimate the shrinkage."""
    texts, prices = [f"{text} {number}" for number, text in enumerate(X * 4)], np.tile(PRICE, 4)
    whole = GLiClassRegressor(**{**OPTIONS, "shrinkage": 1.0}).fit(texts, prices)
    n_batches = sum(map(len, whole.history_[:, "batches"]))
    reg = GLiClassRegressor(**{**OPTIONS, "callbacks": failing("on_batch_end", KeyboardInterrupt(), n_batches + 1)})
    with pytest.raises(KeyboardInterrupt):
        reg.fit(texts, prices)
    assert not hasattr(reg, "fitted_")


FITS = {
    "dropout": (GLiClassClassifier, {"dropout": 0.5}, FOOD),
    "frozen": (GLiClassClassifier, {"dropout": 0.5, "freeze_encoder": True}, FOOD),
    "mlp": (GLiClassClassifier, {"scorer_type": "mlp"}, FOOD),
    "rl": (GLiClassClassifier, {"rl": RLTrainerConfig(max_epochs=2)}, FOOD),
    "regressor": (GLiClassRegressor, {"dropout": 0.5}, PRICE),
}


def scores(kind, options, y):
    model = kind(**{**OPTIONS, **options}).fit(X, y)
    return model.predict(X) if kind is GLiClassRegressor else model.predict_proba(X)


def test_fits_in_threads_equal_serial_ones():
    alone = {name: scores(*case) for name, case in FITS.items()}
    state = torch.get_rng_state()
    start = threading.Barrier(5)

    def fit(name):
        start.wait()
        return scores(*FITS[name])

    with ThreadPoolExecutor(5) as pool:
        for _ in range(3):
            for name, found in zip(FITS, pool.map(fit, FITS), strict=True):
                np.testing.assert_array_equal(found, alone[name], err_msg=name)
    assert torch.equal(torch.get_rng_state(), state)


def test_predictions_in_threads_equal_serial_ones():
    clf = GLiClassClassifier(**OPTIONS).fit(X, FOOD)
    texts = [f"{text} {number}" for number, text in enumerate(X * 8)]
    expected = clf.predict_proba(texts)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: clf.predict_proba(texts), range(12)):
            np.testing.assert_array_equal(found, expected)
