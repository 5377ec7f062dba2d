import inspect

import pytest
import torch
from tiny_models import LABEL_ID, TEXT_ID, make_batch, random_ids, randomize, tiny_config, tiny_encoder

from sklearn_gliclass.model import GLiClassModel, GLiClassModelConfig
from sklearn_gliclass.model.config import ARCHITECTURE_TYPES
from sklearn_gliclass.model.poolings import POOLINGS
from sklearn_gliclass.model.scorers import SCORERS

FIELDS = set(inspect.signature(GLiClassModelConfig.__init__).parameters) - {"self", "kwargs"}

PROMPT_FIRST_TEXT = {"prompt_first": True, "extract_text_features": True, "pooling_strategy": "avg"}
MULTI_LABEL = {"problem_type": "multi_label_classification"}
CROSS_ATTENTION = {"scorer_type": "cross-attn"}
DECODER = {"architecture_type": "decoder-kv"}
STEPS = {**DECODER, "recurrent_steps": 4, "recurrent_halt_threshold": None}

# field -> (other options, the value to change to, what changes with it).
CHANGES = {
    "encoder_config": ({}, tiny_encoder("bert", hidden_size=16), "shapes"),
    "label_model_config": ({"architecture_type": "bi-encoder"}, tiny_encoder("bert", hidden_size=16), "shapes"),
    "class_token_index": ({}, TEXT_ID, "logits"),
    "text_token_index": (PROMPT_FIRST_TEXT, LABEL_ID, "logits"),
    "ignore_index": ({}, 1, "loss"),
    "hidden_size": ({}, 12, "shapes"),
    "projector_hidden_act": ({}, "relu", "logits"),
    "vocab_size": ({}, 50, "shapes"),
    "problem_type": ({}, "regression", "loss"),
    "use_lstm": ({}, True, "logits"),
    "initializer_range": ({}, 0.1, "initial weights"),
    "scorer_type": ({}, "mlp", "shapes"),
    "scorer_num_heads": (CROSS_ATTENTION, 2, "logits"),
    "scorer_mlp_hidden_size": ({"scorer_type": "mlp"}, 12, "shapes"),
    "scorer_attn_dropout": (CROSS_ATTENTION, 0.9, "training loss"),
    "pooling_strategy": ({}, "max", "logits"),
    "class_token_pooling": ({}, "average", "logits"),
    "focal_loss_alpha": (MULTI_LABEL, 0.1, "loss"),
    "focal_loss_gamma": (MULTI_LABEL, 0.5, "loss"),
    "focal_loss_reduction": (MULTI_LABEL, "sum", "loss"),
    "logit_scale_init_value": ({}, 1.0, "initial weights"),
    "logit_offset": (MULTI_LABEL, 2.0, "loss"),
    "normalize_features": ({}, True, "logits"),
    "extract_text_features": ({"pooling_strategy": "avg"}, True, "logits"),
    "contrastive_loss_coef": ({}, 0.5, "loss"),
    "text_contrastive_loss_coef": ({}, 0.5, "loss"),
    "architecture_type": ({}, "bi-encoder", "shapes"),
    "prompt_first": ({**PROMPT_FIRST_TEXT, "prompt_first": False}, True, "logits"),
    "squeeze_layers": ({}, True, "logits"),
    "layer_wise": ({}, True, "loss"),
    "encoder_layer_id": ({}, 1, "logits"),
    "embed_class_token": ({}, False, "logits"),
    "dropout": ({}, 0.9, "training loss"),
    "tie_encoders": ({"architecture_type": "bi-encoder"}, True, "logits"),
    "projector_init": ({"hidden_size": 64}, "identity", "initial weights"),
    "example_token_index": ({"use_segment_embeddings": True}, TEXT_ID, "logits"),
    "use_segment_embeddings": ({}, True, "logits"),
    "scorer_encoder_num_layers": (DECODER, 1, "shapes"),
    "recurrent_steps": (DECODER, 3, "shapes"),
    "recurrent_min_steps": ({**STEPS, "recurrent_steps": 8}, 8, "training loss"),
    "recurrent_inference": (STEPS, False, "logits"),
    "recurrent_inference_max_steps": (STEPS, 6, "logits"),
    "recurrent_halt_threshold": (STEPS, 0.9, "logits"),
    "recurrent_improvement_coef": (STEPS, 5.0, "loss"),
    "recurrent_improvement_margin": (STEPS, 0.9, "loss"),
    "recurrent_bptt_steps": (STEPS, 1, "gradient"),
    "recurrent_read_text": (STEPS, True, "shapes"),
    "recurrent_confidence_coef": (STEPS, 0.5, "loss"),
    "recurrent_confidence_mode": ({**STEPS, "recurrent_confidence_coef": 5.0}, "absolute", "loss"),
    "recurrent_confidence_margin": ({**STEPS, "recurrent_confidence_coef": 5.0}, 0.9, "loss"),
    "use_calibrator": ({}, True, "shapes"),
    "calibrator_hidden_size": ({"use_calibrator": True}, 12, "shapes"),
    "calibrator_beta_max": ({"use_calibrator": True}, 2.0, "logits"),
    "calibrator_use_bias": ({"use_calibrator": True}, True, "shapes"),
}

NOT_READ_BY_THE_MODEL = {
    "encoder_model": "a name, stored because gliclass needs it",
    "label_model_name": "a name, stored because gliclass needs it",
    "weights_edition": "a record of the weights that the package comes with",
    "text_prefix": "precedes the texts: tests/test_sentence_encoders.py",
    "label_prefix": "precedes the labels: tests/test_sentence_encoders.py",
    "max_labels_alloc": "empty slots of labels are never computed",
    "calibrator_dropout": "stored for gliclass; the calibrator is not trained",
    "max_num_classes": "limits the prompts: tests/data and the estimators",
}


UNREAD_VALUES = {"max_num_classes": 7, "max_labels_alloc": 7, "calibrator_dropout": 0.3}


def observe(fields: dict) -> dict:
    """Observe all that a configuration can change."""
    torch.manual_seed(0)
    architecture = fields.pop("architecture_type", "uni-encoder")
    encoder = fields.pop("encoder_config", None)
    config = tiny_config(architecture, encoder_options=encoder, **fields)
    model = GLiClassModel(config)
    seen = {
        "shapes": {name: tuple(value.shape) for name, value in model.state_dict().items()},
        "initial weights": {name: value.clone() for name, value in model.state_dict().items()},
    }
    randomize(model)
    prompt_first = fields.get("prompt_first", False)
    batch = make_batch(architecture, random_ids(3, 6), [random_ids(3, 2, seed=seed) for seed in range(3)], prompt_first)
    if config.problem_type in ("multi_label_classification", "regression"):
        batch["labels"] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    elif config.class_token_index == LABEL_ID:
        batch["labels"] = torch.tensor([2, 1, 0])
    batch["class_ids"] = torch.tensor([0, 0, 1])
    with torch.no_grad():
        output = model(**batch)
        seen |= {"logits": output.logits, "loss": output.loss}
    if "labels" in batch:
        torch.manual_seed(0)
        seen["training loss"] = model.train()(**batch).loss.detach()
        model.eval()(**batch).loss.backward()
        seen["gradient"] = model.get_input_embeddings().weight.grad
    return seen


def differ(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() != b.keys() or any(differ(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape != b.shape or not torch.allclose(a, b, atol=1e-4)
    return a != b


def test_fields_are_all_covered():
    assert set(CHANGES) | set(NOT_READ_BY_THE_MODEL) == FIELDS
    assert not set(CHANGES) & set(NOT_READ_BY_THE_MODEL)


OBSERVED = {}


def observe_twice(options: dict) -> tuple[dict, dict]:
    """Observe the options that a field is added to, twice for all fields that they share."""
    key = repr(sorted(options.items()))
    if key not in OBSERVED:
        OBSERVED[key] = observe(dict(options)), observe(dict(options))
    return OBSERVED[key]


@pytest.mark.parametrize("field", CHANGES)
def test_changing_a_field_changes_the_model(field):
    options, value, effect = CHANGES[field]
    (before, same), after = observe_twice(options), observe({**options, field: value})
    assert not differ(before[effect], same[effect])
    assert differ(before[effect], after[effect])


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_fields_survive_dict_and_file(field, tmp_path):
    options, value, _ = CHANGES.get(field, ({}, UNREAD_VALUES.get(field, "x"), None))
    architecture = {"label_model_name": "bi-encoder"}.get(field, options.get("architecture_type", "uni-encoder"))
    family = "qwen3" if architecture == "decoder-kv" else "bert"
    options = {"encoder_config": tiny_encoder(family), "architecture_type": architecture, **options, field: value}
    if options.get("scorer_type") == "cross-attn":
        options["pooling_strategy"] = "pass"
    config = GLiClassModelConfig(**options)
    config.save_pretrained(tmp_path)
    attribute = {"encoder_model": "encoder_model_name"}.get(field, field)
    for loaded in (GLiClassModelConfig.from_dict(config.to_dict()), GLiClassModelConfig.from_pretrained(tmp_path)):
        stored = getattr(loaded, attribute)
        assert (stored.to_dict()["hidden_size"] if field.endswith("_config") else stored) == (
            value["hidden_size"] if field.endswith("_config") else value
        )
        assert loaded.to_dict() == {**config.to_dict(), **version_of(loaded)}


def version_of(config) -> dict:
    """Fields that transformers adds when it loads a configuration."""
    return {key: config.to_dict()[key] for key in ("transformers_version", "_name_or_path") if key in config.to_dict()}


@pytest.mark.parametrize("architecture", ARCHITECTURE_TYPES)
def test_encoder_config_alone_is_enough(architecture):
    """The reference needs the name of the encoder and a label configuration."""
    config = tiny_config(architecture)
    assert isinstance(config.encoder_model_name, str)  # gliclass converts it to a path
    assert GLiClassModel(config).num_parameters() > 0


def test_default_encoder_is_that_of_published_checkpoints():
    assert GLiClassModelConfig().encoder_config.model_type == "deberta-v2"


def test_control_tokens_come_after_the_vocabulary():
    config = GLiClassModelConfig(encoder_config=tiny_encoder("bert"))
    assert (config.vocab_size, config.class_token_index, config.text_token_index) == (40, 40, 41)


def test_vocab_size_leaves_the_given_encoder_config_alone():
    encoder_config = tiny_config("uni-encoder").encoder_config
    config = GLiClassModelConfig(encoder_config=encoder_config, vocab_size=50)
    assert (encoder_config.vocab_size, config.encoder_config.vocab_size, config.vocab_size) == (40, 50, 50)


def test_label_config_is_a_copy_of_the_text_encoder_s():
    config = tiny_config("bi-encoder")
    assert config.label_model_config.to_dict() == config.encoder_config.to_dict()
    assert config.label_model_config is not config.encoder_config


UNKNOWN_NAMES = {
    "architecture_type": ", ".join(map(repr, sorted(ARCHITECTURE_TYPES))),
    "scorer_type": ", ".join(map(repr, sorted(SCORERS))),
    "pooling_strategy": ", ".join(map(repr, sorted([*POOLINGS, "pass"]))),
    "class_token_pooling": "'average', 'first'",
    "projector_init": "'identity', 'normal'",
    "problem_type": "'multi_label_classification', 'regression', 'single_label_classification'",
    "focal_loss_reduction": "'mean', 'none', 'sum'",
    "max_labels_alloc": "'dynamic', 'fixed'",
    "recurrent_confidence_mode": "'absolute', 'relative'",
}


@pytest.mark.parametrize("field", UNKNOWN_NAMES)
def test_unknown_options_raise_with_the_choices(field):
    """The reference raises a KeyError, or accepts unknown names silently."""
    with pytest.raises(ValueError, match=f"Unknown {field} 'nonsense'; choose from {UNKNOWN_NAMES[field]}"):
        GLiClassModelConfig(encoder_config=tiny_encoder("bert"), **{field: "nonsense"})


def test_unknown_encoder_type_raises():
    with pytest.raises(ValueError, match="Unknown model_type 'nonsense'"):
        GLiClassModelConfig(encoder_config={"model_type": "nonsense"})


IMPOSSIBLE = [
    ({"scorer_type": "cross-attn", "pooling_strategy": "avg"}, "without pooling"),
    ({"scorer_type": "mlp", "pooling_strategy": "pass"}, "needs one vector"),
    ({"scorer_type": "cross-attn", "architecture_type": "bi-encoder"}, "excludes pooling"),
    ({"scorer_type": "cross-attn", "architecture_type": "bi-encoder-fused"}, "excludes pooling"),
    ({"squeeze_layers": True, "encoder_layer_id": 1}, "exclude each other"),
    ({"squeeze_layers": True, "layer_wise": True}, "exclude each other"),
    ({"layer_wise": True, "encoder_layer_id": 0}, "exclude each other"),
    ({"encoder_layer_id": 3}, "not a layer of this encoder"),
    ({"encoder_layer_id": -4}, "not a layer of this encoder"),
    ({"scorer_type": "cross-attn", "architecture_type": "encoder-decoder-cls"}, "pools its texts"),
    ({"use_segment_embeddings": True, "architecture_type": "bi-encoder"}, "needs architecture_type='uni-encoder'"),
    ({"use_calibrator": True, "scorer_type": "cross-attn"}, "needs one vector per text"),
    ({"multimodal": True, "architecture_type": "decoder-kv"}, "multimodal=True.*images and audio are not read"),
    ({"scorer_full_sequence": True, "architecture_type": "decoder-kv"}, "scorer_full_sequence=True.*does not read"),
    ({"use_embedding_projection": True}, "use_embedding_projection=True.*EmbeddingGemma"),
    ({"hidden_size": 20, "architecture_type": "decoder-kv"}, "must be the decoder's 32, got 20"),
    ({"use_lstm": True, "architecture_type": "decoder-kv"}, "use_lstm=True cannot be used"),
    ({"squeeze_layers": True, "architecture_type": "decoder-kv"}, "squeeze_layers=True cannot be used"),
    ({"recurrent_steps": 2}, "recurrent_steps=2 cannot be used"),
]


@pytest.mark.parametrize(("options", "message"), IMPOSSIBLE)
def test_incompatible_options_raise_with_the_reason(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**{"architecture": options.get("architecture_type", "uni-encoder"), **without_type(options)})


def without_type(options: dict) -> dict:
    return {name: value for name, value in options.items() if name != "architecture_type"}


@pytest.mark.parametrize(
    ("architecture", "family", "message"),
    [
        ("encoder-decoder", "bert", "needs an encoder-decoder model such as T5 or BART"),
        ("encoder-decoder-cls", "bert", "needs an encoder-decoder model such as T5 or BART"),
        ("decoder-kv", "bert", "needs a causal decoder such as Qwen3 or Llama, got model_type='bert'"),
        ("decoder-kv", "t5", "needs a causal decoder"),
        ("uni-encoder", "bart", "has a decoder and no encoder that can be used separately"),
        ("bi-encoder", "bart", "has a decoder and no encoder that can be used separately"),
    ],
)
def test_encoder_that_does_not_fit_its_architecture_raises(architecture, family, message):
    with pytest.raises(ValueError, match=message):
        GLiClassModel(tiny_config(architecture, family))
