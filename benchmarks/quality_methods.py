"""Methods of quality.py: this package with its defaults, and baselines with their usual settings.

``ours`` is the estimator without arguments, ``ours_fast`` has ``preset="fast"``. ``plain`` is the estimator with
``encoder_model``, which starts from the encoder of the baselines, without the weight delta of this package.

Each method is a function ``(split, seed) -> Result``, or None if it does not support the task. The baselines:

* ``zero_shot``: ``fit(None, classes)``, which trains nothing. It does not depend on the seed.
* ``own_logreg``: a linear model on the embeddings of this package, ``fit(None, labels).transform(texts)``, normalised.
* ``embeddings``: a linear model on sentence embeddings of all-MiniLM-L6-v2 (mean pooling, normalised, 256 tokens at
  most).
* ``tfidf``: a linear model on TF-IDF of words and word pairs (``sublinear_tf``, ``min_df=2`` from 1,000 rows on, else
  1).
* ``setfit``: SetFit on the same encoder, single-label only: cosine-similarity loss, 20 positive and 20 negative pairs
  per row (``num_iterations=20``), one epoch in batches of 16, learning rate 2e-5, logistic head. The more classes, the
  more pairs: a fit ends after 400 steps, or 60 where texts have more than 100 words on average.

The linear model is LogisticRegression with C from 0.1, 1, 10, 100 (multi-label: one for each label, threshold 0.5) or
Ridge with alpha from 0.01, 0.1, 1, 10, 100, chosen by cross-validation: 5 folds, 3 from 2,000 rows on.
"""

import functools
import json
import math
import os
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import normalize

from quality_sets import Split
from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, find_checkpoint
from sklearn_gliclass.training import probe

CS = [10, 1, 100, 0.1]  # ties are resolved to the first
ALPHAS = [1, 0.1, 10, 0.01, 100]
SETFIT_PAIRS, SETFIT_BATCH = 20, 16
STEPS, STEPS_LONG, LONG_WORDS = 400, 60, 100  # optimiser steps of SetFit at most


@dataclass(frozen=True)
class Result:
    """Predictions for the test rows, and the seconds of fit and of prediction in wall and CPU time."""

    predictions: np.ndarray
    probabilities: np.ndarray | None  # columns: the classes of the split; None for a regression
    fit_seconds: np.ndarray
    predict_seconds: np.ndarray


def ours(split: Split, seed: int, **hyperparameters) -> Result:
    estimator = GLiClassRegressor if split.task == "regression" else GLiClassClassifier
    probe._kept.clear()  # of another method on the same rows
    model = estimator(random_state=seed, **hyperparameters)
    model, fit_seconds = _timed(lambda: model.fit(split.X_train, split.y_train))
    return _predict(split, model, split.X_test, fit_seconds)


def ours_fast(split: Split, seed: int) -> Result | None:
    return None if split.task == "regression" else ours(split, seed, preset="fast")


def plain(split: Split, seed: int) -> Result:
    return ours(split, seed, encoder_model=DEFAULT_ENCODER)


def zero_shot(split: Split, seed: int) -> Result | None:
    if split.task == "regression":
        return None
    key = split.name, *split.classes
    if key not in _zero_shot_results:
        problem_type = "multi_label_classification" if split.task == "multi-label" else None
        model = GLiClassClassifier(problem_type=problem_type)
        model, fit_seconds = _timed(lambda: model.fit(None, split.classes))
        _zero_shot_results[key] = _predict(split, model, joined(split.X_test), fit_seconds)
    return _zero_shot_results[key]


_zero_shot_results: dict[tuple[str, ...], Result] = {}  # the test rows are the same for all seeds


def own_logreg(split: Split, seed: int) -> Result:
    return _linear_on_embeddings(split, seed, _own_embedder())


def embeddings(split: Split, seed: int) -> Result:
    return _linear_on_embeddings(split, seed, _plain_embedder())


def tfidf(split: Split, seed: int) -> Result:
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(split.X_train) >= 1000 else 1)
    train, seconds = _timed(lambda: vectorizer.fit_transform(joined(split.X_train)))
    test, test_seconds = _timed(lambda: vectorizer.transform(joined(split.X_test)))
    return _linear(split, seed, train, test, seconds, test_seconds)


def setfit(split: Split, seed: int) -> Result | None:
    if split.task not in ("single-label", "table"):
        return None
    model, fit_seconds = _timed(lambda: _fit_setfit(joined(split.X_train), split.y_train.tolist(), seed))
    texts = joined(split.X_test)
    probabilities, seconds = _timed(lambda: model.predict_proba(texts, as_numpy=True, show_progress_bar=False))
    return _classified(split, probabilities, model.model_head.classes_, fit_seconds, seconds)


def fastfit(split: Split, seed: int) -> Result | None:
    if split.task not in ("single-label", "table"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "encoder": str(find_checkpoint(DEFAULT_ENCODER)),
            "X_train": joined(split.X_train),
            "y_train": split.y_train.tolist(),
            "X_test": joined(split.X_test),
            "seed": seed,
        }
        Path(folder, "rows.json").write_text(json.dumps(rows))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
        worker = Path(__file__).with_name("fastfit_worker.py")
        subprocess.run([os.environ["FASTFIT_PYTHON"], worker, folder], check=True, env=environment)
        result = json.loads(Path(folder, "result.json").read_text())
    seconds = (np.array(result[name]) for name in ("fit_seconds", "predict_seconds"))
    return _classified(split, result["probabilities"], result["classes"], *seconds)


METHODS = {
    "ours": ours,
    "ours_fast": ours_fast,
    "zero_shot": zero_shot,
    "own_logreg": own_logreg,
    "embeddings": embeddings,
    "tfidf": tfidf,
    "setfit": setfit,
    "fastfit": fastfit,
    "plain": plain,
}
SLOW = ["setfit", "fastfit", "plain"]  # with fewer seeds


def joined(X) -> list[str]:
    """Return the texts, or for a table ``column: value`` of each cell that is not missing."""
    if X.ndim == 1:
        return X.tolist()
    return [" ".join(f"{name}: {value}" for name, value in row.dropna().items()) for _, row in X.iterrows()]


def _timed(work):
    start = _now()
    result = work()
    return result, _now() - start


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _predict(split: Split, model, X, fit_seconds: np.ndarray) -> Result:
    """Predict with a fitted estimator of scikit-learn's interface."""
    if split.task == "regression":
        predictions, seconds = _timed(lambda: model.predict(X))
        return Result(predictions, None, fit_seconds, seconds)
    probabilities, seconds = _timed(lambda: model.predict_proba(X))
    if split.task == "multi-label":  # the columns are those of y
        return Result(np.asarray(model.predict(X)), np.asarray(probabilities), fit_seconds, seconds)
    return _classified(split, probabilities, model.classes_, fit_seconds, seconds)


def _classified(split: Split, probabilities, classes, fit_seconds, predict_seconds) -> Result:
    """Put single-label probabilities in the order of ``split.classes``, and predict the most probable class."""
    columns = [list(classes).index(name) for name in split.classes]
    probabilities = np.asarray(probabilities)[:, columns]
    predictions = np.asarray(split.classes)[probabilities.argmax(axis=1)]
    return Result(predictions, probabilities, fit_seconds, predict_seconds)


def _linear_on_embeddings(split: Split, seed: int, embedder: "Embedder") -> Result:
    train, seconds = embedder.embed(joined(split.X_train))
    test, test_seconds = embedder.embed(joined(split.X_test))
    return _linear(split, seed, train, test, seconds, test_seconds)


def _linear(split: Split, seed: int, train, test, train_seconds: np.ndarray, test_seconds: np.ndarray) -> Result:
    """Fit a linear model on features, which took the given seconds; cross-validation chooses its regularisation."""
    search = GridSearchCV(*_model_and_grid(split.task), cv=_folds(split, seed), scoring=SCORING[split.task])
    with warnings.catch_warnings():
        # Rare labels may be missing in a fold.
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        warnings.filterwarnings("ignore", message="The least populated class in y")
        model, seconds = _timed(lambda: search.fit(train, split.y_train.to_numpy()))
    result = _predict(split, model, test, train_seconds + seconds)
    return replace(result, predict_seconds=test_seconds + result.predict_seconds)


SCORING = {"single-label": "accuracy", "table": "accuracy", "multi-label": "f1_micro", "regression": "r2"}


def _model_and_grid(task: str):
    if task == "regression":
        return Ridge(), {"alpha": ALPHAS}
    logistic = LogisticRegression(max_iter=1000)
    if task == "multi-label":
        return OneVsRestClassifier(logistic), {"estimator__C": CS}
    return logistic, {"C": CS}


def _folds(split: Split, seed: int):
    n_splits = 3 if len(split.X_train) >= 2000 else 5
    if split.task in ("single-label", "table"):
        rarest = split.y_train.value_counts().min()
        return StratifiedKFold(max(2, min(n_splits, rarest)), shuffle=True, random_state=seed)
    return KFold(n_splits, shuffle=True, random_state=seed)


class Embedder:
    """Cached embeddings and their time, which counts again each time that they are used."""

    def __init__(self, encode):
        self.encode = encode  # from a list of texts to an array
        self.cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # text -> embedding, seconds

    def embed(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        new = list(dict.fromkeys(text for text in texts if text not in self.cache))
        if new:
            vectors, seconds = _timed(lambda: self.encode(new))
            self.cache.update((text, (vector, seconds / len(new))) for text, vector in zip(new, vectors, strict=True))
        return np.stack([self.cache[text][0] for text in texts]), sum(self.cache[text][1] for text in texts)


@functools.cache
def _plain_embedder() -> Embedder:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(find_checkpoint(DEFAULT_ENCODER)), device="cpu")
    return Embedder(lambda texts: encoder.encode(texts, show_progress_bar=False))


@functools.cache
def _own_embedder() -> Embedder:
    encoder = GLiClassClassifier().fit(None, ["a", "b"])  # the embeddings do not depend on the labels
    return Embedder(lambda texts: normalize(encoder.transform(texts)))


def _capped(steps: int, texts: list[str]) -> int:
    """Limit the optimiser steps of SetFit, which take longer with long texts."""
    long = np.mean([len(text.split()) for text in texts]) > LONG_WORDS
    return min(steps, STEPS_LONG if long else STEPS)


def _fit_setfit(texts: list[str], labels: list[str], seed: int):
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    steps = math.ceil(2 * SETFIT_PAIRS * len(texts) / SETFIT_BATCH)
    model = SetFitModel.from_pretrained(str(find_checkpoint(DEFAULT_ENCODER)), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_iterations=SETFIT_PAIRS,
            batch_size=SETFIT_BATCH,
            max_steps=_capped(steps, texts),
            seed=seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        Trainer(model, args=arguments, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    return model
