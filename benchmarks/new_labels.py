"""Old labels beside new ones: `with_labels` after a fit on half of the classes, on the test texts of all.

    python benchmarks/new_labels.py                        # some minutes of one core
    python benchmarks/new_labels.py --sets trec6 --presets balanced --seeds 0 1 2

A classifier is fitted to 8 examples of each of half the classes (of at most 40), and ``with_labels`` adds the others by
their names. Each combination of set, rows, seed and preset is a line of a CSV file for each method, and is not run
again:

* ``with_labels``: the classifier with all labels.
* ``moved``: the same, but new labels have the change of the label projector that the fit made for the old ones.
* ``zero_shot``: ``fit(None, labels)`` with all labels.

``accuracy`` and ``log_loss`` are over all texts. ``old_accuracy`` and ``new_accuracy`` are over the texts of
old and of new classes, whose predictions may be of either kind. ``share_new`` is the share of texts predicted to
be of a new class, and ``true_share`` what it should be.
"""

import copy
import itertools

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import log_loss

import common
from open_set import read
from quality import versions
from result_files import append_line, measured
from sklearn_gliclass import GLiClassClassifier

KEY = ["set", "rows", "seed", "preset", "method"]
SCORES = ["accuracy", "log_loss", "old_accuracy", "new_accuracy", "share_new", "true_share"]
COLUMNS = [*KEY, "n_classes", "n_train", "n_test", *SCORES, "versions"]
SETS = ["banking77", "clinc150", "snips", "trec6", "tweet_emotion"]
MAX_CLASSES, MAX_TEST = 40, 500


def main() -> None:
    parser = common.split_parser(__doc__.split("\n")[0], "new_labels.csv", SETS, rows=[8])
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    done = measured(options.csv, KEY[:-1])
    for split in itertools.product(options.sets, options.rows, options.seeds, options.presets):
        if split not in done:
            measure(options, *split)


def measure(options, name: str, rows: int, seed: int, preset: str) -> None:
    """Run all methods on one split, and add their lines to the file."""
    train, test = (read(options.data, name, part) for part in ("train", "test"))
    classes = np.random.RandomState(seed).permutation(sorted(train.label.unique()))[:MAX_CLASSES]
    old, new = sorted(classes[: len(classes) // 2]), sorted(classes[len(classes) // 2 :])
    shuffled = train[train.label.isin(old)].sample(frac=1, random_state=seed)
    train = shuffled[shuffled.groupby("label").cumcount() < rows]
    test = test[test.label.isin(classes)]
    test = test.sample(min(len(test), MAX_TEST), random_state=0)
    labels = [*old, *new]
    truth = np.array([labels.index(label) for label in test.label])
    sizes = [len(labels), len(train), len(test)]
    for method, proba in run(train, labels, test.text.tolist(), seed, preset).items():
        scores = [f"{value:.4f}" for value in score(truth, proba, len(old))]
        line = [name, rows, seed, preset, method, *sizes, *scores, versions()]
        append_line(options.csv, COLUMNS, dict(zip(COLUMNS, line, strict=True)))
        print(f"{name:14} {rows:3} {seed} {preset:9} {method:12} " + " ".join(scores), flush=True)


def run(train: pd.DataFrame, labels: list[str], texts: list[str], seed: int, preset: str) -> dict[str, np.ndarray]:
    """Return the probabilities (texts, labels) by method."""
    fitted = GLiClassClassifier(preset=preset, random_state=seed).fit(train.text.tolist(), train.label.tolist())
    both = fitted.with_labels(labels)
    moved = copy.deepcopy(both)
    moved.fitted_.label_fit = None
    zero = GLiClassClassifier().fit(None, labels)
    return {
        method: clf.predict_proba(texts)
        for method, clf in {"with_labels": both, "moved": moved, "zero_shot": zero}.items()
    }


def score(truth: np.ndarray, proba: np.ndarray, n_old: int) -> list[float]:
    predicted, is_new = proba.argmax(axis=1), truth >= n_old
    is_right = predicted == truth
    loss = log_loss(truth, proba, labels=np.arange(proba.shape[1]))
    return [is_right.mean(), loss, is_right[~is_new].mean(), is_right[is_new].mean(),
            (predicted >= n_old).mean(), is_new.mean()]  # fmt: skip


if __name__ == "__main__":
    main()
