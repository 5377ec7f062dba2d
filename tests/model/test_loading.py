from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_config
from transformers import RobertaConfig, T5EncoderModel

from sklearn_gliclass.model.loading import build_encoder, load_encoder, max_positions, resolve_max_length


def encoder_config(family, **options):
    architecture = "encoder-decoder" if family == "bart" else "uni-encoder"
    return tiny_config(architecture, family, encoder_options=options).encoder_config


@pytest.fixture
def save(tmp_path):
    def save(family, whole=False):
        encoder = build_encoder(encoder_config(family), whole)
        encoder.save_pretrained(tmp_path)
        return encoder

    return save


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert", "t5"])
def test_encoder_is_loaded_with_its_weights(family, save, tmp_path):
    saved, loaded = save(family), load_encoder(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())


def test_encoder_is_read_again_after_a_change_of_shared_weights(save, tmp_path):
    saved = save("bert").embeddings.word_embeddings.weight
    first, second = (load_encoder(tmp_path, shares_weights=True) for _ in range(2))
    weights = [encoder.embeddings.word_embeddings.weight for encoder in (first, second)]
    assert weights[0].data_ptr() == weights[1].data_ptr()
    with torch.no_grad():
        weights[0].zero_()
    for shares_weights in (False, True):
        loaded = load_encoder(tmp_path, shares_weights=shares_weights)
        torch.testing.assert_close(loaded.embeddings.word_embeddings.weight, saved)


def test_each_model_gets_a_copy(save, tmp_path):
    save("bert")
    first, second = load_encoder(tmp_path), load_encoder(tmp_path)
    with torch.no_grad():
        first.embeddings.word_embeddings.weight.zero_()
    assert second.embeddings.word_embeddings.weight.abs().sum() > 0
    assert load_encoder(tmp_path).embeddings.word_embeddings.weight.abs().sum() > 0


def test_folder_that_was_written_anew_is_read_anew(save, tmp_path):
    save("bert")
    load_encoder(tmp_path)
    saved = save("deberta-v2")
    assert type(load_encoder(tmp_path)) is type(saved)


def test_encoder_decoder_loads_with_and_without_decoder(save, tmp_path):
    save("t5", whole=True)
    assert type(load_encoder(tmp_path)) is T5EncoderModel
    assert hasattr(load_encoder(tmp_path, whole=True), "decoder")


def test_decoder_that_can_t_be_left_out_raises(save, tmp_path):
    save("bart", whole=True)
    with pytest.raises(ValueError, match="set architecture_type='encoder-decoder'"):
        load_encoder(tmp_path)


LIMITED = {
    "bert": encoder_config("bert"),
    "deberta-v2": encoder_config("deberta-v2"),
    "bart": encoder_config("bart"),
    # Its positions start after the padding index.
    "roberta": RobertaConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, pad_token_id=1,
        max_position_embeddings=130,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", LIMITED)
def test_positions_are_as_many_tokens_as_the_encoder_takes(family):
    encoder = build_encoder(LIMITED[family], whole=True).eval()
    assert max_positions(LIMITED[family]) == 128
    assert encoder(torch.full((1, 128), 5)).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        encoder(torch.full((1, 129), 5))


def test_relative_positions_have_no_limit():
    assert max_positions(encoder_config("t5")) is None


def tokenizer_with(limit):
    return SimpleNamespace(model_max_length=limit)


NO_LIMIT = int(1e30)  # reported by tokenizers without a limit


@pytest.mark.parametrize(
    ("asked", "family", "tokenizer_limit", "length"),
    [
        (None, "bert", NO_LIMIT, 128),
        (None, "bert", 100, 100),
        (None, "t5", 300, 300),
        (None, "t5", NO_LIMIT, 512),
        (64, "bert", 32, 64),
        (10_000, "t5", 512, 10_000),
    ],
)
def test_max_length_is_resolved(asked, family, tokenizer_limit, length):
    assert resolve_max_length(asked, encoder_config(family), tokenizer_with(tokenizer_limit)) == length


def test_max_length_above_the_positions_raises():
    with pytest.raises(ValueError, match="max_length=129 is more than the 128 positions"):
        resolve_max_length(129, encoder_config("bert"), tokenizer_with(NO_LIMIT))
