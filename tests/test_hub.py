"""Conventions of the Hugging Face hub: model card, upload, AutoConfig and AutoModel, sentence-transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard
from tiny_estimators import LABELS, TEXTS, tiny

from sklearn_gliclass import GLiClassClassifier, GLiClassModel, GLiClassModelConfig, GLiClassRegressor
from sklearn_gliclass.testing import TINY


@pytest.fixture(scope="module")
def clf():
    return tiny(random_state=0).fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def folder(clf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "model"
    clf.save_pretrained(folder, metrics={"accuracy": 0.9, "f1_macro": np.float32(0.25)})
    return folder


# -- model card ------------------------------------------------------------------------------------


def test_card_describes_the_estimator(folder, clf):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "sklearn-gliclass"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.metrics == ["accuracy", "f1_macro"]
    assert "gliclass" in card.data.tags
    assert all(f"- {name}" in card.text for name in clf.label_names_)
    assert "GLiClassClassifier.from_pretrained('model')" in card.text
    assert "| accuracy | 0.9000 |" in card.text


def test_card_of_zero_shot_and_regression(tmp_path, folder):
    clf = GLiClassClassifier(pretrained=str(folder)).fit(None, ["a <script>", "b\n# title | `x`"])
    clf.save_pretrained(tmp_path / "clf")
    card = ModelCard.load(tmp_path / "clf" / "README.md")
    assert card.data.pipeline_tag == "zero-shot-classification"
    assert "- a \\<script\\>\n- b \\# title \\| \\`x\\`\n" in card.text
    reg = GLiClassRegressor(**TINY).fit(TEXTS, np.arange(len(TEXTS), dtype=float))
    reg.save_pretrained(tmp_path / "reg")
    assert "regression" in ModelCard.load(tmp_path / "reg" / "README.md").data.tags


def test_card_names_no_folder_of_the_machine(tmp_path, folder, clf):
    clf.config_.encoder_model_name, before = str(tmp_path), clf.config_.encoder_model_name
    try:
        clf.save_pretrained(tmp_path / "model")
    finally:
        clf.config_.encoder_model_name = before
    assert str(tmp_path) not in (tmp_path / "model" / "README.md").read_text()


def test_own_card_is_kept(tmp_path, clf):
    clf.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "README.md"
    clf.save_pretrained(tmp_path / "model", metrics={"accuracy": 0.5})
    assert "0.5000" in path.read_text()
    path.write_text("mine")
    clf.save_pretrained(tmp_path / "model")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("metrics", [0.9, {"accuracy": "high"}, {1: 2.0}, {"ok": True}])
def test_metrics_must_be_numbers(metrics, clf, tmp_path):
    with pytest.raises(TypeError, match="metrics must be a dict of numbers"):
        clf.save_pretrained(tmp_path / "model", metrics=metrics)
    assert not (tmp_path / "model").exists()


# -- upload ----------------------------------------------------------------------------------------


class FakeApi:
    """Hub in a folder."""

    root: Path
    calls: list

    def __init__(self, token=None, library_name=None):
        self.calls.append(("token", token))

    def create_repo(self, repo_id, private=None, exist_ok=False):
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return SimpleNamespace(repo_id=repo_id)

    def file_exists(self, repo_id, filename, revision=None):
        return (self.root / repo_id / filename).exists()

    def hf_hub_download(self, repo_id, filename, revision=None):
        return str(self.root / repo_id / filename)

    def upload_folder(self, *, repo_id, folder_path, revision, create_pr, commit_message, delete_patterns):
        self.calls.append(("upload", revision, create_pr, commit_message))
        for pattern in delete_patterns:
            for path in (self.root / repo_id).glob(pattern):
                path.unlink()
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1", pr_url=f"https://hub/{repo_id}/pr/1")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeApi, "root", tmp_path / "hub", raising=False)
    monkeypatch.setattr(FakeApi, "calls", [], raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    return FakeApi


def test_push_to_hub_uploads_what_save_pretrained_writes(hub, clf):
    address = clf.push_to_hub("me/model", private=True, token="secret", metrics={"accuracy": 0.75})
    assert address == "https://hub/me/model/commit/1"
    assert hub.calls[:2] == [("token", "secret"), ("create_repo", "me/model", True, True)]
    assert hub.calls[2] == ("upload", None, False, "Upload GLiClassClassifier")
    loaded = GLiClassClassifier.from_pretrained(hub.root / "me/model")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    card = (hub.root / "me/model/README.md").read_text()
    assert "from_pretrained('me/model')" in card
    assert "0.7500" in card


def test_push_to_hub_replaces_weights_and_keeps_an_own_card(hub, clf):
    old = hub.root / "me/model"
    old.mkdir(parents=True)
    (old / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (old / "README.md").write_text("mine")
    assert clf.push_to_hub("me/model", create_pr=True, revision="dev").endswith("/pr/1")
    assert not (old / "model-00001-of-00002.safetensors").exists()
    assert (old / "README.md").read_text() == "mine"


def test_push_to_hub_needs_a_fitted_estimator(hub):
    with pytest.raises(ValueError, match="not fitted"):
        GLiClassClassifier().push_to_hub("me/model")
    assert hub.calls == []


# -- transformers ----------------------------------------------------------------------------------


@pytest.mark.full
def test_auto_classes_load_the_folder(folder, clf):
    code = (
        "import sys; from transformers import AutoConfig, AutoModel; from sklearn_gliclass import GLiClassModel; "
        "print(type(AutoConfig.from_pretrained(sys.argv[1])).__module__, type(AutoModel.from_pretrained(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == GLiClassModelConfig.__module__
    assert GLiClassModel.__name__ in done.stdout


def test_checkpoint_cannot_be_an_encoder():
    with pytest.raises(ValueError, match="Unknown model_type 'GLiClass'"):
        GLiClassModelConfig(encoder_config={"model_type": "GLiClass"})


# -- sentence-transformers -------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["avg", "max", "first", "last"])
def test_saved_encoder_gives_equal_embeddings(pooling, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    clf = tiny(pooling_strategy=pooling, random_state=0, max_length=20, long_texts="truncate").fit(TEXTS, LABELS)
    clf.save_encoder(tmp_path / "encoder")
    encoder = sentence_transformers.SentenceTransformer(str(tmp_path / "encoder"), device="cpu")
    texts = [*TEXTS, "", "<<LABEL>> a <<SEP>> text", "long " * 50, "naïve 🙂"]
    with pytest.warns(UserWarning, match="too long"):
        expected = clf.transform(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


@pytest.mark.parametrize(
    "hyperparameters",
    [{"architecture_type": "uni-encoder"}, {"pooling_strategy": "rms"}, {"use_lstm": True}, {"encoder_layer_id": 1}],
)
def test_encoders_without_counterpart_raise(hyperparameters, tmp_path):
    clf = tiny(max_epochs=0, **hyperparameters).fit(TEXTS, LABELS)
    name, value = next(iter(hyperparameters.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        clf.save_encoder(tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


def test_saved_encoder_replaces_no_estimator(folder, clf, tmp_path):
    with pytest.raises(ValueError, match="holds a saved estimator"):
        clf.save_encoder(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "GLiClass"
    clf.save_encoder(tmp_path / "encoder")
    clf.save_encoder(tmp_path / "encoder")
