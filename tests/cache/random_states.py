"""Random hidden states for the tests of the cache."""

import numpy as np
import torch

from sklearn_gliclass.cache.states import TEXT, HiddenStates


def states_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays = {
        TEXT: torch.randn(int(offsets[-1]), 1, 3, generator=generator),
        "label_states": torch.randn(len(lengths), 2, 1, 3, generator=generator),
    }
    return HiddenStates(arrays, offsets)


def states_of_keys(keys, width=3):
    """Hidden states that are determined by the keys, whoever wrote them."""
    lengths = [key[0] % 4 for key in keys]
    tokens = [[key[1] + 256.0 * token + column for column in range(width)] for key, length in zip(keys, lengths,
              strict=True) for token in range(length)]  # fmt: skip
    arrays = {
        TEXT: torch.tensor(tokens, dtype=torch.float32).reshape(-1, 1, width),
        "label_states": torch.tensor([[[[float(key[2])]], [[float(key[3])]]] for key in keys]),
    }
    return HiddenStates(arrays, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def assert_right(keys, found, states):
    """Check that the states that were found are right."""
    expected = [key for key, here in zip(keys, found, strict=True) if here]
    if not expected:
        assert states is None
        return
    truth = states_of_keys(expected)
    assert states.offsets.tolist() == truth.offsets.tolist()
    for name, tensor in truth.arrays.items():
        assert torch.equal(states.arrays[name], tensor)
