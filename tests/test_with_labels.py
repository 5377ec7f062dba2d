"""Open label sets: descriptions, and `with_labels` on a fitted classifier."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.data.prompt import LAYOUTS
from sklearn_gliclass.exceptions import LabelNamesWarning
from sklearn_gliclass.label_fit import LABEL_FIT_FILE, LabelFit, save_label_fit
from sklearn_gliclass.testing import TINY

TEXTS = ["a late goal", "a new law", "the match", "a vote", "goals", "laws and votes"]
Y = ["sports", "politics"] * 3
MULTI = pd.DataFrame({"politics": [0, 1, 0, 1, 0, 1], "sports": [1, 0, 1, 0, 1, 1]})
DESCRIPTIONS = {"sports": "a match or a goal", "politics": "laws and votes"}
ARCHITECTURES = ["uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder"]


def classifier(**parameters):
    return GLiClassClassifier(**{**TINY, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(TEXTS, Y)


def weights(clf):
    return {name: tensor.detach().clone().numpy() for name, tensor in clf.model_.named_parameters()}


def assert_same_weights(before, after):
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


# -- with_labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_new_labels_are_scored_by_the_same_weights(architecture):
    """With `label_names` swapped, the same model gives the same logits: nothing else depends on the labels."""
    encoder = {"encoder_config": {"model_type": "t5", "d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 2,
                                  "num_heads": 2}} if architecture == "encoder-decoder" else {}  # fmt: skip
    fitted = classifier(architecture_type=architecture, **encoder).fit(TEXTS, Y)
    other = fitted.with_labels(["law", "goal"])
    expected = copy.deepcopy(fitted)
    expected.fitted_.label_names = ["law", "goal"]
    np.testing.assert_allclose(other.predict_proba(TEXTS), expected.predict_proba(TEXTS), atol=1e-6)
    assert other.classes_.tolist() == other.label_names_ == ["law", "goal"]
    assert set(other.predict(TEXTS)) <= {"law", "goal"}


def test_old_labels_keep_their_logits_and_the_order_is_the_given_one(fitted):
    other = fitted.with_labels(["sports", "a vote", "politics"])
    assert other.classes_.tolist() == ["sports", "a vote", "politics"]
    logits, before = other._logits(TEXTS), fitted._logits(TEXTS)
    np.testing.assert_allclose(logits[:, [2, 0]], before, rtol=1e-6)  # classes_ of a fit are sorted
    np.testing.assert_allclose(fitted.with_labels(fitted.classes_).predict_proba(TEXTS), fitted.predict_proba(TEXTS))


def test_multi_label_probabilities_of_old_labels_are_the_same():
    fitted = classifier().fit(TEXTS, MULTI)
    other = fitted.with_labels(["law", "sports", "politics"])
    np.testing.assert_allclose(other.predict_proba(TEXTS)[:, [2, 1]], fitted.predict_proba(TEXTS), atol=1e-6)
    assert other.predict(TEXTS).shape == (6, 3)
    assert all(set(labels) <= {"law", "sports", "politics"} for labels in other.predict_labels(TEXTS))


def test_model_is_shared_in_memory(fitted):
    others = [fitted.with_labels(["sports", f"topic {i}"]) for i in range(3)]
    assert all(other.model_ is fitted.model_ for other in others)
    assert not hasattr(others[0], "net_")


def test_each_of_many_labels_is_encoded_once(fitted, monkeypatch):
    encoded = []
    layout = LAYOUTS["bi-encoder"]
    original = layout.label_batch
    monkeypatch.setattr(layout, "label_batch", lambda self, rows: encoded.extend(rows) or original(self, rows))
    other = fitted.with_labels([f"topic {i}" for i in range(1000)])
    assert other.predict_proba(TEXTS).shape == (6, 1000)
    other.predict(TEXTS[:1])
    assert sorted(encoded) == list(range(1000))


def test_labels_are_described_by_a_dict(fitted):
    other = fitted.with_labels({"S": "sports", "W": "the weather"})
    assert other.classes_.tolist() == ["S", "W"]
    assert other.label_names_ == ["sports", "the weather"]
    np.testing.assert_allclose(other._logits(TEXTS)[:, 0], fitted._logits(TEXTS)[:, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "label_names", [{"sports": "a match", "politics": "laws", "W": "weather"}, ["laws", "a match"], None]
)
def test_old_labels_keep_their_texts_and_new_ones_are_in_label_names(label_names):
    fitted = classifier(label_names=label_names).fit(TEXTS, Y)
    other = fitted.with_labels(["W", "sports"])
    new = "weather" if isinstance(label_names, dict) else "W"
    assert other.label_names_ == [new, "a match" if label_names else "sports"]
    assert other.label_names == (dict(zip(["W", "sports"], other.label_names_, strict=True)) if label_names else None)


@pytest.mark.parametrize("container", [list, tuple, np.array, pd.Series, pd.Index])
def test_labels_in_any_container_are_read(fitted, container):
    assert fitted.with_labels(container(["law", "goal"])).classes_.tolist() == ["law", "goal"]


def test_numeric_labels_take_names():
    fitted = classifier(label_names={1: "sports", 0: "politics"}).fit(TEXTS, [1, 0] * 3)
    other = fitted.with_labels({1: "sports", 7: "the weather"})
    assert other.classes_.tolist() == [1, 7]
    with pytest.warns(LabelNamesWarning, match="The classes are numbers"):
        fitted.with_labels([7, 8])


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.3, 0.3), ([0.2, 0.6], {"sports": 0.6, "politics": 0.2}),
                                ({"politics": 0.1, "sports": 0.9, "law": 0.4}, {"sports": 0.9, "politics": 0.1})]
)  # fmt: skip
def test_thresholds_are_matched_with_the_classes(threshold, expected):
    fitted = classifier(threshold=threshold).fit(TEXTS, MULTI)
    other = fitted.with_labels(["sports", "politics"])
    assert other.threshold == expected
    np.testing.assert_array_equal(other.predict(TEXTS), fitted.predict(TEXTS)[:, ::-1])


def test_threshold_of_a_new_label():
    fitted = classifier(threshold={"sports": 0.3, "politics": 0.4}).fit(TEXTS, MULTI)
    with pytest.raises(ValueError, match=r"none for the new label\(s\) \['law'\]; first set one number for all"):
        fitted.with_labels(["sports", "law"])
    fitted.set_params(threshold={"sports": 0.3, "politics": 0.4, "law": 0.6})
    assert fitted.with_labels(["sports", "law"]).threshold == {"sports": 0.3, "law": 0.6}


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [("balanced", "balanced"), (None, None), ({"politics": 3.0}, None), ([1.0, 2.0], {"sports": 2.0})],
)
def test_class_weights_are_matched_with_the_classes(class_weight, expected):
    other = classifier(class_weight=class_weight).fit(TEXTS, Y).with_labels(["sports", "law"])
    assert other.class_weight == expected
    other.partial_fit(TEXTS, ["sports", "law"] * 3)


def test_hyperparameters_and_the_table_are_kept():
    frame = pd.DataFrame({"title": TEXTS, "n": range(6)})
    fitted = classifier(text_template="{title}").fit(frame, Y)
    other = fitted.with_labels(["law", "goal"])
    assert other.feature_names_in_.tolist() == ["title", "n"]
    assert other.predict(frame).shape == (6,)
    np.testing.assert_array_equal(other.transform(frame), fitted.transform(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        other.predict(frame.rename(columns={"n": "m"}))
    different = {"label_names", "threshold", "class_weight", "encoder_config"}
    before, after = fitted.get_params(), other.get_params()
    assert {name: after[name] for name in after if name not in different} == {
        name: before[name] for name in before if name not in different
    }


def test_labels_of_labels_share_the_model(fitted):
    other = fitted.with_labels(["law", "goal"]).with_labels(["goal", "sports"])
    assert other.classes_.tolist() == ["goal", "sports"]
    assert other.model_ is fitted.model_


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["law"], ValueError, r"with_labels\(labels\) takes a list of at least 2 classes, .* got \['law'\]"),
        (["law", "law"], ValueError, r"\['law'\] more than once"),
        ("law", ValueError, "put the classes in a list"),
        (["law", None], ValueError, "got None at position 1"),
        (["law", ""], ValueError, "the empty label '' at position 1"),
        (["law", 3], ValueError, "classes of one type"),
        ({"law", "goal"}, TypeError, r"got set; pass sorted\(labels\)"),
        ({"law": "a text", "goal": 3}, TypeError, r"with_labels\(labels\) must hold texts \(str\), got int: 3"),
        ({"law": "a text", "goal": ""}, ValueError, "label text of the class 'goal' is empty"),
        ({"law": "a text", "goal": "a text"}, ValueError, r"same label text: \['a text'\]"),
        (["Law", "law"], ValueError, "Law"),
        (None, ValueError, "labels"),
    ],
)
def test_invalid_labels_raise(fitted, labels, error, message):
    with pytest.raises(error, match=message):
        fitted.with_labels(labels)


def test_labels_of_an_unfitted_classifier_raise():
    with pytest.raises(NotFittedError):
        classifier().with_labels(["law", "goal"])


def test_labels_that_do_not_fit_into_a_prompt_raise():
    fitted = classifier(architecture_type="uni-encoder").fit(TEXTS, Y)
    with pytest.raises(ValueError, match="max_length"):
        fitted.with_labels({"a": "many words " * 100, "b": "other words " * 100})


def test_labels_of_unknown_words_warn(fitted, monkeypatch):
    monkeypatch.setattr("sklearn_gliclass.fitted.find_unknown_labels", lambda layout: layout.label_texts[:1])
    with pytest.warns(LabelNamesWarning, match="unknown tokens"):
        fitted.with_labels(["\u4e2d", "sports"])


# -- training on shared weights ----------------------------------------------------------------------------------


def test_training_the_new_classifier_does_not_change_the_old_one():
    fitted = classifier().fit(TEXTS, Y)
    before = weights(fitted)
    other, third = fitted.with_labels(["law", "sports"]), fitted.with_labels(["goal", "vote"])
    other.partial_fit(TEXTS, ["sports", "law"] * 3)
    assert other.model_ is not fitted.model_
    assert third.model_ is fitted.model_
    assert_same_weights(before, weights(fitted))
    other.partial_fit(TEXTS, ["sports", "law"] * 3)
    assert any((value != weights(other)[name]).any() for name, value in before.items())


@pytest.mark.parametrize("method", ["partial_fit", "warm start"])
def test_training_the_old_classifier_does_not_change_the_new_ones(method):
    fitted = classifier(warm_start=method == "warm start").partial_fit(TEXTS, Y)
    expected = copy.deepcopy(fitted) if method == "warm start" else pickle.loads(pickle.dumps(fitted))
    others = [fitted.with_labels(["law", "sports"]), fitted.with_labels(["goal", "vote"])]
    before, model = weights(fitted), fitted.model_
    for clf in (fitted, expected):
        clf.fit(TEXTS, Y) if method == "warm start" else clf.partial_fit(TEXTS, Y)
    assert fitted.net_.module_ is fitted.model_ is not model
    assert others[0].model_ is others[1].model_ is model
    for other in others:
        assert_same_weights(before, weights(other))
    others[0].partial_fit(TEXTS, ["sports", "law"] * 3)
    assert_same_weights(before, weights(others[1]))


def test_training_is_that_of_a_classifier_that_shares_nothing():
    alone, shared = (classifier().partial_fit(TEXTS, Y) for _ in range(2))
    other = shared.with_labels(["law", "goal"])
    for clf in (alone, shared):
        clf.partial_fit(TEXTS, Y)
    np.testing.assert_array_equal(shared.predict_proba(TEXTS), alone.predict_proba(TEXTS))
    assert other.predict_proba(TEXTS).shape == (6, 2)


def test_failing_training_changes_neither():
    fitted = classifier().fit(TEXTS, Y)
    other = fitted.with_labels(["law", "sports"])
    before, model = weights(fitted), fitted.model_
    with pytest.raises(ValueError, match="goal"):
        other.partial_fit(TEXTS, ["goal", "law"] * 3)
    with pytest.raises(ValueError, match="weight"):
        other.partial_fit(TEXTS, ["sports", "law"] * 3, sample_weight=[np.nan] * 6)
    assert other.model_ is fitted.model_ is model
    assert_same_weights(before, weights(other))


def test_the_model_before_a_training_is_freed_with_the_classifiers_that_have_it():
    fitted = classifier().fit(TEXTS, Y)
    other, model = fitted.with_labels(["law", "goal"]), weakref.ref(fitted.model_)
    fitted.partial_fit(TEXTS, Y)
    assert other.model_ is model()
    del other
    gc.collect()
    assert model() is None
    model = weakref.ref(fitted.model_)
    fitted.partial_fit(TEXTS, Y)
    gc.collect()
    assert model() is None


# -- saving ------------------------------------------------------------------------------------------------------


def test_new_classifier_is_saved(fitted, tmp_path):
    other = fitted.with_labels({"S": "sports", "W": "the weather"})
    other.save_pretrained(tmp_path)
    loaded = GLiClassClassifier.from_pretrained(tmp_path)
    for same in (loaded, pickle.loads(pickle.dumps(other)), copy.deepcopy(other)):
        assert same.classes_.tolist() == ["S", "W"]
        assert same.label_names_ == ["sports", "the weather"]
        np.testing.assert_allclose(same.predict_proba(TEXTS), other.predict_proba(TEXTS), atol=1e-6)
    assert loaded.with_labels(["W", "law"]).label_names_ == ["the weather", "law"]


# -- descriptions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Save a checkpoint whose classes `fit(None, labels)` replaces."""
    folder = tmp_path_factory.mktemp("checkpoint")
    classifier().fit(TEXTS, Y).save_pretrained(folder)
    return str(folder)


def described(checkpoint, labels=DESCRIPTIONS, **parameters):
    return GLiClassClassifier(pretrained=checkpoint, max_epochs=1, device="cpu", **parameters).fit(None, labels)


def test_model_reads_the_descriptions(checkpoint):
    clf = described(checkpoint)
    assert clf.classes_.tolist() == ["sports", "politics"]
    assert clf.label_names_ == list(DESCRIPTIONS.values())
    expected = described(checkpoint, list(DESCRIPTIONS), label_names=DESCRIPTIONS)
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), expected.predict_proba(TEXTS))
    assert set(clf.predict(TEXTS)) <= set(DESCRIPTIONS)


def test_numbers_with_descriptions_do_not_warn(checkpoint, recwarn):
    clf = described(checkpoint, {1: "a match or a goal", 0: "laws and votes"})
    assert clf.classes_.tolist() == [1, 0]
    assert not [warning for warning in recwarn if warning.category is LabelNamesWarning]


def test_training_continues_with_the_descriptions(checkpoint, tmp_path):
    clf = described(checkpoint).partial_fit(TEXTS, Y)
    assert clf.label_names_ == list(DESCRIPTIONS.values())
    clf.save_pretrained(tmp_path)
    loaded = GLiClassClassifier.from_pretrained(tmp_path)
    assert loaded.label_names_ == list(DESCRIPTIONS.values())
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), clf.predict_proba(TEXTS), atol=1e-6)
    loaded.set_params(label_names=["new text", "other text"]).partial_fit(TEXTS, Y)
    assert loaded.label_names_ == ["new text", "other text"]


def test_warm_start_knows_the_descriptions(checkpoint):
    clf = described(checkpoint, warm_start=True).fit(TEXTS[:3], ["sports", "politics", "weather"])
    assert clf.classes_.tolist() == ["politics", "sports", "weather"]
    assert clf.label_names_ == ["laws and votes", "a match or a goal", "weather"]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"sports": "a match", "politics": 3}, TypeError, r"fit\(None, labels\) must hold texts \(str\), got int: 3"),
        ({"sports": "a match", "politics": ["law"]}, ValueError, r"without one for \['sports'\]"),
        ({"sports": "a match", "politics": " "}, ValueError, "label text of the class 'politics' is empty"),
        ({"sports": "a match", "politics": None}, TypeError, "got NoneType"),
        ({"sports": "a match", "politics": "a match"}, ValueError, "same label text"),
        ({"sports": "a match"}, ValueError, r"at least 2 classes, .* got \['sports'\]"),
        ({}, ValueError, r"got \[\]"),
    ],
)
def test_invalid_descriptions_raise(checkpoint, labels, error, message):
    with pytest.raises(error, match=message):
        described(checkpoint, labels)


def test_descriptions_beside_label_names_raise(checkpoint):
    with pytest.raises(ValueError, match="label_names sets other texts for the labels; set label_names=None"):
        described(checkpoint, label_names={"sports": "goals", "politics": "laws"})


def test_training_a_wrapper_of_a_shared_model_leaves_the_other():
    clf = classifier().fit(TEXTS, Y)
    other = clf.with_labels(["sports", "weather"])
    expected = other.decision_function(TEXTS)
    clf.model_ = copy.copy(clf.model_)  # another object with the same parameters, as of torch.compile
    clf.partial_fit(TEXTS, Y)
    np.testing.assert_array_equal(other.decision_function(TEXTS), expected)
    assert not np.allclose(clf.with_labels(["sports", "weather"]).decision_function(TEXTS), expected)


def test_unfreezing_the_encoder_leaves_classifiers_that_share_it():
    clf = classifier(freeze_encoder=True).fit(TEXTS, Y).partial_fit(TEXTS, Y)
    other = clf.with_labels(["sports", "weather"])
    clf.partial_fit(TEXTS, Y)
    shared, own = (part.model_.encoder_modules()[0].get_input_embeddings().weight for part in (clf, other))
    assert shared.data_ptr() == own.data_ptr()  # frozen weights are in memory once
    before, expected = weights(clf), other.predict_proba(TEXTS)
    clf.set_params(freeze_encoder=False).partial_fit(TEXTS, Y)
    np.testing.assert_array_equal(other.predict_proba(TEXTS), expected)
    changed = [name for name, value in weights(clf).items() if (value != before[name]).any()]
    assert any("encoder" in name for name in changed)


# -- new labels are read without the fit to the old ones ---------------------------------------------------------

NEW_LABELS = ["laws", "sports", "a vote", "goal"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint that fits start from with a label probe."""
    folder = tmp_path_factory.mktemp("start")
    classifier(max_epochs=0).fit(TEXTS, Y).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def probed(start):
    return GLiClassClassifier(pretrained=str(start), preset="fast", device="cpu", random_state=0).fit(TEXTS, Y)


def cosines(clf):
    return clf._logits(TEXTS) / clf.model_.model.logit_factor


def test_new_labels_are_those_of_the_model_before_a_label_probe(start, probed):
    before = GLiClassClassifier(pretrained=str(start), device="cpu").fit(None, NEW_LABELS)
    other = probed.with_labels(NEW_LABELS)
    new = [0, 2, 3]
    np.testing.assert_allclose(cosines(other)[:, new], cosines(before)[:, new], atol=1e-5)
    np.testing.assert_allclose(cosines(other)[:, 1], cosines(probed)[:, 1], atol=1e-5)
    assert abs(cosines(other)[:, 1] - cosines(before)[:, 1]).max() > 0.01
    changed = copy.deepcopy(other)
    changed.fitted_.label_fit = None
    assert abs(cosines(changed)[:, new] - cosines(before)[:, new]).max() > 0.01


def test_new_labels_are_those_without_class_prototypes():
    fits = [classifier(label_centroid_share=share).fit(TEXTS, Y).with_labels(NEW_LABELS) for share in (0.9, 0.0)]
    logits = [clf._logits(TEXTS) for clf in fits]
    np.testing.assert_allclose(logits[0][:, [0, 2, 3]], logits[1][:, [0, 2, 3]], atol=1e-4)
    assert abs(logits[0][:, 1] - logits[1][:, 1]).max() > 0.01


def test_new_labels_stay_the_same_when_stored_and_exported(probed, tmp_path):
    other = probed.with_labels(NEW_LABELS)
    expected = other.predict_proba(TEXTS)
    probed.save_pretrained(tmp_path / "old")
    other.save_pretrained(tmp_path / "new")
    copies = [GLiClassClassifier.from_pretrained(tmp_path / "new"), pickle.loads(pickle.dumps(other))]
    copies += [GLiClassClassifier.from_pretrained(tmp_path / "old").with_labels(NEW_LABELS)]
    for clf in copies:
        np.testing.assert_allclose(clf.predict_proba(TEXTS), expected, atol=1e-5)
    pytest.importorskip("onnxruntime")
    from sklearn_gliclass.onnx import OnnxClassifier

    other.export_onnx(tmp_path / "onnx new")
    np.testing.assert_allclose(OnnxClassifier(tmp_path / "onnx new").predict_proba(TEXTS), expected, atol=1e-5)
    probed.export_onnx(tmp_path / "onnx old")
    exported = OnnxClassifier(tmp_path / "onnx old").with_labels(NEW_LABELS)
    np.testing.assert_allclose(exported.predict_proba(TEXTS), expected, atol=1e-5)


def test_training_with_new_labels_starts_from_their_embeddings(probed):
    other = probed.with_labels(NEW_LABELS)
    before, alone = other._logits(TEXTS), probed._logits(TEXTS)
    other.set_params(lr=0.0, others_lr=0.0)
    other._construction.update(lr=0.0, others_lr=0.0)
    other.partial_fit(TEXTS, ["laws", "sports", "a vote", "goal", "sports", "laws"])
    np.testing.assert_allclose(other._logits(TEXTS), before, atol=1e-4)
    assert not other.fitted_.label_fit.is_new(NEW_LABELS).any()
    np.testing.assert_allclose(probed._logits(TEXTS), alone, atol=1e-6)


def test_explanations_are_those_of_the_predictions(probed):
    pytest.importorskip("matplotlib")
    from sklearn_gliclass.plotting import LabelSimilarityDisplay, TokenAttributionDisplay

    other = probed.with_labels(NEW_LABELS)
    found = TokenAttributionDisplay.compute(other, TEXTS[0], label="goal", n_steps=2)
    assert found.output == pytest.approx(other._logits(TEXTS[:1])[0, 3], abs=1e-4)
    labels = other.fitted_.label_embeddings()
    similarity = LabelSimilarityDisplay.from_estimator(other).similarity
    np.testing.assert_allclose(similarity, labels @ labels.T, atol=1e-5)


@pytest.mark.parametrize(("content", "message"), [(b"no tensors", "is damaged"), (None, "does not match the weights")])
def test_damaged_label_fit_is_named(probed, content, message, tmp_path):
    probed.save_pretrained(tmp_path)
    path = tmp_path / LABEL_FIT_FILE
    if content is None:
        save_label_fit(LabelFit(("sports",), torch.zeros(2, 3)), tmp_path)
    else:
        path.write_bytes(content)
    with pytest.raises((OSError, ValueError), match=message):
        GLiClassClassifier.from_pretrained(tmp_path)
