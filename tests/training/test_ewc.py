"""Elastic weight consolidation: Fisher information against its definition, and reduced forgetting."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training import ewc

CLASSES = ["politics", "sports"]
FIRST = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"] * 2
SECOND = ["early rain in town", "dry sun by noon", "rain and wind", "sun and heat"] * 2
LABELS = ["sports", "politics"] * 4
OPTIONS = {**TINY, "random_state": 0, "max_epochs": 8}
SHORT = {**OPTIONS, "max_epochs": 2}


def learn_both(n_calls=8, **hyperparameters):
    """Train two tasks in sequence, and return the loss of the first."""
    clf = GLiClassClassifier(**OPTIONS, **hyperparameters).fit([*FIRST, "rain sun heat"], [*LABELS, "sports"])
    for _ in range(n_calls):
        # The words of the first task now belong to one class.
        clf.partial_fit([f"{text} goal" for text in SECOND], ["politics"] * 8, CLASSES)
    return clf, log_loss(LABELS, clf.predict_proba(FIRST), labels=CLASSES)


@pytest.mark.full
def test_first_task_is_forgotten_less():
    losses = [learn_both(ewc_lambda=value)[1] for value in (0.0, 100.0, 1e5)]
    assert losses[1] < 0.9 * losses[0]
    assert losses[2] < 0.8 * losses[1]


def weights(clf):
    return {name: weight.detach().clone() for name, weight in clf.model_.named_parameters()}


def test_penalty_is_that_of_all_trainings():
    """Steps against plain gradient descent on the loss and a penalty for each earlier training."""
    common = {**OPTIONS, "optim": "sgd", "max_grad_norm": None, "dtype": "float64", "batch_size": 16,
              "weight_decay": 0.0, "lr": 0.1, "others_lr": 0.1}  # fmt: skip
    clf = GLiClassClassifier(**common, ewc_lambda=3.0).fit(FIRST, LABELS)
    trainings = [(8, weights(clf), clf.ewc_["fisher"])]
    for size in (8, 4, 6):
        start = weights(clf)
        free = copy.deepcopy(clf).set_params(ewc_lambda=0.0).partial_fit(SECOND[:size], LABELS[:size])
        free_step = weights(free)
        total = sum(n for n, *_ in trainings)
        clf.partial_fit(SECOND[:size], LABELS[:size])
        for name, after in weights(clf).items():
            gradient = sum(n * 3.0 * fisher[name] * (start[name] - then[name]).numpy() for n, then, fisher in trainings)
            np.testing.assert_allclose(after, free_step[name].numpy() - 0.1 * gradient / total, rtol=1e-8, atol=1e-12)
        assert clf.ewc_["n_rows"] == total + size
        # The information of the last rows, from the mean.
        earlier = {name: sum(n * fisher[name] for n, _, fisher in trainings) for name in start}
        now = {name: (clf.ewc_["fisher"][name] * (total + size) - earlier[name]) / size for name in start}
        trainings.append((size, weights(clf), now))


def test_recorded_penalty_is_the_weighted_distance():
    clf = GLiClassClassifier(**{**SHORT, "ewc_lambda": 3.0}).fit(FIRST, LABELS)
    kept, start = copy.deepcopy(clf.ewc_), weights(clf)
    for name in start:
        np.testing.assert_array_equal(kept["anchor"][name], start[name].numpy())
    clf.partial_fit(SECOND, LABELS)
    after = weights(clf)
    distance = sum((kept["fisher"][name] * (after[name] - start[name]).numpy() ** 2).sum() for name in start)
    assert clf.history_[-1, "ewc_penalty"] == pytest.approx(1.5 * distance, rel=1e-4)


@pytest.mark.parametrize("problem", ["single", "multi", "regression"])
def test_fisher_information_is_the_expected_squared_gradient(problem):
    """Against the exact expectation over all targets, for the logit scale."""
    if problem == "regression":
        clf = GLiClassRegressor(**{**OPTIONS, "max_epochs": 1}, ewc_lambda=1.0).fit(FIRST, np.arange(8.0))
    else:
        y = LABELS if problem == "single" else np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)
        options = {**OPTIONS, "max_epochs": 1, "logit_scale_init_value": 1.0}
        clf = GLiClassClassifier(**options, ewc_lambda=1.0).fit(FIRST, y)
    dataset = dataset_of(clf)
    name = "model.logit_scale"
    estimates = [ewc.fisher_information(clf.net_, dataset, seed)[name] for seed in range(12)]
    logits = clf._logits(FIRST).astype(float)
    scale = float(clf.model_.model.logit_scale.detach())
    slopes = logits / scale  # of the logits by their factor
    if problem == "single":
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        exact = ((p * slopes**2).sum(1) - (p * slopes).sum(1) ** 2).mean()
    elif problem == "multi":
        p = 1 / (1 + np.exp(-logits))
        exact = (p * (1 - p) * slopes**2).sum(1).mean()
    else:
        exact = (slopes**2).sum(1).mean()
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(exact, abs=4 * error + 1e-9)


def dataset_of(clf):
    from sklearn_gliclass.data.dataset import TextDataset

    layout = clf.fitted_.layout()
    n = len(FIRST)
    targets = np.zeros((n, len(clf.label_names_)), np.float32)
    return TextDataset(layout, layout.tokenize(FIRST), targets, np.ones(n, np.float32), targets.shape[1], None, False)


def test_state_is_one_parabola_for_all_trainings():
    class Module(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([value, value]))

    kept = ewc.consolidate(None, {"w": np.array([1.0, 0.0])}, Module(2.0), 30)
    kept = ewc.consolidate(kept, {"w": np.array([5.0, 0.0])}, Module(4.0), 10)
    assert kept["n_rows"] == 40
    assert kept["fisher"]["w"].tolist() == [2.0, 0.0]
    assert kept["anchor"]["w"].tolist() == [(30 * 1 * 2 + 10 * 5 * 4) / (30 * 1 + 10 * 5), 4.0]


def test_state_of_temporarily_frozen_weights_is_kept():
    """Against the sum of the parabolas of all trainings, without those in which a weight was frozen."""

    class Module(torch.nn.Module):
        def __init__(self, **values):
            super().__init__()
            for name, value in values.items():
                setattr(self, name, torch.nn.Parameter(torch.tensor([value])))

    trainings = [
        (30, {"a": 1.0}, {"a": 2.0, "b": 7.0}),
        (10, {"b": 5.0}, {"a": 3.0, "b": 4.0}),
        (20, {"a": 2.0, "b": 1.0}, {"a": 6.0, "b": 8.0}),
        (40, {"a": 3.0}, {"a": 9.0, "b": 0.0}),
    ]
    kept = None
    for n_rows, fisher, values in trainings:
        kept = ewc.consolidate(kept, {name: np.array([f]) for name, f in fisher.items()}, Module(**values), n_rows)
    assert kept["n_rows"] == 100
    for name in ("a", "b"):
        terms = [(n_rows * fisher.get(name, 0.0), values[name]) for n_rows, fisher, values in trainings]
        total = sum(strength for strength, _ in terms)
        assert kept["fisher"][name] == pytest.approx(total / 100)
        assert kept["anchor"][name] == pytest.approx(sum(strength * value for strength, value in terms) / total)


def test_parameters_may_be_unfrozen_between_trainings():
    inside = "model.encoder_model.encoder.layer.0.output.dense.weight"
    clf = GLiClassClassifier(**SHORT, freeze_encoder=True, ewc_lambda=5.0).fit(FIRST, LABELS)
    assert inside not in clf.ewc_["fisher"]
    clf.set_params(freeze_encoder=False).partial_fit(SECOND, LABELS)
    held = copy.deepcopy(clf.ewc_)
    assert held["fisher"][inside].max() > 0
    np.testing.assert_array_equal(held["anchor"][inside], weights(clf)[inside].numpy())
    clf.set_params(freeze_encoder=True).partial_fit(FIRST, LABELS)
    assert clf.ewc_["n_rows"] == 24
    np.testing.assert_allclose(clf.ewc_["fisher"][inside], held["fisher"][inside] * 16 / 24, rtol=1e-6)
    where = held["fisher"][inside] > 0
    np.testing.assert_array_equal(clf.ewc_["anchor"][inside][where], held["anchor"][inside][where])
    assert set(clf.set_params(freeze_encoder=1).partial_fit(SECOND, LABELS).ewc_["fisher"]) == set(weights(clf))


def test_ewc_lambda_zero_has_no_effect():
    plain = GLiClassClassifier(**SHORT).fit(FIRST, LABELS)
    on = GLiClassClassifier(**SHORT, ewc_lambda=1.0).fit(FIRST, LABELS)
    assert not hasattr(plain, "ewc_")
    # The same steps, rounded otherwise: without the callback, the embeddings have sparse gradients.
    np.testing.assert_allclose(plain.predict_proba(FIRST), on.predict_proba(FIRST), rtol=1e-5)
    assert "ewc_penalty" not in on.history_[-1]
    on.partial_fit(SECOND, LABELS)
    assert on.ewc_["n_rows"] == 16
    assert on.fit(FIRST, LABELS).ewc_["n_rows"] == 8
    on.set_params(ewc_lambda=0.0).partial_fit(SECOND, LABELS)
    assert not hasattr(on, "ewc_")


def test_ewc_lambda_set_after_fit_warns():
    clf = GLiClassClassifier(**SHORT, ewc_lambda=1.0).partial_fit(FIRST, LABELS)
    assert "ewc_penalty" in clf.partial_fit(SECOND, LABELS).history_[-1]
    late = GLiClassClassifier(**SHORT).fit(FIRST, LABELS).set_params(ewc_lambda=1.0)
    with pytest.warns(UserWarning, match="ewc_lambda=1.0 has no effect in this call"):
        late.partial_fit(SECOND, LABELS)
    assert "ewc_penalty" in late.partial_fit(FIRST, LABELS).history_[-1]


def test_pickle_goes_on_as_the_original():
    def fitted():
        return GLiClassClassifier(**SHORT, ewc_lambda=5.0).fit(FIRST, LABELS)

    back = pickle.loads(pickle.dumps(fitted()))
    for part in ("fisher", "anchor"):
        for name, values in fitted().ewc_[part].items():
            assert isinstance(back.ewc_[part][name], np.ndarray)
            np.testing.assert_array_equal(back.ewc_[part][name], values)
    assert "ewc_penalty" in back.partial_fit(SECOND, LABELS).history_[-1]


def test_penalty_applies_to_warm_starts_and_rl():
    from sklearn_gliclass import RLTrainerConfig

    rl = RLTrainerConfig(max_epochs=1, lr=2e-3, others_lr=2e-3)
    clf = GLiClassClassifier(**SHORT, warm_start=True, rl=rl, ewc_lambda=5.0).fit(FIRST, LABELS)
    clf.fit(SECOND, LABELS)
    assert len(clf.history_[:, "ewc_penalty"]) == len(clf.history_)
    assert "reward" in clf.history_[-1]


def test_regressor_forgets_less():
    def loss_after(ewc_lambda):
        reg = GLiClassRegressor(**OPTIONS, ewc_lambda=ewc_lambda).fit(FIRST, [1.0, -1.0] * 4)
        for _ in range(4):
            reg.partial_fit([f"{text} goal vote" for text in SECOND], [2.0] * 8)
        return np.square(reg.predict(FIRST) - [1.0, -1.0] * 4).mean()

    assert loss_after(1e4) < 0.8 * loss_after(0.0)


def test_seed_decides_and_the_global_state_is_untouched():
    state = torch.random.get_rng_state()
    a, b = (learn_both(n_calls=2, ewc_lambda=10.0)[0] for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(a.predict_proba(FIRST), b.predict_proba(FIRST))
