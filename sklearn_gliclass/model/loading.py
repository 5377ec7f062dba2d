"""Encoders with their weights, read once per process and copied for each model."""

import contextlib
import copy
import functools
from pathlib import Path

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
from transformers.utils import logging

from .difference import add_difference
from .fingerprint import copy_with_fingerprint
from .isolation import process_lock
from .weights import check_loaded, read_json, read_weights

_MODEL_FILES = (".json", ".safetensors", ".bin")

FALLBACK_MAX_LENGTH = 512  # where neither the encoder nor its tokenizer names a limit
_NO_LIMIT = 1_000_000  # tokenizers without a limit report a huge number

# Families whose first position is not 0 but after the padding index.
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

# Encoder-decoder families that are used by their encoder alone, and the class of that in transformers.
ENCODER_HALVES = {"t5": "T5EncoderModel", "mt5": "T5EncoderModel", "umt5": "UMT5EncoderModel"}


def encoder_class(config):
    """The transformers class of a text encoder; of an encoder-decoder family: of its encoder."""
    if config.model_type in ENCODER_HALVES:
        return getattr(transformers, ENCODER_HALVES[config.model_type])
    if config.is_encoder_decoder:
        raise ValueError(
            f"model_type={config.model_type!r} has a decoder and no encoder that could be used alone; set "
            "architecture_type='encoder-decoder', or choose another encoder."
        )
    return AutoModel


def build_encoder(config, whole: bool = False):
    """Build an encoder with random weights from a transformers configuration.

    Parameters
    ----------
    config : PretrainedConfig
        The encoder's.
    whole : bool, default=False
        With the decoder of an encoder-decoder.
    """
    model_class = AutoModel if whole else encoder_class(config)
    # The type that holds already: another one would be the default of all threads while the encoder is built.
    dtype = config.dtype and torch.get_default_dtype()
    with process_lock():
        if model_class is AutoModel:
            return model_class.from_config(config, dtype=dtype, trust_remote_code=False)
        return model_class._from_config(config, dtype=dtype)


@contextlib.contextmanager
def quiet_transformers():
    """Loading and saving weights shows no progress bar and no report: what matters of it raises."""
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


@contextlib.contextmanager
def isolated():
    """Hold the process lock, with torch's generator of the CPU seeded; afterwards it is what it was.

    What a model draws while it is loaded (a pooler that the file lacks and nothing reads) is then always the same.
    """
    with process_lock(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def load_weights(model_class, config, weights: dict, source: str, whole: bool = True):
    """Build a model around weights that are in memory.

    Parameters
    ----------
    model_class : type
        A class of transformers.
    config : PretrainedConfig
        Its configuration.
    weights : dict of str to Tensor
        Become the model's own; each keeps its type where the names are those of the model.
    source : str
        Where they came from, for messages.
    whole : bool, default=True
        See :func:`check_loaded`.

    Returns
    -------
    PreTrainedModel
        In evaluation mode.

    Raises
    ------
    ValueError
        The weights are not those that the configuration needs.
    """
    with isolated(), quiet_transformers():
        # Another dtype would be the default of all threads meanwhile.
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


def load_encoder(folder: Path, whole: bool = False, difference: Path | None = None, share: float = 1.0):
    """Load a copy of the encoder in a folder.

    Parameters
    ----------
    folder : Path
        Holds ``config.json`` and weights.
    whole : bool, default=False
        With the decoder of an encoder-decoder.
    difference : Path, optional
        A file of :func:`write_difference`, of which `share` is added.
    share : float, default=1.0
        How much of the difference.

    Raises
    ------
    OSError
        A file is missing or damaged.
    ValueError
        The folder holds no encoder, or weights that its configuration does not describe.
    """
    with process_lock():
        encoder = _read_encoder(folder, whole, difference, share, _file_versions(folder))
    return copy_with_fingerprint(encoder)


def _file_versions(folder: Path) -> tuple:
    """What changes when a file of the folder is written anew."""
    files = ((path.name, path.stat()) for path in sorted(folder.glob("*")) if path.suffix in _MODEL_FILES)
    return tuple((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in files)


@functools.lru_cache(maxsize=3)  # the default one is read as it is, with half of our difference, and with all of it
def _read_encoder(folder: Path, whole: bool, difference: Path | None, share: float, versions: tuple):
    config = read_encoder_config(folder)
    model_class = AutoModel if whole else encoder_class(config)
    if model_class is AutoModel:
        with process_lock(), torch.device("meta"):
            model_class = type(build_encoder(copy.deepcopy(config), whole))
    encoder = load_weights(model_class, config, read_weights(folder), f"The encoder {str(folder)!r}", whole=False)
    if difference is not None:
        add_difference(encoder, difference, share)
    return encoder


def read_encoder_config(folder: Path):
    """Read the configuration of an encoder.

    Raises
    ------
    OSError
        ``config.json`` is damaged.
    ValueError
        It is not the configuration of an encoder that transformers knows.
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
            "know. Code that comes with a checkpoint is never run: choose another encoder, or update transformers."
        )
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def new_encoder(config, whole: bool = False):
    """Build an encoder with random weights; `whole`: with the decoder of an encoder-decoder."""
    return build_encoder(config, whole)


def max_positions(config) -> int | None:
    """Most tokens that the encoder has positions for; None: no limit."""
    text_config = config.get_text_config()
    positions = getattr(text_config, "max_position_embeddings", None)
    if not positions or positions < 0 or text_config.model_type in ("t5", "mt5", "umt5"):
        return None
    if text_config.model_type in _POSITION_OFFSET:
        positions -= (text_config.pad_token_id or 0) + 1
    return positions


def resolve_max_length(max_length: int | None, config, tokenizer) -> int:
    """`max_length`, or the encoder's own limit; more than its positions raises."""
    positions = max_positions(config)
    if max_length is None:
        limits = [positions or _NO_LIMIT, tokenizer.model_max_length]
        shortest = int(min(limits))
        return FALLBACK_MAX_LENGTH if shortest >= _NO_LIMIT else shortest
    if positions is not None and max_length > positions:
        raise ValueError(
            f"max_length={max_length} is more than the {positions} positions of the encoder; lower it, or leave "
            "max_length=None for the encoder's own limit."
        )
    return max_length
