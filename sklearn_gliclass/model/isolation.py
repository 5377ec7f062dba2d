"""Lock for changes of process-wide state.

torch's default generator is global, and transformers replaces functions of torch while it builds or loads a model. Code
that uses either holds :func:`process_lock`, so that fits, loads and unpickling in threads have the same results as in
sequence.
"""

import contextlib

import torch

from .locks import ForkSafeLock

_lock = ForkSafeLock()


def process_lock():
    """Hold the process-wide lock, which is reentrant."""
    return _lock.hold()


@contextlib.contextmanager
def seed_torch(seed: int, device: str = "cpu"):
    """Hold the lock with torch's generators seeded, and restore their state at the end.

    Parameters
    ----------
    seed : int
        Seed of the generator of the CPU and, on a GPU, of those of its type.
    device : str, default="cpu"
        Device of the model. Generators of unused GPUs are not changed.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.init()
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if in_use else []
    with process_lock(), torch.random.fork_rng(devices=devices), _keep_mps_state(kind):
        torch.default_generator.manual_seed(seed)
        if in_use:
            torch.cuda.manual_seed_all(seed)
        if kind == "mps":
            torch.mps.manual_seed(seed)
        yield


@contextlib.contextmanager
def _keep_mps_state(kind: str):
    state = torch.mps.get_rng_state() if kind == "mps" else None
    try:
        yield
    finally:
        if state is not None:
            torch.mps.set_rng_state(state)
