"""Encoders without padding: linear layers see real tokens only, attention sees texts of one length at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

# Encoders of BERT's structure, by class: whether their positions start after the padding index.
BERT_LIKE = {"BertModel": False, "RobertaModel": True, "XLMRobertaModel": True, "CamembertModel": True}

# Tokens that the wide layer of the feed-forward part sees at once: more would leave the caches, and memory of such
# size is handed back to the system and asked for again in each layer.
FEED_FORWARD_TOKENS = 512


def run_encoder(encoder: nn.Module, attention_mask: Tensor, output_hidden_states: bool = False, **tokens):
    """The encoder's output for ``input_ids`` or ``inputs_embeds``; packed where that is supported.

    Packed states of padding are zeros; those of real tokens are the encoder's own. Training and whatever else
    asks for gradients keeps the encoder's own pass; so does a GPU, where padding costs less than many small kernels.
    """
    plain = encoder.training or torch.is_grad_enabled() or attention_mask.device.type != "cpu"
    if plain or not can_pack(encoder):
        return encoder(attention_mask=attention_mask, output_hidden_states=output_hidden_states, **tokens)
    return _run_packed(encoder, attention_mask, output_hidden_states, **tokens)


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
    return BaseModelOutput(
        last_hidden_state=packing.unpack(layers[-1]),
        hidden_states=tuple(map(packing.unpack, layers)) if output_hidden_states else None,
    )


def _run_layer(layer: nn.Module, states: Tensor, runs) -> Tensor:
    """One layer of BERT, states (tokens, hidden)."""
    attention = layer.attention.self
    parts = [part(states) for part in (attention.query, attention.key, attention.value)]
    context = torch.empty_like(parts[0])
    for run, length in runs:
        context[run] = _attend(run, length, attention.attention_head_size, *parts)
    states = layer.attention.output(context, states)
    return torch.cat([layer.feed_forward_chunk(some) for some in states.split(FEED_FORWARD_TOKENS)])


def _attend(run: slice, length: int, head_size: int, *parts: Tensor) -> Tensor:
    """Attention inside each text of a run of texts of one length; returns (tokens of the run, hidden)."""
    query, key, value = (part[run].view(-1, length, part.shape[1] // head_size, head_size) for part in parts)
    context = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return context.transpose(1, 2).reshape(-1, parts[0].shape[1])
