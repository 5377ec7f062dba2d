"""X -> texts: the one place for the rule of one and two dimensions.

One dimension of `str` is texts; two dimensions are a table, whose rows become ``"column: value"`` pieces.
"""

import math
import numbers
import re
import string
from collections.abc import Callable, Mapping, Set

import numpy as np
import pandas as pd
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

_MISSING_ROWS_SHOWN = 5
_CELL_TYPES = (str, numbers.Number, np.datetime64, np.timedelta64)
_LARGEST_WHOLE = 1e15  # whole numbers up to here are written without an exponent


def read_texts(estimator, X, *, reset: bool, text_template: str | Callable | None = None) -> list[str]:
    """Turn the X of an estimator into texts.

    Parameters
    ----------
    estimator : BaseEstimator
        Its `n_features_in_` and `feature_names_in_` are set (`reset`) or checked for tables.
    X : array-like
        Texts (list, tuple, ndarray, Series), or a table (lists of rows, ndarray, DataFrame of pandas or polars).
    reset : bool
        True in `fit`.
    text_template : str or callable, optional
        How a row of a table becomes a text: a format string with column names, or a function of a dict.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError, TypeError
        With scikit-learn's wording where it has one.
    """
    X = _as_container(X)
    if _is_table(X):
        return _table_texts(estimator, X, reset, text_template)
    values = _one_dimension(estimator, X)
    if text_template is not None:
        raise ValueError(
            "text_template says how a table's row becomes a text, and X is no table but texts; leave "
            "text_template=None, or pass a DataFrame."
        )
    _note_texts(estimator, reset)
    return _check_texts(values)


def _as_container(X):
    """X as a DataFrame, Series, ndarray, sparse matrix, list or tuple; anything else raises or becomes one."""
    if isinstance(X, (str, bytes)):
        raise ValueError(
            "Iterable over raw text documents expected, string object received; put the text in a list: [text]."
        )
    if hasattr(X, "toarray"):  # sparse: scikit-learn's checks refuse it
        return X
    if isinstance(X, (Mapping, Set)):
        raise TypeError(
            f"X must be a sequence of texts or a table, got {type(X).__name__}; pass a list of texts or "
            "pandas.DataFrame(X)."
        )
    if hasattr(X, "collect"):
        raise TypeError(f"X must be in memory, got {type(X).__name__}; pass X.collect().")
    if hasattr(X, "columns") or hasattr(X, "to_list"):
        return X
    if hasattr(X, "__array__"):
        return np.asarray(X)
    if not hasattr(X, "__len__"):
        advice = "; pass list(X)." if hasattr(X, "__iter__") else "."
        raise TypeError(f"X must be a sequence of texts or a table, got {type(X).__name__}{advice}")
    return X


def _is_table(X) -> bool:
    if hasattr(X, "columns") or hasattr(X, "toarray"):
        return True
    if hasattr(X, "ndim"):
        return X.ndim != 1
    # A list: of rows, unless of texts.
    return len(X) > 0 and isinstance(next(iter(X)), (list, tuple, np.ndarray))


def _one_dimension(estimator, X) -> list:
    """The values of 1-D input; numbers are scikit-learn's own error."""
    values = X.to_list() if hasattr(X, "to_list") else X.tolist() if isinstance(X, np.ndarray) else list(X)
    if len(values) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by {type(estimator).__name__}."
        )
    if all(isinstance(value, numbers.Number) for value in values):
        check_array(np.asarray(values))  # raises: "Expected 2D array, got 1D array instead ... Reshape your data"
    return values


def _note_texts(estimator, reset: bool) -> None:
    """Remember in `fit` that X was texts; later raise where it was a table of several columns."""
    if reset:
        for name in ("n_features_in_", "feature_names_in_"):  # of an earlier fit on a table
            if hasattr(estimator, name):
                delattr(estimator, name)
        estimator._fitted_on_texts = True
    elif getattr(estimator, "n_features_in_", 1) != 1:
        raise ValueError(
            f"X is 1-D, but {type(estimator).__name__} was fitted on a table with {estimator.n_features_in_} columns; "
            "pass a table with the same columns."
        )


def _note_table(estimator, n_columns: int, reset: bool) -> None:
    """The same for a table."""
    if reset:
        estimator._fitted_on_texts = False
    elif getattr(estimator, "_fitted_on_texts", False) and n_columns != 1:
        raise ValueError(
            f"X is a table with {n_columns} columns, but {type(estimator).__name__} was fitted on texts; pass the "
            "column that holds the texts."
        )


def _check_texts(values: list) -> list[str]:
    missing = [row for row, value in enumerate(values) if is_missing(value)]
    if missing:
        shown = ", ".join(map(str, missing[:_MISSING_ROWS_SHOWN]))
        more = ", ..." if len(missing) > _MISSING_ROWS_SHOWN else ""
        raise ValueError(
            f"X has {len(missing)} missing text(s) (None or NaN), at row(s) {shown}{more}; drop these rows or replace "
            'them, for example with the empty text "".'
        )
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"X must hold texts (str), got {type(value).__name__} at row {row}; turn it into a str. A table must "
                "be 2-D (a DataFrame, or an array of shape (n_samples, n_columns))."
            )
    return [str(value) for value in values]  # numpy's str subclasses become plain


def is_missing(value) -> bool:
    """None, NaN, NaT, pandas' NA."""
    if value is None:
        return True
    if isinstance(value, str):
        return False
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (numbers.Number, np.datetime64, np.timedelta64)) and bool(value != value)


def _table_texts(estimator, X, reset, text_template) -> list[str]:
    names, columns = _frame_columns(estimator, X, reset) if hasattr(X, "columns") else _rows(estimator, X, reset)
    _note_table(estimator, len(columns), reset)
    if text_template is not None:
        return _templated(columns, names, text_template)
    if len(columns) == 1 and all(isinstance(value, str) or is_missing(value) for value in columns[0]):
        return _check_texts(columns[0])
    return [
        " ".join(f"{name}: {_cell(value)}" for name, value in zip(names, row, strict=True) if not is_missing(value))
        for row in zip(*columns, strict=True)
    ]


def _frame_columns(estimator, frame, reset) -> tuple[list[str], list[list]]:
    """Names and cells of a DataFrame; its cells are read as they are, whatever their kind."""
    # The header alone, as pandas' own: scikit-learn's reading of polars' changes from version to version.
    validate_data(estimator, pd.DataFrame(columns=list(frame.columns)), reset=reset, skip_check_array=True)
    for axis, what in enumerate(("sample(s)", "feature(s)")):
        if frame.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what} (shape={tuple(frame.shape)}) while a minimum of 1 is required by "
                f"{type(estimator).__name__}."
            )
    by_position = hasattr(frame, "iloc")  # names may stand twice in pandas
    columns = [frame.iloc[:, i] if by_position else frame[name] for i, name in enumerate(frame.columns)]
    named = all(isinstance(name, str) for name in frame.columns)
    return list(frame.columns) if named else _numbered(len(columns)), [column.to_list() for column in columns]


def _numbered(n_columns: int) -> list[str]:
    """The names that scikit-learn gives to columns that have none."""
    return [f"x{i}" for i in range(n_columns)]


def _rows(estimator, X, reset) -> tuple[list[str], list[list]]:
    """Names x0, x1, ... and cells of an array or a list of rows, after scikit-learn's checks.

    Numbers must be finite; in a mixed table a missing cell is left out of its text.
    """
    if isinstance(X, (list, tuple)):
        X = _array_of_rows(X)
    finite = getattr(getattr(X, "dtype", None), "kind", None) != "O"
    X = validate_data(estimator, X, reset=reset, dtype=None, accept_sparse=False, ensure_all_finite=finite)
    return _numbered(X.shape[1]), [list(column) for column in X.T]


def _array_of_rows(rows) -> np.ndarray:
    """Rows as an array that keeps the kinds of the cells: numpy would write numbers among strings as strings."""
    lengths = sorted({len(row) if isinstance(row, (list, tuple, np.ndarray)) else 0 for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"The rows of X have different lengths, {lengths}; a table's rows must be equally long.")
    only_numbers = all(isinstance(value, numbers.Number) for row in rows for value in row)
    return np.asarray(rows, dtype=None if only_numbers else object)


def _cell(value) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        value = float(value)
        if math.isinf(value):
            raise ValueError("Input X contains infinity; replace it by a number, or by None for a missing cell.")
        whole = value.is_integer() and abs(value) < _LARGEST_WHOLE
        return str(int(value)) if whole else format(value, ".6g")
    if isinstance(value, numbers.Complex):
        raise ValueError(f"Complex data not supported: {value!r}.")
    if isinstance(value, _CELL_TYPES) or hasattr(value, "isoformat"):
        return str(value)
    raise TypeError(
        f"A cell of a table must be a string or a number (or a date or missing), got {type(value).__name__}: "
        f"argument must be a string or a number. Turn such columns into text first."
    )


class _RowFormatter(string.Formatter):
    """Fill a template from a row: columns by name, missing cells as nothing, format specifications as in Python."""

    def get_field(self, field_name, args, kwargs):
        name = _column_of(field_name, kwargs)
        if name == field_name or is_missing(kwargs[name]):
            return kwargs[name], name
        return super().get_field(field_name, args, kwargs)  # an attribute or item: "{date.year}"

    def convert_field(self, value, conversion):
        return value if is_missing(value) else super().convert_field(value, conversion)

    def format_field(self, value, format_spec):
        if is_missing(value):
            return ""
        return format(value, format_spec) if format_spec else _cell(value)


def _column_of(field: str, names) -> str:
    return field if field in names else re.split(r"[.\[]", field)[0]


def _templated(columns, names, template) -> list[str]:
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if callable(template):
        texts = [template(row) for row in rows]
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text_template must return a str, got {type(text).__name__} for row {row}.")
        return texts
    asked = {_column_of(field, names) for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    unknown = sorted(asked.difference(names))
    if unknown:
        raise ValueError(f"text_template names the column(s) {unknown}, which X lacks; X has {names}.")
    formatter = _RowFormatter()
    return [formatter.vformat(template, (), row) for row in rows]
