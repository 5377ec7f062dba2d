"""Warnings point to the line of the caller."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EpochTimer

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.testing import TINY

LONG = [f"{word} " * 30 for word in ("up", "down", "left", "right")] * 2
SIDES = ["up", "down", "left", "right"] * 2
HYPERPARAMETERS = {**TINY, "max_epochs": 0, "max_length": 12, "long_texts": "truncate", "random_state": 0}


def classifier():
    return GLiClassClassifier(**HYPERPARAMETERS)


CALLS = {
    "fit of a classifier": lambda: classifier().fit(LONG, SIDES),
    "fit of a regressor": lambda: GLiClassRegressor(**HYPERPARAMETERS).fit(LONG, np.arange(8)),
    "partial_fit": lambda: classifier().partial_fit(LONG, SIDES, classes=sorted(set(SIDES))),
    "pipeline": lambda: make_pipeline(classifier()).fit(LONG, SIDES),
    "search": lambda: GridSearchCV(classifier(), {"dropout": [0.1]}, cv=2).fit(LONG, SIDES),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_truncation_warns_at_the_callers_line(call):
    with pytest.warns(UserWarning, match="too long") as record:
        call()
    assert {warning.filename for warning in record} == {__file__}


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_prediction_warns_at_the_callers_line(method):
    clf = classifier().set_params(max_length=None).fit(LONG, SIDES)
    clf.fitted_.max_length = 12
    with pytest.warns(UserWarning, match="too long") as record:
        getattr(clf, method)(LONG)
    assert [warning.filename for warning in record] == [__file__]


def test_unsaved_option_warns_at_the_callers_line(tmp_path):
    clf = classifier().set_params(max_length=None, callbacks=[EpochTimer()])
    with pytest.warns(UserWarning, match="not saved") as record:
        clf.fit(LONG, SIDES).save_pretrained(tmp_path)
    assert [warning.filename for warning in record] == [__file__]


def test_unusable_cache_folder_warns_at_the_callers_line(tmp_path):
    """The cache is read within a decorator of torch."""
    (tmp_path / "file").write_text("no folder")
    clf = classifier().set_params(max_length=None).fit(LONG, SIDES).set_params(memory=str(tmp_path / "file" / "states"))
    with pytest.warns(UserWarning, match="cannot be") as record:
        clf.predict(LONG)
    assert [warning.filename for warning in record] == [__file__]
