"""Encoders without padding: linear layers see real tokens only, attention sees texts of one length at a time.

Where the heads read a few tokens' states, as with the pooling "first", the last layer computes no others.
"""

import contextlib
import copy
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from .onednn import linear_gelu

# Encoders of BERT's structure, by class: whether their positions start after the padding index.
BERT_LIKE = {"BertModel": False, "RobertaModel": True, "XLMRobertaModel": True, "CamembertModel": True}

# Tokens that the wide layer of the feed-forward part sees at once: memory for more is handed back to the system and
# asked for again in each layer; with fewer, oneDNN's products are too small.
FEED_FORWARD_TOKENS = 2048

_packing_allowed = ContextVar("packing_allowed", default=True)


@contextlib.contextmanager
def without_packing():
    """Within it all encoders run their own pass, for hooks that look for the batch as it is."""
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
    **tokens,
):
    """The encoder's output for ``input_ids`` or ``inputs_embeds``; packed where that is supported.

    Packed states of padding are zeros; those of real tokens are the encoder's own, and so are the gradients. A GPU
    keeps the encoder's own pass, as padding costs it less than many small kernels; so does gradient checkpointing.

    Parameters
    ----------
    encoder : nn.Module
        A model of transformers.
    attention_mask : LongTensor of shape (batch, length)
        1 for real tokens.
    output_hidden_states : bool, default=False
        Whether the states of all layers are given; `read` has no effect then.
    read : BoolTensor of shape (batch, length), optional
        The tokens whose last states are read; those of others may be zeros. Default: all of them.
    **tokens
        The encoder's ``input_ids`` or ``inputs_embeds``.

    Returns
    -------
    BaseModelOutput or the encoder's own
        With ``last_hidden_state`` (batch, length, hidden).
    """
    if not packs(encoder, attention_mask):
        return encoder(attention_mask=attention_mask, output_hidden_states=output_hidden_states, **tokens)
    return _run_packed(encoder, attention_mask, output_hidden_states, read, **tokens)


def run_both(encoder: nn.Module, first, second, output_hidden_states: bool = False):
    """The encoder's outputs for two batches (token ids, mask, read), in one pass over the tokens of both.

    One pass reads the weights and writes their gradients once, not twice. Where the encoder does not pack, see
    :func:`packs`, the padding costs more than that.
    """
    length = max(batch[1].shape[1] for batch in (first, second))
    ids, mask, read = (
        torch.cat([F.pad(batch, (0, length - batch.shape[1])) for batch in pair])
        for pair in zip(first, second, strict=True)
    )
    outputs = run_encoder(encoder, mask, output_hidden_states, read, input_ids=ids)
    n_first = len(first[0])
    return _part(outputs, slice(n_first), first[1].shape[1]), _part(outputs, slice(n_first, None), second[1].shape[1])


def _part(outputs: BaseModelOutput, rows: slice, length: int) -> BaseModelOutput:
    """Some rows of the outputs, without the padding that the others needed."""
    layers = tuple(states[rows, :length] for states in outputs.hidden_states or (outputs.last_hidden_state,))
    return BaseModelOutput(last_hidden_state=layers[-1], hidden_states=layers if outputs.hidden_states else None)


def packs(encoder: nn.Module, attention_mask: Tensor) -> bool:
    """Whether a batch with this mask runs without padding."""
    if not _packing_allowed.get() or attention_mask.device.type != "cpu" or not can_pack(encoder):
        return False
    parts = (encoder.encoder, *encoder.encoder.layer)  # the flag's place depends on transformers' version
    return not (encoder.training and any(getattr(part, "gradient_checkpointing", False) for part in parts))


def can_pack(encoder: nn.Module) -> bool:
    """Whether the encoder's structure is known: BERT's, and no decoder."""
    return type(encoder).__name__ in BERT_LIKE and not encoder.config.is_decoder


class Run(NamedTuple):
    """Texts of one length among the packed tokens, and the tokens that ask in attention: as many in each text."""

    tokens: slice
    length: int
    asking: slice
    n_asking: int


class Packing:
    """Where the real tokens of a padded batch are; packed, they stand text by text, the shortest first.

    Attributes
    ----------
    rows, columns : LongTensor of shape (asking,)
        Place in the batch of each token that asks in attention: of all of them, but see :meth:`narrow`.
    places : LongTensor of shape (asking,) or slice
        Their places among the packed tokens.
    runs : list of Run
        Texts of one length.
    """

    def __init__(self, attention_mask: Tensor):
        self.mask = attention_mask
        lengths, self.order = attention_mask.sum(dim=1).sort(stable=True)
        rows, self.columns = attention_mask[self.order].nonzero(as_tuple=True)
        self.rows = self.order[rows]
        self.places = slice(None)
        self.runs = []
        first = 0
        for length, count in zip(*(values.tolist() for values in lengths.unique(return_counts=True)), strict=True):
            if length:
                tokens = slice(first, first + length * count)
                self.runs.append(Run(tokens, length, tokens, length))
            first += length * count

    def narrow(self, read: Tensor) -> "Packing":
        """The same tokens, of which those in `read` (batch, length) ask.

        A text of a run that has fewer of them than another one asks with some of its other tokens too.
        """
        mask = self.mask[self.order].bool()
        read = read[self.order] & mask
        packed = torch.zeros_like(mask, dtype=torch.long)
        packed[mask] = torch.arange(len(self.rows), device=mask.device)
        # In each text first what is read, then its other tokens; texts without a token are in no run.
        candidates = packed.gather(1, (mask.int() + read).argsort(dim=1, descending=True, stable=True))[mask.any(dim=1)]
        counts = read.sum(dim=1)[mask.any(dim=1)].tolist()
        places, runs, text, first = [], [], 0, 0
        for run in self.runs:
            texts = slice(text, text + (run.tokens.stop - run.tokens.start) // run.length)
            n_asking = max(1, *counts[texts])
            places.append(candidates[texts, :n_asking].flatten())
            asking = slice(first, first + len(places[-1]))
            runs.append(run._replace(asking=asking, n_asking=n_asking))
            text, first = texts.stop, asking.stop
        narrow = copy.copy(self)
        narrow.places = torch.cat(places)
        narrow.rows, narrow.columns, narrow.runs = self.rows[narrow.places], self.columns[narrow.places], runs
        return narrow

    def pack(self, batch: Tensor) -> Tensor:
        """(batch, length, ...) -> (asking, ...)."""
        return batch[self.rows, self.columns]

    def unpack(self, states: Tensor) -> Tensor:
        """(asking, hidden) -> (batch, length, hidden), zeros elsewhere."""
        batch = states.new_zeros(*self.mask.shape, states.shape[-1])
        batch[self.rows, self.columns] = states
        return batch


def _run_packed(encoder, attention_mask, output_hidden_states, read, **tokens) -> BaseModelOutput:
    packing = Packing(attention_mask)
    positions = packing.columns
    if BERT_LIKE[type(encoder).__name__]:
        positions = positions + encoder.config.pad_token_id + 1
    tokens = {name: packing.pack(batch).unsqueeze(0) for name, batch in tokens.items()}
    layers = [encoder.embeddings(position_ids=positions.unsqueeze(0), **tokens).squeeze(0)]  # (tokens, hidden)
    packings = [packing] * len(encoder.encoder.layer)  # of each layer
    if packings and not (output_hidden_states or read is None or (read | ~attention_mask.bool()).all()):
        packings[-1] = packing.narrow(read)
    for layer, packing in zip(encoder.encoder.layer, packings, strict=True):
        states = _run_layer(layer, layers[-1], packing)
        layers = [*layers, states] if output_hidden_states else [states]
    layers = tuple(map(packing.unpack, layers))
    return BaseModelOutput(last_hidden_state=layers[-1], hidden_states=layers if output_hidden_states else None)


def _run_layer(layer: nn.Module, states: Tensor, packing: Packing) -> Tensor:
    """One layer of BERT, from states (tokens, hidden) to the next ones of those that ask (asking, hidden)."""
    attention = layer.attention.self
    asking = states[packing.places]
    parts = attention.query(asking), attention.key(states), attention.value(states)
    contexts = [_attend(attention, run, *parts) for run in packing.runs]
    states = layer.attention.output(torch.cat(contexts or parts[:1]), asking)  # or: there is no token at all
    if torch.is_grad_enabled():  # what the layer has seen is kept for the gradients anyway
        return layer.feed_forward_chunk(states)
    return torch.cat([_feed_forward(layer, some) for some in states.split(FEED_FORWARD_TOKENS)])


def _feed_forward(layer: nn.Module, states: Tensor) -> Tensor:
    """The feed-forward part of a layer, its wide half and the activation in one go where a library can do so."""
    wide, activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
    if type(wide) is nn.Linear and getattr(activation, "act", None) is F.gelu:
        return layer.output(linear_gelu(states, wide.weight, wide.bias), states)
    return layer.feed_forward_chunk(states)


def _attend(attention: nn.Module, run: Run, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention inside each text of a run; returns (asking tokens of the run, hidden)."""
    width, size = query.shape[1], attention.attention_head_size
    query, key, value = (
        part.view(-1, length, width // size, size).transpose(1, 2)
        for part, length in (
            (query[run.asking], run.n_asking),
            (key[run.tokens], run.length),
            (value[run.tokens], run.length),
        )
    )
    dropout = attention.dropout.p if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return context.transpose(1, 2).reshape(-1, width)
