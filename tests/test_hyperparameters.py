"""Fields of the model and the training loop are hyperparameters, with constraints and documentation."""

import ast
import inspect
import re

import numpy as np
import pytest
from tiny_estimators import LABELS, TEXTS

from sklearn_gliclass import (
    GLiClassClassifier,
    GLiClassModelConfig,
    GLiClassRegressor,
    RLTrainerConfig,
    TrainingArguments,
)
from sklearn_gliclass.docstrings import ENTRIES, split_entries
from sklearn_gliclass.parameters import CLASSIFICATION_PARAMETERS
from sklearn_gliclass.testing import TINY

ESTIMATORS = (GLiClassClassifier, GLiClassRegressor)
MULTI = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)

# Fields that only checkpoints have.
CHECKPOINT_FIELDS = [
    name
    for name in inspect.signature(GLiClassModelConfig.__init__).parameters
    if name.startswith(("recurrent_", "calibrator_")) or name in ("use_calibrator", "max_labels_alloc")
]
CHECKPOINT_FIELDS = [name for name in CHECKPOINT_FIELDS if name not in ("recurrent_steps", "recurrent_read_text")]
# Fields of the configuration that are not hyperparameters, with the reason.
NOT_A_HYPERPARAMETER = {
    "example_token_index": "a token of the tokenizer",
    "label_prefix": "the default prompt of the encoder",
    "text_prefix": "the default prompt of the encoder",
    "sep_token_index": "a token of the tokenizer",
    **dict.fromkeys(CHECKPOINT_FIELDS, "read from checkpoints"),
    "logit_offset": "derived from the encoder: `logit_offset_`",
    "weights_edition": "a record of the weights that the package comes with",
    "kwargs": "not a field",
    "self": "not a field",
}


def parameters(function) -> set[str]:
    return set(inspect.signature(function).parameters)


def documented(estimator, section="Parameters") -> dict[str, str]:
    """Entries of a section of the docstring as users see it."""
    _, text = inspect.getdoc(estimator).split(f"{section}\n{'-' * len(section)}\n")
    return split_entries(re.split(r"\n\n(?=\S)", text)[0])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_field_is_a_hyperparameter(estimator):
    hyperparameters = parameters(estimator.__init__)
    fields = parameters(GLiClassModelConfig.__init__) - set(NOT_A_HYPERPARAMETER)
    for_classes = {*CLASSIFICATION_PARAMETERS, "problem_type"}
    assert fields - hyperparameters == (for_classes if estimator is GLiClassRegressor else set())
    assert set(TrainingArguments().get_params()) - hyperparameters == set()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_hyperparameter_is_constrained_and_documented(estimator):
    hyperparameters = list(inspect.signature(estimator).parameters)
    assert set(hyperparameters) == set(estimator._parameter_constraints)
    named = [name for names in documented(estimator) for name in names.split(", ")]
    assert sorted(named) == sorted(hyperparameters)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_hyperparameter_is_assigned_as_it_is(estimator):
    values = {name: object() for name in inspect.signature(estimator).parameters}
    assert vars(estimator(**values)) == values


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_documented_defaults_are_those_of_the_signature(estimator):
    signature = inspect.signature(estimator).parameters
    for names, text in documented(estimator).items():
        default = text.splitlines()[0].rsplit("default=", maxsplit=1)[1]
        values = {signature[name].default for name in names.split(", ")}
        stated = {ast.literal_eval(value) for value in ([default] if len(values) == 1 else default.split(", "))}
        assert stated == values, names


def test_defaults_of_the_loop_are_the_estimators():
    defaults = GLiClassClassifier().get_params()
    assert {name: defaults[name] for name in TrainingArguments().get_params()} == TrainingArguments().get_params()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_shared_entries_are_in_the_docstring_as_they_were_written(estimator):
    entries = {**documented(estimator), **documented(estimator, "Attributes")}
    for names, text in ENTRIES.items():
        if names in ("batch_size", "lr"):  # the defaults differ
            assert entries[names].splitlines()[1:] == text.splitlines()[1:]
        elif names == "label_names":  # classifiers have several targets besides
            assert entries[names].startswith(text)
        else:
            assert entries[names] == text
    assert not re.search(r"%\(|\)s$", estimator.__doc__, re.MULTILINE)
    assert not re.search(r"[ \t]$", inspect.getdoc(estimator), re.MULTILINE)


def test_entries_of_classification_are_for_classifiers_alone():
    for names in set(documented(GLiClassClassifier)) - set(documented(GLiClassRegressor)):
        assert not set(names.split(", ")) & parameters(GLiClassRegressor.__init__)


BASE = {**TINY, "random_state": 0, "max_epochs": 2}
UNI = {"architecture_type": "uni-encoder"}


@pytest.mark.parametrize(
    ("hyperparameters", "scale"),
    [
        ({}, 20.0),
        ({"normalize_features": False}, 2.6592),
        ({"scorer_type": "mlp"}, 20.0),
        ({"architecture_type": "bi-encoder-fused"}, 2.6592),
        ({"logit_scale_init_value": 7.0}, 7.0),
    ],
)
def test_logit_scale_none_is_resolved(hyperparameters, scale):
    options = {**BASE, "max_epochs": 0, **hyperparameters}
    model = GLiClassClassifier(**options).fit(TEXTS, LABELS).model_.model
    assert float(model.logit_scale) == pytest.approx(scale)
    if not hyperparameters:
        assert float(GLiClassRegressor(**options).fit(TEXTS, range(8)).model_.model.logit_scale) == pytest.approx(
            2.6592
        )


def test_threshold_decides():
    clf = GLiClassClassifier(**BASE).fit(TEXTS, MULTI)
    proba = clf.predict_proba(TEXTS)
    middle = float(np.median(proba))
    np.testing.assert_array_equal(clf.set_params(threshold=middle).predict(TEXTS), proba >= middle)
    np.testing.assert_array_equal(clf.set_params(threshold=[0.0, 1.0]).predict(TEXTS), [[1, 0]] * 8)
    with pytest.raises(ValueError, match="one for each of the 2 classes"):
        clf.set_params(threshold=[0.1, 0.2, 0.3]).predict(TEXTS)


def test_max_num_classes_bounds_the_prompts():
    labels = [f"topic {i}" for i in range(8)]
    clf = GLiClassClassifier(**{**BASE, **UNI, "max_num_classes": 3}).fit(TEXTS, labels)
    tokens, class_token = [], clf.config_.class_token_index
    clf.model_.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: tokens.append(int((inputs[0] == class_token).sum()))
    )
    clf.predict(TEXTS[:1])
    assert tokens == [3, 3, 2]


@pytest.mark.parametrize(
    ("options", "n_rows", "resolved"),
    [
        ({}, 40, 200),
        ({}, 39, 25),
        ({"scorer_type": "mlp"}, 40, 25),
        (UNI, 40, 25),
        ({"architecture_type": "bi-encoder-fused"}, 40, 25),
    ],
)
def test_max_num_classes_is_larger_where_labels_are_cheap_and_rows_are_many(options, n_rows, resolved):
    labels = [f"topic {i}" for i in range(26)] * n_rows
    texts = [f"{i} {i * i % 7}" for i in range(len(labels))]
    clf = GLiClassClassifier(**{**BASE, **options, "max_epochs": 0}).fit(texts, labels)
    assert clf.config_.max_num_classes == resolved
    assert clf.max_num_classes is None
    both = [[0, 1], [1, 0]] * n_rows
    assert clf.fit(texts[: len(both)], both).config_.max_num_classes == 25  # multi-label


def test_max_num_classes_bounds_what_a_step_sees():
    labels = [f"topic {i}" for i in range(30) for _ in range(2)]
    texts = [f"{number} about {label}" for number, label in enumerate(labels)]

    def predict(max_num_classes):
        clf = GLiClassClassifier(**{**BASE, "batch_size": 4, "max_epochs": 1, "max_num_classes": max_num_classes})
        return clf.fit(texts, labels).decision_function(texts)

    np.testing.assert_array_equal(predict(None), predict(25))
    np.testing.assert_array_equal(predict(200), predict(30))
    assert not np.allclose(predict(25), predict(30), atol=1e-6)


def test_ignore_index_marks_unknown_labels():
    common = {**BASE, "logit_scale_init_value": 1.0}
    known = GLiClassClassifier(**common).fit(TEXTS, MULTI).decision_function(TEXTS)
    unknown = MULTI.copy()
    unknown[:4, 0] = -7
    clf = GLiClassClassifier(**common, ignore_index=-7).fit(TEXTS, unknown)
    assert not np.allclose(clf.decision_function(TEXTS), known, atol=1e-4)
    with pytest.raises(ValueError, match="Unknown label type"):
        GLiClassClassifier(**common).fit(TEXTS, unknown)


def test_early_stopping_stops_and_restores_the_best_weights():
    clf = GLiClassClassifier(
        **{**BASE, "max_epochs": 60, "lr": 0.05, "others_lr": 0.05},
        early_stopping=True,
        validation_fraction=0.5,
        n_iter_no_change=2,
    ).fit(TEXTS, LABELS)
    losses = np.array(clf.history_[:, "valid_loss"])
    assert clf.n_iter_ == len(losses) < 60
    assert losses.argmin() == len(losses) - 3 or len(losses) - 1 - losses.argmin() >= 2


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (LABELS, 0.1, r"validation_fraction=0.1 validates on 1 of 8 rows and trains on 7, and each set needs 2 or "
                      r"more, one of each class; raise it to at least 0.25, or set early_stopping=False"),
        (LABELS, 0.9, r"validates on 8 of 8 rows and trains on 0, .* lower it below 0.75, or set early_stopping=False"),
        (["rare", *LABELS[1:]], 0.5, r"needs 2 rows of each class or more, .* got only 1 row of \['rare'\]; give more"),
    ],
)  # fmt: skip
def test_early_stopping_needs_rows_of_each_class_on_both_sides(labels, fraction, message):
    clf = GLiClassClassifier(**BASE, early_stopping=True, validation_fraction=fraction)
    with pytest.raises(ValueError, match=message):
        clf.fit(TEXTS, labels)


def test_early_stopping_of_a_regression_needs_rows_on_both_sides():
    reg = GLiClassRegressor(**BASE, early_stopping=True)
    with pytest.raises(ValueError, match=r"needs 2 rows or more, .* got only 1 row; give more rows"):
        reg.fit(TEXTS[:1], [1.0])
    with pytest.raises(ValueError, match=r"trains on 0, and each set needs 1 or more; lower it below 0.875"):
        reg.set_params(validation_fraction=0.99).fit(TEXTS, range(8))


def test_n_iter_no_change_is_the_patience():
    lengths = [
        GLiClassClassifier(
            **{**BASE, "max_epochs": 40, "lr": 0.05, "others_lr": 0.05},
            early_stopping=True,
            validation_fraction=0.5,
            n_iter_no_change=patience,
        )
        .fit(TEXTS, LABELS)
        .n_iter_
        for patience in (1, 6)
    ]
    assert lengths[0] < lengths[1]


def test_warm_start_goes_on():
    clf = GLiClassClassifier(**BASE, warm_start=True).fit(TEXTS, LABELS)
    first = clf.decision_function(TEXTS)
    clf.fit(TEXTS, LABELS)
    second = clf.decision_function(TEXTS)
    assert not np.allclose(second, first)
    clf.set_params(lr=1e-9, others_lr=1e-9, label_centroid_share=0.0).fit(TEXTS, LABELS)
    np.testing.assert_allclose(clf.decision_function(TEXTS), second, atol=1e-4)
    cold = GLiClassClassifier(**BASE).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(cold.fit(TEXTS, LABELS).decision_function(TEXTS), first)


def test_partial_fit_adds_an_epoch():
    clf = GLiClassClassifier(**BASE)
    clf.partial_fit(TEXTS[:6], LABELS[:6], classes=["politics", "sports", "weather"])
    assert clf.classes_.tolist() == ["politics", "sports", "weather"]
    before = clf.decision_function(TEXTS)
    assert clf.partial_fit(TEXTS[6:], LABELS[6:]).n_iter_ == 2
    assert not np.allclose(clf.decision_function(TEXTS), before)
    with pytest.raises(ValueError, match=r"not among the classes.*snow"):
        clf.partial_fit(["snow"], ["snow"])


def test_ewc_lambda_and_rl():
    """Their other effects are tested in tests/training/test_ewc.py and test_rl.py."""
    common = {**BASE, "logit_scale_init_value": 1.0}
    plain = GLiClassClassifier(**common).fit(TEXTS, LABELS).decision_function(TEXTS)
    rl = RLTrainerConfig(max_epochs=1, lr=2e-3, others_lr=2e-3, kl_beta=0.5)
    reference = {"reference_model": lambda texts, labels: np.tile([0.9, 0.1], (len(texts), 1))}
    first = GLiClassClassifier(**common, rl=rl, **reference).fit(TEXTS, LABELS).decision_function(TEXTS)
    assert not np.allclose(plain, first, rtol=1e-4)
    for other in (
        {"reference_model": lambda texts, labels: np.tile([0.1, 0.9], (len(texts), 1))},
        {**reference, "reward_components": {"less": lambda probs, actions, targets, valid: -actions[:, :1]}},
        {**reference, "value_model": lambda texts: np.full(len(texts), 0.9)},
    ):
        found = GLiClassClassifier(**common, rl=rl, **other).fit(TEXTS, LABELS).decision_function(TEXTS)
        assert not np.allclose(found, first, rtol=1e-4), other

    def after_more(ewc_lambda):
        clf = GLiClassClassifier(**common, ewc_lambda=ewc_lambda).fit(TEXTS, LABELS)
        for _ in range(3):
            clf.partial_fit(TEXTS, LABELS[::-1])
        return clf.decision_function(TEXTS)

    assert not np.allclose(after_more(0.0), after_more(100.0), rtol=1e-4)


def test_text_template_and_device_and_dtype():
    import pandas as pd

    table = pd.DataFrame({"a": TEXTS, "b": range(8)})
    clf = GLiClassClassifier(**BASE, text_template="{a}").fit(table, LABELS)
    plain = GLiClassClassifier(**BASE).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(clf.decision_function(table), plain.decision_function(TEXTS))
    assert str(plain.model_.device) == "cpu"
    double = GLiClassClassifier(**{**BASE, "dtype": "float64"}).fit(TEXTS, LABELS)
    assert double.decision_function(TEXTS).dtype == np.float64
    half = GLiClassClassifier(**{**BASE, "dtype": "bfloat16"}).fit(TEXTS, LABELS)
    assert not np.array_equal(half.decision_function(TEXTS), plain.decision_function(TEXTS))
    np.testing.assert_allclose(
        GLiClassClassifier(**{**BASE, "dtype": "float64", "max_epochs": 0}).fit(TEXTS, LABELS).decision_function(TEXTS),
        GLiClassClassifier(**{**BASE, "max_epochs": 0}).fit(TEXTS, LABELS).decision_function(TEXTS),
        atol=1e-4,
    )


def test_memory_is_where_states_are_kept(tmp_path):
    clf = GLiClassClassifier(**BASE, freeze_encoder=True, memory=tmp_path / "states").fit(TEXTS, LABELS)
    assert list((tmp_path / "states").rglob("*.safetensors"))
    plain = GLiClassClassifier(**BASE, freeze_encoder=True).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(clf.decision_function(TEXTS), plain.decision_function(TEXTS))


def test_max_batch_tokens_bounds_the_batches():
    clf = GLiClassClassifier(**BASE, max_batch_tokens=20).fit(TEXTS, LABELS)
    sizes = []
    clf.model_.get_input_embeddings().register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].numel()))
    clf.predict(TEXTS)
    assert len(sizes) > 1
    assert max(sizes) <= 20


def test_callbacks_are_called():
    from skorch.callbacks import EpochTimer, GradientNormClipping

    clf = GLiClassClassifier(**BASE, callbacks=[("clip", GradientNormClipping(1.0)), ("timer", EpochTimer)])
    names = [name for name, _ in clf.fit(TEXTS, LABELS).net_.callbacks_]
    assert {"clip", "timer"} <= set(names)


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_classes": np.int64(2)},
        {"hidden_size": np.int64(64)},
        {"encoder_layer_id": np.int64(-1)},
        {"batch_size": np.int32(2), "max_batch_tokens": np.int64(64), "freeze_encoder": np.int64(1)},
        {"initializer_range": np.float32(0.25), "logit_scale_init_value": np.float32(2), "dropout": np.float64(0.5)},
        {"contrastive_loss_coef": np.float32(0.5), "text_contrastive_loss_coef": np.float16(0.5)},
        {"use_lstm": np.bool_(True), "normalize_features": np.bool_(False), "squeeze_layers": np.bool_(True)},
        {"layer_wise": np.bool_(True), "shuffle_labels": np.bool_(False)},
        {"architecture_type": np.str_("uni-encoder"), "scorer_type": np.str_("mlp"), "dtype": np.str_("float64")},
    ],
    ids=str,
)
def test_numpy_scalars_count_as_python_ones(options, tmp_path):
    """A search over ``np.arange`` or ``np.linspace`` gives them."""
    y = ["sports", "politics", "food", "sea"]
    plain = {name: value.item() for name, value in options.items()}
    fitted, expected = (
        GLiClassClassifier(**{**TINY, "random_state": 0, **part}).fit(y, y) for part in (options, plain)
    )
    np.testing.assert_array_equal(fitted.predict_proba(y), expected.predict_proba(y))
    fitted.save_pretrained(tmp_path)
    loaded = GLiClassClassifier.from_pretrained(tmp_path, device="cpu", **options)
    np.testing.assert_allclose(loaded.predict_proba(y), expected.predict_proba(y), atol=1e-6)
