"""Texts beyond `max_length`: windows in training, in prediction, with cached hidden states, and exported."""

import pickle

import numpy as np
import pytest
import torch
from test_reference_pipeline import LABELS as REFERENCE_LABELS
from test_reference_pipeline import reference  # noqa: F401
from tiny_estimators import ARCHITECTURES, tiny, tiny_of

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.data import dataset
from sklearn_gliclass.data.tokenizer import TokenizedTexts
from sklearn_gliclass.data.windows import split_windows
from sklearn_gliclass.exceptions import TruncationWarning
from sklearn_gliclass.in_context import fitted_instructions
from sklearn_gliclass.model.architecture import Scores, join_windows
from sklearn_gliclass.testing import TINY

WORDS = ["goal", "match", "vote", "law", "late", "new", "team", "party"]
RNG = np.random.RandomState(0)
LONG = [" ".join(RNG.choice(WORDS, n)) for n in (60, 3, 25, 41, 20, 7)]  # a word is a token
CLASSES = ["sports", "politics", "sports", "politics", "food", "food"]
OPTIONS = {"max_length": 24, "max_epochs": 2, "window_overlap": 3}
EXAMPLES = [{"text": "a late goal", "labels": ["sports"]}]
UNI = {"architecture_type": "uni-encoder", "max_length": 64}


def passages(text, room, overlap):
    """Split a text into the fewest passages of equal lengths."""
    words = text.split()
    n = max(1, -(-(len(words) - overlap) // (room - overlap)))
    size = -(-(len(words) + (n - 1) * overlap) // n)
    return [" ".join(words[first : first + size]) for first in np.arange(n) * (len(words) - size) // max(1, n - 1)]


def joined(values, counts, how):
    parts = np.split(values, np.cumsum(counts)[:-1])
    return np.array([getattr(part, how)(axis=0) for part in parts])


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_the_passages(architecture, how):
    clf = tiny_of(architecture, long_texts=how, **OPTIONS).fit(LONG, CLASSES)
    layout = clf.fitted_.layout()
    room = layout.text_room(layout.prompt_length(range(3)))
    parts = [passages(text, room, 3) for text in LONG]
    counts = list(map(len, parts))
    assert max(counts) > 2
    logits, states = clf._logits(LONG), clf.transform(LONG)
    clf.set_params(long_texts="truncate")
    flat = [part for group in parts for part in group]
    np.testing.assert_allclose(logits, joined(clf._logits(flat), counts, how), atol=2e-5)  # and no warning
    np.testing.assert_allclose(states, joined(clf.transform(flat), counts, "mean"), atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("bi-encoder", {}),
        ("uni-encoder", {}),
        ("uni-encoder", {"prompt_first": True}),
        ("bi-encoder-fused", {}),
        ("bi-encoder-fused", {"prompt_first": True}),
        ("encoder-decoder", {}),
    ],
)
def test_each_window_has_the_task_description(architecture, options):
    options = {**OPTIONS, "max_length": 28, **options}
    prompt = "new law" if architecture == "bi-encoder" else "new law "  # the bi-encoder adds a space
    clf = tiny_of(architecture, long_texts="mean", prompt=prompt, **options).fit(LONG, CLASSES)
    layout = clf.fitted_.layout(instructions=fitted_instructions(clf))
    room = layout.text_room(layout.prompt_length(range(3))) - layout.n_beside
    parts = [passages(text, room, 3) for text in LONG]
    counts = list(map(len, parts))
    assert max(counts) > 2
    logits = clf._logits(LONG)
    flat = clf.set_params(long_texts="truncate")._logits([part for group in parts for part in group])
    np.testing.assert_allclose(logits, joined(flat, counts, "mean"), atol=2e-5)  # and no warning


def test_split_windows_keeps_what_is_beside_the_text():
    """Against a split of each text alone."""
    rng = np.random.RandomState(0)
    texts = [np.r_[-1, -2, np.arange(n), -3] for n in rng.randint(0, 60, 50)]
    tokens = TokenizedTexts(np.concatenate(texts), np.cumsum([0, *map(len, texts)]))
    found = split_windows(tokens, room=12, overlap=2, n_before=2, n_after=1)
    inner = [" ".join(map(str, text[2:-1])) for text in texts]
    expected = [part for text in inner for part in passages(text, 9, 2)]
    windows = [found.tokens[i] for i in range(len(found.tokens))]
    assert [" ".join(map(str, window[2:-1])) for window in windows] == expected
    assert all(window[:2].tolist() == [-1, -2] and window[-1] == -3 for window in windows)


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder", "encoder-decoder"])
def test_auto_reads_windows_of_long_texts(architecture):
    fits = [tiny_of(architecture, long_texts=how, **OPTIONS).fit(LONG, CLASSES) for how in ("auto", "mean")]
    np.testing.assert_array_equal(fits[0]._logits(LONG), fits[1]._logits(LONG))
    assert GLiClassClassifier().long_texts == GLiClassRegressor().long_texts == "auto"


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("uni-encoder", {"examples": EXAMPLES, "max_length": 64}),
        (
            "uni-encoder",
            {"label_names": ["a new law of the late party", "a vote in the team", "late"], "max_length": 32},
        ),
        ("decoder-kv", {"max_length": 30}),
    ],
)
def test_auto_truncates_where_windows_cannot_be_read(architecture, options):
    texts, predicted = [text + " law" * 80 for text in LONG], []
    for how in ("auto", "truncate"):
        clf = tiny_of(architecture, long_texts=how, max_epochs=1, **options)
        with pytest.warns(TruncationWarning):
            clf.fit(texts, CLASSES)
        with pytest.warns(TruncationWarning):
            predicted.append(clf.predict_proba(texts))
    np.testing.assert_array_equal(*predicted)


def test_texts_with_labels_of_their_own_are_read_in_windows():
    rows = [{"sports": 1, "politics": 0}, {"food": 1, "sports": 0}, {"politics": 1, "food": 0}] * 2
    clf, first = (tiny(long_texts=how, **OPTIONS) for how in ("auto", "truncate"))
    with pytest.warns(TruncationWarning):
        first.fit(LONG, rows)
    clf.fit(LONG, rows)
    assert abs(clf.history_[-1, "train_loss"] - first.history_[-1, "train_loss"]) > 1e-4
    parts = [passages(text, clf.fitted_.layout().text_room(0), 3) for text in LONG]
    flat = clf._logits([part for group in parts for part in group])
    np.testing.assert_allclose(clf._logits(LONG), joined(flat, list(map(len, parts)), "mean"), atol=2e-5)


@pytest.mark.parametrize("takes_max", [False, True])
def test_join_windows_equals_its_formula(takes_max):
    logits, text = torch.randn(5, 3, requires_grad=True), torch.randn(5, 4)
    index, counts = torch.tensor([0, 0, 1, 2, 2]), [2, 1, 2]
    classes, mask = torch.randn(5, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    found = join_windows(index, takes_max, Scores(logits, text, classes, mask))
    expected = joined(logits.detach().numpy(), counts, "max" if takes_max else "mean")
    np.testing.assert_allclose(found[0].detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(found[1], joined(text.numpy(), counts, "mean"), rtol=1e-6)
    assert torch.equal(found[2], classes[[0, 2, 3]])
    assert found[3] is mask
    found[0].sum().backward()
    per_text = joined(logits.grad.numpy(), counts, "sum")
    np.testing.assert_allclose(per_text, np.ones((3, 3)), rtol=1e-6)  # a text has the weight of one text


@pytest.mark.parametrize("y", [CLASSES, np.eye(6, 3) + np.eye(6, 3, -2)], ids=["single-label", "multi-label"])
@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder"])
def test_training_does_not_depend_on_the_parts_of_a_batch(architecture, y, monkeypatch):
    options = {"architecture_type": architecture, "text_contrastive_loss_coef": 0} if y is CLASSES else {}
    fits = []
    for at_once in (1, 1000):
        monkeypatch.setattr(dataset, "WINDOWS_AT_ONCE", at_once)
        names = None if y is CLASSES else ["sea", "sky", "food"]
        fits.append(tiny(long_texts="mean", label_names=names, **OPTIONS, **options).fit(LONG, y))
    np.testing.assert_allclose(fits[0]._logits(LONG), fits[1]._logits(LONG), atol=1e-4)
    assert fits[0].history_[-1, "train_loss"] == pytest.approx(fits[1].history_[-1, "train_loss"], rel=1e-2)


def test_short_texts_are_not_affected():
    short = [text[:40] for text in LONG]
    fits = [tiny(long_texts=how, max_epochs=2).fit(short, CLASSES) for how in ("truncate", "mean", "max")]
    for clf in fits[1:]:
        np.testing.assert_allclose(clf._logits(short), fits[0]._logits(short), atol=1e-4)


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder", "encoder-decoder"])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_frozen_fits_and_the_cache_equal_those_on_tokens(architecture, how, tmp_path):
    options = {**OPTIONS, "long_texts": how, "shuffle_labels": False, "lr": 0.0, "max_grad_norm": None}
    frozen = tiny_of(architecture, freeze_encoder=True, memory=tmp_path / "cache", **options).fit(LONG, CLASSES)
    if architecture != "bi-encoder":  # whose label projector is frozen with its encoder
        plain = tiny_of(architecture, **options).fit(LONG, CLASSES)
        np.testing.assert_allclose(frozen._logits(LONG), plain._logits(LONG), atol=1e-3)
    again = tiny_of(architecture, freeze_encoder=True, memory=tmp_path / "cache", **options).fit(LONG, CLASSES)
    np.testing.assert_array_equal(again._logits(LONG), frozen._logits(LONG))


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_fits_after_a_label_probe_read_windows(how, preset, tmp_path):
    tiny(max_epochs=0, max_length=24).fit(LONG, CLASSES).save_pretrained(tmp_path)
    clf = GLiClassClassifier(
        pretrained=str(tmp_path), long_texts=how, preset=preset, max_length=24, device="cpu", random_state=0
    ).fit(LONG, CLASSES)
    assert clf.predict(LONG).shape == (6,)
    if preset == "fast":
        proba = clf.predict_proba(LONG)
        last_words = [" ".join(text.split()[-20:]) for text in LONG]
        assert not np.allclose(clf.predict_proba(last_words), proba, atol=1e-4)


def test_regressors_join_windows():
    y = np.arange(6.0)
    reg = GLiClassRegressor(**{**TINY, **OPTIONS}, long_texts="mean", shrinkage=1.0, random_state=0).fit(LONG, y)
    layout = reg.fitted_.layout()
    parts = [passages(text, layout.text_room(0), 3) for text in LONG]
    flat = reg.set_params(long_texts="truncate").predict([part for group in parts for part in group])
    expected = joined(flat[:, None], list(map(len, parts)), "mean")[:, 0]
    np.testing.assert_allclose(reg.set_params(long_texts="mean").predict(LONG), expected, atol=1e-4)


def test_validation_rows_and_partial_fit_read_windows():
    clf = tiny(long_texts="max", early_stopping=True, validation_fraction=0.5, **OPTIONS)
    clf.fit(LONG * 2, CLASSES * 2)
    assert np.isfinite(clf.history_[-1, "valid_loss"])
    clf.partial_fit(LONG, CLASSES)
    assert clf.n_iter_ == 3


def test_saved_and_exported_classifiers_read_windows(tmp_path):
    clf = tiny(long_texts="max", **OPTIONS).fit(LONG, CLASSES)
    clf.save_pretrained(tmp_path / "saved")
    for loaded in (GLiClassClassifier.from_pretrained(tmp_path / "saved"), pickle.loads(pickle.dumps(clf))):
        np.testing.assert_allclose(loaded.predict_proba(LONG), clf.predict_proba(LONG), atol=1e-6)
    pytest.importorskip("onnxruntime")
    from sklearn_gliclass.onnx import OnnxClassifier

    for architecture in ("bi-encoder", "uni-encoder"):
        clf = tiny(architecture_type=architecture, long_texts="mean", **OPTIONS).fit(LONG, CLASSES)
        clf.export_onnx(tmp_path / architecture)
        exported = OnnxClassifier(tmp_path / architecture)
        np.testing.assert_allclose(exported.predict_proba(LONG), clf.predict_proba(LONG), atol=1e-5)


@pytest.mark.parametrize("reference", [("uni-encoder", {})], indirect=True)
def test_max_equals_the_chunking_pipeline_of_gliclass(reference):  # noqa: F811
    """Where both read the same passages: words of equal lengths, in passages of 9 words with 2 in common."""
    gliclass = pytest.importorskip("gliclass")
    model, tokenizer, folder = reference
    words = ["goal", "vote", "late", "near", "was."]
    texts = [" ".join(np.random.RandomState(seed).choice(words[:4], n)) for seed, n in enumerate((9 + 3 * 7, 9, 16))]
    pipeline = gliclass.pipeline.ZeroShotClassificationWithChunkingPipeline(
        model, tokenizer, max_length=128, device="cpu", progress_bar=False, text_chunk_size=45, text_chunk_overlap=10
    )
    results = pipeline(texts, REFERENCE_LABELS, threshold=0.0)
    scores = [{found["label"]: found["score"] for found in row} for row in results]
    expected = [[row[label] for label in REFERENCE_LABELS] for row in scores]
    clf = GLiClassClassifier.from_pretrained(
        folder, problem_type="multi_label_classification", long_texts="max", window_overlap=2
    ).fit(None, REFERENCE_LABELS)
    layout = clf.fitted_.layout()
    beside = layout.max_length - layout.text_room(layout.prompt_length(range(3)))
    clf.set_params(max_length=beside + 9).fit(None, REFERENCE_LABELS)
    np.testing.assert_allclose(clf.predict_proba(texts), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_overlap": 22}, "window_overlap=22 must be smaller than a window, which holds 22 tokens"),
        ({"examples": EXAMPLES, **UNI}, "cannot be combined with examples"),
        ({"long_texts": "chunks"}, "'long_texts' parameter"),
        ({"window_overlap": -1}, "'window_overlap' parameter"),
    ],
)
def test_windows_that_cannot_be_read_raise(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{**OPTIONS, "long_texts": "mean", **options}).fit(LONG, CLASSES)


def test_attributions_of_several_windows_raise():
    pytest.importorskip("matplotlib")
    from sklearn_gliclass.plotting import TokenAttributionDisplay

    clf = tiny(long_texts="mean", **OPTIONS).fit(LONG, CLASSES)
    with pytest.raises(ValueError, match="is read in windows"):
        TokenAttributionDisplay.compute(clf, LONG[0])
    assert len(TokenAttributionDisplay.compute(clf, LONG[1], n_steps=2).spans) == 3
