"""Texts that grow, against predictions of the whole texts."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from sklearn.exceptions import NotFittedError
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass import GLiClassRegressor, StreamingClassifier
from sklearn_gliclass.exceptions import TruncationWarning
from sklearn_gliclass.testing import TINY_ENCODERS

TEXT = "the goal was late, and the law on the match was passed: a vote, another vote, and a goal"
CHUNKS = [
    "the go",
    "al was",
    "",
    " late, and the law o",
    "n",
    " the match was passed:",
    " a vote, another vote, and a goal",
]
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
# With layers that keep recurrent states, which cannot be truncated.
KNOWS_HYBRID = "qwen3_5_text" in transformers.CONFIG_MAPPING
HYBRID = {
    "model_type": "qwen3_5_text", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "max_position_embeddings": 128,
}  # fmt: skip
READS_TEXT = {"recurrent_steps": 3, "recurrent_read_text": True}
EXAMPLES = [{"text": "a law and a vote", "labels": "politics"}, {"text": "a late match", "labels": "sports"}]
MULTI = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)


def fitted(y=LABELS, scale=0.3, **options):
    """A decoder with large random weights, so that texts differ in their probabilities."""
    options = {"encoder_config": TINY_ENCODERS["qwen3"], "architecture_type": "decoder-kv", **options}
    clf = tiny(max_epochs=0, **options).fit(TEXTS, y)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in clf.model_.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return clf


def grow(stream, clf, session="s", chunks=CHUNKS, method="predict_proba"):
    """Append the chunks, and compare each result with that of the whole text."""
    text, whole = stream.text(session) if session in stream.sessions else "", []
    for chunk in chunks:
        text += chunk
        found = getattr(stream, f"partial_{method}")(session, chunk)
        whole.append(getattr(clf, method)([text])[0])
        np.testing.assert_allclose(found, whole[-1], rtol=1e-4, atol=1e-5)
    return np.array(whole)


def tokens_read(clf, run) -> list[int]:
    """Numbers of tokens of each pass of the decoder."""
    seen = []
    hook = clf.model_.get_input_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    run()
    hook.remove()
    return seen


OPTIONS = [
    {},
    {"encoder_config": LLAMA},
    *([{"encoder_config": HYBRID}, {"encoder_config": HYBRID, **READS_TEXT}] if KNOWS_HYBRID else []),
    READS_TEXT,
    {"normalize_features": False, "dtype": "float64"},
    {"prompt": "Name the topic. "},
    {"prompt": "Name the topic. ", "examples": EXAMPLES},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_results_are_those_of_the_whole_text(options):
    clf = fitted(**options)
    whole = grow(StreamingClassifier(clf), clf)
    assert np.ptp(whole[:, 0]) > 1e-3


def test_labels_in_several_prompts():
    names = [f"{first} {second}" for first in ("late", "new") for second in ("goal", "law", "vote")]
    clf = fitted([*names, *names[:2]], max_num_classes=2, max_length=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        grow(StreamingClassifier(clf), clf)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_multi_label_results_are_those_of_the_classifier(method):
    clf = fitted(MULTI, label_names=["sports", "politics"])
    grow(StreamingClassifier(clf), clf, method=method)


def test_several_targets_are_those_of_the_classifier():
    clf = fitted(np.array([["goal", "late"], ["law", "near"], ["vote", "late"], ["law", "late"]] * 2, object))
    stream = StreamingClassifier(clf)
    found = stream.partial_predict_proba("s", TEXT)
    for part, whole in zip(found, clf.predict_proba([TEXT]), strict=True):
        np.testing.assert_allclose(part, whole[0], rtol=1e-4, atol=1e-5)
    assert stream.partial_predict("s", "").tolist() == clf.predict([TEXT])[0].tolist()


def test_classes_are_predicted():
    clf = fitted()
    stream = StreamingClassifier(clf)
    assert stream.partial_predict("s", TEXT) == clf.predict([TEXT])[0]
    assert stream.text("s") == TEXT


def test_only_new_tokens_and_labels_are_read():
    clf = fitted()
    stream = StreamingClassifier(clf)
    n_labels = len(clf.fitted_.layout().prompt(np.arange(2)))
    n_text = len(clf.fitted_.layout().tokenize([TEXT])[0])
    assert tokens_read(clf, lambda: stream.partial_predict("s", TEXT)) == [n_text, n_labels]
    assert tokens_read(clf, lambda: stream.partial_predict("s", "")) == [n_labels]
    first, second = tokens_read(clf, lambda: stream.partial_predict("s", " and a law"))
    assert (first, second) == (len(clf.fitted_.layout().tokenize([f"{TEXT} and a law"])[0]) - n_text, n_labels)


def test_tokens_that_a_chunk_changes_are_read_again():
    clf = fitted()
    layout, stream = clf.fitted_.layout(), StreamingClassifier(clf)
    before, after = (layout.tokenize([text])[0] for text in ("the goal was la", "the goal was late"))
    n_shared = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    stream.partial_predict("s", "the goal was la")
    assert tokens_read(clf, lambda: stream.partial_predict("s", "te"))[0] == len(after) - n_shared


def test_sessions_are_independent():
    clf = fitted()
    stream = StreamingClassifier(clf)
    for chunk in CHUNKS:
        grow(stream, clf, "a", [chunk])
        grow(stream, clf, ("b", 1), [chunk[::-1]])
    assert stream.sessions == ["a", ("b", 1)]
    stream.end("a")
    assert stream.sessions == [("b", 1)]
    grow(stream, clf, "a", ["a new text"])
    assert stream.text("a") == "a new text"


def test_sessions_run_in_threads():
    clf = fitted()
    stream = StreamingClassifier(clf)

    def run(session):
        return [stream.partial_predict_proba(session, chunk) for chunk in CHUNKS]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(8)))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="attention"),
        pytest.param(
            {"encoder_config": HYBRID},
            id="hybrid",
            marks=pytest.mark.skipif(not KNOWS_HYBRID, reason="transformers has no Qwen 3.5"),
        ),
    ],
)
def test_memory_is_bounded(options):
    clf = fitted(**options)
    stream = StreamingClassifier(clf)
    grow(stream, clf, "s")
    needed = stream._sessions["s"].read.n_bytes
    small = StreamingClassifier(clf, max_cache_bytes=int(1.5 * needed))
    for session in "abc":
        grow(small, clf, session)
    held = [name for name in "abc" if small._sessions[name].read.n_bytes]
    assert held == ["c"]
    grow(small, clf, "a", [" and more"])  # read again
    assert [name for name in "abc" if small._sessions[name].read.n_bytes] == ["a"]
    nothing = StreamingClassifier(clf, max_cache_bytes=1)
    grow(nothing, clf)
    assert nothing._sessions["s"].read.n_bytes == 0


def test_truncated_text_takes_bounded_memory():
    clf = fitted(max_length=48)
    stream = StreamingClassifier(clf)
    with pytest.warns(TruncationWarning):
        grow(stream, clf, chunks=[TEXT] * 4)
    assert len(stream.text("s")) < 4 * len(TEXT)
    n_bytes = stream._sessions["s"].read.n_bytes
    with pytest.warns(TruncationWarning):
        stream.partial_predict("s", TEXT * 1000)
    assert len(stream.text("s")) < 4 * len(TEXT)
    assert stream._sessions["s"].read.n_bytes == n_bytes
    with pytest.warns(TruncationWarning):
        stream.partial_predict("t", TEXT * 1000)
    assert len(stream.text("t")) < 4 * len(TEXT)


def test_changes_of_the_classifier_take_effect():
    clf = fitted()
    stream = StreamingClassifier(clf)
    before = grow(stream, clf)[-1]
    clf.set_params(max_epochs=1).partial_fit(TEXTS, LABELS)
    after = grow(stream, clf, chunks=[""])[-1]
    assert np.abs(after - before).max() > 1e-4
    stream.classifier = clf.with_labels(["weather", "politics", "sports"])
    assert grow(stream, stream.classifier, chunks=[" and rain"]).shape == (1, 3)


def test_failed_call_changes_nothing(monkeypatch):
    clf = fitted()
    stream = StreamingClassifier(clf)
    grow(stream, clf, chunks=CHUNKS[:3])
    before = dict(stream._sessions)

    def fail(*args, **kwargs):
        raise RuntimeError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(clf.model_.model, "classify", fail)
        with pytest.raises(RuntimeError, match="stop"):
            stream.partial_predict("s", CHUNKS[3])
        with pytest.raises(RuntimeError, match="stop"):
            stream.partial_predict("t", CHUNKS[3])
    with pytest.raises(TypeError, match=r"chunk must be a str, the next part of the text, got NoneType"):
        stream.partial_predict("s", None)
    assert stream._sessions == before
    grow(stream, clf, chunks=CHUNKS[3:])
    assert stream.text("s") == TEXT


def test_wrong_use_raises():
    with pytest.raises(TypeError, match="must be a GLiClassClassifier, got GLiClassRegressor"):
        StreamingClassifier(GLiClassRegressor())
    with pytest.raises(NotFittedError):
        StreamingClassifier(tiny())
    with pytest.raises(ValueError, match=r"architecture_type='bi-encoder' reads a text anew.*'decoder-kv'"):
        StreamingClassifier(tiny(max_epochs=0).fit(TEXTS, LABELS))
    clf = fitted()
    with pytest.raises(ValueError, match="long_texts='mean' reads a long text in windows"):
        StreamingClassifier(fitted(long_texts="mean"))
    with pytest.raises(ValueError, match="max_sessions must be an int of at least 1, got 0"):
        StreamingClassifier(clf, max_sessions=0)
    stream = StreamingClassifier(clf, max_sessions=1)
    stream.partial_predict("a", "a goal")
    with pytest.raises(ValueError, match=r"1 sessions already, and max_sessions=1; end some"):
        stream.partial_predict("b", "a goal")
    with pytest.raises(KeyError, match="no session 'b'"):
        stream.end("b")


def test_tables_are_not_texts():
    options = {"encoder_config": TINY_ENCODERS["qwen3"], "architecture_type": "decoder-kv"}
    clf = tiny(max_epochs=0, **options).fit([[text, "a"] for text in TEXTS], LABELS)
    with pytest.raises(ValueError, match="2"):
        StreamingClassifier(clf).partial_predict("s", "a goal")
