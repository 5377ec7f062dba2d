"""y -> labels, target tensor, weights; and logits back to y's form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, log_softmax, softmax
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from .inputs import is_missing

SINGLE, MULTI, SOFT = "single-label", "multi-label", "soft labels"
PROBLEM_TYPES = {
    SINGLE: "single_label_classification",
    SOFT: "single_label_classification",
    MULTI: "multi_label_classification",
}


@dataclass
class ClassTargets:
    """A classifier's y.

    Attributes
    ----------
    kind : {"single-label", "multi-label", "soft labels"}
    classes : ndarray of shape (n_classes,)
    array : ndarray
        Class indices (n,), or indicators or probabilities (n, n_classes).
    """

    kind: str
    classes: np.ndarray
    array: np.ndarray

    @property
    def problem_type(self) -> str:
        """The model's name of the problem."""
        return PROBLEM_TYPES[self.kind]

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows, keep_classes: bool) -> "ClassTargets":
        """The same for some rows; single-label classes that none of them has go, unless `keep_classes`."""
        array, classes = self.array[rows], self.classes
        if self.kind == SINGLE and not keep_classes:
            present, array = np.unique(array, return_inverse=True)
            classes = classes[present]
        return ClassTargets(self.kind, classes, array)

    def check_classes(self) -> "ClassTargets":
        """Raise unless there are two classes at least."""
        if len(self.classes) < 2:
            raise ValueError(
                "This classifier needs samples of at least 2 classes in the data, but the data contains only one "
                f"class: {self.classes.tolist()[0]!r}"
            )
        return self


def read_class_targets(y, problem_type=None, ignore_index=-100, classes=None) -> ClassTargets:
    """Read the y of a classifier.

    Parameters
    ----------
    y : array-like
        1-D: single-label. 2-D of 0 and 1 (ndarray, sparse, DataFrame): multi-label, where `ignore_index` marks
        an unknown label. 2-D rows of probabilities: soft labels.
    problem_type : str or None
        None: inferred. Otherwise y must fit it.
    ignore_index : int
        See `y`.
    classes : ndarray, optional
        Classes that are known already: y must hold no others.

    Raises
    ------
    ValueError
        A continuous or mixed y, one that does not fit `problem_type`, fewer than two classes, or new classes.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    names = getattr(y, "columns", None)
    table = _two_dimensional(y)
    targets = _single_label(y) if table is None else _label_table(table, names, ignore_index)
    targets = _fit_problem(targets, problem_type)
    if classes is not None:
        targets = _with_known_classes(targets, classes, named=names is not None)
    return targets.check_classes()


_EXPECTED = {
    "single_label_classification": "give a 1-D y with one class per sample or rows of probabilities, or leave "
    "problem_type=None.",
    "multi_label_classification": "give a 2-D indicator matrix of 0 and 1, or leave problem_type=None.",
}


def _fit_problem(targets: ClassTargets, problem_type) -> ClassTargets:
    """The targets as `problem_type` says, where they leave a choice."""
    if problem_type is None or PROBLEM_TYPES[targets.kind] == problem_type:
        return targets
    if problem_type == PROBLEM_TYPES[MULTI] and targets.kind == SOFT:
        return ClassTargets(MULTI, targets.classes, targets.array)
    if problem_type == PROBLEM_TYPES[SOFT] and targets.kind == MULTI and _sums_to_one(targets.array):
        return ClassTargets(SOFT, targets.classes, targets.array)
    raise ValueError(
        f"problem_type={problem_type!r} does not fit y, which is {targets.kind}; "
        + _EXPECTED.get(problem_type, "use GLiClassRegressor for regression.")
    )


def _with_known_classes(targets: ClassTargets, classes: np.ndarray, named: bool) -> ClassTargets:
    """The targets in terms of the classes of an earlier fit; `named`: the columns of y have names."""
    found = targets.classes
    if targets.kind == SINGLE:
        unknown = np.setdiff1d(found, classes)
        if len(unknown):
            raise ValueError(f"y has classes that were not among the classes of the first fit: {unknown.tolist()!r}.")
        return ClassTargets(SINGLE, classes, np.searchsorted(classes, found)[targets.array])
    if len(found) != len(classes) or (named and found.tolist() != classes.tolist()):
        raise ValueError(
            f"y has the columns {found.tolist()!r}, but the classes of the first fit are {classes.tolist()!r}; give "
            "one column for each, in this order."
        )
    return ClassTargets(targets.kind, classes, targets.array)


_LISTS_OF_LABELS = "turn lists of labels into an indicator matrix with sklearn.preprocessing.MultiLabelBinarizer."


def _two_dimensional(y):
    """The y as a dense 2-D array, or None where it is 1-D (a single column counts as 1-D)."""
    if sp.issparse(y):
        return y.toarray()
    if hasattr(y, "columns"):
        array = y.to_numpy()
    elif isinstance(y, (list, tuple)):
        array = _array_of_list(y)
    else:
        array = np.asarray(y)
    if array.ndim < 2 or (array.ndim == 2 and array.shape[1] == 1):
        return None
    if array.ndim > 2:
        raise ValueError(f"y must be 1-D or 2-D, got {array.ndim} dimensions.")
    return array


def _array_of_list(y) -> np.ndarray:
    if any(isinstance(value, (set, frozenset)) for value in y):
        raise ValueError(f"y holds sets; {_LISTS_OF_LABELS}")
    if len({len(value) if isinstance(value, (list, tuple)) else -1 for value in y}) > 1:
        raise ValueError(f"y holds lists of different lengths; {_LISTS_OF_LABELS}")
    return np.asarray(y)


def _single_label(y) -> ClassTargets:
    y = _check_values(y)
    y = column_or_1d(y, warn=True)
    if y.dtype.kind in "fc":
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    check_classification_targets(y)
    found, indices = np.unique(y, return_inverse=True)
    return ClassTargets(SINGLE, found, indices.astype(np.int64))


def _check_values(y):
    """The y as an array; missing classes, and texts among others, raise before NumPy turns them into texts."""
    if hasattr(y, "to_list") and not hasattr(y, "columns"):
        y = y.to_list()
    if hasattr(y, "columns"):
        y = y.to_numpy()
    if isinstance(y, (list, tuple)) or getattr(getattr(y, "dtype", None), "kind", None) == "O":
        values = np.asarray(y, dtype=object).ravel()
        missing = [row for row, value in enumerate(values) if is_missing(value)]
        if missing:
            raise ValueError(f"Input y contains NaN: {len(missing)} missing target(s), first at row {missing[0]}.")
        kinds = {type(value).__name__ for value in values}
        if len({isinstance(value, str) for value in values}) > 1:
            raise ValueError(f"y has classes of kinds that can't be sorted, {sorted(kinds)}; make all of them str.")
    return np.asarray(y)


def _label_table(table: np.ndarray, names, ignore_index: int) -> ClassTargets:
    try:
        if table.dtype.kind == "O":
            table = np.where(np.vectorize(is_missing, otypes=[bool])(table), np.nan, table)
        values = table.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "A 2-D y must be an indicator matrix of 0 and 1 or rows of probabilities, got values that are no numbers; "
            + _LISTS_OF_LABELS
        ) from error
    values = check_array(values, input_name="y")
    classes = np.arange(values.shape[1]) if names is None else np.asarray([*names])
    if np.isin(values, (0.0, 1.0, float(ignore_index))).all():
        return ClassTargets(MULTI, classes, values.astype(np.float32))
    if (values >= 0).all() and _sums_to_one(values):
        return ClassTargets(SOFT, classes, values)
    check_classification_targets(table)  # names the kind of y, where scikit-learn refuses it
    raise ValueError(
        f"Unknown label type: {type_of_target(table)}. A 2-D y must be an indicator matrix of 0 and 1, or rows of "
        "probabilities that sum to 1."
    )


def _sums_to_one(values: np.ndarray) -> bool:
    return np.allclose(values.sum(axis=1), 1.0, atol=1e-4)


def label_texts(label_names, classes: Sequence) -> list[str]:
    """What the model reads for each class.

    Parameters
    ----------
    label_names : dict, list or None
        {class: text}, or texts in the order of `classes`; None: ``str(class)``.
    classes : sequence
        The classes.

    Examples
    --------
    >>> label_texts({0: "spam", 1: "no spam"}, [0, 1])
    ['spam', 'no spam']
    """
    if label_names is None:
        texts = [str(value) for value in classes]
    elif isinstance(label_names, Mapping):
        missing = [value for value in np.asarray(classes).tolist() if value not in label_names]
        if missing:
            raise ValueError(f"label_names has no text for the class(es) {missing!r}; it has {list(label_names)!r}.")
        texts = [label_names[value] for value in classes]
    else:
        texts = list(label_names)
        if len(texts) != len(classes):
            raise ValueError(
                f"label_names has {len(texts)} texts for {len(classes)} labels; give one for each, in this order: "
                f"{np.asarray(classes).tolist()!r}."
            )
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"label_names must hold texts (str), got {type(text).__name__}: {text!r}.")
    repeated = sorted({text for text in texts if texts.count(text) > 1}) if len(set(texts)) < len(texts) else []
    if repeated:
        raise ValueError(
            f"Two classes have the same label text: {repeated!r}; the model tells labels apart by their texts. Give "
            "different ones with label_names."
        )
    return texts


def class_sample_weight(targets: ClassTargets, class_weight, sample_weight: np.ndarray) -> np.ndarray:
    """Sample weights times class weights: (n,), or for multi-label (n, n_classes).

    `class_weight` is None, "balanced" or {class: weight}. "balanced" gives all classes the same total, where a
    row counts with its weight. Multi-label: a weight is that of the class's positives; "balanced" gives the
    positives and the negatives of each class the same total. An unknown label weighs nothing.
    """
    is_known = (targets.array >= 0) & (targets.array <= 1) if targets.kind == MULTI else None
    if class_weight is None:
        return sample_weight if is_known is None or is_known.all() else sample_weight[:, None] * is_known
    balanced = isinstance(class_weight, str)
    if not balanced:
        weights = compute_class_weight(class_weight, classes=targets.classes, y=targets.classes)
    if targets.kind == MULTI:
        is_positive = targets.array == 1
        if balanced:
            of_positive, of_negative = _balance(
                np.stack([sample_weight @ is_positive, sample_weight @ (targets.array == 0)])
            )
        else:
            of_positive, of_negative = weights, 1.0
        return sample_weight[:, None] * np.where(is_positive, of_positive, of_negative) * is_known
    if targets.kind == SOFT:
        return sample_weight * (targets.array @ (_balance(sample_weight @ targets.array) if balanced else weights))
    if balanced:
        weights = _balance(np.bincount(targets.array, sample_weight, len(targets.classes)))
    return sample_weight * weights[targets.array]


def _balance(totals: np.ndarray) -> np.ndarray:
    """Weights that give each class (first axis) the same total, and all of them together what they had."""
    present = totals > 0
    return np.where(present, totals.sum(axis=0) / (present.sum(axis=0) * np.where(present, totals, 1.0)), 0.0)


def logits_to_probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """Softmax over the classes, or for multi-label a sigmoid of each."""
    return expit(logits) if kind == MULTI else softmax(logits, axis=1)


def logits_to_log_probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """The logarithm of the probabilities, computed from the logits."""
    return -np.logaddexp(0, -logits) if kind == MULTI else log_softmax(logits, axis=1)


def decision_values(logits: np.ndarray, kind: str) -> np.ndarray:
    """Logits (n, n_classes); for two classes of which one holds, the difference (n,)."""
    if kind != MULTI and logits.shape[1] == 2:
        return logits[:, 1] - logits[:, 0]
    return logits


@dataclass
class RegressionTargets:
    """A regressor's y, standardised.

    Attributes
    ----------
    array : ndarray of shape (n, n_outputs)
        Standardised values.
    mean, scale : ndarray of shape (n_outputs,)
        What turns them back.
    names : list of str
        Default texts of the outputs.
    one_dimensional : bool
        y was 1-D, and predictions are too.
    """

    array: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    names: list = field(default_factory=list)
    one_dimensional: bool = True

    def __len__(self) -> int:
        return len(self.array)

    problem_type = "regression"

    def rescale(self, mean: np.ndarray, scale: np.ndarray) -> "RegressionTargets":
        """The same values in other units."""
        array = (self.array * self.scale + self.mean - mean) / scale
        return RegressionTargets(array, mean, scale, self.names, self.one_dimensional)

    def take(self, rows) -> "RegressionTargets":
        """The same for some rows."""
        return RegressionTargets(self.array[rows], self.mean, self.scale, self.names, self.one_dimensional)


def read_regression_targets(y, sample_weight: np.ndarray | None = None) -> RegressionTargets:
    """Read the y of a regressor: 1-D, or 2-D for several outputs; mean and scale are weighted."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    names = getattr(y, "columns", None)
    name = getattr(y, "name", None)
    given = np.asarray(y)
    if given.dtype.kind in "US" and given.size:
        raise ValueError(
            f"A regressor needs numbers in y, got text such as {str(given.flat[0])!r}; give numbers, or take "
            "GLiClassClassifier for classes."
        )
    values = check_array(y, ensure_2d=False, dtype="numeric", input_name="y").astype(np.float64)
    if values.ndim > 2:
        raise ValueError(f"y must be 1-D or 2-D, got {values.ndim} dimensions.")
    one_dimensional = values.ndim == 1
    values = values.reshape(len(values), -1)
    weight = np.ones(len(values)) if sample_weight is None else sample_weight
    mean = np.average(values, axis=0, weights=weight)
    scale = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    scale[scale < 10 * np.finfo(float).eps * np.maximum(1.0, np.abs(mean))] = 1.0  # a constant output
    if names is not None and all(isinstance(column, str) for column in names):
        texts = list(names)
    elif values.shape[1] == 1:
        texts = [name if isinstance(name, str) and name else "target"]
    else:
        texts = [f"target {i}" for i in range(values.shape[1])]
    return RegressionTargets(((values - mean) / scale).astype(np.float64), mean, scale, texts, one_dimensional)
