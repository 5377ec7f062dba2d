"""Calls that raise do not change a fitted estimator: attributes, weights, optimiser, predictions."""

import copy
import functools
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from library_versions import string_array
from tiny_estimators import FOOD, OPTIONS, PRICE, FailAt, X, failing

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

MULTI = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)
FRAME = pd.DataFrame({"title": X, "size": range(8)})
TARGETS = pd.DataFrame({"price": PRICE, "mood": PRICE[::-1]})
OUTPUTS = pd.DataFrame({"topic": FOOD, "size": ["large", None, "small", "large"] * 2})
BERT = TINY["encoder_config"]


def classifier(**options):
    return GLiClassClassifier(**{**OPTIONS, **options}).fit(X, FOOD)


def decoder(**options):
    qwen = TINY_ENCODERS["qwen3"]
    return classifier(architecture_type="decoder-kv", encoder_config=qwen, **options)


def on_table(**options):
    return GLiClassClassifier(**{**OPTIONS, **options}).fit(FRAME, FOOD)


def multi_label(**options):
    y = pd.DataFrame(MULTI, columns=["sea", "food"])
    return GLiClassClassifier(**{**OPTIONS, **options}).fit(X, y)


def multi_output(**options):
    return GLiClassClassifier(**{**OPTIONS, **options}).fit(X, OUTPUTS)


def regressor(**options):
    return GLiClassRegressor(**{**OPTIONS, **options}).fit(X, TARGETS)


def continued(**options):
    """Fit and train for one more epoch, so that the optimiser has a state."""
    return classifier(**options).partial_fit(X, FOOD)


def zero_shot(**options):
    return GLiClassClassifier(**options).fit(None, ["food", "sea"])


def set_and(method, *args, **parameters):
    """Return a call of a method after `set_params`, which restores the parameters afterwards."""

    def call(estimator):
        before = {name: getattr(estimator, name) for name in parameters}
        try:
            getattr(estimator.set_params(**parameters), method)(*args)
        finally:
            estimator.set_params(**before)

    return call


def fit(*args, **parameters):
    return set_and("fit", *args, **parameters)


def partial_fit(*args, **parameters):
    return set_and("partial_fit", *args, **parameters)


def encoder(**options):
    """A fit with other sizes of the encoder."""
    return fit(X, FOOD, encoder_config={**BERT, **options})


def reward(value):
    return {"reward": lambda probs, actions, targets, valid: value(actions)}


NAN_WEIGHT = [np.nan, *[1.0] * 7]
RL = RLTrainerConfig(max_epochs=1)

# (what was fitted, the call that raises, part of the message)
CASES = {
    # -- reading X and y
    "missing text": (classifier, fit([None, *X[1:]], FOOD), "missing text"),
    "number among texts": (classifier, fit([1.5, *X[1:]], FOOD), r"X must hold texts"),
    "no row": (classifier, fit([], []), "0 sample"),
    "one string": (classifier, fit("red apple", FOOD), "string object received"),
    "lone surrogate": (classifier, fit(["\ud800 apple", *X[1:]], FOOD), "surrogate|row 0"),
    "lazy table": (on_table, fit(pl.LazyFrame({"title": X}), FOOD), r"pass X\.collect\(\)"),
    "lazy classes": (on_table, fit(FRAME, pl.LazyFrame({"label": FOOD})), r"pass y\.collect\(\)"),
    "records with other keys": (on_table, fit([{"title": "a"}, {"text": "b"}] * 4, FOOD), "keys must be the same"),
    "missing class of StringDType": (
        classifier, lambda clf: fit(X, string_array(["food", None] * 4, na_object=None))(clf), "missing target"
    ),
    "infinite cell": (on_table, fit(FRAME.assign(size=np.inf), FOOD), "infinity"),
    "infinite decimal": (on_table, fit(FRAME.assign(size=[Decimal("-inf")] * 8), FOOD), "infinity, in the column"),
    "template names no column": (on_table, fit(FRAME, FOOD, text_template="{nothing}"), "nothing"),
    "template on texts": (classifier, fit(X, FOOD, text_template="{title}"), "but X holds texts"),
    "template raises": (on_table, fit(FRAME, FOOD, text_template=lambda row: 1 / 0), "division"),
    "template returns no text": (on_table, fit(FRAME, FOOD, text_template=lambda row: 3), "must return a str"),
    "example of an unknown label": (
        classifier, fit(X, FOOD, examples=[{"text": "a", "labels": "x"}]), r"label\(s\) \['x'\], which are not among"
    ),
    "examples without a place": (
        classifier, fit(X, FOOD, examples=[{"text": "a", "labels": "sea"}]), "no place in architecture_type='bi-enc"
    ),
    "number of examples without examples": (classifier, fit(X, FOOD, n_examples=1), "n_examples=1 has no effect"),
    "prompt that leaves no room": (classifier, fit(X, FOOD, prompt="a b " * 99), r"prompt takes \d+"),
    "adapter options without a rank": (classifier, fit(X, FOOD, lora_alpha=4), "no effect with lora_rank=None"),
    "adapters of a frozen encoder": (classifier, fit(X, FOOD, lora_rank=2, freeze_encoder=True), "lora_rank=2 trains"),
    "layers without a match": (classifier, fit(X, FOOD, lora_rank=2, lora_target=["x"]), "names no linear layer"),
    "lengths differ": (classifier, fit(X, FOOD[1:]), "inconsistent numbers of samples"),
    "one class": (classifier, fit(X, ["animal"] * 8), "only one class"),
    "no y": (classifier, fit(X, None), "y"),
    "missing class": (classifier, fit(X, ["animal", None] * 4), "NaN"),
    "continuous y": (classifier, fit(X, PRICE + 0.5), "continuous"),
    "y of another problem": (classifier, fit(X, MULTI, problem_type="single_label_classification"), "multi-label"),
    "missing list of labels": (classifier, fit(X, [["sea"], None] * 4), r"missing list\(s\) of labels"),
    "missing label in a list": (classifier, fit(X, [["sea"], ["food", None]] * 4), "labels of row 1 have a missing"),
    "label among lists": (classifier, fit(X, [["sea"], "food"] * 4), "lists of labels, but a str at row 1, 'food'"),
    "lists in a list of labels": (classifier, fit(X, [["sea"], [["food"]]] * 4), "a list among the labels of row 1"),
    "own labels of one class": (classifier, fit(X, [{"sea": 1}] * 8), "at least 2 classes"),
    "own labels beyond 1": (classifier, fit(X, [{"sea": 2, "food": 0}] * 8), "value 2 for the label 'sea'"),
    "own labels with weights of classes": (
        classifier,
        fit(X, [{"sea": 1, "food": 0}] * 8, class_weight="balanced"),
        "class_weight='balanced' needs the same labels",
    ),
    "lists of no label": (classifier, fit(X, [[]] * 8), "all of its 8 lists are empty"),
    "matrix of strings": (classifier, fit(X, [["0", "1"]] * 8), "rows of numbers as strings"),
    "several targets: one class": (multi_output, fit(X, OUTPUTS.assign(size="large")), "in the target 'size'"),
    "several targets: row of no class": (
        multi_output, fit(X, OUTPUTS.assign(topic=[None, None, *FOOD[2:]])), r"1 row\(s\) have no class"),
    "several targets: multi-label": (
        multi_output, fit(X, OUTPUTS, problem_type="multi_label_classification"), "has several targets"),
    "several targets: rl": (multi_output, fit(X, OUTPUTS, rl=RL), "rl rewards the labels of one target"),
    "several targets: class weight": (multi_output, fit(X, OUTPUTS, class_weight={"food": 2.0}), "unknown target"),
    "several targets: label names": (multi_output, fit(X, OUTPUTS, label_names=["a", "b", "c"]), "3 entries for the 2"),
    "several targets: prompts": (
        multi_output, fit(X, pd.concat([OUTPUTS, OUTPUTS.add_suffix("2")], axis=1), max_num_classes=3,
                          architecture_type="uni-encoder"), "less than the number of targets, 4"),
    "label separator of one target": (multi_output, fit(X, FOOD, label_separator="."), "no effect on one target"),
    "negative weight": (classifier, fit(X, FOOD, [-1.0] * 8), "[Nn]egative"),
    "missing weight": (classifier, fit(X, FOOD, NAN_WEIGHT), "NaN"),
    "no weight": (classifier, fit(X, FOOD, [0.0] * 8), "no sample to fit|non-zero"),
    "weights too short": (classifier, fit(X, FOOD, [1.0]), "sample_weight"),
    "class weight of no class": (classifier, fit(X, FOOD, class_weight={"animal": 2.0}), "class_weight"),
    "class weight not finite": (classifier, fit(X, FOOD, class_weight={"food": np.nan, "sea": 1.0}), "nan"),
    "threshold for another number": (
        multi_label, fit(X, MULTI, threshold=[0.1, 0.2, 0.3]), "3 numbers for 2 labels"),
    "threshold that is none": (multi_label, fit(X, MULTI, threshold=[np.nan, 0.5]), "threshold must be a number"),
    "unknown label that is a class": (classifier, fit(X, FOOD, unknown_label="sea"), "is one of the classes"),
    "unknown label of another type": (classifier, fit(X, FOOD, unknown_label=3), "cannot stand among the classes"),
    "unknown label of multi-label y": (multi_label, fit(X, MULTI, unknown_label="none"), "no effect on multi-label"),
    "overlap of whole windows": (
        classifier, fit(X, FOOD, long_texts="mean", window_overlap=500), "window_overlap=500 must be smaller"),
    "windows and examples": (
        classifier, fit(X, FOOD, long_texts="max", examples=[{"text": "a vote", "labels": ["food"]}],
                        architecture_type="uni-encoder"), "cannot be combined with examples"),
    "label name missing": (classifier, fit(X, FOOD, label_names={"food": "meals"}), "sea"),
    "pooling without effect": (
        decoder, fit(X, FOOD, pooling_strategy="max"), "pooling_strategy='max' has no effect here"),
    "scorer without effect": (decoder, fit(X, FOOD, scorer_type="mlp"), "scorer_type='mlp' has no effect here"),
    "steps of another architecture": (classifier, fit(X, FOOD, recurrent_steps=2), "recurrent_steps=2 cannot be used"),
    "layers of another scorer": (
        classifier, fit(X, FOOD, scorer_encoder_num_layers=1), "scorer_encoder_num_layers=1 has no effect"),
    "text read in no step": (decoder, fit(X, FOOD, recurrent_read_text=True), "used if recurrent_steps > 1"),
    "decoder of another width": (decoder, fit(X, FOOD, hidden_size=20), "must be the decoder's 32, got 20"),
    "encoder as a decoder": (decoder, fit(X, FOOD, encoder_config=BERT), "needs a causal decoder"),
    "segments of another architecture": (
        classifier, fit(X, FOOD, use_segment_embeddings=True), "needs architecture_type='uni-encoder'"),
    "label names alike": (classifier, fit(X, FOOD, label_names=["POS", "pos"]), "POS"),
    "label names of another number": (classifier, fit(X, FOOD, label_names=["a", "b", "c"]), "3 texts"),
    "labels alike": (classifier, fit(X, ["Sea", "sea"] * 4), "Sea"),
    # -- hyperparameters and building
    "constraint": (classifier, fit(X, FOOD, lr=-1.0), "'lr' parameter"),
    "option that is not read": (classifier, fit(X, ["animal", "plant"] * 4, prompt_first=True), "no effect here"),
    "scorer without its pooling": (classifier, fit(X, FOOD, scorer_type="cross-attn"), "pooling"),
    "checkpoint that is nowhere": (classifier, fit(X, FOOD, pretrained="no/such-model"), "Cannot find"),
    "encoder that is nowhere": (classifier, fit(X, FOOD, encoder_config=None, encoder_model="no/such"), "Cannot find"),
    "two encoders": (classifier, fit(X, FOOD, encoder_model="some"), "exclude each other"),
    "unknown model type": (classifier, fit(X, FOOD, encoder_config={"model_type": "bertt"}), "bertt"),
    "encoder of no kind": (classifier, fit(X, FOOD, encoder_config={"model_type": ["bert"]}), r"\['bert'\]"),
    "encoder of a text as size": (classifier, encoder(hidden_size="x"), "hidden_size"),
    "encoder of a negative size": (classifier, encoder(hidden_size=-4), "negative"),
    "encoder of a negative vocabulary": (classifier, encoder(vocab_size=-1), "vocab_size.*-1"),
    "encoder without heads": (classifier, encoder(num_attention_heads=0), "zero"),
    "encoder with no activation": (classifier, encoder(hidden_act="zz"), "zz"),
    "encoder of no dtype": (classifier, encoder(dtype="zz"), "'zz'"),
    "label encoder with a text as size": (
        classifier, fit(X, FOOD, label_model_config={**BERT, "hidden_size": "x"}), "hidden_size"),
    "cache of no folder": (classifier, fit(X, FOOD, cache_dir=3), "'cache_dir' parameter"),
    "more layers than there are": (classifier, fit(X, FOOD, freeze_encoder=9), "more layers"),
    "no room for texts": (classifier, fit(X, FOOD, max_length=3), "max_length=3"),
    "more positions than there are": (classifier, fit(X, FOOD, max_length=9999), "positions"),
    "centroids of a scorer": (classifier, fit(X, FOOD, scorer_type="mlp", label_centroid_share=0.3), "no effect"),
    "no device": (classifier, fit(X, FOOD, device="nowhere"), "nowhere"),
    "no activation": (classifier, fit(X, FOOD, projector_hidden_act="nothing"), "nothing"),
    "nothing to validate on": (classifier, fit(X, FOOD, early_stopping=True, validation_fraction=0.01), "raise it"),
    "optimiser not installed": (classifier, fit(X, FOOD, optim="schedule_free_adamw"), "pip install"),
    # -- training
    "callback at the beginning": (classifier, fit(X, FOOD, callbacks=failing("on_train_begin")), "stop"),
    "callback in an epoch": (classifier, fit(X, FOOD, callbacks=failing("on_batch_end", calls=2)), "stop"),
    "callback at a gradient": (classifier, fit(X, FOOD, callbacks=failing("on_grad_computed")), "stop"),
    "callback after an epoch": (classifier, fit(X, FOOD, callbacks=failing("on_epoch_end")), "stop"),
    "callback at the end": (classifier, fit(X, FOOD, callbacks=failing("on_train_end")), "stop"),
    "callback that is none": (classifier, fit(X, FOOD, callbacks=[3]), "got 3 among"),
    "function as callback": (classifier, fit(X, FOOD, warm_start=True, callbacks=[print]), "callbacks must be a list"),
    "pair without a callback": (classifier, fit(X, FOOD, callbacks=[("name", 3)]), r"got \('name', 3\)"),
    "divergence": (classifier, fit(X, FOOD, scorer_type="hopfield", lr=1e8, others_lr=1e8), "[Dd]iverged"),
    "Ctrl-C in the first epoch": (classifier, fit(X, FOOD, callbacks=failing("on_batch_end", KeyboardInterrupt())), ""),
    "no memory": (classifier, fit(X, FOOD, callbacks=failing("on_batch_begin", MemoryError("full"))), "full"),
    "rewards without rl": (classifier, fit(X, FOOD, reward_components=reward(lambda a: a[:, :1])), "rl=None"),
    "reward raises": (classifier, fit(X, FOOD, rl=RL, reward_components=reward(lambda a: 1 / 0)), "division"),
    "reward of a wrong shape": (classifier, fit(X, FOOD, rl=RL, reward_components=reward(lambda a: a)), "shape"),
    "reward not finite": (
        classifier, fit(X, FOOD, rl=RL, reward_components=reward(lambda a: a[:, :1] * np.nan)), "finite"),
    "reference without a model": (classifier, fit(X, FOOD, rl=RLTrainerConfig(kl_beta=1.0)), "reference_model"),
    "reference raises": (classifier, fit(X, FOOD, rl=RL, reference_model=lambda texts, labels: 1 / 0), "division"),
    "reference without a tokenizer": (
        classifier, lambda clf: fit(X, FOOD, rl=RL, reference_model=(clf.tokenizer_, clf.model_))(clf), "Tokenizer"),
    "value model of a wrong shape": (classifier, fit(X, FOOD, rl=RL, value_model=lambda texts: [1.0]), "value_model"),
    # -- partial_fit
    "partial_fit: new class": (continued, partial_fit(X, ["animal", "sea"] * 4), "animal"),
    "partial_fit: y of another kind": (continued, partial_fit(X, MULTI), "multi-label"),
    "partial_fit: missing text": (continued, partial_fit([None, *X[1:]], FOOD), "missing"),
    "partial_fit: a table after texts": (continued, partial_fit(FRAME, FOOD), "table"),
    "partial_fit: texts after a table": (on_table, partial_fit(X, FOOD), "columns"),
    "partial_fit: other columns": (on_table, partial_fit(FRAME.rename(columns={"size": "other"}), FOOD), "other"),
    "partial_fit: other classes": (continued, set_and("partial_fit", X, FOOD, ["a", "b"]), "food"),
    "partial_fit: columns of no class": (
        multi_label, partial_fit(X, pd.DataFrame(MULTI, columns=["sea", "animal"])), "animal"),
    "partial_fit: list with a new label": (multi_label, partial_fit(X, [["sea"], ["animal"]] * 4), "animal"),
    "partial_fit: new class of a target": (
        multi_output, partial_fit(X, OUTPUTS.replace("small", "tiny")), "'size' of y has classes that are not"),
    "partial_fit: other targets": (multi_output, partial_fit(X, OUTPUTS.rename(columns={"size": "age"})), "age"),
    "partial_fit: one of the targets": (multi_output, partial_fit(X, FOOD), "this y has one target"),
    "partial_fit: another option": (continued, partial_fit(X, FOOD, scorer_type="mlp"), "scorer_type='mlp'"),
    "partial_fit: another type": (continued, partial_fit(X, FOOD, dtype="float64"), "dtype='float64'"),
    "partial_fit: no callback": (continued, partial_fit(X, FOOD, callbacks=["timer"]), "callbacks of skorch"),
    "partial_fit: no weight": (continued, partial_fit(X, FOOD, None, [0.0] * 8), "no sample to fit|non-zero"),
    "partial_fit: label names alike": (continued, partial_fit(X, FOOD, label_names=["POS", "pos"]), "POS"),
    "partial_fit: constraint": (continued, partial_fit(X, FOOD, validation_fraction=-1.0), "'validation_fraction'"),
    "partial_fit: no configuration": (continued, partial_fit(X, FOOD, rl="fast"), "'rl' parameter"),
    "partial_fit: another rate": (continued, partial_fit(X, FOOD, lr=0.1), r"lr=0\.1 cannot take.*warm_start=True"),
    "partial_fit: another batch size": (continued, partial_fit(X, FOOD, batch_size=2), "batch_size=2 cannot take"),
    "partial_fit: threshold of no class": (
        multi_label, partial_fit(X, MULTI, threshold={"animal": 0.5}), r"threshold has no number for the class.*'sea'"),
    "regression: partial_fit with a constraint": (regressor, partial_fit(X, TARGETS, max_batch_tokens=0), "tokens"),
    "regression: partial_fit with another rate": (regressor, partial_fit(X, TARGETS, others_lr=0.1), "others_lr=0.1"),
    # -- saving
    "save: nowhere": (classifier, lambda clf: clf.save_pretrained(None), "name of a folder.*None"),
    "save: bytes": (classifier, lambda clf: clf.save_pretrained(b"folder"), "name of a folder"),
    "save: for_gliclass": (classifier, lambda clf: clf.save_pretrained("x", for_gliclass=1), "True or False, got 1"),
    "export: nowhere": (classifier, lambda clf: clf.export_onnx(None), "name of a folder.*None"),
    "export: quantize": (classifier, lambda clf: clf.export_onnx("folder", quantize=8), "True or False, got 8"),
    # -- predictions
    "predict: labels in a prompt": (classifier, set_and("predict", X, max_num_classes=-1), "'max_num_classes'"),
    "predict: batch": (classifier, set_and("predict_proba", X, max_batch_tokens=0), "'max_batch_tokens'"),
    "predict: type": (classifier, set_and("decision_function", X, dtype="float16"), "'dtype' parameter"),
    "predict: memory": (regressor, set_and("predict", X, memory=3), "'memory' parameter"),
    "predict: threshold": (multi_label, set_and("predict", X, threshold=[0.5]), "1 numbers for 2 labels"),
    "score: lists of labels": (classifier, lambda clf: clf.score(X, [["sea"]] * 8), "fitted on single-label y"),
    # -- other labels
    "with_labels: one": (classifier, lambda clf: clf.with_labels(["sea"]), "at least 2"),
    "with_labels: labels alike": (classifier, lambda clf: clf.with_labels(["Sea", "sea"]), "Sea"),
    "with_labels: description that is none": (
        classifier, lambda clf: clf.with_labels({"sea": "water", "art": 3}), "must hold texts"),
    "with_labels: threshold": (
        multi_label, set_and("with_labels", ["sea", "art"], threshold=[0.3, 0.6]), r"new label\(s\) \['art'\]"),
    "with_labels: training fails": (
        continued, lambda clf: partial_fit(X, ["art"] * 8)(clf.with_labels(["sea", "food"])), "art"),
    "with_labels: one of the targets": (multi_output, lambda clf: clf.with_labels(["sea", "food"]), "takes {target"),
    "with_labels: targets of one": (
        classifier, lambda clf: clf.with_labels({"a": ["b", "c"], "d": ["e", "f"]}), "takes a list of classes"),
    "score: one of the targets": (multi_output, lambda clf: clf.score(X, FOOD), "no column for each"),
    # -- warm starts
    "warm start: single to multi-label": (classifier, fit(X, MULTI, warm_start=True), "multi-label"),
    "warm start: multi- to single-label": (multi_label, fit(X, FOOD, warm_start=True), "multi-label y"),
    "warm start: another option": (classifier, fit(X, FOOD, warm_start=True, use_lstm=True), "use_lstm=True"),
    "warm start: divergence": (
        classifier, fit(X, FOOD, warm_start=True, lr=1e30, others_lr=1e30, max_grad_norm=None), "[Dd]iverged"),
    "warm start: callback in an epoch": (
        classifier, fit(X, FOOD, warm_start=True, callbacks=failing("on_batch_end", calls=2)), "stop"),
    "warm start: Ctrl-C": (
        classifier, fit(X, FOOD, warm_start=True, callbacks=failing("on_batch_end", KeyboardInterrupt())), ""),
    "warm start: reward": (
        classifier, fit(X, FOOD, warm_start=True, rl=RL, reward_components=reward(lambda a: 1 / 0)), "division"),
    "warm start: two outputs to three": (
        regressor, fit(X, TARGETS.assign(third=1.0), warm_start=True), "third|3"),
    "warm start: one to several targets": (classifier, fit(X, OUTPUTS, warm_start=True), "this y has several"),
    # -- zero-shot
    "zero-shot: targets and labels": (zero_shot, fit(None, {"a": ["b", "c"], "d": "e"}), "without one for"),
    "zero-shot: one target": (zero_shot, fit(None, {"a": ["b", "c"]}), "got one target"),
    "zero-shot: nothing": (classifier, fit(None, None), "at least 2"),
    "zero-shot: one label": (classifier, fit(None, ["animal"]), "at least 2"),
    "zero-shot: labels twice": (classifier, fit(None, ["animal", "animal"]), "once|twice|animal"),
    "zero-shot: missing label": (classifier, fit(None, ["animal", None]), "missing|None"),
    "zero-shot: weights": (zero_shot, fit(None, ["a", "b"], [1.0, 2.0]), "sample_weight"),
    "zero-shot: random heads": (classifier, fit(None, ["animal", "plant"]), "random weights"),
    "zero-shot: labels alike": (zero_shot, fit(None, ["café", "cafe"]), "café"),
    "zero-shot: names of another number": (zero_shot, fit(None, ["a", "b"], label_names=["one"]), "1 texts"),
    "zero-shot: description that is none": (classifier, fit(None, {"animal": "a pet", "plant": 3}), "random|int: 3"),
    "zero-shot: descriptions and names": (
        zero_shot, fit(None, {"a": "one", "b": "two"}, label_names=["x", "y"]), "set label_names=None"),
    "zero-shot: empty label": (zero_shot, fit(None, ["animal", ""]), ""),
    # -- regression
    "regression: text in y": (regressor, fit(X, FOOD), "numbers"),
    "regression: integer beyond floats": (regressor, fit(X, [10**400, *PRICE[1:]]), "too large for a float"),
    "regression: lazy targets": (regressor, fit(X, pl.LazyFrame({"price": PRICE})), r"pass y\.collect\(\)"),
    "regression: missing value": (regressor, fit(X, [np.nan, *PRICE[1:]]), "NaN"),
    "regression: infinite value": (regressor, fit(X, [np.inf, *PRICE[1:]]), "inf"),
    "regression: lengths differ": (regressor, fit(X, TARGETS[1:]), "inconsistent"),
    "regression: outputs alike": (regressor, fit(X, TARGETS.rename(columns={"mood": "PRICE"})), "PRICE"),
    "regression: callback": (regressor, fit(X, TARGETS, callbacks=failing("on_epoch_end")), "stop"),
    "regression: divergence": (regressor, fit(X, TARGETS, lr=1e30, others_lr=1e30, max_grad_norm=None), "[Dd]iverged"),
    "regression: option that is not read": (regressor, fit(X, PRICE, prompt_first=True), "no effect here"),
    "regression: partial_fit with one output": (regressor, partial_fit(X, PRICE), "2"),
    "regression: partial_fit with other outputs": (
        regressor, partial_fit(X, TARGETS.rename(columns={"mood": "size"})), "size"),
    "regression: partial_fit with a missing value": (regressor, partial_fit(X, TARGETS * np.nan), "NaN"),
}  # fmt: skip


def state(estimator):
    """Copy the state that later calls depend on."""
    found = {name: value for name, value in vars(estimator).items() if name not in ("fitted_", "net_", "rl_net_")}
    found |= {"ids": [id(vars(estimator).get(name)) for name in ("fitted_", "net_", "rl_net_")]}
    found["history_"] = [dict(row) for row in getattr(estimator, "history_", [])]
    found["label_names_"], found["max_length_"] = list(estimator.label_names_), estimator.max_length_
    found["weights"] = {name: weight.detach().clone() for name, weight in estimator.model_.state_dict().items()}
    found["is trained"] = estimator.model_.training
    if hasattr(estimator, "net_"):
        optimizer = estimator.net_.optimizer_.state_dict()
        found["optimizer"] = copy.deepcopy(optimizer)
    table = FRAME if getattr(estimator, "n_features_in_", 0) == 2 else X
    scores = estimator.decision_function if hasattr(estimator, "decision_function") else estimator.predict
    found["predictions"], found["embeddings"] = scores(table), estimator.transform(table)
    return {**found, **generators()}


def generators():
    return {"torch's generator": torch.get_rng_state(), "numpy's generator": np.random.get_state()}


@functools.cache
def fitted_once(fitted):
    """Return an estimator for all calls that raise, and its state."""
    estimator = fitted()
    return estimator, state(estimator)


def assert_equal(before, after, path=""):
    assert type(before) is type(after), path
    if isinstance(before, dict):
        assert list(before) == list(after), path
        for name, value in before.items():
            assert_equal(value, after[name], f"{path} {name}")
    elif isinstance(before, (list, tuple)):
        assert len(before) == len(after), path
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            assert_equal(one, other, f"{path} {number}")
    elif isinstance(before, torch.Tensor):
        assert torch.equal(before, after), path
    elif isinstance(before, np.ndarray):
        np.testing.assert_array_equal(before, after, path)
    else:
        assert before == after or before is after, path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("fitted", "call", "message"), CASES.values(), ids=CASES)
def test_failing_call_changes_nothing(fitted, call, message):
    estimator, first = fitted_once(fitted)
    before = {**first, **generators()}
    try:
        with pytest.raises((Exception, KeyboardInterrupt), match=message):
            call(estimator)
        assert_equal(before, state(estimator))
    except BaseException:
        fitted_once.cache_clear()  # the other calls get an estimator that this one has not changed
        raise


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ("on_batch_begin", RuntimeError("stop")),
        ("on_grad_computed", KeyboardInterrupt()),
        ("on_batch_end", KeyboardInterrupt()),
        ("on_epoch_end", RuntimeError("stop")),
    ],
)
def test_failing_partial_fit_can_be_repeated(event, error):
    """After a failure, the next call has the same result as without it: weights and optimiser are restored."""
    expected = continued().partial_fit(X[::-1], FOOD)
    clf = continued()
    before = state(clf)
    entry = ("fails", FailAt(event, error))
    clf.net_.callbacks_.append(entry)
    with pytest.raises(type(error)):
        clf.partial_fit(X[::-1], FOOD)
    clf.net_.callbacks_.remove(entry)
    assert_equal(before, state(clf))
    clf.partial_fit(X[::-1], FOOD)
    np.testing.assert_array_equal(clf.decision_function(X), expected.decision_function(X))


@pytest.mark.parametrize("call", [fit(X, ["one"] * 8), fit(X, FOOD, callbacks=failing("on_epoch_end"))])
def test_failing_first_fit_leaves_an_unfitted_estimator(call):
    clf = GLiClassClassifier(**OPTIONS)
    before = dict(vars(clf))
    with pytest.raises((ValueError, RuntimeError)):
        call(clf)
    assert vars(clf) == before
