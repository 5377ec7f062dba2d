"""Containers of other libraries as X and y: Arrow, Hugging Face datasets, narwhals, dask, DuckDB, records, StringDType.

Libraries that are not installed are skipped.
"""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from library_versions import is_scikit_learn_older_than, string_array
from sklearn.base import BaseEstimator
from sklearn.model_selection import cross_val_predict

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.containers import as_container
from sklearn_gliclass.inputs import learn_texts
from sklearn_gliclass.targets import MULTI, SINGLE, read_class_targets
from sklearn_gliclass.testing import TINY

RECORDS = [
    {"title": "a late goal", "n": 1, "id": 12345678901234567, "seen": True, "day": datetime.date(2020, 1, 2)},
    {"title": "a new law", "n": None, "id": None, "seen": None, "day": None},
    {"title": None, "n": 3, "id": 4, "seen": False, "day": datetime.date(2021, 3, 4)},
]
EXPECTED = [
    "title: a late goal n: 1 id: 12345678901234567 seen: true day: 2020-01-02",
    "title: a new law",
    "n: 3 id: 4 seen: false day: 2021-03-04",
]
TEXTS = ["a late goal", "a new law", "the match", "a vote", "goals", "laws and votes"]
Y = ["sports", "politics"] * 3


def read(X):
    return learn_texts(X, BaseEstimator())[0]


def arrow():
    return pytest.importorskip("pyarrow")


def dataset(columns):
    """Create a data set of Hugging Face."""
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset(datasets.table.InMemoryTable(arrow().table(columns)), fingerprint="0")


def columns_of(records):
    return {name: [record[name] for record in records] for name in records[0]}


def narwhals(native, **options):
    return pytest.importorskip("narwhals").from_native(native, **options)


def arrow_of_pandas(records):
    """Create an Arrow table that holds the index of a pandas table too."""
    return arrow().Table.from_pandas(pd.DataFrame(records, index=[7, 5, 3], dtype=object))


class ArrowStream:
    """Table that only offers Arrow's stream interface, as those of nanoarrow do."""

    def __init__(self, table):
        self.table = table

    def __len__(self):
        return len(self.table)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


TABLES = {
    "dicts": list,
    "dicts in another order": lambda rows: [rows[0], *(dict(reversed(row.items())) for row in rows[1:])],
    "Series of dicts": pd.Series,
    "array of dicts": lambda rows: np.array(rows, dtype=object),
    "polars": pl.DataFrame,
    "polars structs": lambda rows: pl.DataFrame(rows).to_struct(),
    "Arrow table": lambda rows: arrow().Table.from_pylist(rows),
    "Arrow table of pandas": arrow_of_pandas,
    "Arrow record batch": lambda rows: arrow().RecordBatch.from_pylist(rows),
    "Arrow structs": lambda rows: arrow().array(rows),
    "Hugging Face": lambda rows: dataset(columns_of(rows)),
    "Hugging Face in NumPy format": lambda rows: dataset(columns_of(rows)).with_format("numpy"),
    "Hugging Face with selected rows": lambda rows: dataset(columns_of([*rows, rows[0]])).select(range(3)),
    "narwhals of polars": lambda rows: narwhals(pl.DataFrame(rows)),
    "narwhals of Arrow": lambda rows: narwhals(arrow().Table.from_pylist(rows)),
    "Arrow stream": lambda rows: pytest.importorskip("narwhals") and ArrowStream(arrow().Table.from_pylist(rows)),
}


@pytest.mark.parametrize("container", TABLES.values(), ids=TABLES)
def test_tables_are_read(container):
    assert read(container(RECORDS)) == EXPECTED


COLUMNS = {
    "StringDType": string_array,
    "StringDType with a missing value": lambda texts: string_array(texts, na_object=None),
    "StringDType column": lambda texts: string_array(texts).reshape(-1, 1),
    "Arrow array": lambda texts: arrow().array(texts),
    "Arrow chunks": lambda texts: arrow().chunked_array([texts[:2], texts[2:]]),
    "Arrow dictionary": lambda texts: arrow().array(texts).dictionary_encode(),
    "Arrow large strings": lambda texts: arrow().array(texts, arrow().large_string()),
    "Arrow table": lambda texts: arrow().table({"text": texts}),
    "Hugging Face column": lambda texts: dataset({"text": texts})["text"],
    "narwhals": lambda texts: narwhals(pl.Series(texts), series_only=True),
    "narwhals of pandas": lambda texts: narwhals(pd.Series(texts), series_only=True),
}


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")  # scikit-learn's, for a y of one column
@pytest.mark.parametrize("container", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_texts_and_classes(container):
    expected = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, Y)
    fitted = GLiClassClassifier(**TINY, random_state=0).fit(container(TEXTS), container(Y))
    assert read(container(TEXTS)) == TEXTS
    assert fitted.classes_.tolist() == expected.classes_.tolist()
    np.testing.assert_array_equal(fitted.predict_proba(container(TEXTS)), expected.predict_proba(TEXTS))
    assert fitted.score(container(TEXTS), container(Y)) == expected.score(TEXTS, Y)


def test_two_dimensional_string_array():
    table = string_array([["a late goal", "x"], ["a new law", None]], na_object=None)
    assert read(table) == ["x0: a late goal x1: x", "x0: a new law"]


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_values_of_string_array_raise(missing):
    values = string_array(["a", missing, "b"], na_object=missing)
    with pytest.raises(ValueError, match=r"X has 1 missing text\(s\) \(None or NaN\), at row\(s\) 1"):
        read(values)
    with pytest.raises(ValueError, match=r"y contains NaN: 1 missing target\(s\), first at row 1"):
        read_class_targets(values)


MATRICES = {
    "Arrow table": lambda y: arrow().table(y),
    "Arrow record batch": lambda y: arrow().record_batch(y),
    "Hugging Face": dataset,
    "narwhals": lambda y: narwhals(pl.DataFrame(y)),
}


@pytest.mark.parametrize("container", MATRICES.values(), ids=MATRICES)
def test_columns_of_a_table_name_the_classes(container):
    targets = read_class_targets(container({"sea": [0, 1, 1], "food": [1, 0, 1]}))
    assert targets.kind == MULTI
    assert targets.classes.tolist() == ["sea", "food"]
    np.testing.assert_array_equal(targets.array, [[0, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize("values", [[2, 1, 2], [True, False, True]])
def test_numeric_arrow_columns_are_classes(values):
    targets = read_class_targets(arrow().array(values))
    assert targets.kind == SINGLE
    np.testing.assert_array_equal(targets.classes[targets.array], values)
    with pytest.raises(ValueError, match=r"1 missing target\(s\), first at row 3"):
        read_class_targets(arrow().array([*values, None]))


@pytest.mark.parametrize("container", ["Arrow array", "Hugging Face column", "narwhals"])
def test_numbers_of_a_regression(container):
    values = [1.0, 2.5, 3.0, -1.0, 0.5, 2.0]
    make = (lambda y: dataset({"y": y})["y"]) if container.startswith("Hugging") else COLUMNS[container]
    by_column, by_list = (
        GLiClassRegressor(**TINY, random_state=0).fit(TEXTS, y).predict(TEXTS) for y in (make(values), values)
    )
    np.testing.assert_array_equal(by_column, by_list)


@pytest.mark.parametrize("container", ["dicts", "polars", "Arrow table", "StringDType", "Arrow array"])
def test_cross_validation_splits_containers(container):
    if "Arrow" in container and is_scikit_learn_older_than("1.8"):
        pytest.skip("scikit-learn does not select rows of Arrow's containers")
    rows = [{"text": text} for text in TEXTS]
    X = TABLES[container](rows) if container in TABLES else COLUMNS[container](TEXTS)
    clf = GLiClassClassifier(**TINY, random_state=0)
    np.testing.assert_array_equal(cross_val_predict(clf, X, Y, cv=3), cross_val_predict(clf, TEXTS, Y, cv=3))


def dask_array(values):
    return pytest.importorskip("dask.array").from_array(np.array(values), chunks=2)


def dask_bag(values):
    return pytest.importorskip("dask.bag").from_sequence(values)


def dask_delayed(values):
    return pytest.importorskip("dask").delayed(values)


def dask_series(values):
    return pytest.importorskip("dask.dataframe").from_pandas(pd.Series(values), npartitions=2)


def dask_frame(values):
    return pytest.importorskip("dask.dataframe").from_pandas(pd.DataFrame({"text": values}), npartitions=2)


def relation(values):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("narwhals")
    frame = pd.DataFrame({"text": values})  # noqa: F841 (DuckDB reads it by name)
    return duckdb.sql("select text from frame")


LAZY = [
    (dask_array, r"\.compute\(\)"),
    (dask_bag, r"\.compute\(\)"),
    (dask_delayed, r"\.compute\(\)\.$"),
    (dask_series, r"\.compute\(\)"),
    (dask_frame, r"\.compute\(\)"),
    (lambda values: pl.LazyFrame({"text": values}), r"\.collect\(\)"),
    (lambda values: narwhals(pl.LazyFrame({"text": values})), r"\.collect\(\)"),
    (lambda values: narwhals(dask_frame(values)), r"\.collect\(\)"),
]


@pytest.mark.parametrize(("container", "call"), LAZY)
def test_lazy_containers_raise_with_the_call_that_computes_them(container, call):
    with pytest.raises(TypeError, match=rf"X must be a sequence of texts or a table in memory, got .*; pass X{call}"):
        read(container(TEXTS))
    with pytest.raises(TypeError, match=rf"y must be a sequence of classes.*in memory, got .*; pass y{call}"):
        read_class_targets(container(Y))


def test_relation_of_duckdb_raises_with_the_call_that_computes_it():
    with pytest.raises(TypeError, match=r"got DuckDBPyRelation; pass narwhals.from_native\(X\).collect\(\)"):
        read(relation(TEXTS))


def test_splits_and_streams_of_hugging_face_raise():
    datasets = pytest.importorskip("datasets")
    with pytest.raises(TypeError, match=r"got DatasetDict; pass X\['train'\]"):
        read(datasets.DatasetDict({"train": dataset({"text": TEXTS})}))
    stream = dataset({"text": TEXTS}).to_iterable_dataset()
    with pytest.raises(TypeError, match=r"got IterableDataset; pass list\(X\)"):
        read(stream)
    assert read(list(stream)) == TEXTS


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([{"a": 1}, {"a": 1, "b": 2}], ValueError, r"row 0 has \['a'\], row 1 \['a', 'b'\]. Give a missing cell as"),
        ([{"a": 1}, "text"], ValueError, r"keys must be the same: row 0 has \['a'\], row 1 str"),
        (pd.Series([{"a": 1}, None]), ValueError, r"row 0 has \['a'\], row 1 NoneType"),
    ],
)
def test_records_with_other_keys_raise(X, error, message):
    with pytest.raises(error, match=message):
        read(X)


def test_nested_arrow_cells_raise():
    with pytest.raises(TypeError, match=r"A cell of a table must be .*, got ndarray: .*in the column 'a' at row 0"):
        read(arrow().table({"a": [["x"], ["y"]], "b": [1, 2]}))


def test_tables_that_only_narwhals_knows_become_those_of_pandas():
    pytest.importorskip("narwhals")

    class Table(pd.DataFrame):
        """Table of a module other than pandas."""

    found = as_container(Table({"title": ["a", "b"], "size": [1, 2]}), "X", "texts")
    assert type(found) is pd.DataFrame
    assert found.to_dict("list") == {"title": ["a", "b"], "size": [1, 2]}


def test_narwhals_is_optional(monkeypatch):
    table = ArrowStream(arrow().Table.from_pylist(RECORDS))
    monkeypatch.setitem(__import__("sys").modules, "narwhals", None)
    with pytest.raises(TypeError, match=r"is not iterable|convert it to a pandas\.DataFrame"):
        read(table)
