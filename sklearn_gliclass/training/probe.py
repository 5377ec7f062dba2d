"""Label probe: label embeddings fitted to embeddings of texts, with those of the label names as their prior.

The logits are ``scale * (cos(text, label) - margin)``, as in the bi-encoder with ``scorer_type="simple"``; the margin
is 0 for single-label y. A label embedding is a
direction v, and its prior is a von Mises-Fisher distribution around the direction t of the label name, with the density
proportional to ``exp(2 * strength * v @ t)``. The prior's strength and the scale are not selected but averaged over a
grid, with the likelihood of held-out texts times a log-normal prior as weights (Yao et al. 2018, "Using stacking to
average Bayesian predictive distributions", https://arxiv.org/abs/1704.02030): a few texts cannot tell which values are
best. Linear probes with such a prior are known from image-text models (Silva-Rodriguez et al. 2024, "A Closer Look at
the Few-Shot Adaptation of Large Vision-Language Models", https://arxiv.org/abs/2312.12730).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.isolation import process_lock
from ..samples import TargetPart, class_shares
from .label_path import LabelPath

STRENGTHS = (200.0, 50.0, 12.0, 3.0, 0.8)  # of the prior, in texts; strong ones are near the label names
SCALES = (3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
MARGINS = np.arange(0.0, 0.8, 0.02)
FITTED_SCALE = 14.0  # scale for which the label embeddings are fitted
TRAINING_SCALE = 10.0  # scale of the fine-tuning that follows, for single-label y
ROWS_FOR_HALF = 24  # with which the trained weights are averaged in equal shares with those before
# Scale of calibrated probabilities after it, by the number of labels: fitted to held-out rows of 8 data sets.
FINE_TUNED_SCALE, FINE_TUNED_SCALE_PER_LOG_LABEL = 8.4, 2.4
# Log-normal priors: median, and standard deviation of the logarithm.
STRENGTH_PRIOR = (50.0, 1.5)
SCALE_PRIOR = (14.0, 0.4)
NAMES_STRENGTH = 1000.0  # strength that the prior of the label names themselves, without any fit, is computed with
NAMES_MARGIN = 0.3
N_FOLDS = 3
MAX_ROWS_OF_FOLDS = 2048  # distinct texts that strength and scale are estimated on
ENOUGH_HELD_OUT = 512  # distinct texts after whose folds no further one is held out
KEPT_BYTES = 32 * 2**20  # of the label embeddings of the last probes
# Steps of the optimiser for each strength. With 2, weak priors are fitted too little to 32 texts per class.
STEPS = (2, 2, 3, 5, 5)


@dataclass(frozen=True)
class LabelProbe:
    """Result of :func:`fit_label_probe`.

    Attributes
    ----------
    labels : Tensor of shape (labels, hidden)
        Label embeddings of norm 1.
    scale : float
        Scale of the cosines, the reciprocal of a temperature.
    strength : float
        Geometric mean of the strengths of the prior.
    likely_margin : float
        Margin with the highest likelihood for multi-label y, else 0: that of the probabilities.
    margin : float
        Margin with the highest micro-F1 for multi-label y, else 0: that of decisions.
    """

    labels: Tensor
    scale: float
    strength: float
    likely_margin: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True)
class ProbeData:
    """Embeddings of distinct texts and their targets, in an order that does not depend on that of the training data.

    Attributes
    ----------
    texts : Tensor of shape (n, hidden)
        Embeddings of norm 1.
    targets : Tensor of shape (n, labels)
        Probabilities of the labels (single-label), or 0 and 1.
    weights : Tensor of shape (n, 1) or (n, labels)
        Weights of the texts, or of each of their labels.
    multi_label : bool
        Whether each label is a decision of its own.
    """

    texts: Tensor
    targets: Tensor
    weights: Tensor
    multi_label: bool = False

    def take(self, rows) -> ProbeData:
        """Select texts."""
        return replace(self, texts=self.texts[rows], targets=self.targets[rows], weights=self.weights[rows])

    def loss(self, logits: Tensor) -> Tensor:
        """Compute the weighted sum of the losses."""
        if self.multi_label:
            losses = F.binary_cross_entropy_with_logits(logits, self.targets, reduction="none")
            return (self.weights * losses).sum()
        return -(self.weights * self.targets * logits.log_softmax(dim=1)).sum()


# Probes of the last data, the oldest first: candidates of a search that differ in their heads only have the same one.
_kept: dict[bytes, LabelProbe] = {}


def fit_label_probe(data: ProbeData, names: Tensor) -> LabelProbe:
    """Fit label embeddings to embeddings of texts, or return those of an earlier fit to equal data.

    Parameters
    ----------
    data : ProbeData
        Embeddings and targets.
    names : Tensor of shape (labels, hidden)
        Embeddings of the label names.

    Returns
    -------
    LabelProbe

    Examples
    --------
    >>> texts = F.normalize(torch.tensor([[1.0, 0.2], [0.9, 0.3], [-0.2, 1.0], [0.1, 0.8]]), dim=1)
    >>> data = ProbeData(texts, torch.eye(2)[[0, 0, 1, 1]], torch.ones(4, 1))
    >>> probe = fit_label_probe(data, names=torch.eye(2))
    >>> (texts @ probe.labels.T).argmax(dim=1).tolist()
    [0, 0, 1, 1]
    """
    key = _digest(data, names)
    with process_lock():
        probe = _kept.pop(key, None)
    probe = probe or _fit(data, names)  # outside of the lock, so that threads fit at the same time
    with process_lock():
        _kept[key] = probe
        while sum(kept.labels.nbytes for kept in _kept.values()) > KEPT_BYTES:
            del _kept[next(iter(_kept))]
    return probe


def _digest(data: ProbeData, names: Tensor) -> bytes:
    digest = hashlib.sha256(str(data.multi_label).encode())
    for tensor in (data.texts, data.targets, data.weights, names):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype} {tensor.device}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.digest()


def _fit(data: ProbeData, names: Tensor) -> LabelProbe:
    names = F.normalize(names, dim=1)
    path, held_out, cosines = _fit_and_cross_validate(data, names)
    weights = _weights_of_grid(held_out, cosines)  # (1 + strengths, scales)
    of_strengths = weights.sum(dim=1).to(names)
    candidates = torch.cat([names.unsqueeze(0), path])
    labels = F.normalize(torch.einsum("s,sld->ld", of_strengths, candidates), dim=1)
    scale = _geometric_mean(SCALES, weights.sum(dim=0))
    strength = _geometric_mean((NAMES_STRENGTH, *STRENGTHS), weights.sum(dim=1))
    if not data.multi_label:
        return LabelProbe(labels, scale, strength)
    cosines = torch.einsum("s,snl->nl", of_strengths, cosines)
    likely = min(MARGINS, key=lambda margin: float(held_out.loss(scale * (cosines - margin))))
    return LabelProbe(labels, scale, strength, float(likely), _best_margin(held_out, cosines))


def halfway(labels: Tensor, names: Tensor) -> Tensor:
    """Return the directions halfway between fitted label embeddings and those of the label names (labels, hidden).

    Fine-tuning moves the texts far more than the labels, and towards the names it overfits less.
    """
    return F.normalize(labels + F.normalize(names, dim=1), dim=1)


def _fit_and_cross_validate(data: ProbeData, names: Tensor) -> tuple[Tensor, ProbeData, Tensor]:
    """Fit label embeddings to all texts, and to all but those of each fold.

    Returns
    -------
    path : Tensor of shape (strengths, labels, hidden)
        Label embeddings for each strength.
    held_out : ProbeData
        Texts of the folds.
    cosines : Tensor of shape (1 + strengths, n, labels)
        Their cosines with the names, and with labels that are fitted without them.
    """
    rows = _rows_of_folds(data)
    held_out, is_all = data.take(rows), len(rows) == len(data.texts)
    folds = torch.arange(len(rows), device=data.texts.device) % N_FOLDS
    n_folds = min(N_FOLDS, -(-ENOUGH_HELD_OUT * N_FOLDS // len(rows)))
    seen = torch.stack([folds != fold for fold in range(n_folds)]).to(data.texts)
    if is_all:  # in one pass
        seen = torch.cat([seen.new_ones(1, len(rows)), seen])
    fitted = fit_path(held_out, seen, names)  # (strengths, fits, labels, hidden)
    path = fitted[:, 0] if is_all else fit_path(data, data.texts.new_ones(1, len(data.texts)), names)[:, 0]
    parts = [torch.nonzero(folds == fold).squeeze(1) for fold in range(n_folds)]
    candidates = torch.cat([names.expand(1, n_folds, *names.shape), fitted[:, is_all:]])
    pairs = zip(parts, candidates.unbind(1), strict=True)
    cosines = torch.cat([held_out.texts[part] @ labels.transpose(1, 2) for part, labels in pairs], dim=1)
    return path, held_out.take(torch.cat(parts)), cosines


def fit_path(data: ProbeData, seen: Tensor, names: Tensor, n_steps: int | None = None) -> Tensor:
    """Fit label embeddings for each strength, from the strongest prior on; each fit starts from the one before.

    Parameters
    ----------
    data : ProbeData
        Embeddings and targets.
    seen : Tensor of shape (fits, n)
        Factors of the rows' weights in each fit.
    names : Tensor of shape (labels, hidden)
        Directions of the label names, of norm 1.
    n_steps : int, optional
        Number of steps for each strength. If None, `STEPS`.

    Returns
    -------
    Tensor of shape (strengths, fits, labels, hidden)
        Label embeddings of norm 1.
    """
    path = LabelPath(data, seen, names, FITTED_SCALE, NAMES_MARGIN)
    steps = STEPS if n_steps is None else [n_steps] * len(STRENGTHS)
    return torch.stack([path.fit(strength, n)[0] for strength, n in zip(STRENGTHS, steps, strict=True)])


def _rows_of_folds(data: ProbeData) -> np.ndarray:
    """Return the rows, spread evenly over the classes: every `N_FOLDS`-th of them is a stratified fold."""
    order = np.argsort(data.targets.argmax(dim=1).cpu().numpy(), kind="stable")
    chosen = np.linspace(0, len(order) - 1, min(len(order), MAX_ROWS_OF_FOLDS)).round().astype(int)
    return order[chosen]


def _weights_of_grid(data: ProbeData, cosines: Tensor) -> Tensor:
    """Return the weights (1 + strengths, scales) of the label names and of each strength, for each scale."""
    scales = torch.stack([_log_normal(scale, *SCALE_PRIOR) for scale in SCALES])
    logs = [
        _log_normal(strength, *STRENGTH_PRIOR) + scales + _log_likelihoods(data, values)
        for strength, values in zip((NAMES_STRENGTH, *STRENGTHS), cosines, strict=True)
    ]
    return torch.stack(logs).flatten().softmax(dim=0).view(len(logs), -1)


def _log_normal(value: float, median: float, deviation: float) -> Tensor:
    return -0.5 * (torch.tensor(value / median, dtype=torch.float64).log() / deviation) ** 2


def _log_likelihoods(data: ProbeData, cosines: Tensor) -> Tensor:
    """Compute the log-likelihood (scales,) of the targets for each scale, with the best margin."""
    margins = MARGINS[::4] if data.multi_label else [0.0]
    losses = [min(float(data.loss(scale * (cosines - margin))) for margin in margins) for scale in SCALES]
    return -torch.tensor(losses, dtype=torch.float64)


def _best_margin(data: ProbeData, cosines: Tensor) -> float:
    """Return the margin with the highest micro-F1: a threshold of 0.5 is then right for decisions."""
    positives = data.weights * data.targets
    weights = data.weights.expand_as(cosines)
    scores = []
    for margin in MARGINS:
        predicted = cosines >= margin
        found = float(positives[predicted].sum())
        scores.append(2 * found / max(float(positives.sum() + weights[predicted].sum()), 1e-12))
    return float(MARGINS[int(np.argmax(scores))])


def _geometric_mean(values, weights: Tensor) -> float:
    return float((torch.tensor(values, dtype=weights.dtype).log() * weights).sum().exp())


def fine_tuned_scale(n_labels: int) -> float:
    """Return the logit scale of calibrated probabilities after fine-tuning from a label probe."""
    return FINE_TUNED_SCALE + FINE_TUNED_SCALE_PER_LOG_LABEL * math.log(n_labels)


def fine_tuned_share(n_rows: float, rows_for_half: float = ROWS_FOR_HALF) -> float:
    """Return the share of the fine-tuned weights in their average with those before.

    `n_rows` is the number of rows, each counted with its weight. They train one encoder, whatever the number of labels.

    Examples
    --------
    >>> [round(fine_tuned_share(rows), 2) for rows in (16, 64, 600, 8000)]
    [0.45, 0.62, 0.83, 0.95]
    """
    return math.sqrt(n_rows) / (math.sqrt(n_rows) + math.sqrt(rows_for_half))


def distinct_rows(tokens, texts: Tensor, part: TargetPart, multi_label: bool, ignore_index: int = -100) -> ProbeData:
    """Merge the rows of a data set with equal tokens and targets, in the order of their content.

    A row of weight 2 and a duplicated row then give the same probe.

    Parameters
    ----------
    tokens : sequence of ndarray
        Token ids of the n texts.
    texts : Tensor of shape (n, hidden)
        Their embeddings, of norm 1, or the mean of those of their windows.
    part : TargetPart
        A target: classes, rows of probabilities or indicators, and weights of its rows.
    multi_label : bool
        Whether each label is a decision of its own.
    ignore_index : int, default=-100
        Indicator of unknown labels, whose weight is 0.

    Returns
    -------
    ProbeData
        The distinct texts.
    """
    targets, weights = class_shares(part.targets, part.n_labels).astype(np.float64), part.sample_weight
    weights = weights.reshape(len(weights), -1).astype(np.float64)
    if multi_label:
        known = targets != ignore_index
        targets, weights = np.where(known, targets, 0.0), weights * known
    index, rows = _merge(
        [(tokens[row].tobytes(), target.tobytes()) for row, target in zip(part.rows, targets, strict=True)]
    )
    summed = np.zeros((len(rows), weights.shape[1]))
    np.add.at(summed, index, weights)
    return ProbeData(
        texts[torch.from_numpy(part.rows[rows])],
        torch.from_numpy(targets[rows]).to(texts),
        torch.from_numpy(summed).to(texts),
        multi_label,
    )


def _merge(keys: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each key among the sorted distinct ones, and the first row of each of these."""
    place = {key: number for number, key in enumerate(sorted(set(keys)))}
    index = np.fromiter(map(place.__getitem__, keys), np.int64, len(keys))
    return index, np.unique(index, return_index=True)[1]
