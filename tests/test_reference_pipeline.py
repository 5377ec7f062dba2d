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


@pytest.fixture(params=["uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder"])
def reference(request, tmp_path):
    """Save a random gliclass model with its tokenizer to a folder."""
    from gliclass.model import GLiClassModel, GLiClassModelConfig

    architecture = request.param
    encoder = dict(TINY_ENCODERS["bart" if architecture == "encoder-decoder" else "bert"])
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


def test_checkpoint_of_another_program_knows_no_classes(reference):
    _, _, folder = reference
    with pytest.raises(NotFittedError):
        GLiClassClassifier.from_pretrained(folder).predict(TEXTS)
