"""estimator.json: only known names with valid values are saved and loaded."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from library_versions import HAS_STRING_DTYPE, string_array
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, RLTrainerConfig
from sklearn_gliclass.estimator_file import LOCAL_HYPERPARAMETERS, read_estimator
from sklearn_gliclass.estimator_folder import load_estimator
from sklearn_gliclass.json_values import encode
from sklearn_gliclass.testing import TINY


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier") / "model"
    tiny(max_epochs=1).fit(TEXTS, LABELS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def regressor_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regressor") / "model"
    GLiClassRegressor(**TINY, random_state=0).fit(TEXTS, np.c_[range(8), range(8, 16)]).save_pretrained(folder)
    return folder


def edited(folder, tmp_path, **parts):
    """Copy the folder with another content of estimator.json."""
    copy = shutil.copytree(folder, tmp_path / "edited")
    record = json.loads((copy / "estimator.json").read_text())
    for part, values in parts.items():
        if isinstance(values, dict):
            record[part].update(values)
        else:
            record[part] = values
    (copy / "estimator.json").write_text(json.dumps(record))
    return copy


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"class_weight": {"items": 3.0, "array": 1.0}}, {"class_weight": {"array": 1.0, "dtype": 2.0}},
        {"class_weight": {"__type__": 3.0, "RLTrainerConfig": 1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_dicts_that_look_like_tags_are_restored(hyperparameters, tmp_path):
    labels = np.repeat(sorted(hyperparameters["class_weight"]), 4)
    clf = tiny(max_epochs=1, **hyperparameters).fit(TEXTS, labels)
    clf.save_pretrained(tmp_path / "model")
    assert GLiClassClassifier.from_pretrained(tmp_path / "model").class_weight == hyperparameters["class_weight"]


@pytest.mark.parametrize(
    "classes",
    [
        ["a", "b"], [0, 1], [True, False], np.array(["b", "a"], object), np.array([3, 4], np.int8),
        np.array(["array", "items"]), np.array(["2020", "2021"], "M8[Y]"), np.array([1, 2], "m8[s]"),
        *([string_array(["a", "b"])] if HAS_STRING_DTYPE else []),
    ],
    ids=repr,
)  # fmt: skip
def test_classes_are_restored_with_their_type(classes, tmp_path):
    labels = np.repeat(np.asarray(classes), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numeric labels may warn
        clf = tiny(max_epochs=1, problem_type="single_label_classification").fit(TEXTS, labels)
        clf.save_pretrained(tmp_path / "model")
        back = GLiClassClassifier.from_pretrained(tmp_path / "model")
    assert back.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(back.classes_, clf.classes_)


def test_file_is_json_for_any_reader(tmp_path):
    weights = {"sports": np.float32(2), "politics": float("inf"), "other": float("nan")}
    tiny(max_epochs=1).fit(TEXTS, LABELS).set_params(class_weight=weights).save_pretrained(tmp_path / "model")

    def fail(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "model" / "estimator.json").read_text(), parse_constant=fail)
    back = GLiClassClassifier.from_pretrained(tmp_path / "model").class_weight
    assert (back["sports"], back["politics"]) == (2.0, float("inf"))
    assert np.isnan(back["other"])


def test_class_that_cannot_be_stored_raises_and_writes_nothing(tmp_path):
    clf = tiny(max_epochs=1).fit(TEXTS, LABELS)
    clf.classes_ = np.array([object(), object()], object)
    with pytest.raises(ValueError, match=r"classes_ cannot be stored.*pickle or joblib"):
        clf.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# -- hyperparameters that are not saved ------------------------------------------------------


def test_local_hyperparameters_are_not_saved(classifier_folder, tmp_path):
    record = json.loads((classifier_folder / "estimator.json").read_text())
    assert not {*LOCAL_HYPERPARAMETERS, "encoder_model", "encoder_config"} & set(record["hyperparameters"])
    elsewhere = {"memory": "/somewhere", "cache_dir": "/else", "pretrained": "x", "device": "cuda:7", "callbacks": [1]}
    loaded = GLiClassClassifier.from_pretrained(edited(classifier_folder, tmp_path, hyperparameters=elsewhere))
    assert (loaded.memory, loaded.cache_dir, loaded.device, loaded.callbacks) == (None, None, "auto", None)


def test_unsaved_hyperparameters_of_predictions_are_required(tmp_path):
    import pandas as pd

    def template(row):
        return f"{row['text']}!"

    table = pd.DataFrame({"text": TEXTS, "n": range(8)})
    clf = tiny(max_epochs=1, text_template=template).fit(table, LABELS)
    with pytest.warns(UserWarning, match=r"\['text_template'\].*predictions depend.*text_template=\.\.\."):
        clf.save_pretrained(tmp_path / "model")
    assert read_estimator(tmp_path / "model")["missing"] == ["text_template"]
    with pytest.raises(ValueError, match=r"value of text_template.*pass it again.*text_template=\.\.\."):
        GLiClassClassifier.from_pretrained(tmp_path / "model")
    back = GLiClassClassifier.from_pretrained(tmp_path / "model", text_template=template)
    np.testing.assert_array_equal(back.predict_proba(table), clf.predict_proba(table))


@pytest.mark.parametrize(
    "hyperparameters",
    [{"random_state": np.random.RandomState(0)}, {"callbacks": [object()]}],
    ids=lambda parameters: next(iter(parameters)),
)
def test_unsaved_hyperparameters_of_training_are_in_the_warning(hyperparameters, tmp_path):
    clf = tiny(max_epochs=1).fit(TEXTS, LABELS).set_params(**hyperparameters)
    with pytest.warns(
        UserWarning, match=rf"\['{next(iter(hyperparameters))}'\] cannot be stored as JSON.*do not depend"
    ):
        clf.save_pretrained(tmp_path / "model")
    assert GLiClassClassifier.from_pretrained(tmp_path / "model").predict(TEXTS).shape == (8,)


@pytest.mark.parametrize("threshold", [{"sea": 0.2, "food": 0.6}, [0.2, 0.6], (0.2, 0.6), np.array([0.2, 0.6]), 1])
def test_thresholds_are_restored(threshold, tmp_path):
    y = pd.DataFrame([[1, 0], [0, 1], [1, 1]], columns=["sea", "food"])
    clf = GLiClassClassifier(**TINY, threshold=threshold).fit(["a", "b", "c"], y)
    clf.save_pretrained(tmp_path)
    loaded = GLiClassClassifier.from_pretrained(tmp_path, device="cpu")
    assert type(loaded.threshold) is type(threshold)
    np.testing.assert_array_equal(loaded.predict(["a", "b"]), clf.predict(["a", "b"]))


def test_rl_configuration_comes_back_without_its_paths(tmp_path):
    clf = tiny(max_epochs=1).fit(TEXTS, LABELS).set_params(rl=RLTrainerConfig(kl_beta=0.1, cache_dir="~/x"))
    clf.save_pretrained(tmp_path / "model")
    rl = GLiClassClassifier.from_pretrained(tmp_path / "model").rl
    assert (rl.kl_beta, rl.cache_dir) == (0.1, None)


# -- edited files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"hyperparameters": {"predict": 1}}, "hyperparameters that GLiClassClassifier does not have: 'predict'"),
        ({"hyperparameters": {"shrinkage": 1.0}}, "does not have: 'shrinkage'"),
        ({"hyperparameters": {"__class__": 1}}, "does not have: '__class__'"),
        ({"hyperparameters": {"threshold": "high"}}, "threshold"),
        ({"hyperparameters": {"threshold": 7}}, "threshold"),
        ({"hyperparameters": {"threshold": [0.5, 0.5, 0.5]}}, "one for each of the 2 classes"),
        ({"hyperparameters": {"threshold": {"zebra": 0.5}}}, "threshold has no number for the class"),
        ({"hyperparameters": {"threshold": [0.5, 5]}}, "from 0 to 1"),
        ({"hyperparameters": {"threshold": [[0.5, 0.5]]}}, "one for each of the 2 classes"),
        ({"hyperparameters": {"max_batch_tokens": -1}}, "max_batch_tokens"),
        ({"hyperparameters": {"dtype": "float8"}}, "dtype"),
        ({"hyperparameters": {"text_template": 3}}, "text_template"),
        ({"hyperparameters": {"rl": {"unknown": 1}}}, "rl is damaged"),
        ({"hyperparameters": {"rl": {"lr": "fast"}}}, "lr"),
        ({"hyperparameters": {"lr": {"__type__": "code"}}}, "lr is damaged"),
        ({"hyperparameters": [1]}, "must be JSON objects"),
        ({"fitted": {"predict": 1}}, "no fitted attributes 'predict'"),
        ({"fitted": {"_parameter_constraints": {}}}, "no fitted attributes '_parameter_constraints'"),
        ({"fitted": {"model_": None}}, "no fitted attributes 'model_'"),
        ({"fitted": {"target_mean_": encode(np.zeros(2))}}, "no fitted attributes 'target_mean_'"),
        ({"fitted": {"classes_": ["a", "b"]}}, "classes_ must be a 1-D array"),
        ({"fitted": {"classes_": encode(np.array(["a", "a"]))}}, "different classes"),
        ({"fitted": {"classes_": encode(np.array([["a", "b"]]))}}, "classes_ must be a 1-D array"),
        ({"fitted": {"classes_": encode(np.array(["a", "b", "c"]))}}, "classes_ has 3 entries for 2 label_names_"),
        ({"fitted": {"label_names_": ["a"]}}, "classes_ has 2 entries for 1 label_names_"),
        ({"fitted": {"label_names_": ["a", 1]}}, "label_names_ must be a list of strings"),
        ({"fitted": {"label_names_": "ab"}}, "label_names_ must be a list of strings"),
        ({"fitted": {"label_centroid_share_": 7}}, "label_centroid_share_ must be a number from 0 to 1"),
        ({"fitted": {"n_features_in_": -1}}, "n_features_in_ must be an integer"),
        ({"fitted": {"n_features_in_": True}}, "n_features_in_ must be an integer"),
        ({"fitted": {"feature_names_in_": encode(np.array([1, 2]))}}, "feature_names_in_ must be"),
        ({"fitted": {"feature_names_in_": encode(np.array(["a"], object)), "n_features_in_": 2}}, "is not the number"),
        ({"fitted": {"logit_offset_": "6"}}, "no fitted attributes 'logit_offset_'"),
        ({"fitted": {"_text_reader": {"n_columns": 1}}}, "_text_reader must be"),
        (
            {"fitted": {"_text_reader": {"n_columns": 2, "columns": ["a"], "is_plain": True, "had_texts": False}}},
            "_text_reader must be",
        ),
        ({"fitted": {"temperature_": encode(np.ones(2))}}, "temperature_ must be a number"),
        ({"estimator": "GLiClassRegressor"}, r"GLiClassRegressor\.from_pretrained"),
        ({"estimator": 3}, "was not written by save_pretrained"),
        ({"format": 99}, "has format 99"),
        ({"missing": ["predict"]}, "missing must be a list"),
        ({"missing": "threshold"}, "missing must be a list"),
    ],
    ids=repr,
)
def test_edited_file_raises(classifier_folder, tmp_path, parts, message):
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier.from_pretrained(edited(classifier_folder, tmp_path, **parts))


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        ({"target_mean_": encode(np.zeros(3))}, "target_mean_ has 3 entries for 2 label_names_"),
        ({"target_scale_": encode(np.array([1.0, np.nan]))}, "target_scale_ must be a 1-D array of positive floats"),
        ({"shrinkage_": 1.0}, "shrinkage_ must be a 1-D array"),
        ({"_one_dimensional": True}, "_one_dimensional is true for 2 outputs"),
        ({"_one_dimensional": 1}, "_one_dimensional must be true or false"),
        ({"target_names_": ["a"]}, "target_names_ has 1 entries"),
        ({"classes_": encode(np.array(["a", "b"]))}, "no fitted attributes 'classes_'"),
    ],
    ids=repr,
)
def test_edited_file_of_a_regressor_raises(regressor_folder, tmp_path, fitted, message):
    with pytest.raises(ValueError, match=message):
        GLiClassRegressor.from_pretrained(edited(regressor_folder, tmp_path, fitted=fitted))


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        ({"target_names_": ["a", "b", "c"]}, "target_names_ must have one entry for each of the 2 targets"),
        ({"temperature_": 1.0}, "temperature_ must have one entry for each of the 2 targets"),
        ({"label_names_": ["glad"]}, "classes_ has 4 classes for 1 label_names_"),
    ],
    ids=repr,
)
def test_edited_file_of_several_targets_raises(tmp_path, fitted, message):
    y = pd.DataFrame({"mood": ["glad", "sad"] * 4, "topic": LABELS})
    tiny(max_epochs=1).fit(TEXTS, y).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier.from_pretrained(edited(tmp_path / "model", tmp_path, fitted=fitted))


def test_folder_is_loaded_with_its_own_labels_or_those_of_the_call(classifier_folder, regressor_folder, tmp_path):
    assert load_estimator(classifier_folder).classes_.tolist() == sorted(set(LABELS))
    assert load_estimator(classifier_folder, ["a goal", "a law"]).classes_.tolist() == ["a goal", "a law"]
    with pytest.raises(ValueError, match="is a regressor, which has no labels"):
        load_estimator(regressor_folder, ["a goal", "a law"])
    plain = shutil.copytree(classifier_folder, tmp_path / "plain")
    (plain / "estimator.json").unlink()
    with pytest.raises(ValueError, match="is a checkpoint without labels: give the labels"):
        load_estimator(plain)


@pytest.mark.parametrize("name", ["classes_", "label_names_"])
def test_missing_fitted_attribute_raises(classifier_folder, tmp_path, name):
    folder = shutil.copytree(classifier_folder, tmp_path / "copy")
    record = json.loads((folder / "estimator.json").read_text())
    del record["fitted"][name]
    (folder / "estimator.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"fitted attributes '{name}' are missing"):
        GLiClassClassifier.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000, b'{"unknown": 1}'])
def test_damaged_file_is_named(classifier_folder, tmp_path, content):
    folder = shutil.copytree(classifier_folder, tmp_path / "copy")
    (folder / "estimator.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"estimator\.json"):
        GLiClassClassifier.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["folder", "loop of links"])
def test_entry_that_is_no_file_is_damaged(classifier_folder, tmp_path, kind):
    """It is not taken for a checkpoint without classes."""
    path = shutil.copytree(classifier_folder, tmp_path / "copy") / "estimator.json"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(ValueError, match=r"estimator\.json' is damaged"):
        GLiClassClassifier.from_pretrained(path.parent)


@pytest.mark.parametrize(
    "fields",
    [
        {"encoder_config": 3},
        {"encoder_config": {"model_type": ["bert"]}},
        {"encoder_config": {"model_type": "bert", "hidden_size": "x"}},
        {"encoder_config": {"model_type": "bert", "id2label": True}},
        {"dtype": []},
        {"dtype": "x"},
    ],
    ids=str,
)
def test_edited_configuration_raises(classifier_folder, tmp_path, fields):
    path = shutil.copytree(classifier_folder, tmp_path / "copy") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(ValueError, match=r"config\.json' is not a valid configuration"):
        GLiClassClassifier.from_pretrained(path.parent)
