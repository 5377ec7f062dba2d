"""Losses with sample weights and a mask of real labels; each is a weighted mean.

Shapes: ``logits`` (batch, labels); ``mask`` (batch or 1, labels), true for real labels; ``sample_weight``
(batch,) or, where a loss is a sum over labels or targets, (batch, labels) or (batch, targets).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .options import resolve


def _element_weights(logits: Tensor, mask: Tensor | None, sample_weight: Tensor | None) -> Tensor:
    weights = torch.ones_like(logits) if mask is None else mask.to(logits.dtype).expand_as(logits)
    if sample_weight is not None:
        sample_weight = sample_weight.to(logits.dtype)
        weights = weights * (sample_weight if sample_weight.dim() == 2 else sample_weight.unsqueeze(1))
    return weights


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    # If all weights are 0, so is the loss.
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def _mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits if mask is None else logits.masked_fill(~mask.bool(), torch.finfo(logits.dtype).min)


def cross_entropy_loss(logits, targets, mask=None, sample_weight=None, ignore_index=-100):
    """Compute the cross-entropy over the real labels.

    ``targets`` are class positions (batch,), where rows with `ignore_index` are left out, or probabilities
    (batch, labels).
    """
    log_probabilities = _mask_logits(logits, mask).log_softmax(dim=-1)
    if targets.dim() == 2:
        kept = torch.ones_like(logits[:, 0])
        targets = targets.to(logits.dtype)
        if mask is not None:
            targets = targets.masked_fill(~mask.bool(), 0.0)
        losses = -(log_probabilities * targets).sum(dim=-1)
    else:
        ignored = targets.eq(ignore_index)
        kept = (~ignored).to(logits.dtype)
        losses = -log_probabilities.gather(1, targets.masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
        losses = losses.masked_fill(ignored, 0.0)
    if sample_weight is not None:
        kept = kept * sample_weight.to(logits.dtype)
    return _weighted_mean(losses, kept)


def mask_other_targets(logits, targets):
    """Repeat the logits (batch, labels) for each target, with the labels of other targets masked.

    ``targets`` (batch, targets, labels) is negative at the labels of other targets. The result
    (batch * targets, labels) is a single-label problem per row.
    """
    repeated = logits.unsqueeze(1).expand(targets.shape)
    return _mask_logits(repeated, targets >= 0).flatten(0, 1)


def multi_output_loss(logits, targets, mask=None, sample_weight=None):
    """Compute the mean cross-entropy over all known targets of all texts, with a softmax within each target.

    ``targets`` (batch, targets, labels) are probabilities, and negative at the labels of other targets. A target
    without a label among those of the text is left out. ``sample_weight`` is (batch,) or (batch, targets).
    """
    is_known = (targets > 0).any(dim=2).to(logits.dtype)  # (batch, targets)
    if sample_weight is not None:
        is_known = is_known * sample_weight.to(logits.dtype).reshape(len(targets), -1)
    real = targets >= 0 if mask is None else (targets >= 0) & mask.bool().unsqueeze(1)
    return cross_entropy_loss(
        mask_other_targets(logits, targets), targets.flatten(0, 1), real.flatten(0, 1), is_known.flatten()
    )


def focal_loss(
    logits, targets, mask=None, sample_weight=None, ignore_index=-100, alpha=0.5, gamma=2.0, reduction="mean"
):
    """Compute the binary focal loss of each label (Lin et al. 2017, https://arxiv.org/abs/1708.02002).

    ``-alpha_t (1 - p_t)^gamma log p_t``, with ``p_t`` the probability of the true answer; a negative `alpha`
    disables the weighting. Targets equal to `ignore_index` are left out. `reduction` is "mean" (over the
    weights), "sum", or "none" (the (batch, labels) losses, weighted).
    """
    resolve(REDUCTIONS, reduction, "focal_loss_reduction")
    ignored = targets.eq(ignore_index)
    targets = targets.to(logits.dtype).masked_fill(ignored, 0.0)
    weights = _element_weights(logits, mask, sample_weight).masked_fill(ignored, 0.0)
    log_p_t = -F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    losses = -log_p_t
    if gamma > 0:
        probabilities = logits.sigmoid()
        p_t = probabilities * targets + (1 - probabilities) * (1 - targets)
        # For gamma < 1 the power has an infinite slope at 0, which would give NaN gradients for certain predictions.
        losses = losses * (1 - p_t).clamp_min(torch.finfo(losses.dtype).tiny) ** gamma
    if alpha >= 0:
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    return REDUCTIONS[reduction](losses, weights)


def mse_loss(logits, targets, mask=None, sample_weight=None):
    """Compute the mean squared error of the outputs."""
    weights = _element_weights(logits, mask, sample_weight)
    return _weighted_mean((logits - targets.to(logits.dtype)).square(), weights)


def contrastive_loss(class_embeddings, mask=None, sample_weight=None):
    """Compute a contrastive loss that pushes the label embeddings (batch or 1, labels, hidden) apart."""
    normalized = F.normalize(class_embeddings, dim=-1)
    similarity = normalized @ normalized.transpose(1, 2)  # (B, C, C)
    if mask is not None:
        mask = mask.bool().expand(similarity.shape[:2])
        similarity = similarity.masked_fill(~mask.unsqueeze(1), torch.finfo(similarity.dtype).min)
    losses = -similarity.log_softmax(dim=-1).diagonal(dim1=1, dim2=2)  # (B, C)
    if sample_weight is not None and losses.shape[0] == 1:
        sample_weight = None  # the batch shares its labels, which have no sample weights
    return _weighted_mean(losses, _element_weights(losses, mask, sample_weight))


def text_contrastive_loss(text_embeddings, class_ids, sample_weight=None, temperature=0.1):
    """Compute the supervised contrastive loss of Khosla et al. 2020, https://arxiv.org/abs/2004.11362.

    It pulls texts (batch, hidden) of the same class, by their ``class_ids`` (batch,), together within the batch.
    Samples count with their weights. Identical texts are no pairs, as they are trivially similar. Texts without a
    partner of their class, or with a negative class id, have no loss. With several targets, ``class_ids`` and
    ``sample_weight`` are (batch, targets), and the loss is the mean of their losses.
    """
    if class_ids.dim() == 2:
        weights = [None] * class_ids.shape[1] if sample_weight is None else sample_weight.unbind(dim=1)
        pairs = zip(class_ids.unbind(dim=1), weights, strict=True)
        losses = [text_contrastive_loss(text_embeddings, ids, weight, temperature) for ids, weight in pairs]
        return torch.stack(losses).mean()
    normalized = F.normalize(text_embeddings, dim=-1)
    similarity = normalized @ normalized.T  # (B, B)
    weights = torch.ones_like(similarity[0]) if sample_weight is None else sample_weight.to(similarity.dtype)
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    is_pair = ~itself & (similarity.detach() < 1 - SAME_TEXT)
    is_partner = is_pair & (class_ids.unsqueeze(0) == class_ids.unsqueeze(1)) & (class_ids >= 0)
    lowest = torch.finfo(similarity.dtype).min
    log_weights = weights.clamp_min(torch.finfo(similarity.dtype).tiny).log()
    scores = (similarity / temperature + log_weights).masked_fill(~is_pair, lowest)
    log_probabilities = similarity / temperature - scores.logsumexp(dim=1, keepdim=True)
    partners = is_partner * weights  # (B, B)
    partner_weight = partners.sum(dim=1).clamp_min(torch.finfo(similarity.dtype).tiny)
    losses = -(log_probabilities * partners).sum(dim=1) / partner_weight
    return _weighted_mean(losses, weights)


SAME_TEXT = 1e-6  # tolerance of the cosine 1 for identical texts

REDUCTIONS = {
    "mean": _weighted_mean,
    "sum": lambda losses, weights: (losses * weights).sum(),
    "none": lambda losses, weights: losses * weights,
}

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def problem_loss(config, logits, targets, mask=None, sample_weight=None):
    """Compute the loss of ``config.problem_type``.

    If that is None, integer targets (batch,) are classes, logits (batch, 1) are a regression, and other targets are
    soft labels. Targets (batch, targets, labels) are those of :func:`multi_output_loss`.
    """
    problem_type = config.problem_type
    if targets.dim() == 3:
        return multi_output_loss(logits, targets, mask, sample_weight)
    if problem_type is None and targets.dim() == 2 and logits.shape[1] == 1:
        problem_type = "regression"
    if problem_type == "regression":
        return mse_loss(logits, targets.reshape(logits.shape), mask, sample_weight)
    if problem_type == "multi_label_classification":
        reduction = config.focal_loss_reduction
        return focal_loss(
            logits,
            targets,
            mask,
            sample_weight,
            ignore_index=config.ignore_index,
            alpha=config.focal_loss_alpha,
            gamma=config.focal_loss_gamma,
            # The training loss is a scalar: "none" is reduced by the mean.
            reduction="mean" if reduction in (None, "none") else reduction,
        )
    return cross_entropy_loss(logits, targets, mask, sample_weight, config.ignore_index)
