"""``estimator.json``: hyperparameters and fitted attributes of the estimator in a checkpoint folder.

Only known names are written and read, and each value is validated: an untrusted file cannot set other attributes, nor
hyperparameters that act on the machine, such as paths and devices.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from sklearn.base import RegressorMixin

from . import json_values
from .abstention import check_unknown_label
from .class_values import read_thresholds
from .containers import is_finite
from .parameters import MODEL_ORIGIN
from .sklearn_internals import validate_parameter_constraints
from .training import RLTrainerConfig
from .warn import warn

ESTIMATOR_FILE = "estimator.json"
FORMAT = 1

# Hyperparameters that are specific to a machine or session. They are not saved, and have their defaults after loading.
LOCAL_HYPERPARAMETERS = ("pretrained", "memory", "cache_dir", "device", "callbacks")
# The origin of the model is replaced by its saved weights.
_NOT_STORED = {*LOCAL_HYPERPARAMETERS, *MODEL_ORIGIN}
# Predictions depend on these: if they cannot be saved, from_pretrained needs them. All others affect training only.
_NEEDED_TO_PREDICT = (
    "text_template", "threshold", "unknown_label", "unknown_threshold", "max_num_classes", "max_length",
    "long_texts", "window_overlap", "max_batch_tokens", "dtype", "prompt", "examples", "n_examples",
)  # fmt: skip
_RECORDED_VERSIONS = ("sklearn-gliclass", "torch", "transformers", "scikit-learn", "skorch", "numpy")
_KEYS = {"format", "estimator", "hyperparameters", "fitted", "missing", "versions"}


# -- write ---------------------------------------------------------------------------------------------------


def write_estimator(estimator, folder: Path) -> None:
    """Write ``estimator.json`` of a fitted estimator.

    Raises
    ------
    ValueError
        If a fitted attribute has a value that cannot be saved.
    """
    text = json.dumps(describe_estimator(estimator), indent=2, allow_nan=False)
    (folder / ESTIMATOR_FILE).write_text(text + "\n", encoding="utf-8")


def describe_estimator(estimator) -> dict:
    """Return the content of ``estimator.json``, and warn of hyperparameters that cannot be saved."""
    hyperparameters, left_out = {}, []
    for name, value in estimator.get_params(deep=False).items():
        if name == "callbacks" and value:
            left_out.append(name)
        if name in _NOT_STORED:
            continue
        try:
            hyperparameters[name] = _encode_hyperparameter(name, value)
        except TypeError:
            left_out.append(name)
    missing = [name for name in left_out if name in _NEEDED_TO_PREDICT]
    _warn_unsaved([name for name in left_out if name not in missing], missing)
    return {
        "format": FORMAT,
        "estimator": type(estimator).__name__,
        "hyperparameters": hyperparameters,
        "fitted": _describe_fitted(estimator),
        "missing": missing,
        "versions": _versions(estimator),
    }


def _warn_unsaved(of_training: list[str], missing: list[str]) -> None:
    if of_training:
        warn(
            f"The hyperparameter(s) {of_training} cannot be stored as JSON and were not saved. Predictions do not "
            "depend on them; to train the loaded estimator in the same way, pass them to from_pretrained."
        )
    if missing:
        again = ", ".join(f"{name}=..." for name in missing)
        warn(
            f"The hyperparameter(s) {missing} cannot be stored as JSON and were not saved, and predictions depend on "
            f"them: load the estimator with from_pretrained(folder, {again})."
        )


def _encode_hyperparameter(name: str, value):
    if name == "rl" and isinstance(value, RLTrainerConfig):
        value = {key: item for key, item in value.get_params(deep=False).items() if key not in LOCAL_HYPERPARAMETERS}
    return json_values.encode(value)


def _describe_fitted(estimator) -> dict:
    kind = "regressor" if isinstance(estimator, RegressorMixin) else "classifier"
    values = {}
    for name in _FITTED[kind]:
        if hasattr(estimator, name):
            value = getattr(estimator, name)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                value = dataclasses.asdict(value)
            values[name] = value
    described = {}
    for name, value in values.items():
        try:
            described[name] = json_values.encode(value)
        except TypeError as error:
            raise ValueError(
                f"{name} cannot be stored in {ESTIMATOR_FILE}: {error}. Use classes that are strings, numbers, bools "
                "or bytes, or store the estimator with pickle or joblib."
            ) from None
    _check_fitted({name: json_values.decode(value) for name, value in described.items()}, kind, "the estimator")
    return described


def _versions(estimator) -> dict[str, str | int]:
    edition = estimator.config_.weights_edition
    versions: dict[str, str | int] = {} if edition is None else {"weights": edition}
    for name in _RECORDED_VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the package itself, if it is not installed
            versions[name] = "unknown"
    return versions


# -- read ----------------------------------------------------------------------------------------------------


def read_estimator(folder: Path, estimator_class: type | None = None) -> dict | None:
    """Read and check ``estimator.json``.

    Parameters
    ----------
    folder : Path
        A checkpoint folder.
    estimator_class : type, optional
        Class to load. The file must have been written by a class of this name, and its hyperparameters are validated
        against those of the class.

    Returns
    -------
    dict or None
        "estimator" is the name of the class, "hyperparameters" and "fitted" are values by name, and "missing" is the
        names of hyperparameters that predictions depend on and that could not be saved. None for a checkpoint of
        another library.

    Raises
    ------
    ValueError
        If the file is damaged, was written by another class, or holds a name or value that is not allowed.
    """
    path = Path(folder) / ESTIMATOR_FILE
    if not os.path.lexists(path):
        return None
    record = _read_record(path)
    if estimator_class is not None and record["estimator"] != estimator_class.__name__:
        raise ValueError(
            f"{str(folder)!r} was saved by a {record['estimator']}; load it with {record['estimator']}.from_pretrained."
        )
    hyperparameters, fitted = (
        {name: _decode(path, part, name, value) for name, value in record[part].items()}
        for part in ("hyperparameters", "fitted")
    )
    kind = _kind(record["estimator"], estimator_class, fitted)
    _check_fitted(fitted, kind, str(path))
    hyperparameters = {name: value for name, value in hyperparameters.items() if name not in _NOT_STORED}
    if estimator_class is not None:
        _check_hyperparameters(hyperparameters, fitted, estimator_class, path)
    missing = [name for name in record["missing"] if name not in hyperparameters]
    return {
        "estimator": record["estimator"],
        "hyperparameters": hyperparameters,
        "fitted": fitted,
        "missing": missing,
    }


def check_given_again(record: dict, given) -> None:
    """Raise if a hyperparameter that could not be saved, and that predictions depend on, is not given.

    Parameters
    ----------
    record : dict
        Result of :func:`read_estimator`.
    given : collection of str
        Names of the hyperparameters that are passed to ``from_pretrained``.
    """
    missing = [name for name in record["missing"] if name not in given]
    if missing:
        raise ValueError(
            f"The estimator was fitted with a value of {', '.join(missing)} that could not be saved, and predictions "
            f"depend on it: pass it again, from_pretrained(folder, {', '.join(f'{name}=...' for name in missing)})."
        )


def _read_record(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}); restore it, or save the estimator again. Without the file the folder "
            "loads as a checkpoint without classes."
        ) from error
    if not isinstance(record, dict) or set(record) - _KEYS or not isinstance(record.get("estimator"), str):
        raise ValueError(f"{str(path)!r} was not written by save_pretrained: its keys must be {sorted(_KEYS)}.")
    record = {"format": None, "hyperparameters": {}, "fitted": {}, "missing": [], **record}
    if record["format"] != FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {record['format']!r}, and this version of sklearn_gliclass reads format "
            f"{FORMAT}; save the estimator again with this version, or load it with the version that saved it."
        )
    if not all(isinstance(record[part], dict) for part in ("hyperparameters", "fitted")):
        raise ValueError(f"{str(path)!r}: hyperparameters and fitted must be JSON objects.")
    names = record["missing"]
    if not isinstance(names, list) or not set(map(str, names)) <= set(_NEEDED_TO_PREDICT):
        raise ValueError(f"{str(path)!r}: missing must be a list of names from {list(_NEEDED_TO_PREDICT)}.")
    return record


def _decode(path: Path, part: str, name: str, value):
    try:
        value = json_values.decode(value)
        return RLTrainerConfig(**value) if name == "rl" and isinstance(value, dict) else value
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r}: {part}: {name} is damaged ({error}).") from error


def _kind(name: str, estimator_class: type | None, fitted: dict) -> str:
    if estimator_class is not None:
        return "regressor" if issubclass(estimator_class, RegressorMixin) else "classifier"
    return "regressor" if name == "GLiClassRegressor" or "target_mean_" in fitted else "classifier"


def _check_hyperparameters(hyperparameters: dict, fitted: dict, estimator_class: type, path: Path) -> None:
    known = estimator_class._get_param_names()
    unknown = sorted(set(hyperparameters).difference(known))
    if unknown:
        raise ValueError(
            f"{str(path)!r} sets hyperparameters that {estimator_class.__name__} does not have: {_shown(unknown)}. "
            "Remove them from the file, or update sklearn_gliclass if a newer version wrote it."
        )
    try:
        validate_parameter_constraints(
            estimator_class._parameter_constraints, hyperparameters, caller_name=estimator_class.__name__
        )
        if hyperparameters.get("rl") is not None:
            hyperparameters["rl"].validate()
        if "threshold" in hyperparameters and isinstance(fitted["classes_"], np.ndarray):
            read_thresholds(hyperparameters["threshold"], fitted["classes_"])
        if hyperparameters.get("unknown_label") is not None and isinstance(fitted["classes_"], np.ndarray):
            check_unknown_label(hyperparameters["unknown_label"], fitted["classes_"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def _shown(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# -- fitted attributes ---------------------------------------------------------------------------------------


def _is_strings(value) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _is_classes(value) -> bool:
    if not (isinstance(value, np.ndarray) and value.ndim == 1 and len(value) > 1 and value.dtype.kind in "biufUSOMm"):
        return False
    try:
        return len(set(value.tolist())) == len(value)
    except TypeError:  # a class that is a list or a dict
        return False


def _is_classes_of_targets(value) -> bool:
    """Return whether a value is the classes of one target, or the list of those of several."""
    return all(map(_is_classes, value)) and len(value) > 1 if isinstance(value, list) else _is_classes(value)


def _is_target_names(value) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(name, (str, int, float)) for name in value)


def _is_vector(value) -> bool:
    is_vector = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f"
    return is_vector and bool(np.isfinite(value).all())


def _is_positive(value) -> bool:
    return _is_vector(value) and bool((value > 0).all())


def _is_count(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_names(value) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and all(isinstance(name, str) for name in value.tolist())


def _is_text_reader(value) -> bool:
    types = {"n_columns": int | None, "columns": tuple | list | None, "is_plain": bool, "had_texts": bool}
    if not isinstance(value, dict) or set(value) != set(types):
        return False
    if not all(isinstance(value[name], kind) for name, kind in types.items()):
        return False
    columns = value["columns"]
    return columns is None or (all(type(name) is str for name in columns) and len(columns) == value["n_columns"])


def _is_examples(value) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and set(row) == {"text", "labels"}
        and isinstance(row["text"], str)
        and isinstance(row["labels"], list)
        and all(isinstance(label, str) for label in row["labels"])
        for row in value
    )


def _is_share(value) -> bool:
    return isinstance(value, Real) and 0 <= value <= 1  # pyright: ignore[reportOperatorIssue]


def _is_positive_number(value) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf  # pyright: ignore[reportOperatorIssue]


def _is_temperature(value) -> bool:
    return _is_positive(value) or _is_positive_number(value)


def _is_freezing(value) -> bool:
    return value == "embeddings" or isinstance(value, bool) or (isinstance(value, Integral) and int(value) > 0)


def _is_bool(value) -> bool:
    return type(value) is bool


def _is_evidence(value) -> bool:
    names = ("match", "mismatch", "weight")
    if not isinstance(value, dict) or set(value) != set(names):
        return False
    return all(is_finite(value[name]) for name in names) and value["weight"] > 0


_SHARED = {
    "label_names_": (_is_strings, "a list of strings"),
    "n_features_in_": (_is_count, "an integer of at least 1"),
    "feature_names_in_": (_is_names, "a 1-D array of strings"),
    "freeze_encoder_": (_is_freezing, 'true, false, "embeddings" or a positive integer'),
    "_text_reader": (_is_text_reader, "an object with n_columns, columns, is_plain and had_texts"),
}
# Name -> (validation function, description of valid values).
_FITTED = {
    "classifier": {
        **_SHARED,
        "classes_": (_is_classes_of_targets, "a 1-D array of at least 2 different classes, or one for each target"),
        "target_names_": (_is_target_names, "a list of at least 2 strings or numbers"),
        "label_centroid_share_": (_is_share, "a number from 0 to 1"),
        "temperature_": (_is_temperature, "a positive number, or an array with one for each target"),
        "_evidence": (_is_evidence, "an object with the finite numbers match, mismatch and weight"),
        "examples_": (_is_examples, 'a list of objects with "text" and "labels"'),
    },
    "regressor": {
        **_SHARED,
        "target_names_": (_is_strings, "a list of strings"),
        "target_mean_": (_is_vector, "a 1-D array of finite floats"),
        "target_scale_": (_is_positive, "a 1-D array of positive floats"),
        "shrinkage_": (_is_positive, "a 1-D array of positive floats"),
        "_one_dimensional": (_is_bool, "true or false"),
    },
}
_REQUIRED = {
    "classifier": ("classes_", "label_names_", "_text_reader"),
    "regressor": (
        "label_names_",
        "target_names_",
        "target_mean_",
        "target_scale_",
        "shrinkage_",
        "_one_dimensional",
        "_text_reader",
    ),
}
_ONE_FOR_EACH_LABEL = ("classes_", "target_names_", "target_mean_", "target_scale_", "shrinkage_")


def _check_fitted(fitted: dict, kind: str, source: str) -> None:
    checks = _FITTED[kind]
    unknown = sorted(set(fitted).difference(checks))
    if unknown:
        raise ValueError(f"{source}: a {kind} has no fitted attributes {_shown(unknown)}.")
    absent = [name for name in _REQUIRED[kind] if name not in fitted]
    if absent:
        raise ValueError(f"{source}: the fitted attributes {_shown(absent)} are missing.")
    for name, value in fitted.items():
        is_valid, expected = checks[name]
        if not is_valid(value):
            raise ValueError(f"{source}: {name} must be {expected}, got {repr(value)[:100]}.")
    _check_lengths(fitted, source)


def _check_lengths(fitted: dict, source: str) -> None:
    if isinstance(fitted.get("classes_"), list):
        _check_targets(fitted, source)
    else:
        _check_labels(fitted, source)
    names = fitted.get("feature_names_in_")
    if names is not None and len(names) != fitted.get("n_features_in_"):
        raise ValueError(f"{source}: n_features_in_ is not the number of feature_names_in_, {len(names)}.")


def _check_labels(fitted: dict, source: str) -> None:
    """Raise unless there are a class, or a name, mean and scale of an output, for each label."""
    n_labels = len(fitted["label_names_"])
    for name in _ONE_FOR_EACH_LABEL:
        if name in fitted and len(fitted[name]) != n_labels:
            raise ValueError(f"{source}: {name} has {len(fitted[name])} entries for {n_labels} label_names_.")
    if np.ndim(fitted.get("temperature_", 1.0)):
        raise ValueError(f"{source}: temperature_ must be a number, as there is one target.")
    if fitted.get("_one_dimensional") and n_labels != 1:
        raise ValueError(f"{source}: _one_dimensional is true for {n_labels} outputs.")


def _check_targets(fitted: dict, source: str) -> None:
    """Raise unless there are a name and a temperature for each of several targets, and a label for each class."""
    n_targets, n_labels = len(fitted["classes_"]), sum(map(len, fitted["classes_"]))
    for name in ("target_names_", "temperature_"):
        if np.ndim(fitted.get(name, 0)) != 1 or len(fitted[name]) != n_targets:
            raise ValueError(f"{source}: {name} must have one entry for each of the {n_targets} targets of classes_.")
    if n_labels != len(fitted["label_names_"]):
        raise ValueError(f"{source}: classes_ has {n_labels} classes for {len(fitted['label_names_'])} label_names_.")
