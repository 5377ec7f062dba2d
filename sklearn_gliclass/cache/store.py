"""Cached hidden states in a folder, shared by fits, folds, candidates and processes.

A collection is a sub-folder whose name is a hash of everything that the hidden states of a text depend on, except
for the text. Within it, the key of a text is the hash of its token ids. A file holds many texts and is never changed:
it is written under a temporary name and renamed. Its own name is a hash of its keys, and it carries a checksum of its
tensors. Any number of threads and processes may therefore read, write and delete files at the same time; what
cannot be read in full is computed again.
"""

import contextlib
import hashlib
import json
import os
import threading
import time
import uuid
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save
from sklearn.utils.validation import check_memory

from ..warn import warn
from .states import HiddenStates

FORMAT = 2  # of the files and their tensors: increased with every change of either
KEY_BYTES = 16
FILE_BYTES = 64 * 2**20  # approximate size of a file
LOADED_BYTES = 256 * 2**20  # size of the files that a process keeps in memory
INDEXED_KEYS = 500_000  # number of keys that a process keeps in memory, about 200 bytes each
OPEN_COLLECTIONS = 64
WRITE_ATTEMPTS = 3  # the folder may be deleted between its creation and the writing of a file
ABANDONED_SECONDS = 3600.0  # age of a temporary file whose writer is assumed dead
_HEADER_BYTES = 2**16  # our headers have a few hundred bytes
_SUFFIX = ".safetensors"
_TEMPORARY = "writing-"


def compute_key(content: bytes) -> bytes:
    """Hash a text's token ids."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


class Collection:
    """The cached hidden states of one collection.

    Parameters
    ----------
    folder : Path
        Folder of its files. It is created with the first file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._places: dict[bytes, tuple[str, int]] = {}  # key -> file name and row
        self._keys: OrderedDict[str, list[bytes]] = OrderedDict()  # file name -> keys, the oldest file first

    def __len__(self) -> int:
        return len(self._places)

    def read(self, keys: list[bytes]) -> tuple[np.ndarray, HiddenStates | None]:
        """Look keys up.

        Parameters
        ----------
        keys : list of bytes
            Keys of :func:`compute_key`.

        Returns
        -------
        found : ndarray of bool
            Whether each key was found.
        states : HiddenStates or None
            Hidden states of those that were found, in the order of the keys. None if none was.
        """
        places = self._find(keys)
        wanted: dict[str, list[tuple[int, int]]] = {}  # file name -> number of the key, row in the file
        for number, key in enumerate(keys):
            if key in places:
                name, row = places[key]
                wanted.setdefault(name, []).append((number, row))
        found, parts, order = np.zeros(len(keys), bool), [], []
        for name, pairs in wanted.items():
            states = self._load(name)
            if states is not None:
                numbers, rows = map(list, zip(*pairs, strict=True))
                parts.append(states.take(np.array(rows)))
                order.extend(numbers)
                found[numbers] = True
        return found, HiddenStates.concatenate(parts).take(np.argsort(order)) if parts else None

    def write(self, keys: list[bytes], states: HiddenStates) -> None:
        """Add hidden states; a folder that cannot be written to raises one warning and no error."""
        rows = max(1, len(keys) * FILE_BYTES // max(1, _size(states)))
        for first in range(0, len(keys), rows):
            part = np.arange(first, min(first + rows, len(keys)))
            try:
                self._write_file([keys[row] for row in part], states.take(part))
            except OSError as error:
                _warn_once(self.folder, "written to", error)
                return

    # -- the index: which file holds a key -------------------------------------------------------------------

    def _find(self, keys: list[bytes]) -> dict[bytes, tuple[str, int]]:
        """Return the places of the keys that are in a file, reading the keys of files that are new."""
        with _lock:
            places = {key: self._places[key] for key in keys if key in self._places}
            known = set(self._keys)
        missing = set(keys) - places.keys()
        if not missing:
            return places
        for name in self._list_files():
            if name in known:
                continue
            file_keys = _read_keys(self.folder / name)
            if file_keys is not None:
                # Matched at once: the index may have no room for all keys of the folder.
                places |= {key: (name, row) for row, key in enumerate(file_keys) if key in missing}
                self._add(name, file_keys)
        return places

    def _list_files(self) -> list[str]:
        """Return the names of the files, and remove temporary ones that a killed process has left."""
        names = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX) and entry.is_file():
                        names.append(entry.name)
                    elif entry.name.startswith(_TEMPORARY):
                        _remove_abandoned(Path(entry.path))
        except FileNotFoundError:
            pass  # nothing has been written yet, or the folder has been deleted
        except OSError as error:
            _warn_once(self.folder, "read", error)
        return sorted(names)

    def _add(self, name: str, keys: list[bytes]) -> None:
        with _lock:
            self._keys[name] = keys
            self._places |= {key: (name, row) for row, key in enumerate(keys)}
            while len(self._places) > INDEXED_KEYS and len(self._keys) > 1:
                self._forget(next(iter(self._keys)))
            _bound_collections()

    def _forget(self, name: str) -> None:
        """Drop a file from the index; the caller holds the lock."""
        for key in self._keys.pop(name, ()):
            if self._places.get(key, ("",))[0] == name:  # another file may hold the key too
                del self._places[key]

    # -- files -----------------------------------------------------------------------------------------------

    def _load(self, name: str) -> HiddenStates | None:
        """Return the contents of a file; None if it is damaged or gone."""
        path = self.folder / name
        with _lock:
            states = _loaded.get(path)
        if states is None:
            states = _read_states(path)
            with _lock:
                if states is None:
                    self._forget(name)
                else:
                    _loaded.put(path, states)
        return states

    def _write_file(self, keys: list[bytes], states: HiddenStates) -> None:
        tensors = {"states." + name: array.contiguous() for name, array in states.arrays.items()}
        tensors["keys"] = torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES).copy())
        if states.offsets is not None:
            tensors["offsets"] = torch.from_numpy(states.offsets)
        name = _file_name(b"".join(keys))
        if self._put(name, save(tensors, {"checksum": _checksum(tensors)})):
            with _lock:
                _loaded.put(self.folder / name, states)
            self._add(name, keys)

    def _put(self, name: str, content: bytes) -> bool:
        """Write a file under a temporary name and rename it; False if the folder was deleted meanwhile."""
        temporary = self.folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(content)
                temporary.replace(self.folder / name)
                return True
            except FileNotFoundError:
                pass
            except FileExistsError:  # from mkdir: a file of that name, or a folder that was deleted at this moment
                if attempt == WRITE_ATTEMPTS:
                    raise
            finally:
                _remove(temporary)
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is gone already, or the folder is read-only
        path.unlink()


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            path.unlink()


def _file_name(joined_keys: bytes) -> str:
    return compute_key(joined_keys).hex() + _SUFFIX


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Files are read, not mapped into memory: access to a mapped file that someone truncates kills the process (SIGBUS).


def _read_keys(path: Path) -> list[bytes] | None:
    """Read the keys of a file and nothing else; None if it is damaged or gone."""
    try:
        with path.open("rb") as file:
            header = _parse_header(file.read(8 + _HEADER_BYTES))
            first, last = header["keys"]["data_offsets"]
            file.seek(header["start"] + first)
            joined = file.read(min(last - first, os.fstat(file.fileno()).st_size))
    except OSError:
        return None
    except Exception:  # arbitrary bytes may break the parser anywhere
        joined = b""
    if _file_name(joined) != path.name:
        _remove(path)
        return None
    return [joined[first : first + KEY_BYTES] for first in range(0, len(joined), KEY_BYTES)]


def _read_states(path: Path) -> HiddenStates | None:
    """Read a file and compare its checksum; None if it is damaged or gone."""
    try:
        content = path.read_bytes()
        tensors = load(content)  # copies
        intact = _parse_header(content)["__metadata__"]["checksum"] == _checksum(tensors)
        intact = intact and _file_name(tensors["keys"].numpy().tobytes()) == path.name
    except (OSError, MemoryError):
        return None
    except Exception:  # arbitrary bytes may break the parser anywhere
        intact = False
    if not intact:
        _remove(path)
        return None
    offsets = tensors["offsets"].numpy() if "offsets" in tensors else None
    arrays = {name.removeprefix("states."): t for name, t in tensors.items() if name.startswith("states.")}
    return HiddenStates(arrays, offsets)


def _parse_header(content: bytes) -> dict:
    """Parse the JSON that a safetensors file begins with; "start" is where its tensors begin."""
    length = int.from_bytes(content[:8], "little")
    if length > _HEADER_BYTES:
        raise ValueError(f"A header of {length} bytes was not written by this package.")
    return {**json.loads(content[8 : 8 + length]), "start": 8 + length}


# -- state of the process ------------------------------------------------------------------------------------


class _LoadedFiles:
    """The most recently used files, up to `LOADED_BYTES`; the caller holds the lock."""

    def __init__(self):
        self.states: OrderedDict[Path, HiddenStates] = OrderedDict()
        self.n_bytes = 0

    def get(self, path: Path) -> HiddenStates | None:
        if path in self.states:
            self.states.move_to_end(path)
        return self.states.get(path)

    def put(self, path: Path, states: HiddenStates) -> None:
        self._drop(path)
        self.states[path] = states
        self.n_bytes += _size(states)
        while self.n_bytes > LOADED_BYTES:
            self._drop(next(iter(self.states)))

    def _drop(self, path: Path) -> None:
        if path in self.states:
            self.n_bytes -= _size(self.states.pop(path))


def _size(states: HiddenStates) -> int:
    return sum(array.nbytes for array in states.arrays.values())


# Held while the dictionaries below and those of collections are used, and never while a file is read or written.
_lock = threading.RLock()
_loaded = _LoadedFiles()
_collections: OrderedDict[Path, Collection] = OrderedDict()  # the least recently used first
_warned: set[Path] = set()


def _renew_lock() -> None:
    """After a fork, replace the lock that the parent's thread holds."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # The lock is held across the fork: no other thread is then halfway through a change that the child inherits.
    os.register_at_fork(
        before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_renew_lock
    )


def _bound_collections() -> None:
    """Drop the least recently used collections; the caller holds the lock."""
    while len(_collections) > OPEN_COLLECTIONS or (
        len(_collections) > 1 and sum(map(len, _collections.values())) > INDEXED_KEYS
    ):
        _collections.popitem(last=False)


def find_location(memory) -> str | None:
    """Return the folder of a `memory` hyperparameter.

    Parameters
    ----------
    memory : str, path-like, object with the interface of ``joblib.Memory``, or None
        In a path, ``~`` is the user's home folder.
    """
    if isinstance(memory, str | os.PathLike):
        return os.path.expanduser(memory)
    location = check_memory(memory).location
    return None if location is None else os.fspath(location)


def open_collection(location: str, description: dict) -> Collection:
    """Return a collection in a folder.

    Parameters
    ----------
    location : str
        Folder of :func:`find_location`.
    description : dict
        Everything that the hidden states of a text depend on, except for the text; plain JSON.
    """
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    name = hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()
    folder = Path(location).absolute() / "sklearn_gliclass" / name
    with _lock:
        collection = _collections.setdefault(folder, Collection(folder))
        _collections.move_to_end(folder)
        _bound_collections()
    return collection


def _warn_once(folder: Path, verb: str, error: Exception) -> None:
    location = folder.parent.parent
    if location not in _warned:
        _warned.add(location)
        warn(
            f"The folder memory={str(location)!r} cannot be {verb} ({error}): hidden states that are not cached are "
            "computed again. Make the folder writable, or choose another one."
        )
