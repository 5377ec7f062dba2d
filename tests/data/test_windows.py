"""Windows of texts: their places, and what is joined."""

from itertools import pairwise

import numpy as np
import pytest

from sklearn_gliclass.data.tokenizer import TokenizedTexts
from sklearn_gliclass.data.windows import Windows, split_windows


def tokenized(*lengths):
    return TokenizedTexts(np.arange(sum(lengths)), np.concatenate([[0], np.cumsum(lengths)]))


@pytest.mark.parametrize(("room", "overlap"), [(1, 0), (5, 0), (5, 2), (5, 4), (16, 3), (100, 10)])
def test_windows_cover_each_text_in_order(room, overlap):
    lengths = [0, 1, 4, 5, 6, 16, 17, 31, 99]
    tokens = tokenized(*lengths)
    windows = split_windows(tokens, room, overlap)
    for row, length in enumerate(lengths):
        parts = [windows.tokens[i] for i in range(*windows.starts[row : row + 2])]
        assert len(parts) == max(1, -(-(length - overlap) // (room - overlap)))  # the fewest that are possible
        assert {len(part) for part in parts} == {len(parts[0])}
        assert len(parts[0]) <= room
        assert np.array_equal(np.unique(np.concatenate(parts)), tokens[row])
        for part, following in pairwise(parts):
            assert len(np.intersect1d(part, following)) >= overlap
            assert part[0] < following[0]
    assert windows.starts[-1] == len(windows.tokens)


def test_a_limit_keeps_evenly_spaced_windows_with_the_first_and_the_last():
    windows = split_windows(tokenized(100, 8), room=10, overlap=0, max_windows=4)
    assert [windows.tokens[i].tolist()[0] for i in range(4)] == [0, 30, 60, 90]
    assert windows.tokens[3].tolist() == list(range(90, 100))
    assert windows.starts.tolist() == [0, 4, 5]


def test_join_equals_mean_and_maximum_of_each_text():
    values = np.random.RandomState(0).normal(size=(6, 3)).astype(np.float32)
    windows = Windows(None, np.array([0, 3, 4, 6]))
    groups = [values[:3], values[3:4], values[4:]]
    np.testing.assert_allclose(windows.join(values, "mean"), [group.mean(axis=0) for group in groups], rtol=1e-6)
    assert np.array_equal(windows.join(values, "max"), [group.max(axis=0) for group in groups])


def test_windows_of_texts_follow_the_order_of_the_texts():
    windows = split_windows(tokenized(7, 2, 5), room=3, overlap=0)
    rows, place = windows.of_texts(np.array([2, 0, 1]))
    assert rows.tolist() == [4, 5, 0, 1, 2, 3]
    assert place.tolist() == [0, 0, 1, 1, 1, 2]
