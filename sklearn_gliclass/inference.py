"""Inference over many texts: canonical order, batches of a token budget, labels encoded once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from .cache.labels import LabelCache
from .data.batching import TEXTS_AT_ONCE, distinct_texts, label_chunks, plan_batches, tensors, to_device
from .data.prompt import Layout
from .data.windows import MEAN, TRUNCATE, read_windows
from .label_fit import LabelFit
from .model.precision import autocast, weight_dtype
from .model.traversal import set_evaluation_mode

if TYPE_CHECKING:
    from .model import GLiClassModel

PROGRESS_FROM = 512  # texts; shorter calls show no progress bar
LABELS_AT_ONCE = 256


class InferenceEngine:
    """Inference engine that runs a model over texts.

    Distinct texts are computed once, in a canonical order: in blocks sorted by content, and within a block by length.
    The results therefore do not depend on the order of the rows or on duplicates.

    Parameters
    ----------
    model : GLiClassModel
        The model, on its device.
    layout : Layout
        Layout of the sequences.
    max_num_classes : int or None
        Maximum number of labels in a prompt, or scored at a time; more labels are scored in chunks. If None, all.
    max_batch_tokens : int, default=2048
        Maximum number of tokens in a batch, padding included.
    dtype : str, default="float32"
        Floating point type; "bfloat16" is mixed precision.
    progress : bool, default=False
        Whether long calls show a progress bar.
    label_cache : LabelCache, optional
        Cache of label embeddings for further calls, if labels are encoded separately from the texts.
    long_texts : {"auto", "truncate", "mean", "max"}, default="truncate"
        How texts are read that are too long for a sequence.
    window_overlap : int, default=0
        Minimum number of common tokens of neighbouring windows.
    label_fit : LabelFit, optional
        What the label projector was fitted to; other labels are projected without it.

    Attributes
    ----------
    n_truncated : int
        Number of texts of the last call that were truncated.
    """

    def __init__(self, model: GLiClassModel, layout: Layout, max_num_classes=None, max_batch_tokens=2048,
                 dtype="float32", progress=False, label_cache=None, long_texts=TRUNCATE,
                 window_overlap=0, label_fit: LabelFit | None = None):  # fmt: skip
        self.model = model
        self.layout = layout
        self.n_labels = len(layout.label_texts)
        self.chunk_size = min(max_num_classes or self.n_labels, self.n_labels)
        self.max_batch_tokens = max_batch_tokens
        self.dtype = dtype
        self.progress = progress
        self.label_cache = LabelCache() if label_cache is None else label_cache
        self.long_texts = long_texts
        self.window_overlap = window_overlap
        self.label_fit = label_fit
        self.n_truncated = 0
        self.products = autocast(model.device, dtype, inference=True)  # an engine is used for one call

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Compute the logits, of shape (n_texts, n_labels)."""
        score = functools.partial(self.model, labels_at_once=self.chunk_size)
        return self._run(texts, self.n_labels, lambda output: output.logits, score)

    def embeddings(self, texts: Sequence[str]) -> np.ndarray:
        """Compute the pooled text embeddings, of shape (n_texts, encoder_hidden_size)."""
        width = self.model.config.encoder_width
        return self._run(texts, width, lambda states: states, self.model.model.embed_text, one_chunk=True)

    @torch.inference_mode()
    def _run(self, texts, n_columns: int, pick, function, one_chunk=False) -> np.ndarray:
        set_evaluation_mode(self.model)
        unique, inverse = distinct_texts(texts)
        result = torch.empty(len(unique), n_columns, dtype=weight_dtype(self.dtype))
        chunks = self._chunks()[:1] if one_chunk else self._chunks()
        shared = [{} if one_chunk and self.layout.shares_labels else self._shared_inputs(chunk) for chunk in chunks]
        hidden = not self.progress or len(unique) < PROGRESS_FROM
        truncated = np.zeros(len(unique), bool)
        with tqdm(total=len(unique) * len(chunks), desc="predict", unit="text", leave=False, disable=hidden) as bar:
            for first in range(0, len(unique), TEXTS_AT_ONCE):
                block = slice(first, first + TEXTS_AT_ONCE)
                tokens = self.layout.tokenize(unique[block])
                windows = read_windows(self.layout, tokens, self.long_texts, self.window_overlap, self.chunk_size)
                sequences = tokens if windows is None else windows.tokens
                bar.total += (len(sequences) - len(tokens)) * len(chunks)
                for chunk, inputs in zip(chunks, shared, strict=True):
                    columns = slice(None) if one_chunk else slice(chunk[0], chunk[-1] + 1)
                    out = result[block, columns]
                    values = out if windows is None else out.new_empty(len(sequences), out.shape[1])
                    for rows, output in self._batches(function, sequences, chunk, inputs):
                        values[rows] = pick(output).to("cpu", result.dtype)
                        bar.update(len(rows))
                    if windows is None:
                        truncated[block] |= self.layout.is_truncated(tokens, chunk)
                    else:
                        joined = windows.join(values.numpy(), MEAN if one_chunk else self.long_texts)
                        out.copy_(torch.from_numpy(joined))
        self.n_truncated = int(truncated[inverse].sum())
        return result.numpy()[inverse]

    def _chunks(self) -> list[np.ndarray]:
        """Return the labels of each prompt; the plain bi-encoder has no prompts, and one chunk."""
        return label_chunks(self.n_labels, None if self.layout.shares_labels else self.chunk_size)

    def _shared_inputs(self, chunk: np.ndarray) -> dict:
        """Return the inputs that all batches of a chunk share: its labels, where they are encoded separately."""
        if hasattr(self.layout, "label_batch"):
            shared = self.label_embeddings()
            return {"class_embeddings": shared if len(chunk) == self.n_labels else shared[chunk[0] : chunk[-1] + 1]}
        modules = self.model.model.label_modules()
        if not modules:
            return {}
        key = (self.layout.prompt(chunk).tobytes(), self.model.device, self.dtype)
        return self.label_cache.get(modules, key, lambda: self._encode_prompt(chunk))

    def _encode_prompt(self, chunk: np.ndarray) -> dict[str, torch.Tensor]:
        with self.products:
            return self.model.model.encode_shared_labels(**self._tensors(self.layout.label_inputs([chunk])))

    @torch.inference_mode()
    def label_embeddings(self) -> torch.Tensor:
        """Return the projected embeddings (labels, hidden) of all labels, which further calls reuse."""
        architecture = self.model.model
        modules = [*architecture.label_modules(), architecture.classes_projector]
        key = (*self.layout.label_texts, self.model.device, self.dtype)
        return self.label_cache.get(modules, key, self._project_labels)

    def _project_labels(self) -> torch.Tensor:
        states, head = self._label_states(), self.model.model
        with self.products:
            if self.label_fit is None:
                return head.project_classes(states)
            return self.label_fit.project(head.project_classes, states, self.layout.label_texts)

    def _label_states(self) -> torch.Tensor:
        """Compute the embeddings (labels, hidden) of all labels before their projection."""
        return self._pool_labels(np.arange(self.n_labels))

    def _pool_labels(self, labels: np.ndarray) -> torch.Tensor:
        """Compute the embeddings (labels, hidden) of some labels."""
        states = []
        for first in range(0, len(labels), LABELS_AT_ONCE):
            inputs = self._tensors(self.layout.label_inputs([labels[first : first + LABELS_AT_ONCE]]))
            with self.products:
                states.append(self.model.model.pool_labels(**inputs))
        return torch.cat(states)

    def _plan(self, tokens, chunk: np.ndarray, rows=slice(None)) -> tuple[np.ndarray, list[slice]]:
        """Return the order of the texts in `rows` by length, and the slices of this order that are batches."""
        return plan_batches(self.layout.sequence_lengths(tokens, chunk)[rows], self.max_batch_tokens)

    def _batches(self, function, tokens, chunk, shared):
        """Yield (rows, output) for all rows of `tokens`."""
        order, batches = self._plan(tokens, chunk)
        for batch in batches:
            yield from self._forward(function, tokens, order[batch], chunk, shared)

    def _tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return to_device(tensors(arrays), self.model.device, weight_dtype(self.dtype))

    def _forward(self, function, tokens, rows, chunk, shared):
        """Yield (rows, output); a batch that exceeds the memory of the device is halved."""
        orders = [chunk] * len(rows)
        inputs = self._tensors(self.layout.text_batch([tokens[row] for row in rows], orders))
        try:
            with self.products:
                output = function(**inputs, **shared)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
            output = None
        if output is not None:
            yield rows, output
            return
        torch.cuda.empty_cache()
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            yield from self._forward(function, tokens, half, chunk, shared)
