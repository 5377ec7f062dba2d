"""Fingerprints of weights: equal for equal weights, different after any change."""

import contextlib
import copy
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sklearn_gliclass.model import fingerprint as module
from sklearn_gliclass.model.fingerprint import copy_with_fingerprint, fingerprint, own_trained_weights


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 130), nn.ReLU(), nn.Linear(130, 3))


@pytest.fixture
def digests(monkeypatch):
    """Count how often weights are hashed."""
    seen = []
    original = module._digest
    monkeypatch.setattr(module, "_digest", lambda network: seen.append(network) or original(network))
    return seen


def test_equal_weights_have_equal_fingerprints(digests):
    first, second = net(), net()
    assert fingerprint(first) == fingerprint(second) == fingerprint(copy.deepcopy(first))
    assert len(digests) == 3
    assert fingerprint(first) == fingerprint(first)
    assert len(digests) == 3


@pytest.mark.full
def test_same_in_another_process():
    code = (
        "import torch; from torch import nn; from sklearn_gliclass.model.fingerprint import fingerprint\n"
        "torch.manual_seed(0)\n"
        "import sys; sys.stdout.write(fingerprint(nn.Sequential(nn.Linear(40, 130), nn.ReLU(), nn.Linear(130, 3))))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other == fingerprint(net())


def test_copies_are_hashed_with_their_origin(digests):
    origin = net()
    copies = [copy_with_fingerprint(origin) for _ in range(3)]
    assert len({fingerprint(each) for each in copies}) == 1
    assert digests == [origin]
    with torch.no_grad():
        copies[0][0].weight.add_(1)
    assert fingerprint(copies[0]) != fingerprint(copies[1]) == fingerprint(origin)
    lonely = copy_with_fingerprint(net())  # its original is deleted
    assert fingerprint(lonely) == fingerprint(origin)


CHANGES = {
    "in place": lambda network: network[0].bias.detach().zero_(),
    "data": lambda network: network[2].weight.data.mul_(2),
    "float64": lambda network: network.double(),
    "loaded": lambda network: network.load_state_dict({n: t + 1 for n, t in network.state_dict().items()}),
    "replaced": lambda network: setattr(network[2], "bias", nn.Parameter(torch.ones(3))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_seen(change):
    network = copy_with_fingerprint(net())
    before = fingerprint(network)
    CHANGES[change](network)
    assert fingerprint(network) != before


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-5, fused=True),  # does not increase the version counter
        lambda parameters: torch.optim.SGD(parameters, lr=1e-5),
    ],
    ids=["fused AdamW", "SGD"],
)
def test_step_of_training_is_seen(optimizer):
    network = copy_with_fingerprint(net())
    before = fingerprint(network)
    network(torch.ones(2, 40)).sum().backward()
    optimizer(network.parameters()).step()
    assert fingerprint(network) != before


def test_copies_share_weights_until_these_are_trained():
    original = net()
    original.append(original[0])  # tied
    first, second = (copy_with_fingerprint(original, shares_weights=True) for _ in range(2))
    assert first[3] is first[0] is not original[0]
    weights = [module[0].weight for module in (original, first, second)]
    assert len({weight.data_ptr() for weight in weights}) == 1 < len(set(map(id, weights)))
    for parameter in first[2].parameters():
        parameter.requires_grad_(False)
    own_trained_weights(first)
    with torch.no_grad():
        for parameter in first.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    assert fingerprint(second) == fingerprint(original) != fingerprint(first)
    assert first[2].weight.data_ptr() == original[2].weight.data_ptr()
    assert second[2].weight.requires_grad


def test_copies_share_weights_after_their_origin_is_deleted():
    first, second = (copy_with_fingerprint(origin, shares_weights=True) for origin in [net()] * 2)
    before = fingerprint(second)
    own_trained_weights(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert fingerprint(second) == before
    own_memory = second[0].weight.data_ptr()
    own_trained_weights(second)  # the only one that is left with these weights
    assert second[0].weight.data_ptr() == own_memory


def test_copies_in_one_model_share_weights_until_these_are_trained():
    encoders = nn.ModuleList(copy_with_fingerprint(origin, shares_weights=True) for origin in [net()] * 2)
    assert encoders[0][0].weight.data_ptr() == encoders[1][0].weight.data_ptr()
    own_trained_weights(encoders)
    assert encoders[0][0].weight.data_ptr() != encoders[1][0].weight.data_ptr()


def test_shared_weights_are_freed_with_their_copies():
    origin = net()
    copies = [copy_with_fingerprint(origin, shares_weights=True) for _ in range(2)]
    own_trained_weights(copies[0])
    references = [weakref.ref(each) for each in (origin, *copies)]
    del origin, copies
    assert not any(reference() for reference in references)


def test_shared_weights_are_looked_up_while_another_thread_loads(monkeypatch):
    lock, held = module._sharing_lock, []

    @contextlib.contextmanager
    def hold():
        with lock.hold():
            held.append(True)
            yield
            held.pop()

    class Sharing(weakref.WeakSet):
        def __iter__(self):
            assert held
            return super().__iter__()

        def add(self, item):
            assert held
            super().add(item)

        def update(self, other):
            assert held
            super().update(other)

    monkeypatch.setattr(module, "_sharing", Sharing())
    monkeypatch.setattr(module, "_sharing_lock", SimpleNamespace(hold=hold))
    origin = net()
    copied = copy_with_fingerprint(origin, shares_weights=True)
    own_trained_weights(copied)
    assert copied[0].weight.data_ptr() != origin[0].weight.data_ptr()
