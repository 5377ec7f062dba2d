"""Cache under deletion, damage and concurrent writes: no errors, and no wrong hidden states."""

import json
import os
import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from forked import needs_fork, start
from random_states import assert_right, states_of_keys
from safetensors.torch import load_file, save
from sklearn.base import clone
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass.cache import store
from sklearn_gliclass.cache.store import Collection, compute_key, find_location, open_collection

KEYS = [compute_key(bytes([number])) for number in range(60)]

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.fixture(autouse=True)
def fresh_process_state(monkeypatch):
    for name, value in (("_loaded", store._LoadedFiles()), ("_collections", type(store._collections)())):
        monkeypatch.setattr(store, name, value)
    monkeypatch.setattr(store, "_warned", set())


def fill(folder, keys=KEYS, per_file=5):
    for first in range(0, len(keys), per_file):
        part = keys[first : first + per_file]
        Collection(folder).write(part, states_of_keys(part))
    return sorted(folder.glob("*.safetensors"))


def read_anew(folder, keys=KEYS):
    """Read as a new process, and return the number of keys that were found."""
    store._loaded.__init__()
    found, states = Collection(folder).read(keys)
    assert_right(keys, found, states)
    return found.sum()


# -- files that come, go and change --------------------------------------------------------------------------


def damage(folder, generator):
    """Delete the folder or a file of it, or change a file in place."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    how = generator.choice(["rmtree", "unlink", "truncate", "garbage", "flip"])
    if how == "rmtree" or not files:
        shutil.rmtree(folder, ignore_errors=True)
        return
    path = generator.choice(files)
    try:
        if how == "unlink":
            path.unlink()
            return
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            place = generator.randrange(size) if size else 0
            if how == "truncate":
                file.truncate(place)
                return
            file.seek(0 if how == "garbage" else place)
            file.write(generator.randbytes(50 if how == "garbage" else 1))
    except OSError:
        pass  # a reader has removed it


def while_damaging(folder, function, n_threads):
    """Run ``function(number)`` in threads while another one damages the folder; errors are raised."""
    done, rounds = threading.Event(), []

    def damage_on():
        generator = random.Random(0)
        while not done.is_set():
            damage(folder, generator)
            rounds.append(None)
            time.sleep(0.002)

    damager = threading.Thread(target=damage_on)
    damager.start()
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            results = list(pool.map(function, range(n_threads)))
    finally:
        done.set()
        damager.join()
    assert len(rounds) > 10
    return results


def test_predictions_while_the_folder_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LOADED_BYTES", 0)  # every read is one of files
    folder = tmp_path / "states"
    texts = [f"{text} {number}" for number in range(3) for text in TEXTS]
    plain = tiny(freeze_encoder=True, max_epochs=1).fit(TEXTS, LABELS)
    expected = plain.predict_proba(texts)
    clf = clone(plain).set_params(memory=str(folder)).fit(TEXTS, LABELS)

    def predict(number):
        generator = np.random.default_rng(number)
        for _ in range(40):
            rows = generator.permutation(len(texts))[:10]
            np.testing.assert_allclose(clf.predict_proba([texts[row] for row in rows]), expected[rows], atol=1e-5)

    while_damaging(folder, predict, n_threads=3)


def test_states_while_the_folder_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LOADED_BYTES", 2000)
    monkeypatch.setattr(store, "INDEXED_KEYS", 30)
    folder = tmp_path / "states"
    shared = Collection(folder)

    def work(number):
        generator, n_found = np.random.default_rng(number), 0
        for round_ in range(300):
            collection = shared if round_ % 2 else Collection(folder)
            keys = [KEYS[row] for row in generator.integers(len(KEYS), size=8)]
            found, states = collection.read(keys)
            assert_right(keys, found, states)
            n_found += found.sum()
            missing = [key for key, here in zip(keys, found, strict=True) if not here]
            if missing:
                collection.write(missing, states_of_keys(missing))
        return n_found

    assert sum(while_damaging(folder, work, n_threads=3)) > 100
    for _ in range(5):  # each read removes the damaged files that it meets
        read_anew(folder)
    collection = Collection(folder)
    collection.write(KEYS, states_of_keys(KEYS))  # without damage, all keys are found again
    assert read_anew(folder) == len(KEYS)


def test_loaded_states_do_not_depend_on_the_file(tmp_path):
    files = fill(tmp_path)
    store._loaded.__init__()
    collection = Collection(tmp_path)
    collection.read(KEYS)
    for path in files:
        os.truncate(path, 0)  # where a file is mapped into memory, the next access kills the process
    found, states = collection.read(KEYS)
    assert found.all()
    assert_right(KEYS, found, states)


def header_of(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def changed_offsets(content, offsets):
    header, tensors = header_of(content)
    header["keys"]["data_offsets"] = offsets
    return with_header(header, tensors)


def without(content, name):
    header, tensors = header_of(content)
    del header[name]
    return with_header(header, tensors)


def other_keys(content):
    """Keys, checksum and states of other texts, under the name of these."""
    return save({"keys": torch.zeros(5, 16, dtype=torch.uint8)}, {"checksum": "0"})


GARBAGE = {
    "empty": lambda content: b"",
    "short": lambda content: content[:5],
    "half": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"more",
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not a file of tensors" * 20,
    "huge header": lambda content: (2**62).to_bytes(8, "little") + content[8:],
    "nested header": lambda content: with_header(b"[" * 60_000, b""),
    "list header": lambda content: with_header([1, 2], content),
    "header without keys": lambda content: without(content, "keys"),
    "header without checksum": lambda content: without(content, "__metadata__"),
    "offsets of text": lambda content: changed_offsets(content, ["a", "b"]),
    "negative offsets": lambda content: changed_offsets(content, [-(10**6), 2]),
    "huge offsets": lambda content: changed_offsets(content, [0, 2**62]),
    "endless offsets": lambda content: changed_offsets(content, [10**30, 10**31]),
    "other keys": other_keys,
}


@pytest.mark.parametrize("how", GARBAGE)
def test_garbage_is_computed_again(how, tmp_path):
    files = fill(tmp_path)
    files[3].write_bytes(GARBAGE[how](files[3].read_bytes()))
    assert read_anew(tmp_path) == len(KEYS) - 5
    collection = Collection(tmp_path)
    missing = [key for key, here in zip(KEYS, collection.read(KEYS)[0], strict=True) if not here]
    collection.write(missing, states_of_keys(missing))
    assert read_anew(tmp_path) == len(KEYS)


def test_file_under_the_name_of_another_one(tmp_path):
    files = fill(tmp_path)
    shutil.copy(files[3], files[4])
    assert read_anew(tmp_path) == len(KEYS) - 5


def test_every_changed_byte_is_noticed(tmp_path):
    (path,) = fill(tmp_path, KEYS[:5])
    content = path.read_bytes()
    assert read_anew(tmp_path, KEYS[:5]) == 5
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        read_anew(tmp_path, KEYS[:5])  # finds nothing, or the right states if the byte has no meaning


def test_file_that_cannot_be_read_is_left_alone(tmp_path, monkeypatch):
    files = fill(tmp_path)
    original = Path.read_bytes

    def deny(self):
        if self == files[0]:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert read_anew(tmp_path) == len(KEYS) - 5
    assert files[0].exists()


def test_folder_that_is_always_deleted_is_not_written_to(tmp_path, monkeypatch):
    folder = tmp_path / "states"
    original = Path.write_bytes

    def delete_first(self, content):
        shutil.rmtree(folder)
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", delete_first)
    Collection(folder).write(KEYS, states_of_keys(KEYS))
    assert read_anew(folder) == 0


def test_full_disk_leaves_no_file_behind(tmp_path, monkeypatch):
    original = Path.write_bytes

    def fill_up(self, content):
        original(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    collection = Collection(tmp_path)
    with pytest.warns(UserWarning, match="cannot be written to .*No space left"):
        collection.write(KEYS, states_of_keys(KEYS))
    assert list(tmp_path.iterdir()) == []
    assert read_anew(tmp_path) == 0


# -- processes -----------------------------------------------------------------------------------------------


def write_on(folder, seed):
    """Write random parts of the keys until the process is killed."""
    generator = random.Random(seed)
    while True:
        keys = generator.sample(KEYS, 20)
        Collection(folder).write(keys, states_of_keys(keys))


@needs_fork
def test_killed_writers_leave_whole_files(tmp_path):
    generator = random.Random(0)
    for round_ in range(10):
        processes = [start(write_on, tmp_path, 2 * round_ + number) for number in range(2)]
        end = time.monotonic() + 30
        while len(list(tmp_path.glob("*.safetensors"))) <= round_ and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.02))
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        assert all(process.exitcode == -signal.SIGKILL for process in processes)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 10
    for path in files:
        assert len(load_file(path)["keys"]) == 20  # none of them is truncated
    assert read_anew(tmp_path) > 20
    assert sorted(tmp_path.glob("*.safetensors")) == sorted(files)


def write_some(folder, seed):
    generator = random.Random(seed)
    for _ in range(40):
        keys = generator.sample(KEYS, 10)
        collection = Collection(folder)
        assert_right(keys, *collection.read(keys))
        collection.write(keys, states_of_keys(keys))


@needs_fork
def test_two_processes_write_the_same_texts(tmp_path):
    processes = [start(write_some, tmp_path, number // 2) for number in range(4)]  # two and two do the same
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert not list(tmp_path.glob("writing-*"))
    assert read_anew(tmp_path) == len(KEYS)


@needs_fork
def test_fork_while_a_thread_holds_the_lock(tmp_path):
    fill(tmp_path)
    collection, held = Collection(tmp_path), threading.Event()

    def hold():
        with store._lock:
            held.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    process = start(collection.read, KEYS)
    process.join(20)
    process.kill()  # it may wait for a lock that is never released
    holder.join()
    process.join()
    assert process.exitcode == 0
    assert collection.read(KEYS)[0].all()


def test_temporary_files_are_removed_when_they_are_old(tmp_path):
    fill(tmp_path)
    old, new = tmp_path / "writing-old", tmp_path / "writing-new"
    for path in (old, new):
        path.write_bytes(b"half a fi")
    hours_ago = time.time() - 2 * store.ABANDONED_SECONDS
    os.utime(old, (hours_ago, hours_ago))
    assert read_anew(tmp_path) == len(KEYS)
    assert not old.exists()
    assert new.exists()


# -- bounds --------------------------------------------------------------------------------------------------


def test_number_of_open_collections_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "OPEN_COLLECTIONS", 3)
    opened = []
    for number in range(10):
        collection = open_collection(str(tmp_path), {"number": number})
        collection.write(KEYS[:2], states_of_keys(KEYS[:2]))
        opened.append(collection)
        open_collection(str(tmp_path), {"number": 0})
        assert len(store._collections) <= 3
    assert open_collection(str(tmp_path), {"number": 0}) is opened[0]  # used most often
    assert open_collection(str(tmp_path), {"number": 9}) is opened[9]
    assert open_collection(str(tmp_path), {"number": 5}) is not opened[5]
    for collection in opened:
        found, states = collection.read(KEYS[:3])
        assert found.tolist() == [True, True, False]
        assert_right(KEYS[:3], found, states)


def test_number_of_keys_in_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "INDEXED_KEYS", 20)
    for number in range(3):
        collection = open_collection(str(tmp_path), {"number": number})
        for first in range(0, len(KEYS), 5):
            collection.write(KEYS[first : first + 5], states_of_keys(KEYS[first : first + 5]))
            assert sum(map(len, store._collections.values())) <= 20
    for _ in range(2):
        for number in range(3):
            collection = open_collection(str(tmp_path), {"number": number})
            found, states = collection.read(KEYS)  # of all files, at once
            assert found.all()
            assert_right(KEYS, found, states)
            assert sum(map(len, store._collections.values())) <= 20


# -- the location --------------------------------------------------------------------------------------------


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for memory in ("~/states", Path("~/states")):
        store._loaded.__init__()
        store._collections.clear()
        assert find_location(memory) == str(home / "states")
        clf = tiny(freeze_encoder=True, max_epochs=1, memory=memory).fit(TEXTS, LABELS)
        assert clf.memory == memory
        assert list((home / "states").rglob("*.safetensors"))
        shutil.rmtree(home)
    assert list(here.iterdir()) == []


def test_other_locations_are_taken_as_they_are(tmp_path):
    assert find_location(None) is None
    assert find_location("a/~b") == "a/~b"
    assert find_location(tmp_path) == str(tmp_path)
    assert find_location(joblib.Memory(tmp_path, verbose=0)) == str(tmp_path)
    assert find_location(joblib.Memory("~/states", verbose=0)) == "~/states"
    assert find_location(joblib.Memory(None, verbose=0)) is None
