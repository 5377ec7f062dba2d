"""LabelSimilarityDisplay: which labels a model takes for near."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils.validation import check_is_fitted

from ..explain import label_embeddings
from ..inputs import read_texts
from .figure import single_axes

NUMBERS_UP_TO = 12  # labels, for whom the numbers stand in the cells
INCHES_WITH_NUMBERS, INCHES_PER_LABEL, MAX_INCHES = 0.38, 0.17, 24.0
INCHES_PER_CHARACTER = 0.075  # of a name beside the map
POINTS_PER_INCH = 72


class LabelSimilarityDisplay:
    """Heat map of the labels' cosine similarity, ordered so that near labels stand side by side.

    The labels are compared as the model's scorer sees them. Labels that are near and should not be want better
    `label_names` or more examples; they are where to look first when classes are confused.

    Parameters
    ----------
    similarity : ndarray of shape (n_labels, n_labels)
        Symmetric; 1 on the diagonal.
    labels : sequence of str
        Their names.

    Attributes
    ----------
    order_ : ndarray of shape (n_labels,)
        The label in each row of the picture.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    im_ : matplotlib AxesImage
    text_ : ndarray of matplotlib Text of shape (n_labels, n_labels), or None
        The numbers in the cells; only for few labels.

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
        """Plot the labels of a fitted estimator.

        Parameters
        ----------
        estimator : GLiClassClassifier or GLiClassRegressor
            Fitted.
        X : array-like of shape (n_samples,) or (n_samples, n_features), optional
            Texts beside which the labels are read; their mean counts. Default: the empty text. A bi-encoder
            reads labels alone: there it makes no difference.
        ax : matplotlib Axes, optional
            Where to draw. Default: a new figure, whose size grows with the number of labels.
        cmap : str or Colormap, default="viridis"
            Colours of the similarities.
        colorbar : bool, default=True
            Add a colour bar.

        Returns
        -------
        LabelSimilarityDisplay
        """
        check_is_fitted(estimator, ("model_", "label_names_"))
        texts = [""] if X is None else read_texts(X, estimator)
        fitted = estimator.fitted_
        at_once = fitted.labels_per_prompt(getattr(estimator, "max_num_classes", None))
        embeddings = label_embeddings(fitted.model, fitted.layout(), texts, at_once)
        names = [str(label) for label in getattr(estimator, "classes_", estimator.label_names_)]
        return cls(cosine_similarity(embeddings), names).plot(ax, cmap=cmap, colorbar=colorbar)

    def nearest(self, n=10):
        """The pairs of labels that are nearest.

        Parameters
        ----------
        n : int, default=10
            How many.

        Returns
        -------
        list of (str, str, float)
            Two labels and their similarity, the nearest pair first.
        """
        rows, columns = np.triu_indices(len(self.labels), k=1)
        values = self.similarity[rows, columns]
        best = np.argsort(-values, kind="stable")[:n]
        return [(self.labels[rows[i]], self.labels[columns[i]], float(values[i])) for i in best]

    def plot(self, ax=None, *, cmap="viridis", colorbar=True):
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw. Default: a new figure, whose size grows with the number of labels.
        cmap : str or Colormap, default="viridis"
            Colours of the similarities. The diagonal is left blank, so that they show the other cells.
        colorbar : bool, default=True
            Add a colour bar.

        Returns
        -------
        self
        """
        n = len(self.labels)
        side = min(MAX_INCHES, n * (INCHES_WITH_NUMBERS if n <= NUMBERS_UP_TO else INCHES_PER_LABEL))
        margin = INCHES_PER_CHARACTER * max(map(len, self.labels))
        self.ax_ = single_axes(self, ax, (side + margin + 1.2, side + margin + 0.2))
        self.figure_ = self.ax_.figure
        self.order_ = similarity_order(self.similarity)
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
            text[row, column] = self.ax_.text(
                column, row, f"{cells[row, column]:z.2f}", ha="center", va="center", fontsize=7, color=colour
            )
        return text


def similarity_order(similarity: np.ndarray) -> np.ndarray:
    """Leaves of an average-linkage clustering, turned so that neighbours are as near as they can be.

    The order is that of Bar-Joseph et al. 2001, "Fast optimal leaf ordering for hierarchical clustering".

    Examples
    --------
    >>> near, far = 0.9, 0.1
    >>> similarity_order(np.array([[1, far, near], [far, 1, far], [near, far, 1]])).tolist()
    [1, 2, 0]
    """
    if len(similarity) < 3:
        return np.arange(len(similarity))
    distance = np.clip(1.0 - (similarity + similarity.T) / 2, 0.0, None)
    np.fill_diagonal(distance, 0.0)
    pairs = squareform(distance)
    return leaves_list(optimal_leaf_ordering(linkage(pairs, method="average"), pairs))
