"""Samples of long lists of parameters for `make test`; `make test-full` runs all."""

import pytest


def sampled(cases, number: int) -> list:
    """Mark all cases as slow, except for `number` of them at equal distances."""
    cases = list(cases)
    chosen = {round(i * (len(cases) - 1) / (number - 1)) for i in range(number)}
    return [case if i in chosen else _slow(case) for i, case in enumerate(cases)]


def _slow(case):
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.full)
