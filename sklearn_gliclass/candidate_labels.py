"""Targets that are dicts: each text has candidate labels of its own."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from .class_values import check_kinds, class_array, class_keys
from .label_lists import one_column
from .text_checks import is_missing, missing_rows, show_rows

_HOW = "Give each row a dict {label: 0, 1 or a probability} of the labels that it can have"


def read_candidates(y) -> list[dict] | None:
    """Return the candidate labels of each row of y with their values, or None if y is not dicts.

    Parameters
    ----------
    y : array-like
        Dicts ``{label: value}`` in a list, an object array, a Series or a table of one column.

    Raises
    ------
    TypeError
        If some rows are dicts and others are not, or labels or values are of wrong types.
    ValueError
        If a row is missing or has no label, or a value is not in [0, 1].

    Examples
    --------
    >>> read_candidates([{"sports": 1, "politics": 0}, {"angry": 0.5}])
    [{'sports': 1.0, 'politics': 0.0}, {'angry': 0.5}]
    >>> read_candidates(["sports", "politics"]) is None
    True
    """
    rows = one_column(y)
    if rows is None or not any(issubclass(kind, Mapping) for kind in set(map(type, rows))):
        return None
    missing = missing_rows(rows)
    if missing:
        raise ValueError(
            f"Input y contains NaN: {len(missing)} missing dict(s) of labels, at row(s) {show_rows(missing)}; drop "
            "these rows."
        )
    return [_read_row(row, number) for number, row in enumerate(rows)]


def _read_row(labels, number: int) -> dict:
    if not isinstance(labels, Mapping):
        raise TypeError(f"y has dicts of labels, but a {type(labels).__name__} at row {number}, {labels!r}. {_HOW}.")
    if not labels:
        raise ValueError(f"y has an empty dict at row {number}, which offers no label. {_HOW}.")
    for label, value in labels.items():
        if is_missing(label):
            raise ValueError(f"y has the label {label!r} at row {number}; labels are strings or numbers.")
        if not isinstance(value, (Real, np.bool_)):
            raise TypeError(f"y has the value {value!r} for the label {label!r} at row {number}. {_HOW}.")
        if not 0 <= float(value) <= 1:
            raise ValueError(
                f"y has the value {value!r} for the label {label!r} at row {number}, not in [0, 1]. {_HOW}."
            )
    return {label: float(value) for label, value in labels.items()}


def encode_candidates(rows: list[dict], not_offered: float, classes=None) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, sorted unless given, and the targets (n_rows, n_classes) of candidate labels.

    Parameters
    ----------
    rows : list of dict
        Values of the candidate labels of each row.
    not_offered : float
        Target of the labels that a row does not offer.
    classes : ndarray of shape (n_classes,), optional
        Known classes; other labels raise.

    Examples
    --------
    >>> encode_candidates([{"sea": 1.0, "food": 0.0}, {"art": 1.0}], not_offered=-1.0)
    (array(['art', 'food', 'sea'], dtype='<U4'), array([[-1.,  0.,  1.],
           [ 1., -1., -1.]], dtype=float32))
    """
    values = list(dict.fromkeys(label for row in rows for label in row))
    if classes is None:
        check_kinds(values, "y")
        classes = np.unique(class_array(values))
    keys = class_keys(classes)
    column = {key: index for index, key in enumerate(keys)}
    unknown = [label for label in values if label not in column]
    if unknown:
        raise ValueError(f"y has labels that are not among the classes {keys!r}: {unknown!r}.")
    targets = np.full((len(rows), len(keys)), not_offered, np.float32)
    for target, row in zip(targets, rows, strict=True):
        target[[column[label] for label in row]] = list(row.values())
    return classes, targets


def check_exclusive(rows: list[dict]) -> None:
    """Raise unless the values of each row sum to 1, and each row has two labels or more."""
    for number, row in enumerate(rows):
        total = sum(row.values())
        if len(row) < 2 or not np.isclose(total, 1, atol=1e-3):
            found = f"the sum {total:g}" if len(row) > 1 else "only one label"
            raise ValueError(
                f"y has {found} at row {number}, {row!r}: with problem_type='single_label_classification' one of the "
                "labels of each row holds, and the values sum to 1. Leave problem_type=None for labels that hold "
                "independently of each other."
            )
