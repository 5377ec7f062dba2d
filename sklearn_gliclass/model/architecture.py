"""Base class of the architectures: the heads between the encoders' hidden states and the logits."""

from collections import namedtuple
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .config import GLiClassModelConfig
from .layers import LayerwiseAttention, LstmSeq2SeqEncoder, Projector
from .losses import contrastive_loss, problem_loss, text_contrastive_loss
from .options import resolve
from .outputs import GLiClassOutput
from .poolings import NO_POOLING, POOLINGS, mask_read_tokens
from .scorers import DOT_PRODUCT_SCORERS, RESERVED_AXIS, SCORERS, TEXT_COMPONENT

NORM_EPSILON = 1e-8
VALUES_AT_ONCE = 2**21  # hidden units of all pairs of a text and a label

# Hidden states of one layer, as the heads read them:
# text (batch, length, hidden) under text_mask (batch, length), classes (batch or 1, labels, hidden) under
# class_mask (batch or 1, labels). `is_projected` says that the classes are projected for the scorer already.
Reading = namedtuple("Reading", ["text", "text_mask", "classes", "class_mask", "is_projected"], defaults=[False])


class Scores(NamedTuple):
    """Output of the heads for one layer: logits (batch, labels), and the embeddings that they were computed from.

    Attributes
    ----------
    logits : Tensor of shape (batch, labels)
        Logits, also of empty slots.
    text : Tensor of shape (batch, hidden), or (batch, length, hidden) without pooling
        The projected text.
    classes : Tensor of shape (batch or 1, labels, hidden)
        The projected labels.
    class_mask : BoolTensor of shape (batch or 1, labels)
        True for real labels.
    """

    logits: Tensor
    text: Tensor
    classes: Tensor
    class_mask: Tensor


class Architecture(nn.Module):
    """Heads and forward pass; subclasses define the encoders and the positions of text and labels.

    A subclass sets ``backbone_name`` and defines ``encode`` and ``read``; :class:`UniEncoder` is the shortest one.
    """

    config: GLiClassModelConfig
    encoder_model: PreTrainedModel
    encode: Callable[..., tuple[list[Tensor], Any]]
    read: Callable[[Tensor, Any], Any]
    backbone_name = "encoder_model"
    scales_logits_always = False  # True in the bi-encoders; others scale normalised features only

    def __init__(self, config):
        super().__init__()
        self.config = config
        self._build_heads(config)

    def _build_heads(self, config) -> None:
        width = config.encoder_width
        shape = (width, config.hidden_size, width, config.projector_hidden_act, config.dropout)
        self.text_projector = Projector(*shape)
        self.classes_projector = Projector(*shape)
        self.scorer = resolve(SCORERS, config.scorer_type, "scorer_type")(config, width)
        if config.use_lstm:
            self.lstm = LstmSeq2SeqEncoder(width)
        if config.squeeze_layers:
            # The embedding layer's output is a hidden state too.
            self.layer_wise_attention = LayerwiseAttention(config.n_layers + 1, width)
        self.dropout = nn.Dropout(config.dropout)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))

    @property
    def backbone(self) -> PreTrainedModel:
        return getattr(self, self.backbone_name)

    @property
    def scales_logits(self) -> bool:
        """Whether the logits are multiplied by `logit_scale`."""
        return self.scales_logits_always or self.config.normalize_features

    @property
    def logit_factor(self) -> float:
        """Value of `logit_scale`, or 1 without one."""
        return self.logit_scale.item()

    def encoder_modules(self) -> list[nn.Module]:
        return [self.backbone]

    def state_modules(self) -> list[nn.Module]:
        """Return the modules that the hidden states of a text depend on: its encoder, and modules before it."""
        return [self.backbone]

    def label_modules(self) -> list[nn.Module]:
        """Return the modules that the hidden states of separately encoded labels depend on."""
        return []

    def encode_shared_labels(self, **labels) -> dict[str, Tensor]:
        """Encode the labels of many batches: inputs of :meth:`encode` that replace the token ids of the labels."""
        return labels

    @property
    def pooling(self) -> str:
        """Name of the pooling of the texts."""
        return self.config.pooling_strategy

    def frozen_modules(self) -> list[nn.Module]:
        """Return the modules that are frozen with the encoders, as cached hidden states depend on them."""
        return [*self.state_modules(), *self.label_modules()]

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """Tied weights of the encoders, with names relative to this module, for transformers."""
        return {
            f"{name}.{target}": f"{name}.{source}"
            for name, child in self.named_children()
            if isinstance(child, PreTrainedModel)
            for target, source in child.all_tied_weights_keys.items()
        }

    def skip_random_projectors(self) -> None:
        """Keep transformers from drawing weights of the projectors, which :meth:`init_identity` then initialises."""
        for module in self.modules():
            if isinstance(module, Projector):
                for layer in (module.linear_1, module.linear_2):
                    layer._is_hf_initialized = True  # pyright: ignore[reportArgumentType]  # torch expects modules

    def init_identity(self) -> None:
        """Initialise the projectors as the identity and, if possible, the scorer as a dot product."""
        self.text_projector.init_identity()
        self.classes_projector.init_identity()
        if self.config.scorer_type in DOT_PRODUCT_SCORERS:
            self.scorer.init_dot_product()

    @torch.no_grad()
    def reserve_axis(self, states: Tensor) -> None:
        """Replace an axis of the projected texts by a constant, and that of the projected labels by 0.

        Parameters
        ----------
        states : Tensor of shape (n, hidden)
            Hidden states whose mean norm is that of texts.
        """
        texts, classes = self.text_projector.linear_2, self.classes_projector.linear_2
        for layer in (texts, classes):
            layer.weight[RESERVED_AXIS] = 0.0
            layer.bias[RESERVED_AXIS] = 0.0
        texts.bias[RESERVED_AXIS] = TEXT_COMPONENT * states.norm(dim=1).mean()

    # -- from layers to logits -----------------------------------------------------------------------------

    @property
    def needs_hidden_states(self) -> bool:
        config = self.config
        return config.squeeze_layers or config.layer_wise or config.encoder_layer_id != -1

    def pick_layers(self, hidden_states, last_state: Tensor, mask: Tensor, every: bool) -> list[Tensor]:
        """Return the hidden states to score, (batch, length, hidden) each: one, or with `every` one per layer."""
        if not (every or self.needs_hidden_states):
            return [last_state]
        layers = [*hidden_states[:-1], last_state]  # in transformers 5.0, those of ModernBERT are before its last norm
        if every:
            return layers
        if self.config.squeeze_layers:
            return [self.layer_wise_attention(layers, mask)]
        return [layers[self.config.encoder_layer_id]]

    def mask_pooled_tokens(self, mask: Tensor) -> Tensor:
        """Return the mask of the tokens in `mask` whose last hidden states :meth:`pool_text` depends on."""
        return mask.bool() if self.config.use_lstm else mask_read_tokens(self.pooling, mask)

    def pool_text(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the text to (batch, hidden), except with the pooling "pass", and return it with its mask."""
        if self.config.use_lstm:
            states, mask = self.lstm(states, mask)
        if self.pooling == NO_POOLING:
            return states, mask
        return POOLINGS[self.pooling](states, mask), mask

    def project_text(self, text: Tensor, is_identity: bool = False) -> Tensor:
        """Project pooled texts for the scorer; with `is_identity`, the projector is left out, without dropout."""
        return self._normalize(text if is_identity else self.dropout(self.text_projector(text)))

    def project_classes(self, classes: Tensor, without: Tensor | None = None) -> Tensor:
        return self._normalize(self.classes_projector(classes, without))

    def project_class_states(self, classes: Tensor) -> Tensor:
        """Project the hidden states of labels for the scorer."""
        return self.project_classes(classes)

    def _normalize(self, features: Tensor) -> Tensor:
        if not self.config.normalize_features:
            return features
        return F.normalize(features, dim=-1, eps=NORM_EPSILON)

    def score(
        self, text: Tensor, classes: Tensor, text_mask: Tensor | None, class_mask: Tensor, at_once: int | None = None
    ) -> Tensor:
        """Compute the logits (batch, labels) of projected text and labels, for `at_once` labels at a time.

        Dot products are computed for all labels at once, as they have no tensor that is larger than the logits. Pairs
        that are scored one by one are taken together as far as their hidden units are few.
        """
        if at_once is not None and hasattr(self.scorer, "count_values"):
            at_once = max(at_once, VALUES_AT_ONCE // max(len(text) * self.scorer.count_values(), 1))
        if at_once is not None and classes.shape[1] > at_once and self.config.scorer_type != "simple":
            parts = zip(classes.split(at_once, dim=1), class_mask.split(at_once, dim=1), strict=True)
            return torch.cat([self.score(text, part, text_mask, mask) for part, mask in parts], dim=1)
        logits = self.scorer(text, classes, text_mask, class_mask)
        if self.scales_logits:
            logits = logits * self.logit_scale
        return logits - self.config.logit_offset if self.config.logit_offset else logits

    def steps_loss(self, steps: list[Scores], labels, sample_weight=None, class_ids=None) -> Tensor:
        """Compute the loss of the results of :meth:`apply_heads`, which has a single one."""
        return self.loss(*steps[-1], labels, sample_weight, class_ids)

    def loss(self, logits, text, classes, class_mask, labels, sample_weight=None, class_ids=None) -> Tensor:
        """Compute the loss of `logits`, and the contrastive losses of projected `text` and `classes`, if configured."""
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

    # -- from token ids ------------------------------------------------------------------------------------

    def forward(
        self, input_ids, attention_mask, labels=None, sample_weight=None, class_ids=None, labels_at_once=None,
        gather=None, calibrator=None, window_index=None, takes_max=None, **inputs,
    ) -> GLiClassOutput:  # fmt: skip
        """Compute logits and loss from token ids; the arguments are those of :meth:`GLiClassModel.forward`."""
        every_layer = self.config.layer_wise and labels is not None
        layers, context = self.encode(input_ids, attention_mask, every_layer, **inputs)
        readings = (self.read(states, context) for states in layers)
        return self._run_heads(
            readings, 1, labels, sample_weight, class_ids, labels_at_once, gather, calibrator, window_index, takes_max
        )  # fmt: skip

    def embed_text(self, input_ids, attention_mask, **inputs) -> Tensor:
        """Compute pooled text embeddings (batch, hidden) before the projection; mean-pooled if there is no pooling."""
        (states,), context = self.encode(input_ids, attention_mask, False, **inputs)
        reading = self.read(states, context)
        return self._pool_to_vector(reading.text, reading.text_mask)

    def _pool_to_vector(self, states: Tensor, mask: Tensor) -> Tensor:
        text, mask = self.pool_text(states, mask)
        return POOLINGS["avg"](text, mask) if text.dim() == 3 else text

    def _run_heads(
        self,
        readings: Iterable[Any],
        n_prompts: int,
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        class_ids: Tensor | None = None,
        labels_at_once: int | None = None,
        gather: Callable | None = None,
        calibrator: nn.Module | None = None,
        window_index: Tensor | None = None,
        takes_max: Tensor | None = None,
    ) -> GLiClassOutput:
        """Pool, project and score each layer; the output is that of the last one, the loss the sum over layers.

        The loss is that of the logits before their calibration, as the calibrator is fitted to a trained model.

        Parameters
        ----------
        readings : iterable of Reading
            Hidden states of each layer. Without a `text_mask`, the text is pooled already.
        n_prompts : int
            Number of consecutive rows that belong to one text, with one label prompt each.
        labels, sample_weight, class_ids, labels_at_once, gather, window_index, takes_max
            As in :meth:`GLiClassModel.forward`.
        calibrator : Calibrator, optional
            Calibrator of the logits of each prompt.
        """
        losses = []
        for reading in readings:
            steps = self.apply_heads(reading, labels_at_once)
            final = steps[-1] if calibrator is None else steps[-1]._replace(logits=calibrator(*steps[-1]))
            if n_prompts > 1:
                *steps, final = (join_prompts(n_prompts, scores) for scores in (*steps, final))
            if window_index is not None:
                *steps, final = (join_windows(window_index, bool(takes_max), part) for part in (*steps, final))
            if gather is not None:
                *steps, final = (Scores(*gather(*scores)) for scores in (*steps, final))
            if labels is not None:
                losses.append(self.steps_loss(steps, labels, sample_weight, class_ids))
        lowest = torch.finfo(final.logits.dtype).min
        return GLiClassOutput(
            loss=torch.stack(losses).sum() if losses else None,
            logits=final.logits.masked_fill(~final.class_mask, lowest),
            text_embeddings=final.text,
            class_embeddings=final.classes,
            class_mask=final.class_mask,
        )

    def apply_heads(self, reading: Reading, labels_at_once: int | None = None) -> list[Scores]:
        """Pool, project and score the hidden states of a layer; the last result is that of the model."""
        text, text_mask = reading.text, reading.text_mask
        if text_mask is not None:
            text, text_mask = self.pool_text(text, text_mask)
        text = self.project_text(text)
        classes = reading.classes if reading.is_projected else self.project_class_states(reading.classes)
        logits = self.score(text, classes, text_mask, reading.class_mask, labels_at_once)
        return [Scores(logits, text, classes, reading.class_mask)]

    # -- from cached hidden states -------------------------------------------------------------------------

    @property
    def heads_read_tokens(self) -> bool:
        """Whether a trainable head reads the tokens of a text, which can then not be cached pooled."""
        config = self.config
        return config.use_lstm or config.squeeze_layers or self.pooling == NO_POOLING

    @torch.no_grad()
    def text_states(
        self, input_ids: Tensor, attention_mask: Tensor, every_layer: bool = False, other_poolings=(), **inputs
    ) -> dict[str, Tensor]:
        """Compute the hidden states that the heads read of a batch of sequences; :meth:`score_states` takes them.

        With frozen encoders they are the same in every epoch.

        Parameters
        ----------
        input_ids, attention_mask : LongTensor of shape (batch, length)
            The sequences, one label prompt in each.
        every_layer : bool, default=False
            Whether to return all layers of the encoder, for the training with ``layer_wise``.
        other_poolings : sequence of str, default=()
            Poolings whose results are returned too, under their names. The model's own must read all tokens.
        **inputs
            Further inputs of :meth:`encode`. The plain bi-encoder needs none.

        Returns
        -------
        dict of str to Tensor
            - "text_states": (batch, layers, hidden) pooled, or where :attr:`heads_read_tokens` holds
              (batch, length, layers, hidden), with "text_mask" (batch, length).
            - "label_states": (batch, labels, layers or 1, hidden), where the labels are in the sequence.
            - "layer_means": (batch, layers, hidden), the mean of each layer, for ``squeeze_layers``.
        """
        config = self.config
        layers, context = self.encode(input_ids, attention_mask, every_layer or config.squeeze_layers, **inputs)
        readings = [self.read(states, context) for states in layers]
        mask = readings[0].text_mask
        if self.heads_read_tokens:
            states = {"text_states": torch.stack([reading.text for reading in readings], dim=2), "text_mask": mask}
        else:
            poolings = {"text_states": self.pooling, **{pooling: pooling for pooling in other_poolings}}
            states = {
                name: torch.stack([POOLINGS[pooling](reading.text, mask) for reading in readings], dim=1)
                for name, pooling in poolings.items()
            }
        if config.squeeze_layers:
            states["layer_means"] = torch.stack([POOLINGS["avg"](layer, attention_mask) for layer in layers], dim=1)
        labels = [reading.classes for reading in readings]
        if labels[0] is not None:
            one_for_all = all(layer is labels[0] for layer in labels)
            states["label_states"] = torch.stack(labels[:1] if one_for_all else labels, dim=2)
        return states

    def score_states(
        self,
        text_states: Tensor,
        label_mask: Tensor,
        label_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        layer_means: Tensor | None = None,
        class_embeddings: Tensor | None = None,
        **targets,
    ) -> GLiClassOutput:
        """Compute logits and loss from cached hidden states, as :meth:`forward` does from token ids.

        Parameters
        ----------
        text_states : Tensor of shape (batch, prompts, [length,] layers, hidden)
            Hidden states of the texts for each label prompt, pooled or for each token, from :meth:`text_states`.
        label_mask : BoolTensor of shape (1, prompts, labels)
            True for real labels: the last prompt may have fewer than the others.
        label_states : Tensor of shape (batch or 1, prompts, labels, layers or 1, hidden)
            The labels of each prompt.
        text_mask : BoolTensor of shape (batch, prompts, length), optional
            True for real tokens. If None, the texts are pooled.
        layer_means : Tensor of shape (batch, prompts, layers, hidden), optional
            The mean of each layer, for ``squeeze_layers``.
        class_embeddings : Tensor of shape (labels, hidden), optional
            Projected labels of the plain bi-encoder, in place of `label_states`.
        **targets
            `labels`, `sample_weight`, `class_ids`, `labels_at_once`, `gather` and `calibrator`, as in :meth:`forward`.
        """
        batch, n_prompts = text_states.shape[:2]
        is_projected = class_embeddings is not None
        classes = label_states if class_embeddings is None else class_embeddings[None, None, :, None]
        classes = cast("Tensor", classes).flatten(0, 1)  # (batch * prompts, ...), as `text`
        text = text_states.flatten(0, 1)
        text_mask = None if text_mask is None else text_mask.flatten(0, 1)
        class_mask = label_mask.expand(batch if n_prompts > 1 else 1, -1, -1).flatten(0, 1)
        if layer_means is not None:
            text, classes = self._squeeze(layer_means.flatten(0, 1), text, classes)
        last = classes.shape[-2] - 1  # one layer of labels for all layers of texts, or one for each
        readings = (
            Reading(text[..., layer, :], text_mask, classes[..., min(layer, last), :], class_mask, is_projected)
            for layer in range(text.shape[-2])
        )
        return self._run_heads(readings, n_prompts, **targets)

    def embed_states(
        self, text_states: Tensor, text_mask: Tensor | None = None, layer_means: Tensor | None = None, **others
    ) -> Tensor:
        """Compute text embeddings as :meth:`embed_text` does, from the cached hidden states of the first label prompt.

        Parameters
        ----------
        text_states, text_mask, layer_means
            As in :meth:`score_states`.
        **others
            Other arguments of :meth:`score_states`, which have no effect.
        """
        text = text_states[:, 0]
        if layer_means is not None:
            text, _ = self._squeeze(layer_means[:, 0], text, text[:, :1, :1])
        text = text[..., -1, :]
        return text if text_mask is None else self._pool_to_vector(text, text_mask[:, 0])

    def _squeeze(self, means: Tensor, text: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the weighted sums over the layers of texts (batch, length, layers, hidden) and of labels."""
        attention = self.layer_wise_attention
        weights = attention.layer_weights(attention.squeeze(means).squeeze(-1))
        text = attention.mix(weights, text).unsqueeze(-2)
        return text, attention.mix(weights, classes).unsqueeze(-2) if classes.shape[-2] > 1 else classes


def join_prompts(n_prompts: int, scores: Scores) -> Scores:
    """Concatenate the labels of a text's prompts, which are rows of their own.

    Returns logits (batch, all labels), the mean text (batch, ..., hidden), classes (batch or 1, all labels, hidden)
    and their mask (1, all labels). Empty slots of the last prompt are left out.
    """
    logits, text, classes, class_mask = scores
    class_mask = class_mask.unflatten(0, (-1, n_prompts))[:1].flatten(1)  # (1, prompts * labels), same for all texts
    n_labels = int(class_mask.sum())
    logits = logits.unflatten(0, (-1, n_prompts)).flatten(1)[:, :n_labels]
    classes = classes.unflatten(0, (-1, n_prompts)).flatten(1, 2)[:, :n_labels]
    text = text.unflatten(0, (-1, n_prompts)).mean(dim=1)
    return Scores(logits, text, classes, class_mask[:, :n_labels])


def join_windows(index: Tensor, takes_max: bool, scores: Scores) -> Scores:
    """Join the windows of each text, which are consecutive rows.

    Parameters
    ----------
    index : LongTensor of shape (windows,)
        Text of each window, in ascending order.
    takes_max : bool
        Whether the logits of a text are the maximum over its windows; otherwise they are the mean.
    scores : Scores
        Scores of the windows.

    Returns
    -------
    Scores
        Scores of the texts. Pooled texts are averaged; labels are those of a text's first window.
    """
    logits, text, classes, class_mask = scores
    counts = torch.bincount(index)
    first = counts.cumsum(0) - counts

    if takes_max:
        lowest = logits.new_full((len(counts), logits.shape[1]), torch.finfo(logits.dtype).min)
        logits = lowest.scatter_reduce(0, index.unsqueeze(1).expand_as(logits), logits, "amax")
    else:
        logits = average_windows(index, logits)
    text = average_windows(index, text) if text.dim() == 2 else text[first]
    classes, class_mask = (t if len(t) == 1 else t[first] for t in (classes, class_mask))
    return Scores(logits, text, classes, class_mask)


def average_windows(index: Tensor, values: Tensor) -> Tensor:
    """Compute the mean (texts, columns) of values (windows, columns) over the windows of each text."""
    counts = torch.bincount(index)
    total = values.new_zeros(len(counts), values.shape[1]).index_add(0, index, values)
    return total / counts.unsqueeze(1).to(values.dtype)
