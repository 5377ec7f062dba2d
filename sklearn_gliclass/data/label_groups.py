"""Labels of several targets: consecutive groups of label columns, of which one label each holds for a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MISSING = -1  # class index of a target whose class is not known
OF_OTHER_TARGETS = -1.0  # probability that marks the labels of other targets


class LabelGroups:
    """The labels of several targets, in groups of consecutive label columns.

    Parameters
    ----------
    sizes : sequence of int
        Number of labels of each target.

    Attributes
    ----------
    slices : list of slice
        Label columns of each target.
    target_of_label : ndarray of shape (n_labels,)
        Target of each label.

    Examples
    --------
    >>> groups = LabelGroups([2, 3])
    >>> groups.target_of_label.tolist()
    [0, 0, 1, 1, 1]
    >>> [part.tolist() for part in groups.split(np.arange(5)[None])]
    [[[0, 1]], [[2, 3, 4]]]
    """

    def __init__(self, sizes: Sequence[int]):
        ends = np.cumsum(sizes).tolist()
        self.slices = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        self.target_of_label = np.repeat(np.arange(len(sizes)), sizes)

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def largest(self) -> int:
        """Largest number of labels of a target."""
        return max(part.stop - part.start for part in self.slices)

    def split(self, values) -> list:
        """Split values with one column per label into those of each target."""
        return [values[:, part] for part in self.slices]

    def probabilities(self, targets: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """Return the probabilities of the labels of prompts, for each target of their texts.

        Parameters
        ----------
        targets : ndarray of shape (n, n_targets)
            Label of each target, as an index among all labels, or `MISSING`.
        orders : ndarray of shape (n, labels)
            Labels of each prompt.

        Returns
        -------
        ndarray of shape (n, n_targets, labels), float32
            1 at the label of the target, 0 at its other labels, and `OF_OTHER_TARGETS` at those of other targets.

        Examples
        --------
        >>> LabelGroups([2, 2]).probabilities(np.array([[0, 3]]), np.array([[3, 0, 1, 2]])).tolist()
        [[[-1.0, 1.0, 0.0, -1.0], [1.0, -1.0, -1.0, 0.0]]]
        """
        is_own = self.target_of_label[orders][:, None] == np.arange(len(self))[:, None]  # (n, n_targets, labels)
        is_true = orders[:, None] == targets[:, :, None]
        return np.where(is_own, is_true, np.float32(OF_OTHER_TARGETS)).astype(np.float32)


def predict_outputs(logits: list[np.ndarray], classes: list[np.ndarray]) -> np.ndarray:
    """Return the most probable class of each target, (n, n_targets), of dtype object if their types differ.

    Parameters
    ----------
    logits : list of ndarray of shape (n, labels)
        Logits of each target.
    classes : list of ndarray of shape (labels,)
        Classes of each target.

    Examples
    --------
    >>> logits = [np.array([[2.0, 0.5]]), np.array([[0.0, 1.0]])]
    >>> predict_outputs(logits, [np.array(["angry", "glad"]), np.array([1, 5])])
    array([['angry', 5]], dtype=object)
    """
    columns = [values[part.argmax(axis=1)] for part, values in zip(logits, classes, strict=True)]
    if len({column.dtype.kind for column in columns}) == 1:
        return np.stack(columns, axis=1)
    result = np.empty((len(columns[0]), len(columns)), object)
    for place, column in enumerate(columns):
        result[:, place] = list(column) if column.dtype.kind in "mM" else column.tolist()
    return result
