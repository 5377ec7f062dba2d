import numpy as np
import pytest
import torch

from sklearn_gliclass.data.batching import (
    Batch,
    bucketed_batches,
    choose_labels,
    pad,
    to_device,
    token_budget_batches,
)


def random_lengths(seed, n=300):
    return np.random.RandomState(seed).randint(0, 60, n)


def test_pad_fills_to_the_longest():
    ids, mask = pad([np.array([5, 6, 7]), np.array([0]), np.array([], int)], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [0, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("budget", [1, 59, 60, 500, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_token_budget_is_kept_and_every_row_comes_once(seed, budget):
    lengths = np.sort(random_lengths(seed))
    batches = list(token_budget_batches(lengths, budget))
    assert np.concatenate([np.arange(len(lengths))[batch] for batch in batches]).tolist() == list(range(len(lengths)))
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        size = batch.stop - batch.start
        assert size * lengths[batch].max() <= budget or size == 1
        # As large as the budget allows: the next text would not have fitted.
        assert following is None or (size + 1) * lengths[following.start] > budget


def test_no_texts_make_no_batches():
    assert list(token_budget_batches(np.array([], int), 100)) == []
    assert bucketed_batches(np.array([], int), 8, None) == []
    assert bucketed_batches(np.array([], int), 8, np.random.RandomState(0)) == []


@pytest.mark.parametrize("rng", [None, 0], ids=["in order", "random"])
@pytest.mark.parametrize(("n", "batch_size"), [(300, 7), (300, 300), (300, 1000), (1, 4), (3000, 2)])
def test_buckets_hold_every_row_once(n, batch_size, rng):
    rng = rng if rng is None else np.random.RandomState(rng)
    batches = bucketed_batches(random_lengths(0, n), batch_size, rng)
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert len(batches) == -(-n // batch_size)
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def padded_tokens(lengths, batches):
    return sum(len(batch) * lengths[batch].max() for batch in batches)


def test_buckets_hold_like_lengths():
    lengths = random_lengths(0, 2000)
    batches = bucketed_batches(lengths, 16, np.random.RandomState(0))
    assert padded_tokens(lengths, batches) < 1.1 * lengths.sum()
    unsorted = [np.arange(start, start + 16) for start in range(0, 2000, 16)]
    assert padded_tokens(lengths, unsorted) > 1.5 * lengths.sum()


@pytest.mark.parametrize("n", [48, 100, 600])
def test_small_data_sets_have_varied_batches(n):
    """With windows as large as the data, each epoch would have the batches of the previous one."""
    lengths, rng = random_lengths(0, n), np.random.RandomState(0)
    partners = [set() for _ in range(n)]
    for _ in range(12):
        for batch in bucketed_batches(lengths, 16, rng):
            for row in batch:
                partners[row].update(batch)
    by_chance = (1 - (1 - 15 / (n - 1)) ** 12) * (n - 1)  # expected number of other texts in 12 random batches
    assert np.mean([len(others) - 1 for others in partners]) > 0.7 * by_chance


def test_order_of_batches_is_random_and_the_seed_s():
    lengths = random_lengths(0)
    first, again, other = (bucketed_batches(lengths, 16, np.random.RandomState(seed)) for seed in (1, 1, 2))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in other]
    longest = [lengths[batch].max() for batch in first]
    assert longest != sorted(longest)


@pytest.mark.parametrize("rng", [None, 0], ids=["in order", "random"])
def test_groups_come_together_in_batches(rng):
    """Groups of 16 fill batches of 32 two by two; others are split at the ends of batches and windows only."""
    rng = rng if rng is None else np.random.RandomState(rng)
    groups = np.repeat(np.arange(60), 16)
    shuffled = np.random.RandomState(1).permutation(len(groups))
    groups = groups[shuffled]
    batches = bucketed_batches(random_lengths(0, len(groups)), 32, rng, groups)
    assert sorted(np.concatenate(batches)) == list(range(len(groups)))
    assert [len(set(groups[batch])) for batch in batches] == [2] * 30
    uneven = np.random.RandomState(2).randint(0, 40, 1000)
    counts = [len(set(uneven[batch])) for batch in bucketed_batches(random_lengths(0, 1000), 25, rng, uneven)]
    assert max(counts) <= 4
    alone = bucketed_batches(random_lengths(0, 2000), 16, rng, np.arange(2000))
    assert padded_tokens(random_lengths(0, 2000), alone) < 1.1 * random_lengths(0, 2000).sum()


# -- the labels of a sample in training ------------------------------------------------------------------------


@pytest.mark.parametrize("n_own", [0, 1, 3, 8])
@pytest.mark.parametrize("max_labels", [1, 5, 20])
def test_own_labels_and_random_others(n_own, max_labels):
    rng = np.random.RandomState(0)
    for _ in range(20):
        own = rng.permutation(20)[:n_own]
        chosen = choose_labels(own, 20, max_labels, rng)
        assert len(chosen) == len(set(chosen)) == max_labels
        assert set(chosen) <= set(range(20))
        assert set(own) <= set(chosen) if n_own <= max_labels else set(chosen) <= set(own)


def test_labels_and_positions_are_sampled_uniformly():
    rng = np.random.RandomState(0)
    samples = np.array([choose_labels(np.array([3]), 10, 4, rng) for _ in range(4000)])
    counts = np.bincount(samples.ravel(), minlength=10)
    assert counts[3] == 4000
    np.testing.assert_allclose(np.delete(counts, 3), 4000 * 3 / 9, rtol=0.1)
    np.testing.assert_allclose(np.bincount(np.nonzero(samples == 3)[1]), 1000, rtol=0.15)


def test_choose_labels_does_not_change_its_input():
    own = np.array([4, 2, 7])
    choose_labels(own, 10, 2, np.random.RandomState(0))
    choose_labels(own, 10, 8, np.random.RandomState(0))
    assert own.tolist() == [4, 2, 7]


# -- what skorch carries ---------------------------------------------------------------------------------------


def test_batch_goes_to_device_and_type():
    batch = Batch({"input_ids": np.zeros((3, 2), np.int64), "labels": np.zeros(3, np.float32)}, np.array([4, 5, 6]))
    assert len(batch) == 3
    assert (batch.share, batch.last_of_step) == (1.0, True)
    moved = to_device(batch.inputs, "cpu", torch.float64)
    assert {name: tensor.dtype for name, tensor in moved.items()} == {
        "input_ids": torch.int64,
        "labels": torch.float64,
    }
