"""Prompt layouts: how text, labels and separator form the sequences of each architecture.

A layout builds the sequences of a batch from the token ids of texts and labels. Texts that are too long are truncated;
labels never are.
"""

import unicodedata

import numpy as np

from .batching import pad
from .tokenizer import PieceTokenizer, TokenizedTexts

MIN_TEXT_TOKENS = 8  # a prompt that leaves less room for the text raises an error


class Layout:
    """Sequences of one architecture for a fixed list of label texts.

    Parameters
    ----------
    config : GLiClassModelConfig
        Configuration of the model, of which ``prompt_first`` is used.
    pieces : PieceTokenizer
        Tokenizer of the texts.
    label_texts : sequence of str
        Text of each label.
    max_length : int
        Maximum number of tokens of a sequence.
    label_pieces : PieceTokenizer, optional
        Tokenizer of the label encoder, in the bi-encoders.
    """

    shares_labels = False  # whether all samples of a batch have the same labels

    def __init__(self, config, pieces: PieceTokenizer, label_texts, max_length, label_pieces=None):
        self.prompt_first = config.prompt_first
        self.pieces = pieces
        self.label_pieces = label_pieces or pieces
        self.max_length = max_length
        self.label_texts = list(label_texts)
        self.labels = self._tokenize_labels()
        _check_distinct(self.label_texts, self.labels)

    def _tokenize_labels(self) -> TokenizedTexts:
        return self.pieces.tokenize(self.label_texts, at_start=False)

    @property
    def label_reader(self) -> PieceTokenizer:
        """Tokenizer of the labels."""
        return self.pieces

    def tokenize(self, texts) -> TokenizedTexts:
        """Tokenise texts in one call of the tokenizer."""
        return self.pieces.tokenize(texts, at_start=not self.prompt_first)

    def prompt(self, order) -> np.ndarray:
        """Build the prompt ``<<LABEL>>l1<<LABEL>>l2...<<SEP>>`` of the labels in `order`."""
        label = np.array([self.pieces.label_id], np.int32)
        parts = [part for index in order for part in (label, self.labels[index])]
        return np.concatenate([*parts, np.array([self.pieces.sep_id], np.int32)])

    def text_room(self, prompt_length: int) -> int:
        """Return the number of text tokens that fit beside the prompt."""
        room = self.max_length - len(self.pieces.prefix) - len(self.pieces.suffix) - prompt_length
        if room >= MIN_TEXT_TOKENS:
            return room
        if not prompt_length:
            least = self.max_length + MIN_TEXT_TOKENS - room
            raise ValueError(
                f"max_length={self.max_length} leaves {max(room, 0)} tokens for the text beside the special tokens, "
                f"and at least {MIN_TEXT_TOKENS} are needed; set max_length to {least} or more, or "
                "to None."
            )
        raise ValueError(
            f"The labels take {prompt_length} tokens of max_length={self.max_length}, which leaves {max(room, 0)} "
            f"for the text (at least {MIN_TEXT_TOKENS} are needed). Raise max_length, lower max_num_classes "
            "(labels in one prompt), shorten label_names, or use architecture_type='bi-encoder', whose labels "
            "have sequences of their own."
        )

    def sequence(self, text: np.ndarray, prompt: np.ndarray) -> np.ndarray:
        """Join text and prompt to one sequence."""
        text = text[: self.text_room(len(prompt))]
        return self.pieces.frame(prompt, text) if self.prompt_first else self.pieces.frame(text, prompt)

    def prompt_length(self, order) -> int:
        """Return the number of tokens of the labels in the text's sequence."""
        return len(self.prompt(order))

    def sequence_lengths(self, lengths: np.ndarray, order) -> np.ndarray:
        """Return the lengths of the sequences for texts of `lengths` tokens, after truncation."""
        prompt_length = self.prompt_length(order)
        room = self.text_room(prompt_length)
        return np.minimum(lengths, room) + self.max_length - room

    def is_truncated(self, lengths: np.ndarray, order) -> np.ndarray:
        """Return which texts of `lengths` tokens are truncated beside these labels."""
        return lengths > self.text_room(self.prompt_length(order))

    def locate(self, text: str, order) -> tuple[slice, list[tuple[int, int]]]:
        """Return the positions of the text's tokens in its sequence, and the characters (start, end) of each."""
        prompt_length = self.prompt_length(order)
        start = len(self.pieces.prefix) + (prompt_length if self.prompt_first else 0)
        spans = self.pieces.spans(text, at_start=start == len(self.pieces.prefix))[: self.text_room(prompt_length)]
        return slice(start, start + len(spans)), spans

    def batch(self, texts, orders) -> dict[str, np.ndarray]:
        """Build the model's inputs for token ids of texts and the ordered labels of each text."""
        return {**self.text_batch(texts, orders), **self.label_inputs(orders)}

    def text_batch(self, texts, orders) -> dict[str, np.ndarray]:
        """Build the inputs that differ from text to text."""
        prompts = _shared(self.prompt, orders)
        return _named(pad([self.sequence(*pair) for pair in zip(texts, prompts, strict=True)], self.pieces.pad_id))

    def label_inputs(self, orders) -> dict[str, np.ndarray]:
        """Build the inputs of the label encoder; empty without one."""
        return {}


class UniLayout(Layout):
    """Layout of the uni-encoder: text and labels in one sequence."""


class BiLayout(Layout):
    """Layout of the bi-encoder: the text and each label in sequences of their own."""

    shares_labels = True

    @property
    def label_reader(self):
        return self.label_pieces

    def _tokenize_labels(self):
        tokenized = self.label_pieces.tokenize(self.label_texts)
        self.label_sequences = [self.label_pieces.frame(tokenized[i]) for i in range(len(tokenized))]
        longest = max(map(len, self.label_sequences), default=0)
        if longest > self.max_length:
            raise ValueError(
                f"A label takes {longest} tokens and max_length is {self.max_length}; shorten label_names or raise "
                "max_length."
            )
        return tokenized

    def tokenize(self, texts):
        return self.pieces.tokenize(texts)

    def prompt(self, order):
        return np.empty(0, np.int32)

    def label_batch(self, indices) -> dict[str, np.ndarray]:
        """Build the sequences of the labels, each once."""
        return _named(pad([self.label_sequences[i] for i in indices], self.label_pieces.pad_id), "class_")

    def label_inputs(self, orders):
        """Build the sequences of the labels of the batch, each once, and the index of each sample's labels."""
        if _all_same(orders):
            return self.label_batch(orders[0])
        used = np.unique(np.concatenate(orders))
        index = np.full((len(orders), max(map(len, orders))), -1, np.int64)
        for row, order in zip(index, orders, strict=True):
            row[: len(order)] = np.searchsorted(used, order)
        return {**self.label_batch(used), "class_index": index}


class FusedLayout(BiLayout):
    """Layout of the fused bi-encoder: ``<<LABEL>>`` tokens in the text's sequence, filled by the label encoder."""

    shares_labels = False

    def tokenize(self, texts):
        return Layout.tokenize(self, texts)

    def prompt(self, order):
        return np.array([self.pieces.label_id] * len(order) + [self.pieces.sep_id], np.int32)


class EncoderDecoderLayout(Layout):
    """Layout of the encoder-decoder: the text in the encoder, the label prompt in the decoder."""

    def tokenize(self, texts):
        return self.pieces.tokenize(texts)

    def prompt_length(self, order):
        return 0

    def text_batch(self, texts, orders):
        room = self.text_room(0)
        framed = [self.pieces.frame(text[:room]) for text in texts]
        prompts = [self.pieces.frame(prompt) for prompt in _shared(self.prompt, orders)]
        for prompt in prompts:
            if len(prompt) > self.max_length:
                self.text_room(len(prompt))  # raises an error: the prompt does not fit
        return {**_named(pad(framed, self.pieces.pad_id)), **_named(pad(prompts, self.pieces.pad_id), "class_")}


LAYOUTS = {
    "uni-encoder": UniLayout,
    "bi-encoder": BiLayout,
    "bi-encoder-fused": FusedLayout,
    "encoder-decoder": EncoderDecoderLayout,
}


def find_unknown_labels(layout: Layout) -> list[str]:
    """Return the labels that consist of unknown tokens only, which have no meaning to the model.

    Parameters
    ----------
    layout : Layout
        Layout with the labels of a fitted model.
    """
    unread = list(layout.label_reader.unread_ids)
    return [text for i, text in enumerate(layout.label_texts) if np.isin(layout.labels[i], unread).all()]


def _check_distinct(texts: list[str], labels: TokenizedTexts) -> None:
    """Raise if two labels have the same tokens, or a label has none."""
    seen = {}
    for i, text in enumerate(texts):
        ids = labels[i].tobytes()
        if not ids:
            raise ValueError(
                f"The tokenizer finds no token in the label {text!r}, so that the model cannot read it; give it "
                "another text with label_names."
            )
        first = texts[seen.setdefault(ids, i)]
        if seen[ids] != i:
            raise ValueError(
                f"The tokenizer gives the labels {first!r} and {text!r} the same tokens ({_reason(first, text)}), so "
                "that the model cannot distinguish them; give them different texts with label_names."
            )


def _reason(first: str, second: str) -> str:
    """Return why the tokenizer gives two labels the same tokens."""
    if first == second:
        return "they are equal"
    plain, other = (" ".join(_visible(text).split()) for text in (first, second))
    if plain == other:
        return "they differ in white space or invisible characters only"
    if plain.casefold() == other.casefold():
        return "it ignores upper and lower case"
    plain, other = (_visible(unicodedata.normalize("NFKC", text)) for text in (first, second))
    if plain == other:
        return "they differ in their Unicode form only"
    if _without_accents(plain).casefold() == _without_accents(other).casefold():
        return "it ignores accents"
    return "it does not know the characters in which they differ"


def _visible(text: str) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def _all_same(orders) -> bool:
    return all(order is orders[0] for order in orders) or all(np.array_equal(order, orders[0]) for order in orders)


def _shared(function, orders) -> list:
    """Apply `function` to each order; only once if all are the same object, as in prediction."""
    if all(order is orders[0] for order in orders):
        return [function(orders[0])] * len(orders)
    return [function(order) for order in orders]


def _named(padded, start: str = "") -> dict[str, np.ndarray]:
    ids, mask = padded
    return {f"{start}input_ids": ids, f"{start}attention_mask": mask}
