"""Poolings of token states to one vector per text, over the tokens of a mask; an empty mask gives zeros."""

import torch
from torch import Tensor


def _first_true(mask: Tensor) -> Tensor:
    return mask.int().argmax(dim=1)


def _take(states: Tensor, positions: Tensor) -> Tensor:
    return states[torch.arange(states.shape[0], device=states.device), positions]


def _zero_outside(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(~mask.bool().unsqueeze(-1), 0.0)


def _zero_if_empty(pooled: Tensor, mask: Tensor) -> Tensor:
    return pooled.masked_fill(~mask.bool().any(dim=1, keepdim=True), 0.0)


def _count(states: Tensor, mask: Tensor) -> Tensor:
    return mask.sum(dim=1, keepdim=True).clamp_min(1).to(states.dtype)


def max_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Compute the maximum of each feature."""
    least = torch.finfo(states.dtype).min
    return _zero_if_empty(states.masked_fill(~mask.bool().unsqueeze(-1), least).amax(dim=1), mask)


def first_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Return the hidden state of the first token in the mask."""
    return _zero_if_empty(_take(states, _first_true(mask)), mask)


def last_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Return the hidden state of the last token in the mask."""
    return _zero_if_empty(_take(states, mask.shape[1] - 1 - _first_true(mask.flip(1))), mask)


def avg_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean over the tokens."""
    return _zero_outside(states, mask).sum(dim=1) / _count(states, mask)


def sum_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Compute the sum over the tokens."""
    return _zero_outside(states, mask).sum(dim=1)


def rms_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Compute the root mean square over the tokens."""
    mean_square = _zero_outside(states, mask).square().sum(dim=1) / _count(states, mask)
    # The root has an infinite slope at 0, which would give NaN gradients for features that are 0 in all tokens.
    return mean_square.clamp_min(torch.finfo(states.dtype).tiny).sqrt()


def abs_max_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Compute the maximum absolute value of each feature."""
    return _zero_outside(states, mask).abs().amax(dim=1)


def abs_avg_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean absolute value over the tokens."""
    return _zero_outside(states, mask).abs().sum(dim=1) / _count(states, mask)


def reads_all_tokens(pooling: str) -> bool:
    """Return whether a pooling reads the hidden states of all tokens in the mask."""
    return pooling not in ("first", "last")


def mask_read_tokens(pooling: str, mask: Tensor) -> Tensor:
    """Return the mask (batch, length) of the tokens in `mask` whose hidden states the pooling reads."""
    mask = mask.bool()
    if pooling == "first":
        return mask & (mask.cumsum(dim=1) == 1)
    if pooling == "last":
        return mask & (mask.flip(1).cumsum(dim=1).flip(1) == 1)
    return mask


# Each is f(token_states (batch, length, hidden), mask (batch, length)) -> (batch, hidden).
POOLINGS = {
    "max": max_pooling,
    "first": first_pooling,
    "last": last_pooling,
    "avg": avg_pooling,
    "sum": sum_pooling,
    "rms": rms_pooling,
    "abs_max": abs_max_pooling,
    "abs_avg": abs_avg_pooling,
}

# No pooling: the scorer reads the hidden states of all tokens (only `cross-attn`).
NO_POOLING = "pass"
