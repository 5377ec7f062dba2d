"""Uni-encoder: text and label prompt in one sequence."""

from torch import nn

from .architecture import Architecture, Reading
from .loading import build_encoder
from .packed import run_encoder
from .positions import class_states, mask_label_tokens, mask_text, segment_ids

N_SEGMENTS = 3


class UniEncoder(Architecture):
    """Uni-encoder of ``text <<LABEL>>l1<<LABEL>>l2...<<SEP>>``, or with ``prompt_first`` the prompt before the text."""

    def __init__(self, config, encoder=None, label_encoder=None):
        super().__init__(config)
        self.encoder_model = encoder or build_encoder(config.encoder_config)
        if config.use_segment_embeddings:
            self.segment_embeddings = nn.Embedding(N_SEGMENTS, config.encoder_width)

    def state_modules(self):
        segments = [self.segment_embeddings] if self.config.use_segment_embeddings else []
        return [self.encoder_model, *segments]

    def embed_tokens(self, input_ids):
        """Return the encoder's input: token ids, or their embeddings plus those of their segments."""
        if not self.config.use_segment_embeddings:
            return {"input_ids": input_ids}
        embeddings = self.encoder_model.get_input_embeddings()(input_ids)
        return {"inputs_embeds": embeddings + self.segment_embeddings(segment_ids(self.config, input_ids))}

    def encode(self, input_ids, attention_mask, every_layer):
        text_mask = mask_text(self.config, input_ids, attention_mask)
        read = self.mask_pooled_tokens(text_mask) | mask_label_tokens(self.config, input_ids, attention_mask)
        tokens = self.embed_tokens(input_ids)
        outputs = run_encoder(self.encoder_model, attention_mask, self.needs_hidden_states, read, **tokens)
        layers = self.pick_layers(
            getattr(outputs, "hidden_states", None), outputs.last_hidden_state, attention_mask, every_layer
        )
        return layers, (input_ids, attention_mask, text_mask)

    def read(self, states, context):
        input_ids, attention_mask, text_mask = context
        classes, class_mask = class_states(self.config, states, input_ids, attention_mask)
        return Reading(states, text_mask, classes, class_mask)
