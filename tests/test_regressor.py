"""GLiClassRegressor: units, outputs, names."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from test_classifier import ARCHITECTURES, TEXTS

from sklearn_gliclass import GLiClassRegressor
from sklearn_gliclass.testing import TINY, TINY_ENCODERS

VALUES = np.array([3.0, 4.0, 5.0, 4.0, -3.0, -4.0, -5.0, -4.0])


def tiny(**hyperparameters):
    return GLiClassRegressor(**{**TINY, "random_state": 0, **hyperparameters})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_learns_what_it_is_shown(architecture):
    """Defect 4: the reference has no data path for regression."""
    encoder = TINY_ENCODERS[ARCHITECTURES[architecture]]
    reg = tiny(architecture_type=architecture, encoder_config=encoder, max_epochs=60).fit(TEXTS, VALUES)
    assert reg.score(TEXTS, VALUES) > 0.8
    assert reg.config_.problem_type == "regression"


def test_predictions_are_in_the_units_of_y():
    plain = tiny(dtype="float64").fit(TEXTS, VALUES)
    scaled = clone(plain).fit(TEXTS, 1000 * VALUES + 5e5)
    np.testing.assert_allclose(scaled.predict(TEXTS), 1000 * plain.predict(TEXTS) + 5e5, rtol=1e-9)
    np.testing.assert_allclose(plain.target_mean_, [VALUES.mean()], atol=1e-12)
    np.testing.assert_allclose(plain.target_scale_, [VALUES.std()])


def test_a_constant_y_is_predicted_in_its_place():
    reg = tiny(max_epochs=60).fit(TEXTS, np.full(8, 7.0))
    np.testing.assert_allclose(reg.predict(TEXTS), 7.0, atol=0.5)


@pytest.mark.parametrize(
    ("y", "names", "shape"),
    [
        (VALUES, ["target"], (8,)),
        (pd.Series(VALUES, name="mood"), ["mood"], (8,)),
        (VALUES[:, None], ["target"], (8, 1)),
        (np.c_[VALUES, -VALUES], ["target 0", "target 1"], (8, 2)),
        (pd.DataFrame({"mood": VALUES, "anger": -VALUES}), ["mood", "anger"], (8, 2)),
    ],
    ids=["array", "series", "column", "two columns", "frame"],
)
def test_outputs_and_their_names(y, names, shape):
    reg = tiny().fit(TEXTS, y)
    assert reg.label_names_ == names
    assert reg.predict(TEXTS).shape == shape


def test_label_names_are_read():
    frame = pd.DataFrame({"mood": VALUES, "anger": -VALUES})
    named = tiny(label_names={"mood": "how good", "anger": "how bad"}).fit(TEXTS, frame)
    assert named.label_names_ == ["how good", "how bad"]
    assert not np.allclose(named.predict(TEXTS), tiny().fit(TEXTS, frame).predict(TEXTS))


def test_many_outputs_are_read_at_once():
    y = np.random.RandomState(0).randn(8, 30)
    assert tiny(architecture_type="bi-encoder", max_num_classes=2, max_epochs=1).fit(TEXTS, y).predict(TEXTS).shape == (
        8,
        30,
    )


def test_partial_fit_keeps_the_units():
    reg = tiny().partial_fit(TEXTS, VALUES)
    mean, scale = reg.target_mean_, reg.target_scale_
    reg.partial_fit(TEXTS[:2], [100.0, 200.0])
    np.testing.assert_array_equal((reg.target_mean_, reg.target_scale_), (mean, scale))
    assert reg.n_iter_ == 2


@pytest.mark.parametrize(
    ("y", "hyperparameters", "message"),
    [
        (VALUES[:3], {}, "inconsistent numbers of samples"),
        ([*VALUES[:7], np.nan], {}, "contains NaN"),
        (VALUES, {"problem_type": "single_label_classification"}, "use GLiClassClassifier"),
        (VALUES, {"label_names": ["a", "b"]}, "2 texts for 1 labels"),
    ],
)
def test_wrong_input_is_named(y, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        tiny(**hyperparameters).fit(TEXTS, y)
