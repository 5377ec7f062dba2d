"""Split into training and validation rows."""

import math

import numpy as np
from sklearn.model_selection import train_test_split


def split_rows(n_rows: int, fraction: float, seed: int, stratify=None, class_names=()) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into a training set and a validation set.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    fraction : float
        Fraction of the rows in the validation set.
    seed : int
        Seed of the split.
    stratify : ndarray of shape (n_rows,), optional
        Class index of each row, for a split with rows of each class in both sets.
    class_names : sequence of str, optional
        Names of the classes, for the error messages.

    Returns
    -------
    train, valid : ndarray
        Row numbers, ascending.

    Raises
    ------
    ValueError
        If a set would have too few rows; the message names the possible fractions.
    """
    _check_split(n_rows, fraction, stratify, class_names)
    rows, valid_rows = train_test_split(np.arange(n_rows), test_size=fraction, stratify=stratify, random_state=seed)
    return np.sort(rows), np.sort(valid_rows)


def _check_split(n_rows: int, fraction: float, stratify, class_names) -> None:
    counts = np.array([n_rows]) if stratify is None else np.bincount(stratify)
    n_groups, of_each = np.count_nonzero(counts), "" if stratify is None else " of each class"
    if (counts == 1).any():
        classes = f" of {[class_names[i] for i in np.flatnonzero(counts == 1)]}" if of_each else ""
        raise ValueError(
            f"early_stopping=True needs 2 rows{of_each} or more, for the training and the validation set, got only "
            f"1 row{classes}; give more rows, or set early_stopping=False."
        )
    n_valid = math.ceil(fraction * n_rows)
    if n_groups <= n_valid <= n_rows - n_groups:
        return
    share = math.ceil(1000 * n_groups / n_rows) / 1000
    hint = f"raise it to at least {share:g}" if n_valid < n_groups else f"lower it below {1 - share:g}"
    raise ValueError(
        f"early_stopping=True with validation_fraction={fraction!r} validates on {n_valid} of {n_rows} rows and trains "
        f"on {n_rows - n_valid}, and each set needs {n_groups} or more{of_each and ', one' + of_each}; {hint}, or "
        "set early_stopping=False."
    )
