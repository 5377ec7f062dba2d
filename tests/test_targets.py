"""y -> labels and targets, and logits back to y's form."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import clone
from sklearn.preprocessing import LabelEncoder, StandardScaler

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.targets import MULTI, SINGLE, SOFT, label_texts, read_class_targets, read_regression_targets
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


def test_a_column_vector_is_raveled_with_scikit_learns_warning():
    with pytest.warns(UserWarning, match="A column-vector y was passed when a 1d array was expected"):
        targets = read_class_targets([["b"], ["a"]])
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
def test_multi_label_containers(container):
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
        ("single_label_classification", INDICATOR, "does not fit y, which is multi-label; give a 1-D y"),
        ("multi_label_classification", ["a", "b"], "does not fit y, which is single-label; give a 2-D indicator"),
        ("regression", ["a", "b"], "use GLiClassRegressor"),
    ],
)
def test_a_problem_type_that_does_not_fit_y_raises(problem_type, y, message):
    with pytest.raises(ValueError, match=message):
        read_class_targets(y, problem_type)


@pytest.mark.parametrize("ignore_index", [-100, -1])
def test_an_unknown_label_takes_no_part(ignore_index):
    """The loss is the focal loss (alpha 0.5, gamma 2) of the known labels alone."""
    y = INDICATOR.copy()
    y[:, 2] = ignore_index
    losses = classifier(ignore_index=ignore_index).fit(TEXTS, y).history_[:, "train_loss"]
    logits = classifier(max_epochs=0).fit(TEXTS, INDICATOR).decision_function(TEXTS)
    p_true = expit(np.where(INDICATOR == 1, logits, -logits))[:, :2]
    np.testing.assert_allclose(losses, [(-0.5 * (1 - p_true) ** 2 * np.log(p_true)).mean()], rtol=1e-4)


# -- what is refused ---------------------------------------------------------------------------------------------


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
        (["a", 1], r"kinds that can't be sorted, \['int', 'str'\]; make all of them str"),
        ([["a"], ["a", "b"]], "lists of different lengths; turn lists .*MultiLabelBinarizer"),
        ([{"a"}, {"b"}], "y holds sets; turn lists .*MultiLabelBinarizer"),
        ([["a", "b"], ["c", "d"]], "values that are no numbers; turn lists .*MultiLabelBinarizer"),
        ([[1, 2], [0, 1]], "Unknown label type: multiclass-multioutput"),
        ([[0.3, 0.3], [1, 0]], "Unknown label type: continuous-multioutput"),
        (np.zeros((2, 2, 2)), "must be 1-D or 2-D, got 3 dimensions"),
    ],
)
def test_a_y_that_is_no_classification_target_raises(y, message):
    with pytest.raises(ValueError, match=message):
        read_class_targets(y)


@pytest.mark.parametrize("estimator", [classifier(), regressor()], ids=["classifier", "regressor"])
def test_y_of_another_length_than_x_raises(estimator):
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[6, 5\]"):
        estimator.fit(TEXTS, [0, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (["a", "b"] * 3, ["c", "a"] * 3, r"not among the classes of the first fit: \['c'\]"),
        (["a", "b"] * 3, INDICATOR, "does not fit y, which is multi-label"),
        (INDICATOR, INDICATOR[:, :2], r"y has the columns \[0, 1\], but the classes of the first fit are \[0, 1, 2\]"),
        (INDICATOR, ["a", "b"] * 3, "does not fit y, which is single-label"),
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
    ],
)
def test_label_names(label_names, texts):
    fitted = classifier(label_names=label_names).fit(TEXTS, [0, 1] * 3)
    assert fitted.label_names_ == texts
    assert fitted.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("label_names", "error", "message"),
    [
        ({0: "spam"}, ValueError, r"no text for the class\(es\) \[1\]; it has \[0\]"),
        (["spam"], ValueError, r"has 1 texts for 2 labels; give one for each, in this order: \[0, 1\]"),
        (["spam", "spam"], ValueError, r"same label text: \['spam'\]; .* Give different ones with label_names"),
        (["spam", 1], TypeError, r"must hold texts \(str\), got int: 1"),
    ],
)
def test_label_names_that_do_not_fit_raise(label_names, error, message):
    with pytest.raises(error, match=message):
        classifier(label_names=label_names).fit(TEXTS, [0, 1] * 3)


def test_classes_with_one_text_raise():
    with pytest.raises(ValueError, match="Two classes have the same label text"):
        label_texts(None, np.array(["1", 1], dtype=object))


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder", "bi-encoder-fused"])
def test_the_model_reads_the_names(architecture):
    """Classes 0 and 1 with names predict as the names themselves do, and not as 0 and 1."""
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
def test_threshold(threshold):
    fitted = classifier().fit(TEXTS, INDICATOR).set_params(threshold=threshold)
    np.testing.assert_array_equal(fitted.predict(TEXTS), fitted.predict_proba(TEXTS) >= np.asarray(threshold))


def test_a_threshold_for_other_classes_raises():
    fitted = classifier().fit(TEXTS, INDICATOR).set_params(threshold=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"shape \(2,\); give one number, or one for each of the 3 classes"):
        fitted.predict(TEXTS)


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
    """The model is trained on standardised values: a change of units changes the predictions alike, nothing else."""
    fitted = regressor(dtype="float64").fit(TEXTS, VALUES)
    converted = clone(fitted).fit(TEXTS, 1e6 * VALUES - 7)
    np.testing.assert_allclose(converted.predict(TEXTS), 1e6 * fitted.predict(TEXTS) - 7, rtol=1e-6)


def test_a_constant_output_is_learnt():
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
    ],
)
def test_a_y_that_is_no_regression_target_raises(y, message):
    with pytest.raises(ValueError, match=message):
        read_regression_targets(y)
