"""The weight delta of the package: when it is added, and zero-shot classification with it."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.model.loading import load_encoder
from sklearn_gliclass.model.lookup import (
    DEFAULT_ENCODER,
    OWN_LOGIT_OFFSET,
    OWN_WEIGHTS,
    OWN_WEIGHTS_EDITION,
    find_checkpoint,
)

DATA = Path(__file__).parent.parent / "notebooks" / "data"
TEXTS = ["The parliament votes on the budget.", "Heavy rain is coming on Sunday.", "The striker scored twice."]
LABELS = ["politics", "sports", "weather"]


def first_layer(estimator):
    return estimator.model_.encoder.encoder.layer[0].attention.self.query.weight.detach().numpy()


def plain_layer():
    encoder = load_encoder(find_checkpoint(DEFAULT_ENCODER))
    return encoder.encoder.layer[0].attention.self.query.weight.detach().numpy()


def test_own_weights_are_small():
    assert OWN_WEIGHTS.stat().st_size < 10 * 2**20


def test_classifier_without_a_named_encoder_starts_from_them():
    """Zero-shot classification and fine-tuning use all of the weight delta."""
    zero_shot = first_layer(GLiClassClassifier().fit(None, LABELS)) - plain_layer()
    assert 1e-4 < np.abs(zero_shot).max() < 0.1
    trained = first_layer(GLiClassClassifier(max_epochs=0).fit(TEXTS, LABELS)) - plain_layer()
    np.testing.assert_allclose(trained, zero_shot, atol=1e-7)


def test_regressor_without_a_named_encoder_starts_from_them():
    regressor = GLiClassRegressor(max_epochs=0).fit(TEXTS, [0.0, 1.0, 2.0])
    zero_shot = GLiClassClassifier().fit(None, LABELS)
    np.testing.assert_array_equal(first_layer(regressor), first_layer(zero_shot))
    assert regressor.config_.weights_edition == OWN_WEIGHTS_EDITION


@pytest.mark.parametrize("estimator", [GLiClassClassifier, GLiClassRegressor])
def test_named_encoder_is_loaded_unchanged(estimator):
    y = [0.0, 1.0, 2.0] if estimator is GLiClassRegressor else LABELS
    fitted = estimator(encoder_model=DEFAULT_ENCODER, max_epochs=0).fit(TEXTS, y)
    np.testing.assert_array_equal(first_layer(fitted), plain_layer())


def test_own_weights_work_with_every_scorer():
    clf = GLiClassClassifier(scorer_type="mlp", max_epochs=0).fit(TEXTS, LABELS)
    assert np.abs(first_layer(clf) - plain_layer()).max() > 1e-4


def test_zero_shot_is_better_than_with_the_plain_encoder():
    test = pd.read_csv(DATA / "banking77.test.csv.gz", keep_default_na=False).sample(500, random_state=0)
    classes = sorted(test["label"].unique())
    scores = []
    for start in ({}, {"encoder_model": DEFAULT_ENCODER}):
        predicted = GLiClassClassifier(**start).fit(None, classes).predict(test["text"])
        scores.append(f1_score(test["label"], predicted, average="macro"))
    assert scores[0] > scores[1] > 1 / len(classes)


def test_multi_label_zero_shot_may_predict_no_label():
    clf = GLiClassClassifier(problem_type="multi_label_classification").fit(None, LABELS)
    assert clf.predict(TEXTS).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert clf.predict(["Add two eggs and stir the flour."]).sum() == 0
    plain = GLiClassClassifier(problem_type="multi_label_classification", encoder_model=DEFAULT_ENCODER)
    assert plain.fit(None, LABELS).logit_offset_ == 0  # the plain encoder has no trained offset


def test_offset_is_saved_and_gone_after_training(tmp_path):
    clf = GLiClassClassifier(problem_type="multi_label_classification").fit(None, LABELS)
    assert clf.logit_offset_ == OWN_LOGIT_OFFSET
    expected = clf.predict_proba(TEXTS)
    clf.save_pretrained(tmp_path)
    np.testing.assert_allclose(GLiClassClassifier.from_pretrained(tmp_path).predict_proba(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(clf)).predict_proba(TEXTS), expected, atol=1e-6)
    clf.set_params(max_epochs=0).fit(TEXTS, np.eye(3, dtype=int))
    assert clf.logit_offset_ == 0


def test_another_encoder_under_the_default_name_raises(tmp_path):
    """A local folder of that name takes precedence, and the weight delta belongs to other weights."""
    encoder = load_encoder(find_checkpoint(DEFAULT_ENCODER))
    encoder.encoder.layer[0].attention.self.query.weight.data += 1
    encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="encoder_model"):
        load_encoder(tmp_path, weight_delta=OWN_WEIGHTS)


def test_edition_is_increased_with_the_weights():
    """Replace the number and the digest together."""
    digest = hashlib.sha256(OWN_WEIGHTS.read_bytes()).hexdigest()
    assert (OWN_WEIGHTS_EDITION, digest) == (1, "ff68a0753e283a3241b884b3d300aee7dda9fae3896a5ae8d3ef90113c4b56ed")


def test_models_record_the_edition_of_their_weights(tmp_path):
    clf = GLiClassClassifier().fit(None, LABELS)
    assert clf.config_.weights_edition == OWN_WEIGHTS_EDITION
    clf.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "estimator.json").read_text())["versions"]["weights"] == OWN_WEIGHTS_EDITION
    loaded = GLiClassClassifier.from_pretrained(tmp_path)
    assert loaded.config_.weights_edition == OWN_WEIGHTS_EDITION
    others = GLiClassClassifier(encoder_model=DEFAULT_ENCODER).fit(None, LABELS)
    assert others.config_.weights_edition is None
    others.save_pretrained(tmp_path)
    assert "weights" not in json.loads((tmp_path / "estimator.json").read_text())["versions"]
