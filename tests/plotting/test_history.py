"""TrainingHistoryDisplay: the lines are the recorded history."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from skorch.callbacks import EpochScoring
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass import TrainingHistoryDisplay
from sklearn_gliclass.plotting.history import find_best_epoch, group_series, read_batch_loss, read_series

RL = [
    {"epoch": 1, "dur": 1.0, "train_loss": 0.5, "train_loss_best": True, "lr": 1e-5, "others_lr": 1e-4},
    {"epoch": 1, "dur": 2.0, "reward": 0.1, "reward_f1": 0.2, "advantage": 0.0, "kl": 0.3, "clip_fraction": 0.4,
     "policy_loss": 0.6, "lr": 1e-6, "event_cp": True, "train_batch_count": 4},
]  # fmt: skip


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    score = EpochScoring("accuracy", lower_is_better=False, name="accuracy")
    return tiny(early_stopping=True, validation_fraction=0.25, batch_size=2, callbacks=[("score", score)]).fit(
        TEXTS, LABELS
    )


def test_lines_are_the_history(fitted):
    display = TrainingHistoryDisplay.from_estimator(fitted)
    names = {"train_loss", "valid_loss", "accuracy", "lr", "others_lr"}
    assert set(display.lines_) == names
    for name in names:
        np.testing.assert_array_equal(display.lines_[name].get_ydata(), fitted.history_[:, name])
        np.testing.assert_array_equal(display.lines_[name].get_xdata(), np.arange(1, fitted.n_iter_ + 1))
    assert [ax.get_title() for ax in display.axes_] == ["loss", "score", "learning rate"]
    assert display.figure_ is display.axes_[0].figure
    assert display.bounding_ax_ is None


def test_batches_and_best_epoch(fitted):
    places, losses = read_batch_loss(fitted.history_)
    assert len(losses) == 3 * fitted.n_iter_  # 6 rows in batches of 2
    np.testing.assert_allclose(places[:3], [1 / 3, 2 / 3, 1])
    valid = np.array(fitted.history_[:, "valid_loss"])
    assert find_best_epoch(fitted.history_) == valid.argmin() + 1
    assert find_best_epoch(RL) is None
    assert read_batch_loss(RL) is None


def test_series_are_grouped_by_kind():
    series = read_series(RL)
    assert {"epoch", "dur", "event_cp", "train_loss_best", "train_batch_count"} & set(series) == set()
    np.testing.assert_array_equal(series["reward"], [np.nan, 0.1])
    assert group_series(RL, series) == {
        "loss": ["train_loss", "policy_loss"],
        "reward": ["reward", "reward_f1", "advantage"],
        "kl": ["kl"],
        "clip fraction": ["clip_fraction"],
        "learning rate": ["lr", "others_lr"],
    }
    display = TrainingHistoryDisplay.from_history(RL)
    assert len(display.axes_) == 5
    assert set(display.lines_) == set(series)


def test_line_upon_another_is_dashed():
    history = [{"epoch": n, "reward": n / 9, "reward_f1": n / 9, "advantage": -n} for n in (1, 2)]
    lines = TrainingHistoryDisplay.from_history(history).lines_
    assert {name: line.get_linestyle() for name, line in lines.items()} == {
        "reward": "-", "reward_f1": "--", "advantage": "-"
    }  # fmt: skip


def test_display_plots_on_the_given_axes(fitted):
    _, ax = plt.subplots()
    display = TrainingHistoryDisplay.from_estimator(fitted, ax=ax)
    assert display.figure_ is ax.figure
    assert display.bounding_ax_ is ax
    display.figure_.canvas.draw()
    plain = TrainingHistoryDisplay({"train_loss": [3, 2, 1]}).plot()
    assert len(plain.axes_) == 1


def test_untrained_estimator_raises():
    with pytest.raises(ValueError, match=r"not trained \(max_epochs=0"):
        TrainingHistoryDisplay.from_estimator(tiny(max_epochs=0).fit(TEXTS, LABELS))
