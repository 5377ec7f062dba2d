"""Batches of like lengths: padding, token budgets for inference, buckets for training."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

# Lengths are sorted inside windows of at most so many batches, and of at least so many windows: with fewer an epoch
# would hold nearly the batches of the one before, and texts of one class, which are often of like lengths.
WINDOW_BATCHES, MIN_WINDOWS = 50, 8


def pad(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (batch, length), padded on the right to the longest, and the mask of real tokens.

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


def token_budget_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[slice]:
    """Cut ascending `lengths` into slices of at most `max_tokens` padded tokens (one text at least)."""
    first = 0
    for last in range(1, len(lengths) + 1):
        if last == len(lengths) or (last + 1 - first) * lengths[last] > max_tokens:
            yield slice(first, last)
            first = last


def bucketed_batches(lengths: np.ndarray, batch_size: int, rng: np.random.RandomState | None) -> list[np.ndarray]:
    """Random batches of texts of like lengths, as even in size as can be.

    The texts are shuffled; inside windows of many batches they are sorted by length and cut; then the batches
    are shuffled. Few texts make small windows, down to one batch. Without `rng`: one sort, no shuffling.

    Examples
    --------
    >>> [batch.tolist() for batch in bucketed_batches(np.array([9, 1, 8, 2]), 2, None)]
    [[1, 3], [2, 0]]
    >>> [len(batch) for batch in bucketed_batches(np.ones(34), 32, None)]
    [17, 17]
    """
    if not len(lengths):
        return []
    n_batches = -(-len(lengths) // batch_size)
    if rng is None:
        return np.array_split(np.argsort(lengths, kind="stable"), n_batches)
    order = rng.permutation(len(lengths))
    batches = np.array_split(order, n_batches)  # views: what is sorted in `order` is sorted in them
    ends = np.cumsum([len(batch) for batch in batches])
    per_window = max(1, min(WINDOW_BATCHES, n_batches // MIN_WINDOWS))
    for window in np.split(order, ends[per_window - 1 : -1 : per_window]):
        window[:] = window[np.argsort(lengths[window], kind="stable")]
    return [batches[i] for i in rng.permutation(n_batches)]


def label_chunks(n_labels: int, size: int | None) -> list[np.ndarray]:
    """The labels in the groups that share a prompt in prediction; `size` None: all in one.

    Examples
    --------
    >>> [chunk.tolist() for chunk in label_chunks(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    labels = np.arange(n_labels)
    return [labels[first : first + (size or n_labels)] for first in range(0, n_labels, size or n_labels)]


def choose_labels(own: np.ndarray, n_labels: int, max_labels: int, rng: np.random.RandomState) -> np.ndarray:
    """A sample's labels in training: its own and random others, `max_labels` in all, in random order.

    More own labels than `max_labels` are thinned at random.
    """
    if len(own) >= max_labels:
        return rng.permutation(own)[:max_labels]
    others = np.setdiff1d(np.arange(n_labels), own, assume_unique=True)
    others = rng.permutation(others)[: max_labels - len(own)]
    return rng.permutation(np.concatenate([own, others]))


class Batch:
    """Inputs of the model on their way through skorch, which asks for the number of samples.

    Attributes
    ----------
    inputs : dict of str to Tensor
        Keyword arguments of the model, `labels` and `sample_weight` among them; in validation these two alone.
    rows : ndarray
        The samples' rows in the data set.
    share : float
        The batch's part of the optimiser step's total weight (1 without gradient accumulation).
    last_of_step : bool
        An optimiser step follows.
    chunks : list of dict
        In validation: the model's inputs for one chunk of the labels after the other, without those of a label
        encoder.
    orders : ndarray of shape (n, labels), or None
        In training: which labels stand in the columns.
    """

    def __init__(self, inputs, rows: np.ndarray, share: float = 1.0, last_of_step: bool = True, chunks=(),
                 orders=None):  # fmt: skip
        self.inputs = tensors(inputs)
        self.rows = rows
        self.share = share
        self.last_of_step = last_of_step
        self.orders = orders
        self.chunks = [tensors(chunk) for chunk in chunks]

    def __len__(self) -> int:
        return len(self.rows)


def tensors(arrays) -> dict[str, torch.Tensor]:
    """Inputs of the model as tensors."""
    return {name: torch.as_tensor(array) for name, array in arrays.items()}


def to_device(inputs: dict[str, torch.Tensor], device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors on a device, floating ones in `dtype`."""
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, non_blocking=True)
        for name, tensor in inputs.items()
    }
