"""Further training: `partial_fit` and warm starts train copies of model and optimiser."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, Freezer, LRScheduler, Unfreezer
from tiny_estimators import FOOD, OPTIONS, TEXTS, X, tiny

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.training.optimizers import OPTIMIZERS, copy_optimizer


class Counting(torch.optim.SGD):
    """Optimiser with an attribute that its state dict does not have."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)
        self.n_steps = 0

    def step(self, closure=None):
        self.n_steps += 1
        super().step(closure)


@pytest.mark.parametrize("build", [OPTIMIZERS["adamw_torch"], Counting], ids=["AdamW", "own attributes"])
def test_copied_optimizer_continues_with_copies_of_its_parameters(build):
    weights = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))]
    optimizer, hooked = build([{"params": [weight]} for weight in weights], lr=0.1), []
    optimizer.register_step_post_hook(lambda *args: hooked.append(True))
    torch.optim.lr_scheduler.ConstantLR(optimizer)  # replaces the method `step`

    def step(optimizer):
        for group in optimizer.param_groups:
            group["params"][0].grad = torch.full_like(group["params"][0], 2.0)
        optimizer.step()

    step(optimizer)
    n_hooked = len(hooked)  # twice in a step if other tests have built an optimiser of the base class
    memo = {}
    copies, before = copy.deepcopy(weights, memo), copy.deepcopy(weights)
    other = copy_optimizer(optimizer, memo)
    step(other)
    assert [group["params"] for group in other.param_groups] == [[weight] for weight in copies]
    for weight, same, moved in zip(weights, before, copies, strict=True):
        assert torch.equal(weight, same)
        assert not torch.equal(weight, moved)
    step(optimizer)
    for weight, moved in zip(weights, copies, strict=True):
        torch.testing.assert_close(weight, moved)  # also the moments are those of the original
    assert len(hooked) == 3 * n_hooked > 0
    assert getattr(other, "n_steps", 2) == 2


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_an_encoder_that_a_callback_unfreezes_is_trained_in_the_copy_only(optim):
    callbacks = [Freezer("model.encoder_model.*"), Unfreezer("model.encoder_model.*", at=3)]
    clf = tiny(freeze_encoder=False, optim=optim, lr=0.05, callbacks=callbacks)
    clf.partial_fit(X, FOOD).partial_fit(X, FOOD)
    other = clf.with_labels(["one", "two"])
    expected = other.predict_proba(X)
    before = clf.transform(X)
    clf.partial_fit(X, FOOD)
    np.testing.assert_array_equal(other.predict_proba(X), expected)
    assert not np.allclose(clf.transform(X), before)


class Hook(Callback):
    """Forward hook on the module, whose owner cannot be copied."""

    def __init__(self):
        self.lock, self.last, self.n_calls = threading.Lock(), None, 0

    def get_params(self, deep=True):
        return {}

    def on_train_begin(self, net, **kwargs):
        if self.last is None:
            net.module_.model.text_projector.register_forward_hook(self.hook)

    def hook(self, module, arguments, output):
        self.n_calls += 1
        self.last = output  # with its graph


def test_hooks_of_modules_stay_those_of_their_owners():
    hook = Hook()
    clf, counts = GLiClassClassifier(**{**OPTIONS, "callbacks": [hook]}), []
    for _ in range(3):
        clf.partial_fit(X, FOOD)
        counts.append(hook.n_calls)
    assert counts[0] < counts[1] < counts[2]


def test_attributes_that_overridden_methods_set_are_kept():
    class Counter(GLiClassClassifier):
        def predict(self, X):
            self.n_predictions = getattr(self, "n_predictions", 0) + 1
            return super().predict(X)

    clf = Counter(**OPTIONS).fit(X, FOOD)
    clf.score(X, FOOD)
    clf.predict_labels(X)
    clf.predict(X)
    assert clf.n_predictions == 3


def test_model_and_optimizer_before_a_training_are_freed():
    clf = tiny().partial_fit(TEXTS, ["a", "b"] * 4)
    for _ in range(3):
        clf.partial_fit(TEXTS, ["a", "b"] * 4)
        held = {id(weight) for weight in clf.model_.parameters()}
        assert {id(weight) for group in clf.net_.optimizer_.param_groups for weight in group["params"]} <= held
        assert {id(weight) for weight in clf.net_.optimizer_.state} <= held


def test_a_schedule_among_the_callbacks_continues_after_a_load():
    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    clf = tiny(lr=0.01, others_lr=0.01, callbacks=[schedule]).partial_fit(X, FOOD).partial_fit(X, FOOD)
    loaded = pickle.loads(pickle.dumps(clf)).partial_fit(X, FOOD).partial_fit(X, FOOD)
    rates = loaded.history_[:, "others_lr"]
    assert rates[:2] == clf.history_[:, "others_lr"]
    assert 0 < rates[3] < rates[2] < 0.01
