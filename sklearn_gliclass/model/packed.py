"""Encoders without padding: linear layers process real tokens only, and attention texts of one length at a time.

If the heads read the hidden states of a few tokens only, as with the pooling "first", the last layer computes no
others.
"""

import contextlib
import copy
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from . import bert_layer
from .onednn import linear_gelu

# Encoders with the structure of BERT: class -> whether their positions start after the padding index.
BERT_LIKE = {"BertModel": False, "RobertaModel": True, "XLMRobertaModel": True, "CamembertModel": True}

# Number of tokens per call of the feed-forward part. With more, its memory is released and allocated again in each
# layer; with fewer, the matrix products are too small for oneDNN.
FEED_FORWARD_TOKENS = 2048

_packing_allowed = ContextVar("packing_allowed", default=True)


@contextlib.contextmanager
def disable_packing():
    """Disable packing within the context, for hooks on the padded batch."""
    token = _packing_allowed.set(False)
    try:
        yield
    finally:
        _packing_allowed.reset(token)


def run_encoder(
    encoder: nn.Module,
    attention_mask: Tensor,
    output_hidden_states: bool = False,
    read: Tensor | None = None,
    lower: "LowerStates | None" = None,
    **tokens,
) -> Any:
    """Run the encoder on ``input_ids`` or ``inputs_embeds``, packed if that is supported.

    The packed pass has the same hidden states and gradients as the encoder's own, except that the states of padding are
    zeros. GPUs use the encoder's own pass, as padding is cheaper there than many small kernels; so does gradient
    checkpointing.

    Parameters
    ----------
    encoder : nn.Module
        Encoder of transformers.
    attention_mask : LongTensor of shape (batch, length)
        1 for real tokens.
    output_hidden_states : bool, default=False
        Whether to return the hidden states of all layers; `read` then has no effect.
    read : BoolTensor of shape (batch, length), optional
        Tokens whose last hidden states are read; those of others may be zeros. If None, all tokens.
    lower : LowerStates, optional
        Output of the lowest layers, from :func:`run_lower_layers`, in place of tokens. Only for encoders that are
        packed.
    **tokens
        The encoder's ``input_ids`` or ``inputs_embeds``.

    Returns
    -------
    BaseModelOutput or the encoder's own
        With ``last_hidden_state`` (batch, length, hidden).
    """
    if lower is None and not packs(encoder, attention_mask):
        return encoder(attention_mask=attention_mask, output_hidden_states=output_hidden_states, **tokens)
    return _run_packed(encoder, attention_mask, output_hidden_states, read, lower, **tokens)


class LowerStates(NamedTuple):
    """Output of the lowest layers of an encoder for a batch.

    Attributes
    ----------
    states : Tensor of shape (batch, length, hidden)
        Hidden states.
    n_layers : int
        Number of layers that they have passed.
    """

    states: Tensor
    n_layers: int


@torch.no_grad()
def run_lower_layers(encoder: Any, input_ids: Tensor, attention_mask: Tensor, n_layers: int) -> Tensor:
    """Run the embeddings and the first `n_layers` layers of a packed encoder; return (batch, length, hidden)."""
    packing = Packing(attention_mask)
    states = _embed(encoder, packing, input_ids=input_ids)
    for layer in encoder.encoder.layer[:n_layers]:
        states = _run_layer(layer, states, packing)
    return packing.unpack(states)


def run_both(encoder: nn.Module, first, second, output_hidden_states: bool = False):
    """Run the encoder on two batches (token ids, mask, read) in one packed pass.

    One pass reads the weights and writes their gradients once instead of twice. It only pays off if the batches are
    packed, see :func:`packs`.
    """
    length = max(batch[1].shape[1] for batch in (first, second))
    ids, mask, read = (
        torch.cat([F.pad(batch, (0, length - batch.shape[1])) for batch in pair])
        for pair in zip(first, second, strict=True)
    )
    outputs = run_encoder(encoder, mask, output_hidden_states, read, input_ids=ids)
    n_first = len(first[0])
    return _part(outputs, slice(n_first), first[1].shape[1]), _part(outputs, slice(n_first, None), second[1].shape[1])


def _part(outputs: Any, rows: slice, length: int) -> BaseModelOutput:
    """Select rows of the outputs, without the padding of longer rows."""
    layers = tuple(states[rows, :length] for states in outputs.hidden_states or (outputs.last_hidden_state,))
    return BaseModelOutput(last_hidden_state=layers[-1], hidden_states=layers if outputs.hidden_states else None)


def packs(encoder: Any, attention_mask: Tensor) -> bool:
    """Return whether a batch with this mask is packed."""
    if not _packing_allowed.get() or attention_mask.device.type != "cpu" or not can_pack(encoder):
        return False
    parts = (encoder.encoder, *encoder.encoder.layer)  # the flag's module depends on the version of transformers
    return not (encoder.training and any(getattr(part, "gradient_checkpointing", False) for part in parts))


def can_pack(encoder: Any) -> bool:
    """Return whether the encoder has the structure of BERT, without a decoder."""
    return type(encoder).__name__ in BERT_LIKE and not encoder.config.is_decoder


class Run(NamedTuple):
    """Texts of one length among the packed tokens, and their query tokens, the same number in each text."""

    tokens: slice
    length: int
    queries: slice
    n_queries: int


class Packing:
    """Positions of the real tokens of a padded batch, which are packed text by text, the shortest first.

    Attributes
    ----------
    rows, columns : LongTensor of shape (queries,)
        Positions in the batch of the query tokens of attention: all tokens, unless :meth:`select_queries` is used.
    places : LongTensor of shape (queries,) or slice
        Their positions among the packed tokens.
    runs : list of Run
        Groups of texts of one length.
    lengths, n_queries : LongTensor of shape (texts,)
        Number of tokens and of queries of each packed text.
    """

    def __init__(self, attention_mask: Tensor):
        self.mask = attention_mask
        lengths, self.order = attention_mask.sum(dim=1).sort(stable=True)
        rows, self.columns = attention_mask[self.order].nonzero(as_tuple=True)
        self.rows = self.order[rows]
        self.places = slice(None)
        self.runs = []
        self.lengths = self.n_queries = lengths[lengths > 0]
        self._heads = None
        first = 0
        for length, count in zip(*(values.tolist() for values in lengths.unique(return_counts=True)), strict=True):
            if length:
                tokens = slice(first, first + length * count)
                self.runs.append(Run(tokens, length, tokens, length))
            first += length * count

    def select_queries(self, read: Tensor) -> "Packing":
        """Restrict the query tokens to those in `read` (batch, length); keys and values are unchanged.

        All texts of a run have the same number of queries, so that texts with fewer of them have some others too.
        """
        mask = self.mask[self.order].bool()
        read = read[self.order] & mask
        packed = torch.zeros_like(mask, dtype=torch.long)
        packed[mask] = torch.arange(len(self.rows), device=mask.device)
        # In each text, tokens in `read` come first; texts without tokens are in no run.
        candidates = packed.gather(1, (mask.int() + read).argsort(dim=1, descending=True, stable=True))[mask.any(dim=1)]
        counts = read.sum(dim=1)[mask.any(dim=1)].tolist()
        places, runs, text, first = [], [], 0, 0
        for run in self.runs:
            texts = slice(text, text + (run.tokens.stop - run.tokens.start) // run.length)
            n_queries = max(1, *counts[texts])
            places.append(candidates[texts, :n_queries].flatten())
            queries = slice(first, first + len(places[-1]))
            runs.append(run._replace(queries=queries, n_queries=n_queries))
            text, first = texts.stop, queries.stop
        selected = copy.copy(self)
        selected._heads = None
        selected.n_queries = torch.tensor(
            [run.n_queries for run in runs for _ in range((run.tokens.stop - run.tokens.start) // run.length)]
        )
        selected.places = torch.cat(places)
        selected.rows, selected.columns, selected.runs = self.rows[selected.places], self.columns[selected.places], runs
        return selected

    def heads(self, n_heads: int) -> bert_layer.HeadLayout:
        """Return the positions of heads, which all layers share."""
        if self._heads is None:
            self._heads = bert_layer.plan_heads(self.lengths, self.n_queries, n_heads)
        return self._heads

    def pack(self, batch: Tensor) -> Tensor:
        """Pack (batch, length, ...) to (queries, ...)."""
        return batch[self.rows, self.columns]

    def unpack(self, states: Tensor) -> Tensor:
        """Unpack (queries, hidden) to (batch, length, hidden), with zeros elsewhere."""
        batch = states.new_zeros(*self.mask.shape, states.shape[-1])
        batch[self.rows, self.columns] = states
        return batch


def _embed(encoder, packing: Packing, **tokens) -> Tensor:
    """Return the output (tokens, hidden) of the embedding layer."""
    positions = packing.columns
    if BERT_LIKE[type(encoder).__name__]:
        positions = positions + encoder.config.pad_token_id + 1
    tokens = {name: packing.pack(batch).unsqueeze(0) for name, batch in tokens.items()}
    return encoder.embeddings(position_ids=positions.unsqueeze(0), **tokens).squeeze(0)


def _run_packed(encoder, attention_mask, output_hidden_states, read, lower=None, **tokens) -> BaseModelOutput:
    packing = Packing(attention_mask)
    if lower is None:
        states, upper_layers = _embed(encoder, packing, **tokens), encoder.encoder.layer
    else:
        states, upper_layers = packing.pack(lower.states), encoder.encoder.layer[lower.n_layers :]
    layers = [states]  # (tokens, hidden) each
    packings = [packing] * len(upper_layers)  # of each layer
    if packings and not (output_hidden_states or read is None or (read | ~attention_mask.bool()).all()):
        packings[-1] = packing.select_queries(read)
    for layer, packing in zip(upper_layers, packings, strict=True):
        states = _run_layer(layer, layers[-1], packing)
        layers = [*layers, states] if output_hidden_states else [states]
    layers = tuple(map(packing.unpack, layers))
    return BaseModelOutput(last_hidden_state=layers[-1], hidden_states=layers if output_hidden_states else None)


def _run_layer(layer: Any, states: Tensor, packing: Packing) -> Tensor:
    """Run one layer of BERT on hidden states (tokens, hidden), and return those of the queries (queries, hidden)."""
    attention = layer.attention.self
    if torch.is_grad_enabled() and packing.runs and bert_layer.fuses(layer, states, packing.runs[-1].length):
        places = None if isinstance(packing.places, slice) else packing.places
        heads = packing.heads(states.shape[1] // attention.attention_head_size)
        return bert_layer.run_layer(layer, states, places, heads)
    queries = states[packing.places]
    parts = attention.query(queries), attention.key(states), attention.value(states)
    contexts = [_attend(attention, run, *parts) for run in packing.runs]
    states = layer.attention.output(torch.cat(contexts or parts[:1]), queries)  # `parts[:1]` if there are no tokens
    if torch.is_grad_enabled():  # autograd keeps the activations, so that slices save no memory
        return layer.feed_forward_chunk(states)
    return torch.cat([_feed_forward(layer, some) for some in states.split(FEED_FORWARD_TOKENS)])


def _feed_forward(layer: Any, states: Tensor) -> Tensor:
    """Run the feed-forward part of a layer, with the wide layer and its activation fused if possible."""
    wide, activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
    if type(wide) is nn.Linear and getattr(activation, "act", None) is F.gelu:
        return layer.output(linear_gelu(states, wide.weight, wide.bias), states)
    return layer.feed_forward_chunk(states)


def _attend(attention: Any, run: Run, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention within each text of a run; return (queries of the run, hidden)."""
    width, size = query.shape[1], attention.attention_head_size
    query, key, value = (
        part.view(-1, length, width // size, size).transpose(1, 2)
        for part, length in (
            (query[run.queries], run.n_queries),
            (key[run.tokens], run.length),
            (value[run.tokens], run.length),
        )
    )
    dropout = attention.dropout.p if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return context.transpose(1, 2).reshape(-1, width)
