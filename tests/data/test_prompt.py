from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_tokenizers import LABELS, TEXTS, TOKENIZERS

from sklearn_gliclass.data.examples import Instructions
from sklearn_gliclass.data.prompt import LAYOUTS, MIN_TEXT_TOKENS, find_unknown_labels
from sklearn_gliclass.data.tokenizer import LABEL_TOKEN, SEP_TOKEN, PieceTokenizer
from sklearn_gliclass.model import ARCHITECTURES
from sklearn_gliclass.model.config import BI_ENCODERS, ENCODER_DECODERS

PIECES = {name: PieceTokenizer(tokenizer) for name, tokenizer in TOKENIZERS.items()}
PROMPTED = ["uni-encoder", "bi-encoder-fused"]
LONG = "the lazy card " * 100
MANY_LABELS = [
    f"{first} {second}" for first, second in product("abcdefgh", repeat=2)
]  # of letters that all tokenizers know

each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS)
both_orders = pytest.mark.parametrize("prompt_first", [False, True], ids=["prompt last", "prompt first"])


def reference_strings(architecture: str, text: str, labels, prompt_first: bool) -> list[str]:
    """Strings that gliclass tokenises: the text's sequence, and the prompt or the separate labels."""
    pipeline = pytest.importorskip("gliclass.pipeline")
    this = SimpleNamespace(
        label_token=LABEL_TOKEN,
        sep_token=SEP_TOKEN,
        model=SimpleNamespace(config=SimpleNamespace(prompt_first=prompt_first)),
    )
    if architecture == "uni-encoder":
        return [pipeline.UniEncoderZeroShotClassificationPipeline.prepare_input(this, text, labels)]
    if architecture == "decoder-kv":
        return ["".join([text, SEP_TOKEN, *(label + LABEL_TOKEN for label in labels), SEP_TOKEN])]
    if architecture in ENCODER_DECODERS:
        return [text, pipeline.EncoderDecoderZeroShotClassificationPipeline.prepare_labels_prompt(this, labels)]
    if architecture == "bi-encoder-fused":
        text = pipeline.BiEncoderZeroShotClassificationPipeline.prepare_input(this, text, labels)
    return [text, *labels]


def make_layout(architecture, tokenizer="wordpiece", labels=LABELS, max_length=200, prompt_first=False):
    config = SimpleNamespace(prompt_first=prompt_first)
    return LAYOUTS[architecture](config, PIECES[tokenizer], labels, max_length)


def rows(inputs, name="input_ids") -> list[list[int]]:
    """The sequences without their padding."""
    mask = inputs[name.replace("input_ids", "attention_mask")].astype(bool)
    return [ids[real].tolist() for ids, real in zip(inputs[name], mask, strict=True)]


def batch_of(layout, texts, orders=None):
    tokens = layout.tokenize(texts)
    orders = [np.arange(len(layout.label_texts))] * len(texts) if orders is None else orders
    return layout.batch([tokens[i] for i in range(len(texts))], orders)


def test_every_architecture_has_a_layout():
    assert set(LAYOUTS) == set(ARCHITECTURES)


@each_tokenizer
@both_orders
@pytest.mark.parametrize("architecture", LAYOUTS)
def test_ids_equal_those_of_the_joined_string(architecture, tokenizer, prompt_first):
    """The joined ids of the pieces are the ids of gliclass's joined string."""
    batch = batch_of(make_layout(architecture, tokenizer, prompt_first=prompt_first), TEXTS)
    for row, text in enumerate(TEXTS):
        strings = reference_strings(architecture, text, LABELS, prompt_first)
        framed = architecture != "decoder-kv"
        expected = [TOKENIZERS[tokenizer](string, add_special_tokens=framed).input_ids for string in strings]
        got = [rows(batch)[row]]
        if architecture in BI_ENCODERS:
            got += rows(batch, "class_input_ids")  # shared by the batch
        elif architecture == "encoder-decoder-cls":
            got.append(rows(batch, "class_input_ids")[0])  # shared too
        elif architecture == "encoder-decoder":
            got.append(rows(batch, "class_input_ids")[row])
        assert got == expected


@each_tokenizer
def test_task_description_has_the_ids_of_the_joined_string(tokenizer):
    config, instructions = SimpleNamespace(prompt_first=False), Instructions(prompt="the weather")
    layout = LAYOUTS["uni-encoder"](config, PIECES[tokenizer], LABELS, 200, instructions=instructions)
    joined = "".join(["the lazy card", *(LABEL_TOKEN + label for label in LABELS), SEP_TOKEN, "the weather"])
    assert rows(batch_of(layout, ["the lazy card"])) == [TOKENIZERS[tokenizer](joined).input_ids]


@each_tokenizer
@both_orders
@pytest.mark.parametrize("architecture", PROMPTED)
def test_text_is_truncated_and_labels_are_not(architecture, tokenizer, prompt_first):
    """The reference truncates the labels if the prompt comes last."""
    layout = make_layout(architecture, tokenizer, max_length=60, prompt_first=prompt_first)
    short, long = rows(batch_of(layout, ["the card", LONG]))
    pieces = PIECES[tokenizer]
    assert len(long) == 60
    assert long.count(pieces.label_id) == short.count(pieces.label_id) == len(LABELS)
    # Without their texts, both sequences are equal.
    order = np.arange(len(LABELS))
    prompt = layout.prompt(order).tolist()
    text = layout.tokenize([LONG])[0][: layout.text_room(len(prompt))].tolist()
    assert long == pieces.frame(*([prompt, text] if prompt_first else [text, prompt])).tolist()


@pytest.mark.parametrize("architecture", ["bi-encoder", *ENCODER_DECODERS])
def test_text_in_a_bi_encoder_is_truncated_at_max_length(architecture):
    layout = make_layout(architecture, max_length=30)
    batch = batch_of(layout, ["the card", LONG])
    full = TOKENIZERS["wordpiece"](LONG).input_ids
    assert rows(batch)[1] == [*full[:29], full[-1]]
    assert batch["class_input_ids"].shape[1] <= 30


@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize("max_length", [40, 60, 200])
def test_lengths_are_known_before_the_batch_is_built(architecture, max_length):
    layout = make_layout(architecture, max_length=max_length)
    texts = [" ".join(["card"] * n) for n in (0, 1, 10, 20, 30, 50, 190, 300)]
    order = np.arange(len(LABELS))
    tokens = layout.tokenize(texts)
    built = rows(batch_of(layout, texts))
    assert layout.sequence_lengths(tokens, order).tolist() == list(map(len, built))
    uncut = rows(batch_of(make_layout(architecture, max_length=1000), texts))
    assert layout.is_truncated(tokens, order).tolist() == [a != b for a, b in zip(built, uncut, strict=True)]


@pytest.mark.parametrize("architecture", [*PROMPTED, *ENCODER_DECODERS, "decoder-kv"])
def test_prompt_that_leaves_no_room_raises(architecture):
    """The reference truncates labels that do not fit."""
    layout = make_layout(architecture, labels=MANY_LABELS[:60], max_length=64)
    with pytest.raises(ValueError, match=r"The labels take \d+ tokens of max_length=64.*lower max_num_classes"):
        batch_of(layout, ["a text"])


def test_length_that_leaves_no_room_beside_the_special_tokens_raises():
    """Labels of a bi-encoder have their own sequences: the message does not mention them, and its length suffices."""
    with pytest.raises(ValueError, match=r"^max_length=9 leaves 7 tokens for the text.*set max_length to 10 or more"):
        batch_of(make_layout("bi-encoder", max_length=9), ["a text"])
    batch_of(make_layout("bi-encoder", max_length=10), ["a text"])


def test_room_of_the_text_has_a_least_size():
    labels = ["sports", "the"]
    length = len(rows(batch_of(make_layout("uni-encoder", labels=labels), [""]))[0])
    batch_of(make_layout("uni-encoder", labels=labels, max_length=length + MIN_TEXT_TOKENS), [LONG])
    with pytest.raises(ValueError, match="leaves 7 for the text"):
        batch_of(make_layout("uni-encoder", labels=labels, max_length=length + MIN_TEXT_TOKENS - 1), [LONG])


@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_label_that_does_not_fit_its_own_sequence_raises(architecture):
    with pytest.raises(ValueError, match=r"A label takes \d+ tokens and max_length is 20"):
        make_layout(architecture, labels=["sports", "the card " * 30], max_length=20)


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_number_of_labels_is_not_limited_to_25(architecture):
    """The reference drops labels beyond `max_num_classes`; here only `max_length` limits their number."""
    layout = make_layout(architecture, labels=MANY_LABELS[:40], max_length=300)
    batch = batch_of(layout, ["a text"])
    name = "class_input_ids" if architecture in ENCODER_DECODERS else "input_ids"
    if architecture == "bi-encoder":
        assert len(batch["class_input_ids"]) == 40
    else:
        assert rows(batch, name)[0].count(PIECES["wordpiece"].label_id) == 40


@each_tokenizer
@both_orders
@pytest.mark.parametrize("architecture", LAYOUTS)
def test_control_tokens_of_users_stay_text(architecture, tokenizer, prompt_first):
    """In the reference, <<LABEL>>, <<SEP>> or [SEP] in a text or label adds a label or ends the sequence."""
    nasty = ["<<LABEL>>business", "a <<SEP>> b", "[SEP] [CLS] </s> <s> <pad> [PAD]"]
    labels = ["sports", "<<LABEL>>", "<<SEP>>x the", "card </s>"]
    layout = make_layout(architecture, tokenizer, labels, prompt_first=prompt_first)
    tame = make_layout(architecture, tokenizer, ["sports", "card", "letters", "x"], prompt_first=prompt_first)
    special = {PIECES[tokenizer].label_id, PIECES[tokenizer].sep_id, *TOKENIZERS[tokenizer].all_special_ids}
    special -= {TOKENIZERS[tokenizer].unk_token_id}

    def controls(inputs):
        return [[[i for i in row if i in special] for row in rows(inputs, name)]
                for name in inputs if name.endswith("input_ids")]  # fmt: skip

    assert controls(batch_of(layout, nasty)) == controls(batch_of(tame, ["x"] * 3))


# -- orders --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["uni-encoder", *ENCODER_DECODERS, "decoder-kv"])
def test_each_sample_has_its_own_order(architecture):
    layout = make_layout(architecture)
    orders = [np.array([2, 0]), np.array([1, 3])]
    together = batch_of(layout, ["a", "b c d"], orders)
    for row, (text, order) in enumerate(zip(["a", "b c d"], orders, strict=True)):
        alone = batch_of(make_layout(architecture, labels=[LABELS[i] for i in order]), [text])
        for name in (name for name in alone if name.endswith("input_ids")):
            assert rows(together, name)[row] == rows(alone, name)[0]


def test_prompt_that_a_batch_shares_is_in_it_once():
    layout = make_layout("encoder-decoder-cls")
    order = np.array([1, 0])
    assert len(batch_of(layout, ["a", "b"], [order, order.copy()])["class_input_ids"]) == 1
    assert len(batch_of(layout, ["a", "b"], [order, order[::-1]])["class_input_ids"]) == 2


def test_truncated_text_of_a_decoder_keeps_its_labels():
    """The tokenizer's own frame is not part of the sequence."""
    layout = make_layout("decoder-kv", max_length=60)
    pieces, order = PIECES["wordpiece"], np.arange(len(LABELS))
    short, long = rows(batch_of(layout, ["the card", LONG]))
    prompt = layout.prompt(order).tolist()
    assert len(long) == 60
    assert long == [*layout.tokenize([LONG])[0][: 60 - len(prompt)].tolist(), *prompt]
    assert prompt.count(pieces.label_id) == len(LABELS)
    assert prompt.count(pieces.sep_id) == 2
    assert short[-len(prompt) :] == prompt


@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_labels_of_a_batch_are_encoded_once(architecture):
    """The reference encodes a label once for each sample, padded to one length; here it is encoded once per batch."""
    layout = make_layout(architecture)
    orders = [np.array([2, 0, 1]), np.array([1, 2])]
    batch = batch_of(layout, ["a", "b"], orders)
    sequences = rows(batch, "class_input_ids")
    assert len(sequences) == 3
    assert batch["class_index"].tolist() == [[2, 0, 1], [1, 2, -1]]
    for order, index in zip(orders, batch["class_index"], strict=True):
        expected = [TOKENIZERS["wordpiece"](LABELS[i]).input_ids for i in order]
        assert [sequences[i] for i in index if i >= 0] == expected
    assert batch["class_input_ids"].shape[1] == max(map(len, sequences))


@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_batch_with_one_order_shares_its_labels(architecture):
    batch = batch_of(make_layout(architecture), ["a", "b"], [np.array([3, 1]), np.array([3, 1])])
    assert "class_index" not in batch
    expected = [TOKENIZERS["wordpiece"](LABELS[i]).input_ids for i in (3, 1)]
    assert rows(batch, "class_input_ids") == expected


@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_labels_have_a_tokenizer_of_their_own(architecture):
    config = SimpleNamespace(prompt_first=False)
    layout = LAYOUTS[architecture](config, PIECES["wordpiece"], LABELS, 200, PIECES["unigram, metaspace always"])
    batch = batch_of(layout, ["the card"])
    expected = [TOKENIZERS["unigram, metaspace always"](label).input_ids for label in LABELS]
    assert rows(batch, "class_input_ids") == expected


# -- labels that the tokenizer cannot tell apart ------------------------------------------------------------------


@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize(
    ("tokenizer", "labels", "reason"),
    [
        ("wordpiece", ["sports", "sports"], "they are equal"),
        ("wordpiece", ["card", "Card"], "it ignores upper and lower case"),
        ("wordpiece", ["naïveté", "naivete"], "it ignores accents"),
        ("wordpiece", ["the card", "the\ncard"], "white space or invisible characters"),
        ("wordpiece", ["card", " card "], "white space or invisible characters"),
        ("wordpiece", ["card", "ca\u200brd"], "white space or invisible characters"),
        ("wordpiece", ["\u2603", "\u2211"], "it does not know the characters in which they differ"),
        ("wordpiece", ["card \u2603", "card \u2211"], "it does not know the characters"),
        ("wordpiece between spaces", ["Größe", "Gro\u0308ße"], "they differ in their Unicode form only"),
        ("wordpiece between spaces", ["card 7", "card 9"], "it does not know the characters"),
        ("unigram, metaspace always", ["\u2460", "1"], "they differ in their Unicode form only"),
        ("unigram, metaspace first", ["\u2603", "\u2211"], "it does not know the characters"),
    ],
)
def test_labels_with_the_same_tokens_raise(architecture, tokenizer, labels, reason):
    with pytest.raises(ValueError, match=f"(?s)the same tokens .*{reason}.*with label_names") as caught:
        make_layout(architecture, tokenizer, ["other", *labels])
    assert all(repr(label) in str(caught.value) for label in labels)


@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize(
    ("tokenizer", "labels"),
    [
        ("wordpiece between spaces", ["Card", "card"]),
        ("byte-level bpe", ["card", "Card", " card", "card ", "naïveté", "naivete", "\u2603", "\u2211", "ca\u200brd"]),
        ("wordpiece", ["card", "cards", "the card", "card the"]),
    ],
)
def test_labels_that_the_tokenizer_tells_apart_are_accepted(architecture, tokenizer, labels):
    layout = make_layout(architecture, tokenizer, labels)
    ids = [tuple(TOKENIZERS[tokenizer](label, add_special_tokens=False).input_ids) for label in labels]
    assert len(set(ids)) == len(labels)
    assert layout.label_texts == labels


@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize("label", ["", " ", "\u200b"])
def test_label_without_tokens_raises(architecture, label):
    with pytest.raises(ValueError, match=r"finds no token in the label.*with label_names"):
        make_layout(architecture, labels=["sports", label])


@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize(
    ("tokenizer", "labels", "unknown"),
    [
        ("wordpiece", ["card", "\u2603", "a \u2603", "\u2603 \u2211"], ["\u2603", "\u2603 \u2211"]),
        ("unigram, metaspace always", ["card", "\u2603"], ["\u2603"]),
        ("unigram, metaspace first", ["card", "\u2603"], ["\u2603"]),
        ("byte-level bpe, prefix space", ["card", "\u2603"], []),
    ],
)
def test_unknown_labels_are_found(architecture, tokenizer, labels, unknown):
    assert find_unknown_labels(make_layout(architecture, tokenizer, labels)) == unknown


@pytest.mark.parametrize("architecture", BI_ENCODERS)
def test_tokenizer_of_the_labels_decides(architecture):
    """The tokenizer of the texts ignores case and that of the label encoder does not, and vice versa."""
    config = SimpleNamespace(prompt_first=False)
    lower, cased = PIECES["wordpiece"], PIECES["byte-level bpe"]
    LAYOUTS[architecture](config, lower, ["card", "Card"], 200, cased)
    with pytest.raises(ValueError, match="upper and lower case"):
        LAYOUTS[architecture](config, cased, ["card", "Card"], 200, lower)
