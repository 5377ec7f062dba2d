"""Export to ONNX: predictions equal those of the estimators, without torch, transformers and scikit-learn."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sampling import sampled
from sklearn.exceptions import NotFittedError
from tiny_estimators import LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, onnx_export
from sklearn_gliclass.exceptions import TruncationWarning
from sklearn_gliclass.onnx import OnnxClassifier, OnnxRegressor
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

NEW = ["a vote", "the late goal was late", "", "law " * 40, "a goal and a match " * 6, "a vote"]
NEW += ["the match", "caf\u00e9 \U0001f600 goal"]
THREE = ["sports", "politics", "sports", "politics", "food", "food", "sports", "politics"]
UNI, FUSED, DECODER = "uni-encoder", "bi-encoder-fused", "encoder-decoder"

# Architecture, encoder and hyperparameters.
CASES = [
    ("bi-encoder", "bert", {}),
    ("bi-encoder", "bert", {"scorer_type": "weighted-dot", "pooling_strategy": "max", "tie_encoders": False}),
    ("bi-encoder", "modernbert", {"scorer_type": "mlp", "pooling_strategy": "first", "squeeze_layers": True}),
    ("bi-encoder", "deberta-v2", {"scorer_type": "hopfield", "pooling_strategy": "last", "max_num_classes": 2}),
    ("bi-encoder", "t5", {"pooling_strategy": "rms", "encoder_layer_id": 1, "normalize_features": False}),
    ("bi-encoder", "bert", {"pooling_strategy": "abs_avg", "use_lstm": True, "projector_init": "normal"}),
    (UNI, "bert", {"pooling_strategy": "avg", "max_num_classes": 2}),
    (UNI, "bert", {"scorer_type": "cross-attn", "pooling_strategy": "pass", "scorer_num_heads": 2}),
    (UNI, "bert", {"prompt_first": True, "extract_text_features": True, "class_token_pooling": "average"}),
    (UNI, "bert", {"extract_text_features": True, "embed_class_token": False, "pooling_strategy": "sum"}),
    (UNI, "deberta-v2", {"class_token_pooling": "average", "embed_class_token": False, "scorer_type": "hopfield"}),
    (UNI, "modernbert", {"scorer_type": "weighted-dot", "pooling_strategy": "abs_max", "prompt_first": True}),
    (UNI, "t5", {"scorer_type": "mlp", "pooling_strategy": "last", "use_lstm": True}),
    (FUSED, "bert", {"scorer_type": "weighted-dot", "max_num_classes": 2}),
    (FUSED, "bert", {"pooling_strategy": "max", "prompt_first": True, "extract_text_features": True}),
    (FUSED, "modernbert", {"scorer_type": "hopfield", "encoder_layer_id": 1, "tie_encoders": False}),
    (FUSED, "deberta-v2", {"scorer_type": "mlp", "pooling_strategy": "rms", "squeeze_layers": True}),
    (DECODER, "bart", {}),
    (DECODER, "bart", {"scorer_type": "cross-attn", "pooling_strategy": "pass", "scorer_num_heads": 2}),
    (DECODER, "t5", {"scorer_type": "weighted-dot", "max_num_classes": 2, "class_token_pooling": "average"}),
    (DECODER, "t5", {"pooling_strategy": "first", "use_lstm": True, "embed_class_token": False}),
]


@pytest.fixture(autouse=True)
def onnxruntime():
    pytest.importorskip("onnx")
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def fitted():
    return tiny(long_texts="truncate").fit(TEXTS, THREE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fitted):
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("onnx") / "model"
    fitted.export_onnx(path)
    return path


def assert_equal_predictions(exported, estimator, texts=NEW):
    messages = []
    for method in ("predict_proba", "predict"):
        results = []
        for model in (estimator, exported):
            with pytest.warns(TruncationWarning) as record:
                results.append(getattr(model, method)(texts))
            assert record[0].filename == __file__
            messages.append(str(record[0].message))
        if method == "predict":
            assert np.array_equal(*results)
            assert results[0].dtype == results[1].dtype
        else:
            np.testing.assert_allclose(*results, atol=1e-5)
    assert len(set(messages)) == 1


@pytest.mark.parametrize(("architecture", "encoder", "options"), sampled(CASES, 8))
def test_predictions_are_equal(architecture, encoder, options, tmp_path):
    options = {"encoder_config": TINY_ENCODERS[encoder], "max_length": 32, "max_epochs": 2, **options}
    options["long_texts"] = "truncate"
    clf = tiny(architecture_type=architecture, **options).fit(TEXTS, THREE)
    assert clf.export_onnx(tmp_path / "model") <= 1e-5
    exported = OnnxClassifier(tmp_path / "model", n_threads=1)
    assert_equal_predictions(exported, clf)
    assert exported.classes_.tolist() == clf.classes_.tolist()
    assert exported.label_names_ == clf.label_names_
    assert exported.max_length_ == 32


@pytest.mark.parametrize(
    ("architecture", "threshold"),
    [("bi-encoder", {"food": 0.1, "sea": 0.9, "sky": 0.5}), (UNI, 0.4)],
    ids=["bi-encoder-for each class", "uni-encoder-one"],
)
def test_multi_label_thresholds_are_exported(architecture, threshold, tmp_path):
    y = pd.DataFrame(np.random.RandomState(0).randint(2, size=(8, 3)), columns=["food", "sea", "sky"])
    clf = tiny(architecture_type=architecture, threshold=threshold, max_length=32, long_texts="truncate").fit(TEXTS, y)
    clf.export_onnx(tmp_path / "model")
    exported = OnnxClassifier(tmp_path / "model")
    assert_equal_predictions(exported, clf)
    assert exported.threshold_.tolist() == (0.4 if threshold == 0.4 else [0.1, 0.9, 0.5])


@pytest.mark.parametrize(("architecture", "n_outputs"), [("bi-encoder", None), (UNI, 1), ("bi-encoder", 2)])
def test_regressors_are_equal(architecture, n_outputs, tmp_path):
    y = np.linspace(900, 1100, 8) if n_outputs is None else np.random.RandomState(0).normal(5, 20, (8, n_outputs))
    options = {**TINY, "architecture_type": architecture, "shrinkage": 0.5, "max_length": 32, "random_state": 0}
    options["long_texts"] = "truncate"
    reg = GLiClassRegressor(**options).fit(TEXTS, y)
    assert reg.export_onnx(tmp_path / "model") < 1e-5
    exported = OnnxRegressor(tmp_path / "model")
    with pytest.warns(TruncationWarning):
        expected, predicted = reg.predict(NEW), exported.predict(NEW)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)
    assert predicted.shape == expected.shape
    assert exported.target_names_ == reg.target_names_


@pytest.mark.parametrize(
    "classes", sampled([[True, False], [3, 1, 2], [1.0, 2.0], np.array(["2020-01-01", "2021-01-01"], "M8[D]")], 2)
)
def test_classes_keep_their_type(classes, tmp_path):
    y = np.array([classes[i % len(classes)] for i in range(8)])
    clf = tiny(max_epochs=1).fit(TEXTS, y)
    clf.export_onnx(tmp_path / "model")
    exported = OnnxClassifier(tmp_path / "model")
    assert exported.classes_.dtype == clf.classes_.dtype
    assert np.array_equal(exported.predict(TEXTS), clf.predict(TEXTS))


# -- new labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", sampled(["bi-encoder", FUSED, DECODER, UNI], 2))
def test_new_labels_have_the_logits_of_the_torch_model(architecture, tmp_path):
    clf = tiny_of(architecture, max_num_classes=2).fit(TEXTS, THREE)
    clf.export_onnx(tmp_path / "model")
    labels = ["a law", "late goals", "match", "sports"]
    exported = OnnxClassifier(tmp_path / "model").with_labels(labels)
    expected = clf.with_labels(labels).predict_proba(TEXTS)
    np.testing.assert_allclose(exported.predict_proba(TEXTS), expected, atol=1e-5)
    assert exported.classes_.tolist() == labels


def test_new_labels_do_not_change_the_classifier(folder, fitted):
    exported = OnnxClassifier(folder)
    other = exported.with_labels({1: "a law", 2: "late goals"})
    assert set(other.predict(TEXTS)) <= {1, 2}
    assert other.label_names_ == ["a law", "late goals"]
    np.testing.assert_allclose(exported.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-5)
    again = other.with_labels(fitted.classes_)
    np.testing.assert_allclose(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-5)


def test_chained_new_labels_take_no_memory(folder, fitted):
    exported = OnnxClassifier(folder)
    other = exported
    for number in range(4):
        other = other.with_labels([f"goal {number}", f"law {number}", f"match {number}"])
    assert other._model.exported_labels.keys() == exported._model.exported_labels.keys() == set(fitted.classes_)
    expected = fitted.with_labels(other.classes_).predict_proba(TEXTS)
    np.testing.assert_allclose(other.predict_proba(TEXTS), expected, atol=1e-5)


def test_known_labels_keep_their_thresholds(tmp_path):
    y = pd.DataFrame(np.eye(2, dtype=int)[[0, 1] * 4], columns=["food", "sea"])
    tiny(threshold=[0.2, 0.7]).fit(TEXTS, y).export_onnx(tmp_path / "model")
    other = OnnxClassifier(tmp_path / "model").with_labels(["sea", "sky"])
    assert other.threshold_.tolist() == [0.7, 0.5]


# -- environment -------------------------------------------------------------------------------------------------

WITHOUT_LIBRARIES = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "sklearn", "skorch", "scipy", "pandas", "joblib", "tqdm",
                                  "safetensors", "onnx", "matplotlib"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
from sklearn_gliclass.onnx import OnnxClassifier

clf = OnnxClassifier(sys.argv[1])
other = clf.with_labels(["a law", "a goal"])
sys.stdout.write(str(len(clf.predict(["a goal", "law " * 200])) + len(other.predict(["a goal"]))))
"""


def test_predicts_without_torch_and_scikit_learn(folder):
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIBRARIES, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3"
    assert "TruncationWarning" in done.stderr


def test_exported_model_works_in_threads_and_pickles(folder, fitted):
    exported = OnnxClassifier(folder)
    expected = exported.predict_proba(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(exported.predict_proba, [TEXTS] * 8):
            assert np.array_equal(result, expected)
    assert np.array_equal(pickle.loads(pickle.dumps(exported)).predict_proba(TEXTS), expected)


def test_result_does_not_depend_on_the_order_of_the_rows(tmp_path):
    texts = [" ".join(["a goal", "the vote", "late"][: 1 + i % 3] * (1 + i % 7)) + f" {i}" for i in range(40)]
    tiny(max_batch_tokens=64).fit(TEXTS, LABELS).export_onnx(tmp_path / "model")
    exported = OnnxClassifier(tmp_path / "model")
    order = np.random.RandomState(0).permutation(40)
    expected = exported.predict_proba(texts)
    assert np.array_equal(expected[order], exported.predict_proba([texts[row] for row in order]))
    repeated = pd.Series(texts + texts, index=range(80, 0, -1))
    assert np.array_equal(exported.predict_proba(repeated), np.concatenate([expected, expected]))


# -- folder ------------------------------------------------------------------------------------------------------


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.onnx")) + (folder / "weights.bin").stat().st_size


def test_quantised_model_is_smaller_and_similar(tmp_path):
    encoder = {**TINY["encoder_config"], "hidden_size": 128, "intermediate_size": 512}
    clf = tiny(encoder_config=encoder).fit(TEXTS, THREE)
    assert clf.export_onnx(tmp_path / "float") < 1e-5
    difference = clf.export_onnx(tmp_path / "int8", quantize=True)
    assert 1e-5 < difference < 0.5
    assert size(tmp_path / "int8") < 0.6 * size(tmp_path / "float")  # heads are not quantised
    exported = OnnxClassifier(tmp_path / "int8")
    np.testing.assert_allclose(exported.predict_proba(TEXTS), clf.predict_proba(TEXTS), atol=0.5)
    assert json.loads((tmp_path / "int8" / "onnx.json").read_text())["quantized"] is True


def test_tied_weights_are_stored_once(tmp_path):
    encoder, sizes = {**TINY["encoder_config"], "intermediate_size": 1024}, []
    for tied in (True, False):
        tiny(encoder_config=encoder, tie_encoders=tied, max_epochs=1).fit(TEXTS, THREE).export_onnx(
            tmp_path / str(tied)
        )
        sizes.append(size(tmp_path / str(tied)))
    assert sizes[0] < 0.7 * sizes[1]


def test_export_into_a_checkpoint_folder_keeps_the_checkpoint(tmp_path, fitted):
    fitted.save_pretrained(tmp_path / "model")
    fitted.export_onnx(tmp_path / "model")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "model")
    assert np.array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))
    assert np.array_equal(OnnxClassifier(tmp_path / "model").predict(TEXTS), fitted.predict(TEXTS))


def test_save_into_an_exported_folder_keeps_the_export(tmp_path, fitted):
    fitted.export_onnx(tmp_path / "model")
    fitted.save_pretrained(tmp_path / "model")
    assert np.array_equal(OnnxClassifier(tmp_path / "model").predict(TEXTS), fitted.predict(TEXTS))


def test_export_replaces_an_export_of_another_architecture(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, THREE).export_onnx(tmp_path / "model")
    (tmp_path / "model" / "notes.md").write_text("mine")
    uni = tiny_of(UNI, max_epochs=0).fit(TEXTS, LABELS)
    uni.export_onnx(tmp_path / "model")
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"model.onnx", "weights.bin", "onnx.json", "tokenizer.json", "notes.md"}
    np.testing.assert_allclose(
        OnnxClassifier(tmp_path / "model").predict_proba(TEXTS), uni.predict_proba(TEXTS), atol=1e-5
    )


def test_failed_check_leaves_nothing(tmp_path, fitted, monkeypatch):
    fitted.export_onnx(tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    for name in ("old", "new"):
        with pytest.raises(ValueError, match=r"differs from the estimator by .* Nothing was written"):
            fitted.export_onnx(tmp_path / name)
    assert os.listdir(tmp_path) == ["old"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


def test_export_does_not_change_the_estimator(tmp_path):
    clf = tiny(dtype="float64").fit(TEXTS, THREE)
    before = clf.predict_proba(TEXTS)
    clf.model_.train()
    clf.export_onnx(tmp_path / "model")
    assert clf.model_.training
    assert np.array_equal(clf.predict_proba(TEXTS), before)
    np.testing.assert_allclose(OnnxClassifier(tmp_path / "model").predict_proba(TEXTS), before, atol=1e-5)


def test_later_export_does_not_change_a_loaded_model(tmp_path, fitted, folder):
    shutil.copytree(folder, tmp_path / "model")
    exported, expected = OnnxClassifier(tmp_path / "model"), OnnxClassifier(folder).predict_proba(TEXTS)
    pickled = pickle.dumps(exported)
    tiny(random_state=1).fit(TEXTS, THREE).export_onnx(tmp_path / "model")
    assert np.array_equal(exported.predict_proba(TEXTS), expected)
    with pytest.raises(OSError, match=r"holds a later export.* needs labels.onnx now; load the model again"):
        exported.with_labels(["a law", "late goals"])
    with pytest.raises(OSError, match=r"holds a later export.* needs text.onnx now; load the model again"):
        pickle.loads(pickled).predict(TEXTS)
    # The same model again: its graphs are the same.
    fitted.export_onnx(tmp_path / "model")
    assert np.array_equal(pickle.loads(pickled).predict_proba(TEXTS), expected)
    assert exported.with_labels(["a law", "late goals"]).predict(TEXTS).shape == (len(TEXTS),)


def test_export_of_an_earlier_version_loads(tmp_path, folder, fitted):
    shutil.copytree(folder, tmp_path / "model")
    record = json.loads((tmp_path / "model" / "onnx.json").read_text())
    assert len(record.pop("graphs_sha256")) == 64
    (tmp_path / "model" / "onnx.json").write_text(json.dumps(record))
    exported = OnnxClassifier(tmp_path / "model")
    pickled = pickle.loads(pickle.dumps(exported))
    assert np.array_equal(pickled.predict(TEXTS), fitted.predict(TEXTS))
    assert exported.with_labels(["a law", "late goals"]).predict(TEXTS).shape == (len(TEXTS),)
    fitted.export_onnx(tmp_path / "model")
    with pytest.raises(OSError, match="holds a later export"):
        pickle.loads(pickle.dumps(exported)).predict(TEXTS)


# -- errors ------------------------------------------------------------------------------------------------------


def table():
    return pd.DataFrame({"title": TEXTS, "size": range(8)})


def fitted_on(X=TEXTS, **options):
    return lambda: tiny(max_epochs=0, **options).fit(X, LABELS)


def export(folder="m", **options):
    return lambda clf: clf.export_onnx(folder, **options)


EXPORT_ERRORS = {
    "not fitted": (tiny, export(), NotFittedError, "not fitted"),
    "no name": (fitted_on(), export(None), TypeError, r"name of a folder.*None"),
    "quantize": (fitted_on(), export(quantize="int8"), TypeError, r"True or False.*'int8'"),
    "table": (fitted_on(table()), export(), ValueError, r"table of 2 columns.*convert the rows"),
    "template": (
        fitted_on(table()[["title"]], text_template="{title}"),
        export(),
        ValueError,
        r"text_template.*1-D texts only",
    ),
}


@pytest.mark.parametrize(("build", "call", "error", "message"), EXPORT_ERRORS.values(), ids=EXPORT_ERRORS)
def test_model_that_cannot_be_exported_raises(build, call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call(build())
    assert os.listdir(tmp_path) == []


def test_missing_packages_name_the_extra(folder, fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (lambda: fitted.export_onnx(tmp_path / "model"), lambda: OnnxClassifier(folder)):
        with pytest.raises(ImportError, match=r'onnxruntime.*pip install "sklearn-gliclass\[onnx\]"'):
            call()
    assert os.listdir(tmp_path) == []


PREDICT_ERRORS = {
    "string": ("a goal", ValueError, r"single str; put it in a list"),
    "2-D": (np.array([["a goal", "a vote"]]), ValueError, r"1-D texts, got ndarray of shape \(1, 2\).*Pass the column"),
    "frame": (
        pd.DataFrame({"text": TEXTS}),
        ValueError,
        r"1-D texts, got DataFrame of shape \(8, 1\).*Pass the column",
    ),
    "rows": ([["a goal", "a vote"]], ValueError, "1-D texts, got list"),
    "number": (5, ValueError, "1-D texts, got int"),
    "missing": (["a", None, float("nan")], ValueError, r"2 missing text\(s\).*row\(s\) 1, 2"),
    "pandas NA": (pd.Series(["a", None], dtype="string"), ValueError, r"1 missing text\(s\).*row\(s\) 1"),
    "numbers": (["a", 5], TypeError, "got int at row 1"),
    "empty": ([], ValueError, r"0 sample\(s\)"),
    "surrogate": (["a", "\ud800"], ValueError, "X has a lone surrogate .* at row 1"),
}


@pytest.mark.parametrize(("X", "error", "message"), PREDICT_ERRORS.values(), ids=PREDICT_ERRORS)
def test_predict_with_invalid_texts_raises(X, error, message, folder):
    with pytest.raises(error, match=message):
        OnnxClassifier(folder).predict(X)


def break_file(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def change_settings(**changes):
    def change(folder):
        record = json.loads((folder / "onnx.json").read_text())
        (folder / "onnx.json").write_text(json.dumps({**record, **changes}))

    return change


LOAD_ERRORS = {
    "no folder": (lambda folder: folder.rename(folder.with_name("b")), FileNotFoundError, "does not exist; give the"),
    "no export": (lambda folder: (folder / "onnx.json").unlink(), FileNotFoundError, "has no onnx.json; give the"),
    "no scorer": (
        lambda folder: (folder / "scorer.onnx").unlink(),
        FileNotFoundError,
        "scorer.onnx' is missing; export",
    ),
    "no graph": (lambda folder: (folder / "text.onnx").unlink(), FileNotFoundError, "text.onnx' is missing; export"),
    "not JSON": (break_file("onnx.json", b"{"), ValueError, r"damaged.*export the estimator again"),
    "graph": (break_file("text.onnx", b"abc"), ValueError, r"text.onnx' is damaged.*export the estimator again"),
    "weights": (break_file("weights.bin", b"abc"), ValueError, "text.onnx' is damaged"),
    "tokenizer": (break_file("tokenizer.json", b"abc"), ValueError, r"tokenizer.json' cannot be read.*export"),
    "format": (change_settings(format=99), ValueError, r"has format 99, and this version .* reads format 1"),
    "unknown name": (change_settings(other=1), ValueError, r"damaged.*other"),
    "wrong type": (change_settings(max_length="9"), ValueError, "max_length must be of type int, got '9'"),
    "architecture": (change_settings(architecture_type="tri-encoder"), ValueError, r"one of.*'tri-encoder'"),
    "no classes": (change_settings(fitted={}), ValueError, r"has no \['classes', .*export the estimator again"),
    "regressor": (change_settings(estimator="regressor"), ValueError, "holds a regressor; load it with OnnxRegressor"),
}


@pytest.mark.parametrize(("damage", "error", "message"), LOAD_ERRORS.values(), ids=LOAD_ERRORS)
def test_damaged_folder_raises(damage, error, message, tmp_path, folder):
    for path in folder.iterdir():
        os.makedirs(tmp_path / "model", exist_ok=True)
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    damage(tmp_path / "model")
    with pytest.raises(error, match=message):
        OnnxClassifier(tmp_path / "model")


def relabel(labels):
    return lambda folder: OnnxClassifier(folder).with_labels(labels)


OPTION_ERRORS = {
    "folder": (lambda folder: OnnxClassifier(None), TypeError, r"name of a folder.*None"),
    "threads": (lambda folder: OnnxClassifier(folder, 0), ValueError, r"n_threads.*at least 1, or None, got 0"),
    "one label": (relabel(["a"]), ValueError, r"at least 2 different.*\['a'\]"),
    "twice": (relabel(["a", "a"]), ValueError, "at least 2 different"),
    "string": (relabel("food"), TypeError, r"list of labels.*'food'"),
    "empty": (relabel(["a", " "]), ValueError, "at least one word, got ' '"),
    "same tokens": (relabel(["Law", "law"]), ValueError, "the same tokens"),
}


@pytest.mark.parametrize(("call", "error", "message"), OPTION_ERRORS.values(), ids=OPTION_ERRORS)
def test_invalid_options_raise(call, error, message, folder):
    with pytest.raises(error, match=message):
        call(folder)


# -- several targets ---------------------------------------------------------------------------------------------

OUTPUTS = pd.DataFrame({"topic": LABELS, "stars": [1, 2, 5, None] * 2})


@pytest.mark.parametrize(("architecture", "options"), [("bi-encoder", {"calibrate": "cv"}), (UNI, {})])
def test_several_targets_are_predicted_alike(architecture, options, tmp_path):
    clf = tiny(architecture_type=architecture, **options).fit(TEXTS, OUTPUTS)
    assert clf.export_onnx(tmp_path / "model") < 1e-4
    exported = OnnxClassifier(tmp_path / "model")
    for ours, other in zip(clf.predict_proba(TEXTS), exported.predict_proba(TEXTS), strict=True):
        np.testing.assert_allclose(other, ours, atol=1e-4)
    assert exported.predict(TEXTS).tolist() == clf.predict(TEXTS).tolist()
    assert exported.target_names_ == ["topic", "stars"]
    for method, argument in (("with_labels", ["a", "b"]), ("known_proba", TEXTS)):
        with pytest.raises(ValueError, match=f"{method} needs one target"):
            getattr(exported, method)(argument)
