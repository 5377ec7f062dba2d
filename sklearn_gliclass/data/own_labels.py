"""Labels that each text has of its own: the targets of a mixture of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OwnLabels:
    """How the targets (n, labels) of texts with label sets of their own are read.

    Attributes
    ----------
    not_offered : float
        Target of the labels that a text does not offer.
    is_exclusive : bool
        Whether exactly one label of each text holds, with a softmax over its labels.
    """

    not_offered: float
    is_exclusive: bool

    def offered(self, targets: np.ndarray) -> np.ndarray:
        """Return whether each text offers each label.

        Examples
        --------
        >>> OwnLabels(-1.0, is_exclusive=True).offered(np.array([[1.0, -1.0, 0.0]])).tolist()
        [[True, False, True]]
        """
        return targets != self.not_offered

    def groups(self, targets: np.ndarray) -> np.ndarray:
        """Return a number for each text, which is the same for texts that offer the same labels.

        Examples
        --------
        >>> targets = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
        >>> OwnLabels(-1.0, is_exclusive=True).groups(targets).tolist()
        [0, 1, 0]
        """
        numbers: dict[bytes, int] = {}
        keys = (row.tobytes() for row in np.packbits(self.offered(targets), axis=1))
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys])

    def of_prompts(self, targets: np.ndarray, orders: Sequence[np.ndarray]) -> np.ndarray:
        """Return the targets of the labels of prompts, which may differ in length.

        Parameters
        ----------
        targets : ndarray of shape (n, n_labels)
            Targets of all labels.
        orders : sequence of ndarray
            Labels of each prompt.

        Returns
        -------
        ndarray of shape (n, labels), or (n, 1, labels) with exclusive labels
            The targets; `not_offered` beyond the end of shorter prompts.

        Examples
        --------
        >>> own = OwnLabels(-100.0, is_exclusive=False)
        >>> own.of_prompts(np.array([[1.0, -100.0, 0.0], [-100.0, 1.0, -100.0]]), [np.array([2, 0]), np.array([1])])
        array([[   0.,    1.],
               [   1., -100.]])
        """
        values = np.full((len(orders), max(map(len, orders))), self.not_offered, targets.dtype)
        for row, (target, order) in enumerate(zip(targets, orders, strict=True)):
            values[row, : len(order)] = target[order]
        return values[:, None] if self.is_exclusive else values
