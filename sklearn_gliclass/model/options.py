"""Lookup of named options (scorers, poolings, losses, architectures)."""

from collections.abc import Mapping
from typing import TypeVar

Option = TypeVar("Option")


def resolve(options: Mapping[str, Option], name: str, kind: str) -> Option:
    """Return ``options[name]``, or raise a ``ValueError`` that lists the choices.

    Examples
    --------
    >>> resolve({"avg": 1, "max": 2}, "mean", "pooling_strategy")
    Traceback (most recent call last):
    ...
    ValueError: Unknown pooling_strategy 'mean'; choose from 'avg', 'max'.
    """
    if name not in options:
        choices = ", ".join(repr(option) for option in sorted(options))
        raise ValueError(f"Unknown {kind} {name!r}; choose from {choices}.")
    return options[name]
