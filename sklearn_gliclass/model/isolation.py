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
def seeded(seed: int, device: str = "cpu"):
    """Hold the lock with torch's generators seeded; at the end they are what they were before.

    Parameters
    ----------
    seed : int
        For the generator of the CPU and, on a GPU, for those of its kind.
    device : str, default="cpu"
        Where the model is: generators of GPUs that are not in use are not touched.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.init()
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if in_use else []
    with process_lock(), torch.random.fork_rng(devices=devices), _mps_state_kept(kind):
        torch.default_generator.manual_seed(seed)
        if in_use:
            torch.cuda.manual_seed_all(seed)
        if kind == "mps":
            torch.mps.manual_seed(seed)
        yield


@contextlib.contextmanager
def _mps_state_kept(kind: str):
    state = torch.mps.get_rng_state() if kind == "mps" else None
    try:
        yield
    finally:
        if state is not None:
            torch.mps.set_rng_state(state)
