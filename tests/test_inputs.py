"""X -> texts: containers, tables, templates, column names, and what is refused."""

import datetime
import decimal
import functools
from importlib.util import find_spec

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.inputs import read_texts
from sklearn_gliclass.testing import TINY

PANDAS_DTYPES = [object, "str", "string", "category", *(["string[pyarrow]"] if find_spec("pyarrow") else [])]
TEXTS = ["a late goal", "a new law", "", "the match"]


class Reader(BaseEstimator):
    """Stands in for an estimator: `read_texts` sets and checks its column names."""


def read(X, **kwargs):
    return read_texts(Reader(), X, reset=True, **kwargs)


@pytest.fixture(params=[pd, pl], ids=["pandas", "polars"])
def frames(request):
    return request.param


@pytest.fixture
def table(frames):
    """Text, category, numbers, truth values and dates, each with a missing cell."""
    return frames.DataFrame(
        {
            "title": ["Heat", None, "Big"],
            "year": [1995, 2001, None],
            "score": [8.3, None, 7.0],
            "seen": [True, False, True],
            "day": [datetime.date(2020, 1, 2), None, datetime.date(2021, 3, 4)],
        }
    )


# -- one dimension -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
        *(functools.partial(pd.Series, dtype=dtype) for dtype in PANDAS_DTYPES),
        lambda texts: pd.Series(texts, index=[7, 7, 1, 0]),
        pd.Index,
        pl.Series,
        lambda texts: pl.Series(texts, dtype=pl.Categorical),
        lambda texts: np.array(texts)[:, None],
        lambda texts: [[text] for text in texts],
        lambda texts: pd.DataFrame({"text": texts}),
        lambda texts: pd.DataFrame({"text": pd.Categorical(texts)}),
        lambda texts: pl.DataFrame({"text": texts}),
    ],
)
def test_every_container_of_texts_gives_the_same_texts(container):
    texts = read(container(TEXTS))
    assert texts == TEXTS
    assert {type(text) for text in texts} == {str}


@pytest.mark.parametrize(
    ("X", "n_missing", "rows"),
    [
        (["a", None], 1, "1;"),
        ([float("nan"), "a", None, pd.NA, pd.NaT, "b", None, np.nan], 6, "0, 2, 3, 4, 6, ...;"),
        (pd.Series([None, "a", None]), 2, "0, 2;"),
        (pd.Series([None, "a"], dtype="category"), 1, "0;"),
        (pl.Series([None, "a"]), 1, "0;"),
        (pd.DataFrame({"text": ["a", None]}), 1, "1;"),
        (pl.DataFrame({"text": ["a", None]}), 1, "1;"),
    ],
)
def test_missing_texts_are_counted_and_located(X, n_missing, rows):
    with pytest.raises(ValueError, match=rf"{n_missing} missing text\(s\).*row\(s\) {rows} drop these rows or replace"):
        read(X)


@pytest.mark.parametrize(
    "X",
    [
        [1.0, 2.0],
        [True, False],
        np.arange(3),
        pd.Series([1, 2]),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, 2], dtype="category"),
        pl.Series([1.5, 2]),
    ],
)
def test_one_dimension_of_numbers_is_scikit_learns_own_error(X):
    with pytest.raises(ValueError, match=r"(?s)Expected 2D array, got 1D array instead.*Reshape your data"):
        read(X)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("a text", ValueError, r"string object received; put the text in a list: \[text\]"),
        (b"a text", ValueError, "string object received"),
        ([], ValueError, r"Found array with 0 sample\(s\) \(shape=\(0,\)\) while a minimum of 1 is required by Reader"),
        ([[]], ValueError, r"0 feature\(s\) \(shape=\(1, 0\)\)"),
        (np.empty((0, 2)), ValueError, r"0 sample\(s\)"),
        (pd.DataFrame({"a": []}), ValueError, r"0 sample\(s\) \(shape=\(0, 1\)\)"),
        (pd.DataFrame(index=[0, 1]), ValueError, r"0 feature\(s\) \(shape=\(2, 0\)\)"),
        (pl.DataFrame({"a": []}), ValueError, r"0 sample\(s\)"),
        (["a", 1], TypeError, r"texts \(str\), got int at row 1; turn it into a str"),
        (["a", ["b"]], TypeError, "got list at row 1"),
        ([b"a"], TypeError, "got bytes at row 0"),
        ([{"title": "a"}], TypeError, "got dict at row 0"),
        ({"title": ["a"]}, TypeError, r"got dict; pass a list of texts or pandas.DataFrame\(X\)"),
        ({"a", "b"}, TypeError, "got set"),
        ((text for text in TEXTS), TypeError, r"got generator; pass list\(X\)"),
        (None, TypeError, "sequence of texts or a table, got NoneType"),
        (3, TypeError, "got int"),
        (np.array("a"), ValueError, "got scalar array"),
        (np.zeros((1, 1, 1)), ValueError, "dim 3"),
        ([["a"], ["b", "c"]], ValueError, r"different lengths, \[1, 2\]"),
        ([[1], 2], ValueError, r"different lengths, \[0, 1\]"),
        (sp.csr_array(np.eye(2)), TypeError, "Sparse data was passed for X, but dense data is required"),
        (sp.dok_matrix(np.eye(2)), TypeError, "Sparse data was passed"),
        (np.array([[1j]]), ValueError, "Complex data not supported"),
        (pd.DataFrame({"a": [1j], "b": ["x"]}), ValueError, "Complex data not supported"),
        (np.array([[1.0, np.nan]]), ValueError, "contains NaN"),
        (np.array([[1.0, np.inf]]), ValueError, "contains infinity"),
        (pd.DataFrame({"a": [np.inf], "b": ["x"]}), ValueError, "contains infinity"),
        (np.array([[{"a": 1}, "x"]], dtype=object), TypeError, "argument must be a string or a number"),
        (pd.DataFrame({"a": [[1]], "b": ["x"]}), TypeError, "got list: argument must be a string or a number"),
        (pl.DataFrame({"a": [{"x": 1}], "b": [1]}), TypeError, "got dict: argument must be a string or a number"),
        (pl.LazyFrame({"a": ["x"]}), TypeError, r"got LazyFrame; pass X.collect\(\)"),
        (pd.DataFrame([["a", "b"]], columns=["title", 1]), TypeError, "Feature names are only supported if all"),
    ],
)
def test_what_is_no_text_and_no_table_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        read(X)


def test_the_callers_data_is_left_alone():
    texts, frame = list(TEXTS), pd.DataFrame({"title": TEXTS, "n": range(4)})
    read(texts)
    read(frame, text_template=lambda row: row.pop("title"))
    assert texts == TEXTS
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"title": TEXTS, "n": range(4)}))


# -- tables ------------------------------------------------------------------------------------------------------


def test_rows_become_column_value_pieces_without_missing_cells(table):
    assert read(table) == [
        "title: Heat year: 1995 score: 8.3 seen: true day: 2020-01-02",
        "year: 2001 seen: false",
        "title: Big score: 7 seen: true day: 2021-03-04",
    ]


@pytest.mark.parametrize(
    ("X", "texts"),
    [
        (np.array([[1, 2.5], [3, -4]]), ["x0: 1 x1: 2.5", "x0: 3 x1: -4"]),
        (np.array([[1.0], [2.5]], dtype=np.float32), ["x0: 1", "x0: 2.5"]),
        (np.array([[True, False]]), ["x0: true x1: false"]),
        ([[1, 2], [3, 4]], ["x0: 1 x1: 2", "x0: 3 x1: 4"]),
        ([["a", 1], ["b", None], ["c", float("nan")]], ["x0: a x1: 1", "x0: b", "x0: c"]),
        ((("a", 1.5), ("b", 2)), ["x0: a x1: 1.5", "x0: b x1: 2"]),
        ([np.array(["a", "b"])], ["x0: a x1: b"]),
        (np.array([["a", 1], [None, 2.0]], dtype=object), ["x0: a x1: 1", "x1: 2"]),
        (np.array([["a", "b"]]), ["x0: a x1: b"]),
        (pd.DataFrame([["a", 1]]), ["x0: a x1: 1"]),
        (pd.DataFrame({"n": [1, 2.5]}), ["n: 1", "n: 2.5"]),
        (pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "c": pd.Categorical(["x", None])}), ["n: 1 c: x", ""]),
        (pd.DataFrame({"big": [1234567.0, 1e20], "third": [0.5, 1 / 3]}), ["big: 1234567 third: 0.5",
                                                                          "big: 1e+20 third: 0.333333"]),
        (pd.DataFrame({"price": [decimal.Decimal("1.50")], "when": [pd.Timestamp("2020-01-02 03:04")]}),
         ["price: 1.50 when: 2020-01-02 03:04:00"]),
        (pl.DataFrame({"kind": pl.Series(["x", "y"], dtype=pl.Categorical), "n": [None, 2]}), ["kind: x",
                                                                                              "kind: y n: 2"]),
    ],
)  # fmt: skip
def test_cells_of_every_kind(X, texts):
    assert read(X) == texts


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{title}, {year}", ["Heat, 1995", ", 2001", "Big, "]),
        ("{score:.2f}|{seen}", ["8.30|true", "|false", "7.00|true"]),
        ("{day.year} {{x}} {title!r}", ["2020 {x} 'Heat'", " {x} ", "2021 {x} 'Big'"]),
        (lambda row: f"{len(row)} {row['seen']}", ["5 True", "5 False", "5 True"]),
    ],
)
def test_text_template(table, template, texts):
    assert read(table, text_template=template) == texts


@pytest.mark.parametrize(
    ("X", "template", "error", "message"),
    [
        (
            pd.DataFrame({"title": ["a"]}),
            "{titel}",
            ValueError,
            r"names the column\(s\) \['titel'\].*X has \['title'\]",
        ),
        (pd.DataFrame({"title": ["a"]}), "{}", ValueError, r"names the column\(s\) \[''\]"),
        (pd.DataFrame({"title": ["a"]}), "{title", ValueError, "expected '}'"),
        (pd.DataFrame({"title": ["a"]}), lambda row: None, TypeError, "must return a str, got NoneType for row 0"),
        (["a"], "{title}", ValueError, "X is no table but texts; leave text_template=None, or pass a DataFrame"),
    ],
)
def test_templates_that_do_not_fit_raise(X, template, error, message):
    with pytest.raises(error, match=message):
        read(X, text_template=template)


# -- what fit has seen -------------------------------------------------------------------------------------------


def fitted_reader(X):
    reader = Reader()
    read_texts(reader, X, reset=True)
    return reader


def test_column_names_are_kept_and_checked(table, frames):
    reader = fitted_reader(table)
    assert reader.n_features_in_ == 5
    assert reader.feature_names_in_.tolist() == ["title", "year", "score", "seen", "day"]
    other_order = table[["year", "title", "score", "seen", "day"]]
    with pytest.raises(ValueError, match="in the same order as they were in fit"):
        read_texts(reader, other_order, reset=False)
    with pytest.raises(ValueError, match=r"(?s)seen at fit time, yet now missing.*- day"):
        read_texts(reader, table[["title", "year", "score", "seen"]], reset=False)
    with pytest.warns(UserWarning, match="does not have valid feature names, but Reader was fitted with feature names"):
        read_texts(reader, np.array([["a", 1, 2, True, "d"]], dtype=object), reset=False)


@pytest.mark.parametrize(
    ("seen", "X", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "X has 4 features, but Reader is expecting 3 features as input"),
        (np.ones((2, 3)), TEXTS, "X is 1-D, but Reader was fitted on a table with 3 columns"),
        (
            TEXTS,
            pd.DataFrame({"text": ["a"], "label": ["b"]}),
            "2 columns, but Reader was fitted on texts; pass the col",
        ),
    ],
)
def test_other_columns_than_in_fit_raise(seen, X, message):
    with pytest.raises(ValueError, match=message):
        read_texts(fitted_reader(seen), X, reset=False)


@pytest.mark.parametrize("seen", [TEXTS, pd.Series(TEXTS), pd.DataFrame({"text": TEXTS}), np.array(TEXTS)[:, None]])
@pytest.mark.parametrize("X", [TEXTS, pd.Series(TEXTS), pd.DataFrame({"text": TEXTS})])
@pytest.mark.filterwarnings("ignore:X has feature names, but Reader was fitted without")
def test_one_text_column_and_texts_stand_for_each_other(seen, X):
    assert read_texts(fitted_reader(seen), X, reset=False) == TEXTS


def test_a_fit_on_texts_forgets_an_earlier_table(table):
    reader = fitted_reader(table)
    read_texts(reader, TEXTS, reset=True)
    assert not hasattr(reader, "n_features_in_")
    assert not hasattr(reader, "feature_names_in_")


# -- through the estimators --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_table():
    X = pd.DataFrame({"title": ["a goal", "a law", "goals", None], "year": [1999, 2001, 1999, 2001]})
    return X, GLiClassClassifier(**TINY, random_state=0).fit(X, [0, 1, 0, 1])


def test_a_table_predicts_as_the_texts_it_stands_for(on_table):
    X, classifier = on_table
    proba = clone(classifier).fit(read(X), [0, 1, 0, 1]).predict_proba(read(X))
    in_polars = pl.DataFrame({"title": ["a goal", "a law", "goals", None], "year": [1999, 2001, 1999, 2001]})
    np.testing.assert_array_equal(classifier.predict_proba(X), proba)
    np.testing.assert_array_equal(classifier.predict_proba(in_polars), proba)


def test_a_template_predicts_as_the_texts_it_makes(on_table):
    X, classifier = on_table
    template = "{title} ({year})"
    templated = clone(classifier).set_params(text_template=template).fit(X, [0, 1, 0, 1])
    texts = ["a goal (1999)", "a law (2001)", "goals (1999)", " (2001)"]
    on_texts = clone(classifier).fit(texts, [0, 1, 0, 1])
    np.testing.assert_array_equal(templated.predict_proba(X), on_texts.predict_proba(texts))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"])
def test_every_method_checks_the_columns(on_table, method):
    X, classifier = on_table
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        getattr(classifier, method)(X.rename(columns={"year": "age"}))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"])
def test_before_fit_every_method_says_so(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(GLiClassClassifier(**TINY), method)(TEXTS)


def test_transform_names_its_columns(on_table):
    X, classifier = on_table
    names = [f"gliclassclassifier{i}" for i in range(32)]
    assert classifier.get_feature_names_out().tolist() == names
    embeddings = clone(classifier).set_output(transform="pandas").fit(X, [0, 1, 0, 1]).transform(X)
    assert embeddings.columns.tolist() == names
    assert embeddings.index.equals(X.index)
    assert set(embeddings.dtypes) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(embeddings, classifier.transform(X))


def test_the_regressor_reads_tables_too(table):
    regressor = GLiClassRegressor(**TINY, random_state=0).fit(table, [1.0, 2.0, 3.0])
    assert regressor.predict(table).shape == (3,)
    assert regressor.n_features_in_ == 5
