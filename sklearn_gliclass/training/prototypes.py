"""Class prototypes: after the training, each label moves towards the mean of its class's texts.

The loss stops pulling once it tells the examples apart, which few examples are soon. A label's state then lies on the
right side of them, not yet in their middle, and texts that the training has not seen fall on the wrong side. The means
are class prototypes (Snell et al. 2017, https://arxiv.org/abs/1703.05175), and the labels' names keep their part.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..data.dataset import TextDataset

LABEL_CENTROID_SHARE = 0.5  # names and examples alike: all the way is as good on average, and loses more on some sets
ROWS_A_CLASS = 64  # a mean of so many is near enough to that of all


def has_movable_labels(config) -> bool:
    """Whether labels are points that can be moved: read apart from the text, and scored by a dot product."""
    return (
        config.problem_type == "single_label_classification"
        and config.architecture_type == "bi-encoder"
        and config.scorer_type == "simple"
    )


@torch.no_grad()
def move_labels(net, dataset: TextDataset, share: float) -> None:
    """Turn each label's state towards the mean of its class's texts; its length stays.

    Parameters
    ----------
    net : Trainer
        Its model is changed, in the last layer of the labels' projector.
    dataset : TextDataset
        Texts and classes, or rows of probabilities. Classes without a text keep their states.
    share : float
        How far: 0 not at all, 1 all the way.
    """
    projector = net.module_.model.classes_projector
    rows = _rows(dataset)
    texts, states = net.embed(dataset, rows)
    means = _memberships(dataset, rows).T @ texts.cpu().double()
    labels = projector(states).cpu().double()
    middle = (1 - share) * F.normalize(labels, dim=1) + share * F.normalize(means, dim=1)
    moved = F.normalize(middle, dim=1) * labels.norm(dim=1, keepdim=True)
    projector.fit_outputs(states, torch.where(means.any(dim=1, keepdim=True), moved, labels))


def _rows(dataset: TextDataset) -> np.ndarray:
    """Rows, ascending, spread evenly over those of each class, by its likeliest class where a row has probabilities."""
    classes = dataset.targets if dataset.targets.ndim == 1 else dataset.targets.argmax(axis=1)
    order = np.argsort(classes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)
    spread = [np.linspace(0, len(group) - 1, min(len(group), ROWS_A_CLASS)).round().astype(int) for group in groups]
    return np.sort(np.concatenate([group[places] for group, places in zip(groups, spread, strict=True)]))


def _memberships(dataset: TextDataset, rows: np.ndarray) -> torch.Tensor:
    """How much of each row belongs to each label: (rows, labels), its weight included."""
    targets, weight = dataset.targets[rows], dataset.sample_weight[rows]
    shares = np.eye(dataset.n_labels)[targets] if targets.ndim == 1 else targets
    return torch.from_numpy(shares * weight[:, None]).double()
