"""Loading of encoders, which are read once per process and copied for each model."""

import contextlib
import copy
import functools
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging

from .fingerprint import copy_with_fingerprint
from .isolation import process_lock, seed_torch
from .torch_internals import change_counter
from .transformers_internals import build_from_config
from .traversal import collect_parameters
from .weight_delta import add_weight_delta
from .weights import check_loaded, read_json, read_weights

_MODEL_FILES = (".json", ".safetensors", ".bin")

FALLBACK_MAX_LENGTH = 512  # if neither the encoder nor its tokenizer has a limit
_NO_LIMIT = 1_000_000  # tokenizers without a limit report a huge number

# Families whose positions start after the padding index.
_POSITION_OFFSET = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "esm",
    "data2vec-text",
}

# Encoder-decoder families whose encoder can be used separately, and its class in transformers.
ENCODER_HALVES = {"t5": "T5EncoderModel", "mt5": "T5EncoderModel", "umt5": "UMT5EncoderModel"}


def encoder_class(config):
    """Return the transformers class of a text encoder, or of the encoder of an encoder-decoder family."""
    if config.model_type in ENCODER_HALVES:
        return getattr(transformers, ENCODER_HALVES[config.model_type])
    if config.is_encoder_decoder:
        raise ValueError(
            f"model_type={config.model_type!r} has a decoder and no encoder that can be used separately; set "
            "architecture_type='encoder-decoder', or choose another encoder."
        )
    return AutoModel


def build_encoder(config, whole: bool = False) -> PreTrainedModel:
    """Build an encoder with random weights from a transformers configuration.

    Parameters
    ----------
    config : PretrainedConfig
        Configuration of the encoder.
    whole : bool, default=False
        Whether to build the decoder of an encoder-decoder too.
    """
    model_class = AutoModel if whole else encoder_class(config)
    # The current default dtype: transformers would set another one for all threads while the encoder is built.
    dtype = config.dtype and torch.get_default_dtype()
    with process_lock():
        if model_class is AutoModel:
            return model_class.from_config(config, dtype=dtype, trust_remote_code=False)
        return build_from_config(model_class, config, dtype)


@contextlib.contextmanager
def silence_transformers():
    """Hide the progress bars and reports of transformers, as problems raise errors here."""
    with process_lock():
        enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if enabled:
                logging.enable_progress_bar()


def load_weights(model_class, config, weights: dict, source: str, whole: bool = True):
    """Build a model from weights in memory.

    Parameters
    ----------
    model_class : type
        Class of transformers.
    config : PretrainedConfig
        Configuration of the model.
    weights : dict of str to Tensor
        State dict. The tensors are not copied and keep their dtypes.
    source : str
        Origin of the weights, for error messages.
    whole : bool, default=True
        See :func:`check_loaded`.

    Returns
    -------
    PreTrainedModel
        The model, in evaluation mode.

    Raises
    ------
    ValueError
        If the weights do not match the configuration.
    """
    # A pooler that the file does not have, and that is not used, is then always initialised alike.
    with seed_torch(0), silence_transformers():
        # transformers would set another dtype as the default of all threads meanwhile.
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights),
            dtype=torch.get_default_dtype(),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_loaded(model, info, source, whole)
    for name, parameter in model.named_parameters():
        if name in weights and weights[name].dtype != parameter.dtype:
            parameter.data = weights[name]
    return model


def load_encoder(folder: Path, whole: bool = False, weight_delta: Path | None = None, shares_weights: bool = False):
    """Load a copy of the encoder in a folder.

    Parameters
    ----------
    folder : Path
        Folder of ``config.json`` and weights.
    whole : bool, default=False
        Whether to load the decoder of an encoder-decoder too.
    weight_delta : Path, optional
        File of :func:`write_weight_delta` that is added.
    shares_weights : bool, default=False
        Whether the weights have the same memory in all copies; see :func:`copy_with_fingerprint`.

    Raises
    ------
    OSError
        If a file is missing or damaged.
    ValueError
        If the folder holds no encoder, or weights that do not match its configuration.
    """
    with process_lock():
        source = folder, whole, weight_delta, _file_versions(folder)
        encoder, versions = _read_encoder(*source)
        if versions != _weight_versions(encoder):  # changed in place through a copy that shares them
            _read_encoder.cache_clear()
            encoder, _ = _read_encoder(*source)
    return copy_with_fingerprint(encoder, shares_weights)


def _weight_versions(encoder) -> list[object]:
    return [change_counter(parameter) for parameter in collect_parameters([encoder])]


def _file_versions(folder: Path) -> tuple:
    """Return a key that changes when a file of the folder is written."""
    files = ((path.name, path.stat()) for path in sorted(folder.glob("*")) if path.suffix in _MODEL_FILES)
    return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in files)


@functools.lru_cache(maxsize=3)  # the default encoder with and without the weight delta, and another one
def _read_encoder(folder: Path, whole: bool, weight_delta: Path | None, versions: tuple):
    config = read_encoder_config(folder)
    model_class = AutoModel if whole else encoder_class(config)
    if model_class is AutoModel:
        with process_lock(), torch.device("meta"):
            model_class = type(build_encoder(copy.deepcopy(config), whole))
    encoder = load_weights(model_class, config, read_weights(folder), f"The encoder {str(folder)!r}", whole=False)
    if weight_delta is not None:
        add_weight_delta(encoder, weight_delta)
    return encoder, _weight_versions(encoder)


def read_encoder_config(folder: Path):
    """Read the configuration of an encoder.

    Raises
    ------
    OSError
        If ``config.json`` is damaged.
    ValueError
        If it is not the configuration of an encoder that transformers supports.
    """
    fields = read_json(folder / "config.json")
    model_type = fields.get("model_type")
    if model_type == "GLiClass":
        raise ValueError(
            f"{str(folder)!r} is a GLiClass checkpoint, not an encoder: use it as pretrained={str(folder)!r}, or load "
            "it with from_pretrained."
        )
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"The encoder {str(folder)!r} has model_type={model_type!r}, which this version of transformers does not "
            "support. Code that comes with a checkpoint is never run: choose another encoder, or update transformers."
        )
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def max_positions(config) -> int | None:
    """Return the number of positions of the encoder, or None if it has no limit."""
    text_config = config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    if not positions or positions < 0 or text_config.model_type in ("t5", "mt5", "umt5"):
        return None
    if text_config.model_type in _POSITION_OFFSET:
        positions -= (text_config.pad_token_id or 0) + 1
    return positions


def resolve_max_length(max_length: int | None, config, tokenizer) -> int:
    """Return the resolved `max_length`; a value above the number of positions raises."""
    positions = max_positions(config)
    if max_length is None:
        limits = [positions or _NO_LIMIT, tokenizer.model_max_length]
        shortest = int(min(limits))
        return FALLBACK_MAX_LENGTH if shortest >= _NO_LIMIT else shortest
    if positions is not None and max_length > positions:
        raise ValueError(
            f"max_length={max_length} is more than the {positions} positions of the encoder; lower it, or set "
            "max_length=None for the encoder's own limit."
        )
    return max_length
