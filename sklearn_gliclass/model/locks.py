"""Lock that a forked child does not wait for."""

import contextlib
import os
import threading
import weakref


class ForkSafeLock:
    """Reentrant lock that is replaced in a forked child, which does not have the thread that may hold it."""

    def __init__(self):
        self._renew()
        _locks.add(self)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def hold(self):
        """Hold the lock; the one that was acquired is released, even if a fork has replaced it meanwhile."""
        with self._lock:
            yield


_locks: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()


def _renew_all() -> None:
    for lock in _locks:
        lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
