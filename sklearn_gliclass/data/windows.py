"""Windows: a text that is too long for one sequence as several overlapping parts, each read by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .prompt import Layout
from .tokenizer import TokenizedTexts

AUTO, TRUNCATE, MEAN, MAX = "auto", "truncate", "mean", "max"
LONG_TEXTS = (AUTO, TRUNCATE, MEAN, MAX)


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


def read_windows(
    layout: Layout, tokens: TokenizedTexts, long_texts: str, overlap: int, max_labels: int, max_windows=None
) -> Windows | None:
    """Split texts that are too long for a sequence into windows, if `long_texts` says so.

    Parameters
    ----------
    layout : Layout
        Layout of the sequences.
    tokens : TokenizedTexts
        Token ids of the texts.
    long_texts : {"auto", "truncate", "mean", "max"}
        How long texts are read. "auto" truncates them if there are in-context examples, if a window would hold less
        text than labels, and in architectures for texts that grow.
    overlap : int
        Minimum number of tokens that a window shares with the next one.
    max_labels : int
        Number of labels in a prompt; windows have room for the longest prompt.
    max_windows : int, optional
        Maximum number of windows of a text. If None, all.

    Returns
    -------
    Windows or None
        None if no text is split: because all of them fit, or because long ones are truncated.

    Raises
    ------
    ValueError
        If `overlap` leaves no new tokens for a window, or examples share the sequences.
    """
    is_auto = long_texts == AUTO
    if long_texts == TRUNCATE or (is_auto and (layout.grows or layout.instructions.has_examples)):
        return None
    if layout.instructions.has_examples:
        raise ValueError(
            'long_texts="mean" and "max" cannot be combined with examples, which were written for whole texts; leave '
            'long_texts="auto", or examples=None.'
        )
    longest = np.sort(np.argsort(-layout.labels.lengths, kind="stable")[:max_labels])
    room = layout.text_room(layout.prompt_length(longest))
    if is_auto and 2 * room < layout.max_length:
        return None
    if overlap >= room - layout.n_beside:
        raise ValueError(
            f"window_overlap={overlap} must be smaller than a window, which holds {room - layout.n_beside} tokens of "
            "text; lower it, or raise max_length."
        )
    if (tokens.lengths <= room).all():
        return None
    return split_windows(tokens, room, overlap, max_windows, layout.n_before, layout.n_beside - layout.n_before)


def split_windows(
    tokens: TokenizedTexts, room: int, overlap: int, max_windows: int | None = None, n_before: int = 0, n_after: int = 0
) -> Windows:
    """Split texts into windows of equal length, as few as possible, with at least `overlap` common tokens.

    Parameters
    ----------
    tokens : TokenizedTexts
        Token ids of the texts.
    room : int
        Maximum number of tokens of a window.
    overlap : int
        Minimum number of tokens that a window shares with the next one.
    max_windows : int, optional
        Maximum number of windows of a text. Of more, evenly spaced ones are selected. If None, all.
    n_before, n_after : int, default=0
        Number of tokens of a task description before and after each text, which every window has.

    Examples
    --------
    >>> tokens = TokenizedTexts(np.arange(9), np.array([0, 2, 9]))
    >>> windows = split_windows(tokens, room=4, overlap=1)
    >>> [windows.tokens[i].tolist() for i in range(len(windows.tokens))], windows.starts.tolist()
    ([[0, 1], [2, 3, 4, 5], [5, 6, 7, 8]], [0, 1, 3])
    """
    n_beside = n_before + n_after
    lengths, room = tokens.lengths - n_beside, room - n_beside
    counts = np.maximum(1, -(-(lengths - overlap) // (room - overlap)))
    sizes = -(-(lengths + (counts - 1) * overlap) // counts)
    kept = counts if max_windows is None else np.minimum(counts, max_windows)
    starts = np.concatenate([[0], np.cumsum(kept)])
    text = np.repeat(np.arange(len(lengths)), kept)
    # The kept windows are evenly spaced among all windows of a text, and these among its tokens.
    number = (np.arange(starts[-1]) - starts[text]) * (counts - 1)[text] // np.maximum(kept - 1, 1)[text]
    skipped = number * (lengths - sizes)[text] // np.maximum(counts - 1, 1)[text]
    offsets = np.concatenate([[0], np.cumsum(sizes[text] + n_beside)])
    window = np.repeat(np.arange(len(text)), np.diff(offsets))
    place = np.arange(offsets[-1]) - offsets[window]  # in the window
    inside = place - n_before
    size = sizes[text][window]
    place += np.where(inside < 0, 0, skipped[window])  # in the text
    place += np.where(inside < size, 0, (lengths[text] - sizes[text] - skipped)[window])
    return Windows(TokenizedTexts(tokens.ids[tokens.offsets[text][window] + place], offsets), starts)
