"""Classifiers of other label sets, which share the weights of one classifier."""

from collections import OrderedDict
from numbers import Real

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
        self._source = _with_one_threshold(classifier)
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
            classifier = self._source.with_labels(list(labels))
        except (TypeError, ValueError) as error:
            raise LabelSetError(str(error)) from error
        self._classifiers[labels] = classifier
        while len(self._classifiers) > self.max_label_sets:
            self._classifiers.popitem(last=False)
        return classifier


def _with_one_threshold(classifier):
    """Return the classifier, with the threshold 0.5 if it has one per class, which new labels would not have."""
    if isinstance(classifier.threshold, Real) or isinstance(classifier.classes_, list):  # of several targets
        return classifier
    return classifier.with_labels(classifier.classes_).set_params(threshold=0.5)
