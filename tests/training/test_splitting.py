"""The split of early stopping against that of scikit-learn."""

import re

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from sklearn_gliclass.training.splitting import split_rows


def can_split(n_rows, classes, fraction):
    try:
        train_test_split(np.arange(n_rows), test_size=fraction, stratify=classes)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("n_rows", [1, 2, 3, 5, 8, 13, 24, 40])
def test_split_raises_only_where_scikit_learn_cannot_split(n_rows):
    """The fraction in the message can be split."""
    for n_classes in (None, *range(2, n_rows + 1)):
        classes = None if n_classes is None else np.arange(n_rows) % n_classes
        names = [f"class {i}" for i in range(n_classes or 0)]
        for fraction in (0.01, 0.1, 0.25, 0.5, 0.7, 0.99):
            if can_split(n_rows, classes, fraction):
                rows, valid_rows = split_rows(n_rows, fraction, 0, classes, names)
                assert sorted([*rows, *valid_rows]) == list(range(n_rows))
                continue
            with pytest.raises(ValueError, match="early_stopping=True") as caught:
                split_rows(n_rows, fraction, 0, classes, names)
            hint = re.search(r"(to at least|below) ([\d.]+), or", str(caught.value))
            if hint:
                share = float(hint[2]) - (1e-6 if hint[1] == "below" else 0.0)
                assert can_split(n_rows, classes, share), caught.value
