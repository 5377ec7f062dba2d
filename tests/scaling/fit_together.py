"""What each process of a group runs: fits, then fits that fail, then one in which a process dies."""

import json
import os
import sys
from pathlib import Path

import joblib
import numpy as np
from fits import CLASSES, FITS, N_ROWS, OPTIONS, TEXTS, classifier, results
from processes import connect
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, Checkpoint

from sklearn_gliclass import GLiClassClassifier, process_agreement


class Stop(Callback):
    """Raise an error, or kill the process, after the first batch."""

    def __init__(self, dies=False):
        self.dies = dies

    def on_batch_end(self, net, **kwargs):
        if self.dies:
            os._exit(7)
        raise OSError("the disk is full")


def search_in_threads(rank):
    with joblib.parallel_config("threading"):
        search = GridSearchCV(GLiClassClassifier(**OPTIONS), {"lr": [0.1, 0.2]}, cv=2, n_jobs=2, error_score="raise")
        search.fit(TEXTS, CLASSES)


def fit_with_other_version(rank):
    version = process_agreement.__version__
    process_agreement.__version__ = f"{version}.{rank}"
    try:
        classifier()
    finally:
        process_agreement.__version__ = version


def fit_further_with_other_weights(rank):
    clf = classifier()
    clf.model_.model.logit_scale.data += rank
    clf.partial_fit(TEXTS, CLASSES)


# name -> f(rank), which raises on each process
FAILURES = {
    "texts": lambda rank: GLiClassClassifier(**OPTIONS).fit([*TEXTS[:-1], f"text of {rank}"], CLASSES),
    "rows": lambda rank: classifier(rows=N_ROWS - rank),
    "labels": lambda rank: classifier([*CLASSES[:-1], "sports" if rank else "law"]),
    "hyperparameter": lambda rank: classifier(lr=0.1 * (1 + rank)),
    "invalid": lambda rank: classifier(lr=0.1 - rank),
    "version": fit_with_other_version,
    "weights": fit_further_with_other_weights,
    "n_jobs": search_in_threads,
    "error": lambda rank: classifier(callbacks=[("stop", Stop())] if rank else None),
}


def message(call, rank: int) -> str:
    try:
        call(rank)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main(folder: Path) -> None:
    rank = connect(folder)
    for name, fit in FITS.items():
        np.savez(folder / f"{name}-{rank}.npz", **results(fit()))
    messages = {name: message(call, rank) for name, call in FAILURES.items()}
    sys.stderr.write("verbose fit\n")
    checkpoint = Checkpoint(monitor="train_loss_best", dirname=str(folder / f"checkpoint-{rank}"))
    clf = GLiClassClassifier(**OPTIONS, verbose=1, max_length=10, long_texts="truncate", callbacks=[checkpoint])
    clf.fit([f"{text} {text}" for text in TEXTS], CLASSES)
    sys.stderr.write("end of it\n")
    # Afterwards, all fits work as before; then a process dies.
    messages["after"] = message(lambda rank: classifier(), rank)
    (folder / f"messages-{rank}.json").write_text(json.dumps(messages))
    messages["death"] = message(lambda rank: classifier(callbacks=[("stop", Stop(dies=True))] if rank else None), rank)
    (folder / f"messages-{rank}.json").write_text(json.dumps(messages))
