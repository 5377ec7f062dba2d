"""Hidden states without padding."""

import numpy as np
import torch
from random_states import states_of

from sklearn_gliclass.cache.states import TEXT, HiddenStates


def test_batches_and_selections_hold_each_texts_own_tokens():
    lengths = [3, 0, 1, 4]
    states = states_of(lengths)
    rows = np.array([3, 1, 0, 3])
    batch = states.batch(rows)
    taken = HiddenStates.concatenate([states.take(rows[:2]), states.take(rows[2:])])
    assert len(taken) == 4
    for number, row in enumerate(rows):
        own = states.arrays[TEXT][states.offsets[row] : states.offsets[row + 1]]
        assert torch.equal(batch[TEXT][number][batch["text_mask"][number]], own)
        assert torch.equal(taken.arrays[TEXT][taken.offsets[number] : taken.offsets[number + 1]], own)
        assert torch.equal(batch["label_states"][number], states.arrays["label_states"][row])
    assert batch["text_mask"].sum(dim=1).tolist() == [4, 0, 3, 4]
    assert batch[TEXT][~batch["text_mask"]].abs().sum() == 0
