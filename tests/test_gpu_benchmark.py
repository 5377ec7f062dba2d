"""benchmarks/gpu.py on a processor, with a tiny encoder."""

from argparse import Namespace

import numpy as np
import pytest

import common
import gpu
from sklearn_gliclass.testing import TINY_BERT

LABELS = ["sports", "politics", "weather"]
TEXTS = ["a late goal", "a new law was passed today", "rain", "the party lost the vote of the house"] * 4
OPTIONS = Namespace(device="cpu", clock="wall", repeats=1)
TINY = {"encoder_config": TINY_BERT, "max_length": 64, "device": "cpu", "dtype": "bfloat16"}


@pytest.fixture(autouse=True)
def smaller(monkeypatch):
    monkeypatch.setattr(gpu, "BATCH_SIZES", (8,))
    monkeypatch.setattr(gpu, "TRAINING_BATCH", 8)


@pytest.fixture
def reference():
    return pytest.importorskip("gliclass")


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("architecture", ["uni-encoder", "bi-encoder"])
def test_prediction_is_compared_with_the_reference(architecture, capsys):
    clf = common.untrained(architecture, LABELS, **TINY)
    gpu.measure_prediction(clf, architecture, TEXTS, LABELS, OPTIONS, peak=1e9)
    cells = [cell.strip() for cell in capsys.readouterr().out.split("|")]
    assert cells[1:5] == ["predict", architecture, "3", "16"]
    assert float(cells[9]) < 0.02


@pytest.mark.usefixtures("reference")
def test_training_is_compared_with_the_reference(capsys):
    clf = common.untrained("uni-encoder", LABELS, batch_size=8, **TINY, lr=1e-5, others_lr=1e-5)
    gpu.measure_training(clf, "uni-encoder", TEXTS, LABELS, OPTIONS, peak=1e9)
    cells = [cell.strip() for cell in capsys.readouterr().out.split("|")]
    assert cells[1:5] == ["train", "uni-encoder", "3", "16"]
    assert float(cells[6]) > 0


@pytest.mark.full
def test_peak_is_that_of_a_matrix_product():
    assert gpu.matrix_peak("cpu", repeats=2) > 1e8


def test_different_probabilities_raise():
    found = [[{"label": label, "score": 0.5} for label in LABELS]]
    with pytest.raises(AssertionError, match=r"differ by 0\.4"):
        gpu.mean_difference(constant_probabilities(0.9), found, LABELS)
    assert gpu.mean_difference(constant_probabilities(0.5), found, LABELS) == 0


def constant_probabilities(value):
    return np.full((1, len(LABELS)), value)
