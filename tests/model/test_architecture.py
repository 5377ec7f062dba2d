"""Logits, loss and embeddings from cached hidden states are those from token ids."""

import pytest
import torch
from tiny_models import make_batch, random_ids, tiny_model

from sklearn_gliclass.cache.states import _same_length
from sklearn_gliclass.model import ARCHITECTURES
from sklearn_gliclass.model.outputs import GLiClassOutput

TEXTS = [random_ids(n, seed=n) for n in (5, 2, 4)]
LABELS = [random_ids(4, 2)] * len(TEXTS)  # the same four labels for each text
HEADS = [{}, {"use_lstm": True}, {"squeeze_layers": True}, {"layer_wise": True}, {"encoder_layer_id": 1}]
TARGETS = torch.tensor([0, 3, 1])


def cached(model, batch):
    """The arguments of score_states for one label prompt."""
    architecture = model.model
    labels = {name: batch.pop(name) for name in list(batch) if model.config.architecture_type == "bi-encoder"
              and name not in ("input_ids", "attention_mask")}  # fmt: skip
    states = architecture.text_states(every_layer=model.config.layer_wise, **batch)
    if labels:  # apart from the texts: (batch, labels, hidden)
        with torch.no_grad():
            states["label_states"] = architecture.encode_labels(**labels)[0].unsqueeze(2)
    return {name: tensor.unsqueeze(1) for name, tensor in states.items()}


OTHERS = [name for name in ARCHITECTURES if name != "decoder-kv"]
DECODER_HEADS = [
    {},
    {"recurrent_steps": 3},
    {"recurrent_steps": 3, "recurrent_read_text": True, "recurrent_confidence_coef": 0.5},
]
CACHED = [
    *((architecture, options) for architecture in OTHERS for options in HEADS),
    *(("decoder-kv", options) for options in DECODER_HEADS),
]


@pytest.mark.parametrize(("architecture", "options"), CACHED, ids=str)
def test_cached_states_agree_with_token_ids(architecture, options):
    model = tiny_model(architecture, **options).double()
    batch = make_batch(architecture, TEXTS, LABELS)
    expected = model(**batch, labels=TARGETS)
    with torch.no_grad():
        tokens = {name: t for name, t in batch.items() if architecture != "bi-encoder" or not name.startswith(
            ("class", "labels"))}  # fmt: skip
        embeddings = model.model.embed_text(**tokens)
    states = cached(model, batch)
    output = model(**states, label_mask=torch.ones(1, 1, 4, dtype=torch.bool), labels=TARGETS)
    assert isinstance(output, GLiClassOutput)
    for name in ("loss", "logits", "text_embeddings", "class_embeddings"):
        torch.testing.assert_close(output[name], expected[name], rtol=1e-9, atol=1e-12)
    states.pop("label_states", None)
    torch.testing.assert_close(model.model.embed_states(**states), embeddings, rtol=1e-9, atol=1e-12)


JOINED = ["uni-encoder", "bi-encoder-fused", "encoder-decoder", "encoder-decoder-cls", "decoder-kv"]


@pytest.mark.parametrize("architecture", JOINED)
def test_label_prompts_are_joined(architecture):
    model = tiny_model(architecture).double()
    parts = [[own[:2] for own in LABELS], [own[2:3] for own in LABELS]]  # the last prompt has one label less
    expected = torch.cat([model(**make_batch(architecture, TEXTS, part)).logits for part in parts], dim=1)
    prompts = [model.model.text_states(**make_batch(architecture, TEXTS, part)) for part in parts]
    for name in ("label_states", "label_positions"):
        if name in prompts[1]:
            prompts[1][name] = torch.cat([prompts[1][name]] * 2, dim=1)  # an empty slot holds anything
    states = {name: torch.stack(_same_length([prompt[name] for prompt in prompts]), dim=1) for name in prompts[0]}
    output = model(**states, label_mask=torch.tensor([[[True, True], [True, False]]]))
    torch.testing.assert_close(output.logits, expected, rtol=1e-9, atol=1e-12)
    assert output.class_mask.shape == (1, 3)
    assert output.class_embeddings.shape[:2] == (3, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"scorer_type": "mlp"}, False),
        ({"use_lstm": True}, True),
        ({"squeeze_layers": True}, True),
        ({"scorer_type": "cross-attn"}, True),
    ],
    ids=str,
)
def test_heads_read_tokens_only_where_needed(options, expected):
    assert tiny_model("uni-encoder", **options).model.heads_read_tokens is expected
