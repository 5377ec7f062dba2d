"""Where labels and text are in a sequence with a label prompt."""

import torch
from torch import Tensor


def class_positions(input_ids: Tensor, class_token: int) -> tuple[Tensor, Tensor]:
    """Positions of the label tokens (batch, labels), 0 in empty slots, and the mask of real ones."""
    is_class = input_ids == class_token
    counts = is_class.sum(dim=1)
    rows, columns = is_class.nonzero(as_tuple=True)
    rank = is_class.cumsum(dim=1)[rows, columns] - 1
    n_labels = int(counts.max()) if len(counts) else 0
    positions = torch.zeros(input_ids.shape[0], n_labels, dtype=torch.long, device=input_ids.device)
    positions[rows, rank] = columns
    return positions, torch.arange(n_labels, device=input_ids.device) < counts.unsqueeze(1)


def take_positions(states: Tensor, positions: Tensor) -> Tensor:
    """States (batch, labels, hidden) at positions (batch, labels)."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def class_states(config, states: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """A label's state (batch, labels, hidden) and the mask of real labels, as ``class_token_pooling`` says."""
    positions, mask = _label_positions(config, input_ids)
    if config.class_token_pooling == "first":
        return take_positions(states, positions), mask
    owner = _label_spans(config, input_ids, attention_mask)
    labels = torch.arange(1, mask.shape[1] + 1, device=input_ids.device).view(1, -1, 1)
    spans = (owner.unsqueeze(1) == labels).to(states.dtype)  # (B, C, L)
    return spans @ states / spans.sum(-1, keepdim=True).clamp_min(1), mask


def class_read(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Mask (batch, length) of the tokens whose states :func:`class_states` reads, for labels and empty slots."""
    if config.class_token_pooling == "first":
        positions, _ = _label_positions(config, input_ids)
        return torch.zeros_like(input_ids, dtype=torch.bool).scatter(1, positions, True)
    return _label_spans(config, input_ids, attention_mask) > 0


def _label_positions(config, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first token of each label, and the mask of real labels; see :func:`class_positions`."""
    positions, mask = class_positions(input_ids, config.class_token_index)
    if not config.embed_class_token:
        positions = (positions + 1).clamp_max(input_ids.shape[1] - 1)
    return positions, mask


def _label_spans(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(batch, length): k for the tokens of the k-th label, 0 for all others."""
    is_class = input_ids == config.class_token_index
    after_prompt = (input_ids == config.text_token_index).cumsum(dim=1).bool()
    outside = after_prompt | ~attention_mask.bool()
    if not config.embed_class_token:
        outside = outside | is_class
    return is_class.cumsum(dim=1).masked_fill(outside, 0)


def text_part(config, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Mask of the tokens that the text is pooled from, in a sequence with a prompt.

    With ``extract_text_features`` and the prompt first: from ``<<SEP>>`` on, as checkpoints were trained;
    with the prompt last: what stands before it. Otherwise the whole sequence.
    """
    mask = attention_mask.bool()
    if not config.extract_text_features:
        return mask
    if config.prompt_first:
        return mask & (input_ids == config.text_token_index).cumsum(dim=1).bool()
    control = (input_ids == config.class_token_index) | (input_ids == config.text_token_index)
    return mask & ~control.cumsum(dim=1).bool()
