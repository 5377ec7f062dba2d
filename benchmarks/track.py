"""Tracked ratios of quality, speed and size, written to a JSON file.

    python benchmarks/track.py                          # writes benchmarks/results/tracked/VERSION.json, in minutes
    python benchmarks/track.py --output new.json
    python benchmarks/compare.py OLD.json new.json

Each figure is a ratio of two measurements of one process, so that files of different machines can be compared: quality
over that of a baseline on the same rows, seconds over those of plain transformers on the same texts (CPU time,
interleaved, medians), and bytes over those of the encoder's weights. The data are those of the notebooks.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from transformers import AutoModel, AutoTokenizer

from common import ROOT, VERSIONS, cpu_name, interleave, median
from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor, __version__
from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, OWN_WEIGHTS, OWN_WEIGHTS_EDITION, find_checkpoint

DATA = ROOT / "notebooks" / "data"
FOLDER = ROOT / "benchmarks" / "results" / "tracked"
N_INTENTS, SHOTS, N_TEST_PER_INTENT = 10, 8, 20
N_RATED, N_RATED_TEST = 150, 200
BATCH_SIZE = 32  # of the plain encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=FOLDER / f"{__version__}.json", help="file to write")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = intents()
    classifier = GLiClassClassifier(random_state=0).fit(train["text"], train["label"])
    ratios = {
        **quality(classifier, train, test),
        **speed(classifier, train, test["text"].tolist(), options.repeats),
        **size(classifier),
    }
    write(options.output, ratios)


def write(path: Path, ratios: dict[str, dict]) -> None:
    versions = {name: version(name) for name in VERSIONS}
    record = {
        "version": __version__,
        "weights_edition": OWN_WEIGHTS_EDITION,
        "machine": f"{cpu_name()}, 1 thread, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), **versions},
        "ratios": ratios,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['value']:.3f}")
    print(f"written to {path}")


def ratio(value: float, better: str) -> dict:
    return {"value": round(float(value), 4), "better": better}


def read(name: str, part: str) -> pd.DataFrame:
    return pd.read_csv(DATA / f"{name}.{part}.csv.gz", keep_default_na=False)


def intents() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return 8 training examples and 20 test examples of each of 10 classes."""
    train, test = read("banking77", "train"), read("banking77", "test")
    names = sorted(train["label"].unique())[:N_INTENTS]
    parts = ((train, SHOTS), (test, N_TEST_PER_INTENT))
    return tuple(part[part["label"].isin(names)].groupby("label").head(rows) for part, rows in parts)


# -- quality ---------------------------------------------------------------------------------------------------


def tfidf(model):
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), model)


def quality(classifier, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, dict]:
    baseline = tfidf(LogisticRegression(C=10, max_iter=1000)).fit(train["text"], train["label"])
    frozen = GLiClassClassifier(preset="fast", random_state=0).fit(train["text"], train["label"])
    zero_shot = GLiClassClassifier().fit(None, sorted(train["label"].unique()))
    plain = GLiClassClassifier(encoder_model=DEFAULT_ENCODER).fit(None, sorted(train["label"].unique()))
    models = {"ours": classifier, "frozen": frozen, "tfidf": baseline, "zero": zero_shot, "plain": plain}
    score = {name: model.score(test["text"], test["label"]) for name, model in models.items()}
    ours, ridge = rated()
    return {
        "quality: few-shot accuracy over TF-IDF": ratio(score["ours"] / score["tfidf"], "higher"),
        "quality: few-shot accuracy of preset 'fast' over TF-IDF": ratio(score["frozen"] / score["tfidf"], "higher"),
        "quality: zero-shot accuracy over the plain encoder": ratio(score["zero"] / score["plain"], "higher"),
        "quality: unexplained variance of regression over TF-IDF": ratio((1 - ours) / (1 - ridge), "lower"),
    }


def rated() -> tuple[float, float]:
    """Return R2 of the regressor and of the baseline on the ratings of sentences."""
    train, test = read("emobank", "train").head(N_RATED), read("emobank", "test").head(N_RATED_TEST)
    models = (GLiClassRegressor(max_epochs=3, random_state=0), tfidf(Ridge()))
    ours, ridge = (
        r2_score(test["valence"], model.fit(train["text"], train["valence"]).predict(test["text"])) for model in models
    )
    return ours, ridge


# -- speed -----------------------------------------------------------------------------------------------------


def speed(classifier, train: pd.DataFrame, texts: list[str], repeats: int) -> dict[str, dict]:
    folder = find_checkpoint(DEFAULT_ENCODER)
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def encode():
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            encoder(**tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt"))

    fresh = GLiClassClassifier(random_state=0)
    calls = {
        "encode": encode,
        "predict": lambda: classifier.predict(texts),
        "fit": lambda: fresh.fit(train["text"], train["label"]),
        "fast": lambda: GLiClassClassifier(preset="fast", random_state=0).fit(train["text"], train["label"]),
    }
    interleave(calls, 1, time.process_time)  # warm-up
    seconds = {name: median(values) for name, values in interleave(calls, repeats, time.process_time).items()}
    base = seconds["encode"]
    return {
        f"speed: prediction over the plain encoder, {len(texts)} texts": ratio(seconds["predict"] / base, "lower"),
        f"speed: few-shot fit, {len(train)} texts": ratio(seconds["fit"] / base, "lower"),
        f"speed: few-shot fit with preset 'fast', {len(train)} texts": ratio(seconds["fast"] / base, "lower"),
    }


# -- size ------------------------------------------------------------------------------------------------------


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size(classifier) -> dict[str, dict]:
    encoder = (find_checkpoint(DEFAULT_ENCODER) / "model.safetensors").stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        classifier.save_pretrained(folder)
        checkpoint = folder_size(Path(folder))
    code = sum(path.stat().st_size for path in (ROOT / "sklearn_gliclass").rglob("*.py"))
    return {
        "size: checkpoint over the encoder's weights": ratio(checkpoint / encoder, "lower"),
        "size: package over the encoder's weights": ratio((code + OWN_WEIGHTS.stat().st_size) / encoder, "lower"),
    }


if __name__ == "__main__":
    main()
