"""Checkpoint folders and pickles: restored estimators predict the same."""

import copy
import importlib.metadata
import itertools
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from lora_linear import LoraLinear
from safetensors.torch import load_file
from sampling import sampled
from tiny_estimators import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass import SKOPS_TRUSTED_TYPES, GLiClassClassifier, GLiClassModel, GLiClassRegressor, __version__
from sklearn_gliclass.persistence import pack_fitted, unpack_fitted
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

CASES = [
    *((architecture, encoder) for architecture in ARCHITECTURES for encoder in ("bert", "modernbert")),
    ("uni-encoder", "deberta-v2"),
    ("uni-encoder", "t5"),
    ("encoder-decoder", "t5"),
    ("encoder-decoder", "bart"),
    ("encoder-decoder-cls", "bart"),
    ("decoder-kv", "qwen3"),
]
FAMILIES = {"encoder-decoder": ("t5", "bart"), "encoder-decoder-cls": ("t5", "bart"), "decoder-kv": ("qwen3",)}
CASES = [case for case in CASES if case[0] not in FAMILIES or case[1] in FAMILIES[case[0]]]


def by_folder(estimator, folder):
    estimator.save_pretrained(folder / "model")
    return type(estimator).from_pretrained(folder / "model")


def by_pickle(estimator, folder):
    return pickle.loads(pickle.dumps(estimator))


def by_joblib(estimator, folder):
    joblib.dump(estimator, folder / "model.joblib")
    return joblib.load(folder / "model.joblib", mmap_mode="r")


def by_copy(estimator, folder):
    return copy.deepcopy(estimator)


@pytest.mark.parametrize(
    ("architecture", "encoder", "way"),
    sampled([(*case, way) for case in CASES for way in (by_folder, by_pickle, by_joblib, by_copy)], 17),
)
def test_restored_estimators_predict_the_same(architecture, encoder, way, tmp_path):
    """The reference loses tied weights and the tokenizer of the label encoder."""
    encoder_config = TINY_ENCODERS[encoder]
    clf = tiny(architecture_type=architecture, encoder_config=encoder_config, max_epochs=1).fit(TEXTS, LABELS)
    back = way(clf, tmp_path)
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    np.testing.assert_array_equal(back.predict(TEXTS), clf.predict(TEXTS))
    assert back.classes_.dtype == clf.classes_.dtype
    assert back.label_names_ == clf.label_names_


@pytest.mark.parametrize("way", [by_folder, by_pickle])
def test_regressor_comes_back(way, tmp_path):
    reg = GLiClassRegressor(**TINY, random_state=0).fit(TEXTS, np.c_[range(8), range(8, 16)])
    np.testing.assert_allclose(way(reg, tmp_path).predict(TEXTS), reg.predict(TEXTS), rtol=1e-12)


def test_column_names_are_restored(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"text": TEXTS, "number": range(8)})
    back = by_folder(tiny().fit(table, LABELS), tmp_path)
    assert back.feature_names_in_.tolist() == ["text", "number"]
    with pytest.raises(ValueError, match="feature names"):
        back.predict(table.rename(columns={"number": "other"}))


def test_folder_holds_what_it_should_and_no_pickle(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "label_tokenizer"} <= names
    assert {"estimator.json", "README.md"} <= names
    assert not any(name.endswith((".bin", ".pkl", ".pt", ".joblib")) for name in names)
    record = json.loads((tmp_path / "estimator.json").read_text())
    assert record["estimator"] == "GLiClassClassifier"
    assert record["versions"]["torch"] == importlib.metadata.version("torch")  # without "+cpu"
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "GLiClass"


def test_hyperparameters_are_restored_and_may_be_overridden(tmp_path):
    clf = tiny(batch_size=3, label_names={"sports": "ball games", "politics": "power"}).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    back = GLiClassClassifier.from_pretrained(tmp_path, lr=0.1)
    assert (back.batch_size, back.lr, back.pretrained) == (3, 0.1, str(tmp_path))
    assert back.label_names == clf.label_names


def test_values_without_json_form_are_in_the_warning(tmp_path):
    clf = tiny(random_state=np.random.RandomState(0)).fit(TEXTS, LABELS)
    with pytest.warns(UserWarning, match=r"\['random_state'\] cannot be stored as JSON"):
        clf.save_pretrained(tmp_path)
    assert GLiClassClassifier.from_pretrained(tmp_path).random_state is None


def test_fit_starts_from_the_pretrained_weights(tmp_path):
    clf = tiny(max_epochs=5).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    start = GLiClassClassifier(pretrained=str(tmp_path), max_epochs=0).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(start.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    more = GLiClassClassifier(pretrained=str(tmp_path), max_epochs=1, random_state=0).fit(TEXTS, LABELS)
    assert not np.allclose(more.decision_function(TEXTS), clf.decision_function(TEXTS))


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"scorer_type": "mlp"}, "scorer_type='mlp' does not match the weights"),
        ({"architecture_type": "uni-encoder"}, "architecture_type='uni-encoder' does not match"),
        ({"use_lstm": True}, "use_lstm=True does not match"),
        ({"encoder_model": "other"}, "encoder_model='other' does not match"),
        ({"projector_init": "normal"}, "projector_init='normal' does not match"),
        ({"encoder_layer_id": 77}, "encoder_layer_id=77 is not a layer of this encoder"),
        ({"layer_wise": True, "encoder_layer_id": 0}, "exclude each other"),
    ],
)
def test_hyperparameters_that_contradict_the_weights_raise(tmp_path, hyperparameters, message):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier(pretrained=str(tmp_path), **hyperparameters).fit(TEXTS, LABELS)


def test_fitted_checkpoint_keeps_its_problem_type(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"problem_type='multi_label_classification' does not match.*call fit"):
        GLiClassClassifier.from_pretrained(tmp_path, problem_type="multi_label_classification")


def test_hyperparameters_override_the_checkpoint(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path)
    clf = GLiClassClassifier(pretrained=str(tmp_path), dropout=0.3, max_length=20, max_epochs=0).fit(TEXTS, LABELS)
    assert (clf.config_.dropout, clf.max_length_) == (0.3, 20)


def test_checkpoint_predicts_zero_shot(tmp_path):
    clf = tiny(max_epochs=5).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    zero = GLiClassClassifier(pretrained=str(tmp_path)).fit(None, ["sports", "politics"])
    np.testing.assert_array_equal(zero.classes_, ["sports", "politics"])  # the order given
    np.testing.assert_array_equal(zero.predict_proba(TEXTS)[:, ::-1], clf.predict_proba(TEXTS))
    new = GLiClassClassifier.from_pretrained(tmp_path).fit(None, ["goal", "law", "vote"])
    assert new.predict_proba(TEXTS).shape == (8, 3)
    multi = GLiClassClassifier(pretrained=str(tmp_path), problem_type="multi_label_classification")
    assert multi.fit(None, ["goal", "law"]).predict(TEXTS).shape == (8, 2)


@pytest.mark.parametrize("labels", ["sports", ["sports"], ["a", "a"], [["a", "b"]]])
def test_zero_shot_without_a_list_of_labels_raises(labels):
    with pytest.raises(ValueError, match="takes a list of at least 2 classes"):
        GLiClassClassifier().fit(None, labels)


def test_zero_shot_with_random_weights_raises():
    with pytest.raises(ValueError, match="heads have random weights"):
        tiny().fit(None, ["sports", "politics"])


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    clf = tiny().fit(TEXTS, LABELS)
    clf.model_.encoder.save_pretrained(folder)
    clf.tokenizer_.save_pretrained(folder)
    return str(folder)


def test_zero_shot_works_with_scorers_initialised_as_dot_product(encoder_folder):
    options = {"encoder_config": None, "encoder_model": encoder_folder}
    simple, weighted = (
        tiny(**options, scorer_type=scorer).fit(None, ["goal", "law", "vote"]) for scorer in ("simple", "weighted-dot")
    )
    np.testing.assert_allclose(weighted.decision_function(TEXTS), simple.decision_function(TEXTS), atol=1e-4)


@pytest.mark.parametrize(
    "random_part",
    [
        {"scorer_type": "mlp"},
        {"use_lstm": True},
        {"squeeze_layers": True},
        {"label_model_config": TINY["encoder_config"]},
        {"projector_init": "normal"},
        {"architecture_type": "uni-encoder"},
    ],
    ids=str,
)
def test_zero_shot_with_random_heads_raises(encoder_folder, random_part):
    clf = tiny(encoder_config=None, encoder_model=encoder_folder, **random_part)
    with pytest.raises(ValueError, match=r"heads have random weights.*scorer_type from \['simple', 'weighted-dot'\]"):
        clf.fit(None, ["goal", "law", "vote"])


def test_wrong_estimator_is_named(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"GLiClassClassifier\.from_pretrained"):
        GLiClassRegressor.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="Ways to get it"):
        GLiClassClassifier.from_pretrained(tmp_path / "nowhere")


def test_pickle_holds_the_weights_once():
    clf = tiny_of("encoder-decoder").fit(TEXTS, LABELS)
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in clf.model_.state_dict().values()}
    tokenizer = len(clf.tokenizer_.backend_tokenizer.to_str())
    assert len(pickle.dumps(clf)) < 1.2 * sum(weights.values()) + 2 * tokenizer + 50_000


def test_training_continues_after_pickling():
    clf = tiny().fit(TEXTS, LABELS)
    back = pickle.loads(pickle.dumps(clf))
    assert back.history_[:, "train_loss"] == clf.history_[:, "train_loss"]
    assert back.partial_fit(TEXTS, LABELS).n_iter_ == clf.n_iter_ + 1


def check_threads(work, expected):
    """Run the work in threads concurrently, and check results and the state of the process."""
    functions = {name: getattr(torch.nn.init, name) for name in dir(torch.nn.init) if name.endswith("_")}
    generator, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    with ThreadPoolExecutor(4) as pool:
        estimators = list(pool.map(lambda _: work(), range(12)))
    assert {name: getattr(torch.nn.init, name) for name in functions} == functions
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert torch.get_default_dtype() == dtype
    for clf in estimators:
        np.testing.assert_array_equal(clf.predict_proba(TEXTS), expected)


@pytest.mark.parametrize("architecture", ["bi-encoder", "encoder-decoder"])
def test_threads_unpickle_copy_and_load_concurrently(architecture, tmp_path):
    """transformers replaces functions of torch while it builds a model."""
    clf = tiny_of(architecture, max_epochs=1).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path / "model")
    stored = pickle.dumps(clf)
    ways = itertools.cycle(
        [
            lambda: pickle.loads(stored),
            lambda: copy.deepcopy(clf),
            lambda: pickle.loads(pickle.dumps(clf)),
            lambda: GLiClassClassifier.from_pretrained(tmp_path / "model", device="cpu"),
        ]
    )
    check_threads(lambda: next(ways)(), clf.predict_proba(TEXTS))


def test_failed_load_leaves_the_process_as_it_was():
    clf = tiny().fit(TEXTS, LABELS)
    state = pack_fitted(clf.fitted_)
    del state["model"]["weights"]["model.logit_scale"]

    def fail():
        with pytest.raises(ValueError, match=r"The stored estimator .*1 missing \(model\.logit_scale\)"):
            unpack_fitted(state, "cpu")
        return clf

    check_threads(fail, clf.predict_proba(TEXTS))


def plain(value) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return type(value) in (str, int, float, bool, type(None)) or (
        type(value) is np.ndarray and value.dtype.kind in "fi"
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_form_is_plain(architecture):
    clf = tiny_of(architecture, max_epochs=0).fit(TEXTS, LABELS)
    state = pack_fitted(clf.fitted_)
    assert plain(state)
    assert state["label_tokenizer"] in (None, "shared")
    back = unpack_fitted(state, "cpu")
    assert back.label_tokenizer in (None, back.tokenizer)
    assert (back.label_names, back.max_length) == (clf.label_names_, clf.max_length_)


def test_separate_tokenizers_are_restored_separately():
    clf = tiny().fit(TEXTS, LABELS)
    clf.fitted_.label_tokenizer = copy.deepcopy(clf.tokenizer_)
    back = pickle.loads(pickle.dumps(clf))
    assert back.label_tokenizer_ is not back.tokenizer_
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "evil.py", "a/b.json"])
def test_packed_tokenizer_cannot_write_elsewhere(name):
    state = pack_fitted(tiny().fit(TEXTS, LABELS).fitted_)
    state["tokenizer"][name] = "{}"
    with pytest.raises(ValueError, match="is not the name of a tokenizer file"):
        unpack_fitted(state, "cpu")


def test_shallow_copy_has_weights_of_its_own():
    clf = tiny().fit(TEXTS, LABELS)
    before, back = clf.predict_proba(TEXTS), copy.copy(clf)
    back.partial_fit(TEXTS, LABELS[::-1])
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_pickle_keeps_the_dtype_of_weights(dtype):
    clf = tiny().fit(TEXTS, LABELS)
    clf.model_.to(dtype)
    clf.model_.model.logit_scale.data = clf.model_.model.logit_scale.data.float()  # one of another type
    back = pickle.loads(pickle.dumps(clf))
    for name, tensor in clf.model_.state_dict().items():
        assert torch.equal(back.model_.state_dict()[name], tensor), name
        assert back.model_.state_dict()[name].dtype == tensor.dtype, name


@pytest.mark.parametrize("way", [by_pickle, by_copy])
def test_unavailable_device_is_replaced_by_the_cpu(way, tmp_path):
    clf = tiny().fit(TEXTS, LABELS).set_params(device="cuda:99")
    with pytest.warns(UserWarning, match=r"device='cuda:99' is not available .*The model is on the CPU"):
        back = way(clf, tmp_path)
    assert back.model_.device.type == "cpu"
    assert back.device == "cuda:99"
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))


def test_skops_stores_basic_types(tmp_path):
    skops = pytest.importorskip("skops.io")
    clf = tiny().fit(TEXTS, LABELS)
    skops.dump(clf, tmp_path / "model.skops")
    untrusted = skops.get_untrusted_types(file=tmp_path / "model.skops")
    assert set(untrusted) <= set(SKOPS_TRUSTED_TYPES)
    back = skops.load(tmp_path / "model.skops", trusted=SKOPS_TRUSTED_TYPES)
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))


# -- modules that were changed from outside ------------------------------------------------------------------


def test_adapter_must_be_merged_before_it_is_stored(tmp_path):
    clf = tiny().fit(TEXTS, LABELS)
    attention = clf.model_.encoder.encoder.layer[0].attention.self
    attention.query = LoraLinear(attention.query)
    with pytest.raises(ValueError, match="merge_and_unload"):
        clf.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="merge_and_unload"):
        pickle.dumps(clf)
    with pytest.raises(ValueError, match="merge_and_unload"):
        copy.deepcopy(clf)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", [by_folder, by_pickle, by_copy])
@pytest.mark.parametrize("part", ["model", "encoder", "in place"])
def test_compiled_models_are_stored_under_their_own_names(part, way, tmp_path):
    clf = tiny(tie_encoders=False, max_epochs=0).fit(TEXTS, LABELS)
    expected = clf.predict_proba(TEXTS)
    if part == "model":
        clf.model_ = torch.compile(clf.model_)
    elif part == "encoder":
        clf.model_.model.encoder_model = torch.compile(clf.model_.model.encoder_model)
    else:
        clf.model_.compile()
    np.testing.assert_array_equal(way(clf, tmp_path).predict_proba(TEXTS), expected)


# -- invalid and damaged checkpoints -----------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2", "llama"])
def test_encoder_is_not_a_checkpoint(encoder_folder, tmp_path, model_type, monkeypatch):
    folder = shutil.copytree(encoder_folder, tmp_path / "encoder")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    monkeypatch.setattr(GLiClassModel, "__init__", None)  # no model is built
    message = rf"This is an encoder \(model_type='{model_type}'\).*GLiClassClassifier\(encoder_model=\.\.\.\)"
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier.from_pretrained(folder)
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier(pretrained=str(folder)).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match=message):
        GLiClassModel.from_pretrained(folder)


def test_checkpoint_is_not_an_encoder(tmp_path):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="is a GLiClass checkpoint, not an encoder: use it as pretrained="):
        tiny(encoder_config=None, encoder_model=str(tmp_path / "model")).fit(TEXTS, LABELS)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_truncated_file_is_named(tmp_path, name, fraction):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(OSError, match=rf"{tmp_path.name}.*(damaged|cannot be read)"):
        GLiClassClassifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file_raises(tmp_path, name):
    tiny(max_epochs=0).fit(TEXTS, LABELS).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(OSError, match=r"holds no (config\.json|weights|tokenizer)"):
        GLiClassClassifier.from_pretrained(tmp_path / "model")


def test_empty_model_names_raise(tmp_path, monkeypatch):
    clf = tiny_of("bi-encoder", max_epochs=0).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "label_tokenizer")  # as gliclass saves, with the name of the label encoder
    assert not clf.config_.label_model_name
    clf.save_pretrained(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OSError, match=r"model' has no tokenizer of its labels: neither .* Save or download it again"):
        GLiClassClassifier.from_pretrained(tmp_path / "model")
    with pytest.raises(OSError, match="The name of a model is empty"):
        GLiClassClassifier.from_pretrained("")


def test_unfitted_estimators_pickle():
    assert pickle.loads(pickle.dumps(tiny())).get_params() == tiny().get_params()


def changed(state: dict, **version) -> dict:
    return {**state, "_sklearn_gliclass": {**state["_sklearn_gliclass"], **version}}


def test_pickles_carry_a_version():
    clf = tiny(max_epochs=0).fit(TEXTS, LABELS)
    state = clf.__getstate__()
    assert state["_sklearn_gliclass"] == {"version": __version__, "format": 1}
    assert "_sklearn_gliclass" not in vars(pickle.loads(pickle.dumps(clf)))


def test_newer_format_says_what_to_do():
    state = tiny(max_epochs=0).fit(TEXTS, LABELS).__getstate__()
    with pytest.raises(ValueError, match=r"stored by sklearn_gliclass 9\.1 in format 2.*sklearn-gliclass==9\.1"):
        GLiClassClassifier().__setstate__(changed(state, version="9.1", format=2))


def test_state_that_does_not_fit_says_what_to_do():
    state = tiny(max_epochs=0).fit(TEXTS, LABELS).__getstate__()
    del state["fitted_"]["max_length"]
    with pytest.raises(ValueError, match=r"stored by sklearn_gliclass 0\.0\.9.*\(KeyError: 'max_length'\)"):
        GLiClassClassifier().__setstate__(changed(state, version="0.0.9"))
    with pytest.raises(KeyError):
        GLiClassClassifier().__setstate__(state)


def test_state_without_version_and_newer_hyperparameters_loads():
    clf = tiny(max_epochs=0).fit(TEXTS, LABELS)
    state = clf.__getstate__()
    del state["_sklearn_gliclass"], state["max_batch_tokens"]
    back = GLiClassClassifier.__new__(GLiClassClassifier)
    back.__setstate__(state)
    assert back.max_batch_tokens == 2048
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))


@pytest.mark.full
def test_checkpoint_loads_without_network_and_encoder(tmp_path):
    """The reference needs the original label encoder to load a checkpoint."""
    clf = tiny().fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path / "model")
    code = (
        "import sys\n"
        "from sklearn_gliclass import GLiClassClassifier\n"
        "clf = GLiClassClassifier.from_pretrained(sys.argv[1])\n"
        "sys.stdout.write(repr(clf.predict_proba(['a goal'])[0].tolist()))\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, env=environment, check=True
    )
    np.testing.assert_allclose(json.loads(run.stdout), clf.predict_proba(["a goal"])[0], atol=1e-6)


def test_models_own_loading_reads_the_folder(tmp_path):
    clf = tiny().fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    model = GLiClassModel.from_pretrained(tmp_path)
    for name, tensor in clf.model_.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


def test_tied_encoders_are_shared_in_memory_and_saved_under_both_names(tmp_path):
    clf = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, LABELS)
    assert clf.model_.model.label_encoder is clf.model_.model.encoder_model
    clf.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    of_labels = {name for name in stored if name.startswith("model.label_encoder.")}
    assert len(of_labels) > 10
    for name in of_labels:
        assert torch.equal(stored[name], stored[name.replace("label_encoder", "encoder_model")])
    again = GLiClassClassifier.from_pretrained(tmp_path)
    assert again.model_.model.label_encoder is again.model_.model.encoder_model
    assert not any("label_encoder" in name for name in pack_fitted(again.fitted_)["model"]["weights"])


def test_tied_encoders_are_saved_once_without_gliclass(tmp_path):
    gliclass = pytest.importorskip("gliclass")
    clf = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, LABELS)
    for name, for_gliclass in (("twice", True), ("once", False)):
        clf.save_pretrained(tmp_path / name, for_gliclass=for_gliclass)
    stored = load_file(tmp_path / "once" / "model.safetensors")
    assert set(stored) == set(pack_fitted(clf.fitted_)["model"]["weights"])
    again = GLiClassClassifier.from_pretrained(tmp_path / "once")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    weights = GLiClassModel.from_pretrained(tmp_path / "once").state_dict()
    # gliclass reads the other folder, with equal weights, and raises here, where it has no label encoder.
    reference = gliclass.GLiClassModel.from_pretrained(tmp_path / "twice")
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    with pytest.raises(ValueError, match="label model name"):
        gliclass.GLiClassModel.from_pretrained(tmp_path / "once")
    # ... and we read what gliclass saves; a folder of one kind becomes one of the other.
    reference.save_pretrained(tmp_path / "once")
    again.save_pretrained(tmp_path / "twice")
    for model_class, name in ((GLiClassModel, "once"), (gliclass.GLiClassModel, "twice")):
        for key, tensor in model_class.from_pretrained(tmp_path / name).state_dict().items():
            assert torch.equal(tensor, weights[key]), key


def test_encoders_that_gliclass_has_trained_are_no_longer_tied(tmp_path):
    gliclass = pytest.importorskip("gliclass")
    clf = GLiClassClassifier(**TINY, random_state=0).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    reference = gliclass.GLiClassModel.from_pretrained(tmp_path)
    with torch.no_grad():
        reference.model.label_encoder.embeddings.word_embeddings.weight.add_(1)
    reference.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='set "tie_encoders" to false'):
        GLiClassClassifier.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_encoders": False}))
    encoders = GLiClassClassifier.from_pretrained(tmp_path).model_.model
    assert torch.equal(
        encoders.label_encoder.embeddings.word_embeddings.weight,
        encoders.encoder_model.embeddings.word_embeddings.weight + 1,
    )


def test_tied_encoders_exclude_another_label_encoder():
    options = {**TINY, "label_model_config": TINY["encoder_config"]}
    with pytest.raises(ValueError, match="tie_encoders=True encodes the labels with the text encoder"):
        GLiClassClassifier(**options, tie_encoders=True).fit(TEXTS, LABELS)
    clf = GLiClassClassifier(**options, random_state=0).fit(TEXTS, LABELS)
    assert clf.model_.model.label_encoder is not clf.model_.model.encoder_model
