"""Packed encoders against transformers' own forward pass."""

import pytest
import torch
from tiny_models import PAD, padded, random_ids, randomize, tiny_encoder
from transformers import AutoConfig, AutoModel

from sklearn_gliclass.model import packed
from sklearn_gliclass.model.packed import Packing, can_pack, disable_packing, packs, run_both, run_encoder

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
def test_packed_pass_equals_padded_pass(family, lengths, dtype):
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


def test_text_does_not_feel_its_batch():
    encoder = encoder_of("bert")
    ids, mask = batch_of(MIXED, encoder)
    together = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    for row, length in enumerate(MIXED):
        alone = run_encoder(encoder, mask[row : row + 1, :length], input_ids=ids[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone.last_hidden_state[0], rtol=1e-5, atol=1e-5)


def test_feed_forward_part_in_slices(monkeypatch):
    encoder = encoder_of("bert")
    ids, mask = batch_of(MIXED, encoder)
    whole = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    monkeypatch.setattr(packed, "FEED_FORWARD_TOKENS", 5)
    sliced = run_encoder(encoder, mask, input_ids=ids).last_hidden_state
    torch.testing.assert_close(sliced, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert"])
def test_unsupported_encoders_run_unpacked(family):
    encoder = randomize(AutoModel.from_config(AutoConfig.for_model(**tiny_encoder(family))))
    ids, mask = batch_of(MIXED, encoder)
    assert not can_pack(encoder)
    plain = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(run_encoder(encoder, mask, input_ids=ids).last_hidden_state, plain)


def test_decoders_are_not_packed():
    assert not can_pack(encoder_of("bert", is_decoder=True))


def gradients(encoder, states, mask):
    """Compute the gradients of a weighted sum over the real tokens, by name."""
    encoder.zero_grad()
    weights = torch.linspace(-1, 1, states[mask.bool()].numel(), dtype=states.dtype).view(-1, states.shape[-1])
    (states[mask.bool()] * weights).sum().backward()
    return {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_gradients_equal_those_of_the_padded_pass(family, training):
    encoder = encoder_of(family, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).double().train(training)
    ids, mask = batch_of(MIXED, encoder)
    torch.set_grad_enabled(True)
    ours = gradients(encoder, run_encoder(encoder, mask, input_ids=ids).last_hidden_state, mask)
    plain = gradients(encoder, encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    assert ours.keys() == plain.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-9, atol=1e-10, msg=name)


def test_gradient_checkpointing_keeps_the_encoders_own_pass():
    encoder = encoder_of("bert").train()
    _, mask = batch_of(MIXED, encoder)
    assert packs(encoder, mask)
    encoder.gradient_checkpointing_enable()
    assert not packs(encoder, mask)
    assert packs(encoder.eval(), mask)
    assert not packs(encoder, mask.to("meta"))


@pytest.mark.parametrize("lengths", [[4, 1, 2], [40, 3]], ids=str)
def test_two_batches_in_one_pass(lengths):
    encoder = encoder_of("bert").double()
    first, second = ((ids, mask, some_of(mask)) for ids, mask in (batch_of(MIXED, encoder), batch_of(lengths, encoder)))
    torch.set_grad_enabled(True)
    texts, others = run_both(encoder, first, second, True)
    alone = [run_encoder(encoder, mask, True, input_ids=ids) for ids, mask, _ in (first, second)]
    torch.testing.assert_close(texts.hidden_states, alone[0].hidden_states, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(others.last_hidden_state, alone[1].last_hidden_state, rtol=1e-9, atol=1e-10)
    assert texts.last_hidden_state is texts.hidden_states[-1]
    for outputs, whole, (_, _, read) in zip(run_both(encoder, first, second), alone, (first, second), strict=True):
        assert outputs.hidden_states is None
        torch.testing.assert_close(
            outputs.last_hidden_state[read], whole.last_hidden_state[read], rtol=1e-9, atol=1e-10
        )


def some_of(mask):
    """Select a few of the tokens, in some texts none."""
    return (torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.2) & mask.bool()


READ = {
    "the first": lambda mask: mask.cumsum(1) == 1,
    "some": some_of,
    "none": lambda mask: mask < 0,
    "padding too": lambda mask: torch.ones_like(mask, dtype=torch.bool).triu(5),
    "all": lambda mask: mask.bool(),
}


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("which", READ)
@pytest.mark.parametrize("family", PACKED_FAMILIES)
def test_states_and_gradients_of_read_tokens_equal_those_of_all(family, which, left):
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = encoder_of(family, **options).double().train()
    ids, mask = batch_of(MIXED, encoder)
    if left:
        ids, mask = ids.flip(1), mask.flip(1)
    read = READ[which](mask)
    torch.set_grad_enabled(True)
    real = mask * read
    whole, narrow = (run_encoder(encoder, mask, read=each, input_ids=ids).last_hidden_state for each in (None, read))
    torch.testing.assert_close(narrow[real.bool()], whole[real.bool()], rtol=1e-9, atol=1e-10)
    assert ((narrow == 0) | (narrow - whole).abs().lt(1e-9)).all()
    expected, found = (gradients(encoder, states, real) for states in (whole, narrow))
    assert expected.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-10, msg=name)


def test_last_layer_computes_what_is_read_only():
    encoder = encoder_of("bert")
    ids, mask = batch_of(MIXED, encoder)
    seen = []
    for layer in encoder.encoder.layer:
        layer.output.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    run_encoder(encoder, mask, read=READ["the first"](mask), input_ids=ids)
    *others, last = seen
    assert last == len(MIXED)
    assert set(others) == {sum(MIXED)}
    seen.clear()
    outputs = run_encoder(encoder, mask, True, READ["the first"](mask), input_ids=ids)
    assert set(seen) == {sum(MIXED)}
    assert outputs.last_hidden_state[mask.bool()].abs().min() > 0


def test_packing_and_unpacking_are_inverse():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    packing = Packing(mask)
    assert packing.rows.tolist() == [1, 0, 0, 0, 3, 3, 3, 4, 4, 4, 4]
    assert packing.columns.tolist() == [0, 0, 1, 2, 0, 1, 2, 0, 1, 2, 3]
    assert [run[:2] for run in packing.runs] == [(slice(0, 1), 1), (slice(1, 7), 3), (slice(7, 11), 4)]
    assert all(run[2:] == run[:2] for run in packing.runs)
    states = torch.arange(20.0).view(5, 4, 1)
    assert torch.equal(packing.unpack(packing.pack(states)), states * mask.unsqueeze(-1))


def test_packing_selects_queries():
    """The second text of three tokens has an additional query, because the first one has two."""
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    read = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).bool()
    packing = Packing(mask)
    narrow = packing.select_queries(read)
    assert [run[2:] for run in narrow.runs] == [(slice(0, 1), 1), (slice(1, 5), 2), (slice(5, 6), 1)]
    assert narrow.rows.tolist() == packing.rows[narrow.places].tolist() == [1, 0, 0, 3, 3, 4]
    assert narrow.columns.tolist() == packing.columns[narrow.places].tolist() == [0, 1, 2, 2, 0, 3]


@pytest.mark.parametrize("read", [None, torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)])
def test_batch_without_tokens_has_states_of_zero(read):
    encoder = encoder_of("bert")
    mask = torch.zeros(2, 3, dtype=torch.long)
    states = run_encoder(encoder, mask, read=read, input_ids=torch.full((2, 3), PAD)).last_hidden_state
    assert states.shape == (2, 3, 32)
    assert not states.any()


def test_disable_packing_runs_the_padded_pass():
    encoder = encoder_of("bert")
    _, mask = batch_of(MIXED, encoder)
    with disable_packing():
        assert not packs(encoder, mask)
    assert packs(encoder, mask)
