"""Packed encoders against transformers' own forward pass."""

import pytest
import torch
from tiny_models import PAD, padded, random_ids, randomize, tiny_encoder
from transformers import AutoConfig, AutoModel

from sklearn_gliclass.model import packed
from sklearn_gliclass.model.packed import Packing, can_pack, run_encoder

PACKED_FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert"]
MIXED = [7, 1, 30, 7, 2, 7, 13]


def encoder_of(family, **options):
    options = {**tiny_encoder("bert"), **options}
    if family != "bert":
        options.update(pad_token_id=1, type_vocab_size=1)
    config = AutoConfig.for_model(**{**options, "model_type": family})
    return randomize(AutoModel.from_config(config))


def batch_of(lengths, encoder):
    ids, mask = padded([random_ids(length, seed=length) for length in lengths])
    return ids.masked_fill(~mask.bool(), encoder.config.pad_token_id), mask


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [MIXED, [9], [1], [5] * 6, [600, 3, 520]], ids=str)
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_equal_to_the_padded_pass(family, lengths, dtype):
    encoder = encoder_of(family, max_position_embeddings=640).to(dtype)
    ids, mask = batch_of(lengths, encoder)
    plain = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    ours = run_encoder(encoder, mask, True, input_ids=ids)
    embedded = run_encoder(encoder, mask, inputs_embeds=encoder.get_input_embeddings()(ids))
    real = mask.bool()
    tolerance = {"rtol": 1e-5, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(ours.last_hidden_state[real], plain.last_hidden_state[real], **tolerance)
    torch.testing.assert_close(embedded.last_hidden_state, ours.last_hidden_state, **tolerance)
    assert len(ours.hidden_states) == len(plain.hidden_states)
    for own, other in zip(ours.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(own[real], other[real], **tolerance)
    assert (ours.last_hidden_state[~real] == 0).all()


def test_linear_layers_see_real_tokens_only():
    encoder = encoder_of("bert")
    ids, mask = batch_of(MIXED, encoder)
    seen = []
    encoder.encoder.layer[0].attention.self.query.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].shape)
    )
    run_encoder(encoder, mask, input_ids=ids)
    assert seen == [(sum(MIXED), 32)]


def test_a_text_does_not_feel_its_batch():
    encoder = encoder_of("bert")
    ids, mask = batch_of(MIXED, encoder)
    together = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    for row, length in enumerate(MIXED):
        alone = run_encoder(encoder, mask[row : row + 1, :length], input_ids=ids[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone.last_hidden_state[0], rtol=1e-5, atol=1e-5)


def test_the_feed_forward_part_in_slices(monkeypatch):
    encoder = encoder_of("bert")
    ids, mask = batch_of(MIXED, encoder)
    whole = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    monkeypatch.setattr(packed, "FEED_FORWARD_TOKENS", 5)
    sliced = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    torch.testing.assert_close(sliced, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert"])
def test_other_encoders_run_as_they_are(family):
    encoder = randomize(AutoModel.from_config(AutoConfig.for_model(**tiny_encoder(family))))
    ids, mask = batch_of(MIXED, encoder)
    assert not can_pack(encoder)
    plain = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(run_encoder(encoder, mask, input_ids=ids).last_hidden_state, plain)


def test_decoders_are_not_packed():
    assert not can_pack(encoder_of("bert", is_decoder=True))


@pytest.mark.parametrize("training", [True, False])
def test_where_gradients_are_asked_for_the_encoders_own_pass_runs(training):
    encoder = encoder_of("bert", hidden_dropout_prob=0.5).train(training)
    ids, mask = batch_of(MIXED, encoder)
    states = []
    torch.set_grad_enabled(True)
    for run in (encoder, lambda attention_mask, input_ids: run_encoder(encoder, attention_mask, input_ids=input_ids)):
        torch.manual_seed(0)
        states.append(run(attention_mask=mask, input_ids=ids).last_hidden_state)
    assert torch.equal(*states)
    assert states[1].requires_grad


def test_packing():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    packing = Packing(mask)
    assert packing.rows.tolist() == [1, 0, 0, 0, 3, 3, 3, 4, 4, 4, 4]
    assert packing.columns.tolist() == [0, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3]
    assert packing.runs == [(slice(0, 1), 1), (slice(1, 7), 3), (slice(7, 11), 4)]
    states = torch.arange(20.0).view(5, 4, 1)
    assert torch.equal(packing.unpack(packing.pack(states)), states * mask.unsqueeze(-1))


def test_a_batch_without_tokens():
    encoder = encoder_of("bert")
    mask = torch.zeros(2, 3, dtype=torch.long)
    states = run_encoder(encoder, mask, input_ids=torch.full((2, 3), PAD)).last_hidden_state
    assert states.shape == (2, 3, 32)
    assert not states.any()
