"""Effect of each hyperparameter: its direction or size.

The formulas of options (poolings, scorers, architectures) are tested in `tests/model`; the tests here assert that the
option reaches the model.
"""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from sklearn.base import clone
from skorch.callbacks import Callback
from tiny_estimators import LABELS, TEXTS
from torch import nn
from transformers import get_scheduler

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.model import ARCHITECTURES
from sklearn_gliclass.model.scorers import SCORERS
from sklearn_gliclass.testing import TINY, TINY_BERT, TINY_ENCODERS

BASE = {**TINY, "random_state": 0, "max_epochs": 2}
UNI = {"architecture_type": "uni-encoder"}
DECODER = {"architecture_type": "decoder-kv", "encoder_config": TINY_ENCODERS["qwen3"]}
CROSS = {**UNI, "scorer_type": "cross-attn", "pooling_strategy": "pass"}
UNTRAINED = {"max_epochs": 0}
# One epoch with learning rates of 0: the loss in the history is that of the predictions.
AT_REST = {"max_epochs": 1, "batch_size": 8, "lr": 0.0, "others_lr": 0.0, "label_centroid_share": 0}
# Plain gradient descent without decay: changes of the weights are proportional to the gradients.
DESCENT = {
    "optim": "sgd", "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "weight_decay": 0.0, "batch_size": 8,
    "logit_scale_init_value": 1.0, "label_centroid_share": 0, "max_grad_norm": None,
}  # fmt: skip
MULTI = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)


def fit(y=LABELS, texts=TEXTS, sample_weight=None, **hyperparameters):
    return GLiClassClassifier(**{**BASE, **hyperparameters}).fit(texts, y, sample_weight=sample_weight)


def weights(clf, part=""):
    return {name: weight.detach().clone() for name, weight in clf.model_.named_parameters() if part in name}


def in_encoder(name):
    return name.startswith(("model.encoder_model.", "model.label_encoder."))


def distance(clf, other, chosen=lambda name: True):
    """Compute the distance between the weights of two estimators."""
    pairs = [(a, weights(other)[name]) for name, a in weights(clf).items() if chosen(name)]
    return math.sqrt(sum(float((a - b).square().sum()) for a, b in pairs))


def in_others(name):
    return not in_encoder(name)


def n_parameters(clf):
    return sum(weight.numel() for weight in clf.model_.parameters())


def prompts_seen(clf, run):
    """Token ids (batch, length) of each forward pass of the text encoder in `run`."""
    seen = []
    hook = clf.model_.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    run()
    hook.remove()
    return seen


def assert_equal_predictions(clf, other, texts=TEXTS, **tolerance):
    np.testing.assert_allclose(clf.predict_proba(texts), other.predict_proba(texts), **tolerance)


# -- the model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder", "bi-encoder-fused"])
def test_architecture_type_chooses_the_architecture(architecture):
    clf = fit(**UNTRAINED, architecture_type=architecture)
    assert type(clf.model_.model) is ARCHITECTURES[architecture]


def test_encoder_configs_give_the_encoders():
    one_layer = {**TINY_BERT, "num_hidden_layers": 1}
    clf = fit(**UNTRAINED, encoder_config=one_layer, label_model_config=TINY_BERT)
    assert len(clf.model_.model.encoder_model.encoder.layer) == 1
    assert len(clf.model_.model.label_encoder.encoder.layer) == 2


def test_tie_encoders_shares_the_module():
    tied, separate = (fit(**UNTRAINED, tie_encoders=tie).model_.model for tie in (True, False))
    assert tied.label_encoder is tied.encoder_model
    assert separate.label_encoder is not separate.encoder_model


@pytest.mark.parametrize("scorer", [name for name in SCORERS if name != "cross-attn"])
def test_scorer_type_chooses_the_scorer(scorer):
    assert type(fit(**UNTRAINED, scorer_type=scorer).model_.model.scorer) is SCORERS[scorer]


def test_scorer_type_cross_attn_reads_tokens():
    assert type(fit(**UNTRAINED, **CROSS).model_.model.scorer) is SCORERS["cross-attn"]


def test_scorer_mlp_hidden_size_is_the_width_of_the_mlp():
    clf = fit(**UNTRAINED, scorer_type="mlp", scorer_mlp_hidden_size=8)
    assert clf.model_.model.scorer.mlp[0].out_features == 8


def test_scorer_num_heads_splits_the_attention():
    """The number of heads does not change the shapes of the weights, only the predictions."""
    one, four = (fit(**UNTRAINED, **CROSS, scorer_num_heads=number) for number in (1, 4))
    assert distance(one, four) == 0
    assert not np.allclose(one.decision_function(TEXTS), four.decision_function(TEXTS), rtol=1e-4)


@pytest.mark.parametrize("name", ["dropout", "scorer_attn_dropout"])
def test_dropout_acts_in_training_only(name):
    options = {**AT_REST, "label_centroid_share": None, **CROSS}
    without, with_dropout = (fit(**options, **{name: share}) for share in (0.0, 0.5))
    np.testing.assert_array_equal(with_dropout.predict_proba(TEXTS), without.predict_proba(TEXTS))
    losses = [clf.history_[0, "train_loss"] for clf in (without, with_dropout)]
    assert abs(losses[0] - losses[1]) > 1e-5


@pytest.mark.parametrize("pooling", ["max", "avg", "first"])
def test_pooling_strategy_pools_the_token_states(pooling):
    clf = fit(**UNTRAINED, pooling_strategy=pooling)
    pool = {"max": lambda s: s.max(axis=0), "avg": lambda s: s.mean(axis=0), "first": lambda s: s[0]}[pooling]
    for text, embedding in zip(TEXTS, clf.transform(TEXTS), strict=True):
        with torch.no_grad():
            states = clf.model_.encoder(**clf.tokenizer_(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(embedding, pool(states.numpy()), rtol=1e-4, atol=1e-5)


def test_use_segment_embeddings_adds_them_to_the_tokens():
    clf, plain = (fit(**UNTRAINED, **UNI, use_segment_embeddings=use) for use in (True, False))
    segments = clf.model_.model.segment_embeddings.weight
    with torch.no_grad():
        segments.zero_()
    assert_equal_predictions(clf, plain, rtol=1e-5)
    with torch.no_grad():
        segments[1] = torch.linspace(-1.0, 1.0, segments.shape[1])  # of <<SEP>> and what follows
    assert not np.allclose(clf.decision_function(TEXTS), plain.decision_function(TEXTS), rtol=1e-3)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_scorer_encoder_num_layers_is_the_depth_of_the_scorer(n_layers):
    clf = fit(**UNTRAINED, **DECODER, scorer_encoder_num_layers=n_layers)
    assert len(clf.model_.model.scorer.scorer_encoder.layer) == n_layers


def test_recurrent_steps_is_the_number_of_passes():
    """At most: a prediction ends once no probability changes by 0.01, which an update gate of 0 prevents."""
    clf = fit(**UNTRAINED, **DECODER, recurrent_steps=4)
    scorer, passes = clf.model_.model.scorer, []
    scorer.scorer_encoder.register_forward_hook(lambda *_: passes.append(1))
    clf.model_.config.recurrent_halt_threshold = None
    clf.predict(TEXTS[:1])
    assert len(passes) == 4
    clf.model_.config.recurrent_halt_threshold = 0.01
    with torch.no_grad():
        scorer.reasoning_cell.update_gate.bias.fill_(-1e4)
    passes.clear()
    clf.predict(TEXTS[:1])
    assert len(passes) == 2


def test_recurrent_read_text_attends_to_the_text():
    clf = fit(**UNTRAINED, **DECODER, recurrent_steps=2, recurrent_read_text=True)
    cell = clf.model_.model.scorer.reasoning_cell
    before = clf.decision_function(TEXTS)
    with torch.no_grad():
        cell.read_out.weight.zero_()
    assert not np.allclose(clf.decision_function(TEXTS), before, rtol=1e-4, atol=0)


def test_encoder_layer_id_reads_the_states_of_that_layer():
    """Equal to an encoder that ends there."""
    clf = fit(**UNTRAINED, **UNI, encoder_layer_id=1)
    truncated = fit(**UNTRAINED, **UNI, encoder_config={**TINY_BERT, "num_hidden_layers": 1})
    names = truncated.model_.state_dict()
    truncated.model_.load_state_dict({name: w for name, w in clf.model_.state_dict().items() if name in names})
    assert_equal_predictions(truncated, clf, rtol=1e-5)
    assert not np.allclose(clf.decision_function(TEXTS), fit(**UNTRAINED, **UNI).decision_function(TEXTS), rtol=1e-3)


def test_squeeze_layers_adds_an_attention_over_the_layers():
    plain, squeezed = fit(**UNTRAINED), fit(**UNTRAINED, squeeze_layers=True)
    added = sum(weight.numel() for name, weight in weights(squeezed).items() if "layer_wise_attention" in name)
    assert added > 0
    assert n_parameters(squeezed) == n_parameters(plain) + added


def test_layer_wise_adds_the_losses_of_all_layers():
    """The embedding layer and both others have a loss each, which are similar before the training."""
    options = {**AT_REST, **UNI, "label_centroid_share": None, "text_contrastive_loss_coef": 0}
    plain, layer_wise = (fit(**options, layer_wise=value) for value in (False, True))
    assert layer_wise.history_[0, "train_loss"] == pytest.approx(3 * plain.history_[0, "train_loss"], rel=0.2)
    assert_equal_predictions(layer_wise, plain)


def test_use_lstm_adds_an_lstm():
    plain, recurrent = fit(**UNTRAINED), fit(**UNTRAINED, use_lstm=True)
    lstm = nn.LSTM(32, 16, bidirectional=True)
    assert n_parameters(recurrent) - n_parameters(plain) == sum(weight.numel() for weight in lstm.parameters())


def test_hidden_size_is_the_width_inside_the_projectors():
    model = fit(**UNTRAINED, hidden_size=20, projector_init="normal").model_.model
    assert (model.text_projector.linear_1.out_features, model.text_projector.linear_2.in_features) == (20, 20)
    assert model.text_projector.linear_2.out_features == 32


def test_projector_hidden_act_is_applied_inside_the_projectors():
    projector = fit(**UNTRAINED, projector_init="normal", projector_hidden_act="tanh").model_.model.text_projector
    x = torch.linspace(-2, 2, 32)
    hidden = np.tanh(projector.linear_1(x).detach().numpy())
    expected = projector.linear_2.weight.detach().numpy() @ hidden + projector.linear_2.bias.detach().numpy()
    np.testing.assert_allclose(projector(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_projector_init_starts_as_the_identity_or_at_random():
    x = torch.linspace(-2, 2, 32)
    identity, normal = (fit(**UNTRAINED, projector_init=init).model_.model for init in ("identity", "normal"))
    torch.testing.assert_close(identity.text_projector(x), x, rtol=1e-5, atol=1e-5)
    assert (normal.text_projector(x) - x).abs().max() > 0.1


def test_initializer_range_is_the_standard_deviation():
    clf = fit(**UNTRAINED, projector_init="normal", initializer_range=0.3)
    assert float(clf.model_.model.text_projector.linear_1.weight.detach().std()) == pytest.approx(0.3, rel=0.1)


def test_logit_scale_init_value_scales_the_logits():
    three, six = (fit(**UNTRAINED, logit_scale_init_value=scale) for scale in (3.0, 6.0))
    np.testing.assert_allclose(six.decision_function(TEXTS), 2 * three.decision_function(TEXTS), rtol=1e-4)


def test_normalize_features_makes_logits_cosines():
    options = {**UNTRAINED, "logit_scale_init_value": 1.0, "projector_init": "normal", "initializer_range": 1.0}
    # A classifier of two classes returns the difference of two logits.
    normalized, free = (np.abs(fit(**options, normalize_features=value).decision_function(TEXTS)).max()
                        for value in (True, False))  # fmt: skip
    assert normalized <= 2.0
    assert free > 2.0


def test_prompt_first_puts_the_labels_before_the_text():
    for first in (True, False):
        clf = fit(**UNTRAINED, **UNI, prompt_first=first)
        (ids,) = prompts_seen(clf, lambda clf=clf: clf.predict(TEXTS[:1]))
        word = clf.tokenizer_("goal", add_special_tokens=False)["input_ids"][0]
        is_word, is_label = ((ids[0] == token).nonzero().ravel() for token in (word, clf.config_.class_token_index))
        assert len(is_label) == 2
        assert (is_label.max() < is_word.min()) == first


def test_extract_text_features_pools_the_text_alone():
    """With the pooling "first", the first token of the text is pooled instead of [CLS]."""
    options = {**UNTRAINED, **UNI, "pooling_strategy": "first", "prompt_first": True}
    whole, part = (fit(**options, extract_text_features=value) for value in (False, True))
    assert distance(whole, part) == 0
    assert not np.allclose(whole.decision_function(TEXTS), part.decision_function(TEXTS), rtol=1e-3)


@pytest.mark.parametrize("changed", [{"class_token_pooling": "average"}, {"embed_class_token": False}], ids=str)
def test_label_states_come_from_other_tokens(changed):
    """Which tokens these are is tested in tests/model/test_modeling.py; the weights stay the same."""
    plain, other = fit(**UNTRAINED, **UNI), fit(**UNTRAINED, **UNI, **changed)
    assert distance(plain, other) == 0
    assert not np.allclose(plain.decision_function(TEXTS), other.decision_function(TEXTS), rtol=1e-4)


# -- the loss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["contrastive_loss_coef", "text_contrastive_loss_coef"])
@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder"])
def test_contrastive_coefficients_are_factors_of_a_term(architecture, name):
    options = {**AT_REST, "label_centroid_share": None, "architecture_type": architecture}
    none, half, whole = (fit(**options, **{name: value}).history_[0, "train_loss"] for value in (0.0, 0.5, 1.0))
    assert half > none + 1e-3
    assert whole - none == pytest.approx(2 * (half - none), rel=1e-3)


@pytest.mark.parametrize(
    "changed",
    [{}, {"focal_loss_alpha": 0.9}, {"focal_loss_gamma": 0}, {"focal_loss_reduction": "sum"},
     {"focal_loss_alpha": -1, "focal_loss_gamma": 3.0}],
    ids=str,
)  # fmt: skip
def test_focal_options_are_those_of_the_formula(changed):
    options = {**AT_REST, "logit_scale_init_value": 1.0, "label_centroid_share": None}
    clf = fit(MULTI, **options, **changed)
    p = expit(clf.decision_function(TEXTS))
    p_t = np.where(MULTI, p, 1 - p)
    gamma, alpha = changed.get("focal_loss_gamma", 2.0), changed.get("focal_loss_alpha", 0.5)
    losses = -((1 - p_t) ** gamma) * np.log(p_t)
    if alpha >= 0:
        losses *= np.where(MULTI, alpha, 1 - alpha)
    expected = losses.sum() if changed.get("focal_loss_reduction") == "sum" else losses.mean()
    assert clf.history_[0, "train_loss"] == pytest.approx(expected, rel=1e-4)


def test_class_weight_raises_the_probability_of_the_class():
    options = {**DESCENT, "lr": 0.05, "others_lr": 0.05}
    plain, weighted = (fit(**options, class_weight=weight).predict_proba(TEXTS)
                       for weight in (None, {"sports": 5.0, "politics": 1.0}))  # fmt: skip
    assert weighted[:, 1].mean() > plain[:, 1].mean() + 0.01


def test_class_weight_balanced_weights_by_frequency():
    """n_samples / (n_classes * n_samples of the class), as in scikit-learn."""
    y = ["sports"] * 6 + ["politics"] * 2
    balanced = fit(y, **DESCENT, class_weight="balanced")
    by_hand = fit(y, **DESCENT, sample_weight=[8 / 12] * 6 + [2.0] * 2)
    assert_equal_predictions(balanced, by_hand, rtol=1e-6)


def test_class_weight_balanced_of_multi_label_raises_rare_labels():
    y = np.array([[1, 0], [1, 0], [1, 1], [1, 0], [1, 0], [0, 0], [1, 1], [0, 0]])
    plain, balanced = (fit(y, **DESCENT, lr=0.1, others_lr=0.1, class_weight=weight).predict_proba(TEXTS)
                       for weight in (None, "balanced"))  # fmt: skip
    assert balanced[:, 1].mean() > plain[:, 1].mean()
    assert balanced[:, 0].mean() < plain[:, 0].mean()


# -- the training --------------------------------------------------------------------------------------------


def test_rates_of_zero_leave_the_weights():
    assert distance(fit(**UNTRAINED, label_centroid_share=0), fit(**AT_REST)) == 0


@pytest.mark.parametrize(("name", "chosen"), [("lr", in_encoder), ("others_lr", in_others)])
def test_rates_are_those_of_the_encoder_and_of_the_others(name, chosen):
    """In one step of gradient descent the distance is proportional to the rate."""
    options = {**DESCENT, "max_epochs": 1, "lr": 0.0, "others_lr": 0.0}
    start = fit(**{**options, **UNTRAINED})
    slow, fast = (fit(**{**options, name: rate}) for rate in (0.01, 0.02))
    assert distance(fast, start, chosen) == pytest.approx(2 * distance(slow, start, chosen), rel=1e-2)
    assert distance(slow, start, chosen) > 1e-4
    assert distance(fast, start, lambda other: not chosen(other)) == 0


def test_others_lr_none_is_lr():
    assert distance(fit(lr=1e-3, others_lr=None), fit(lr=1e-3, others_lr=1e-3)) == 0


@pytest.mark.parametrize(
    ("name", "rates", "chosen"),
    [("weight_decay", {"lr": 0.1, "others_lr": 0.0}, in_encoder),
     ("others_weight_decay", {"lr": 0.0, "others_lr": 0.1}, in_others)],
)  # fmt: skip
@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_weight_decay_shrinks_matrices(optim, name, rates, chosen):
    """By (1 - rate * decay) per step, with gradients that are clipped to 0."""
    options = {**DESCENT, "optim": optim, "max_grad_norm": 1e-25, **rates, name: 0.5}
    before, after = weights(fit(**options, max_epochs=0)), weights(fit(**options, max_epochs=3))
    for parameter, weight in before.items():
        if "pooler" in parameter:  # without a gradient, so that the optimiser skips it
            continue
        factor = (1 - 0.1 * 0.5) ** 3 if chosen(parameter) and weight.dim() >= 2 else 1.0
        torch.testing.assert_close(after[parameter], factor * weight, rtol=1e-5, atol=1e-7)


def test_optim_chooses_the_optimizer():
    """What they compute is tested in tests/training/test_trainer.py."""
    assert isinstance(fit(**UNTRAINED).net_.optimizer_, torch.optim.AdamW)
    assert type(fit(**UNTRAINED, optim="sgd").net_.optimizer_) is torch.optim.SGD


def test_max_epochs_is_the_number_of_passes():
    assert [fit(max_epochs=number).n_iter_ for number in (0, 1, 3)] == [0, 1, 3]


def test_batch_size_is_the_number_of_rows_in_a_step():
    history = fit(batch_size=3).history_
    assert sorted(batch["train_batch_size"] for batch in history[0, "batches"]) == [2, 3, 3]


def test_gradient_accumulation_steps_add_up_to_a_large_batch():
    """Of the losses: a text is contrasted with those of its own batch."""
    options = {**DESCENT, "text_contrastive_loss_coef": 0, "lr": 0.05, "others_lr": 0.05, "max_epochs": 4}
    parts = fit(**{**options, "batch_size": 4}, gradient_accumulation_steps=2)
    assert_equal_predictions(parts, fit(**options), atol=1e-5)
    # Without accumulation, twice as many steps have another result.
    assert distance(parts, fit(**options)) < 1e-5 < distance(parts, fit(**{**options, "batch_size": 4}))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.5])
def test_lr_scheduler_type_and_warmup_ratio_give_the_rates_of_transformers(schedule, warmup_ratio):
    n_steps = 8
    clf = fit(lr_scheduler_type=schedule, warmup_ratio=warmup_ratio, max_epochs=n_steps, batch_size=8, lr=0.01)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = get_scheduler(schedule, optimizer, round(warmup_ratio * n_steps), n_steps)
    rates = []
    for _ in range(n_steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(clf.history_[:, "lr"], rates, rtol=1e-6, atol=1e-12)


def test_max_grad_norm_bounds_the_step():
    options = {**DESCENT, "lr": 0.1, "others_lr": 0.1, "max_epochs": 1}
    start = fit(**{**options, **UNTRAINED})
    clipped, free = (fit(**{**options, "max_grad_norm": norm}) for norm in (1e-2, None))
    assert distance(clipped, start) == pytest.approx(0.1 * 1e-2, rel=1e-2)
    assert distance(free, start) > 10 * distance(clipped, start)


def test_shuffle_labels_shuffles_the_prompts_of_the_training():
    labels = [f"topic {i}" for i in range(8)]

    def orders(shuffle):
        """The orders of the labels in the prompts of one epoch."""
        seen = []  # token ids; several texts may share a sequence

        class Recorder(Callback):
            def on_train_begin(self, net, **kwargs):
                embeddings = net.module_.get_input_embeddings()
                self.hook = embeddings.register_forward_pre_hook(
                    lambda module, args: seen.extend(args[0].ravel().tolist())
                )

            def on_train_end(self, net, **kwargs):
                self.hook.remove()

        clf = fit(labels, **UNI, shuffle_labels=shuffle, callbacks=[("recorder", Recorder())], max_epochs=1)
        numbers = {clf.tokenizer_(str(i), add_special_tokens=False)["input_ids"][0]: i for i in range(8)}
        found = [numbers[token] for token in seen if token in numbers]
        return {tuple(prompt) for prompt in np.reshape(found, (len(TEXTS), len(labels))).tolist()}

    assert orders(False) == {tuple(range(8))}
    shuffled = orders(True)
    assert len(shuffled) == 8
    assert all(sorted(order) == list(range(8)) for order in shuffled)


FROZEN = [
    (True, in_encoder),
    ("embeddings", lambda name: ".embeddings." in name),
    (1, lambda name: ".embeddings." in name or ".layer.0." in name),
]


@pytest.mark.parametrize(("freeze_encoder", "is_frozen"), FROZEN)
def test_freeze_encoder_keeps_weights_to_the_bit(freeze_encoder, is_frozen):
    options = {"weight_decay": 0.1, "lr": 0.01, "freeze_encoder": freeze_encoder}
    start, trained = weights(fit(**options, **UNTRAINED)), weights(fit(**options))
    for name, weight in trained.items():
        if is_frozen(name):
            assert torch.equal(weight, start[name]), name
    moved = {name for name, weight in trained.items() if not torch.equal(weight, start[name])}
    assert any(in_others(name) for name in moved)
    assert any(".layer.1." in name for name in moved) == (freeze_encoder is not True)


def test_validation_fraction_holds_rows_out():
    assert "valid_loss" not in fit().history_[0]
    for fraction, n_valid in ((0.25, 2), (0.5, 4)):
        clf = fit(early_stopping=True, validation_fraction=fraction)
        history = clf.history_[0, "batches"]
        assert sum(batch["train_batch_size"] for batch in history if "train_batch_size" in batch) == 8 - n_valid
        assert len(clf.net_.valid) == n_valid
        assert np.isfinite(clf.history_[:, "valid_loss"]).all()


def test_label_centroid_share_moves_labels_towards_their_texts():
    """The cosine between a label and the mean of its texts rises with the share."""

    def cosines(share):
        clf = fit(label_centroid_share=share)
        outputs = []
        hook = clf.model_.register_forward_hook(lambda module, args, output: outputs.append(output))
        clf.predict(TEXTS)
        hook.remove()
        means = clf.model_.model.text_projector(torch.from_numpy(clf.transform(TEXTS)))
        means = nn.functional.normalize(means, dim=1).view(2, 4, -1).mean(1).flip(0)  # politics, sports
        return nn.functional.cosine_similarity(means, outputs[0].class_embeddings[0]).detach()

    names, both, examples = (cosines(share) for share in (0, 0.5, 1.0))
    assert (names < both).all()
    assert (both < examples).all()
    np.testing.assert_allclose(examples, 1.0, atol=1e-3)


def test_random_state_decides_the_start_and_the_order():
    """Another seed only gives other weights, without a reference to compare them with."""
    assert distance(fit(random_state=1), fit(random_state=1)) == 0
    assert distance(fit(random_state=1), fit(random_state=2)) > 0.1


# -- what the model reads ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*are too long for max_length=10")
def test_max_length_truncates_texts():
    clf = fit(max_length=10, long_texts="truncate")
    beginning = "the goal was late and the match was won"
    (first, other) = clf.predict_proba([f"{beginning} by a law", f"{beginning} after a vote"])
    np.testing.assert_allclose(first, other, rtol=1e-5)
    longer = fit(max_length=64)
    (first, other) = longer.predict_proba([f"{beginning} by a law", f"{beginning} after a vote"])
    assert abs(first - other).max() > 1e-6


def test_label_names_are_what_the_model_reads():
    """Equal to a training whose labels are these texts."""
    names = {"sports": "ball games", "politics": "affairs of state"}
    named = fit(label_names=names)
    assert_equal_predictions(named, fit([names[label] for label in LABELS]), rtol=1e-5)
    assert named.classes_.tolist() == ["politics", "sports"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a trained tiny model: fits that start from it begin with a label probe."""
    folder = tmp_path_factory.mktemp("checkpoint")
    fit(max_epochs=20).save_pretrained(folder)
    return str(folder)


def from_checkpoint(checkpoint, y=LABELS, **hyperparameters):
    return GLiClassClassifier(pretrained=checkpoint, random_state=0, **hyperparameters).fit(TEXTS, y)


def test_preset_trades_time_for_accuracy(checkpoint):
    fast, balanced, accurate = (from_checkpoint(checkpoint, preset=name) for name in ("fast", "balanced", "accurate"))
    assert [clf.freeze_encoder_ for clf in (fast, balanced, accurate)] == [True, "embeddings", False]
    assert (fast.n_iter_, balanced.n_iter_, accurate.n_iter_) == (0, 11, 23)  # 8 * sqrt(8 * 2 / 8 rows), and twice
    assert distance(fast, from_checkpoint(checkpoint, max_epochs=0), in_encoder) == 0
    assert distance(balanced, fast, in_encoder) > 1e-3
    scratch = [fit(preset=name, max_epochs=None).n_iter_ for name in ("fast", "balanced", "accurate")]
    assert scratch == [19, 48, 96]
    frozen = [from_checkpoint(checkpoint, preset=name, freeze_encoder=True) for name in ("balanced", "accurate")]
    assert [clf.n_iter_ for clf in frozen] == [0, 0]


def test_calibrate_divides_the_logits_by_a_temperature(checkpoint):
    plain, auto, cv = (from_checkpoint(checkpoint, calibrate=how) for how in (False, "auto", "cv"))
    assert plain.temperature_ == 1.0
    assert float(plain.model_.model.logit_scale) == 10.0
    assert float(auto.model_.model.logit_scale) == pytest.approx(8.4 + 2.4 * math.log(2))
    for calibrated in (auto, cv):
        assert calibrated.temperature_ != 1.0
        expected = plain.decision_function(TEXTS) / calibrated.temperature_
        np.testing.assert_allclose(calibrated.decision_function(TEXTS), expected, rtol=1e-3, atol=1e-5)
    assert fit(calibrate="cv").temperature_ != 1.0  # without a label probe too


@pytest.mark.parametrize("options", [{**UNI, "normalize_features": False}, DECODER], ids=str)
def test_calibrate_cv_adds_a_calibrator_where_no_scale_holds_the_temperature(options, tmp_path):
    plain, cv = (fit(calibrate=how, **options) for how in (False, "cv"))
    assert plain.model_.calibrator is None
    assert cv.temperature_ != 1.0
    expected = plain.decision_function(TEXTS) / cv.temperature_
    np.testing.assert_allclose(cv.decision_function(TEXTS), expected, rtol=1e-3, atol=1e-5)
    cv.save_pretrained(tmp_path)
    loaded = [GLiClassClassifier.from_pretrained(tmp_path, calibrate=how) for how in ("cv", False)]
    assert_equal_predictions(loaded[0], cv, rtol=1e-6)
    assert_equal_predictions(loaded[1], plain, rtol=1e-5)


def test_calibrate_holds_out_rows_from_1000_on(checkpoint):
    texts, y = [f"{text} {i}" for i in range(125) for text in TEXTS], LABELS * 125
    clf = GLiClassClassifier(pretrained=checkpoint, max_epochs=1, random_state=0)
    sizes = {
        how: sum(
            b["train_batch_size"] for b in clone(clf).set_params(calibrate=how).fit(texts, y).history_[0, "batches"]
        )
        for how in ("auto", False)
    }
    assert sizes == {"auto": 900, False: 1000}


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (MULTI, {}, "single-label probabilities, and y is multi-label"),
        (LABELS, {**CROSS, "normalize_features": False}, "set normalize_features=True"),
    ],
)
def test_calibrate_cv_raises_without_a_temperature(y, options, message):
    with pytest.raises(ValueError, match=message):
        fit(y, calibrate="cv", **options)


def test_calibrate_cv_raises_in_a_warm_start():
    clf = fit(warm_start=True)
    with pytest.raises(ValueError, match="warm_start=True"):
        clf.set_params(calibrate="cv").fit(TEXTS, LABELS)


@pytest.mark.parametrize(("separator", "text"), [(None, "food"), (": ", "topic: food"), (".", "topic.food")])
def test_label_separator_joins_targets_and_classes(separator, text):
    y = np.array([["food", "a"], ["sea", "b"]] * 4)
    clf = GLiClassClassifier(**BASE, label_separator=separator).fit(TEXTS, pd.DataFrame(y, columns=["topic", "grade"]))
    assert clf.label_names_[0] == text


# -- all of them ---------------------------------------------------------------------------------------------

# Files that test the effects of the other hyperparameters.
ELSEWHERE = {
    "cache_dir": "training/test_arguments.py",
    "class_token_index": "test_classifier.py",
    "device": "test_hyperparameters.py",
    "dtype": "test_hyperparameters.py",
    "encoder_model": "test_building.py",
    "examples": "test_in_context.py",
    "ewc_lambda": "training/test_ewc.py",
    "ignore_index": "test_hyperparameters.py",
    "label_model_name": "reference_checkpoints.py",
    "lora_alpha": "training/test_adapters.py",
    "lora_rank": "training/test_adapters.py",
    "lora_target": "training/test_adapters.py",
    "max_batch_tokens": "test_hyperparameters.py",
    "max_num_classes": "test_hyperparameters.py",
    "memory": "cache/test_store.py",
    "n_examples": "test_in_context.py",
    "n_iter_no_change": "test_hyperparameters.py",
    "pretrained": "test_persistence.py",
    "problem_type": "test_targets.py",
    "prompt": "test_in_context.py",
    "reference_model": "training/test_rl.py",
    "reward_components": "training/test_rl.py",
    "rl": "training/test_rl.py",
    "shrinkage": "test_regressor.py",
    "text_template": "test_inputs.py",
    "text_token_index": "reference_checkpoints.py",
    "threshold": "test_hyperparameters.py",
    "long_texts": "test_long_texts.py",
    "unknown_label": "test_abstention.py",
    "unknown_threshold": "test_abstention.py",
    "value_model": "training/test_rl.py",
    "verbose": "test_progress.py",
    "vocab_size": "test_building.py",
    "warm_start": "test_hyperparameters.py",
    "window_overlap": "test_long_texts.py",
}


@pytest.mark.parametrize("name", sorted({**GLiClassClassifier().get_params(), **GLiClassRegressor().get_params()}))
def test_each_hyperparameter_is_tested(name):
    path = Path(__file__).parent / ELSEWHERE.get(name, Path(__file__).name)
    tests = path.read_text(encoding="utf-8").split("# -- all of them")[0]
    assert re.search(rf"""\b{name}=|"{name}"|\.{name}\b""", tests)
