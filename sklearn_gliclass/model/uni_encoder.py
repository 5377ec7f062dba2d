"""Uni-encoder: text and label prompt in one sequence."""

from transformers import AutoModel, T5EncoderModel, UMT5EncoderModel

from .architecture import Architecture, Reading, class_states, text_part
from .packed import run_encoder

# Encoder-decoder families that are used by their encoder alone.
ENCODER_HALVES = {"t5": T5EncoderModel, "mt5": T5EncoderModel, "umt5": UMT5EncoderModel}


def encoder_class(config):
    """The transformers class of a text encoder; of an encoder-decoder family: of its encoder."""
    if config.model_type in ENCODER_HALVES:
        return ENCODER_HALVES[config.model_type]
    if config.is_encoder_decoder:
        raise ValueError(
            f"model_type={config.model_type!r} has a decoder and no encoder that could be used alone; set "
            "architecture_type='encoder-decoder', or choose another encoder."
        )
    return AutoModel


def build_encoder(config):
    """A text encoder with random weights from a transformers configuration."""
    model_class = encoder_class(config)
    return model_class.from_config(config) if model_class is AutoModel else model_class._from_config(config)


class UniEncoder(Architecture):
    """``text <<LABEL>>l1<<LABEL>>l2...<<SEP>>``, or with ``prompt_first`` the prompt before the text."""

    def __init__(self, config, encoder=None, label_encoder=None):
        super().__init__(config)
        self.encoder_model = encoder or build_encoder(config.encoder_config)

    def encode(self, input_ids, attention_mask, every_layer):
        outputs = run_encoder(self.encoder_model, attention_mask, self.needs_hidden_states, input_ids=input_ids)
        layers = self.pick_layers(
            getattr(outputs, "hidden_states", None), outputs.last_hidden_state, attention_mask, every_layer
        )
        return layers, (input_ids, attention_mask)

    def read(self, states, context):
        input_ids, attention_mask = context
        classes, class_mask = class_states(self.config, states, input_ids, attention_mask)
        return Reading(states, text_part(self.config, input_ids, attention_mask), classes, class_mask)
