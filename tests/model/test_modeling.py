import contextlib
import itertools
import socket

import numpy as np
import pytest
import torch
from covering_array import pairwise
from sampling import sampled
from tiny_models import (
    ARCHITECTURE_FAMILIES,
    CLS,
    LABEL_ID,
    SEP,
    TEXT_ID,
    make_batch,
    padded,
    random_ids,
    randomize,
    tiny_config,
    tiny_encoder,
    tiny_model,
)

from sklearn_gliclass.model import ARCHITECTURES, GLiClassModel
from sklearn_gliclass.model.config import BI_ENCODERS
from sklearn_gliclass.model.packed import disable_packing
from sklearn_gliclass.model.poolings import POOLINGS
from sklearn_gliclass.model.scorers import SCORERS, TOKEN_SCORERS

ARCHITECTURE_NAMES = list(ARCHITECTURES)
# Without the decoder, whose heads are not made of projectors and a scorer of one's choice.
PROJECTED = [name for name in ARCHITECTURES if name != "decoder-kv"]
PROJECTED_FAMILIES = [pair for pair in ARCHITECTURE_FAMILIES if pair[0] in PROJECTED]
POOLED = [*BI_ENCODERS, "encoder-decoder-cls", "decoder-kv"]  # before the scorer, always
ARCHITECTURE_SCORERS = [
    (architecture, scorer)
    for architecture in PROJECTED
    for scorer in SCORERS
    if scorer not in TOKEN_SCORERS or architecture not in POOLED
]
TWO_TEXTS = random_ids(2, 5)
THREE_LABELS = [random_ids(3, 2), random_ids(3, 2, seed=1)]


def logits_of(model, **batch):
    with torch.no_grad():
        return model(**batch).logits


def assert_same_logits(model, other, **batch):
    # The order of sums depends on the alignment of the weights in memory.
    torch.testing.assert_close(logits_of(model, **batch), logits_of(other, **batch), rtol=1e-5, atol=1e-6)


def batch_for(model, texts=TWO_TEXTS, labels=THREE_LABELS, **kwargs):
    return make_batch(model.config.architecture_type, texts, labels, model.config.prompt_first, **kwargs)


# -- save and load -------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    def deny(*args, **kwargs):
        raise AssertionError("a network request")

    monkeypatch.setattr(socket.socket, "connect", deny)
    monkeypatch.setattr(socket, "getaddrinfo", deny)


def assert_reload_is_equal(model, folder):
    model.save_pretrained(folder)
    loaded = GLiClassModel.from_pretrained(folder).eval()
    state, loaded_state = model.state_dict(), loaded.state_dict()
    assert state.keys() == loaded_state.keys()
    assert all(torch.equal(state[name], loaded_state[name]) for name in state)
    assert tied(loaded) == tied(model)
    return loaded


def tied(model) -> list:
    """Groups of names that share their memory."""
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter.data_ptr(), []).append(name)
    return sorted(group for group in names.values() if len(group) > 1)


@pytest.mark.parametrize(("architecture", "family"), ARCHITECTURE_FAMILIES)
def test_checkpoint_reloads_with_equal_logits(architecture, family, tmp_path, no_network):
    """The reference initialises tied weights again and needs the names of other models."""
    model = tiny_model(architecture, family)
    loaded = assert_reload_is_equal(model, tmp_path)
    assert_same_logits(loaded, model, **batch_for(model))


RELOADED_OPTIONS = [
    {"scorer_type": "mlp"},
    {"scorer_type": "mlp", "scorer_mlp_hidden_size": 24},
    {"scorer_type": "hopfield", "scorer_mlp_hidden_size": 24},
    {"scorer_type": "cross-attn"},
    {"scorer_type": "cross-attn", "scorer_mlp_hidden_size": 24},
    {"scorer_type": "weighted-dot", "hidden_size": 48, "use_lstm": True},
    {"squeeze_layers": True},
    {"layer_wise": True},
    {"encoder_layer_id": 1, "projector_init": "identity", "hidden_size": 64},
    {"scorer_type": "weighted-dot", "projector_init": "identity", "hidden_size": 64},
]


@pytest.mark.parametrize("options", RELOADED_OPTIONS, ids=str)
def test_checkpoint_with_options_reloads_with_equal_logits(options, tmp_path):
    model = tiny_model("uni-encoder", **options)
    loaded = assert_reload_is_equal(model, tmp_path)
    assert_same_logits(loaded, model, **batch_for(model))


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_tied_weights_stay_tied(family, tmp_path):
    """The reference loses the tied token embeddings of encoder and decoder when it loads its own files."""
    loaded = assert_reload_is_equal(tiny_model("encoder-decoder", family), tmp_path)
    backbone = loaded.encoder
    assert backbone.encoder.embed_tokens.weight is backbone.shared.weight
    assert backbone.decoder.embed_tokens.weight is backbone.shared.weight


@pytest.mark.parametrize(("architecture", "family"), sampled(ARCHITECTURE_FAMILIES, 12))
def test_token_embeddings_can_be_resized(architecture, family, tmp_path):
    """The bi-encoders of the reference cannot take new tokens."""
    model = tiny_model(architecture, family)
    before, ties = logits_of(model, **batch_for(model)), len(tied(model))
    mean = model.get_input_embeddings().weight.mean(dim=0)
    embeddings = model.resize_token_embeddings(45)
    assert embeddings is model.get_input_embeddings()
    assert (embeddings.num_embeddings, model.config.vocab_size, model.config.encoder_config.vocab_size) == (45, 45, 45)
    torch.testing.assert_close(embeddings.weight[40:], mean.expand(5, -1))
    assert torch.equal(logits_of(model, **batch_for(model)), before)
    assert len(tied(model)) == ties
    assert_same_logits(assert_reload_is_equal(model, tmp_path), model, **batch_for(model))


def test_label_encoder_keeps_its_vocabulary():
    model = tiny_model("bi-encoder")
    model.resize_token_embeddings(45)
    assert model.config.label_model_config.vocab_size == 40
    assert model.model.label_encoder.get_input_embeddings().num_embeddings == 40


# -- a text's result does not depend on its batch --------------------------------------------------------------

PADDING_FACTORS = {
    "architecture": ARCHITECTURE_NAMES,
    "family": list(dict.fromkeys(family for _, family in ARCHITECTURE_FAMILIES)),
    "scorer": list(SCORERS),
    "pooling": [*POOLINGS, "pass"],
    "embed_class_token": [True, False],
    "class_token_pooling": ["first", "average"],
    "encoder_layer_id": [-1, 1],
    **{name: [False, True] for name in ("use_lstm", "squeeze_layers", "prompt_first", "extract_text_features")},
}
IMPOSSIBLE = [
    {"scorer": list(TOKEN_SCORERS), "pooling": list(POOLINGS)},
    {"scorer": [name for name in SCORERS if name not in TOKEN_SCORERS], "pooling": ["pass"]},
    {"scorer": list(TOKEN_SCORERS), "architecture": POOLED},
    {"architecture": ["decoder-kv"], "use_lstm": [True]},
    {"architecture": ["decoder-kv"], "squeeze_layers": [True]},
    {"architecture": ["decoder-kv"], "encoder_layer_id": [1]},
    {"squeeze_layers": [True], "encoder_layer_id": [1]},  # all layers are read, so that none can be selected
    *[{"architecture": [architecture], "family": [family]} for architecture in ARCHITECTURE_NAMES
      for family in PADDING_FACTORS["family"] if (architecture, family) not in ARCHITECTURE_FAMILIES],
]  # fmt: skip
FULL_PADDING_CASES = [
    *[(architecture, None, scorer, pooling, {}) for architecture, scorer in ARCHITECTURE_SCORERS
      for pooling in (["pass"] if scorer in TOKEN_SCORERS else POOLINGS)],
    *[(architecture, family, "simple", pooling, {}) for architecture, family in ARCHITECTURE_FAMILIES
      for pooling in ("avg", "last")],
    *[(architecture, None, "simple", "avg", options) for architecture in PROJECTED for options in (
        {"use_lstm": True}, {"squeeze_layers": True}, {"encoder_layer_id": 1}, {"prompt_first": True},
        {"extract_text_features": True}, {"extract_text_features": True, "prompt_first": True},
        {"extract_text_features": True, "use_lstm": True}, {"class_token_pooling": "average"},
        {"class_token_pooling": "average", "prompt_first": True}, {"embed_class_token": False})],
]  # fmt: skip


def padding_cases():
    """Yield cells with each pair of options, and for ``make test-full`` each option with the defaults."""
    for cell in pairwise(PADDING_FACTORS, IMPOSSIBLE):
        architecture, family, scorer, pooling = (cell.pop(name) for name in list(cell)[:4])
        yield architecture, family, scorer, pooling, cell
    yield from (pytest.param(*case, marks=pytest.mark.full) for case in FULL_PADDING_CASES)


@pytest.mark.parametrize(("architecture", "family", "scorer", "pooling", "options"), list(padding_cases()))
def test_padding_has_no_effect(architecture, family, scorer, pooling, options):
    """A text has the same logits alone and beside a longer one with more and longer labels."""
    # Small weights, so that the logits are of the size of 1 and 1e-5 means the same everywhere.
    model = tiny_model(architecture, family, scale=0.1, scorer_type=scorer, pooling_strategy=pooling, **options)
    short, long = random_ids(5), random_ids(80, seed=1)
    few, many = random_ids(2, 2, seed=2), random_ids(4, 5, seed=3)
    alone = logits_of(model, **batch_for(model, [short], [few]))
    together = logits_of(model, **batch_for(model, [short, long], [few, many]))
    assert alone.shape == (1, 2)
    assert alone.abs().max() > 1e-4
    torch.testing.assert_close(together[:1, :2], alone, rtol=0, atol=1e-5)
    assert (together[0, 2:] == torch.finfo(torch.float32).min).all()


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_empty_label_slots_have_no_effect(architecture, problem_type):
    """In the reference, empty label slots affect softmax, argmax and loss of rows with fewer labels."""
    model = tiny_model(architecture, scorer_type="hopfield", problem_type=problem_type, scale=0.1)
    rows = [(TWO_TEXTS[0], random_ids(2, 2)), (TWO_TEXTS[1], random_ids(4, 2, seed=1))]
    if problem_type == "single_label_classification":
        targets = [torch.tensor([1]), torch.tensor([3])]
        labels = torch.cat(targets)
    else:
        targets = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])]
        labels = torch.tensor([[1.0, 0.0, 7.0, -7.0], [0.0, 1.0, 1.0, 0.0]])  # values of empty slots are not read
    with torch.no_grad():
        output = model(**batch_for(model, *map(list, zip(*rows, strict=True))), labels=labels)
        alone = [
            model(**batch_for(model, [text], [own]), labels=target)
            for (text, own), target in zip(rows, targets, strict=True)
        ]
    probabilities = output.logits.softmax(dim=-1)
    assert (probabilities[0, 2:] == 0).all()
    torch.testing.assert_close(probabilities[:1, :2], alone[0].logits.softmax(dim=-1))
    sizes = [1, 1] if problem_type == "single_label_classification" else [2, 4]
    expected = np.average([one.loss.item() for one in alone], weights=sizes)
    np.testing.assert_allclose(output.loss.item(), expected, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_sample_weight_of_two_equals_a_duplicated_row(architecture):
    model = tiny_model(architecture, problem_type="multi_label_classification", contrastive_loss_coef=0.1)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    batch, weight = batch_for(model), torch.tensor([1.0, 2.0])
    twice = {name: tensor[[0, 1, 1]] for name, tensor in {**batch, "labels": targets}.items()}
    torch.testing.assert_close(model(**batch, labels=targets, sample_weight=weight).loss, model(**twice).loss)


# -- layers and sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "scorer"), ARCHITECTURE_SCORERS)
def test_hidden_size_may_differ_from_that_of_the_encoder(architecture, scorer):
    """In the reference, scorers and LSTM have the width of the projectors' hidden layer, and fail for other inputs."""
    model = tiny_model(architecture, scorer_type=scorer, hidden_size=20, use_lstm=True)
    loss = model(**batch_for(model), labels=torch.tensor([0, 2])).loss
    loss.backward()
    assert model.model.text_projector.linear_1.out_features == 20
    assert model.model.text_projector.linear_1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("label_width", [16, 64])
@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_label_encoder_of_another_width_and_family(architecture, label_width, tmp_path):
    label_config = tiny_encoder("deberta-v2", hidden_size=label_width)
    model = tiny_model(architecture, label_model_config=label_config, hidden_size=20)
    loaded = assert_reload_is_equal(model, tmp_path)
    assert logits_of(loaded, **batch_for(model)).shape == (2, 3)


@pytest.mark.parametrize(("architecture", "family"), PROJECTED_FAMILIES)
def test_layer_wise_loss_is_the_sum_over_the_layers(architecture, family):
    """The reference needs squeeze_layers for encoder_layer_id. Layer 0 is the embedding layer, and 2 the last one "
    "here."""
    model = tiny_model(architecture, family, scale=0.1)
    batch = {**batch_for(model), "labels": torch.tensor([0, 2])}
    plain, losses = logits_of(model, **batch), []
    for layer in range(3):
        model.config.encoder_layer_id = layer
        with torch.no_grad():
            output = model(**batch)
        losses.append(output.loss.item())
    torch.testing.assert_close(output.logits, plain)
    model.config.encoder_layer_id, model.config.layer_wise = -1, True
    np.testing.assert_allclose(model(**batch).loss.item(), sum(losses), rtol=1e-5)
    assert len(set(losses)) == 3
    torch.testing.assert_close(logits_of(model, **batch_for(model)), plain)


@pytest.mark.parametrize(("architecture", "family"), PROJECTED_FAMILIES)
def test_squeeze_layers_reads_all_hidden_states(architecture, family):
    """The reference leaves out the embedding layer, and fails."""
    model = tiny_model(architecture, family, squeeze_layers=True, scale=0.1)
    seen = {}
    model.model.layer_wise_attention.register_forward_hook(lambda module, inputs, output: seen.update(layers=inputs[0]))
    loss = model(**batch_for(model), labels=torch.tensor([0, 2])).loss
    loss.backward()
    assert len(seen["layers"]) == 3
    assert model.model.layer_wise_attention.W1.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("architecture", "family"), ARCHITECTURE_FAMILIES)
def test_model_runs_in_each_dtype(architecture, family, dtype):
    model = tiny_model(architecture, family, scorer_type="hopfield", scale=0.1).to(dtype)
    output = model(**batch_for(model), labels=torch.tensor([0, 2]))
    assert output.logits.dtype is dtype
    assert output.loss.isfinite()


# -- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_default_configuration_trains(architecture):
    """The default configuration of the reference has no working loss, and trains nothing."""
    torch.manual_seed(0)
    model = GLiClassModel(tiny_config(architecture))
    assert model.config.problem_type == "single_label_classification"
    before = {name: value.clone() for name, value in model.named_parameters()}
    model(**batch_for(model), labels=torch.tensor([0, 2])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    changed = {name.split(".")[1] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    # logit_scale is kept for checkpoints; only bi-encoders and normalised features read it.
    assert {name.split(".")[1] for name in before} - changed <= {"logit_scale"}


def test_identity_projectors_change_nothing_at_first():
    config = tiny_config("bi-encoder", projector_init="identity", hidden_size=64, dropout=0.0)
    model = GLiClassModel(config).eval()
    batch = batch_for(model)
    text = model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state[:, 0]
    torch.testing.assert_close(model(**batch).text_embeddings, text, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("architecture", PROJECTED)
def test_with_identity_projectors_weighted_dot_starts_as_simple(architecture, normalize):
    options = {"projector_init": "identity", "hidden_size": 64, "normalize_features": normalize}
    simple = GLiClassModel(tiny_config(architecture, scorer_type="simple", **options)).eval()
    weighted = GLiClassModel(tiny_config(architecture, scorer_type="weighted-dot", **options)).eval()
    weighted.load_state_dict(simple.state_dict(), strict=False)  # all but the scorer's
    batch = batch_for(simple)
    torch.testing.assert_close(logits_of(weighted, **batch), logits_of(simple, **batch), rtol=1e-4, atol=1e-5)


def test_identity_projectors_need_the_fitting_width():
    with pytest.raises(ValueError, match="projector_init='identity'"):
        GLiClassModel(tiny_config("uni-encoder", projector_init="identity"))


# -- tokens of text and labels --------------------------------------------------------------------------------

# Options that change the tokens from which texts and labels are pooled.
READING_OPTIONS = [
    {"pooling_strategy": "first"}, {"pooling_strategy": "last"}, {"pooling_strategy": "first", "use_lstm": True},
    {"pooling_strategy": "first", "embed_class_token": False},
    {"pooling_strategy": "avg", "extract_text_features": True},
    {"pooling_strategy": "last", "extract_text_features": True, "embed_class_token": False},
    {"pooling_strategy": "max", "extract_text_features": True, "class_token_pooling": "average"},
    {"pooling_strategy": "first", "class_token_pooling": "average", "embed_class_token": False},
]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "prompt_first", "options"),
    sampled(itertools.product(["uni-encoder", "bi-encoder", "bi-encoder-fused"], [False, True], READING_OPTIONS), 31),
    ids=str,
)
def test_last_layer_computes_all_that_is_read(architecture, prompt_first, options):
    """The packed last layer computes only tokens that heads read; loss and gradients are those of all tokens."""
    model = tiny_model(architecture, prompt_first=prompt_first, dropout=0.0, **options).double()
    batch = batch_for(model, TWO_TEXTS, THREE_LABELS)
    labels = torch.eye(3, dtype=torch.double)[:2]
    found = []
    for pass_of in (disable_packing, contextlib.nullcontext):
        model.zero_grad()
        with pass_of():
            output = model(**batch, labels=labels)
        output.loss.backward()
        found.append((output.logits, {name: weight.grad for name, weight in model.named_parameters()}))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-9, atol=1e-10)
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize(
    ("architecture", "n_read"), [("uni-encoder", 2 * 4), ("bi-encoder-fused", 2 * 4), ("bi-encoder", 2)]
)
def test_last_layer_computes_nothing_else(architecture, n_read):
    """With "first", it computes one token of each text, and one of each of three labels in its sequence."""
    model = tiny_model(architecture, pooling_strategy="first")
    rows = []
    last = model.encoder.encoder.layer[-1]
    last.output.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    logits_of(model, **batch_for(model, TWO_TEXTS, THREE_LABELS))
    assert rows == [n_read]


def encoder_states(model, batch):
    return model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state[0]


def spans(batch):
    """Positions of the first row's own text tokens, of <<SEP>>, and of each label's tokens."""
    ids = batch["input_ids"][0].tolist()
    labels = [position for position, token in enumerate(ids) if token == LABEL_ID]
    separator = ids.index(TEXT_ID)
    ends = [*labels[1:], separator]
    return separator, [list(range(start, end)) for start, end in zip(labels, ends, strict=True)], len(ids)


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder-fused"])
@pytest.mark.parametrize("prompt_first", [False, True])
@pytest.mark.parametrize("extract", [False, True])
def test_text_is_pooled_from_its_tokens(architecture, prompt_first, extract):
    """The reference pools <<SEP>> and the end token only; here the text is pooled, or from <<SEP>> on."""
    model = tiny_model(architecture, pooling_strategy="avg", prompt_first=prompt_first, extract_text_features=extract)
    batch = batch_for(model, TWO_TEXTS[:1], THREE_LABELS[:1])
    separator, labels, length = spans(batch)
    own = range(separator, length) if prompt_first else range(labels[0][0])
    seen = {}
    hook = model.encoder.register_forward_hook(lambda module, inputs, output: seen.update(states=output[0]))
    with disable_packing():  # packed, its own forward would not run
        pooled = model.model.embed_text(**batch)
    hook.remove()
    expected = seen["states"][0][list(own if extract else range(length))].mean(dim=0)
    torch.testing.assert_close(pooled[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embed_class_token", [True, False])
@pytest.mark.parametrize("pooling", ["first", "average"])
@pytest.mark.parametrize("prompt_first", [False, True])
def test_label_is_pooled_from_its_tokens(prompt_first, pooling, embed_class_token):
    """In the reference, the last label includes the text after <<SEP>>."""
    model = tiny_model(
        "uni-encoder", prompt_first=prompt_first, class_token_pooling=pooling, embed_class_token=embed_class_token
    )
    batch = batch_for(model, TWO_TEXTS[:1], THREE_LABELS[:1])
    with torch.no_grad():
        states, classes = encoder_states(model, batch), model(**batch).class_embeddings[0]
        for span, embedding in zip(spans(batch)[1], classes, strict=True):
            own = span if embed_class_token else span[1:]
            state = states[own[:1] if pooling == "first" else own].mean(dim=0)
            torch.testing.assert_close(embedding, model.model.classes_projector(state), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_number_of_labels_is_not_limited_to_25(architecture):
    """The reference drops labels beyond `max_num_classes`."""
    model = tiny_model(architecture, encoder_options={"max_position_embeddings": 256})
    labels = random_ids(40, 2)
    logits = logits_of(model, **batch_for(model, TWO_TEXTS[:1], [labels]))
    assert logits.shape == (1, 40)
    assert len(logits.unique()) > 30


@pytest.mark.parametrize(
    ("pooling", "options", "architecture"),
    sampled(
        itertools.product(
            POOLINGS, [{}, {"use_lstm": True}, {"normalize_features": True}], ["uni-encoder", "bi-encoder-fused"]
        ),
        31,
    ),
    ids=str,
)
def test_empty_text_gives_finite_logits(architecture, pooling, options):
    """Some tokenizers have no prefix, so that an empty text has no token to pool."""
    model = tiny_model(architecture, pooling_strategy=pooling, extract_text_features=True, **options)
    batch = batch_for(model, [[], TWO_TEXTS[0]], THREE_LABELS)
    batch["input_ids"], batch["attention_mask"] = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:]
    output = model(**batch, labels=torch.tensor([0, 2]))
    output.loss.backward()
    assert output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_features_are_normalised_and_scaled():
    model = tiny_model("uni-encoder", normalize_features=True)
    output = model(**batch_for(model))
    torch.testing.assert_close(output.text_embeddings.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(output.class_embeddings.norm(dim=-1), torch.ones(2, 3))
    cosine = torch.einsum("bd,bcd->bc", output.text_embeddings, output.class_embeddings)
    torch.testing.assert_close(output.logits, cosine * model.model.logit_scale)


# -- labels of the bi-encoders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", BI_ENCODERS)
@pytest.mark.parametrize("scorer", [name for name in SCORERS if name not in TOKEN_SCORERS])
def test_shared_and_per_sample_labels_agree(architecture, scorer):
    """Labels per sample, shared labels, a selection from them, and precomputed label embeddings."""
    model = tiny_model(architecture, scorer_type=scorer, scale=0.1)
    labels = random_ids(3, 2)
    batch = batch_for(model, labels=[labels, labels])
    ids, mask = padded([[CLS, *label, SEP] for label in labels])
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = logits_of(model, **batch)
    shared = {"class_input_ids": ids, "class_attention_mask": mask}
    index = torch.tensor([[0, 1, 2], [0, 1, 2]])
    with torch.no_grad():
        states = model.model.pool_labels(**shared)
    for given in (shared, {**shared, "class_index": index}, {"class_states": states}):
        torch.testing.assert_close(logits_of(model, **text, **given), expected)


def test_class_index_selects_from_shared_labels():
    model = tiny_model("bi-encoder", scale=0.1)
    labels = random_ids(4, 2)
    ids, mask = padded([[CLS, *label, SEP] for label in labels])
    own = batch_for(model, labels=[[labels[3], labels[0]], [labels[2], labels[1], labels[0]]])
    text = {name: own[name] for name in ("input_ids", "attention_mask")}
    index = torch.tensor([[3, 0, -1], [2, 1, 0]])
    logits = logits_of(model, **text, class_input_ids=ids, class_attention_mask=mask, class_index=index)
    torch.testing.assert_close(logits, logits_of(model, **own))


@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_shared_labels_are_encoded_once(architecture):
    """The reference encodes all labels again for each text."""
    model = tiny_model(architecture)
    encoded = []
    model.model.label_encoder.register_forward_hook(
        lambda module, args, kwargs, output: encoded.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    batch = batch_for(model, TWO_TEXTS * 4, THREE_LABELS[:1] * 8)
    batch |= {name: batch[name][0] for name in ("class_input_ids", "class_attention_mask")}
    del batch["labels_mask"]
    with disable_packing():  # packed, its own forward would not run
        model(**batch)
    assert encoded == [3]


def test_tied_encoder_reads_texts_and_shared_labels_in_one_pass():
    model = tiny_model("bi-encoder", tie_encoders=True).double().eval()
    batch = batch_for(model, TWO_TEXTS * 2, THREE_LABELS[:1] * 4)
    batch |= {name: batch[name][0] for name in ("class_input_ids", "class_attention_mask")}
    batch |= {"class_index": torch.tensor([[0, 2], [1, 0], [2, -1], [1, 2]]), "labels": torch.tensor([0, 1, 0, 1])}
    del batch["labels_mask"]
    passes = []
    model.encoder.embeddings.register_forward_hook(lambda *seen: passes.append(1))
    found = []
    for pass_of in (disable_packing, contextlib.nullcontext):
        model.zero_grad()
        with pass_of():
            output = model(**batch)
        output.loss.backward()
        found.append([output.logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(passes) == 2 + 1
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
def test_embeddings_of_texts_are_as_wide_as_the_encoder(architecture):
    model = tiny_model(architecture, hidden_size=20 if architecture in PROJECTED else None)
    with torch.no_grad():
        assert model.model.embed_text(**batch_for(model)).shape == (2, 32)


def test_initial_weights_of_heads_follow_the_configuration():
    torch.manual_seed(0)
    model = GLiClassModel(tiny_config("uni-encoder", scorer_type="cross-attn", use_lstm=True, initializer_range=0.5))
    heads = {name: value for name, value in model.named_parameters() if not name.startswith("model.encoder_model.")}
    for name, value in heads.items():
        if value.dim() == 2:
            assert 0.4 < value.std() < 0.6, name
        elif "norm" in name and name.endswith("weight"):
            assert (value == 1).all(), name
        elif "bias" in name:
            assert (value == 0).all(), name
    # The encoder is initialised by its own class.
    assert model.encoder.embeddings.word_embeddings.weight.std() < 0.03


def test_randomize_reaches_every_weight():
    """The parity and reload tests depend on it."""
    model = GLiClassModel(tiny_config("bi-encoder", scorer_type="mlp", use_lstm=True, squeeze_layers=True))
    before = {name: value.clone() for name, value in model.named_parameters()}
    randomize(model)
    assert all((value != before[name]).float().mean() > 0.9 for name, value in model.named_parameters())
