"""Locks of modules: a forked child never waits for a thread that it does not have."""

import contextlib
import re
import threading
from pathlib import Path

from forked import needs_fork, start

import sklearn_gliclass
from sklearn_gliclass import distributed, fitted
from sklearn_gliclass.model import allocation, fingerprint, isolation

PACKAGE = Path(sklearn_gliclass.__file__).parent
LOCKS = [isolation._lock, allocation._lock, distributed._lock, fitted._sharing, fingerprint._sharing_lock]


@needs_fork
def test_locks_are_free_in_a_child_forked_while_another_thread_holds_them():
    held, done = threading.Event(), threading.Event()

    def hold():
        with contextlib.ExitStack() as stack:
            for lock in LOCKS:
                stack.enter_context(lock.hold())
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(timeout=30)
    child = start(lambda: sum(not lock._lock.acquire(blocking=False) for lock in LOCKS))
    child.join()
    done.set()
    thread.join()
    assert child.exitcode == 0


def test_fork_inside_of_a_lock_leaves_it_without_an_error():
    lock = isolation.ForkSafeLock()
    with lock.hold():
        lock._renew()  # as in the child
    assert lock._lock.acquire(blocking=False)


def test_locks_of_modules_are_renewed_after_a_fork():
    paths = PACKAGE.rglob("*.py")
    plain = {path.name for path in paths if re.search(r"^\w+ = threading\.R?Lock\(", path.read_text(), re.MULTILINE)}
    assert plain == {"store.py"}  # which holds its lock across forks
