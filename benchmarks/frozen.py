"""Frozen encoders and cached hidden states: throughput, a grid search, and accuracy against LogisticRegression.

    python benchmarks/frozen.py --threads 2            everything, about 20 minutes on 2 cores
    python benchmarks/frozen.py speed|grid|accuracy    one of the three

Seconds are wall time and, in brackets, CPU time of this process, which is to be compared on a busy machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ParameterGrid

import common
from sklearn_gliclass import GLiClassClassifier

SETS = ("trec6", "snips", "sms_spam", "subjectivity", "banking77", "clinc150", "movie_reviews")
GRID = {
    "scorer_type": ["simple", "weighted-dot", "mlp", "hopfield"],
    "pooling_strategy": ["avg", "max", "first"],
    "others_lr": [5e-4, 1e-3],
}
N_GRID, N_SPEED, EPOCHS, GRID_EPOCHS = 1000, 640, 10, 3
WITHOUT = ("simple", "weighted-dot", "hopfield")  # candidates that are timed without the cache, one fold each


class Timer:
    """Wall and CPU time of a block."""

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception):
        self.wall, self.cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]

    def __str__(self):
        return f"{self.wall:7.1f} s ({self.cpu:.1f} s CPU)"


def read(options, name: str, n_train: int, n_test: int = 1):
    return common.read(options, name, "train").head(n_train), common.read(options, name).head(n_test)


# -- samples per second --------------------------------------------------------------------------------------


def speed(options) -> None:
    train, _ = read(options, "banking77", N_SPEED)
    print(f"\nTraining on {N_SPEED} rows of banking77, batches of 16, encoder pass included, as if for {EPOCHS} epochs")
    clf = GLiClassClassifier(max_epochs=EPOCHS, random_state=0)
    clf.fit(train.text[:32], ["a", "b"] * 16)  # load the encoder before the timing
    timers = {}
    for name, frozen, epochs in (("full", False, 2), ("frozen", True, EPOCHS)):
        with Timer() as timers[name]:
            clf.set_params(freeze_encoder=frozen, max_epochs=epochs).fit(train.text, train.label)
        samples = N_SPEED * epochs
        print(f"  {name:7} {epochs:3} epochs {timers[name]}  {samples / timers[name].wall:8.1f} samples/s")
    for clock in ("wall", "cpu"):
        full, frozen = (getattr(timers[name], clock) for name in ("full", "frozen"))
        print(f"  frozen / full, {clock}: {full / 2 * EPOCHS / frozen:.1f} times the throughput")


# -- the grid ------------------------------------------------------------------------------------------------


def candidate(**hyperparameters) -> GLiClassClassifier:
    return GLiClassClassifier(max_epochs=GRID_EPOCHS, random_state=0, **hyperparameters)


def grid(options, n_jobs_list=(1, 2)) -> None:
    n_candidates = len(ParameterGrid(GRID))
    n_fits = 3 * n_candidates + 1
    print(f"\nGridSearchCV on {N_GRID} rows of banking77: {n_candidates} candidates x 3 folds and a refit")
    print(f"  {GRID_EPOCHS} epochs each, with the cache and without")
    seconds = {}
    for n_jobs in n_jobs_list:
        with tempfile.TemporaryDirectory() as memory:
            command = [sys.executable, __file__, "--one-search", memory, "--data", str(options.data)]
            command += ["--n-jobs", str(n_jobs), "--threads", str(max(1, torch.get_num_threads() // n_jobs))]
            result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            size = sum(path.stat().st_size for path in Path(memory).rglob("*") if path.is_file())
        seconds[n_jobs] = result["wall"]
        print(
            f"  with memory, n_jobs={n_jobs}: {result['wall']:.1f} s; best {result['score']:.3f} by {result['best']}; "
            f"{size / 3 / N_GRID * 1000 / 1e6:.2f} MB for 1,000 texts and a pooling"
        )
    print(f"  n_jobs=2 / n_jobs=1: {seconds[2] / seconds[1]:.2f}")
    train, _ = read(options, "banking77", N_GRID)
    rows = N_GRID * 2 // 3
    measured = []
    for scorer in WITHOUT:
        with Timer() as timer:
            candidate(scorer_type=scorer).fit(train.text[:rows], train.label[:rows]).predict(train.text[rows:])
        measured.append(timer.wall)
        print(f"  fine-tuning, one fold of {scorer}: {timer}")
    without = float(np.mean(measured)) * n_fits
    print(f"  without memory (extrapolated from the mean of these {len(measured)} fits to {n_fits}): {without:.0f} s")
    print(f"  speed-up with memory: {without / seconds[1]:.0f}")
    with Timer() as timer:
        candidate(freeze_encoder=True).fit(train.text[:rows], train.label[:rows]).predict(train.text[rows:])
    print(f"  one fold of simple frozen without memory: {timer}; with memory, mean of all: {seconds[1] / n_fits:.2f} s")


def one_search(options) -> None:
    train, _ = read(options, "banking77", N_GRID)
    clf = candidate(freeze_encoder=True, memory=options.one_search)
    with Timer() as timer:
        search = GridSearchCV(clf, GRID, cv=3, n_jobs=options.n_jobs).fit(train.text, train.label)
    print(json.dumps({"wall": timer.wall, "cpu": timer.cpu, "score": search.best_score_, "best": search.best_params_}))


# -- accuracy ------------------------------------------------------------------------------------------------


def accuracy(options, n_train: int = 2000, n_test: int = 2000) -> None:
    print(f"\nAccuracy, up to {n_train} training and {n_test} test rows; frozen: mean of 3 seeds")
    columns = ["data", "LogisticRegression", "with C by cross-validation", "frozen"]
    print("| " + " | ".join([*columns, "seconds of fit", "with memory"]) + " |")
    print("|---" * 6 + "|")
    rows = []
    with tempfile.TemporaryDirectory() as memory:
        for name in SETS:
            train, test = read(options, name, n_train, n_test)
            clf = GLiClassClassifier(freeze_encoder=True, memory=memory)
            scores, timers = [], []
            for seed in range(3):
                with Timer() as timer:
                    clf.set_params(random_state=seed).fit(train.text, train.label)
                timers.append(timer)
                scores.append(clf.score(test.text, test.label))
            X, X_test = clf.transform(train.text), clf.transform(test.text)
            plain = LogisticRegression(max_iter=3000).fit(X, train.label).score(X_test, test.label)
            search = GridSearchCV(LogisticRegression(max_iter=3000), {"C": [0.1, 1, 10]}, cv=3).fit(X, train.label)
            rows.append((plain, search.score(X_test, test.label), np.mean(scores)))
            print(
                f"| {name} | " + " | ".join(f"{value:.4f}" for value in rows[-1]),
                f"| {timers[0].wall:.0f} | {timers[1].wall:.1f} |",
                flush=True,
            )
    print("| mean | " + " | ".join(f"{value:.4f}" for value in np.mean(rows, axis=0)) + " | | |")


PARTS = {"speed": speed, "grid": grid, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to run; default: all")
    parser.add_argument("--data", type=Path, default=common.DATA, help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one-search", help=argparse.SUPPRESS)
    parser.add_argument("--n-jobs", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one_search:
        one_search(options)
        return
    print(f"torch {torch.__version__}, {options.threads} threads")
    for part in options.parts or PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
