"""Values of estimator.json: a lossless round trip for any user dicts."""

import enum
import json

import numpy as np
import pandas as pd
import pytest

from sklearn_gliclass.json_values import TAG, decode, encode


def stored(value):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


def assert_same(found, value):
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        for left, right in zip(found.ravel().tolist(), value.ravel().tolist(), strict=True):
            assert_same(left, right)
    elif isinstance(value, (list, tuple)):
        assert len(found) == len(value)
        for left, right in zip(found, value, strict=True):
            assert_same(left, right)
    elif isinstance(value, dict):
        assert_same(list(found.items()), list(value.items()))
    else:
        assert found == value or (found != found and value != value)


VALUES = [
    None, True, 0, -(10**30), 0.1, float("nan"), float("inf"), -float("inf"), "", "é\0\ud800", b"", b"\xff\0",
    [], (), {}, set(), [1, [2, (3, {"a": (None,)})]], {1, 2}, frozenset({"a"}),
    # Dicts that look like tags, of this version and of the one before.
    {"items": 3.0}, {"items": [[1, 2]]}, {"array": [1], "dtype": "<i8"}, {"RLTrainerConfig": {}}, {TAG: "dict"},
    {TAG: "array", "dtype": "<i8", "shape": [1], "values": [1]}, {"a": {TAG: {TAG: 1}}},
    {1: "a", "1": "b", False: "c"}, {None: 1}, {(1, "a"): 2.0}, {np.int64(3): np.float32(0.1)}, {b"k": 1},
    np.float64(0.5), np.float32("nan"), np.int8(-3), np.bool_(True), np.str_("a"), np.datetime64("2024-01-02"),
    np.array([]), np.array(3.0), np.zeros((0, 2)), np.eye(2), np.array([np.nan, np.inf]), np.array([1, 2], ">i4"),
    np.array([True, False]), np.array(["a", "bc"]), np.array(["a"], "<U100"), np.array([b"a", b"bc"]),
    np.array([1.5], np.float16), np.array(["2024-01-02", "NaT"], "datetime64[ns]"), np.array([3], "m8[s]"),
    np.array([1, "a", None, 2.5, True, b"x", (1, 2), [3], {"items": 1}, np.int32(1)], object),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_values_round_trip(value):
    assert_same(stored(value), value)
    assert_same(stored({"nested": [value]}), {"nested": [value]})


class Colour(str, enum.Enum):
    RED = "red"


ITSELF = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    "value",
    [
        object(), len, Colour.RED, 1j, pd.Series([1]), np.random.RandomState(0), ITSELF, np.array([1j]),
        np.ma.array([1, 2], mask=[0, 1]), np.zeros(2, [("a", int)]), np.array([object()], object), {"a": {1: len}},
        type("Text", (str,), {})("a"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_without_json_form_raise(value):
    with pytest.raises(TypeError, match="no JSON form"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [
        {TAG: "unknown"}, {TAG: "float", "value": "1"}, {TAG: "array"}, {TAG: ["array"]}, {TAG: None},
        {TAG: "array", "dtype": "<i8", "shape": [3], "values": [1]},
        {TAG: "array", "dtype": "nonsense", "shape": [1], "values": [1]},
        {TAG: "array", "dtype": "<U999999999", "shape": [1], "values": ["a"]},
        {TAG: "array", "dtype": "|V8", "shape": [1], "values": [1]},
        {TAG: "array", "dtype": "<i8", "shape": [1], "values": ["a"]},
        {TAG: "dict", "items": [[[], 1]]}, {TAG: "dict", "items": 3}, {TAG: "bytes", "value": "?"},
        {TAG: "tuple", "items": [], "more": 1}, {TAG: "array", "dtype": "<i1", "shape": [1], "values": [1000]},
    ],
    ids=repr,
)  # fmt: skip
def test_decode_of_unknown_values_raises(value):
    with pytest.raises(ValueError):  # noqa: PT011
        decode({"deep": [value]})
