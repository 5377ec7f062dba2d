"""Tokenizers: loading, control tokens, training on texts, and tokenisation of the pieces of a sequence.

transformers is imported late, as :mod:`sklearn_gliclass.onnx` uses this module without it.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LABEL_TOKEN = "<<LABEL>>"
SEP_TOKEN = "<<SEP>>"
EXAMPLE_TOKEN = "<<EXAMPLE>>"

TRAINED_VOCABULARY = 8_000  # maximum size of the vocabulary that is trained on the texts of `fit`
_BLANKS = ("\u2581", "\u0120")  # how SentencePiece and byte-level BPE write a space
_TEXTS_AT_ONCE = 10_000  # per call of the tokenizer, to bound its memory
_CACHED_CHARACTERS = 8 * 2**20  # of the texts whose ids are kept
_VOCABULARY_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip


def load_tokenizer(folder, config=None):
    """Load the fast tokenizer of a folder, and add missing control tokens.

    `config` is the configuration of the encoder, for folders whose ``config.json`` is not that of an encoder.
    """
    if config is not None:
        return _read_tokenizer(folder, config=config)
    files = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in Path(folder).iterdir()))
    return _copy(_read_once(folder, files))


def _copy(tokenizer):
    """Copy a tokenizer deeply, but its vocabulary dictionaries shallowly, which is much faster."""
    flat = [value for value in vars(tokenizer).values() if type(value) is dict and _is_vocabulary(value)]
    copies: dict[int, object] = {id(value): value.copy() for value in flat}
    copies[id(tokenizer.backend_tokenizer)] = _copy_backend(tokenizer.backend_tokenizer)
    return copy.deepcopy(tokenizer, copies)


def _copy_backend(backend: Tokenizer) -> Tokenizer:
    """Copy a tokenizer of the package tokenizers; both use one vocabulary, which cannot be changed."""
    copied = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "encode_special_tokens"):
        value = getattr(backend, part)
        if value is not None:
            setattr(copied, part, copy.deepcopy(value))
    added = backend.get_added_tokens_decoder()
    for _, token in sorted(added.items()):
        copied.add_tokens([token])
    if backend.truncation is not None:
        copied.enable_truncation(**backend.truncation)
    if backend.padding is not None:
        copied.enable_padding(**backend.padding)
    # The general way is through JSON, which takes long for a large vocabulary.
    return copied if copied.get_added_tokens_decoder() == added else copy.deepcopy(backend)


def _is_vocabulary(values: dict) -> bool:
    return set(map(type, values)) == {str} and set(map(type, values.values())) == {int}


@functools.lru_cache(maxsize=4)
def _read_once(folder, files):
    return _read_tokenizer(folder)


def read_tokenizer(folder, **options):
    """Read the tokenizer of a folder, without additions.

    Raises
    ------
    OSError
        If its files are missing or damaged.
    """
    if not any((Path(folder) / name).is_file() for name in _VOCABULARY_FILES):
        raise OSError(
            f"The folder {str(folder)!r} holds no tokenizer (tokenizer.json); save the tokenizer there, or download "
            "the checkpoint again."
        )
    from transformers import AutoTokenizer

    from ..model.isolation import process_lock

    try:
        with process_lock():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # the library raises bare exceptions for damaged files
        raise OSError(
            f"The tokenizer in {str(folder)!r} cannot be read ({type(error).__name__}: {error}); save it again, or "
            "download the checkpoint again."
        ) from error


def _read_tokenizer(folder, **options):
    tokenizer = read_tokenizer(folder, **options)
    if not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer in {str(folder)!r} is a slow one ({type(tokenizer).__name__}); sklearn_gliclass needs a "
            "fast tokenizer (tokenizer.json)."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, _sentence_length(Path(folder)))
    return add_control_tokens(tokenizer)


def _sentence_length(folder: Path) -> float:
    """Return the maximum length of a sentence encoder, which its tokenizer does not hold."""
    path = folder / "sentence_bert_config.json"
    length = json.loads(path.read_text(encoding="utf-8")).get("max_seq_length") if path.is_file() else None
    return length or math.inf


def add_control_tokens(tokenizer):
    """Add ``<<LABEL>>`` and ``<<SEP>>`` as special tokens, and a padding token if there is none.

    The attribute ``new_control_tokens`` of the tokenizer lists those that were missing, for which the encoder has no
    trained embeddings. ``<<EXAMPLE>>`` becomes special where the vocabulary has it.
    """
    tokenizer.new_control_tokens = []
    names = [LABEL_TOKEN, SEP_TOKEN]
    _add_special_tokens(tokenizer, names if example_token_id(tokenizer) is None else [*names, EXAMPLE_TOKEN])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or SEP_TOKEN
    return tokenizer


def _add_special_tokens(tokenizer, names: list[str]) -> None:
    known = tokenizer.backend_tokenizer.token_to_id
    tokenizer.new_control_tokens += [name for name in names if known(name) is None]
    tokens = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_tokens(tokens, special_tokens=True)


def add_example_token(tokenizer) -> None:
    """Add ``<<EXAMPLE>>``, the token before each in-context example."""
    _add_special_tokens(tokenizer, [EXAMPLE_TOKEN])


def example_token_id(tokenizer) -> int | None:
    """Return the id of ``<<EXAMPLE>>``, or None if the tokenizer does not have it."""
    return tokenizer.backend_tokenizer.token_to_id(EXAMPLE_TOKEN)


def train_tokenizer(texts: Iterable[str], vocab_size: int | None = None) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE tokenizer, independently of the order and repetition of the texts.

    Byte-level BPE is reproducible; the trainers of WordPiece and of BPE with affixes number their tokens by a hash map,
    differently in each run.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["a red card", "a blue card"])
    >>> tokenizer.convert_ids_to_tokens(tokenizer("blue card").input_ids)
    ['[CLS]', 'Ġblue', 'Ġcard', '[SEP]']
    """
    from transformers import PreTrainedTokenizerFast

    if vocab_size is not None and (not isinstance(vocab_size, int) or vocab_size < 0):
        raise ValueError(f"vocab_size in encoder_config must be a number of tokens of at least 0, got {vocab_size!r}.")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size or TRAINED_VOCABULARY,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(sorted(set(texts)), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip
    return add_control_tokens(tokenizer)


@dataclass
class TokenizedTexts:
    """Token ids of many texts in one array; text i is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: np.ndarray) -> TokenizedTexts:
        """Select texts."""
        ids = [self[row] for row in rows]
        return TokenizedTexts(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def text_lengths(self) -> np.ndarray:
        """Number of tokens of each text without in-context examples, of which there are none."""
        return self.lengths

    @property
    def reserved(self) -> np.ndarray:
        """Number of tokens that the in-context examples of each text need at least."""
        return np.zeros(len(self), np.int64)


class TokenCache:
    """Token ids of the last texts, up to a number of characters: the fits of a search read the same texts.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Tokenizer of the texts.
    """

    def __init__(self, backend: Tokenizer):
        self._backend = backend
        self._known: dict[str, np.ndarray] = {}
        self._n_characters = 0

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of each text, without special tokens."""
        known = self._known  # a full one is replaced, not emptied, as other threads may read it
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        encodings = self._backend.encode_batch_fast(missing, add_special_tokens=False) if missing else []
        new = {text: np.array(part.ids, np.int32) for text, part in zip(missing, encodings, strict=True)}
        self._n_characters += sum(map(len, missing))
        if self._n_characters > _CACHED_CHARACTERS:
            self._known, self._n_characters = {}, 0
        else:
            known |= new
        return [known[text] if text in known else new[text] for text in texts]


@functools.lru_cache(maxsize=8)
def _token_cache(backend: Tokenizer) -> TokenCache:
    return TokenCache(backend)


class PieceTokenizer:
    """Tokenizer of the pieces of a sequence, whose joined ids are those of the joined string.

    Special tokens are not parsed in texts: ``<<LABEL>>`` or ``[SEP]`` in a text is tokenised as plain text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Tokenizer with the control tokens.

    Attributes
    ----------
    label_id, sep_id, pad_id : int
        Ids of the control tokens and of the padding token.
    example_id : int or None
        Id of ``<<EXAMPLE>>``, if the tokenizer has it.
    unread_ids : frozenset of int
        Ids without meaning: of the unknown token and of a single space.
    prefix, suffix : ndarray
        Ids that the tokenizer adds before and after a sequence ([CLS], </s>, ...).
    """

    def __init__(self, tokenizer):
        self.label_id = tokenizer.convert_tokens_to_ids(LABEL_TOKEN)
        self.sep_id = tokenizer.convert_tokens_to_ids(SEP_TOKEN)
        self.example_id = example_token_id(tokenizer)
        self.pad_id = tokenizer.pad_token_id
        to_id = tokenizer.backend_tokenizer.token_to_id
        blanks = (to_id(blank) for blank in _BLANKS)
        self.unread_ids = frozenset({tokenizer.unk_token_id, *blanks} - {None})
        self._starting, self._inner = _backends(tokenizer.backend_tokenizer.to_str())
        self.prefix, self.suffix = self._frame()

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        plain = self._starting.encode("a", add_special_tokens=False).ids
        framed = self._starting.encode("a", add_special_tokens=True).ids
        start = next(i for i in range(len(framed)) if framed[i : i + len(plain)] == plain)
        return np.array(framed[:start], np.int32), np.array(framed[start + len(plain) :], np.int32)

    def tokenize(self, texts: Sequence[str], at_start: bool = True) -> TokenizedTexts:
        """Tokenise texts without special tokens, as first pieces of a sequence if `at_start`, else as inner ones."""
        cache = _token_cache(self._starting if at_start else self._inner)
        ids = [np.empty(0, np.int32)]
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            ids += cache.tokenize(texts[first : first + _TEXTS_AT_ONCE])
        return TokenizedTexts(np.concatenate(ids), np.cumsum([len(row) for row in ids], dtype=np.int64))

    def spans(self, text: str, at_start: bool = True) -> list[tuple[int, int]]:
        """Return the characters (start, end) of each token of a text."""
        backend = self._starting if at_start else self._inner
        return backend.encode(text, add_special_tokens=False).offsets

    def frame(self, *pieces: np.ndarray) -> np.ndarray:
        """Join pieces to a sequence with the tokenizer's prefix and suffix, of at least one token."""
        sequence = np.concatenate([self.prefix, *pieces, self.suffix])
        return sequence if len(sequence) else np.array([self.pad_id], np.int32)


@functools.lru_cache(maxsize=4)
def _backends(description: str) -> tuple[Tokenizer, Tokenizer]:
    """Build the tokenizers of first and of inner pieces; cached, as all fits of a search need the same ones."""
    state = _without_special_tokens(json.loads(description))
    starting = _backend(state)
    return starting, _backend(state) if _drop_leading_space(state) else starting


def _backend(state: dict) -> Tokenizer:
    backend = Tokenizer.from_str(json.dumps(state))
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return backend


def _without_special_tokens(state: dict) -> dict:
    """Rename the special tokens to strings that do not occur in texts, with the same ids.

    ``encode_special_tokens`` is not sufficient, as many vocabularies hold ``</s>`` as an ordinary piece.
    """
    model = state["model"]
    # Pre-tokenizers split at spaces or replace them.
    hidden = {token["content"]: f"{token['content']} \0" for token in state["added_tokens"] if token["special"]}
    for token in state["added_tokens"]:
        token["content"] = hidden.get(token["content"], token["content"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(piece, piece): index for piece, index in model["vocab"].items()}
    else:
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    return state


def _drop_leading_space(state: dict) -> bool:
    """Disable the leading space of Metaspace tokenizers that add it to the first piece of a sequence only."""
    parts = [state["pre_tokenizer"] or {}]
    changed = False
    for part in parts:
        parts.extend(part.get("pretokenizers", []))
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
            changed = True
    return changed
