"""Abstention: the probability that one of the classes fits a text, and the answer where none does.

The evidence that a class fits is the negative free energy of the logits (Liu et al. 2020, "Energy-based
Out-of-distribution Detection", https://arxiv.org/abs/2010.03759). Its temperature is not that of the probabilities:
cosines are multiplied by 10, whatever their logit scale. torch and scikit-learn are not imported, as
:mod:`sklearn_gliclass.onnx` uses this module without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

KNOWN_THRESHOLD = 0.5  # `unknown_threshold="auto"`: the evidence is scaled on the training data for it
COSINE_SCALE = 10.0
# Share of the way from the mean evidence of the training texts to that without their own label. Fitted to 23 data sets
# with left-out classes, after fine-tuned and frozen fits to 8 or more rows per class, with 2 to 150 labels: the more
# labels there are, the more a text of no class resembles one of them by chance.
BOUNDARY, BOUNDARY_PER_LOG_LABEL, MAX_BOUNDARY = 0.3, 0.07, 0.9
SLOPE = 1.6  # of the log-odds over the evidence of cosines
ZERO_SHOT_EVIDENCE = 2.4  # mean evidence of one label at the boundary, where labels are read by their names only
MATCH_LOG_ODDS = 1.0  # of a training text with the mean evidence, for logits that are not cosines


@dataclass(frozen=True)
class Evidence:
    """Scale of the evidence that one of the classes fits.

    Attributes
    ----------
    is_cosine : bool
        Whether the logits are scaled cosines.
    match : float or None
        Mean scaled logit of the training texts for their own label; None after a zero-shot fit.
    mismatch : float or None
        Mean evidence of another label for them; None where `match` is.
    weight : float
        Total weight of the training texts.
    is_centred : bool
        Whether the mean over the labels is subtracted from the logits: the free energy of log-probabilities is 0.
    """

    is_cosine: bool
    match: float | None = None
    mismatch: float | None = None
    weight: float = 0.0
    is_centred: bool = False

    @property
    def stored(self) -> dict:
        """What the training texts determine, as plain numbers."""
        return {"match": self.match, "mismatch": self.mismatch, "weight": self.weight}

    def scale(self, logits: np.ndarray, logit_scale: float) -> np.ndarray:
        """Scale and centre logits; `logit_scale` is the factor that turned cosines into logits."""
        if self.is_centred:
            logits = logits - logits.mean(axis=1, keepdims=True)
        return logits * (COSINE_SCALE / logit_scale) if self.is_cosine and logit_scale else logits

    def boundary(self, n_labels: int) -> tuple[float, float]:
        """Return the evidence at which the probability is 0.5, and the slope of the log-odds there."""
        if self.match is None or self.mismatch is None:
            # Logits that were trained with a sigmoid are about 0 where a label begins to fit.
            return (ZERO_SHOT_EVIDENCE + math.log(n_labels), SLOPE) if self.is_cosine else (0.0, 1.0)
        known = float(np.logaddexp(self.match, self.mismatch + math.log(n_labels - 1)))
        share = min(BOUNDARY + BOUNDARY_PER_LOG_LABEL * math.log(n_labels), MAX_BOUNDARY)
        distance = max(share * (known - self.mismatch - math.log(n_labels)), 1e-6)
        return known - distance, SLOPE if self.is_cosine else MATCH_LOG_ODDS / distance

    def known_proba(self, logits: np.ndarray, logit_scale: float) -> np.ndarray:
        """Compute the probability (n,) that one of the classes fits, from logits (n, n_labels).

        Examples
        --------
        >>> evidence = Evidence(is_cosine=True, match=8.0, mismatch=0.0, weight=16.0)
        >>> evidence.known_proba(np.array([[16.0, 2.0], [3.0, 2.0]]), logit_scale=20.0).round(2)
        array([0.98, 0.  ])
        """
        middle, slope = self.boundary(logits.shape[1])
        values = free_energy(self.scale(logits, logit_scale).astype(np.float64))
        return 0.5 * (1 + np.tanh(slope * (values - middle) / 2))  # the sigmoid, without overflow

    def merge(self, earlier: Evidence | None) -> Evidence:
        """Return the mean with the evidence of earlier training texts (`partial_fit`), by their weights."""
        if earlier is None or earlier.match is None or earlier.is_cosine != self.is_cosine:
            return self
        total = self.weight + earlier.weight
        share = self.weight / total
        match, mismatch = (
            share * getattr(self, name) + (1 - share) * getattr(earlier, name) for name in ("match", "mismatch")
        )
        return replace(self, match=match, mismatch=mismatch, weight=total)


def resolve_unknown_threshold(threshold) -> float:
    """Return the threshold of the probability that a class fits; raise if it is neither "auto" nor in (0, 1)."""
    if isinstance(threshold, str) and threshold == "auto":
        return KNOWN_THRESHOLD
    if isinstance(threshold, (bool, str)) or not 0 < threshold < 1:
        raise ValueError(f'unknown_threshold must be "auto" or a number between 0 and 1, got {threshold!r}.')
    return float(threshold)


def free_energy(logits: np.ndarray) -> np.ndarray:
    """Compute the logarithm (n,) of the sum of the exponentials of logits (n, n_labels)."""
    highest = logits.max(axis=1)
    return highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))


def measure_evidence(logits: np.ndarray, logit_scale: float, classes, weight, kind: Evidence) -> Evidence:
    """Measure the evidence of training texts for their own and for other labels.

    Parameters
    ----------
    logits : ndarray of shape (n, n_labels)
        Their logits.
    logit_scale : float
        Factor of the logits.
    classes : ndarray of int of shape (n,)
        Own label of each text.
    weight : ndarray of shape (n,)
        Weights of the texts.
    kind : Evidence
        Evidence without numbers, which says what the logits are.

    Returns
    -------
    Evidence

    Examples
    --------
    >>> logits = np.array([[18.0, 2.0], [0.0, 14.0]])
    >>> measure_evidence(logits, 20.0, np.array([0, 1]), np.ones(2), Evidence(is_cosine=True)).stored
    {'match': 8.0, 'mismatch': 0.5, 'weight': 2.0}
    """
    scaled = kind.scale(logits, logit_scale).astype(np.float64)
    rows, n_others = np.arange(len(scaled)), scaled.shape[1] - 1
    own = scaled[rows, classes]
    others = scaled.copy()
    others[rows, classes] = -np.inf
    mismatch = free_energy(others) - math.log(n_others)
    match, mismatch = (float(np.average(values, weights=weight)) for values in (own, mismatch))
    return replace(kind, match=match, mismatch=mismatch, weight=float(np.sum(weight)))


# -- the answer where no class fits ------------------------------------------------------------------------------


def check_unknown_label(label, classes: np.ndarray) -> None:
    """Raise if a value cannot be the answer where none of the classes fits.

    Parameters
    ----------
    label : object
        Hyperparameter `unknown_label`, not None.
    classes : ndarray of shape (n_classes,)
        The classes.

    Raises
    ------
    ValueError
        If it is one of the classes, or of a type that an array of the classes does not hold.
    """
    value = label.item() if isinstance(label, np.generic) else label
    known = classes.tolist()
    is_text = isinstance(known[0], str)
    hint = "give a str" if is_text else f"give a value of their type ({type(known[0]).__name__})"
    if type(value) not in _kinds(known) or not _fits(value, classes.dtype):
        raise ValueError(
            f"unknown_label={label!r} cannot stand among the classes, which are {_shown(known)}; {hint}, or None."
        )
    if value != value or value in known:
        problem = "is one of the classes" if value in known else "is a missing value"
        raise ValueError(
            f"unknown_label={label!r} {problem}, and it is the answer for texts of no class; choose another value. "
            "Leave out rows of unknown texts in fit, or set unknown_label=None to learn them as a class of their own."
        )


def _kinds(known: list) -> set[type]:
    kinds = {type(value) for value in known}
    return kinds | {int} if float in kinds else kinds  # an array of floats holds integers


def _fits(value, dtype: np.dtype) -> bool:
    """Return whether an array of a dtype can hold a value; strings and bytes may be longer than those in it."""
    if dtype.kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max


def _shown(known: list) -> str:
    return ", ".join(map(repr, known[:3])) + (", ..." if len(known) > 3 else "")


def answer_unknown(predicted: np.ndarray, is_known: np.ndarray, unknown_label) -> np.ndarray:
    """Return the predicted classes (n,), with `unknown_label` where no class fits.

    The dtype does not depend on the texts: that of strings is wide enough for the label.

    Examples
    --------
    >>> answer_unknown(np.array(["a", "b"]), np.array([True, False]), "none").tolist()
    ['a', 'none']
    """
    unknown = np.array([unknown_label], None if predicted.dtype.kind in "US" else predicted.dtype)
    answers = predicted.astype(np.promote_types(predicted.dtype, unknown.dtype))
    answers[~is_known] = unknown[0]
    return answers
