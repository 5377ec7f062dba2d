"""Label probe: label embeddings fitted to embeddings of texts, with those of the label names as their prior.

The logits are ``scale * cos(text, label)``, as in the bi-encoder with ``scorer_type="simple"``. A label embedding is a
direction v, and its prior is a von Mises-Fisher distribution around the direction t of the label name, with the density
proportional to ``exp(2 * strength * v @ t)``. The prior's strength and the scale are not selected but averaged over a
grid, with the likelihood of held-out texts times a log-normal prior as weights (Yao et al. 2018, "Using stacking to
average Bayesian predictive distributions", https://arxiv.org/abs/1704.02030): a few texts cannot tell which values are
best. Linear probes with such a prior are known from image-text models (Silva-Rodriguez et al. 2024, "A Closer Look at
the Few-Shot Adaptation of Large Vision-Language Models", https://arxiv.org/abs/2312.12730).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)  # of the prior, in texts; strong ones are near the label names
SCALES = (3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
FITTED_SCALE = 14.0  # scale for which the label embeddings are fitted
TRAINING_SCALE = 10.0  # scale of the fine-tuning that follows
# Scale of calibrated probabilities after it, by the number of labels: fitted to held-out rows of 8 data sets.
FINE_TUNED_SCALE, FINE_TUNED_SCALE_PER_LOG_LABEL = 7.0, 2.0
# Log-normal priors: median, and standard deviation of the logarithm.
STRENGTH_PRIOR = (50.0, 1.5)
SCALE_PRIOR = (14.0, 0.4)
NAMES_STRENGTH = 1000.0  # strength that the prior of the label names themselves, without any fit, is computed with
N_FOLDS = 4
MAX_ROWS_OF_FOLDS = 2048  # distinct texts that strength and scale are estimated on
MAX_STEPS, MAX_STEPS_OF_FOLDS = 40, 15  # of L-BFGS


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
    """

    labels: Tensor
    scale: float
    strength: float

    def halfway(self, names: Tensor) -> Tensor:
        """Return the directions halfway between the label names (labels, hidden) and the fitted label embeddings.

        Fine-tuning moves the texts far more than the labels, and towards the names it overfits less.
        """
        return F.normalize(self.labels + F.normalize(names, dim=1), dim=1)


@dataclass(frozen=True)
class ProbeData:
    """Embeddings of norm 1 and targets.

    Attributes
    ----------
    texts : Tensor of shape (n, hidden)
        Embeddings of distinct texts.
    targets : Tensor of shape (n, labels)
        Probabilities of the labels, times the weights of the texts.
    """

    texts: Tensor
    targets: Tensor

    def take(self, rows) -> "ProbeData":
        return ProbeData(self.texts[rows], self.targets[rows])


def fit_label_probe(texts: Tensor, targets: Tensor, names: Tensor) -> LabelProbe:
    """Fit label embeddings to embeddings of texts.

    Parameters
    ----------
    texts : Tensor of shape (n, hidden)
        Embeddings of distinct texts, in an order that does not depend on the order of the training data.
    targets : Tensor of shape (n, labels)
        Probabilities of the labels, times the weights of the texts.
    names : Tensor of shape (labels, hidden)
        Embeddings of the label names.

    Returns
    -------
    LabelProbe

    Examples
    --------
    >>> names = torch.eye(2)
    >>> texts = torch.tensor([[1.0, 0.2], [0.9, 0.3], [-0.2, 1.0], [0.1, 0.8]])
    >>> probe = fit_label_probe(texts, torch.eye(2)[[0, 0, 1, 1]], names)
    >>> (texts @ probe.labels.T).argmax(dim=1).tolist()
    [0, 0, 1, 1]
    """
    data = ProbeData(F.normalize(texts, dim=1), targets)
    names = F.normalize(names, dim=1)
    weights = _weights_of_grid(data, names)  # (strengths, scales)
    of_strengths = weights.sum(dim=1)
    candidates = torch.stack([names, *_fit_path(data, names, MAX_STEPS)])
    labels = F.normalize(torch.einsum("s,sld->ld", of_strengths.to(names), candidates), dim=1)
    return LabelProbe(
        labels,
        scale=_geometric_mean(SCALES, weights.sum(dim=0)),
        strength=_geometric_mean((NAMES_STRENGTH, *STRENGTHS), of_strengths),
    )


def _weights_of_grid(data: ProbeData, names: Tensor) -> Tensor:
    """Return the weights (1 + strengths, scales) of the label names and of each strength, for each scale."""
    prior = torch.stack(
        [
            _log_normal(strength, *STRENGTH_PRIOR) + torch.stack([_log_normal(s, *SCALE_PRIOR) for s in SCALES])
            for strength in (NAMES_STRENGTH, *STRENGTHS)
        ]
    )
    likelihood = torch.zeros_like(prior)
    rows = _rows_of_folds(data)
    for held_out in range(N_FOLDS):
        train, test = data.take(rows[np.arange(len(rows)) % N_FOLDS != held_out]), data.take(rows[held_out::N_FOLDS])
        if len(test.texts) and len(train.texts):
            path = [names, *_fit_path(train, names, MAX_STEPS_OF_FOLDS)]
            likelihood += torch.stack([_log_likelihoods(test, labels) for labels in path])
    return (prior + likelihood).flatten().softmax(dim=0).view_as(prior)


def _log_normal(value: float, median: float, deviation: float) -> Tensor:
    return -0.5 * (torch.tensor(value / median, dtype=torch.float64).log() / deviation) ** 2


def _rows_of_folds(data: ProbeData) -> np.ndarray:
    """Return the rows, spread evenly over the classes: every `N_FOLDS`-th of them is a stratified fold."""
    order = np.argsort(data.targets.argmax(dim=1).cpu().numpy(), kind="stable")
    chosen = np.linspace(0, len(order) - 1, min(len(order), MAX_ROWS_OF_FOLDS)).round().astype(int)
    return order[chosen]


def _log_likelihoods(data: ProbeData, labels: Tensor) -> Tensor:
    """Compute the log-likelihood (scales,) of the targets for each scale."""
    cosines = data.texts @ labels.T
    losses = [-(scale * cosines).log_softmax(dim=1).mul(data.targets).sum() for scale in SCALES]
    return -torch.stack(losses).double().cpu()


def _fit_path(data: ProbeData, names: Tensor, max_steps: int) -> list[Tensor]:
    """Fit label embeddings for each strength, from the strongest prior on; each fit starts from the one before."""
    path, labels = [], names
    for strength in STRENGTHS:
        labels = _fit(data, names, strength, labels, max_steps)
        path.append(labels)
    return path


def _fit(data: ProbeData, names: Tensor, strength: float, start: Tensor, max_steps: int) -> Tensor:
    """Maximise the posterior of the label embeddings (labels, hidden) by L-BFGS."""
    weights = data.targets.sum(dim=1, keepdim=True)
    total = float(weights.sum())

    def loss_and_gradient(vector):
        free = torch.from_numpy(vector).to(names).view_as(names)
        norms = free.norm(dim=1, keepdim=True)
        labels = free / norms
        logs = (FITTED_SCALE * data.texts @ labels.T).log_softmax(dim=1)
        loss = -(logs * data.targets).sum() - 2 * strength * (labels * names).sum()
        gradient = FITTED_SCALE * (weights * logs.exp() - data.targets).T @ data.texts - 2 * strength * names
        gradient = (gradient - (gradient * labels).sum(dim=1, keepdim=True) * labels) / norms
        return float(loss) / total, (gradient.double().cpu() / total).flatten().numpy()

    result = minimize(
        loss_and_gradient,
        start.double().cpu().flatten().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps},
    )
    return F.normalize(torch.from_numpy(result.x).to(names).view_as(names), dim=1)


def _geometric_mean(values, weights: Tensor) -> float:
    return float((torch.tensor(values, dtype=weights.dtype).log() * weights).sum().exp())


def fine_tuned_scale(n_labels: int) -> float:
    """Return the logit scale of calibrated probabilities after fine-tuning from a label probe."""
    return FINE_TUNED_SCALE + FINE_TUNED_SCALE_PER_LOG_LABEL * math.log(n_labels)


def distinct_rows(dataset, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the rows of a data set with equal tokens and targets, in the order of their content.

    A row of weight 2 and a duplicated row then give the same probe.

    Parameters
    ----------
    dataset : TextDataset
        Texts with classes, or rows of probabilities, and weights of the samples.
    texts : Tensor of shape (n, hidden)
        Their embeddings.

    Returns
    -------
    texts : Tensor of shape (n_distinct, hidden)
    targets : Tensor of shape (n_distinct, labels)
        Probabilities of the labels, times the weights.
    """
    targets = dataset.targets
    shares = np.eye(dataset.n_labels)[targets] if targets.ndim == 1 else np.asarray(targets, np.float64)
    keys = [(dataset.tokens[row].tobytes(), shares[row].tobytes()) for row in range(len(dataset))]
    distinct = sorted(set(keys))
    place = {key: number for number, key in enumerate(distinct)}
    index = np.fromiter(map(place.__getitem__, keys), np.int64, len(keys))
    _, rows = np.unique(index, return_index=True)
    weight = np.bincount(index, dataset.sample_weight)
    return texts[torch.from_numpy(rows)], torch.from_numpy(shares[rows] * weight[:, None]).to(texts)
