"""Atomic saves: the folder is always the complete old or the complete new checkpoint."""

import ctypes
import errno
import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import needs_fork, start
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass import GLiClassClassifier, building, encoder_folder, persistence
from sklearn_gliclass.model import folders

N_KILLS = 24
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json"}


def marked(clf, mark: float):
    """Set a mark in weights, configuration and hyperparameters of the estimator."""
    with torch.no_grad():
        clf.model_.model.logit_scale.fill_(mark)
    clf.model_.config.initializer_range = mark
    return clf.set_params(n_iter_no_change=int(mark))


def mark_of(folder) -> float:
    """Return the mark of a checkpoint, whose files must have the same one."""
    clf = GLiClassClassifier.from_pretrained(folder)
    marks = (
        clf.model_.model.logit_scale.item(), clf.config_.initializer_range, float(clf.n_iter_no_change)
    )  # fmt: skip
    assert len(set(marks)) == 1, marks
    assert set(clf.predict(TEXTS[:2])) <= set(LABELS)
    return marks[0]


@pytest.fixture(scope="module")
def fitted():
    return tiny(max_epochs=1).fit(TEXTS, LABELS)


@pytest.fixture
def clf(fitted):
    return marked(fitted, 1.0)


@pytest.fixture
def folder(tmp_path, clf):
    clf.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def siblings(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


# -- kill ----------------------------------------------------------------------------------------------------


@pytest.mark.full  # test_kill_at_each_step kills fewer saves
@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL, and children that start at once")
def test_killed_save_leaves_one_whole_checkpoint(folder, clf):
    (folder / "notes.md").write_text("mine")
    began = time.monotonic()
    clf.save_pretrained(folder)
    duration = time.monotonic() - began
    generator, n_midway = random.Random(0), 0
    for number in range(1, N_KILLS + 1):
        before, first = mark_of(folder), 1000 * number
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(tell, b"x")
                for mark in range(first, first + 500):
                    marked(clf, float(mark)).save_pretrained(folder)
            finally:
                os._exit(1)
        os.read(ready, 1)
        time.sleep(generator.uniform(0.0, 3 * duration))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        os.close(ready)
        os.close(tell)
        n_midway += siblings(folder) != []  # at most one: the next save removes those of earlier ones
        after = mark_of(folder)
        assert after == before or first <= after < first + 500
        assert (folder / "notes.md").read_text() == "mine"
    assert n_midway > N_KILLS / 2, n_midway
    clf.save_pretrained(folder)
    assert siblings(folder) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL")
@pytest.mark.parametrize(
    ("call", "has_exchange"),
    [
        # The two ways to replace a folder differ in the calls of these two only.
        pytest.param(call, has_exchange, marks=[] if has_exchange or call in ("rename", "rmtree") else pytest.mark.full,
                     id=f"{call}-{'exchange' if has_exchange else 'two renames'}")
        for call in ("mkdir", "fsync", "rename", "link", "rmtree")
        for has_exchange in (True, False)
    ],
)  # fmt: skip
def test_kill_at_each_step(folder, clf, call, has_exchange, monkeypatch):
    """The process is killed at each of the system calls."""
    (folder / "notes.md").write_text("mine")
    if not has_exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *paths: False)
    owner = {"mkdir": os, "fsync": os, "rename": os, "link": os, "rmtree": folders.shutil}[call]
    original, killed = getattr(owner, call), 0
    for n_calls in range(40):
        child = os.fork()
        if child == 0:
            counts = iter(range(10_000))

            def deadly(*args, _counts=counts, _last=n_calls, **kwargs):
                if next(_counts) == _last:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **kwargs)

            try:
                setattr(owner, call, deadly)
                marked(clf, 2.0).save_pretrained(folder)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        assert mark_of(folder) in (1.0, 2.0)
        assert (folder / "notes.md").read_text() == "mine"
        marked(clf, 1.0).save_pretrained(folder)
        assert siblings(folder) == []
    assert status == 0
    is_called = call != "rename" or not has_exchange
    assert killed >= is_called or (call == "rename" and sys.version_info < (3, 11))  # pathlib has a copy of it there


def test_folder_that_was_renamed_away_is_found_again(folder, clf):
    """Without an atomic exchange, a process may end between the two renames."""
    folder.rename(folder.with_name(".model.replaced-0123456789abcdef"))
    assert mark_of(folder) == 1.0
    folder.rename(folder.with_name(".model.replaced-0123456789abcdef"))
    marked(clf, 3.0).save_pretrained(folder)
    assert mark_of(folder) == 3.0
    assert siblings(folder) == []


def test_temporary_folder_of_a_living_save_is_left_alone(folder, clf):
    living, dead = (folders._sibling(folder, "saving") for _ in range(2))
    number = ("0" if folders._MACHINE.startswith("f") else "f") * 16
    of_another_machine = dead.with_name(f".model.saving-{number}")  # whose locks are not seen here
    foreign = [
        folder.with_name(".other.saving-" + "a" * 16),
        folder.with_name(".model.saving-notes"),
        of_another_machine,
    ]
    for path in (living, dead, *foreign):
        path.mkdir()
    lock = folders._lock(living)
    clf.save_pretrained(folder)
    folders._unlock(lock)
    assert siblings(folder) == sorted(path.name for path in (living, *foreign))


# -- several at once -----------------------------------------------------------------------------------------


def test_saves_and_loads_in_threads(folder, clf):
    marks, read, stop = [float(mark) for mark in range(2, 14)], set(), threading.Event()

    def read_on():
        while not stop.is_set():
            read.add(mark_of(folder))

    estimators = threading.local()

    def save(mark):
        if not hasattr(estimators, "own"):
            estimators.own = GLiClassClassifier.from_pretrained(folder)
        marked(estimators.own, mark).save_pretrained(folder)

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read_on)
        list(pool.map(save, marks))
        stop.set()
        reader.result()
    assert mark_of(folder) in marks
    assert read <= {1.0, *marks}
    assert siblings(folder) == []


@needs_fork
@pytest.mark.parametrize(
    ("has_exchange", "exists"),
    [
        pytest.param(True, True, id="exchange", marks=pytest.mark.full),
        pytest.param(True, False, id="exchange-new folder"),
        pytest.param(False, True, id="two renames"),
        pytest.param(False, False, id="two renames-new folder", marks=pytest.mark.full),
    ],
)
def test_saves_of_several_processes(tmp_path, folder, clf, exists, has_exchange, monkeypatch):
    if not has_exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *paths: False)
    target = folder if exists else tmp_path / "new"

    def save(child_number):
        for number in range(5):
            marked(clf, float(10 * child_number + number + 2)).save_pretrained(target)

    run_in_children(4, save)
    assert mark_of(target) % 10 == 6  # the last of its process
    assert [name for name in siblings(target) if name.startswith(".")] == []


def run_in_children(n_children, function):
    """Call ``function(number)`` in forked processes at the same time, none of which may fail."""
    children = [start(function, number) for number in range(n_children)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * n_children


def write(folder, **files):
    """Replace a folder by one with these files."""
    with folders.replace_folder(folder, files.__contains__) as new:
        for name, content in files.items():
            (new / name).write_text(content)


def test_read_is_repeated_if_the_folder_was_replaced_twice(tmp_path):
    """The system gives the inode of the first folder to the third one."""
    write(tmp_path / "model", config="1", weights="1")
    calls = []

    def read():
        config = (tmp_path / "model" / "config").read_text()
        if not calls:
            write(tmp_path / "model", config="2", weights="2")
            write(tmp_path / "model", config="3", weights="3")
        calls.append(config)
        return config, (tmp_path / "model" / "weights").read_text()

    assert folders.read_unchanged(tmp_path / "model", read) == ("3", "3")
    assert calls == ["1", "3"]


@pytest.mark.parametrize("name", ["pretrained", "encoder_model"])
def test_fit_reads_one_version_of_a_folder_that_is_replaced(tmp_path, monkeypatch, name):
    clfs, folder = [], tmp_path / "model"
    for number, word in enumerate(("first", "second")):
        clfs.append(tiny(max_epochs=0, architecture_type="bi-encoder").fit([f"{word} text"] * 2, ["a", "b"]))
        embeddings = clfs[number].model_.encoder.get_input_embeddings()
        torch.nn.init.constant_(embeddings.weight, number)

    def save(number):
        (clfs[number].save_pretrained if name == "pretrained" else clfs[number].save_encoder)(folder)

    module = persistence if name == "pretrained" else building
    load, calls = module.load_tokenizer, []

    def load_later(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:  # the weights have been read
            save(1)
        return load(*args, **kwargs)

    save(0)
    monkeypatch.setattr(module, "load_tokenizer", load_later)
    options = {name: str(folder), "architecture_type": "bi-encoder", "device": "cpu"}
    clf = GLiClassClassifier(**options).fit(None, ["a", "b"])
    assert any("second" in token for token in clf.tokenizer_.get_vocab())
    assert clf.model_.encoder.get_input_embeddings().weight[5:10].eq(1).all()


@pytest.mark.skipif(folders.fcntl is None, reason="file locks")
def test_save_to_a_subfolder_survives_a_save_of_its_parent(tmp_path):
    write(tmp_path / "model", weights="1")
    with folders.replace_folder(tmp_path / "model" / "sub", {"a", "b"}.__contains__) as new:
        (new / "a").write_text("a")
        write(tmp_path / "model", weights="2")
        (new / "b").write_text("b")
    assert (tmp_path / "model" / "weights").read_text() == "2"
    assert sorted(path.name for path in (tmp_path / "model" / "sub").iterdir()) == ["a", "b"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["sub", "weights"]


@pytest.mark.skipif(folders.fcntl is None, reason="file locks")
def test_lock_of_a_replaced_folder_is_that_of_the_new_one(tmp_path):
    (tmp_path / "model").mkdir()
    held = folders._lock(tmp_path / "model")
    locks = []
    thread = threading.Thread(target=lambda: locks.append(folders._lock(tmp_path / "model")))
    thread.start()
    (tmp_path / "model").rename(tmp_path / "old")
    (tmp_path / "model").mkdir()
    folders._unlock(held)
    thread.join()
    assert folders._identity(locks[0]) == folders._identity(tmp_path / "model")
    folders._unlock(locks[0])


def test_temporary_folders_of_long_names_are_their_own(tmp_path):
    targets = [tmp_path / ("m" * 60 + end) for end in "ab"]
    left = folders._sibling(targets[0], "replaced")
    write(left, weights="1")
    write(targets[1], weights="2")
    folders.recover(targets[0])
    assert (targets[0] / "weights").read_text() == "1"
    assert sorted(os.listdir(tmp_path)) == [target.name for target in targets]


def test_encoder_does_not_replace_an_estimator_that_appears_meanwhile(tmp_path, clf, monkeypatch):
    write_modules = encoder_folder._write_modules

    def write_late(*args):
        write_modules(*args)
        clf.save_pretrained(tmp_path / "model")

    other = tiny(max_epochs=0, architecture_type="bi-encoder").fit(TEXTS, LABELS)
    monkeypatch.setattr(encoder_folder, "_write_modules", write_late)
    with pytest.raises(ValueError, match="holds a saved estimator, which the encoder would replace"):
        other.save_encoder(tmp_path / "model")
    assert mark_of(tmp_path / "model") == 1.0
    assert siblings(tmp_path / "model") == []


@pytest.mark.skipif(folders.fcntl is None, reason="file locks")
def test_first_saves_to_a_folder_wait_for_each_other(tmp_path):
    """The lock is there before the folder."""
    entered, existed = threading.Event(), []

    def second():
        entered.set()
        with folders._locked(tmp_path / "model") as exists:
            existed.append(exists)

    thread = threading.Thread(target=second)
    with folders._locked(tmp_path / "model") as exists:
        thread.start()
        entered.wait()
        thread.join(0.05)
        assert existed == []
        (tmp_path / "model").mkdir()
    thread.join()
    assert (exists, existed) == (False, [True])


@needs_fork
def test_small_saves_of_several_processes_without_an_exchange(tmp_path, monkeypatch):
    """Without weights, the steps of several saves overlap far more often."""
    monkeypatch.setattr(folders, "_exchange", lambda *paths: False)

    def save(child_number):
        for _ in range(15):
            write(tmp_path / "model", weights=str(child_number))

    run_in_children(6, save)
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() in set("012345")


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["fsync", "link", "weights", "tokenizer", "estimator"])
def test_full_disk_leaves_the_old_checkpoint(folder, clf, what, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    (folder / "notes.md").write_text("mine")
    if what == "fsync":
        monkeypatch.setattr(os, "fsync", full)
        monkeypatch.setattr(folders, "_sync_path", lambda folder: None)
    elif what == "link":
        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr(folders.shutil, "copy2", full)
    elif what == "weights":
        monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    elif what == "tokenizer":
        monkeypatch.setattr(type(clf.tokenizer_), "save_pretrained", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"):
        marked(clf, 2.0).save_pretrained(folder)
    monkeypatch.undo()
    assert mark_of(folder) == 1.0
    assert siblings(folder) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of a process")
def test_file_that_cannot_grow(folder, clf):
    """The error of the system, from the library that writes the weights."""
    import resource

    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            marked(clf, 2.0).save_pretrained(folder)
        except OSError:
            status = 7
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert mark_of(folder) == 1.0
    assert siblings(folder) == []


def test_interrupt_leaves_the_old_checkpoint(folder, clf, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(clf.tokenizer_), "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        marked(clf, 2.0).save_pretrained(folder)
    monkeypatch.undo()
    assert mark_of(folder) == 1.0
    assert siblings(folder) == []


def test_target_that_cannot_be_replaced_raises(tmp_path, folder, clf, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; give the name of a folder"):
        clf.save_pretrained(tmp_path / "file")
    with pytest.raises(OSError, match=r"Cannot write beside .*Choose a folder whose parent can be written to"):
        clf.save_pretrained(tmp_path / "file" / "model")
    with pytest.raises(ValueError, match="choose a folder below it"):
        clf.save_pretrained(Path(folder.anchor))
    (folder / "sub").mkdir()
    for place in (folder, folder / "sub"):
        monkeypatch.chdir(place)
        with pytest.raises(ValueError, match="is the working directory or contains it"):
            clf.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(OSError, match="is a mount point"):
        clf.save_pretrained(folder)


ENTRIES = {
    "card": ("README.md", "folder", lambda clf, folder: clf.save_pretrained(folder)),
    "weights": ("model.safetensors", "folder", lambda clf, folder: clf.save_pretrained(folder)),
    "file of another tokenizer": ("vocab.txt", "folder", lambda clf, folder: clf.save_pretrained(folder)),
    "label tokenizer": ("label_tokenizer", "file", lambda clf, folder: clf.save_pretrained(folder)),
    "export": ("onnx.json", "folder", lambda clf, folder: clf.export_onnx(folder)),
    "pooling": ("1_Pooling", "file", lambda clf, folder: clf.save_encoder(folder)),
}


@pytest.mark.parametrize(("name", "kind", "save"), ENTRIES.values(), ids=ENTRIES)
def test_entry_of_the_wrong_kind_raises_and_stays(tmp_path, clf, name, kind, save):
    place = tmp_path / "model" / name
    if kind == "folder":
        place.mkdir(parents=True)
        (place / "mine").write_text("mine")
    else:
        place.parent.mkdir()
        place.write_text("mine")
    error = IsADirectoryError if kind == "folder" else NotADirectoryError
    with pytest.raises(error, match=rf"{name}' is not a .* of this name is written; rename or remove it"):
        save(clf, tmp_path / "model")
    assert (place / "mine" if kind == "folder" else place).read_text() == "mine"
    assert [path.name for path in (tmp_path / "model").iterdir()] == [name]
    assert siblings(tmp_path / "model") == []


def test_link_to_nothing_is_replaced(folder, clf):
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("nowhere")
    clf.save_pretrained(folder)
    assert "# GLiClassClassifier" in (folder / "README.md").read_text()


def test_parent_that_cannot_be_written_to_raises(folder, clf, monkeypatch):
    def forbidden(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(PermissionError, match=r"Cannot write beside .*Permission denied"):
        clf.save_pretrained(folder)


# -- what stays ----------------------------------------------------------------------------------------------


def test_files_of_the_user_stay_and_files_of_the_old_checkpoint_go(folder, clf):
    (folder / "README.md").write_text("my notes")
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "objects" / "a").write_text("object")
    (folder / "link").symlink_to("README.md")
    stale = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "spiece.model"]
    for name in stale:
        (folder / name).write_text("stale")
    (folder / "features.safetensors").write_text("mine")
    (folder / "label_tokenizer" / "stale.json").write_text("stale")
    folder.chmod(0o750)
    inode = (folder / "README.md").stat().st_ino
    marked(clf, 2.0).save_pretrained(folder)
    assert mark_of(folder) == 2.0
    assert (folder / "README.md").read_text() == (folder / "link").read_text() == "my notes"
    assert (folder / "README.md").stat().st_ino == inode  # the same file, for processes that have it open
    assert (folder / "link").is_symlink()
    assert (folder / ".git" / "objects" / "a").read_text() == "object"
    assert (folder / "features.safetensors").read_text() == "mine"
    assert not [name for name in stale if (folder / name).exists()]
    assert not (folder / "label_tokenizer" / "stale.json").exists()
    assert folder.stat().st_mode & 0o777 == 0o750


def test_files_are_copied_where_links_are_impossible(folder, clf, monkeypatch):
    def impossible(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    (folder / "notes").mkdir()
    (folder / "notes" / "a.md").write_text("mine")
    monkeypatch.setattr(os, "link", impossible)
    marked(clf, 2.0).save_pretrained(folder)
    assert (folder / "notes" / "a.md").read_text() == "mine"


def test_link_to_a_folder_stays_a_link(tmp_path, folder, clf):
    (tmp_path / "latest").symlink_to(folder)
    marked(clf, 2.0).save_pretrained(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    assert mark_of(folder) == 2.0


def test_home_folder_is_expanded(tmp_path, clf, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    clf.save_pretrained("~/deep/model")
    assert mark_of(tmp_path / "deep" / "model") == mark_of("~/deep/model") == 1.0
    assert GLiClassClassifier(pretrained="~/deep/model", max_epochs=0).fit(TEXTS, LABELS).predict(TEXTS).shape == (8,)
    clf.model_.save_pretrained("~/torch")
    assert type(clf.model_).from_pretrained("~/torch").config.initializer_range == 1.0
    clf.model_.encoder.save_pretrained(tmp_path / "encoder")
    clf.tokenizer_.save_pretrained(tmp_path / "encoder")
    options = {"encoder_config": None, "encoder_model": "~/encoder", "label_model_name": "~/encoder"}
    assert tiny(**options, max_epochs=0).fit(TEXTS, LABELS).predict(TEXTS).shape == (8,)
    assert not (tmp_path / "~").exists()


def test_new_folder_holds_the_checkpoint_alone(folder):
    assert {path.name for path in folder.iterdir()} >= TOKENIZER_FILES
    assert json.loads((folder / "estimator.json").read_text())["missing"] == []
    np.testing.assert_array_equal(sorted(siblings(folder)), [])


def test_failed_rename_restores_the_folder(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "notes.md").write_text("mine")
    with pytest.raises(FileNotFoundError):
        folders._rename_in_turn(tmp_path / "absent", target)
    assert (target / "notes.md").read_text() == "mine"
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES])
def test_folders_are_renamed_in_turn_where_the_system_cannot_exchange_them(tmp_path, number, monkeypatch):
    class Library:
        def renameat2(self, *arguments):
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *args, **kwargs: Library())
    if number == errno.EINVAL:  # a file system without this call
        assert folders._exchange(tmp_path / "new", tmp_path / "model") is False
    else:
        with pytest.raises(PermissionError):
            folders._exchange(tmp_path / "new", tmp_path / "model")
