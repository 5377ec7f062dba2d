"""Scorer of the architecture decoder-kv: a bidirectional encoder over the labels' section, and an MLP."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DebertaV2Config
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

from .positions import take_positions
from .scorers import score_mlp

HEAD_WIDTH = 64
MAX_RELATIVE_POSITIONS = 512
NORM_EPSILON = 1e-8


class Section(NamedTuple):
    """Hidden states that the scorer reads.

    Attributes
    ----------
    states : Tensor of shape (batch, length, hidden)
        Those of the labels' section ``l1<<LABEL>>l2<<LABEL>>...<<SEP>>``.
    mask : BoolTensor of shape (batch, length)
        True for its tokens.
    positions : LongTensor of shape (batch, labels)
        Positions of the ``<<LABEL>>`` tokens in the section.
    class_mask : BoolTensor of shape (batch, labels)
        True for real labels.
    text_states : Tensor of shape (batch, text length, hidden)
        Those of the text before the section, and of other tokens.
    text_mask : BoolTensor of shape (batch, text length)
        True for the tokens of the text.
    """

    states: Tensor
    mask: Tensor
    positions: Tensor
    class_mask: Tensor
    text_states: Tensor
    text_mask: Tensor


class ReasoningCell(nn.Module):
    """Gated recurrent step around the encoder of the scorer, optionally with attention to the text."""

    def __init__(self, width: int, reads_text: bool):
        super().__init__()
        self.width, self.reads_text = width, reads_text
        self.reset_gate = nn.Linear(2 * width, width)
        self.update_gate = nn.Linear(2 * width, width)
        if reads_text:
            self.num_heads = max(1, width // HEAD_WIDTH)
            self.read_q = nn.Linear(width, width)
            self.read_k = nn.Linear(width, width)
            self.read_v = nn.Linear(width, width)
            self.read_out = nn.Linear(width, width)

    def forward(self, state: Tensor, section: Section, encode) -> Tensor:
        """Return the next state (batch, length, hidden); `encode` is the scorer's encoder."""
        inputs = self._normalize(section.states)
        reset = self.reset_gate(torch.cat([state, inputs], dim=-1)).sigmoid()
        mixed = reset * state + (1 - reset) * inputs
        if self.reads_text:
            mixed = mixed + self._read(state, section)
        candidate = encode(mixed, section.mask)
        update = self.update_gate(torch.cat([state, candidate], dim=-1)).sigmoid()
        return (1 - update) * state + update * candidate

    def _normalize(self, states: Tensor) -> Tensor:
        return F.layer_norm(states, (self.width,))

    def _read(self, state: Tensor, section: Section) -> Tensor:
        """Attend from each token of the section to those of the text."""
        text = self._normalize(section.text_states)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (batch, heads, length, hidden / heads)
            for part in (self.read_q(self._normalize(state)), self.read_k(text), self.read_v(text))
        )
        context = F.scaled_dot_product_attention(query, key, value, section.text_mask[:, None, None, :])
        return self.read_out(context.transpose(1, 2).flatten(2))


class DecoderScorer(nn.Module):
    """Encoder over the labels' section; an MLP scores its last token, the text, with each ``<<LABEL>>`` token.

    With ``recurrent_steps`` above 1, the encoder runs again on a gated mixture of its output and its input.
    """

    def __init__(self, config, width: int):
        super().__init__()
        self.config = config
        encoder_config = DebertaV2Config(
            hidden_size=width,
            num_hidden_layers=config.scorer_encoder_num_layers,
            num_attention_heads=max(1, width // HEAD_WIDTH),
            intermediate_size=4 * width,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=MAX_RELATIVE_POSITIONS,
        )
        self.scorer_encoder = DebertaV2Encoder(encoder_config)
        self.text_projector = nn.Linear(width, width)
        self.label_projector = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.mlp = score_mlp(2 * width, config.scorer_mlp_hidden_size, nn.ReLU)
        if config.recurrent_steps > 1:
            self.reasoning_cell = ReasoningCell(width, config.recurrent_read_text)

    @torch.no_grad()
    def init_identity(self) -> None:
        """Initialise the projectors as the identity."""
        for projector in (self.text_projector, self.label_projector):
            nn.init.eye_(projector.weight)
            nn.init.zeros_(projector.bias)

    def forward(self, section: Section, n_steps: int = 1, halt_threshold: float | None = None) -> list[tuple]:
        """Return logits (batch, labels), text (batch, hidden) and labels (batch, labels, hidden) of each step.

        With a `halt_threshold`, a sample keeps its result once none of its probabilities moves by that much between two
        steps. The result of a sample therefore does not depend on its batch.
        """
        state = self._encode(section.states, section.mask)
        steps: list[tuple[Tensor, ...]] = [self._score(state, section)]
        active = torch.ones(len(state), dtype=torch.bool, device=state.device)
        for step in range(1, n_steps):
            if self.config.recurrent_bptt_steps and step % self.config.recurrent_bptt_steps == 0:
                state = state.detach()  # truncated backpropagation through time
            before, state = state, self.reasoning_cell(state, section, self._encode)
            result = self._score(state, section)
            if halt_threshold:
                state = _select(active, state, before)
                change = (self._probabilities(result[0], section) - self._probabilities(steps[-1][0], section)).abs()
                result = tuple(_select(active, *pair) for pair in zip(result, steps[-1], strict=True))
                active = active & (change.amax(dim=1) >= halt_threshold)
            steps.append(result)
            if halt_threshold and not active.any():
                break
        return steps

    def _encode(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.scorer_encoder(states, attention_mask=mask.long()).last_hidden_state

    def _score(self, states: Tensor, section: Section) -> tuple[Tensor, Tensor, Tensor]:
        last = (section.mask.sum(dim=1, keepdim=True) - 1).clamp_min(0)
        text = self._normalize(self.dropout(self.text_projector(take_positions(states, last).squeeze(1))))
        classes = self._normalize(self.label_projector(take_positions(states, section.positions)))
        pairs = torch.cat([text.unsqueeze(1).expand_as(classes), classes], dim=-1)  # (batch, labels, 2 * hidden)
        return self.mlp(pairs).squeeze(-1), text, classes

    def _normalize(self, features: Tensor) -> Tensor:
        if not self.config.normalize_features:
            return features
        return features / (features.norm(dim=-1, keepdim=True) + NORM_EPSILON)

    def _probabilities(self, logits: Tensor, section: Section) -> Tensor:
        """Compute the probabilities of the real labels, and 0 for empty slots."""
        if self.config.problem_type == "single_label_classification":
            logits = logits.masked_fill(~section.class_mask, torch.finfo(logits.dtype).min)
            return logits.softmax(dim=1)
        return logits.sigmoid().masked_fill(~section.class_mask, 0.0)


def _select(active: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of `new` that are active, and otherwise those of `old`."""
    return torch.where(active.view(-1, *[1] * (new.dim() - 1)), new, old)
