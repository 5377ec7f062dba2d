"""The formulas of proximal policy optimisation against a plain one in NumPy, entry by entry."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_gliclass import RLTrainer, RLTrainerConfig
from sklearn_gliclass.data.batching import Batch
from sklearn_gliclass.training.ppo import POLICIES, ChoicePolicy, YesNoPolicy, clipped_loss, focal_weights
from sklearn_gliclass.training.rl import read_targets

N, T = 5, 4
SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(row, valid):
    exponents = [math.exp(x) if known else 0.0 for x, known in zip(row, valid, strict=True)]
    return [e / sum(exponents) for e in exponents]


def numpy_probs(problem, logits, valid):
    if problem == SINGLE:
        return np.array([softmax(row, known) for row, known in zip(logits, valid, strict=True)])
    return np.array([[sigmoid(x) for x in row] for row in logits]) * valid


def numpy_decisions(problem, probs, actions, valid, args, targets):
    """For each row a list of decisions: log-probability, focal weight."""
    rows = []
    for i in range(N):
        smoothing = max(args.labels_smoothing, 0)
        known = [t for t in range(T) if valid[i, t]]
        focal = {}
        for t in known:
            p_t = probs[i, t] if targets[i, t] else 1 - probs[i, t]
            focal[t] = 1.0
            if args.gamma != -1:
                focal[t] *= (1 - p_t) ** args.gamma
            if args.alpha != -1:
                focal[t] *= args.alpha if targets[i, t] else 1 - args.alpha
        if problem == MULTI:
            row = []
            for t in known:
                yes = actions[i, t] * (1 - smoothing) + smoothing / 2
                row.append((yes * math.log(probs[i, t]) + (1 - yes) * math.log(1 - probs[i, t]), focal[t]))
        else:
            chosen = int(np.argmax(actions[i]))
            share = {t: (1 - smoothing) * (t == chosen) + smoothing / len(known) for t in known}
            row = [(sum(share[t] * math.log(probs[i, t]) for t in known), focal[chosen])]
        rows.append(row)
    return rows


def numpy_loss(problem, args, old_logits, logits, actions, targets, valid, weight, reward, value, new_value, reference):
    """The loss of an update, and what it is made of."""
    old, new = (numpy_probs(problem, x, valid) for x in (old_logits, logits))
    before = numpy_decisions(problem, old, actions, valid, args, targets)
    after = numpy_decisions(problem, new, actions, valid, args, targets)
    total = sum(weight)
    baseline = [sum(weight * reward) / total] * N if value is None else value
    policy = entropy = kl = squares = 0.0
    for i in range(N):
        advantage = reward[i] - baseline[i]
        for (old_log, focal), (new_log, _) in zip(before[i], after[i], strict=True):
            ratio = math.exp(new_log - old_log)
            clipped = min(max(ratio, 1 - args.cliprange), 1 + args.cliprange)
            policy -= weight[i] * focal * min(ratio * advantage, clipped * advantage)
        known = [t for t in range(T) if valid[i, t]]
        total_reference = sum(reference[i, t] for t in known)
        for t in known:
            p, q = new[i, t], reference[i, t] / (total_reference if problem == SINGLE else 1)
            entropy -= weight[i] * p * math.log(p)
            kl += weight[i] * p * math.log(p / q)
            if problem == MULTI:
                entropy -= weight[i] * (1 - p) * math.log(1 - p)
                kl += weight[i] * (1 - p) * math.log((1 - p) / (1 - q))
        if new_value is not None:
            squares += weight[i] * (new_value[i] - reward[i]) ** 2
    parts = {"policy_loss": policy, "entropy": entropy, "kl": kl, "value_loss": squares}
    parts = {name: part / total for name, part in parts.items()}
    loss = parts["policy_loss"] + parts["value_loss"]
    if args.kl_beta != -1:
        loss += args.kl_beta * parts["kl"]
    if args.entropy_beta != -1:
        loss -= args.entropy_beta * parts["entropy"]
    return loss, parts


def draw(problem, seed):
    rng = np.random.RandomState(seed)
    targets = np.eye(T)[rng.randint(T, size=N)] if problem == SINGLE else rng.randint(2, size=(N, T)).astype(float)
    valid = np.ones((N, T), bool)
    if problem == MULTI:
        valid[1, 2] = valid[3, 0] = False
    return SimpleNamespace(
        old_logits=rng.normal(size=(N, T)),
        logits=rng.normal(size=(N, T)),
        targets=targets * valid,
        valid=valid,
        weight=rng.uniform(0.5, 2, N),
        reward=rng.normal(size=N),
        value=rng.normal(size=N),
        new_value=rng.normal(size=N),
        reference=rng.uniform(0.05, 0.95, (N, T)),
    )


class Values(nn.Module):
    """Values that are given, the first time and the second."""

    def __init__(self, *values):
        super().__init__()
        self.values = iter([torch.from_numpy(value) for value in values])

    def forward(self, **inputs):
        return next(self.values).unsqueeze(1)


def stub(problem, args, data, value_model):
    """What the methods of RLTrainer read."""
    logits = iter([torch.from_numpy(data.old_logits), torch.from_numpy(data.logits)])
    trainer = SimpleNamespace(
        args_=args,
        policy_=POLICIES[problem],
        components_={"given": lambda *tensors: torch.from_numpy(data.reward).unsqueeze(1)},
        reference_=data.reference,
        values_=None,
        value_model=value_model,
        value_model_=value_model,
        generator_=torch.Generator().manual_seed(0),
        module_=SimpleNamespace(config=SimpleNamespace(ignore_index=-100)),
        device="cpu",
        dtype="float64",
        logits=lambda inputs: next(logits),
    )
    for name in ("_roll_out", "_set_advantages", "_terms", "_loss", "_values", "_reference_of"):
        method = getattr(RLTrainer, name)
        setattr(trainer, name, lambda *args, method=method: method(trainer, *args))
    return trainer


ON = {"gamma": 1.5, "alpha": 0.3, "labels_smoothing": 0.2, "entropy_beta": 0.7, "kl_beta": 0.9}
SETTINGS = [{}, *({name: value} for name, value in ON.items()), ON, {"cliprange": 0.01}, {"get_actions": "threshold"}]


@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings) or "plain")
@pytest.mark.parametrize("problem", [SINGLE, MULTI])
def test_the_loss_of_an_update(problem, settings, with_values):
    args = RLTrainerConfig(**settings)
    for seed in range(3):
        data = draw(problem, seed)
        labels = data.targets.argmax(1) if problem == SINGLE else np.where(data.valid, data.targets, -100)
        # Unknown labels weigh nothing; where all are known, rows have one weight.
        weight = data.weight if problem == SINGLE else data.weight[:, None] * data.valid
        orders = np.tile(np.arange(T), (N, 1))
        batch = Batch({"labels": labels, "sample_weight": weight}, np.arange(N), orders=orders)
        trainer = stub(problem, args, data, Values(data.value, data.new_value) if with_values else None)
        rollout = trainer._roll_out(batch)
        trainer._set_advantages([rollout])
        terms, n_clipped = trainer._terms(rollout)
        terms = {name: term / data.weight.sum() for name, term in terms.items()}
        values = (data.value, data.new_value) if with_values else (None, None)
        expected, parts = numpy_loss(
            problem, args, data.old_logits, data.logits, rollout.actions.numpy(), data.targets, data.valid,
            data.weight, data.reward, *values, data.reference,
        )  # fmt: skip
        for name, term in terms.items():
            assert float(term) == pytest.approx(parts[name], rel=1e-10, abs=1e-12), name
        assert float(trainer._loss(terms)) == pytest.approx(expected, rel=1e-10, abs=1e-12)
        assert 0 <= n_clipped <= data.valid.sum()


def test_the_gradient_is_that_of_the_clipped_objective():
    """Against differences: none where the ratio has left the range in the direction that pays."""
    old = torch.log(torch.tensor([[0.5, 0.5, 0.5, 0.5]], dtype=torch.float64))
    new = torch.log(torch.tensor([[0.7, 0.3, 0.55, 0.7]], dtype=torch.float64)).requires_grad_()
    for advantage in (2.0, -2.0):
        new.grad = None
        loss, clipped = clipped_loss(new, old, torch.tensor([[advantage]]), 0.2)
        loss.sum().backward()
        with torch.no_grad():
            step = 1e-6 * torch.eye(4, dtype=torch.float64)
            change = [
                float((clipped_loss(new + e, old, torch.tensor([[advantage]]), 0.2)[0] - loss).sum()) / 1e-6
                for e in step
            ]
        np.testing.assert_allclose(new.grad[0].numpy(), change, rtol=1e-4, atol=1e-5)
        assert clipped.tolist() == [[True, True, False, True]]
        gone = [True, False, False, True] if advantage > 0 else [False, True, False, False]
        np.testing.assert_array_equal(new.grad[0].numpy() == 0, gone)


@pytest.mark.parametrize("policy", [YesNoPolicy, ChoicePolicy])
def test_samples_follow_the_probabilities(policy):
    logits = torch.tensor([[1.0, -1.0, 0.3]]).repeat(20_000, 1)
    valid = torch.tensor([[True, True, True]]).expand_as(logits)
    chosen = policy(logits, valid)
    actions = chosen.sample(torch.Generator().manual_seed(0))
    expected = logits[0].sigmoid() if policy is YesNoPolicy else logits[0].softmax(0)
    torch.testing.assert_close(actions.mean(0), expected, atol=0.015, rtol=0)
    if policy is ChoicePolicy:
        assert (actions.sum(1) == 1).all()


@pytest.mark.parametrize("policy", [YesNoPolicy, ChoicePolicy])
def test_what_is_not_valid_is_never_given(policy):
    logits = torch.full((200, 3), 5.0)
    valid = torch.tensor([True, False, True]).expand_as(logits)
    chosen = policy(logits, valid)
    assert (chosen.sample(torch.Generator().manual_seed(0))[:, 1] == 0).all()
    assert (chosen.decide(0.0)[:, 1] == 0).all()
    assert chosen.probs[0, 1] == 0
    reference = torch.full_like(logits, 0.5)
    for values in (chosen.entropy(), chosen.divergence(reference), chosen.log_prob(chosen.decide(0.5), 0.1)):
        assert values.isfinite().all()


def test_no_divergence_from_itself_and_none_is_infinite():
    logits = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(logits, dtype=torch.bool)
    for policy in (YesNoPolicy(logits, valid), ChoicePolicy(logits, valid)):
        torch.testing.assert_close(policy.divergence(policy.probs), torch.zeros_like(policy.entropy()))
        certain = torch.nn.functional.one_hot(torch.zeros(50, dtype=torch.long), 4).double()
        assert policy.divergence(certain).isfinite().all()
        assert (policy.divergence(certain) > 0).all()


@pytest.mark.parametrize(("alpha", "gamma"), list(itertools.product([-1, 0.0, 0.25, 1.0], [-1, 0.0, 0.5, 2.0])))
def test_focal_weights(alpha, gamma):
    probs, targets = torch.tensor([[0.9, 0.2, 1.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    expected = []
    for p, y in zip(probs[0].tolist(), targets[0].tolist(), strict=True):
        p_t = p if y else 1 - p
        expected.append((1 if gamma == -1 else (1 - p_t) ** gamma) * (1 if alpha == -1 else alpha if y else 1 - alpha))
    np.testing.assert_allclose(focal_weights(probs, targets, alpha, gamma)[0].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_targets():
    targets, valid = read_targets(torch.tensor([2, 0]), torch.zeros(2, 3), -100)
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert valid.all()
    targets, valid = read_targets(torch.tensor([[1.0, -7.0, 0.0]]), torch.zeros(1, 3), -7)
    assert targets.tolist() == [[1, 0, 0]]
    assert valid.tolist() == [[True, False, True]]
