"""Classifiers of other label sets, which share the weights of one classifier."""

from collections import OrderedDict

import numpy as np

from .batch_queue import NotRetriedError


class LabelSetError(NotRetriedError):
    """Error of labels that the model cannot read or tell apart."""


class LabelSets:
    """Classifiers of the label sets that were used last, of which the least recently used ones are dropped.

    Parameters
    ----------
    classifier : GLiClassClassifier
        A fitted classifier.
    max_label_sets : int
        Maximum number of label sets.
    """

    def __init__(self, classifier, max_label_sets: int):
        self.classifier = classifier
        self.max_label_sets = max_label_sets
        self._classifiers: OrderedDict[tuple[str, ...], object] = OrderedDict()

    def __len__(self) -> int:
        return len(self._classifiers)

    def __contains__(self, labels) -> bool:
        return labels in self._classifiers

    def get(self, labels: tuple[str, ...] | None):
        """Return the classifier of these labels; None are those of the fit.

        Raises
        ------
        LabelSetError
            If the model cannot read the labels or tell them apart.
        """
        if labels is None:
            return self.classifier
        if labels in self._classifiers:
            self._classifiers.move_to_end(labels)
            return self._classifiers[labels]
        try:
            classifier = with_labels(self.classifier, labels)
            classifier.fitted_.layout()  # raises for labels with the same tokens
        except (TypeError, ValueError) as error:
            raise LabelSetError(str(error)) from error
        self._classifiers[labels] = classifier
        while len(self._classifiers) > self.max_label_sets:
            self._classifiers.popitem(last=False)
        return classifier


def with_labels(classifier, labels):
    """Return a fitted classifier with the weights of `classifier` and other labels."""
    if hasattr(classifier, "with_labels"):
        return classifier.with_labels(list(labels))
    other = object.__new__(type(classifier))  # copy.copy would copy the weights
    other.__dict__.update(vars(classifier))
    other.fitted_ = classifier.fitted_.with_label_names(labels)
    other.classes_ = np.array(labels)
    other.label_names = None
    if np.ndim(classifier.threshold) or isinstance(classifier.threshold, dict):
        other.threshold = 0.5  # one per class of the fit
    return other
