"""Checkpoint folders and pickles: what comes back predicts the same."""

import copy
import json
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_classifier import ARCHITECTURES, LABELS, TEXTS, tiny, tiny_of

from sklearn_gliclass import GLiClassClassifier, GLiClassModel, GLiClassRegressor
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

CASES = [
    *((architecture, encoder) for architecture in ARCHITECTURES for encoder in ("bert", "modernbert")),
    ("uni-encoder", "deberta-v2"),
    ("uni-encoder", "t5"),
    ("encoder-decoder", "t5"),
    ("encoder-decoder", "bart"),
]
CASES = [case for case in CASES if case[0] != "encoder-decoder" or case[1] in ("t5", "bart")]


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


@pytest.mark.parametrize("way", [by_folder, by_pickle, by_joblib, by_copy])
@pytest.mark.parametrize(("architecture", "encoder"), CASES)
def test_what_comes_back_predicts_the_same(architecture, encoder, way, tmp_path):
    """Defects 9 (tied weights) and 10 (the label encoder's tokenizer)."""
    clf = tiny(architecture_type=architecture, encoder_config=TINY_ENCODERS[encoder]).fit(TEXTS, LABELS)
    back = way(clf, tmp_path)
    np.testing.assert_array_equal(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    np.testing.assert_array_equal(back.predict(TEXTS), clf.predict(TEXTS))
    assert back.classes_.dtype == clf.classes_.dtype
    assert back.label_names_ == clf.label_names_


@pytest.mark.parametrize("way", [by_folder, by_pickle])
def test_a_regressor_comes_back(way, tmp_path):
    reg = GLiClassRegressor(**TINY, random_state=0).fit(TEXTS, np.c_[range(8), range(8, 16)])
    np.testing.assert_allclose(way(reg, tmp_path).predict(TEXTS), reg.predict(TEXTS), rtol=1e-12)


def test_tables_come_back_with_their_columns(tmp_path):
    import pandas as pd

    table = pd.DataFrame({"text": TEXTS, "number": range(8)})
    back = by_folder(tiny().fit(table, LABELS), tmp_path)
    assert back.feature_names_in_.tolist() == ["text", "number"]
    with pytest.raises(ValueError, match="feature names"):
        back.predict(table.rename(columns={"number": "other"}))


def test_the_folder_holds_what_it_should_and_no_pickle(tmp_path):
    tiny().fit(TEXTS, LABELS).save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "label_tokenizer", "estimator.json"} <= names
    assert not any(name.endswith((".bin", ".pkl", ".pt", ".joblib")) for name in names)
    record = json.loads((tmp_path / "estimator.json").read_text())
    assert record["estimator"] == "GLiClassClassifier"
    assert record["versions"]["torch"] == torch.__version__
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "GLiClass"


def test_hyperparameters_come_back_and_new_ones_win(tmp_path):
    clf = tiny(batch_size=3, label_names={"sports": "ball games", "politics": "power"}).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    back = GLiClassClassifier.from_pretrained(tmp_path, lr=0.1)
    assert (back.batch_size, back.lr, back.pretrained) == (3, 0.1, str(tmp_path))
    assert back.label_names == clf.label_names


def test_what_is_no_plain_value_is_named(tmp_path):
    clf = tiny(random_state=np.random.RandomState(0)).fit(TEXTS, LABELS)
    with pytest.warns(UserWarning, match=r"\['random_state'\] are no plain values"):
        clf.save_pretrained(tmp_path)
    assert GLiClassClassifier.from_pretrained(tmp_path).random_state is None


def test_fit_starts_from_the_pretrained_weights(tmp_path):
    clf = tiny(max_epochs=20).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    start = GLiClassClassifier(pretrained=str(tmp_path), max_epochs=0).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(start.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    more = GLiClassClassifier(pretrained=str(tmp_path), max_epochs=1, random_state=0).fit(TEXTS, LABELS)
    assert not np.allclose(more.decision_function(TEXTS), clf.decision_function(TEXTS))


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"scorer_type": "mlp"}, "scorer_type='mlp' does not fit the weights"),
        ({"architecture_type": "uni-encoder"}, "architecture_type='uni-encoder' does not fit"),
        ({"use_lstm": True}, "use_lstm=True does not fit"),
        ({"encoder_model": "other"}, "encoder_model='other' does not fit"),
        ({"projector_init": "normal"}, "projector_init='normal' does not fit"),
    ],
)
def test_what_does_not_fit_the_weights_raises(tmp_path, hyperparameters, message):
    tiny().fit(TEXTS, LABELS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier(pretrained=str(tmp_path), **hyperparameters).fit(TEXTS, LABELS)


def test_what_fits_the_weights_wins(tmp_path):
    tiny().fit(TEXTS, LABELS).save_pretrained(tmp_path)
    clf = GLiClassClassifier(pretrained=str(tmp_path), dropout=0.3, max_length=20, max_epochs=0).fit(TEXTS, LABELS)
    assert (clf.config_.dropout, clf.max_length_) == (0.3, 20)


def test_zero_shot_from_a_checkpoint(tmp_path):
    clf = tiny(max_epochs=40).fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    zero = GLiClassClassifier(pretrained=str(tmp_path)).fit(None, ["sports", "politics"])
    np.testing.assert_array_equal(zero.classes_, ["sports", "politics"])  # the order given
    np.testing.assert_array_equal(zero.predict_proba(TEXTS)[:, ::-1], clf.predict_proba(TEXTS))
    new = GLiClassClassifier.from_pretrained(tmp_path).fit(None, ["goal", "law", "vote"])
    assert new.predict_proba(TEXTS).shape == (8, 3)
    multi = GLiClassClassifier(pretrained=str(tmp_path), problem_type="multi_label_classification")
    assert multi.fit(None, ["goal", "law"]).predict(TEXTS).shape == (8, 2)


@pytest.mark.parametrize("labels", ["sports", ["sports"], ["a", "a"], [["a", "b"]]])
def test_zero_shot_wants_a_list_of_labels(labels):
    with pytest.raises(ValueError, match="takes a list of at least 2 classes"):
        GLiClassClassifier().fit(None, labels)


def test_zero_shot_with_random_weights_raises():
    with pytest.raises(ValueError, match="start from random weights"):
        tiny().fit(None, ["sports", "politics"])


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    clf = tiny().fit(TEXTS, LABELS)
    clf.model_.encoder.save_pretrained(folder)
    clf.tokenizer_.save_pretrained(folder)
    return str(folder)


def test_zero_shot_with_scorers_that_start_as_a_dot_product(encoder_folder):
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
def test_zero_shot_with_a_part_that_starts_at_random_raises(encoder_folder, random_part):
    clf = tiny(encoder_config=None, encoder_model=encoder_folder, **random_part)
    with pytest.raises(ValueError, match=r"start from random weights.*scorer_type from \['simple', 'weighted-dot'\]"):
        clf.fit(None, ["goal", "law", "vote"])


def test_the_wrong_estimator_is_named(tmp_path):
    tiny().fit(TEXTS, LABELS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"GLiClassClassifier\.from_pretrained"):
        GLiClassRegressor.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="Ways to get it"):
        GLiClassClassifier.from_pretrained(tmp_path / "nowhere")


def test_a_pickle_holds_the_weights_once():
    clf = tiny_of("encoder-decoder").fit(TEXTS, LABELS)
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in clf.model_.state_dict().values()}
    tokenizer = len(clf.tokenizer_.backend_tokenizer.to_str())
    assert len(pickle.dumps(clf)) < 1.2 * sum(weights.values()) + 2 * tokenizer + 50_000


def test_training_goes_on_after_pickling():
    clf = tiny().fit(TEXTS, LABELS)
    back = pickle.loads(pickle.dumps(clf))
    assert back.history_[:, "train_loss"] == clf.history_[:, "train_loss"]
    assert back.partial_fit(TEXTS, LABELS).n_iter_ == clf.n_iter_ + 1


def test_unfitted_estimators_pickle():
    assert pickle.loads(pickle.dumps(tiny())).get_params() == tiny().get_params()


def test_loads_in_a_process_without_network_and_encoder(tmp_path):
    """Defect 10: the reference needs the original label encoder at load time."""
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


def test_the_models_own_loading_reads_the_folder(tmp_path):
    clf = tiny().fit(TEXTS, LABELS)
    clf.save_pretrained(tmp_path)
    model = GLiClassModel.from_pretrained(tmp_path)
    for name, tensor in clf.model_.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


def test_tied_encoders_stand_once_in_memory_and_under_both_names_in_the_file(tmp_path):
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
    assert not any("label_encoder" in name for name in again.__getstate__()["model_"]["weights"])


def test_tied_encoders_exclude_another_label_encoder():
    options = {**TINY, "label_model_config": TINY["encoder_config"]}
    with pytest.raises(ValueError, match="tie_encoders=True reads the labels with the text encoder"):
        GLiClassClassifier(**options, tie_encoders=True).fit(TEXTS, LABELS)
    clf = GLiClassClassifier(**options, random_state=0).fit(TEXTS, LABELS)
    assert clf.model_.model.label_encoder is not clf.model_.model.encoder_model
