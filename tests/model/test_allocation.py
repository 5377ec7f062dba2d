"""Memory that is kept in the process: fewer page faults, and release at the end."""

import contextlib
import threading
from pathlib import Path

import pytest
import torch
from forked import needs_fork, start

from sklearn_gliclass.model import allocation
from sklearn_gliclass.model.allocation import keep_memory

STATUS = Path("/proc/self/status")
on_glibc = pytest.mark.skipif(
    allocation._glibc() is None or not STATUS.exists(), reason="memory is kept with glibc only, and measured on Linux"
)


def page_faults() -> int:
    """Count the page faults of 12 tensors of 100 MB, one after the other."""
    resource = pytest.importorskip("resource")
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(12):
        torch.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start


def resident_mib() -> float:
    return next(int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))


@on_glibc
def test_memory_is_kept_and_released_at_the_end():
    usual = page_faults()
    with keep_memory():
        page_faults()
        with keep_memory():
            # Not 0: a small block can split the kept one, and the next tensor needs new pages.
            assert page_faults() < usual / 2
        inside = resident_mib()
    assert resident_mib() < inside - 80


def test_error_ends_it_too():
    with pytest.raises(RuntimeError, match="inside"), keep_memory():
        raise RuntimeError("inside")
    assert not allocation._users


def test_other_c_libraries_are_not_changed(monkeypatch):
    monkeypatch.setattr(allocation, "_glibc", lambda: None)
    with keep_memory():
        assert not allocation._users


def leave_with_one_thread(depth: int) -> bool:
    """Return whether a forked child has the calls of its own thread only, and the usual settings at their end."""
    inside, settings = len(allocation._users), []
    allocation._set = lambda library, options: settings.append(options)
    with keep_memory():
        pass
    return inside == depth and settings == ([] if depth else [allocation._KEPT, allocation._USUAL])


@on_glibc
@needs_fork
@pytest.mark.parametrize("depth", [0, 2])
def test_fork_keeps_the_users_of_its_own_thread(depth):
    entered, left = threading.Event(), threading.Event()

    def use():
        with keep_memory():
            entered.set()
            left.wait()

    thread = threading.Thread(target=use)
    thread.start()
    assert entered.wait(timeout=30)
    with contextlib.ExitStack() as stack:
        for _ in range(depth):
            stack.enter_context(keep_memory())
        child = start(lambda: int(not leave_with_one_thread(depth)))
        child.join()
    left.set()
    thread.join()
    assert child.exitcode == 0
    assert not allocation._users
