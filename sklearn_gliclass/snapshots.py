"""Methods that see the attributes of one fit, while another thread may fit the estimator anew."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def take_snapshot(estimator):
    """Return an object with the attributes of an estimator, which keeps them when a fit replaces those of the latter.

    Attributes that are set on either of them before are those of both.
    """
    snapshot = object.__new__(type(estimator))
    snapshot.__dict__ = vars(estimator)
    return snapshot


def on_snapshot(method: Method) -> Method:
    """Decorate a method that reads several attributes, so that all of them are those at the time of the call."""

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        return method(take_snapshot(self), *args, **kwargs)

    return cast("Method", wrapped)
