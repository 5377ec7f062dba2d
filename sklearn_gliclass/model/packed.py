"""Encoders without padding: linear layers see real tokens only, attention sees texts of one length at a time."""

import contextlib
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

# Encoders of BERT's structure, by class: whether their positions start after the padding index.
BERT_LIKE = {"BertModel": False, "RobertaModel": True, "XLMRobertaModel": True, "CamembertModel": True}

# Tokens that the wide layer of the feed-forward part sees at once: more would leave the caches, and memory of such
# size is handed back to the system and asked for again in each layer.
FEED_FORWARD_TOKENS = 512

_packing_allowed = ContextVar("packing_allowed", default=True)


@contextlib.contextmanager
def without_packing():
    """Within it all encoders run their own pass, for hooks that look for the batch as it is."""
    token = _packing_allowed.set(False)
    try:
        yield
    finally:
        _packing_allowed.reset(token)


def run_encoder(encoder: nn.Module, attention_mask: Tensor, output_hidden_states: bool = False, **tokens):
    """The encoder's output for ``input_ids`` or ``inputs_embeds``; packed where that is supported.

    Packed states of padding are zeros; those of real tokens are the encoder's own, and so are the gradients. A GPU
    keeps the encoder's own pass, as padding costs it less than many small kernels; so does gradient checkpointing.
    """
    if not packs(encoder, attention_mask):
        return encoder(attention_mask=attention_mask, output_hidden_states=output_hidden_states, **tokens)
    return _run_packed(encoder, attention_mask, output_hidden_states, **tokens)


def run_both(encoder: nn.Module, first, second, output_hidden_states: bool = False):
    """The encoder's outputs for two batches (token ids, mask), in one pass over the tokens of both.

    One pass reads the weights and writes their gradients once, not twice. Where the encoder does not pack, see
    :func:`packs`, the padding costs more than that.
    """
    length = max(mask.shape[1] for _, mask in (first, second))
    ids, mask = (
        torch.cat([F.pad(batch, (0, length - batch.shape[1])) for batch in pair])
        for pair in zip(first, second, strict=True)
    )
    outputs = run_encoder(encoder, mask, output_hidden_states, input_ids=ids)
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


class Packing:
    """Where the real tokens of a padded batch are; packed, they stand text by text, the shortest first.

    Attributes
    ----------
    rows, columns : LongTensor of shape (tokens,)
        Place of each packed token in the batch.
    runs : list of (slice, int)
        Packed tokens of texts of one length, and the length.
    """

    def __init__(self, attention_mask: Tensor):
        self.shape = attention_mask.shape
        lengths, order = attention_mask.sum(dim=1).sort(stable=True)
        rows, self.columns = attention_mask[order].nonzero(as_tuple=True)
        self.rows = order[rows]
        self.runs = []
        first = 0
        for length, count in zip(*(values.tolist() for values in lengths.unique(return_counts=True)), strict=True):
            if length:
                self.runs.append((slice(first, first + length * count), length))
            first += length * count

    def pack(self, batch: Tensor) -> Tensor:
        """(batch, length, ...) -> (tokens, ...)."""
        return batch[self.rows, self.columns]

    def unpack(self, states: Tensor) -> Tensor:
        """(tokens, hidden) -> (batch, length, hidden), zeros for padding."""
        batch = states.new_zeros(*self.shape, states.shape[-1])
        batch[self.rows, self.columns] = states
        return batch


def _run_packed(encoder, attention_mask, output_hidden_states, **tokens) -> BaseModelOutput:
    packing = Packing(attention_mask)
    positions = packing.columns
    if BERT_LIKE[type(encoder).__name__]:
        positions = positions + encoder.config.pad_token_id + 1
    tokens = {name: packing.pack(batch).unsqueeze(0) for name, batch in tokens.items()}
    layers = [encoder.embeddings(position_ids=positions.unsqueeze(0), **tokens).squeeze(0)]  # (tokens, hidden)
    for layer in encoder.encoder.layer:
        states = _run_layer(layer, layers[-1], packing.runs)
        layers = [*layers, states] if output_hidden_states else [states]
    layers = tuple(map(packing.unpack, layers))
    return BaseModelOutput(last_hidden_state=layers[-1], hidden_states=layers if output_hidden_states else None)


def _run_layer(layer: nn.Module, states: Tensor, runs) -> Tensor:
    """One layer of BERT, states (tokens, hidden)."""
    attention = layer.attention.self
    parts = [part(states) for part in (attention.query, attention.key, attention.value)]
    contexts = [_attend(attention, run, length, *parts) for run, length in runs]
    states = layer.attention.output(torch.cat(contexts or parts[:1]), states)  # or: there is no token at all
    if torch.is_grad_enabled():  # what the layer has seen is kept for the gradients anyway
        return layer.feed_forward_chunk(states)
    return torch.cat([layer.feed_forward_chunk(some) for some in states.split(FEED_FORWARD_TOKENS)])


def _attend(attention: nn.Module, run: slice, length: int, *parts: Tensor) -> Tensor:
    """Attention inside each text of a run of texts of one length; returns (tokens of the run, hidden)."""
    shape = (-1, length, parts[0].shape[1] // attention.attention_head_size, attention.attention_head_size)
    query, key, value = (part[run].view(shape).transpose(1, 2) for part in parts)
    dropout = attention.dropout.p if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return context.transpose(1, 2).reshape(-1, parts[0].shape[1])
