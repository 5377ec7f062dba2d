"""Initialisation of control tokens, and hyperparameters that further training cannot change."""

import numpy as np
import pytest
import torch
from tiny_estimators import LABELS, TEXTS, tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, PreTrainedTokenizerFast

from sklearn_gliclass import GLiClassClassifier, GLiClassModelConfig
from sklearn_gliclass.building import build
from sklearn_gliclass.data.tokenizer import LABEL_TOKEN, SEP_TOKEN
from sklearn_gliclass.model.loading import build_encoder
from sklearn_gliclass.testing import TINY_ENCODERS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "goal", "vote", "label", "la", "##bel"]
FAMILIES = {"uni-encoder": "bert", "bi-encoder": "bert", "bi-encoder-fused": "bert", "encoder-decoder": "bart"}


def save_encoder(folder, words=WORDS, sep_token="[SEP]", spare_rows=0, family="bert") -> str:
    """Save an encoder and a tokenizer of `words` without control tokens, and with spare rows of embeddings."""
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token=sep_token
    )
    tokenizer.save_pretrained(folder)
    options = {**TINY_ENCODERS[family], "vocab_size": len(words) + spare_rows, "pad_token_id": 0}
    encoder = build_encoder(GLiClassModelConfig(encoder_config=options).encoder_config, whole=family == "bart")
    encoder.save_pretrained(folder)
    return str(folder)


def embeddings_in(folder) -> torch.Tensor:
    return AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach()


def start_from(folder, architecture="uni-encoder"):
    """Return the initial embeddings of all tokens, of ``<<LABEL>>`` and of ``<<SEP>>``."""
    estimator = tiny(encoder_config=None, encoder_model=folder, architecture_type=architecture)
    start = build(estimator, TEXTS, "single_label_classification")
    rows = start.model.get_input_embeddings().weight.detach()
    return rows, *(rows[start.tokenizer.convert_tokens_to_ids(token)] for token in (LABEL_TOKEN, SEP_TOKEN))


@pytest.mark.parametrize("spare_rows", [0, 1, 5])
@pytest.mark.parametrize("architecture", sorted(set(FAMILIES) - {"bi-encoder"}))
def test_control_tokens_are_initialised_with_similar_tokens(tmp_path, architecture, spare_rows):
    folder = save_encoder(tmp_path, spare_rows=spare_rows, family=FAMILIES[architecture])
    before = embeddings_in(folder)
    rows, label, sep = start_from(folder, architecture)
    assert len(rows) == max(len(WORDS) + 2, len(before))
    assert torch.equal(rows[: len(WORDS)], before[: len(WORDS)])
    assert torch.equal(label, before[WORDS.index("label")])
    assert torch.equal(sep, before[WORDS.index("[SEP]")])


def test_word_in_pieces_is_their_mean(tmp_path):
    words = [word for word in WORDS if word != "label"]
    folder = save_encoder(tmp_path, words)
    before = embeddings_in(folder)
    _, label, _ = start_from(folder)
    torch.testing.assert_close(label, (before[words.index("la")] + before[words.index("##bel")]) / 2)


@pytest.mark.parametrize("spare_rows", [0, 5])
def test_control_tokens_without_similar_tokens_are_the_mean(tmp_path, spare_rows):
    folder = save_encoder(tmp_path, [*SPECIAL, "goal", "vote"], sep_token=None, spare_rows=spare_rows)
    _, label, sep = start_from(folder)
    mean = embeddings_in(folder).mean(dim=0)
    torch.testing.assert_close(label, mean)
    torch.testing.assert_close(sep, mean)


@pytest.mark.parametrize("known", [LABEL_TOKEN, SEP_TOKEN])
def test_control_token_that_the_encoder_knows_stays(tmp_path, known):
    words = [*WORDS, known]
    folder = save_encoder(tmp_path, words)
    before = embeddings_in(folder)
    _, label, sep = start_from(folder)
    assert torch.equal(label if known == LABEL_TOKEN else sep, before[words.index(known)])
    alike = {LABEL_TOKEN: "[SEP]", SEP_TOKEN: "label"}[known]  # the token of the other one
    assert torch.equal(sep if known == LABEL_TOKEN else label, before[words.index(alike)])


def test_plain_bi_encoder_has_none_in_its_sequences(tmp_path):
    folder = save_encoder(tmp_path, spare_rows=5)
    before = embeddings_in(folder)
    rows, *_ = start_from(folder, "bi-encoder")
    assert torch.equal(rows, before)


def test_trained_control_tokens_are_restored(tmp_path):
    labels = ["goal", "vote"] * (len(TEXTS) // 2)  # words that its tokenizer knows
    folder = save_encoder(tmp_path / "encoder")
    clf = tiny(encoder_config=None, encoder_model=folder, architecture_type="uni-encoder").fit(TEXTS, labels)
    trained = clf.model_.get_input_embeddings().weight
    assert not torch.equal(trained[clf.config_.class_token_index], trained[WORDS.index("label")])
    clf.save_pretrained(tmp_path / "checkpoint")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(loaded.model_.get_input_embeddings().weight, trained)
    again = GLiClassClassifier(pretrained=str(tmp_path / "checkpoint"), max_epochs=0).fit(TEXTS, labels)
    assert torch.equal(again.model_.get_input_embeddings().weight, trained)
    clf.model_.encoder.save_pretrained(tmp_path / "trained")
    clf.tokenizer_.save_pretrained(tmp_path / "trained")
    rows, *_ = start_from(str(tmp_path / "trained"))
    assert torch.equal(rows, trained)


def test_value_of_another_numeric_type_is_no_change():
    clf = tiny(max_epochs=1, others_lr=1, max_grad_norm=1.0).fit(TEXTS, LABELS)
    clf.set_params(others_lr=1.0, max_grad_norm=np.float64(1)).partial_fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=r"others_lr=0\.5 cannot take effect"):
        clf.set_params(others_lr=0.5).partial_fit(TEXTS, LABELS)


def test_two_label_encoders_raise():
    clf = tiny(label_model_name="a", label_model_config={"model_type": "bert"})
    with pytest.raises(ValueError, match="label_model_name and label_model_config exclude each other"):
        clf.fit(TEXTS, LABELS)
