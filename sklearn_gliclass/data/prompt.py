"""Prompt layouts: how text, labels and separator form the sequences of each architecture.

A layout builds the sequences of a batch from the token ids of texts and labels. Texts that are too long are truncated;
labels never are.
"""

import unicodedata

import numpy as np

from .batching import pad
from .examples import NO_INSTRUCTIONS, ExampleTokenizer, Instructions
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
    instructions : Instructions, optional
        Task description and in-context examples.
    """

    shares_labels = False  # whether all samples of a batch have the same labels
    takes_examples = True
    label_sequences: list[np.ndarray]  # of the bi-encoders
    grows = False  # whether texts may be read as they grow
    label_prefix = ""
    # Task description where no control token separates it from the text: both are tokenised as one string.
    before_text = after_text = ""

    def __init__(self, config, pieces: PieceTokenizer, label_texts, max_length, label_pieces=None,
                 instructions: Instructions = NO_INSTRUCTIONS):  # fmt: skip
        self.prompt_first = config.prompt_first
        self.pieces = pieces
        self.label_pieces = label_pieces or pieces
        self.prefix, self.suffix = self._frame()
        self.max_length = max_length
        self.label_texts = list(label_texts)
        self.labels = self._tokenize_labels()
        _check_distinct(self.label_texts, self.labels)
        self.instructions = instructions
        self.examples = self._example_tokenizer()
        self.description = np.empty(0, np.int32)  # ids of a task description beside the labels
        if instructions.prompt is not None:
            self._place_description(instructions.prompt)
        self.ids_after_text = self._tokenize_inner(self.after_text)
        # Tokens of a task description in the piece of the text: before it, and in all. The first token of a text takes
        # the space before it.
        self.n_before = len(self._tokenize_inner(self.before_text.rstrip()))
        self.n_beside = self.n_before + len(self.ids_after_text)

    def _example_tokenizer(self) -> ExampleTokenizer | None:
        if not self.instructions.has_examples:
            return None
        if not self.takes_examples:
            raise ValueError(
                "examples have no place in architecture_type='bi-encoder', which reads texts and labels in separate "
                "sequences; leave examples=None, or choose an architecture_type in which they share one."
            )
        return ExampleTokenizer(self.pieces)

    def _place_description(self, description: str) -> None:
        """Set where the task description stands: after the labels."""
        self.description = self._tokenize_inner(description)

    def _tokenize_inner(self, text: str) -> np.ndarray:
        return self.pieces.tokenize([text] if text else [], at_start=False).ids

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids before and after the pieces of a sequence."""
        return self.pieces.prefix, self.pieces.suffix

    def _tokenize_labels(self) -> TokenizedTexts:
        return self.pieces.tokenize(self.label_texts, at_start=False)

    @property
    def label_reader(self) -> PieceTokenizer:
        """Tokenizer of the labels."""
        return self.pieces

    @property
    def _text_is_first(self) -> bool:
        return not self.prompt_first

    def tokenize(self, texts) -> TokenizedTexts:
        """Tokenise texts in one call of the tokenizer, each with its in-context examples if there are any."""
        whole = texts
        if self.before_text or self.after_text:
            whole = [f"{self.before_text}{text}{self.after_text}" for text in texts]
        tokens = self.pieces.tokenize(whole, at_start=self._text_is_first)
        return tokens if self.examples is None else self.examples.append(tokens, self.instructions.select(texts))

    def prompt(self, order) -> np.ndarray:
        """Build the prompt ``<<LABEL>>l1<<LABEL>>l2...<<SEP>>`` of the labels in `order`, and the task description."""
        label = np.array([self.pieces.label_id], np.int32)
        parts = [part for index in order for part in (label, self.labels[index])]
        return np.concatenate([*parts, np.array([self.pieces.sep_id], np.int32), self.description])

    def text_room(self, prompt_length: int, reserved: int = 0) -> int:
        """Return the number of text tokens that fit beside the prompt and `reserved` tokens of examples."""
        room = self.max_length - len(self.prefix) - len(self.suffix) - prompt_length - reserved
        least = MIN_TEXT_TOKENS + self.n_beside
        if room >= least:
            return room
        needed = self.max_length + least - room
        if reserved:
            raise ValueError(
                f"The examples take at least {reserved} tokens and the labels {prompt_length} of max_length="
                f"{self.max_length}, which leaves {max(room, 0)} for the text (at least {least} are needed). Give "
                f"fewer examples or examples with fewer labels, or set max_length to {needed} or more."
            )
        if not prompt_length:
            raise ValueError(
                f"max_length={self.max_length} leaves {max(room, 0)} tokens for the text beside the special tokens, "
                f"and at least {least} are needed{self._because_of_description()}; set max_length to {needed} or "
                "more, or to None."
            )
        raise ValueError(
            f"The labels take {prompt_length} tokens of max_length={self.max_length}, which leaves {max(room, 0)} "
            f"for the text (at least {least} are needed{self._because_of_description()}). Raise max_length, lower "
            "max_num_classes (labels in one prompt), shorten label_names, or use architecture_type='bi-encoder', "
            "whose labels have sequences of their own."
        )

    def _because_of_description(self) -> str:
        n_tokens = self.n_beside + len(self.description)
        return f", where prompt takes {n_tokens}" if n_tokens else ""

    def pieces_of(self, ids: np.ndarray, prompt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of text and examples in a sequence, after both are shortened to fit.

        Parameters
        ----------
        ids : ndarray of int
            Element of the result of :meth:`tokenize`.
        prompt_length : int
            Result of :meth:`prompt_length`.
        """
        if self.examples is None:
            return self._truncate(ids, self.text_room(prompt_length)), ids[:0]
        text, examples = self.examples.split(ids)
        reserved = self.examples.least_length(examples)
        room = self.text_room(prompt_length, reserved)
        text = self._truncate(text, room)
        return text, self.examples.join(examples, room + reserved - len(text))

    def _truncate(self, text: np.ndarray, room: int) -> np.ndarray:
        if len(text) <= room or not len(self.ids_after_text):
            return text[:room]
        return np.concatenate([text[: room - len(self.ids_after_text)], self.ids_after_text])

    def sequence(self, text: np.ndarray, prompt: np.ndarray) -> np.ndarray:
        """Join text, examples and prompt to one sequence."""
        text, examples = self.pieces_of(text, len(prompt))
        return self.pieces.frame(*((prompt, text) if self.prompt_first else (text, prompt)), examples)

    def prompt_length(self, order) -> int:
        """Return the number of tokens of the labels and the task description in the text's sequence."""
        return len(self.prompt(order))

    def sequence_lengths(self, tokens: TokenizedTexts, order) -> np.ndarray:
        """Return the lengths of the sequences of texts, after truncation."""
        room = self.text_room(self.prompt_length(order))
        return np.minimum(tokens.lengths, room) + self.max_length - room

    def is_truncated(self, tokens: TokenizedTexts, order) -> np.ndarray:
        """Return which texts are truncated beside these labels."""
        prompt_length = self.prompt_length(order)
        self.text_room(prompt_length, int(tokens.reserved.max(initial=0)))  # raises if examples leave no room
        return tokens.text_lengths > self.text_room(prompt_length) - tokens.reserved

    def locate(self, text: str, order) -> tuple[slice, list[tuple[int, int]]]:
        """Return the positions of the text's tokens in its sequence, and the characters (start, end) of each."""
        prompt_length = self.prompt_length(order)
        start = len(self.prefix) + (prompt_length if self.prompt_first else 0)
        spans = self.pieces.spans(f"{self.before_text}{text}{self.after_text}", at_start=self._text_is_first)
        n_tokens = len(self.pieces_of(self.tokenize([text])[0], prompt_length)[0]) - len(self.ids_after_text)
        skipped = sum(end <= len(self.before_text) for _, end in spans) if self.before_text else 0
        shifted = [(first - len(self.before_text), last - len(self.before_text)) for first, last in spans]
        # A token may span the border of text and description.
        spans = [
            (max(0, first), min(last, len(text))) for first, last in shifted[skipped:n_tokens] if first < len(text)
        ]
        return slice(start + skipped, start + skipped + len(spans)), spans

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

    def _place_description(self, description):
        if self.prompt_first:
            self.before_text = description
        else:
            super()._place_description(description)


class BiLayout(Layout):
    """Layout of the bi-encoder: the text and each label in sequences of their own."""

    shares_labels = True
    takes_examples = False

    def __init__(self, config, *args, **kwargs):
        if self.shares_labels:  # not in the fused architecture, whose sequences are no plain texts
            self.before_text = getattr(config, "text_prefix", "")
            self.label_prefix = getattr(config, "label_prefix", "")
        super().__init__(config, *args, **kwargs)

    @property
    def label_reader(self):
        return self.label_pieces

    @property
    def _text_is_first(self):
        return True

    def _place_description(self, description):
        self.before_text = f"{description} " if description else ""

    def _tokenize_labels(self):
        tokenized = whole = self.label_pieces.tokenize(self.label_texts)
        if self.label_prefix:
            whole = self.label_pieces.tokenize([f"{self.label_prefix}{text}" for text in self.label_texts])
        self.label_sequences = [self.label_pieces.frame(whole[i]) for i in range(len(whole))]
        longest = max(map(len, self.label_sequences), default=0)
        if longest > self.max_length:
            raise ValueError(
                f"A label takes {longest} tokens and max_length is {self.max_length}; shorten label_names or raise "
                "max_length."
            )
        return tokenized

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
    takes_examples = True

    @property
    def _text_is_first(self):
        return not self.prompt_first

    def _place_description(self, description):
        if self.prompt_first:
            self.description = self.pieces.tokenize([f"{description} "] if description else []).ids
        else:
            self.after_text = f"{description} " if description else ""

    def prompt(self, order):
        labels = np.array([self.pieces.label_id] * len(order) + [self.pieces.sep_id], np.int32)
        return np.concatenate([self.description, labels])


class EncoderDecoderLayout(Layout):
    """Layout of the encoder-decoder: the text in the encoder, the label prompt in the decoder."""

    @property
    def _text_is_first(self):
        return True

    def prompt_length(self, order):
        return 0

    def text_batch(self, texts, orders):
        return {**self._texts_alone(texts), **self._prompt_batch(orders)}

    def _texts_alone(self, texts):
        return _named(pad([self.pieces.frame(*self.pieces_of(text, 0)) for text in texts], self.pieces.pad_id))

    def _prompt_batch(self, orders):
        prompts = [self.pieces.frame(prompt) for prompt in _shared(self.prompt, orders)]
        for prompt in prompts:
            if len(prompt) > self.max_length:
                self.text_room(len(prompt))  # raises an error: the prompt does not fit
        return _named(pad(prompts, self.pieces.pad_id), "class_")


class EncoderDecoderClsLayout(EncoderDecoderLayout):
    """Layout of the encoder-decoder-cls: the label prompt in the encoder, the text in the decoder."""

    def text_batch(self, texts, orders):
        return self._texts_alone(texts)

    def label_inputs(self, orders):
        """Build the prompts, (1, length) if all texts of the batch share theirs."""
        return self._prompt_batch(orders[:1] if _all_same(orders) else orders)


class DecoderLayout(Layout):
    """Layout of the decoder-kv: ``text<<SEP>>l1<<LABEL>>l2<<LABEL>>...<<SEP>>``, without the tokenizer's own frame.

    A task description and examples come before the text.
    """

    grows = True

    @property
    def _text_is_first(self):
        return self.examples is None

    def _place_description(self, description):
        if self.examples is None:
            self.before_text = description
        else:
            self.description = self.pieces.tokenize([description])[0]

    def _frame(self):
        return _EMPTY, _EMPTY

    def prompt(self, order):
        label, sep = (np.array([token], np.int32) for token in (self.pieces.label_id, self.pieces.sep_id))
        parts = [part for index in order for part in (self.labels[index], label)]
        return np.concatenate([sep, *parts, sep])

    def prompt_length(self, order):
        return len(self.description) + len(self.prompt(order))

    def context(self, text: np.ndarray, prompt_length: int) -> np.ndarray:
        """Return what precedes the labels: task description, examples and text, shortened to fit."""
        text, examples = self.pieces_of(text, prompt_length)
        return np.concatenate([self.description, examples, text])

    def sequence(self, text, prompt):
        return np.concatenate([self.context(text, len(self.description) + len(prompt)), prompt])

    def locate(self, text, order):
        where, spans = super().locate(text, order)
        _, examples = self.pieces_of(self.tokenize([text])[0], self.prompt_length(order))
        shift = len(self.description) + len(examples)
        return slice(where.start + shift, where.stop + shift), spans


_EMPTY = np.empty(0, np.int32)

LAYOUTS = {
    "uni-encoder": UniLayout,
    "bi-encoder": BiLayout,
    "bi-encoder-fused": FusedLayout,
    "encoder-decoder": EncoderDecoderLayout,
    "encoder-decoder-cls": EncoderDecoderClsLayout,
    "decoder-kv": DecoderLayout,
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
