"""Frozen encoders and cached hidden states: fits, a grid search and accuracy, against LogisticRegression.

    python benchmarks/frozen.py --threads 1            everything
    python benchmarks/frozen.py fits grid              fits and the grid search only
    python benchmarks/frozen.py speed                  throughput of training with frozen encoders

Ratios of fits and of the grid search with one job are of CPU time of this process, in interleaved rounds: they are
meant for busy machines, with one thread.
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
from sklearn_gliclass.cache.engine import StateEngine
from sklearn_gliclass.training import probe

SETS = ("trec6", "snips", "sms_spam", "subjectivity", "banking77", "clinc150", "movie_reviews")
GRID = {
    "scorer_type": ["simple", "weighted-dot", "mlp", "hopfield"],
    "pooling_strategy": ["avg", "max", "first"],
    "others_lr": [5e-4, 1e-3],
}
SCORERS = GRID["scorer_type"]
N_GRID, N_SPEED, EPOCHS = 1000, 640, 10
N_FITS, FITTED_LABELS, ROUNDS = 1000, (20, 77), 5
PENALTIES = {"C": np.logspace(-3, 3, 24)}  # as many candidates as GRID has


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


# -- single fits ---------------------------------------------------------------------------------------------


def rows_of_labels(options, n_labels: int, n_rows: int = N_FITS):
    """Return texts and labels of the first classes of banking77, shuffled."""
    train = common.read(options, "banking77", "train")
    names = sorted(train.label.unique())[:n_labels]
    chosen = train[train.label.isin(names)].sample(frac=1, random_state=0).head(n_rows)
    return chosen.text.to_numpy(), chosen.label.to_numpy()


def fit_anew(clf, X, y) -> None:
    """Fit without the label probes of earlier fits."""
    probe._kept.clear()
    clf.fit(X, y)


def fits(options) -> None:
    print(f"\nFit on {N_FITS} rows of banking77 with cached hidden states, over LogisticRegression(C=10) on them:")
    print("median (quartiles) of the ratios of CPU time\n")
    widths = (8, 12, 18, 18)
    common.title(("classes", "scorer", "ratio", "seconds"), widths)
    with tempfile.TemporaryDirectory() as memory:
        for n_labels in FITTED_LABELS:
            X, y = rows_of_labels(options, n_labels)
            clfs = {
                name: GLiClassClassifier(scorer_type=name, freeze_encoder=True, memory=memory, random_state=0)
                for name in SCORERS
            }
            states = clfs["simple"].fit(X, y).transform(X)
            plain = LogisticRegression(C=10, max_iter=1000)
            calls = {"plain": lambda plain=plain, states=states, y=y: plain.fit(states, y)}
            calls |= {name: lambda clf=clf, X=X, y=y: fit_anew(clf, X, y) for name, clf in clfs.items()}
            common.interleave(calls, 1, time.process_time)  # warm-up
            seconds = common.interleave(calls, ROUNDS, time.process_time)
            for name in SCORERS:
                ratios = common.ratios(seconds[name], seconds["plain"])
                common.row((n_labels, name, common.spread(ratios), common.spread(seconds[name], 3)), widths)


# -- the grid ------------------------------------------------------------------------------------------------


def grid(options) -> None:
    n_candidates = len(ParameterGrid(GRID))
    print(f"\nGridSearchCV on {N_GRID} rows of banking77: {n_candidates} candidates x 3 folds, and a refit, over")
    print("one of 24 values of C of LogisticRegression on cached hidden states; encoder passes are sequences\n")
    widths = (26, 10, 10, 10, 16, 10)
    common.title(("search", "seconds", "CPU", "ratio", "encoder passes", "accuracy"), widths)
    for name, n_jobs in (("cold", 1), ("warm", 1), ("cold", 2)):
        if name != "warm":
            memory = tempfile.TemporaryDirectory()
        base, result = (_search(options, *search, memory.name) for search in (("plain", 1), (name, n_jobs)))
        clock = "cpu" if n_jobs == 1 else "wall"  # the workers' CPU time is not that of this process
        for label, part in (("LogisticRegression", base), (f"{name} cache, n_jobs={n_jobs}", result)):
            cells = f"{part['wall']:.1f}", f"{part['cpu']:.1f}", f"{part[clock] / base[clock]:.2f}"
            common.row((label, *cells, part["passes"], f"{part['score']:.3f}"), widths)
        for scorer, score in result["scores"].items():
            common.row((f"  best of {scorer}", "", "", "", "", f"{score:.3f}"), widths)


def _search(options, name: str, n_jobs: int, memory: str) -> dict:
    """Run a search in a new process."""
    command = [sys.executable, __file__, "--one-search", name, "--memory", memory, "--data", str(options.data)]
    command += ["--n-jobs", str(n_jobs), "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def one_search(options) -> None:
    X, y = rows_of_labels(options, 77, N_GRID)
    clf = GLiClassClassifier(freeze_encoder=True, memory=options.memory, random_state=0)
    passes = []
    forward = StateEngine._encode

    def count(self, tokens, rows, chunk, every_layer):
        passes.append(len(rows))
        return forward(self, tokens, rows, chunk, every_layer)

    StateEngine._encode = count
    scores = {}
    if options.one_search == "plain":
        X = clf.fit(X, y).transform(X)
        passes.clear()
        search = GridSearchCV(LogisticRegression(max_iter=1000), PENALTIES, cv=3)
    else:
        search = GridSearchCV(clf, GRID, cv=3, n_jobs=options.n_jobs)
    with Timer() as timer:
        search.fit(X, y)
    if options.one_search != "plain":
        for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
            scores[parameters["scorer_type"]] = max(score, scores.get(parameters["scorer_type"], 0.0))
    result = {"wall": timer.wall, "cpu": timer.cpu, "score": search.best_score_, "scores": scores}
    print(json.dumps({**result, "passes": sum(passes) if options.n_jobs == 1 else "-"}))


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


PARTS = {"fits": fits, "grid": grid, "speed": speed, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to run; default: all")
    parser.add_argument("--data", type=Path, default=common.DATA, help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one-search", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
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
