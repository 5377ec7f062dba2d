"""Encoder-decoders: the text in the encoder and the label prompt in the decoder, or the other way round."""

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .architecture import Architecture, Reading
from .loading import build_encoder
from .positions import class_states


def _bidirectional_mask(mask, dtype):
    """Build a 4-D mask (batch, 1, length, length), which decoders use instead of their causal one."""
    blocked = (1.0 - mask.to(dtype))[:, None, None, :] * torch.finfo(dtype).min
    return blocked.expand(-1, 1, mask.shape[1], -1)


class EncoderDecoder(Architecture):
    """Encoder-decoder of the T5 and BART families, with bidirectional attention over the labels in the decoder."""

    encoder_decoder_model: PreTrainedModel
    backbone_name = "encoder_decoder_model"

    def __init__(self, config, encoder=None, label_encoder=None):
        super().__init__(config)
        if not config.encoder_config.is_encoder_decoder:
            raise ValueError(
                f"architecture_type={config.architecture_type!r} needs an encoder-decoder model such as T5 or BART, "
                f"got model_type={config.encoder_config.model_type!r}; choose another encoder or architecture."
            )
        self.encoder_decoder_model = encoder or build_encoder(config.encoder_config, whole=True)

    def encode(self, input_ids, attention_mask, every_layer, class_input_ids, class_attention_mask):
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


class EncoderDecoderCls(EncoderDecoder):
    """Encoder-decoder with the label prompt in the encoder; the last token of the text in the decoder is the text.

    The labels do not depend on the text, so that texts with the same labels share one pass of the encoder.
    """

    pooling: str = "last"

    def label_modules(self):
        return [self.encoder_decoder_model.get_encoder()]

    def encode_shared_labels(self, class_input_ids, class_attention_mask):
        outputs = self.encoder_decoder_model.get_encoder()(
            input_ids=class_input_ids, attention_mask=class_attention_mask
        )
        return {
            "prompt_states": outputs.last_hidden_state,
            "class_input_ids": class_input_ids,
            "class_attention_mask": class_attention_mask,
        }

    def encode(self, input_ids, attention_mask, every_layer, class_input_ids, class_attention_mask, prompt_states=None):
        """Run the decoder; prompts (batch or 1, length) are token ids, or ``prompt_states`` of the encoder too."""
        if prompt_states is None:
            prompt_states = self.encode_shared_labels(class_input_ids, class_attention_mask)["prompt_states"]
        classes, class_mask = class_states(self.config, prompt_states, class_input_ids, class_attention_mask)
        batch = len(input_ids)
        outputs = self.encoder_decoder_model(
            encoder_outputs=BaseModelOutput(prompt_states.expand(batch, -1, -1)),
            attention_mask=class_attention_mask.expand(batch, -1),
            decoder_input_ids=input_ids,
            decoder_attention_mask=attention_mask,
            output_hidden_states=self.needs_hidden_states,
            use_cache=False,
        )
        layers = self.pick_layers(outputs.decoder_hidden_states, outputs.last_hidden_state, attention_mask, every_layer)
        return layers, (attention_mask, classes.expand(batch, -1, -1), class_mask.expand(batch, -1))
