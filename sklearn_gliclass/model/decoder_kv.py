"""Decoder-kv: text and labels in one sequence of a causal decoder, which can keep the text while labels change."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from .architecture import Architecture, Scores
from .decoder_scorer import DecoderScorer, Section
from .loading import build_encoder
from .losses import problem_loss
from .outputs import GLiClassOutput
from .poolings import POOLINGS
from .positions import class_positions, take_positions


def check_decoder(config) -> None:
    """Raise if a configuration of transformers is not that of a causal decoder of texts."""
    model_type = config.model_type
    is_causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder or not is_causal:
        raise ValueError(
            "architecture_type='decoder-kv' needs a causal decoder such as Qwen3 or Llama, got "
            f"model_type={model_type!r}; choose another encoder or architecture."
        )


class DecoderKV(Architecture):
    """Causal decoder of ``text<<SEP>>l1<<LABEL>>l2<<LABEL>>...<<SEP>>``, whose scorer encodes the labels' section.

    The text does not attend to the labels, so that its keys and values serve any labels; see :meth:`extend`.
    """

    decoder_model: PreTrainedModel
    backbone_name = "decoder_model"
    heads_read_tokens: bool = True
    scales_logits: bool = False
    logit_factor: float = 1.0

    def __init__(self, config, encoder=None, label_encoder=None):
        super().__init__(config)
        check_decoder(config.encoder_config)
        self.decoder_model = encoder or build_encoder(config.encoder_config)
        self._depths = random.Random(0)

    def train(self, mode: bool = True):
        """Set the mode. A training begins with the same depths of the scorer, in all processes that share it."""
        if mode and not self.training:
            self._depths = random.Random(0)
        return super().train(mode)

    def _build_heads(self, config):
        self.scorer = DecoderScorer(config, config.encoder_width)

    def init_identity(self):
        self.scorer.init_identity()

    # -- from token ids ------------------------------------------------------------------------------------

    def encode(self, input_ids, attention_mask, every_layer):
        outputs = self.decoder_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return [outputs.last_hidden_state], (input_ids, attention_mask)

    def read(self, states, context):
        input_ids, attention_mask = context
        positions, class_mask = class_positions(input_ids, self.config.class_token_index)
        starts = self._section_starts(input_ids, positions)
        return self._cut_section(states, attention_mask.bool(), starts, positions, class_mask)

    def _section_starts(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Return the start of the labels' section in each row: after the last ``<<SEP>>`` before the first label."""
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        is_before = (input_ids == self.config.text_token_index) & (columns < positions[:, :1])
        return torch.where(is_before, columns + 1, 0).amax(dim=1)

    def _cut_section(
        self, states: Tensor, mask: Tensor, starts: Tensor, positions: Tensor, class_mask: Tensor
    ) -> Section:
        """Split hidden states (batch, length, hidden) into those of the labels' section and of the text before it."""
        columns = torch.arange(states.shape[1], device=states.device)
        lengths = mask.sum(dim=1) - starts
        columns = columns[: int(lengths.max())]
        index = (starts.unsqueeze(1) + columns).clamp_max(states.shape[1] - 1)
        is_text = torch.arange(states.shape[1], device=states.device) < starts.unsqueeze(1)
        return Section(
            states=take_positions(states, index),
            mask=columns < lengths.unsqueeze(1),
            positions=(positions - starts.unsqueeze(1)).clamp_min(0),
            class_mask=class_mask,
            text_states=states,
            text_mask=is_text,
        )

    def embed_text(self, input_ids, attention_mask, **inputs):
        """Compute the mean hidden state (batch, hidden) of each text and the ``<<SEP>>`` after it."""
        (states,), context = self.encode(input_ids, attention_mask, False)
        section = self.read(states, context)
        return POOLINGS["avg"](section.text_states, section.text_mask)

    # -- heads ---------------------------------------------------------------------------------------------

    def apply_heads(self, reading, labels_at_once=None):
        n_steps, halt_threshold = self._resolve_steps()
        steps = self.scorer(reading, n_steps, halt_threshold)
        offset = self.config.logit_offset
        return [Scores(logits - offset, text, classes, reading.class_mask) for logits, text, classes in steps]

    def _resolve_steps(self) -> tuple[int, float | None]:
        """Return the number of steps of the scorer, random in training, and the threshold of early halting."""
        config = self.config
        if self.training:
            least = min(config.recurrent_min_steps or 1, config.recurrent_steps)
            return self._depths.randint(least, config.recurrent_steps), None
        if config.recurrent_steps == 1 or not config.recurrent_inference:
            return 1, None
        return config.recurrent_inference_max_steps or config.recurrent_steps, config.recurrent_halt_threshold

    def steps_loss(self, steps, labels, sample_weight=None, class_ids=None):
        """Compute the mean loss of the steps, plus terms that make each step better and more certain than the last."""
        config = self.config
        loss = torch.stack([self.loss(*step, labels, sample_weight, class_ids) for step in steps]).mean()
        weights = torch.ones_like(steps[0].logits[:, 0]) if sample_weight is None else sample_weight
        weights = weights if weights.dim() == 1 else weights.mean(dim=1)
        if len(steps) >= 3 and config.recurrent_improvement_coef:
            # From the third step on: the first is only trained by its own loss.
            losses = torch.stack([self._losses(step, labels) for step in steps[1:]])  # (steps - 1, batch)
            target = (1.0 - config.recurrent_improvement_margin) * losses[:-1].detach()
            loss = loss + config.recurrent_improvement_coef * _mean((losses[1:] - target).relu(), weights)
        if len(steps) >= 2 and config.recurrent_confidence_coef:
            entropies = torch.stack([self._entropies(step) for step in steps])  # (steps, batch)
            excess = entropies[1:]
            if config.recurrent_confidence_mode == "relative":
                excess = (excess - (1.0 - config.recurrent_confidence_margin) * entropies[:-1].detach()).relu()
            loss = loss + config.recurrent_confidence_coef * _mean(excess, weights)
        return loss

    def _losses(self, scores: Scores, labels: Tensor) -> Tensor:
        """Compute the loss (batch,) of each sample."""
        mask = scores.class_mask.expand_as(scores.logits)
        rows = (slice(row, row + 1) for row in range(len(labels)))
        return torch.stack([problem_loss(self.config, scores.logits[row], labels[row], mask[row]) for row in rows])

    def _entropies(self, scores: Scores) -> Tensor:
        """Compute the entropy (batch,) of the probabilities of each sample, the mean over its labels if multi-label."""
        mask = scores.class_mask.expand_as(scores.logits)
        if self.config.problem_type == "single_label_classification":
            logs = scores.logits.masked_fill(~mask, torch.finfo(scores.logits.dtype).min).log_softmax(dim=1)
            return -(logs.exp() * logs).sum(dim=1)
        entropies = F.binary_cross_entropy_with_logits(scores.logits, scores.logits.sigmoid(), reduction="none")
        return (entropies * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    # -- from cached hidden states -------------------------------------------------------------------------

    @torch.no_grad()
    def text_states(self, input_ids, attention_mask, every_layer=False):
        """Compute the hidden states that the heads read, with the positions of the labels among them.

        Returns
        -------
        dict of str to Tensor
            - "text_states": (batch, length, 1, hidden) of the labels' section, or of the whole sequence if the scorer
              reads the text; with "text_mask" (batch, length).
            - "label_positions": (batch, labels), and "section_start": (batch, 1).
            - "text_embedding": (batch, hidden), see :meth:`embed_text`.
        """
        (states,), context = self.encode(input_ids, attention_mask, False)
        section = self.read(states, context)
        found = {"text_embedding": POOLINGS["avg"](section.text_states, section.text_mask)}
        starts = section.text_mask.sum(dim=1, keepdim=True)
        if self.reads_text:
            positions, _ = class_positions(input_ids, self.config.class_token_index)
            kept = {"text_states": states, "text_mask": attention_mask.bool()}
            return {**found, **_with_layer_axis(kept), "label_positions": positions, "section_start": starts}
        kept = {"text_states": section.states, "text_mask": section.mask}
        return {
            **found,
            **_with_layer_axis(kept),
            "label_positions": section.positions,
            "section_start": torch.zeros_like(starts),
        }

    def score_states(
        self,
        text_states,
        text_mask,
        label_positions,
        section_start,
        label_mask,
        text_embedding=None,
        **targets,
    ) -> GLiClassOutput:
        """Compute logits and loss from the results of :meth:`text_states`, with a second axis for the label prompts."""
        batch, n_prompts = text_states.shape[:2]
        class_mask = label_mask.expand(batch, -1, -1).flatten(0, 1)
        section = self._cut_section(
            text_states.flatten(0, 1).squeeze(2),
            text_mask.flatten(0, 1),
            section_start.flatten(),
            label_positions.flatten(0, 1),
            class_mask,
        )
        return self._run_heads([section], n_prompts, **targets)

    def embed_states(self, text_embedding, **others):
        """Return the text embeddings of the first label prompt, as :meth:`embed_text` computes them."""
        return text_embedding[:, 0]

    # -- with the keys and values of a text ------------------------------------------------------------------

    def extend(self, input_ids: Tensor, cache) -> Tensor:
        """Compute the hidden states (1, length, hidden) of tokens that follow those in `cache`, which is extended."""
        return self.decoder_model(input_ids=input_ids, past_key_values=cache, use_cache=True).last_hidden_state

    @property
    def reads_text(self) -> bool:
        """Whether the scorer attends to the hidden states of the text."""
        return self.config.recurrent_steps > 1 and self.config.recurrent_read_text

    def classify(self, prompt_ids: Tensor, cache, text_states: Tensor | None = None, calibrator=None) -> GLiClassOutput:
        """Score the labels of a prompt (1, length) after the text in `cache`, which is extended.

        `text_states` (1, length, hidden) are the hidden states of that text, for a scorer that reads it.
        """
        states = self.extend(prompt_ids, cache)
        n_text = 0 if text_states is None else text_states.shape[1]
        if text_states is not None:
            states = torch.cat([text_states, states], dim=1)
        positions, class_mask = class_positions(prompt_ids, self.config.class_token_index)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        starts = torch.full((1,), n_text + 1, device=states.device)  # after the prompt's first <<SEP>>
        section = self._cut_section(states, mask, starts, positions + n_text, class_mask)
        return self._run_heads([section], 1, calibrator=calibrator)


def _with_layer_axis(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**kept, "text_states": kept["text_states"].unsqueeze(2)}


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean of (steps, batch) over the steps, and over the batch by weights."""
    weights = weights.to(values.dtype)
    return (values.mean(dim=0) * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)
