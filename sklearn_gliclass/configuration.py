"""Conversion of GLiClass's configuration objects to hyperparameters."""

import inspect

from .model import GLiClassModelConfig
from .model.config import BI_ENCODERS
from .parameters import MODEL_PARAMETERS
from .training import RLTrainerConfig, TrainingArguments

_DERIVED_FIELDS = ("class_token_index", "text_token_index", "vocab_size")  # derived by `fit` from the tokenizer
_CHECKPOINT_FIELDS = (
    "recurrent_min_steps", "recurrent_inference", "recurrent_inference_max_steps", "recurrent_halt_threshold",
    "recurrent_improvement_coef", "recurrent_improvement_margin", "recurrent_bptt_steps", "recurrent_confidence_coef",
    "recurrent_confidence_mode", "recurrent_confidence_margin", "use_calibrator",
)  # fmt: skip
_INFERRED_PROBLEM_TYPE = "single_label_classification"  # the default: it may not be an explicit choice


def read_hyperparameters(estimator: type, config: GLiClassModelConfig, training_args=None) -> dict:
    """Convert a configuration and training arguments to hyperparameters of an estimator.

    Values that the configuration has derived (token ids, sizes, a label encoder like the text encoder) are left to
    `fit`, which derives them again.

    Parameters
    ----------
    estimator : type
        GLiClassClassifier or GLiClassRegressor.
    config : GLiClassModelConfig
        Configuration of the model.
    training_args : TrainingArguments or transformers.TrainingArguments, optional
        Hyperparameters of the training loop.

    Returns
    -------
    dict
        Hyperparameters by name.

    Raises
    ------
    TypeError
        If an argument is an object of another type.
    ValueError
        If fields for classification are set and the estimator is a regressor.
    """
    if not isinstance(config, GLiClassModelConfig):
        raise TypeError(f"config must be a GLiClassModelConfig, got {type(config).__name__}.")
    for name in ("text_prefix", "label_prefix"):
        if getattr(config, name):
            raise ValueError(
                f"{name}={getattr(config, name)!r} of the configuration is read from a sentence encoder and has no "
                "hyperparameter; set encoder_model and pooling_strategy='auto' instead, or load a checkpoint with "
                "from_pretrained."
            )
    _check_builds_new_model(config)
    found = _model_hyperparameters(config)
    known = set(estimator._get_param_names())
    _check_fields_are_read(estimator, config, sorted(set(found) - known))
    found = {name: value for name, value in found.items() if name in known}
    return {**found, **_training_hyperparameters(training_args)}


def _check_builds_new_model(config: GLiClassModelConfig) -> None:
    """Raise for fields of trained checkpoints that are set and are no hyperparameters."""
    documented = inspect.signature(GLiClassModelConfig.__init__).parameters
    values = {name: getattr(config, name) for name in _CHECKPOINT_FIELDS}
    chosen = [f"{name}={value!r}" for name, value in values.items() if value != documented[name].default]
    if chosen:
        raise ValueError(
            f"{', '.join(chosen)} cannot be set for a new model: checkpoints hold these fields. Load the checkpoint "
            "with pretrained=..., or set the fields to their defaults."
        )


def _check_fields_are_read(estimator: type, config: GLiClassModelConfig, unread: list[str]) -> None:
    """Raise for fields that are set and have no hyperparameter of the estimator.

    In the configuration of a regression they have no effect, and are ignored.
    """
    if config.problem_type == "regression":
        return
    documented = inspect.signature(GLiClassModelConfig.__init__).parameters
    values = {name: getattr(config, name) for name in unread}
    chosen = [f"{name}={value!r}" for name, value in values.items() if value not in (None, documented[name].default)]
    if chosen:
        raise ValueError(
            f"{estimator.__name__} has no hyperparameters for {', '.join(chosen)} of the configuration, which apply to "
            "classification. Use GLiClassClassifier, or set these fields to their defaults."
        )


def _model_hyperparameters(config: GLiClassModelConfig) -> dict:
    found = {name: getattr(config, name) for name in MODEL_PARAMETERS if name not in _DERIVED_FIELDS}
    width = config.encoder_config.get_text_config().hidden_size
    if config.hidden_size == width * (2 if config.projector_init == "identity" else 1):
        found["hidden_size"] = None
    if config.architecture_type not in BI_ENCODERS:
        del found["tie_encoders"]
    if config.problem_type not in (None, _INFERRED_PROBLEM_TYPE):
        found["problem_type"] = config.problem_type
    return {**found, **_encoder_hyperparameters(config)}


def _encoder_hyperparameters(config: GLiClassModelConfig) -> dict:
    """Return the names of the encoders, or their configurations if they have no names."""
    found = {}
    if config.encoder_model_name:
        found["encoder_model"] = config.encoder_model_name
    else:
        found["encoder_config"] = _to_dict(config.encoder_config)
    if config.architecture_type in BI_ENCODERS:
        if config.label_model_name not in (None, config.encoder_model_name):
            found["label_model_name"] = config.label_model_name
        elif _to_dict(config.label_model_config) != _to_dict(config.encoder_config):
            found["label_model_config"] = _to_dict(config.label_model_config)
    return found


def _to_dict(encoder_config) -> dict:
    fields = encoder_config.to_diff_dict()
    fields.pop("transformers_version", None)
    return {**fields, "model_type": encoder_config.model_type}


def _training_hyperparameters(training_args) -> dict:
    if training_args is None:
        return {}
    if isinstance(training_args, RLTrainerConfig):
        raise TypeError(
            "training_args is an RLTrainerConfig; pass it as rl=..., and the supervised arguments as training_args."
        )
    if not isinstance(training_args, TrainingArguments):
        training_args = TrainingArguments.from_transformers(training_args)
    return training_args.get_params(deep=False)
