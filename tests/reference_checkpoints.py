"""Checkpoints of gliclass with random weights, and the pipeline that reads them."""

import pytest
import torch

from sklearn_gliclass.data.tokenizer import add_example_token, train_tokenizer
from sklearn_gliclass.testing import TINY_ENCODERS

# Architectures whose encoder is no BERT, and their encoders.
ENCODER_FAMILIES = {"encoder-decoder": "bart", "encoder-decoder-cls": "bart", "decoder-kv": "qwen3"}
ARCHITECTURES = ["uni-encoder", "bi-encoder", "bi-encoder-fused", *ENCODER_FAMILIES]


def save_reference(folder, architecture, texts, with_example_token=False, **options):
    """Save a random model of gliclass, with a tokenizer trained on `texts`, to a folder; return both."""
    pytest.importorskip("gliclass")
    from gliclass.model import GLiClassModel, GLiClassModelConfig

    encoder = dict(TINY_ENCODERS[ENCODER_FAMILIES.get(architecture, "bert")])
    tokenizer = train_tokenizer(texts)
    if with_example_token:
        add_example_token(tokenizer)
    tokenizer.save_pretrained(folder)
    encoder.update(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    # The pipeline loads the tokenizer of a bi-encoder's labels by name, which is the folder.
    label_model = {"label_model_config": dict(encoder), "label_model_name": str(folder)}
    config = GLiClassModelConfig(
        encoder_config=encoder,
        encoder_model=str(folder),
        architecture_type=architecture,
        class_token_index=tokenizer.convert_tokens_to_ids("<<LABEL>>"),
        text_token_index=tokenizer.convert_tokens_to_ids("<<SEP>>"),
        vocab_size=len(tokenizer),
        problem_type="multi_label_classification",
        initializer_range=0.3,
        sep_token_index=tokenizer.convert_tokens_to_ids("<<SEP>>"),
        **options,
        **(label_model if architecture.startswith("bi") else {}),
    )
    torch.manual_seed(0)
    model = GLiClassModel(config).eval()
    model.save_pretrained(folder)
    return model, tokenizer


def multi_label_pipeline(model, tokenizer):
    gliclass = pytest.importorskip("gliclass")
    return gliclass.ZeroShotClassificationPipeline(
        model, tokenizer, max_length=128, device="cpu", classification_type="multi-label", progress_bar=False
    )
