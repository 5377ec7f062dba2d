"""Formulas of proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

A policy is a distribution over actions, the labels of a text. ``logits``, ``actions`` and ``valid`` have the shape
(n, labels). Values of decisions have the shape (n, labels) where each label is a decision of its own (Bernoulli), and
(n, 1) where one label is chosen (categorical). Labels that are not valid have probability 0 and no effect.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_PROBABILITY = 1e-7  # lower bound for a reference, so that its logarithm is finite


class BernoulliPolicy:
    """Policy for multi-label problems: each label is a decision of its own."""

    def __init__(self, logits: Tensor, valid: Tensor):
        self.valid = valid
        self.decisions = valid  # mask of the decisions (n, labels)
        self.log_yes, self.log_no = F.logsigmoid(logits), F.logsigmoid(-logits)
        self.probs = self.log_yes.exp() * valid

    def sample(self, generator: torch.Generator) -> Tensor:
        """Sample actions, each label with its probability."""
        return torch.bernoulli(self.probs, generator=generator)

    def decide(self, threshold: float) -> Tensor:
        """Return the labels whose probability is at least the threshold."""
        return ((self.probs >= threshold) & self.valid).to(self.probs.dtype)

    def log_prob(self, actions: Tensor, smoothing: float = -1) -> Tensor:
        """Compute the log-probability of each decision, with label smoothing towards 0.5."""
        if smoothing > 0:
            actions = actions * (1 - smoothing) + 0.5 * smoothing
        return self._masked(actions * self.log_yes + (1 - actions) * self.log_no)

    def entropy(self) -> Tensor:
        """Compute the entropy of each decision."""
        return -self._masked(self.probs * self.log_yes + (1 - self.probs) * self.log_no)

    def divergence(self, reference: Tensor) -> Tensor:
        """Compute the Kullback-Leibler divergence of each decision from the probabilities of a reference."""
        reference = reference.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        yes = self.probs * (self.log_yes - reference.log())
        no = (1 - self.probs) * (self.log_no - (1 - reference).log())
        return self._masked(yes + no)

    def to_decisions(self, values: Tensor, actions: Tensor) -> Tensor:
        """Convert values of labels to values of decisions."""
        return values

    def _masked(self, values: Tensor) -> Tensor:
        return values.masked_fill(~self.valid, 0.0)


class CategoricalPolicy:
    """Policy for single-label problems: one decision, the choice of a label."""

    def __init__(self, logits: Tensor, valid: Tensor):
        self.valid = valid
        self.decisions = valid.any(dim=1, keepdim=True)
        self.log_probs = logits.masked_fill(~valid, torch.finfo(logits.dtype).min).log_softmax(dim=1)
        self.probs = self.log_probs.exp() * valid

    def sample(self, generator: torch.Generator) -> Tensor:
        """Sample actions, one label for each row."""
        return self._one_hot(torch.multinomial(self.probs, 1, generator=generator))

    def decide(self, threshold: float) -> Tensor:
        """Return the most probable label; the threshold has no effect."""
        return self._one_hot(self.probs.argmax(dim=1, keepdim=True))

    def log_prob(self, actions: Tensor, smoothing: float = -1) -> Tensor:
        """Compute the log-probability of the choice, with label smoothing over all labels."""
        if smoothing > 0:
            n_labels = self.valid.sum(dim=1, keepdim=True)
            actions = actions * (1 - smoothing) + self.valid.to(actions.dtype) * smoothing / n_labels
        return self._sum(actions * self.log_probs)

    def entropy(self) -> Tensor:
        """Compute the entropy of the choice."""
        return -self._sum(self.probs * self.log_probs)

    def divergence(self, reference: Tensor) -> Tensor:
        """Compute the Kullback-Leibler divergence from a reference that is normalised over the valid labels."""
        reference = reference.clamp_min(_LEAST_PROBABILITY) * self.valid
        reference = (reference / reference.sum(dim=1, keepdim=True)).clamp_min(_LEAST_PROBABILITY)
        return self._sum(self.probs * (self.log_probs - reference.log()))

    def to_decisions(self, values: Tensor, actions: Tensor) -> Tensor:
        """Convert values of labels to values of the choices."""
        return (values * actions).sum(dim=1, keepdim=True)

    def _one_hot(self, index: Tensor) -> Tensor:
        return torch.zeros_like(self.probs).scatter_(1, index, 1.0)

    def _sum(self, values: Tensor) -> Tensor:
        return values.masked_fill(~self.valid, 0.0).sum(dim=1, keepdim=True)


POLICIES = {
    "single_label_classification": CategoricalPolicy,
    "multi_label_classification": BernoulliPolicy,
}


def focal_weights(probs: Tensor, targets: Tensor, alpha: float = -1, gamma: float = -1) -> Tensor:
    """Compute the focal weights (n, labels) of Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    They are ``alpha_t (1 - p_t)^gamma``, with p_t the probability of the true answer; a negative value disables its
    factor.
    """
    weights = torch.ones_like(probs)
    if gamma >= 0:
        weights = weights * (1 - (probs * targets + (1 - probs) * (1 - targets))) ** gamma
    if alpha >= 0:
        weights = weights * (alpha * targets + (1 - alpha) * (1 - targets))
    return weights


def clipped_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, cliprange: float) -> tuple[Tensor, Tensor]:
    """Compute the clipped loss of each decision, and which ratios are outside the clipping range.

    ``-min(ratio A, clip(ratio, 1 - cliprange, 1 + cliprange) A)`` with the ratio of new to old probability;
    `advantage` is (n, 1).
    """
    ratio = (log_prob - old_log_prob).exp()
    loss = -torch.min(ratio * advantage, ratio.clamp(1 - cliprange, 1 + cliprange) * advantage)
    return loss, (ratio - 1).abs() > cliprange
