"""Ridge regression on embeddings of texts, as label embeddings of the bi-encoder with ``scorer_type="simple"``.

The logit of an output is ``scale * cos(text, label)``: a linear function without intercept of the normalised embedding
of the text, whose coefficients are the label embedding. The penalty is chosen by leave-one-out cross-validation, which
has a closed form (Golub, Heath and Wahba 1979, "Generalized Cross-Validation as a Method for Choosing a Good Ridge
Parameter", https://doi.org/10.1080/00401706.1979.10489751).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .probe import ProbeData

PENALTIES = np.geomspace(0.05, 50.0, 13)  # in texts, whose embeddings have norm 1
MIN_SHRINKAGE = 0.1  # positive, so that the ranking of the predictions is kept
RANK_TOLERANCE = 1e-10
ROWS_FOR_HALF_OF_VALUES = 100  # texts with which weights trained after it count as much as those before


@dataclass(frozen=True)
class RidgeProbe:
    """Result of :func:`fit_ridge`.

    Attributes
    ----------
    labels : Tensor of shape (outputs, hidden)
        Coefficients of the outputs, whose directions are the label embeddings.
    scale : float
        Logit scale: the largest norm of the coefficients.
    shrinkage : ndarray of shape (outputs,)
        Factors that take logits with this scale to predictions: the norm of the coefficients divided by the scale,
        times the slope of the values on their leave-one-out predictions if it is below 1.
    """

    labels: Tensor
    scale: float
    shrinkage: np.ndarray


def fit_ridge(data: ProbeData) -> RidgeProbe:
    """Fit a ridge regression of standardised values on embeddings of texts.

    Parameters
    ----------
    data : ProbeData
        Embeddings, values and one weight per text.

    Returns
    -------
    RidgeProbe

    Examples
    --------
    >>> texts = torch.eye(3).repeat(20, 1)
    >>> values = torch.tensor([[1.0], [0.0], [-1.0]]).repeat(20, 1)
    >>> probe = fit_ridge(ProbeData(texts, values, torch.ones(60, 1)))
    >>> probe.labels.numpy().round(1).tolist()
    [[1.0, 0.0, -1.0]]
    """
    texts, values, weights = (part.double().cpu().numpy() for part in (data.texts, data.targets, data.weights))
    rotated, directions, squares = _principal_components(texts * np.sqrt(weights))
    targets = values * np.sqrt(weights)
    projected = rotated.T @ targets
    candidates = [_leave_one_out(rotated, targets, projected, squares / (squares + penalty)) for penalty in PENALTIES]
    errors = [((targets - held_out) ** 2).sum() for held_out in candidates]
    best = int(np.argmin(errors))
    coefficients = (directions @ (projected * (np.sqrt(squares) / (squares + PENALTIES[best]))[:, None])).T
    norms = np.linalg.norm(coefficients, axis=1)
    scale = float(norms.max()) or 1.0
    shrinkage = np.clip(norms / scale * np.minimum(_slopes(candidates[best], targets), 1.0), MIN_SHRINKAGE, 1.0)
    return RidgeProbe(torch.from_numpy(coefficients).to(data.texts), scale, shrinkage)


def _principal_components(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return U (n, rank), V (hidden, rank) and squares of S of the singular value decomposition of the features."""
    squares, directions = np.linalg.eigh(features.T @ features)
    kept = squares > RANK_TOLERANCE * squares[-1]
    squares, directions = squares[kept], directions[:, kept]
    return features @ directions / np.sqrt(squares), directions, squares


def _leave_one_out(rotated, targets, projected, kept: np.ndarray) -> np.ndarray:
    """Compute the prediction (n, outputs) of each row by a regression on the other ones.

    `kept` is the share of each principal component that the penalty leaves.
    """
    fitted = rotated @ (kept[:, None] * projected)
    leverage = (rotated**2) @ kept
    return targets - (targets - fitted) / np.maximum(1.0 - leverage, RANK_TOLERANCE)[:, None]


def _slopes(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    squares = (predictions**2).sum(axis=0)
    products = (predictions * targets).sum(axis=0)
    return np.divide(products, squares, out=np.ones_like(products), where=squares > 0)
