"""Predictions of estimators as JSON values."""

from typing import Any

import numpy as np
from sklearn.base import is_regressor

from ..targets import MULTI, logits_to_probabilities


def is_multi_label(estimator) -> bool:
    """Return whether each label of the classifier is a decision of its own."""
    return not is_regressor(estimator) and estimator._kind == MULTI


def to_json(value) -> Any:
    """Convert a class, or an array of them, to types of JSON."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist() if value.dtype.kind not in "Mm" else value.astype(str).tolist()
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def class_names(classifier) -> list:
    """Return the classes; with several targets, a list with those of each."""
    return to_json(list(classifier.classes_))


def predictions(estimator, inputs: list) -> list:
    """Predict, with one entry for each input."""
    return _to_entries(estimator, estimator.predict(inputs))


def probabilities(classifier, inputs: list) -> list:
    """Compute probabilities, with one row for each input; with several targets, a list with a row for each."""
    values = classifier.predict_proba(inputs)
    if isinstance(values, list):
        return [list(row) for row in zip(*(part.tolist() for part in values), strict=True)]
    return values.tolist()


def classified(classifier, inputs: list) -> list[tuple]:
    """Compute probabilities and predictions, with one pair (row, entry) for each input."""
    logits = classifier._logits(inputs)
    rows = logits_to_probabilities(logits, classifier._kind).tolist()
    return list(zip(rows, _to_entries(classifier, classifier._decide(logits)), strict=True))


def _to_entries(estimator, predicted: np.ndarray) -> list:
    """Convert predictions to one entry for each text; for multi-label classifiers, the list of its labels."""
    if not is_multi_label(estimator):
        return to_json(predicted)
    names = class_names(estimator)
    return [[names[column] for column in np.flatnonzero(row)] for row in predicted]
