"""Training curves: losses, scores, learning rates and rewards over the epochs."""

from numbers import Number

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .figure import COLOURS, create_panels

_NO_SERIES = ("epoch", "dur", "batches")
MARKED_UP_TO = 30  # number of epochs up to which lines have markers


class TrainingHistoryDisplay:
    """Training curves of an estimator.

    Each series of the history is a line. Losses, scores, learning rates, rewards and other series have panels of their
    own.

    It is created by :meth:`from_estimator` or :meth:`from_history`.

    Parameters
    ----------
    series : dict of str to array-like of shape (n_epochs,)
        Values of each series, NaN for epochs without a value.
    panels : dict of str to list of str, optional
        Names of the series in each panel, by the title of the panel. If None, one panel for all.
    batch_loss : tuple of two ndarrays, optional
        Positions of the batches in epochs, and their losses.
    best_epoch : int, optional
        Epoch whose weights were restored by early stopping.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that contains the panels.
    axes_ : ndarray of matplotlib Axes
        Axes of the panels.
    lines_ : dict of str to Line2D
        Lines of the series.
    bounding_ax_ : matplotlib Axes or None
        The `ax` that was passed, whose area the panels fill.

    See Also
    --------
    GLiClassClassifier : Classifier whose `history_` is plotted.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier, TrainingHistoryDisplay
    >>> from sklearn_gliclass.testing import TINY
    >>> clf = GLiClassClassifier(**TINY).fit(["good", "bad"], ["pos", "neg"])
    >>> display = TrainingHistoryDisplay.from_estimator(clf)
    >>> sorted(display.lines_)
    ['lr', 'others_lr', 'train_loss']
    """

    def __init__(self, series, panels=None, batch_loss=None, best_epoch=None):
        self.series = series
        self.panels = panels
        self.batch_loss = batch_loss
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Plot the training curves of a fitted estimator.

        Parameters
        ----------
        estimator : GLiClassClassifier or GLiClassRegressor
            Fitted estimator.
        ax : matplotlib Axes, optional
            Axes whose area the panels fill. If None, a new figure is created.

        Returns
        -------
        TrainingHistoryDisplay
            The display.
        """
        check_is_fitted(estimator, "model_")
        if not len(getattr(estimator, "history_", ())):
            raise ValueError(
                "The estimator was not trained (max_epochs=0, fit(None, labels) or from_pretrained) and has no "
                "history; fit it on examples first."
            )
        return cls.from_history(estimator.history_, ax=ax)

    @classmethod
    def from_history(cls, history, *, ax=None):
        """Plot the training curves of a history.

        Parameters
        ----------
        history : skorch.history.History or list of dict
            History with a row for each epoch.
        ax : matplotlib Axes, optional
            Axes whose area the panels fill. If None, a new figure is created.

        Returns
        -------
        TrainingHistoryDisplay
            The display.
        """
        series = read_series(history)
        return cls(series, group_series(history, series), read_batch_loss(history), find_best_epoch(history)).plot(ax)

    def plot(self, ax=None):
        """Plot the training curves.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes whose area the panels fill. If None, a new figure is created.

        Returns
        -------
        TrainingHistoryDisplay
            This display.
        """
        panels = self.panels or {"": list(self.series)}
        self.figure_, self.axes_, self.bounding_ax_ = create_panels(self, ax, len(panels), 3, (4.2, 3.2))
        self.lines_ = {}
        for axes, (title, names) in zip(self.axes_, panels.items(), strict=True):
            self._plot_panel(axes, title, names)
        return self

    def _plot_panel(self, axes, title, names):
        if "train_loss" in names and self.batch_loss is not None:
            axes.plot(*self.batch_loss, ".", color="0.7", markersize=3, label="single batches")
        for name, colour in zip(names, COLOURS * len(names), strict=False):
            values = np.asarray(self.series[name], dtype=float)
            epochs = np.arange(1, len(values) + 1)
            marker = "o" if len(values) <= MARKED_UP_TO else None
            label = name.replace("_", " ")
            # A sum of one component, such as the reward, equals it: dashed lines let the line below show.
            hides = any(np.array_equal(values, line.get_ydata(), equal_nan=True) for line in axes.lines)
            (self.lines_[name],) = axes.plot(
                epochs, values, "--" if hides else "-", color=colour, marker=marker, markersize=3, label=label
            )
        if "valid_loss" in names and self.best_epoch is not None:
            axes.axvline(self.best_epoch, color="0.5", linestyle=":", label="best epoch")
        n_epochs = max(map(len, self.series.values()))
        axes.set(title=title, xlabel="epoch", xlim=(0, n_epochs * 1.03))
        axes.xaxis.get_major_locator().set_params(integer=True)
        if title == "learning rate":
            axes.yaxis.set_major_formatter("{x:.1e}")  # an offset text on top would overlap the title
        axes.grid(alpha=0.3)
        if [line.get_label() for line in axes.lines] != [title]:
            axes.legend(fontsize="small")


def read_series(history) -> dict[str, np.ndarray]:
    """Read the series of a history, with NaN for epochs without a value; durations and counters are left out.

    Examples
    --------
    >>> history = [{"epoch": 1, "train_loss": 0.5, "train_loss_best": True}, {"epoch": 2, "train_loss": 0.3}]
    >>> {name: values.tolist() for name, values in read_series(history).items()}
    {'train_loss': [0.5, 0.3]}
    """
    names = [
        name
        for name in dict.fromkeys(name for row in history for name in row)
        if name not in _NO_SERIES
        and not name.endswith(("_best", "_batch_count"))
        and any(_is_number(row.get(name)) for row in history)
    ]
    return {name: np.array([float(row.get(name, np.nan)) for row in history]) for name in names}


def group_series(history, series) -> dict[str, list[str]]:
    """Group the series into panels, by title; series of no known kind have panels of their own."""
    # skorch records for each score whether it was the best one so far.
    scores = {name.removesuffix("_best") for row in history for name in row if name.endswith("_best")}
    panels: dict[str, list[str]] = {}
    for name in series:
        if name.endswith("loss"):
            title = "loss"
        elif name in ("lr", "others_lr") or name.endswith("_lr"):
            title = "learning rate"
        elif name in scores:
            title = "score"
        elif "reward" in name or "advantage" in name:
            title = "reward"
        else:
            title = name.replace("_", " ")
        panels.setdefault(title, []).append(name)
    return {title: panels[title] for title in sorted(panels, key=lambda title: title == "learning rate")}


def read_batch_loss(history):
    """Read the positions of the batches in epochs and their losses; None if the history has none."""
    places, losses = [], []
    for number, row in enumerate(history):
        batches = [batch["train_loss"] for batch in row.get("batches", ()) if "train_loss" in batch]
        places.extend(number + (np.arange(len(batches)) + 1) / max(1, len(batches)))
        losses.extend(batches)
    return (np.array(places), np.array(losses, dtype=float)) if losses else None


def find_best_epoch(history) -> int | None:
    """Return the last epoch that lowered the validation loss, counted from 1."""
    best = [number for number, row in enumerate(history, start=1) if row.get("valid_loss_best")]
    return best[-1] if best else None


def _is_number(value) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)
