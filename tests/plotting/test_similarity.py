"""LabelSimilarityDisplay against NumPy and brute force."""

from itertools import pairwise, permutations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from tiny_estimators import ARCHITECTURES, TEXTS, tiny, tiny_of

from sklearn_gliclass import GLiClassRegressor
from sklearn_gliclass.explain import compute_label_embeddings
from sklearn_gliclass.plotting import LabelSimilarityDisplay
from sklearn_gliclass.plotting.similarity import order_by_similarity
from sklearn_gliclass.testing import TINY


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def blocks(order_seed, sizes=(4, 3, 5)):
    """Build a shuffled similarity matrix with blocks of similar labels, and return it with the block of each label."""
    rng = np.random.RandomState(order_seed)
    block = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    noise = rng.uniform(0, 0.1, (len(block), len(block)))
    similarity = np.where(block[:, None] == block, 0.8, 0.1) + (noise + noise.T) / 2
    np.fill_diagonal(similarity, 1)
    return similarity, block


@pytest.mark.parametrize("seed", range(5))
def test_blocks_stand_together(seed):
    similarity, block = blocks(seed)
    order = order_by_similarity(similarity)
    assert sorted(order) == list(range(12))
    assert np.count_nonzero(np.diff(block[order])) == 2


def test_neighbours_of_a_chain_stand_side_by_side():
    """Points on a line have one optimal order."""
    points = np.array([3.0, 0.0, 4.0, 1.0, 2.0])
    similarity = 1 - np.abs(points[:, None] - points) / 10

    def walk(order):
        return sum(similarity[a, b] for a, b in pairwise(order))

    assert walk(order_by_similarity(similarity)) == pytest.approx(max(map(walk, permutations(range(5)))))


def test_one_and_two_labels():
    assert order_by_similarity(np.ones((1, 1))).tolist() == [0]
    assert order_by_similarity(np.ones((2, 2))).tolist() == [0, 1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("X", [None, TEXTS[:3]])
def test_display_shows_cosines_of_an_estimator(architecture, X):
    clf = tiny_of(architecture).fit(TEXTS, [f"topic {i % 4}" for i in range(8)])
    display = LabelSimilarityDisplay.from_estimator(clf, X)
    embeddings = compute_label_embeddings(clf.model_, clf.fitted_.layout(), [""] if X is None else X)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(display.similarity, unit @ unit.T, atol=1e-6)
    shown = display.im_.get_array()
    np.testing.assert_allclose(shown.data, (unit @ unit.T)[np.ix_(display.order_, display.order_)], atol=1e-6)
    assert shown.mask.diagonal().all()
    ticks = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert ticks == [clf.classes_[index] for index in display.order_]
    assert display.figure_ is display.ax_.figure


def test_nearest_pairs_are_sorted():
    similarity = np.array([[1, 0.2, 0.9], [0.2, 1, 0.5], [0.9, 0.5, 1]])
    display = LabelSimilarityDisplay(similarity, ["a", "b", "c"])
    assert display.nearest(2) == [("a", "c", 0.9), ("b", "c", 0.5)]


def test_numbers_stand_in_the_cells_of_few_labels_only():
    similarity, block = blocks(0)
    few = LabelSimilarityDisplay(similarity, [str(b) for b in block]).plot()
    order = few.order_
    assert few.text_[0, 1].get_text() == f"{similarity[order[0], order[1]]:.2f}"
    assert few.text_[0, 0] is None
    many, block = blocks(0, (20, 30, 27))
    _, ax = plt.subplots()
    display = LabelSimilarityDisplay(many, [f"label {b}" for b in block]).plot(ax, colorbar=False, cmap="cividis")
    assert display.text_ is None
    assert display.ax_ is ax
    display.figure_.canvas.draw()


def test_prompts_hold_as_many_labels_as_in_predictions():
    """Labels in a prompt affect each other: 4 labels in prompts of 2 equal two estimators with 2 labels each."""
    clf = tiny_of("uni-encoder", max_num_classes=2).fit(TEXTS, [f"topic {i % 4}" for i in range(8)])
    fitted = clf.fitted_
    halves = [
        compute_label_embeddings(clf.model_, fitted.layout(clf.label_names_[first : first + 2])) for first in (0, 2)
    ]
    expected = cosine_similarity(np.concatenate(halves))
    np.testing.assert_allclose(LabelSimilarityDisplay.from_estimator(clf).similarity, expected, atol=1e-6)


def test_number_of_labels_in_a_prompt():
    fitted = tiny().fit(TEXTS, [f"topic {i % 4}" for i in range(8)]).fitted_
    assert fitted.labels_per_prompt() == fitted.config.max_num_classes
    assert fitted.labels_per_prompt(3) == 3
    assert GLiClassRegressor(**TINY).fit(TEXTS, np.arange(8.0)).fitted_.labels_per_prompt(3) is None


def test_outputs_of_regressors_are_labels():
    reg = GLiClassRegressor(**TINY, label_names=["joy", "fear"]).fit(TEXTS, np.arange(16.0).reshape(8, 2))
    assert LabelSimilarityDisplay.from_estimator(reg).labels == ["joy", "fear"]


def test_numbers_as_classes_are_labels():
    assert LabelSimilarityDisplay.from_estimator(tiny().fit(TEXTS, [0, 1] * 4)).labels == ["0", "1"]
