"""Data and estimators of the tests with dask, Ray and Spark; workers import this module too."""

import os
import signal
from unittest.mock import patch

import joblib
import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV

from sklearn_gliclass import GLiClassClassifier
from sklearn_gliclass.cache.engine import StateEngine
from sklearn_gliclass.distributed import BatchPredictor
from sklearn_gliclass.testing import TINY

TEXTS = [f"{word} {row}" for row in range(20) for word in ("goal", "vote")]
CLASSES = ["sports", "politics"] * 20
FRAME = pd.DataFrame({"id": range(40), "text": TEXTS})
OPTIONS = dict(TINY, random_state=0, max_epochs=1)


def save_parts(folder, n_parts=4):
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(FRAME)), n_parts)):
        FRAME.iloc[part].to_parquet(folder / f"part-{number}.parquet")
    return folder


def read_parts(folder):
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


def search(kind=GLiClassClassifier, **options):
    """Search in the active backend of joblib; return scores and logits."""
    grid = GridSearchCV(kind(**{**OPTIONS, **options}), {"lr": [2e-3, 3e-3, 4e-3]}, cv=2, error_score="raise")
    grid.fit(np.array(TEXTS, dtype=object), CLASSES)
    return grid.cv_results_["mean_test_score"], grid.best_estimator_.decision_function(TEXTS)


def assert_equals_serial(found):
    scores, logits = search()
    np.testing.assert_array_equal(found[0], scores)
    np.testing.assert_allclose(found[1], logits, atol=1e-6)


def thread_count(_=None):
    import torch

    return torch.get_num_threads()


# -- workers that die --------------------------------------------------------------------------------------------


def die_once(marker):
    """Kill the process of the first call."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class MortalPredictor(BatchPredictor):
    """Predictor whose process dies in the middle of a run."""

    def __call__(self, frame):
        if len(frame) and 15 in frame["id"].tolist():
            die_once(f"{self.source}-died")
        return super().__call__(frame)


class MortalClassifier(GLiClassClassifier):
    """Classifier whose process dies in its second fit."""

    __init__ = GLiClassClassifier.__init__

    def fit(self, X, y):
        if self.lr == 3e-3:
            die_once(f"{self.cache_dir}-died")
        return super().fit(X, y)


# -- what is sent to the workers ---------------------------------------------------------------------------------


class CountedClassifier(GLiClassClassifier):
    """Classifier that counts how often a process pickles it."""

    __init__ = GLiClassClassifier.__init__
    n_pickled = 0

    def __getstate__(self):
        type(self).n_pickled += 1
        return super().__getstate__()


def predict_part(clf, part):
    return clf.predict(TEXTS[part])


def predict_in_tasks():
    """Predict in several tasks of the active backend of joblib; return how often this process pickled the weights."""
    clf = CountedClassifier(**OPTIONS).fit(TEXTS, CLASSES)
    before = CountedClassifier.n_pickled
    results = joblib.Parallel()(joblib.delayed(predict_part)(clf, slice(row, row + 5)) for row in range(0, 40, 5))
    assert np.concatenate(results).tolist() == clf.predict(TEXTS).tolist()
    return CountedClassifier.n_pickled - before


# -- the encoder passes of all processes -------------------------------------------------------------------------

_encode = StateEngine._encode


def _record(engine, tokens, rows, chunk, every_layer):
    with open(f"{engine.location}-encoded-{os.getpid()}", "a") as file:
        file.write(f"{len(rows)}\n")
    return _encode(engine, tokens, rows, chunk, every_layer)


def count_encoded(memory) -> int:
    """Return the number of texts that all processes have encoded for the cache in `memory`."""
    return sum(int(line) for path in memory.parent.glob("*-encoded-*") for line in path.read_text().split())


class RecordingClassifier(GLiClassClassifier):
    """Classifier that records the texts that each process encodes."""

    __init__ = GLiClassClassifier.__init__

    def fit(self, X, y):
        with patch.object(StateEngine, "_encode", _record):
            return super().fit(X, y)


def frozen_options(folder, memory) -> dict:
    """Return hyperparameters of fits on the encoder of a checkpoint, which is the same in all folds."""
    return {"encoder_config": None, "pretrained": str(folder), "freeze_encoder": True, "memory": str(memory)}


def fit_recorded(folder, memory):
    clf = RecordingClassifier(**{**OPTIONS, **frozen_options(folder, memory)})
    return clf.fit(TEXTS, CLASSES).decision_function(TEXTS)
