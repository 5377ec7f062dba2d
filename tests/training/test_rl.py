"""Reinforcement learning in the estimator."""

import copy
import functools
import itertools
import pickle

import numpy as np
import pytest
import torch
from sampling import sampled
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainer, RLTrainerConfig
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training.rewards import exact_match, f1, precision, recall

TEXTS = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"] * 2
SINGLE = ["sports", "politics"] * 4
MULTI = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)
YS = {"single": SINGLE, "multi": MULTI}
RL = {"max_epochs": 2, "lr": 2e-3, "others_lr": 2e-3, "batch_size": 4}
LONG = {"max_epochs": 16, "lr": 1e-2, "others_lr": 1e-2, "batch_size": 8}
# Initial probabilities that are not certain, so that actions vary.
START = {**TINY, "random_state": 0, "max_epochs": 1, "logit_scale_init_value": 1.0}


def classifier(rl=(), **hyperparameters):
    return GLiClassClassifier(rl=RLTrainerConfig(**{**RL, **dict(rl)}), **{**START, **hyperparameters})


@functools.cache
def supervised(y):
    """Fit the model from which reinforcement starts; no test may change it."""
    return GLiClassClassifier(**START).fit(TEXTS, YS[y])


def fitted(y="single", rl=(), **hyperparameters):
    return classifier(rl, **hyperparameters).fit(TEXTS, YS[y])


@functools.cache
def plain(y):
    """Fit without options; no test may change it."""
    return fitted(y)


def weights(clf):
    return clf.model_.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# -- rewards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", YS)
def test_reward_rises(y):
    clf = fitted(y, LONG, max_epochs=0)
    rewards = clf.history_[:, "reward"]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:3]) + 0.1


@pytest.mark.parametrize(("sign", "predicted"), [(1.0, 1), (-1.0, 0)])
def test_reward_of_ones_own_moves_the_predictions(sign, predicted):
    def number(probs, actions, targets, valid_mask):
        return sign * actions.sum(1, keepdim=True)

    clf = fitted("multi", LONG, reward_components={"number": number}, max_epochs=0)
    assert (clf.predict(TEXTS) == predicted).all()


def test_rewards_of_single_label_choices():
    def politics(probs, actions, targets, valid_mask):
        assert (actions.sum(1) == 1).all()
        assert (targets.sum(1) == 1).all()
        return actions[:, :1]  # labels are in the order of the classes

    clf = fitted("single", LONG, reward_components={"politics": politics}, max_epochs=0)
    assert (clf.predict(TEXTS) == "politics").all()


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder-fused"])
def test_other_architectures_and_more_classes_than_a_prompt_holds(architecture):
    labels = [f"topic {i}" for i in range(8)]
    clf = classifier({"kl_beta": 0.1}, architecture_type=architecture, max_num_classes=3)
    clf.set_params(reference_model=lambda texts, labels: np.full((len(texts), len(labels)), 1 / 8))
    clf.fit(TEXTS, labels)
    assert np.isfinite(clf.history_[-1, "kl"])
    assert clf.predict_proba(TEXTS).shape == (8, 8)


def test_soft_labels_are_rewarded():
    soft = np.tile([[0.9, 0.1], [0.2, 0.8]], (4, 1))
    clf = classifier({"max_epochs": 1}).fit(TEXTS, soft)
    assert 0.1 <= clf.history_[-1, "reward"] <= 0.9


# -- disabled options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "y"), sampled(itertools.product(["gamma", "labels_smoothing", "entropy_beta", "kl_beta"], YS), 4)
)
def test_options_at_minus_one_equal_zero(y, name):
    """-1 equals 0 exactly, where the formula has no effect for 0."""
    off, zero = (fitted(y, {name: value}, reference_model=plain(y)) for value in (-1, 0))
    assert same(weights(off), weights(zero))


@pytest.mark.parametrize("y", YS)
def test_loss_without_options_is_the_policy_loss(y):
    clf = plain(y)
    np.testing.assert_allclose(clf.history_[-2:, "train_loss"], clf.history_[-2:, "policy_loss"], rtol=1e-6)
    watched = fitted(y, reference_model=lambda texts, labels: np.full((len(texts), len(labels)), 0.3))
    assert same(weights(clf), weights(watched))
    assert "kl" in watched.history_[-1]
    assert "kl" not in clf.history_[-1]


@pytest.mark.parametrize(("constant", "y"), sampled(itertools.product([0.0, 0.3, -7.1], YS), 3))
def test_constant_reward_leaves_the_weights_alone(y, constant):
    start = supervised(y)

    def always(probs, actions, targets, valid_mask):
        return torch.full((len(actions), 1), constant)

    clf = fitted(y, {"weight_decay": 0.0}, reward_components={"always": always})
    assert same(weights(clf), weights(start))
    assert clf.history_[-1, "reward"] == pytest.approx(constant)
    pushed = fitted(y, {"weight_decay": 0.0, "entropy_beta": 0.1}, reward_components={"always": always})
    assert not same(weights(pushed), weights(start))


# What cliprange, gamma, alpha, labels_smoothing, entropy_beta, kl_beta and get_actions do: test_ppo.py.
CONSTANT = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0, "max_epochs": 1}


def always(probs, actions, targets, valid_mask):
    return torch.ones(len(actions), 1)


def moved(clf, start):
    """Return the largest changes of encoder and of head parameters."""
    before, after = weights(start), weights(clf)
    changes = {name: float((after[name] - before[name]).abs().max()) for name in before}
    encoder = {name for name in changes if name.startswith(("model.encoder_model.", "model.label_encoder."))}
    return max(changes[name] for name in encoder), max(changes[name] for name in set(changes) - encoder)


@pytest.mark.parametrize(("rates", "expected"), [((1e-3, 0.0), (1e-3, 0.0)), ((0.0, 2e-3), (0.0, 2e-3)),
                                                 ((1e-3, None), (1e-3, 1e-3))])  # fmt: skip
def test_rates_are_the_length_of_the_first_step(rates, expected):
    """Adam's first step changes each weight with a gradient by the learning rate."""
    one_step = {**CONSTANT, "batch_size": 8, "num_rl_iters": 1, "weight_decay": 0.0, "others_weight_decay": 0.0}
    clf = fitted("multi", {**one_step, "lr": rates[0], "others_lr": rates[1]})
    assert moved(clf, supervised("multi")) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("num_rl_iters", [1, 3])
@pytest.mark.parametrize("name", ["weight_decay", "others_weight_decay"])
def test_weight_decay_shrinks_matrices_in_each_update(name, num_rl_iters):
    """Constant rewards have no gradient, so that only the decay changes the weights."""
    rates = {"lr": 0.1, "others_lr": 0.0} if name == "weight_decay" else {"lr": 0.0, "others_lr": 0.1}
    settings = {**CONSTANT, "batch_size": 4, "num_rl_iters": num_rl_iters, **rates, name: 0.5}
    clf = fitted("multi", settings, reward_components={"always": always})
    part = "model.encoder_model." if name == "weight_decay" else "model.text_projector."
    before = weights(supervised("multi"))
    chosen = [key for key in before if key.startswith(part) and before[key].dim() >= 2 and "pooler" not in key]
    assert chosen
    for key in chosen:  # two batches
        torch.testing.assert_close(
            weights(clf)[key], before[key] * (1 - 0.05) ** (2 * num_rl_iters), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize(
    ("changed", "sizes"),
    [({}, [4, 4]), ({"batch_size": 3}, [2, 3, 3]), ({"gradient_accumulation_steps": 2}, [8])],
    ids=str,
)
def test_batches_and_epochs_are_counted(changed, sizes):
    history = fitted("multi", {**changed, "max_epochs": 3}).history_
    assert len(history) == 1 + 3  # one supervised
    assert sorted(batch["train_batch_size"] for batch in history[-1, "batches"]) == sizes


def test_optimizer_and_schedule_are_those_of_the_config():
    assert type(fitted("multi", {"optim": "sgd"}).rl_net_.optimizer_) is torch.optim.SGD
    rates = {"max_epochs": 4, "batch_size": 8, "lr": 0.01, "others_lr": 0.02}
    constant = fitted("multi", {**rates, "lr_scheduler_type": "constant", "warmup_ratio": 0.0}).history_
    np.testing.assert_allclose(constant[:, ("lr", "others_lr")][1:], [(0.01, 0.02)] * 4)
    # Warm-up in two steps, decay to 0 in two; the history has the rate of the next step.
    warm = fitted("multi", {**rates, "lr_scheduler_type": "linear", "warmup_ratio": 0.5}).history_
    np.testing.assert_allclose(warm[1:, "lr"], [0.005, 0.01, 0.005, 0.0], atol=1e-12)


def test_actions_are_those_above_the_threshold():
    given = []

    def note(probs, actions, targets, valid_mask):
        given.append((probs, actions))
        return f1(probs, actions, targets, valid_mask)

    fitted("multi", {"get_actions": "threshold", "threshold": 0.2}, reward_components=[("note", note)])
    for probs, actions in given:
        assert torch.equal(actions.bool(), probs >= 0.2)


def test_gradients_are_clipped():
    free, tight = (
        fitted("multi", {"optim": "sgd", "max_grad_norm": norm, "weight_decay": 0.0}) for norm in (None, 1e-6)
    )
    start = supervised("multi")
    moved = [
        max(float((a - b).abs().max()) for a, b in zip(weights(clf).values(), weights(start).values(), strict=True))
        for clf in (free, tight)
    ]
    assert moved[1] < 1e-6 < 1e-5 < moved[0]


# -- batches, weights, masks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("y", YS)
def test_accumulated_batches_are_one_big_batch(y):
    common = {"optim": "sgd", "get_actions": "threshold", "lr": 0.05, "others_lr": 0.05, "entropy_beta": 0.1}
    sample_weight = np.arange(1.0, 9.0)

    def fit(**rl):
        clf = classifier({**common, **rl}, dtype="float64", shuffle_labels=False)
        return clf.fit(TEXTS, YS[y], sample_weight=sample_weight)

    whole, parts = fit(batch_size=8), fit(batch_size=2, gradient_accumulation_steps=4)
    np.testing.assert_allclose(parts.decision_function(TEXTS), whole.decision_function(TEXTS), rtol=1e-9)
    for name in ("reward", "policy_loss", "entropy", "clip_fraction", "advantage_std"):
        np.testing.assert_allclose(parts.history_[-2:, name], whole.history_[-2:, name], atol=1e-12)


def test_only_ratios_of_weights_count():
    a, b = plain("multi"), classifier().fit(TEXTS, MULTI, sample_weight=np.full(8, 4.0))
    np.testing.assert_allclose(a.decision_function(TEXTS), b.decision_function(TEXTS), rtol=1e-4, atol=1e-5)
    c = classifier().fit(TEXTS, MULTI, sample_weight=np.arange(1.0, 9.0))
    assert not np.allclose(a.decision_function(TEXTS), c.decision_function(TEXTS), rtol=1e-4)


def test_unknown_labels_are_masked():
    masks = []

    def note(probs, actions, targets, valid_mask):
        masks.append((probs, actions, targets, valid_mask))
        return exact_match(probs, actions, targets, valid_mask)

    y = MULTI.copy()
    y[:4, 0] = -100
    classifier({"batch_size": 8}, reward_components={"note": note}, shuffle_labels=False).fit(TEXTS, y)
    for probs, actions, targets, valid in masks:
        assert (~valid).sum() == 4
        for values in (probs, actions, targets):
            assert (values[~valid] == 0).all()


@pytest.mark.parametrize("max_num_classes", [3, 8])
def test_reference_follows_the_order_of_the_labels(max_num_classes):
    """Prompts hold all labels or some, in random order; the divergence uses the same labels of the reference."""
    y = np.random.RandomState(0).randint(2, size=(8, 8))
    probs_and_targets = []

    def note(probs, actions, targets, valid_mask):
        probs_and_targets.append((probs.numpy(), targets.numpy()))
        return f1(probs, actions, targets, valid_mask)

    clf = classifier(
        {"lr": 0.0, "others_lr": 0.0, "batch_size": 8, "max_epochs": 1}, architecture_type="uni-encoder",
        max_num_classes=max_num_classes, reward_components={"note": note},
        # The reference is the truth, so that its probability for a label follows from the target.
        reference_model=lambda texts, labels: 0.2 + 0.6 * y,
    ).fit(TEXTS, y)  # fmt: skip
    ((probs, targets),) = probs_and_targets
    assert probs.shape == (8, max_num_classes)
    reference = 0.2 + 0.6 * targets
    divergence = probs * np.log(probs / reference) + (1 - probs) * np.log((1 - probs) / (1 - reference))
    assert clf.history_[-1, "kl"] == pytest.approx(divergence.sum(axis=1).mean(), rel=1e-4)


# -- value and reference models ------------------------------------------------------------------------------


class WordValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(2000, 1)

    def forward(self, input_ids, attention_mask, **inputs):
        return (self.words(input_ids) * attention_mask.unsqueeze(-1)).sum(1)


def test_module_of_values_is_trained_and_the_users_is_not():
    torch.manual_seed(0)
    module = WordValues()
    before = copy.deepcopy(module.state_dict())
    clf = fitted("multi", {**LONG, "others_lr": 0.05}, value_model=module)
    losses = clf.history_[:, "value_loss"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert same(before, module.state_dict())
    assert not same(before, clf.rl_net_.value_model_.state_dict())
    short = {**LONG, "max_epochs": 1}
    once, again = (fitted("multi", short, value_model=module) for _ in range(2))
    assert same(weights(once), weights(again))


@pytest.mark.parametrize("y", YS)
def test_value_models_of_each_form_work(y):
    values = {
        "another model": supervised(y).model_,
        "regressor": DummyRegressor(strategy="constant", constant=0.9).fit(TEXTS, np.ones(8)),
        "callable": lambda texts: np.array([len(text) / 20 for text in texts]),
    }
    for name, model in values.items():
        clf = fitted(y, value_model=model)
        assert not same(weights(clf), weights(plain(y))), name
        if name == "regressor":
            constant = clf.history_[-1]
    assert "value_loss" not in clf.history_[-1]
    assert constant["advantage"] == pytest.approx(constant["reward"] - 0.9, abs=1e-6)


@pytest.mark.parametrize("y", YS)
def test_reference_models_of_each_form_agree(y):
    """The initial model in each form, which has no divergence without training."""
    start = supervised(y)
    references = [
        start,
        FrozenEstimator(start),
        (start.model_, start.tokenizer_),
        (start.model_, start.tokenizer_, start.label_tokenizer_),
        lambda texts, labels: start.predict_proba(texts)[:, [start.label_names_.index(label) for label in labels]],
    ]
    still = {"lr": 0.0, "others_lr": 0.0, "max_epochs": 1, "batch_size": 8}
    for reference in references:
        clf = fitted(y, still, reference_model=reference)
        assert clf.history_[-1, "kl"] == pytest.approx(0, abs=1e-5)
    sure = np.array([0.98] + [0.01] * (len(start.label_names_) - 1))  # the first label for all texts
    other = fitted(y, still, reference_model=lambda texts, labels: np.tile(sure, (len(texts), 1)))
    assert other.history_[-1, "kl"] > 0.1


@pytest.mark.full
def test_divergence_holds_the_model_back():
    start = supervised("multi")
    near, far = (
        fitted("multi", {**LONG, "kl_beta": beta}, reference_model=start).history_[-1, "kl"] for beta in (10.0, -1)
    )
    assert near < 0.5 * far


def test_table_is_read_by_its_reference():
    import pandas as pd

    table = pd.DataFrame({"a": TEXTS, "b": range(8)})
    start = GLiClassClassifier(**TINY).fit(table, SINGLE)
    clf = classifier({"kl_beta": 0.1}, reference_model=start).fit(table, SINGLE)
    assert np.isfinite(clf.history_[-1, "kl"])


# -- scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("y", YS)
def test_grid_search_sets_options_of_reinforcement(y):
    grid = GridSearchCV(
        classifier(reference_model=fitted(y), value_model=DummyRegressor().fit(TEXTS, np.ones(8))),
        {"rl__cliprange": [0.1, 0.4], "rl__kl_beta": [-1, 0.5]},
        cv=2,
    ).fit(TEXTS, YS[y])
    assert len(grid.cv_results_["params"]) == 4
    assert grid.best_estimator_.rl.cliprange in (0.1, 0.4)


def test_clone_keeps_nested_models():
    reference = fitted()
    clf = classifier({"kl_beta": 0.2}, reference_model=reference, reward_components=[("f1", f1)])
    other = clone(clf)
    assert other.rl is not clf.rl
    assert other.rl.get_params() == clf.rl.get_params()
    assert other.reference_model is reference
    assert other.set_params(rl__kl_beta=0.7).rl.kl_beta == 0.7
    assert clf.rl.kl_beta == 0.2


def test_history_continues_and_depends_on_the_seed():
    a, b, c = fitted("multi"), plain("multi"), fitted("multi", random_state=1)
    assert a.n_iter_ == 3
    assert a.history_[:, "epoch"] == [1, 2, 3]
    assert same(weights(a), weights(b))
    for name in ("reward", "reward_f1", "advantage", "advantage_std", "entropy", "clip_fraction", "policy_loss"):
        assert len(a.history_[:, name]) == 2
        assert a.history_[:, name] == b.history_[:, name]
    assert not same(weights(a), weights(c))
    a.partial_fit(TEXTS, MULTI)
    assert a.n_iter_ == 4
    assert "reward" not in a.history_[-1]


def test_no_supervised_epochs_and_early_stopping():
    clf = fitted("multi", max_epochs=0)
    assert clf.n_iter_ == 2
    clf = fitted("multi", early_stopping=True, validation_fraction=0.25)
    assert np.isfinite(clf.history_[:, "valid_loss"]).all()
    assert len(clf.history_[:, "valid_loss"]) == 3


def test_global_random_state_is_untouched():
    np.random.seed(3)
    torch.manual_seed(3)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    fitted("multi", value_model=WordValues())
    torch.manual_seed(3)
    fitted("single")
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_rl_runs_in_each_dtype(dtype):
    assert np.isfinite(fitted("multi", dtype=dtype).history_[-1, "policy_loss"])


def test_lstm_is_reinforced():
    assert np.isfinite(fitted("single", use_lstm=True).history_[-1, "policy_loss"])


def test_reinforced_classifier_is_pickled_and_saved(tmp_path):
    clf = fitted("multi", {"kl_beta": 0.3}, reference_model=fitted("multi"))
    back = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    assert back.history_[:, "reward"] == clf.history_[:, "reward"]
    with pytest.warns(UserWarning, match=r"\['reference_model'\] cannot be stored as JSON"):
        clf.save_pretrained(tmp_path)
    assert GLiClassClassifier.from_pretrained(tmp_path).rl == clf.rl


# -- errors -------------------------------------------------------------------------------------------


def nan(probs, actions, targets, valid_mask):
    return torch.full((len(actions), 1), torch.nan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_components": [("good", f1), ("bad", nan)]}, "component 'bad' returned nan for 4 of 4 texts"),
        ({"reward_components": {"flat": lambda p, a, t, v: a.sum(1)}}, r"'flat' returned the shape \(4,\)"),
        ({"rl": {"kl_beta": 0.1}}, "kl_beta=0.1 .* reference_model is None"),
        ({"rl": {"threshold": 0.3}}, "threshold=0.3 has no effect here"),
        ({"rl": {"cliprange": 0}}, "'cliprange' parameter of RLTrainerConfig"),
        ({"rl": {"gamma": -2}}, "'gamma' parameter of RLTrainerConfig"),
        ({"rl": {"labels_smoothing": 1.0}}, "'labels_smoothing' parameter of RLTrainerConfig"),
        ({"rl": {"get_actions": "greedy"}}, "'get_actions' parameter of RLTrainerConfig"),
        ({"reference_model": lambda texts, labels: np.ones((2, 2))}, r"the shape \(2, 2\) for 8 texts and 2 labels"),
        ({"reference_model": lambda texts, labels: np.full((8, 2), 7.0)}, "must lie in \\[0, 1\\]"),
        ({"value_model": lambda texts: np.ones(3)}, r"value_model returned the shape \(3,\) for 8 texts"),
        ({"value_model": nn.Linear(1, 1)}, "unexpected keyword argument"),
    ],
)
def test_invalid_options_raise(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fitted("multi", options.pop("rl", ()), **options)


class WideValues(WordValues):
    def forward(self, **inputs):
        return super().forward(**inputs).expand(-1, 3)


def test_value_model_with_a_wrong_shape_raises():
    with pytest.raises(ValueError, match=r"value_model returned \(4, 3\) for a batch of 4 texts"):
        fitted("multi", value_model=WideValues())


def test_invalid_reference_models_raise():
    unfitted = GLiClassClassifier(**TINY)
    with pytest.raises(TypeError, match="is not a fitted GLiClassClassifier"):
        fitted(reference_model=unfitted)
    single = GLiClassClassifier(**TINY).fit(TEXTS, SINGLE)
    with pytest.raises(TypeError, match=r"give the pair \(model, tokenizer\)"):
        fitted(reference_model=single.model_)
    with pytest.raises(ValueError, match="was trained for 'single_label_classification'"):
        fitted("multi", reference_model=single)
    with pytest.raises(ValueError, match=r"does not have the label\(s\) \['law'\]"):
        classifier(reference_model=single).fit(TEXTS, ["sports", "law"] * 4)


@pytest.mark.parametrize("name", ["reward_components", "value_model", "reference_model"])
def test_options_of_rl_without_rl_raise(name):
    value = {"f1": f1} if name == "reward_components" else lambda *args: None
    with pytest.raises(ValueError, match=f"{name} has no effect with rl=None"):
        GLiClassClassifier(**TINY, **{name: value}).fit(TEXTS, SINGLE)


def test_single_label_has_no_threshold():
    with pytest.raises(ValueError, match=r"threshold=0.3 has no effect here.*single_label_classification"):
        fitted("single", {"get_actions": "threshold", "threshold": 0.3})


def test_regression_with_rl_raises():
    model = GLiClassRegressor(**TINY).fit(TEXTS, range(8)).model_
    with pytest.raises(ValueError, match="problem_type='regression'"):
        RLTrainer(model).initialize()
    with pytest.raises(TypeError, match="unexpected keyword argument 'rl'"):
        GLiClassRegressor(rl=RLTrainerConfig())


def test_trainer_takes_its_own_arguments():
    from sklearn_gliclass import TrainingArguments

    with pytest.raises(TypeError, match="RLTrainer takes an RLTrainerConfig, got TrainingArguments"):
        RLTrainer(fitted().model_, TrainingArguments()).initialize()


def test_rewards_add_up():
    clf = fitted("multi", reward_components=[("p", precision), ("r", recall)])
    for row in clf.history_[-2:]:
        assert row["reward"] == pytest.approx(row["reward_p"] + row["reward_r"], rel=1e-6)
