"""The estimators on a checkpoint of gliclass, against the pipeline of gliclass."""

import numpy as np
import pytest
from reference_checkpoints import ARCHITECTURES, multi_label_pipeline, save_reference
from sklearn.exceptions import NotFittedError

from sklearn_gliclass import GLiClassClassifier

TEXTS = ["the goal was late", "the vote is near", "a goal and a match, and a law", "a law", "a"]
LABELS = ["ball games", "politics", "weather report"]
RECURRENT = {"recurrent_steps": 3, "recurrent_read_text": True}
CALIBRATED = {"use_calibrator": True, "calibrator_use_bias": True}
MODELS = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("uni-encoder", {"use_segment_embeddings": True, **CALIBRATED}),
    ("bi-encoder", CALIBRATED),
    ("decoder-kv", {**RECURRENT, **CALIBRATED}),
]


@pytest.fixture(scope="module", params=MODELS, ids=str)
def reference(request, tmp_path_factory):
    """Save a random gliclass model with its tokenizer to a folder."""
    folder = tmp_path_factory.mktemp("reference")
    architecture, options = request.param
    return *save_reference(folder, architecture, [*TEXTS, *LABELS], prompt_first=True, **options), folder


def probabilities(model, tokenizer):
    results = multi_label_pipeline(model, tokenizer)(TEXTS, LABELS, threshold=0.0, batch_size=2)
    scores = [{found["label"]: found["score"] for found in row} for row in results]
    return np.array([[row[label] for label in LABELS] for row in scores])


def test_same_probabilities_as_the_pipeline(reference):
    model, tokenizer, folder = reference
    clf = GLiClassClassifier.from_pretrained(folder, problem_type="multi_label_classification").fit(None, LABELS)
    assert clf.classes_.tolist() == LABELS  # already sorted
    np.testing.assert_allclose(clf.predict_proba(TEXTS), probabilities(model, tokenizer), atol=1e-5)


@pytest.mark.parametrize("reference", [MODELS[0], *MODELS[-3:]], ids=str, indirect=True)
@pytest.mark.parametrize("options", [{"max_epochs": 1}, {"max_epochs": 0, "calibrate": False}], ids=str)
def test_calibrator_is_left_out_where_it_does_not_fit(reference, options):
    """It was fitted to the logits of the weights of the checkpoint."""
    model, _, folder = reference
    clf = GLiClassClassifier(pretrained=str(folder), problem_type="multi_label_classification", device="cpu", **options)
    clf.fit(TEXTS[:2], [["politics"], ["ball games"]])
    assert (clf.model_.calibrator, clf.config_.use_calibrator) == (None, False)
    kept = GLiClassClassifier(pretrained=str(folder), max_epochs=0, device="cpu").fit(TEXTS[:2], LABELS[:2])
    assert (kept.model_.calibrator is None) == (model.calibrator is None)


@pytest.mark.parametrize("reference", MODELS[:1], ids=str, indirect=True)
def test_checkpoint_of_another_program_knows_no_classes(reference):
    _, _, folder = reference
    with pytest.raises(NotFittedError):
        GLiClassClassifier.from_pretrained(folder).predict(TEXTS)
