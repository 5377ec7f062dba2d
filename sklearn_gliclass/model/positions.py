"""Positions of labels and text in sequences with a label prompt."""

import torch
from torch import Tensor


def class_positions(input_ids: Tensor, class_token: int) -> tuple[Tensor, Tensor]:
    """Return the positions of the label tokens (batch, labels), 0 in empty slots, and the mask of real labels."""
    is_class = input_ids == class_token
    counts = is_class.sum(dim=1)
    rows, columns = is_class.nonzero(as_tuple=True)
    rank = is_class.cumsum(dim=1)[rows, columns] - 1
    n_labels = int(counts.max()) if len(counts) else 0
    positions = torch.zeros(input_ids.shape[0], n_labels, dtype=torch.long, device=input_ids.device)
    positions[rows, rank] = columns
    return positions, torch.arange(n_labels, device=input_ids.device) < counts.unsqueeze(1)


def take_positions(states: Tensor, positions: Tensor) -> Tensor:
    """Select the hidden states (batch, labels, hidden) at positions (batch, labels)."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def class_states(config, states: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the labels to (batch, labels, hidden), by ``class_token_pooling``, and return the mask of real labels."""
    positions, mask = _label_positions(config, input_ids)
    if config.class_token_pooling == "first":
        return take_positions(states, positions), mask
    owner = _label_spans(config, input_ids, attention_mask)
    labels = torch.arange(1, mask.shape[1] + 1, device=input_ids.device).view(1, -1, 1)
    spans = (owner.unsqueeze(1) == labels).to(states.dtype)  # (B, C, L)
    return spans @ states / spans.sum(-1, keepdim=True).clamp_min(1), mask


def mask_label_tokens(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mask (batch, length) of the tokens that :func:`class_states` reads, for labels and empty slots."""
    if config.class_token_pooling == "first":
        positions, _ = _label_positions(config, input_ids)
        return torch.zeros_like(input_ids, dtype=torch.bool).scatter(1, positions, True)
    return _label_spans(config, input_ids, attention_mask) > 0


def _label_positions(config, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first token of each label, and the mask of real labels; see :func:`class_positions`."""
    positions, mask = class_positions(input_ids, config.class_token_index)
    if not config.embed_class_token:
        positions = (positions + 1).clamp_max(input_ids.shape[1] - 1)
    return positions, mask


def _label_spans(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the label index of each token (batch, length): k for the k-th label, 0 for other tokens."""
    is_class = input_ids == config.class_token_index
    after_prompt = (input_ids == config.text_token_index).cumsum(dim=1).bool()
    outside = after_prompt | ~attention_mask.bool()
    if not config.embed_class_token:
        outside = outside | is_class
    return is_class.cumsum(dim=1).masked_fill(outside, 0)


def mask_text(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mask of the tokens that the text is pooled from, in a sequence with a prompt.

    With ``extract_text_features``, these are the tokens from ``<<SEP>>`` on if the prompt comes first, as in the
    training of published checkpoints, and the tokens before the prompt if it comes last. Otherwise, they are the whole
    sequence.
    """
    mask = attention_mask.bool()
    if not config.extract_text_features:
        return mask
    if config.prompt_first:
        return mask & (input_ids == config.text_token_index).cumsum(dim=1).bool()
    control = (input_ids == config.class_token_index) | (input_ids == config.text_token_index)
    return mask & ~control.cumsum(dim=1).bool()


def segment_ids(config, input_ids: Tensor) -> Tensor:
    """Return the segment of each token: 0, from the first ``<<SEP>>`` on 1, and from the first ``<<EXAMPLE>>`` on 2."""
    is_after = [
        (input_ids == token).cumsum(dim=1) > 0 for token in (config.text_token_index, config.example_token_index)
    ]
    return torch.where(is_after[1], 2, is_after[0].long())
