"""Samples of a training, after reading and validation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .annotations import ProblemType
from .data.examples import NO_INSTRUCTIONS, Instructions
from .data.label_groups import MISSING, LabelGroups
from .data.own_labels import OwnLabels


@dataclass(frozen=True)
class Samples:
    """Texts, targets and weights of a training.

    Attributes
    ----------
    texts : list of str
        One for each sample.
    targets : ndarray
        Class indices (n,), or indicators, probabilities or standardised values (n, n_labels). With `groups`, the label
        of each target (n, n_targets), or -1 where it is not known.
    sample_weight : ndarray of shape (n,), (n, n_labels) or (n, n_targets)
        Weights of the samples, or of each of their labels or targets.
    label_names : list of str
        Label texts.
    problem_type : str
        Problem type of the model's configuration.
    instructions : Instructions
        Task description and in-context examples.
    groups : LabelGroups or None
        Labels of each target, if there are several targets.
    own_labels : OwnLabels or None
        How the targets are read if each text has labels of its own.
    """

    texts: list[str]
    targets: np.ndarray
    sample_weight: np.ndarray
    label_names: list[str]
    problem_type: ProblemType
    instructions: Instructions = NO_INSTRUCTIONS
    groups: LabelGroups | None = None
    own_labels: OwnLabels | None = None

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


@dataclass(frozen=True)
class TargetPart:
    """One of the targets of a training, as a problem of its own.

    Attributes
    ----------
    labels : slice
        Its labels among those of all targets.
    rows : ndarray of shape (n,)
        Samples whose target is known, ascending.
    targets : ndarray
        Their targets: class indices (n,) among the labels of the target, or as in :class:`Samples`.
    sample_weight : ndarray
        Their weights.
    """

    labels: slice
    rows: np.ndarray
    targets: np.ndarray
    sample_weight: np.ndarray

    @property
    def n_labels(self) -> int:
        """Number of labels of the target."""
        return self.labels.stop - self.labels.start


def split_targets(data, n_labels: int) -> list[TargetPart]:
    """Return the targets of training data, each as a problem of its own; one target is one part.

    Parameters
    ----------
    data : Samples or TextDataset
        The data.
    n_labels : int
        Number of labels of all targets.

    Examples
    --------
    >>> targets, groups = np.array([[0, 3], [1, -1]]), LabelGroups([2, 2])
    >>> samples = Samples(["a", "b"], targets, np.ones((2, 2)), list("wxyz"), "", groups=groups)
    >>> [(part.rows.tolist(), part.targets.tolist()) for part in split_targets(samples, 4)]
    [([0, 1], [0, 1]), ([0], [1])]
    """
    targets, weight = data.targets, data.sample_weight
    if data.groups is None:
        return [TargetPart(slice(0, n_labels), np.arange(len(targets)), targets, weight)]
    parts = []
    for column, labels in enumerate(data.groups.slices):
        rows = np.flatnonzero(targets[:, column] != MISSING)
        classes = targets[rows, column] - labels.start
        parts.append(TargetPart(labels, rows, classes, weight[rows, column]))
    return parts


def class_indices(targets: np.ndarray) -> np.ndarray:
    """Return the class index (n,) of single-label targets; a row of probabilities has its most probable class."""
    return targets if targets.ndim == 1 else targets.argmax(axis=1)


def class_shares(targets: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the probabilities (n, n_labels) of targets that are class indices, probabilities or indicators.

    Class indices are (n,), or (n, n_targets) among the labels of several targets, where -1 is no label.
    """
    if targets.dtype.kind != "i":
        return targets
    shares = np.eye(n_labels + 1, n_labels)[targets]  # the last row, of the index -1, is 0
    return shares if targets.ndim == 1 else shares.sum(axis=1)
