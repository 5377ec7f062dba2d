"""Helpers for tests that depend on the versions of libraries."""

import numpy as np
import pytest
import sklearn
from sklearn.utils.fixes import parse_version

HAS_STRING_DTYPE = hasattr(np.dtypes, "StringDType")  # NumPy 2


def string_array(values, **options) -> np.ndarray:
    """Return an array of NumPy's type of strings; skip the test where NumPy has none."""
    if not HAS_STRING_DTYPE:
        pytest.skip("needs the StringDType of NumPy 2")
    return np.array(values, dtype=np.dtypes.StringDType(**options))


def is_scikit_learn_older_than(version: str) -> bool:
    """Return whether scikit-learn has not yet what a test needs."""
    return parse_version(sklearn.__version__) < parse_version(version)
