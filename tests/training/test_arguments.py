"""Conversion of transformers' arguments, and optimisers of optional packages."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from transformers.training_args import OptimizerNames

from sklearn_gliclass import GLiClassClassifier, RLTrainerConfig, TrainingArguments
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training.arguments import FROM_PROBE, FULL, HEADS_FROM_PROBE, MULTI_LABEL_FROM_PROBE
from sklearn_gliclass.training.optimizers import OPTIMIZERS, PACKAGED

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")  # transformers.TrainingArguments needs it

TEXTS = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"] * 2
LABELS = ["sports", "politics"] * 4


def theirs(**fields):
    return transformers.TrainingArguments("folder", **fields)


def test_each_field_is_read():
    args = TrainingArguments.from_transformers(
        theirs(
            learning_rate=1e-3,
            weight_decay=0.2,
            optim="adafactor",
            num_train_epochs=7,
            per_device_train_batch_size=5,
            gradient_accumulation_steps=3,
            lr_scheduler_type="cosine",
            warmup_steps=0.25,
            max_grad_norm=2.0,
        )
    )
    assert args.get_params() == {
        "lr": 1e-3,
        "others_lr": None,
        "weight_decay": 0.2,
        "others_weight_decay": 0.2,
        "optim": "adafactor",
        "max_epochs": 7,
        "batch_size": 5,
        "gradient_accumulation_steps": 3,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.25,
        "max_grad_norm": 2.0,
        "cache_dir": None,
    }
    assert TrainingArguments.from_transformers(theirs(max_grad_norm=0)).max_grad_norm is None


def test_fields_of_gliclass_are_converted():
    training = pytest.importorskip("gliclass.training")
    args = TrainingArguments.from_transformers(
        training.TrainingArguments("folder", others_lr=1e-2, others_weight_decay=0.3, weight_decay=0.1, cache_dir="c")
    )
    assert (args.others_lr, args.others_weight_decay, args.weight_decay, args.cache_dir) == (1e-2, 0.3, 0.1, "c")
    with pytest.raises(ValueError, match=r"use_ewc=True \(set ewc_lambda of the estimator\)"):
        TrainingArguments.from_transformers(training.TrainingArguments("folder", use_ewc=True))


def test_disabled_features_are_allowed():
    args = theirs(save_strategy="no", logging_strategy="no", eval_strategy="no", report_to="none", do_train=True)
    assert TrainingArguments.from_transformers(args) == TrainingArguments.from_transformers(theirs())


def test_fields_without_counterpart_raise_with_their_names():
    with pytest.raises(ValueError, match="no counterpart") as error:
        TrainingArguments.from_transformers(
            theirs(seed=1, adam_beta1=0.8, logging_steps=3, num_train_epochs=1.5, warmup_steps=10, use_cpu=True)
        )
    for part in ("seed=1 (set random_state of the estimator)", "adam_beta1=0.8", "logging_steps=3", "(give a whole",
                 "(give a fraction", 'set device="cpu"'):  # fmt: skip
        assert part in str(error.value)
    assert "learning_rate" not in str(error.value)


def test_fields_of_transformers_are_converted_or_raise():
    import dataclasses

    from sklearn_gliclass.training.transformers_arguments import COUNTERPARTS

    read = set(COUNTERPARTS) - {"others_lr", "others_weight_decay", "cache_dir", "warmup_ratio"}
    assert read <= {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    assert set(COUNTERPARTS.values()) == set(TrainingArguments().get_params())


@pytest.mark.parametrize("args", [TrainingArguments(), {"learning_rate": 1.0}, None])
def test_other_objects_raise(args):
    with pytest.raises(TypeError, match=r"takes a transformers\.TrainingArguments, got"):
        TrainingArguments.from_transformers(args)


def test_rl_config_is_searched_and_cloned():
    config = RLTrainerConfig(kl_beta=0.1, max_epochs=3)
    assert clone(config) == config
    assert clone(config) is not config
    assert set(TrainingArguments().get_params()) < set(config.get_params())
    defaults = {"cliprange": 0.2, "num_rl_iters": 3, "gamma": -1, "alpha": -1, "labels_smoothing": -1,
                "entropy_beta": -1, "kl_beta": -1, "get_actions": "bernoulli", "threshold": 0.5}  # fmt: skip
    assert {name: RLTrainerConfig().get_params()[name] for name in defaults} == defaults
    RLTrainerConfig(gamma=0, alpha=0.0, labels_smoothing=0, entropy_beta=0, kl_beta=0).validate()


# -- optimisers of other packages ----------------------------------------------------------------------------

# Optimisers of transformers that need more than parameters and a learning rate.
NOT_HERE = ("galore", "apollo", "lomo", "xla", "npu", "anyprecision", "apex")  # apex: until transformers 5.0


def test_optimisers_of_transformers_are_supported():
    names = {name.value for name in OptimizerNames}
    assert set(OPTIMIZERS) <= names
    assert {name for name in names - set(OPTIMIZERS) if not any(part in name for part in NOT_HERE)} == set()


@pytest.mark.parametrize("optim", PACKAGED)
def test_missing_package_is_named(optim, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGED[optim][1].rsplit(".", 1)[0], None)  # simulate a missing package
    package = PACKAGED[optim][0]
    with pytest.raises(ImportError, match=f"optim='{optim}' needs .*: pip install {package}; or choose from .*sgd"):
        GLiClassClassifier(**TINY, optim=optim).fit(TEXTS, LABELS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optim", PACKAGED)
def test_packaged_optimisers_train(optim):
    module = PACKAGED[optim][1].split(".")[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{PACKAGED[optim][0]} is not installed")
    options = {**TINY, "random_state": 0, "optim": optim}
    clf = GLiClassClassifier(**options).fit(TEXTS, LABELS)
    start = GLiClassClassifier(**{**options, "max_epochs": 0}).fit(TEXTS, LABELS)
    assert not np.allclose(clf.predict_proba(TEXTS), start.predict_proba(TEXTS))
    assert np.isfinite(clf.history_[:, "train_loss"]).all()


def test_optimiser_with_two_sets_of_weights_predicts_with_the_right_ones(monkeypatch):
    """Schedule-free optimisers need calls of train and eval."""
    calls = []

    class TwoSets(torch.optim.SGD):
        def train(self):
            calls.append("train")

        def eval(self):
            calls.append("eval")

    monkeypatch.setitem(OPTIMIZERS, "sgd", TwoSets)
    GLiClassClassifier(**{**TINY, "optim": "sgd"}).fit(TEXTS, LABELS)
    assert calls[0] == "train"
    assert calls[-1] == "eval"


def test_cache_dir_is_where_models_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fitted = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, LABELS)
    repository = tmp_path / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    fitted.save_pretrained(repository / "snapshots" / ("0" * 40))
    clf = GLiClassClassifier(pretrained="someone/model", cache_dir=str(tmp_path), max_epochs=0).fit(TEXTS, LABELS)
    np.testing.assert_allclose(clf.predict_proba(TEXTS), fitted.predict_proba(TEXTS), rtol=1e-5)
    with pytest.raises(OSError, match="Ways to get it"):
        GLiClassClassifier(pretrained="someone/model", cache_dir=str(tmp_path / "other")).fit(TEXTS, LABELS)


def test_arguments_are_plain_data():
    assert TrainingArguments(**json.loads(json.dumps(TrainingArguments().get_params()))) == TrainingArguments()


@pytest.mark.parametrize(("samples_per_label", "epochs"), [(8, 8), (32, 4), (2, 16), (512, 2)])
@pytest.mark.parametrize("n_labels", [1, 5])
def test_epochs_after_a_probe_depend_on_the_samples_of_a_label(samples_per_label, epochs, n_labels):
    """8 * sqrt(8 / samples per label), and at least 2."""
    arguments = TrainingArguments()
    assert arguments.resolve_epochs(samples_per_label * n_labels, FROM_PROBE, n_labels=n_labels) == epochs
    assert TrainingArguments(max_epochs=3).resolve_epochs(samples_per_label, FROM_PROBE, n_labels=n_labels) == 3


@pytest.mark.parametrize(("n_labels", "epochs"), [(32, 8), (72, 5), (128, 4), (1000, 2)])
def test_epochs_after_a_probe_fall_with_many_labels(n_labels, epochs):
    """8 * sqrt(32 / labels) for 8 samples per label and more than 32 labels; not those of multi-label y."""
    assert TrainingArguments().resolve_epochs(8 * n_labels, FROM_PROBE, n_labels=n_labels) == epochs
    assert TrainingArguments().resolve_epochs(8 * n_labels, MULTI_LABEL_FROM_PROBE, n_labels=n_labels) == 8


@pytest.mark.parametrize(("samples_per_label", "epochs"), [(2, 1), (8, 1), (32, 2), (128, 4), (2000, 8)])
def test_epochs_of_heads_after_a_probe_rise_with_the_samples_of_a_label(samples_per_label, epochs):
    """sqrt(samples per label / 8), from 1 to 8."""
    assert TrainingArguments().resolve_epochs(3 * samples_per_label, HEADS_FROM_PROBE, n_labels=3) == epochs


@pytest.mark.parametrize("n_batches", [50, 100, 200, 10_000])
def test_epochs_of_fine_tuning_fall_with_the_square_root_of_the_batches(n_batches):
    epochs = TrainingArguments(batch_size=10).resolve_epochs(10 * n_batches, FULL)
    assert epochs == max(FULL.min_epochs, round(FULL.steps_per_root / n_batches**0.5))
    assert TrainingArguments(batch_size=10, max_epochs=0).resolve_epochs(10 * n_batches, FULL) == 0


@pytest.mark.parametrize(("n_samples", "n_labels", "warmup_ratio"), [(64, 8, 0.1), (8, 1, 0.0)])
def test_warm_up_after_a_probe_needs_ten_steps(n_samples, n_labels, warmup_ratio):
    resolved = TrainingArguments().resolve(n_samples, FROM_PROBE, n_labels=n_labels)
    n_steps = resolved.max_epochs * resolved.steps_per_epoch(n_samples)
    assert (n_steps >= 10) == (warmup_ratio > 0)
    assert resolved.warmup_ratio == warmup_ratio
