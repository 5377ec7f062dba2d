from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklearn_gliclass.model.losses import (
    REDUCTIONS,
    contrastive_loss,
    cross_entropy_loss,
    focal_loss,
    mse_loss,
    multi_output_loss,
    problem_loss,
    text_contrastive_loss,
)

LOGITS = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.3, 0.2, -1.0, 9.0], [-1.5, 2.0, 0.0, 0.7]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
WEIGHT = torch.tensor([1.0, 2.0, 0.5])
CLASSES = torch.tensor([2, 0, 1])
BINARY = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0]])
SOFT = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0]])
EMBEDDINGS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))


def log_softmax(row):
    return row - np.log(np.exp(row).sum())


def own(values, row, mask):
    return values[row].numpy()[mask[row].numpy()]


def cross_entropy_rows(logits, targets, mask):
    return [-log_softmax(own(logits, row, mask))[target] for row, target in enumerate(targets)]


def soft_rows(logits, targets, mask):
    return [-(log_softmax(own(logits, i, mask)) * own(targets, i, mask)).sum() for i in range(len(logits))]


def focal_elements(logits, targets, alpha=0.5, gamma=2.0):
    p = 1 / (1 + np.exp(-logits.numpy().astype(float)))
    y = targets.numpy()
    p_t, alpha_t = np.where(y == 1, p, 1 - p), np.where(y == 1, alpha, 1 - alpha)
    return (alpha_t if alpha >= 0 else 1.0) * (1 - p_t) ** gamma * -np.log(p_t)


def test_cross_entropy_is_the_weighted_mean_over_real_labels():
    """The reference includes empty label slots in the softmax (one of them has the largest logit here)."""
    rows = cross_entropy_rows(LOGITS, CLASSES, MASK)
    np.testing.assert_allclose(cross_entropy_loss(LOGITS, CLASSES, MASK), np.mean(rows), rtol=1e-6)
    weighted = cross_entropy_loss(LOGITS, CLASSES, MASK, WEIGHT)
    np.testing.assert_allclose(weighted, np.average(rows, weights=WEIGHT), rtol=1e-6)


def test_soft_labels_average_the_losses_of_rows():
    rows = soft_rows(LOGITS, SOFT, MASK)
    weighted = cross_entropy_loss(LOGITS, SOFT, MASK, WEIGHT)
    np.testing.assert_allclose(weighted, np.average(rows, weights=WEIGHT), rtol=1e-6)


def test_one_hot_soft_labels_equal_classes():
    one_hot = torch.nn.functional.one_hot(CLASSES, 4).float()
    torch.testing.assert_close(cross_entropy_loss(LOGITS, one_hot, MASK), cross_entropy_loss(LOGITS, CLASSES, MASK))


def test_ignored_classes_have_no_effect():
    targets = torch.tensor([2, -7, 1])
    loss = cross_entropy_loss(LOGITS, targets, MASK, WEIGHT, ignore_index=-7)
    torch.testing.assert_close(loss, cross_entropy_loss(LOGITS[[0, 2]], CLASSES[[0, 2]], MASK[[0, 2]], WEIGHT[[0, 2]]))


def test_unknown_negative_class_is_no_class():
    with pytest.raises((RuntimeError, IndexError)):
        cross_entropy_loss(LOGITS, torch.tensor([2, -1, 1]), MASK)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 0.7])
@pytest.mark.parametrize("alpha", [0.5, 0.2, -1.0])
def test_focal_loss_agrees_with_formula(alpha, gamma):
    elements = focal_elements(LOGITS, BINARY, alpha, gamma)
    weights = MASK.numpy() * WEIGHT.numpy()[:, None]
    expected = {
        "mean": (elements * weights).sum() / weights.sum(),
        "sum": (elements * weights).sum(),
        "none": elements * weights,
    }
    assert set(expected) == set(REDUCTIONS)
    for reduction, value in expected.items():
        loss = focal_loss(LOGITS, BINARY, MASK, WEIGHT, alpha=alpha, gamma=gamma, reduction=reduction)
        np.testing.assert_allclose(loss, value, rtol=1e-5)


def test_focal_loss_without_focus_is_half_the_binary_cross_entropy():
    expected = 0.5 * torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, BINARY)
    torch.testing.assert_close(focal_loss(LOGITS, BINARY, gamma=0.0), expected)


def test_focal_loss_with_ignored_targets_and_weights_per_label():
    targets, weight = BINARY.clone(), torch.rand(3, 4)
    targets[0, 1] = targets[2, 0] = -100
    kept = MASK & (targets != -100)
    elements = np.nan_to_num(focal_elements(LOGITS, BINARY)) * kept.numpy() * weight.numpy()
    expected = elements.sum() / (kept * weight).sum()
    np.testing.assert_allclose(focal_loss(LOGITS, targets, MASK, weight), expected, rtol=1e-5)


def test_focal_loss_of_certain_answers_has_finite_gradients():
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    for targets in ([[1.0, 0.0]], [[0.0, 1.0]]):
        focal_loss(logits, torch.tensor(targets), gamma=0.5).backward()
    assert logits.grad.isfinite().all()


def test_unknown_reduction_raises_with_the_choices():
    """The reference accepts unknown reductions silently."""
    with pytest.raises(ValueError, match=r"Unknown focal_loss_reduction 'median'; choose from 'mean', 'none', 'sum'"):
        focal_loss(LOGITS, BINARY, reduction="median")


def test_mse_agrees_with_formula():
    weights = MASK.numpy() * WEIGHT.numpy()[:, None]
    expected = ((LOGITS - SOFT).numpy() ** 2 * weights).sum() / weights.sum()
    np.testing.assert_allclose(mse_loss(LOGITS, SOFT, MASK, WEIGHT), expected, rtol=1e-6)


def test_contrastive_loss_agrees_with_formula():
    unit = EMBEDDINGS.numpy() / np.linalg.norm(EMBEDDINGS.numpy(), axis=-1, keepdims=True)
    total, weight = 0.0, 0.0
    for row in range(3):
        labels = unit[row][MASK[row].numpy()]
        for i, similarity in enumerate(labels @ labels.T):
            total -= WEIGHT[row].item() * log_softmax(similarity)[i]
            weight += WEIGHT[row].item()
    np.testing.assert_allclose(contrastive_loss(EMBEDDINGS, MASK, WEIGHT), total / weight, rtol=1e-5)


def test_contrastive_loss_of_shared_labels_ignores_sample_weights():
    torch.testing.assert_close(
        contrastive_loss(EMBEDDINGS[:1], MASK[:1], WEIGHT), contrastive_loss(EMBEDDINGS[:1], MASK[:1])
    )


# Each: f(rows, weight) with rows an index of the samples.
LOSSES = {
    "cross-entropy": lambda i, w: cross_entropy_loss(LOGITS[i], CLASSES[i], MASK[i], w),
    "soft labels": lambda i, w: cross_entropy_loss(LOGITS[i], SOFT[i], MASK[i], w),
    "focal": lambda i, w: focal_loss(LOGITS[i], BINARY[i], MASK[i], w),
    "focal sum": lambda i, w: focal_loss(LOGITS[i], BINARY[i], MASK[i], w, reduction="sum"),
    "mse": lambda i, w: mse_loss(LOGITS[i], SOFT[i], MASK[i], w),
    "contrastive": lambda i, w: contrastive_loss(EMBEDDINGS[i], MASK[i], w),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_weights_equal_repeated_and_absent_rows(loss):
    torch.testing.assert_close(loss([0, 1, 2], torch.tensor([1.0, 2.0, 1.0])), loss([0, 1, 1, 2], None))
    torch.testing.assert_close(loss([0, 1, 2], torch.tensor([1.0, 0.0, 1.0])), loss([0, 2], None))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_zero_weights_give_zero_loss(loss):
    assert loss([0, 1], torch.zeros(2)) == 0


MASKED_LOSSES = {
    "cross-entropy": lambda logits, mask: cross_entropy_loss(logits, CLASSES, mask),
    "soft labels": lambda logits, mask: cross_entropy_loss(logits, SOFT, mask),
    "focal": lambda logits, mask: focal_loss(logits, BINARY, mask),
    "mse": lambda logits, mask: mse_loss(logits, SOFT, mask),
    "contrastive": lambda logits, mask: contrastive_loss(logits.unsqueeze(-1) * EMBEDDINGS, mask),
}


@pytest.mark.parametrize("loss", MASKED_LOSSES.values(), ids=MASKED_LOSSES)
def test_empty_label_slots_have_no_effect_and_no_gradient(loss):
    """In the reference, empty label slots affect the loss of rows with fewer labels."""
    logits = LOGITS.clone().requires_grad_()
    changed = LOGITS.masked_fill(~MASK, 50.0)
    torch.testing.assert_close(loss(logits, MASK), loss(changed, MASK))
    loss(logits, MASK).backward()
    assert (logits.grad[~MASK] == 0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", MASKED_LOSSES.values(), ids=MASKED_LOSSES)
def test_row_without_any_label_gives_finite_numbers(loss):
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, torch.zeros_like(MASK))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def make_config(problem_type, **options):
    defaults = {"ignore_index": -100, "focal_loss_alpha": 0.5, "focal_loss_gamma": 2, "focal_loss_reduction": None}
    return SimpleNamespace(problem_type=problem_type, **{**defaults, **options})


@pytest.mark.parametrize(
    ("problem_type", "targets", "expected"),
    [
        ("single_label_classification", CLASSES, cross_entropy_loss(LOGITS, CLASSES, MASK)),
        ("single_label_classification", SOFT, cross_entropy_loss(LOGITS, SOFT, MASK)),
        ("multi_label_classification", BINARY, focal_loss(LOGITS, BINARY, MASK)),
        ("regression", SOFT, mse_loss(LOGITS, SOFT, MASK)),
        (None, CLASSES, cross_entropy_loss(LOGITS, CLASSES, MASK)),
        (None, SOFT, cross_entropy_loss(LOGITS, SOFT, MASK)),
    ],
)
def test_problem_chooses_the_loss(problem_type, targets, expected):
    """The reference has no working loss for some problem types."""
    torch.testing.assert_close(problem_loss(make_config(problem_type), LOGITS, targets, MASK), expected)


@pytest.mark.parametrize("problem_type", ["regression", None])
def test_regression_of_one_output(problem_type):
    values = SOFT[:, :1]
    expected = mse_loss(LOGITS[:, :1], values)
    torch.testing.assert_close(problem_loss(make_config(problem_type), LOGITS[:, :1], values), expected)


@pytest.mark.parametrize("reduction", [None, "none", "mean", "sum"])
def test_every_focal_reduction_gives_one_number(reduction):
    """None and "none" are the mean; the reference fails for some reductions."""
    loss = problem_loss(make_config("multi_label_classification", focal_loss_reduction=reduction), LOGITS, BINARY)
    torch.testing.assert_close(loss, focal_loss(LOGITS, BINARY, reduction="sum" if reduction == "sum" else "mean"))


def text_contrastive_rows(embeddings, class_ids, weight, temperature=0.1):
    """The formula of Khosla et al., row by row; a weight counts a text that often."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = []
    for i, anchor in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        partners = [j for j in others if class_ids[j] == class_ids[i]]
        total = sum(weight[j] * np.exp(anchor @ unit[j] / temperature) for j in others)
        terms = [-weight[j] * np.log(np.exp(anchor @ unit[j] / temperature) / total) for j in partners]
        rows.append(sum(terms) / sum(weight[j] for j in partners) if partners else 0.0)
    return np.array(rows)


def test_text_contrastive_loss_agrees_with_formula():
    texts = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    class_ids = torch.tensor([0, 1, 0, 2, 1, 0])  # the fourth text is alone in its class
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)
    rows = text_contrastive_rows(texts.numpy(), class_ids.numpy(), weight.numpy())
    assert rows[3] == 0
    expected = (rows * weight.numpy()).sum() / weight.sum()
    assert text_contrastive_loss(texts, class_ids, weight).item() == pytest.approx(expected.item(), rel=1e-9)
    unweighted = text_contrastive_rows(texts.numpy(), class_ids.numpy(), np.ones(6)).mean()
    assert text_contrastive_loss(texts, class_ids).item() == pytest.approx(unweighted, rel=1e-9)


def test_text_contrastive_loss_ignores_copies_and_ignored_classes():
    texts = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    copies = torch.cat([texts, texts[:1]])
    weight = torch.tensor([2.0, 1, 1, 1])
    twice = text_contrastive_loss(copies, torch.tensor([0, 0, 1, 1, 0]))
    assert text_contrastive_loss(texts, torch.tensor([0, 0, 1, 1]), weight).item() == pytest.approx(twice.item())
    assert text_contrastive_loss(texts, torch.tensor([-100, -100, -100, -100])) == 0
    same = texts[:1].expand(3, -1).clone().requires_grad_()
    text_contrastive_loss(same, torch.tensor([0, 0, 1])).backward()  # no pair at all
    assert (same.grad == 0).all()


# -- several targets ---------------------------------------------------------------------------------------------

# Two texts with the targets {0, 2} and {1, 3, 4} in an order of their own; the second target of the second is unknown.
OF_TARGETS = torch.tensor([
    [[1.0, -1, 0, -1, -1], [-1, 0, -1, 1, 0]],
    [[0.0, -1, 1, -1, -1], [-1, 0, -1, 0, 0]],
])  # fmt: skip


def test_multi_output_loss_is_the_mean_over_known_targets():
    logits = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([[1.0, 3.0], [2.0, 5.0]], dtype=torch.float64)
    first, second = logits[:, [0, 2]].log_softmax(1), logits[:, [1, 3, 4]].log_softmax(1)
    losses = [-first[0, 0], -second[0, 1], -first[1, 1]]
    expected = (losses[0] + 3 * losses[1] + 2 * losses[2]) / 6
    assert multi_output_loss(logits, OF_TARGETS, None, weight).item() == pytest.approx(expected.item(), rel=1e-9)
    assert multi_output_loss(logits, OF_TARGETS).item() == pytest.approx(sum(losses).item() / 3, rel=1e-9)


def test_multi_output_loss_of_masked_labels():
    logits = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, True, True, True, False]] * 2)  # a slot without a label
    first, second = logits[:, [0, 2]].log_softmax(1), logits[:, [1, 3]].log_softmax(1)
    expected = -(first[0, 0] + second[0, 1] + first[1, 1]) / 3
    assert multi_output_loss(logits, OF_TARGETS, mask).item() == pytest.approx(expected.item(), rel=1e-9)


def test_text_contrastive_loss_of_several_targets_is_the_mean_of_their_losses():
    texts = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[0, 1, 0, 2, 1, 0], [3, 3, 4, 4, -1, -1]]).T
    weight = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = [text_contrastive_loss(texts, *parts) for parts in zip(ids.T, weight.T, strict=True)]
    assert text_contrastive_loss(texts, ids, weight).item() == pytest.approx(sum(expected).item() / 2)
