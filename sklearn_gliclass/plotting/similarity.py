"""Similarity of the labels of a model."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils.validation import check_is_fitted

from ..explain import compute_label_embeddings
from ..in_context import fitted_instructions
from ..inputs import read_texts
from .figure import create_axes

NUMBERS_UP_TO = 12  # number of labels up to which cells show their values
INCHES_WITH_NUMBERS, INCHES_PER_LABEL, MAX_INCHES = 0.38, 0.17, 24.0
INCHES_PER_CHARACTER = 0.075  # of a label name beside the heat map
POINTS_PER_INCH = 72


class LabelSimilarityDisplay:
    """Heat map of the cosine similarities of the label embeddings, ordered by hierarchical clustering.

    The embeddings are those that the model's scorer takes. Labels that are similar but should not be are likely to be
    confused, as scikit-learn's ``ConfusionMatrixDisplay`` shows; they need more distinct `label_names` or more
    examples.

    It is created by :meth:`from_estimator`.

    Parameters
    ----------
    similarity : ndarray of shape (n_labels, n_labels)
        Symmetric matrix of cosine similarities.
    labels : sequence of str
        Names of the labels.

    Attributes
    ----------
    order_ : ndarray of shape (n_labels,)
        Index of the label in each row of the heat map.
    figure_ : matplotlib Figure
        Figure that contains the heat map.
    ax_ : matplotlib Axes
        Axes of the heat map.
    im_ : matplotlib AxesImage
        Image of the heat map.
    text_ : ndarray of matplotlib Text of shape (n_labels, n_labels), or None
        Numbers in the cells. None for more than 12 labels.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.plotting import LabelSimilarityDisplay
    >>> clf = GLiClassClassifier().fit(None, ["card lost", "card stolen", "weather"])
    >>> display = LabelSimilarityDisplay.from_estimator(clf)
    >>> display.nearest(1)[0][:2]
    ('card lost', 'card stolen')
    """

    def __init__(self, similarity, labels):
        self.similarity = similarity
        self.labels = labels

    @classmethod
    def from_estimator(cls, estimator, X=None, *, ax=None, cmap="viridis", colorbar=True):
        """Plot the similarities of the labels of a fitted estimator.

        Parameters
        ----------
        estimator : GLiClassClassifier or GLiClassRegressor
            Fitted estimator.
        X : array-like of shape (n_samples,) or (n_samples, n_features), optional
            Texts with which the labels are encoded; the label embeddings are averaged over them. If None, the empty
            text. It has no effect in a bi-encoder, which encodes labels separately.
        ax : matplotlib Axes, optional
            Axes to plot on. If None, a new figure is created, whose size grows with the number of labels.
        cmap : str or Colormap, default="viridis"
            Colour map of the similarities.
        colorbar : bool, default=True
            Whether to add a colour bar.

        Returns
        -------
        LabelSimilarityDisplay
            The display.
        """
        check_is_fitted(estimator, ("model_", "label_names_"))
        texts = [""] if X is None else read_texts(X, estimator)
        fitted = estimator.fitted_
        at_once = fitted.labels_per_prompt(getattr(estimator, "max_num_classes", None))
        layout = fitted.layout(instructions=fitted_instructions(estimator))
        labels = fitted.label_embeddings()
        embeddings = (
            compute_label_embeddings(fitted.model, layout, texts, at_once) if labels is None else labels.cpu().numpy()
        )
        classes = getattr(estimator, "classes_", estimator.label_names_)
        names = estimator.label_names_ if isinstance(classes, list) else [str(label) for label in classes]
        return cls(cosine_similarity(embeddings), names).plot(ax, cmap=cmap, colorbar=colorbar)

    def nearest(self, n=10):
        """Return the most similar pairs of labels.

        Parameters
        ----------
        n : int, default=10
            Number of pairs.

        Returns
        -------
        list of (str, str, float)
            Two labels and their similarity, the most similar pair first.
        """
        rows, columns = np.triu_indices(len(self.labels), k=1)
        values = self.similarity[rows, columns]
        best = np.argsort(-values, kind="stable")[:n]
        return [(self.labels[rows[i]], self.labels[columns[i]], float(values[i])) for i in best]

    def plot(self, ax=None, *, cmap="viridis", colorbar=True):
        """Plot the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to plot on. If None, a new figure is created, whose size grows with the number of labels.
        cmap : str or Colormap, default="viridis"
            Colour map of the similarities. The diagonal is left blank, so that the colours span the other cells.
        colorbar : bool, default=True
            Whether to add a colour bar.

        Returns
        -------
        LabelSimilarityDisplay
            This display.
        """
        n = len(self.labels)
        side = min(MAX_INCHES, n * (INCHES_WITH_NUMBERS if n <= NUMBERS_UP_TO else INCHES_PER_LABEL))
        margin = INCHES_PER_CHARACTER * max(map(len, self.labels))
        self.ax_ = create_axes(self, ax, (side + margin + 1.2, side + margin + 0.2))
        self.figure_ = self.ax_.figure
        self.order_ = order_by_similarity(self.similarity)
        cells = np.ma.array(self.similarity[np.ix_(self.order_, self.order_)], mask=np.eye(n, dtype=bool))
        self.im_ = self.ax_.imshow(cells, cmap=cmap)
        names = [self.labels[index] for index in self.order_]
        size = min(9.0, 0.8 * POINTS_PER_INCH * (side if ax is None else self._axes_inches()) / n)
        self.ax_.set_xticks(range(n), names, rotation=90, fontsize=size)
        self.ax_.set_yticks(range(n), names, fontsize=size)
        self.ax_.tick_params(length=0)
        self.text_ = self._write_numbers(cells) if n <= NUMBERS_UP_TO else None
        if colorbar:
            self.figure_.colorbar(self.im_, ax=self.ax_, label="cosine similarity", shrink=0.7)
        return self

    def _axes_inches(self) -> float:
        box = self.ax_.get_position()
        width, height = self.figure_.get_size_inches()
        return min(box.width * width, box.height * height)

    def _write_numbers(self, cells):
        text = np.full(cells.shape, None, dtype=object)
        for row, column in zip(*np.nonzero(~cells.mask), strict=True):
            red, green, blue, _ = self.im_.cmap(self.im_.norm(cells[row, column]))
            is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            colour = "black" if is_light else "white"
            number = f"{cells[row, column].round(2) + 0.0:.2f}"  # no -0.00
            text[row, column] = self.ax_.text(column, row, number, ha="center", va="center", fontsize=7, color=colour)
        return text


def order_by_similarity(similarity: np.ndarray) -> np.ndarray:
    """Return the optimal leaf ordering of an average-linkage clustering (Bar-Joseph et al. 2001).

    Examples
    --------
    >>> near, far = 0.9, 0.1
    >>> order_by_similarity(np.array([[1, far, near], [far, 1, far], [near, far, 1]])).tolist()
    [1, 2, 0]
    """
    if len(similarity) < 3:
        return np.arange(len(similarity))
    distance = np.clip(1.0 - (similarity + similarity.T) / 2, 0.0, None)
    np.fill_diagonal(distance, 0.0)
    pairs = squareform(distance)
    return leaves_list(optimal_leaf_ordering(linkage(pairs, method="average"), pairs))
