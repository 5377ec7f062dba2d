"""Fixtures of the tests with dask, Ray and Spark."""

import pytest
from frames import CLASSES, OPTIONS, TEXTS

from sklearn_gliclass import GLiClassClassifier


@pytest.fixture(scope="package")
def classifier():
    return GLiClassClassifier(**OPTIONS).fit(TEXTS, CLASSES)


@pytest.fixture(scope="package")
def folder(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    classifier.save_pretrained(folder)
    return folder
