"""Losses with per-sample weights and a mask of real labels; each is a mean over the sum of the weights.

Shapes: ``logits`` (batch, labels); ``mask`` (batch or 1, labels), true for real labels; ``sample_weight``
(batch,) or, where a loss is a sum over labels, (batch, labels).
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
    # All weights 0: the sum is 0 too, and so is the loss.
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def _mask_logits(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits if mask is None else logits.masked_fill(~mask.bool(), torch.finfo(logits.dtype).min)


def cross_entropy_loss(logits, targets, mask=None, sample_weight=None, ignore_index=-100):
    """Cross-entropy over the real labels.

    ``targets`` is (batch,) class positions, where `ignore_index` leaves a row out, or (batch, labels)
    probabilities (soft labels).
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


def focal_loss(
    logits, targets, mask=None, sample_weight=None, ignore_index=-100, alpha=0.5, gamma=2.0, reduction="mean"
):
    """Binary focal loss of each label (Lin et al. 2017, https://arxiv.org/abs/1708.02002).

    ``-alpha_t (1 - p_t)^gamma log p_t``, with ``p_t`` the probability of the true answer; a negative `alpha`
    switches the weighting off. Targets equal to `ignore_index` are left out. `reduction` is "mean" (over the
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
        # The power's slope at 0 is infinite for gamma < 1: a certain answer must not make NaN gradients.
        losses = losses * (1 - p_t).clamp_min(torch.finfo(losses.dtype).tiny) ** gamma
    if alpha >= 0:
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    return REDUCTIONS[reduction](losses, weights)


def mse_loss(logits, targets, mask=None, sample_weight=None):
    """Mean squared error of the outputs."""
    weights = _element_weights(logits, mask, sample_weight)
    return _weighted_mean((logits - targets.to(logits.dtype)).square(), weights)


def contrastive_loss(class_embeddings, mask=None, sample_weight=None):
    """Push a sample's label embeddings (batch or 1, labels, hidden) apart: each should be nearest to itself."""
    normalized = F.normalize(class_embeddings, dim=-1)
    similarity = normalized @ normalized.transpose(1, 2)  # (B, C, C)
    if mask is not None:
        mask = mask.bool().expand(similarity.shape[:2])
        similarity = similarity.masked_fill(~mask.unsqueeze(1), torch.finfo(similarity.dtype).min)
    losses = -similarity.log_softmax(dim=-1).diagonal(dim1=1, dim2=2)  # (B, C)
    if sample_weight is not None and losses.shape[0] == 1:
        sample_weight = None  # the batch shares its labels: no sample owns them
    return _weighted_mean(losses, _element_weights(losses, mask, sample_weight))


def text_contrastive_loss(text_embeddings, class_ids, sample_weight=None, temperature=0.1):
    """Supervised contrastive loss of the texts in a batch (Khosla et al. 2020, https://arxiv.org/abs/2004.11362).

    Texts (batch, hidden) of one class, by their ``class_ids`` (batch,), should be nearer to each other than to the
    others. A sample counts as often as its weight says; a text and its equals, which are trivially near, are
    no pair. A text without a partner of its class, or with a negative class id, has no loss.
    """
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


SAME_TEXT = 1e-6  # embeddings this near to a cosine of 1 are of one text

REDUCTIONS = {
    "mean": _weighted_mean,
    "sum": lambda losses, weights: (losses * weights).sum(),
    "none": lambda losses, weights: losses * weights,
}

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def problem_loss(config, logits, targets, mask=None, sample_weight=None):
    """The loss that ``config.problem_type`` asks for; None infers it from the targets.

    None: integer targets (batch,) are classes; (batch, 1) logits are regression; else the targets are soft
    labels.
    """
    problem_type = config.problem_type
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
            # A training loss is one number: "none" asks for no reduction of its own, so the usual mean holds.
            reduction="mean" if reduction in (None, "none") else reduction,
        )
    return cross_entropy_loss(logits, targets, mask, sample_weight, config.ignore_index)
