"""Memory of large tensors stays with the process while a model runs.

glibc takes each large block from the operating system and hands it back as soon as it is free, so that every layer
waits for fresh, zeroed pages: a fifth of the time of a fit on short texts, and half of it on long ones.
"""

import contextlib
import ctypes
import functools
import threading

# Options of mallopt, from glibc's malloc.h, and the values that they have (the first two at most) by themselves.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USUAL = {_M_TRIM_THRESHOLD: 64 * 2**20, _M_MMAP_THRESHOLD: 32 * 2**20, _M_MMAP_MAX: 65_536}
_KEPT = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_MMAP_MAX: 0}

_lock = threading.Lock()
_users = 0


@functools.cache
def _glibc():
    """The C library, where it is glibc; None elsewhere."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 -- asked for, not used: other libraries lack it
        library.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError, TypeError):
        return None
    return library


@contextlib.contextmanager
def kept_memory():
    """Within it, freed memory is kept for the next tensor; at the end all goes back that is free."""
    global _users
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _set(library, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(library, _USUAL)
                library.malloc_trim(0)


def _set(library, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)
