"""Hyperparameters: those of the model, those of both estimators, their constraints, and where they have an effect."""

from numbers import Integral, Real
from os import PathLike

from .containers import plain
from .data.windows import LONG_TEXTS
from .model.config import (
    ARCHITECTURE_TYPES,
    BI_ENCODERS,
    CLASS_TOKEN_POOLINGS,
    ENCODER_DECODERS,
    PROBLEM_TYPES,
    PROJECTOR_INITS,
)
from .model.losses import REDUCTIONS
from .model.poolings import NO_POOLING, POOLINGS
from .model.precision import DTYPES
from .model.scorers import SCORERS
from .sklearn_internals import HasMethods, Interval, StrOptions
from .training import arguments
from .training.recipe import PRESETS

_fraction = Interval(Real, 0, 1, closed="left")
_positive = Interval(Integral, 1, None, closed="left")
_token_index = Interval(Integral, -1, None, closed="left")

AUTO_POOLING = "auto"  # that of the sentence encoder or the checkpoint

# Hyperparameters that are fields of the model's configuration.
MODEL_CONSTRAINTS = {
    "class_token_index": [_token_index],
    "text_token_index": [_token_index],
    "hidden_size": [_positive, None],
    "projector_hidden_act": [str],
    "vocab_size": [_positive, None],
    "use_lstm": ["boolean"],
    "initializer_range": [Interval(Real, 0, None, closed="left")],
    "scorer_type": [StrOptions(set(SCORERS))],
    "scorer_num_heads": [_positive],
    "scorer_mlp_hidden_size": [Interval(Integral, 2, None, closed="left"), None],
    "scorer_attn_dropout": [_fraction],
    "pooling_strategy": [StrOptions({*POOLINGS, NO_POOLING, AUTO_POOLING})],
    "class_token_pooling": [StrOptions(set(CLASS_TOKEN_POOLINGS))],
    "logit_scale_init_value": [Real, None],
    "normalize_features": ["boolean"],
    "extract_text_features": ["boolean"],
    "contrastive_loss_coef": [Interval(Real, 0, None, closed="left")],
    "architecture_type": [StrOptions(set(ARCHITECTURE_TYPES))],
    "prompt_first": ["boolean"],
    "squeeze_layers": ["boolean"],
    "layer_wise": ["boolean"],
    "encoder_layer_id": [Integral],
    "embed_class_token": ["boolean"],
    "dropout": [_fraction, None],
    "tie_encoders": ["boolean", None],
    "projector_init": [StrOptions(set(PROJECTOR_INITS))],
    "use_segment_embeddings": ["boolean"],
    "scorer_encoder_num_layers": [_positive],
    "recurrent_steps": [_positive],
    "recurrent_read_text": ["boolean"],
}
# Fields without effect on regression.
CLASSIFICATION_MODEL_CONSTRAINTS = {
    "ignore_index": [Integral],
    "max_num_classes": [Interval(Integral, 2, None, closed="left"), None],
    "focal_loss_alpha": [Interval(Real, None, 1, closed="right"), None],
    "focal_loss_gamma": [Interval(Real, 0, None, closed="left"), None],
    "focal_loss_reduction": [StrOptions(set(REDUCTIONS)), None],
    "text_contrastive_loss_coef": [Interval(Real, 0, None, closed="left"), None],
}
CLASSIFICATION_PARAMETERS = tuple(CLASSIFICATION_MODEL_CONSTRAINTS)
MODEL_PARAMETERS = (*MODEL_CONSTRAINTS, *CLASSIFICATION_PARAMETERS)

# Hyperparameters of both estimators.
CONSTRAINTS = {
    "pretrained": [str, None],
    "encoder_model": [str, None],
    "encoder_config": [dict, None],
    "label_model_name": [str, None],
    "label_model_config": [dict, None],
    **MODEL_CONSTRAINTS,
    **arguments.CONSTRAINTS,
    "max_length": [_positive, None],
    "long_texts": [StrOptions(set(LONG_TEXTS))],
    "window_overlap": [Interval(Integral, 0, None, closed="left")],
    "label_names": [dict, "array-like", None],
    "text_template": [str, callable, None],
    "prompt": [str, None],
    "shuffle_labels": ["boolean"],
    "freeze_encoder": ["boolean", StrOptions({"auto", "embeddings"}), _positive],
    "lora_rank": [_positive, None],
    "lora_alpha": [Interval(Real, 0, None, closed="neither"), None],
    "lora_target": [str, list, tuple, None],
    "preset": [StrOptions(set(PRESETS))],
    "memory": [str, PathLike, HasMethods("cache"), None],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [_positive],
    "warm_start": ["boolean"],
    "callbacks": [list, None],
    "device": [str],
    "dtype": [StrOptions(set(DTYPES))],
    "max_batch_tokens": [_positive],
    "ewc_lambda": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}

# Additional hyperparameters of classifiers, without those that `GLiClassClassifier` defines itself.
CLASSIFICATION_CONSTRAINTS = {
    "problem_type": [StrOptions(set(PROBLEM_TYPES)), None],
    **CLASSIFICATION_MODEL_CONSTRAINTS,
}

# Hyperparameters that must match the weights of `pretrained`.
WEIGHT_PARAMETERS = (
    "encoder_model", "encoder_config", "label_model_name", "label_model_config", "class_token_index",
    "text_token_index", "hidden_size", "projector_hidden_act", "vocab_size", "use_lstm", "initializer_range",
    "scorer_type", "scorer_num_heads", "scorer_mlp_hidden_size", "logit_scale_init_value", "architecture_type",
    "squeeze_layers", "tie_encoders", "projector_init", "use_segment_embeddings", "scorer_encoder_num_layers",
    "recurrent_steps", "recurrent_read_text",
)  # fmt: skip

ADAPTER_PARAMETERS = ("lora_rank", "lora_alpha", "lora_target")

# Origin of a model, which is replaced by the checkpoint once it is saved.
MODEL_ORIGIN = ("pretrained", "encoder_model", "encoder_config", "label_model_name", "label_model_config")


def model_parameters(estimator) -> dict:
    """Return the hyperparameters of an estimator that are fields of the model's configuration.

    Regressors do not have those of `CLASSIFICATION_PARAMETERS`; the configuration then has its defaults.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
    >>> model_parameters(GLiClassClassifier(dropout=0.2))["dropout"]
    0.2
    >>> "max_num_classes" in model_parameters(GLiClassRegressor())
    False
    """
    own = estimator.get_params(deep=False)
    return {name: plain(own[name]) for name in MODEL_PARAMETERS if name in own}


def _shares_sequence(config) -> bool:
    return config.architecture_type in ("uni-encoder", "bi-encoder-fused")


def _has_label_prompt(config) -> bool:
    return config.architecture_type in ("uni-encoder", *ENCODER_DECODERS)


def _has_label_encoder(config) -> bool:
    return config.architecture_type in BI_ENCODERS


def _has_cross_attention(config) -> bool:
    return config.scorer_type == "cross-attn"


def _has_scorer_mlp(config) -> bool:
    return config.scorer_type in ("mlp", "hopfield", "cross-attn") or _is_decoder(config)


def _is_decoder(config) -> bool:
    return config.architecture_type == "decoder-kv"


def _has_projectors(config) -> bool:
    return not _is_decoder(config)


def _pools_texts(config) -> bool:
    return config.architecture_type not in ("encoder-decoder-cls", "decoder-kv")


def _has_recurrence(config) -> bool:
    return config.recurrent_steps > 1


def _is_single_label(config) -> bool:
    return config.problem_type == "single_label_classification"


def _is_multi_label(config) -> bool:
    return config.problem_type == "multi_label_classification"


_PROMPTED = "uni-encoder, encoder-decoder, encoder-decoder-cls"

# Options that affect some models only, with the condition. Set for another model, they raise an error.
OPTION_READERS = {
    "prompt_first": (_shares_sequence, "text and labels share a sequence (uni-encoder, bi-encoder-fused)"),
    "extract_text_features": (_shares_sequence, "text and labels share a sequence (uni-encoder, bi-encoder-fused)"),
    "class_token_pooling": (_has_label_prompt, f"label texts are in a prompt ({_PROMPTED})"),
    "embed_class_token": (_has_label_prompt, f"label texts are in a prompt ({_PROMPTED})"),
    "scorer_type": (_has_projectors, "the architecture has no scorer of its own (decoder-kv)"),
    "projector_hidden_act": (_has_projectors, "the architecture has no scorer of its own (decoder-kv)"),
    "logit_scale_init_value": (_has_projectors, "the architecture has no scorer of its own (decoder-kv)"),
    "pooling_strategy": (_pools_texts, "texts are pooled (not in encoder-decoder-cls and decoder-kv)"),
    "scorer_encoder_num_layers": (_is_decoder, "architecture_type='decoder-kv'"),
    "recurrent_steps": (_is_decoder, "architecture_type='decoder-kv'"),
    "recurrent_read_text": (_has_recurrence, "recurrent_steps > 1"),
    "label_model_name": (_has_label_encoder, "there is a label encoder (bi-encoder, bi-encoder-fused)"),
    "label_model_config": (_has_label_encoder, "there is a label encoder (bi-encoder, bi-encoder-fused)"),
    "tie_encoders": (_has_label_encoder, "there is a label encoder (bi-encoder, bi-encoder-fused)"),
    "scorer_num_heads": (_has_cross_attention, "scorer_type='cross-attn'"),
    "scorer_attn_dropout": (_has_cross_attention, "scorer_type='cross-attn'"),
    "scorer_mlp_hidden_size": (_has_scorer_mlp, "the scorer has an MLP (mlp, hopfield, cross-attn, decoder-kv)"),
    "text_contrastive_loss_coef": (_is_single_label, "each text has one class"),
    "ignore_index": (_is_multi_label, "y is multi-label"),
    "focal_loss_alpha": (_is_multi_label, "y is multi-label"),
    "focal_loss_gamma": (_is_multi_label, "y is multi-label"),
    "focal_loss_reduction": (_is_multi_label, "y is multi-label"),
}
