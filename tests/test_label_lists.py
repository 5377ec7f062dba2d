"""y as lists of labels: reading, fitting, prediction and score."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.metrics import accuracy_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.preprocessing import MultiLabelBinarizer

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.label_lists import read_label_lists
from sklearn_gliclass.plotting import ThresholdCurveDisplay
from sklearn_gliclass.targets import MULTI, SINGLE, SOFT, read_class_targets
from sklearn_gliclass.testing import TINY

TEXTS = ["a late goal", "a new law", "the match", "a vote", "goals", "laws and votes"]
LABELS = [["sports"], ["law", "politics"], ["sports"], ["politics"], [], ["law", "politics"]]
EXPECTED = MultiLabelBinarizer().fit_transform(LABELS)
NAMES = ["law", "politics", "sports"]


def classifier(**parameters):
    return GLiClassClassifier(**{**TINY, "random_state": 0, **parameters})


def object_array(rows):
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


# -- reading -----------------------------------------------------------------------------------------------------

CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "list of tuples": lambda y: [tuple(row) for row in y],
    "list of sets": lambda y: [set(row) for row in y],
    "list of frozensets": lambda y: [frozenset(row) for row in y],
    "list of arrays": lambda y: [np.array(row, dtype=object) for row in y],
    "list of Series": lambda y: [pd.Series(row, dtype=object) for row in y],
    "object array": object_array,
    "object column": lambda y: object_array(y).reshape(-1, 1),
    "pandas Series": lambda y: pd.Series(y, index=range(6, 0, -1)),
    "pandas Series of sets": lambda y: pd.Series([set(row) for row in y]),
    "pandas frame": lambda y: pd.DataFrame({"labels": y}),
    "polars Series": pl.Series,
    "polars frame": lambda y: pl.DataFrame({"labels": y}),
}


def arrow(y):
    return pytest.importorskip("pyarrow").array(y)


def arrow_chunks(y):
    return pytest.importorskip("pyarrow").chunked_array([y[:2], y[2:]])


def arrow_table(y):
    return pytest.importorskip("pyarrow").table({"labels": y})


def arrow_dtype(y):
    pa = pytest.importorskip("pyarrow")
    return pd.Series(y, dtype=pd.ArrowDtype(pa.list_(pa.string())))


def dataset_column(y):
    datasets, pa = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table({"labels": y})), fingerprint="0")["labels"]


CONTAINERS |= {function.__name__: function for function in (arrow, arrow_chunks, arrow_table, arrow_dtype)}
CONTAINERS["dataset_column"] = dataset_column


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_lists_of_labels_are_encoded_as_by_multi_label_binarizer(container):
    targets = read_class_targets(container(LABELS))
    assert targets.kind == MULTI
    assert targets.classes.tolist() == NAMES
    np.testing.assert_array_equal(targets.array, EXPECTED)


@pytest.mark.parametrize(
    "y",
    [
        [["a"], ["b"]],
        [["a", "b"], ["b", "c"]],
        [["a", "a"], ["b"]],
        [("a",), ("b",)],
        [{1}, {2}],
        [{0, 1}, {1}],
        [[0, 2], [1], []],
        [[], ["b"], ["a"]],
        [["True story"], ["b"]],
        [["1"], ["2"]],
        [{"0", "1"}, {"2", "3"}],
    ],
)
def test_rows_of_labels_are_multi_label(y):
    targets = read_class_targets(y)
    binarizer = MultiLabelBinarizer()
    np.testing.assert_array_equal(targets.array, binarizer.fit_transform(y))
    assert targets.classes.tolist() == binarizer.classes_.tolist()
    assert targets.kind == MULTI


@pytest.mark.parametrize(
    ("y", "kind", "classes"),
    [
        ([[0, 1], [1, 0]], MULTI, [0, 1]),
        (pd.Series([[0, 1], [1, 0]]), MULTI, [0, 1]),
        (object_array([[True, False], [False, True]]), MULTI, [0, 1]),
        ([np.array([0, 1]), np.array([1, 1])], MULTI, [0, 1]),
        ([[0.3, 0.7], [1, 0]], SOFT, [0, 1]),
        (pl.Series([[0.3, 0.7], [1.0, 0.0]]), SOFT, [0, 1]),
    ],
)
def test_rows_of_equally_many_numbers_remain_a_matrix(y, kind, classes):
    targets = read_class_targets(y)
    assert targets.kind == kind
    assert targets.classes.tolist() == classes
    np.testing.assert_array_equal(targets.array, np.array(list(y), dtype=float))


@pytest.mark.parametrize("y", [["a", "b"], [1, 2], np.eye(2), [[1], [2]], [1.0, 2.0], pd.Series(["a", "b"]), None])
def test_other_targets_are_no_lists_of_labels(y):
    assert read_label_lists(y) is None


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_column_of_numbers_remains_single_label():
    assert read_class_targets([[1], [2]]).kind == SINGLE


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([["a"], None, ["b"], float("nan")], r"2 missing list\(s\) of labels, at row\(s\) 1, 3; drop .* or give \[\]"),
        (pd.Series([["a"], None, ["b"]]), r"1 missing list\(s\) of labels, at row\(s\) 1"),
        (pl.Series([["a"], None, ["b"]]), r"1 missing list\(s\) of labels, at row\(s\) 1"),
        ([["a"], ["b", None]], "the labels of row 1 have a missing value"),
        ([["a"], [float("nan")]], "the labels of row 1 have a missing value"),
        ([["a"], "b"], r"lists of labels, but a str at row 1, 'b'; give each row a list of labels, \[\] where none"),
        ([{1}, 2], r"lists of labels, but a int at row 1, 2"),
        ([["a"], [1]], r"classes of one type, got \['int', 'str'\]"),
        ([[["a"]], ["b"]], "a list among the labels of row 0; labels are strings or numbers"),
        ([[("a", "b")], ["b"]], "a tuple among the labels of row 0"),
        ([{"a": 1}, {"b": 0}], "y holds a dict at row 0; give each row a list of labels"),
        ([[], []], "all of its 2 lists are empty; give samples of at least 2 labels"),
        ([["a"], []], "only one class: 'a'"),
        ([[1.5], [2.5, 3]], "Unknown label type: continuous"),
        ([["0", "1"], ["1", "0"]], "rows of numbers as strings.* Convert them to numbers if"),
        ([[1, 2], [0, 1]], "Unknown label type: multiclass-multioutput"),
    ],
)
def test_invalid_lists_of_labels_raise(y, message):
    with pytest.raises(ValueError, match=message):
        read_class_targets(y)


def test_known_classes_keep_their_order():
    targets = read_class_targets(LABELS, classes=np.array(["other", "sports", "politics", "law"]))
    np.testing.assert_array_equal(targets.array, np.c_[np.zeros(6), EXPECTED[:, ::-1]])
    with pytest.raises(ValueError, match=r"not among the classes \['law', 'sports'\]: \['politics'\]"):
        read_class_targets(LABELS, classes=np.array(["law", "sports"]))


def test_problem_type_of_lists_with_one_label_each():
    y = [["b"], ["a"], ["b"]]
    targets = read_class_targets(y, "single_label_classification")
    assert targets.kind == SOFT
    np.testing.assert_array_equal(targets.array, [[0, 1], [1, 0], [0, 1]])
    with pytest.raises(ValueError, match="single_label_classification' does not match y, which is multi-label"):
        read_class_targets(LABELS, "single_label_classification")


# -- the classifier ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(TEXTS, LABELS)


def test_fit_is_that_on_the_indicator_matrix(fitted):
    expected = classifier().fit(TEXTS, pd.DataFrame(EXPECTED, columns=NAMES))
    assert fitted.classes_.tolist() == fitted.label_names_ == NAMES
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), expected.predict_proba(TEXTS))
    np.testing.assert_array_equal(fitted.predict(TEXTS), expected.predict(TEXTS))


def test_predicted_labels_are_those_of_the_indicator_matrix():
    fitted = classifier(max_epochs=40).fit(TEXTS, LABELS)
    predicted = fitted.predict(TEXTS)
    assert 0 < predicted.mean() < 1
    binarizer = MultiLabelBinarizer().fit([NAMES])
    assert fitted.predict_labels(TEXTS) == [list(row) for row in binarizer.inverse_transform(predicted)]


def test_predicted_labels_of_a_single_label_y_are_the_predictions():
    fitted = classifier().fit(TEXTS, ["a", "b"] * 3)
    np.testing.assert_array_equal(fitted.predict_labels(TEXTS), fitted.predict(TEXTS))


def test_lists_of_no_label_and_of_all(fitted):
    labels = fitted.set_params(threshold=0.0).predict_labels(TEXTS)
    assert labels == [NAMES] * 6
    assert fitted.set_params(threshold=1.0).predict_labels(TEXTS) == [[]] * 6
    fitted.set_params(threshold=0.5)


@pytest.mark.parametrize("container", [list, pd.Series, lambda y: [set(row) for row in y]])
@pytest.mark.parametrize("weight", [None, [1, 2, 3, 1, 2, 3]])
def test_score_is_that_of_the_indicator_matrix(fitted, container, weight):
    y = fitted.predict_labels(TEXTS)
    y[1] = ["law"]
    expected = accuracy_score(MultiLabelBinarizer(classes=NAMES).fit_transform(y), fitted.predict(TEXTS),
                              sample_weight=weight)  # fmt: skip
    assert fitted.score(TEXTS, container(y), weight) == expected


def test_score_counts_unknown_labels_as_wrong(fitted):
    y = fitted.predict_labels(TEXTS)
    assert fitted.score(TEXTS, y) == 1
    y[0] = [*y[0], "art"]
    assert fitted.score(TEXTS, y) == pytest.approx(5 / 6)


@pytest.mark.parametrize("frames", [pd, pl], ids=["pandas", "polars"])
def test_score_matches_columns_by_name(fitted, frames):
    predicted = dict(zip(NAMES, fitted.predict(TEXTS).T, strict=True))
    assert fitted.score(TEXTS, frames.DataFrame(predicted)) == 1
    assert fitted.score(TEXTS, frames.DataFrame(dict(reversed(predicted.items())))) == 1
    assert fitted.score(TEXTS, fitted.predict(TEXTS)) == 1


def test_score_of_lists_for_a_single_label_classifier_raises():
    with pytest.raises(ValueError, match="fitted on single-label y; give one class per sample"):
        classifier().fit(TEXTS, ["a", "b"] * 3).score(TEXTS, LABELS)


def test_cross_validation_of_lists():
    scores = cross_val_score(classifier(), TEXTS, LABELS, cv=KFold(2))
    expected = cross_val_score(classifier(), TEXTS, pd.DataFrame(EXPECTED, columns=NAMES), cv=KFold(2))
    np.testing.assert_array_equal(scores, expected)


def test_label_of_rows_without_weight_is_no_class():
    fitted = classifier().fit([*TEXTS, "a painting"], [*LABELS, ["art", "law"]], [1.0] * 6 + [0.0])
    assert fitted.classes_.tolist() == NAMES


def test_partial_fit_on_lists():
    fitted = classifier().partial_fit(TEXTS[:2], LABELS[:2], classes=["sports", "politics", "law", "art"])
    assert fitted.classes_.tolist() == ["sports", "politics", "law", "art"]
    expected = classifier().partial_fit(TEXTS[:2], np.c_[EXPECTED[:2, ::-1], [0, 0]], classes=fitted.classes_)
    for clf, y in ((fitted, [["art"], []]), (expected, [[0, 0, 0, 1], [0, 0, 0, 0]])):
        clf.partial_fit(TEXTS[2:4], y)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), expected.predict_proba(TEXTS))
    with pytest.raises(ValueError, match=r"not among the classes .*: \['music'\]"):
        fitted.partial_fit(TEXTS[:1], [["music"]])


@pytest.mark.parametrize("class_weight", ["balanced", {"sports": 2.0}])
def test_class_weight_of_lists(class_weight):
    by_lists = classifier(class_weight=class_weight).fit(TEXTS, LABELS)
    by_matrix = classifier(class_weight=class_weight).fit(TEXTS, pd.DataFrame(EXPECTED, columns=NAMES))
    np.testing.assert_array_equal(by_lists.predict_proba(TEXTS), by_matrix.predict_proba(TEXTS))


def test_thresholds_from_lists(fitted):
    pytest.importorskip("matplotlib")
    by_lists = ThresholdCurveDisplay.from_estimator(fitted, TEXTS, LABELS)
    by_matrix = ThresholdCurveDisplay.from_estimator(fitted, TEXTS, EXPECTED)
    np.testing.assert_array_equal(by_lists.best_thresholds, by_matrix.best_thresholds)
