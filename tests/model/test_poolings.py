import numpy as np
import pytest
import torch

from sklearn_gliclass.model.poolings import NO_POOLING, POOLINGS, mask_read_tokens

# Formula of each pooling over the states (length, hidden) of the tokens of one text.
FORMULAS = {
    "max": lambda s: s.max(axis=0),
    "first": lambda s: s[0],
    "last": lambda s: s[-1],
    "avg": lambda s: s.sum(axis=0) / len(s),
    "sum": lambda s: s.sum(axis=0),
    "rms": lambda s: np.sqrt((s**2).sum(axis=0) / len(s)),
    "abs_max": lambda s: np.abs(s).max(axis=0),
    "abs_avg": lambda s: np.abs(s).sum(axis=0) / len(s),
}
MASKS = {
    "full": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]],
    "padded on the right": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
    "padded on the left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
    "with holes": [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]],
}


@pytest.fixture
def states():
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)) - 1.0  # mostly below 0


def test_every_pooling_has_a_formula():
    assert set(POOLINGS) == set(FORMULAS)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("dtype", [torch.long, torch.bool])
@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_agree_with_formulas(name, dtype, mask, states):
    """The poolings of the reference include padding."""
    pooled = POOLINGS[name](states, torch.tensor(mask, dtype=dtype))
    expected = [FORMULAS[name](row[np.array(own, bool)]) for row, own in zip(states.numpy(), mask, strict=True)]
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_have_no_gradient_outside_the_mask(name, states):
    mask = torch.tensor(MASKS["with holes"])
    states.requires_grad_()
    POOLINGS[name](states, mask).sum().backward()
    assert (states.grad[mask == 0] == 0).all()
    assert (states.grad[mask == 1] != 0).any()


@pytest.mark.parametrize("mask", [*MASKS.values(), [[0] * 5, [1] * 5]], ids=[*MASKS, "a text without tokens"])
@pytest.mark.parametrize("name", POOLINGS)
def test_tokens_that_are_not_read_have_no_effect(name, mask, states):
    mask = torch.tensor(mask)
    read = mask_read_tokens(name, mask)
    assert not (read & ~mask.bool()).any()
    assert torch.equal(read.sum(1), mask.any(1).long() if name in ("first", "last") else mask.sum(1))
    others = torch.where(read.unsqueeze(-1), states, torch.full_like(states, 7.0))
    torch.testing.assert_close(POOLINGS[name](others, mask), POOLINGS[name](states, mask), rtol=0, atol=0)
    assert torch.equal(mask_read_tokens(NO_POOLING, mask), mask.bool())


@pytest.mark.parametrize("name", POOLINGS)
def test_text_without_tokens_gives_zeros_and_finite_gradients(name, states):
    states.requires_grad_()
    pooled = POOLINGS[name](states, torch.tensor([[0] * 5, [1] * 5]))
    assert pooled[0].abs().max() < 1e-15
    assert pooled[1].abs().max() > 0.1
    pooled.sum().backward()
    assert states.grad.isfinite().all()
    assert (states.grad[0] == 0).all()


def test_rms_of_a_feature_that_is_zero_everywhere_has_a_finite_gradient():
    states = torch.zeros(1, 3, 2, requires_grad=True)
    POOLINGS["rms"](states, torch.ones(1, 3)).sum().backward()
    assert states.grad.isfinite().all()


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_type_is_kept(name, dtype, states):
    assert POOLINGS[name](states.to(dtype), torch.tensor(MASKS["with holes"])).dtype is dtype
