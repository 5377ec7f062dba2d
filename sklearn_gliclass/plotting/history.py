"""TrainingHistoryDisplay: losses, scores, learning rates and rewards over the epochs."""

from numbers import Number

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .figure import COLOURS, panel_grid

_NO_SERIES = ("epoch", "dur", "batches")
MARKED_UP_TO = 30  # epochs that are drawn as dots besides the line


class TrainingHistoryDisplay:
    """The course of a training.

    Each series of the history is a line; series of one kind share a panel: losses, scores, learning rates,
    rewards, and what else a training records.

    Parameters
    ----------
    series : dict of str to array-like of shape (n_epochs,)
        What is drawn; NaN where an epoch has no value.
    panels : dict of str to list of str, optional
        Title of each panel and the series in it. Default: one panel for all.
    batch_loss : tuple of two ndarrays, optional
        Where the batches stand, in epochs, and their losses.
    best_epoch : int, optional
        The epoch whose weights were kept.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One for each panel.
    lines_ : dict of str to Line2D
        The line of each series.
    bounding_ax_ : matplotlib Axes or None
        The `ax` that was given, whose room the panels took.

    See Also
    --------
    GLiClassClassifier : Its `history_` holds the numbers.

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
        """Plot what a fitted estimator recorded.

        Parameters
        ----------
        estimator : GLiClassClassifier or GLiClassRegressor
            Fitted.
        ax : matplotlib Axes, optional
            The panels take its room. Default: a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        check_is_fitted(estimator, "model_")
        if not len(getattr(estimator, "history_", ())):
            raise ValueError(
                "The estimator was not trained (max_epochs=0, fit(None, labels) or from_pretrained), so there is no "
                "history to plot; fit it on examples first."
            )
        return cls.from_history(estimator.history_, ax=ax)

    @classmethod
    def from_history(cls, history, *, ax=None):
        """Plot a history.

        Parameters
        ----------
        history : skorch.history.History or list of dict
            One row for each epoch.
        ax : matplotlib Axes, optional
            The panels take its room. Default: a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        series = read_series(history)
        return cls(series, group_series(history, series), read_batch_loss(history), find_best_epoch(history)).plot(ax)

    def plot(self, ax=None):
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            The panels take its room. Default: a new figure.

        Returns
        -------
        self
        """
        panels = self.panels or {"": list(self.series)}
        self.figure_, self.axes_, self.bounding_ax_ = panel_grid(self, ax, len(panels), 3, (4.2, 3.2))
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
            # A sum of one part equals it, such as the reward: dashed, the line below shows.
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
            axes.yaxis.set_major_formatter("{x:.1e}")  # an exponent on top would meet the title
        axes.grid(alpha=0.3)
        if [line.get_label() for line in axes.lines] != [title]:
            axes.legend(fontsize="small")


def read_series(history) -> dict[str, np.ndarray]:
    """The numbers of each epoch by name, NaN where an epoch has none; durations, counters and events left out.

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
    """Titles of the panels and the series in each; what is of no known kind has a panel of its own."""
    # skorch notes beside each score whether it was the best one so far.
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
    """Where the batches stand, in epochs, and their losses; None where the history has none."""
    places, losses = [], []
    for number, row in enumerate(history):
        batches = [batch["train_loss"] for batch in row.get("batches", ()) if "train_loss" in batch]
        places.extend(number + (np.arange(len(batches)) + 1) / max(1, len(batches)))
        losses.extend(batches)
    return (np.array(places), np.array(losses, dtype=float)) if losses else None


def find_best_epoch(history) -> int | None:
    """The last epoch that lowered the validation loss, from 1 on."""
    best = [number for number, row in enumerate(history, start=1) if row.get("valid_loss_best")]
    return best[-1] if best else None


def _is_number(value) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)
