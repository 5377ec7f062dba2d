"""Private functions of scikit-learn, in one module; own implementations replace them in versions without them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .annotations import Method

try:
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils._param_validation import (
        HasMethods,
        Interval,
        Options,
        StrOptions,
        validate_parameter_constraints,
    )
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
except ImportError:
    from .parameter_validation import (
        HasMethods,
        Interval,
        Options,
        StrOptions,
        check_sample_weight,
        fit_context,
        validate_parameter_constraints,
    )

if TYPE_CHECKING:  # scikit-learn's decorator has no types

    def fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]: ...


__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "check_sample_weight",
    "fit_context",
    "validate_parameter_constraints",
]
