"""Several targets: y with a column of classes for each, their labels, weights and predictions."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_consistent_length

from .annotations import ProblemType
from .class_values import by_target, class_keys, class_text, column_positions, is_numeric_text
from .containers import EXPECTED_CLASSES, as_container, column_names, plain_strings, to_values
from .data.label_groups import MISSING, LabelGroups
from .label_lists import read_label_lists
from .targets import (
    PROBLEM_TYPES,
    SINGLE,
    ClassTargets,
    check_label_texts,
    class_sample_weight,
    encode_class_list,
    known_classes,
    label_texts,
    zero_shot_classes,
)
from .text_checks import is_missing, show_rows

_SEPARATOR = ": "  # between target and class, where the class alone would be ambiguous
_CATEGORICAL = ("category", "Categorical", "Enum")  # dtypes of pandas and polars
_BINARY_TEXTS = {"0", "1", "0.0", "1.0"}


@dataclass(frozen=True)
class OutputColumns:
    """The columns of a y with several targets.

    Attributes
    ----------
    names : list or None
        Their names; None for those of an array.
    columns : list
        The values of each column, as arrays or Series.
    """

    names: list | None
    columns: list

    def __len__(self) -> int:
        return len(self.columns)


def find_output_columns(y, ignore_index: int, is_known: bool = False) -> OutputColumns | None:
    """Return the columns of y if each of them is a target with classes of its own.

    Parameters
    ----------
    y : array-like
        The columns are targets if y is a table or 2-D array that holds strings, categories or other classes that are
        not numbers, or integers besides 0 and 1.
    ignore_index : int
        Value that marks an unknown label in an indicator matrix.
    is_known : bool, default=False
        Whether the columns of a 2-D y are known to be targets, whatever their values.

    Returns
    -------
    OutputColumns or None
        None for a y of another kind.

    Raises
    ------
    ValueError
        If y holds 0 and 1 as strings, or `ignore_index` beside integer classes.
    """
    if y is None or (not sp.issparse(y) and read_label_lists(y) is not None):
        return None
    y = as_container(y, "y", EXPECTED_CLASSES)
    if not hasattr(y, "columns"):
        y = _array(y)
    elif len(set(y.columns)) < len(y.columns):  # repeated names have an error of their own
        return None
    if len(y.shape) != 2 or y.shape[1] < 2 or not (is_known or _holds_classes(y, ignore_index)):
        return None
    names = getattr(y, "columns", None)
    return OutputColumns(column_names(y), list(y.T) if names is None else [y[name] for name in names])


def _array(y) -> np.ndarray:
    """Return a y that is no table as an array, which is 1-D for a Series and for rows of several lengths."""
    if sp.issparse(y):
        return y.toarray()
    if isinstance(y, np.ndarray) and not (y.dtype.kind == "O" and y.ndim == 1):
        return plain_strings(y)
    rows = to_values(y)
    widths = {len(row) if isinstance(row, (list, tuple, np.ndarray)) and np.ndim(row) == 1 else -1 for row in rows}
    return np.asarray(rows) if len(widths) == 1 and min(widths) > 1 else np.empty(len(rows))


def _holds_classes(y, ignore_index: int) -> bool:
    """Return whether a table or 2-D array holds classes, and not the numbers of one multi-label problem."""
    if hasattr(y, "columns") and any(str(dtype).startswith(_CATEGORICAL) for dtype in y.dtypes):
        return True
    table = y.to_numpy() if hasattr(y, "columns") else y
    if table.dtype.kind == "O":
        is_known = ~np.vectorize(is_missing, otypes=[bool])(table)
        values = table[is_known].tolist()
        if not all(isinstance(value, Hashable) for value in values):
            return False  # scikit-learn knows no such y, and the error of other kinds of y names it
        if all(isinstance(value, numbers.Real) for value in values):
            table = np.array(values, dtype=np.float64)
    if table.dtype.kind in "biuf":
        return _are_integer_classes(table, ignore_index)
    if table.dtype.kind == "c":
        return False
    if {str(value) for value in np.unique(table.astype(str))} <= _BINARY_TEXTS:
        raise ValueError(
            "y has columns of 0 and 1 as strings, which are values that are not numbers; convert them to numbers if y "
            "is a multi-label indicator matrix, or to dtype category if each column is a target of its own."
        )
    return True


def _are_integer_classes(values: np.ndarray, ignore_index: int) -> bool:
    """Return whether numbers are integers that are no indicators."""
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if np.isin(known, (0, 1, ignore_index)).all() or (known % 1 != 0).any() or np.isinf(values).any():
        return False
    others = np.setdiff1d(known, (0, 1))
    if len(others) == 1 and others[0] < 0 and np.isin((0, 1), known).all():
        return False  # an indicator matrix with another mark of unknown labels than `ignore_index`
    if (known == ignore_index).any():
        raise ValueError(
            f"y has columns of classes with the value {ignore_index} (ignore_index), which marks unknown labels of an "
            "indicator matrix only; mark the unknown class of a target by None or NaN."
        )
    return True


# -- targets -----------------------------------------------------------------------------------------------------


@dataclass
class MultiOutputTargets:
    """Several targets of a classifier.

    Attributes
    ----------
    names : list
        Names of the targets.
    parts : list of ClassTargets
        Each target, single-label; the class index of unknown classes is -1.
    """

    names: list
    parts: list[ClassTargets]

    problem_type: ClassVar[ProblemType] = PROBLEM_TYPES[SINGLE]
    own_labels = None  # all texts have the same targets

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def classes(self) -> list[np.ndarray]:
        """Classes of each target."""
        return [part.classes for part in self.parts]

    @property
    def by_target(self) -> dict:
        """Classes by target."""
        return dict(zip(self.names, self.classes, strict=True))

    @property
    def groups(self) -> LabelGroups:
        """Labels of each target."""
        return LabelGroups([len(classes) for classes in self.classes])

    @property
    def array(self) -> np.ndarray:
        """Label of each target (n, n_targets), as an index among all labels, or -1."""
        firsts = [labels.start for labels in self.groups.slices]
        columns = np.stack([part.array for part in self.parts], axis=1)
        return np.where(columns == MISSING, MISSING, columns + firsts)

    def _each(self, function) -> MultiOutputTargets:
        return replace(self, parts=[function(part) for part in self.parts])

    def take(self, rows, keep_classes: bool) -> MultiOutputTargets:
        """Select rows; unless `keep_classes`, classes that only occurred in other rows are dropped."""
        return self._each(lambda part: part.take(rows, keep_classes))

    def sort_classes(self) -> MultiOutputTargets:
        """Return the targets with sorted classes."""
        return self._each(ClassTargets.sort_classes)

    def reorder(self, classes: list[np.ndarray]) -> MultiOutputTargets:
        """Return the targets with other orders of their classes."""
        return replace(self, parts=[part.reorder(own) for part, own in zip(self.parts, classes, strict=True)])

    def check_classes(self) -> MultiOutputTargets:
        """Raise if a target has fewer than two classes."""
        for name, part in zip(self.names, self.parts, strict=True):
            part.check_classes(f" in the target {name!r}")
        return self


def read_multi_output_targets(found: OutputColumns, known: dict | None = None) -> MultiOutputTargets:
    """Read the y of a classifier with several targets.

    Parameters
    ----------
    found : OutputColumns
        The columns of y. None, NaN and other missing values are unknown classes.
    known : dict, optional
        {target: classes} of an earlier fit, or of `partial_fit`. Named columns are matched by name, others are in this
        order. y must hold no other classes.

    Raises
    ------
    ValueError
        If a row has no class in any target, a target is continuous or mixed, or y does not match `known`.
    """
    names, columns = _output_names(found), found.columns
    if known is not None:
        columns = [columns[place] for place in _match_names(found, list(known))]
        names = list(known)
    parts = [_read_column(to_values(column), name) for name, column in zip(names, columns, strict=True)]
    unknown = np.flatnonzero(np.all([part.array == MISSING for part in parts], axis=0))
    if len(unknown):
        raise ValueError(
            f"Input y contains NaN: {len(unknown)} row(s) have no class in any of the targets {names!r}, at row(s) "
            f"{show_rows(unknown.tolist())}; drop these rows."
        )
    if known is not None:
        parts = [
            part.with_classes(classes, f"The target {name!r} of y")
            for part, (name, classes) in zip(parts, known.items(), strict=True)
        ]
    return MultiOutputTargets(names, parts)


def _output_names(found: OutputColumns) -> list:
    if found.names is None:
        return list(range(len(found)))
    if any(is_missing(name) for name in found.names):
        raise ValueError(f"The columns of y must be named by their targets, got {found.names!r}; name all of them.")
    return found.names


def _match_names(found: OutputColumns, known: list):
    """Return the position of each known target among the columns of y."""
    if found.names is not None and known != list(range(len(known))):
        return column_positions(found.names, known, "the targets")
    if len(found) != len(known):
        raise ValueError(
            f"y has {len(found)} columns, but the known targets are {known!r}; give one column for each, in this order."
        )
    return range(len(known))


def _read_column(values: list, name) -> ClassTargets:
    is_known = np.array([not is_missing(value) for value in values], bool)
    array = np.full(len(values), MISSING)
    classes = np.empty(0, object)
    if is_known.any():
        known = encode_class_list([value for value in values if not is_missing(value)], f"The target {name!r} of y")
        classes, array[is_known] = known.classes, known.array
    return ClassTargets(SINGLE, classes, array)


def known_output_classes(classes, names: list, fitted: dict | None = None) -> dict:
    """Check the `classes` of `partial_fit`, and return {target: classes}.

    Parameters
    ----------
    classes : mapping, or list of array-like
        All classes of each target, by its name or in the order of the targets.
    names : list
        Names of the targets.
    fitted : dict, optional
        {target: classes} of an earlier call, which must be the same.

    Raises
    ------
    ValueError, TypeError
        If a target has no classes, or as in :func:`~sklearn_gliclass.targets.known_classes`.
    """
    given = by_target(classes, names, "classes", "list of classes")
    absent = [name for name in names if name not in given]
    if absent:
        raise ValueError(f"classes has no list of classes for the target(s) {absent!r}; it has {list(given)!r}.")
    return {name: known_classes(given[name], None if fitted is None else fitted[name]) for name in names}


# -- labels ------------------------------------------------------------------------------------------------------


def zero_shot_outputs(labels, call: str) -> tuple[dict, dict] | None:
    """Read the labels of ``fit(None, labels)`` or ``with_labels(labels)`` if they are those of several targets.

    Parameters
    ----------
    labels : object
        ``{target: [class, ...]}`` or ``{target: {class: description}}``.
    call : str
        The call with these labels, for error messages.

    Returns
    -------
    (dict, dict) or None
        {target: classes} and {target: {class: description}}, which has the targets with descriptions only. None for
        the labels of one target.

    Raises
    ------
    ValueError, TypeError
        If there is one target only, labels and targets are mixed, or the classes of a target are invalid.

    Examples
    --------
    >>> labels = {"mood": ["angry", "glad"], "topic": {"price": "costs", "delivery": "the parcel"}}
    >>> classes, descriptions = zero_shot_outputs(labels, "fit(None, labels)")
    >>> [values.tolist() for values in classes.values()], list(descriptions)
    ([['angry', 'glad'], ['price', 'delivery']], ['topic'])
    >>> zero_shot_outputs({"refund": "the customer wants money back", "praise": "kind words"}, "") is None
    True
    """
    if not isinstance(labels, Mapping) or not any(_is_label_set(value) for value in labels.values()):
        return None
    flat = [name for name, value in labels.items() if not _is_label_set(value)]
    if flat:
        raise ValueError(
            f"{call} got a dict with lists of classes, and without one for {flat!r}; give each target a list of "
            "classes or a dict {class: description}, or each class a description."
        )
    if len(labels) < 2:
        raise ValueError(f"{call} got one target, {list(labels)!r}; give its classes as a list.")
    for name, values in labels.items():
        deeper = [key for key, value in values.items() if _is_label_set(value)] if isinstance(values, Mapping) else []
        if is_missing(name) or deeper:
            what = "a missing name" if is_missing(name) else f"classes of classes, {deeper!r},"
            raise ValueError(f"{call} got {what} in the target {name!r}; give {{target: [class, ...]}}.")
    classes = {name: zero_shot_classes(values, f"{call}, for the target {name!r},") for name, values in labels.items()}
    return classes, {name: dict(values) for name, values in labels.items() if isinstance(values, Mapping)}


def _is_label_set(value) -> bool:
    return not isinstance(value, (str, bytes)) and hasattr(value, "__iter__")


def output_label_texts(classes: dict, label_names, separator: str | None, name: str = "label_names") -> list[str]:
    """Return the label texts of all targets, one target after the other.

    Parameters
    ----------
    classes : dict
        {target: classes}. Targets named 0, 1, ... have no name of their own.
    label_names : mapping, list or None
        Texts of the classes of each target, by its name or in the order of the targets. Targets without an entry have
        the default texts.
    separator : str or None
        Text between target and class. If None, the class alone, and where that would be ambiguous ``"target: class"``:
        for numbers, and if another target has a class with the same text.
    name : str, default="label_names"
        Where the texts are from, for error messages.

    Examples
    --------
    >>> output_label_texts({"mood": ["angry", "glad"], "stars": [1, 2]}, None, None)
    ['angry', 'glad', 'stars: 1', 'stars: 2']
    >>> output_label_texts({"mood": ["angry", "glad"], "topic": ["price", "time"]}, None, ".")
    ['mood.angry', 'mood.glad', 'topic.price', 'topic.time']
    """
    given = {} if label_names is None else by_target(label_names, list(classes), name, "set of label texts")
    alone = {
        target: label_texts(given[target], values, f"{name}[{target!r}]")
        if target in given
        else [class_text(key) for key in class_keys(values)]
        for target, values in classes.items()
    }
    is_unnamed = list(classes) == list(range(len(classes)))
    texts = []
    for target, own in alone.items():
        others = {text for other, theirs in alone.items() if other != target for text in theirs}
        texts += own if target in given else _default_texts(target, own, others, separator, is_unnamed)
    return check_label_texts(texts, [key for values in classes.values() for key in class_keys(values)], name)


def _default_texts(target, texts: list[str], others: set[str], separator: str | None, is_unnamed: bool) -> list[str]:
    is_ambiguous = not others.isdisjoint(texts) or (not is_unnamed and all(map(is_numeric_text, texts)))
    if (separator is None or is_unnamed) and not is_ambiguous:
        return texts
    target = f"target {target}" if is_unnamed else target
    return [f"{target}{_SEPARATOR if separator is None else separator}{text}" for text in texts]


# -- weights and predictions -------------------------------------------------------------------------------------


def output_sample_weight(targets: MultiOutputTargets, class_weight, sample_weight: np.ndarray) -> np.ndarray:
    """Return sample weights times class weights for each target, (n, n_targets); unknown classes have weight 0.

    Parameters
    ----------
    targets : MultiOutputTargets
        The targets.
    class_weight : None, "balanced", mapping or list
        "balanced", or the weights of the classes of each target, by its name or in the order of the targets; see
        :func:`~sklearn_gliclass.targets.class_sample_weight`.
    sample_weight : ndarray of shape (n,)
        Weights of the samples.
    """
    if class_weight is None or isinstance(class_weight, str):
        by_name = dict.fromkeys(targets.names, class_weight)
    else:
        by_name = by_target(class_weight, targets.names, "class_weight", "set of class weights")
    weights = np.zeros((len(targets), len(targets.parts)))
    for column, (name, part) in enumerate(zip(targets.names, targets.parts, strict=True)):
        rows = np.flatnonzero(part.array != MISSING)
        known = part.take(rows, keep_classes=True)
        weights[rows, column] = class_sample_weight(known, by_name.get(name), sample_weight[rows])
    return weights


def subset_accuracy(y, indices: list[np.ndarray], classes: dict, sample_weight=None) -> float:
    """Compute the fraction of rows whose known targets are all predicted exactly.

    Parameters
    ----------
    y : array-like of shape (n, n_targets)
        True classes; missing ones are not compared.
    indices : list of ndarray of shape (n,)
        Index of the predicted class of each target.
    classes : dict
        {target: classes}.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.
    """
    found = find_output_columns(y, MISSING, is_known=True)
    if found is None:
        raise ValueError(
            f"The classifier has the targets {list(classes)!r}, and y has no column for each; give a table or a 2-D "
            "array with one column of classes per target."
        )
    places = _match_names(found, list(classes))
    truth = read_multi_output_targets(OutputColumns(list(classes), [found.columns[place] for place in places]))
    check_consistent_length(truth, indices[0], sample_weight)
    is_right = np.ones(len(truth), bool)
    for part, predicted, known in zip(truth.parts, indices, classes.values(), strict=True):
        position = {key: index for index, key in enumerate(class_keys(known))}
        true = np.array([position.get(key, len(position)) for key in class_keys(part.classes)] or [0])[part.array]
        is_right &= (part.array == MISSING) | (true == predicted)
    return float(np.average(is_right, weights=sample_weight))
