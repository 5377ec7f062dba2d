"""benchmarks/quality.py: sampled rows, resumption, scores and tables."""

import numpy as np
import pandas as pd
import pytest

import quality
import quality_tables
from quality_sets import find_sets, load_split

WORDS = ["sun", "rain", "goal", "vote"]


def write(folder, name, **columns):
    for part in ("train", "test"):
        pd.DataFrame(columns).to_csv(folder / f"{name}.{part}.csv.gz", index=False)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.choice(WORDS, 80, p=[0.7, 0.2, 0.06, 0.04])
    text = [f"{word} {number}" for number, word in enumerate(label)]
    write(tmp_path, "single", text=text, label=[f"the_{word}" for word in label])
    write(tmp_path, "multi", text=text, labels=["|".join(w for w in WORDS if rng.random() < 0.2) for _ in label])
    write(tmp_path, "numbers", text=text, mood=rng.normal(size=80), age=rng.normal(size=80))
    write(tmp_path, "films", text=text, year=[1999, None] * 40, label=["NA", "PG"] * 40)
    return tmp_path


def test_split_has_k_rows_per_class(folder):
    split = load_split(folder, "single", 8, seed=0)
    everything = pd.read_csv(folder / "single.train.csv.gz")["label"].str.replace("_", " ").value_counts()
    assert split.task == "single-label"
    assert split.y_train.value_counts().to_dict() == everything.clip(upper=8).to_dict()
    assert all(label.removeprefix("the ") in text for text, label in zip(split.X_train, split.y_train, strict=True))


def test_split_has_k_rows_per_label(folder):
    split = load_split(folder, "multi", 8, seed=0)
    everything = load_split(folder, "multi", "all", seed=0)
    assert (split.y_train.sum() >= everything.y_train.sum().clip(upper=8)).all()
    assert (split.y_train.sum(axis=1) == 0).sum() >= 8  # rows without a label are sampled too
    assert len(split.X_train) <= 8 * 5
    assert list(split.y_train) == sorted(WORDS)


def test_regression_and_tables_are_split(folder):
    numbers, films = load_split(folder, "numbers", "all", seed=0), load_split(folder, "films", 8, seed=0)
    assert (numbers.task, numbers.y_train.shape, numbers.X_train.shape) == ("regression", (80, 2), (80,))
    assert (films.task, list(films.X_train)) == ("table", ["text", "year"])
    assert films.y_train.value_counts().to_dict() == {"NA": 8, "PG": 8}
    assert films.X_train["year"].isna().sum() == 8
    assert find_sets(folder) == ["multi", "numbers", "single"]


def test_seeds_change_training_rows_only(folder):
    first, again, other = (load_split(folder, "single", 8, seed) for seed in (0, 0, 1))
    assert first.X_train.tolist() == again.X_train.tolist() != other.X_train.tolist()
    assert first.X_test.tolist() == other.X_test.tolist()


def test_results_are_resumed(folder, monkeypatch, tmp_path):
    calls = []

    def perfect(split, seed):
        calls.append((split.name, seed))
        return split.y_test, (1.0, 0.5), (2.0, 1.5)

    monkeypatch.setitem(quality.METHODS, "tfidf", perfect)
    path = tmp_path / "results" / "quality.csv"
    options = [
        "quality.py",
        "--data",
        str(folder),
        "--csv",
        str(path),
        "--rows",
        "8",
        "--methods",
        "tfidf",
        "--threads",
        "1",
    ]
    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr("sys.argv", [*options, "--seeds", *seeds])
        quality.main()
    assert calls == [(name, seed) for seed in (0, 1) for name in ("multi", "numbers", "single")]
    scores = pd.read_csv(path).groupby("task")[quality.SCORES].mean().dropna(axis=1, how="all")
    assert set(scores.stack().dropna()) == {1.0}
    assert scores.loc["regression"].dropna().index.tolist() == ["r2", "spearman"]


@pytest.mark.parametrize("name", ["single", "multi", "numbers", "films"])
def test_tfidf_on_each_task(folder, name):
    split = load_split(folder, name, 8, seed=0)
    predictions, *_ = quality.METHODS["tfidf"](split, 0)
    assert np.shape(predictions) == np.shape(split.y_test)
    assert all(np.isfinite(value) for value in quality.score(split, predictions).values())


def test_tables_show_means_and_differences():
    columns = ["set", "task", "rows", "seed", "method", "accuracy", "fit_cpu_seconds"]
    lines = [
        ("a", "single-label", "8", 0, "ours", 0.8, 20),
        ("a", "single-label", "8", 1, "ours", 0.6, 30),
        ("a", "single-label", "8", 0, "tfidf", 0.5, 0.11),
        ("a", "single-label", "8", 1, "tfidf", 0.7, 0.11),
        ("b", "single-label", "8", 0, "ours", 0.2, 5),
        ("b", "single-label", "8", 0, "tfidf", 0.25, 1),
        ("b", "single-label", "8", 1, "tfidf", 0.9, 9),  # a split without a result of this package
    ]
    table = quality_tables.markdown(pd.DataFrame(lines, columns=columns))
    assert table.split("\n") == [
        "**accuracy, single-label, 8 examples per class**",
        "",
        "| set | GLiClass | TF-IDF | GLiClass minus best baseline | CPU seconds of fit (GLiClass, TF-IDF) |",
        "| --- | --- | --- | --- | --- |",
        "| a | **0.700** | 0.600 | +0.100 | 25, 0.1 |",
        "| b | 0.200 (1 of 2 seeds) | **0.250** (1 of 2 seeds) | -0.050 (behind) | 5, 1 |",
        "| mean of 2 | **0.450** | 0.425 | +0.025 | 15, 0.6 |",
    ]
