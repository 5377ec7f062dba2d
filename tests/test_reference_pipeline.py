"""The estimators on a checkpoint of gliclass, against the pipeline of gliclass."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.data.tokenizer import train_tokenizer
from sklearn_gliclass.testing import TINY_ENCODERS

gliclass = pytest.importorskip("gliclass")

TEXTS = ["the goal was late", "the vote is near", "a goal and a match, and a law", "a law", "a"]
LABELS = ["ball games", "politics", "weather report"]


FAMILIES = {"encoder-decoder": "bart", "encoder-decoder-cls": "bart", "decoder-kv": "qwen3"}
RECURRENT = {"recurrent_steps": 3, "recurrent_read_text": True}
CALIBRATED = {"use_calibrator": True, "calibrator_use_bias": True}
MODELS = [
    *((architecture, {}) for architecture in ("uni-encoder", "bi-encoder", "bi-encoder-fused", *FAMILIES)),
    ("uni-encoder", {"use_segment_embeddings": True, **CALIBRATED}),
    ("bi-encoder", CALIBRATED),
    ("decoder-kv", {**RECURRENT, **CALIBRATED}),
]


@pytest.fixture(params=MODELS, ids=str)
def reference(request, tmp_path):
    """Save a random gliclass model with its tokenizer to a folder."""
    from gliclass.model import GLiClassModel, GLiClassModelConfig

    architecture, options = request.param
    encoder = dict(TINY_ENCODERS[FAMILIES.get(architecture, "bert")])
    tokenizer = train_tokenizer([*TEXTS, *LABELS])
    tokenizer.save_pretrained(tmp_path)
    encoder.update(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    label_model = {"label_model_config": dict(encoder), "label_model_name": str(tmp_path)}
    config = GLiClassModelConfig(
        encoder_config=encoder,
        encoder_model=str(tmp_path),
        architecture_type=architecture,
        class_token_index=tokenizer.convert_tokens_to_ids("<<LABEL>>"),
        text_token_index=tokenizer.convert_tokens_to_ids("<<SEP>>"),
        vocab_size=len(tokenizer),
        problem_type="multi_label_classification",
        prompt_first=True,
        initializer_range=0.3,
        sep_token_index=tokenizer.convert_tokens_to_ids("<<SEP>>"),
        **options,
        **(label_model if architecture.startswith("bi") else {}),
    )
    torch.manual_seed(0)
    model = GLiClassModel(config).eval()
    model.save_pretrained(tmp_path)
    return model, tokenizer, tmp_path


def probabilities(model, tokenizer):
    # The pipeline loads the tokenizer of a bi-encoder's labels by name, which is the folder.
    pipeline = gliclass.ZeroShotClassificationPipeline(
        model, tokenizer, max_length=128, device="cpu", classification_type="multi-label", progress_bar=False
    )
    results = pipeline(TEXTS, LABELS, threshold=0.0, batch_size=2)
    scores = [{found["label"]: found["score"] for found in row} for row in results]
    return np.array([[row[label] for label in LABELS] for row in scores])


def test_same_probabilities_as_the_pipeline(reference):
    model, tokenizer, folder = reference
    clf = GLiClassClassifier.from_pretrained(folder, problem_type="multi_label_classification").fit(None, LABELS)
    assert clf.classes_.tolist() == LABELS  # already sorted
    np.testing.assert_allclose(clf.predict_proba(TEXTS), probabilities(model, tokenizer), atol=1e-5)


@pytest.mark.parametrize("options", [{"max_epochs": 1}, {"max_epochs": 0, "calibrate": False}], ids=str)
def test_calibrator_is_left_out_where_it_does_not_fit(reference, options):
    """It was fitted to the logits of the weights of the checkpoint."""
    model, _, folder = reference
    clf = GLiClassClassifier(pretrained=str(folder), problem_type="multi_label_classification", device="cpu", **options)
    clf.fit(TEXTS[:2], [["politics"], ["ball games"]])
    assert (clf.model_.calibrator, clf.config_.use_calibrator) == (None, False)
    kept = GLiClassClassifier(pretrained=str(folder), max_epochs=0, device="cpu").fit(TEXTS[:2], LABELS[:2])
    assert (kept.model_.calibrator is None) == (model.calibrator is None)


def test_checkpoint_of_another_program_knows_no_classes(reference):
    _, _, folder = reference
    with pytest.raises(NotFittedError):
        GLiClassClassifier.from_pretrained(folder).predict(TEXTS)
