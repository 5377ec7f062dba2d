"""Ridge regression as a start of regressors, against scikit-learn's and brute force."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import normalize

from sklearn_gliclass.training.probe import ProbeData
from sklearn_gliclass.training.ridge import MIN_SHRINKAGE, PENALTIES, fit_ridge


def random_data(n_texts=40, width=12, n_outputs=1, noise=0.5, seed=0):
    rng = np.random.RandomState(seed)
    texts = normalize(rng.normal(size=(n_texts, width)))
    values = texts @ rng.normal(size=(width, n_outputs)) * 2 + noise * rng.normal(size=(n_texts, n_outputs))
    return texts, values - values.mean(axis=0), rng.randint(1, 4, n_texts).astype(float)


def fit(texts, values, weights=None):
    weights = np.ones(len(texts)) if weights is None else weights
    return fit_ridge(ProbeData(*map(torch.from_numpy, (texts, values, weights[:, None]))))


@pytest.mark.parametrize("shape", [{"n_outputs": 1}, {"n_outputs": 3}, {"n_texts": 10, "width": 30}])
@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_coefficients_equal_those_of_scikit_learn(shape, weighted):
    texts, values, weights = random_data(**shape)
    weights = weights if weighted else np.ones(len(texts))
    expected = RidgeCV(PENALTIES, fit_intercept=False).fit(texts, values, sample_weight=weights)
    coefficients = expected.coef_.reshape(values.shape[1], -1)
    probe = fit(texts, values, weights)
    np.testing.assert_allclose(probe.labels.numpy(), coefficients, atol=1e-8)
    assert probe.scale == pytest.approx(np.linalg.norm(coefficients, axis=1).max())


def test_ridge_shrinkage_is_the_slope_on_predictions_without_the_row():
    texts, values, _ = random_data(n_texts=30, width=40, n_outputs=2, noise=1.0)
    values[:, 1] *= 0.3
    penalty = RidgeCV(PENALTIES, fit_intercept=False).fit(texts, values).alpha_
    held_out = np.empty_like(values)
    for row in range(len(texts)):
        others = np.arange(len(texts)) != row
        ridge = Ridge(penalty, fit_intercept=False).fit(texts[others], values[others])
        held_out[row] = ridge.predict(texts[[row]])
    probe = fit(texts, values)
    norms = np.linalg.norm(probe.labels.numpy(), axis=1)
    slopes = (held_out * values).sum(axis=0) / (held_out**2).sum(axis=0)
    expected = np.clip(norms / norms.max() * np.minimum(slopes, 1), MIN_SHRINKAGE, 1)
    np.testing.assert_allclose(probe.shrinkage, expected, rtol=1e-6)
    assert (expected < 1).any()


def test_ridge_of_constant_values_predicts_zero():
    probe = fit(normalize(np.random.RandomState(0).normal(size=(8, 4))), np.zeros((8, 1)))
    assert probe.scale == 1.0
    assert not probe.labels.any()
