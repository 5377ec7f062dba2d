"""Locks: a forked child never waits for a thread that it does not have."""

import contextlib
import re
import threading
from pathlib import Path

from forked import needs_fork, start

import sklearn_gliclass
from sklearn_gliclass import distributed
from sklearn_gliclass.model import allocation, fingerprint, isolation
from sklearn_gliclass.model.locks import ForkSafeLock
from sklearn_gliclass.onnx import Sessions

PACKAGE = Path(sklearn_gliclass.__file__).parent
LOCKS = [isolation._lock, allocation._lock, distributed._lock, fingerprint._sharing_lock]


@needs_fork
def test_locks_are_free_in_a_child_forked_while_another_thread_holds_them():
    held, done = threading.Event(), threading.Event()
    locks = [*LOCKS, Sessions(Path("folder"), n_threads=None)._lock]

    def hold():
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock.hold())
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(timeout=30)
    child = start(lambda: sum(not lock._lock.acquire(blocking=False) for lock in locks))
    child.join()
    done.set()
    thread.join()
    assert child.exitcode == 0


def test_fork_inside_of_a_lock_leaves_it_without_an_error():
    lock = ForkSafeLock()
    with lock.hold():
        lock._renew()  # as in the child
    assert lock._lock.acquire(blocking=False)


def test_all_locks_are_safe_in_a_forked_child():
    plain = {path.name for path in PACKAGE.rglob("*.py") if re.search(r"threading\.R?Lock\(", path.read_text())}
    assert plain == {"locks.py", "store.py"}  # the latter holds its lock across forks
