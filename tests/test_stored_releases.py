"""Estimators that earlier releases have saved load, and predict what they predicted then."""

import json
from pathlib import Path

import numpy as np
import pytest

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor

RELEASES = sorted((Path(__file__).parent / "data").glob("release_*"))


def test_there_are_releases():
    assert RELEASES


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_stored_estimators_predict_as_before(folder):
    expected = json.loads((folder / "expected.json").read_text())
    clf = GLiClassClassifier.from_pretrained(folder / "classifier", device="cpu")
    reg = GLiClassRegressor.from_pretrained(folder / "regressor", device="cpu")
    texts = expected["texts"]
    assert clf.classes_.tolist() == expected["classes"]
    np.testing.assert_allclose(clf.predict_proba(texts), expected["probabilities"], atol=1e-4)
    np.testing.assert_allclose(clf.transform(texts), expected["embeddings"], atol=1e-4)
    np.testing.assert_allclose(reg.predict(texts), expected["predictions"], rtol=1e-3)
    assert clf.fit(texts, ["sports", "sports", "politics", "politics"]).predict(texts).shape == (4,)
