"""AdamW on sparse gradients of embeddings against that of torch on dense ones."""

import copy
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model import torch_internals
from sklearn_gliclass.testing import TINY
from sklearn_gliclass.training.optimizers import RowwiseAdamW, clip_gradients
from sklearn_gliclass.training.trainer import Trainer

N_ROWS = 12
BATCHES = [[0, 3, 3], [1], [3, 5, 0], [7, 7, 7], [1, 2], [3]]
EXACT = {"rtol": 1e-12, "atol": 1e-14}


class Net(nn.Module):
    """Embeddings and a linear layer, the same weights for each instance."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(N_ROWS, 4, dtype=torch.float64), nn.Linear(4, 3, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            weight.data.normal_(generator=generator)

    def optimizer(self, build):
        return build([{"params": [self.table.weight], "weight_decay": 0.3}, {"params": self.head.parameters()}], lr=0.1)


def take_steps(net, optimizer, batches, sparse, rates=(0.1, 0.0, 0.07)):
    net.table.sparse = sparse
    hook = net.table.register_forward_pre_hook(getattr(optimizer, "prepare_rows", lambda *args: None))
    for number, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rates[number % len(rates)]
        net.head(net.table(torch.tensor(rows))).square().sum().backward()
        for weight in net.parameters():
            if weight.grad.is_sparse:
                weight.grad = weight.grad.coalesce()
        optimizer.step()
        optimizer.zero_grad()
    hook.remove()


def assert_equal(net, optimizer, other, reference):
    optimizer.eval()
    for found, expected in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(optimizer.state[found][name], reference.state[expected][name], **EXACT)


@pytest.fixture
def pair():
    """The net with our optimiser, and the same net with that of torch."""
    nets = Net(), Net()
    builds = RowwiseAdamW, torch.optim.AdamW
    return [part for net, build in zip(nets, builds, strict=True) for part in (net, net.optimizer(build))]


def test_weights_and_moments_equal_those_of_dense_gradients(pair):
    """In two trainings, of which the second continues with the moments of the first."""
    net, optimizer, other, reference = pair
    for batches in (BATCHES, [[8, 3], *BATCHES]):
        take_steps(net, optimizer, batches, sparse=True)
        take_steps(other, reference, batches, sparse=False)
        assert_equal(*pair)


def test_sparse_and_dense_gradients_in_turn(pair):
    net, optimizer, other, reference = pair
    for sparse in (True, False, True):
        take_steps(net, optimizer, BATCHES, sparse)
        take_steps(other, reference, BATCHES, sparse=False)
    assert_equal(*pair)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda parts: pickle.loads(pickle.dumps(parts))])
def test_copies_continue_the_training(pair, copy_of):
    net, optimizer, other, reference = pair
    take_steps(net, optimizer, BATCHES, sparse=True)
    take_steps(other, reference, BATCHES, sparse=False)
    optimizer.eval()
    net, optimizer = copy_of((net, optimizer))
    take_steps(net, optimizer, BATCHES, sparse=True)
    take_steps(other, reference, BATCHES, sparse=False)
    assert_equal(net, optimizer, other, reference)


@pytest.mark.parametrize("on_lists", [True, False])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_is_that_of_torch(max_norm, on_lists, monkeypatch):
    monkeypatch.setattr(torch_internals, "HAS_OPERATORS_ON_LISTS", on_lists)
    results = []
    for sparse in (True, False):
        net = Net()
        net.table.sparse = sparse
        net.head(net.table(torch.tensor([1, 2, 2]))).square().sum().backward()
        if sparse:
            net.table.weight.grad = net.table.weight.grad.coalesce()
            norm = clip_gradients([weight.grad for weight in net.parameters()], max_norm)
        else:
            norm = nn.utils.clip_grad_norm_(net.parameters(), max_norm)
        gradients = [weight.grad.to_dense() if weight.grad.is_sparse else weight.grad for weight in net.parameters()]
        results.append([norm, *gradients])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)


def fit(**options):
    texts = [f"text {word} of {other}" for word in ("red", "green", "blue") for other in ("cats", "dogs")]
    return GLiClassClassifier(
        **{**TINY, "dtype": "float64", "batch_size": 2, "max_epochs": 3, "weight_decay": 0.5, **options}, random_state=0
    ).fit(texts, ["a", "b"] * 3)


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}, {"early_stopping": True, "validation_fraction": 0.4}], ids=str
)
def test_fits_equal_those_with_dense_gradients(options, monkeypatch):
    ours = fit(**options)
    assert ours.net_.optimizer_._tables  # the embeddings had sparse gradients
    assert not any(getattr(module, "sparse", False) for module in ours.model_.modules())
    monkeypatch.setattr(Trainer, "_rowwise_embeddings", lambda self: [])
    dense = fit(**options)
    for (name, found), expected in zip(ours.model_.named_parameters(), dense.model_.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=name)
    np.testing.assert_allclose(ours.history_[:, "train_loss"], dense.history_[:, "train_loss"])


class ReadsGradients(Callback):
    def on_grad_computed(self, net, named_parameters=None, **kwargs):
        self.layouts = {weight.grad.layout for _, weight in named_parameters if weight.grad is not None}


def test_callbacks_that_read_gradients_get_dense_ones():
    callback = ReadsGradients()
    fit(callbacks=[callback])
    assert callback.layouts == {torch.strided}
