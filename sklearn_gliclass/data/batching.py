"""Batching by length: padding, token budgets for inference, buckets for training.

torch is imported late, as :mod:`sklearn_gliclass.onnx` uses this module without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

TEXTS_AT_ONCE = 50_000  # texts whose token ids are in memory at a time, in inference

# Texts are sorted by length within windows, at most this many batches long and at least this many in number. With fewer
# windows, the batches of one epoch would be nearly those of the previous one, and would group texts of one class.
WINDOW_BATCHES, MIN_WINDOWS = 50, 8


def pad(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad token ids on the right to (batch, length), and return them with the mask of real tokens.

    Examples
    --------
    >>> ids, mask = pad([np.array([5, 6, 7]), np.array([8])], pad_id=0)
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), pad_id, np.int64)
    mask = np.zeros((len(sequences), longest), np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts, sorted, and the index of each text among them.

    Examples
    --------
    >>> unique, inverse = distinct_texts(["b", "a", "b"])
    >>> unique, inverse.tolist()
    (['a', 'b'], [1, 0, 1])
    """
    unique = sorted(set(texts))
    position = {text: row for row, text in enumerate(unique)}
    return unique, np.fromiter(map(position.__getitem__, texts), np.int64, len(texts))


def plan_batches(lengths: np.ndarray, max_tokens: int) -> tuple[np.ndarray, list[slice]]:
    """Return the order of the texts by length, and the slices of this order that are batches.

    Examples
    --------
    >>> order, batches = plan_batches(np.array([9, 1, 8, 2]), max_tokens=16)
    >>> [order[batch].tolist() for batch in batches]
    [[1, 3], [2], [0]]
    """
    order = np.argsort(lengths, kind="stable")
    return order, list(token_budget_batches(lengths[order], max_tokens))


def token_budget_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[slice]:
    """Split ascending `lengths` into slices of at most `max_tokens` padded tokens, with at least one text."""
    first = 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or (last + 1 - first) * lengths[last] > max_tokens:
            yield slice(first, last)
            first = last


def bucketed_batches(
    lengths: np.ndarray, batch_size: int, rng: np.random.RandomState | None, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Build random batches of texts of similar lengths and nearly equal sizes.

    The texts are shuffled, sorted by length within windows of several batches, and split; then the batches are
    shuffled. Small data sets have small windows, down to one batch. If `rng` is None, the texts are sorted and not
    shuffled.

    With `groups`, the group of each text, texts of one group come together in batches, and groups are sorted by their
    mean length in place of texts.

    Examples
    --------
    >>> [batch.tolist() for batch in bucketed_batches(np.array([9, 1, 8, 2]), 2, None)]
    [[1, 3], [2, 0]]
    >>> [len(batch) for batch in bucketed_batches(np.ones(34), 32, None)]
    [17, 17]
    >>> [batch.tolist() for batch in bucketed_batches(np.array([9, 1, 8, 2]), 2, None, groups=np.array([0, 0, 1, 1]))]
    [[1, 0], [3, 2]]
    """
    n = len(lengths)
    if not n:
        return []
    n_batches = -(-n // batch_size)
    mean_lengths = lengths if groups is None else _group_means(lengths, groups)
    # Groups of the same mean length stay apart, and each text of a large group is beside those of its length.
    keys = (mean_lengths,) if groups is None else (lengths, groups, mean_lengths)
    if rng is None:
        return np.array_split(np.lexsort(keys), n_batches)
    order = rng.permutation(n)
    if groups is not None:
        order = order[np.argsort(rng.permutation(groups.max() + 1)[groups[order]], kind="stable")]
    batches = np.array_split(order, n_batches)  # views of `order`, which the sort below changes
    ends = np.cumsum([len(batch) for batch in batches])
    per_window = max(1, min(WINDOW_BATCHES, n_batches // MIN_WINDOWS))
    for window in np.split(order, ends[per_window - 1 : -1 : per_window]):
        window[:] = window[np.lexsort([key[window] for key in keys])]
    return [batches[i] for i in rng.permutation(n_batches)]


def _group_means(lengths: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return for each text the mean length of its group."""
    return (np.bincount(groups, weights=lengths) / np.bincount(groups).clip(1))[groups]


def label_chunks(n_labels: int, size: int | None) -> list[np.ndarray]:
    """Split the labels into chunks of `size` that share a prompt in prediction; if None, into one chunk.

    Examples
    --------
    >>> [chunk.tolist() for chunk in label_chunks(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    labels = np.arange(n_labels)
    return [labels[first : first + (size or n_labels)] for first in range(0, n_labels, size or n_labels)]


def choose_labels(own: np.ndarray, n_labels: int, max_labels: int, rng: np.random.RandomState) -> np.ndarray:
    """Choose the labels of a training prompt: the sample's own and random other ones, in random order.

    If a sample has more than `max_labels` labels of its own, a random subset of them is chosen.
    """
    if len(own) >= max_labels:
        return rng.permutation(own)[:max_labels]
    others = np.setdiff1d(np.arange(n_labels), own, assume_unique=True)
    others = rng.permutation(others)[: max_labels - len(own)]
    return rng.permutation(np.concatenate([own, others]))


class Batch:
    """Inputs of the model for a batch, with the length that skorch needs.

    Attributes
    ----------
    inputs : dict of str to Tensor
        Keyword arguments of the model, including `labels` and `sample_weight`. In validation, only these two.
    rows : ndarray
        Rows of the samples in the data set.
    share : float
        Fraction of the total sample weight of the optimiser step; 1 without gradient accumulation.
    last_of_step : bool
        Whether an optimiser step follows.
    chunks : list of dict
        Inputs of the model for each chunk of labels in validation, without those of a label encoder.
    orders : ndarray of shape (n, labels), or None
        Label in each column, in training.
    """

    def __init__(self, inputs, rows: np.ndarray, share: float = 1.0, last_of_step: bool = True, chunks=(),
                 orders: Any = None):  # fmt: skip
        self.inputs = tensors(inputs)
        self.rows = rows
        self.share = share
        self.last_of_step = last_of_step
        self.orders = orders
        self.chunks = [tensors(chunk) for chunk in chunks]

    def __len__(self) -> int:
        return len(self.rows)


def tensors(arrays) -> dict[str, torch.Tensor]:
    """Convert the inputs of the model to tensors."""
    import torch

    return {name: torch.as_tensor(array) for name, array in arrays.items()}


def to_device(inputs: dict[str, torch.Tensor], device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Move tensors to a device, with floating point ones in `dtype`."""
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, non_blocking=True)
        for name, tensor in inputs.items()
    }
