"""Scores of quality.py: accuracy, F1, log loss, calibration error, R² and Spearman's correlation."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, r2_score

from quality_sets import Split

SCORES = ["accuracy", "macro_f1", "micro_f1", "log_loss", "ece", "r2", "spearman"]
BINS = 15
# The smallest probability in a log loss. Methods that compute in float32 give 0 for smaller ones.
SMALLEST = float(np.finfo(np.float32).eps)


def score(split: Split, predictions, probabilities=None) -> dict[str, float]:
    """Compute the scores of a task; `probabilities` have the columns ``split.classes``, and None is for regressions."""
    truth, predictions = split.y_test.to_numpy(), np.asarray(predictions)
    if split.task == "regression":
        return _score_regression(truth, predictions)
    macro_f1 = f1_score(truth, predictions, average="macro", zero_division=0)
    if split.task == "multi-label":
        micro_f1 = f1_score(truth, predictions, average="micro", zero_division=0)
        return {"micro_f1": micro_f1, "macro_f1": macro_f1, "log_loss": binary_log_loss(truth, probabilities)}
    return {
        "accuracy": accuracy_score(truth, predictions),
        "macro_f1": macro_f1,
        "log_loss": log_loss(truth, probabilities, split.classes),
        "ece": calibration_error(np.max(probabilities, axis=1), truth == predictions),
    }


def log_loss(truth: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> float:
    """Compute the mean negative log-probability of the true class, which is 0 for a class that is not in `classes`."""
    columns = pd.Index(classes).get_indexer(truth)  # -1 for classes without a column
    true = np.asarray(probabilities, dtype=np.float64)[np.arange(len(truth)), columns]
    return float(-np.log(np.clip(np.where(columns < 0, 0.0, true), SMALLEST, 1)).mean())


def binary_log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the binary cross-entropy of an indicator matrix, mean over rows and labels."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    true = np.where(truth == 1, probabilities, 1 - probabilities)
    return float(-np.log(np.clip(true, SMALLEST, 1)).mean())


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Compute the expected calibration error (ECE) of the top probabilities.

    The probabilities are sorted into 15 bins of equal width. The error is the mean of the bins' absolute difference
    between accuracy and mean probability, weighted by their numbers of rows (Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017).
    """
    bins = np.minimum((np.asarray(confidence, dtype=np.float64) * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=np.asarray(correct, dtype=np.float64) - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(bins))


def _score_regression(truth: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    columns = zip(truth.reshape(len(truth), -1).T, predictions.reshape(len(truth), -1).T, strict=True)
    correlations = [spearmanr(true, predicted).statistic for true, predicted in columns]
    return {"r2": r2_score(truth, predictions), "spearman": float(np.mean(correlations))}
