"""Conversion of X to texts: containers, tables, templates, column names, and errors."""

import dataclasses
import datetime
import decimal
import functools
import json
from importlib.util import find_spec

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from library_versions import string_array
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.inputs import TextReader, learn_texts
from sklearn_gliclass.testing import TINY

PANDAS_DTYPES = [object, "str", "string", "category", *(["string[pyarrow]"] if find_spec("pyarrow") else [])]
TEXTS = ["a late goal", "a new law", "", "the match"]


ZERO_SHOT = TextReader(None, None, False, False)


class Reader(BaseEstimator):
    """Estimator whose name is in error messages."""


def learn(X, **kwargs) -> TextReader:
    return learn_texts(X, Reader(), **kwargs)[1]


def read(X, **kwargs):
    return learn_texts(X, Reader(), **kwargs)[0]


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
        string_array,
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
        (b"a text", ValueError, "bytes object received"),
        ([], ValueError, r"Found array with 0 sample\(s\) \(shape=\(0,\)\) while a minimum of 1 is required by Reader"),
        ([[]], ValueError, r"0 feature\(s\) \(shape=\(1, 0\)\)"),
        (np.empty((0, 2)), ValueError, r"0 sample\(s\)"),
        (pd.DataFrame({"a": []}), ValueError, r"0 sample\(s\) \(shape=\(0, 1\)\)"),
        (pd.DataFrame(index=[0, 1]), ValueError, r"0 feature\(s\) \(shape=\(2, 0\)\)"),
        (pl.DataFrame({"a": []}), ValueError, r"0 sample\(s\)"),
        (["a", 1], TypeError, r"texts \(str\), got int at row 1; convert it to str"),
        (["a", ["b"]], TypeError, "got list at row 1"),
        ([b"a"], TypeError, "got bytes at row 0"),
        (["a", {"title": "a"}], TypeError, "got dict at row 1"),
        (bytearray(b"a"), ValueError, "bytearray object received"),
        ({"title": ["a"]}, TypeError, r"got dict; pass list\(X\) or pandas.DataFrame\(X\)"),
        (pd.DataFrame([["x", "y"]], columns=["a", "a"]), ValueError, r"more than one column named \['a'\]"),
        ({"a", "b"}, TypeError, r"got set; pass sorted\(X\)"),
        (map(str, TEXTS), TypeError, r"got map; pass list\(X\)"),
        ((text for text in TEXTS), TypeError, r"got generator; pass list\(X\)"),
        (None, TypeError, "sequence of texts or a table in memory, got NoneType"),
        (["a", "\ud83d"], ValueError, r"lone surrogate \('\\ud83d', half of a character\) at row 1"),
        (pd.DataFrame({"a": ["x", "\udc00"], "b": [1, 2]}, dtype=object), ValueError, "lone surrogate .* at row 1"),
        (np.ma.array(["a", "b"], mask=[False, True]), ValueError, r"1 missing text\(s\).*row\(s\) 1;"),
        (3, TypeError, "got int"),
        (np.array("a"), ValueError, "got scalar array"),
        (np.zeros((1, 1, 1)), ValueError, "dim 3"),
        ([["a"], ["b", "c"]], ValueError, r"different lengths, \[1, 2\]"),
        ([[1], 2], ValueError, "list of rows, each of which must be a list, got int at row 1"),
        ([["a"], "b"], ValueError, "list of rows, each of which must be a list, got str at row 1"),
        ([{"a": 1}, {"b": 1}], ValueError, r"keys must be the same.*row 1 \['b'\]. Give a missing cell as None"),
        ([{"a": 1}, "b"], ValueError, "row 1 str"),
        (sp.csr_array(np.eye(2)), TypeError, "Sparse data was passed for X, but dense data is required"),
        (sp.dok_matrix(np.eye(2)), TypeError, "Sparse data was passed"),
        (np.array([[1j]]), ValueError, "Complex data not supported"),
        (pd.DataFrame({"a": [1j], "b": ["x"]}), ValueError, "Complex data not supported"),
        (np.array([[1.0, np.nan]]), ValueError, "contains NaN"),
        (np.array([[1.0, np.inf]]), ValueError, "contains infinity"),
        (pd.DataFrame({"a": [np.inf], "b": ["x"]}), ValueError, "contains infinity"),
        (np.array([[{"a": 1}, "x"]], dtype=object), TypeError, "argument must be a string or a number"),
        (pd.DataFrame({"a": [[1]], "b": ["x"]}), TypeError, r"got list: .* in the column 'a' at row 0"),
        (pl.DataFrame({"a": [{"x": 1}], "b": [1]}), TypeError, "got dict: argument must be a string or a number"),
        (pl.LazyFrame({"a": ["x"]}), TypeError, r"got LazyFrame; pass X.collect\(\)"),
        (pd.DataFrame([["a", "b"]], columns=["title", 1]), TypeError, "Feature names are only supported if all"),
    ],
)
def test_invalid_x_raises(X, error, message):
    with pytest.raises(error, match=message):
        read(X)


def test_callers_data_is_left_alone():
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
        ("{day:%Y} {{x}} {title!r}", ["2020 {x} 'Heat'", " {x} ", "2021 {x} 'Big'"]),
        ("{day:%d.%m.%y}{title!s:>6}|{year:05.0f}", ["02.01.20  Heat|01995", "|02001", "04.03.21   Big|"]),
        ("{title:.2}{title:*^8}", ["He**Heat**", "", "Bi**Big***"]),
        (lambda row: f"{len(row)} {row['seen']}", ["5 True", "5 False", "5 True"]),
    ],
)
def test_text_template_fills_in_the_columns(table, template, texts):
    assert read(table, text_template=template) == texts


TITLES = pd.DataFrame({"title": ["a", "b"], "n": [1.0, 2.0], "day": [datetime.date(2020, 1, 2)] * 2})


def returns_none_for_b(row):
    return None if row["title"] == "b" else row["title"]


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{titel}", ValueError, r"names the column\(s\) \['titel'\].*X has \['title', 'n', 'day'\]"),
        ("{}", ValueError, r'positional field \{\}; name the column in the braces: "\{title\}"'),
        ("{0} {title}", ValueError, r"positional field \{0\}"),
        ("title", ValueError, r"names no column; write .*\{title\}"),
        ("{title", ValueError, r"not a valid format string: expected '\}'.*Write literal braces twice"),
        ("title}", ValueError, "not a valid format string"),
        ("{title.__class__}", ValueError, r"\{title.__class__\}: attributes and items are not supported"),
        ("{day.year}", ValueError, r"attributes and items are not supported.*\{day:%Y\}"),
        ("{title[0]}", ValueError, "attributes and items are not supported"),
        ("{title!a}", ValueError, "conversion !a"),
        ("{title:1000000000}", ValueError, "width of at most 1000 characters"),
        ("{title:>99999999999999999999}", ValueError, "width of at most 1000 characters"),
        ("{n:.1000000000f}", ValueError, "the format specification '.1000000000f' for the column 'n'"),
        ("{n:{title}}", ValueError, "the format specification"),
        ("{title:%{n}}", ValueError, "the format specification"),
        ("{day:%1000000000Y}", ValueError, "the format specification"),
        ("{n:hello}", ValueError, "the format specification 'hello'"),
        ("{title:.2f}", ValueError, "cannot format 'a' with '.2f', in the column 'title' at row 0"),
        ("{n:%Y}", ValueError, "cannot format 1.0 with '%Y', in the column 'n' at row 0"),
        (returns_none_for_b, TypeError, "must return a str, got NoneType for row 1"),
    ],
)
def test_invalid_templates_raise(template, error, message):
    with pytest.raises(error, match=message):
        read(TITLES, text_template=template)
    with pytest.raises(error, match=message):
        ZERO_SHOT.read(TITLES, Reader(), template)


def test_error_of_a_callable_template_is_passed_on():
    with pytest.raises(KeyError, match="titel") as caught:
        read(TITLES, text_template=lambda row: row["titel"])
    assert caught.value.__notes__ == ["text_template raised this for row 0 of X."]


def test_template_needs_a_table():
    with pytest.raises(ValueError, match="X holds texts; set text_template=None, or pass a DataFrame"):
        read(["a"], text_template="{title}")


def test_columns_whose_names_look_like_expressions():
    frame = pd.DataFrame({"price [EUR]": [2.5], "a.b": ["x"]})
    assert read(frame, text_template="{price [EUR]} {a.b}") == ["2.5 x"]


# -- other containers --------------------------------------------------------------------------------------------


class Arrow:
    """Stub of tables and columns of pyarrow, cuDF and Hugging Face datasets."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def to_pandas(self):
        return self.data


class Lazy:
    """Stub of dask, Spark and lazy frames of polars."""

    columns = ("title",)

    def __init__(self, method):
        setattr(self, method, lambda: {"the": "graph"})


@pytest.mark.parametrize(
    ("container", "texts"),
    [
        (Arrow(pd.DataFrame({"title": ["a", "b"], "n": [1, 2]})), ["title: a n: 1", "title: b n: 2"]),
        (Arrow(pd.Series(["a", "b"])), ["a", "b"]),
        ([{"title": "a", "n": True}, {"title": "b", "n": 2}], ["title: a n: true", "title: b n: 2"]),
        ([{"title": "a", "n": 12345678901234567}, {"title": "b", "n": None}], ["title: a n: 12345678901234567",
                                                                             "title: b"]),
        (np.array([("a", 1), ("b", 2)], dtype=[("title", "U1"), ("n", int)]), ["title: a n: 1", "title: b n: 2"]),
        (np.ma.array([[1.5, 2.0]], mask=[[False, True]]), ["x0: 1.5"]),
        ({"k": "a", "l": "b"}.values(), ["a", "b"]),
    ],
)  # fmt: skip
def test_containers_that_are_converted(container, texts):
    assert read(container) == texts


@pytest.mark.parametrize(("method", "call"), [("__dask_graph__", "compute"), ("toPandas", "toPandas"),
                                               ("collect", "collect")])  # fmt: skip
def test_containers_that_are_not_in_memory_raise(method, call):
    with pytest.raises(TypeError, match=rf"in memory, got Lazy; pass X.{call}\(\)"):
        read(Lazy(method))


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_tables_of_pyarrow_are_read():
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"title": ["a", None], "n": [1, 2]})
    assert read(table) == ["title: a n: 1", "n: 2"]
    assert read(table.column("n").cast("string")) == ["1", "2"]


# -- columns of fit -------------------------------------------------------------------------------------------


def test_column_names_are_kept_and_checked(table, frames):
    reader = learn(table)
    assert reader.n_columns == 5
    assert reader.columns == ("title", "year", "score", "seen", "day")
    attributes = reader.fitted_attributes
    assert attributes["n_features_in_"] == 5
    assert attributes["feature_names_in_"].dtype == object
    assert attributes["feature_names_in_"].tolist() == list(reader.columns)
    other_order = table[["year", "title", "score", "seen", "day"]]
    with pytest.raises(ValueError, match="in the same order as they were in fit"):
        reader.read(other_order, Reader())
    with pytest.raises(ValueError, match=r"(?s)seen at fit time, yet now missing.*- day"):
        reader.read(table[["title", "year", "score", "seen"]], Reader())


def test_columns_are_named_as_in_fit():
    """If X has no names, or names that `fit` has not seen, scikit-learn warns and columns are matched by position."""
    named = pd.DataFrame({"title": ["a"], "year": [1]})
    with pytest.warns(UserWarning, match="does not have valid feature names, but Reader was fitted with feature names"):
        assert learn(named).read(np.array([["b", 2]], dtype=object), Reader()) == ["title: b year: 2"]
    with pytest.warns(UserWarning, match="X has feature names, but Reader was fitted without feature names"):
        assert learn([["a", 1]]).read(named, Reader()) == ["x0: a x1: 1"]


@pytest.mark.parametrize(
    ("seen", "attributes"),
    [
        (TEXTS, {}),
        (pd.Series(TEXTS, name="title"), {}),
        (np.ones((2, 3)), {"n_features_in_": 3}),
        (pd.DataFrame([["a", 1]]), {"n_features_in_": 2}),
        ([["a"]], {"n_features_in_": 1}),
        ([{"a": 1, "b": 2}], {"n_features_in_": 2, "feature_names_in_": ["a", "b"]}),
    ],
)
def test_fitted_attributes_are_those_of_scikit_learn(seen, attributes):
    found = learn(seen).fitted_attributes
    assert {name: getattr(value, "tolist", lambda value=value: value)() for name, value in found.items()} == attributes


def test_estimator_is_not_changed():
    estimator = GLiClassClassifier(**TINY)
    before = dict(vars(estimator))
    _, reader = learn_texts(pd.DataFrame({"title": TEXTS, "n": range(4)}), estimator, "{title}")
    reader.read(pd.DataFrame({"title": TEXTS, "n": range(4)}), estimator)
    with pytest.raises(ValueError, match=r"(?s)feature names should match.*- n"):
        reader.read(pd.DataFrame({"title": TEXTS}), estimator)
    assert vars(estimator) == before


def test_records_are_matched_by_key():
    """For any order of the keys."""
    reader = learn([{"title": "a", "n": 1}])
    assert reader.read([{"n": 2, "title": "b"}, {"n": 3, "title": "c"}], Reader()) == ["title: b n: 2", "title: c n: 3"]
    with pytest.raises(ValueError, match=r"(?s)unseen at fit time.*- year"):
        reader.read([{"title": "b", "n": 1, "year": 2}], Reader())


@pytest.mark.parametrize(
    ("seen", "X", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "X has 4 features, but Reader is expecting 3 features as input"),
        (np.ones((2, 3)), TEXTS, "X is 1-D, but Reader was fitted on a table with 3 columns"),
        (
            np.ones((2, 1)),
            TEXTS,
            "X is 1-D, but Reader was fitted on a table whose column holds other values than texts",
        ),
        (
            TEXTS,
            pd.DataFrame({"text": ["a"], "label": ["b"]}),
            "2 columns, but Reader was fitted on texts; pass the col",
        ),
    ],
)
def test_other_columns_than_in_fit_raise(seen, X, message):
    with pytest.raises(ValueError, match=message):
        learn(seen).read(X, Reader())


@pytest.mark.parametrize("seen", [TEXTS, pd.Series(TEXTS), pd.DataFrame({"text": TEXTS}), np.array(TEXTS)[:, None]])
@pytest.mark.parametrize("X", [TEXTS, pd.Series(TEXTS), pd.DataFrame({"text": TEXTS})])
@pytest.mark.filterwarnings("ignore:X has feature names, but Reader was fitted without")
def test_column_of_texts_and_texts_are_equivalent(seen, X):
    assert learn(seen).read(X, Reader()) == TEXTS


# -- a row's text does not depend on the other rows ---------------------------------------------------------------


@pytest.mark.parametrize("seen", [TEXTS, pd.DataFrame({"text": TEXTS}), [[text] for text in TEXTS]])
@pytest.mark.parametrize(
    ("cell", "error", "message"),
    [
        (1, TypeError, r"texts \(str\), got int at row 1; convert it to str"),
        (2.5, TypeError, "got float at row 1"),
        (True, TypeError, "got bool at row 1"),
        (None, ValueError, r"1 missing text\(s\) \(None or NaN\), at row\(s\) 1; drop these rows or replace"),
        (np.nan, ValueError, r"1 missing text\(s\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:X has feature names, but Reader was fitted without")
def test_column_of_texts_stays_one(seen, cell, error, message):
    with pytest.raises(error, match=message):
        learn(seen).read(pd.DataFrame({"text": pd.Series(["a", cell], dtype=object)}), Reader())


@pytest.mark.parametrize(
    ("reader", "texts"),
    [
        (learn(pd.DataFrame({"c": ["a", 1]})), ["c: a", "c: 1", "c: 2.5", "c: true", "c: b"]),
        (learn(pd.DataFrame({"c": [1, 2]})), ["c: a", "c: 1", "c: 2.5", "c: true", "c: b"]),
        (ZERO_SHOT, ["a", "c: 1", "c: 2.5", "c: true", "b"]),
    ],
)
def test_column_of_other_cells_is_read_row_by_row(reader, texts):
    frame = pd.DataFrame({"c": pd.Series(["a", 1, 2.5, True, "b"], dtype=object)})
    assert reader.read(frame, Reader()) == texts
    assert [reader.read(frame[row : row + 1], Reader())[0] for row in range(5)] == texts


@pytest.mark.parametrize(
    "rows",
    [
        [[True, 2], [3, 4]],
        [["a", 1], ["b", 2.5], [None, True]],
        [[1, 2**60 + 1], [0.5, 1]],
        [{"a": 2**60 + 1, "b": "x"}, {"a": 0.5, "b": True}],
    ],
)
def test_rows_do_not_depend_on_other_rows(rows):
    assert read(rows) == [read([row])[0] for row in rows]
    reader = learn(rows)
    assert reader.read(rows, Reader()) == [reader.read([row], Reader())[0] for row in rows]


def test_without_a_fit_on_texts_any_table_can_be_read(recwarn):
    assert ZERO_SHOT.read(TEXTS, Reader()) == TEXTS
    assert ZERO_SHOT.read(pd.DataFrame({"t": ["a"], "n": [1]}), Reader()) == ["t: a n: 1"]
    assert ZERO_SHOT.read([["a", 1]], Reader()) == ["x0: a x1: 1"]
    assert not recwarn.list
    with pytest.raises(ValueError, match=r"1 missing text\(s\).*row\(s\) 1;"):
        ZERO_SHOT.read(pd.DataFrame({"t": ["a", None]}), Reader())


def test_reader_comes_back_from_json():
    reader = learn(pd.DataFrame({"title": ["a"], "n": [1]}))
    assert TextReader(**json.loads(json.dumps(dataclasses.asdict(reader)))) == reader


# -- through the estimators --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_table():
    X = pd.DataFrame({"title": ["a goal", "a law", "goals", None], "year": [1999, 2001, 1999, 2001]})
    return X, GLiClassClassifier(**TINY, random_state=0).fit(X, [0, 1, 0, 1])


def test_table_predicts_as_the_texts_it_stands_for(on_table):
    X, classifier = on_table
    proba = clone(classifier).fit(read(X), [0, 1, 0, 1]).predict_proba(read(X))
    in_polars = pl.DataFrame({"title": ["a goal", "a law", "goals", None], "year": [1999, 2001, 1999, 2001]})
    np.testing.assert_array_equal(classifier.predict_proba(X), proba)
    np.testing.assert_array_equal(classifier.predict_proba(in_polars), proba)


def test_template_predicts_as_the_texts_it_makes(on_table):
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
def test_methods_before_fit_raise(method):
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


def test_regressor_reads_tables_too(table):
    regressor = GLiClassRegressor(**TINY, random_state=0).fit(table, [1.0, 2.0, 3.0])
    assert regressor.predict(table).shape == (3,)
    assert regressor.n_features_in_ == 5
