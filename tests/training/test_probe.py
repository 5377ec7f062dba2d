"""Label probe, compared with scipy, scikit-learn and brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.metrics import f1_score
from tiny_estimators import LABELS, TEXTS

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.cache import engine
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training import probe, stages
from sklearn_gliclass.training.label_path import LabelPath
from sklearn_gliclass.training.probe import ProbeData, fit_label_probe

WIDTH = 4
MULTI = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)


def clouds(n=40, n_labels=3, spread=0.6, seed=0, multi_label=False):
    """Texts around the directions of their labels, and names that are near these."""
    rng = np.random.RandomState(seed)
    centres = np.linalg.qr(rng.randn(WIDTH, WIDTH))[0][:n_labels]
    classes = rng.randint(n_labels, size=n)
    targets = np.eye(n_labels)[classes]
    if multi_label:
        targets = np.maximum(targets, np.eye(n_labels)[rng.randint(n_labels, size=n)])
    texts = targets @ centres + spread * rng.randn(n, WIDTH)
    names = centres + 0.3 * rng.randn(n_labels, WIDTH)
    tensors = [torch.from_numpy(array) for array in (texts, targets, rng.uniform(0.5, 2, (n, 1)), names)]
    return ProbeData(F.normalize(tensors[0], dim=1), *tensors[1:3], multi_label), F.normalize(tensors[3], dim=1)


def negative_log_posterior(vector, data, names, strength, margin=0.0):
    """The formula of the module's docstring, in NumPy."""
    texts, targets, weights, names = (t.numpy() for t in (data.texts, data.targets, data.weights, names))
    labels = vector.reshape(names.shape)
    labels = labels / np.linalg.norm(labels, axis=1, keepdims=True)
    logits = probe.FITTED_SCALE * (texts @ labels.T - margin)
    if data.multi_label:
        p = expit(logits)
        losses = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1)
    else:
        losses = -(targets * log_softmax(logits, axis=1)).sum(axis=1)
    return (weights[:, 0] * losses).sum() - 2 * strength * (labels * names).sum()


def fit_labels(data, names, strength, margin=0.0, seen=None):
    seen = torch.ones(1, len(data.texts), dtype=torch.float64) if seen is None else seen
    labels, margins = LabelPath(data, seen, names, probe.FITTED_SCALE, margin).fit(strength, n_steps=40)
    return labels[0], float(margins[0])


@pytest.mark.parametrize("strength", [100.0, 3.0, 0.3])
def test_labels_maximise_the_posterior(strength):
    data, names = clouds()
    labels, _ = fit_labels(data, names, strength)
    expected = minimize(negative_log_posterior, names.numpy().ravel(), args=(data, names, strength), tol=1e-10)
    expected = F.normalize(torch.from_numpy(expected.x).view_as(names), dim=1)
    np.testing.assert_allclose(labels, expected, atol=2e-3)


def test_multi_label_labels_and_margin_maximise_the_posterior():
    data, names = clouds(multi_label=True)
    labels, margin = fit_labels(data, names, 3.0, margin=0.3)

    def loss(vector):
        return negative_log_posterior(vector[:-1], data, names, 3.0, vector[-1])

    expected = minimize(loss, np.append(names.numpy().ravel(), 0.3), tol=1e-10)
    np.testing.assert_allclose(margin, expected.x[-1], atol=2e-3)
    np.testing.assert_allclose(labels, F.normalize(torch.from_numpy(expected.x[:-1]).view_as(names), dim=1), atol=5e-3)


def test_equal_data_has_one_fit(monkeypatch):
    """The last results are kept, up to a number of bytes, and every part of the data counts."""
    fits, original = [], probe._fit_and_cross_validate
    monkeypatch.setattr(probe, "_kept", {})
    monkeypatch.setattr(probe, "_fit_and_cross_validate", lambda *args: fits.append(args) or original(*args))
    data, names = clouds()
    first = fit_label_probe(data, names)
    assert fit_label_probe(data.take(np.arange(40)), names.clone()) is first
    assert len(fits) == 1
    heavier = replace(data, weights=2 * data.weights)
    others = [(data.take(np.arange(39)), names), (data, names.flip(0)), (heavier, names)]
    for number, other in enumerate(others, start=2):
        assert not torch.equal(fit_label_probe(*other).labels, first.labels)
        assert len(fits) == number
    monkeypatch.setattr(probe, "KEPT_BYTES", 2 * first.labels.nbytes)
    fit_label_probe(data, names)  # the last one
    fit_label_probe(*others[2])
    assert (len(fits), len(probe._kept)) == (4, 2)
    fit_label_probe(*others[0])
    assert (len(fits), len(probe._kept)) == (5, 2)


@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_of_a_fold_are_not_seen(multi_label):
    data, names = clouds(multi_label=multi_label)
    seen = torch.from_numpy((np.arange(40) % 3 != 0).astype(float))
    labels, margin = fit_labels(data, names, 3.0, 0.3, torch.stack([seen, torch.ones_like(seen)]))
    alone = fit_labels(data.take(np.flatnonzero(seen)), names, 3.0, 0.3)
    np.testing.assert_allclose(labels, alone[0], atol=1e-3)
    np.testing.assert_allclose(margin, alone[1], atol=1e-3)


def test_no_step_increases_the_loss():
    data, names = clouds()
    path = LabelPath(data, torch.ones(1, 40, dtype=torch.float64), names, probe.FITTED_SCALE, 0.0)
    losses = []
    for _ in range(6):
        labels, _ = path.fit(5.0, n_steps=1)
        losses.append(negative_log_posterior(labels.numpy().ravel(), data, names, 5.0))
    assert all(np.diff(losses) <= 1e-6 * np.abs(losses[0]))


def test_few_texts_stay_near_the_names_and_many_move_away():
    angles = []
    for n in (3, 300):
        data, names = clouds(n)
        fitted = fit_label_probe(data, names)
        angles.append(float((fitted.labels * names).sum(dim=1).mean()))
        assert fitted.strength > 0
    assert angles[0] > 0.97
    assert angles[1] < angles[0] - 0.01


def test_texts_that_contradict_the_names_win():
    data, names = clouds(300)
    wrong = names[[1, 2, 0]]
    fitted = fit_label_probe(data, wrong)
    predicted = (data.texts @ fitted.labels.T).argmax(dim=1)
    assert (predicted == data.targets.argmax(dim=1)).double().mean() > 0.75
    assert fitted.strength < 20


def test_scale_follows_the_texts():
    """Classes drawn from ``softmax(scale * cosines)``: many texts tell the scale in spite of its prior."""
    rng = np.random.RandomState(0)
    names = torch.eye(3, dtype=torch.float64)
    texts = F.normalize(torch.from_numpy(rng.randn(2000, 3)), dim=1)
    scales = []
    for scale in (5.0, 20.0):
        p = (scale * texts @ names.T).softmax(dim=1).numpy()
        classes = np.array([rng.choice(3, p=row) for row in p])
        data = ProbeData(texts, torch.eye(3, dtype=torch.float64)[classes], torch.ones(2000, 1, dtype=torch.float64))
        scales.append(fit_label_probe(data, names).scale)
    assert scales[1] == pytest.approx(20, rel=0.2)
    assert scales[0] < 0.6 * scales[1]


def test_margin_has_the_highest_micro_f1():
    data, names = clouds(60, multi_label=True)
    cosines = data.texts @ names.T
    weights = data.weights.expand(-1, 3).numpy().ravel()

    def score(margin):
        return f1_score(data.targets.numpy().ravel(), (cosines >= margin).numpy().ravel(), sample_weight=weights)

    assert score(probe._best_margin(data, cosines)) == pytest.approx(max(map(score, probe.MARGINS)))


def test_margin_of_f1_is_below_that_of_the_likelihood_for_rare_labels():
    rng = np.random.RandomState(0)
    targets = torch.from_numpy((rng.rand(400, 3) < 0.08).astype(float))
    names = torch.eye(WIDTH, dtype=torch.float64)[:3]
    texts = F.normalize(targets @ names + 0.7 * torch.from_numpy(rng.randn(400, WIDTH)), dim=1)
    fitted = fit_label_probe(ProbeData(texts, targets, torch.ones(400, 1, dtype=torch.float64), True), names)
    assert fitted.margin < fitted.likely_margin


# -- in the classifier ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    GLiClassClassifier(**{**TINY, "max_epochs": 20}, random_state=0).fit(TEXTS, LABELS).save_pretrained(folder)
    return str(folder)


def fit(checkpoint, texts=TEXTS, y=LABELS, sample_weight=None, **hyperparameters):
    clf = GLiClassClassifier(pretrained=checkpoint, random_state=0, **hyperparameters)
    return clf.fit(texts, y, sample_weight=sample_weight)


def test_frozen_fit_is_the_probe_on_the_embeddings(checkpoint):
    """The logits are the scaled cosines of the probe that is fitted to `transform` and the label names."""
    clf = fit(checkpoint, preset="fast")
    texts = F.normalize(torch.from_numpy(clf.transform(TEXTS)), dim=1)  # the projectors are the identity
    start = fit(checkpoint, max_epochs=0).model_.model
    names = F.normalize(start.classes_projector(torch.from_numpy(clf.transform(list(clf.classes_)))), dim=1).detach()
    texts = F.normalize(start.text_projector(torch.from_numpy(clf.transform(TEXTS))), dim=1).detach()
    order = sorted(range(len(TEXTS)), key=lambda row: clf.fitted_.layout().tokenize([TEXTS[row]])[0].tobytes())
    targets = torch.from_numpy(np.eye(2, dtype=np.float32)[np.searchsorted(clf.classes_, LABELS)])
    expected = fit_label_probe(ProbeData(texts[order], targets[order], torch.ones(len(TEXTS), 1)), names)
    logits = expected.scale * texts @ expected.labels.T
    np.testing.assert_allclose(clf.predict_proba(TEXTS), logits.softmax(dim=1), atol=2e-3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    clf = GLiClassClassifier(**{**TINY, "max_epochs": 20}, random_state=0).fit(TEXTS, LABELS)
    clf.model_.encoder.save_pretrained(folder)
    clf.tokenizer_.save_pretrained(folder)
    return str(folder)


def fit_frozen(encoder, y=LABELS, **hyperparameters):
    clf = GLiClassClassifier(encoder_model=encoder, freeze_encoder=True, random_state=0, **hyperparameters)
    return clf.fit(TEXTS, y)


@pytest.mark.parametrize(("scorer", "tolerance"), [("weighted-dot", 1e-4), ("mlp", 1e-4), ("hopfield", 0.02)])
def test_frozen_scorers_start_from_the_label_probe(encoder, scorer, tolerance):
    """Without a training, the probabilities are those of the scorer "simple"."""
    expected = fit_frozen(encoder).predict_proba(TEXTS)
    clf = fit_frozen(encoder, scorer_type=scorer)
    assert clf.n_iter_ == 0
    np.testing.assert_allclose(clf.predict_proba(TEXTS), expected, atol=tolerance)
    if scorer != "hopfield":
        expected = fit_frozen(encoder, MULTI).predict_proba(TEXTS)
        np.testing.assert_allclose(
            fit_frozen(encoder, MULTI, scorer_type=scorer).predict_proba(TEXTS), expected, atol=1e-4
        )


@pytest.mark.parametrize(("scorer", "tolerance"), [("weighted-dot", 0.01), ("mlp", 0.01), ("hopfield", 0.1)])
def test_fine_tuned_scorers_stay_at_the_cosine_unless_their_rate_is_set(encoder, scorer, tolerance):
    """The steps are then those of the scorer "simple", whose texts move."""
    fine_tuning = {"encoder_model": encoder, "max_epochs": 3, "lr": 1e-3, "random_state": 0}
    expected = GLiClassClassifier(**fine_tuning).fit(TEXTS, LABELS).decision_function(TEXTS)
    assert np.abs(expected / fit_frozen(encoder).decision_function(TEXTS) - 1).min() > 0.2
    clf = GLiClassClassifier(**fine_tuning, scorer_type=scorer).fit(TEXTS, LABELS)
    assert clf.n_iter_ == 3
    np.testing.assert_allclose(clf.decision_function(TEXTS), expected, rtol=tolerance)
    trained = GLiClassClassifier(**fine_tuning, scorer_type=scorer, others_lr=1e-2).fit(TEXTS, LABELS)
    assert not torch.allclose(parameters(trained.model_.model.scorer), parameters(clf.model_.model.scorer), atol=1e-3)


def parameters(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_mlp_after_a_probe_raises_for_new_labels(encoder):
    clf = fit_frozen(encoder, scorer_type="mlp")
    first, *_ = clf.classes_
    with pytest.raises(ValueError, match=r"knows the labels of its fit only.*'opera'.*weighted-dot"):
        clf.with_labels([first, "opera"])
    known = clf.with_labels(clf.classes_[::-1])
    np.testing.assert_allclose(known.predict_proba(TEXTS)[:, ::-1], clf.predict_proba(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("y", "hyperparameters"),
    [
        (LABELS, {"scorer_type": "mlp", "projector_init": "normal"}),
        (LABELS, {"scorer_type": "hopfield", "scorer_mlp_hidden_size": 8}),
        (MULTI, {"scorer_type": "hopfield"}),
        (LABELS, {"scorer_type": "weighted-dot", "use_lstm": True}),
    ],
)
def test_scorers_that_cannot_start_from_the_probe_are_trained(encoder, y, hyperparameters):
    assert fit_frozen(encoder, y, **hyperparameters).n_iter_ > 0


@pytest.mark.parametrize("scorer", ["simple", "mlp"])
def test_heads_are_trained_no_further_than_held_out_rows_gain(encoder, scorer):
    """At an absurd learning rate, that is not at all."""
    start = fit_frozen(encoder, scorer_type=scorer).predict_proba(TEXTS)
    wild = fit_frozen(encoder, scorer_type=scorer, others_lr=100.0, max_epochs=2)
    assert (wild.n_iter_, wild.training_args_.batch_size) == (2, 256)
    np.testing.assert_allclose(wild.predict_proba(TEXTS), start, atol=1e-4)


def test_frozen_fits_share_an_encoder_until_one_is_trained(encoder):
    first, second = fit_frozen(encoder), fit_frozen(encoder, scorer_type="mlp")
    weights = [clf.model_.encoder.get_input_embeddings().weight for clf in (first, second)]
    assert weights[0].data_ptr() == weights[1].data_ptr()
    before = second.predict_proba(TEXTS)
    first.set_params(freeze_encoder=False).partial_fit(TEXTS, LABELS)
    assert not torch.equal(first.model_.encoder.get_input_embeddings().weight, weights[1])
    np.testing.assert_array_equal(second.predict_proba(TEXTS), before)


@pytest.mark.parametrize("y", [[*LABELS[1:], LABELS[0]], MULTI])
def test_frozen_fit_does_not_depend_on_order_or_seed_and_weights_are_repetitions(checkpoint, y):
    y = np.asarray(y)
    base = fit(checkpoint, y=y, preset="fast").decision_function(TEXTS)
    order = np.random.RandomState(0).permutation(len(TEXTS))
    texts = np.array(TEXTS)
    shuffled = fit(checkpoint, texts[order], y[order], preset="fast")
    np.testing.assert_allclose(shuffled.decision_function(TEXTS), base, rtol=1e-3, atol=1e-3)
    weight = np.array([3, 1, 1, 2, 1, 1, 1, 1])
    rows = np.repeat(np.arange(8), weight)
    weighted = fit(checkpoint, y=y, sample_weight=weight, preset="fast").decision_function(TEXTS)
    repeated = fit(checkpoint, texts[rows], y[rows], preset="fast").decision_function(TEXTS)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-3, atol=1e-3)
    assert not np.allclose(weighted, base, rtol=1e-2)


def test_fine_tuning_keeps_the_label_embeddings(checkpoint):
    """After the training, the changed encoder's label names are mapped to the same directions."""
    clf, start = (fit(checkpoint, max_epochs=n, lr=1e-3) for n in (5, 0))

    def directions(model, states):
        with torch.no_grad():
            return F.normalize(model.model.classes_projector(states), dim=1)

    inputs = clf.fitted_.layout().label_inputs([np.arange(2)])
    inputs = {name: torch.as_tensor(array) for name, array in inputs.items()}
    with torch.no_grad():
        now, before = (model.model.pool_labels(**inputs) for model in (clf.model_, start.model_))
    assert not torch.allclose(now, before, atol=1e-2)
    probed = fit(checkpoint, preset="fast").model_
    names, fitted = directions(start.model_, before), directions(probed, before)
    expected = F.normalize(names + fitted, dim=1)
    np.testing.assert_allclose(directions(clf.model_, now), expected, atol=1e-3)


def test_fine_tuned_weights_are_averaged_with_those_before(checkpoint, monkeypatch):
    averaged, start = (fit(checkpoint, max_epochs=n, lr=1e-3).model_ for n in (5, 0))
    monkeypatch.setattr(stages, "fine_tuned_share", lambda n_rows: 1.0)
    trained = fit(checkpoint, max_epochs=5, lr=1e-3).model_
    share = 1 / (1 + np.sqrt(24 / len(TEXTS)))
    weights = {name: dict(model.model.named_parameters()) for name, model in
               {"averaged": averaged, "start": start, "trained": trained}.items()}  # fmt: skip
    changed = 0
    for name, weight in weights["averaged"].items():
        if "classes_projector" in name or "logit_scale" in name:  # they are set after the training
            continue
        before, after = (weights[model][name].detach() for model in ("start", "trained"))
        np.testing.assert_allclose(weight.detach(), before + share * (after - before), atol=1e-5, err_msg=name)
        changed += not torch.equal(before, after)
    assert changed


def test_cached_lower_layers_train_the_same(checkpoint, monkeypatch):
    cached = fit(checkpoint, freeze_encoder=1, max_epochs=3, lr=1e-3)
    monkeypatch.setattr(engine, "MAX_LOWER_BYTES", 0)
    plain = fit(checkpoint, freeze_encoder=1, max_epochs=3, lr=1e-3)
    untrained = fit(checkpoint, max_epochs=0)
    for name, weight in plain.model_.state_dict().items():
        np.testing.assert_allclose(cached.model_.state_dict()[name], weight, atol=2e-5, err_msg=name)
    layers = "model.encoder_model.encoder.layer."
    weights = [clf.model_.state_dict() for clf in (cached, untrained)]
    for number, same in ((0, True), (1, False)):
        name = f"{layers}{number}.output.dense.weight"
        assert torch.equal(weights[0][name], weights[1][name]) == same


def test_multi_label_fit_has_an_offset_from_the_start(checkpoint):
    clf = fit(checkpoint, y=MULTI, preset="fast")
    assert clf.logit_offset_ > 0
    assert f1_score(MULTI, clf.predict(TEXTS), average="micro") > 0.6
    probabilities = clf.predict_proba(TEXTS)
    assert 0.05 < probabilities.mean() < 0.95


def test_unknown_labels_have_no_effect_on_the_probe(checkpoint):
    known, unknown = MULTI.copy(), MULTI.copy()
    unknown[0, 1] = -100
    results = [fit(checkpoint, y=y, preset="fast").decision_function(TEXTS) for y in (known, unknown)]
    assert not np.allclose(*results, atol=1e-4)


def test_failing_warm_start_restores_the_logit_offset(checkpoint):
    class InterruptError(RuntimeError):
        pass

    from skorch.callbacks import Callback

    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise InterruptError

    clf = fit(checkpoint, y=MULTI, max_epochs=1, warm_start=True)
    before = clf.decision_function(TEXTS), clf.logit_offset_
    with pytest.raises(InterruptError):
        clf.set_params(callbacks=[Failing()]).fit(TEXTS, 1 - MULTI)
    np.testing.assert_array_equal(clf.decision_function(TEXTS), before[0])
    assert clf.logit_offset_ == before[1]


def test_scale_after_fine_tuning_grows_with_the_logarithm_of_the_labels():
    found = [probe.fine_tuned_scale(n_labels) for n_labels in (1, 2, 77)]
    np.testing.assert_allclose(found, 8.4 + 2.4 * np.log([1, 2, 77]))
