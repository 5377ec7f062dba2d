"""Stages of a training: the average of trained weights with those before."""

import numpy as np
import pytest
import torch
from tiny_estimators import LABELS, TEXTS

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training import stages

CASES = {
    "classes": (GLiClassClassifier, LABELS, 24),
    "values": (GLiClassRegressor, np.linspace(-1, 1, len(TEXTS)), 100),
}


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_trained_weights_are_averaged_with_those_before(tmp_path, monkeypatch, case, weight):
    estimator, y, rows_for_half = CASES[case]
    estimator(**{**TINY, "max_epochs": 0, "random_state": 0}).fit(TEXTS, y).save_pretrained(tmp_path)

    def fit():
        options = {"dtype": "float64", "random_state": 0, "max_epochs": 2, "freeze_encoder": False}
        fitted = estimator(pretrained=str(tmp_path), **options)
        fitted.fit(TEXTS, y, sample_weight=np.full(len(TEXTS), weight))
        return torch.cat([parameter.flatten() for parameter in fitted.model_.encoder.parameters()]).detach()

    averaged = fit()
    monkeypatch.setattr(stages, "fine_tuned_share", lambda *_: 0.0)
    before = fit()
    monkeypatch.setattr(stages, "fine_tuned_share", lambda *_: 1.0)
    trained = fit()
    share = 1 / (1 + np.sqrt(rows_for_half / (weight * len(TEXTS))))
    assert not torch.allclose(trained, before)
    torch.testing.assert_close(averaged, before + share * (trained - before))
