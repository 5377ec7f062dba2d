"""Quality of the estimators' defaults against zero-shot, linear models and SetFit on the same rows.

    python benchmarks/quality.py                                       # everything: many hours on a CPU
    python benchmarks/quality.py --sets trec6 snips --rows 8 --seeds 0 --methods ours tfidf
    python benchmarks/quality.py --tolerance 0.01                      # few seeds where the scores vary little
    python benchmarks/quality.py --methods no_probe no_names no_average no_calibration      # the default without parts
    python benchmarks/quality.py --table                               # print the tables of the results
    python benchmarks/quality.py --table --rows 8 --seeds 0            # of 8 examples per class and seed 0

Each combination of data set, training rows, seed and method is a line of a CSV file, and is not run again. The training
rows are 8 or 32 examples per class (multi-label: per label; regression: 100 or 500 rows), or all rows, at most 8,000.
The test set is 1,000 rows of the test file, the same for all. ``quality_sets.py`` reads the data sets,
``quality_methods.py`` has the methods, ``quality_ingredients.py`` the default without its ingredients, and
``quality_scores.py`` the scores. The seconds in the tables are CPU time, which is wall time with one thread on an idle
machine.

SetFit and the embeddings need ``pip install "sklearn-gliclass[benchmarks]"``.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import os
import sys
from pathlib import Path

import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from quality_ingredients import INGREDIENTS
from quality_methods import METHODS as BASELINES
from quality_methods import SLOW
from quality_scores import SCORES, score
from quality_sets import Split, find_sets, load_split
from quality_tables import markdown
from result_files import append_line
from sklearn_gliclass.model.lookup import OWN_WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
METHODS = {**BASELINES, **INGREDIENTS}
NOT_BY_DEFAULT = ["plain", "fastfit", *INGREDIENTS]
KEY = ["set", "rows", "seed", "method"]
SECONDS = ["fit_seconds", "fit_cpu_seconds", "predict_seconds", "predict_cpu_seconds"]
COLUMNS = [*KEY, "task", "n_train", "n_test", *SCORES, *SECONDS, "threads", "versions"]
SEEDS, SEEDS_SLOW = range(10), range(3)
MIN_SEEDS = 3  # for a standard error
PACKAGES = ["sklearn-gliclass", "scikit-learn", "torch", "transformers", "sentence-transformers", "setfit"]


def main() -> None:
    options = parse()
    if options.table:
        print(markdown(choose(read_results(options.csv), options)))
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
    parser.add_argument("--seeds", nargs="+", type=int, help=f"default: 0 to 9, and 0 to 2 for {', '.join(SLOW)}")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help=f"default: all except {', '.join(NOT_BY_DEFAULT)}"
    )
    parser.add_argument(
        "--tolerance", type=float, help="stop adding seeds to a set when the standard error of our score is smaller"
    )
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
    wanted = {"rows": list(map(str, options.rows))}
    for column, values in {"set": options.sets, "seed": options.seeds, "method": options.methods}.items():
        if values:
            wanted[column] = values
    return results[results[list(wanted)].isin(wanted).all(axis=1)]


def rows(value: str) -> int | str:
    return value if value == "all" else int(value)


def run(options: argparse.Namespace) -> None:
    methods = options.methods or [method for method in METHODS if method not in NOT_BY_DEFAULT]
    results = read_results(options.csv)
    done = set(results[KEY].astype(str).itertuples(index=False, name=None))
    folder = options.data.resolve()
    for n_rows in options.rows:
        for seed in options.seeds or SEEDS:
            for name in options.sets or find_sets(folder):
                if options.tolerance and is_precise(options, name, n_rows, seed):
                    continue
                for method in methods:
                    planned = options.seeds or method not in SLOW or seed in SEEDS_SLOW
                    if planned and (name, str(n_rows), str(seed), method) not in done:
                        measure(load_split(folder, name, n_rows, seed), n_rows, seed, method, options)


def is_precise(options: argparse.Namespace, name: str, n_rows: int | str, seed: int) -> bool:
    """Whether the standard error of our score over the seeds before `seed` is below the tolerance."""
    results = read_results(options.csv)
    earlier = list(options.seeds or SEEDS)
    earlier = earlier[: earlier.index(seed)]
    ours = results[(results["set"] == name) & (results["rows"] == str(n_rows)) & (results["method"] == "ours")]
    ours = ours[ours["seed"].isin(earlier)]
    if len(ours) < MIN_SEEDS:
        return False
    main_score = {"multi-label": "micro_f1", "regression": "r2"}.get(ours["task"].iloc[0], "accuracy")
    return ours[main_score].sem() < options.tolerance


def read_results(path: Path) -> pd.DataFrame:
    """Read the results, if there are any; raise for those of a version with other columns."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    results = pd.read_csv(path, dtype={"rows": str})
    if list(results) != COLUMNS:
        raise SystemExit(
            f"{path} has the columns of another version of this program (missing: "
            f"{', '.join(name for name in COLUMNS if name not in results) or 'none'}). Remove the file to measure "
            "everything again, or start a new one with --csv."
        )
    return results


def measure(split: Split, n_rows: int | str, seed: int, method: str, options: argparse.Namespace) -> None:
    """Run one method on one split and add its line to the file."""
    result = METHODS[method](split, seed)
    if result is None:  # the method does not support this task
        return
    scores = score(split, result.predictions, result.probabilities)
    seconds = [*result.fit_seconds, *result.predict_seconds]
    line = {
        "set": split.name,
        "rows": n_rows,
        "seed": seed,
        "method": method,
        "task": split.task,
        "n_train": len(split.X_train),
        "n_test": len(split.X_test),
        **{name: f"{value:.4f}" for name, value in scores.items()},
        **{name: f"{value:.2f}" for name, value in zip(SECONDS, seconds, strict=True)},
        "threads": options.threads,
        "versions": f"{versions()} matmul={options.matmul}",
    }
    append_line(options.csv, COLUMNS, line)
    shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    print(f"{split.name:15} {n_rows!s:>4} seed {seed} {method:10} {shown}, {seconds[0]:.1f} s", file=sys.stderr)


@functools.cache
def versions() -> str:
    found = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    weights = hashlib.sha256(OWN_WEIGHTS.read_bytes()).hexdigest()[:8]  # the weight delta of classifiers
    return " ".join([*(f"{name}={found[name]}" for name in PACKAGES if name in found), f"weights={weights}"])


if __name__ == "__main__":
    main()
