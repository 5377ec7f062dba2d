"""Changes of process-wide state, one at a time.

torch's default generator belongs to the whole process, and transformers swaps functions of torch while it builds or
loads a model. Whoever does either holds :func:`process_lock`, so that fits, loads and unpicklings in threads give
what they give alone.
"""

import contextlib
import os
import threading

import torch

_lock = threading.RLock()


def _renew_lock() -> None:
    """After a fork the child has none of the threads that might release the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def process_lock():
    """Hold the lock; the same thread may take it again."""
    with _lock:
        yield


@contextlib.contextmanager
def seeded(seed: int):
    """Hold the lock with torch's generators seeded; at the end they are what they were before."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with process_lock(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
