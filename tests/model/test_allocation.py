"""Kept memory: fewer page faults inside, and what is free goes back afterwards."""

from pathlib import Path

import pytest
import torch

from sklearn_gliclass.model import allocation
from sklearn_gliclass.model.allocation import keep_memory

STATUS = Path("/proc/self/status")
on_glibc = pytest.mark.skipif(
    allocation._glibc() is None or not STATUS.exists(), reason="only glibc is told to keep memory, seen on Linux"
)


def page_faults() -> int:
    """Of 6 tensors of 100 MB, one after the other."""
    resource = pytest.importorskip("resource")
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(6):
        torch.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start


def resident_mib() -> float:
    return next(int(line.split()[1]) / 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))


@on_glibc
def test_memory_is_taken_from_the_system_once_and_goes_back():
    with keep_memory():
        page_faults()
        with keep_memory():
            assert page_faults() < 25_000_000 * 4 / 4096 / 2  # not even one tensor's
        inside = resident_mib()
    assert resident_mib() < inside - 80


def test_an_error_ends_it_too():
    with pytest.raises(RuntimeError, match="inside"), keep_memory():
        raise RuntimeError("inside")
    assert allocation._users == 0


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocation, "_glibc", lambda: None)
    with keep_memory():
        assert allocation._users == 0
