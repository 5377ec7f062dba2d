"""benchmarks/quality.py: sampled rows, resumption, scores and tables."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss

import quality
import quality_methods
import quality_scores
import quality_tables
from quality_methods import Result
from quality_sets import Split, find_sets, load_split

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


def perfect(split, seed):
    """Predict the truth with probabilities of 1."""
    truth, seconds = split.y_test.to_numpy(), (np.array([1.0, 0.5]), np.array([2.0, 1.5]))
    if split.task == "single-label":
        return Result(truth, (truth[:, None] == np.array(split.classes)).astype(float), *seconds)
    return Result(truth, truth.astype(float) if split.task == "multi-label" else None, *seconds)


@pytest.fixture
def run_quality(folder, monkeypatch, tmp_path):
    """Run quality.py with 8 rows per class, and return the results."""
    path = tmp_path / "results" / "quality.csv"

    def run(*options):
        fixed = ["--data", str(folder), "--csv", str(path), "--rows", "8", "--threads", "1"]
        monkeypatch.setattr("sys.argv", ["quality.py", *fixed, *options])
        quality.main()
        return pd.read_csv(path)

    return run


def test_results_are_resumed(run_quality, monkeypatch):
    calls = []

    def counted(split, seed):
        calls.append((split.name, seed))
        return perfect(split, seed)

    monkeypatch.setitem(quality.METHODS, "tfidf", counted)
    for seeds in (["0"], ["0", "1"]):
        results = run_quality("--methods", "tfidf", "--seeds", *seeds)
    assert calls == [(name, seed) for seed in (0, 1) for name in ("multi", "numbers", "single")]
    scores = results.groupby("task")[quality.SCORES].mean()
    losses = ["log_loss", "ece"]
    assert set(scores.drop(columns=losses).stack().dropna()) == {1.0}
    assert set(scores[losses].stack().dropna()) == {0.0}
    assert {task: row.dropna().index.tolist() for task, row in scores.iterrows()} == {
        "multi-label": ["macro_f1", "micro_f1", "log_loss"],
        "regression": ["r2", "spearman"],
        "single-label": ["accuracy", "macro_f1", "log_loss", "ece"],
    }


def test_slow_methods_have_fewer_seeds(run_quality, monkeypatch):
    for method in quality.METHODS:
        monkeypatch.setitem(quality.METHODS, method, perfect)
    results = run_quality("--sets", "single")
    seeds = results.groupby("method")["seed"].agg(list).to_dict()
    assert seeds.pop("setfit") == [0, 1, 2]
    assert set(seeds) == set(quality.METHODS) - {"setfit", *quality.NOT_BY_DEFAULT}
    assert all(found == list(range(10)) for found in seeds.values())


@pytest.mark.full
@pytest.mark.parametrize("without", quality.INGREDIENTS)
def test_ingredients_change_the_probabilities(folder, without):
    split = load_split(folder, "single", 8, seed=0)
    ours, other = (quality.METHODS[name](split, 0) for name in ("ours", without))
    assert np.abs(np.log(ours.probabilities) - np.log(other.probabilities)).max() > 0.02
    assert quality.METHODS[without](load_split(folder, "numbers", 8, seed=0), 0) is None
    if without == "no_calibration":
        np.testing.assert_array_equal(ours.predictions, other.predictions)


def test_tolerance_ends_the_seeds_of_a_set(run_quality, monkeypatch):
    monkeypatch.setitem(quality.METHODS, "ours", perfect)
    monkeypatch.setitem(quality.METHODS, "tfidf", perfect)
    results = run_quality("--sets", "single", "--methods", "ours", "tfidf", "--tolerance", "0.01")
    assert results.groupby("method")["seed"].agg(list).to_dict() == {"ours": [0, 1, 2], "tfidf": [0, 1, 2]}


@pytest.mark.parametrize("options", [[], ["--table"]])
def test_results_of_an_older_version_raise(run_quality, tmp_path, options):
    path = tmp_path / "results" / "quality.csv"
    path.parent.mkdir()
    old = [column for column in quality.COLUMNS if column not in ("log_loss", "ece")]
    pd.DataFrame(columns=old).to_csv(path, index=False)
    with pytest.raises(SystemExit, match=r"missing: log_loss, ece"):
        run_quality("--methods", "tfidf", *options)
    assert pd.read_csv(path).empty


@pytest.mark.parametrize("name", ["single", "multi", "numbers", "films"])
def test_tfidf_on_each_task(folder, name):
    split = load_split(folder, name, 8, seed=0)
    result = quality.METHODS["tfidf"](split, 0)
    assert np.shape(result.predictions) == np.shape(split.y_test)
    assert all(np.isfinite(value) for value in quality.score(split, result.predictions, result.probabilities).values())
    if name == "numbers":
        assert result.probabilities is None
        return
    assert result.probabilities.shape == (len(split.y_test), len(split.classes))
    if name == "multi":
        assert (result.predictions == (result.probabilities > 0.5)).all()
    else:
        assert result.predictions.tolist() == [split.classes[row.argmax()] for row in result.probabilities]


def test_probabilities_have_the_order_of_the_training_classes():
    split = Split("s", "single-label", None, pd.Series(["b", "a", "c", "a"]), None, None)
    result = quality_methods._classified(split, [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], ["c", "a", "b"], 0.0, 0.0)
    np.testing.assert_array_equal(result.probabilities, [[0.2, 0.7, 0.1], [0.3, 0.2, 0.5]])
    assert result.predictions.tolist() == ["b", "c"]


def test_calibration_error_of_ten_rows():
    # Bins of width 1/15: three rows in [0.2, 0.267), two in [0.467, 0.533), four in [0.8, 0.867), one at 1.
    confidence = np.array([0.21, 0.22, 0.26, 0.47, 0.53, 0.81, 0.82, 0.84, 0.86, 1.0])
    correct = np.array([0, 1, 0, 1, 1, 1, 0, 1, 0, 0], dtype=bool)
    gaps = [abs(1 / 3 - (0.21 + 0.22 + 0.26) / 3), abs(1 - 0.5), abs(0.5 - (0.81 + 0.82 + 0.84 + 0.86) / 4), 1]
    expected = np.dot([0.3, 0.2, 0.4, 0.1], gaps)
    assert quality_scores.calibration_error(confidence, correct) == pytest.approx(expected)


def random_probabilities(n_rows, n_classes):
    return np.random.default_rng(0).dirichlet(np.full(n_classes, 0.5), n_rows)


def test_log_loss_is_that_of_scikit_learn():
    classes, probabilities = ["a", "b", "c"], random_probabilities(50, 3)
    truth = np.random.default_rng(1).choice(classes, 50)
    expected = sklearn_log_loss(truth, probabilities, labels=classes)
    assert quality_scores.log_loss(truth, probabilities, classes) == pytest.approx(expected)
    certain = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)  # of which the second is wrong
    expected = sklearn_log_loss(["a", "a"], certain, labels=classes)
    assert quality_scores.log_loss(np.array(["a", "a"]), certain, classes) == pytest.approx(expected, rel=1e-4)


def test_classes_without_training_rows_are_wrong():
    split = Split("s", "single-label", None, pd.Series(["a", "b"]), None, pd.Series(["a", "b", "z", "z"]))
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1, 0]])
    scores = quality.score(split, ["a", "b", "a", "a"], probabilities)
    smallest = np.finfo(np.float32).eps
    assert scores["accuracy"] == 0.5
    assert scores["log_loss"] == pytest.approx(-(np.log(0.9) + np.log(0.8) + 2 * np.log(smallest)) / 4)
    assert scores["ece"] == pytest.approx((abs(1 - 0.9) + abs(1 - 0.8) + 0.5 + 1) / 4)


def test_multi_label_log_loss_is_the_mean_over_labels():
    truth = np.random.default_rng(1).integers(0, 2, (40, 3))
    probabilities = np.random.default_rng(0).uniform(size=(40, 3))
    expected = np.mean([sklearn_log_loss(truth[:, label], probabilities[:, label]) for label in range(3)])
    assert quality_scores.binary_log_loss(truth, probabilities) == pytest.approx(expected)


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
    results = pd.DataFrame(lines, columns=columns).assign(log_loss=1.0, ece=0.1)
    table = quality_tables.markdown(results).split("\n\n**")[0]
    assert table.split("\n") == [
        "**accuracy, single-label, 8 examples per class**",
        "",
        "| set | GLiClass | TF-IDF | GLiClass minus best quick baseline | CPU seconds of fit (GLiClass, TF-IDF) |",
        "| --- | --- | --- | --- | --- |",
        # Standard errors: half the distance of two values. The difference is that of the same seed: +0.3 and -0.1.
        "| a | **0.700** ± 0.100 | 0.600 ± 0.100 | +0.100 ± 0.200 (TF-IDF) | 25, 0.1 |",
        "| b | 0.200 (1 of 2 seeds) | **0.250** (1 of 2 seeds) | -0.050 (TF-IDF) behind | 5, 1 |",
        "| mean of 2 | **0.450** | 0.425 | +0.025 (TF-IDF) | 15, 0.6 |",
    ]


def test_tables_compare_with_the_best_baseline_of_each_kind():
    scores = {"ours": [0.8, 0.9], "zero_shot": [0.85, 0.6], "own_logreg": [0.7, 0.7], "setfit": [0.6, 0.91]}
    losses = {"ours": [0.3, 0.5], "zero_shot": [0.4, 0.5], "own_logreg": [0.6, 0.4], "setfit": [0.2, 0.9]}
    lines = [
        {"set": name, "task": "single-label", "rows": "8", "seed": seed, "method": method, "fit_cpu_seconds": 1.0,
         "accuracy": scores[method][number] + shift, "log_loss": losses[method][number], "ece": 0.1}
        for method in scores
        for number, name in enumerate("ab")
        for seed, shift in enumerate((-0.01, 0.01))
    ]  # fmt: skip
    accuracy, log_loss, ece = quality_tables.markdown(pd.DataFrame(lines)).split("\n\n**")
    last = [[cell.strip() for cell in line.strip("|").split("|")] for line in accuracy.split("\n")[-3:]]
    assert [line[5] for line in last] == [
        "-0.050 ± 0.000 (zero-shot) behind",
        "+0.200 ± 0.000 (our embeddings)",
        "+0.125 ± 0.000 (zero-shot)",
    ]
    assert last[2][1] == "**0.850** ± 0.007"  # sqrt(2 * 0.01**2) / 2
    assert last[2][7] == "+0.095 ± 0.000 (SetFit)"
    assert log_loss.split("\n")[-4:] == [
        "| a | 0.300 ± 0.000 | 0.400 ± 0.000 | 0.600 ± 0.000 | **0.200** ± 0.000 | 0.50 |",
        "| b | 0.500 ± 0.000 | 0.500 ± 0.000 | **0.400** ± 0.000 | 0.900 ± 0.000 | 1.25 behind |",
        "| mean of 2 | **0.400** ± 0.000 | 0.450 ± 0.000 | 0.500 ± 0.000 | 0.550 ± 0.000 | 0.80 |",
        "| mean / our embeddings | 0.80 | 0.90 | 1.00 | 1.10 |  |",
    ]
    assert ece.startswith("ECE (15 bins), single-label, 8 examples per class**")
