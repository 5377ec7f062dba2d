"""Lossless conversion of Python and NumPy values to JSON and back.

A value whose type JSON does not have becomes an object with the key :data:`TAG`. A dict that has this key, or a key
that is not a string, is stored in such a tagged form too, so that the conversion is unambiguous.
"""

import base64
import math
from typing import Any

import numpy as np

TAG = "__type__"
_MAX_ITEM_BYTES = 2**20  # per array element: a file must not make NumPy allocate more than its own size


def encode(value):
    """Convert a value to types of JSON.

    Parameters
    ----------
    value : object
        None, bool, int, float, str, bytes, list, tuple, set, frozenset, dict, NumPy arrays and scalars, nested to
        any depth.

    Raises
    ------
    TypeError
        If it contains a value of another type.

    Examples
    --------
    >>> encode({"a": (1, float("inf"))})
    {'a': {'__type__': 'tuple', 'items': [1, {'__type__': 'float', 'value': 'inf'}]}}
    >>> decode(encode({1: {"__type__": "float"}}))
    {1: {'__type__': 'float'}}
    """
    try:
        return _encode(value)
    except RecursionError:
        raise TypeError("a value that contains itself, or is nested too deeply, has no JSON form") from None


def decode(value) -> Any:
    """Convert a value back that :func:`encode` converted.

    Raises
    ------
    ValueError
        If :func:`encode` does not write such values.
    """
    try:
        return _decode(value)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a stored value: {type(error).__name__}: {error}") from error


def _encode(value):
    if isinstance(value, np.ndarray):
        return _encode_array(value)
    if isinstance(value, np.generic):
        return {**_encode_array(np.asarray(value)), TAG: "scalar"}
    # Exact types only: enums and subclasses would be restored as their base type.
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}
    if type(value) is bytes:
        return {TAG: "bytes", "value": base64.b64encode(value).decode("ascii")}
    if type(value) is list:
        return [_encode(item) for item in value]
    if type(value) in _SEQUENCES:
        return {TAG: type(value).__name__, "items": [_encode(item) for item in value]}
    if type(value) is dict:
        if all(type(key) is str for key in value) and TAG not in value:
            return {key: _encode(item) for key, item in value.items()}
        return {TAG: "dict", "items": [[_encode(key), _encode(item)] for key, item in value.items()]}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _encode_array(array: np.ndarray) -> dict:
    dtype = array.dtype
    plain = dtype.kind in "biuUSO" or (dtype.kind == "f" and dtype.itemsize <= 8)
    if isinstance(array, np.ma.MaskedArray) or not (plain or dtype.kind in "Mm"):
        raise TypeError(f"an array of dtype {dtype} has no JSON form")
    flat = np.asarray(array).ravel()
    values = flat.tolist() if plain else flat.astype(np.int64).tolist()  # dates as integers
    return {TAG: "array", "dtype": dtype.str, "shape": list(array.shape), "values": [_encode(v) for v in values]}


def _decode(value):
    if type(value) is list:
        return [_decode(item) for item in value]
    if type(value) is not dict:
        return value
    if TAG not in value:
        return {key: _decode(item) for key, item in value.items()}
    fields = {key: item for key, item in value.items() if key != TAG}
    return _DECODERS[value[TAG]](**fields)


def _decode_array(dtype, shape: list, values: list) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufUSOMm" or not 0 <= dtype.itemsize <= _MAX_ITEM_BYTES:
        raise ValueError(f"an array of dtype {dtype} is not stored")
    array = np.empty(len(values), np.int64 if dtype.kind in "Mm" else dtype)
    items = [_decode(item) for item in values]
    for place, item in enumerate(items):  # one by one: an element of an object array may be a list
        array[place] = item
    if dtype.kind in "iu" and array.tolist() != items:  # NumPy 1 wraps integers that are too large
        raise ValueError(f"the values of an array do not fit its dtype {dtype}")
    return array.astype(dtype, copy=False).reshape(shape)


_SEQUENCES = (tuple, set, frozenset)
_DECODERS = {
    "float": lambda value: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value],
    "bytes": lambda value: base64.b64decode(value, validate=True),
    "dict": lambda items: {_decode(key): _decode(item) for key, item in items},
    "array": _decode_array,
    "scalar": lambda **fields: _decode_array(**fields)[()],
    **{kind.__name__: (lambda items, kind=kind: kind(_decode(item) for item in items)) for kind in _SEQUENCES},
}
