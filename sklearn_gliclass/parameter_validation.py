"""Validation of hyperparameters and sample weights, for versions of scikit-learn without its private functions.

`sklearn_internals` chooses between both implementations, which accept and reject the same values.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import sklearn
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

_LARGEST_SEED = 2**32 - 1


class InvalidParameterError(ValueError, TypeError):
    """Hyperparameter with a value or type that its constraints exclude."""


@dataclass(frozen=True)
class Options:
    """Values of a type that are in a set."""

    type: type
    options: set

    def accepts(self, value) -> bool:
        return isinstance(value, self.type) and value in self.options

    def __str__(self) -> str:
        return f"one of {sorted(self.options, key=repr)!r}"


def StrOptions(options: set) -> Options:  # noqa: N802 -- named like the class of scikit-learn
    """Return the constraint of strings that are in a set."""
    return Options(str, options)


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends, of which None is infinite; `closed` names the ends that belong to the interval."""

    type: type
    left: float | None
    right: float | None
    closed: str

    def accepts(self, value) -> bool:
        if not isinstance(value, self.type):
            return False
        left, right = -np.inf if self.left is None else self.left, np.inf if self.right is None else self.right
        is_above = value >= left if self.closed in ("left", "both") else value > left
        return bool(is_above and (value <= right if self.closed in ("right", "both") else value < right))

    def __str__(self) -> str:
        left = "(" if self.left is None or self.closed in ("right", "neither") else "["
        right = ")" if self.right is None or self.closed in ("left", "neither") else "]"
        kind = "an int" if self.type is Integral else "a float"
        return f"{kind} in the range {left}{self.left}, {self.right}{right}"


@dataclass(frozen=True)
class HasMethods:
    """Objects that have a method."""

    method: str

    def accepts(self, value) -> bool:
        return callable(getattr(value, self.method, None))

    def __str__(self) -> str:
        return f"an object with the method {self.method!r}"


def _is_array_like(value) -> bool:
    has_length = any(hasattr(value, name) for name in ("__len__", "shape", "__array__"))
    return has_length and not issparse(value) and not np.isscalar(value)


def _is_boolean(value) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_seed(value) -> bool:
    is_integer = isinstance(value, Integral) and 0 <= int(value) <= _LARGEST_SEED
    return value is None or is_integer or isinstance(value, np.random.RandomState)


def _is_verbosity(value) -> bool:
    return _is_boolean(value) or (isinstance(value, Integral) and int(value) >= 0)


_NAMED = {
    "array-like": (_is_array_like, "an array-like"),
    "boolean": (_is_boolean, "a bool"),
    "random_state": (_is_seed, "an int from 0, a RandomState or None"),
    "verbose": (_is_verbosity, "a bool or an int from 0"),
}


def _accepts(constraint, value) -> bool:
    if constraint is None:
        return value is None
    if constraint is callable:
        return callable(value)
    if isinstance(constraint, str):
        return _NAMED[constraint][0](value)
    return isinstance(value, constraint) if isinstance(constraint, type) else constraint.accepts(value)


def _describe(constraint) -> str:
    if constraint is callable:
        return "a callable"
    if isinstance(constraint, str):
        return _NAMED[constraint][1]
    return f"an instance of {constraint.__name__}" if isinstance(constraint, type) else str(constraint)


def validate_parameter_constraints(constraints: Mapping[str, Iterable], values: Mapping, caller_name: str) -> None:
    """Raise an error for the first value that satisfies none of its constraints.

    Parameters
    ----------
    constraints : mapping of str to iterable
        Constraints by the name of a parameter; parameters without an entry are not checked.
    values : mapping of str to object
        Values by the name of a parameter.
    caller_name : str
        Owner of the parameters, for the error message.

    Raises
    ------
    InvalidParameterError
        If a value satisfies none of its constraints; it is a ``ValueError`` and a ``TypeError``.
    """
    for name, value in values.items():
        allowed = constraints.get(name)
        if allowed is not None and not any(_accepts(constraint, value) for constraint in allowed):
            raise InvalidParameterError(
                f"The {name!r} parameter of {caller_name} must be {' or '.join(map(_describe, allowed))}. "
                f"Got {value!r} instead."
            )


def fit_context(*, prefer_skip_nested_validation: bool) -> Callable:
    """Return a decorator of `fit` and `partial_fit` that validates the hyperparameters first."""

    def decorate(method):
        @functools.wraps(method)
        def validated(estimator, *args, **kwargs):
            skips = sklearn.get_config()["skip_parameter_validation"]
            if not skips and not (method.__name__ == "partial_fit" and _is_fitted(estimator)):
                values = estimator.get_params(deep=False)
                validate_parameter_constraints(estimator._parameter_constraints, values, type(estimator).__name__)
            with sklearn.config_context(skip_parameter_validation=prefer_skip_nested_validation or skips):
                return method(estimator, *args, **kwargs)

        return validated

    return decorate


def _is_fitted(estimator) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def check_sample_weight(sample_weight: ArrayLike | None, X: ArrayLike, *, ensure_non_negative: bool) -> np.ndarray:
    """Check sample weights, and return them as an array.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        Weights; one number is the weight of all samples, and None is 1.
    X : array-like of shape (n_samples, n_features)
        Data whose number of rows the weights must have.
    ensure_non_negative : bool
        Whether negative weights raise.

    Returns
    -------
    ndarray of shape (n_samples,)
        Weights, in float64 unless they have another floating point type.

    Raises
    ------
    ValueError
        If the weights are not finite, have another shape, or are negative.
    """
    n_samples = len(np.asarray(X))
    if sample_weight is None or isinstance(sample_weight, Real):
        weights = np.full(n_samples, 1.0 if sample_weight is None else float(sample_weight))
    else:
        types: Any = [np.float64, np.float32]  # scikit-learn declares a single one
        weights = check_array(sample_weight, ensure_2d=False, dtype=types, order="C", input_name="sample_weight")
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight.shape == {weights.shape}, expected {(n_samples,)}: give one weight per sample."
        )
    if ensure_non_negative and (weights < 0).any():
        raise ValueError("Negative values in sample_weight; give weights of 0 or more.")
    return weights
