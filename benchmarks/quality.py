"""Quality of the estimators' defaults against baselines: TF-IDF, sentence embeddings and SetFit on the same rows.

    python benchmarks/quality.py                                       # everything: many hours on a CPU
    python benchmarks/quality.py --sets trec6 snips --rows 8 --seeds 0 --methods ours tfidf
    python benchmarks/quality.py --table                               # print the tables of the results
    python benchmarks/quality.py --table --rows 8 --seeds 0            # of 8 examples per class and seed 0

Each combination of data set, training rows, seed and method is a line of a CSV file, and is not run again. The training
rows are 8 or 32 examples per class (multi-label: per label; regression: 100 or 500 rows), or all rows, at most 8,000.
The test set is 1,000 rows of the test file, the same for all. ``quality_sets.py`` reads the data sets, and
``quality_methods.py`` has the baselines. The seconds in the tables are CPU time, which is wall time with one thread on
an idle machine. SetFit and the embeddings need ``pip install "sklearn-gliclass[benchmarks]"``.
"""

import argparse
import csv
import hashlib
import importlib.metadata
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, r2_score
from threadpoolctl import threadpool_limits

from quality_methods import METHODS
from quality_sets import Split, find_sets, load_split
from quality_tables import markdown
from sklearn_gliclass.model.lookup import OWN_WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
KEY = ["set", "rows", "seed", "method"]
SCORES = ["accuracy", "macro_f1", "micro_f1", "r2", "spearman"]
SECONDS = ["fit_seconds", "fit_cpu_seconds", "predict_seconds", "predict_cpu_seconds"]
COLUMNS = [*KEY, "task", "n_train", "n_test", *SCORES, *SECONDS, "threads", "versions"]
PACKAGES = ["sklearn-gliclass", "scikit-learn", "torch", "transformers", "sentence-transformers", "setfit"]


def main() -> None:
    options = parse()
    if options.table:
        print(markdown(choose(pd.read_csv(options.csv, dtype={"rows": str}), options)))
        return
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision(options.matmul)
    with threadpool_limits(options.threads):
        run(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", help="default: all of the folder except tables")
    parser.add_argument("--rows", nargs="+", type=rows, default=[8, 32, "all"], help="examples per class, or all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    parser.add_argument(
        "--matmul",
        choices=["highest", "medium"],
        default="highest",
        help="torch's precision of float32 matrix products; 'medium' is faster on processors with AMX",
    )
    parser.add_argument("--csv", type=Path, default=ROOT / "benchmarks/results/quality.csv", help="the results")
    parser.add_argument("--table", action="store_true", help="print the tables of the results, run nothing")
    return parser.parse_args()


def choose(results: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Select the results by the options."""
    wanted = {"rows": list(map(str, options.rows)), "seed": options.seeds, "method": options.methods}
    if options.sets:
        wanted["set"] = options.sets
    return results[results[list(wanted)].isin(wanted).all(axis=1)]


def rows(value: str) -> int | str:
    return value if value == "all" else int(value)


def run(options: argparse.Namespace) -> None:
    done = read_keys(options.csv)
    folder = options.data.resolve()
    for n_rows in options.rows:
        for seed in options.seeds:
            for name in options.sets or find_sets(folder):
                for method in options.methods:
                    if (name, str(n_rows), str(seed), method) not in done:
                        measure(load_split(folder, name, n_rows, seed), n_rows, seed, method, options)


def read_keys(path: Path) -> set[tuple[str, ...]]:
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(line[column] for column in KEY) for line in csv.DictReader(file)}


def measure(split: Split, n_rows: int | str, seed: int, method: str, options: argparse.Namespace) -> None:
    """Run one method on one split and add its line to the file."""
    result = METHODS[method](split, seed)
    if result is None:  # the method does not support this task
        return
    predictions, fit_seconds, predict_seconds = result
    scores = score(split, predictions)
    line = {
        "set": split.name,
        "rows": n_rows,
        "seed": seed,
        "method": method,
        "task": split.task,
        "n_train": len(split.X_train),
        "n_test": len(split.X_test),
        **{name: f"{value:.4f}" for name, value in scores.items()},
        **{name: f"{value:.2f}" for name, value in zip(SECONDS, [*fit_seconds, *predict_seconds], strict=True)},
        "threads": options.threads,
        "versions": f"{versions()} matmul={options.matmul}",
    }
    append(options.csv, line)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    print(f"{split.name:15} {n_rows!s:>4} seed {seed} {method:10} {shown}, {fit_seconds[0]:.1f} s", file=sys.stderr)


def score(split: Split, predictions) -> dict[str, float]:
    truth = split.y_test.to_numpy()
    predictions = np.asarray(predictions)
    if split.task == "regression":  # the mean over the outputs
        columns = zip(truth.reshape(len(truth), -1).T, predictions.reshape(len(truth), -1).T, strict=True)
        return {
            "r2": r2_score(truth, predictions),
            "spearman": float(np.mean([spearmanr(true, predicted).statistic for true, predicted in columns])),
        }
    scores = {"macro_f1": f1_score(truth, predictions, average="macro", zero_division=0)}
    if split.task == "multi-label":
        return {**scores, "micro_f1": f1_score(truth, predictions, average="micro", zero_division=0)}
    return {**scores, "accuracy": accuracy_score(truth, predictions)}


def versions() -> str:
    found = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    weights = hashlib.sha256(OWN_WEIGHTS.read_bytes()).hexdigest()[:8]  # the weight delta of classifiers
    return " ".join([*(f"{name}={found[name]}" for name in PACKAGES if name in found), f"weights={weights}"])


def append(path: Path, line: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(line)


if __name__ == "__main__":
    main()
