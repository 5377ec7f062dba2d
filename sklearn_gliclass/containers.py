"""Containers of X, y and labels: conversion to supported types, and errors for unsupported ones."""

import importlib.util
import math
import numbers
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd

# What y must be, for error messages.
EXPECTED_CLASSES = "a sequence of classes, or a 2-D array with a column for each class,"
EXPECTED_NUMBERS = "a sequence of numbers, or a 2-D array with a column for each output,"

_NATIVE = ("builtins", "numpy", "pandas", "polars")  # not converted; that of polars to pandas would need pyarrow
_TABLE_PROTOCOLS = ("columns", "__narwhals_dataframe__", "__narwhals_series__", "__arrow_c_stream__")


def as_container(data, name: str, expected: str) -> Any:
    """Return `data` as a DataFrame, Series, ndarray, sparse matrix, list or tuple.

    Tables and columns of pyarrow, cuDF and Hugging Face datasets become those of pandas, and so do others that narwhals
    can read, if it is installed; masked values of NumPy become None.

    Parameters
    ----------
    data : object
        The container.
    name : str
        Name of the parameter, for error messages.
    expected : str
        What is allowed, for error messages, such as "a sequence of texts or a table".

    Raises
    ------
    TypeError
        If `data` is not a container, has no order (set), is ambiguous (dict) or is not in memory (lazy frames, dask,
        Spark). The message names the call that converts it, if there is one.
    """
    if hasattr(data, "toarray") and not _is_lazy_dask(data):  # sparse
        return data
    conversion = _conversion_needed(data, name)
    if conversion is not None:
        on_workers = _on_workers(data) if name == "X" else ""
        hint = f"; pass {conversion}{on_workers}." if conversion else "."
        raise TypeError(f"{name} must be {expected} in memory, got {type(data).__name__}{hint}")
    if hasattr(data, "to_native"):  # of narwhals
        return as_container(data.to_native(), name, expected)
    pandas_data = _pandas_of(data)
    if pandas_data is not None:
        return pandas_data
    if isinstance(data, np.ma.MaskedArray):
        return np.array(data.tolist(), dtype=object)
    if isinstance(data, np.ndarray) and data.dtype.names is not None:  # a structured array
        return pd.DataFrame(data)
    if hasattr(data, "columns") or hasattr(data, "to_list"):
        return data
    if hasattr(data, "__array__"):
        return np.asarray(data)
    return data if isinstance(data, (list, tuple)) else list(data)


def _library(data) -> str:
    return type(data).__module__.partition(".")[0]


def _pandas_of(data):
    """Convert tables and columns of other libraries to pandas; return None for what needs no conversion."""
    if _library(data) in _NATIVE:
        return None
    if _library(data) == "datasets" and hasattr(data, "with_format"):
        data = data.with_format("arrow")[:]
    if _library(data) == "pyarrow" and hasattr(data, "to_pandas"):
        return data.to_pandas(integer_object_nulls=True)  # floats would lose digits
    return data.to_pandas() if hasattr(data, "to_pandas") else _through_narwhals(data)


def _through_narwhals(data):
    """Convert an eager table or column to pandas, with cells unchanged; return None if narwhals cannot read it."""
    found = _as_narwhals(data)
    if found is None or hasattr(found, "collect"):
        return None
    if not hasattr(found, "columns"):
        return pd.Series(found.to_list(), dtype=object)
    return pd.DataFrame({name: pd.Series(found[name].to_list(), dtype=object) for name in found.columns})


def _as_narwhals(data) -> Any:
    """Return a table or column as one of narwhals, or None if it cannot be read or narwhals is not installed."""
    if _library(data) in _NATIVE or not any(hasattr(data, name) for name in _TABLE_PROTOCOLS):
        return None
    try:
        import narwhals
    except ImportError:
        return None
    found = narwhals.from_native(data, pass_through=True, allow_series=True)
    if found is data and hasattr(data, "__arrow_c_stream__"):
        backend = "polars" if importlib.util.find_spec("polars") else "pyarrow"
        return narwhals.from_arrow(data, backend=backend)
    return None if found is data else found


def _is_lazy_dask(data) -> bool:
    graph = getattr(data, "__dask_graph__", None)
    return callable(graph) and graph() is not None


def _conversion_needed(data, name: str) -> str | None:
    """Return the call that converts `data`, "" if there is none, and None if no conversion is needed."""
    if _is_lazy_dask(data):  # first: a delayed value seems to have any attribute
        return f"{name}.compute()"
    if isinstance(data, Mapping):
        is_split = _library(data) == "datasets" and len(data)  # of a Hugging Face DatasetDict
        return f"{name}[{next(iter(data))!r}]" if is_split else f"list({name}) or pandas.DataFrame({name})"
    if isinstance(data, Set):
        return f"sorted({name})"
    if hasattr(data, "toPandas"):  # Spark
        return f"{name}.toPandas()"
    if hasattr(data, "map_batches") and hasattr(data, "to_pandas") and _library(data) == "ray":
        return f"{name}.to_pandas()"
    if hasattr(data, "collect"):  # lazy frames of polars and narwhals
        return f"{name}.collect()"
    if hasattr(data, "columns") and hasattr(_as_narwhals(data), "collect"):  # of DuckDB, and others of narwhals
        return f"narwhals.from_native({name}).collect()"
    if isinstance(data, (str, bytes, bytearray, memoryview)):
        return f"[{name}]" if isinstance(data, str) else ""
    if hasattr(data, "__len__") or hasattr(data, "__array__"):
        return None
    return f"list({name})" if isinstance(data, Iterable) else ""


def _on_workers(data) -> str:
    """Return how to predict a distributed frame without bringing it into memory, for the error message."""
    calls = {
        "dask": "map_partitions(predictor, meta=predictor.meta(frame))",
        "pyspark": "mapInPandas(predictor.map, predictor.spark_schema(frame))",
        "ray": 'map_batches(BatchPredictor, ..., batch_format="pandas")',
    }
    call = calls.get(_library(data), "")
    if not hasattr(type(data), call.partition("(")[0]):  # such as a delayed value of dask, which has no parts
        return ""
    return (
        f", or for predictions on the workers call {call} of the frame, with "
        "predictor = sklearn_gliclass.distributed.BatchPredictor(folder)"
    )


def plain_strings(data):
    """Convert an array of NumPy's variable-width strings, which scikit-learn does not know, to dtype object.

    Other data are returned unchanged.
    """
    is_string_dtype = isinstance(data, np.ndarray) and data.dtype.kind == "T"
    return np.array(data.tolist(), dtype=object) if is_string_dtype else data


def to_values(data) -> list:
    """Return the values of a one-dimensional container."""
    if hasattr(data, "to_list"):
        return data.to_list()
    if isinstance(data, np.ndarray) and data.dtype.kind not in "mM":  # nanoseconds would become integers
        return data.tolist()
    return list(data)


def plain(value):
    """Convert a NumPy scalar, such as those of searches, to a Python value for JSON and torch."""
    return value.item() if isinstance(value, np.generic) else value


def column_names(data) -> list | None:
    """Return the column names of a table; None for other containers and for the default names 0, 1, ..."""
    if not hasattr(data, "columns"):
        return None
    names = list(data.columns)
    return None if names == list(range(len(names))) else names


def has_default_index(series) -> bool:
    """Return whether the index of a pandas Series is 0, 1, ..."""
    return series.index.equals(pd.RangeIndex(len(series)))


def is_finite(value) -> bool:
    """Return whether a value is a finite real number; bools are not."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return False
    return math.isfinite(value)
