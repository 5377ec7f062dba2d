"""Label embeddings of a label probe for several strengths of the prior, on all rows and on folds of them at once.

The optimiser is L-BFGS on the sphere. All classes have one preconditioner, the Hessian of the loss if their
probabilities were equally certain: few evaluations are sufficient, where L-BFGS without it needs dozens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .probe import ProbeData

MAX_TRIALS = 5  # of the step length
SUFFICIENT_DECREASE = 1e-4  # relative to the slope (Armijo's condition)
SHORTEN = (0.15, 0.6)  # bounds of the factor by which a step is shortened
LENGTHEN = 1.5  # factor of the step length after a sufficient decrease
ROUNDING = 1e-6  # relative differences of losses that are not significant


class Point(NamedTuple):
    """Label embeddings and margins of all fits, with the loss of their rows.

    Attributes
    ----------
    labels : Tensor of shape (fits, labels, hidden)
        Label embeddings of norm 1.
    margins : Tensor of shape (fits,)
        Margins; 0 for single-label y.
    losses : Tensor of shape (fits,)
        Losses without the prior.
    of_labels, of_margins : Tensor
        Gradients of the losses.
    curvature : Tensor of shape ()
        Mean second derivative of the loss by a logit, per unit of weight.
    """

    labels: Tensor
    margins: Tensor
    losses: Tensor
    of_labels: Tensor
    of_margins: Tensor
    curvature: Tensor


class LabelPath:
    """Fits of label embeddings to all rows, and to parts of them.

    Parameters
    ----------
    data : ProbeData
        Embeddings and targets.
    shares : Tensor of shape (fits, n)
        Factors of the rows' weights in each fit, 0 for rows that it does not see.
    names : Tensor of shape (labels, hidden)
        Directions of the label names, of norm 1.
    scale : float
        Scale of the cosines.
    margin : float
        Initial margin for multi-label y.
    """

    def __init__(self, data: ProbeData, shares: Tensor, names: Tensor, scale: float, margin: float):
        self.data, self.names, self.scale = data, names, scale
        self.weights = (shares.unsqueeze(2) * data.weights).transpose(0, 1)  # (n, fits, 1 or labels)
        self.targets = data.targets.unsqueeze(1)
        self.total = self.weights.sum(dim=(0, 2)).clamp_min(1e-12)  # (fits,)
        weighted = data.texts * data.weights.mean(dim=1, keepdim=True)
        self.gram = weighted.T @ data.texts  # (hidden, hidden)
        margins = names.new_full((len(shares),), margin if data.multi_label else 0.0)
        self.lengths = torch.ones_like(self.total)  # of the next steps
        self.point = self._evaluate(names.expand(len(shares), -1, -1), margins)

    def fit(self, strength: float, n_steps: int) -> tuple[Tensor, Tensor]:
        """Maximise the posterior for a strength of the prior, from the labels of the strength before.

        Parameters
        ----------
        strength : float
            Strength of the prior around the names, in texts.
        n_steps : int
            Number of steps.

        Returns
        -------
        labels : Tensor of shape (fits, labels, hidden)
            Label embeddings of norm 1.
        margins : Tensor of shape (fits,)
            Margins.
        """
        losses, gradient, radial = self._posterior(self.point, strength)
        factor, of_margin = self._precondition(strength, radial)
        history: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(n_steps):
            direction = -_two_loops(gradient, history, lambda q: self._solve(q, factor, of_margin))
            before = self._flat(self.point.labels, self.point.margins)
            new = self._search(strength, losses, direction, (direction * gradient).sum(dim=1))
            losses, changed, _ = self._posterior(new, strength)
            step, change = self._flat(new.labels, new.margins) - before, changed - gradient
            product = (step * change).sum(dim=1)
            is_convex = product > 1e-10 * change.square().sum(dim=1)
            history.append((step, change, torch.where(is_convex, 1 / product, 0.0)))
            self.point, gradient = new, changed
        return self.point.labels, self.point.margins

    def _search(self, strength: float, losses: Tensor, direction: Tensor, slopes: Tensor) -> Point:
        """Return the point after a step, which each fit shortens until its loss decreases."""
        labels, margins = self._split(direction)
        lengths = self.lengths
        for _ in range(MAX_TRIALS):
            moved = self.point.labels + lengths[:, None, None] * labels
            new = self._evaluate(F.normalize(moved, dim=2), self.point.margins + lengths * margins)
            change = self._posterior(new, strength)[0] - losses
            too_long = change > SUFFICIENT_DECREASE * lengths * slopes
            too_long &= change > ROUNDING * losses.abs()
            if not too_long.any():
                self.lengths = (LENGTHEN * lengths).clamp_max(1.0)
                return new
            # The minimum of the parabola through both losses and the slope.
            best = -slopes * lengths**2 / (2 * (change - slopes * lengths)).clamp_min(1e-12)
            shorter = torch.minimum(torch.maximum(best, SHORTEN[0] * lengths), SHORTEN[1] * lengths)
            lengths = torch.where(too_long, shorter, lengths)
        self.lengths = lengths
        keep = too_long[:, None, None]
        labels = torch.where(keep, self.point.labels, new.labels)
        return self._evaluate(labels, torch.where(too_long, self.point.margins, new.margins))

    def _evaluate(self, labels: Tensor, margins: Tensor) -> Point:
        n_fits, n_labels, width = labels.shape
        logits = self.scale * (self.data.texts @ labels.reshape(-1, width).T).view(-1, n_fits, n_labels)
        if self.data.multi_label:
            logits = logits - self.scale * margins[:, None]
            losses = F.binary_cross_entropy_with_logits(logits, self.targets.expand_as(logits), reduction="none")
            losses, probabilities = (self.weights * losses).sum(dim=(0, 2)), logits.sigmoid()
        else:
            logs = logits.log_softmax(dim=2)
            losses, probabilities = -(self.weights * self.targets * logs).sum(dim=(0, 2)), logs.exp()
        curvature = (self.weights * probabilities * (1 - probabilities)).sum() / self.weights.expand_as(logits).sum()
        of_logits = self.scale * self.weights * (probabilities - self.targets)  # (n, fits, labels)
        of_labels = (of_logits.flatten(1).T @ self.data.texts).view_as(labels)
        of_margins = -of_logits.sum(dim=(0, 2)) if self.data.multi_label else torch.zeros_like(margins)
        return Point(labels, margins, losses, of_labels, of_margins, curvature)

    def _posterior(self, point: Point, strength: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses with the prior, their gradients on the sphere, and the parts that point outwards."""
        losses = point.losses - 2 * strength * (point.labels * self.names).sum(dim=(1, 2))
        gradient = point.of_labels - 2 * strength * self.names
        radial = (gradient * point.labels).sum(dim=2, keepdim=True)
        return losses, self._flat(gradient - radial * point.labels, point.of_margins), radial

    def _precondition(self, strength: float, radial: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of the approximate Hessian of each label, and the one of the margin."""
        curvature = self.scale**2 * self.point.curvature
        on_sphere = (-radial.mean()).clamp_min(0.2 * strength)  # a step on the sphere turns the gradient
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        factor = torch.linalg.cholesky(curvature * self.gram + on_sphere * identity)
        return factor, (curvature * self.total * len(self.names)).clamp_min(1e-12)

    def _solve(self, gradient: Tensor, factor: Tensor, of_margin: Tensor) -> Tensor:
        labels, margins = self._split(gradient)
        flat = labels.reshape(-1, labels.shape[2])
        return self._flat(torch.cholesky_solve(flat.T, factor).T.view_as(labels), margins / of_margin)

    def _flat(self, labels: Tensor, margins: Tensor) -> Tensor:
        return torch.cat([labels.flatten(1), margins[:, None]], dim=1)

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        return flat[:, :-1].view(len(flat), *self.names.shape), flat[:, -1]


def _two_loops(gradient: Tensor, history, precondition) -> Tensor:
    """Multiply gradients (fits, n) by the inverse Hessian of L-BFGS (Nocedal and Wright 2006, algorithm 7.4)."""
    factors = []
    for step, change, inverse in reversed(history):
        factors.append(inverse * (step * gradient).sum(dim=1))
        gradient = gradient - factors[-1][:, None] * change
    result = precondition(gradient)
    for (step, change, inverse), factor in zip(history, reversed(factors), strict=True):
        result = result + (factor - inverse * (change * result).sum(dim=1))[:, None] * step
    return result
