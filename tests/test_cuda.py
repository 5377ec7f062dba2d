"""Fits and predictions on a GPU give what they give on the CPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

TEXTS = ["a late goal", "a new law", "the match", "a vote", "goals of the match", "laws and votes"]
Y = ["sports", "politics"] * 3
ARCHITECTURES = ["uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder"]
SCORERS = ["simple", "weighted-dot", "mlp", "hopfield", "cross-attn"]


def classifier(device="cuda", **parameters):
    reads_tokens = parameters.get("scorer_type") == "cross-attn"
    options = {"pooling_strategy": "pass", "architecture_type": "uni-encoder"} if reads_tokens else {}
    if parameters.get("architecture_type") == "encoder-decoder":
        options["encoder_config"] = TINY_ENCODERS["t5"]
    return GLiClassClassifier(**{**TINY, "random_state": 0, "device": device, **options, **parameters})


def moved(clf, folder, device):
    clf.save_pretrained(folder)
    return GLiClassClassifier.from_pretrained(folder, device=device)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_predictions_are_those_of_the_cpu(architecture, tmp_path):
    clf = classifier("cpu", architecture_type=architecture).fit(TEXTS, Y)
    other = moved(clf, tmp_path / "model", "cuda")
    np.testing.assert_allclose(other.decision_function(TEXTS), clf.decision_function(TEXTS), atol=1e-3)
    np.testing.assert_allclose(other.transform(TEXTS), clf.transform(TEXTS), atol=1e-3)


@pytest.mark.parametrize("scorer", SCORERS)
def test_frozen_fit_is_that_of_the_cpu(scorer, tmp_path):
    logits = [
        classifier(device, scorer_type=scorer, freeze_encoder=True, dropout=0.0, memory=str(tmp_path / device))
        .fit(TEXTS, Y)
        .decision_function(TEXTS)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(logits[1], logits[0], atol=5e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fine_tuning_is_that_of_the_cpu(architecture):
    options = {"architecture_type": architecture, "max_epochs": 3, "lr": 1e-3, "others_lr": 1e-3}
    losses = [classifier(device, **options).fit(TEXTS, Y).history_[:, "train_loss"] for device in ("cpu", "cuda")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


@pytest.mark.parametrize("how", ["embeddings", 1, True])
def test_frozen_parameters_are_not_trained(how):
    clf = classifier(freeze_encoder=how, max_epochs=2).fit(TEXTS, Y)
    frozen = clf.model_.frozen_parameters
    assert frozen
    assert not any(parameter.requires_grad for parameter in frozen)


def test_bfloat16_is_near_float32(tmp_path):
    clf = classifier().fit(TEXTS, Y)
    expected = clf.predict_proba(TEXTS)
    np.testing.assert_allclose(clf.set_params(dtype="bfloat16").predict_proba(TEXTS), expected, atol=0.05)


def test_partial_fit_drops_cached_labels():
    clf = classifier().fit(TEXTS, Y)
    before = clf.decision_function(TEXTS)
    clf.partial_fit(TEXTS, Y[::-1])
    found = clf.decision_function(TEXTS)
    assert not np.allclose(found, before)
    clf.fitted_.label_cache._entry = (None, None)
    np.testing.assert_array_equal(clf.decision_function(TEXTS), found)


def test_regression_is_finite():
    values = np.arange(6.0)
    predicted = GLiClassRegressor(**{**TINY, "device": "cuda"}, random_state=0).fit(TEXTS, values).predict(TEXTS)
    assert np.isfinite(predicted).all()
