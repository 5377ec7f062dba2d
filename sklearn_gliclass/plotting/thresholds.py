"""Precision, recall and F1 score of each class over the threshold."""

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from ..class_values import class_keys, column_positions
from ..containers import column_names
from ..label_lists import label_indicator, read_label_lists
from .figure import BLUE, GREEN, ORANGE, create_panels

WHERE_F1_SAYS_NOTHING = 0.5
TITLE_CHARACTERS = 22


class ThresholdCurveDisplay:
    """Precision, recall and F1 score of each class of a multi-label problem over the threshold.

    Use it to choose thresholds, ``clf.set_params(threshold=display.best_thresholds)``, on a validation set: on rows
    that are neither in the training set nor in the test set. For binary classifiers, scikit-learn has
    ``PrecisionRecallDisplay`` and ``TunedThresholdClassifierCV``.

    It is created by :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    thresholds : ndarray of shape (n_thresholds,)
        Thresholds in ascending order.
    precision, recall, f1 : ndarray of shape (n_classes, n_thresholds)
        The curves. The precision is NaN where nothing is predicted, and the recall for a class without positives.
    class_names : sequence of str
        Names of the classes.
    n_positive : ndarray of shape (n_classes,)
        Number of positives of each class.

    Attributes
    ----------
    best_thresholds : ndarray of shape (n_classes,)
        Threshold with the highest F1 score of each class, the middle one if several are equally good, and 0.5 if the F1
        score is 0 for all.
    figure_ : matplotlib Figure
        Figure that contains the panels.
    axes_ : ndarray of matplotlib Axes
        Axes of the classes.
    lines_ : list of dict of str to Line2D
        The curves "precision", "recall" and "F1" of each class.
    bounding_ax_ : matplotlib Axes or None
        The `ax` that was passed, whose area the panels fill.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_gliclass.plotting import ThresholdCurveDisplay
    >>> y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    >>> proba = np.array([[0.9, 0.1], [0.8, 0.3], [0.4, 0.2], [0.1, 0.05]])
    >>> display = ThresholdCurveDisplay.from_predictions(y, proba)
    >>> display.best_thresholds
    array([0.605, 0.155])
    """

    def __init__(self, thresholds, precision, recall, f1, class_names, n_positive):
        self.thresholds = thresholds
        self.precision = precision
        self.recall = recall
        self.f1 = f1
        self.class_names = class_names
        self.n_positive = n_positive
        self.best_thresholds = best_thresholds(thresholds, f1)

    @classmethod
    def from_estimator(cls, estimator, X, y, *, thresholds=None, classes=None, ax=None):
        """Plot the curves of a fitted multi-label classifier on held-out rows.

        Parameters
        ----------
        estimator : GLiClassClassifier
            Classifier that was fitted on a multi-label y.
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table.
        y : array-like of shape (n_samples, n_classes)
            Indicator matrix, or lists of labels. The columns of a DataFrame are matched by name, others are in the
            order of `classes_`.
        thresholds : array-like of shape (n_thresholds,), optional
            Thresholds of the curves. If None, 0 to 1 in steps of 0.01.
        classes : list, optional
            Names of the classes to plot. If None, all.
        ax : matplotlib Axes, optional
            Axes whose area the panels fill. If None, a new figure is created.

        Returns
        -------
        ThresholdCurveDisplay
            The display.
        """
        check_is_fitted(estimator, ("model_", "classes_"))
        if isinstance(estimator.classes_, list):
            raise ValueError(
                "The classifier has several targets, each with one class per text, which need no thresholds; give a "
                "multi-label classifier."
            )
        names, keys, lists = column_names(y), class_keys(estimator.classes_), read_label_lists(y)
        if lists is not None:
            y = label_indicator(lists, estimator.classes_)
        elif names is not None:
            y = _columns(y, column_positions(names, keys, "the classes"))
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            class_names=[str(name) for name in estimator.classes_],
            thresholds=thresholds,
            classes=classes,
            ax=ax,
        )

    @classmethod
    def from_predictions(cls, y_true, y_proba, *, class_names=None, thresholds=None, classes=None, ax=None):
        """Plot the curves of the probabilities of any classifier.

        Parameters
        ----------
        y_true : array-like of shape (n_samples, n_classes)
            Indicator matrix.
        y_proba : array-like of shape (n_samples, n_classes)
            Probabilities. The columns of two DataFrames are matched by name.
        class_names : list of str, optional
            Names of the columns. The columns of a DataFrame with the same names are brought into this order. If None,
            the columns of a DataFrame `y_proba` or `y_true`, else "0", "1" and so on.
        thresholds : array-like of shape (n_thresholds,), optional
            Thresholds of the curves. If None, 0 to 1 in steps of 0.01.
        classes : list, optional
            Names of the classes to plot. If None, all.
        ax : matplotlib Axes, optional
            Axes whose area the panels fill. If None, a new figure is created.

        Returns
        -------
        ThresholdCurveDisplay
            The display.
        """
        y_true, y_proba, class_names = _match_columns(y_true, y_proba, class_names)
        y_true, y_proba = _check_predictions(y_true, y_proba)
        class_names = [str(name) for name in (range(y_true.shape[1]) if class_names is None else class_names)]
        if len(class_names) != y_true.shape[1]:
            raise ValueError(f"class_names has {len(class_names)} names for {y_true.shape[1]} columns; give one each.")
        if len(set(class_names)) < len(class_names):
            raise ValueError(f"class_names must be distinct, got {class_names}; rename the classes.")
        thresholds = _check_thresholds(thresholds)
        curves = compute_threshold_curves(y_true, y_proba, thresholds)
        return cls(thresholds, *curves, class_names, y_true.sum(axis=0)).plot(ax, classes=classes)

    def plot(self, ax=None, *, classes=None):
        """Plot a panel for each class.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes whose area the panels fill. If None, a new figure is created.
        classes : list, optional
            Names of the classes to plot. If None, all.

        Returns
        -------
        ThresholdCurveDisplay
            This display.
        """
        names = [str(name) for name in (self.class_names if classes is None else classes)]
        unknown = sorted(set(names) - set(self.class_names))
        if unknown:
            raise ValueError(f"Unknown classes {unknown}; choose from {list(self.class_names)}.")
        if not names:
            raise ValueError(
                f"classes is empty; choose from {list(self.class_names)}, or set classes=None for all of them."
            )
        size = (2.6, 2.1) if len(names) <= 12 else (1.9, 1.5)
        columns = 4 if len(names) <= 12 else 7
        options = {"sharex": True, "sharey": True}
        self.figure_, self.axes_, self.bounding_ax_ = create_panels(self, ax, len(names), columns, size, **options)
        self.lines_ = [
            self._plot_class(axes, list(self.class_names).index(name))
            for axes, name in zip(self.axes_, names, strict=True)
        ]
        if self.bounding_ax_ is None:
            self.figure_.supxlabel("threshold", fontsize="medium")
            handles = list(self.lines_[0].values())
            self.figure_.legend(handles=handles, loc="outside upper center", ncols=3, fontsize="small")
        else:
            self.axes_[0].legend(fontsize="x-small")
        return self

    def _plot_class(self, axes, index):
        curves = {"precision": (self.precision, BLUE), "recall": (self.recall, ORANGE), "F1": (self.f1, GREEN)}
        lines = {
            name: axes.plot(self.thresholds, values[index], color=colour, label=name, lw=2 if name == "F1" else 1)[0]
            for name, (values, colour) in curves.items()
        }
        axes.set_title(f"{_short(self.class_names[index])} ({self.n_positive[index]})", fontsize="small")
        axes.set(xlim=(0, 1), ylim=(0, 1.05))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.5, 1], ["0", "0.5", "1"])  # short, so that those of neighbouring panels do not overlap
        axes.grid(alpha=0.3)
        best = self.best_thresholds[index]
        if self.f1[index].max() > 0:
            axes.axvline(best, color="0.4", linestyle=":", lw=1)
            axes.plot(best, self.f1[index].max(), "o", color=GREEN, markersize=4)
            side = "right" if best > 0.5 else "left"
            axes.annotate(
                f"{best:.2f}", (best, 0.0), xytext=(-3 if best > 0.5 else 3, 4), textcoords="offset points", ha=side,
                fontsize="x-small", bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 0.5},
            )  # fmt: skip
        return lines


def _short(name: str) -> str:
    return name if len(name) <= TITLE_CHARACTERS else name[: TITLE_CHARACTERS - 1] + "…"


def compute_threshold_curves(y_true: np.ndarray, y_proba: np.ndarray, thresholds: np.ndarray):
    """Compute precision, recall and F1 score, each (n_classes, n_thresholds), of ``y_proba >= threshold``.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples, n_classes)
        Indicator matrix.
    y_proba : ndarray of shape (n_samples, n_classes)
        Probabilities.
    thresholds : ndarray of shape (n_thresholds,)
        Any order.

    Returns
    -------
    precision, recall, f1
        The precision is NaN where nothing is predicted, and the recall for a class without positives.
    """
    shape = (y_true.shape[1], len(thresholds))
    hits, predicted = np.empty(shape), np.empty(shape)
    for index, (truth, proba) in enumerate(zip(y_true.T, y_proba.T, strict=True)):
        for counts, values in ((hits, proba[truth == 1]), (predicted, proba)):
            counts[index] = len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
    positive = y_true.sum(axis=0)[:, None].astype(float)
    precision = np.divide(hits, predicted, out=np.full(shape, np.nan), where=predicted > 0)
    recall = np.divide(hits, positive, out=np.full(shape, np.nan), where=positive > 0)
    f1 = np.divide(2 * hits, predicted + positive, out=np.zeros(shape), where=predicted + positive > 0)
    return precision, recall, f1


def best_thresholds(thresholds: np.ndarray, f1: np.ndarray) -> np.ndarray:
    """Return the threshold at which each row of `f1` is highest, the middle of the first run of equal values.

    Examples
    --------
    >>> best_thresholds(np.array([0.2, 0.4, 0.6, 0.8]), np.array([[0.1, 0.7, 0.7, 0.2], [0.0, 0.0, 0.0, 0.0]]))
    array([0.5, 0.5])
    """
    best = np.empty(len(f1))
    for row, values in enumerate(f1):
        first = int(values.argmax())
        run = np.flatnonzero(values[first:] < values[first] - 1e-12)
        last = first + int(run[0]) - 1 if len(run) else len(values) - 1
        best[row] = (thresholds[first] + thresholds[last]) / 2 if values[first] > 0 else WHERE_F1_SAYS_NOTHING
    return best


def _columns(table, order: np.ndarray) -> np.ndarray:
    return table.to_numpy()[:, order]


def _match_columns(y_true, y_proba, class_names):
    """Return truth and probabilities with their columns in the same order, and the names of the columns or None."""
    tables = [y_true, y_proba]
    names = [None if found is None else [str(name) for name in found] for found in map(column_names, tables)]
    if class_names is not None:  # names for the columns, or the columns of a DataFrame in another order
        wanted = [str(name) for name in class_names]
        names = [found if found is not None and sorted(found) == sorted(wanted) else None for found in names]
    else:
        wanted = names[1] if names[1] is not None else names[0]
    order = [
        None if found is None or wanted is None else column_positions(found, wanted, "those of y_proba")
        for found in names
    ]
    matched = [table if where is None else _columns(table, where) for table, where in zip(tables, order, strict=True)]
    return *matched, wanted


def _check_thresholds(thresholds) -> np.ndarray:
    """Check the thresholds, and return them in ascending order."""
    if thresholds is None:
        return np.linspace(0, 1, 101)
    values = np.asarray(thresholds, dtype=float)
    if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"thresholds must be a list of numbers from 0 to 1, got {thresholds!r}.")
    return np.sort(values)


def _check_predictions(y_true, y_proba):
    y_true = y_true.toarray() if issparse(y_true) else np.asarray(y_true)
    if y_true.ndim != 2 or not np.isin(y_true, (0, 1)).all():
        raise ValueError(
            f"y must be a matrix of 0 and 1 with a column for each class (multi-label), got shape {y_true.shape}; "
            "sklearn.preprocessing.MultiLabelBinarizer makes one from lists of labels."
        )
    y_proba = check_array(y_proba, input_name="y_proba")
    check_consistent_length(y_true, y_proba)
    if y_true.shape != y_proba.shape:
        raise ValueError(
            f"y has shape {y_true.shape} and the probabilities have shape {y_proba.shape}; they must be the same."
        )
    if y_proba.min() < 0 or y_proba.max() > 1:
        raise ValueError(
            f"y_proba must hold probabilities from 0 to 1, got values from {y_proba.min():.3g} to {y_proba.max():.3g}; "
            "use predict_proba, not decision_function."
        )
    return y_true.astype(int), y_proba
