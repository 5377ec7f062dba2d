"""Settings of glibc's allocator that keep the memory of large tensors in the process while a model runs.

By default, glibc requests each large block from the operating system and returns it when it is freed, so that every
layer waits for new, zeroed pages: a fifth of the time of a fit on short texts, and half of it on long ones.
"""

import contextlib
import ctypes
import functools
import os
import threading

from .locks import ForkSafeLock

# Options of mallopt, from glibc's malloc.h, and their default values (for the first two, the maximum of dynamic ones).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USUAL = {_M_TRIM_THRESHOLD: 64 * 2**20, _M_MMAP_THRESHOLD: 32 * 2**20, _M_MMAP_MAX: 65_536}
_KEPT = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_MMAP_MAX: 0}

_lock = ForkSafeLock()
_users: list[int] = []  # threads inside of `keep_memory`, once for each call


@functools.cache
def _glibc():
    """Load the C library if it is glibc; return None otherwise."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 -- accessed only to detect glibc
        library.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError, TypeError):
        return None
    return library


@contextlib.contextmanager
def keep_memory():
    """Keep freed memory in the process within the context; return it to the system at the end."""
    library = _glibc()
    if library is None:
        yield
        return
    thread = threading.get_ident()
    try:  # from the beginning: Ctrl-C may come in between
        with _lock.hold():
            _users.append(thread)
            if len(_users) == 1:
                _set(library, _KEPT)
        yield
    finally:
        with _lock.hold():
            if thread in _users:
                _users.remove(thread)
            if not _users:
                _set(library, _USUAL)
                library.malloc_trim(0)


def _remove_other_threads() -> None:
    """Remove the users that a forked child does not have: of all threads, it has the one that forks."""
    if _users:
        _users[:] = [thread for thread in _users if thread == threading.get_ident()]
        if not _users:
            _set(_glibc(), _USUAL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remove_other_threads)


def _set(library, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)
