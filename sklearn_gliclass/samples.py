"""What a fit trains on, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


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
        What the model reads for each label.
    problem_type : str
        The model's name of the problem.
    """

    texts: list[str]
    targets: np.ndarray
    sample_weight: np.ndarray
    label_names: list[str]
    problem_type: str

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def class_index(self) -> np.ndarray | None:
        """Class index of each sample (n,), where each has one class."""
        return self.targets if self.targets.ndim == 1 else None

    def take(self, rows: np.ndarray) -> Samples:
        """The samples in some rows."""
        texts = [self.texts[row] for row in rows]
        return replace(self, texts=texts, targets=self.targets[rows], sample_weight=self.sample_weight[rows])
