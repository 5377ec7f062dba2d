"""Encoder-decoder: the text in the encoder, the label prompt in the decoder."""

import torch

from .architecture import Architecture, Reading
from .loading import build_encoder
from .positions import class_states


def _bidirectional_mask(mask, dtype):
    """Build a 4-D mask (batch, 1, length, length), which decoders use instead of their causal one."""
    blocked = (1.0 - mask.to(dtype))[:, None, None, :] * torch.finfo(dtype).min
    return blocked.expand(-1, 1, mask.shape[1], -1)


class EncoderDecoder(Architecture):
    """Encoder-decoder of the T5 and BART families, with bidirectional attention over the labels in the decoder."""

    backbone_name = "encoder_decoder_model"

    def __init__(self, config, encoder=None, label_encoder=None):
        super().__init__(config)
        if not config.encoder_config.is_encoder_decoder:
            raise ValueError(
                "architecture_type='encoder-decoder' needs an encoder-decoder model such as T5 or BART, got "
                f"model_type={config.encoder_config.model_type!r}; choose another encoder or architecture."
            )
        self.encoder_decoder_model = encoder or build_encoder(config.encoder_config, whole=True)

    def encode(self, input_ids, attention_mask, every_layer, class_input_ids=None, class_attention_mask=None):
        layers, prompt = self.run(input_ids, attention_mask, class_input_ids, class_attention_mask, every_layer)
        classes, class_mask = class_states(self.config, prompt, class_input_ids, class_attention_mask)
        return layers, (attention_mask, classes, class_mask)

    def run(self, input_ids, attention_mask, class_input_ids, class_attention_mask, every_layer):
        """Return the hidden states of the text, (batch, length, hidden) for each layer to score, and of the prompt."""
        dtype = self.encoder_decoder_model.get_input_embeddings().weight.dtype
        outputs = self.encoder_decoder_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=class_input_ids,
            decoder_attention_mask=_bidirectional_mask(class_attention_mask, dtype),
            output_hidden_states=self.needs_hidden_states,
            use_cache=False,
        )
        layers = self.pick_layers(
            outputs.encoder_hidden_states, outputs.encoder_last_hidden_state, attention_mask, every_layer
        )
        return layers, outputs.last_hidden_state

    def read(self, states, context):
        attention_mask, classes, class_mask = context
        return Reading(states, attention_mask.bool(), classes, class_mask)
