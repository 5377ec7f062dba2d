"""Model, tokenizers and labels of a fitted estimator, in one object."""

from __future__ import annotations

import copy
import functools
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.utils._param_validation import validate_parameter_constraints

from .cache.engine import StateEngine
from .cache.labels import LabelCache
from .cache.store import find_location
from .containers import plain
from .data.batching import label_chunks
from .data.prompt import LAYOUTS, Layout, find_unknown_labels
from .data.tokenizer import PieceTokenizer
from .exceptions import LabelNamesWarning
from .inference import InferenceEngine
from .warn import warn

if TYPE_CHECKING:
    from .model import GLiClassModel, GLiClassModelConfig


@dataclass
class FittedModel:
    """Model with its tokenizers, label texts and maximum sequence length.

    Attributes
    ----------
    model : GLiClassModel
        The torch model, on its device.
    tokenizer : PreTrainedTokenizerFast
        Tokenizer of the texts.
    label_tokenizer : PreTrainedTokenizerFast or None
        Tokenizer of the label encoder; None without a label encoder.
    label_names : list of str or None
        Label texts; None for a checkpoint whose labels are not known yet.
    max_length : int
        Maximum number of tokens of a sequence.
    label_cache : LabelCache
        Cached label embeddings for further predictions.
    """

    model: GLiClassModel
    tokenizer: object
    label_tokenizer: object | None
    label_names: list[str] | None
    max_length: int
    label_cache: LabelCache = field(default_factory=LabelCache, init=False, repr=False, compare=False)
    _cached_layout: tuple = field(default=(None, None), init=False, repr=False, compare=False)
    # Weak references to all fitted models with this torch model, in one list of theirs; empty if there is one only.
    _sharers: list[weakref.ref] = field(default_factory=list, init=False, repr=False, compare=False)

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
        """Build the layout of the sequences of some labels.

        Parameters
        ----------
        label_names : sequence of str, optional
            Label texts. If None, those of the fitted model, whose layout is cached for further calls.
        """
        if label_names is not None:
            return self._build_layout(label_names)
        source = (self.config, tuple(self.label_names), self.max_length)
        known, layout = self._cached_layout
        if known is None or known[0] is not source[0] or known[1:] != source[1:]:
            layout = self._build_layout(self.label_names)
            self._cached_layout = (source, layout)
        return layout

    def _build_layout(self, label_names: Sequence[str]) -> Layout:
        pieces, label_pieces = self._pieces
        layout = LAYOUTS[self.config.architecture_type]
        return layout(self.config, pieces, label_names, self.max_length, label_pieces)

    def labels_per_prompt(self, max_num_classes: int | None = None) -> int | None:
        """Return the maximum number of labels in a prompt, or None for all of them.

        Parameters
        ----------
        max_num_classes : int, optional
            Hyperparameter of the estimators. If None, that of the model. Regression has all outputs in one prompt.
        """
        if self.config.problem_type == "regression":
            return None
        return self.config.max_num_classes if max_num_classes is None else plain(max_num_classes)

    def check_labels(self, max_num_classes: int | None = None) -> None:
        """Raise if the model cannot read the labels or their prompts leave no room for texts; warn of unknown words.

        Parameters
        ----------
        max_num_classes : int, optional
            See :meth:`labels_per_prompt`.
        """
        layout = self.layout()  # raises for labels that are too long or have the same tokens
        at_once = None if layout.shares_labels else self.labels_per_prompt(max_num_classes)
        for chunk in label_chunks(len(self.label_names), at_once):
            layout.sequence_lengths(np.ones(1, np.int64), chunk)
        warn_unknown_labels(layout)

    def engine(
        self, max_num_classes=None, max_batch_tokens=2048, dtype=None, memory=None, verbose=0, separate_passes=False
    ) -> InferenceEngine:
        """Build the inference engine.

        Parameters
        ----------
        max_num_classes : int, optional
            Maximum number of labels in a prompt, as in :meth:`labels_per_prompt`.
        dtype : str, optional
            Floating point type. If None, that of the weights.
        max_batch_tokens, memory, verbose
            Hyperparameters of the estimators.
        separate_passes : bool, default=False
            Whether encoders and heads run in separate passes, also without `memory`.
        """
        location = find_location(memory)
        kind = functools.partial(StateEngine, location=location) if separate_passes or location else InferenceEngine
        dtype = dtype or ("float64" if self.model.dtype == torch.float64 else "float32")
        max_labels = self.labels_per_prompt(max_num_classes)
        return kind(
            self.model, self.layout(), max_labels, max_batch_tokens, dtype, bool(verbose), label_cache=self.label_cache
        )

    def with_label_names(self, label_names: Sequence[str], max_length: int | None = None) -> FittedModel:
        """Return a fitted model with other labels and optionally another maximum length; the model is shared."""
        other = self._copy(self.model)
        other.label_names = list(label_names)
        other.max_length = self.max_length if max_length is None else max_length
        return other

    def _copy(self, model) -> FittedModel:
        other = copy.copy(self)  # shares the prepared tokenizers
        other.model, other.label_cache, other._sharers = model, LabelCache(), []
        return other

    def with_model(self, model: GLiClassModel) -> FittedModel:
        """Return a fitted model with another torch model, for example one that an adapter or a compiler wraps.

        Parameters
        ----------
        model : GLiClassModel
            The torch model. If it has parameters of the model before, it stays shared as that one was.
        """
        other = self._copy(model)
        if not {id(p) for p in self.model.parameters()}.isdisjoint(id(p) for p in model.parameters()):
            self.share_model(other)
        return other

    def share_model(self, other: FittedModel) -> None:
        """Record that another fitted model has the same torch model, for :meth:`unshare`.

        Parameters
        ----------
        other : FittedModel
            Result of :meth:`with_label_names` that is used beside this object.
        """
        with _sharing:
            living = [sharer for sharer in self._sharers if sharer() is not None] or [weakref.ref(self)]
            self._sharers[:] = [*living, weakref.ref(other)]
            other._sharers = self._sharers

    def unshare(self, keeps_model: bool) -> FittedModel:
        """Return a fitted model whose torch model no other one shares, so that it can be trained in place.

        Parameters
        ----------
        keeps_model : bool
            Whether this object keeps its torch model, as an optimiser with these parameters needs; the others then get
            a copy of it. If False, the result has the copy, and this object is not changed.
        """
        with _sharing:
            living = [sharer() for sharer in self._sharers]
            others = [other for other in living if other is not None and other is not self]
            if not others:
                return self
            if not keeps_model:
                return self._copy(copy.deepcopy(self.model))
            self._sharers = []
            group = [weakref.ref(other) for other in others]
            copies = {}  # of each model: one object may wrap another with the same parameters
            for other in others:
                if other.model not in copies:
                    copies[other.model] = copy.deepcopy(other.model)
                other.model, other._sharers = copies[other.model], group
            return self


_sharing = threading.Lock()


ENGINE_OPTIONS = ("max_num_classes", "max_batch_tokens", "dtype", "memory", "verbose")


def engine_options(estimator) -> dict:
    """Return the hyperparameters of an estimator that :meth:`FittedModel.engine` takes, after their validation."""
    options = {name: getattr(estimator, name) for name in ENGINE_OPTIONS if hasattr(estimator, name)}
    validate_parameter_constraints(estimator._parameter_constraints, options, caller_name=type(estimator).__name__)
    return options


def warn_unknown_labels(layout: Layout) -> None:
    """Warn of labels that consist of unknown tokens only."""
    unknown = find_unknown_labels(layout)
    if unknown:
        warn(
            f"The label(s) {unknown[:5]!r} consist of unknown tokens only, which have no meaning to the model. "
            "Give other texts with label_names, or choose an encoder_model for their language.",
            LabelNamesWarning,
        )
