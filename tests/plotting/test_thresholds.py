"""Threshold curves against scikit-learn's precision, recall and F1 at each threshold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import f1_score, precision_recall_fscore_support
from tiny_estimators import TEXTS, tiny

from sklearn_gliclass.plotting import ThresholdCurveDisplay
from sklearn_gliclass.plotting.thresholds import best_thresholds, compute_threshold_curves


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def problem(n_classes=4, n_samples=40, seed=0):
    rng = np.random.RandomState(seed)
    y = rng.randint(2, size=(n_samples, n_classes))
    y[:, -1] = 0  # a class without positives
    proba = np.clip(np.round(0.4 * y + rng.uniform(0, 0.7, y.shape), 2), 0, 1)  # many of them equal
    return y, proba


def test_curves_at_each_threshold():
    y, proba = problem()
    thresholds = np.linspace(0, 1, 41)
    precision, recall, f1 = compute_threshold_curves(y, proba, thresholds)
    for index, threshold in enumerate(thresholds):
        predicted = (proba >= threshold).astype(int)
        expected = precision_recall_fscore_support(y, predicted, zero_division=np.nan)
        np.testing.assert_allclose(precision[:, index], expected[0])
        np.testing.assert_allclose(recall[:, index], expected[1])
        np.testing.assert_allclose(f1[:, index], precision_recall_fscore_support(y, predicted, zero_division=0)[2])


def test_best_thresholds_are_as_good_as_any():
    y, proba = problem()
    display = ThresholdCurveDisplay.from_predictions(y, proba)
    best = f1_score(y, proba >= display.best_thresholds, average=None, zero_division=0)
    for threshold in display.thresholds:
        assert (best >= f1_score(y, proba >= threshold, average=None, zero_division=0) - 1e-12).all()
    assert display.best_thresholds[-1] == 0.5  # a class without positives


def test_best_thresholds_are_in_the_middle():
    thresholds = np.linspace(0, 1, 11)
    f1 = np.array([[0, 0.2, 0.9, 0.9, 0.9, 0.3, 0.9, 0, 0, 0, 0], [0.1] * 10 + [0.4], [0.0] * 11])
    np.testing.assert_allclose(best_thresholds(thresholds, f1), [0.3, 1.0, 0.5])


def test_from_estimator_and_its_thresholds():
    y = pd.DataFrame(np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2), columns=["fast", "loud"])
    clf = tiny().fit(TEXTS, y)
    display = ThresholdCurveDisplay.from_estimator(clf, TEXTS, y)
    assert display.class_names == ["fast", "loud"]
    assert display.n_positive.tolist() == [4, 4]
    before = f1_score(y, clf.predict(TEXTS), average="macro")
    clf.set_params(threshold=display.best_thresholds)
    assert f1_score(y, clf.predict(TEXTS), average="macro") >= before
    np.testing.assert_array_equal(display.lines_[1]["F1"].get_ydata(), display.f1[1])
    assert [ax.get_title() for ax in display.axes_] == ["fast (4)", "loud (4)"]


@pytest.mark.parametrize("frames", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize("order", [["fast", "loud", "red"], ["red", "fast", "loud"], ["loud", "fast", "red"]])
def test_columns_are_found_by_name(frames, order):
    y = pd.DataFrame([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]] * 2, columns=["fast", "loud", "red"])
    clf = tiny().fit(TEXTS, y)
    expected = ThresholdCurveDisplay.from_estimator(clf, TEXTS, y.to_numpy())
    display = ThresholdCurveDisplay.from_estimator(
        clf, TEXTS, frames.DataFrame({name: y[name].to_list() for name in order})
    )
    assert display.class_names == ["fast", "loud", "red"]
    np.testing.assert_array_equal(display.f1, expected.f1)
    np.testing.assert_array_equal(display.n_positive, [4, 4, 2])


def test_other_columns_than_the_classes_raise():
    y = pd.DataFrame([[1, 0], [0, 1]] * 4, columns=["fast", "loud"])
    clf = tiny().fit(TEXTS, y)
    with pytest.raises(
        ValueError, match=r"must be the classes \['fast', 'loud'\].*missing: \['loud'\], unknown: \['red'\]"
    ):
        ThresholdCurveDisplay.from_estimator(clf, TEXTS, y.rename(columns={"loud": "red"}))


@pytest.mark.parametrize(
    ("y_order", "proba_order", "class_names", "expected"),
    [
        ("abc", "cab", None, "cab"),
        ("abc", None, None, "abc"),
        (None, "cab", None, "cab"),
        ("abc", "bca", "cba", "cba"),
        ("abc", None, "abc", "abc"),
    ],
)
def test_truth_and_probabilities_are_matched_by_name(y_order, proba_order, class_names, expected):
    y, proba = (pd.DataFrame(values, columns=list("abc")) for values in problem(3))
    before = y.copy(), proba.copy()
    display = ThresholdCurveDisplay.from_predictions(
        y[list(y_order)] if y_order else y[list(expected)].to_numpy(),
        proba[list(proba_order)] if proba_order else proba[list(expected)].to_numpy(),
        class_names=class_names and list(class_names),
    )
    by_position = ThresholdCurveDisplay.from_predictions(
        y[list(expected)].to_numpy(), proba[list(expected)].to_numpy(), class_names=list(expected)
    )
    assert display.class_names == list(expected)
    np.testing.assert_array_equal(display.f1, by_position.f1)
    pd.testing.assert_frame_equal(y, before[0])
    pd.testing.assert_frame_equal(proba, before[1])


def test_names_to_show_need_not_be_those_of_the_columns():
    y, proba = problem(2)
    display = ThresholdCurveDisplay.from_predictions(pd.DataFrame(y, columns=["a", "b"]), proba, class_names=["A", "B"])
    assert display.class_names == ["A", "B"]
    with pytest.raises(ValueError, match=r"those of y_proba \['c', 'd'\]"):
        ThresholdCurveDisplay.from_predictions(
            *(pd.DataFrame(v, columns=c) for v, c in ((y, list("ab")), (proba, list("cd"))))
        )


def test_inputs_of_several_kinds():
    y, proba = problem(3)
    plain = ThresholdCurveDisplay.from_predictions(y, proba)
    assert plain.class_names == ["0", "1", "2"]
    for other in (csr_array(y), pd.DataFrame(y), y.tolist()):
        np.testing.assert_array_equal(ThresholdCurveDisplay.from_predictions(other, proba).f1, plain.f1)
    few = ThresholdCurveDisplay.from_predictions(y, proba, thresholds=[0.9, 0.1])
    assert few.thresholds.tolist() == [0.1, 0.9]


def test_choice_of_classes_and_axes():
    y, proba = problem(30)
    _, ax = plt.subplots()
    names = [f"a class with quite a long name {i}" for i in range(30)]
    display = ThresholdCurveDisplay.from_predictions(y, proba, class_names=names)
    assert len(display.axes_) == 30
    assert display.plot(ax, classes=names[3:5]).bounding_ax_ is ax
    np.testing.assert_array_equal(display.lines_[0]["recall"].get_ydata(), display.recall[3])
    display.figure_.canvas.draw()


@pytest.mark.parametrize(
    ("y", "proba", "options", "message"),
    [
        ([0, 1], [[0.1], [0.2]], {}, "matrix of 0 and 1 with a column for each class"),
        ([[0, 2]], [[0.1, 0.2]], {}, "matrix of 0 and 1"),
        ([[0, 1]], [[0.1, 0.2, 0.3]], {}, r"shape \(1, 2\) and the probabilities have shape \(1, 3\)"),
        ([[0, 1]], [[0.1, 0.2]], {"class_names": ["a"]}, "1 names for 2 columns"),
        ([[0, 1]], [[0.1, 0.2]], {"class_names": ["a", "a"]}, "class_names must be distinct"),
        ([[0, 1]], [[0.1, 0.2]], {"classes": []}, r"classes is empty; choose from \['0', '1'\]"),
        ([[0, 1]], [[0.1, 0.2]], {"thresholds": [0.5, 2]}, "numbers from 0 to 1"),
        ([[0, 1]], [[0.1, 0.2]], {"thresholds": [np.nan]}, "numbers from 0 to 1"),
        ([[0, 1]], [[0.1, 0.2]], {"thresholds": []}, "numbers from 0 to 1"),
        ([[0, 1]], [[0.1, 0.2]], {"thresholds": 0.5}, "numbers from 0 to 1"),
        ([[0, 1]], [[-3.0, 0.2]], {}, "values from -3 to 0.2; use predict_proba"),
        ([[0, 1]], [[0.1, 0.2]], {"classes": ["x"]}, r"Unknown classes \['x'\]; choose from \['0', '1'\]"),
    ],
)
def test_invalid_arguments_raise(y, proba, options, message):
    with pytest.raises(ValueError, match=message):
        ThresholdCurveDisplay.from_predictions(y, proba, **options)
