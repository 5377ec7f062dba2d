"""Samples of a training, after reading and validation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .data.examples import NO_INSTRUCTIONS, Instructions


@dataclass(frozen=True)
class Samples:
    """Texts, targets and weights of a training.

    Attributes
    ----------
    texts : list of str
        One for each sample.
    targets : ndarray
        Class indices (n,), or indicators, probabilities or standardised values (n, n_labels).
    sample_weight : ndarray of shape (n,) or (n, n_labels)
        Weights of the samples, or of each of their labels.
    label_names : list of str
        Label texts.
    problem_type : str
        Problem type of the model's configuration.
    instructions : Instructions
        Task description and in-context examples.
    """

    texts: list[str]
    targets: np.ndarray
    sample_weight: np.ndarray
    label_names: list[str]
    problem_type: str
    instructions: Instructions = NO_INSTRUCTIONS

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def class_index(self) -> np.ndarray | None:
        """Class index of each sample (n,), or None for other targets."""
        return self.targets if self.targets.ndim == 1 else None

    def take(self, rows: np.ndarray) -> Samples:
        """Select samples by their rows."""
        texts = [self.texts[row] for row in rows]
        return replace(self, texts=texts, targets=self.targets[rows], sample_weight=self.sample_weight[rows])


def class_indices(targets: np.ndarray) -> np.ndarray:
    """Return the class index (n,) of single-label targets; a row of probabilities has its most probable class."""
    return targets if targets.ndim == 1 else targets.argmax(axis=1)


def class_shares(targets: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the probabilities (n, n_labels) of targets that are class indices, probabilities or indicators."""
    return np.eye(n_labels)[targets] if targets.ndim == 1 else targets
