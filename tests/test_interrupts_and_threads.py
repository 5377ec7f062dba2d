"""Ctrl-C in a fit, and fits in threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from tiny_estimators import FOOD, OPTIONS, PRICE, X, failing

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig, explain
from sklearn_gliclass.inference import InferenceEngine
from sklearn_gliclass.plotting import TokenAttributionDisplay


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


class CallInThread(Callback):
    """Call a function in another thread after each training batch."""

    def __init__(self, function=None):
        self.function = function

    def on_batch_end(self, net, training=False, **kwargs):
        if training and self.function is not None:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self.function).result()


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"dropout": 0.5, "warm_start": True},
        {"freeze_encoder": True, "scorer_type": "mlp"},
        {"architecture_type": "uni-encoder"},
        {"rl": RLTrainerConfig(max_epochs=2), "warm_start": True},
        {"optim": "sgd", "lr": 0.1, "others_lr": 0.1},
        {"lora_rank": 2},
        {"memory": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_predictions_do_not_see_a_training_that_continues(options, tmp_path):
    """Neither those of the estimator nor those of one that shares its model, before the training or meanwhile."""
    callback = CallInThread()
    if "memory" in options:
        options = {"memory": str(tmp_path)}
    if "lora_rank" in options:
        pytest.importorskip("peft")
    clf = GLiClassClassifier(**{**OPTIONS, "callbacks": [callback], "label_names": None, **options}).fit(X, FOOD)
    other = clf.with_labels(["one", "two"])
    meanwhile = []

    def predict():
        meanwhile.append(clf.with_labels(["one", "two"]))
        return [each.predict_proba(X) for each in (clf, other, meanwhile[-1])]

    expected, results = predict(), []
    callback.function = lambda: results.append(predict())
    continue_training = clf.fit if clf.warm_start else clf.partial_fit
    continue_training(X[::-1], FOOD)
    assert len(results) >= 1
    for found in results:
        for values, before in zip(found, expected, strict=True):
            np.testing.assert_array_equal(values, before)
    for each in (other, *meanwhile):
        np.testing.assert_array_equal(each.predict_proba(X), expected[1])
    assert not np.allclose(clf.predict_proba(X), expected[0])
    np.testing.assert_allclose(clf.set_params(memory=None).predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_partial_fits_in_threads_all_count():
    clf = GLiClassClassifier(**OPTIONS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: clf.partial_fit(X, FOOD, classes=sorted(set(FOOD))), range(8)))
    assert clf.n_iter_ == len(clf.history_) == 8
    serial = GLiClassClassifier(**OPTIONS)
    for _ in range(8):
        serial.partial_fit(X, FOOD)
    np.testing.assert_array_equal(clf.predict_proba(X), serial.predict_proba(X))


@pytest.mark.parametrize("method", ["predict", "predict_labels", "predict_proba", "known_proba", "score", "transform"])
def test_predictions_see_one_fit_while_another_replaces_it(method, monkeypatch):
    clf = GLiClassClassifier(**{**OPTIONS, "label_names": None}).fit(X, FOOD)
    arguments = (X, FOOD) if method == "score" else (X,)
    expected = getattr(clf, method)(*arguments)
    run = InferenceEngine._run

    def run_and_fit(self, *args, **kwargs):
        result = run(self, *args, **kwargs)
        if "third" not in clf.classes_:
            clf.fit(X, ["third", "fourth", "fifth", "sixth"] * 2)
        return result

    monkeypatch.setattr(InferenceEngine, "_run", run_and_fit)
    np.testing.assert_array_equal(getattr(clf, method)(*arguments), expected)
    assert "third" in clf.classes_


def test_values_of_a_regressor_see_one_fit(monkeypatch):
    reg = GLiClassRegressor(**OPTIONS).fit(X, PRICE)
    expected = reg.predict(X)
    run = InferenceEngine._run

    def run_and_fit(self, *args, **kwargs):
        result = run(self, *args, **kwargs)
        monkeypatch.undo()
        reg.fit(X, np.column_stack([PRICE, PRICE]) * 100)
        return result

    monkeypatch.setattr(InferenceEngine, "_run", run_and_fit)
    np.testing.assert_array_equal(reg.predict(X), expected)
    assert reg.predict(X).shape == (8, 2)


def test_columns_of_a_table_are_named_after_the_fit_that_computed_them(monkeypatch):
    clf = GLiClassClassifier(**OPTIONS).set_output(transform="pandas").fit(X, FOOD)
    expected = clf.transform(X)
    run = InferenceEngine._run

    def run_and_fit(self, *args, **kwargs):
        result = run(self, *args, **kwargs)
        monkeypatch.undo()
        clf.set_params(encoder_config={**OPTIONS["encoder_config"], "hidden_size": 16}).fit(X, FOOD)
        return result

    monkeypatch.setattr(InferenceEngine, "_run", run_and_fit)
    pd.testing.assert_frame_equal(clf.transform(X), expected)
    assert clf.transform(X).shape == (8, 16)


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder"])
def test_attribution_and_a_training_at_the_same_time(architecture, monkeypatch):
    options = {**OPTIONS, "architecture_type": architecture}
    clf = GLiClassClassifier(**options).fit(X, FOOD)
    attribute = TokenAttributionDisplay.compute
    before, probabilities = attribute(clf, X[0], label="food").values, clf.predict_proba(X)
    twin = GLiClassClassifier(**options).fit(X, FOOD).partial_fit(X, FOOD)
    run = explain._run

    def train_and_run(*args):
        monkeypatch.undo()
        np.testing.assert_array_equal(clf.predict_proba(X), probabilities)  # without the hook of the attribution
        clf.partial_fit(X, FOOD)
        return run(*args)

    monkeypatch.setattr(explain, "_run", train_and_run)
    np.testing.assert_allclose(attribute(clf, X[0], label="food").values, before, rtol=1e-5)
    np.testing.assert_allclose(
        attribute(clf, X[0], label="food").values, attribute(twin, X[0], label="food").values, rtol=1e-4, atol=1e-7
    )
