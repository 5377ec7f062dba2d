"""Estimators from GLiClass's configuration objects."""

import numpy as np
import pytest
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS

from sklearn_gliclass import (
    GLiClassClassifier,
    GLiClassModelConfig,
    GLiClassRegressor,
    RLTrainerConfig,
    TrainingArguments,
)
from sklearn_gliclass.parameters import MODEL_PARAMETERS
from sklearn_gliclass.testing import TINY_BERT, TINY_ENCODERS

# Token ids and vocabulary size are derived from the tokenizer.
FROM_THE_TOKENIZER = {"class_token_index", "text_token_index", "vocab_size"}
TINY = {"max_epochs": 1, "device": "cpu", "random_state": 0}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_model_is_that_of_the_configuration(architecture):
    heads = {"scorer_type": "mlp", "pooling_strategy": "max", "hidden_size": 24}
    if architecture == "decoder-kv":
        heads = {"recurrent_steps": 2, "recurrent_read_text": True, "scorer_encoder_num_layers": 1}
    elif architecture == "encoder-decoder-cls":
        del heads["pooling_strategy"]
    config = GLiClassModelConfig(
        encoder_config=TINY_ENCODERS[ARCHITECTURES[architecture]],
        architecture_type=architecture,
        scorer_mlp_hidden_size=16,
        **heads,
        dropout=0.3,
        initializer_range=0.1,
        contrastive_loss_coef=0.2,
    )
    clf = GLiClassClassifier.from_config(config, **TINY).fit(TEXTS, LABELS)
    for name in set(MODEL_PARAMETERS) - FROM_THE_TOKENIZER:
        assert getattr(clf.config_, name) == getattr(config, name), name
    assert clf.config_.encoder_config.model_type == config.encoder_config.model_type


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fitted_configuration_builds_its_like(architecture):
    encoder = TINY_ENCODERS[ARCHITECTURES[architecture]]
    clf = GLiClassClassifier(architecture_type=architecture, encoder_config=encoder, **TINY).fit(TEXTS, LABELS)
    again = GLiClassClassifier.from_config(clf.config_, **TINY).fit(TEXTS, LABELS)
    np.testing.assert_allclose(again.predict_proba(TEXTS), clf.predict_proba(TEXTS), rtol=1e-6)


def test_defaults_of_the_configuration_hold():
    clf = GLiClassClassifier.from_config(GLiClassModelConfig(encoder_model="someone/encoder"))
    assert (clf.encoder_model, clf.encoder_config) == ("someone/encoder", None)
    assert (clf.architecture_type, clf.pooling_strategy, clf.projector_init) == ("uni-encoder", "first", "normal")
    assert (clf.logit_scale_init_value, clf.normalize_features, clf.hidden_size) == (2.6592, False, None)
    assert clf.lr == GLiClassClassifier().lr


def test_label_encoders_become_hyperparameters():
    def of(**fields):
        config = GLiClassModelConfig(architecture_type="bi-encoder", **fields)
        clf = GLiClassClassifier.from_config(config)
        return clf.label_model_name, clf.label_model_config

    assert of(encoder_model="a") == (None, None)
    assert of(encoder_model="a", label_model_name="b") == ("b", None)
    assert of(encoder_config=TINY_BERT) == (None, None)
    one_layer = {**TINY_BERT, "num_hidden_layers": 1}
    assert of(encoder_config=TINY_BERT, label_model_config=one_layer)[1]["num_hidden_layers"] == 1


def test_training_arguments_of_both_kinds():
    config = GLiClassModelConfig(encoder_config=TINY_BERT)
    clf = GLiClassClassifier.from_config(config, TrainingArguments(lr=0.1, batch_size=3), RLTrainerConfig(kl_beta=0.2))
    assert (clf.lr, clf.batch_size, clf.rl.kl_beta) == (0.1, 3, 0.2)
    assert GLiClassClassifier.from_config(config, TrainingArguments(lr=0.1), lr=0.2).lr == 0.2
    pytest.importorskip("accelerate")
    from transformers import TrainingArguments as Theirs

    reg = GLiClassRegressor.from_config(config, Theirs("folder", learning_rate=1e-3, num_train_epochs=1), device="cpu")
    assert (reg.lr, reg.others_lr) == (1e-3, None)
    assert reg.fit(TEXTS, range(8)).n_iter_ == 1
    with pytest.raises(ValueError, match=r"adam_beta1=0\.5"):
        GLiClassRegressor.from_config(config, Theirs("folder", adam_beta1=0.5))


@pytest.mark.parametrize("y", [LABELS, [[1, 0], [0, 1]] * 4])
def test_configuration_serves_every_kind_of_y(y):
    config = GLiClassModelConfig(encoder_config=TINY_BERT)
    assert GLiClassClassifier.from_config(config, **TINY).fit(TEXTS, y).n_iter_ == 1


def test_problem_type_holds_unless_it_is_the_default():
    assert GLiClassClassifier.from_config(GLiClassModelConfig()).problem_type is None
    multi = GLiClassModelConfig(problem_type="multi_label_classification")
    assert GLiClassClassifier.from_config(multi).problem_type == "multi_label_classification"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fitted_configuration_of_a_regression_builds_its_like(architecture):
    encoder = TINY_ENCODERS[ARCHITECTURES[architecture]]
    reg = GLiClassRegressor(architecture_type=architecture, encoder_config=encoder, **TINY).fit(TEXTS, range(8))
    again = GLiClassRegressor.from_config(reg.config_, **TINY).fit(TEXTS, range(8))
    np.testing.assert_allclose(again.predict(TEXTS), reg.predict(TEXTS), rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"ignore_index": -1},
        {"max_num_classes": 50},
        {"focal_loss_alpha": 0.9, "focal_loss_gamma": 1},
        {"focal_loss_reduction": "sum"},
        {"text_contrastive_loss_coef": 1.0},
        {"problem_type": "multi_label_classification"},
    ],
    ids=str,
)
def test_fields_of_classification_raise_for_a_regressor(fields):
    named = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    with pytest.raises(ValueError, match=f"GLiClassRegressor has no hyperparameters for {named} of the configuration"):
        GLiClassRegressor.from_config(GLiClassModelConfig(**fields))
    without_effect = GLiClassModelConfig(**{**fields, "problem_type": "regression"})
    assert GLiClassRegressor.from_config(without_effect).scorer_type == "simple"


@pytest.mark.parametrize("problem_type", [None, "single_label_classification", "regression"])
def test_configuration_without_such_fields_serves_a_regressor(problem_type):
    config = GLiClassModelConfig(encoder_config=TINY_BERT, problem_type=problem_type, dropout=0.3)
    reg = GLiClassRegressor.from_config(config, **TINY).fit(TEXTS, range(8))
    assert (reg.config_.problem_type, reg.config_.dropout) == ("regression", 0.3)


@pytest.mark.parametrize("fields", [{"use_calibrator": True}, {"recurrent_min_steps": 2}], ids=str)
def test_fields_of_trained_checkpoints_raise(fields):
    named = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    with pytest.raises(ValueError, match=f"{named} cannot be set for a new model.*pretrained="):
        GLiClassClassifier.from_config(GLiClassModelConfig(encoder_config=TINY_BERT, **fields))


def test_other_objects_raise():
    config = GLiClassModelConfig(encoder_config=TINY_BERT)
    with pytest.raises(TypeError, match="config must be a GLiClassModelConfig, got dict"):
        GLiClassClassifier.from_config({"scorer_type": "mlp"})
    with pytest.raises(TypeError, match=r"pass it as rl="):
        GLiClassClassifier.from_config(config, RLTrainerConfig())
    with pytest.raises(TypeError, match="got dict"):
        GLiClassClassifier.from_config(config, {"lr": 1.0})
    with pytest.raises(TypeError, match="unexpected keyword argument 'rl'"):
        GLiClassRegressor.from_config(config, rl=RLTrainerConfig())
