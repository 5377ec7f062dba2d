"""Parity with gliclass for fields of newer checkpoints, in both directions."""

import pytest
import torch
from test_reference_parity import (
    LABELS,
    MULTI_LABEL,
    TOLERANCE,
    assert_equal_logits,
    gliclass,
    outputs,
    reference_model,
    with_weights_of,
)
from tiny_models import PAD, VOCAB_SIZE, random_ids, randomize, tiny_config, tiny_encoder

from sklearn_gliclass.model import GLiClassModel
from sklearn_gliclass.model.config import ENCODER_DECODERS
from sklearn_gliclass.model.positions import segment_ids

UNEQUAL = [random_ids(5), random_ids(11, seed=3)]
TARGETS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
READS_TEXT = {"recurrent_steps": 3, "recurrent_read_text": True}
HYBRID = {
    "model_type": "qwen3_5_text", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "vocab_size": VOCAB_SIZE,
    "pad_token_id": PAD,
}  # fmt: skip

# (architecture, options) of logits and losses that are equal.
EQUAL = [
    ("uni-encoder", {"use_segment_embeddings": True}),
    ("uni-encoder", {"use_segment_embeddings": True, "prompt_first": True, "class_token_pooling": "first"}),
    *(("uni-encoder", {"max_labels_alloc": alloc}) for alloc in ("fixed", 3)),
    ("decoder-kv", {"scorer_encoder_num_layers": 1}),
    ("decoder-kv", {"scorer_mlp_hidden_size": 24, "normalize_features": True}),
    ("decoder-kv", {"scorer_type": "mlp", "pooling_strategy": "max"}),  # without effect
    ("decoder-kv", {"recurrent_steps": 4, "recurrent_halt_threshold": None}),
    ("decoder-kv", {"recurrent_steps": 2, "recurrent_inference_max_steps": 5, "recurrent_halt_threshold": 0}),
    ("decoder-kv", {"recurrent_steps": 4, "recurrent_inference": False}),
    ("decoder-kv", {"recurrent_steps": 4, "recurrent_halt_threshold": 0.02}),
    ("decoder-kv", {**READS_TEXT, "recurrent_confidence_coef": 0.3, "recurrent_confidence_margin": 0.1}),
    ("decoder-kv", {**READS_TEXT, "recurrent_confidence_coef": 0.3, "recurrent_confidence_mode": "absolute"}),
    ("decoder-kv", {**READS_TEXT, "recurrent_improvement_coef": 0.7, "recurrent_improvement_margin": 0.2}),
    *((architecture, {"use_calibrator": True, "calibrator_use_bias": bias, "calibrator_hidden_size": 20})
      for architecture in ("uni-encoder", "bi-encoder", "bi-encoder-fused", *ENCODER_DECODERS, "decoder-kv")
      for bias in (False, True)),
    ("uni-encoder", {"use_calibrator": True, "calibrator_beta_max": 1.5, "scorer_type": "mlp"}),
]  # fmt: skip
FIRST = {"pooling_strategy": "first"}  # the only pooling of gliclass that padding does not change


@pytest.mark.parametrize(("architecture", "options"), EQUAL, ids=str)
def test_equal_logits_and_losses_beside_longer_texts(architecture, options):
    reference = reference_model(architecture, **MULTI_LABEL, **{**FIRST, **options})
    theirs, ours = outputs(reference, with_weights_of(reference), texts=UNEQUAL, targets=TARGETS)
    assert (theirs.logits - ours.logits).abs().max() <= TOLERANCE
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "options"), EQUAL, ids=str)
def test_checkpoints_of_gliclass_load(architecture, options, tmp_path):
    reference = reference_model(architecture, **{**FIRST, **options})
    reference.save_pretrained(tmp_path)
    assert_equal_logits(reference, GLiClassModel.from_pretrained(tmp_path).eval())


@pytest.mark.parametrize(("architecture", "options"), [e for e in EQUAL if e[0] not in ENCODER_DECODERS], ids=str)
def test_gliclass_loads_our_checkpoints(architecture, options, tmp_path):
    labels = {"label_model_config": tiny_encoder("bert")} if architecture.startswith("bi") else {}
    model = GLiClassModel(tiny_config(architecture, max_num_classes=3, **labels, **{**FIRST, **options}))
    randomize(model, scale=0.1).save_pretrained(tmp_path)
    assert_equal_logits(gliclass.GLiClassModel.from_pretrained(tmp_path).eval(), model)


@pytest.mark.parametrize("options", [{}, READS_TEXT], ids=str)
def test_decoder_with_linear_attention(options, tmp_path):
    """Qwen3.5 mixes attention with layers that keep recurrent states."""
    config = gliclass.GLiClassModelConfig(
        encoder_config=dict(HYBRID), encoder_model="text", architecture_type="decoder-kv", class_token_index=38,
        text_token_index=39, sep_token_index=39, max_num_classes=3, **options,
    )  # fmt: skip
    reference = randomize(gliclass.GLiClassModel(config), scale=0.1)
    theirs, ours = outputs(reference, with_weights_of(reference), texts=UNEQUAL)
    assert (theirs.logits - ours.logits).abs().max() <= TOLERANCE
    reference.save_pretrained(tmp_path)
    assert_equal_logits(reference, GLiClassModel.from_pretrained(tmp_path).eval())


def test_classes_are_trained_by_all_steps():
    """The architecture is the only one of gliclass with a loss for single-label classes."""
    reference = reference_model("decoder-kv", recurrent_confidence_coef=0.3, **READS_TEXT)
    theirs, ours = outputs(reference, with_weights_of(reference), texts=UNEQUAL, targets=torch.tensor([0, 2]))
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)


def test_separator_is_stored_under_the_name_that_gliclass_reads():
    """gliclass reads an id that its configuration does not declare."""
    assert tiny_config("decoder-kv").to_dict()["sep_token_index"] == 39
    assert tiny_config("decoder-kv", sep_token_index=37).text_token_index == 37
    assert "sep_token_index" not in tiny_config("uni-encoder").to_dict()


def test_examples_are_a_segment_of_their_own():
    """In gliclass, one ``<<EXAMPLE>>`` makes nearly every token a part of the examples."""
    reference = reference_model("uni-encoder", use_segment_embeddings=True, example_token_index=37)
    model = with_weights_of(reference)
    ids = torch.tensor([[38, 5, 38, 6, 39, 7, 8, 37, 9, 39]])
    assert segment_ids(model.config, ids).tolist() == [[0, 0, 0, 0, 1, 1, 1, 2, 2, 2]]
    assert reference.model._create_segment_ids(ids).tolist() == [[2] * 10]


def test_calibrator_of_a_new_model_changes_nothing():
    """gliclass randomises it, although its own method for new calibrators does not."""
    model = GLiClassModel(tiny_config("uni-encoder", use_calibrator=True, calibrator_use_bias=True, **FIRST))
    (_, ours), plain = outputs(model, model.eval()), GLiClassModel(tiny_config("uni-encoder", **FIRST)).eval()
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if not name.startswith("calibrator")})
    torch.testing.assert_close(ours.logits, outputs(plain, plain)[1].logits, rtol=1e-5, atol=1e-6)


def test_calibrator_is_not_trained():
    model = GLiClassModel(tiny_config("uni-encoder", use_calibrator=True, **MULTI_LABEL, **FIRST)).train()
    assert not any(parameter.requires_grad for parameter in model.calibrator.parameters())
    assert not any(module.training for module in model.calibrator.modules())


@pytest.mark.parametrize("n_labels", [1, 3])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 4.0])
def test_divided_logits_are_those_of_gliclass(n_labels, temperature, tmp_path):
    """Without a logit scale, a constant calibrator holds the temperature."""
    model = randomize(GLiClassModel(tiny_config("uni-encoder", max_num_classes=n_labels, **FIRST)), scale=0.1)
    labels = [own[:n_labels] for own in LABELS]
    before = outputs(model, model, labels=labels)[1].logits
    model.divide_logits(temperature)
    model.save_pretrained(tmp_path)
    reference = gliclass.GLiClassModel.from_pretrained(tmp_path).eval()
    theirs, ours = outputs(reference, model, labels=labels)
    torch.testing.assert_close(ours.logits, before / temperature, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.logits, ours.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_calibrator_is_divided_exactly(bias):
    config = tiny_config("decoder-kv", use_calibrator=True, calibrator_use_bias=bias)
    model = randomize(GLiClassModel(config))
    before = outputs(model, model)[1].logits
    model.divide_logits(0.25)
    torch.testing.assert_close(outputs(model, model)[1].logits, before * 4, rtol=1e-5, atol=1e-5)
