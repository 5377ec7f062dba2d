"""What all architectures share: the heads between the encoders' token states and the logits."""

from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .layers import LayerwiseAttention, LstmSeq2SeqEncoder, Projector
from .losses import contrastive_loss, problem_loss, text_contrastive_loss
from .options import resolve
from .poolings import NO_POOLING, POOLINGS, read_by
from .scorers import DOT_PRODUCT_SCORERS, SCORERS

NORM_EPSILON = 1e-8

# The states of one layer, as an architecture reads them:
# text (batch, length, hidden) under text_mask (batch, length), classes (batch or 1, labels, hidden) under
# class_mask (batch or 1, labels).
Reading = namedtuple("Reading", ["text", "text_mask", "classes", "class_mask"])


class Architecture(nn.Module):
    """Heads and forward pass; subclasses bring the encoders and say where text and labels are read.

    A subclass sets ``backbone_name`` and defines ``encode`` and ``read``; see :class:`UniEncoder` for the
    shortest one.
    """

    backbone_name = "encoder_model"
    scales_logits_always = False  # the bi-encoders do; the others where features are normalised

    def __init__(self, config):
        super().__init__()
        self.config = config
        width = config.encoder_width
        shape = (width, config.hidden_size, width, config.projector_hidden_act, config.dropout)
        self.text_projector = Projector(*shape)
        self.classes_projector = Projector(*shape)
        self.scorer = resolve(SCORERS, config.scorer_type, "scorer_type")(config, width)
        if config.use_lstm:
            self.lstm = LstmSeq2SeqEncoder(width)
        if config.squeeze_layers:
            # The embedding layer's output is a hidden state too.
            n_layers = config.encoder_config.get_text_config().num_hidden_layers + 1
            self.layer_wise_attention = LayerwiseAttention(n_layers, width)
        self.dropout = nn.Dropout(config.dropout)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))

    @property
    def backbone(self) -> nn.Module:
        return getattr(self, self.backbone_name)

    def encoder_modules(self) -> list[nn.Module]:
        return [self.backbone]

    def state_modules(self) -> list[nn.Module]:
        """What the encoder states of a text depend on: its encoder, and whatever stands before it."""
        return [self.backbone]

    def label_modules(self) -> list[nn.Module]:
        """What the states of labels that stand apart from the text depend on."""
        return []

    def frozen_modules(self) -> list[nn.Module]:
        """What stays as it is with frozen encoders, for stored states depend on it."""
        return [*self.state_modules(), *self.label_modules()]

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """Tied weights of the encoders, named from here; transformers collects them level by level."""
        return {
            f"{name}.{target}": f"{name}.{source}"
            for name, child in self.named_children()
            if isinstance(child, PreTrainedModel)
            for target, source in child.all_tied_weights_keys.items()
        }

    def init_identity(self) -> None:
        """Projectors start as the identity, and a scorer that can be one as a dot product."""
        self.text_projector.init_identity()
        self.classes_projector.init_identity()
        if self.config.scorer_type in DOT_PRODUCT_SCORERS:
            self.scorer.init_dot_product()

    # -- from layers to logits -----------------------------------------------------------------------------

    @property
    def needs_hidden_states(self) -> bool:
        config = self.config
        return config.squeeze_layers or config.layer_wise or config.encoder_layer_id != -1

    def pick_layers(self, hidden_states, last_state: Tensor, mask: Tensor, every: bool) -> list[Tensor]:
        """The token states to score, each (batch, length, hidden): one, or with `every` one per layer."""
        if every:
            return list(hidden_states)
        if self.config.squeeze_layers:
            return [self.layer_wise_attention(hidden_states, mask)]
        if self.config.encoder_layer_id != -1:
            return [hidden_states[self.config.encoder_layer_id]]
        return [last_state]

    def text_read(self, mask: Tensor) -> Tensor:
        """Mask of the tokens whose last states :meth:`pool_text` depends on, among those in `mask`."""
        return mask.bool() if self.config.use_lstm else read_by(self.config.pooling_strategy, mask)

    def pool_text(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, hidden), or with the pooling "pass" the states themselves; and the mask that goes with them."""
        if self.config.use_lstm:
            states, mask = self.lstm(states, mask)
        if self.config.pooling_strategy == NO_POOLING:
            return states, mask
        return POOLINGS[self.config.pooling_strategy](states, mask), mask

    def project_text(self, text: Tensor) -> Tensor:
        return self._normalize(self.dropout(self.text_projector(text)))

    def project_classes(self, classes: Tensor) -> Tensor:
        return self._normalize(self.classes_projector(classes))

    def project_class_states(self, classes: Tensor) -> Tensor:
        """From what an encoder gives for the labels to what the scorer takes."""
        return self.project_classes(classes)

    def _normalize(self, features: Tensor) -> Tensor:
        if not self.config.normalize_features:
            return features
        return F.normalize(features, dim=-1, eps=NORM_EPSILON)

    def score(self, text: Tensor, classes: Tensor, text_mask: Tensor, class_mask: Tensor, at_once=None) -> Tensor:
        """Logits (batch, labels) of projected text and labels; `at_once`: of so many labels at a time."""
        if at_once is not None and classes.shape[1] > at_once:
            parts = zip(classes.split(at_once, dim=1), class_mask.split(at_once, dim=1), strict=True)
            return torch.cat([self.score(text, part, text_mask, mask) for part, mask in parts], dim=1)
        logits = self.scorer(text, classes, text_mask, class_mask)
        if self.scales_logits_always or self.config.normalize_features:
            logits = logits * self.logit_scale
        return logits - self.config.logit_offset if self.config.logit_offset else logits

    def loss(self, logits, text, classes, class_mask, labels, sample_weight=None, class_ids=None) -> Tensor:
        """The loss of `logits`, and of the projected `text` and `classes` where the configuration asks for it."""
        loss = problem_loss(self.config, logits, labels, class_mask, sample_weight)
        coefficient = self.config.text_contrastive_loss_coef
        if coefficient and class_ids is not None and text.dim() == 2:
            loss = loss + coefficient * text_contrastive_loss(text, class_ids, sample_weight)
        coefficient = self.config.contrastive_loss_coef
        if coefficient:
            if sample_weight is not None and sample_weight.dim() == 2:
                sample_weight = sample_weight.mean(dim=1)
            loss = loss + coefficient * contrastive_loss(classes, class_mask, sample_weight)
        return loss

    def embed_text(self, input_ids, attention_mask, **inputs) -> Tensor:
        """Pooled text states (batch, hidden) before the projection; the mean where nothing is pooled."""
        (states,), context = self.encode(input_ids, attention_mask, False, **inputs)
        reading = self.read(states, context)
        text, mask = self.pool_text(reading.text, reading.text_mask)
        return POOLINGS["avg"](text, mask) if text.dim() == 3 else text

    def forward(
        self, input_ids, attention_mask, labels=None, sample_weight=None, class_ids=None, labels_at_once=None, **inputs
    ):
        from .modeling import GLiClassOutput  # modeling imports the architectures

        every_layer = self.config.layer_wise and labels is not None
        layers, context = self.encode(input_ids, attention_mask, every_layer, **inputs)
        losses = []
        for states in layers:
            reading = self.read(states, context)
            text, text_mask = self.pool_text(reading.text, reading.text_mask)
            text = self.project_text(text)
            classes = self.project_class_states(reading.classes)
            logits = self.score(text, classes, text_mask, reading.class_mask, labels_at_once)
            if labels is not None:
                losses.append(self.loss(logits, text, classes, reading.class_mask, labels, sample_weight, class_ids))
        return GLiClassOutput(
            loss=torch.stack(losses).sum() if losses else None,
            logits=logits.masked_fill(~reading.class_mask, torch.finfo(logits.dtype).min),
            text_embeddings=text,
            class_embeddings=classes,
            class_mask=reading.class_mask,
        )


def class_positions(input_ids: Tensor, class_token: int) -> tuple[Tensor, Tensor]:
    """Where the label tokens stand: positions (batch, labels), 0 in empty slots, and the mask of real ones."""
    is_class = input_ids == class_token
    counts = is_class.sum(dim=1)
    rows, columns = is_class.nonzero(as_tuple=True)
    rank = is_class.cumsum(dim=1)[rows, columns] - 1
    n_labels = int(counts.max()) if len(counts) else 0
    positions = torch.zeros(input_ids.shape[0], n_labels, dtype=torch.long, device=input_ids.device)
    positions[rows, rank] = columns
    return positions, torch.arange(n_labels, device=input_ids.device) < counts.unsqueeze(1)


def take_positions(states: Tensor, positions: Tensor) -> Tensor:
    """States (batch, labels, hidden) at positions (batch, labels)."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def class_states(config, states: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """A label's state (batch, labels, hidden) and the mask of real labels, as ``class_token_pooling`` says."""
    positions, mask = _label_positions(config, input_ids)
    if config.class_token_pooling == "first":
        return take_positions(states, positions), mask
    owner = _label_spans(config, input_ids, attention_mask)
    labels = torch.arange(1, mask.shape[1] + 1, device=input_ids.device).view(1, -1, 1)
    spans = (owner.unsqueeze(1) == labels).to(states.dtype)  # (B, C, L)
    return spans @ states / spans.sum(-1, keepdim=True).clamp_min(1), mask


def class_read(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Mask (batch, length) of the tokens whose states :func:`class_states` reads, for labels and empty slots."""
    if config.class_token_pooling == "first":
        positions, _ = _label_positions(config, input_ids)
        return torch.zeros_like(input_ids, dtype=torch.bool).scatter(1, positions, True)
    return _label_spans(config, input_ids, attention_mask) > 0


def _label_positions(config, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first token of each label, and the mask of real labels; see :func:`class_positions`."""
    positions, mask = class_positions(input_ids, config.class_token_index)
    if not config.embed_class_token:
        positions = (positions + 1).clamp_max(input_ids.shape[1] - 1)
    return positions, mask


def _label_spans(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, length): k for the tokens of the k-th label, 0 for all others."""
    is_class = input_ids == config.class_token_index
    after_prompt = (input_ids == config.text_token_index).cumsum(dim=1).bool()
    outside = after_prompt | ~attention_mask.bool()
    if not config.embed_class_token:
        outside = outside | is_class
    return is_class.cumsum(dim=1).masked_fill(outside, 0)


def text_part(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Mask of the tokens that the text is pooled from, in a sequence with a prompt.

    With ``extract_text_features`` and the prompt first: from ``<<SEP>>`` on, as checkpoints were trained;
    with the prompt last: what stands before it. Otherwise the whole sequence.
    """
    mask = attention_mask.bool()
    if not config.extract_text_features:
        return mask
    if config.prompt_first:
        return mask & (input_ids == config.text_token_index).cumsum(dim=1).bool()
    control = (input_ids == config.class_token_index) | (input_ids == config.text_token_index)
    return mask & ~control.cumsum(dim=1).bool()
