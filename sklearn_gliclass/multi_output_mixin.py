"""The part of the classifier for several targets, each with classes of its own (multi-output classification)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.base import clone

from .building import build
from .class_values import by_class, by_target, class_keys
from .data.label_groups import LabelGroups, predict_outputs
from .fitted import warn_unknown_labels
from .in_context import read_instructions
from .inputs import UNSEEN
from .model.isolation import seed_torch
from .multi_output import (
    MultiOutputTargets,
    OutputColumns,
    find_output_columns,
    known_output_classes,
    output_label_texts,
    output_sample_weight,
    read_multi_output_targets,
    subset_accuracy,
)
from .targets import PROBLEM_TYPES, SINGLE, check_label_texts

if TYPE_CHECKING:
    from typing_extensions import Self

    from .annotations import ArrayOrList
    from .base import BaseGLiClass as _Estimator
    from .fitted import FittedModel
    from .training import RLTrainerConfig
else:
    _Estimator = object


class MultiOutputMixin(_Estimator):
    """Reading of a y with several targets, their labels and weights, and predictions for each of them.

    With several targets, `classes_` is a list with the classes of each, `target_names_` are their names, and
    `temperature_` is an array, by which the logits of each target are divided. The labels of the model are those of all
    targets, one target after the other.
    """

    classes_: ArrayOrList
    target_names_: list
    temperature_: Any
    # Hyperparameters and methods of the classifier.
    ignore_index: int
    label_names: Any
    label_separator: str | None
    problem_type: str | None
    class_weight: Any
    unknown_label: Any
    rl: RLTrainerConfig | None
    _kind: str
    _warn_numeric_classes: Callable[..., None]
    _check_knows_labels: Callable[[], None]
    _read_with_labels: Callable[..., tuple[FittedModel, dict]]
    _share_model: Callable[..., Self]

    @property
    def _has_several_targets(self) -> bool:
        return isinstance(getattr(self, "classes_", None), list)

    @property
    def _classes_by_target(self) -> dict:
        return dict(zip(self.target_names_, self.classes_, strict=True))

    @property
    def _groups(self) -> LabelGroups:
        return LabelGroups([len(classes) for classes in self.classes_])

    # -- fit -------------------------------------------------------------------------------------------------

    def _find_outputs(self, y, continues: bool) -> OutputColumns | None:
        """Return the columns of a y with several targets, or None for one target."""
        is_fitted = continues and hasattr(self, "classes_")
        outputs = find_output_columns(y, self.ignore_index, is_known=is_fitted and self._has_several_targets)
        if is_fitted and (outputs is None) is self._has_several_targets:
            fitted = f"the targets {self.target_names_!r}" if outputs is None else f"{self._kind} y"
            raise ValueError(
                f"The fitted model is for {fitted}, and this y has {'one target' if outputs is None else 'several'}: "
                "training cannot continue. Give a y as in the earlier fit, or set warm_start=False and call fit, which "
                "builds a new model."
            )
        if outputs is None:
            self._check_no_label_separator()
        else:
            self._check_allows_several_targets()
        return outputs

    def _check_no_label_separator(self) -> None:
        if self.label_separator is not None:
            raise ValueError(
                f"label_separator={self.label_separator!r} has no effect on one target: it joins the names of several "
                "targets and their classes. Leave label_separator=None."
            )

    def _check_allows_several_targets(self) -> None:
        if self.problem_type not in (None, PROBLEM_TYPES[SINGLE]):
            raise ValueError(
                f"problem_type={self.problem_type!r} does not match y, which has several targets with classes of their "
                "own; set problem_type=None, or give a 2-D indicator matrix of 0 and 1 for multi-label y."
            )
        if self.unknown_label is not None:
            raise ValueError(
                f"unknown_label={self.unknown_label!r} is the answer of one target, and there are several; leave "
                "unknown_label=None, or fit a classifier for each target."
            )
        if self.rl is not None:
            raise ValueError(
                "rl rewards the labels of one target, and y has several targets; set rl=None, or fit a classifier for "
                "each target."
            )

    def _read_outputs(self, outputs: OutputColumns, classes, is_known: bool) -> MultiOutputTargets:
        """Read the targets; `is_known` says whether they must be those of the fitted classifier."""
        fitted = self._classes_by_target if is_known else None
        known = fitted
        if classes is not None:
            known = known_output_classes(classes, list(fitted or outputs.names or range(len(outputs))), fitted)
        targets = read_multi_output_targets(outputs, known).check_classes()
        if fitted is not None:
            return targets.reorder(self.classes_)
        return targets if known is None else targets.sort_classes()

    def _describe_outputs(self, targets: MultiOutputTargets, weight, continues) -> tuple[np.ndarray, list[str], dict]:
        """Return the weights, the label texts and the fitted attributes of y."""
        weight = output_sample_weight(targets, self.class_weight, weight)
        names = self._output_label_texts(targets.by_target, continues)
        if not continues:
            self._warn_numeric_outputs(targets.by_target, names)
        return weight, names, self._output_attributes(targets.by_target, continues)

    def _output_label_texts(self, classes: dict, continues: bool) -> list[str]:
        """Return the label texts of all targets; without `label_names`, fitted classes keep theirs."""
        texts = self.label_names
        if texts is None and continues and self._has_several_targets:
            texts = {
                target: read
                for target, read in self._texts_by_target.items()
                if target in classes and set(class_keys(classes[target])) <= set(read)
            }
        return output_label_texts(classes, texts, self.label_separator)

    @property
    def _texts_by_target(self) -> dict:
        """Label text of each class of each target."""
        texts = iter(self.label_names_)
        return {
            target: {key: next(texts) for key in class_keys(classes)}
            for target, classes in self._classes_by_target.items()
        }

    def _output_attributes(self, classes: dict, continues: bool) -> dict:
        """Return the fitted attributes of several targets; those of an earlier fit keep their temperatures."""
        known = {}
        if continues and self._has_several_targets:
            known = dict(zip(self.target_names_, self.temperature_.tolist(), strict=True))
        usual = float(np.exp(np.mean(np.log(list(known.values()))))) if known else 1.0
        temperatures = np.array([known.get(target, usual) for target in classes])
        return {"classes_": list(classes.values()), "target_names_": list(classes), "temperature_": temperatures}

    @staticmethod
    def _describe_temperatures(run) -> dict:
        """Return the fitted attribute `temperature_` after a training, unless several targets keep theirs."""
        if run.train.groups is None:
            return {"temperature_": 1.0 if run.temperatures is None else float(run.temperatures[0])}
        return {} if run.temperatures is None else {"temperature_": run.temperatures}

    def _warn_numeric_outputs(self, classes: dict, texts: list[str]) -> None:
        """Warn of targets whose classes the model reads as numbers without the name of the target."""
        read = iter(texts)
        is_unnamed = list(classes) == list(range(len(classes)))
        for values in classes.values():
            own = [next(read) for _ in values]
            self._warn_numeric_classes(values if is_unnamed else own, self.label_names)

    # -- zero-shot -------------------------------------------------------------------------------------------

    def _fit_zero_shot_outputs(self, classes: dict, descriptions: dict):
        """Set up the zero-shot classification of several targets."""
        self._check_allows_several_targets()
        self._check_knows_labels()
        texts = self._described_texts(classes, descriptions, "fit(None, labels)")
        instructions = read_instructions(self, texts, texts)
        with seed_torch(0):
            fitted = build(self, texts, PROBLEM_TYPES[SINGLE], zero_shot=True)
        warn_unknown_labels(fitted.layout(instructions=instructions))
        self._warn_numeric_outputs(classes, texts)
        self._commit(fitted, {**self._output_attributes(classes, continues=False), "_text_reader": UNSEEN})
        return self

    def _described_texts(self, classes: dict, descriptions: dict, call: str) -> list[str]:
        if descriptions and self.label_names is not None:
            raise ValueError(
                f"{call} has descriptions in a dict, and label_names sets other texts for the labels; set "
                "label_names=None, or give the labels as lists."
            )
        return output_label_texts(classes, descriptions or self.label_names, self.label_separator, call)

    def _with_outputs(self, outputs: tuple[dict, dict] | None):
        """Return a fitted classifier on the same weights with other targets; see :meth:`with_labels`."""
        if outputs is None or not self._has_several_targets:
            fitted = f"the targets {self.target_names_!r}" if outputs is None else f"one target, {self._kind} y"
            takes = "{target: [class, ...]}" if outputs is None else "a list of classes or {class: description}"
            raise ValueError(f"with_labels takes {takes} here: the classifier was fitted on {fitted}.")
        classes, descriptions = outputs
        texts = self._texts_with_outputs(classes, descriptions)
        defaults = output_label_texts(classes, None, self.label_separator)
        read = iter(texts)
        names = {target: {key: next(read) for key in class_keys(values)} for target, values in classes.items()}
        other = cast("Self", clone(self)).set_params(
            label_names=None if texts == defaults else names, class_weight=self._class_weight_with_outputs(classes)
        )
        renamed = {
            text: names[target][key]
            for target, known in self._texts_by_target.items()
            for key, text in known.items()
            if key in names.get(target, {})
        }
        fitted, pool = self._read_with_labels(other, texts, texts, renamed)
        other._warn_numeric_outputs(classes, texts)
        return self._share_model(other, fitted, {**self._output_attributes(classes, continues=True), **pool})

    def _texts_with_outputs(self, classes: dict, descriptions: dict) -> list[str]:
        """Return the label texts of the targets of `with_labels`."""
        read = iter(output_label_texts(classes, descriptions, self.label_separator, "with_labels(labels)"))
        given = by_target(self.label_names or {}, self.target_names_, "label_names", "set of label texts")
        texts, keys = [], []
        for target, values in classes.items():
            known = {} if target in descriptions else self._texts_by_target.get(target, {})
            if target in given and target not in descriptions:
                known = {**by_class(given[target], self._classes_by_target[target], "label_names", "text"), **known}
            texts += [known.get(key, next(read)) for key in class_keys(values)]
            keys += class_keys(values)
        return check_label_texts(texts, keys, "with_labels(labels)")

    def _class_weight_with_outputs(self, classes: dict):
        """Return the `class_weight` for the targets of `with_labels`; other classes have the weight 1."""
        if self.class_weight is None or isinstance(self.class_weight, str):
            return self.class_weight
        weights = {}
        for target, own in by_target(self.class_weight, self.target_names_, "class_weight", "set of weights").items():
            if target in classes and own is not None:
                fitted = self._classes_by_target[target]
                known = own if isinstance(own, str) else by_class(own, fitted, "class_weight", "weight")
                keys = class_keys(classes[target])
                weights[target] = own if isinstance(own, str) else {k: known[k] for k in keys if k in known}
        return weights or None

    # -- predict ---------------------------------------------------------------------------------------------

    def _logits(self, X) -> np.ndarray:
        """Compute the logits (n_samples, n_labels) of X; those of several targets are divided by their temperatures."""
        logits = super()._logits(X)
        if not self._has_several_targets:
            return logits
        return logits / self.temperature_.astype(logits.dtype)[self._groups.target_of_label]

    def _convert(self, logits: np.ndarray, function):
        """Return ``function(logits, kind)``, or the list of its results for each target."""
        if not self._has_several_targets:
            return function(logits, self._kind)
        return [function(part, SINGLE) for part in self._groups.split(logits)]

    def _predict_outputs(self, logits: np.ndarray) -> np.ndarray:
        """Return the most probable class of each target, (n_samples, n_targets)."""
        return predict_outputs(self._groups.split(logits), self.classes_)

    def _score_outputs(self, X, y, sample_weight) -> float:
        """Compute the fraction of texts whose known targets are all predicted exactly."""
        indices = [part.argmax(axis=1) for part in self._groups.split(self._logits(X))]
        return subset_accuracy(y, indices, self._classes_by_target, sample_weight)
