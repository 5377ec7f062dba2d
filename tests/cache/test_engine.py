"""Frozen encoders: training on cached hidden states equals training on token ids, and encoders do not change."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sampling import sampled
from sklearn.base import clone
from skorch.callbacks import EpochScoring
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass import GLiClassRegressor, RLTrainerConfig, Trainer
from sklearn_gliclass.cache.engine import StateEngine
from sklearn_gliclass.cache.states import StateDataset
from sklearn_gliclass.testing import TINY

# Plain gradient descent: Adam would amplify rounding errors of zero gradients.
EXACT = {"dtype": "float64", "shuffle_labels": False, "optim": "sgd", "others_lr": 0.05, "max_epochs": 3}
EXACT_BUT_FOR_RATES = {"dtype": "float64", "shuffle_labels": False}
MULTI = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]] * 2)
# What the heads read in each case: pooled texts, their tokens, all layers.
HEADS = [
    {},
    {"scorer_type": "weighted-dot", "normalize_features": False},
    {"scorer_type": "hopfield", "pooling_strategy": "max", "projector_init": "normal"},
    {"use_lstm": True},
    {"squeeze_layers": True},
    {"layer_wise": True},
    {"layer_wise": True, "use_lstm": True},
    {"encoder_layer_id": 1, "contrastive_loss_coef": 0.5},
]


def on_texts(monkeypatch, clf, y):
    """Fit on token ids instead: the encoders run in each step, without gradients."""
    with monkeypatch.context() as patch:
        patch.setattr(StateEngine, "freeze", lambda self, dataset, group: dataset)
        return clone(clf).fit(TEXTS, y)


def assert_same_weights(one, other, **tolerance):
    expected = other.model_.state_dict()
    for name, tensor in one.model_.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


DECODER_HEADS = [{}, {"recurrent_steps": 3}, {"recurrent_steps": 2, "recurrent_read_text": True}]


def heads_of(architecture):
    """Heads without those that the architecture does not have."""
    if architecture == "decoder-kv":
        return DECODER_HEADS
    without_pooling = architecture == "encoder-decoder-cls"
    return [options for options in HEADS if not (without_pooling and "pooling_strategy" in options)]


@pytest.mark.parametrize(
    ("architecture", "options"),
    sampled([(architecture, options) for architecture in ARCHITECTURES for options in heads_of(architecture)], 11),
    ids=str,
)
def test_frozen_fit_equals_training_on_the_texts(architecture, options, monkeypatch):
    clf = tiny_of(architecture, freeze_encoder=True, batch_size=3, **EXACT, **options)
    frozen = clone(clf).fit(TEXTS, LABELS)
    assert_same_weights(frozen, on_texts(monkeypatch, clf, LABELS), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("architecture", ["uni-encoder", "encoder-decoder"])
def test_cross_attention_reads_cached_tokens(architecture, monkeypatch):
    clf = tiny_of(
        architecture, freeze_encoder=True, scorer_type="cross-attn", pooling_strategy="pass", scorer_attn_dropout=0.0,
        **EXACT,
    )  # fmt: skip
    assert_same_weights(clone(clf).fit(TEXTS, LABELS), on_texts(monkeypatch, clf, LABELS), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_first": True, "extract_text_features": True},
        {"extract_text_features": True, "use_lstm": True},
        {"class_token_pooling": "average"},
        {"embed_class_token": False, "squeeze_layers": True},
    ],
    ids=str,
)
def test_equal_for_the_options_of_a_prompt(options, monkeypatch):
    clf = tiny_of("uni-encoder", freeze_encoder=True, **EXACT, **options)
    assert_same_weights(clone(clf).fit(TEXTS, LABELS), on_texts(monkeypatch, clf, LABELS), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder"])
@pytest.mark.parametrize(
    ("y", "options"),
    [
        (MULTI, {"class_weight": "balanced"}),
        (MULTI / MULTI.sum(axis=1, keepdims=True), {}),
        (LABELS, {"early_stopping": True, "validation_fraction": 0.25, "gradient_accumulation_steps": 2}),
    ],
    ids=["multi-label", "soft labels", "early stopping"],
)
def test_equal_for_each_kind_of_y(architecture, y, options, monkeypatch):
    clf = tiny_of(architecture, freeze_encoder=True, batch_size=3, **EXACT, **options)
    frozen, plain = clone(clf).fit(TEXTS, y), on_texts(monkeypatch, clf, y)
    assert_same_weights(frozen, plain, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(frozen.history_[:, "train_loss"], plain.history_[:, "train_loss"], rtol=1e-7)


def test_equal_with_sampled_labels(monkeypatch):
    labels = [f"topic {i}" for i in range(8)]
    clf = tiny(freeze_encoder=True, max_num_classes=4, batch_size=2, scorer_type="mlp", **EXACT)
    assert_same_weights(clone(clf).fit(TEXTS, labels), on_texts(monkeypatch, clf, labels), rtol=1e-7, atol=1e-9)


def test_dot_product_sees_all_labels(monkeypatch):
    labels = [f"topic {i}" for i in range(8)]
    few, all_of_them = (
        tiny(freeze_encoder=True, max_num_classes=n, batch_size=2, **EXACT).fit(TEXTS, labels) for n in (4, 8)
    )
    assert_same_weights(few, all_of_them, rtol=0, atol=0)


def test_regression_equals_training_on_the_texts():
    y = np.column_stack([np.arange(8.0), np.arange(8.0) ** 2])
    reg = GLiClassRegressor(**{**TINY, **EXACT}, random_state=0, freeze_encoder=True, label_names=["a", "b"])
    frozen = clone(reg).fit(TEXTS, y, sample_weight=np.arange(1.0, 9.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateEngine, "freeze", lambda self, dataset, group: dataset)
        plain = clone(reg).fit(TEXTS, y, sample_weight=np.arange(1.0, 9.0))
    np.testing.assert_allclose(frozen.predict(TEXTS), plain.predict(TEXTS), rtol=1e-7)


def test_equal_to_a_plain_loop():
    """Projectors, cosine and scale in plain torch, on the hidden states of one text after the other."""
    constant = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0, "max_grad_norm": None}
    options = {**EXACT, **constant, "max_epochs": 7, "batch_size": 8, "text_contrastive_loss_coef": 0,
               "label_centroid_share": 0}  # fmt: skip
    clf = tiny(freeze_encoder=True, **options)
    trained = clone(clf).fit(TEXTS, LABELS)
    start = clone(clf).set_params(max_epochs=0).fit(TEXTS, LABELS)
    heads = start.model_.model

    def states(texts, tokenizer, encoder):
        with torch.no_grad():
            ids = [tokenizer(text, return_tensors="pt").input_ids for text in texts]
            return torch.cat([encoder(input_ids=row).last_hidden_state.mean(dim=1) for row in ids])

    x = states(TEXTS, start.tokenizer_, heads.encoder_model)
    with torch.no_grad():  # the projector of the label encoder is frozen
        labels = heads.biencoder_projector(states(["politics", "sports"], start.label_tokenizer_, heads.label_encoder))
    y = torch.tensor([1] * 4 + [0] * 4)
    projectors = [heads.text_projector, heads.classes_projector]
    parameters = [heads.logit_scale, *(p for projector in projectors for p in projector.parameters())]
    optimizer = torch.optim.SGD(parameters, lr=clf.others_lr)
    for _ in range(7):
        text = F.normalize(heads.text_projector(x), dim=-1)
        classes = F.normalize(heads.classes_projector(labels), dim=-1)
        optimizer.zero_grad()
        F.cross_entropy(heads.logit_scale * text @ classes.T, y).backward()
        optimizer.step()
    np.testing.assert_allclose(trained.decision_function(TEXTS), start.decision_function(TEXTS), rtol=1e-7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_training_uses_the_prompts_of_prediction(architecture):
    """Training uses all labels in the prompts of prediction, so that its logits are those of prediction."""
    labels = ["a", "b b", "c", "d d", "e", "a", "c", "e"]
    clf = tiny_of(architecture, freeze_encoder=True, max_num_classes=2, **EXACT).fit(TEXTS, labels)
    data = clf.fitted_.engine(separate_passes=True).freeze(text_data(clf, labels))
    assert isinstance(data, StateDataset)
    batch = next(data.batches(8, None)) if architecture != "bi-encoder" else next(data.evaluation_batches(8))
    with torch.no_grad():
        parts = [batch.inputs] if architecture != "bi-encoder" else batch.chunks
        logits = torch.cat([clf.model_(**inputs).logits for inputs in parts], dim=1)
    np.testing.assert_allclose(logits.numpy(), clf.decision_function([TEXTS[row] for row in batch.rows]), atol=1e-9)
    untrained = clone(clf).set_params(max_epochs=0).fit(TEXTS, labels)
    assert not np.allclose(untrained.decision_function(TEXTS), clf.decision_function(TEXTS))
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < losses[0]


def text_data(clf, labels, texts=TEXTS):
    from sklearn_gliclass.data.dataset import TextDataset

    layout = clf.fitted_.layout()
    targets = np.searchsorted(clf.classes_, labels)
    return TextDataset(layout, layout.tokenize(texts), targets, np.ones(len(labels)), len(clf.classes_), 2, False)


def test_processes_that_encode_the_same_texts_share_the_work(tmp_path, monkeypatch):
    """Two that look for cached hidden states at the same time before each batch still encode few texts twice."""
    clf = tiny(freeze_encoder=True).fit(TEXTS, LABELS)
    texts = [f"text {row}" for row in range(200)]
    data = text_data(clf, (LABELS * 50)[:200], texts)
    step, counts, original = threading.Barrier(2), [], StateEngine._encode

    def encode(self, tokens, rows, *args):
        with contextlib.suppress(threading.BrokenBarrierError):
            step.wait(timeout=60)
        counts.append(len(rows))
        return original(self, tokens, rows, *args)

    def freeze(_):
        options = {"separate_passes": True, "memory": str(tmp_path), "max_batch_tokens": 20}
        data_of_states = clf.fitted_.engine(**options).freeze(data)
        step.abort()  # the other one continues alone
        return data_of_states

    monkeypatch.setattr(StateEngine, "_encode", encode)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(freeze, range(2)))
    assert len(counts) > 20
    assert 200 <= sum(counts) < 300


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encoders_do_not_change(architecture):
    clf = tiny_of(architecture, freeze_encoder=True)
    before = clone(clf).set_params(max_epochs=0).fit(TEXTS, LABELS).model_
    after = clf.fit(TEXTS, LABELS).model_
    frozen = {name for module in before.encoder_modules() for name in map(id, module.parameters())}
    heads = {"bi-encoder": ["biencoder_projector"], "bi-encoder-fused": ["biencoder_projector", "classes_projector"]}
    for head in heads.get(architecture, []):
        frozen |= {id(parameter) for parameter in getattr(before.model, head).parameters()}
    moved = 0
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        same = torch.equal(old, new)
        assert same or id(old) not in frozen, name
        moved += not same
    assert moved > 3
    in_optimizer = {id(p) for group in clf.net_.optimizer_.param_groups for p in group["params"]}
    encoders = {id(p) for module in after.encoder_modules() for p in module.parameters()}
    assert not in_optimizer & encoders


def test_each_distinct_text_is_encoded_once(monkeypatch):
    rows = []
    original = StateEngine._encode

    def note(self, tokens, missing, *args):
        rows.extend(missing)
        return original(self, tokens, missing, *args)

    monkeypatch.setattr(StateEngine, "_encode", note)
    assert tiny(freeze_encoder=True).fit([*TEXTS, *TEXTS], [*LABELS, *LABELS]).n_iter_ == 3
    assert len(rows) == len(set(TEXTS))
    rows.clear()
    tiny(freeze_encoder=True, max_epochs=0).fit(TEXTS, LABELS)
    assert not rows


def test_frozen_training_supports_callbacks_and_history():
    scoring = EpochScoring("accuracy", lower_is_better=False)
    clf = tiny(
        freeze_encoder=True, early_stopping=True, validation_fraction=0.25, n_iter_no_change=9, max_epochs=4,
        callbacks=[("accuracy", scoring)],
    ).fit(TEXTS, LABELS)  # fmt: skip
    assert isinstance(clf.net_, Trainer)
    for name in ("train_loss", "valid_loss", "others_lr", "accuracy"):
        assert np.isfinite(clf.history_[:, name]).all()
    assert clf.history_[:, "lr"] == [0.0] * 4
    valid = clf.net_.valid
    assert (clf.net_.predict(valid) == valid.targets).mean() == clf.history_[-1, "accuracy"]


def test_reinforcement_on_cached_states(monkeypatch):
    rl = RLTrainerConfig(max_epochs=3, others_lr=0.01, optim="sgd")
    clf = tiny(freeze_encoder=True, max_epochs=0, rl=rl, **EXACT_BUT_FOR_RATES)
    frozen = clone(clf).fit(TEXTS, MULTI)
    assert_same_weights(frozen, on_texts(monkeypatch, clf, MULTI), rtol=1e-7, atol=1e-9)
    start = clone(clf).set_params(rl=None).fit(TEXTS, MULTI)
    assert not torch.equal(frozen.model_.model.text_projector.linear_2.weight,
                           start.model_.model.text_projector.linear_2.weight)  # fmt: skip
    with pytest.raises(ValueError, match="value_model is a torch module, which takes token ids"):
        clone(clf).set_params(value_model=torch.nn.Linear(1, 1)).fit(TEXTS, MULTI)


def test_elastic_weights_on_cached_states():
    clf = tiny(freeze_encoder=True, ewc_lambda=1.0).partial_fit(TEXTS, LABELS).partial_fit(TEXTS, LABELS)
    assert not any("encoder_model" in name for name in clf.ewc_["fisher"])
    assert clf.history_[-1, "ewc_penalty"] >= 0


def test_partial_fit_continues_on_cached_states():
    clf = tiny(freeze_encoder=True).partial_fit(TEXTS, LABELS)
    before = clf.decision_function(TEXTS)
    assert clf.partial_fit(TEXTS, LABELS).n_iter_ == 2
    assert not np.allclose(clf.decision_function(TEXTS), before)


def test_unfreezing_trains_all_weights():
    clf = tiny(freeze_encoder=True, warm_start=True).fit(TEXTS, LABELS)
    before = {name: tensor.clone() for name, tensor in clf.model_.state_dict().items()}
    clf.set_params(freeze_encoder=False).fit(TEXTS, LABELS)
    after = clf.model_.state_dict()
    name = "model.encoder_model.encoder.layer.0.output.dense.weight"
    assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize("how", [True, "embeddings", 1])
def test_partial_fit_follows_changes_of_freeze_encoder(how):
    """The optimiser continues with the unfrozen weights, and without the frozen ones."""
    clf = tiny(freeze_encoder=how, **EXACT_BUT_FOR_RATES).fit(TEXTS, LABELS)
    whole = tiny(**EXACT_BUT_FOR_RATES).fit(TEXTS, LABELS)
    frozen = moved_by(clf, freeze_encoder=how)
    thawed = moved_by(clf, freeze_encoder=False)
    assert thawed == moved_by(whole)
    assert frozen < thawed
    assert moved_by(clf, freeze_encoder=how) == frozen


def moved_by(clf, **hyperparameters) -> set[str]:
    before = {name: weight.detach().clone() for name, weight in clf.model_.named_parameters()}
    clf.set_params(**hyperparameters).partial_fit(TEXTS, LABELS)
    # Gradients that are not reset would accumulate, and affect the norm of gradient clipping.
    assert all(weight.grad is None for weight in clf.model_.parameters())
    return {name for name, weight in clf.model_.named_parameters() if not torch.equal(weight, before[name])}


def test_unfrozen_weights_are_trained_at_the_encoder_rate():
    clf = tiny(freeze_encoder=True, lr=0.25, others_lr=0.5).fit(TEXTS, LABELS)
    clf.set_params(freeze_encoder=False).partial_fit(TEXTS, LABELS)
    assert (clf.history_[-1, "lr"], clf.history_[-1, "others_lr"]) == (0.25, 0.5)


@pytest.mark.parametrize("encoder", ["bert", "deberta-v2", "t5"])
@pytest.mark.parametrize(("how", "trained_layers"), [("embeddings", {0, 1}), (1, {1}), (2, set())])
def test_lowest_layers_are_frozen(encoder, how, trained_layers):
    from sklearn_gliclass.testing import TINY_ENCODERS

    clf = tiny(encoder_config=TINY_ENCODERS[encoder], freeze_encoder=how, max_epochs=2)
    before = clone(clf).set_params(max_epochs=0).fit(TEXTS, LABELS).model_
    model = clf.fit(TEXTS, LABELS).model_
    moved = {
        name
        for (name, old), new in zip(before.encoder.named_parameters(), model.encoder.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    lists = ("encoder.layer", "encoder.block")
    layers = {name.split(part)[1].split(".")[1] for name in moved for part in lists if part in name}
    assert layers == {str(layer) for layer in trained_layers}
    assert not any("embed" in name or "shared" in name for name in moved)
    assert not model.get_input_embeddings().weight.requires_grad
    if how != "embeddings" and encoder == "bert":
        assert not any(layer.output.requires_grad for layer in first_states(model, how))


def first_states(model, n_layers):
    """Outputs of the frozen layers, which have no gradients."""

    class Seen:
        def __init__(self, output):
            self.output = output

    seen = []
    hooks = [
        layer.register_forward_hook(
            lambda module, inputs, output: seen.append(Seen(output[0] if isinstance(output, tuple) else output))
        )
        for layer in model.encoder.encoder.layer[:n_layers]
    ]
    model.encoder(input_ids=torch.tensor([[1, 2, 3]]))
    for hook in hooks:
        hook.remove()
    return seen


def test_freezing_more_layers_than_exist_raises():
    with pytest.raises(ValueError, match=r"freeze_encoder=3 asks for more layers than the 2 .* from 1 to 2, or True"):
        tiny(freeze_encoder=3).fit(TEXTS, LABELS)
