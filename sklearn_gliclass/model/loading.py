"""Encoders with their weights, read once per process and copied for each model."""

import contextlib
import functools
from pathlib import Path

import transformers
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from .difference import add_difference
from .fingerprint import copy_with_fingerprint

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


def build_encoder(config):
    """A text encoder with random weights from a transformers configuration."""
    model_class = encoder_class(config)
    return model_class.from_config(config) if model_class is AutoModel else model_class._from_config(config)


@contextlib.contextmanager
def quiet_transformers():
    """Loading and saving weights shows no progress bar."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def load_encoder(folder: Path, whole: bool = False, difference: Path | None = None, share: float = 1.0):
    """A copy of the encoder in a folder.

    `whole`: with the decoder of an encoder-decoder; `difference`: a file of :func:`write_difference`, of which `share`
    is added.
    """
    mtime_ns = (folder / "config.json").stat().st_mtime_ns
    return copy_with_fingerprint(_read_encoder(folder, whole, difference, share, mtime_ns))


@functools.lru_cache(maxsize=3)  # the default one is read as it is, with half of our difference, and with all of it
def _read_encoder(folder: Path, whole: bool, difference: Path | None, share: float, mtime_ns: int):
    config = AutoConfig.from_pretrained(folder)
    model_class = AutoModel if whole else encoder_class(config)
    with quiet_transformers():
        encoder = model_class.from_pretrained(folder)
    if difference is not None:
        add_difference(encoder, difference, share)
    return encoder


def new_encoder(config, whole: bool = False):
    """An encoder with random weights; `whole`: with the decoder of an encoder-decoder."""
    return AutoModel.from_config(config) if whole else build_encoder(config)


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
