"""Metrics of predictions, as text and as numbers."""

from typing import Any

import numpy as np
from sklearn import metrics

_ZERO: Any = 0  # for `zero_division`, whose default is a string in scikit-learn


def classification_metrics(truth, predicted) -> dict[str, float]:
    """Compute metrics of classes, or of indicator matrices (multi-label)."""
    if np.ndim(predicted) == 2:
        return {
            "subset_accuracy": float(metrics.accuracy_score(truth, predicted)),
            "f1_micro": float(metrics.f1_score(truth, predicted, average="micro", zero_division=_ZERO)),
            "f1_macro": float(metrics.f1_score(truth, predicted, average="macro", zero_division=_ZERO)),
        }
    return {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(metrics.recall_score(truth, predicted, average="macro", zero_division=_ZERO)),
        "f1_macro": float(metrics.f1_score(truth, predicted, average="macro", zero_division=_ZERO)),
    }


def regression_metrics(truth, predicted) -> dict[str, float]:
    """Compute metrics of numbers."""
    return {
        "r2": float(metrics.r2_score(truth, predicted)) if len(truth) > 1 else float("nan"),
        "mean_absolute_error": float(metrics.mean_absolute_error(truth, predicted)),
        "root_mean_squared_error": float(metrics.root_mean_squared_error(truth, predicted)),
    }


def report(values: dict[str, float], truth=None, predicted: Any = None, names=None) -> str:
    """Format metrics as lines, followed by a table of the classes."""
    width = max(map(len, values))
    lines = [f"{name:<{width}}  {value:.4f}" for name, value in values.items()]
    if truth is not None:
        options: dict[str, Any] = {"target_names": names} if np.ndim(predicted) == 2 else {}
        lines += ["", metrics.classification_report(truth, predicted, zero_division=_ZERO, **options)]
    return "\n".join(lines)
