"""Cache of hidden states: no repeated computation, no stale reads, and no failure with an unusable folder."""

import copy
import os
import shutil
import warnings

import joblib
import numpy as np
import pytest
import torch
from forked import needs_fork, start
from random_states import states_of
from sampling import sampled
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass.cache import store
from sklearn_gliclass.cache.engine import StateEngine
from sklearn_gliclass.cache.states import TEXT
from sklearn_gliclass.cache.store import Collection, compute_key
from sklearn_gliclass.testing import TINY_BERT


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of texts and labels that are encoded, as a growing list."""
    numbers = []
    for name in ("_encode", "_encode_labels"):
        original = getattr(StateEngine, name)

        def note(self, *args, original=original, name=name):
            numbers.append(len(args[1] if name == "_encode" else args[0]))
            return original(self, *args)

        monkeypatch.setattr(StateEngine, name, note)
    return numbers


def forget_what_was_read():
    """Reset the state of the process."""
    store._collections.clear()
    store._loaded.__init__()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("architecture", "frozen"),
    # Fits of a frozen encoder read the cache in training too.
    [(architecture, True) for architecture in ARCHITECTURES]
    + sampled([(architecture, False) for architecture in ARCHITECTURES], 2),
)
def test_cached_and_uncached_agree_exactly(architecture, frozen, tmp_path, encoded):
    plain = tiny_of(architecture, freeze_encoder=frozen, max_num_classes=2).fit(TEXTS, LABELS)
    encoded.clear()
    cached = clone(plain).set_params(memory=str(tmp_path)).fit(TEXTS, LABELS)
    for name, tensor in plain.model_.state_dict().items():
        assert torch.equal(tensor, cached.model_.state_dict()[name])
    expected = plain.predict_proba(TEXTS)
    for _ in range(2):
        np.testing.assert_array_equal(cached.predict_proba(TEXTS), expected)
        np.testing.assert_array_equal(cached.transform(TEXTS), plain.transform(TEXTS))
        forget_what_was_read()
    if frozen:
        assert sum(encoded) == len(set(TEXTS)) + (2 if architecture == "bi-encoder" else 0)
        encoded.clear()
        again = clone(cached).fit(TEXTS, LABELS)
        assert not encoded
        np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"use_lstm": True},
        {"squeeze_layers": True},
        {"architecture_type": "uni-encoder", "scorer_type": "cross-attn", "pooling_strategy": "pass"},
    ],
    ids=str,
)
def test_cached_tokens_give_the_same_predictions(options, tmp_path, encoded):
    cached = tiny(freeze_encoder=True, memory=str(tmp_path), **options).fit(TEXTS, LABELS)
    first = cached.predict_proba(TEXTS)
    forget_what_was_read()
    encoded.clear()
    np.testing.assert_array_equal(clone(cached).fit(TEXTS, LABELS).predict_proba(TEXTS), first)
    assert not encoded
    plain = clone(cached).set_params(memory=None).fit(TEXTS, LABELS)
    np.testing.assert_allclose(plain.predict_proba(TEXTS), first, atol=1e-5)
    np.testing.assert_allclose(plain.transform(TEXTS), cached.transform(TEXTS), atol=1e-5)


def frozen_in(folder, texts, labels):
    """Classifier with equal weights in each fit: those from scratch depend on the seed, and the tokenizer on texts."""
    start = tiny(max_epochs=0).fit(texts, labels)
    start.model_.encoder.save_pretrained(folder)
    start.tokenizer_.save_pretrained(folder)
    return tiny(encoder_config=None, encoder_model=str(folder), freeze_encoder=True, memory=folder / "states")


NUMBERED, GRID = [f"{text} {i}" for i, text in enumerate(TEXTS * 2)], {"pooling_strategy": ["avg", "max", "first"]}


def test_search_encodes_each_text_once(tmp_path, encoded):
    texts, labels, grid = NUMBERED, LABELS * 2, {**GRID, "scorer_type": ["simple", "hopfield"]}
    clf = frozen_in(tmp_path, texts, labels)
    search = GridSearchCV(clf, grid, cv=2).fit(texts, labels)
    assert sum(encoded) == len(texts) + 2 * len(GRID["pooling_strategy"])  # and the labels, for each pooling
    encoded.clear()
    plain = GridSearchCV(clone(clf).set_params(memory=None), grid, cv=2).fit(texts, labels)
    # Without the folder each of the 13 fits encodes its texts: half of them in the folds.
    assert sum(encoded) == 13 * 2 + 12 * len(texts) // 2 + len(texts)
    np.testing.assert_allclose(plain.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"], atol=1e-12)


def test_pooling_of_one_token_caches_no_other(tmp_path, encoded):
    """Its pass skips the other tokens in the last layer."""
    clf = frozen_in(tmp_path, NUMBERED, LABELS * 2).set_params(pooling_strategy="first")
    first = clf.fit(NUMBERED, LABELS * 2).transform(NUMBERED)
    encoded.clear()
    clf.set_params(pooling_strategy="avg").fit(NUMBERED, LABELS * 2)
    assert sum(encoded) == len(NUMBERED) + 2
    again = clf.set_params(pooling_strategy="first").fit(NUMBERED, LABELS * 2)
    np.testing.assert_allclose(again.transform(NUMBERED), first, atol=1e-6)


def count_threads(estimator, X, y):
    return {"threads": torch.get_num_threads()}


@pytest.mark.full  # starts two processes, which import torch
def test_search_in_two_processes_reads_it_with_half_of_the_threads(tmp_path):
    clf = frozen_in(tmp_path, NUMBERED, LABELS * 2)
    for pooling in GRID["pooling_strategy"]:
        clf.set_params(pooling_strategy=pooling).fit(NUMBERED, LABELS * 2)
    before = files(tmp_path)
    search = GridSearchCV(clf, GRID, cv=2, n_jobs=2, scoring=count_threads, refit=False).fit(NUMBERED, LABELS * 2)
    assert files(tmp_path) == before  # what is encoded is written
    assert max(search.cv_results_["mean_test_threads"]) <= max(1, joblib.cpu_count() // 2)


def test_transform_in_a_pipeline_uses_it(tmp_path, encoded):
    embedder = tiny(freeze_encoder=True, memory=joblib.Memory(tmp_path, verbose=0), max_epochs=0)
    pipeline = make_pipeline(embedder, LogisticRegression()).fit(TEXTS, LABELS)
    assert sum(encoded) == len(set(TEXTS))  # the labels are not needed
    predicted = pipeline.predict(TEXTS)
    forget_what_was_read()
    encoded.clear()
    again = clone(pipeline).fit(TEXTS, LABELS)
    assert not encoded
    np.testing.assert_array_equal(again.predict(TEXTS), predicted)


# -- keys ----------------------------------------------------------------------------------------------------


OTHERS = [
    {"pooling_strategy": "max"},
    {"encoder_layer_id": 1},
    {"squeeze_layers": True},
    {"layer_wise": True},
    {"use_lstm": True},
    {"dtype": "float64"},
    {"dtype": "bfloat16"},
    {"random_state": 1},  # other weights
    {"max_length": 12},  # other texts
    {"encoder_config": {**TINY_BERT, "hidden_act": "relu"}},
    {"architecture_type": "uni-encoder"},
    {"architecture_type": "bi-encoder-fused"},
]
OTHER_PROMPTS = [
    {"prompt_first": True},
    {"extract_text_features": True},
    {"class_token_pooling": "average"},
    {"embed_class_token": False},
    {"label_names": {"sports": "ball games", "politics": "power"}},
    {"max_num_classes": 2},
]


@pytest.mark.filterwarnings("ignore:.*too long for max_length=12")
@pytest.mark.parametrize(
    ("common", "changed"),
    [({}, changed) for changed in OTHERS]
    + [({"architecture_type": "uni-encoder"}, changed) for changed in OTHER_PROMPTS]
    + [({"architecture_type": "bi-encoder-fused"}, changed) for changed in ({"projector_init": "normal"},)],
    ids=str,
)
def test_options_that_change_the_states_are_in_the_key(common, changed, tmp_path):
    texts, labels = [f"{text}, and so on and on" for text in TEXTS], [*LABELS[:7], "weather"]
    options = {"freeze_encoder": True, "max_length": 64, "max_epochs": 1, **common}
    clf = tiny(**options)
    other = tiny(**{**options, **changed})
    if "label_names" in changed:
        labels = LABELS
    expected = clone(other).fit(texts, labels).predict_proba(texts)
    clone(clf).set_params(memory=str(tmp_path)).fit(texts, labels)
    n_files = len(files(tmp_path))
    cached = other.set_params(memory=str(tmp_path)).fit(texts, labels)
    np.testing.assert_allclose(cached.predict_proba(texts), expected, atol=1e-5)
    assert len(files(tmp_path)) > n_files


def test_options_of_the_heads_are_not_in_the_key(tmp_path, encoded):
    clf = tiny(freeze_encoder=True, memory=str(tmp_path)).fit(TEXTS, LABELS)
    encoded.clear()
    for changed in ({"scorer_type": "mlp"}, {"others_lr": 0.1}, {"normalize_features": False}, {"batch_size": 2}):
        clone(clf).set_params(**changed).fit(TEXTS, LABELS).predict(TEXTS)
    assert not encoded


def test_training_the_encoder_makes_other_states(tmp_path, encoded):
    clf = tiny(memory=str(tmp_path), warm_start=True)
    for _ in range(3):
        clf.fit(TEXTS, LABELS)
        encoded.clear()
        first = clf.predict_proba(TEXTS)
        assert sum(encoded) == len(set(TEXTS)) + 2  # and both labels
        np.testing.assert_array_equal(clf.predict_proba(TEXTS), first)
        assert sum(encoded) == len(set(TEXTS)) + 2  # and both labels
        np.testing.assert_array_equal(clf.set_params(memory=None).predict_proba(TEXTS), first)
        clf.set_params(memory=str(tmp_path))


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder"])
def test_weights_that_someone_sets_make_other_states(architecture, tmp_path):
    clf = tiny_of(architecture, freeze_encoder=True, memory=str(tmp_path)).fit(TEXTS, LABELS)
    clf.predict(TEXTS)
    weight = clf.model_.encoder.encoder.layer[0].output.dense.weight
    weight.data.mul_(1.5)  # without a change of torch's version counter
    changed = clf.predict_proba(TEXTS)
    np.testing.assert_array_equal(changed, clf.set_params(memory=None).predict_proba(TEXTS))


def test_pickled_and_copied_estimators_share_it(tmp_path, encoded):
    clf = tiny(freeze_encoder=True, memory=str(tmp_path)).fit(TEXTS, LABELS)
    expected = clf.predict_proba(TEXTS)
    encoded.clear()
    np.testing.assert_array_equal(copy.deepcopy(clf).predict_proba(TEXTS), expected)
    assert not encoded


def test_folder_is_not_saved_with_the_model(tmp_path):
    clf = tiny(freeze_encoder=True, memory=joblib.Memory(tmp_path / "states", verbose=0)).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path / "model")
    loaded = type(clf).from_pretrained(tmp_path / "model")
    assert loaded.memory is None
    assert loaded.freeze_encoder is True


# -- the folder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "header", "no file"])
def test_damaged_file_is_computed_again(damage, tmp_path, encoded):
    clf = tiny(freeze_encoder=True, memory=str(tmp_path)).fit(TEXTS, LABELS)
    expected = clf.predict_proba(TEXTS)
    for path in files(tmp_path):
        content = bytearray(path.read_bytes())
        if damage == "truncated":
            content = content[: len(content) // 2]
        elif damage == "empty":
            content = b""
        elif damage == "flipped":
            content[-10] ^= 64
        elif damage == "header":
            content[:8] = b"\xff" * 8
        path.write_bytes(content)
        if damage == "no file":
            path.unlink()
    forget_what_was_read()
    encoded.clear()
    again = clone(clf).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)
    assert sum(encoded) == len(set(TEXTS)) + 2  # and both labels
    encoded.clear()
    forget_what_was_read()
    clone(clf).fit(TEXTS, LABELS)  # the damaged files have been replaced
    assert not encoded


def test_folder_deleted_in_the_middle(tmp_path, encoded):
    folder = tmp_path / "states"
    clf = tiny(freeze_encoder=True, memory=str(folder)).fit(TEXTS, LABELS)
    expected = clf.predict_proba(TEXTS)
    shutil.rmtree(folder)
    encoded.clear()
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), expected)
    assert not encoded  # the process keeps what it has read
    store._loaded.__init__()
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), expected)
    assert sum(encoded) == len(set(TEXTS))  # the estimator keeps the label embeddings
    assert files(folder)  # and the folder is there again


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    clf = tiny(freeze_encoder=True)
    expected = clone(clf).fit(TEXTS, LABELS).predict_proba(TEXTS)
    clf.set_params(memory=str(tmp_path / "file" / "states"))
    with pytest.warns(UserWarning, match=r"The folder memory='.*states' cannot be .*: hidden states .* are computed"):
        clf.fit(TEXTS, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        np.testing.assert_array_equal(clf.fit(TEXTS, LABELS).predict_proba(TEXTS), expected)


def test_read_only_folder_is_read(tmp_path, encoded, monkeypatch):
    clf = tiny(freeze_encoder=True, memory=str(tmp_path)).fit(TEXTS[:4], ["a", "b"] * 2)
    forget_what_was_read()

    def deny(self, data):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", deny)  # root may write to all folders
    encoded.clear()
    with pytest.warns(UserWarning, match="cannot be written to .*Permission denied"):
        clf.predict([*TEXTS[:4], "something new"])
    assert encoded == [1]


def _fit_in_a_process(memory, result):
    texts = [f"{text} {i % 5}" for i, text in enumerate(TEXTS * 4)]
    np.save(result, tiny(freeze_encoder=True, memory=str(memory)).fit(texts, LABELS * 4).predict_proba(texts))


@needs_fork
def test_processes_write_at_once(tmp_path):
    memory, results = tmp_path / "memory", [tmp_path / f"{number}.npy" for number in range(2)]
    processes = [start(_fit_in_a_process, memory, result) for result in results]
    for process in processes:
        process.join()
    first, second = map(np.load, results)
    np.testing.assert_array_equal(first, second)
    assert not [path for path in files(memory) if path.name.startswith("writing-")]


def test_wrong_memory_raises():
    with pytest.raises(ValueError, match="'memory' parameter of GLiClassClassifier"):
        tiny(memory=3).fit(TEXTS, LABELS)


# -- collections ---------------------------------------------------------------------------------------------


def test_collection_gives_back_what_it_got(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FILE_BYTES", 200)  # several files
    lengths = [3, 1, 2, 5, 4]
    states, keys = states_of(lengths), [compute_key(bytes([i])) for i in range(5)]
    Collection(tmp_path).write(keys, states)
    assert len(files(tmp_path)) > 1
    forget_what_was_read()
    asked = [keys[4], compute_key(b"other"), keys[0], keys[4], keys[2]]
    found, read = Collection(tmp_path).read(asked)
    assert found.tolist() == [True, False, True, True, True]
    expected = states.take(np.array([4, 0, 4, 2]))
    assert torch.equal(read.arrays[TEXT], expected.arrays[TEXT])
    assert torch.equal(read.arrays["label_states"], expected.arrays["label_states"])
    assert read.offsets.tolist() == expected.offsets.tolist()


def test_memory_in_the_process_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LOADED_BYTES", 500)
    forget_what_was_read()
    collection = Collection(tmp_path)
    for number in range(5):
        collection.write([compute_key(bytes([number]))], states_of([10], seed=number))
        assert store._loaded.n_bytes <= 500
    for number in range(5):
        found, read = collection.read([compute_key(bytes([number]))])
        assert found.all()
        assert torch.equal(read.arrays[TEXT], states_of([10], seed=number).arrays[TEXT])


def test_files_can_be_read_by_others(tmp_path):
    old = os.umask(0o022)
    try:
        Collection(tmp_path).write([compute_key(b"a")], states_of([2]))
    finally:
        os.umask(old)
    assert files(tmp_path)[0].stat().st_mode & 0o777 == 0o644
