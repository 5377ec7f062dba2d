"""Windows: a text that is too long for one sequence as several overlapping parts, each read by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .examples import NO_INSTRUCTIONS
from .prompt import Layout
from .tokenizer import TokenizedTexts

TRUNCATE, MEAN, MAX = "truncate", "mean", "max"
LONG_TEXTS = (TRUNCATE, MEAN, MAX)


@dataclass(frozen=True)
class Windows:
    """Windows of texts: text i has the windows ``starts[i]:starts[i + 1]``.

    Attributes
    ----------
    tokens : TokenizedTexts
        Token ids of all windows.
    starts : ndarray of int of shape (n_texts + 1,)
        First window of each text, and the number of windows.
    """

    tokens: TokenizedTexts
    starts: np.ndarray

    def of_texts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of some texts, and the place of each window's text in `rows`.

        Examples
        --------
        >>> windows = Windows(tokens=None, starts=np.array([0, 2, 3]))
        >>> windows.of_texts(np.array([1, 0]))
        (array([2, 0, 1]), array([0, 1, 1]))
        """
        counts = np.diff(self.starts)[rows]
        before = np.cumsum(counts) - counts  # windows of the texts before
        place = np.repeat(np.arange(len(rows)), counts)
        return np.arange(counts.sum()) + (self.starts[rows] - before)[place], place

    @property
    def text_lengths(self) -> np.ndarray:
        """Number of tokens of each text's windows."""
        return np.add.reduceat(self.tokens.lengths, self.starts[:-1])

    def join(self, values: np.ndarray, how: str) -> np.ndarray:
        """Return the mean or the maximum (n_texts, columns) of the values (n_windows, columns) of each text."""
        if how == MAX:
            return np.maximum.reduceat(values, self.starts[:-1])
        counts = np.diff(self.starts).astype(values.dtype)
        return np.add.reduceat(values, self.starts[:-1]) / counts[:, None]


def window_room(layout: Layout, max_labels: int, overlap: int) -> int:
    """Return the number of text tokens in a window: what fits beside the longest prompt of `max_labels` labels.

    Raises
    ------
    ValueError
        If `overlap` leaves no new tokens for a window, or a task description or examples share the sequences.
    """
    if layout.instructions != NO_INSTRUCTIONS:
        raise ValueError(
            'long_texts="mean" and "max" cannot be combined with prompt and examples, which were written for whole '
            'texts; set long_texts="truncate", or leave prompt=None and examples=None.'
        )
    longest = np.sort(np.argsort(-layout.labels.lengths, kind="stable")[:max_labels])
    room = layout.text_room(layout.prompt_length(longest))
    if overlap >= room:
        raise ValueError(
            f"window_overlap={overlap} must be smaller than a window, which holds {room} tokens of text; lower it, or "
            "raise max_length."
        )
    return room


def split_windows(tokens: TokenizedTexts, room: int, overlap: int, max_windows: int | None = None) -> Windows:
    """Split texts into windows of equal length, as few as possible, with at least `overlap` common tokens.

    Parameters
    ----------
    tokens : TokenizedTexts
        Token ids of the texts.
    room : int
        Maximum number of tokens of a window.
    overlap : int
        Minimum number of tokens that a window shares with the next one, below `room`.
    max_windows : int, optional
        Maximum number of windows of a text. Of more, evenly spaced ones are selected. If None, all.

    Examples
    --------
    >>> tokens = TokenizedTexts(np.arange(9), np.array([0, 2, 9]))
    >>> windows = split_windows(tokens, room=4, overlap=1)
    >>> [windows.tokens[i].tolist() for i in range(len(windows.tokens))], windows.starts.tolist()
    ([[0, 1], [2, 3, 4, 5], [5, 6, 7, 8]], [0, 1, 3])
    """
    lengths = tokens.lengths
    counts = np.maximum(1, -(-(lengths - overlap) // (room - overlap)))
    sizes = -(-(lengths + (counts - 1) * overlap) // counts)
    kept = counts if max_windows is None else np.minimum(counts, max_windows)
    starts = np.concatenate([[0], np.cumsum(kept)])
    text = np.repeat(np.arange(len(lengths)), kept)
    # The kept windows are evenly spaced among all windows of a text, and these among its tokens.
    number = (np.arange(starts[-1]) - starts[text]) * (counts - 1)[text] // np.maximum(kept - 1, 1)[text]
    first = tokens.offsets[text] + number * (lengths - sizes)[text] // np.maximum(counts - 1, 1)[text]
    offsets = np.concatenate([[0], np.cumsum(sizes[text])])
    places = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], sizes[text])
    return Windows(TokenizedTexts(tokens.ids[places], offsets), starts)
