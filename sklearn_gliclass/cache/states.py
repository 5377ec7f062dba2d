"""Hidden states of many texts, and the training data set that holds them in place of token ids."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import TextDataset
from ..data.windows import Windows

POOLED_BATCH = 256  # pooled texts that heads score at a time
TEXT, LABELS, MEANS = "text_states", "label_states", "layer_means"


class HiddenStates:
    """Hidden states of n texts under one label prompt, without padding.

    Parameters
    ----------
    arrays : dict of str to Tensor
        Output of ``Architecture.text_states``, with a first axis of length n. Token states of all texts are
        concatenated to (tokens, layers, hidden).
    offsets : ndarray of shape (n + 1,), optional
        Index of each text's first token, and the number of tokens. If None, the texts are pooled.

    Examples
    --------
    >>> states = HiddenStates({"text_states": torch.arange(3.0).reshape(3, 1, 1)}, np.array([0, 2, 3]))
    >>> batch = states.batch(np.array([1, 0]))
    >>> batch["text_states"].squeeze().tolist(), batch["text_mask"].tolist()
    ([[2.0, 0.0], [0.0, 1.0]], [[True, False], [True, True]])
    """

    def __init__(self, arrays: dict[str, Tensor], offsets: np.ndarray | None = None):
        self.arrays = arrays
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.arrays[TEXT]) if self.offsets is None else len(self.offsets) - 1

    @classmethod
    def pack(cls, batch: dict[str, Tensor], dtype: torch.dtype) -> "HiddenStates":
        """Convert a batch of the model to `dtype` on the CPU, and drop its padding."""
        arrays = {name: t.to("cpu", dtype if t.is_floating_point() else t.dtype) for name, t in batch.items()}
        mask = arrays.pop("text_mask", None)
        if mask is None:
            return cls(arrays)
        lengths = mask.sum(dim=1).numpy()
        return cls({**arrays, TEXT: arrays[TEXT][mask]}, np.concatenate([[0], np.cumsum(lengths)]))

    def take(self, rows: np.ndarray) -> "HiddenStates":
        """Select texts; the result shares no memory with this object."""
        index = torch.from_numpy(np.asarray(rows, np.int64))
        arrays = {name: tensor[index] for name, tensor in self.arrays.items() if self._is_fixed(name)}
        if self.offsets is None:
            return HiddenStates(arrays)
        first, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
        return HiddenStates({**arrays, TEXT: self.arrays[TEXT][torch.from_numpy(tokens)]}, offsets)

    def _is_fixed(self, name: str) -> bool:
        return self.offsets is None or name != TEXT

    @staticmethod
    def concatenate(parts: Sequence["HiddenStates"]) -> "HiddenStates":
        """Concatenate along the texts."""
        arrays = {name: torch.cat([part.arrays[name] for part in parts]) for name in parts[0].arrays}
        offsets: list[Any] = [part.offsets for part in parts]  # of all parts, or of none
        if offsets[0] is None:
            return HiddenStates(arrays)
        lengths = np.concatenate([np.diff(each) for each in offsets])
        return HiddenStates(arrays, np.concatenate([[0], np.cumsum(lengths)]))

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the tensors of some texts, with the tokens padded to the longest text."""
        index = torch.from_numpy(np.asarray(rows, np.int64))
        batch = {name: tensor[index] for name, tensor in self.arrays.items() if self._is_fixed(name)}
        if self.offsets is None:
            return batch
        first, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        steps = np.arange(max(1, lengths.max()))
        mask = torch.from_numpy(steps < lengths[:, None])
        places = torch.from_numpy(np.where(mask, first[:, None] + steps, 0))  # (batch, length)
        padding = (~mask)[:, :, None, None]
        return {**batch, TEXT: self.arrays[TEXT][places].masked_fill(padding, 0.0), "text_mask": mask}


class StateDataset(TextDataset):
    """Training data with cached hidden states of frozen encoders in place of token ids.

    Where the prompt holds the labels, each text is scored under the same label prompts as in prediction: all
    labels in their order, `max_num_classes` in a prompt.

    Parameters
    ----------
    texts : TextDataset
        The texts and targets.
    prompts : list of HiddenStates
        For each label prompt, the hidden states of the distinct texts.
    index : ndarray of shape (n,)
        Row of each text, or window of a text, among the distinct ones.
    label_states : Tensor of shape (labels, hidden), optional
        Output of the label encoder, in the plain bi-encoder.
    samples_labels : bool, default=False
        Whether each step samples `max_num_classes` labels, as in training on token ids, instead of using all. Only
        in the plain bi-encoder.
    """

    def __init__(self, texts: TextDataset, prompts: list[HiddenStates], index, label_states=None, samples_labels=False):
        vars(self).update(vars(texts))
        self.samples_labels = samples_labels
        self.min_evaluation_batch = POOLED_BATCH if all(states.offsets is None for states in prompts) else 1
        self.prompts = prompts
        self.index = index
        self.label_states = label_states

    def take(self, rows: np.ndarray) -> "StateDataset":
        """Select texts; the hidden states stay shared."""
        part, sequences = copy.copy(self), rows
        if self.windows is not None:
            sequences, _ = self.windows.of_texts(rows)
        part.tokens, part.index = self.tokens.take(sequences), self.index[sequences]
        if self.windows is not None:
            counts = np.diff(self.windows.starts)[rows]
            part.windows = Windows(part.tokens, np.concatenate([[0], np.cumsum(counts)]))
        part.targets, part.sample_weight = self.targets[rows], self.sample_weight[rows]
        part.texts = None if self.texts is None else [self.texts[row] for row in rows]
        return part

    def _orders(self, rows, rng):
        if self.samples_labels:
            return super()._orders(rows, rng)
        return [self.all_labels] * len(rows)

    def _text_inputs(self, rows, orders):
        return state_inputs(self.prompts, self.index[rows], orders[0], self.max_labels, self.label_states)

    def _label_inputs(self, orders):
        return {}  # `_text_inputs` holds their hidden states


class HeldLabelsDataset(TextDataset):
    """Training data with label embeddings that are not encoded anew in each step.

    The output of frozen lower layers can replace token ids, so that only the upper layers run.

    Parameters
    ----------
    texts : TextDataset
        The texts and targets of a plain bi-encoder.
    label_states : Tensor of shape (labels, hidden)
        Output of the label encoder.
    lower : HiddenStates, optional
        Output of the lower layers for the tokens of each text.
    n_layers : int, default=0
        Number of these layers.
    """

    def __init__(self, texts: TextDataset, label_states: Tensor, lower: HiddenStates | None = None, n_layers: int = 0):
        vars(self).update(vars(texts))
        self.label_states = label_states
        self.lower = lower
        self.n_layers = n_layers

    def _text_inputs(self, rows, orders):
        if self.lower is None:
            return super()._text_inputs(rows, orders)
        batch = self.lower.batch(rows)
        return {
            "attention_mask": batch["text_mask"].long(),
            "lower_states": batch[TEXT].squeeze(2),
            "n_lower_layers": torch.tensor(self.n_layers),
        }

    def _label_inputs(self, orders):
        return {"class_states": self.label_states[torch.from_numpy(orders[0])]}


def state_inputs(
    prompts: list[HiddenStates], rows, order: np.ndarray, max_labels: int, label_states=None, class_embeddings=None
):
    """Build the inputs of ``Architecture.score_states``.

    Parameters
    ----------
    prompts : list of HiddenStates
        For each label prompt, the hidden states of the texts.
    rows : ndarray of int
        The texts of the batch.
    order : ndarray of int
        The labels of the batch. Where they are in the prompts: consecutive labels that fill whole prompts.
    max_labels : int
        Number of labels in a prompt.
    label_states : Tensor of shape (labels, hidden), optional
        Output of the label encoder, in the plain bi-encoder.
    class_embeddings : Tensor of shape (labels, hidden), optional
        Projected embeddings of the labels of the batch, in place of `label_states`.
    """
    if class_embeddings is not None:
        label_mask = torch.ones(1, 1, len(order), dtype=torch.bool)
        return {
            **_add_prompt_axis(prompts[0].batch(rows)), "class_embeddings": class_embeddings, "label_mask": label_mask
        }  # fmt: skip
    if label_states is not None:
        shared = label_states if len(order) == len(label_states) else label_states[torch.from_numpy(order)]
        batch, label_mask = _add_prompt_axis(prompts[0].batch(rows)), torch.ones(1, 1, len(order), dtype=torch.bool)
        return {**batch, LABELS: shared[None, None, :, None], "label_mask": label_mask}
    chosen = prompts[order[0] // max_labels : order[-1] // max_labels + 1]
    label_mask = torch.arange(len(chosen) * max_labels).reshape(1, len(chosen), -1) < len(order)
    if len(chosen) == 1:
        return {**_add_prompt_axis(chosen[0].batch(rows)), "label_mask": label_mask[..., : len(order)]}
    return {**_stack([states.batch(rows) for states in chosen]), "label_mask": label_mask}


def _add_prompt_axis(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.unsqueeze(1) for name, tensor in batch.items()}


def _stack(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack prompts to (batch, prompts, ...), with zeros where one has fewer tokens or labels than another."""
    return {name: torch.stack(_same_length([batch[name] for batch in batches]), dim=1) for name in batches[0]}


def _same_length(tensors: list[Tensor]) -> list[Tensor]:
    longest = max(tensor.shape[1] for tensor in tensors)
    return [torch.cat([t, t.new_zeros(len(t), longest - t.shape[1], *t.shape[2:])], dim=1) for t in tensors]
