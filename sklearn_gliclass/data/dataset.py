"""The training data set: tokenised once, batched anew in each epoch."""

import functools

import numpy as np

from ..process_group import SINGLE, ProcessGroup
from .batching import Batch, bucketed_batches, choose_labels, label_chunks
from .label_groups import LabelGroups
from .own_labels import OwnLabels
from .prompt import Layout
from .tokenizer import TokenizedTexts
from .windows import MAX, MEAN, Windows

WINDOWS_AT_ONCE = 16  # of a forward pass in training


class TextDataset:
    """Tokenised texts and targets for the training.

    Parameters
    ----------
    layout : Layout
        Layout of the sequences.
    tokens : TokenizedTexts
        Token ids of the n texts.
    targets : ndarray
        Class indices (n,), or indicators, probabilities or values (n, labels). With `groups`, the label of each target
        (n, targets), or -1 where it is not known.
    sample_weight : ndarray of shape (n,), (n, labels) or (n, targets)
        Weights of the samples, or of each of their labels or targets.
    n_labels : int
        Number of labels.
    max_num_classes : int or None
        Maximum number of labels in a prompt. If None, all.
    shuffle_labels : bool
        Whether the labels of each prompt are in random order.
    texts : sequence of str, optional
        The texts, for reference and value models.
    groups : LabelGroups, optional
        Labels of each target, if there are several targets.
    own_labels : OwnLabels, optional
        How the targets are read if each text has labels of its own. A training prompt then has these only; where the
        texts of a batch share the labels, it has those of all of them, and texts with the same labels are batched
        together.
    windows : Windows, optional
        Windows of the texts, in place of `tokens`. The logits of a text are those of its windows, joined.
    long_texts : {"mean", "max"}, default="mean"
        How they are joined.
    """

    label_states = None  # cached output of a frozen label encoder
    min_evaluation_batch = 1  # a larger one is as accurate, and faster where only heads run

    def __init__(self, layout: Layout, tokens: TokenizedTexts, targets, sample_weight, n_labels, max_num_classes,
                 shuffle_labels, texts=None, groups: LabelGroups | None = None,
                 own_labels: OwnLabels | None = None, windows: Windows | None = None, long_texts=MEAN):  # fmt: skip
        self.layout = layout
        self.tokens = tokens if windows is None else windows.tokens
        self.windows = windows
        self.long_texts = long_texts
        self.targets = targets
        self.sample_weight = sample_weight
        self.n_labels = n_labels
        self.max_labels = n_labels if max_num_classes is None else min(max_num_classes, n_labels)
        self.shuffle_labels = shuffle_labels
        self.texts = texts
        self.groups = groups
        self.own_labels = own_labels
        self.all_labels = np.arange(n_labels)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row):
        """Return token ids and target of one text, as skorch's helpers expect."""
        return self.token_lists[row], self.targets[row]

    @property
    def token_lists(self) -> TokenizedTexts | list[np.ndarray]:
        """Token ids of each text, with those of its windows one after the other."""
        if self.windows is None:
            return self.tokens
        return np.split(self.tokens.ids, self.tokens.offsets[self.windows.starts[1:-1]])

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text."""
        return self.tokens.lengths if self.windows is None else self.windows.text_lengths

    def evaluation_batches(self, batch_size: int, rows: np.ndarray | None = None, group: ProcessGroup = SINGLE):
        """Yield batches of `rows` by length, with all labels in their order, in chunks that fit a prompt.

        The inputs of a label encoder are not in them; they are the same for all batches, see
        :meth:`evaluation_labels`.
        """
        chunks = self._evaluation_chunks()
        chosen = np.arange(len(self)) if rows is None else rows
        plan = (chosen[part] for part in bucketed_batches(self.lengths[chosen], batch_size, None))
        for rows in (part for batch in plan for part in self._parts(batch)):
            labels = self.targets[rows]
            if self.groups is not None:
                labels = self.groups.probabilities(labels, np.broadcast_to(self.all_labels, (len(rows), self.n_labels)))
            if self.own_labels is not None:
                labels = self.own_labels.of_prompts(labels, [self.all_labels] * len(rows))
            targets = {"labels": labels, "sample_weight": self.sample_weight[rows]}
            own = rows[group.own(len(rows))]
            yield Batch(targets, rows, chunks=[self._sequence_inputs(own, [chunk] * len(own)) for chunk in chunks])

    def evaluation_labels(self) -> list[dict[str, np.ndarray]]:
        """Return the inputs of the label encoder for each chunk; empty without a label encoder."""
        return [self._label_inputs([chunk]) for chunk in self._evaluation_chunks()]

    def _evaluation_chunks(self) -> list[np.ndarray]:
        """Return the labels of each evaluation; one does for labels that are encoded already, apart from the texts."""
        return label_chunks(self.n_labels, self.max_labels if self.label_states is None else None)

    def batches(
        self, batch_size: int, rng: np.random.RandomState | None, accumulate: int = 1, group: ProcessGroup = SINGLE
    ):
        """Yield the batches of one training epoch, in random order, or in a fixed one if `rng` is None.

        The targets and weights are those of all rows, and the other inputs those of the rows of this process.
        """
        plan = bucketed_batches(self.lengths, batch_size, rng, self._groups)
        for first in range(0, len(plan), accumulate):
            step = [part for batch in plan[first : first + accumulate] for part in self._parts(batch)]
            orders = [self._orders(rows, rng) for rows in step]
            weights = [self._weight(rows, order) for rows, order in zip(step, orders, strict=True)]
            total = sum(weights)
            for number, (rows, order, weight) in enumerate(zip(step, orders, weights, strict=True), start=1):
                inputs = self._inputs(rows, order, group.own(len(rows)))
                share = weight / total if total > 0 else 0.0
                yield Batch(inputs, rows, share, number == len(step), orders=self._stack(order))

    @functools.cached_property
    def _groups(self) -> np.ndarray | None:
        """Groups of texts that are batched together: those with the same labels, where a batch shares its labels.

        A batch of texts with different labels would have many labels to encode.
        """
        if self.own_labels is None or not self.layout.shares_labels:
            return None
        return self.own_labels.groups(self.targets)

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Split a batch into parts of at most `WINDOWS_AT_ONCE` windows, but of at least one text."""
        if self.windows is None:
            return [rows]
        total = np.cumsum(np.diff(self.windows.starts)[rows])
        return np.split(rows, np.flatnonzero(np.diff((total - 1) // WINDOWS_AT_ONCE)) + 1)

    def _sequence_inputs(self, rows: np.ndarray, orders, with_labels: bool = False) -> dict[str, np.ndarray]:
        """Build the inputs of texts or of their windows, with the labels of each, optionally with a label encoder's."""
        joined = {}
        if self.windows is not None:
            rows, place = self.windows.of_texts(rows)
            orders = [orders[text] for text in place]
            joined = {"window_index": place, "takes_max": np.array(self.long_texts == MAX)}
        labels = self._label_inputs(orders) if with_labels else {}
        return {**self._text_inputs(rows, orders), **labels, **joined}

    def _orders(self, rows: np.ndarray, rng) -> list[np.ndarray]:
        """Return the labels of each sample, in the order of its prompt."""
        if self.own_labels is not None:
            return self._own_orders(self.own_labels.offered(self.targets[rows]), rng)
        if self.max_labels == self.n_labels and (rng is None or not self.shuffle_labels):
            return [self.all_labels] * len(rows)
        if rng is None:
            rng = np.random.RandomState(rows[0])
        if self.layout.shares_labels:
            return [self._shared_order(rows, rng)] * len(rows)
        if self.max_labels == self.n_labels:
            return [rng.permutation(self.n_labels) for _ in rows]
        orders = [choose_labels(self._own(row), self.n_labels, self.max_labels, rng) for row in rows]
        return orders if self.shuffle_labels else [np.sort(order) for order in orders]

    def _own_orders(self, offered: np.ndarray, rng) -> list[np.ndarray]:
        """Return the labels that each sample offers, or those of all samples where they share them."""
        if self.layout.shares_labels:
            return [np.flatnonzero(offered.any(axis=0))] * len(offered)
        orders = [
            choose_labels(np.flatnonzero(row), self.n_labels, min(self.max_labels, row.sum()), rng) for row in offered
        ]
        return orders if self.shuffle_labels else [np.sort(order) for order in orders]

    def _stack(self, orders) -> np.ndarray | None:
        """Return the labels of each prompt (n, labels); None where prompts may differ in length."""
        return None if self.own_labels is not None else np.stack(orders)

    def _shared_order(self, rows: np.ndarray, rng) -> np.ndarray:
        """Choose one set of labels for the batch: those of its samples and random other ones."""
        if self.max_labels == self.n_labels:
            return self.all_labels
        own = np.unique(np.concatenate([self._own(row) for row in rows]))
        return np.sort(choose_labels(own, self.n_labels, max(self.max_labels, len(own)), rng))

    def _own(self, row: int) -> np.ndarray:
        target = np.atleast_1d(self.targets[row])
        if self.groups is not None:
            return target[target >= 0]
        return target if self.targets.ndim == 1 else np.flatnonzero(target > 0)

    def _weight(self, rows: np.ndarray, orders) -> float:
        """Return the total weight that the loss of the batch is divided by."""
        weight = self.sample_weight[rows]
        if self.groups is not None:
            return float(weight.sum())
        if self.own_labels is not None:
            offered = self.own_labels.offered(self.targets[rows])
            return float(weight.sum() if self.own_labels.is_exclusive else weight @ offered.sum(axis=1))
        if weight.ndim == 2:
            return float(np.take_along_axis(weight, np.stack(orders), axis=1).sum())
        if self.targets.ndim == 1:
            return float(weight.sum())
        return float(sum(w * len(order) for w, order in zip(weight, orders, strict=True)))

    def _inputs(self, rows: np.ndarray, orders, own: slice) -> dict[str, np.ndarray]:
        inputs = self._sequence_inputs(rows[own], orders[own], with_labels=True)
        targets, weight = self.targets[rows], self.sample_weight[rows]
        if self.own_labels is not None:
            return {**inputs, "labels": self.own_labels.of_prompts(targets, orders), "sample_weight": weight}
        orders = np.stack(orders)  # all samples have the same number of labels
        if self.groups is not None:
            labels = self.groups.probabilities(targets, orders)
            return {**inputs, "labels": labels, "sample_weight": weight, "class_ids": targets}
        if weight.ndim == 2:
            weight = np.take_along_axis(weight, orders, axis=1)
        if self.targets.ndim == 1:
            labels = (orders == targets[:, None]).argmax(axis=1)
            return {**inputs, "labels": labels, "sample_weight": weight, "class_ids": targets}
        labels = np.take_along_axis(targets, orders, axis=1)
        return {**inputs, "labels": labels, "sample_weight": weight}

    def _text_inputs(self, rows: np.ndarray, orders):
        return self.layout.text_batch([self.tokens[row] for row in rows], orders)

    def _label_inputs(self, orders):
        return self.layout.label_inputs(orders)


class Epochs:
    """Iterable over the batches of an epoch for skorch; without `rng`, over those of validation."""

    def __init__(self, dataset: TextDataset, batch_size: int, rng=None, accumulate: int = 1, group=SINGLE):
        self.dataset, self.batch_size, self.rng, self.accumulate = dataset, batch_size, rng, accumulate
        self.group = group

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        if self.rng is None:
            batches = self.dataset.evaluation_batches(self.batch_size, group=self.group)
        else:
            batches = self.dataset.batches(self.batch_size, self.rng, self.accumulate, self.group)
        for batch in batches:
            yield batch, batch.inputs["labels"]
