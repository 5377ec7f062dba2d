"""Classes, and the values that users give for each of them (texts, weights, thresholds)."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from .containers import as_container, column_names, has_default_index, is_finite, to_values


def class_keys(classes) -> list:
    """Return the classes as Python values, for use as dictionary keys."""
    return to_values(classes)


_HICLASS_SEPARATOR = "::HiClass::Separator::"  # between the levels of a class, in the local classifiers of HiClass


def class_text(value) -> str:
    """Return the text that the model reads for a class without a text of its own.

    Examples
    --------
    >>> class_text(3), class_text("Animals::HiClass::Separator::Cats")
    ('3', 'Animals > Cats')
    """
    return str(value).replace(_HICLASS_SEPARATOR, " > ")


def check_kinds(values: list, name: str) -> None:
    """Raise if there are strings among classes of other types."""
    if len({isinstance(value, str) for value in values}) > 1:
        kinds = sorted({type(value).__name__ for value in values})
        raise ValueError(f"{name} must hold classes of one type, got {kinds}; convert all of them to str.")


def class_array(values: list) -> np.ndarray:
    """Convert classes to an array of their type; NumPy would convert numbers among strings to strings."""
    for kind in (str, (bool, np.bool_), (int, np.integer), (float, np.floating)):
        if all(isinstance(value, kind) for value in values):
            return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?|true|false", re.IGNORECASE)


def is_numeric_text(text: str) -> bool:
    """Return whether a text is a number or a truth value.

    Examples
    --------
    >>> [is_numeric_text(text) for text in ("1", "-2.5", "True", "one")]
    [True, True, True, False]
    """
    return _NUMBER.fullmatch(text) is not None


def align_to_classes(values, classes, name: str, what: str) -> list:
    """Return one value for each class.

    Parameters
    ----------
    values : mapping, Series or array-like of shape (n_classes,)
        The values. A mapping is read by class. A Series is read by its index, or by position if the index is 0, 1, ...
        and these are not classes. Others are read by position.
    classes : array-like of shape (n_classes,)
        Classes, in the order of the result.
    name : str
        Name of the parameter, for error messages.
    what : str
        Name of a value, for error messages.

    Returns
    -------
    list of length n_classes
        The values. Keys that are not classes are ignored.

    Raises
    ------
    ValueError
        If a class has no value, or the number of values differs from that of the classes.
    TypeError
        If `values` has no order.

    Examples
    --------
    >>> align_to_classes({"a": 1, "b": 2, "c": 3}, ["b", "a"], "threshold", "number")
    [2, 1]
    """
    keys = class_keys(classes)
    found = _by_class(values, keys, name)
    if found is None:
        return _by_position(values, keys, name, what)
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"{name} has no {what} for the class(es) {missing!r}; it has {list(found)!r}.")
    return [found[key] for key in keys]


def by_class(values, classes, name: str, what: str) -> dict:
    """Return values for classes as a dict by class.

    Parameters
    ----------
    values : mapping, Series or array-like of shape (n_classes,)
        See :func:`align_to_classes`. A mapping or Series may have further keys, and need not have all classes.
    classes : array-like of shape (n_classes,)
        The classes.
    name, what : str
        Names of the parameter and of a value, for error messages.

    Examples
    --------
    >>> by_class([0.3, 0.6], ["b", "a"], "threshold", "number")
    {'b': 0.3, 'a': 0.6}
    """
    keys = class_keys(classes)
    found = _by_class(values, keys, name)
    return dict(zip(keys, _by_position(values, keys, name, what), strict=True)) if found is None else dict(found)


def by_target(values, targets: list, name: str, what: str) -> dict:
    """Return values for targets as a dict by target.

    Parameters
    ----------
    values : mapping, or list of length n_targets
        The values, by the name of the target or in the order of `targets`. A mapping need not have all targets.
    targets : list
        Names of the targets.
    name, what : str
        Names of the parameter and of a value, for error messages.

    Raises
    ------
    ValueError, TypeError
        If a key is no target, or the number of values is not that of the targets.

    Examples
    --------
    >>> by_target(["a", "b"], ["mood", "topic"], "class_weight", "weight")
    {'mood': 'a', 'topic': 'b'}
    """
    if isinstance(values, Mapping):
        unknown = [key for key in values if key not in targets]
        if unknown:
            raise ValueError(f"{name} has the unknown target(s) {unknown!r}; the targets are {targets!r}.")
        return dict(values)
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"With several targets, {name} must be a dict by target or a list with one {what} for each target, got "
            f"{type(values).__name__}; the targets are {targets!r}."
        )
    if len(values) != len(targets):
        raise ValueError(f"{name} has {len(values)} entries for the {len(targets)} targets {targets!r}; give one each.")
    return dict(zip(targets, values, strict=True))


def _by_class(values, keys: list, name: str) -> Mapping | None:
    """Return the values as a mapping, or None if they are given by position."""
    if isinstance(values, Mapping):
        return values
    if not isinstance(values, pd.Series):
        return None
    repeated = values.index[values.index.duplicated()].unique().to_list()
    if repeated:
        raise ValueError(f"The index of {name} has {repeated!r} more than once; give one value per class.")
    found = dict(zip(values.index.to_list(), values.to_list(), strict=True))
    return None if has_default_index(values) and set(found) != set(keys) else found


def _by_position(values, keys: list, name: str, what: str) -> list:
    values = as_container(values, name, "a dict by class, or a list or Series")
    if hasattr(values, "columns"):
        raise TypeError(f"{name} must be a dict by class, or a list or Series, got {type(values).__name__}.")
    values = to_values(values)
    if len(values) != len(keys):
        raise ValueError(
            f"{name} has {len(values)} {what}s for {len(keys)} labels; give one for each of the {len(keys)} classes, "
            f"in this order: {keys!r}."
        )
    return values


def column_positions(names: list, wanted: list, what: str) -> np.ndarray:
    """Return the position of each wanted column among the columns of y.

    Parameters
    ----------
    names : list
        Columns of y.
    wanted : list
        Columns, in the order of the result.
    what : str
        Name of the wanted columns, for error messages.

    Raises
    ------
    ValueError
        If columns are missing, unknown or repeated.

    Examples
    --------
    >>> column_positions(["sea", "food"], ["food", "sea"], "the classes")
    array([1, 0])
    """
    present, known = set(names), set(wanted)
    missing, unknown = [name for name in wanted if name not in present], [name for name in names if name not in known]
    if missing or unknown or len(names) != len(wanted):
        raise ValueError(
            f"The columns of y must be {what} {wanted!r}, each once; missing: {missing!r}, unknown: {unknown!r}."
        )
    return positions(names, wanted)


def order_columns(y, classes):
    """Return y with its columns in the order of the classes, if their names are the classes; else y itself.

    Examples
    --------
    >>> order_columns(pd.DataFrame({"sea": [0], "food": [1]}), ["food", "sea"])
    array([[1, 0]])
    """
    names, keys = column_names(y), class_keys(classes)
    if names is None or len(names) != len(keys) or set(names) != set(keys):
        return y
    return y.to_numpy()[:, positions(names, keys)]


def positions(values: list, wanted: list) -> np.ndarray:
    """Return the position of each wanted value among the values."""
    position = {value: index for index, value in enumerate(values)}
    return np.array([position[value] for value in wanted], dtype=np.int64)


def read_class_weight(class_weight, classes) -> np.ndarray:
    """Read the weights of the classes.

    Parameters
    ----------
    class_weight : mapping, Series or array-like of shape (n_classes,)
        See :func:`align_to_classes`. As in scikit-learn, the weight of a class that is not in a mapping or Series is
        1, unless that has keys that are not classes.
    classes : ndarray of shape (n_classes,)
        The classes.

    Returns
    -------
    ndarray of shape (n_classes,), float64

    Examples
    --------
    >>> read_class_weight({"b": 3}, np.array(["a", "b"]))
    array([1., 3.])
    """
    keys = class_keys(classes)
    found = _by_class(class_weight, keys, "class_weight")
    if found is not None:
        unknown = [key for key in found if key not in keys]
        absent = [key for key in keys if key not in found]
        if unknown and absent:
            raise ValueError(
                f"The classes, {absent!r}, are not in class_weight, which has the unknown class(es) {unknown!r}; the "
                f"classes are {keys!r}."
            )
        class_weight = {**dict.fromkeys(keys, 1.0), **found}
    weights = align_to_classes(class_weight, classes, "class_weight", "weight")
    for key, weight in zip(keys, weights, strict=True):
        if not is_finite(weight) or weight < 0:
            raise ValueError(f"The class weight of {key!r} must be a finite number of at least 0, got {weight!r}.")
    return np.array(weights, dtype=np.float64)


def read_thresholds(threshold, classes) -> np.ndarray:
    """Read the decision threshold of each class.

    Parameters
    ----------
    threshold : float, mapping, Series or array-like of shape (n_classes,)
        Thresholds in [0, 1]: one for all classes, or one per class, see :func:`align_to_classes`.
    classes : ndarray of shape (n_classes,)
        The classes.

    Returns
    -------
    ndarray of shape () or (n_classes,), float64

    Examples
    --------
    >>> read_thresholds({"a": 0.3, "b": 0.6}, np.array(["b", "a"]))
    array([0.6, 0.3])
    """
    is_one = np.ndim(threshold) == 0 and not isinstance(threshold, Mapping)
    values: list = [threshold] if is_one else align_to_classes(threshold, classes, "threshold", "number")
    values = [value.item() if np.ndim(value) == 0 and hasattr(value, "item") else value for value in values]
    for value in values:
        if not is_finite(value) or not 0 <= value <= 1:
            raise ValueError(f"threshold must be a number from 0 to 1, or one for each class, got {value!r}.")
    return np.array(values[0] if is_one else values, dtype=np.float64)
