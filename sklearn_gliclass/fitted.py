"""FittedModel: everything that prediction runs, in one object."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from sklearn.utils._param_validation import validate_parameter_constraints

from .cache.engine import StateEngine
from .cache.labels import LabelCache
from .cache.store import find_location
from .containers import plain
from .data.prompt import LAYOUTS, Layout, labels_of_unknown_tokens
from .data.tokenizer import PieceTokenizer
from .exceptions import LabelNamesWarning
from .inference import InferenceEngine
from .warn import warn

if TYPE_CHECKING:
    from .model import GLiClassModel, GLiClassModelConfig


@dataclass
class FittedModel:
    """A model with its tokenizers, the texts of its labels and the length of its sequences.

    Attributes
    ----------
    model : GLiClassModel
        The torch model, on its device.
    tokenizer : PreTrainedTokenizerFast
        The text's tokenizer.
    label_tokenizer : PreTrainedTokenizerFast or None
        The label encoder's tokenizer; None where there is no label encoder.
    label_names : list of str or None
        What the model reads for each label; None for a checkpoint whose labels are not known yet.
    max_length : int
        Most tokens of a sequence.
    label_cache : LabelCache
        Hidden states of the labels, kept between predictions.
    """

    model: GLiClassModel
    tokenizer: object
    label_tokenizer: object | None
    label_names: list[str] | None
    max_length: int
    label_cache: LabelCache = field(default_factory=LabelCache, init=False, repr=False, compare=False)
    _kept_layout: tuple = field(default=(None, None), init=False, repr=False, compare=False)

    @property
    def config(self) -> GLiClassModelConfig:
        """Configuration of the model."""
        return self.model.config

    @functools.cached_property
    def _pieces(self) -> tuple[PieceTokenizer, PieceTokenizer]:
        pieces = PieceTokenizer(self.tokenizer)
        same = self.label_tokenizer is None or self.label_tokenizer is self.tokenizer
        return pieces, pieces if same else PieceTokenizer(self.label_tokenizer)

    def layout(self, label_names: Sequence[str] | None = None) -> Layout:
        """Build the sequences of some labels.

        Parameters
        ----------
        label_names : sequence of str, optional
            Label texts. Default: those of the fitted model, whose layout is kept for further calls.
        """
        if label_names is not None:
            return self._build_layout(label_names)
        made_of = (self.config, tuple(self.label_names), self.max_length)
        known, layout = self._kept_layout
        if known is None or known[0] is not made_of[0] or known[1:] != made_of[1:]:
            layout = self._build_layout(self.label_names)
            self._kept_layout = (made_of, layout)
        return layout

    def _build_layout(self, label_names: Sequence[str]) -> Layout:
        pieces, label_pieces = self._pieces
        layout = LAYOUTS[self.config.architecture_type]
        return layout(self.config, pieces, label_names, self.max_length, label_pieces)

    def labels_per_prompt(self, max_num_classes: int | None = None) -> int | None:
        """Return the largest number of labels in a prompt, None for all of them.

        Parameters
        ----------
        max_num_classes : int, optional
            Hyperparameter of the estimators. Default: the model's own. Regression reads all of its outputs at once.
        """
        if self.config.problem_type == "regression":
            return None
        return self.config.max_num_classes if max_num_classes is None else plain(max_num_classes)

    def engine(
        self, max_num_classes=None, max_batch_tokens=2048, dtype=None, memory=None, verbose=0, apart=False
    ) -> InferenceEngine:
        """Build the engine that runs the model over texts.

        Parameters
        ----------
        max_num_classes : int, optional
            Most labels in a prompt. Default: the model's own. Regression reads all of its outputs at once.
        dtype : str, optional
            Precision. Default: that of the weights.
        max_batch_tokens, memory, verbose
            Hyperparameters of the estimators.
        apart : bool, default=False
            Run encoders and heads apart, also without `memory`.
        """
        location = find_location(memory)
        kind = functools.partial(StateEngine, location=location) if apart or location else InferenceEngine
        dtype = dtype or ("float64" if self.model.dtype == torch.float64 else "float32")
        max_labels = self.labels_per_prompt(max_num_classes)
        return kind(
            self.model, self.layout(), max_labels, max_batch_tokens, dtype, bool(verbose), label_cache=self.label_cache
        )

    def with_label_names(self, label_names: Sequence[str], max_length: int | None = None) -> FittedModel:
        """The same model and tokenizers with other labels, and optionally another length."""
        other = copy.copy(self)  # shares the prepared tokenizers
        other.label_cache = LabelCache()
        other.label_names = list(label_names)
        other.max_length = self.max_length if max_length is None else max_length
        return other


ENGINE_OPTIONS = ("max_num_classes", "max_batch_tokens", "dtype", "memory", "verbose")


def engine_options(estimator) -> dict:
    """Hyperparameters of an estimator that :meth:`FittedModel.engine` takes, checked: they may be set after `fit`."""
    options = {name: getattr(estimator, name) for name in ENGINE_OPTIONS if hasattr(estimator, name)}
    validate_parameter_constraints(estimator._parameter_constraints, options, caller_name=type(estimator).__name__)
    return options


def warn_of_unknown_labels(layout: Layout) -> None:
    """Warn of labels that the tokenizer knows no part of."""
    unknown = labels_of_unknown_tokens(layout)
    if unknown:
        warn(
            f"The tokenizer knows no part of the label(s) {unknown[:5]!r}: the model reads them as unknown tokens. "
            "Give other texts with label_names, or an encoder_model that knows their language.",
            LabelNamesWarning,
        )
