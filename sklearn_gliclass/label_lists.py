"""Targets that are lists of labels: how they are recognised, and their indicator matrix."""

import numbers
from collections.abc import Hashable, Mapping, Set

import numpy as np
import scipy.sparse as sp
from sklearn.utils.multiclass import check_classification_targets

from .class_values import check_kinds, class_keys, is_numeric_text
from .containers import EXPECTED_CLASSES, as_container, to_values
from .text_checks import is_missing, missing_rows, show_rows

_SCALARS = {str, int, float, bool, type(None)}
_HOW = "give each row a list of labels, [] where none holds"


def read_label_lists(y) -> list[list] | None:
    """Return the labels of each row of y, or None if y is not lists of labels.

    Parameters
    ----------
    y : array-like
        Lists, tuples, sets or arrays of labels, in a list, an object array, a Series or a table of one column. Rows of
        numbers that are equally long are the rows of a matrix; sets are always labels.

    Raises
    ------
    ValueError
        If lists or labels are missing, or rows or labels are of different kinds.

    Examples
    --------
    >>> read_label_lists([["billing", "refund"], [], ("praise",)])
    [['billing', 'refund'], [], ['praise']]
    >>> read_label_lists([[0, 1], [1, 0]]) is None
    True
    >>> read_label_lists([{0, 1}, {1}])
    [[0, 1], [1]]
    """
    rows = one_column(y)
    if rows is None or _SCALARS.issuperset(map(type, rows)):
        return None
    for row, value in enumerate(rows):
        if isinstance(value, Mapping):
            raise ValueError(f"y holds a {type(value).__name__} at row {row}; {_HOW}.")
    if not any(map(_is_list, rows)) or _is_matrix(rows):
        return None
    _check_rows(rows)
    labels = [_labels_of(value, row) for row, value in enumerate(rows)]
    _check_no_text_matrix(labels, rows)
    return labels


def encode_label_lists(rows: list[list]) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, sorted, and the indicator matrix (n_rows, n_classes) of lists of labels.

    Examples
    --------
    >>> encode_label_lists([["sea", "food"], [], ["sea"]])
    (array(['food', 'sea'], dtype='<U4'), array([[1., 1.],
           [0., 0.],
           [0., 1.]], dtype=float32))
    """
    values = [label for labels in rows for label in labels]
    if not values:
        raise ValueError(
            f"y has no label: all of its {len(rows)} lists are empty; give samples of at least 2 labels, or call "
            "fit(None, labels) for zero-shot classification."
        )
    check_kinds(values, "y")
    array = np.asarray(values)
    if array.dtype.kind == "f":
        check_classification_targets(array)  # raises for continuous values
    classes = np.unique(array)
    return classes, label_indicator(rows, classes)


def label_indicator(rows: list[list], classes: np.ndarray, others: bool = False) -> np.ndarray:
    """Return the indicator matrix (n_rows, n_classes) of lists of labels for known classes.

    Parameters
    ----------
    rows : list of list
        The labels of each row.
    classes : ndarray of shape (n_classes,)
        The classes, in the order of the columns.
    others : bool, default=False
        Whether a further column marks rows with labels that are no classes. If False, such labels raise.

    Examples
    --------
    >>> label_indicator([["food", "art"], []], np.array(["sea", "food"]), others=True)
    array([[0., 1., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    keys = class_keys(classes)
    column = {key: index for index, key in enumerate(keys)}
    unknown = sorted({label for labels in rows for label in labels if label not in column}, key=str)
    if unknown and not others:
        raise ValueError(f"y has labels that are not among the classes {keys!r}: {unknown!r}.")
    indicator = np.zeros((len(rows), len(keys) + others), np.float32)
    columns = [column.get(label, len(keys)) for labels in rows for label in labels]
    indicator[np.repeat(np.arange(len(rows)), list(map(len, rows))), columns] = 1
    return indicator


def one_column(y) -> list | None:
    """Return the values of a 1-D y or of a single column; None for other shapes."""
    if y is None or sp.issparse(y):
        return None
    y = as_container(y, "y", EXPECTED_CLASSES)
    if hasattr(y, "columns"):
        columns = list(y.columns)
        return y[columns[0]].to_list() if len(columns) == 1 else None
    if isinstance(y, np.ndarray):
        is_column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
        return to_values(y.ravel()) if y.dtype.kind == "O" and is_column else None
    return to_values(y)


def _is_list(value) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, (list, tuple, Set)) or hasattr(value, "to_list")


def _is_matrix(rows: list) -> bool:
    """Return whether the rows are those of a matrix of numbers: equally long, and not sets."""
    if not all(_is_list(row) and not isinstance(row, Set) for row in rows):
        return False
    if len({len(row) for row in rows}) != 1 or len(rows[0]) == 0:
        return False
    # A matrix of more than two dimensions has its own error.
    return all(
        isinstance(value, numbers.Number) or is_missing(value) or _is_list(value) for row in rows for value in row
    )


def _check_rows(rows: list) -> None:
    missing = missing_rows(rows)
    if missing:
        raise ValueError(
            f"Input y contains NaN: {len(missing)} missing list(s) of labels, at row(s) {show_rows(missing)}; drop "
            "these rows, or give [] where no label holds."
        )
    for row, value in enumerate(rows):
        if not _is_list(value):
            raise ValueError(f"y has lists of labels, but a {type(value).__name__} at row {row}, {value!r}; {_HOW}.")


def _labels_of(values, row: int) -> list:
    """Return the distinct labels of a row, in their order."""
    labels = list(values) if isinstance(values, Set) else to_values(values)
    missing = missing_rows(labels)
    if missing:
        raise ValueError(f"Input y contains NaN: the labels of row {row} have a missing value; drop it from the list.")
    for label in labels:
        if not isinstance(label, Hashable) or _is_list(label):
            raise ValueError(
                f"y has a {type(label).__name__} among the labels of row {row}; labels are strings or numbers."
            )
    return list(dict.fromkeys(labels))


def _check_no_text_matrix(labels: list[list], rows: list) -> None:
    """Raise for a matrix of 0 and 1 that was read as strings, such as from a file."""
    lengths = {-1 if isinstance(row, Set) else len(row) for row in rows}
    if len(lengths) != 1 or min(lengths) < 2:
        return
    if all(isinstance(label, str) and is_numeric_text(label) for row in labels for label in row):
        raise ValueError(
            "y has rows of numbers as strings, which are equally long; values that are not numbers are labels. Convert "
            "them to numbers if y is an indicator matrix, and the rows to sets if they are labels."
        )
