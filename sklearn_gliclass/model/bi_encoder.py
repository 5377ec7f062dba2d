"""Bi-encoders: a text encoder and a label encoder, separate (plain) or fused in the text's sequence."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .architecture import Architecture, Reading
from .layers import Projector
from .loading import build_encoder
from .packed import LowerStates, can_pack, packs, run_both, run_encoder, run_lower_layers
from .poolings import POOLINGS, mask_read_tokens
from .positions import class_positions, mask_text, take_positions


class BiEncoder(Architecture):
    """Bi-encoder: the text and each label pass separately through their encoders."""

    label_encoder: PreTrainedModel
    scales_logits_always = True

    def __init__(self, config, encoder=None, label_encoder=None):
        super().__init__(config)
        self.encoder_model = encoder or build_encoder(config.encoder_config)
        # Tied encoders are one module under both names: checkpoints hold its weights twice, as gliclass expects.
        own = None if config.tie_encoders else label_encoder or build_encoder(config.label_model_config)
        self.label_encoder = own or self.encoder_model
        label_width = config.label_model_config.get_text_config().hidden_size
        self.biencoder_projector = Projector(
            label_width, config.hidden_size, config.encoder_width, config.projector_hidden_act
        )

    def encoder_modules(self):
        return [self.encoder_model, self.label_encoder]

    def label_modules(self):
        return [self.label_encoder, self.biencoder_projector]

    def encode_shared_labels(self, **labels):
        return {"class_states": self.pool_labels(**labels)}

    def init_identity(self):
        super().init_identity()
        self.biencoder_projector.init_identity()

    def pool_labels(self, class_input_ids: Tensor, class_attention_mask: Tensor) -> Tensor:
        """Compute the label embeddings (labels, hidden) before the projection, with the text encoder's width."""
        read = mask_read_tokens(self.config.pooling_strategy, class_attention_mask)
        outputs = run_encoder(self.label_encoder, class_attention_mask, read=read, input_ids=class_input_ids)
        return self._pool_label_tokens(outputs, class_attention_mask)

    def _pool_label_tokens(self, outputs, class_attention_mask: Tensor) -> Tensor:
        pooled = POOLINGS[self.config.pooling_strategy](outputs.last_hidden_state, class_attention_mask)
        return self.biencoder_projector(pooled)

    def encode_labels(
        self,
        class_input_ids: Tensor | None = None,
        class_attention_mask: Tensor | None = None,
        labels_mask: Tensor | None = None,
        class_index: Tensor | None = None,
        class_states: Tensor | None = None,
        class_embeddings: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Compute the label embeddings (batch or 1, labels, hidden) and their mask; each label is encoded once.

        Token ids are (labels, length) for labels that the batch shares, with ``class_index`` to select those of each
        sample, or (batch, labels, length). ``class_states`` (labels, hidden) are results of :meth:`pool_labels`,
        and ``class_embeddings`` these after their projection.
        """
        if class_embeddings is not None:
            class_states = class_embeddings
        if class_states is None:
            if class_input_ids is None or class_attention_mask is None:  # only the texts are encoded
                return None, None
            if class_input_ids.dim() == 3:
                return self._encode_own_labels(class_input_ids, class_attention_mask, labels_mask)
            class_states = self.pool_labels(class_input_ids, class_attention_mask)
        if class_index is not None:
            return class_states[class_index.clamp_min(0)], class_index >= 0
        return class_states.unsqueeze(0), torch.ones(1, len(class_states), dtype=torch.bool, device=class_states.device)

    def _encode_own_labels(
        self, class_input_ids: Tensor, class_attention_mask: Tensor, labels_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Encode labels (batch, labels, length) that each text has of its own, without empty slots."""
        shape = class_input_ids.shape[:2]
        mask = torch.ones(shape, device=class_input_ids.device) if labels_mask is None else labels_mask
        mask = mask.bool()
        real = self.pool_labels(class_input_ids[mask], class_attention_mask[mask])
        states = real.new_zeros(*shape, real.shape[-1])
        states[mask] = real
        return states, mask

    def encode(self, input_ids, attention_mask, every_layer, lower_states=None, n_lower_layers=0, **labels):
        if lower_states is None and self._encodes_both(attention_mask, **labels):
            outputs, labels = self._encode_both(input_ids, attention_mask, **labels)
        else:
            read = self.mask_pooled_tokens(attention_mask)
            lower = None if lower_states is None else LowerStates(lower_states, int(n_lower_layers))
            tokens = {"input_ids": input_ids} if lower is None else {}
            outputs = run_encoder(self.encoder_model, attention_mask, self.needs_hidden_states, read, lower, **tokens)
        classes, class_mask = self.encode_labels(**labels)
        context = attention_mask, classes, class_mask, "class_embeddings" in labels
        return self._layers(outputs, attention_mask, every_layer), context

    @property
    def splits_layers(self) -> bool:
        """Whether the upper layers of the text encoder can run on the output of the lower ones."""
        on_cpu = self.logit_scale.device.type == "cpu"
        return on_cpu and not self.needs_hidden_states and can_pack(self.encoder_model)

    def lower_states(self, input_ids, attention_mask, n_layers: int) -> Tensor:
        """Compute the output (batch, length, hidden) of the first `n_layers` layers of the text encoder.

        ``encode`` takes it as `lower_states` in place of token ids, with ``n_lower_layers=n_layers``.
        """
        return run_lower_layers(self.encoder_model, input_ids, attention_mask, n_layers)

    def _encodes_both(self, attention_mask, class_input_ids=None, **others) -> bool:
        """Return whether shared labels are encoded in the same pass as the texts, with tied encoders."""
        shared = class_input_ids is not None and class_input_ids.dim() == 2
        return shared and self.label_encoder is self.encoder_model and packs(self.encoder_model, attention_mask)

    def _encode_both(self, input_ids, attention_mask, class_input_ids, class_attention_mask, **labels):
        """Encode texts and labels in one pass; return text outputs, and inputs of :meth:`encode_labels`."""
        texts = input_ids, attention_mask, self.mask_pooled_tokens(attention_mask)
        read = mask_read_tokens(self.config.pooling_strategy, class_attention_mask)
        classes = class_input_ids, class_attention_mask, read
        outputs, of_labels = run_both(self.encoder_model, texts, classes, self.needs_hidden_states)
        return outputs, {"class_states": self._pool_label_tokens(of_labels, class_attention_mask), **labels}

    def _layers(self, outputs, attention_mask, every_layer):
        hidden_states = getattr(outputs, "hidden_states", None)
        return self.pick_layers(hidden_states, outputs.last_hidden_state, attention_mask, every_layer)

    def read(self, states, context):
        attention_mask, classes, class_mask, is_projected = context
        return Reading(states, attention_mask.bool(), classes, class_mask, is_projected)


class FusedBiEncoder(BiEncoder):
    """Fused bi-encoder: label embeddings replace the ``<<LABEL>>`` tokens in the text's sequence."""

    def state_modules(self):
        return [self.encoder_model, *self.label_modules(), self.classes_projector]

    def project_class_states(self, classes):
        return classes  # they were projected before they entered the encoder

    def encode(self, input_ids, attention_mask, every_layer, **labels):
        classes, class_mask = self.encode_labels(**labels)
        projected = classes if "class_embeddings" in labels else self.project_classes(classes)
        classes = projected.expand(len(input_ids), -1, -1)
        class_mask = class_mask.expand(len(input_ids), -1)
        embeddings = self.encoder_model.get_input_embeddings()(input_ids).clone()
        is_class = input_ids == self.config.class_token_index
        # Labels and tokens are both in row order and label order, so that the k-th label is put at the k-th token.
        embeddings[is_class] = classes[class_mask].to(embeddings.dtype)
        text_mask = mask_text(self.config, input_ids, attention_mask)
        read = self.mask_pooled_tokens(text_mask) | is_class
        outputs = run_encoder(
            self.encoder_model, attention_mask, self.needs_hidden_states, read, inputs_embeds=embeddings
        )
        return self._layers(outputs, attention_mask, every_layer), (input_ids, text_mask)

    def read(self, states, context):
        input_ids, text_mask = context
        positions, class_mask = class_positions(input_ids, self.config.class_token_index)
        return Reading(states, text_mask, take_positions(states, positions), class_mask)
