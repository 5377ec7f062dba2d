"""Predictions of estimators as JSON values."""

from numbers import Real

import numpy as np
from sklearn.base import is_regressor

from ..targets import MULTI


def is_multi_label(estimator) -> bool:
    """Return whether each label of the classifier is a decision of its own."""
    return not is_regressor(estimator) and estimator._kind == MULTI


def to_json(value):
    """Convert a class, or an array of them, to types of JSON."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist() if value.dtype.kind not in "Mm" else value.astype(str).tolist()
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def class_names(classifier) -> list:
    """Return the classes."""
    return to_json(list(classifier.classes_))


def predictions(estimator, inputs: list) -> list:
    """Predict, with one entry for each input."""
    values = estimator.predict(inputs)
    if is_multi_label(estimator):
        return _chosen(class_names(estimator), values)
    return to_json(values)


def probabilities(classifier, inputs: list) -> list:
    """Compute probabilities, with one row for each input."""
    return classifier.predict_proba(inputs).tolist()


def labels_from_probabilities(classifier, labels: tuple[str, ...], rows: list) -> list:
    """Choose the most probable label of each row, or for multi-label the labels at or above the threshold.

    Thresholds of single classes do not hold for other labels, which have 0.5.
    """
    values = np.asarray(rows)
    if is_multi_label(classifier):
        threshold = classifier.threshold if isinstance(classifier.threshold, Real) else 0.5
        return _chosen(labels, values >= threshold)
    return [labels[column] for column in values.argmax(axis=1)]


def _chosen(names, indicators: np.ndarray) -> list[list]:
    return [[names[column] for column in np.flatnonzero(row)] for row in indicators]
