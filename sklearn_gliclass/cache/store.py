"""Encoder states in a folder: kept across fits, folds, candidates and processes.

A collection is a sub-folder whose name stands for all that changes the states of a text beside its own content; in
it each text has a key, the hash of its token ids. HiddenStates are written in files of many texts, each at once and under
a name of its own, so that several processes may write; a file that can't be read in full counts as absent.
"""

import contextlib
import hashlib
import json
import os
import threading
import uuid
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from sklearn.utils.validation import check_memory

from ..warn import warn
from .states import HiddenStates

FORMAT = 2  # of the files and of the states in them: raised with every change of either
KEY_BYTES = 16
FILE_BYTES = 64 * 2**20  # about how much a file holds
LOADED_BYTES = 256 * 2**20  # what a process keeps of the files that it has read
_SUFFIX = ".safetensors"


def compute_key(content: bytes) -> bytes:
    """What a text is known by."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def collection_name(description: dict) -> str:
    """A folder name for all that the states of a collection depend on, in the form of plain JSON."""
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


class Collection:
    """The states of one collection.

    Parameters
    ----------
    folder : Path
        Where its files are; made when the first is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._index: dict[bytes, tuple[str, int]] = {}
        self._files: set[str] = set()

    def read(self, keys: list[bytes]) -> tuple[np.ndarray, HiddenStates | None]:
        """Which of the keys are here (bool for each), and the states of those that are, in the order of the keys."""
        with _lock:
            return self._read(keys)

    def _read(self, keys):
        found, parts = np.zeros(len(keys), bool), []
        if any(key not in self._index for key in keys):
            self._look_for_files()
        places = [self._index.get(key) for key in keys]
        places_of_file: dict[str, list[int]] = {}
        for number, place in enumerate(places):
            if place is not None:
                places_of_file.setdefault(place[0], []).append(number)
        order = []
        for file, numbers in places_of_file.items():
            states = self._load(file)
            if states is not None:
                parts.append(states.take(np.array([places[number][1] for number in numbers])))
                order.extend(numbers)
                found[numbers] = True
        if not parts:
            return found, None
        return found, HiddenStates.concatenate(parts).take(np.argsort(order))

    def _look_for_files(self) -> None:
        """Learn which keys the files hold that other processes have written."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(_SUFFIX))
        except FileNotFoundError:
            names = []
        except OSError as error:
            _warn_once(self.folder, "read", error)
            names = []
        for name in names:
            if name not in self._files:
                self._files.add(name)
                keys = _read_keys(self.folder / name)
                for row, key in enumerate(keys):
                    self._index.setdefault(key, (name, row))

    def _load(self, name: str) -> HiddenStates | None:
        """The states of a file; a damaged or vanished one is forgotten."""
        path = self.folder / name
        states = _loaded.get(path)
        if states is None:
            states = _read_states(path)
            if states is None:
                self._index = {key: place for key, place in self._index.items() if place[0] != name}
                self._files.discard(name)
                _remove(path)
                return None
            _loaded.put(path, states)
        return states

    def write(self, keys: list[bytes], states: HiddenStates) -> None:
        """Add states; where the folder can't be written to, one warning says so and the work goes on without."""
        rows = max(1, len(keys) * FILE_BYTES // max(1, _size(states)))
        for first in range(0, len(keys), rows):
            part = np.arange(first, min(first + rows, len(keys)))
            try:
                with _lock:
                    self._write_file([keys[row] for row in part], states.take(part))
            except (OSError, SafetensorError) as error:
                _warn_once(self.folder, "written to", error)
                return

    def _write_file(self, keys: list[bytes], states: HiddenStates) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {"states." + name: array.contiguous() for name, array in states.arrays.items()}
        tensors["keys"] = torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES).copy())
        if states.offsets is not None:
            tensors["offsets"] = torch.from_numpy(states.offsets)
        name = compute_key(b"".join(keys)).hex() + _SUFFIX
        temporary = self.folder / f"writing-{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(save(tensors, {"checksum": _checksum(tensors)}))
            temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        self._files.add(name)
        self._index.update({key: (name, row) for row, key in enumerate(keys)})
        _loaded.put(self.folder / name, states)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # another process has removed it, or nothing can be written here
        path.unlink()


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _read_keys(path: Path) -> list[bytes]:
    try:
        with safe_open(path, "pt") as file:
            return [bytes(key) for key in file.get_tensor("keys").numpy()]
    except FileNotFoundError:
        return []
    except (OSError, SafetensorError):
        _remove(path)  # whoever needs its texts computes them again
        return []


def _read_states(path: Path) -> HiddenStates | None:
    try:
        with safe_open(path, "pt") as file:
            checksum = (file.metadata() or {}).get("checksum")
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    if _checksum(tensors) != checksum:
        return None
    offsets = tensors["offsets"].numpy() if "offsets" in tensors else None
    arrays = {name.removeprefix("states."): t for name, t in tensors.items() if name.startswith("states.")}
    return HiddenStates(arrays, offsets)


class _LoadedFiles:
    """The files that were used last, up to a number of bytes."""

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


_lock = threading.RLock()
_loaded = _LoadedFiles()
_collections: dict[Path, Collection] = {}
_warned: set[Path] = set()


def find_location(memory) -> str | None:
    """The folder of a `memory` hyperparameter: a path, or an object like ``joblib.Memory``."""
    if not isinstance(memory, str | os.PathLike):
        memory = check_memory(memory).location
    return None if memory is None else os.fspath(memory)


def open_collection(location: str, description: dict) -> Collection:
    """The collection that a description names, under a folder of `memory`."""
    folder = Path(location).absolute() / "sklearn_gliclass" / collection_name(description)
    return _collections.setdefault(folder, Collection(folder))


def _warn_once(folder: Path, verb: str, error: Exception) -> None:
    location = folder.parent.parent
    if location not in _warned:
        _warned.add(location)
        warn(
            f"The folder memory={str(location)!r} can't be {verb} ({error}): encoder states are computed again "
            "where it lacks them. Make the folder writable, or choose another."
        )
