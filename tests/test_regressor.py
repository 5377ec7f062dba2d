"""GLiClassRegressor: units, outputs, names."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import normalize
from tiny_estimators import ARCHITECTURES, TEXTS

from sklearn_gliclass import GLiClassModelConfig, GLiClassRegressor
from sklearn_gliclass.parameters import CLASSIFICATION_PARAMETERS
from sklearn_gliclass.testing import TINY, TINY_ENCODERS
from sklearn_gliclass.training.ridge import PENALTIES

VALUES = np.array([3.0, 4.0, 5.0, 4.0, -3.0, -4.0, -5.0, -4.0])


def tiny(**hyperparameters):
    return GLiClassRegressor(**{**TINY, "random_state": 0, **hyperparameters})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_estimator_learns_its_training_texts(architecture):
    """The reference has no data set for regression."""
    encoder = TINY_ENCODERS[ARCHITECTURES[architecture]]
    options = {"max_epochs": 40, "lr": 4e-3, "others_lr": 4e-3}
    reg = tiny(architecture_type=architecture, encoder_config=encoder, **options).fit(TEXTS, VALUES)
    assert reg.score(TEXTS, VALUES) > 0.8
    assert reg.config_.problem_type == "regression"


def test_predictions_are_in_the_units_of_y():
    plain = tiny(dtype="float64").fit(TEXTS, VALUES)
    scaled = clone(plain).fit(TEXTS, 1000 * VALUES + 5e5)
    np.testing.assert_allclose(scaled.predict(TEXTS), 1000 * plain.predict(TEXTS) + 5e5, rtol=1e-9)
    np.testing.assert_allclose(plain.target_mean_, [VALUES.mean()], atol=1e-12)
    np.testing.assert_allclose(plain.target_scale_, [VALUES.std()])


def test_constant_y_is_predicted_in_its_place():
    reg = tiny(max_epochs=30, lr=5e-3, others_lr=5e-3).fit(TEXTS, np.full(8, 7.0))
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
    assert tiny(architecture_type="bi-encoder", max_epochs=1).fit(TEXTS, y).predict(TEXTS).shape == (8, 30)


def test_partial_fit_keeps_the_units():
    reg = tiny().partial_fit(TEXTS, VALUES)
    mean, scale = reg.target_mean_, reg.target_scale_
    reg.partial_fit(TEXTS[:2], [100.0, 200.0])
    np.testing.assert_array_equal((reg.target_mean_, reg.target_scale_), (mean, scale))
    assert reg.n_iter_ == 2


# -- shrinkage -------------------------------------------------------------------------------------------------

MANY_TEXTS = [f"{text} {number}" for number in range(5) for text in TEXTS]
NOISE = np.random.RandomState(0).randn(len(MANY_TEXTS), 2)


def test_shrinkage_is_the_slope_on_predictions_of_models_that_were_trained_without_the_rows():
    signal = np.c_[np.tile(VALUES, 5) + NOISE[:, 0], NOISE[:, 1]]  # the second output is noise
    reg = tiny(max_epochs=15, lr=4e-3, others_lr=4e-3, dtype="float64").fit(MANY_TEXTS, signal)
    rows = np.random.RandomState(0).permutation(len(MANY_TEXTS))
    first, second = rows[:20], rows[20:]
    standardised = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    predicted = np.empty_like(signal)
    for train, test in ((second, first), (first, second)):
        half = clone(reg).set_params(shrinkage=1.0)
        # The halves are standardised with the mean and deviation of all rows, to mean 0 and deviation 1.
        half.fit([MANY_TEXTS[row] for row in train], standardised[train])
        predicted[test] = half.predict([MANY_TEXTS[row] for row in test])
    slopes = [np.linalg.lstsq(predicted[:, [i]], standardised[:, i], rcond=None)[0][0] for i in range(2)]
    assert reg.shrinkage_[0] > 0.6 > 0.3 > reg.shrinkage_[1]
    np.testing.assert_allclose(reg.shrinkage_, np.clip(slopes, 0.1, 1.0), atol=0.2)


def test_truncation_warns_once_for_all_rows():
    with pytest.warns(UserWarning, match="too long") as record:
        tiny(max_length=12, max_epochs=1, long_texts="truncate").fit(
            ["word " * 20] * len(MANY_TEXTS), np.arange(len(MANY_TEXTS))
        )
    assert [str(warning.message).split(" texts")[0] for warning in record] == [
        f"{len(MANY_TEXTS)} of {len(MANY_TEXTS)}"
    ]
    assert record[0].filename == __file__


def test_shrinkage_moves_predictions_towards_the_mean():
    whole, half = (tiny(shrinkage=shrinkage).fit(TEXTS, VALUES) for shrinkage in (1.0, 0.5))
    np.testing.assert_allclose(
        half.predict(TEXTS) - VALUES.mean(), (whole.predict(TEXTS) - VALUES.mean()) / 2, rtol=1e-6
    )


@pytest.mark.full
def test_noise_is_predicted_better_with_shrinkage():
    rng = np.random.RandomState(0)
    words = " ".join(TEXTS).split()
    errors = []
    for _ in range(3):
        texts, y = [" ".join(rng.choice(words, 6)) for _ in range(64)], rng.randn(64)
        errors.append(
            [
                np.square(
                    tiny(max_epochs=30, shrinkage=shrinkage).fit(texts[:32], y[:32]).predict(texts[32:]) - y[32:]
                ).mean()
                for shrinkage in ("auto", 1.0)
            ]
        )
    shrunk, whole = np.mean(errors, axis=0)
    assert shrunk < 0.9 * whole


def test_shrinkage_resolves_to_one_without_cross_validation(tmp_path):
    def ones(reg):
        return reg.shrinkage_.tolist() == [1.0]

    y = NOISE[:, 0]
    assert ones(tiny().fit(MANY_TEXTS[:19], y[:19]))
    assert ones(tiny(max_epochs=0).fit(MANY_TEXTS, y))
    assert ones(tiny().partial_fit(MANY_TEXTS, y))
    reg = tiny(warm_start=True).fit(MANY_TEXTS, y)
    measured = reg.shrinkage_
    assert measured < 1
    for goes_on in (reg.fit, reg.partial_fit):
        goes_on(MANY_TEXTS, y)
        np.testing.assert_array_equal(reg.shrinkage_, measured)
    reg.save_pretrained(tmp_path)
    loaded = GLiClassRegressor.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.shrinkage_, measured)
    np.testing.assert_allclose(loaded.predict(TEXTS), reg.predict(TEXTS), rtol=1e-5)


@pytest.mark.full
def test_weights_count_in_the_shrinkage():
    """Rows with a tiny weight have no effect: the second half of the rows is another task."""
    y = np.r_[np.tile(VALUES, 3), 10 * NOISE[24:, 0]]
    weight = np.r_[np.ones(24), np.full(16, 1e-9)]
    heard, unheard = (tiny(max_epochs=30).fit(MANY_TEXTS, y, w).shrinkage_[0] for w in (None, weight))
    assert heard < unheard


@pytest.mark.parametrize("shrinkage", [0, 1.5, "yes", None])
def test_invalid_shrinkage_raises(shrinkage):
    with pytest.raises(ValueError, match="The 'shrinkage' parameter of GLiClassRegressor must be"):
        tiny(shrinkage=shrinkage).fit(TEXTS, VALUES)


@pytest.mark.parametrize(
    ("y", "hyperparameters", "message"),
    [
        (VALUES[:3], {}, "inconsistent numbers of samples"),
        ([*VALUES[:7], np.nan], {}, "contains NaN"),
        (VALUES, {"label_names": ["a", "b"]}, "2 texts for 1 labels"),
    ],
)
def test_invalid_input_raises(y, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        tiny(**hyperparameters).fit(TEXTS, y)


@pytest.mark.parametrize("name", [*CLASSIFICATION_PARAMETERS, "problem_type"])
def test_has_no_keyword_of_classification(name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        GLiClassRegressor(**{name: None})


def test_loss_has_no_terms_of_classification():
    config = tiny(max_epochs=1).fit(TEXTS, VALUES).config_
    documented = GLiClassModelConfig()
    for name in CLASSIFICATION_PARAMETERS:
        assert getattr(config, name) == getattr(documented, name), name


def test_contrastive_loss_coef_separates_the_outputs():
    y = np.c_[VALUES, VALUES[::-1]]
    plain, separated = (tiny(contrastive_loss_coef=weight).fit(TEXTS, y).predict(TEXTS) for weight in (0, 1.0))
    assert not np.allclose(plain, separated, rtol=1e-4)


def test_shrinkage_takes_a_weight_as_repeated_rows():
    """Duplicated rows, in any order, give the same shrinkage as rows of weight 2."""
    weight = np.tile([1, 2, 3], len(MANY_TEXTS) // 3 + 1)[: len(MANY_TEXTS)]
    order = np.random.RandomState(1).permutation(np.repeat(np.arange(len(MANY_TEXTS)), weight))
    y = np.tile(VALUES, 5) + NOISE[:, 0]
    # One batch and double precision: sums are then the same.
    options = {"dtype": "float64", "batch_size": 1000, "max_epochs": 3}
    weighted = tiny(**options).fit(MANY_TEXTS, y, sample_weight=weight)
    repeated = tiny(**options).fit([MANY_TEXTS[row] for row in order], y[order])
    np.testing.assert_allclose(repeated.shrinkage_, weighted.shrinkage_, rtol=1e-8)
    assert 0.1 < weighted.shrinkage_[0] < 1


# -- ridge regression ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regressor")
    tiny(dtype="float64", max_epochs=0).fit(MANY_TEXTS, NOISE[:, 0]).save_pretrained(folder)
    return str(folder)


def from_checkpoint(checkpoint, **hyperparameters):
    return GLiClassRegressor(pretrained=checkpoint, dtype="float64", random_state=0, **hyperparameters)


def test_frozen_fit_is_a_ridge_regression_on_the_embeddings(checkpoint):
    y = np.c_[np.tile(VALUES, 5), np.tile(VALUES[::-1], 5)] + NOISE
    reg = from_checkpoint(checkpoint, freeze_encoder=True, shrinkage=1.0).fit(MANY_TEXTS, y[:, :1])
    with torch.no_grad():
        project = reg.model_.model.text_projector
        features = normalize(project(torch.from_numpy(reg.transform(MANY_TEXTS)).double()).numpy())
    standardised = (y - y.mean(axis=0)) / y.std(axis=0)
    ridge = RidgeCV(PENALTIES, fit_intercept=False).fit(features, standardised[:, 0])
    expected = ridge.predict(features) * y[:, 0].std() + y[:, 0].mean()
    np.testing.assert_allclose(reg.predict(MANY_TEXTS)[:, 0], expected, atol=1e-4)
    assert reg.n_iter_ == 0
    both = from_checkpoint(checkpoint, preset="fast").fit(MANY_TEXTS, y)
    ridge = RidgeCV(PENALTIES, fit_intercept=False).fit(features, standardised)
    norms = np.linalg.norm(ridge.coef_, axis=1)
    assert (both.shrinkage_ <= norms / norms.max() + 1e-4).all()


def test_fit_from_a_checkpoint_starts_with_a_ridge_regression(checkpoint):
    y = np.tile(VALUES, 5)
    reg = from_checkpoint(checkpoint).fit(MANY_TEXTS, y)
    assert reg.n_iter_ == round(36 * math.sqrt(8 / len(y)))
    assert reg.freeze_encoder_ == "embeddings"
    assert reg.score(MANY_TEXTS, y) > from_checkpoint(checkpoint, preset="fast").fit(MANY_TEXTS, y).score(MANY_TEXTS, y)


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_fit_takes_a_weight_as_repeated_rows(checkpoint, preset):
    weight = np.tile([1, 2, 3], len(MANY_TEXTS) // 3 + 1)[: len(MANY_TEXTS)]
    order = np.random.RandomState(1).permutation(np.repeat(np.arange(len(MANY_TEXTS)), weight))
    y = np.tile(VALUES, 5) + NOISE[:, 0]
    reg = from_checkpoint(checkpoint, preset=preset, batch_size=1000, max_epochs=None if preset == "fast" else 3)
    weighted = clone(reg).fit(MANY_TEXTS, y, sample_weight=weight)
    repeated = clone(reg).fit([MANY_TEXTS[row] for row in order], y[order])
    np.testing.assert_allclose(repeated.shrinkage_, weighted.shrinkage_, rtol=1e-6)
    np.testing.assert_allclose(repeated.predict(TEXTS), weighted.predict(TEXTS), rtol=1e-4)
    unweighted = clone(reg).fit(MANY_TEXTS, y).predict(TEXTS)
    assert not np.allclose(unweighted, weighted.predict(TEXTS), rtol=1e-2)
