"""Checks of texts and other single values, with NumPy alone."""

import numbers
from collections.abc import Sequence

import numpy as np

ROWS_SHOWN = 5  # number of rows that an error message lists
_MISSING_TYPES = ("NAType", "NaTType", "MaskedConstant")


def is_missing(value) -> bool:
    """Return whether a value is None, NaN, NaT, pandas' NA or masked."""
    if value is None:
        return True
    if isinstance(value, str):
        return False
    if type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, (numbers.Number, np.datetime64, np.timedelta64)) and bool(value != value)


def missing_rows(values: Sequence) -> list[int]:
    """Return the positions of missing values."""
    return [row for row, value in enumerate(values) if is_missing(value)]


def show_rows(rows: Sequence[int] | np.ndarray) -> str:
    """Format the first rows of a list for a message.

    Examples
    --------
    >>> show_rows([3, 7])
    '3, 7'
    """
    shown = ", ".join(map(str, rows[:ROWS_SHOWN]))
    return f"{shown}, ..." if len(rows) > ROWS_SHOWN else shown


def check_encodable(texts: Sequence[str], name: str, unit: str = "row") -> None:
    """Raise if a text has a lone surrogate (half of a character), which tokenizers cannot encode."""
    for position, text in enumerate(texts):
        if text.isascii():  # constant time
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = text[error.start]
            raise ValueError(
                f"{name} has a lone surrogate ({found!r}, half of a character) at {unit} {position}, which is not "
                "valid Unicode. Replace it, for example with "
                'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").'
            ) from None


def check_texts(values: Sequence, hint: str = "") -> list[str]:
    """Return the texts of a 1-D X as ``str``.

    Parameters
    ----------
    values : sequence
        The texts.
    hint : str, default=""
        End of the error message for other values than texts.

    Raises
    ------
    ValueError
        If a text is missing or has a lone surrogate.
    TypeError
        If a value is not a text.
    """
    missing = missing_rows(values)
    if missing:
        raise ValueError(
            f"X has {len(missing)} missing text(s) (None or NaN), at row(s) {show_rows(missing)}; drop these rows or "
            'replace them, for example with the empty text "".'
        )
    for row, value in enumerate(values):
        if not isinstance(value, str):
            what = type(value).__name__
            raise TypeError(f"X must hold texts (str), got {what} at row {row}; convert it to str.{hint}")
    texts = [str(value) for value in values]  # str subclasses of NumPy become str
    check_encodable(texts, "X")
    return texts
