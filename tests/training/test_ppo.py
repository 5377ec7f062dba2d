"""Proximal policy optimisation against an implementation in NumPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training.ppo import BernoulliPolicy, CategoricalPolicy, clipped_loss, focal_weights
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
    """Return log-probability and focal weight of each decision, by row."""
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
    """Compute the loss of an update, and its terms."""
    old, new = (numpy_probs(problem, x, valid) for x in (old_logits, logits))
    before = numpy_decisions(problem, old, actions, valid, args, targets)
    after = numpy_decisions(problem, new, actions, valid, args, targets)
    total = sum(weight)
    baseline = [sum(weight * reward) / total] * N if value is None else value
    policy = entropy = kl = squares = 0.0
    n_clipped = n_decisions = 0
    for i in range(N):
        advantage = reward[i] - baseline[i]
        for (old_log, focal), (new_log, _) in zip(before[i], after[i], strict=True):
            ratio = math.exp(new_log - old_log)
            clipped = min(max(ratio, 1 - args.cliprange), 1 + args.cliprange)
            policy -= weight[i] * focal * min(ratio * advantage, clipped * advantage)
            n_clipped += clipped != ratio
            n_decisions += 1
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
    parts = {name: part / total for name, part in parts.items()} | {"clip_fraction": n_clipped / n_decisions}
    loss = parts["policy_loss"] + parts["value_loss"]
    if args.kl_beta != -1:
        loss += args.kl_beta * parts["kl"]
    if args.entropy_beta != -1:
        loss -= args.entropy_beta * parts["entropy"]
    return loss, parts


# Texts of different lengths, so that rows can be identified in any order.
TEXTS = [
    "goal",
    "vote on law",
    "the late goal and match",
    "a law and a vote on the law",
    "the match was won by a late goal ok",
]
LABELS = ["sports", "politics", "weather", "culture"]
CLASSES = np.array([0, 1, 2, 3, 1])
INDICATORS = np.array([[1, 0, 0, 1], [0, 1, -100, 0], [1, 0, 1, 0], [-100, 1, 0, 1], [0, 0, 0, 1]])
WEIGHT = np.array([1.0, 2.0, 0.5, 1.5, 0.7])


def reference(texts, labels):
    return np.random.RandomState(0).uniform(0.05, 0.95, (len(texts), len(labels)))


def counted(probs, actions, targets, valid_mask):
    """Reward that differs between rows: the sum of the true actions, with half weight for false ones."""
    worth = torch.arange(1.0, T + 1, dtype=probs.dtype)
    return ((actions * targets - 0.5 * actions * (1 - targets)) * worth).sum(1, keepdim=True)


class WordValues(nn.Module):
    """Value model over words; `seen` records the values of all copies of the module."""

    seen = []

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(2000, 1)

    def forward(self, input_ids, attention_mask, **inputs):
        values = (self.words(input_ids) * attention_mask.unsqueeze(-1)).mean(1)
        self.seen.append(values.detach().numpy().ravel())
        return values


class Recorder(Callback):
    """Callback that records the logits of all forward passes, and the length of each text."""

    def on_train_begin(self, net, **kwargs):
        self.logits, self.lengths = [], None
        self.hook = net.module_.register_forward_hook(self.record, with_kwargs=True)

    def on_train_end(self, net, **kwargs):
        self.hook.remove()

    def record(self, module, args, inputs, output):
        self.logits.append(output.logits.detach().numpy())
        self.lengths = inputs["attention_mask"].sum(1).numpy()


ON = {"gamma": 1.5, "alpha": 0.3, "labels_smoothing": 0.2, "entropy_beta": 0.7, "kl_beta": 0.9}
SETTINGS = [{}, *({name: value} for name, value in ON.items()), ON, {"cliprange": 0.01}, {"get_actions": "threshold"}]
NARROW = {"cliprange": 0.05}  # so that some ratios are clipped within a few steps
CASES = [*((settings, False) for settings in SETTINGS), ({}, True), (ON, True)]


def recorded_step(problem, settings, with_values):
    """Record the outputs of the model and the history of one step of reinforcement learning."""
    given, recorder = [], Recorder()

    def reward(probs, actions, targets, valid_mask):
        given.append([tensor.numpy() for tensor in (actions, targets, valid_mask)])
        return counted(probs, actions, targets, valid_mask)

    WordValues.seen.clear()
    torch.manual_seed(0)
    # Large steps, for the same reason.
    rates = {"lr": 0.02, "others_lr": 0.02, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    rl = RLTrainerConfig(max_epochs=1, batch_size=8, **rates, **NARROW | settings)
    clf = GLiClassClassifier(
        **{**TINY, "max_epochs": 0, "dtype": "float64", "random_state": 0}, rl=rl, shuffle_labels=False,
        logit_scale_init_value=1.0, label_names=dict(enumerate(LABELS)) if problem == SINGLE else LABELS,
        reward_components={"counted": reward}, reference_model=reference, callbacks=[("recorder", recorder)],
        value_model=WordValues() if with_values else None, ignore_index=-100,
    ).fit(TEXTS, CLASSES if problem == SINGLE else INDICATORS, sample_weight=WEIGHT)  # fmt: skip
    ((actions, targets, valid),) = given
    return clf.history_[-1], recorder, actions, targets, valid


@pytest.mark.parametrize(
    ("settings", "with_values"), CASES, ids=[("-".join(case) or "plain") + "-values" * values for case, values in CASES]
)
@pytest.mark.parametrize("problem", [SINGLE, MULTI])
def test_updates_follow_the_formulas(problem, settings, with_values):
    history, recorder, actions, targets, valid = recorded_step(problem, settings, with_values)
    args = RLTrainerConfig(**NARROW | settings)
    old_logits, *updates = recorder.logits
    assert len(updates) == args.num_rl_iters
    rows = recorder.lengths.argsort().argsort()  # the text of each row, ...
    reward = counted(*map(torch.from_numpy, (old_logits, actions, targets, valid))).numpy().ravel()
    value, *new_values = WordValues.seen if with_values else [None] * (1 + len(updates))
    found = [
        numpy_loss(problem, args, old_logits, logits, actions, targets, valid, WEIGHT[rows], reward, value, new_value,
                   reference(TEXTS, LABELS)[rows])
        for logits, new_value in zip(updates, new_values, strict=True)
    ]  # fmt: skip
    losses, parts = zip(*found, strict=True)
    assert history["train_loss"] == pytest.approx(np.mean(losses), rel=1e-6, abs=1e-9)
    assert history["reward"] == pytest.approx(reward.mean())
    for name in ("policy_loss", "entropy", "kl", *(["value_loss"] if with_values else [])):
        assert history[name] == pytest.approx(np.mean([part[name] for part in parts]), rel=1e-6, abs=1e-9), name
    clipped = np.mean([part["clip_fraction"] for part in parts])
    assert history["clip_fraction"] == pytest.approx(clipped)
    assert clipped > 0  # otherwise, clipping would not be tested


def test_gradient_is_that_of_the_clipped_objective():
    """Against finite differences; 0 where the ratio is clipped."""
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


@pytest.mark.parametrize("policy", [BernoulliPolicy, CategoricalPolicy])
def test_samples_follow_the_probabilities(policy):
    logits = torch.tensor([[1.0, -1.0, 0.3]]).repeat(20_000, 1)
    valid = torch.tensor([[True, True, True]]).expand_as(logits)
    chosen = policy(logits, valid)
    actions = chosen.sample(torch.Generator().manual_seed(0))
    expected = logits[0].sigmoid() if policy is BernoulliPolicy else logits[0].softmax(0)
    torch.testing.assert_close(actions.mean(0), expected, atol=0.015, rtol=0)
    if policy is CategoricalPolicy:
        assert (actions.sum(1) == 1).all()


@pytest.mark.parametrize("policy", [BernoulliPolicy, CategoricalPolicy])
def test_invalid_labels_are_never_sampled(policy):
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
    for policy in (BernoulliPolicy(logits, valid), CategoricalPolicy(logits, valid)):
        torch.testing.assert_close(policy.divergence(policy.probs), torch.zeros_like(policy.entropy()))
        certain = torch.nn.functional.one_hot(torch.zeros(50, dtype=torch.long), 4).double()
        assert policy.divergence(certain).isfinite().all()
        assert (policy.divergence(certain) > 0).all()


@pytest.mark.parametrize(("alpha", "gamma"), list(itertools.product([-1, 0.0, 0.25, 1.0], [-1, 0.0, 0.5, 2.0])))
def test_focal_weights_agree_with_formula(alpha, gamma):
    probs, targets = torch.tensor([[0.9, 0.2, 1.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    expected = []
    for p, y in zip(probs[0].tolist(), targets[0].tolist(), strict=True):
        p_t = p if y else 1 - p
        expected.append((1 if gamma == -1 else (1 - p_t) ** gamma) * (1 if alpha == -1 else alpha if y else 1 - alpha))
    np.testing.assert_allclose(focal_weights(probs, targets, alpha, gamma)[0].numpy(), expected, rtol=1e-6, atol=1e-7)


def test_targets_are_read_with_their_mask():
    targets, valid = read_targets(torch.tensor([2, 0]), torch.zeros(2, 3), -100)
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert valid.all()
    targets, valid = read_targets(torch.tensor([[1.0, -7.0, 0.0]]), torch.zeros(1, 3), -7)
    assert targets.tolist() == [[1, 0, 0]]
    assert valid.tolist() == [[True, False, True]]


def test_decisions_on_labels_that_are_not_offered_are_zero():
    valid = torch.tensor([[True, True, False], [False, True, True]])
    policy = BernoulliPolicy(torch.tensor([[0.3, -1.0, 2.0], [0.1, 0.7, -0.4]]), valid)
    actions = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    for values in (policy.log_prob(actions), policy.entropy(), policy.divergence(torch.full((2, 3), 0.3))):
        assert torch.equal(values != 0, valid)
