"""Parity with gliclass: equal logits for equal weights and inputs without padding."""

import functools
import itertools

import numpy as np
import pytest
import torch
from covering_array import pairwise
from sampling import sampled
from tiny_models import LABEL_ID, TEXT_ID, make_batch, random_ids, randomize, tiny_config, tiny_encoder

from sklearn_gliclass.model import GLiClassModel, GLiClassModelConfig
from sklearn_gliclass.model.config import BI_ENCODERS, ENCODER_DECODERS
from sklearn_gliclass.model.poolings import POOLINGS as OUR_POOLINGS
from sklearn_gliclass.model.scorers import SCORERS, TOKEN_SCORERS

gliclass = pytest.importorskip("gliclass")
POOLING2OBJECT = pytest.importorskip("gliclass.poolings").POOLING2OBJECT
SCORER2OBJECT = pytest.importorskip("gliclass.scorers").SCORER2OBJECT

TEXTS = random_ids(2, 5)
LABELS = [random_ids(3, 2), random_ids(3, 2, seed=1)]
TOLERANCE = 1e-5

# -- the cells -----------------------------------------------------------------------------------------------

# Options of both packages.
POOLINGS = [name for name in OUR_POOLINGS if name in POOLING2OBJECT]
POOLED_SCORERS = [name for name in SCORERS if name in SCORER2OBJECT and name not in TOKEN_SCORERS]
# gliclass moves the text's states to the front and pads with zeros that its poolings include.
BLIND_TO_ZEROS = ("first", "sum", "abs_max")
FAMILIES = {
    "uni-encoder": ["bert", "deberta-v2", "modernbert", "t5"],
    "bi-encoder": ["bert", "deberta-v2", "modernbert"],
    "bi-encoder-fused": ["bert", "deberta-v2", "modernbert"],
    "encoder-decoder": ["t5", "bart"],
    "encoder-decoder-cls": ["t5", "bart"],
    "decoder-kv": ["qwen3"],
}
ACTIVATIONS = ["relu", "silu", "tanh", "gelu_new", "linear"]
FOCAL = {
    "default": {},
    "alpha and gamma": {"focal_loss_alpha": 0.2, "focal_loss_gamma": 1},
    "sum": {"focal_loss_reduction": "sum"},
}

# Values of each option, the default first.
FACTORS = {
    "encoder": [(architecture, family) for architecture, families in FAMILIES.items() for family in families],
    "pooling_strategy": ["avg", *(name for name in POOLINGS if name != "avg"), "pass"],
    "scorer_type": ["simple", *(name for name in POOLED_SCORERS if name != "simple"), "cross-attn"],
    "projector_hidden_act": ["gelu", *ACTIVATIONS],
    "problem_type": ["single_label_classification", "multi_label_classification", "regression", None],
    "focal": list(FOCAL),
    "normalize_features": [False, True],
    "prompt_first": [False, True],
    "extract_text_features": [False, True],
    "use_lstm": [False, True],
    "layer_wise": [False, True],
    "embed_class_token": [True, False],
    "class_token_pooling": ["first", "average"],
    "hidden_size": [None, 20],
    "contrastive_loss_coef": [0.0, 0.3],
}


def encoders_of(*architectures):
    return [encoder for encoder in FACTORS["encoder"] if encoder[0] in architectures]


UNI, BI = encoders_of("uni-encoder"), encoders_of(*BI_ENCODERS)
CLS, DECODER = encoders_of("encoder-decoder-cls"), encoders_of("decoder-kv")
# Excluded combinations: options that an architecture does not have, or that gliclass does not support or computes
# wrongly (see CRASHES, WRONG and IGNORED_IN_THE_LOSS below).
FORBIDDEN = [
    {"scorer_type": ["cross-attn"], "pooling_strategy": POOLINGS},
    {"scorer_type": POOLED_SCORERS, "pooling_strategy": ["pass"]},
    {"scorer_type": ["cross-attn"], "encoder": BI},
    {"scorer_type": ["cross-attn"], "encoder": UNI, "use_lstm": [True], "extract_text_features": [True]},
    {"encoder": UNI, "extract_text_features": [True], "prompt_first": [False]},
    {"encoder": UNI, "extract_text_features": [True], "use_lstm": [False],
     "pooling_strategy": [name for name in POOLINGS if name not in BLIND_TO_ZEROS]},
    {"encoder": UNI, "extract_text_features": [False], "class_token_pooling": ["average"]},
    {"encoder": encoders_of(*ENCODER_DECODERS), "extract_text_features": [False], "class_token_pooling": ["average"]},
    {"encoder": encoders_of(*ENCODER_DECODERS), "extract_text_features": [True], "class_token_pooling": ["first"]},
    {"encoder": CLS, "scorer_type": ["cross-attn"]},
    {"encoder": [*CLS, *DECODER], "use_lstm": [True]},
    {"encoder": DECODER, "problem_type": ["regression", None]},
    {"encoder": DECODER, "focal": ["sum"]},
    {"encoder": DECODER, "hidden_size": [20]},
    {"encoder": DECODER, "contrastive_loss_coef": [0.3]},
    {"encoder": DECODER, "extract_text_features": [True]},
    {"encoder": DECODER, "class_token_pooling": ["average"]},
    {"encoder": DECODER, "embed_class_token": [False]},
    {"encoder": DECODER, "scorer_type": [*POOLED_SCORERS[1:], "cross-attn"]},
    {"encoder": DECODER, "projector_hidden_act": ACTIVATIONS},
    {"encoder": BI, "extract_text_features": [True]},
    {"encoder": BI, "class_token_pooling": ["average"]},
    {"encoder": BI, "embed_class_token": [False]},
    {"encoder": BI, "use_lstm": [True]},
    {"encoder": BI, "contrastive_loss_coef": [0.3]},
    {"encoder": encoders_of("bi-encoder", *ENCODER_DECODERS, "decoder-kv"), "prompt_first": [True]},
    {"encoder": [encoder for encoder in FACTORS["encoder"] if encoder not in UNI], "layer_wise": [True]},
    {"hidden_size": [20], "scorer_type": ["weighted-dot", "mlp", "hopfield", "cross-attn"]},
    {"hidden_size": [20], "use_lstm": [True]},
    {"focal": [name for name in FOCAL if FOCAL[name]],
     "problem_type": ["single_label_classification", "regression", None]},
]  # fmt: skip


def as_parameters(cell: dict):
    """Return architecture, family and the options that differ from their defaults."""
    options = {
        name: value
        for name, value in cell.items()
        if name == "problem_type" or (name not in ("encoder", "focal") and value != FACTORS[name][0])
    }
    return *cell["encoder"], {**options, **FOCAL[cell["focal"]]}


PAIRWISE = pairwise(FACTORS, FORBIDDEN)
CELLS = [as_parameters(cell) for cell in PAIRWISE]


def each_encoder_and_value():
    """Yield cells of `CELLS` that contain each encoder and each value of an option."""
    seen = set()
    for cell, parameters in zip(PAIRWISE, CELLS, strict=True):
        found = set(cell.items())
        if found - seen:
            yield parameters
        seen |= found


# Fewer cells are saved and loaded: files depend on one option at a time.
ON_DISK = list(each_encoder_and_value())

# -- the full grid -------------------------------------------------------------------------------------------

EXTRACT = {"prompt_first": True, "extract_text_features": True}
AVERAGE = {"class_token_pooling": "average", "extract_text_features": True}
OPTIONS = {
    "uni-encoder": [
        {},
        {"normalize_features": True},
        {"embed_class_token": False},
        {"prompt_first": True},
        {"prompt_first": True, "embed_class_token": False},
        {"layer_wise": True},
        {"use_lstm": True},
        {"use_lstm": True, **EXTRACT},
        {"use_lstm": True, **EXTRACT, **AVERAGE},
        {"use_lstm": True, **EXTRACT, **AVERAGE, "embed_class_token": False},
        EXTRACT,
        {**EXTRACT, **AVERAGE},
        {**EXTRACT, **AVERAGE, "embed_class_token": False},
    ],
    "bi-encoder": [{}, {"normalize_features": True}],
    "bi-encoder-fused": [{}, {"normalize_features": True}, {"prompt_first": True}],
    "encoder-decoder": [
        {},
        {"normalize_features": True},
        {"embed_class_token": False},
        {"use_lstm": True},
        AVERAGE,
        {**AVERAGE, "embed_class_token": False},
    ],
    "encoder-decoder-cls": [
        {},
        {"normalize_features": True},
        {"embed_class_token": False},
        AVERAGE,
        {**AVERAGE, "embed_class_token": False},
    ],
    "decoder-kv": [{}, {"normalize_features": True}, {"scorer_mlp_hidden_size": 24}],
}


def poolings_of(options) -> list[str]:
    is_cropped = options.get("extract_text_features") and options.get("prompt_first") and not options.get("use_lstm")
    return list(BLIND_TO_ZEROS if is_cropped else POOLINGS)


def full_grid():
    """Yield architecture, encoder family, options."""
    for architecture, families in FAMILIES.items():
        for number, family in enumerate(families):
            # All options with the first family; both families of encoder-decoders.
            every = number == 0 or architecture in ENCODER_DECODERS
            for options in OPTIONS[architecture] if every else [{}]:
                for scorer in POOLED_SCORERS:
                    for pooling in poolings_of(options):
                        yield architecture, family, {"scorer_type": scorer, "pooling_strategy": pooling, **options}
                reads_tokens = architecture in ("uni-encoder", "encoder-decoder")
                if reads_tokens and not (options.keys() >= {"use_lstm", "extract_text_features"}):
                    yield architecture, family, {"scorer_type": "cross-attn", "pooling_strategy": "pass", **options}
        if architecture == "decoder-kv":
            continue  # without projectors
        for activation in ACTIVATIONS:
            yield architecture, families[0], {"projector_hidden_act": activation}
        for pooling in POOLINGS:
            yield architecture, families[0], {"hidden_size": 20, "pooling_strategy": pooling}


FULL_GRID = list(full_grid())
FULL_ON_DISK = [
    cell
    for cell in FULL_GRID
    if cell[2].get("pooling_strategy", "avg") in ("avg", "pass", "sum")
    and (cell[2].get("scorer_type") in ("mlp", "cross-attn") or len(cell[2]) == 1)
]


def cell_name(value) -> str:
    if isinstance(value, dict):
        return ",".join(option if isinstance(option, str) else name for name, option in value.items()) or "default"
    return value


def over(cells, full=()):
    """Parametrise with `cells`, and for ``make test-full`` with `full` too."""
    marked = [pytest.param(*cell, marks=pytest.mark.full) for cell in full]
    return pytest.mark.parametrize(("architecture", "family", "options"), [*cells, *marked], ids=cell_name)


@pytest.mark.full
def test_cells_cover_all_pairs_that_may_occur():
    """Against brute force: all cells, in one array with an axis for each option."""
    # An option without excluded combinations has one value here, to keep the array small.
    is_free = [all(name not in pattern for pattern in FORBIDDEN) for name in FACTORS]
    sizes = [len(values) for values in FACTORS.values()]
    allowed = np.ones([1 if free else size for free, size in zip(is_free, sizes, strict=True)], dtype=bool)
    for pattern in FORBIDDEN:
        choices = [
            [values.index(value) for value in pattern[name]] if name in pattern else range(size)
            for (name, values), size in zip(FACTORS.items(), allowed.shape, strict=True)
        ]
        allowed[np.ix_(*choices)] = False
    chosen = np.array([[FACTORS[name].index(value) for name, value in cell.items()] for cell in PAIRWISE])
    assert allowed[tuple(np.where(is_free, 0, chosen).T)].all()
    for one, other in itertools.combinations(range(allowed.ndim), 2):
        occurs = np.zeros((sizes[one], sizes[other]), dtype=bool)
        occurs[chosen[:, one], chosen[:, other]] = True
        others = tuple(axis for axis in range(allowed.ndim) if axis not in (one, other))
        np.testing.assert_array_equal(occurs, np.broadcast_to(allowed.any(axis=others), occurs.shape))


# -- both models ---------------------------------------------------------------------------------------------


def reference_config(architecture, family=None, **options):
    family = family or FAMILIES[architecture][0]
    if architecture in BI_ENCODERS:
        # Another width and family than the text's.
        label_config = tiny_encoder("deberta-v2", hidden_size=16)
        options = {"label_model_name": "labels", "label_model_config": label_config, **options}
    if architecture == "decoder-kv":
        options = {"sep_token_index": TEXT_ID, **options}
    return gliclass.GLiClassModelConfig(
        encoder_config=tiny_encoder(family),
        architecture_type=architecture,
        # gliclass always returns this number of label slots.
        **{"encoder_model": "text", "max_num_classes": 3, "scorer_num_heads": 4, "class_token_index": LABEL_ID,
           "text_token_index": TEXT_ID, **options},
    )  # fmt: skip


def reference_model(architecture, family=None, **options):
    # Small weights, so that the logits are of the size of 1.
    return randomize(gliclass.GLiClassModel(reference_config(architecture, family, **options)), scale=0.1)


def with_weights_of(reference) -> GLiClassModel:
    model = GLiClassModel(GLiClassModelConfig.from_dict(reference.config.to_dict())).eval()
    model.load_state_dict(reference.state_dict())
    return model


def outputs(reference, model, texts=TEXTS, labels=LABELS, targets=None):
    batch = make_batch(model.config.architecture_type, texts, labels, model.config.prompt_first)
    with torch.no_grad():
        return reference(**batch, labels=targets), model(**batch, labels=targets)


def largest_difference(reference, model) -> float:
    theirs, ours = outputs(reference, model)
    return (theirs.logits - ours.logits).abs().max().item()


def assert_equal_logits(reference, model):
    theirs, ours = (output.logits for output in outputs(reference, model))
    assert theirs.shape == ours.shape == (2, 3)
    difference = (theirs - ours).abs().max()
    assert difference <= TOLERANCE
    assert difference <= 0.01 * ours.std()  # small relative to the differences between texts and labels


# -- parity --------------------------------------------------------------------------------------------------


@over(CELLS)
def test_equal_logits_and_losses(architecture, family, options):
    reference = reference_model(architecture, family, **options)
    model = with_weights_of(reference)
    assert_equal_logits(reference, model)
    # gliclass has no working loss for single-label classes, except in one architecture.
    if architecture == "decoder-kv" and options["problem_type"] == "single_label_classification":
        theirs, ours = outputs(reference, model, targets=CLASSES)
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)
    elif options["problem_type"] != "single_label_classification":
        theirs, ours = outputs(reference, model, targets=torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.3, 0.4]]))
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)


@functools.lru_cache(maxsize=8)
def pair_without_pooling(architecture, family, options):
    reference = reference_model(architecture, family, **dict(options))
    return reference, with_weights_of(reference)


@over([], FULL_GRID)
def test_logits_equal_those_of_the_reference(architecture, family, options):
    options = dict(options)
    pooling = options.pop("pooling_strategy", "avg")
    if pooling == "pass":
        options["pooling_strategy"] = pooling
    # Poolings have no weights: the models are built once for all of them.
    reference, model = pair_without_pooling(architecture, family, tuple(options.items()))
    reference.model.pooler = POOLING2OBJECT[pooling]()
    model.config.pooling_strategy = pooling
    assert_equal_logits(reference, model)


@over(ON_DISK, FULL_ON_DISK)
def test_checkpoints_of_gliclass_load(architecture, family, options, tmp_path):
    """Including the scorer "mlp", which gliclass builds with a width of 256 and saves with a width of 1024."""
    reference = reference_model(architecture, family, **options)
    reference.save_pretrained(tmp_path)
    assert_equal_logits(reference, GLiClassModel.from_pretrained(tmp_path).eval())


@over(*([cell for cell in cells if cell[0] not in ENCODER_DECODERS] for cells in (ON_DISK, FULL_ON_DISK)))
def test_gliclass_loads_our_checkpoints(architecture, family, options, tmp_path):
    label_config = tiny_encoder("deberta-v2", hidden_size=16) if architecture in BI_ENCODERS else None
    config = tiny_config(architecture, family, label_model_config=label_config, max_num_classes=3, **options)
    model = randomize(GLiClassModel(config), scale=0.1)
    model.save_pretrained(tmp_path)
    reference = gliclass.GLiClassModel.from_pretrained(tmp_path).eval()
    assert_equal_logits(reference, model)
    # ... and we load what it saves of them.
    reference.save_pretrained(tmp_path)
    assert_equal_logits(reference, GLiClassModel.from_pretrained(tmp_path).eval())


MULTI_LABEL = {"problem_type": "multi_label_classification"}


# -- failures of the reference -------------------------------------------------------------------------------


def use(architecture, family=None, targets=None, **options):
    reference = reference_model(architecture, family, **options)
    batch = make_batch(architecture, TEXTS, LABELS, options.get("prompt_first", False))
    return reference(**batch, labels=targets)


CLASSES = torch.tensor([0, 2])

# reason -> (what is raised, how)
CRASHES = {
    "the default problem_type has no working loss": (
        RuntimeError,
        lambda: use("uni-encoder", targets=CLASSES),
    ),
    "problem_type=None has no working loss for classes": (
        RuntimeError,
        lambda: use("uni-encoder", targets=CLASSES, problem_type=None),
    ),
    "an unknown scorer is a KeyError": (KeyError, lambda: use("uni-encoder", scorer_type="nonsense")),
    "cross-attn is built with any pooling and then gets no tokens": (
        ValueError,
        lambda: use("uni-encoder", scorer_type="cross-attn", pooling_strategy="avg"),
    ),
    "cross-attn gets a longer mask than the LSTM's text": (
        RuntimeError,
        lambda: use("uni-encoder", scorer_type="cross-attn", pooling_strategy="pass", use_lstm=True, **EXTRACT),
    ),
    "no pooling is built with any scorer": (RuntimeError, lambda: use("uni-encoder", pooling_strategy="pass")),
    "bi-encoders are built without pooling": (
        (RuntimeError, ValueError),
        lambda: use("bi-encoder", pooling_strategy="pass", scorer_type="cross-attn"),
    ),
    "weighted-dot is as wide as the projector's inside": (
        RuntimeError,
        lambda: use("uni-encoder", hidden_size=20, scorer_type="weighted-dot"),
    ),
    "mlp is as wide as the projector's inside": (
        RuntimeError,
        lambda: use("uni-encoder", hidden_size=20, scorer_type="mlp"),
    ),
    "hopfield is as wide as the projector's inside": (
        RuntimeError,
        lambda: use("uni-encoder", hidden_size=20, scorer_type="hopfield"),
    ),
    "cross-attn is as wide as the projector's inside": (
        RuntimeError,
        lambda: use("uni-encoder", hidden_size=20, scorer_type="cross-attn", pooling_strategy="pass"),
    ),
    "the LSTM is as wide as the projector's inside": (
        RuntimeError,
        lambda: use("uni-encoder", hidden_size=20, use_lstm=True),
    ),
    "squeeze_layers forgets the embedding layer": (
        RuntimeError,
        lambda: use("uni-encoder", squeeze_layers=True),
    ),
    "encoder_layer_id without squeeze_layers asks for no hidden states": (
        TypeError,
        lambda: use("uni-encoder", encoder_layer_id=1),
    ),
    "an encoder from its config alone has no name": (
        TypeError,
        lambda: use("uni-encoder", encoder_model=None),
    ),
    "a label encoder needs a name": (
        (OSError, ValueError, TypeError),
        lambda: use("bi-encoder", label_model_name=None),
    ),
    "bi-encoders cannot take new tokens": (
        NotImplementedError,
        lambda: reference_model("bi-encoder").resize_token_embeddings(45),
    ),
    "bi-encoders build T5 with its decoder": (ValueError, lambda: use("bi-encoder", "t5")),
}


@pytest.mark.parametrize("reason", CRASHES)
def test_reference_raises(reason):
    exception, how = CRASHES[reason]
    with pytest.raises(exception):
        how()


UNEQUAL = [TEXTS[0], random_ids(30, seed=5)]
WIDE = {"max_num_classes": 25}

# (reason, architecture, options, inputs) of values that gliclass computes wrongly; ours are tested against formulas in
# test_modeling.py.
WRONG = [
    *[("padding takes part in the pooling", architecture, {"pooling_strategy": pooling}, {"texts": UNEQUAL})
      for architecture in (*BI_ENCODERS, "uni-encoder", "encoder-decoder")
      for pooling in POOLINGS if pooling != "first"],
    *[("hopfield's softmax counts empty slots", architecture, {"scorer_type": "hopfield", **WIDE}, {})
      for architecture in ("uni-encoder", *ENCODER_DECODERS)],
    *[("only <<SEP>> and the end token are pooled", "uni-encoder",
       {"extract_text_features": True, "pooling_strategy": pooling}, {}) for pooling in POOLINGS],
    *[("the zeros that fill the text up are pooled", "uni-encoder", {**EXTRACT, "pooling_strategy": pooling},
       {}) for pooling in POOLINGS if pooling not in BLIND_TO_ZEROS],
    ("the last label swallows the text", "uni-encoder",
     {"class_token_pooling": "average", "prompt_first": True}, {}),
    ("the last label swallows <<SEP>> and the end token", "uni-encoder",
     {"class_token_pooling": "average"}, {}),
    *[("the last label swallows <<SEP>> and the end token", architecture,
       {"class_token_pooling": "average"}, {}) for architecture in ENCODER_DECODERS],
    *[("use_lstm is built and not used", architecture, {"use_lstm": True}, {})
      for architecture in (*BI_ENCODERS, "encoder-decoder-cls")],
    *[("encoder_layer_id is ignored", architecture, {"encoder_layer_id": 1}, {})
      for architecture in (*BI_ENCODERS, *ENCODER_DECODERS)],
    ("extract_text_features is ignored", "bi-encoder-fused",
     {"extract_text_features": True, "pooling_strategy": "avg"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "architecture", "options", "inputs"), sampled(WRONG, 20), ids=cell_name)
def test_reference_computes_other_values(reason, architecture, options, inputs):
    reference = reference_model(architecture, **options)
    theirs, ours = outputs(reference, with_weights_of(reference), **inputs)
    assert (theirs.logits[:, :3] - ours.logits).abs().max() > 100 * TOLERANCE


# (reason, architecture, options): the option changes our loss and leaves theirs as it was.
IGNORED_IN_THE_LOSS = [
    *[("contrastive_loss_coef is ignored", architecture, {"contrastive_loss_coef": 0.5})
      for architecture in (*BI_ENCODERS, "decoder-kv")],
    *[("layer_wise is ignored", architecture, {"layer_wise": True})
      for architecture in (*BI_ENCODERS, *ENCODER_DECODERS)],
]  # fmt: skip


@pytest.mark.parametrize(("reason", "architecture", "options"), IGNORED_IN_THE_LOSS, ids=cell_name)
def test_reference_ignores_an_option_of_the_loss(reason, architecture, options):
    losses = []
    for chosen in ({}, options):
        reference = reference_model(architecture, **MULTI_LABEL, **chosen)
        losses.append(outputs(reference, with_weights_of(reference), targets=torch.eye(3)[:2]))
    (theirs, ours), (theirs_changed, ours_changed) = losses
    assert theirs_changed.loss == theirs.loss
    assert (ours_changed.loss - ours.loss).abs() > 100 * TOLERANCE


@pytest.mark.parametrize("scorer", ["mlp", "hopfield"])
def test_reference_ignores_the_width_of_the_scorer(scorer):
    reference = reference_model("uni-encoder", scorer_type=scorer, scorer_mlp_hidden_size=24)
    assert reference.model.scorer.mlp[0].out_features == 256
    ours = GLiClassModel(tiny_config("uni-encoder", scorer_type=scorer, scorer_mlp_hidden_size=24))
    assert ours.model.scorer.mlp[0].out_features == 24


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_reference_drops_labels_beyond_max_num_classes(architecture):
    """The fourth label has no logit."""
    reference = reference_model(architecture, max_num_classes=3)
    four = [random_ids(4, 2), random_ids(4, 2, seed=1)]
    theirs, ours = outputs(reference, with_weights_of(reference), labels=four)
    assert theirs.logits.shape == (2, 3)
    assert ours.logits.shape == (2, 4)
    torch.testing.assert_close(ours.logits[:, :3], theirs.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
@pytest.mark.parametrize("family", FAMILIES["encoder-decoder"])
def test_reference_loses_tied_weights_of_its_own_files(architecture, family, tmp_path):
    """It therefore cannot load our encoder-decoders; we load its."""
    reference = reference_model(architecture, family)
    reference.save_pretrained(tmp_path)
    model = GLiClassModel.from_pretrained(tmp_path).eval()
    assert_equal_logits(reference, model)
    assert largest_difference(gliclass.GLiClassModel.from_pretrained(tmp_path).eval(), model) > 100 * TOLERANCE
