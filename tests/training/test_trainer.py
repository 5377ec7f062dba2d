"""The training loop against formulas."""

import functools
import itertools
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
import transformers
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, Freezer, Unfreezer
from torch import nn

from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig, Trainer, TrainingArguments
from sklearn_gliclass.data.batching import tensors
from sklearn_gliclass.model.bi_encoder import BiEncoder
from sklearn_gliclass.testing import TINY, TINY_ENCODERS
from sklearn_gliclass.training.arguments import FROM_PROBE, HEADS, PROBE_ONLY
from sklearn_gliclass.training.optimizers import OPTIMIZERS, PACKAGED, SCHEDULES, build_optimizer, build_scheduler

TEXTS = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"] * 2
LABELS = ["sports", "politics"] * 4


def fitted(**hyperparameters):
    return GLiClassClassifier(**{**TINY, "random_state": 0, **hyperparameters}).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def model():
    return fitted(max_epochs=0).model_


def test_learning_rates_depend_on_membership_in_the_encoders(model):
    """The reference trains `biencoder_projector` at the encoder's rate, because of its name."""
    args = TrainingArguments(lr=1.0, others_lr=2.0, weight_decay=0.3, others_weight_decay=0.4)
    optimizer = build_optimizer(model, model.encoder_modules(), args)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        encoder = name.startswith(("model.encoder_model.", "model.label_encoder."))
        decay = (0.3 if encoder else 0.4) if parameter.dim() >= 2 else 0.0
        assert found[id(parameter)] == (1.0 if encoder else 2.0, decay), name
    assert any("biencoder_projector" in name for name, _ in model.named_parameters())


def regression_problem():
    """Build two linear layers, of which the first is the encoder, and a squared error."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    inputs, targets = torch.randn(16, 4), torch.randn(16, 2)
    return net, lambda: (net(inputs) - targets).square().mean()


def take_steps(net, loss, optimizer, scheduler, n_steps=12):
    """Take optimiser steps, and return the learning rates of the first group and the final weights."""
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        scheduler.step()
    return rates, [parameter.detach().clone() for parameter in net.parameters()]


# Optimisers by name, with the defaults of torch and transformers.
BY_HAND = {
    "adamw_torch": torch.optim.AdamW,
    "adamw_torch_fused": torch.optim.AdamW,
    "adafactor": functools.partial(transformers.Adafactor, scale_parameter=False, relative_step=False),
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}
# Schedules with required arguments, as in the Trainer of transformers for 12 steps.
SCHEDULE_ARGUMENTS = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2},
}


@pytest.mark.parametrize(("schedule", "optim"), list(zip(SCHEDULES, itertools.cycle(BY_HAND), strict=False)))
def test_optimizer_and_schedule_are_those_of_torch_and_transformers(schedule, optim):
    args = TrainingArguments(
        lr=0.05, others_lr=0.02, weight_decay=0.3, others_weight_decay=0.1, optim=optim, lr_scheduler_type=schedule,
        warmup_ratio=0.25,
    )  # fmt: skip
    net, loss = regression_problem()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = build_optimizer(net, [net[0]], args)
    rates, weights = take_steps(net, loss, optimizer, build_scheduler(optimizer, args, 12))

    net, loss = regression_problem()
    groups = [
        {"params": [net[0].weight], "lr": 0.05, "weight_decay": 0.3},
        {"params": [net[0].bias], "lr": 0.05, "weight_decay": 0.0},
        {"params": [net[2].weight], "lr": 0.02, "weight_decay": 0.1},
        {"params": [net[2].bias], "lr": 0.02, "weight_decay": 0.0},
    ]
    optimizer = BY_HAND[optim](groups, lr=0.05)  # the end of "polynomial" is relative to the default rate
    scheduler = transformers.get_scheduler(
        schedule, optimizer, num_warmup_steps=3, num_training_steps=12,
        scheduler_specific_kwargs=SCHEDULE_ARGUMENTS.get(schedule, {}),
    )  # fmt: skip
    expected_rates, expected = take_steps(net, loss, optimizer, scheduler)
    assert rates == expected_rates
    for found, other, start in zip(weights, expected, before, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-7)
        assert (found - start).abs().max() > 1e-3


def test_each_optimizer_is_compared_with_its_own_kind():
    assert set(BY_HAND) == set(OPTIMIZERS) - set(PACKAGED)
    assert len(SCHEDULES) >= len(BY_HAND)  # so that each of both occurs


def test_linear_schedule_with_warm_up():
    n_steps, warm_up = 8, 4  # one batch in each of 8 epochs
    clf = fitted(max_epochs=n_steps, warmup_ratio=0.5, lr=0.01, others_lr=0.1)
    # The history has the rate of the next step, as the schedule steps with the optimiser.
    factor = [
        step / warm_up if step < warm_up else (n_steps - step) / (n_steps - warm_up) for step in range(1, n_steps + 1)
    ]
    np.testing.assert_allclose(clf.history_[:, "lr"], 0.01 * np.array(factor), atol=1e-12)
    np.testing.assert_allclose(clf.history_[:, "others_lr"], 0.1 * np.array(factor), atol=1e-12)


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder"])
@pytest.mark.parametrize("y", [LABELS, np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)], ids=["single", "multi"])
def test_accumulated_batches_are_one_big_batch(architecture, y):
    common = {
        **TINY, "architecture_type": architecture, "dtype": "float64", "random_state": 0, "optim": "sgd",
        "shuffle_labels": False,
    }  # fmt: skip
    if np.ndim(y) == 1:  # the contrastive loss compares texts within a batch
        common["text_contrastive_loss_coef"] = 0
    weight = np.arange(1.0, 9.0)

    def fit(**hyperparameters):
        return GLiClassClassifier(**{**common, **hyperparameters}).fit(TEXTS, y, sample_weight=weight)

    whole = fit(batch_size=8)
    parts = fit(batch_size=2, gradient_accumulation_steps=4)
    np.testing.assert_allclose(parts.decision_function(TEXTS), whole.decision_function(TEXTS), rtol=1e-8)


def test_gradients_are_clipped():
    norms = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients)))

    original = OPTIMIZERS["sgd"]
    OPTIMIZERS["sgd"] = Watch
    try:
        fitted(optim="sgd", max_grad_norm=1e-3, max_epochs=2)
        assert max(norms) == pytest.approx(1e-3, rel=1e-3)
        fitted(optim="sgd", max_grad_norm=None, max_epochs=2)
        assert max(norms) > 0.1
    finally:
        OPTIMIZERS["sgd"] = original


def test_gradients_of_weights_that_a_callback_unfreezes_are_clipped():
    """The sum of all changes by plain gradient descent is at most the number of steps times the norm."""
    steps = []

    class Record(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            steps.append({name for name, parameter in named_parameters if parameter.grad is not None})

    encoder = "model.encoder_model."
    callbacks = [Freezer(f"{encoder}*"), Unfreezer(f"{encoder}*", at=3), Record()]
    options = {"optim": "sgd", "lr": 1.0, "others_lr": 1.0, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}
    clf = fitted(max_epochs=0, weight_decay=0.0, others_weight_decay=0.0, max_grad_norm=1e-3, **options)
    before = {name: weight.clone() for name, weight in clf.model_.named_parameters()}
    clf.set_params(callbacks=callbacks)
    for _ in range(4):  # the third call starts with a frozen encoder
        clf.partial_fit(TEXTS, LABELS)
    changes = [(weight - before[name]).norm() for name, weight in clf.model_.named_parameters()]
    assert 0 < torch.stack(changes).norm() <= len(steps) * 1e-3 * (1 + 1e-3)
    trained = [any(name.startswith(encoder) for name in step) for step in steps]
    assert trained == sorted(trained)
    assert {False, True} == set(trained)


def test_history_has_losses_and_rates():
    history = fitted(max_epochs=3, early_stopping=True, validation_fraction=0.25, n_iter_no_change=9).history_
    assert history[:, "epoch"] == [1, 2, 3]
    for name in ("train_loss", "valid_loss", "lr", "others_lr", "dur"):
        assert np.isfinite(history[:, name]).all()


def test_max_epochs_none_is_resolved():
    args = TrainingArguments(batch_size=16)
    assert [args.resolve_epochs(n) for n in (8, 16, 160, 2500, 100_000)] == [48, 48, 15, 4, 3]
    assert clone(args).set_params(gradient_accumulation_steps=2).resolve_epochs(160) == 21
    assert args.set_params(max_epochs=0).resolve_epochs(16) == 0


def test_batch_size_none_is_resolved():
    args = TrainingArguments()
    assert [args.resolve_batch_size(n) for n in (1, 16, 48, 50, 64, 95, 96, 8000)] == [16, 16, 16, 17, 22, 32, 32, 32]
    assert [args.resolve_epochs(n) for n in (8, 48, 320)] == [48, 28, 15]  # 48 steps * sqrt(batches) / batches
    assert args.resolve(50).batch_size == 17
    clf = GLiClassClassifier(**{**TINY, "max_epochs": 1}).fit(TEXTS * 6, LABELS * 6)  # 48 rows
    assert [batch["train_batch_size"] for batch in clf.history_[0, "batches"]] == [16, 16, 16]
    assert (clf.batch_size, clf.training_args_.batch_size) == (None, 16)


def test_training_args_hold_resolved_values():
    clf = fitted(max_epochs=None, others_lr=None, lr=3e-3)
    assert (clf.max_epochs, clf.others_lr) == (None, None)
    assert (clf.training_args_.max_epochs, clf.training_args_.others_lr) == (48, 3e-3)  # one batch
    assert clf.n_iter_ == 48
    back = pickle.loads(pickle.dumps(clf.set_params(lr=1.0)))
    assert back.training_args_.get_params() == clf.training_args_.get_params()
    assert back.net_.args_.get_params() == clf.net_.args_.get_params()
    stopped = fitted(max_epochs=None, early_stopping=True, validation_fraction=0.5, n_iter_no_change=99)
    assert stopped.training_args_.max_epochs == stopped.n_iter_ == 48


def test_training_args_are_plain_after_a_search():
    clf = fitted(max_epochs=np.int64(2), batch_size=np.int64(4), others_lr=np.float64(1e-3))
    values = clf.training_args_.get_params().values()
    assert not [value for value in values if isinstance(value, np.generic)]
    assert (clf.training_args_.max_epochs, clf.training_args_.others_lr) == (2, 1e-3)


def test_resolved_arguments_are_a_copy_that_trains_the_same():
    args = TrainingArguments(max_epochs=None, others_lr=None, lr=2e-3, batch_size=4)
    resolved = args.resolve(100)
    assert (args.max_epochs, args.others_lr) == (None, None)
    expected = {**args.get_params(), "max_epochs": args.resolve_epochs(100), "others_lr": 2e-3, "warmup_ratio": 0.1}
    assert resolved.get_params() == resolved.resolve(7).get_params() == expected
    rl = RLTrainerConfig(others_lr=0.0, kl_beta=0.5, max_epochs=3).resolve(8)
    assert isinstance(rl, RLTrainerConfig)
    assert (rl.others_lr, rl.kl_beta, rl.max_epochs) == (0.0, 0.5, 3)


def test_frozen_encoders_resolve_to_other_rates_and_epochs():
    args = TrainingArguments(batch_size=16)
    assert args.resolve(160) == TrainingArguments(batch_size=16, max_epochs=15, others_lr=5e-4, warmup_ratio=0.1)
    assert args.resolve(160, HEADS) == TrainingArguments(batch_size=16, max_epochs=23, others_lr=3e-4, warmup_ratio=0.1)
    given = TrainingArguments(batch_size=16, max_epochs=2, others_lr=1e-2, warmup_ratio=0.2)
    assert given.resolve(160, HEADS) == given
    assert TrainingArguments(lr=0.1, others_lr=None).resolve(160, HEADS).others_lr == 0.1
    open_ones = {"max_epochs": None, "others_lr": "auto"}
    for freeze_encoder, epochs, rate in ((False, 48, 5e-4), (1, 48, 5e-4), (True, 72, 3e-4)):
        clf = fitted(**open_ones, freeze_encoder=freeze_encoder)
        assert (clf.n_iter_, clf.training_args_.others_lr) == (epochs, rate)
        assert max(clf.history_[:, "others_lr"]) == pytest.approx(rate, rel=0.1)
    with pytest.raises(ValueError, match="'others_lr' parameter of RLTrainerConfig"):
        RLTrainerConfig(others_lr="auto").validate()


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", -1), ("others_lr", "high"), ("optim", "adam"), ("warmup_ratio", 2), ("batch_size", 0), ("max_epochs", 1.5)],
)
def test_invalid_arguments_raise(field, value):
    with pytest.raises(ValueError, match=f"'{field}' parameter of TrainingArguments .* Got {value!r} instead"):
        TrainingArguments(**{field: value}).validate()


def test_trainer_takes_no_raw_texts(model):
    with pytest.raises(TypeError, match="got list; fit a GLiClassClassifier"):
        Trainer(model, callbacks__train_loss=None, callbacks__valid_loss=None).initialize().get_dataset(TEXTS)


def test_ctrl_c_leaves_a_usable_estimator():
    class Interrupt(torch.optim.SGD):
        steps = 0

        def step(self, closure=None):
            type(self).steps += 1
            if self.steps == 3:
                raise KeyboardInterrupt
            return super().step(closure)

    original = OPTIMIZERS["sgd"]
    OPTIMIZERS["sgd"] = Interrupt
    try:
        with pytest.warns(UserWarning, match=r"interrupted: the 2 epoch\(s\) trained so far are kept"):
            clf = fitted(optim="sgd", max_epochs=10)
    finally:
        OPTIMIZERS["sgd"] = original
    assert clf.n_iter_ == 2
    assert clf.predict(TEXTS).shape == (8,)


def test_scheduler_of_skorch_replaces_that_of_args():
    from skorch.callbacks import LRScheduler
    from torch.optim.lr_scheduler import ExponentialLR

    scheduler = LRScheduler(policy=ExponentialLR, gamma=0.5)
    clf = fitted(callbacks=[("decay", scheduler)], max_epochs=4, lr=0.01, others_lr=0.01)
    np.testing.assert_allclose(clf.history_[:, "lr"], [0.01 * 0.5**epoch for epoch in range(4)])


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder"])
def test_scoring_callbacks_see_all_classes(architecture):
    from skorch.callbacks import EpochScoring

    labels = [f"topic {i}" for i in range(6)] * 4
    texts = [f"{label} {i}" for i, label in enumerate(labels)]
    callbacks = [(name, EpochScoring(name, lower_is_better=False)) for name in ("accuracy", "neg_log_loss")]
    clf = GLiClassClassifier(
        **{**TINY, "architecture_type": architecture, "max_num_classes": 4, "random_state": 0, "batch_size": 5},
        early_stopping=True,
        validation_fraction=0.5,
        n_iter_no_change=9,
        callbacks=callbacks,
    ).fit(texts, labels)
    loss, negative = clf.history_[:, ("valid_loss", "neg_log_loss")][-1]
    assert loss == pytest.approx(-negative, rel=1e-3)
    valid = clf.net_.valid
    probabilities = clf.net_.predict_proba(valid)
    assert probabilities.shape == (12, 6)
    accuracy = (clf.net_.predict(valid) == valid.targets).mean()
    assert accuracy == pytest.approx(clf.history_[-1, "accuracy"])


ENCODERS = {"uni-encoder": "bert", "bi-encoder": "bert", "bi-encoder-fused": "bert", "encoder-decoder": "bart"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_validation_encodes_the_labels_once_for_all_batches(architecture, dtype, monkeypatch):
    labels = [f"topic {i}" for i in range(6)] * 4
    texts = [f"{label} {i}" for i, label in enumerate(labels)]
    encoded = []
    original = BiEncoder.pool_labels

    def note(self, class_input_ids, class_attention_mask):
        if not torch.is_grad_enabled():
            encoded.append(len(class_input_ids))
        return original(self, class_input_ids, class_attention_mask)

    monkeypatch.setattr(BiEncoder, "pool_labels", note)
    options = {"encoder_config": TINY_ENCODERS[ENCODERS[architecture]], "architecture_type": architecture}
    clf = GLiClassClassifier(
        **{**TINY, **options, "dtype": dtype, "max_num_classes": 4, "batch_size": 5, "max_epochs": 2}, random_state=0,
        early_stopping=True, validation_fraction=0.5, n_iter_no_change=9, label_centroid_share=0,
    ).fit(texts, labels)  # fmt: skip
    valid = clf.net_.valid
    # 12 rows are 3 batches, 6 labels 2 chunks: one call for each chunk and epoch, and one after the training, for
    # `known_proba`.
    assert encoded == ([4, 2] * 3 if architecture.startswith("bi-encoder") else [])
    encoded.clear()
    (logits,) = clf.net_.forward_iter(valid)
    assert encoded == ([4, 2] if architecture.startswith("bi-encoder") else [])
    for batch in valid.evaluation_batches(5):
        chunks = [np.arange(4), np.arange(4, 6)]
        inputs = [tensors(valid.layout.batch([valid.tokens[row] for row in batch.rows], [chunk] * len(batch)))
                  for chunk in chunks]  # fmt: skip
        with torch.no_grad():
            whole = torch.cat([clf.net_.logits(each) for each in inputs], dim=1)
        assert torch.equal(logits[batch.rows], whole)
    loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(valid.targets))
    kept = dict(clf.net_.callbacks_)["early_stopping"].best_epoch_  # its weights are restored
    assert clf.history_[kept - 1, "valid_loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_focal_losses_equal_those_of_one_batch(reduction):
    y = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)
    common = {
        **TINY, "dtype": "float64", "random_state": 0, "optim": "sgd", "max_grad_norm": None, "lr": 1e-3,
        "others_lr": 1e-3, "focal_loss_reduction": reduction,
    }  # fmt: skip
    whole = GLiClassClassifier(**common, batch_size=8).fit(TEXTS, y)
    parts = GLiClassClassifier(**common, batch_size=3, gradient_accumulation_steps=3).fit(TEXTS, y)
    np.testing.assert_allclose(parts.decision_function(TEXTS), whole.decision_function(TEXTS), rtol=1e-8)


@pytest.mark.parametrize("lr", [0.0, 1e-8])
def test_polynomial_schedule_takes_tiny_rates(lr):
    history = fitted(max_epochs=3, lr=lr, others_lr=1e-3, warmup_ratio=0.0, lr_scheduler_type="polynomial").history_
    np.testing.assert_allclose(history[:, "lr"], lr * np.array([2 / 3, 1 / 3, 0.001]), rtol=5e-3, atol=1e-15)


def test_callbacks_set_after_fit_are_called_in_partial_fit():
    from skorch.callbacks import Callback

    class Count(Callback):
        epochs = 0

        def on_epoch_end(self, net, **kwargs):
            self.epochs += 1

    first, second = Count(), Count()
    clf = fitted(callbacks=[first], max_epochs=2)
    clf.set_params(callbacks=[second]).partial_fit(TEXTS, LABELS).partial_fit(TEXTS, LABELS)
    assert (first.epochs, second.epochs) == (2, 2)
    clf.set_params(callbacks=None).partial_fit(TEXTS, LABELS)
    assert (first.epochs, second.epochs, clf.n_iter_) == (2, 2, 5)


def test_training_from_a_label_probe_resolves_to_few_epochs():
    args = TrainingArguments()
    resolved = {n: args.resolve(8 * n, FROM_PROBE, n_labels=8).max_epochs for n in (2, 8, 32, 128, 1000)}
    assert resolved == {2: 16, 8: 8, 32: 4, 128: 2, 1000: 2}
    assert args.resolve(64, FROM_PROBE, factor=2.0, n_labels=8).max_epochs == 16
    found = args.resolve(64, FROM_PROBE, n_labels=8)
    assert (found.others_lr, found.warmup_ratio) == (0.0, 0.1)
    assert args.resolve(16, FROM_PROBE, n_labels=2).warmup_ratio == 0.0  # 8 epochs of one step
    given = TrainingArguments(max_epochs=5, others_lr=1e-3, warmup_ratio=0.3, batch_size=4)
    assert given.resolve(64, FROM_PROBE, n_labels=8) == given
    assert args.resolve(64, PROBE_ONLY, n_labels=8).max_epochs == 0


def test_loss_that_does_not_fall_warns():
    with pytest.warns(ConvergenceWarning, match=r"loss did not fall: .* Lower lr=1e-15 and others_lr=1e-15"):
        clf = fitted(lr=1e-15, others_lr=1e-15)  # too small to change a weight in single precision
    losses = clf.history_[:, "train_loss"]
    assert min(losses[1:]) >= losses[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses = fitted().history_[:, "train_loss"]
    assert min(losses[1:]) < losses[0]
