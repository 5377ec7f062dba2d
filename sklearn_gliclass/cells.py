"""Conversion of table cells to text."""

import decimal
import math
import numbers

import numpy as np

_TEXT_TYPES = (str, numbers.Number, np.datetime64, np.timedelta64)
_LARGEST_WHOLE = 1e15  # whole numbers up to here are written without an exponent


def cell_text(value, row: int, name: str) -> str:
    """Convert a non-missing cell to text: whole numbers without a decimal point, others with six digits.

    Parameters
    ----------
    value : str, number, bool, date or duration
        The cell.
    row : int
        Its row, for error messages.
    name : str
        Its column, for error messages.

    Examples
    --------
    >>> [cell_text(value, 0, "x") for value in ("a", 2.0, 1 / 3, True)]
    ['a', '2', '0.333333', 'true']
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, (numbers.Real, decimal.Decimal)) and math.isinf(value):
        raise ValueError(
            f"Input X contains infinity, in the column {name!r} at row {row}; replace it by a number, or by None "
            "if the cell is missing."
        )
    if isinstance(value, numbers.Real):
        value = float(value)
        whole = value.is_integer() and abs(value) < _LARGEST_WHOLE
        return str(int(value)) if whole else format(value, ".6g")
    if isinstance(value, numbers.Complex):
        raise ValueError(f"Complex data not supported: {value!r}, in the column {name!r} at row {row}.")
    if isinstance(value, _TEXT_TYPES) or hasattr(value, "isoformat"):
        return str(value)
    raise TypeError(
        f"A cell of a table must be a string, a number, a date or missing, got {type(value).__name__}: argument "
        f"must be a string or a number, in the column {name!r} at row {row}. Convert such columns to strings first."
    )
