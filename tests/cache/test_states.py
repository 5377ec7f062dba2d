"""Hidden states without padding."""

import numpy as np
import torch
from random_states import states_of

from sklearn_gliclass.cache.states import TEXT, HiddenStates, state_inputs


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


def test_inputs_of_a_prompt_have_an_axis_of_prompts():
    states, rows = states_of([2, 4, 1]), np.array([2, 0])
    batch = states.batch(rows)
    inputs = state_inputs([states], rows, np.arange(2), 2)
    assert set(inputs) == {*batch, "label_mask"}
    for name, tensor in batch.items():
        assert torch.equal(inputs[name], tensor.unsqueeze(1))  # (batch, 1 prompt, ...)
    assert inputs["label_mask"].tolist() == [[[True, True]]]


def test_labels_of_several_prompts_are_stacked():
    prompts, rows = [states_of([2, 4, 1], seed=0), states_of([3, 4, 2], seed=1)], np.array([2, 0])
    inputs = state_inputs(prompts, rows, np.arange(3), 2)  # the second prompt has one label and an empty place
    assert inputs["label_mask"].tolist() == [[[True, True], [True, False]]]
    for number, states in enumerate(prompts):
        batch = states.batch(rows)
        length = batch[TEXT].shape[1]
        assert torch.equal(inputs[TEXT][:, number, :length], batch[TEXT])
        assert inputs[TEXT][:, number, length:].abs().sum() == 0
        assert torch.equal(inputs["text_mask"][:, number, :length], batch["text_mask"])
    second = state_inputs(prompts, rows, np.array([2]), 2)  # labels of the second prompt only
    assert torch.equal(second[TEXT][:, 0], prompts[1].batch(rows)[TEXT])


def test_label_embeddings_take_the_place_of_label_states():
    states, rows = states_of([2, 4, 1]), np.array([1])
    labels = torch.arange(12.0).reshape(4, 3)
    order = np.array([3, 1])
    by_states = state_inputs([states], rows, order, 4, label_states=labels)
    assert torch.equal(by_states["label_states"], labels[[3, 1]][None, None, :, None])
    by_embeddings = state_inputs([states], rows, order, 4, class_embeddings=labels[order])
    assert torch.equal(by_embeddings["class_embeddings"], labels[order])
    for inputs in (by_states, by_embeddings):
        assert torch.equal(inputs[TEXT], states.batch(rows)[TEXT].unsqueeze(1))
        assert inputs["label_mask"].tolist() == [[[True, True]]]
