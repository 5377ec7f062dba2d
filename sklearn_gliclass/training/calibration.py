"""Temperature scaling: the temperature of held-out logits (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ..samples import Samples, class_indices, class_shares, split_targets
from .arguments import FROM_PROBE

LOG_TEMPERATURE_DEVIATION = 0.7  # standard deviation of the log-normal prior, whose median is 1
MAX_LOG_TEMPERATURE = 3.0

# From this number of rows on, fine-tuning from a label probe holds out a fraction of them.
MIN_ROWS_TO_HOLD_OUT, HELD_OUT_FRACTION, MAX_HELD_OUT = 1000, 0.1, 500


def count_held_out(estimator, recipe, n_rows: int) -> int:
    """Return the number of rows that are held out for the temperature."""
    calibrates = recipe.regime is FROM_PROBE and estimator.calibrate == "auto"
    if not calibrates or n_rows < MIN_ROWS_TO_HOLD_OUT:
        return 0
    return min(round(HELD_OUT_FRACTION * n_rows), MAX_HELD_OUT)


def split_halves(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Split samples into halves of each class; equal texts are in the same half, whatever their order.

    Parameters
    ----------
    samples : Samples
        Samples with one class each, or rows of probabilities. With several targets, the halves are those of each class
        of the first one.

    Returns
    -------
    first, second : ndarray
        Row numbers, ascending.

    Examples
    --------
    >>> samples = Samples(["d", "a", "b", "a", "c"], np.array([1, 0, 0, 0, 1]), np.ones(5), ["x", "y"], "")
    >>> split_halves(samples)
    (array([1, 3, 4]), array([0, 2]))
    """
    classes = samples.targets[:, 0] if samples.groups is not None else class_indices(samples.targets)
    half_of_text = {}
    for label in np.unique(classes):
        texts = sorted({samples.texts[row] for row in np.flatnonzero(classes == label)} - half_of_text.keys())
        half_of_text.update({text: number % 2 for number, text in enumerate(texts)})
    halves = np.fromiter((half_of_text[text] for text in samples.texts), int, len(samples))
    return np.flatnonzero(halves == 0), np.flatnonzero(halves == 1)


def fit_temperature(logits: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray) -> float:
    """Fit the temperature that the logits are divided by.

    Parameters
    ----------
    logits : ndarray of shape (n, labels)
        Logits of a model that has not been trained on these samples.
    targets : ndarray
        Class indices (n,), or probabilities (n, labels).
    sample_weight : ndarray of shape (n,)
        Weights of the samples.

    Returns
    -------
    float
        Temperature with the highest posterior. A log-normal prior around 1 limits what a few samples can change.

    Examples
    --------
    >>> logits = np.array([[2.0, 0.0]] * 2000)     # the probability of the first class is 0.88
    >>> targets = np.arange(2000) % 4 // 3         # and 0.75 is true
    >>> round(1 / (1 + math.exp(-2.0 / fit_temperature(logits, targets, np.ones(2000)))), 2)
    0.75
    """
    shares = class_shares(targets, logits.shape[1])

    def loss(log_temperature):
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=1)
        likelihood = (sample_weight * (shares * log_probabilities).sum(axis=1)).sum()
        return (log_temperature / LOG_TEMPERATURE_DEVIATION) ** 2 / 2 - likelihood

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def fit_temperatures(logits: np.ndarray, data) -> np.ndarray:
    """Fit the temperature of each target to all its known samples; see :func:`fit_temperature`.

    Parameters
    ----------
    logits : ndarray of shape (n, labels)
        Logits of the labels of all targets.
    data : Samples or TextDataset
        The n samples.

    Returns
    -------
    ndarray of shape (n_targets,)
        The temperatures; one without several targets. It is NaN for a target without a known sample.
    """
    return np.array(
        [
            fit_temperature(logits[part.rows, part.labels], part.targets, part.sample_weight)
            if len(part.rows)
            else np.nan
            for part in split_targets(data, logits.shape[1])
        ]
    )
