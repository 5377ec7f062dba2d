"""Atomic replacement of folders: the name always refers to the complete old folder or the complete new one.

The new folder is written beside the old one, flushed to the disk, and the two exchange their names in one system
call. Where the system has no such call, the old folder is renamed away first; :func:`recover` brings it back if the
process ended between the two steps.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_LOCK_SECONDS = 60  # timeout for locks, after which a locked folder is used anyway
_STALE_SECONDS = 24 * 3600  # age of abandoned temporary folders, on systems without file locks
_ATTEMPTS = 100
# Name of temporary folders: that of the target, the kind, and a number that begins with that of the machine.
_TEMPORARY = re.compile(r"\..+\.(?:saving|replaced)-[0-9a-f]{16}")
_MACHINE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


@contextlib.contextmanager
def replace_folder(
    target: Path,
    is_written: Callable[[str], bool],
    subfolders: Iterable[str] = (),
    optional_files: Iterable[str] = (),
    check: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` when the block ends without an error.

    Parameters
    ----------
    target : Path
        The folder, which may not exist.
    is_written : callable
        Whether the caller writes an entry of this name at the top of the folder. All others are kept.
    subfolders : iterable of str, default=()
        Names of the entries that are folders.
    optional_files : iterable of str, default=()
        Names of files that are kept if the caller does not write them.
    check : callable, optional
        Function that raises if `target` must not be replaced. It is called first, and again before the replacement.

    Raises
    ------
    ValueError, OSError
        If `target` cannot be replaced, because it is a file, a mount point or the working directory, its parent
        cannot be written to, or it has a folder where the caller writes a file, or the other way round.
    """
    check()
    _check_target(target)
    _check_entries(target, is_written, set(subfolders), set(optional_files))
    recover(target)
    _remove_leftovers(target)
    with _temporary_folder(target) as temporary:
        yield temporary
        _sync(temporary)
        with _locked(target) as exists:
            check()
            if exists:
                shutil.copymode(target, temporary)
                _link_missing(target, temporary, is_written)
                _sync_path(temporary)
            _move_to(temporary, target)
            if exists:  # `temporary` is now the old folder, to which files may have been added
                _move_temporary_folders(temporary, target)
                with contextlib.suppress(OSError):
                    _link_missing(temporary, target, is_written)
            _sync_path(target.parent)


def recover(target: Path) -> None:
    """Restore a folder that a process renamed, if it ended before it replaced the folder."""
    if target.exists():
        return
    for folder in _siblings(target, "replaced"):
        with contextlib.suppress(OSError):
            folder.rename(target)
            return


def read_unchanged(folder: Path, read: Callable):
    """Call `read`, and repeat it if the folder was replaced meanwhile, so that all files are of one version.

    Parameters
    ----------
    folder : Path
        The folder that `read` reads.
    read : callable
        Function without arguments that reads the folder.

    Returns
    -------
    object
        The result of `read`.
    """
    for _ in range(_ATTEMPTS):
        with _opened(folder) as before:
            try:
                result = read()
            except Exception:
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return result
    raise OSError(f"The folder {str(folder)!r} was replaced repeatedly while it was read; try again later.")


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[tuple[int, int] | None]:
    """Yield the identity of a folder, which no other one has as long as it is open; the system reuses inodes."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # there is none, or it is one of Windows, which cannot be opened
        yield _identity(folder)
        return
    try:
        yield _identity(descriptor)
    finally:
        os.close(descriptor)


def _identity(place: Path | int) -> tuple[int, int] | None:
    """Return device and inode of a path or descriptor, or None if there is nothing."""
    try:
        status = os.stat(place)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _kind(path: Path) -> str | None:
    """Return "folder", "file" or None if there is nothing, from one look: another save may replace it at any time."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return "folder" if stat.S_ISDIR(mode) else "file"


def _check_target(target: Path) -> None:
    if not target.name:
        raise ValueError(f"A checkpoint cannot be saved to {str(target)!r}; choose a folder below it.")
    if _kind(target) == "file":
        raise NotADirectoryError(f"{str(target)!r} is a file; give the name of a folder.")
    if os.path.ismount(target):
        raise OSError(
            f"{str(target)!r} is a mount point, which cannot be replaced by a new folder; choose a folder below it."
        )
    with contextlib.suppress(FileNotFoundError):  # the working directory may have been deleted
        if target.is_dir() and Path.cwd().is_relative_to(target):
            raise ValueError(
                f"{str(target)!r} is the working directory or contains it, and a save replaces the folder; choose a "
                "folder below it."
            )
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)


def _check_entries(target: Path, is_written: Callable[[str], bool], subfolders: set[str], files: set[str]) -> None:
    """Raise if an entry that would be replaced is a folder in place of a file, or the other way round."""
    try:
        entries = sorted(target.iterdir())
    except FileNotFoundError:  # there is none, or another save is replacing it
        return
    for path in entries:
        if path.name in subfolders:
            needed, error = "folder", NotADirectoryError
        elif is_written(path.name) or path.name in files:
            needed, error = "file", IsADirectoryError
        else:
            continue
        if _kind(path) not in (needed, None):  # a link to nothing is replaced
            raise error(
                f"{str(path)!r} is not a {needed}, and a {needed} of this name is written; rename or remove it, or "
                "choose another folder."
            )


@contextlib.contextmanager
def _explained(target: Path):
    try:
        yield
    except OSError as error:
        raise type(error)(
            error.errno,
            f"Cannot write beside {str(target)!r} ({error.strerror}): a checkpoint is written to a temporary folder "
            "beside it, which then replaces it. Choose a folder whose parent can be written to",
        ) from error


# -- temporary folders ---------------------------------------------------------------------------------------


def _sibling(target: Path, kind: str) -> Path:
    return target.with_name(f".{_stem(target)}.{kind}-{_MACHINE}{uuid.uuid4().hex[:12]}")


def _stem(target: Path) -> str:
    """Return the name of a folder, or a short one of its own for long names: at most 255 bytes are allowed."""
    name = target.name
    return name if len(name) <= 50 else f"{name[:41]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def _siblings(target: Path, kind: str) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(_stem(target))}\.{kind}-[0-9a-f]{{16}}")
    try:
        return sorted(Path(entry) for entry in os.scandir(target.parent) if pattern.fullmatch(entry.name))
    except OSError:
        return []


@contextlib.contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Create a folder that is locked while its process lives; at the end, the folder of its name is removed."""
    for _ in range(_ATTEMPTS):
        temporary = _sibling(target, "saving")
        with _explained(target):
            temporary.mkdir()
        lock = _lock(temporary)
        if _identity(temporary) is not None:  # otherwise, another save removed it before it was locked
            break
        _unlock(lock)
    try:
        yield temporary
    finally:
        _unlock(lock)  # first: it is the lock of the new folder, for which the next save waits
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of killed processes; running ones hold locks of theirs.

    Other machines do not see the locks of folders on a network file system.
    """
    kinds = ("saving", "replaced") if target.exists() else ("saving",)
    for folder in (folder for kind in kinds for folder in _siblings(target, kind)):
        if fcntl is None or not folder.name.rpartition("-")[2].startswith(_MACHINE):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            continue
        lock = _lock(folder, seconds=0)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            _unlock(lock)


def _lock(folder: Path, seconds: float = _LOCK_SECONDS) -> int | None:
    """Lock a folder and return its descriptor, or None if it is locked, missing, or cannot be locked."""
    if fcntl is None:
        return None
    end = time.monotonic() + seconds
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _identity(folder) == _identity(descriptor):  # otherwise, it has been replaced meanwhile
                return descriptor
            may_succeed = True
        except OSError as error:
            may_succeed = error.errno in (errno.EAGAIN, errno.EACCES)
        os.close(descriptor)
        if not may_succeed or time.monotonic() >= end:
            return None
        time.sleep(0.005)


def _unlock(descriptor: int | None) -> None:
    if fcntl is not None and descriptor is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[bool]:
    """Serialise the last steps of saves to `target`; yield whether it exists.

    The lock of the parent folder is there before `target` is, and while it is renamed; that of `target` keeps others
    from removing it under its temporary name.
    """
    parent_lock = _lock(target.parent)
    lock = _lock(target)
    try:
        yield target.is_dir()
    finally:
        _unlock(lock)
        _unlock(parent_lock)


# -- from one name to the other ------------------------------------------------------------------------------


def _move_to(new: Path, target: Path) -> None:
    """Rename `new` to `target`; an existing folder `target` is renamed to `new`."""
    for _ in range(_ATTEMPTS):
        try:
            if not target.exists():
                new.rename(target)
            elif not _exchange(new, target):
                _rename_in_turn(new, target)
            return
        except OSError as error:  # another save has created or removed the target meanwhile
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or not new.exists():
                raise
    raise OSError(f"The folder {str(target)!r} was replaced repeatedly by other processes; try again later.")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two folders atomically; return False if the system cannot."""
    libc = None if sys.platform == "win32" else ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(first), os.fsencode(second)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_EXCHANGE))
    elif hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*paths, ctypes.c_uint(_EXCHANGE))
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an old kernel, or a file system that cannot
        return False
    raise OSError(number, os.strerror(number), str(second))


def _rename_in_turn(new: Path, target: Path) -> None:
    old = _sibling(target, "replaced")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    with contextlib.suppress(FileNotFoundError):  # on systems without locks, another save may have removed it
        old.rename(new)


def _move_temporary_folders(source: Path, target: Path) -> None:
    """Move the temporary folders of running saves to subfolders, which write to them by their names."""
    for entry in os.scandir(source):
        if _TEMPORARY.fullmatch(entry.name):
            with contextlib.suppress(OSError):  # the save may end at any time
                os.rename(entry.path, target / entry.name)


def _link_missing(source: Path, target: Path, is_written: Callable[[str], bool]) -> None:
    """Link the files of `source` into `target` that are missing there and that the caller does not write."""
    for entry in os.scandir(source):
        place = target / entry.name
        if is_written(entry.name) or _TEMPORARY.fullmatch(entry.name) or os.path.lexists(place):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry.path, place, symlinks=True, copy_function=_link_or_copy)
        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
            _link_or_copy(entry.path, place)


def _link_or_copy(source, target) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # the file system has no links
        shutil.copy2(source, target, follow_symlinks=False)


def _sync(folder: Path) -> None:
    """Flush the files of a folder, and the folder itself, to the disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(Path(root, name), "rb+") as file:
                os.fsync(file.fileno())
        _sync_path(Path(root))


def _sync_path(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
