"""Task description and in-context examples: their token ids, and how examples are shortened to fit beside a text."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .tokenizer import PieceTokenizer, TokenizedTexts

MIN_EXAMPLE_TOKENS = 8  # tokens of its text that a shortened example keeps
_BEFORE_LABELS = " \nLabels:\n "  # between the text of an example and its labels, as in gliclass
_END_OF_TEXT = -1  # marks the end of an example's text in stored ids


@dataclass(frozen=True)
class Example:
    """Text with the label texts that hold for it."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Instructions:
    """Task description and in-context examples of the prompts.

    Attributes
    ----------
    prompt : str or None
        Task description; empty for none. If None, that of the text encoder's own, if it has one.
    examples : tuple of Example, or callable
        Examples of all texts, or a function of a list of texts that returns a sequence of examples for each.
    """

    prompt: str | None = None
    examples: tuple[Example, ...] | Callable[[list[str]], Sequence[Sequence[Example]]] = ()

    @property
    def has_examples(self) -> bool:
        """Whether there are examples."""
        return callable(self.examples) or len(self.examples) > 0

    def select(self, texts: list[str]) -> Sequence[Sequence[Example]]:
        """Return the examples of each text."""
        return self.examples(texts) if callable(self.examples) else [self.examples] * len(texts)


NO_INSTRUCTIONS = Instructions()


class TextsWithExamples(TokenizedTexts):
    """Token ids of texts, each followed by those of its examples.

    The ids of an example are ``<<EXAMPLE>>``, its text, a marker, and its labels.

    Attributes
    ----------
    lengths : ndarray of shape (n,)
        Number of tokens of each text and its examples in a sequence that shortens neither.
    text_lengths : ndarray of shape (n,)
        Number of tokens of each text without its examples.
    reserved : ndarray of shape (n,)
        Number of tokens of the examples after they are shortened as far as possible.
    """

    def __init__(self, ids, offsets, lengths, text_lengths, reserved):
        super().__init__(ids, offsets)
        self._lengths, self._text_lengths, self._reserved = lengths, text_lengths, reserved

    @property
    def lengths(self):
        return self._lengths

    @property
    def text_lengths(self):
        return self._text_lengths

    @property
    def reserved(self):
        return self._reserved


class ExampleTokenizer:
    r"""Tokenizer of in-context examples, ``<<EXAMPLE>>text \nLabels:\n label, label`` for each and one ``<<SEP>>``.

    Parameters
    ----------
    pieces : PieceTokenizer
        Tokenizer of the texts.

    Raises
    ------
    ValueError
        If the tokenizer has no token ``<<EXAMPLE>>``.
    """

    def __init__(self, pieces: PieceTokenizer):
        if pieces.example_id is None:
            raise ValueError(
                "examples need the token <<EXAMPLE>>, which the tokenizer of this model does not have: it was trained "
                "without examples. Leave examples=None, use a checkpoint that was trained with examples, or fit a new "
                "model with examples from an encoder."
            )
        self.pieces = pieces
        self._example_id = pieces.example_id
        self._known: dict[Example, np.ndarray] = {}

    def append(self, tokens: TokenizedTexts, examples: Sequence[Sequence[Example]]) -> TextsWithExamples:
        """Append the ids of each text's examples."""
        self._tokenize({example for row in examples for example in row})
        rows = [[tokens[i], *(self._known[example] for example in row)] for i, row in enumerate(examples)]
        ids = [np.concatenate(row) for row in rows]
        parts = [self._parts(row[1:]) for row in rows]
        full = [len(row[0]) + _count(texts, labels) for row, (texts, labels) in zip(rows, parts, strict=True)]
        least = [_count(np.minimum(texts, MIN_EXAMPLE_TOKENS), labels) for texts, labels in parts]
        return TextsWithExamples(
            np.concatenate(ids) if ids else tokens.ids,
            np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)]),
            np.array(full, np.int64), tokens.lengths, np.array(least, np.int64),
        )  # fmt: skip

    def _tokenize(self, examples: set[Example]) -> None:
        for example in examples.difference(self._known):
            whole = f"{example.text}{_BEFORE_LABELS}{', '.join(example.labels)}"
            starts = np.array([start for start, _ in self.pieces.spans(whole, at_start=False)])
            ids = self.pieces.tokenize([whole], at_start=False)[0]
            end = int(np.searchsorted(starts, len(example.text)))
            self._known[example] = np.concatenate([[self._example_id], ids[:end], [_END_OF_TEXT], ids[end:]])

    @staticmethod
    def _parts(examples) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of tokens of the texts and of the labels of stored examples."""
        ends = np.array([int(np.flatnonzero(ids == _END_OF_TEXT)[0]) for ids in examples], np.int64)
        lengths = np.array([len(ids) for ids in examples], np.int64)
        return ends - 1, lengths - ends - 1

    def split(self, ids: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Split the ids of :meth:`append` into those of the text and of each stored example."""
        starts = np.flatnonzero(ids == self._example_id)
        text, *examples = np.split(ids, starts)
        return text, examples

    def least_length(self, examples: Sequence[np.ndarray]) -> int:
        """Return the number of tokens of stored examples after they are shortened as far as possible."""
        texts, labels = self._parts(examples)
        return _count(np.minimum(texts, MIN_EXAMPLE_TOKENS), labels)

    def join(self, examples: Sequence[np.ndarray], room: int) -> np.ndarray:
        """Join stored examples to a piece of at most `room` tokens; the longest texts are shortened, labels never."""
        if not len(examples):
            return np.empty(0, np.int32)
        texts, labels = self._parts(examples)
        kept = shorten(texts, room - _count(np.zeros_like(texts), labels))
        parts = [
            part
            for ids, length, n in zip(examples, texts, kept, strict=True)
            for part in (ids[: 1 + n], ids[2 + length :])
        ]
        return np.concatenate([*parts, [self.pieces.sep_id]])


def _count(texts: np.ndarray, labels: np.ndarray) -> int:
    """Return the number of tokens of examples, with their control tokens; without examples 0."""
    return int(texts.sum() + labels.sum()) + len(texts) + (len(texts) > 0)


def shorten(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Return the numbers of tokens that are kept of texts, `budget` in all; the longest texts are shortened first.

    Examples
    --------
    >>> shorten(np.array([9, 2, 7]), 12).tolist()
    [5, 2, 5]
    >>> shorten(np.array([9, 2, 7]), 13).tolist()
    [6, 2, 5]
    """
    if lengths.sum() <= budget:
        return lengths
    caps = range(int(lengths.max()) + 1)
    cap = bisect.bisect_right(caps, budget, key=lambda cap: np.minimum(lengths, cap).sum()) - 1
    kept = np.minimum(lengths, cap)
    kept[np.flatnonzero(lengths > cap)[: budget - kept.sum()]] += 1
    return kept
