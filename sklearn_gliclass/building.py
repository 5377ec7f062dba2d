"""Building of the untrained model: from an encoder, from scratch, or from a GLiClass checkpoint."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from numbers import Real
from pathlib import Path
from types import SimpleNamespace

import torch

from .annotations import ProblemType
from .containers import plain
from .data.tokenizer import (
    EXAMPLE_TOKEN,
    LABEL_TOKEN,
    SEP_TOKEN,
    add_example_token,
    example_token_id,
    load_tokenizer,
    train_tokenizer,
)
from .fitted import FittedModel
from .label_fit import load_label_fit
from .model import GLiClassModelConfig
from .model.config import BI_ENCODERS, ENCODER_DECODERS
from .model.folders import read_unchanged
from .model.freezing import is_fully_frozen
from .model.loading import build_encoder, load_encoder, resolve_max_length
from .model.lookup import (
    DEFAULT_ENCODER,
    OWN_LOGIT_OFFSET,
    OWN_WEIGHTS,
    OWN_WEIGHTS_EDITION,
    find_adapter,
    find_checkpoint,
    read_adapter_base,
)
from .model.poolings import NO_POOLING
from .model.precision import require_device, weight_dtype
from .model.scorers import LARGE_MAX_NUM_CLASSES, TOKEN_SCORERS
from .model.sentence_encoder import SentenceSettings, read_sentence_settings
from .model.torch_internals import place
from .parameters import (
    ADAPTER_PARAMETERS,
    AUTO_POOLING,
    MODEL_ORIGIN,
    MODEL_PARAMETERS,
    OPTION_READERS,
    WEIGHT_PARAMETERS,
    model_parameters,
)
from .persistence import LABEL_TOKENIZER_FOLDER, load_model, load_tokenizers
from .training.adapters import merge_adapter_folder
from .training.arguments import FIELDS
from .training.probe import TRAINING_SCALE
from .training.recipe import starts_from_probe, supports_probe

CHECKPOINT_LOGIT_SCALE = 2.6592  # of the published checkpoints
COSINE_LOGIT_SCALE = 20.0  # cosines lie in [-1, 1]: a smaller factor keeps a softmax near uniform
# Hyperparameters whose None resolves to the first value if the training starts with a label probe, else to the second.
AFTER_PROBE = {
    "dropout": (0.0, 0.1),
    "text_contrastive_loss_coef": (0.0, 1.0),
    "focal_loss_alpha": (-1, 0.5),
    "focal_loss_gamma": (0, 2),
}
MULTI_LABEL = "multi_label_classification"
DEFAULT_MAX_NUM_CLASSES, MIN_ROWS_PER_LABEL = 25, 40  # LARGE_MAX_NUM_CLASSES from 40 rows per label on


def build(estimator, label_names, problem_type: ProblemType, texts=(), zero_shot: bool = False) -> FittedModel:
    """Build the untrained model that the estimator's hyperparameters describe.

    Parameters
    ----------
    estimator : BaseGLiClass
        Its hyperparameters are read.
    label_names : list of str or None
        Label texts; None if they are not known yet.
    problem_type : str
        Problem type of the model's configuration.
    texts : sequence of str, default=()
        Training texts: a new tokenizer is trained on them, and their number decides `max_num_classes`.
    zero_shot : bool, default=False
        Whether the model starts as for zero-shot classification: no training follows, or one on texts with labels of
        their own.

    Returns
    -------
    FittedModel
        The model, on the device and in the dtype of the hyperparameters.
    """
    if estimator.pretrained is not None:
        is_trained = len(texts) > 0 and estimator.max_epochs != 0
        model, tokenizer, label_tokenizer, label_fit = _from_checkpoint(estimator, problem_type, is_trained)
    else:
        label_fit = None
        model, tokenizer, label_tokenizer = _from_encoder(estimator, texts, label_names, problem_type, zero_shot)
    max_length = resolve_max_length(estimator.max_length, model.config.encoder_config, tokenizer)
    model = place(model, require_device(estimator.device), weight_dtype(estimator.dtype))
    return FittedModel(model, tokenizer, label_tokenizer, label_names, max_length, label_fit=label_fit)


def construction_parameters(estimator) -> dict:
    """Return the hyperparameters that model and optimiser were built with, which further training cannot change."""
    read_anew = {"max_num_classes", "max_epochs"}  # read by each call
    names = {*MODEL_ORIGIN, *MODEL_PARAMETERS, *ADAPTER_PARAMETERS, *FIELDS, "device", "dtype"} - read_anew
    return {name: copy.deepcopy(getattr(estimator, name)) for name in sorted(names) if hasattr(estimator, name)}


def check_unchanged_model(estimator, construction: dict, keeps_optimizer: bool) -> None:
    """Raise if hyperparameters of the model, or of an optimiser that is kept, have changed since it was built."""
    of_training = set(FIELDS) - {"cache_dir"}
    for name, value in construction_parameters(estimator).items():
        if _equal(value, construction[name]) or (name in of_training and not keeps_optimizer):
            continue
        if name in of_training:
            raise ValueError(
                f"{name}={value!r} cannot take effect: partial_fit continues with the optimiser of the earlier fit, "
                f"which was built with {name}={construction[name]!r}. Restore this value, or set warm_start=True and "
                "call fit, which keeps the weights and builds a new optimiser."
            )
        raise ValueError(
            f"{name}={value!r} cannot take effect: warm_start and partial_fit continue with the fitted model, which "
            f"was built with {name}={construction[name]!r}. Restore this value, or set warm_start=False and call fit, "
            "which builds a new model."
        )


def _equal(value, other) -> bool:
    """Return whether two values of a hyperparameter are equal; 1 and 1.0 are."""
    comparable = type(value) is type(other) or (isinstance(value, Real) and isinstance(other, Real))
    return value is other or (comparable and bool(value == other))


def starts_from_own_weights(estimator) -> bool:
    """Return whether the model starts from the default encoder with the package's own weight delta."""
    return (estimator.pretrained, estimator.encoder_model, estimator.encoder_config) == (None, None, None)


def set_by_user(estimator) -> dict:
    """Return the hyperparameters that differ from their defaults."""
    signature = inspect.signature(type(estimator).__init__).parameters
    own = {name: plain(value) for name, value in estimator.get_params(deep=False).items()}
    return {name: value for name, value in own.items() if not _equal(value, signature[name].default)}


# -- from an encoder -----------------------------------------------------------------------------------------


def _from_encoder(estimator, texts, label_names, problem_type, zero_shot):
    """Build a model with new heads, and return it with its tokenizers."""
    from .model import GLiClassModel  # imports the models of transformers, which takes long

    encoder, tokenizer = _text_encoder(estimator, [*texts, *label_names])
    label_encoder, label_tokenizer = _label_encoder(estimator, encoder, tokenizer)
    shape = len(texts), len(label_names)
    config = _model_config(estimator, encoder, label_encoder, tokenizer, problem_type, shape, zero_shot)
    if zero_shot and starts_from_own_weights(estimator) and problem_type == MULTI_LABEL:
        config.logit_offset = OWN_LOGIT_OFFSET
    model = GLiClassModel(config, encoder, label_encoder)
    # The plain bi-encoder has no control tokens in its sequences, and an encoder from scratch has no known tokens.
    if config.architecture_type != "bi-encoder" and estimator.encoder_config is None:
        _init_control_tokens(model, tokenizer)
    return model, tokenizer, label_tokenizer


def _text_encoder(estimator, texts):
    """Load the encoder and its tokenizer, or build an encoder and train a tokenizer on the texts."""
    name, options = estimator.encoder_model, estimator.encoder_config
    whole = estimator.architecture_type in ENCODER_DECODERS
    if name is not None and options is not None:
        raise ValueError(
            "encoder_model and encoder_config exclude each other: the first loads an encoder, the second builds one "
            "from scratch; set one to None."
        )
    if options is not None:
        tokenizer = _with_example_token(estimator, train_tokenizer(texts, options.get("vocab_size")))
        return _new_for(options, tokenizer, whole), tokenizer
    own = OWN_WEIGHTS if starts_from_own_weights(estimator) else None
    name = name or DEFAULT_ENCODER
    encoder, tokenizer = _pretrained_encoder(name, estimator.cache_dir, whole, own, _keeps_encoders(estimator))
    return encoder, _with_example_token(estimator, tokenizer)


def _keeps_encoders(estimator) -> bool:
    """Return whether no weight of the encoders is changed: no training, and no embeddings of new control tokens."""
    return is_fully_frozen(estimator.freeze_encoder) and estimator.architecture_type == "bi-encoder"


def _pretrained_encoder(name: str, cache_dir, whole=False, weight_delta=None, shares_weights=False):
    """Load an encoder and its tokenizer; into the encoder of an adapter folder, the adapter is merged."""
    adapter = find_adapter(name)
    if adapter is None:
        return _read_encoder(find_checkpoint(name, cache_dir), whole, weight_delta, shares_weights)

    def read():
        encoder, tokenizer = _read_encoder(_encoder_folder(name, cache_dir), whole, weight_delta)
        return merge_adapter_folder(encoder, adapter), tokenizer

    return read_unchanged(adapter, read)


def _read_encoder(folder: Path, whole: bool, weight_delta: Path | None, shares_weights: bool = False):
    """Read an encoder and its tokenizer, of the same version of the folder."""
    load = functools.partial(load_encoder, folder, whole, weight_delta, shares_weights)
    return read_unchanged(folder, lambda: (load(), load_tokenizer(folder)))


def _encoder_folder(name: str, cache_dir) -> Path:
    """Return the folder of an encoder, which for the name of an adapter folder is that of the adapter's encoder."""
    adapter = find_adapter(name)
    return find_checkpoint(name if adapter is None else read_adapter_base(adapter), cache_dir)


def _with_example_token(estimator, tokenizer):
    """Add ``<<EXAMPLE>>`` to the tokenizer of a new model, if there are in-context examples."""
    if getattr(estimator, "examples", None) is not None:
        add_example_token(tokenizer)
    return tokenizer


def _new_for(options: dict, tokenizer, whole: bool = False):
    """Build an encoder with random weights for the tokenizer's vocabulary."""
    special = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = GLiClassModelConfig(encoder_config={**options, **special}).encoder_config
    try:
        return build_encoder(config, whole)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    except RuntimeError as error:  # raised by torch for invalid sizes
        reason = str(error)
    raise ValueError(f"No encoder can be built from the configuration {options!r}: {reason}. Correct this value.")


def _label_encoder(estimator, encoder, tokenizer):
    """Return the label encoder and its tokenizer: the named ones, or the text encoder or a copy of it."""
    name, options = estimator.label_model_name, estimator.label_model_config
    if estimator.architecture_type not in BI_ENCODERS:
        return None, None
    if name is not None and options is not None:
        raise ValueError("label_model_name and label_model_config exclude each other; set one to None.")
    tied = _ties_encoders(estimator)
    if name is not None:
        return _pretrained_encoder(name, estimator.cache_dir, shares_weights=_keeps_encoders(estimator))
    if options is not None:
        return _new_for(options, tokenizer), tokenizer
    return (encoder if tied else copy.deepcopy(encoder)), tokenizer


def _ties_encoders(estimator) -> bool:
    """Return the resolved value of `tie_encoders`: if None, whether no label encoder is named."""
    named = estimator.label_model_name is not None or estimator.label_model_config is not None
    if estimator.tie_encoders and named:
        raise ValueError(
            "tie_encoders=True encodes the labels with the text encoder, but label_model_name or label_model_config "
            "names another one; set these to None, or tie_encoders to None or False."
        )
    return not named if estimator.tie_encoders is None else estimator.tie_encoders


def _model_config(
    estimator, encoder, label_encoder, tokenizer, problem_type, shape: tuple[int, int], zero_shot
) -> GLiClassModelConfig:
    n_texts, n_labels = shape
    fields = {**model_parameters(estimator), **_sentence_fields(estimator)}
    text_config = encoder.config.get_text_config()
    known = SimpleNamespace(problem_type=problem_type, encoder_width=text_config.hidden_size, **fields)
    from_probe = starts_from_probe(estimator, known, n_labels) and not zero_shot
    widens = estimator.projector_init == "identity" and estimator.architecture_type != "decoder-kv"
    if widens and estimator.hidden_size is None:
        fields["hidden_size"] = 2 * text_config.hidden_size
    if estimator.logit_scale_init_value is None:
        scale = TRAINING_SCALE if from_probe else _logit_scale(estimator, problem_type)
        fields["logit_scale_init_value"] = scale
    if "max_num_classes" in fields and fields["max_num_classes"] is None:
        rows_per_label = math.inf if from_probe else n_texts / n_labels  # its steps encode no labels
        fields["max_num_classes"] = _max_num_classes(estimator, problem_type, rows_per_label)
    for name, (after_probe, otherwise) in AFTER_PROBE.items():
        if fields.get(name, 0) is None:
            fields[name] = after_probe if from_probe else otherwise
    fields["tie_encoders"] = label_encoder is encoder
    fields.update(_token_indices(estimator, tokenizer))
    if estimator.vocab_size not in (None, text_config.vocab_size):
        raise ValueError(
            f"vocab_size={estimator.vocab_size} is not the encoder's, {text_config.vocab_size}; set vocab_size=None, "
            "or set vocab_size in encoder_config to limit the vocabulary of a trained tokenizer."
        )
    config = GLiClassModelConfig(
        encoder_config=encoder.config,
        encoder_model=estimator.encoder_model or (DEFAULT_ENCODER if estimator.encoder_config is None else None),
        label_model_config=None if label_encoder is None else label_encoder.config,
        label_model_name=estimator.label_model_name,
        problem_type=problem_type,
        weights_edition=OWN_WEIGHTS_EDITION if starts_from_own_weights(estimator) else None,
        **fields,
    )
    _check_options_are_read(estimator, config)
    return config


def _sentence_fields(estimator) -> dict:
    """Return the pooling that ``pooling_strategy="auto"`` resolves to, and the prefixes of texts and labels."""
    if estimator.pooling_strategy != AUTO_POOLING:
        return {}
    if estimator.scorer_type in TOKEN_SCORERS:
        return {"pooling_strategy": NO_POOLING}
    if estimator.encoder_config is not None:
        return {"pooling_strategy": SentenceSettings().pooling_strategy}
    name = estimator.encoder_model or DEFAULT_ENCODER
    own = read_sentence_settings(_encoder_folder(name, estimator.cache_dir))
    found = {"pooling_strategy": own.pooling_strategy}
    if estimator.architecture_type != "bi-encoder":
        return found
    labels = own
    if estimator.label_model_config is not None:
        labels = SentenceSettings(own.pooling_strategy)
    elif estimator.label_model_name is not None:
        labels = read_sentence_settings(_encoder_folder(estimator.label_model_name, estimator.cache_dir))
    if labels.pooling_strategy != own.pooling_strategy:
        raise ValueError(
            f"pooling_strategy='auto' resolves to {own.pooling_strategy!r} for the text encoder and to "
            f"{labels.pooling_strategy!r} for label_model_name={estimator.label_model_name!r}, and both share one "
            "pooling; set pooling_strategy to one of them."
        )
    return {**found, "text_prefix": own.prefix, "label_prefix": labels.prefix}


def _logit_scale(estimator, problem_type) -> float:
    """Return the value that ``logit_scale_init_value=None`` resolves to."""
    # In the fused architecture the label embeddings are not normalised after the encoder; the standardised values
    # of a regression are small. The decoder has no such factor.
    cosines = estimator.normalize_features and estimator.architecture_type not in ("bi-encoder-fused", "decoder-kv")
    large = cosines and problem_type != "regression"
    return COSINE_LOGIT_SCALE if large else CHECKPOINT_LOGIT_SCALE


def _max_num_classes(estimator, problem_type, rows_per_label) -> int:
    """Return the value that ``max_num_classes=None`` resolves to."""
    cheap = estimator.architecture_type == "bi-encoder" and estimator.scorer_type == "simple"
    if estimator.scorer_type == "hopfield" and rows_per_label == math.inf:
        return LARGE_MAX_NUM_CLASSES  # the softmax over the labels is to see all of them
    # A softmax learns most from classes that are hard to separate, and a small prompt holds few of them. With few rows
    # per label this gains little accuracy, while encoding the labels takes as long as encoding the texts.
    many = cheap and problem_type == "single_label_classification" and rows_per_label >= MIN_ROWS_PER_LABEL
    return LARGE_MAX_NUM_CLASSES if many else DEFAULT_MAX_NUM_CLASSES


@torch.no_grad()
def _init_control_tokens(model, tokenizer) -> None:
    """Initialise the embeddings of control tokens that are new to the encoder.

    ``<<LABEL>>`` and ``<<EXAMPLE>>`` get the embeddings of the words "label" and "example", or the means of their word
    pieces, and ``<<SEP>>`` that of the tokenizer's own separator. Without such a token, they get the mean of all
    embeddings.
    """
    mean = model.get_input_embeddings().weight.mean(dim=0)
    indices = [tokenizer.convert_tokens_to_ids(token) for token in (LABEL_TOKEN, SEP_TOKEN)]
    needed = max(*indices, example_token_id(tokenizer) or 0) + 1
    if needed > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(needed)
    alike = {
        LABEL_TOKEN: tokenizer("label", add_special_tokens=False)["input_ids"],
        SEP_TOKEN: [tokenizer.sep_token_id],
        EXAMPLE_TOKEN: tokenizer("example", add_special_tokens=False)["input_ids"],
    }
    embeddings = model.get_input_embeddings().weight
    for token in tokenizer.new_control_tokens:
        known = [index for index in alike[token] if index not in (None, tokenizer.unk_token_id)]
        embeddings[tokenizer.convert_tokens_to_ids(token)] = embeddings[known].mean(dim=0) if known else mean


def _token_indices(estimator, tokenizer) -> dict[str, int]:
    tokens = {"class_token_index": LABEL_TOKEN, "text_token_index": SEP_TOKEN}
    indices = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    for name, index in indices.items():
        if getattr(estimator, name) not in (-1, index):
            raise ValueError(
                f"{name}={getattr(estimator, name)} is not the id of this token in the tokenizer, {index}; "
                f"set {name}=-1."
            )
    example = example_token_id(tokenizer)
    return indices if example is None else {**indices, "example_token_index": example}


def _check_options_are_read(estimator, config) -> None:
    """Raise for an option without effect on this model whose value is not the documented default."""
    documented = inspect.signature(GLiClassModelConfig.__init__).parameters
    for name, value in set_by_user(estimator).items():
        is_read, where = OPTION_READERS.get(name, (None, None))
        if is_read is not None and not is_read(config) and not _equal(value, documented[name].default):
            raise ValueError(
                f"{name}={value!r} has no effect here: it is used if {where}, and this model has "
                f"architecture_type={config.architecture_type!r}, scorer_type={config.scorer_type!r}, "
                f"problem_type={config.problem_type!r}. Set {name} to its default."
            )


# -- from a checkpoint ---------------------------------------------------------------------------------------


def _from_checkpoint(estimator, problem_type: ProblemType, is_trained: bool):
    """Load the model in ``pretrained``; hyperparameters override its configuration where the weights allow it.

    A calibrator was fitted to the logits of these weights. It is left out if they will be trained.
    """
    folder = find_checkpoint(estimator.pretrained, estimator.cache_dir)
    return read_unchanged(folder, lambda: _read_checkpoint(folder, estimator, problem_type, is_trained))


def _read_checkpoint(folder: Path, estimator, problem_type: ProblemType, is_trained: bool):
    config = GLiClassModelConfig.from_pretrained(folder)
    chosen = set_by_user(estimator)
    for name in WEIGHT_PARAMETERS:
        if name in chosen and chosen[name] != getattr(config, name, None):
            raise ValueError(
                f"{name}={chosen[name]!r} does not match the weights of pretrained={estimator.pretrained!r}, which "
                f"have {name}={getattr(config, name, None)!r}; set it to its default, or start from an encoder with "
                "encoder_model instead."
            )
    for name in MODEL_PARAMETERS:
        if name in chosen and (name, chosen[name]) != ("pooling_strategy", AUTO_POOLING):
            setattr(config, name, chosen[name])
    config.problem_type = problem_type
    if is_trained or getattr(estimator, "calibrate", None) is False:
        config.use_calibrator = False
    if supports_probe(estimator, config):
        for name, (after_probe, _) in AFTER_PROBE.items():
            if getattr(estimator, name, 0) is None:
                setattr(config, name, after_probe)
    config.check_combinations()
    _check_options_are_read(estimator, config)
    model = load_model(folder, config)
    tokenizer, label_tokenizer = load_tokenizers(folder, config)
    if label_tokenizer is None and config.architecture_type in BI_ENCODERS:
        # Checkpoints of gliclass hold the name of the label encoder, but not its tokenizer.
        if not config.label_model_name:
            raise OSError(
                f"The checkpoint in pretrained={estimator.pretrained!r} has no tokenizer of its labels: neither a "
                f"folder {LABEL_TOKENIZER_FOLDER!r} nor a label_model_name in config.json. Save or download it again."
            )
        label_folder = find_checkpoint(config.label_model_name, estimator.cache_dir)
        label_tokenizer = read_unchanged(label_folder, lambda: load_tokenizer(label_folder))
    return model, tokenizer, label_tokenizer, load_label_fit(folder, model)
