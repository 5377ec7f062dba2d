"""Conversion of y to targets, label texts and weights, and of logits to predictions."""

import math
import numbers
import reprlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, log_softmax, softmax
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from .annotations import ProblemType
from .candidate_labels import check_exclusive, encode_candidates
from .class_values import (
    align_to_classes,
    check_kinds,
    class_array,
    class_keys,
    class_text,
    column_positions,
    is_numeric_text,
    positions,
    read_class_weight,
    read_thresholds,
)
from .containers import EXPECTED_CLASSES, EXPECTED_NUMBERS, as_container, column_names, to_values
from .data.label_groups import MISSING
from .data.own_labels import OwnLabels
from .label_lists import encode_label_lists, read_label_lists
from .text_checks import ROWS_SHOWN, check_encodable, is_missing, missing_rows

__all__ = [
    "MULTI",
    "PROBLEM_TYPES",
    "SINGLE",
    "SOFT",
    "ClassTargets",
    "RegressionTargets",
    "class_sample_weight",
    "decision_values",
    "integer_classes_warning",
    "known_classes",
    "label_texts",
    "logits_to_log_probabilities",
    "logits_to_probabilities",
    "read_candidate_targets",
    "read_class_targets",
    "read_regression_targets",
    "read_thresholds",
    "zero_shot_classes",
]  # fmt: skip

SINGLE, MULTI, SOFT = "single-label", "multi-label", "soft labels"
PROBLEM_TYPES: dict[str, ProblemType] = {
    SINGLE: "single_label_classification",
    SOFT: "single_label_classification",
    MULTI: "multi_label_classification",
}


@dataclass
class ClassTargets:
    """Targets of a classifier.

    Attributes
    ----------
    kind : {"single-label", "multi-label", "soft labels"}
    classes : ndarray of shape (n_classes,)
    array : ndarray
        Class indices (n,), or indicators or probabilities (n, n_classes).
    is_listed : bool
        Whether y was lists of labels, so that the classes are those that occur in them.
    own_labels : OwnLabels or None
        How `array` is read if each text has labels of its own.
    """

    kind: str
    classes: np.ndarray
    array: np.ndarray
    is_listed: bool = False
    own_labels: OwnLabels | None = None

    groups = None  # there is one target

    @property
    def problem_type(self) -> ProblemType:
        """Problem type of the model's configuration."""
        return PROBLEM_TYPES[self.kind]

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows, keep_classes: bool) -> "ClassTargets":
        """Select rows; unless `keep_classes`, classes that only occurred in other rows are dropped."""
        array, classes = self.array[rows], self.classes
        if self.own_labels is not None and not keep_classes:
            present = self.own_labels.offered(array).any(axis=0)
            array, classes = array[:, present], classes[present]
        if self.is_listed and not keep_classes:
            present = array.any(axis=0)
            array, classes = array[:, present], classes[present]
        if self.kind == SINGLE and not keep_classes:
            present = np.unique(array[array != MISSING])
            array = _renumber(array, np.searchsorted(present, np.arange(len(classes))))
            classes = classes[present]
        return replace(self, classes=classes, array=array)

    def reorder(self, classes: np.ndarray) -> "ClassTargets":
        """Return the targets with another order of the classes."""
        own, wanted = class_keys(self.classes), class_keys(classes)
        if self.kind == SINGLE:
            return ClassTargets(SINGLE, classes, _renumber(self.array, positions(wanted, own)))
        return replace(self, classes=classes, array=self.array[:, positions(own, wanted)])

    def sort_classes(self) -> "ClassTargets":
        """Return the targets with sorted classes if y is single-label; columns keep their order."""
        return self.reorder(np.sort(self.classes)) if self.kind == SINGLE else self

    def with_classes(self, classes: np.ndarray, name: str = "y") -> "ClassTargets":
        """Return single-label targets with more classes; a class that is not among them raises."""
        found, known = class_keys(self.classes), class_keys(classes)
        unknown = sorted(set(found).difference(known), key=str)
        if unknown:
            raise ValueError(f"{name} has classes that are not among the classes {known!r}: {unknown!r}.")
        return ClassTargets(SINGLE, classes, _renumber(self.array, positions(known, found)))

    def check_classes(self, where: str = "") -> "ClassTargets":
        """Raise if there are fewer than two classes."""
        if len(self.classes) < 2:
            found = f"only one class: {self.classes.tolist()[0]!r}" if len(self.classes) else "none."
            raise ValueError(
                f"This classifier needs samples of at least 2 classes in the data{where}, but the data contains {found}"
            )
        return self


def _renumber(indices: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Replace class indices, except those of unknown classes."""
    return np.where(indices == MISSING, MISSING, numbers[indices]) if len(numbers) else indices


def read_class_targets(y, problem_type=None, ignore_index=-100, classes=None, is_fitted: bool = False) -> ClassTargets:
    """Read the y of a classifier.

    Parameters
    ----------
    y : array-like
        1-D: single-label. 2-D of 0 and 1 (ndarray, sparse, DataFrame): multi-label, where `ignore_index` marks
        an unknown label. Lists of labels: multi-label. 2-D rows of probabilities: soft labels.
    problem_type : str, optional
        Required type of the problem. If None, it is inferred from y.
    ignore_index : int, default=-100
        See `y`.
    classes : ndarray of shape (n_classes,), optional
        Classes of an earlier fit, or of `partial_fit`, whose order is kept. y must hold no other classes. Named columns
        are matched by name, others must be in this order.
    is_fitted : bool, default=False
        Whether `problem_type` is that of a fitted model, whose training continues.

    Raises
    ------
    ValueError
        If y is continuous or mixed, has missing values, does not match `problem_type` or `classes`, or has fewer than
        two classes.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    y = as_container(y, "y", EXPECTED_CLASSES)
    names, lists = column_names(y), read_label_lists(y)
    if lists is not None:
        targets = ClassTargets(MULTI, *encode_label_lists(lists), is_listed=True)
    else:
        table = _two_dimensional(y)
        targets = _single_label(y) if table is None else _label_table(table, names, ignore_index)
    targets = _fit_problem(targets, problem_type, is_fitted)
    if classes is not None:
        targets = _with_known_classes(targets, classes, is_named=names is not None)
    return targets.check_classes()


def read_candidate_targets(rows: list[dict], problem_type=None, ignore_index=-100, classes=None) -> ClassTargets:
    """Read the y of a classifier whose texts have labels of their own.

    Parameters
    ----------
    rows : list of dict
        Values of the labels of each text, as :func:`read_candidates` returns them.
    problem_type : str, optional
        If it is "single_label_classification", one label of each text holds. Otherwise, each label is a decision.
    ignore_index : int, default=-100
        Target of the labels that a text does not offer, if each is a decision.
    classes : ndarray of shape (n_classes,), optional
        Classes of an earlier fit, or of `partial_fit`.

    Raises
    ------
    ValueError
        If exclusive values don't sum to 1, labels are not among `classes`, or there are fewer than two classes.
    """
    is_exclusive = problem_type == PROBLEM_TYPES[SOFT]
    if is_exclusive:
        check_exclusive(rows)
    own = OwnLabels(-1.0 if is_exclusive else float(ignore_index), is_exclusive)
    classes, array = encode_candidates(rows, own.not_offered, classes)
    return ClassTargets(SOFT if is_exclusive else MULTI, classes, array, own_labels=own).check_classes()


_EXPECTED = {
    "single_label_classification": "give a 1-D y with one class per sample or rows of probabilities, or set "
    "problem_type=None.",
    "multi_label_classification": "give a 2-D indicator matrix of 0 and 1 or lists of labels, or set "
    "problem_type=None.",
}


def _fit_problem(targets: ClassTargets, problem_type, is_fitted: bool) -> ClassTargets:
    """Convert the targets to `problem_type` where they are ambiguous."""
    if problem_type is None or PROBLEM_TYPES[targets.kind] == problem_type:
        return targets
    if problem_type == PROBLEM_TYPES[MULTI] and targets.kind == SOFT:
        return replace(targets, kind=MULTI)
    if problem_type == PROBLEM_TYPES[SOFT] and targets.kind == MULTI and _sums_to_one(targets.array):
        return replace(targets, kind=SOFT)
    if is_fitted:
        kind = MULTI if problem_type == PROBLEM_TYPES[MULTI] else SINGLE
        raise ValueError(
            f"The fitted model is for {kind} y, and this y is {targets.kind}: training cannot continue. Give a {kind} "
            "y, or set warm_start=False and call fit, which builds a new model."
        )
    raise ValueError(
        f"problem_type={problem_type!r} does not match y, which is {targets.kind}; "
        + _EXPECTED.get(problem_type, "use GLiClassRegressor for regression.")
    )


def _with_known_classes(targets: ClassTargets, classes: np.ndarray, is_named: bool) -> ClassTargets:
    """Align the targets with the classes of an earlier fit; `is_named` says whether the columns of y have names."""
    found, known = class_keys(targets.classes), class_keys(classes)
    if targets.kind == SINGLE:
        return targets.with_classes(classes)
    if targets.is_listed:
        known_values = set(known)
        unknown = [value for value in found if value not in known_values]
        if unknown:
            raise ValueError(f"y has classes that are not among the classes {known!r}: {unknown!r}.")
        array = np.zeros((len(targets), len(known)), targets.array.dtype)
        array[:, positions(known, found)] = targets.array
        return replace(targets, classes=classes, array=array)
    if is_named:
        order = column_positions(found, known, "the known classes")
        return ClassTargets(targets.kind, classes, targets.array[:, order])
    if len(found) != len(known):
        raise ValueError(
            f"y has {len(found)} columns, but the known classes are {known!r}; give one column for each, in this order."
        )
    return ClassTargets(targets.kind, classes, targets.array)


def _two_dimensional(y) -> np.ndarray | None:
    """Return y as a dense 2-D array, or None if it is 1-D (a single column counts as 1-D)."""
    if sp.issparse(y):
        array = y.toarray()
    elif hasattr(y, "columns"):
        array = y.to_numpy()
    elif isinstance(y, (list, tuple)):
        array = _array_of_list(y)
    elif hasattr(y, "to_list"):
        rows = to_values(y)
        if not rows or not _is_sequence(rows[0]):
            return None
        array = _array_of_list(rows)
    elif y.dtype.kind == "O" and y.ndim == 1 and len(y) and _is_sequence(y[0]):
        array = _array_of_list(to_values(y))
    else:
        array = y
    if array.ndim < 2 or (array.ndim == 2 and array.shape[1] == 1):
        return None
    if array.ndim > 2:
        raise ValueError(f"y must be 1-D or 2-D, got {array.ndim} dimensions.")
    return array


def _array_of_list(y) -> np.ndarray:
    lengths = {len(value) if _is_sequence(value) else -1 for value in y}
    if len(lengths) > 1:
        raise ValueError("y mixes rows of several lengths; give one row of numbers per sample, or lists of labels.")
    return np.asarray(y)


def _is_sequence(value) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0 or hasattr(value, "to_list")


def _single_label(y) -> ClassTargets:
    y = _check_values(y)
    y = column_or_1d(y, warn=True)
    if len(y) == 0:
        raise ValueError("Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required: y is empty.")
    return _encode_classes(y)


def _encode_classes(y: np.ndarray) -> ClassTargets:
    if y.dtype.kind in "fc":
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")  # pyright: ignore[reportArgumentType]
    check_classification_targets(y)
    found, indices = np.unique(y, return_inverse=True)
    return ClassTargets(SINGLE, found, indices.astype(np.int64))


def encode_class_list(values: list, name: str) -> ClassTargets:
    """Return the classes of a list, sorted, and the class index of each value.

    Examples
    --------
    >>> targets = encode_class_list(["sea", "food", "sea"], "y")
    >>> targets.classes.tolist(), targets.array.tolist()
    (['food', 'sea'], [1, 0, 1])
    """
    check_kinds(values, name)
    return _encode_classes(np.asarray(values))


def _check_values(y) -> np.ndarray:
    """Convert y to an array; missing and mixed classes raise before NumPy would convert them to strings."""
    if sp.issparse(y):
        return y.toarray()
    if hasattr(y, "columns"):
        y = y.to_numpy()
    given = y if isinstance(y, np.ndarray) else None
    if given is not None and given.dtype.kind not in "OmMT":
        return given
    values = to_values(y) if given is None else to_values(given.ravel())
    if values and all(_is_sequence(value) and len(value) == 1 for value in values):  # a column as a list
        values = [value[0] for value in values]
        given = np.asarray(y)
    missing = missing_rows(values)
    if missing:
        raise ValueError(
            f"Input y contains NaN: {len(missing)} missing target(s), first at row {missing[0]}; drop these rows."
        )
    check_kinds(values, "y")
    array = np.asarray(values)
    if given is None:
        return array
    # Numbers of dtype object, and NumPy's variable-width strings, which cannot be stored.
    return array.reshape(given.shape) if array.dtype.kind in "biufc" or given.dtype.kind == "T" else given


def _label_table(table: np.ndarray, names: list | None, ignore_index: int) -> ClassTargets:
    values = check_array(_numbers_of_table(table, ignore_index), input_name="y")
    classes = np.arange(values.shape[1]) if names is None else _check_columns(names)
    if np.isin(values, (0.0, 1.0, float(ignore_index))).all():
        return ClassTargets(MULTI, classes, values.astype(np.float32))
    if (values >= 0).all() and _sums_to_one(values):
        return ClassTargets(SOFT, classes, values)
    check_classification_targets(values)  # scikit-learn's error for y that it does not support either
    raise ValueError(
        f"Unknown label type: {type_of_target(values)}. A 2-D y must be an indicator matrix of 0 and 1, or rows of "
        "probabilities that sum to 1."
    )


def _numbers_of_table(table: np.ndarray, ignore_index: int) -> np.ndarray:
    """Convert a 2-D y to float64; strings, also numeric ones, and missing values raise."""
    kinds = {type(value) for value in table.flat} if table.dtype.kind == "O" else {table.dtype.type}
    if any(issubclass(kind, (str, bytes, np.datetime64, np.timedelta64)) for kind in kinds):
        raise ValueError(
            "A 2-D y must be an indicator matrix of 0 and 1 or rows of probabilities, got values that are not numbers; "
            "give lists of labels for multi-label y: [list(row) for row in y]."
        )
    if table.dtype.kind == "O":
        table = np.where(np.vectorize(is_missing, otypes=[bool])(table), np.nan, table)
    if table.dtype.kind == "c":
        return table  # scikit-learn's error
    try:
        values = table.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A 2-D y must hold numbers, got {sorted(kind.__name__ for kind in kinds)}.") from error
    missing = np.argwhere(np.isnan(values))
    if len(missing):
        row, column = missing[0]
        raise ValueError(
            f"Input y contains NaN: {len(missing)} missing value(s), first at row {row}, column {column}; drop these "
            f"rows, or mark unknown labels of a multi-label y with ignore_index ({ignore_index})."
        )
    return values


def _check_columns(names: list) -> np.ndarray:
    """Check the column names, and return them as classes."""
    if missing_rows(names):
        raise ValueError(f"The columns of y must be named by their classes, got {names!r}; name all of them.")
    repeated = _repeated(names)
    if repeated:
        raise ValueError(f"y has more than one column named {repeated!r}; each class has one column.")
    return class_array(names)


def _repeated(values: list) -> list:
    counts = Counter(values)
    return [value for value in counts if counts[value] > 1]


def _sums_to_one(values: np.ndarray) -> bool:
    return np.allclose(values.sum(axis=1), 1.0, atol=1e-4)


def known_classes(classes, fitted_classes=None) -> np.ndarray:
    """Check the `classes` of `partial_fit`, and keep their order.

    Unnamed columns of a multi-label y are in this order. Single-label classes are sorted afterwards, as in `fit`, by
    :meth:`ClassTargets.sort_classes`.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)
        All classes.
    fitted_classes : ndarray of shape (n_classes,), optional
        Classes of an earlier call, which must be the same; :meth:`ClassTargets.reorder` brings the targets into their
        order.

    Raises
    ------
    ValueError, TypeError
        If they are not 1-D, fewer than two, repeated, missing, or of several types.
    """
    values = _check_class_list(classes, "classes", "classes takes a list of at least 2 classes, each of them once")
    if fitted_classes is not None and set(values) != set(class_keys(fitted_classes)):
        raise ValueError(
            f"classes={values!r} is not the same as on last call to partial_fit, was: {class_keys(fitted_classes)!r}."
        )
    return class_array(values)


def zero_shot_classes(labels, call: str) -> np.ndarray:
    """Check the labels of ``fit(None, labels)`` or ``with_labels(labels)``, and keep their order.

    Parameters
    ----------
    labels : array-like of shape (n_classes,), or mapping
        The classes, each of them once: the values of an array, or the keys of a mapping.
    call : str
        The call with these labels, for error messages.

    Raises
    ------
    ValueError, TypeError
        If they are not 1-D, fewer than two, repeated, missing, empty, or of several types.

    Examples
    --------
    >>> zero_shot_classes(["sports", "politics"], "fit(None, labels)").tolist()
    ['sports', 'politics']
    """
    rule = f"{call} takes a list of at least 2 classes, each of them once"
    labels = list(labels) if isinstance(labels, Mapping) else labels
    if labels is None:
        raise ValueError(f"requires y to be passed, but the target y is None; {rule}.")
    values = _check_class_list(labels, "labels", rule)
    empty = [row for row, value in enumerate(values) if isinstance(value, str) and not value.strip()]
    if empty:
        raise ValueError(f"{rule}, got the empty label {values[empty[0]]!r} at position {empty[0]}.")
    return class_array(values)


def _check_class_list(classes, name: str, rule: str) -> list:
    if isinstance(classes, (str, bytes)):
        raise ValueError(f"{rule}, got {classes!r}; put the classes in a list.")
    classes = as_container(classes, name, "a list of classes")
    if hasattr(classes, "columns") or getattr(classes, "ndim", 1) != 1:
        raise ValueError(f"{rule}, got {type(classes).__name__} of shape {tuple(classes.shape)}; give a 1-D list.")
    values = to_values(classes)
    for position, value in enumerate(values):
        if is_missing(value) or not isinstance(value, Hashable) or isinstance(value, tuple):
            raise ValueError(f"{rule}, got {value!r} at position {position}; give strings or numbers.")
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{rule}, got {value!r} at position {position}; give strings or finite numbers.")
    repeated = _repeated(values)
    if repeated or len(values) < 2:
        raise ValueError(f"{rule}, got {f'{repeated!r} more than once' if repeated else repr(values)}.")
    check_kinds(values, name)
    return values


def integer_classes_warning(classes, label_names=None) -> str | None:
    """Return the warning for classes without meaning to the model: numbers and bools, also as strings.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)
        The classes.
    label_names : dict, list, Series or None, default=None
        Hyperparameter of the estimator. If given, there is no warning.

    Returns
    -------
    str or None
        A message for :class:`~sklearn_gliclass.exceptions.LabelNamesWarning`.

    Examples
    --------
    >>> integer_classes_warning([0, 1]) is None
    False
    >>> integer_classes_warning(["spam", "ham"]) is None
    True
    """
    texts = [str(value) for value in class_keys(classes)]
    if label_names is not None or not all(is_numeric_text(text) for text in texts):
        return None
    shown = ", ".join(map(repr, texts[:ROWS_SHOWN])) + (", ..." if len(texts) > ROWS_SHOWN else "")
    return (
        f"The classes are numbers or truth values, and the model reads {shown} as their names; give meaningful names "
        'with label_names, for example label_names={0: "spam", 1: "no spam"}.'
    )


def label_texts(label_names, classes: Sequence | np.ndarray, name: str = "label_names") -> list[str]:
    """Return the label text of each class.

    Parameters
    ----------
    label_names : dict, Series, list or None
        {class: text}, or texts in the order of `classes`. A Series is read by its index, or by position if its index
        is 0, 1, ... and these are not classes. If None, :func:`class_text`.
    classes : sequence
        The classes.
    name : str, default="label_names"
        Where the texts are from, for error messages.

    Examples
    --------
    >>> label_texts({0: "spam", 1: "no spam"}, [0, 1])
    ['spam', 'no spam']
    """
    keys = class_keys(classes)
    texts = [class_text(key) for key in keys]
    if label_names is not None:
        texts = align_to_classes(label_names, classes, name, "text")
    return check_label_texts(texts, keys, name)


def check_label_texts(texts: list, keys: list, name: str = "label_names") -> list[str]:
    """Return the label texts, or raise if one of them is no text, empty or repeated.

    Parameters
    ----------
    texts : list
        The label texts.
    keys : list
        Their classes, for error messages.
    name : str, default="label_names"
        Where the texts are from, for error messages.
    """
    for key, text in zip(keys, texts, strict=True):
        if not isinstance(text, str):
            raise TypeError(f"{name} must hold texts (str), got {type(text).__name__}: {text!r}.")
        if not text.strip():
            raise ValueError(f"The label text of the class {key!r} is empty: {text!r}. Give a text with label_names.")
    check_encodable(texts, "The label texts", unit="position")
    repeated = sorted(_repeated(texts))
    if repeated:
        raise ValueError(
            f"Two classes have the same label text: {repeated!r}; the model distinguishes labels by their texts. Give "
            "different ones with label_names."
        )
    return [str(text) for text in texts]


def class_sample_weight(targets: ClassTargets, class_weight, sample_weight: np.ndarray) -> np.ndarray:
    """Return sample weights times class weights: (n,), or for multi-label (n, n_classes).

    Parameters
    ----------
    targets : ClassTargets
        The targets. Unknown labels have weight 0.
    class_weight : None, "balanced", mapping, Series or array-like of shape (n_classes,)
        See :func:`read_class_weight`. "balanced" gives all classes the same total weight. For multi-label targets, a
        weight applies to the positives of its class, and "balanced" gives the positives and the negatives of each class
        the same total weight.
    sample_weight : ndarray of shape (n,)
        Weights of the samples.
    """
    is_known = (targets.array >= 0) & (targets.array <= 1) if targets.kind == MULTI else None
    if class_weight is None:
        return sample_weight if is_known is None or is_known.all() else sample_weight[:, None] * is_known
    if isinstance(class_weight, str) and class_weight != "balanced":
        raise ValueError(f'class_weight must be "balanced", None or weights by class, got {class_weight!r}.')
    weights = None if isinstance(class_weight, str) else read_class_weight(class_weight, targets.classes)
    if targets.kind == MULTI:
        product = sample_weight[:, None] * _label_weights(targets, weights, sample_weight) * is_known
    elif targets.kind == SOFT:
        weights = _balance(sample_weight @ targets.array) if weights is None else weights
        product = sample_weight * (targets.array @ weights)
    else:
        if weights is None:
            weights = _balance(np.bincount(targets.array, sample_weight, len(targets.classes)))
        product = sample_weight * weights[targets.array]
    if not product.any():
        raise ValueError(f"class_weight={class_weight!r} leaves no sample with a positive weight to fit.")
    return product


def _label_weights(targets: ClassTargets, weights: np.ndarray | None, sample_weight: np.ndarray) -> np.ndarray:
    """Compute the weight of each label of each sample, (n, n_classes); `weights` is None for "balanced"."""
    is_positive = targets.array == 1
    if weights is not None:
        of_positive, of_negative = weights, 1.0
    else:
        of_positive, of_negative = _balance(
            np.stack([sample_weight @ is_positive, sample_weight @ (targets.array == 0)])
        )
    return np.where(is_positive, of_positive, of_negative)


def _balance(totals: np.ndarray) -> np.ndarray:
    """Compute weights that give each class (first axis) the same total, without changing the overall total."""
    present = totals > 0
    return np.where(present, totals.sum(axis=0) / (present.sum(axis=0) * np.where(present, totals, 1.0)), 0.0)


def logits_to_probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """Compute the softmax over the classes, or for multi-label targets the sigmoid of each logit."""
    return expit(logits) if kind == MULTI else softmax(logits, axis=1)


def logits_to_log_probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """Compute the log-probabilities from the logits."""
    return -np.logaddexp(0, -logits) if kind == MULTI else log_softmax(logits, axis=1)


def decision_values(logits: np.ndarray, kind: str) -> np.ndarray:
    """Return the logits (n, n_classes), or for two single-label classes their difference (n,)."""
    if kind != MULTI and logits.shape[1] == 2:
        return logits[:, 1] - logits[:, 0]
    return logits


@dataclass
class RegressionTargets:
    """Standardised targets of a regressor.

    Attributes
    ----------
    array : ndarray of shape (n, n_outputs)
        Standardised values.
    mean, scale : ndarray of shape (n_outputs,)
        Mean and standard deviation of y.
    names : list of str
        Default label texts of the outputs.
    one_dimensional : bool
        Whether y was 1-D, as predictions then are.
    """

    array: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    names: list = field(default_factory=list)
    one_dimensional: bool = True

    def __len__(self) -> int:
        return len(self.array)

    problem_type: ClassVar[ProblemType] = "regression"

    def rescale(self, mean: np.ndarray, scale: np.ndarray) -> "RegressionTargets":
        """Return the same values, standardised with another mean and scale."""
        array = (self.array * self.scale + self.mean - mean) / scale
        return RegressionTargets(array, mean, scale, self.names, self.one_dimensional)

    def take(self, rows) -> "RegressionTargets":
        """Select rows."""
        return RegressionTargets(self.array[rows], self.mean, self.scale, self.names, self.one_dimensional)


def read_regression_targets(y, sample_weight=None, names=None, one_dimensional=None) -> RegressionTargets:
    """Read the y of a regressor.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite numbers.
    sample_weight : ndarray of shape (n_samples,), optional
        Weights of the samples in mean and scale.
    names : list of str, optional
        `RegressionTargets.names` of an earlier fit. Named columns of y are brought into this order, others must be in
        it.
    one_dimensional : bool, optional
        `RegressionTargets.one_dimensional` of the earlier fit.

    Raises
    ------
    ValueError
        If values are missing, infinite or not numbers, or the outputs differ from those of the earlier fit.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    y = as_container(y, "y", EXPECTED_NUMBERS)
    columns, name = column_names(y), getattr(y, "name", None)
    values = _read_numbers(y)
    is_1d = values.ndim == 1
    values = values.reshape(len(values), -1)
    own = _output_names(values.shape[1], columns, name)
    if names is not None:
        values = _as_outputs(values, columns, own, list(names), is_1d)
        own, is_1d = list(names), is_1d if one_dimensional is None else one_dimensional
    mean, scale = _mean_and_scale(values, sample_weight)
    return RegressionTargets((values - mean) / scale, mean, scale, own, is_1d)


def _read_numbers(y) -> np.ndarray:
    """Convert y to float64, (n,) or (n, n_outputs)."""
    if hasattr(y, "columns"):
        given = y.to_numpy()
    elif sp.issparse(y):
        given = y.toarray()
    else:
        given = np.asarray(y.to_list() if hasattr(y, "to_list") else y)
    hint = "give numbers, or use GLiClassClassifier for classes."
    if given.dtype.kind in "mM":
        raise ValueError(f"A regressor needs numbers in y, got dates or durations ({given.dtype}); {hint}")
    if given.dtype.kind in "USTV" and given.size:
        raise ValueError(f"A regressor needs numbers in y, got text such as {str(given.flat[0])!r}; {hint}")
    if given.dtype.kind == "O":
        given = _numbers_of_objects(given, hint)
    values = check_array(given, ensure_2d=False, dtype="numeric", input_name="y").astype(np.float64)
    if values.ndim > 2:
        raise ValueError(f"y must be 1-D or 2-D, got {values.ndim} dimensions.")
    return values


def _numbers_of_objects(given: np.ndarray, hint: str) -> np.ndarray:
    missing = missing_rows(given.ravel().tolist())
    if missing:
        row = missing[0] // max(1, given[0].size if given.ndim > 1 else 1)
        raise ValueError(f"Input y contains NaN: {len(missing)} missing value(s), first at row {row}; drop these rows.")
    for value in given.flat:
        if isinstance(value, complex):
            raise ValueError(f"Complex data not supported: {value!r}.")
        if not isinstance(value, numbers.Number) or isinstance(value, (bool, np.bool_)):
            what = "text such as" if isinstance(value, str) else f"{type(value).__name__} such as"
            raise ValueError(f"A regressor needs numbers in y, got {what} {reprlib.repr(value)}; {hint}")
    try:
        return given.astype(np.float64)
    except OverflowError:
        raise ValueError("y holds an integer that is too large for a float; give y in other units.") from None


_DEFAULT_NAME = "target"  # of an output whose y has no name


def _output_names(n_outputs: int, columns: list | None, name) -> list[str]:
    """Return the default label texts of the outputs."""
    if columns is not None:
        texts = [str(column) for column in columns]
        repeated = _repeated(texts)
        if missing_rows(columns) or repeated:
            raise ValueError(f"The columns of y must have distinct names, got {columns!r}; rename them.")
        return texts
    if n_outputs == 1:
        return [name if isinstance(name, str) and name else _DEFAULT_NAME]
    return [f"{_DEFAULT_NAME} {i}" for i in range(n_outputs)]


def _as_outputs(values, columns, own: list[str], names: list[str], is_1d: bool) -> np.ndarray:
    """Bring the values into the order of the outputs of an earlier fit."""
    if values.shape[1] != len(names):
        shape = "is 1-D" if is_1d else f"has {values.shape[1]} columns"
        raise ValueError(f"y {shape}, but the earlier fit had the {len(names)} output(s) {names!r}; give these.")
    # A single unnamed output has no name to match.
    if columns is None or names == [_DEFAULT_NAME]:
        return values
    return values[:, column_positions(own, names, "the outputs of the earlier fit")]


def _mean_and_scale(values: np.ndarray, sample_weight) -> tuple[np.ndarray, np.ndarray]:
    weight = np.ones(len(values)) if sample_weight is None else sample_weight
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(values, axis=0, weights=weight)
        deviations = values - mean
        # Scaled by a power of two, which is exact: squares of very large or small values would overflow or underflow.
        exponent = np.frexp(np.abs(deviations).max(axis=0))[1]
        variance = np.average(np.ldexp(deviations, -exponent) ** 2, axis=0, weights=weight)
        scale = np.ldexp(np.sqrt(variance), exponent)
    if not np.isfinite(scale).all():
        raise ValueError(
            f"y is too large to be standardised (up to {np.abs(values).max():.3g}); give it in other units."
        )
    # A constant output. The bound is relative, so that the units of y do not matter.
    scale[scale <= 10 * np.finfo(float).eps * np.abs(mean)] = 1.0
    return mean, scale
