"""Conversion of y to labels and targets, and of logits to predictions."""

import contextlib
import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import clone
from sklearn.preprocessing import LabelEncoder, StandardScaler

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.targets import (
    MULTI,
    SINGLE,
    SOFT,
    class_sample_weight,
    integer_classes_warning,
    known_classes,
    label_texts,
    read_class_targets,
    read_regression_targets,
    read_thresholds,
    zero_shot_classes,
)
from sklearn_gliclass.testing import TINY

TEXTS = ["a late goal", "a new law", "the match", "a vote", "goals", "laws and votes"]
INDICATOR = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
SOFT_LABELS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [1, 0, 0], [0, 0.5, 0.5], [0.25, 0.25, 0.5], [0, 0, 1]])
VALUES = np.array([10.0, -3.0, 12.5, 4.0, 9.0, -8.5])


def classifier(**parameters):
    return GLiClassClassifier(**{**TINY, "max_epochs": 1, "random_state": 0, **parameters})


def regressor(**parameters):
    return GLiClassRegressor(**{**TINY, "max_epochs": 1, "random_state": 0, **parameters})


# -- single-label ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y",
    [
        ["b", "a", "c", "a"],
        ("b", "a", "c", "a"),
        np.array(["b", "a", "c", "a"]),
        np.array(["b", "a", "c", "a"], dtype=object),
        [2, 0, 7, 0],
        np.array([-1, 1, 3, 1], dtype=np.int8),
        [1.0, 2.0, 3.0, 2.0],
        [True, False, True, False],
        pd.Series(["b", "a", "c", "a"], index=[3, 3, 1, 0]),
        pd.Series(["b", "a", "c", "a"], dtype="category"),
        pd.Series(["b", "a", "c", "a"], dtype="string"),
        pd.Series([2, 0, 7, 0], dtype="Int64"),
        pd.Series([True, False, True, False], dtype="boolean"),
        pl.Series(["b", "a", "c", "a"]),
        pl.Series(["b", "a", "c", "a"], dtype=pl.Categorical),
        pl.Series([2, 0, 7, 0]),
    ],
)
def test_single_label_y_is_encoded_as_by_label_encoder(y):
    targets = read_class_targets(y)
    encoder = LabelEncoder().fit(np.asarray(list(y)))
    assert targets.kind == SINGLE
    np.testing.assert_array_equal(targets.classes, encoder.classes_)
    np.testing.assert_array_equal(targets.array, encoder.transform(np.asarray(list(y))))


def test_column_vector_is_raveled_with_scikit_learns_warning():
    with pytest.warns(UserWarning, match="A column-vector y was passed when a 1d array was expected"):
        targets = read_class_targets(np.array([["b"], ["a"]]))
    assert targets.kind == SINGLE


@pytest.mark.parametrize(
    "y", [["b", "a"] * 3, [1, 0] * 3, [True, False] * 3, pd.Series(["b", "a"] * 3, dtype="category")]
)
def test_predictions_are_classes_of_the_kind_of_y(y):
    fitted = classifier().fit(TEXTS, y)
    assert set(fitted.predict(TEXTS)) <= set(np.asarray(y))
    assert fitted.predict(TEXTS).dtype == fitted.classes_.dtype
    assert 0 <= fitted.score(TEXTS, y) <= 1


# -- multi-label and soft labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "container",
    [
        np.array,
        np.ndarray.tolist,
        lambda y: y.astype(bool),
        lambda y: y.astype(float),
        sp.csr_matrix,
        sp.csc_array,
        sp.coo_array,
        pd.DataFrame,
        lambda y: pd.DataFrame(y.astype(bool)).astype("boolean"),
    ],
)
def test_multi_label_containers_are_read(container):
    targets = read_class_targets(container(INDICATOR))
    assert targets.kind == MULTI
    np.testing.assert_array_equal(targets.array, INDICATOR)
    np.testing.assert_array_equal(targets.classes, [0, 1, 2])


@pytest.mark.parametrize("frames", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize(("y", "kind"), [(INDICATOR, MULTI), (SOFT_LABELS, SOFT)])
def test_columns_of_a_frame_name_the_labels(frames, y, kind):
    targets = read_class_targets(frames.DataFrame(dict(zip(["red", "green", "blue"], y.T, strict=True))))
    assert targets.kind == kind
    assert targets.classes.tolist() == ["red", "green", "blue"]
    np.testing.assert_array_equal(targets.array, y)


def test_frame_columns_are_what_the_model_reads():
    fitted = classifier().fit(TEXTS, pd.DataFrame(INDICATOR, columns=["sports", "politics", "other"]))
    assert fitted.classes_.tolist() == fitted.label_names_ == ["sports", "politics", "other"]


@pytest.mark.parametrize(
    ("problem_type", "y", "kind"),
    [
        (None, INDICATOR, MULTI),
        (None, SOFT_LABELS, SOFT),
        (None, np.eye(3), MULTI),
        ("single_label_classification", ["a", "b"], SINGLE),
        ("single_label_classification", SOFT_LABELS, SOFT),
        ("single_label_classification", np.eye(3), SOFT),
        ("multi_label_classification", INDICATOR, MULTI),
        ("multi_label_classification", SOFT_LABELS, MULTI),
    ],
)
def test_problem_type_decides_where_y_leaves_a_choice(problem_type, y, kind):
    assert read_class_targets(y, problem_type).kind == kind


@pytest.mark.parametrize(
    ("problem_type", "y", "message"),
    [
        ("single_label_classification", INDICATOR, "does not match y, which is multi-label; give a 1-D y"),
        ("multi_label_classification", ["a", "b"], "does not match y, which is single-label; give a 2-D indicator"),
        ("regression", ["a", "b"], "use GLiClassRegressor"),
    ],
)
def test_problem_type_that_does_not_fit_y_raises(problem_type, y, message):
    with pytest.raises(ValueError, match=message):
        read_class_targets(y, problem_type)


@pytest.mark.parametrize("ignore_index", [-100, -1])
def test_unknown_label_takes_no_part(ignore_index):
    """The loss is the focal loss (alpha 0.5, gamma 2) of the known labels alone."""
    y = INDICATOR.copy()
    y[:, 2] = ignore_index
    losses = classifier(ignore_index=ignore_index).fit(TEXTS, y).history_[:, "train_loss"]
    logits = classifier(max_epochs=0).fit(TEXTS, INDICATOR).decision_function(TEXTS)
    p_true = expit(np.where(INDICATOR == 1, logits, -logits))[:, :2]
    np.testing.assert_allclose(losses, [(-0.5 * (1 - p_true) ** 2 * np.log(p_true)).mean()], rtol=1e-4)


# -- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        ([], r"0 sample\(s\)"),
        (["a", "a"], "at least 2 classes in the data, but the data contains only one class: 'a'"),
        (["a", None], r"Input y contains NaN: 1 missing target\(s\), first at row 1"),
        (["a", float("nan")], "Input y contains NaN"),
        ([1.0, np.nan], "Input y contains NaN"),
        (pd.Series(["a", None, "b"]), "Input y contains NaN: 1 missing"),
        (pd.Series([1, None, 2], dtype="Int64"), "Input y contains NaN: 1 missing"),
        (pl.Series(["a", None]), "Input y contains NaN: 1 missing"),
        ([[1, np.nan], [0, 1]], "Input y contains NaN"),
        (pd.DataFrame({"x": pd.array([1, None], dtype="Int64"), "z": [0, 1]}), "Input y contains NaN"),
        ([1.5, 2.0], "Unknown label type: continuous"),
        (["a", 1], r"y must hold classes of one type, got \['int', 'str'\]; convert all of them to str"),
        (pd.Categorical(["a", None]), "Input y contains NaN: 1 missing"),
        (np.array(["a", None, "b", np.nan], dtype=object), "2 missing target.*first at row 1; drop these rows"),
        (np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"), "Input y contains NaN: 1 missing"),
        (np.ma.array(["a", "b"], mask=[True, False]), "1 missing target.*first at row 0"),
        (pd.DataFrame({"label": ["a", None]}), "1 missing target.*first at row 1"),
        (np.array([["a"], [None]], dtype=object), "1 missing target.*first at row 1"),
        ([1.0, np.inf], "contains infinity"),
        (np.array([1.0, np.inf], dtype=object), "contains infinity"),
        (np.array([[1, 0], [0, np.inf]]), "contains infinity"),
        ([["1", "0"], ["0", "1"]], "rows of numbers as strings, .* the rows to sets if they are labels"),
        (np.array([["1", "0"], ["0", "1"]], dtype=object), "values that are not numbers"),
        (pd.DataFrame({"a": ["x", "y"], "b": ["x", "x"]}), "values that are not numbers"),
        (np.array([[1j, 0], [0, 1]]), "Complex data not supported"),
        (pd.DataFrame({"a": [0, None], "b": [0, 1]}), r"row 1, column 0; .*mark unknown labels.*ignore_index \(-100\)"),
        (pd.DataFrame([[0, 1], [1, 0]], columns=["a", "a"]), r"more than one column named \['a'\]"),
        (pd.DataFrame([[0, 1], [1, 0]], columns=["a", None]), "columns of y must be named by their classes"),
        (np.array([["a", "b"], ["c", "d"]]), r"values that are not numbers; .*\[list\(row\) for row in y\]"),
        ([[1, 2], [0, 1]], "Unknown label type: multiclass-multioutput"),
        ([[0.3, 0.3], [1, 0]], "Unknown label type: continuous-multioutput"),
        (np.zeros((2, 2, 2)), "must be 1-D or 2-D, got 3 dimensions"),
    ],
)
def test_invalid_classification_targets_raise(y, message):
    with pytest.raises(ValueError, match=message):
        read_class_targets(y)


@pytest.mark.parametrize("estimator", [classifier(), regressor()], ids=["classifier", "regressor"])
def test_y_of_another_length_than_x_raises(estimator):
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[6, 5\]"):
        estimator.fit(TEXTS, [0, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (["a", "b"] * 3, ["c", "a"] * 3, r"not among the classes \['a', 'b'\]: \['c'\]"),
        (["a", "b"] * 3, INDICATOR, "single-label y, and this y is multi-label"),
        (INDICATOR, INDICATOR[:, :2], r"y has 2 columns, but the known classes are \[0, 1, 2\]; give one column for"),
        (INDICATOR, ["a", "b"] * 3, "multi-label y, and this y is single-label"),
    ],
)
def test_partial_fit_on_another_kind_of_y_raises(first, then, message):
    fitted = classifier().partial_fit(TEXTS, first)
    with pytest.raises(ValueError, match=message):
        fitted.partial_fit(TEXTS, then)


def test_partial_fit_knows_classes_that_come_later():
    fitted = classifier().partial_fit(TEXTS[:2], ["a", "b"], classes=["c", "a", "b"])
    assert fitted.classes_.tolist() == ["a", "b", "c"]
    assert fitted.partial_fit(TEXTS[:1], ["c"]).predict_proba(TEXTS).shape == (6, 3)
    assert fitted.n_iter_ == 2


@pytest.mark.parametrize("y", ["ab", {"a": 1}, {"a", "b"}, (label for label in "ab"), 3, pl.LazyFrame({"a": [1]})])
def test_y_without_order_raises(y):
    with pytest.raises(TypeError, match=r"y must be a sequence of classes, or a 2-D array.*got"):
        read_class_targets(y)


@pytest.mark.parametrize("dtype", ["object", "str", "category", "string"])
def test_kind_of_a_series_makes_no_difference(dtype):
    targets = read_class_targets(pd.Series(["b", "a", "b"], dtype=dtype))
    assert targets.classes.tolist() == ["a", "b"]
    assert targets.array.tolist() == [1, 0, 1]


def test_numbers_of_dtype_object_are_numbers():
    targets = read_class_targets(np.array([3, 1, 3], dtype=object))
    assert targets.classes.tolist() == [1, 3]
    assert targets.classes.dtype.kind == "i"


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b", "a"],
        np.array(["a", "b"], dtype=object),
        pd.Series(["a", "b"]),
        INDICATOR,
        pd.DataFrame({"x": [0, 1], "y": [1, None]}),
        np.array([[0, 1], [1, None]], dtype=object),
    ],
)
def test_y_is_not_modified(y):
    before = copy.deepcopy(y)
    with contextlib.suppress(ValueError):
        read_class_targets(y)
    if hasattr(y, "equals"):
        assert y.equals(before)
    else:
        np.testing.assert_array_equal(y, before)


# -- classes that are known already ------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [["c", "a", "b"], ["b", "c", "a", "z"], [2, 0, 1], [True, False], [2.0, -1.0]])
def test_single_label_y_is_mapped_to_classes_in_any_order(classes):
    rng = np.random.RandomState(0)
    y = np.array(classes)[rng.randint(len(classes), size=20)]
    targets = read_class_targets(y, classes=np.array(classes))
    assert targets.array.tolist() == [classes.index(value) for value in y.tolist()]
    assert targets.classes.tolist() == classes
    in_order = targets.sort_classes()
    assert in_order.classes.tolist() == sorted(classes)
    np.testing.assert_array_equal(in_order.classes[in_order.array], y)


@pytest.mark.parametrize("frames", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize("values", [INDICATOR, SOFT_LABELS], ids=["multi-label", "soft labels"])
@pytest.mark.parametrize("order", [["red", "green", "blue"], ["blue", "red", "green"], ["green", "blue", "red"]])
def test_columns_with_names_are_found_by_name(frames, values, order):
    classes = np.array(["green", "red", "blue"])
    frame = pd.DataFrame(values, columns=order)
    y = frames.DataFrame({name: frame[name].to_numpy() for name in order})
    targets = read_class_targets(y, classes=classes)
    np.testing.assert_array_equal(targets.array, frame.reindex(columns=classes))
    np.testing.assert_array_equal(targets.classes, classes)
    assert targets.sort_classes() is targets  # the order of columns is kept
    by_position = read_class_targets(values, classes=classes)
    np.testing.assert_array_equal(by_position.array, values)
    back = by_position.reorder(np.sort(classes))
    np.testing.assert_array_equal(back.array, pd.DataFrame(values, columns=classes).sort_index(axis=1))


def test_columns_named_by_numbers_are_found_by_name():
    y = pd.DataFrame(INDICATOR, columns=[2020, 2018, 2019])
    assert read_class_targets(y).classes.tolist() == [2020, 2018, 2019]
    targets = read_class_targets(y, classes=np.array([2018, 2019, 2020]))
    np.testing.assert_array_equal(targets.array, y.reindex(columns=[2018, 2019, 2020]))


def test_default_columns_are_no_names():
    targets = read_class_targets(pd.DataFrame(INDICATOR), classes=np.array(["c", "a", "b"]))
    np.testing.assert_array_equal(targets.array, INDICATOR)


def test_columns_of_several_kinds_keep_theirs():
    assert read_class_targets(pd.DataFrame(INDICATOR, columns=[1, "1", 2.5])).classes.tolist() == [1, "1", 2.5]


def test_other_columns_are_named_in_the_error():
    y = pd.DataFrame(INDICATOR, columns=["red", "green", "violet"])
    with pytest.raises(ValueError, match=r"\['red', 'green', 'blue'\].*missing: \['blue'\], unknown: \['violet'\]"):
        read_class_targets(y, classes=np.array(["red", "green", "blue"]))
    with pytest.raises(ValueError, match=r"missing: \['blue'\], unknown: \[\]"):
        read_class_targets(y[["red", "green"]], classes=np.array(["red", "green", "blue"]))


@pytest.mark.parametrize("order", [["c", "a", "b"], ["b", "c", "a"]])
def test_partial_fit_aligns_the_columns_of_later_calls(order):
    """Scores equal those of an estimator that is given the columns in the order of the first call."""
    y = pd.DataFrame(INDICATOR, columns=["b", "c", "a"])
    first = classifier().partial_fit(TEXTS, y)
    second = clone(first).partial_fit(TEXTS, y)
    np.testing.assert_array_equal(
        first.partial_fit(TEXTS, y[order]).predict_proba(TEXTS), second.partial_fit(TEXTS, y).predict_proba(TEXTS)
    )
    assert first.classes_.tolist() == ["b", "c", "a"]


def test_partial_fit_keeps_the_order_of_its_classes_for_multi_label():
    fitted = classifier().partial_fit(TEXTS, INDICATOR, classes=["sports", "politics", "art"])
    assert fitted.classes_.tolist() == ["sports", "politics", "art"]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["c", "a", "b"], ["c", "a", "b"]),
        (np.array([2, 0, 1]), [2, 0, 1]),
        (pd.Series(["b", "a"], index=[4, 2]), ["b", "a"]),
        (pd.Categorical(["b", "a"]), ["b", "a"]),
        (pl.Series([True, False]), [True, False]),
        (("b", ""), ["b", ""]),
    ],
)
def test_known_classes_keep_their_order(classes, expected):
    assert known_classes(classes).tolist() == expected
    assert known_classes(classes, np.sort(np.array(expected))).tolist() == expected


BAD_CLASSES = [
    (["a", "b", "a"], ValueError, r"each of them once, got \['a'\] more than once"),
    (["a"], ValueError, r"at least 2 classes, each of them once, got \['a'\]"),
    ([], ValueError, r"got \[\]"),
    (["a", None], ValueError, "got None at position 1; give strings or numbers"),
    (["a", float("nan")], ValueError, "got nan at position 1"),
    (pd.Series(["a", None]), ValueError, "at position 1"),
    (pd.Series([1, None], dtype="Int64"), ValueError, "got <NA> at position 1"),
    (np.array(["a", None], dtype=object), ValueError, "got None at position 1"),
    ([1.0, np.inf], ValueError, "got inf at position 1"),
    ([["a"], ["b"]], ValueError, r"got \['a'\] at position 0"),
    ([{"a": 1}, "b"], ValueError, "at position 0"),
    ([("a", "b"), ("c", "d")], ValueError, "at position 0"),
    (np.array([["a", "b"]]), ValueError, r"got ndarray of shape \(1, 2\); give a 1-D list"),
    (pd.DataFrame({"a": ["x", "y"]}), ValueError, r"got DataFrame of shape \(2, 1\)"),
    (["a", 1], ValueError, r"must hold classes of one type, got \['int', 'str'\]"),
    ("ab", ValueError, "got 'ab'; put the classes in a list"),
    ({"a": "first", "b": "second"}, TypeError, r"got dict; pass list\("),
    ({"a", "b"}, TypeError, r"got set; pass sorted\("),
    ((label for label in "ab"), TypeError, r"got generator; pass list\("),
]


@pytest.mark.parametrize(("classes", "error", "message"), BAD_CLASSES)
def test_invalid_known_classes_raise(classes, error, message):
    with pytest.raises(error, match=message):
        known_classes(classes)


def test_classes_of_a_later_call_must_be_the_same():
    with pytest.raises(ValueError, match=r"classes=\['a', 'c'\] is not the same as on last call to partial_fit, was"):
        known_classes(["a", "c"], np.array(["a", "b"]))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["sports", "politics"], ["sports", "politics"]),
        (np.array(["b", "a", "c"], dtype=object), ["b", "a", "c"]),
        (pd.Series(["b", "a"], dtype="category"), ["b", "a"]),
        (pd.Index(["b", "a"]), ["b", "a"]),
        (pl.Series(["b", "a"]), ["b", "a"]),
        ({"b": "the second", "a": "the first"}, ["b", "a"]),
        ([3, 1], [3, 1]),
    ],
)
def test_zero_shot_classes_keep_their_order(labels, expected):
    classes = zero_shot_classes(labels, "fit(None, labels)")
    assert classes.tolist() == expected
    assert classes.dtype.kind == ("U" if isinstance(expected[0], str) else "i")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        *(case for case in BAD_CLASSES[1:] if not isinstance(case[0], dict)),
        ({"a": "first"}, ValueError, r"each of them once, got \['a'\]"),
        ({"a": "first", None: "second"}, ValueError, "got None at position 1"),
        (None, ValueError, "target y is None"),
        (["a", ""], ValueError, "got the empty label '' at position 1"),
        (["a", " \t"], ValueError, "got the empty label"),
    ],
)
def test_invalid_zero_shot_classes_raise(labels, error, message):
    if not isinstance(labels, (list, tuple, type(None), str, dict, set, np.ndarray, pd.Series, pd.DataFrame)):
        labels = (label for label in "ab")  # a fresh generator
    with pytest.raises(error, match=message):
        zero_shot_classes(labels, "fit(None, labels)")


@pytest.mark.parametrize(
    ("classes", "label_names", "warns"),
    [
        ([0, 1], None, True),
        (np.array([1.0, 2.5]), None, True),
        ([True, False], None, True),
        (["0", "1"], None, True),
        (["0", "none"], None, False),
        (["spam", "ham"], None, False),
        ([0, 1], ["spam", "ham"], False),
        (np.arange(30), None, True),
    ],
)
def test_classes_without_meaning_warn(classes, label_names, warns):
    message = integer_classes_warning(classes, label_names)
    assert (message is not None) == warns
    assert not warns or ("label_names" in message and len(message) < 300)


@pytest.mark.parametrize(
    ("classes", "texts"),
    [
        (["Animals > Cats", "Machines > Cats"], ["Animals > Cats", "Machines > Cats"]),
        (["a/b/c", "a.b.d"], ["a/b/c", "a.b.d"]),
        (["A::HiClass::Separator::B::HiClass::Separator::C", "A"], ["A > B > C", "A"]),
    ],
)
def test_classes_that_are_paths_keep_their_words(classes, texts):
    fitted = classifier().fit(TEXTS, classes * 3)
    assert label_texts(None, classes) == texts
    assert sorted(fitted.label_names_) == sorted(texts)
    assert set(fitted.predict(TEXTS)) <= set(classes)


# -- names of the labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label_names", "texts"),
    [
        (None, ["0", "1"]),
        ({0: "spam", 1: "ham"}, ["spam", "ham"]),
        ({1: "ham", 0: "spam", 2: "eggs"}, ["spam", "ham"]),
        (["spam", "ham"], ["spam", "ham"]),
        (np.array(["spam", "ham"]), ["spam", "ham"]),
        (pd.Series(["spam", "ham"]), ["spam", "ham"]),
        (pd.Series({1: "ham", 0: "spam"}), ["spam", "ham"]),
        (pd.Series({1: "ham", 7: "eggs", 0: "spam"}), ["spam", "ham"]),
        (pl.Series(["spam", "ham"]), ["spam", "ham"]),
    ],
)
def test_label_names_are_read_from_all_forms(label_names, texts):
    fitted = classifier(label_names=label_names).fit(TEXTS, [0, 1] * 3)
    assert fitted.label_names_ == texts
    assert fitted.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("label_names", "error", "message"),
    [
        ({0: "spam"}, ValueError, r"no text for the class\(es\) \[1\]; it has \[0\]"),
        (
            ["spam"],
            ValueError,
            r"has 1 texts for 2 labels; give one for each of the 2 classes, in this order: \[0, 1\]",
        ),
        (["spam", "spam"], ValueError, r"same label text: \['spam'\]; .* Give different ones with label_names"),
        (["spam", 1], TypeError, r"must hold texts \(str\), got int: 1"),
        (["spam", None], TypeError, r"must hold texts \(str\), got NoneType"),
        (["spam", ""], ValueError, "label text of the class 1 is empty: ''. Give a text with label_names"),
        ({0: " ", 1: "ham"}, ValueError, "label text of the class 0 is empty"),
        (["spam", "\ud83d"], ValueError, "lone surrogate .* at position 1"),
        (pd.Series({1: "ham", 2: "spam"}), ValueError, r"no text for the class\(es\) \[0\]; it has \[1, 2\]"),
        (pd.Series(["spam", "ham"], index=["a", "b"]), ValueError, r"no text for the class\(es\) \[0, 1\]"),
        (
            pd.Series(["spam", "ham", "x"], index=[0, 1, 1]),
            ValueError,
            r"index of label_names has \[1\] more than once",
        ),
    ],
)
def test_invalid_label_names_raise(label_names, error, message):
    with pytest.raises(error, match=message):
        classifier(label_names=label_names).fit(TEXTS, [0, 1] * 3)


@pytest.mark.parametrize("classes", [["sea", "food"], ["food", "sea"]])
@pytest.mark.parametrize(
    "label_names",
    [
        {"food": "to eat", "sea": "the ocean", "air": "the sky"},
        pd.Series({"food": "to eat", "sea": "the ocean"}),
        pd.Series({"sea": "the ocean", "food": "to eat"}),
    ],
)
def test_label_names_by_class_follow_the_order_of_the_classes(classes, label_names):
    by_class = {"food": "to eat", "sea": "the ocean"}
    assert label_texts(label_names, np.array(classes)) == [by_class[name] for name in classes]
    assert label_texts(["first", "second"], np.array(classes)) == ["first", "second"]
    assert label_texts(pd.Series(["first", "second"]), np.array(classes)) == ["first", "second"]


def test_index_of_classes_wins_over_positions():
    assert label_texts(pd.Series(["no", "yes"]), np.array([1, 0])) == ["yes", "no"]


@pytest.mark.parametrize("label_names", ["spam", {"spam", "ham"}, (text for text in ["spam", "ham"]),
                                         pd.DataFrame({"a": ["spam", "ham"]})])  # fmt: skip
def test_label_names_without_order_raise(label_names):
    with pytest.raises(TypeError, match="label_names must be a dict by class, or a list or Series"):
        label_texts(label_names, np.array([0, 1]))


def test_empty_class_needs_a_text():
    with pytest.raises(ValueError, match="label text of the class '' is empty: ''"):
        label_texts(None, np.array(["", "a"]))
    assert label_texts({"": "nothing", "a": "a"}, np.array(["", "a"])) == ["nothing", "a"]


def test_classes_with_one_text_raise():
    with pytest.raises(ValueError, match="Two classes have the same label text"):
        label_texts(None, np.array(["1", 1], dtype=object))


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder", "bi-encoder-fused"])
def test_model_reads_the_names(architecture):
    """Classes 0 and 1 with names predict as classes of these names, and not as 0 and 1."""
    parameters = {"architecture_type": architecture, "max_epochs": 2}
    numbered = classifier(**parameters, label_names=["law", "sport"]).fit(TEXTS, [1, 0] * 3)
    named = classifier(**parameters).fit(TEXTS, ["sport", "law"] * 3)
    plain = classifier(**parameters).fit(TEXTS, [1, 0] * 3)
    np.testing.assert_array_equal(numbered.predict_proba(TEXTS), named.predict_proba(TEXTS))
    assert not np.allclose(numbered.predict_proba(TEXTS), plain.predict_proba(TEXTS))


# -- from logits to predictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [["c", "a", "b"] * 2, SOFT_LABELS], ids=["single-label", "soft labels"])
def test_three_classes_agree_with_softmax(y):
    fitted = classifier().fit(TEXTS, y)
    decision, proba = fitted.decision_function(TEXTS), fitted.predict_proba(TEXTS)
    assert decision.shape == proba.shape == (6, 3)
    np.testing.assert_allclose(proba, softmax(decision, axis=1), rtol=1e-5)
    np.testing.assert_allclose(fitted.predict_log_proba(TEXTS), log_softmax(decision, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(fitted.predict(TEXTS), fitted.classes_[proba.argmax(axis=1)])


def test_two_classes_decide_by_one_number():
    fitted = classifier().fit(TEXTS, ["b", "a"] * 3)
    decision, proba = fitted.decision_function(TEXTS), fitted.predict_proba(TEXTS)
    assert decision.shape == (6,)
    assert proba.shape == (6, 2)
    np.testing.assert_allclose(decision, logit(proba[:, 1].astype(np.float64)), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(fitted.predict(TEXTS), np.where(decision > 0, "b", "a"))


@pytest.mark.parametrize("n_labels", [2, 3])
def test_multi_label_agrees_with_the_sigmoid(n_labels):
    fitted = classifier().fit(TEXTS, INDICATOR[:, :n_labels])
    decision, proba = fitted.decision_function(TEXTS), fitted.predict_proba(TEXTS)
    assert decision.shape == proba.shape == (6, n_labels)
    np.testing.assert_allclose(proba, expit(decision), rtol=1e-5)
    np.testing.assert_allclose(fitted.predict_log_proba(TEXTS), np.log(expit(decision.astype(np.float64))), rtol=1e-4)
    np.testing.assert_array_equal(fitted.predict(TEXTS), proba >= 0.5)
    assert fitted.predict(TEXTS).dtype.kind == "i"


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0, [0.1, 0.5, 0.9], np.array([0.9, 0.0, 0.5])])
def test_threshold_decides_for_each_class(threshold):
    fitted = classifier().fit(TEXTS, INDICATOR).set_params(threshold=threshold)
    np.testing.assert_array_equal(fitted.predict(TEXTS), fitted.predict_proba(TEXTS) >= np.asarray(threshold))


def test_threshold_for_other_classes_raises():
    fitted = classifier().fit(TEXTS, INDICATOR).set_params(threshold=[0.5, 0.5])
    with pytest.raises(
        ValueError, match="threshold has 2 numbers for 3 labels; give one for each of the 3 classes, in this order"
    ):
        fitted.predict(TEXTS)


@pytest.mark.parametrize("classes", [["a", "b", "c"], ["c", "a", "b"]])
@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.3, 0.3),
        (np.float32(0.25), 0.25),
        (1, 1.0),
        ({"a": 0.1, "c": 0.9, "b": 0.5, "z": 0.2}, {"a": 0.1, "b": 0.5, "c": 0.9}),
        (pd.Series({"c": 0.9, "b": 0.5, "a": 0.1}), {"a": 0.1, "b": 0.5, "c": 0.9}),
        ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        (pd.Series([0.1, 0.2, 0.3]), [0.1, 0.2, 0.3]),
        (np.array([0, 1, 0]), [0.0, 1.0, 0.0]),
    ],
)
def test_thresholds_by_class_and_by_position(classes, threshold, expected):
    found = read_thresholds(threshold, np.array(classes))
    if isinstance(expected, dict):
        expected = [expected[name] for name in classes]
    assert found.dtype == np.float64
    assert np.ndim(found) == np.ndim(expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (np.nan, "a number from 0 to 1, or one for each class, got nan"),
        (1.5, "got 1.5"),
        (-0.1, "got -0.1"),
        ("high", "got .*high"),
        (True, "got .*True"),
        (None, "got None"),
        ([0.5, None, 0.5], "got None"),
        ([0.5, np.nan, 0.5], "got nan"),
        ({"a": 0.5, "b": np.inf, "c": 0.1}, "got inf"),
        ({"a": 0.5, "c": 0.1}, r"threshold has no number for the class\(es\) \['b'\]"),
        ([[0.5, 0.5, 0.5]], "has 1 numbers for 3 labels"),
        ([0.5, 0.5], "has 2 numbers for 3 labels"),
    ],
)
def test_invalid_thresholds_raise(threshold, message):
    with pytest.raises(ValueError, match=message):
        read_thresholds(threshold, np.array(["a", "b", "c"]))


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [
        ({"a": 2.0, "b": 0.5, "c": 0}, [2.0, 0.5, 0.0]),
        ({"b": 3}, [1.0, 3.0, 1.0]),
        ({"c": 1, "b": 2, "a": 3, "z": 9}, [3.0, 2.0, 1.0]),  # as in a fold without a class
        (pd.Series({"c": 1.0, "a": 3.0, "b": 2.0}), [3.0, 2.0, 1.0]),
        ([3.0, 2.0, 1.0], [3.0, 2.0, 1.0]),
        (np.array([3, 2, 1]), [3.0, 2.0, 1.0]),
    ],
)
def test_class_weights_multiply_sample_weights(class_weight, expected):
    y = np.array(["b", "a", "c", "a"])
    sample_weight = np.array([1.0, 2.0, 0.5, 4.0])
    weights = class_sample_weight(read_class_targets(y), class_weight, sample_weight)
    np.testing.assert_allclose(weights, sample_weight * pd.Series(expected, index=["a", "b", "c"])[y].to_numpy())


@pytest.mark.parametrize(
    "class_weight", [{"c": 2.0, "a": 3.0}, pd.Series({"c": 2.0, "b": 1.0, "a": 3.0}), [2.0, 1.0, 3.0]]
)
def test_class_weights_of_multi_label_classes_in_their_order(class_weight):
    y = pd.DataFrame(INDICATOR, columns=["c", "b", "a"])
    weights = class_sample_weight(read_class_targets(y), class_weight, np.ones(6))
    np.testing.assert_array_equal(weights, np.where(y == 1, [2.0, 1.0, 3.0], 1.0))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"a": np.nan}, "class weight of 'a' must be a finite number of at least 0, got nan"),
        ({"a": np.inf}, "got inf"),
        ({"b": -1.0}, "class weight of 'b' .* got -1.0"),
        ({"b": None}, "got None"),
        ({"b": "2"}, "got '2'"),
        ({"x": 2.0}, r"The classes, \['a', 'b'\], are not in class_weight, which has the unknown class\(es\) \['x'\]"),
        ([1.0], "has 1 weights for 2 labels"),
        ({"a": 0, "b": 0}, "leaves no sample with a positive weight"),
        ("balance", "must be \"balanced\", None or weights by class, got 'balance'"),
    ],
)
def test_invalid_class_weights_raise(class_weight, message):
    with pytest.raises(ValueError, match=message):
        class_sample_weight(read_class_targets(["a", "b"]), class_weight, np.ones(2))


# -- regression --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (VALUES, ["target"]),
        (VALUES.tolist(), ["target"]),
        (VALUES.astype(np.int32), ["target"]),
        (pd.Series(VALUES), ["target"]),
        (pd.Series(VALUES, name="price"), ["price"]),
        (pd.Series(VALUES, name=0), ["target"]),
        (pl.Series(VALUES), ["target"]),
        (pl.Series("price", VALUES), ["price"]),
        (VALUES[:, None], ["target"]),
        (np.c_[VALUES, -VALUES], ["target 0", "target 1"]),
        (pd.DataFrame({"price": VALUES, "weight": 1.0}), ["price", "weight"]),
        (pd.DataFrame(np.c_[VALUES, -VALUES]), ["target 0", "target 1"]),
        (pl.DataFrame({"price": VALUES}), ["price"]),
    ],
)
def test_regression_targets_are_named_and_standardised(y, names):
    targets = read_regression_targets(y)
    expected = np.asarray(y, dtype=np.float64).reshape(6, -1)
    assert targets.names == names
    assert targets.one_dimensional == (np.ndim(y) == 1)
    np.testing.assert_allclose(targets.array, StandardScaler().fit_transform(expected), atol=1e-12)
    np.testing.assert_allclose(targets.array * targets.scale + targets.mean, expected)


def test_weights_standardise_as_repeated_rows():
    weight = np.array([1, 2, 0, 3, 1, 1])
    weighted = read_regression_targets(VALUES, weight.astype(float))
    repeated = read_regression_targets(np.repeat(VALUES, weight))
    np.testing.assert_allclose([weighted.mean, weighted.scale], [repeated.mean, repeated.scale])


@pytest.mark.parametrize(
    ("y", "shape"), [(VALUES, (6,)), (VALUES[:, None], (6, 1)), (np.c_[VALUES, -VALUES, VALUES], (6, 3))]
)
def test_regression_predicts_in_the_shape_of_y(y, shape):
    fitted = regressor().fit(TEXTS, y)
    assert fitted.predict(TEXTS).shape == shape
    assert np.isfinite(fitted.score(TEXTS, y))


def test_regression_label_names_are_what_the_model_reads():
    named = regressor(label_names=["price"]).fit(TEXTS, VALUES)
    of_series = regressor().fit(TEXTS, pd.Series(VALUES, name="price"))
    assert named.label_names_ == of_series.label_names_ == ["price"]
    np.testing.assert_array_equal(named.predict(TEXTS), of_series.predict(TEXTS))
    by_column = regressor(label_names={"a": "price", "b": "weight"}).fit(
        TEXTS, pd.DataFrame({"a": VALUES, "b": VALUES})
    )
    assert by_column.label_names_ == ["price", "weight"]


def test_predictions_are_in_the_units_of_y():
    """The model is trained on standardised values, so that predictions scale with the units."""
    fitted = regressor(dtype="float64").fit(TEXTS, VALUES)
    converted = clone(fitted).fit(TEXTS, 1e6 * VALUES - 7)
    np.testing.assert_allclose(converted.predict(TEXTS), 1e6 * fitted.predict(TEXTS) - 7, rtol=1e-6)


def test_constant_output_is_learnt():
    targets = read_regression_targets(np.c_[VALUES, np.full(6, 5.0)])
    np.testing.assert_array_equal(targets.array[:, 1], 0)
    assert targets.mean[1] == 5


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed"),
        ([], r"0 sample\(s\)"),
        ([1.0, np.nan], "Input y contains NaN"),
        ([1.0, np.inf], "Input y contains infinity"),
        (pd.Series([1, None], dtype="Int64"), "Input y contains NaN"),
        (pl.Series([1.0, None]), "Input y contains NaN"),
        (["a", "b"], "numbers in y, got text such as 'a'.*GLiClassClassifier"),
        ([1j, 2j], "Complex data not supported"),
        (np.zeros((2, 2, 2)), "dim|dimensions"),
        ([1.0, None], "Input y contains NaN: 1 missing value.*first at row 1; drop these rows"),
        (np.array([[1.0, 2.0], [3.0, None]], dtype=object), "1 missing value.*first at row 1"),
        (np.array(["1.0", "2.0"], dtype=object), "got text such as '1.0'"),
        (pd.Series(["1.0", "2.0"], dtype="string"), "got text such as '1.0'"),
        (np.array([1.0, 2j], dtype=object), "Complex data not supported"),
        (np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"), "got dates or durations"),
        (pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])), "numbers in y, got"),
        (pd.to_timedelta([1, 2], unit="D"), "numbers in y, got"),
        (np.array([True, False], dtype=object), "got bool such as True"),
        ([{"a": 1}, {"a": 2}], "got dict such as"),
        ([1.7e308, 1.7e308], "too large to be standardised"),
        (pd.DataFrame([[1.0, 2.0]] * 2, columns=["a", "a"]), "must have distinct names"),
        (pd.DataFrame([[1.0, 2.0]] * 2, columns=["a", None]), "must have distinct names"),
    ],
)
def test_invalid_regression_targets_raise(y, message):
    with pytest.raises(ValueError, match=message):
        read_regression_targets(y)


OUTPUTS = pd.DataFrame({"price": VALUES, "mood": -(VALUES**2), "size": np.arange(6.0)})


@pytest.mark.parametrize("frames", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize("order", [["mood", "size", "price"], ["size", "mood", "price"]])
def test_outputs_are_found_by_name(frames, order):
    names = ["price", "mood", "size"]
    y = frames.DataFrame({name: OUTPUTS[name].to_numpy() for name in order})
    targets = read_regression_targets(y, names=names, one_dimensional=False)
    expected = read_regression_targets(OUTPUTS.reindex(columns=names))
    assert targets.names == names
    np.testing.assert_array_equal(targets.array, expected.array)
    np.testing.assert_array_equal(targets.mean, expected.mean)


def test_outputs_without_names_keep_those_of_the_fit():
    names = ["price", "mood", "size"]
    for y in (OUTPUTS.to_numpy(), pd.DataFrame(OUTPUTS.to_numpy()), OUTPUTS.to_numpy().tolist()):
        targets = read_regression_targets(y, names=names, one_dimensional=False)
        assert targets.names == names
        np.testing.assert_allclose(targets.mean, OUTPUTS.mean())


def test_columns_named_by_numbers_name_the_outputs():
    y = OUTPUTS.set_axis([2020, 2018, 2019], axis=1)
    assert read_regression_targets(y).names == ["2020", "2018", "2019"]
    targets = read_regression_targets(y, names=["2018", "2019", "2020"], one_dimensional=False)
    np.testing.assert_allclose(targets.mean, y.reindex(columns=[2018, 2019, 2020]).mean())


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "y", [VALUES, VALUES[:, None], pd.Series(VALUES, name="other"), pd.DataFrame({"price": VALUES})]
)
def test_shape_of_the_fit_is_kept(first, y):
    targets = read_regression_targets(y, names=["price"], one_dimensional=first)
    assert targets.one_dimensional is first
    assert targets.names == ["price"]
    assert targets.array.shape == (6, 1)


def test_output_without_a_name_takes_any_column():
    assert read_regression_targets(pd.DataFrame({"a": VALUES}), names=["target"]).names == ["target"]


@pytest.mark.parametrize(
    ("y", "names", "message"),
    [
        (VALUES, ["price", "mood"], r"y is 1-D, but the earlier fit had the 2 output\(s\) \['price', 'mood'\]"),
        (OUTPUTS, ["price", "mood"], "y has 3 columns, but the earlier fit had the 2"),
        (OUTPUTS[["price"]], ["price", "mood"], "y has 1 columns, but the earlier fit had the 2"),
        (OUTPUTS[["price", "size"]], ["price", "mood"], r"missing: \['mood'\], unknown: \['size'\]"),
        (OUTPUTS[["size"]], ["price"], r"missing: \['price'\], unknown: \['size'\]"),
        (OUTPUTS[["price", "size"]], ["target 0", "target 1"], r"unknown: \['price', 'size'\]"),
    ],
)
def test_other_outputs_than_in_the_fit_raise(y, names, message):
    with pytest.raises(ValueError, match=message):
        read_regression_targets(y, names=names, one_dimensional=False)


def test_partial_fit_of_the_regressor_aligns_its_columns():
    y = OUTPUTS[["price", "mood"]]
    fitted, other = (regressor().fit(TEXTS, y) for _ in range(2))
    np.testing.assert_array_equal(
        fitted.partial_fit(TEXTS, y[["mood", "price"]]).predict(TEXTS), other.partial_fit(TEXTS, y).predict(TEXTS)
    )
    with pytest.raises(ValueError, match="y is 1-D, but the earlier fit had the 2"):
        fitted.partial_fit(TEXTS, VALUES)


@pytest.mark.parametrize("unit", [1e-200, 1e-20, 1.0, 1e20, 1e100])
def test_units_of_y_have_no_effect(unit):
    targets = read_regression_targets(VALUES * unit)
    np.testing.assert_allclose(targets.array, read_regression_targets(VALUES).array, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-300, 1e300, -7.3])
def test_constant_is_one_in_every_unit(value):
    targets = read_regression_targets(np.full(7, value))
    assert targets.scale == 1.0


def test_regression_targets_are_not_modified():
    y, frame = VALUES.copy(), OUTPUTS.copy()
    read_regression_targets(y)
    read_regression_targets(frame, names=["size", "price", "mood"])
    np.testing.assert_array_equal(y, VALUES)
    pd.testing.assert_frame_equal(frame, OUTPUTS)
