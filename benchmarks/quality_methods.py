"""Methods of quality.py: this package with its defaults, and three baselines with their usual settings.

``ours`` is the estimator without arguments. ``plain`` is the estimator with ``encoder_model``, which starts from the
encoder of the baselines, without the weight delta of this package.

Each method is a function ``(split, seed) -> (predictions, seconds of fit, seconds of predict)``, in wall and CPU
time. The baselines:

* ``tfidf``: TF-IDF of words and word pairs (``sublinear_tf``, ``min_df=2`` from 1,000 rows on, else 1), a linear model.
* ``embeddings``: sentence embeddings of all-MiniLM-L6-v2 (mean pooling, normalised, 256 tokens at most), the same.
* ``setfit``: SetFit on the same encoder, single-label only: cosine-similarity loss, 20 positive and 20 negative pairs
  per row (``num_iterations=20``), one epoch in batches of 16, learning rate 2e-5, logistic head. The more classes, the
  more pairs: a fit ends after 400 steps, or 60 where texts have more than 100 words on average.

The linear model is LogisticRegression with C from 0.1, 1, 10, 100 (multi-label: one for each label, threshold 0.5) or
Ridge with alpha from 0.01, 0.1, 1, 10, 100, chosen by cross-validation: 5 folds, 3 from 2,000 rows on.
"""

import functools
import math
import tempfile
import time
import warnings

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier

from quality_sets import Split
from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor
from sklearn_gliclass.model.lookup import DEFAULT_ENCODER, find_checkpoint

CS = [10, 1, 100, 0.1]  # ties are resolved to the first
ALPHAS = [1, 0.1, 10, 0.01, 100]
SETFIT_PAIRS, SETFIT_BATCH, SETFIT_STEPS, SETFIT_STEPS_LONG, LONG_WORDS = 20, 16, 400, 60, 100


def ours(split: Split, seed: int, **hyperparameters):
    estimator = GLiClassRegressor if split.task == "regression" else GLiClassClassifier
    model = estimator(random_state=seed, **hyperparameters)
    model, fit_seconds = _timed(lambda: model.fit(split.X_train, split.y_train))
    predictions, predict_seconds = _timed(lambda: model.predict(split.X_test))
    return predictions, fit_seconds, predict_seconds


def plain(split: Split, seed: int):
    if split.task == "regression":  # regressors start from the plain encoder
        return None
    return ours(split, seed, encoder_model=DEFAULT_ENCODER)


def tfidf(split: Split, seed: int):
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(split.X_train) >= 1000 else 1)
    train, seconds = _timed(lambda: vectorizer.fit_transform(joined(split.X_train)))
    test, test_seconds = _timed(lambda: vectorizer.transform(joined(split.X_test)))
    predictions, fit_seconds, predict_seconds = _linear(split, seed, train, test)
    return predictions, seconds + fit_seconds, test_seconds + predict_seconds


def embeddings(split: Split, seed: int):
    train, seconds = embed(joined(split.X_train))
    test, test_seconds = embed(joined(split.X_test))
    predictions, fit_seconds, predict_seconds = _linear(split, seed, train, test)
    return predictions, seconds + fit_seconds, test_seconds + predict_seconds


def setfit(split: Split, seed: int):
    if split.task not in ("single-label", "table"):
        return None
    model, fit_seconds = _timed(lambda: _fit_setfit(joined(split.X_train), split.y_train.tolist(), seed))
    predictions, predict_seconds = _timed(
        lambda: np.asarray(model.predict(joined(split.X_test), show_progress_bar=False))
    )
    return predictions, fit_seconds, predict_seconds


METHODS = {"ours": ours, "plain": plain, "tfidf": tfidf, "embeddings": embeddings, "setfit": setfit}


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


def _linear(split: Split, seed: int, train, test):
    """Predict with a linear model whose regularisation is chosen by cross-validation."""
    search = GridSearchCV(*_model_and_grid(split.task), cv=_folds(split, seed), scoring=SCORING[split.task])
    with warnings.catch_warnings():
        # Rare labels may be missing in a fold.
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        warnings.filterwarnings("ignore", message="The least populated class in y")
        model, fit_seconds = _timed(lambda: search.fit(train, split.y_train.to_numpy()))
    predictions, predict_seconds = _timed(lambda: model.predict(test))
    return predictions, fit_seconds, predict_seconds


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


_embedded: dict[str, tuple[np.ndarray, np.ndarray]] = {}


def embed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Compute sentence embeddings and their time; embeddings are cached, and their time counts each time."""
    new = list(dict.fromkeys(text for text in texts if text not in _embedded))
    if new:
        encoder = _encoder()
        vectors, seconds = _timed(lambda: encoder.encode(new, show_progress_bar=False))
        _embedded.update((text, (vector, seconds / len(new))) for text, vector in zip(new, vectors, strict=True))
    return np.stack([_embedded[text][0] for text in texts]), sum(_embedded[text][1] for text in texts)


@functools.cache
def _encoder():
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(find_checkpoint(DEFAULT_ENCODER)), device="cpu")


def _fit_setfit(texts: list[str], labels: list[str], seed: int):
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    long = np.mean([len(text.split()) for text in texts]) > LONG_WORDS
    steps = math.ceil(2 * SETFIT_PAIRS * len(texts) / SETFIT_BATCH)
    model = SetFitModel.from_pretrained(str(find_checkpoint(DEFAULT_ENCODER)), device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_iterations=SETFIT_PAIRS,
            batch_size=SETFIT_BATCH,
            max_steps=min(steps, SETFIT_STEPS_LONG if long else SETFIT_STEPS),
            seed=seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        Trainer(model, args=arguments, train_dataset=Dataset.from_dict({"text": texts, "label": labels})).train()
    return model
