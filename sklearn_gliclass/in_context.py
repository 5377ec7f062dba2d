"""Task description and in-context examples of an estimator: reading, checks, and retrieval of the nearest examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from .class_values import class_keys
from .containers import as_container, to_values
from .data.examples import Example, Instructions
from .label_lists import read_label_lists
from .samples import class_shares
from .text_checks import check_encodable

NEAREST = "nearest"
N_EXAMPLES = 3  # default of `n_examples`
_DECIMALS = 6  # distances that agree in them are equal: rounding depends on the number of texts
_HOW = 'a list of {"text": ..., "labels": [...]}'


@dataclass(frozen=True)
class NearestExamples:
    """Choice of the training texts nearest to each text, by the cosine of their embeddings.

    Attributes
    ----------
    pool : list of dict
        Result of :func:`training_examples`.
    n_examples : int
        Number of examples for each text.
    """

    pool: list[dict]
    n_examples: int

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the pool."""
        return tuple(row["text"] for row in self.pool)

    def select(self, texts: list[str], pool: np.ndarray, embed: Callable[[list[str]], np.ndarray]) -> list[list]:
        """Return the examples of each text, the nearest first. A text is never its own example.

        Parameters
        ----------
        texts : list of str
            The texts.
        pool : ndarray of shape (n_pool, hidden)
            Embeddings of the pool.
        embed : callable
            Function that computes the embeddings (n, hidden) of texts.
        """
        index = NearestNeighbors(algorithm="brute").fit(normalize(pool.astype(np.float64)))
        n_neighbors = min(self.n_examples + 1, len(self.pool))
        distances, rows = index.kneighbors(normalize(embed(texts).astype(np.float64)), n_neighbors)
        order = np.lexsort((rows, distances.round(_DECIMALS)))
        chosen = np.take_along_axis(rows, order, axis=1)
        found = ([self.pool[row] for row in near] for near in chosen)
        found = ([row for row in near if row["text"] != text] for text, near in zip(texts, found, strict=True))
        return [[Example(row["text"], tuple(row["labels"])) for row in near[: self.n_examples]] for near in found]


def read_instructions(estimator, classes=None, label_texts=(), pool=None) -> Instructions:
    """Read the hyperparameters `prompt`, `examples` and `n_examples` of an estimator.

    Parameters
    ----------
    estimator : BaseGLiClass
        Its hyperparameters are read.
    classes : array-like of shape (n_classes,), optional
        Classes of a classifier.
    label_texts : sequence of str
        Texts of the classes.
    pool : list of dict, optional
        Training texts for ``examples="nearest"``, with "text" and "labels".

    Raises
    ------
    ValueError
        If examples are damaged or have labels that are no classes, or `n_examples` has no effect.
    """
    examples, n_examples = getattr(estimator, "examples", None), getattr(estimator, "n_examples", N_EXAMPLES)
    is_nearest = isinstance(examples, str) and examples == NEAREST
    if n_examples != N_EXAMPLES and not is_nearest:
        raise ValueError(
            f"n_examples={n_examples} has no effect with examples={_shown(examples)}: it is the number of texts that "
            f"examples='nearest' chooses. Leave n_examples={N_EXAMPLES}, or set examples='nearest'."
        )
    if is_nearest:
        if pool is None:
            raise ValueError(
                "examples='nearest' chooses among the texts of fit, and there are none; call fit(X, y) with this "
                "setting, or give examples as a list."
            )
        found = cast("Any", NearestExamples(pool, n_examples))  # the layout has a function that searches them
    elif callable(examples):
        found = _Checked(examples, classes, label_texts)
    else:
        found = () if examples is None else read_examples(examples, classes, label_texts)
    return Instructions(estimator.prompt, found)


def fitted_instructions(estimator) -> Instructions:
    """Read the hyperparameters `prompt`, `examples` and `n_examples` of a fitted estimator, for a prediction."""
    classes, pool = getattr(estimator, "classes_", None), getattr(estimator, "examples_", None)
    if isinstance(classes, list):  # those of several targets: examples have label texts
        classes = estimator.label_names_
    return read_instructions(estimator, classes, estimator.label_names_, pool)


def read_examples(examples, classes, label_texts: Sequence[str]) -> tuple[Example, ...]:
    """Read a list of examples, or a tuple of texts and y.

    Parameters
    ----------
    examples : list of dict, or (texts, y)
        Dicts with "text", and "labels" or "true_labels": a class or a list of classes. y has one class or a list of
        classes for each text, or is an indicator matrix.
    classes : array-like of shape (n_classes,)
        The classes.
    label_texts : sequence of str
        Texts of the classes, which the examples of the result have.

    Examples
    --------
    >>> read_examples([{"text": "a late goal", "labels": 1}], [0, 1], ["politics", "sports"])
    (Example(text='a late goal', labels=('sports',)),)
    >>> read_examples((["a new law"], [["politics", "news"]]), ["news", "politics"], ["news", "politics"])
    (Example(text='a new law', labels=('politics', 'news')),)
    """
    known = dict(zip(class_keys(classes), label_texts, strict=True))
    is_pair = isinstance(examples, tuple) and len(examples) == 2 and not isinstance(examples[0], Mapping)
    pairs = _pairs_of(examples[0], examples[1], list(known)) if is_pair else [_pair_of(example) for example in examples]
    check_encodable([text for text, _ in pairs], "examples", "example")
    unknown = sorted({label for _, labels in pairs for label in labels if label not in known}, key=str)
    if unknown:
        raise ValueError(
            f"examples have the label(s) {unknown[:5]!r}, which are not among the {len(known)} classes "
            f"{list(known)[:10]!r}; leave these examples out, or add the labels to the classes."
        )
    return tuple(Example(text, tuple(known[label] for label in labels)) for text, labels in pairs)


def training_examples(texts: Sequence[str], targets: np.ndarray, label_texts: Sequence[str], earlier=()) -> list[dict]:
    """Return the training texts that ``examples="nearest"`` chooses from, each once, in alphabetical order.

    Parameters
    ----------
    texts : sequence of str
        Training texts.
    targets : ndarray
        Class indices (n,), or (n, n_targets) among the labels of several targets, or indicators or probabilities
        (n, n_classes); a label holds with more than 0.5.
    label_texts : sequence of str
        Texts of the classes.
    earlier : sequence of dict
        Result of an earlier call, whose texts are kept.
    """
    holds = class_shares(targets, len(label_texts)) > 0.5
    found = {row["text"]: row["labels"] for row in earlier}
    for text, row in zip(texts, holds, strict=True):
        labels = [label_texts[column] for column in np.flatnonzero(row).tolist()]
        found[text] = min(found[text], labels) if text in found else labels
    return [{"text": text, "labels": found[text]} for text in sorted(found)]


class _Checked:
    """Callable of the user whose examples are checked."""

    def __init__(self, function, classes, label_texts):
        self.function, self.classes, self.label_texts = function, class_keys(classes), list(label_texts)

    def __eq__(self, other):
        return isinstance(other, _Checked) and vars(self) == vars(other)

    def __call__(self, texts):
        rows = list(self.function(list(texts)))
        if len(rows) != len(texts):
            raise ValueError(
                f"The callable examples returned {len(rows)} lists of examples for {len(texts)} texts; return one list "
                "for each text, [] for none."
            )
        return [read_examples(row, self.classes, self.label_texts) for row in rows]


def _pair_of(example) -> tuple[str, list]:
    if not isinstance(example, Mapping) or "text" not in example or not {"labels", "true_labels"} & set(example):
        raise ValueError(f"examples must be {_HOW}, or a tuple (texts, y), got {_shown(example)} among them.")
    labels = example.get("labels", example.get("true_labels"))
    return _text_of(example["text"]), _labels_of(labels)


def _labels_of(labels) -> list:
    if isinstance(labels, (list, tuple, set, frozenset, np.ndarray)):
        return to_values(sorted(labels, key=str) if isinstance(labels, (set, frozenset)) else labels)
    return to_values([labels])


def _text_of(text) -> str:
    if not isinstance(text, str):
        raise ValueError(f"The text of an example must be a str, got {_shown(text)}; examples are {_HOW}.")
    return str(text)


def _pairs_of(texts, y, classes: list) -> list[tuple[str, list]]:
    """Return the pairs of a tuple (texts, y)."""
    texts = to_values(as_container(texts, "the texts of examples", "a sequence of texts"))
    rows = read_label_lists(y)
    if rows is None:
        y = as_container(y, "the y of examples", "a sequence of classes or lists of classes")
        is_matrix = np.ndim(y) == 2
        values = np.asarray(y)
        if is_matrix and values.shape[1] != len(classes):
            raise ValueError(
                f"The y of examples has {values.shape[1]} columns for {len(classes)} classes; give one column for each."
            )
        rows = [[classes[i] for i in np.flatnonzero(row == 1)] for row in values] if is_matrix else None
        rows = [[value] for value in to_values(y)] if rows is None else rows
    if len(texts) != len(rows):
        raise ValueError(f"examples have {len(texts)} texts and a y of {len(rows)} rows; give one row for each text.")
    return [(_text_of(text), labels) for text, labels in zip(texts, rows, strict=True)]


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
