"""Settings of glibc's allocator that keep the memory of large tensors in the process while a model runs.

By default, glibc requests each large block from the operating system and returns it when it is freed, so that every
layer waits for new, zeroed pages: a fifth of the time of a fit on short texts, and half of it on long ones.
"""

import contextlib
import ctypes
import functools
import threading

# Options of mallopt, from glibc's malloc.h, and their default values (for the first two, the maximum of dynamic ones).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_USUAL = {_M_TRIM_THRESHOLD: 64 * 2**20, _M_MMAP_THRESHOLD: 32 * 2**20, _M_MMAP_MAX: 65_536}
_KEPT = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_MMAP_MAX: 0}

_lock = threading.Lock()
_users = 0


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
