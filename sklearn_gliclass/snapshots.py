"""Methods that see the attributes of one fit, while another thread may fit the estimator anew."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def take_snapshot(estimator, **attributes):
    """Return an estimator with the present hyperparameters and fitted attributes of another one.

    Parameters
    ----------
    estimator : BaseGLiClass
        Estimator whose attributes are taken; they are not copied.
    **attributes
        Attributes that differ.
    """
    snapshot = object.__new__(type(estimator))
    vars(snapshot).update(vars(estimator), **attributes)
    return snapshot


def on_snapshot(method: Method) -> Method:
    """Decorate a method that reads several attributes, so that all of them are those at the time of the call."""

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        return method(take_snapshot(self), *args, **kwargs)

    return wrapped
