"""X -> texts: the one place for the rule of one and two dimensions.

One dimension of `str` is texts; two dimensions are a table, whose rows become ``"column: value"`` pieces.
"""

import numbers
import string
from collections.abc import Callable

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

_MISSING_ROWS_SHOWN = 5
_CELL_TYPES = (str, numbers.Number, np.bool_, np.datetime64, np.timedelta64)


def read_texts(estimator, X, *, reset: bool, text_template: str | Callable | None = None) -> list[str]:
    """Turn the X of an estimator into texts.

    Parameters
    ----------
    estimator : BaseEstimator
        Its `n_features_in_` and `feature_names_in_` are set (`reset`) or checked for tables.
    X : array-like
        Texts (list, tuple, ndarray, Series), or a table (ndarray, DataFrame of pandas or polars, sparse).
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
    if isinstance(X, (str, bytes)):
        raise ValueError(
            "Iterable over raw text documents expected, string object received; put the text in a list: [text]."
        )
    if _is_table(X):
        return _table_texts(estimator, X, reset, text_template)
    values = _one_dimension(X)
    if text_template is not None:
        raise ValueError("text_template says how a table's row becomes a text, and X is no table but texts.")
    if not reset and hasattr(estimator, "n_features_in_") and estimator.n_features_in_ != 1:
        raise ValueError(
            f"X is 1-D, but {type(estimator).__name__} was fitted on a table with {estimator.n_features_in_} columns; "
            "pass a table with the same columns."
        )
    return _check_texts(values)


def _is_table(X) -> bool:
    if hasattr(X, "columns") or hasattr(X, "toarray"):
        return True
    if hasattr(X, "ndim") or hasattr(X, "__array__"):
        return np.ndim(X) != 1
    # A list: of rows, unless of texts.
    first = next(iter(X), None) if hasattr(X, "__len__") else None
    return isinstance(first, (list, tuple, np.ndarray))


def _one_dimension(X) -> list:
    """The values of 1-D input; numbers are scikit-learn's own error."""
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    if kind in set("biufc"):
        check_array(X)  # raises: "Expected 2D array, got 1D array instead ... Reshape your data"
    if hasattr(X, "to_list"):
        values = X.to_list()
    elif isinstance(X, np.ndarray):
        values = X.tolist()
    elif hasattr(X, "__len__"):
        values = list(X)
    else:
        raise TypeError(f"X must be texts or a table, got {type(X).__name__}.")
    if len(values) == 0:
        raise ValueError(
            "Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by GLiClass estimators."
        )
    if all(isinstance(value, numbers.Number) and not _is_missing(value) for value in values):
        check_array(np.asarray(values))
    return values


def _check_texts(values: list) -> list[str]:
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing:
        shown = ", ".join(map(str, missing[:_MISSING_ROWS_SHOWN])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"X has {len(missing)} missing text(s) (None or NaN), at row(s) {shown}; drop these rows or replace them, "
            'for example with the empty text "".'
        )
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(
                f"X must hold texts (str), got {type(value).__name__} at row {row}; a table must be 2-D (a DataFrame, "
                "or an array of shape (n_samples, n_columns))."
            )
    return [str(value) for value in values]  # numpy's str subclasses become plain


def _is_missing(value) -> bool:
    """None, NaN, NaT, pandas' NA."""
    if value is None:
        return True
    if isinstance(value, str):
        return False
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (numbers.Number, np.datetime64, np.timedelta64)) and value != value


def _table_texts(estimator, X, reset, text_template) -> list[str]:
    # polars' and pandas' cells are read as they are; arrays go through scikit-learn's checks whole.
    frame = X if hasattr(X, "columns") else None
    if frame is None:
        X = validate_data(estimator, X, reset=reset, dtype=None, accept_sparse=False, ensure_all_finite=_finite(X))
        columns = [[*column] for column in X.T.tolist()] if X.dtype.kind != "f" else [[*column] for column in X.T]
        names = [f"x{i}" for i in range(X.shape[1])]
    else:
        validate_data(estimator, frame, reset=reset, skip_check_array=True)
        _check_frame(estimator, frame)
        columns = [_column_values(frame[name]) for name in frame.columns]
        names = [str(name) for name in frame.columns]
    if text_template is not None:
        return _templated(columns, names, text_template)
    if len(columns) == 1 and all(isinstance(value, str) or _is_missing(value) for value in columns[0]):
        return _check_texts(columns[0])
    labelled = list(zip(names, columns, strict=True))
    return [
        " ".join(f"{name}: {_cell(column[row])}" for name, column in labelled if not _is_missing(column[row]))
        for row in range(len(columns[0]))
    ]


def _finite(X):
    """Arrays of numbers must be finite; in mixed ones a missing cell is left out of its text."""
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    if kind is None and not hasattr(X, "toarray"):
        kind = np.asarray(X, dtype=object if _has_text(X) else None).dtype.kind
    return kind != "O"


def _has_text(rows) -> bool:
    return any(isinstance(value, str) or value is None for row in rows for value in row)


def _check_frame(estimator, frame) -> None:
    if frame.shape[0] == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape={tuple(frame.shape)}) while a minimum of 1 is required by "
            f"{type(estimator).__name__}."
        )
    if frame.shape[1] == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={tuple(frame.shape)}) while a minimum of 1 is required."
        )


def _column_values(column) -> list:
    return column.to_list() if hasattr(column, "to_list") else list(column)


def _cell(value) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return format(float(value), ".6g")
    if isinstance(value, str) or hasattr(value, "isoformat") or isinstance(value, _CELL_TYPES):
        return str(value)
    raise TypeError(
        f"A cell of a table must be a string or a number (or a date or missing), got {type(value).__name__}: "
        f"argument must be a string or a number. Turn such columns into text first."
    )


def _templated(columns, names, template) -> list[str]:
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if callable(template):
        texts = [template(row) for row in rows]
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text_template must return a str, got {type(text).__name__} for row {row}.")
        return texts
    asked = {field for _, field, _, _ in string.Formatter().parse(template) if field}
    unknown = sorted(field for field in asked if field.split(".")[0].split("[")[0] not in names)
    if unknown:
        raise ValueError(f"text_template names the column(s) {unknown}, which X lacks; X has {names}.")
    return [
        template.format_map({name: "" if _is_missing(value) else _cell(value) for name, value in row.items()})
        for row in rows
    ]
