"""Rewards of reinforcement learning: how good the labels are that a model gave to each text.

A reward is a function ``f(probs, actions, targets, valid_mask) -> (n, 1)`` of four tensors (n, labels): the
probabilities, the labels given (0 or 1), the true ones (0 or 1; with soft labels shares), and which columns hold a
label that is known. The first three are 0 where the last is false.

Examples
--------
>>> import torch
>>> actions, targets = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
>>> round(f1(None, actions, targets, None).item(), 3)
0.667
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor


def precision(probs, actions, targets, valid_mask) -> Tensor:
    """Share of the given labels that are true; 1 where none is given and none is true."""
    return _share((actions * targets).sum(1, keepdim=True), actions, actions, targets)


def recall(probs, actions, targets, valid_mask) -> Tensor:
    """Share of the true labels that are given; 1 where none is given and none is true."""
    return _share((actions * targets).sum(1, keepdim=True), targets, actions, targets)


def f1(probs, actions, targets, valid_mask) -> Tensor:
    """Harmonic mean of precision and recall; with one label given, the share of it that is true."""
    return _share(2 * (actions * targets).sum(1, keepdim=True), actions + targets, actions, targets)


def exact_match(probs, actions, targets, valid_mask) -> Tensor:
    """1 where the given labels are the true ones, all of them."""
    return ((actions - targets).abs() < 0.5).all(dim=1, keepdim=True).to(actions.dtype)


def _share(part: Tensor, whole: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
    whole = whole.sum(1, keepdim=True)
    empty = (actions + targets).sum(1, keepdim=True) == 0  # nothing to find, nothing found: as good as can be
    return torch.where(empty, torch.ones_like(part), part / whole.clamp_min(torch.finfo(whole.dtype).tiny))


class MetricReward:
    """A metric of scikit-learn's kind as a reward: computed for each text over its labels.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_pred, **kwargs) -> number``, such as ``sklearn.metrics.jaccard_score``.
    probabilities : bool, default=False
        Give it the probabilities instead of the labels given.
    **kwargs
        Further arguments of the metric.

    Examples
    --------
    >>> from sklearn.metrics import jaccard_score
    >>> reward = MetricReward(jaccard_score, zero_division=1)
    >>> actions, targets = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> reward(actions, actions, targets, torch.ones(1, 3, dtype=torch.bool)).tolist()
    [[0.5]]
    """

    def __init__(self, metric: Callable, probabilities: bool = False, **kwargs):
        self.metric = metric
        self.probabilities = probabilities
        self.kwargs = kwargs

    def __call__(self, probs, actions, targets, valid_mask) -> Tensor:
        """The metric of each row (n, 1)."""
        given, true, valid = (
            tensor.cpu().numpy() for tensor in (probs if self.probabilities else actions, targets, valid_mask)
        )
        if not self.probabilities:
            given, true = given.astype(np.int64), (true >= 0.5).astype(np.int64)
        values = [self.metric(true[row][known], given[row][known], **self.kwargs) for row, known in enumerate(valid)]
        return torch.tensor(values, dtype=actions.dtype, device=actions.device).unsqueeze(1)


def read_components(components) -> dict[str, Callable]:
    """Reward components by name: a dict, (name, function) pairs, or None for F1."""
    if components is None:
        return {"f1": f1}
    pairs = list(components.items()) if isinstance(components, Mapping) else list(components)
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) and callable(pair[1])):
            raise TypeError(
                f"reward_components must be a dict or a list of (name, function) pairs, got {pair!r} among them; "
                'write for example [("f1", f1), ("mine", my_function)].'
            )
    names = [name for name, _ in pairs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"reward_components must be named, each with a name of its own, got the names {names!r}.")
    return dict(pairs)


@torch.no_grad()
def compute_rewards(components: Mapping[str, Callable], probs, actions, targets, valid_mask) -> dict[str, Tensor]:
    """Each component's reward (n, 1); one that returns anything else raises a ValueError with its name."""
    rewards = {}
    for name, function in components.items():
        value = function(probs, actions, targets, valid_mask)
        if not isinstance(value, (Tensor, np.ndarray)):
            raise TypeError(
                f"The reward component {name!r} returned a {type(value).__name__}; it must return a tensor or array of "
                f"shape ({len(probs)}, 1)."
            )
        value = torch.as_tensor(value).to(probs)
        if value.shape != (len(probs), 1):
            raise ValueError(
                f"The reward component {name!r} returned the shape {tuple(value.shape)} for a batch of {len(probs)} "
                f"texts; it must return one reward for each, of shape ({len(probs)}, 1)."
            )
        if not value.isfinite().all():
            row = int((~value.isfinite()).nonzero()[0, 0])
            raise ValueError(
                f"The reward component {name!r} returned {value[row].item()} for {int((~value.isfinite()).sum())} of "
                f"{len(probs)} texts; a reward must be a finite number. Its labels given: "
                f"{actions[row].int().tolist()}, true: {targets[row].tolist()}."
            )
        rewards[name] = value
    return rewards
