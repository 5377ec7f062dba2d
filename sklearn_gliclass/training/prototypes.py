"""Class prototypes: after the training, each label embedding is interpolated with the centroid of its class's texts.

With few examples, the loss vanishes as soon as the classes are separated. A label embedding is then on the right side
of its examples but not in their centre, and unseen texts may be on the wrong side. The centroids are the class
prototypes of Snell et al. 2017, https://arxiv.org/abs/1703.05175; the interpolation keeps the information of the label
names.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..data.dataset import TextDataset
from ..samples import TargetPart, class_indices, class_shares, split_targets

LABEL_CENTROID_SHARE = 0.5  # 1.0 is as accurate on average, and worse on some data sets
MAX_ROWS_PER_CLASS = 64  # rows for the mean of a class


def supports_prototypes(config) -> bool:
    """Return whether label embeddings can be interpolated: encoded separately and scored by a dot product."""
    return (
        config.problem_type == "single_label_classification"
        and config.architecture_type == "bi-encoder"
        and config.scorer_type == "simple"
    )


@torch.no_grad()
def interpolate_labels(net, dataset: TextDataset, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolate the direction of each label embedding with its class prototype; its norm is kept.

    Parameters
    ----------
    net : Trainer
        It embeds texts and labels.
    dataset : TextDataset
        Texts and classes, or rows of probabilities. Labels of classes without texts are not changed.
    share : float
        Interpolation weight, in [0, 1].

    Returns
    -------
    states : Tensor of shape (labels, width)
        Label embeddings before their projection.
    labels : Tensor of shape (labels, hidden)
        Interpolated label embeddings.
    """
    projector = net.module_.model.classes_projector
    parts = split_targets(dataset, dataset.n_labels)
    rows = np.unique(np.concatenate([_rows(part) for part in parts]))
    texts, states = net.embed(dataset, rows)
    means = torch.cat([_membership_weights(part, rows).T for part in parts]) @ texts.cpu().double()
    labels = projector(states).cpu().double()
    middle = (1 - share) * F.normalize(labels, dim=1) + share * F.normalize(means, dim=1)
    moved = F.normalize(middle, dim=1) * labels.norm(dim=1, keepdim=True)
    return states, torch.where(means.any(dim=1, keepdim=True), moved, labels)


def _rows(part: TargetPart) -> np.ndarray:
    """Select rows evenly from each class; a row of probabilities has its most probable class."""
    classes = class_indices(part.targets)
    order = np.argsort(classes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)
    spread = [
        np.linspace(0, len(group) - 1, min(len(group), MAX_ROWS_PER_CLASS)).round().astype(int) for group in groups
    ]
    return part.rows[np.concatenate([group[places] for group, places in zip(groups, spread, strict=True)])]


def _membership_weights(part: TargetPart, rows: np.ndarray) -> torch.Tensor:
    """Return the weights (rows, labels of the target) with which rows count in prototypes, sample weights included."""
    chosen = np.isin(part.rows, rows)
    shares = class_shares(part.targets[chosen], part.n_labels) * part.sample_weight[chosen, None]
    weights = np.zeros((len(rows), part.n_labels))
    weights[np.searchsorted(rows, part.rows[chosen])] = shares
    return torch.from_numpy(weights)
