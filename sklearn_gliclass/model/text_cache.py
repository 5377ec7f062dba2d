"""Keys and values of a text in a causal decoder, which are kept while the text grows and its labels change."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True)
class CachedText:
    """Start of a text that a decoder has read. Its tensors are never changed.

    Attributes
    ----------
    ids : ndarray of shape (length,)
        Token ids.
    cache : DynamicCache or None
        Keys and values, and states of other kinds of layers. None for an empty text.
    states : Tensor of shape (1, length, hidden) or None
        Hidden states, if the scorer reads them.
    """

    ids: np.ndarray
    cache: DynamicCache | None = None
    states: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """Memory of the tensors."""
        layers = [] if self.cache is None else self.cache.layers
        tensors = [value for layer in layers for value in _tensors(vars(layer))]
        return sum(tensor.nbytes for tensor in tensors) + (0 if self.states is None else self.states.nbytes)

    def start(self, length: int) -> CachedText:
        """Return the first `length` tokens, or an empty text if the decoder's layers cannot be truncated."""
        if length == len(self.ids):
            return self
        if self.cache is None or length == 0 or any(type(layer) is not DynamicLayer for layer in self.cache.layers):
            return EMPTY
        states = None if self.states is None else self.states[:, :length]
        return CachedText(self.ids[:length], _fork(self.cache, length), states)

    def extended(self, architecture) -> DynamicCache:
        """Return a cache of the whole text that can be extended without a change of this one."""
        if self.cache is None:
            return DynamicCache(config=architecture.decoder_model.config)
        return _fork(self.cache, len(self.ids))


EMPTY = CachedText(np.empty(0, np.int32))


def _fork(cache: DynamicCache, length: int) -> DynamicCache:
    """Return a cache of the first tokens that can be extended without a change of this one."""
    other = copy.copy(cache)
    other.layers = []
    for layer in cache.layers:
        if type(layer) is DynamicLayer:  # it concatenates new tensors, so that the old ones can be shared
            twin = copy.copy(layer)
            for name in ("keys", "values"):
                setattr(twin, name, getattr(layer, name)[..., :length, :])
        else:
            twin = copy.deepcopy(layer)
        other.layers.append(twin)
    return other


def read_text(architecture, known: CachedText, ids: np.ndarray) -> CachedText:
    """Read a text, of which only the tokens after those that `known` shares with it are computed.

    Parameters
    ----------
    architecture : DecoderKV
        The decoder and its heads.
    known : CachedText
        An earlier state of the text, or any other text.
    ids : ndarray of shape (length,)
        Token ids.
    """
    n_shared = min(len(known.ids), len(ids))
    different = np.flatnonzero(known.ids[:n_shared] != ids[:n_shared])
    before = known.start(int(different[0]) if len(different) else n_shared)
    rest = ids[len(before.ids) :]
    if len(rest) == 0:
        return before
    cache = before.extended(architecture)
    device = architecture.decoder_model.device
    states = architecture.extend(torch.from_numpy(rest.astype(np.int64)).unsqueeze(0).to(device), cache)
    if not architecture.reads_text:
        return CachedText(ids, cache)
    return CachedText(ids, cache, states if before.states is None else torch.cat([before.states, states], dim=1))


def _tensors(value) -> list[Tensor]:
    """Return the tensors in an attribute of a cache layer: itself, or values of a dict."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for inner in value.values() for tensor in _tensors(inner)] if isinstance(value, dict) else []
