import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_tokenizers import TOKENIZERS

from sklearn_gliclass.data.dataset import Epochs, TextDataset
from sklearn_gliclass.data.prompt import LAYOUTS
from sklearn_gliclass.data.tokenizer import PieceTokenizer
from sklearn_gliclass.model import GLiClassModel, GLiClassModelConfig
from sklearn_gliclass.testing import TINY_ENCODERS

TOKENIZER = TOKENIZERS["wordpiece"]
PIECES = PieceTokenizer(TOKENIZER)
SEP_ID = TOKENIZER.sep_token_id
NAMES = ["sports", "politics", "the weather", "a card", "letters", "the dog"]
N_TEXTS = 23


def make_texts(n=N_TEXTS):
    rng = np.random.RandomState(0)
    return [" ".join(rng.choice(["the", "lazy", "dog", "card", "arrived"], size)) for size in rng.randint(0, 12, n)]


def make_targets(kind, n=N_TEXTS):
    rng = np.random.RandomState(1)
    if kind == "single":
        return rng.randint(0, len(NAMES), n)
    if kind == "multi":
        return (rng.rand(n, len(NAMES)) < 0.3).astype(np.float32)
    return rng.dirichlet(np.ones(len(NAMES)), n).astype(np.float32)


def make_dataset(
    kind="single", architecture="uni-encoder", max_num_classes=None, shuffle_labels=True, weight=None, n=N_TEXTS
):
    layout = LAYOUTS[architecture](SimpleNamespace(prompt_first=False), PIECES, NAMES, 100)
    weight = np.ones(n, np.float32) if weight is None else weight
    return TextDataset(
        layout, layout.tokenize(make_texts(n)), make_targets(kind, n), weight, len(NAMES), max_num_classes,
        shuffle_labels,
    )  # fmt: skip


NAME_OF_IDS = {tuple(PIECES.tokenize([name])[0].tolist()): name for name in NAMES}


def read_labels(batch, position) -> list[str]:
    """The label names that the model reads for a sample of the batch, in their order."""
    inputs = {name: tensor.tolist() for name, tensor in batch.inputs.items()}
    if "class_input_ids" in inputs and PIECES.label_id not in inputs["class_input_ids"][0]:  # a label encoder's
        names = [NAME_OF_IDS[tuple(ids[1 : ids.index(SEP_ID)])] for ids in inputs["class_input_ids"]]
        return [names[i] for i in inputs["class_index"][position] if i >= 0] if "class_index" in inputs else names
    prompts = inputs.get("class_input_ids", inputs["input_ids"])
    ids = prompts[position if len(prompts) > 1 else 0]  # prompts that all texts share are there once
    if ids.index(PIECES.sep_id) < ids.index(PIECES.label_id):  # <<SEP>>l1<<LABEL>>l2<<LABEL>> of the decoder
        first = ids.index(PIECES.sep_id) + 1
        ends = [place for place, token in enumerate(ids) if token == PIECES.label_id]
        starts = [first, *(end + 1 for end in ends[:-1])]
        return [NAME_OF_IDS[tuple(ids[start:end])] for start, end in zip(starts, ends, strict=True)]
    ids = ids[ids.index(PIECES.label_id) : ids.index(PIECES.sep_id)]
    starts = [place for place, token in enumerate(ids) if token == PIECES.label_id]
    ends = [*starts[1:], len(ids)]
    return [NAME_OF_IDS[tuple(ids[start + 1 : end])] for start, end in zip(starts, ends, strict=True)]


def test_evaluation_reads_all_rows_or_those_that_are_given():
    dataset = make_dataset()
    for given, expected in ((None, range(N_TEXTS)), (np.array([7, 2, 11]), [2, 7, 11])):
        batches = list(dataset.evaluation_batches(4, given))
        assert sorted(row for batch in batches for row in batch.rows) == list(expected)
        for batch in batches:
            np.testing.assert_array_equal(batch.inputs["labels"], dataset.targets[batch.rows])


@pytest.mark.parametrize("rng", [None, 0], ids=["validation", "training"])
@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize("max_num_classes", [None, 3])
@pytest.mark.parametrize("kind", ["single", "multi", "soft"])
def test_batches_keep_texts_and_targets_together(kind, max_num_classes, architecture, rng):
    """For any order of texts and labels, and with each text once."""
    dataset = make_dataset(kind, architecture, max_num_classes)
    texts, targets = make_texts(), make_targets(kind)
    seen = []
    for batch in dataset.batches(4, rng if rng is None else np.random.RandomState(rng)):
        seen.extend(batch.rows)
        for position, row in enumerate(batch.rows):
            ids = TOKENIZER(texts[row], add_special_tokens=False).input_ids
            start = 0 if architecture == "decoder-kv" else 1  # [CLS]
            assert batch.inputs["input_ids"][position, start : start + len(ids)].tolist() == ids
            labels = batch.inputs["labels"][position]
            own = [NAMES.index(name) for name in read_labels(batch, position)]
            if kind == "single":
                assert own[labels] == targets[row]
            else:
                np.testing.assert_array_equal(labels, targets[row][own])
            # A shared list (bi-encoder) holds the labels of all of its samples.
            assert max_num_classes is None or len(own) == 3 or dataset.layout.shares_labels
    assert sorted(seen) == list(range(N_TEXTS))


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_true_labels_are_always_among_the_chosen(kind):
    dataset = make_dataset(kind, max_num_classes=5)
    targets = make_targets(kind)
    for batch in dataset.batches(4, np.random.RandomState(0)):
        for position, row in enumerate(batch.rows):
            own = {NAMES[targets[row]]} if kind == "single" else {NAMES[i] for i in np.flatnonzero(targets[row])}
            assert own <= set(read_labels(batch, position))


def orders_of(dataset, rng):
    return [read_labels(batch, i) for batch in dataset.batches(4, rng) for i in range(len(batch))]


def test_labels_are_shuffled_for_each_sample_and_epoch():
    rng = np.random.RandomState(0)
    dataset = make_dataset()
    first, second = orders_of(dataset, rng), orders_of(dataset, rng)
    assert len({tuple(order) for order in first}) > N_TEXTS / 2
    assert first != second
    assert all(sorted(order) == sorted(NAMES) for order in first)


@pytest.mark.parametrize("max_num_classes", [None, 3])
def test_labels_in_their_order_where_they_are_not_shuffled(max_num_classes):
    for order in orders_of(
        make_dataset(max_num_classes=max_num_classes, shuffle_labels=False), np.random.RandomState(0)
    ):
        assert order == sorted(order, key=NAMES.index)


def flat(batches):
    return [{name: tensor.tolist() for name, tensor in batch.inputs.items()} for batch in batches]


@pytest.mark.parametrize("architecture", LAYOUTS)
@pytest.mark.parametrize("max_num_classes", [None, 3])
def test_validation_is_the_same_every_time_and_training_follows_its_seed(max_num_classes, architecture):
    dataset = make_dataset(architecture=architecture, max_num_classes=max_num_classes)
    assert flat(dataset.batches(4, None)) == flat(dataset.batches(4, None))
    first, again, other = (flat(dataset.batches(4, np.random.RandomState(seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def global_states():
    numpy_state = np.random.get_state()[1].tolist()
    return random.getstate(), numpy_state, torch.get_rng_state().tolist()


@pytest.mark.parametrize("kind", ["single", "multi", "soft"])
def test_data_and_global_generators_are_not_changed(kind):
    """The reference changes the data of the caller and global generators."""
    dataset = make_dataset(kind, max_num_classes=3)
    kept = dataset.targets.copy(), dataset.sample_weight.copy(), dataset.tokens.ids.copy()
    for array in (dataset.targets, dataset.sample_weight, dataset.tokens.ids, dataset.tokens.offsets):
        array.flags.writeable = False
    names = list(NAMES)
    before_all = global_states()
    for rng in (None, np.random.RandomState(0)):
        for batch in dataset.batches(4, rng, accumulate=2):
            batch.inputs["labels"].zero_()  # a batch is a copy
    assert global_states() == before_all
    for before, after in zip(kept, (dataset.targets, dataset.sample_weight, dataset.tokens.ids), strict=True):
        np.testing.assert_array_equal(before, after)
    assert names == NAMES


# -- gradient accumulation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2, 4, 100])
@pytest.mark.parametrize("weight", [None, "random", "per label"])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_shares_of_a_step_sum_to_one(kind, weight, accumulate):
    if weight is not None:
        shape = (N_TEXTS,) if weight == "random" or kind == "single" else (N_TEXTS, len(NAMES))
        weight = np.random.RandomState(0).rand(*shape).astype(np.float32)
    batches = list(make_dataset(kind, weight=weight).batches(4, np.random.RandomState(0), accumulate))
    steps, step = [], []
    for batch in batches:
        step.append(batch.share)
        if batch.last_of_step:
            steps.append(step)
            step = []
    assert step == []
    assert len(steps) == -(-6 // accumulate)
    assert max(map(len, steps)) <= accumulate
    np.testing.assert_allclose(list(map(sum, steps)), 1.0)


def test_step_of_weight_zero_has_no_share():
    batches = make_dataset(weight=np.zeros(N_TEXTS, np.float32)).batches(4, None, accumulate=2)
    assert [batch.share for batch in batches] == [0.0] * 6


PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "soft": "single_label_classification",
}


@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder"])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_accumulated_losses_are_the_loss_of_one_large_batch(kind, architecture):
    encoder = {**TINY_ENCODERS["bert"], "vocab_size": len(TOKENIZER)}
    config = GLiClassModelConfig(
        encoder_config=encoder, architecture_type=architecture, problem_type=PROBLEMS[kind],
        class_token_index=PIECES.label_id, text_token_index=PIECES.sep_id, pooling_strategy="avg",
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GLiClassModel(config).eval()
    weight = np.random.RandomState(0).rand(N_TEXTS).astype(np.float32)
    dataset = make_dataset(kind, architecture, weight=weight, shuffle_labels=False)
    with torch.no_grad():
        (whole,) = dataset.batches(N_TEXTS, None)
        parts = [batch.share * model(**batch.inputs).loss for batch in dataset.batches(4, None, accumulate=100)]
        torch.testing.assert_close(sum(parts), model(**whole.inputs).loss, rtol=1e-5, atol=1e-6)


# -- what skorch reads -------------------------------------------------------------------------------------------


def test_epochs_are_as_long_as_they_say():
    epochs = Epochs(make_dataset(), 4, np.random.RandomState(0))
    pairs = list(epochs)
    assert len(pairs) == len(epochs) == 6
    assert all(labels is batch.inputs["labels"] for batch, labels in pairs)


def test_items_are_ids_and_targets():
    dataset = make_dataset()
    assert len(dataset) == N_TEXTS
    ids, target = dataset[5]
    assert ids.tolist() == TOKENIZER(make_texts()[5], add_special_tokens=False).input_ids
    assert target == make_targets("single")[5]


@pytest.mark.parametrize("architecture", LAYOUTS)
def test_texts_may_all_be_empty(architecture):
    layout = LAYOUTS[architecture](SimpleNamespace(prompt_first=False), PIECES, NAMES, 100)
    dataset = TextDataset(layout, layout.tokenize([""] * 3), np.array([0, 1, 2]), np.ones(3), len(NAMES), None, True)
    for batch in dataset.batches(2, np.random.RandomState(0)):
        assert (batch.inputs["attention_mask"].sum(dim=1) > 0).all()
