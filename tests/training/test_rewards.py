"""Rewards against scikit-learn's metrics, row by row, and errors for invalid ones."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn import metrics

from sklearn_gliclass.training.rewards import (
    MetricReward,
    compute_rewards,
    exact_match,
    f1,
    precision,
    read_components,
    recall,
)

RNG = np.random.RandomState(0)
ACTIONS, TARGETS = RNG.randint(2, size=(2, 60, 4)).astype(np.float32)
ACTIONS[:5] = 0
TARGETS[3:8] = 0
TENSORS = [torch.from_numpy(array) for array in (RNG.uniform(size=(60, 4)), ACTIONS, TARGETS)]
ALL = torch.ones(60, 4, dtype=torch.bool)
EMPTY = (ACTIONS.sum(1) + TARGETS.sum(1)) == 0


def per_row(metric, **kwargs):
    return np.array([metric(true, given, **kwargs) for true, given in zip(TARGETS, ACTIONS, strict=True)])


@pytest.mark.parametrize(
    ("reward", "metric"),
    [(f1, metrics.f1_score), (precision, metrics.precision_score), (recall, metrics.recall_score)],
)
def test_rewards_agree_with_scikit_learn(reward, metric):
    assert EMPTY.any()
    expected = np.where(EMPTY, 1.0, per_row(metric, zero_division=0))
    found = reward(*TENSORS, ALL)
    assert found.shape == (60, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_exact_match_equals_accuracy_by_row():
    np.testing.assert_array_equal(exact_match(*TENSORS, ALL)[:, 0], per_row(metrics.accuracy_score) == 1)


def test_f1_of_one_action_is_the_probability_of_its_label():
    targets = torch.tensor([[0.2, 0.5, 0.3]])
    for label in range(3):
        actions = torch.eye(3)[[label]]
        for reward in (f1, precision, recall):
            assert reward(None, actions, targets, None).item() == pytest.approx(targets[0, label].item())


@pytest.mark.parametrize("metric", [metrics.hamming_loss, metrics.zero_one_loss, metrics.accuracy_score])
def test_metric_reward_agrees_with_scikit_learn(metric):
    found = MetricReward(metric)(*TENSORS, ALL)
    np.testing.assert_allclose(found[:, 0], per_row(metric), rtol=1e-6, atol=1e-7)


def test_metric_sees_known_labels_and_probabilities_where_asked():
    valid = ALL.clone()
    valid[:, 0] = False
    found = MetricReward(metrics.brier_score_loss, probabilities=True, pos_label=1)(*TENSORS, valid)
    np.testing.assert_allclose(found[:, 0], np.square(TENSORS[0].numpy() - TARGETS)[:, 1:].mean(1), rtol=1e-6)


def test_metric_rewards_pickle_and_copy():
    reward = MetricReward(metrics.jaccard_score, zero_division=1)
    for other in (pickle.loads(pickle.dumps(reward)), copy.deepcopy(reward)):
        assert torch.equal(other(*TENSORS, ALL), reward(*TENSORS, ALL))


def test_components_are_read_from_all_forms():
    assert read_components(None) == {"f1": f1}
    assert read_components([("a", f1), ("b", recall)]) == read_components({"a": f1, "b": recall})
    found = compute_rewards({"a": f1, "b": recall}, *TENSORS, ALL)
    assert torch.equal(found["a"], f1(*TENSORS, ALL).double())


@pytest.mark.parametrize("components", [[f1], [("f1", "f1")], [(1, f1)], {"f1": None}])
def test_invalid_components_raise(components):
    with pytest.raises(TypeError, match=r"list of \(name, function\) pairs, got"):
        read_components(components)


@pytest.mark.parametrize("components", [[], {}, [("a", f1), ("a", recall)]])
def test_components_without_distinct_names_raise(components):
    with pytest.raises(ValueError, match="distinct names"):
        read_components(components)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda p, a, t, v: torch.full((60, 1), torch.nan), ValueError, "'mine' returned nan for 60 of 60 texts"),
        (lambda p, a, t, v: torch.ones(60), ValueError, r"'mine' returned the shape \(60,\) .* of shape \(60, 1\)"),
        (lambda p, a, t, v: a, ValueError, r"'mine' returned the shape \(60, 4\)"),
        (lambda p, a, t, v: 1.0, TypeError, "'mine' returned a float"),
        (lambda p, a, t, v: None, TypeError, "'mine' returned a NoneType"),
    ],
)
def test_wrong_reward_is_named(function, error, message):
    with pytest.raises(error, match=message):
        compute_rewards({"f1": f1, "mine": function}, *TENSORS, ALL)


def test_rewards_may_be_arrays():
    assert compute_rewards({"a": lambda p, a, t, v: a.numpy().sum(1, keepdims=True)}, *TENSORS, ALL)["a"].shape == (
        60,
        1,
    )
