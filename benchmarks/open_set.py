"""Texts of unknown classes: `known_proba` and `unknown_label` beside other scores, on the same rows.

    python benchmarks/open_set.py                        # some minutes of one core
    python benchmarks/open_set.py --sets snips --seeds 0 1 2

On clinc150, the unknown texts are those of ``clinc150.oos_test``. On other sets, a third of at most 30 classes is left
out of the training, and their test texts are unknown. The training rows are 8 or 32 examples of each known class. Each
combination of set, rows, seed and method is a line of a CSV file, and is not run again:

* ``ours``: ``known_proba`` of the default classifier, with ``unknown_threshold="auto"``; ``ours_fast`` with
  ``preset="fast"``.
* ``zero_shot``: the same after ``fit(None, labels)``.
* ``max_softmax``, ``energy``: highest probability and free energy of the logits of the classifier of ``ours``.
* ``nearest``: cosine to the nearest training text in embeddings of all-MiniLM-L6-v2, whose class is predicted.

``auroc`` is the area under the ROC curve of known against unknown texts. ``accuracy`` counts unknown texts as a class
of their own, at the threshold that the training rows determine; ``best_accuracy`` has the threshold that is best on the
test rows, which no method could know.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

import common
from quality import versions
from result_files import append_line, measured
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.model.lookup import DEFAULT_ENCODER

KEY = ["set", "rows", "seed", "method"]
SCORES = ["auroc", "accuracy", "best_accuracy", "known_accuracy"]
COLUMNS = [*KEY, "n_classes", "n_train", "n_known", "n_unknown", *SCORES, "versions"]
SETS = ["clinc150", "banking77", "snips", "trec6", "tweet_emotion"]
MAX_CLASSES, MAX_TEST = 30, 500
UNKNOWN = "none of these"


def main() -> None:
    options = common.split_parser(__doc__.split("\n")[0], "open_set.csv", SETS, rows=[8]).parse_args()
    torch.set_num_threads(options.threads)
    done = measured(options.csv, KEY[:-1])
    for split in itertools.product(options.sets, options.rows, options.seeds):
        if split not in done:
            measure(options, *split)


def measure(options, name: str, rows: int, seed: int) -> None:
    """Run all methods on one split, and add their lines to the file."""
    train, known, unknown = split(options.data, name, rows, seed)
    texts = [*known.text, *unknown.text]
    truth = np.array([*known.label, *[UNKNOWN] * len(unknown)])
    sizes = [train.label.nunique(), len(train), len(known), len(unknown)]
    for method, (classes, values, predicted) in run(train, texts, seed).items():
        scores = [f"{value:.4f}" for value in score(truth, classes, values, predicted)]
        line = [name, rows, seed, method, *sizes, *scores, versions()]
        append_line(options.csv, COLUMNS, dict(zip(COLUMNS, line, strict=True)))
        print(f"{name:14} {rows:3} {seed} {method:12} " + " ".join(scores), flush=True)


def split(folder: Path, name: str, rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return training rows, test rows of their classes, and test rows of no class."""
    train, test = (read(folder, name, part) for part in ("train", "test"))
    if name == "clinc150":
        unknown = read(folder, name, "oos_test")
    else:
        classes = np.random.RandomState(seed).permutation(sorted(train.label.unique()))[:MAX_CLASSES]
        left_out = classes[: len(classes) // 3]
        unknown = test[test.label.isin(left_out)]
        train, test = (frame[frame.label.isin(classes[len(classes) // 3 :])] for frame in (train, test))
    shuffled = train.sample(frac=1, random_state=seed)
    chosen = shuffled[shuffled.groupby("label").cumcount() < rows]
    return chosen, *(frame.sample(min(len(frame), MAX_TEST), random_state=0) for frame in (test, unknown))


def read(folder: Path, name: str, part: str) -> pd.DataFrame:
    frame = pd.read_csv(folder / f"{name}.{part}.csv.gz", keep_default_na=False)
    return frame if "label" not in frame else frame.assign(label=frame.label.str.replace("_", " "))


def run(train: pd.DataFrame, texts: list[str], seed: int) -> dict[str, tuple]:
    """Return classes, evidence of a known class, and predictions at the method's own threshold, by method."""
    labels = sorted(train.label.unique())
    ours, fast = (
        GLiClassClassifier(unknown_label=UNKNOWN, preset=preset, random_state=seed).fit(
            train.text.tolist(), train.label.tolist()
        )
        for preset in ("balanced", "fast")
    )
    zero = GLiClassClassifier(unknown_label=UNKNOWN).fit(None, labels)
    results = {}
    for method, clf in {"ours": ours, "ours_fast": fast, "zero_shot": zero}.items():
        classes = clf.classes_[clf.predict_proba(texts).argmax(axis=1)]
        results[method] = classes, clf.known_proba(texts), clf.predict(texts)
    logits, classes = ours.decision_function(texts), results["ours"][0]  # (texts, classes): there are more than two
    results["max_softmax"] = classes, softmax(logits, axis=1).max(axis=1), None
    results["energy"] = classes, logsumexp(logits, axis=1), None
    plain = GLiClassClassifier(encoder_model=DEFAULT_ENCODER).fit(None, ["one", "other"])
    train_states, states = (normalize(plain.transform(part)) for part in (train.text.tolist(), texts))
    cosines = states @ train_states.T
    results["nearest"] = train.label.to_numpy()[cosines.argmax(axis=1)], cosines.max(axis=1), None
    return results


def score(truth: np.ndarray, classes: np.ndarray, values: np.ndarray, predicted) -> list[float]:
    is_known, is_right = truth != UNKNOWN, truth == classes
    thresholds = np.concatenate([np.unique(values), [np.inf]])
    accuracies = [np.where(values >= threshold, is_right, ~is_known).mean() for threshold in thresholds]
    accuracy = np.nan if predicted is None else (predicted == truth).mean()
    return [roc_auc_score(is_known, values), accuracy, max(accuracies), is_right[is_known].mean()]


if __name__ == "__main__":
    main()
