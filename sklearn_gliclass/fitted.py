"""Model, tokenizers and labels of a fitted estimator, in one object."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from .cache.engine import StateEngine
from .cache.labels import LabelCache
from .cache.store import find_location
from .containers import plain
from .data.batching import label_chunks
from .data.examples import NO_INSTRUCTIONS, Instructions
from .data.prompt import LAYOUTS, Layout, find_unknown_labels
from .data.tokenizer import PieceTokenizer
from .exceptions import LabelNamesWarning
from .in_context import NearestExamples
from .inference import InferenceEngine
from .label_fit import LabelFit
from .model.fingerprint import copy_with_fingerprint, keep_hooks
from .model.traversal import collect_parameters
from .process_group import active_group
from .sklearn_internals import validate_parameter_constraints
from .warn import warn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .model import GLiClassModel, GLiClassModelConfig
    from .training.adapters import Adapters
    from .training.trainer import Trainer


@dataclass
class FittedModel:
    """Model with its tokenizers, label texts and maximum sequence length.

    The torch model of a fitted estimator is never trained: further training changes a copy of it, which replaces it at
    the end. So predictions in other threads, and the results of `with_labels`, which share it, see no training.

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
    adapters : Adapters or None
        Low-rank adapters of the encoders, merged into the weights of the model.
    label_fit : LabelFit or None
        What a training has fitted the label projector to; other labels are read without it.
    label_cache : LabelCache
        Cached label embeddings for further predictions.
    """

    model: GLiClassModel
    tokenizer: PreTrainedTokenizerFast
    label_tokenizer: PreTrainedTokenizerFast | None
    label_names: list[str]
    max_length: int
    adapters: Adapters | None = None
    label_fit: LabelFit | None = None
    label_cache: LabelCache = field(default_factory=LabelCache, init=False, repr=False, compare=False)
    _example_cache: LabelCache = field(default_factory=LabelCache, init=False, repr=False, compare=False)
    _cached_layout: tuple = field(default=(None, None), init=False, repr=False, compare=False)

    @property
    def config(self) -> GLiClassModelConfig:
        """Configuration of the model."""
        return self.model.config

    @functools.cached_property
    def _pieces(self) -> tuple[PieceTokenizer, PieceTokenizer]:
        pieces = PieceTokenizer(self.tokenizer)
        same = self.label_tokenizer is None or self.label_tokenizer is self.tokenizer
        return pieces, pieces if same else PieceTokenizer(self.label_tokenizer)

    def layout(self, label_names: Sequence[str] | None = None, instructions: Instructions = NO_INSTRUCTIONS) -> Layout:
        """Build the layout of the sequences of some labels.

        Parameters
        ----------
        label_names : sequence of str, optional
            Label texts. If None, those of the fitted model, whose layout is cached for further calls.
        instructions : Instructions, optional
            Task description and in-context examples.
        """
        if label_names is not None:
            return self._build_layout(label_names, instructions)
        source = (self.config, tuple(self.label_names), self.max_length, instructions)
        known, layout = self._cached_layout
        if known is None or known[0] is not source[0] or known[1:] != source[1:]:
            layout = self._build_layout(self.label_names, instructions)
            self._cached_layout = (source, layout)
        return layout

    def _build_layout(self, label_names: Sequence[str], instructions: Instructions = NO_INSTRUCTIONS) -> Layout:
        pieces, label_pieces = self._pieces
        layout = LAYOUTS[self.config.architecture_type]
        if isinstance(instructions.examples, NearestExamples):
            instructions = replace(instructions, examples=self._retrieval(instructions.examples))
        return layout(self.config, pieces, label_names, self.max_length, label_pieces, instructions)

    def _retrieval(self, nearest: NearestExamples):
        """Return the function that chooses the examples of texts by embeddings of the current weights."""
        layout, n_labels = self._build_layout(self.label_names), self.labels_per_prompt()
        dtype = "float64" if self.model.dtype == torch.float64 else "float32"

        def embed(texts):
            return InferenceEngine(self.model, layout, n_labels, dtype=dtype).embeddings(texts)

        def select(texts):
            pool = self._example_cache.get(
                [self.model], (nearest.texts, self.model.device), lambda: torch.from_numpy(embed(list(nearest.texts)))
            )
            return nearest.select(texts, pool.numpy(), embed)

        return select

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

    def check_labels(self, max_num_classes: int | None = None, instructions: Instructions = NO_INSTRUCTIONS) -> None:
        """Raise if the model cannot read the labels or their prompts leave no room for texts; warn of unknown words.

        Parameters
        ----------
        max_num_classes : int, optional
            See :meth:`labels_per_prompt`.
        instructions : Instructions, optional
            Task description and in-context examples.
        """
        self._check_scorer_knows_labels()
        layout = self.layout(instructions=instructions)  # raises for labels that are too long or have the same tokens
        at_once = None if layout.shares_labels else self.labels_per_prompt(max_num_classes)
        for chunk in label_chunks(len(self.label_names), at_once):
            layout.text_room(layout.prompt_length(chunk))
        warn_unknown_labels(layout)

    def _check_scorer_knows_labels(self) -> None:
        """Raise for new labels if the scorer has one hidden unit for each label of the fit, as "mlp" after a probe."""
        if self.config.scorer_type != "mlp" or self.label_fit is None:
            return
        new = list(itertools.compress(self.label_names, self.label_fit.is_new(self.label_names)))
        if new:
            raise ValueError(
                f'The scorer "mlp" knows the labels of its fit only, {list(self.label_fit.labels[:5])!r}, and not '
                f'{new[:5]!r}. Fit with scorer_type="simple", "weighted-dot" or "hopfield", which read new labels by '
                "their names, or call `fit` or `partial_fit` with texts of all labels."
            )

    def engine(
        self, max_num_classes=None, max_batch_tokens=2048, dtype=None, memory=None, verbose=0, separate_passes=False,
        instructions=NO_INSTRUCTIONS, long_texts="truncate", window_overlap=0,
    ) -> InferenceEngine:  # fmt: skip
        """Build the inference engine.

        Parameters
        ----------
        max_num_classes : int, optional
            Maximum number of labels in a prompt, as in :meth:`labels_per_prompt`.
        dtype : str, optional
            Floating point type. If None, that of the weights.
        max_batch_tokens, memory, verbose, long_texts, window_overlap
            Hyperparameters of the estimators.
        separate_passes : bool, default=False
            Whether encoders and heads run in separate passes, also without `memory`.
        instructions : Instructions, optional
            Task description and in-context examples.
        """
        location = find_location(memory)
        kind = functools.partial(StateEngine, location=location) if separate_passes or location else InferenceEngine
        dtype = dtype or ("float64" if self.model.dtype == torch.float64 else "float32")
        max_labels = self.labels_per_prompt(max_num_classes)
        layout = self.layout(instructions=instructions)
        return kind(
            self.model, layout, max_labels, max_batch_tokens, dtype, bool(verbose), label_cache=self.label_cache,
            long_texts=long_texts, window_overlap=plain(window_overlap), label_fit=self.label_fit,
        )  # fmt: skip

    def label_embeddings(self) -> torch.Tensor | None:
        """Return the projected label embeddings (labels, hidden) if labels may be read without a fit to others."""
        return None if self.label_fit is None else self.engine().label_embeddings().clone()

    def with_label_names(self, label_names: Sequence[str], max_length: int | None = None) -> FittedModel:
        """Return a fitted model with other labels and optionally another maximum length; the model is shared."""
        other = self._copy(self.model)
        other.label_names = list(label_names)
        other.max_length = self.max_length if max_length is None else max_length
        return other

    def _copy(self, model) -> FittedModel:
        other = copy.copy(self)  # shares the prepared tokenizers
        other.model, other.label_cache = model, LabelCache()
        other._example_cache, other._cached_layout = LabelCache(), (None, None)
        return other

    def with_model(self, model: GLiClassModel) -> FittedModel:
        """Return a fitted model with another torch model, for example one that an adapter or a compiler wraps.

        Parameters
        ----------
        model : GLiClassModel
            The torch model. Without parameters of the model before, it has no adapters and no label fit.
        """
        other = self._copy(model)
        if {id(p) for p in self.model.parameters()}.isdisjoint(id(p) for p in model.parameters()):
            other.adapters = other.label_fit = None
        return other

    def copy_for_training(self, net: Trainer | None = None) -> tuple[FittedModel, Trainer | None]:
        """Return copies of the fitted model and of its net, which are trained in place.

        Encoders that `freeze_encoder` has frozen share the memory of their weights until they are unfrozen.

        Parameters
        ----------
        net : Trainer, optional
            Net whose optimiser is kept.
        """
        memo: dict = {}  # one object may wrap another one with the same parameters, and LoRA layers hold layers
        keep_hooks(self.model, memo)
        frozen = {id(parameter) for parameter in getattr(self.model, "frozen_parameters", ())}
        for encoder in dict.fromkeys(self.model.encoder_modules()):
            # Callbacks may freeze and unfreeze others, while the optimiser has them.
            if frozen.issuperset(map(id, collect_parameters([encoder]))):
                copy_with_fingerprint(encoder, shares_weights=True, memo=memo)
        model, adapters = copy.deepcopy((self.model, self.adapters), memo)
        other = self._copy(model)
        other.adapters = adapters
        return other, None if net is None else net.copy_for_training(memo)


ENGINE_OPTIONS = (
    "max_num_classes", "max_batch_tokens", "dtype", "memory", "verbose", "long_texts", "window_overlap"
)  # fmt: skip


def engine_options(estimator) -> dict:
    """Return the hyperparameters of an estimator that :meth:`FittedModel.engine` takes, after their validation."""
    options = {name: getattr(estimator, name) for name in ENGINE_OPTIONS if hasattr(estimator, name)}
    validate_parameter_constraints(estimator._parameter_constraints, options, caller_name=type(estimator).__name__)
    return options if active_group().is_main else {**options, "verbose": 0}


def warn_unknown_labels(layout: Layout) -> None:
    """Warn of labels that consist of unknown tokens only."""
    unknown = find_unknown_labels(layout)
    if unknown:
        warn(
            f"The label(s) {unknown[:5]!r} consist of unknown tokens only, which have no meaning to the model. "
            "Give other texts with label_names, or choose an encoder_model for their language.",
            LabelNamesWarning,
        )
