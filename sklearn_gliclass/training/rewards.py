"""Reward functions of reinforcement learning.

A reward is a function ``f(probs, actions, targets, valid_mask) -> (n, 1)`` of four tensors of shape (n, labels): the
probabilities, the actions (the labels that the policy assigned, 0 or 1), the true labels (0 or 1, or probabilities
for soft labels) and the mask of labels whose truth is known. The first three are 0 where the mask is false.

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
    """Compute the precision of each text: the fraction of its assigned labels that are true.

    Parameters
    ----------
    probs : Tensor of shape (n, labels)
        Probabilities of the policy. They have no effect.
    actions : Tensor of shape (n, labels)
        Labels that the policy assigned, 0 or 1.
    targets : Tensor of shape (n, labels)
        True labels, 0 or 1, or probabilities for soft labels.
    valid_mask : BoolTensor of shape (n, labels)
        Mask of labels whose truth is known. It has no effect: `actions` and `targets` are 0 where it is false.

    Returns
    -------
    Tensor of shape (n, 1)
        Reward of each text; 1 for a text that has no true label and gets none.
    """
    return _share((actions * targets).sum(1, keepdim=True), actions, actions, targets)


def recall(probs, actions, targets, valid_mask) -> Tensor:
    """Compute the recall of each text: the fraction of its true labels that are assigned.

    Parameters
    ----------
    probs : Tensor of shape (n, labels)
        Probabilities of the policy. They have no effect.
    actions : Tensor of shape (n, labels)
        Labels that the policy assigned, 0 or 1.
    targets : Tensor of shape (n, labels)
        True labels, 0 or 1, or probabilities for soft labels.
    valid_mask : BoolTensor of shape (n, labels)
        Mask of labels whose truth is known. It has no effect: `actions` and `targets` are 0 where it is false.

    Returns
    -------
    Tensor of shape (n, 1)
        Reward of each text; 1 for a text that has no true label and gets none.
    """
    return _share((actions * targets).sum(1, keepdim=True), targets, actions, targets)


def f1(probs, actions, targets, valid_mask) -> Tensor:
    """Compute the F1 score of each text, the harmonic mean of precision and recall.

    Parameters
    ----------
    probs : Tensor of shape (n, labels)
        Probabilities of the policy. They have no effect.
    actions : Tensor of shape (n, labels)
        Labels that the policy assigned, 0 or 1.
    targets : Tensor of shape (n, labels)
        True labels, 0 or 1, or probabilities for soft labels.
    valid_mask : BoolTensor of shape (n, labels)
        Mask of labels whose truth is known. It has no effect: `actions` and `targets` are 0 where it is false.

    Returns
    -------
    Tensor of shape (n, 1)
        Reward of each text; 1 for a text that has no true label and gets none.
    """
    return _share(2 * (actions * targets).sum(1, keepdim=True), actions + targets, actions, targets)


def exact_match(probs, actions, targets, valid_mask) -> Tensor:
    """Compute whether the assigned labels of each text are exactly the true ones, 1 or 0.

    Parameters
    ----------
    probs : Tensor of shape (n, labels)
        Probabilities of the policy. They have no effect.
    actions : Tensor of shape (n, labels)
        Labels that the policy assigned, 0 or 1.
    targets : Tensor of shape (n, labels)
        True labels, 0 or 1, or probabilities for soft labels.
    valid_mask : BoolTensor of shape (n, labels)
        Mask of labels whose truth is known. It has no effect: `actions` and `targets` are 0 where it is false.

    Returns
    -------
    Tensor of shape (n, 1)
        Reward of each text; 1 for a text that has no true label and gets none.
    """
    return ((actions - targets).abs() < 0.5).all(dim=1, keepdim=True).to(actions.dtype)


def _share(part: Tensor, whole: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
    whole = whole.sum(1, keepdim=True)
    empty = (actions + targets).sum(1, keepdim=True) == 0  # no true label and no assigned one: a perfect prediction
    return torch.where(empty, torch.ones_like(part), part / whole.clamp_min(torch.finfo(whole.dtype).tiny))


class MetricReward:
    """Reward function from a metric of scikit-learn, which is computed for each text over its labels.

    Parameters
    ----------
    metric : callable
        Function ``metric(y_true, y_pred, **kwargs) -> number``, such as ``sklearn.metrics.jaccard_score``.
    probabilities : bool, default=False
        Whether the metric takes the probabilities instead of the actions.
    **kwargs
        Further keyword arguments of the metric.

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
        """Compute the metric of each row, of shape (n, 1)."""
        given, true, valid = (
            tensor.cpu().numpy() for tensor in (probs if self.probabilities else actions, targets, valid_mask)
        )
        if not self.probabilities:
            given, true = given.astype(np.int64), (true >= 0.5).astype(np.int64)
        values = [self.metric(true[row][known], given[row][known], **self.kwargs) for row, known in enumerate(valid)]
        return torch.tensor(values, dtype=actions.dtype, device=actions.device).unsqueeze(1)


def read_components(components) -> dict[str, Callable]:
    """Return the reward components by name, from a dict, (name, function) pairs, or None (F1)."""
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
        raise ValueError(
            f"reward_components must have at least one function and distinct names, got the names {names!r}."
        )
    return dict(pairs)


@torch.no_grad()
def compute_rewards(components: Mapping[str, Callable], probs, actions, targets, valid_mask) -> dict[str, Tensor]:
    """Compute the reward (n, 1) of each component; a component that returns anything else raises a ValueError."""
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
                f"{len(probs)} texts; a reward must be a finite number. First text: actions "
                f"{actions[row].int().tolist()}, true labels {targets[row].tolist()}."
            )
        rewards[name] = value
    return rewards
