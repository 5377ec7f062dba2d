"""Local classifiers of HiClass, with the classifier at the inner nodes of a taxonomy."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.testing import TINY

hiclass = pytest.importorskip("hiclass")

TEXTS = ["a cat purrs", "a kitten purrs", "a dog barks", "a hound barks", "an oak tree", "a pine tree", "red roses",
         "wild roses"]  # fmt: skip
PATHS = np.repeat([["Animals", "Cats"], ["Animals", "Dogs"], ["Plants", "Trees"], ["Plants", "Flowers"]], 2, axis=0)
CORPUS = np.array(TEXTS, dtype=object)
ROWS = np.arange(len(TEXTS)).reshape(-1, 1)


def local_classifier():
    clf = GLiClassClassifier(**{**TINY, "max_epochs": 30}, random_state=0)
    return make_pipeline(FunctionTransformer(lambda rows: CORPUS[rows[:, 0]]), clf)


def test_local_classifiers_per_parent_node():
    taxonomy = hiclass.LocalClassifierPerParentNode(local_classifier()).fit(ROWS, PATHS)
    np.testing.assert_array_equal(taxonomy.predict(ROWS), PATHS)
    nodes = dict(taxonomy.hierarchy_.nodes(data="classifier"))
    read = {name: sorted(nodes[name][-1].label_names_) for name in ("hiclass::root", "Animals", "Plants")}
    assert read == {
        "hiclass::root": ["Animals", "Plants"],
        "Animals": ["Animals > Cats", "Animals > Dogs"],
        "Plants": ["Plants > Flowers", "Plants > Trees"],
    }
