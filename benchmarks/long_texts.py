"""Texts beyond `max_length`: `long_texts` beside truncation and TF-IDF.

    python benchmarks/long_texts.py                                # some minutes of one core
    python benchmarks/long_texts.py --methods tfidf mean_fast --rows 32 --seeds 0 1 2

The training rows are 8 or 32 texts per class, and at most 200 of the test file are predicted. Movie reviews have 746
words on average; `long_sets.py` writes further sets.
Each combination of set, rows, seed and method is a line of a CSV file, and is not run again. ``truncate``, ``mean`` and
``max`` are the values of `long_texts`, with the default preset, or with ``preset="fast"`` after ``_fast``; ``tfidf`` is
logistic regression as in ``quality.py``. With ``--memory``, hidden states of frozen encoders are kept in a folder, and
the seconds of the fast presets are no longer comparable.
"""

import itertools
import time
import warnings

import torch

import common
from quality import versions
from quality_methods import tfidf
from quality_sets import load_split
from result_files import append_line, measured
from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.exceptions import TruncationWarning

KEY = ["set", "rows", "seed", "method"]
COLUMNS = [*KEY, "n_train", "n_test", "accuracy", "fit_cpu_seconds", "predict_cpu_seconds", "versions"]
METHODS = ["tfidf", "truncate_fast", "mean_fast", "max_fast", "truncate", "mean", "max"]
MAX_TEST = 200


def main() -> None:
    parser = common.split_parser(__doc__.split("\n")[0], "long_texts.csv", ["movie_reviews"], rows=[8, 32])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--memory", help="folder of cached hidden states")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", TruncationWarning)
    done = measured(options.csv, KEY)
    for key in itertools.product(options.sets, options.rows, options.seeds, options.methods):
        if key not in done:
            measure(options, *key)


def measure(options, name: str, rows: int, seed: int, method: str) -> None:
    """Run one method on one split, and add its line to the file."""
    split = load_split(options.data.resolve(), name, rows, seed)
    X_test, y_test = split.X_test[:MAX_TEST].tolist(), split.y_test[:MAX_TEST].to_numpy()
    if method == "tfidf":
        result = tfidf(split, seed)
        predicted, seconds = result.predictions[:MAX_TEST], [result.fit_seconds[1], result.predict_seconds[1]]
    else:
        predicted, seconds = run(split, X_test, seed, method, options.memory)
    accuracy = (predicted == y_test).mean()
    line = [name, rows, seed, method, len(split.X_train), len(X_test), f"{accuracy:.4f}"]
    line += [f"{value:.1f}" for value in seconds]
    append_line(options.csv, COLUMNS, dict(zip(COLUMNS, [*line, versions()], strict=True)))
    print(*line, flush=True)


def run(split, X_test: list[str], seed: int, method: str, memory: str | None):
    """Return the predictions, and the CPU seconds of fit and prediction."""
    long_texts, _, preset = method.partition("_")
    clf = GLiClassClassifier(
        long_texts=long_texts, preset=preset or "balanced", memory=memory if preset else None, random_state=seed
    )
    times = [time.process_time()]
    clf.fit(split.X_train.tolist(), split.y_train.tolist())
    times.append(time.process_time())
    predicted = clf.predict(X_test)
    times.append(time.process_time())
    return predicted, [times[1] - times[0], times[2] - times[1]]


if __name__ == "__main__":
    main()
