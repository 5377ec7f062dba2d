"""Model card of a saved estimator: ``README.md`` with the metadata of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from sklearn.base import is_regressor

from ._version import __version__

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD_FILE = "README.md"
MARK = "<!-- Written by sklearn_gliclass, which replaces this file unless you remove this line. -->"

_SHOWN_LABELS = 100
_TAGS = ("gliclass", "scikit-learn", "text-classification")


def build_card(estimator, metrics: Mapping[str, float] | None = None, name: str | None = None) -> ModelCard:
    """Build the model card of a fitted estimator.

    Parameters
    ----------
    estimator : GLiClassClassifier or GLiClassRegressor
        A fitted estimator.
    metrics : dict of str to float, optional
        Results of an evaluation, by name.
    name : str, optional
        Folder or repository for the line that loads the estimator.

    Returns
    -------
    huggingface_hub.ModelCard
        The card.

    Raises
    ------
    TypeError
        If a metric is not a number.
    """
    from huggingface_hub import ModelCard, ModelCardData  # imports the client of the hub, which takes long

    metrics = _check_metrics(metrics)
    config = estimator.config_
    regression = is_regressor(estimator)
    zero_shot = not regression and not estimator._text_reader.has_seen_data
    data = ModelCardData(
        library_name="sklearn-gliclass",
        pipeline_tag="zero-shot-classification" if zero_shot else "text-classification",
        tags=[*_TAGS, *(["regression"] if regression else [])],
        base_model=_hub_name(config.encoder_model_name),
        metrics=list(metrics) or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n{MARK}\n",
        f"# {type(estimator).__name__}\n",
        _summary(estimator, regression, zero_shot),
        _usage(estimator, name),
        _names("Outputs", estimator.target_names_) if regression else _names("Labels", estimator.label_names_),
        _table("Metrics", metrics) if metrics else "",
        _table("Model", _facts(estimator)),
    ]
    return ModelCard("\n".join(filter(None, parts)))


def is_own_card(path: Path) -> bool:
    """Return whether a file does not exist, or was written by this module and not changed into a card of its own."""
    try:
        return MARK in Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return True


def _check_metrics(metrics) -> dict[str, float]:
    if metrics is None:
        return {}
    valid = isinstance(metrics, Mapping) and all(
        isinstance(name, str) and isinstance(value, Real) and not isinstance(value, bool)
        for name, value in metrics.items()
    )
    if not valid:
        raise TypeError(
            f'metrics must be a dict of numbers by name, for example {{"accuracy": 0.93}}, got {metrics!r}.'
        )
    return {name: float(value) for name, value in metrics.items()}


def _hub_name(name) -> str | None:
    """Return the name of the encoder if it is one of the hub; a folder says something about the machine."""
    is_name = isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and name[0] not in "./"
    return name if is_name and not Path(name).exists() else None


def _summary(estimator, regression: bool, zero_shot: bool) -> str:
    if regression:
        return f"Predicts {len(estimator.target_names_)} number(s) from a text.\n"
    how = "zero-shot, by the names of the labels" if zero_shot else "trained on labelled texts"
    kind = "each label is a decision of its own" if estimator._kind == "multi-label" else "one label per text"
    if isinstance(estimator.classes_, list):
        kind = f"one for each of the targets {', '.join(map(_inline, estimator.target_names_))}"
    return f"Classifies texts among {len(estimator.label_names_)} labels: {how}; {kind}.\n"


def _usage(estimator, name: str | None) -> str:
    cls = type(estimator).__name__
    reader = estimator._text_reader
    example = '["a text"]' if reader.n_columns is None or reader.is_plain else "table"
    return (
        "## Usage\n\n```\npip install sklearn-gliclass\n```\n\n"
        f"```python\nfrom sklearn_gliclass import {cls}\n\n"
        f"model = {cls}.from_pretrained({name or 'path/to/this/folder'!r})\nmodel.predict({example})\n```\n"
    )


def _names(title: str, names) -> str:
    shown = [f"- {_inline(name)}" for name in names[:_SHOWN_LABELS]]
    more = [f"- and {len(names) - _SHOWN_LABELS} more"] if len(names) > _SHOWN_LABELS else []
    return "\n".join([f"## {title}\n", *shown, *more, ""])


def _facts(estimator) -> dict:
    config = estimator.config_
    facts = {
        "architecture": config.architecture_type,
        "encoder": _hub_name(config.encoder_model_name) or config.encoder_config.model_type,
        "scorer": config.scorer_type,
        "problem type": config.problem_type,
        "maximum number of tokens": estimator.max_length_,
        "sklearn-gliclass": __version__,
    }
    columns = estimator._text_reader.columns
    return {**facts, **({} if columns is None else {"columns": ", ".join(columns)})}


def _table(title: str, rows: Mapping) -> str:
    lines = [
        f"| {_inline(name)} | {f'{value:.4f}' if isinstance(value, float) else _inline(value)} |"
        for name, value in rows.items()
    ]
    return "\n".join([f"## {title}\n", "| | |", "| --- | --- |", *lines, ""])


def _inline(value) -> str:
    """Return a value as text of one line without Markdown or HTML."""
    text = " ".join(str(value).split())[:300]
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
