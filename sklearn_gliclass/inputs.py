"""Conversion of X to texts.

A 1-D X of strings holds texts; a 2-D X is a table, each row of which becomes a text of ``"column: value"`` pieces.
"""

import functools
import numbers
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import check_array

from .cells import cell_text
from .containers import as_container, plain_strings, to_values
from .text_checks import check_encodable, check_texts, is_missing
from .text_templates import fill_template

if TYPE_CHECKING:  # pyright infers the types of scikit-learn's parameters from placeholders

    def validate_data(estimator: Any, X: Any, **options: Any) -> Any: ...
else:
    from sklearn.utils.validation import validate_data

_EXPECTED = "a sequence of texts or a table"
_TABLE_HINT = " A table must be 2-D (a DataFrame, or an array of shape (n_samples, n_columns))."


@dataclass(frozen=True)
class TextReader:
    """Conversion of rows to texts, as decided in `fit`.

    Attributes
    ----------
    n_columns : int or None
        Number of columns of the X of `fit`; None for texts and without X (zero-shot).
    columns : tuple of str or None
        Names of the columns, if all are strings.
    is_plain : bool
        Whether X was a table of one column of strings, whose cells are the texts, without "column: ".
    had_texts : bool
        Whether X was 1-D texts. If False and `n_columns` is None, `fit` has seen no X.

    Examples
    --------
    >>> texts, reader = learn_texts([["a late goal", 1], ["a new law", 2]], BaseEstimator())
    >>> reader.read([["the match", None]], BaseEstimator())
    ['x0: the match']
    """

    n_columns: int | None
    columns: tuple[str, ...] | None
    is_plain: bool
    had_texts: bool

    def __post_init__(self):
        if self.columns is not None:  # a list, where the reader was stored as JSON
            object.__setattr__(self, "columns", tuple(self.columns))

    @property
    def fitted_attributes(self) -> dict:
        """`n_features_in_` and `feature_names_in_` as in scikit-learn; empty for texts."""
        if self.n_columns is None:
            return {}
        names = {} if self.columns is None else {"feature_names_in_": np.array(self.columns, dtype=object)}
        return {"n_features_in_": self.n_columns, **names}

    @property
    def has_seen_data(self) -> bool:
        """Whether `fit` has seen any X."""
        return self.had_texts or self.n_columns is not None

    def read(self, X, estimator, text_template: str | Callable | None = None) -> list[str]:
        """Convert the X of a prediction, or of further training, to texts.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts, or a table with the columns of `fit`.
        estimator : BaseEstimator
            Its class is named in error messages; it is not changed.
        text_template : str or callable, optional
            See :func:`learn_texts`.

        Returns
        -------
        list of str

        Raises
        ------
        ValueError, TypeError
            If X does not match the X of `fit`, with scikit-learn's messages where it has them.
        """
        name = type(estimator).__name__
        X = _as_texts_or_table(X, self.columns)
        if not _is_table(X):
            values = _one_dimension(X, name)
            self._check_one_dimension(name)
            return _read_texts(values, text_template)
        is_known = self.n_columns is not None
        holder = _holder(name, self.fitted_attributes)
        names, cells = _read_table(X, holder, reset=not is_known)
        if self.n_columns is not None:  # as in `fit`; scikit-learn warns of other names or none
            names = _numbered(self.n_columns) if self.columns is None else list(self.columns)
        elif self.had_texts and len(cells) != 1:
            raise ValueError(
                f"X is a table with {len(cells)} columns, but {name} was fitted on texts; pass the column that holds "
                "the texts."
            )
        decided = self.had_texts or is_known
        return _table_texts(names, cells, text_template, (self.is_plain or self.had_texts) if decided else None)

    def _check_one_dimension(self, name: str) -> None:
        if self.n_columns not in (None, 1):
            raise ValueError(
                f"X is 1-D, but {name} was fitted on a table with {self.n_columns} columns; pass a table with the same "
                "columns."
            )
        if self.n_columns == 1 and not self.is_plain:
            raise ValueError(
                f"X is 1-D, but {name} was fitted on a table whose column holds other values than texts; pass a table "
                "with this column."
            )


UNSEEN = TextReader(None, None, False, False)
"""Reader of a zero-shot fit, which has seen no X."""


def learn_texts(X, estimator, text_template: str | Callable | None = None) -> tuple[list[str], TextReader]:
    """Convert the X of `fit` to texts, and decide how later ones are read.

    Parameters
    ----------
    X : array-like of shape (n_samples,) or (n_samples, n_features)
        Texts (list, tuple, ndarray, Series), or a table (lists of rows or of dicts, ndarray, DataFrame).
    estimator : BaseEstimator
        Its class is named in error messages; it is not changed.
    text_template : str or callable, optional
        How a row of a table becomes a text: a format string with column names, or a function of a dict.

    Returns
    -------
    texts : list of str
    reader : TextReader

    Raises
    ------
    ValueError, TypeError
        If X is not texts or a table, with scikit-learn's messages where it has them.
    """
    name = type(estimator).__name__
    X = _as_texts_or_table(X, None)
    if not _is_table(X):
        return _read_texts(_one_dimension(X, name), text_template), TextReader(None, None, False, True)
    holder = _holder(name, {})
    names, cells = _read_table(X, holder, reset=True)
    columns = getattr(holder, "feature_names_in_", None)
    is_plain = len(cells) == 1 and all(isinstance(value, str) or is_missing(value) for value in cells[0])
    reader = TextReader(len(cells), None if columns is None else tuple(columns), is_plain, False)
    return _table_texts(names, cells, text_template, is_plain), reader


def read_texts(X, estimator) -> list[str]:
    """Convert X to the texts that a fitted estimator reads."""
    return estimator._text_reader.read(X, estimator, estimator.text_template)


# -- containers --------------------------------------------------------------------------------------------------


def _as_texts_or_table(X, columns):
    """Return X in a supported container; `columns` are the column names of `fit`."""
    if isinstance(X, (str, bytes, bytearray, memoryview)):
        raise ValueError(
            f"Iterable over raw text documents expected, {'string' if isinstance(X, str) else type(X).__name__} object "
            "received; put the text in a list: [text]."
        )
    X = plain_strings(as_container(X, "X", _EXPECTED))
    if not _is_table(X) and len(X) and isinstance(next(iter(X)), Mapping):
        return _frame_of_records(to_values(X), columns)
    return X


def _frame_of_records(records, columns) -> pd.DataFrame:
    """Convert dicts with the same keys to a DataFrame of dtype object, which keeps the type of each cell."""
    keys = list(records[0])
    for row, record in enumerate(records):
        if not isinstance(record, Mapping) or set(record) != set(keys):
            found = list(record) if isinstance(record, Mapping) else type(record).__name__
            raise ValueError(
                f"X is a list of dicts, whose keys must be the same: row 0 has {keys}, row {row} {found}. Give a "
                "missing cell as None, or pass pandas.DataFrame(X)."
            )
    frame = pd.DataFrame([[record[key] for key in keys] for record in records], columns=keys, dtype=object)
    # Known columns are matched by name: the order of keys has no meaning.
    return frame.loc[:, list(columns)] if columns is not None and set(columns) == set(keys) else frame


def _is_table(X) -> bool:
    if hasattr(X, "columns") or hasattr(X, "toarray"):
        return True
    if hasattr(X, "ndim"):
        return X.ndim != 1
    # A list is a table if its items are rows.
    return len(X) > 0 and isinstance(X[0], (list, tuple, np.ndarray))


@functools.lru_cache(maxsize=8)
def _holder_class(name: str) -> type:
    return type(name, (BaseEstimator,), {})


def _holder(name: str, attributes: dict) -> BaseEstimator:
    """Create an estimator of that class name for scikit-learn's checks, which set attributes."""
    holder = _holder_class(name)()
    vars(holder).update(attributes)
    return holder


# -- one dimension -----------------------------------------------------------------------------------------------


def _one_dimension(X, estimator_name: str) -> list:
    """Return the values of a 1-D input; numbers raise scikit-learn's error."""
    values = to_values(X)
    if len(values) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by {estimator_name}."
        )
    if all(isinstance(value, numbers.Number) for value in values):
        check_array(np.asarray(values))  # raises: "Expected 2D array, got 1D array instead ... Reshape your data"
    return values


def _read_texts(values: list, text_template) -> list[str]:
    if text_template is not None:
        raise ValueError(
            "text_template converts the rows of a table, but X holds texts; set text_template=None, or pass a "
            "DataFrame."
        )
    return check_texts(values, _TABLE_HINT)


# -- tables ------------------------------------------------------------------------------------------------------


def _read_table(X, holder, reset: bool) -> tuple[list[str], list[list]]:
    """Return names and cells of the columns; scikit-learn sets or checks the attributes of `holder`."""
    return _frame_columns(X, holder, reset) if hasattr(X, "columns") else _array_columns(X, holder, reset)


def _table_texts(names, cells, text_template, is_plain: bool | None) -> list[str]:
    """Convert rows to texts; with ``is_plain=None`` (zero-shot), each cell of a single column decides by its type."""
    rows = list(zip(*cells, strict=True))
    if text_template is not None:
        texts = fill_template(text_template, names, rows)
    elif len(cells) == 1 and is_plain:
        return check_texts(cells[0], _TABLE_HINT)
    elif len(cells) == 1 and is_plain is None:
        texts = check_texts([_own_text(value, row, names[0]) for row, value in enumerate(cells[0])])
    else:
        texts = [_row_text(values, row, names) for row, values in enumerate(rows)]
    check_encodable(texts, "X")
    return texts


def _own_text(value, row: int, name: str):
    """Convert the single cell of a row to text; missing ones are kept, for the check."""
    return value if isinstance(value, str) or is_missing(value) else _row_text((value,), row, [name])


def _row_text(values, row: int, names) -> str:
    pieces = zip(names, values, strict=True)
    return " ".join(f"{name}: {cell_text(value, row, name)}" for name, value in pieces if not is_missing(value))


def _frame_columns(frame, holder, reset: bool) -> tuple[list[str], list[list]]:
    """Return names and cells of a DataFrame, with the cells unchanged."""
    # Only the header, in pandas: how scikit-learn reads that of polars depends on its version.
    header = list(frame.columns)
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise ValueError(f"X has more than one column named {repeated}; rename or drop them.")
    validate_data(holder, pd.DataFrame(columns=header), reset=reset, skip_check_array=True)
    for axis, what in enumerate(("sample(s)", "feature(s)")):
        if frame.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {what} (shape={tuple(frame.shape)}) while a minimum of 1 is required by "
                f"{type(holder).__name__}."
            )
    columns = [frame[name] for name in header]
    if not all(hasattr(column, "to_list") for column in columns):
        raise TypeError(f"X must be {_EXPECTED}, got {type(frame).__name__}; convert it to a pandas.DataFrame.")
    named = all(isinstance(name, str) for name in header)
    return header if named else _numbered(len(columns)), [column.to_list() for column in columns]


def _numbered(n_columns: int) -> list[str]:
    """Return scikit-learn's names for unnamed columns."""
    return [f"x{i}" for i in range(n_columns)]


def _array_columns(X, holder, reset: bool) -> tuple[list[str], list[list]]:
    """Return names x0, x1, ... and cells of an array or a list of rows, after scikit-learn's checks.

    Numbers must be finite. In a table of dtype object, missing cells are left out of the text.
    """
    cells, X = (_rows_as_objects(X), _rows_as_array(X)) if isinstance(X, (list, tuple)) else (None, X)
    finite = getattr(getattr(X, "dtype", None), "kind", None) != "O"
    X = validate_data(holder, X, reset=reset, dtype=None, accept_sparse=False, ensure_all_finite=finite)
    return _numbered(X.shape[1]), [to_values(column) for column in (X if cells is None else cells).T]


def _rows_as_objects(rows) -> np.ndarray:
    """Convert rows to an object array; NumPy would convert numbers among strings to strings."""
    for row, values in enumerate(rows):
        if not isinstance(values, (list, tuple, np.ndarray)):
            raise ValueError(
                f"X is a list of rows, each of which must be a list, got {type(values).__name__} at row {row}."
            )
    lengths = sorted({len(values) for values in rows})
    if len(lengths) > 1:
        raise ValueError(f"The rows of X have different lengths, {lengths}; a table's rows must be equally long.")
    cells = np.empty((len(rows), lengths[0]), dtype=object)
    for row, values in enumerate(rows):
        for column, value in enumerate(to_values(values)):  # one by one: NumPy would unpack a list in a cell
            cells[row, column] = value
    return cells


def _rows_as_array(rows) -> np.ndarray:
    """Convert rows to an array for scikit-learn's checks, numeric if all cells are numbers."""
    only_numbers = all(isinstance(value, numbers.Number) for row in rows for value in row)
    return np.asarray(rows) if only_numbers else _rows_as_objects(rows)
