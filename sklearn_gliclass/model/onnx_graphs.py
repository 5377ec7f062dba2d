"""Modules that are exported to ONNX: the model without packing, with label positions as an input.

Each has tensors as inputs and outputs, and no operation that depends on their values, so that the trace of one batch is
valid for all others.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import LstmSeq2SeqEncoder, move_to_start
from .packed import run_encoder


class Graph(NamedTuple):
    """A module to export, with the names of its inputs and outputs and their dynamic axes.

    Attributes
    ----------
    module : torch.nn.Module
        The module, whose ``forward`` takes the inputs in their order.
    inputs, outputs : dict of str to tuple of str
        Name -> names of the leading axes; further axes have a constant size.
    """

    module: nn.Module
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]


_SEQUENCE = ("batch", "length")
_TOKENS = {"input_ids": _SEQUENCE, "attention_mask": _SEQUENCE}
_LABELS = ("labels", "label_length")
_CLASS_TOKENS = {"class_input_ids": _LABELS, "class_attention_mask": _LABELS}


class TextGraph(nn.Module):
    """Texts of the bi-encoder: token ids to projected text (batch, hidden)."""

    def __init__(self, architecture):
        super().__init__()
        self.heads = architecture

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        (states,), _ = self.heads.encode(input_ids, attention_mask, False)
        text, _ = self.heads.pool_text(states, attention_mask.bool())
        return self.heads.project_text(text)


class LabelGraph(nn.Module):
    """Labels of both bi-encoders: token ids to projected label embeddings (labels, hidden)."""

    def __init__(self, architecture):
        super().__init__()
        self.heads = architecture

    def forward(self, class_input_ids: Tensor, class_attention_mask: Tensor) -> Tensor:
        states = self.heads.pool_labels(class_input_ids, class_attention_mask)
        return self.heads.project_classes(states)


class ScorerGraph(nn.Module):
    """Scorer of the bi-encoder: projected text and labels to logits."""

    def __init__(self, architecture):
        super().__init__()
        self.heads = architecture

    def forward(self, text: Tensor, classes: Tensor) -> Tensor:
        return self.heads.score(text, classes.unsqueeze(0), None, None)


class UniGraph(nn.Module):
    """Uni-encoder: sequences of text and prompt to logits.

    ``label_weights`` (batch, labels, length) holds the weight of each token in the embedding of each label: 1 at its
    label token, or 1 / n at each of the n tokens of the label.
    """

    def __init__(self, architecture):
        super().__init__()
        self.heads = architecture

    def forward(self, input_ids: Tensor, attention_mask: Tensor, text_mask: Tensor, label_weights: Tensor) -> Tensor:
        tokens = self.heads.embed_tokens(input_ids)
        outputs = run_encoder(self.heads.encoder_model, attention_mask, self.heads.needs_hidden_states, **tokens)
        states = _pick_layer(self.heads, outputs, attention_mask)
        return _score(self.heads, states, text_mask, label_weights @ states)


class FusedGraph(nn.Module):
    """Fused bi-encoder: as :class:`UniGraph`, with label embeddings (labels, hidden) in place of the label tokens."""

    def __init__(self, architecture):
        super().__init__()
        self.heads = architecture

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, text_mask: Tensor, label_weights: Tensor, classes: Tensor
    ) -> Tensor:
        embeddings = self.heads.encoder_model.get_input_embeddings()(input_ids)
        is_class = (label_weights.sum(dim=1) > 0).unsqueeze(-1)  # (batch, length, 1)
        embeddings = torch.where(is_class, label_weights.transpose(1, 2) @ classes, embeddings)
        outputs = run_encoder(
            self.heads.encoder_model, attention_mask, self.heads.needs_hidden_states, inputs_embeds=embeddings
        )
        states = _pick_layer(self.heads, outputs, attention_mask)
        return _score(self.heads, states, text_mask, label_weights @ states)


class EncoderDecoderGraph(nn.Module):
    """Encoder-decoder: texts and prompts to logits, with the ``label_weights`` (batch, labels, prompt length)."""

    def __init__(self, architecture):
        super().__init__()
        self.heads = architecture

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        class_input_ids: Tensor,
        class_attention_mask: Tensor,
        label_weights: Tensor,
    ) -> Tensor:
        (states,), prompt = self.heads.run(input_ids, attention_mask, class_input_ids, class_attention_mask, False)
        return _score(self.heads, states, attention_mask, label_weights @ prompt)


class PaddedLstm(nn.Module):
    """Bidirectional LSTM of :class:`LstmSeq2SeqEncoder` without packed sequences: one LSTM for each direction."""

    def __init__(self, encoder: LstmSeq2SeqEncoder):
        super().__init__()
        weights, (n_inputs, n_outputs) = encoder.lstm.state_dict(), (encoder.lstm.input_size, encoder.lstm.hidden_size)
        self.forwards, self.backwards = (nn.LSTM(n_inputs, n_outputs, batch_first=True) for _ in range(2))
        self.forwards.load_state_dict({name: weights[name] for name in self.forwards.state_dict()})
        self.backwards.load_state_dict({name: weights[f"{name}_reverse"] for name in self.backwards.state_dict()})

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        states, mask = move_to_start(states, mask.bool())
        columns, lengths = torch.arange(mask.shape[1]), mask.sum(dim=1, keepdim=True)
        # The order that reverses the tokens of each sequence, and keeps its padding at the end.
        reverse = torch.where(columns < lengths, lengths - 1 - columns, columns).unsqueeze(-1)  # (batch, length, 1)
        backwards, _ = self.backwards(states.gather(1, reverse.expand_as(states)))
        backwards = backwards.gather(1, reverse.expand_as(backwards))
        output = torch.cat([self.forwards(states)[0], backwards], dim=-1)  # (batch, length, hidden)
        return output.masked_fill(~mask.unsqueeze(-1), 0.0), mask


def _pick_layer(heads, outputs, attention_mask: Tensor) -> Tensor:
    hidden_states = getattr(outputs, "hidden_states", None)
    (states,) = heads.pick_layers(hidden_states, outputs.last_hidden_state, attention_mask, False)
    return states


def _score(heads, states: Tensor, text_mask: Tensor, classes: Tensor) -> Tensor:
    """Compute the logits (batch, labels) of texts (batch, length, hidden) and labels (batch, labels, hidden)."""
    text, text_mask = heads.pool_text(states, text_mask.bool())
    return heads.score(heads.project_text(text), heads.project_class_states(classes), text_mask, None)


def build_graphs(architecture) -> dict[str, Graph]:
    """Return the graphs of an architecture by name.

    Parameters
    ----------
    architecture : Architecture
        The architecture, in evaluation mode. If it has an LSTM, that is replaced by :class:`PaddedLstm`.

    Returns
    -------
    dict of str to Graph
        "text", "labels" and "scorer" for the plain bi-encoder, "model" and "labels" for the fused one, and "model" for
        all others.
    """
    if architecture.config.use_lstm:
        architecture.lstm = PaddedLstm(architecture.lstm)
    labels = Graph(LabelGraph(architecture), _CLASS_TOKENS, {"classes": ("labels",)})
    weights = {"label_weights": ("batch", "labels", "length")}
    logits = {"logits": ("batch", "labels")}
    match architecture.config.architecture_type:
        case "bi-encoder":
            text, inputs = {"text": ("batch",)}, {"text": ("batch",), "classes": ("labels",)}
            return {
                "text": Graph(TextGraph(architecture), _TOKENS, text),
                "scorer": Graph(ScorerGraph(architecture), inputs, logits),
                "labels": labels,
            }
        case "bi-encoder-fused":
            inputs = {**_TOKENS, "text_mask": _SEQUENCE, **weights, "classes": ("labels",)}
            return {"model": Graph(FusedGraph(architecture), inputs, logits), "labels": labels}
        case "encoder-decoder":
            prompt = ("batch", "prompt_length")
            inputs = {**_TOKENS, "class_input_ids": prompt, "class_attention_mask": prompt}
            inputs["label_weights"] = ("batch", "labels", "prompt_length")
            return {"model": Graph(EncoderDecoderGraph(architecture), inputs, logits)}
    return {"model": Graph(UniGraph(architecture), {**_TOKENS, "text_mask": _SEQUENCE, **weights}, logits)}
