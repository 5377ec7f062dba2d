"""Check that the processes of a data-parallel fit have the same data, hyperparameters, weights and versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from numbers import Number
from os import PathLike

import numpy as np
from sklearn.base import BaseEstimator

from ._version import __version__
from .model.fingerprint import sample_sum
from .process_group import ProcessGroup
from .samples import Samples

VERSIONED = ("torch", "transformers", "tokenizers", "scikit-learn", "skorch", "numpy")
# Hyperparameters that may differ: places on the machine, and what the main process decides for all.
MAY_DIFFER = {"device", "memory", "cache_dir", "verbose", "random_state", "callbacks"}
_VALUES_SHOWN = 60  # characters


def check_agreement(group: ProcessGroup, estimator, samples: Samples, continues: bool) -> None:
    """Raise on all processes if one of them would train another model.

    Parameters
    ----------
    group : ProcessGroup
        The processes.
    estimator : BaseGLiClass
        Estimator with the hyperparameters.
    samples : Samples
        Training data.
    continues : bool
        Whether the fitted model is trained further.

    Raises
    ------
    ValueError
        If anything differs between two processes; the message says what.
    """
    if group.size == 1:
        return
    described = group.gather_objects(_describe(estimator, samples, continues))
    for rank, other in enumerate(described[1:], start=1):
        differences = _find_differences(described[0], other, rank)
        if differences:
            raise ValueError(
                f"The processes of a data-parallel fit must train the same model on the same rows, and "
                f"{'; '.join(differences)}. Give all processes all rows in the same order (with a fixed random_state "
                "where they are sampled or split), the same hyperparameters and the same packages. To train another "
                "model in each process, start them without torchrun or accelerate launch."
            )


def _describe(estimator, samples: Samples, continues: bool) -> dict[str, dict]:
    hyperparameters = estimator.get_params(deep=False)
    return {
        "version of": {
            "sklearn_gliclass": __version__,
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONED},
        },
        "hyperparameter": {
            "estimator": type(estimator).__name__,
            **{name: _show(value) for name, value in hyperparameters.items() if name not in MAY_DIFFER},
        },
        "data:": {
            "number of rows": str(len(samples)),
            "labels": _show(samples.label_names),
            "texts": _hash("\0".join(samples.texts).encode("utf-8", "surrogatepass")),
            "y": _hash(np.ascontiguousarray(samples.targets)),
            "sample weights": _hash(np.ascontiguousarray(samples.sample_weight)),
        },
        "fitted model:": {"weights": _hash_weights(estimator.model_)} if continues else {},
    }


def _find_differences(main: dict[str, dict], other: dict[str, dict], rank: int) -> list[str]:
    return [
        f"the {kind} {name} is {_shorten(value)} on process 0 and {_shorten(other[kind].get(name, 'missing'))} on "
        f"process {rank}"
        for kind, values in main.items()
        for name, value in values.items()
        if other[kind].get(name) != value
    ]


def _show(value) -> str:
    """Return a text that is the same in all processes for equal values; objects are shown by their type."""
    if isinstance(value, (str, Number, PathLike, np.generic, type(None))):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_show(key)}: {_show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_show, value)) + "]"
    if isinstance(value, np.ndarray):
        return _show(value.tolist())
    kind = type(value).__qualname__
    is_plain = isinstance(value, BaseEstimator) and not hasattr(value, "fit")
    return f"{kind}{_show(value.get_params(deep=False))}" if is_plain else getattr(value, "__qualname__", kind)


def _shorten(text: str) -> str:
    return text if len(text) <= _VALUES_SHOWN else f"{text[:_VALUES_SHOWN]}..."


def _hash(content) -> str:
    return f"one with the hash {hashlib.blake2b(content, digest_size=4).hexdigest()}"


def _hash_weights(model) -> str:
    return _hash(np.array([sample_sum(parameter) for parameter in model.parameters()]))
