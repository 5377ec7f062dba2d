"""Several targets: y with a column of classes for each, against separate classifiers, NumPy and scikit-learn."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from library_versions import string_array
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.multi_output import find_output_columns, output_label_texts, read_multi_output_targets
from sklearn_gliclass.testing import TINY

TEXTS = ["a red apple pie", "a blue sea wave", "a green apple tart", "the deep blue sea", "red fish of the sea",
         "a pie of green pears", "a wave", "an apple"]  # fmt: skip
Y = pd.DataFrame(
    {
        "topic": ["food", "sea", "food", "sea", "sea", "food", "sea", "food"],
        "colour": ["red", "blue", "green", "blue", "red", "green", None, None],
    }
)
FULL = Y.fillna("none")
LABELS = {"topic": ["food", "sea"], "colour": ["red", "blue", "green"]}
EXACT = {"dtype": "float64", "text_contrastive_loss_coef": 0, "label_centroid_share": 0}
AT_REST = {**EXACT, "max_epochs": 1, "lr": 0.0, "others_lr": 0.0, "batch_size": 8}


def classifier(**parameters):
    return GLiClassClassifier(**{**TINY, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(TEXTS, Y)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a trained tiny model: fits that start from it begin with a label probe."""
    folder = tmp_path_factory.mktemp("checkpoint")
    classifier(max_epochs=20).fit(TEXTS, FULL["topic"]).save_pretrained(folder)
    return str(folder)


def assert_lists_close(values, expected, **tolerance):
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, other, **tolerance)


# -- y -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, {"topic": ["food", "sea"], "colour": ["blue", "green", "red"]}),
        (pl.DataFrame(Y), {"topic": ["food", "sea"], "colour": ["blue", "green", "red"]}),
        (Y.to_numpy(), {0: ["food", "sea"], 1: ["blue", "green", "red"]}),
        ([[1, 2], [0, 1]], {0: [0, 1], 1: [1, 2]}),
        (csr_array(np.array([[0, 3], [1, 0]])), {0: [0, 1], 1: [0, 3]}),
        (pd.DataFrame({"spam": [0, 1], "stars": [5, 1]}), {"spam": [0, 1], "stars": [1, 5]}),
        (pd.DataFrame({"a": [0, 1], "b": [1, 0]}).astype("category"), {"a": [0, 1], "b": [0, 1]}),
        (pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [2, 3]}), {"a": [1], "b": [2, 3]}),
        (pd.DataFrame({"flag": [True, False], "mood": ["x", "y"]}), {"flag": [False, True], "mood": ["x", "y"]}),
    ],
)
def test_columns_of_classes_are_targets(y, classes):
    check_columns(y, classes)


def test_columns_of_an_array_of_stringdtype_are_targets():
    check_columns(string_array([["a", "x"], ["b", "y"]]), {0: ["a", "b"], 1: ["x", "y"]})


def check_columns(y, classes):
    targets = read_multi_output_targets(find_output_columns(y, -100))
    assert {name: values.tolist() for name, values in targets.by_target.items()} == classes


@pytest.mark.parametrize(
    "y",
    [
        ["a", "b"],
        [["a", "b"], ["c", "d"]],
        [["a"], ["b", "c"]],
        np.array([[0, 1], [1, 0]]),
        np.array([[0, -100], [1, 0]]),
        np.array([[True, False], [False, True]]),
        np.array([[0.5, 0.5], [1, 0]]),
        np.array([[0.5, 2], [1, 0]]),
        pd.DataFrame({"mood": ["a", "b"]}),
        pd.DataFrame({"a": [0, None], "b": [0, 1]}),
        pd.Series(["a", "b"]),
        np.zeros((2, 2, 2)),
    ],
)
def test_other_kinds_of_y_are_one_target(y):
    assert find_output_columns(y, -100) is None


def test_indices_are_among_the_labels_of_all_targets():
    targets = read_multi_output_targets(find_output_columns(Y, -100))
    assert targets.array.tolist() == [[0, 4], [1, 2], [0, 3], [1, 2], [1, 4], [0, 3], [1, -1], [0, -1]]
    assert [labels.tolist() for labels in targets.groups.split(np.arange(5)[None])] == [[[0, 1]], [[2, 3, 4]]]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y.assign(colour="red"), "at least 2 classes in the data in the target 'colour', but .* only one class: 'red'"),
        (Y.assign(colour=None), "in the target 'colour', but the data contains none"),
        (Y.assign(topic=["food", *[None] * 7]), r"2 row\(s\) have no class in any of the targets .*, at row\(s\) 6, 7"),
        (Y.assign(topic=["food", 3] * 4), "The target 'topic' of y must hold classes of one type"),
        (Y.assign(topic=[0.5, 1.0] * 4), "Unknown label type: continuous"),
        (Y.rename(columns={"topic": None}), r"named by their targets, got \[(nan|None), 'colour'\]"),
        (np.array([["0", "1"]] * 8), "0 and 1 as strings, .* convert them to numbers"),
        (np.array([[0, 3], [1, -100]] * 4), "the value -100 .* unknown class of a target by None or NaN"),
    ],
)
def test_invalid_targets_raise(y, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(TEXTS, y)


# -- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "label_names", "separator", "texts"),
    [
        (LABELS, None, None, ["food", "sea", "red", "blue", "green"]),
        (LABELS, None, ": ", ["topic: food", "topic: sea", "colour: red", "colour: blue", "colour: green"]),
        ({"a": ["yes", "no"], "b": ["yes", "maybe"]}, None, None, ["a: yes", "a: no", "b: yes", "b: maybe"]),
        ({"stars": [1, 2], "mood": ["x", "y"]}, None, None, ["stars: 1", "stars: 2", "x", "y"]),
        ({0: ["yes", "no"], 1: ["no", "so"]}, None, ".", ["target 0.yes", "target 0.no", "target 1.no", "target 1.so"]),
        ({0: ["yes", "no"], 1: ["x", "y"]}, None, ".", ["yes", "no", "x", "y"]),
        ({"a": ["x", "y"], "b": ["x", "z"]}, {"a": {"x": "one", "y": "two"}}, None, ["one", "two", "x", "z"]),
        ({"a": ["x", "y"], "b": ["w", "z"]}, [["1", "2"], {"z": "4", "w": "3"}], None, ["1", "2", "3", "4"]),
    ],
)
def test_label_texts_join_target_and_class(classes, label_names, separator, texts):
    assert output_label_texts(classes, label_names, separator) == texts


def test_flattened_names_are_those_of_the_reference():
    pipeline = pytest.importorskip("gliclass.pipeline")
    expected = pipeline.flatten_hierarchical_labels(LABELS, separator=".")
    assert output_label_texts(LABELS, None, ".") == expected


@pytest.mark.parametrize(
    ("label_names", "error", "message"),
    [
        ({"food": "meals", "sea": "water"}, ValueError, r"unknown target\(s\) \['food', 'sea'\]"),
        (["a", "b", "c"], ValueError, "3 entries for the 2 targets"),
        ({"topic": {"food": "meals"}}, ValueError, r"label_names\['topic'\] has no text for the class\(es\) \['sea'\]"),
        ([["red", "water"], ["red", "blue", "green"]], ValueError, r"same label text: \['red'\]"),
    ],
)
def test_invalid_label_names_raise(label_names, error, message):
    with pytest.raises(error, match=message):
        output_label_texts(LABELS, label_names, None)


# -- fit and predict ---------------------------------------------------------------------------------------------


def test_predictions_have_the_shapes_of_scikit_learn(fitted):
    baseline = make_pipeline(CountVectorizer(), MultiOutputClassifier(LogisticRegression())).fit(TEXTS, FULL)
    ours = classifier().fit(TEXTS, FULL)
    for one, other in zip(ours.classes_, baseline[-1].classes_, strict=True):
        assert one.tolist() == other.tolist()
    for one, other in zip(ours.predict_proba(TEXTS), baseline.predict_proba(TEXTS), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-5)
    assert ours.predict(TEXTS).shape == baseline.predict(TEXTS).shape == (8, 2)
    assert ours.score(TEXTS, FULL) == np.all(ours.predict(TEXTS) == FULL.to_numpy(), axis=1).mean()
    assert ours.target_names_ == ["topic", "colour"]


def test_outputs_agree_with_each_other(fitted):
    proba, values = fitted.predict_proba(TEXTS), fitted.decision_function(TEXTS)
    assert_lists_close(fitted.predict_log_proba(TEXTS), map(np.log, proba), atol=1e-4)
    np.testing.assert_allclose(1 / (1 + np.exp(-values[0])), proba[0][:, 1], rtol=1e-4)  # two classes: the difference
    np.testing.assert_allclose(softmax(values[1], axis=1), proba[1], rtol=1e-4)
    predicted = fitted.predict(TEXTS)
    for column, classes, part in zip(predicted.T, fitted.classes_, proba, strict=True):
        assert column.tolist() == classes[part.argmax(axis=1)].tolist()
    assert fitted.predict_labels(TEXTS[:1]) == [{"topic": predicted[0, 0], "colour": predicted[0, 1]}]


@pytest.mark.parametrize("architecture", ["bi-encoder", "uni-encoder", "bi-encoder-fused"])
def test_loss_is_the_mean_over_known_classes(architecture):
    weight = np.arange(1.0, 9.0)
    options = {**AT_REST, "architecture_type": architecture, "shuffle_labels": False}
    clf = classifier(**options, class_weight={"topic": {"food": 3.0}})
    clf.fit(TEXTS, Y, sample_weight=weight)
    columns = clf.decision_function(TEXTS)
    logs = [log_softmax(np.stack([0 * columns[0], columns[0]], axis=1), axis=1), log_softmax(columns[1], axis=1)]
    total = norm = 0.0
    for name, classes, log in zip(clf.target_names_, clf.classes_, logs, strict=True):
        for row, label in enumerate(Y[name]):
            if isinstance(label, str):
                w = weight[row] * (3.0 if label == "food" else 1.0)
                total, norm = total - w * log[row, classes.tolist().index(label)], norm + w
    assert clf.history_[-1, "train_loss"] == pytest.approx(total / norm, rel=1e-6)


@pytest.mark.parametrize("options", [{"freeze_encoder": True}, {"freeze_encoder": True, "calibrate": False}])
def test_frozen_fit_equals_separate_fits(checkpoint, options):
    """The label probe of each target is that of a classifier of its own, with its temperature."""
    options = {"pretrained": checkpoint, "random_state": 0, "dtype": "float64", **options}
    both = GLiClassClassifier(**options).fit(TEXTS, Y)
    for place, name in enumerate(Y):
        known = Y[name].notna().to_numpy()
        one = GLiClassClassifier(**options).fit(
            [text for text, k in zip(TEXTS, known, strict=True) if k], Y[name][known]
        )
        np.testing.assert_allclose(both.predict_proba(TEXTS)[place], one.predict_proba(TEXTS), atol=1e-5)
        assert both.temperature_[place] == pytest.approx(one.temperature_, rel=1e-4)


def test_cached_fit_and_predictions_equal_plain_ones(checkpoint, tmp_path):
    options = {"pretrained": checkpoint, "random_state": 0, "freeze_encoder": True}
    plain = GLiClassClassifier(**options).fit(TEXTS, Y)
    for _ in range(2):
        cached = GLiClassClassifier(**options, memory=str(tmp_path)).fit(TEXTS, Y)
        assert_lists_close(cached.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=1e-5)
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"freeze_encoder": True}, {"calibrate": "cv"}])
def test_weight_two_is_repetition(checkpoint, options):
    options = {"pretrained": checkpoint, "random_state": 0, "dtype": "float64", "max_epochs": 0, **options}
    if options.get("freeze_encoder"):
        del options["max_epochs"]
    weighted = GLiClassClassifier(**options).fit(TEXTS, Y, sample_weight=[2] * 4 + [1] * 3 + [0])
    repeated = GLiClassClassifier(**options).fit(TEXTS[:7] + TEXTS[:4], pd.concat([Y[:7], Y[:4]]))
    assert_lists_close(weighted.predict_proba(TEXTS), repeated.predict_proba(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"architecture_type": "bi-encoder-fused"},
        {"max_num_classes": 3},
        {"freeze_encoder": True},
        {"early_stopping": True, "validation_fraction": 0.25},
        {"class_weight": "balanced"},
        {"class_weight": [{"food": 2.0}, None]},
        {"calibrate": "cv"},
        {"scorer_type": "mlp", "gradient_accumulation_steps": 2, "batch_size": 3, "max_epochs": 24},
        {"label_centroid_share": 1.0},
        {"ewc_lambda": 1.0},
    ],
)
def test_options_of_the_training_learn_both_targets(options):
    clf = classifier(**{"max_epochs": 12, **options}).fit(TEXTS, Y)
    assert clf.score(TEXTS, Y) >= 0.75
    assert clf.partial_fit(TEXTS, Y).n_iter_ == clf.n_iter_


def test_examples_have_the_labels_of_all_targets():
    options = {"architecture_type": "uni-encoder", "max_epochs": 1}
    nearest = classifier(**options, examples="nearest", n_examples=2).fit(TEXTS, Y)
    assert nearest.examples_[1] == {"text": "a green apple tart", "labels": ["food", "green"]}
    assert nearest.with_labels(LABELS | {"mood": ["glad", "sad"]}).examples_ == nearest.examples_
    given = classifier(**options, examples=[{"text": "tarts", "labels": ["food", "red"]}]).fit(TEXTS, Y)
    assert given.predict(TEXTS).shape == (8, 2)


def test_balanced_weights_are_those_of_each_target():
    clf = classifier(**AT_REST, class_weight="balanced").fit(TEXTS, Y)
    colours = [len(Y["colour"].dropna()) / (3 * 2)] * 3  # two rows per colour: all weights are 1
    weighted = classifier(**AT_REST, class_weight=[{}, dict(zip(["blue", "green", "red"], colours, strict=True))])
    assert clf.history_[-1, "train_loss"] == weighted.fit(TEXTS, Y).history_[-1, "train_loss"]


def test_mixed_types_are_predicted_as_objects():
    y = pd.DataFrame({"mood": ["glad", "sad"] * 4, "stars": [5, 1] * 4})
    clf = classifier().fit(TEXTS, y)
    assert clf.predict(TEXTS).dtype == object
    assert clf.label_names_ == ["glad", "sad", "stars: 1", "stars: 5"]
    assert {type(value) for value in clf.predict(TEXTS)[0]} == {str, int}


def test_score_compares_known_classes_only(fitted):
    truth = pd.DataFrame(fitted.predict(TEXTS), columns=["topic", "colour"])
    truth.loc[0, "colour"] = None
    truth.loc[1, "colour"] = "unheard of"
    assert fitted.score(TEXTS, truth) == 7 / 8
    assert fitted.score(TEXTS, truth[["colour", "topic"]], sample_weight=[0, 1, 1, 0, 0, 0, 0, 0]) == 0.5
    with pytest.raises(ValueError, match=r"the targets \['topic', 'colour'\], and y has no column for each"):
        fitted.score(TEXTS, Y["topic"])


# -- continuation ------------------------------------------------------------------------------------------------


def test_partial_fit_knows_classes_that_come_later(fitted):
    clf = classifier().partial_fit(
        TEXTS[:2], Y[:2], classes={"colour": ["red", "blue", "green"], "topic": ["sea", "food"]}
    )
    assert [classes.tolist() for classes in clf.classes_] == [["food", "sea"], ["blue", "green", "red"]]
    clf.partial_fit(TEXTS[2:4], Y[["colour", "topic"]][2:4])  # columns are matched by name
    assert clf.n_iter_ == 2
    with pytest.raises(ValueError, match=r"The target 'topic' of y has classes that are not among .*\['sky'\]"):
        clf.partial_fit(TEXTS[:2], np.array([["sky", "red"], ["food", "red"]]))


def test_numbers_of_one_batch_are_read_as_the_fitted_targets():
    y = np.array([[1, 2], [0, 1], [1, 0], [0, 2]] * 2)
    clf = classifier(label_names=[["no", "yes"], ["low", "middle", "high"]]).fit(TEXTS, y)
    clf.partial_fit(TEXTS[1:3], y[1:3])  # 0 and 1 only, as in an indicator matrix
    assert clf.target_names_ == [0, 1]
    assert clf.score(TEXTS[1:3], y[1:3]) in (0.0, 0.5, 1.0)


def test_warm_start_continues_and_keeps_temperatures(checkpoint):
    clf = GLiClassClassifier(pretrained=checkpoint, freeze_encoder=True, random_state=0, warm_start=True).fit(TEXTS, Y)
    before = clf.temperature_
    clf.partial_fit(TEXTS, Y)
    np.testing.assert_array_equal(clf.temperature_, before)
    assert clf.fit(TEXTS, Y[["colour", "topic"]]).target_names_ == ["colour", "topic"]
    np.testing.assert_allclose(clf.temperature_, before[::-1], rtol=0.2)
    with pytest.raises(ValueError, match=r"for the targets \['colour', 'topic'\], and this y has one target"):
        clf.fit(TEXTS, FULL["topic"])


# -- zero-shot ---------------------------------------------------------------------------------------------------


def test_zero_shot_equals_classifiers_of_each_target(checkpoint):
    clf = GLiClassClassifier(pretrained=checkpoint).fit(None, LABELS)
    for place, labels in enumerate(LABELS.values()):
        one = GLiClassClassifier(pretrained=checkpoint).fit(None, labels)
        np.testing.assert_allclose(clf.predict_proba(TEXTS)[place], one.predict_proba(TEXTS), atol=1e-6)
        assert clf.classes_[place].tolist() == labels  # in the order given
    assert clf.partial_fit(TEXTS, Y).classes_[1].tolist() == LABELS["colour"]


def test_descriptions_are_what_the_model_reads(checkpoint):
    labels = {"topic": {"food": "meals and fruit", "sea": "water and fish"}, "colour": ["red", "blue"]}
    clf = GLiClassClassifier(pretrained=checkpoint).fit(None, labels)
    assert clf.label_names_ == ["meals and fruit", "water and fish", "red", "blue"]
    assert set(clf.predict(TEXTS)[:, 0]) <= {"food", "sea"}


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ({"mood": ["a", "b"], "topic": "a description"}, {}, r"without one for \['topic'\]"),
        ({"mood": ["a", "b"]}, {}, r"got one target, \['mood'\]; give its classes as a list"),
        ({"mood": ["a"], "topic": ["c", "d"]}, {}, "for the target 'mood', takes a list of at least 2 classes"),
        ({"mood": {"a": ["x", "y"], "b": ["z"]}, "topic": ["c", "d"]}, {}, r"classes of classes, \['a', 'b'\]"),
        ({"mood": ["a", "b"], "topic": ["c", "d"]}, {"problem_type": "multi_label_classification"}, "several targets"),
        ({"mood": {"a": "x", "b": "y"}, "topic": ["c", "d"]}, {"label_names": {}}, "set label_names=None"),
        (["a", "b"], {"label_separator": ": "}, "label_separator=': ' has no effect on one target"),
    ],
)
def test_invalid_zero_shot_labels_raise(checkpoint, labels, options, message):
    with pytest.raises(ValueError, match=message):
        GLiClassClassifier(pretrained=checkpoint, **options).fit(None, labels)


def test_other_targets_on_the_same_weights(checkpoint):
    clf = GLiClassClassifier(
        pretrained=checkpoint, freeze_encoder=True, random_state=0, class_weight=[{"food": 2.0}, "balanced"]
    ).fit(TEXTS, Y)
    other = clf.with_labels({"mood": ["glad", "sad"], "colour": ["red", "blue", "green", "violet"]})
    assert other.model_ is clf.model_
    assert other.temperature_[1] == clf.temperature_[1]
    assert other.temperature_[0] == pytest.approx(np.sqrt(clf.temperature_.prod()))
    values = dict(zip(clf.classes_[1], clf.decision_function(TEXTS)[1].T, strict=True))
    for label, column in zip(other.classes_[1], other.decision_function(TEXTS)[1].T, strict=True):
        if label in values:
            np.testing.assert_allclose(column, values[label], atol=1e-4)
    assert other.class_weight == {"colour": "balanced"}
    assert other.label_names is None
    with pytest.raises(ValueError, match=r"with_labels takes \{target: \[class, ...\]\} here"):
        clf.with_labels(["red", "blue"])


# -- the rest of scikit-learn, saving ----------------------------------------------------------------------------


@pytest.mark.parametrize("y", [FULL, FULL.to_numpy()])
def test_searches_and_cross_validation(y):
    scores = cross_val_score(classifier(max_epochs=1), TEXTS, y, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(classifier(), {"max_epochs": [1, 5]}, cv=2).fit(TEXTS, y)
    assert search.predict(TEXTS).shape == (8, 2)


def test_cross_validation_with_missing_classes():
    assert cross_val_score(classifier(max_epochs=1), TEXTS, Y, cv=KFold(2)).shape == (2,)


def test_stored_classifiers_predict_the_same(checkpoint, tmp_path):
    clf = GLiClassClassifier(pretrained=checkpoint, freeze_encoder=True, random_state=0, label_separator=".")
    clf.fit(TEXTS, Y)
    clf.save_pretrained(tmp_path / "model")
    loaded = GLiClassClassifier.from_pretrained(tmp_path / "model")
    for other in (loaded, pickle.loads(pickle.dumps(clf))):
        assert_lists_close(other.predict_proba(TEXTS), clf.predict_proba(TEXTS), atol=1e-6)
        assert other.target_names_ == clf.target_names_
        assert other.label_names_[0] == "topic.food"
        np.testing.assert_array_equal(other.temperature_, clf.temperature_)
    renamed = GLiClassClassifier.from_pretrained(tmp_path / "model", label_names=[["meal", "water"], ["b", "g", "r"]])
    assert renamed.label_names_ == ["meal", "water", "b", "g", "r"]
    assert clone(clf).fit(TEXTS, Y).label_names_ == clf.label_names_


def test_displays_name_the_labels_of_all_targets(fitted):
    pytest.importorskip("matplotlib").use("agg")
    from sklearn_gliclass.plotting import LabelSimilarityDisplay, ThresholdCurveDisplay, TokenAttributionDisplay

    assert LabelSimilarityDisplay.from_estimator(fitted).labels == ["food", "sea", "blue", "green", "red"]
    display = TokenAttributionDisplay.compute(fitted, "a red apple", label="red", n_steps=2)
    assert display.label == "red"
    with pytest.raises(ValueError, match="classifier has several targets; choose a label"):
        TokenAttributionDisplay.compute(fitted, "a red apple")
    with pytest.raises(ValueError, match=r"several targets, .* need no thresholds"):
        ThresholdCurveDisplay.from_estimator(fitted, TEXTS, Y)


def test_abstention_needs_one_target(fitted):
    with pytest.raises(ValueError, match="known_proba needs one target"):
        fitted.known_proba(TEXTS)
    with pytest.raises(ValueError, match="unknown_label='none' is the answer of one target"):
        classifier(unknown_label="none").fit(TEXTS, Y)
