"""Progress bars: shown on request, one at a time, and removed afterwards."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from tiny_estimators import LABELS, TEXTS, tiny
from tqdm.std import tqdm

from sklearn_gliclass import inference
from sklearn_gliclass.training import trainer
from sklearn_gliclass.training.optimizers import OPTIMIZERS


@pytest.fixture
def bars(monkeypatch):
    """Record the bars that are shown, and check that there is one at a time."""
    seen = []

    class Recorded(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.last = 0
            if not self.disable:
                seen.append(self)
                open_bars = [bar for bar in seen if not bar.disable]
                assert len(open_bars) == 1, "two bars at once"

        def close(self):
            self.last = self.n
            super().close()  # it sets `disable`

    monkeypatch.setattr(trainer, "tqdm", Recorded)
    monkeypatch.setattr(inference, "tqdm", Recorded)
    monkeypatch.setattr(inference, "PROGRESS_FROM", 4)
    return seen


def is_closed(bar) -> bool:
    return bar.disable and bar.pos == 0 and not bar.leave


def test_no_bars_by_default(bars, capfd):
    tiny().fit(TEXTS, LABELS).predict(TEXTS)
    assert bars == []
    assert capfd.readouterr() == ("", "")


def test_one_bar_for_a_fit_and_one_for_a_long_prediction(bars, capfd):
    clf = tiny(verbose=1, batch_size=4, max_epochs=3).fit(TEXTS, LABELS)
    clf.predict(TEXTS[:3])  # not long
    clf.predict(TEXTS)
    clf.transform(TEXTS)
    assert [(bar.desc, bar.total, bar.last) for bar in bars] == [("fit", 6, 6), ("predict", 8, 8), ("predict", 8, 8)]
    assert all(map(is_closed, bars))
    shown = capfd.readouterr().err
    assert "fit: 100%" in shown
    assert f"train_loss={clf.history_[-1, 'train_loss']:.4f}" in shown
    assert shown.endswith("\r")  # the last bar was wiped off


def test_one_bar_at_a_time_in_a_search(bars):
    grid = GridSearchCV(tiny(verbose=1, max_epochs=1), {"scorer_type": ["simple", "mlp"]}, cv=2, n_jobs=1)
    grid.fit(TEXTS, LABELS).predict(TEXTS)
    assert [bar.desc for bar in bars] == [*["fit", "predict"] * 4, "fit", "predict"]
    assert all(map(is_closed, bars))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_in_fit_closes_the_bar(bars, monkeypatch, error):
    class Failing(OPTIMIZERS["sgd"]):
        def step(self, closure=None):
            raise error("stop")

    monkeypatch.setitem(OPTIMIZERS, "sgd", Failing)
    clf = tiny(verbose=1, optim="sgd")
    with pytest.raises(error):
        clf.fit(TEXTS, LABELS)
    assert len(bars) == 1
    assert is_closed(bars[0])
    tiny(verbose=1, max_epochs=1).fit(TEXTS, LABELS)  # on the same line


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_in_a_prediction_closes_the_bar(bars, monkeypatch, error):
    clf = tiny(verbose=1, max_epochs=1).fit(TEXTS, LABELS)

    def fail(*args, **kwargs):
        raise error("stop")

    monkeypatch.setattr(clf.model_, "forward", fail)
    with pytest.raises(error, match="stop"):
        clf.predict(TEXTS)
    assert len(bars) == 2
    assert all(map(is_closed, bars))


def test_partial_fit_and_early_stopping(bars):
    clf = tiny(verbose=1, early_stopping=True, validation_fraction=0.25, max_epochs=2)
    clf.fit(TEXTS, LABELS)
    clf.set_params(early_stopping=False).partial_fit(TEXTS, LABELS)
    assert all(map(is_closed, bars))
    assert np.isfinite(clf.decision_function(TEXTS)).all()
