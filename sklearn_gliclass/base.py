"""What both estimators share: hyperparameters, the way from texts to a trained model and to predictions."""

import functools
import math
from contextlib import nullcontext

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from skorch.callbacks import EarlyStopping
from skorch.history import History

from . import persistence
from .building import Start, build
from .configuration import hyperparameters_of
from .data.dataset import TextDataset
from .data.prompt import LAYOUTS
from .data.tokenizer import PieceTokenizer
from .fitted import FittedModel
from .frozen import StateEngine
from .inference import InferenceEngine
from .inputs import read_texts
from .memory import find_location
from .model.allocation import kept_memory
from .model.fingerprint import forget
from .model.freezing import freeze, is_whole
from .model.loading import resolve_max_length
from .model.lookup import find_checkpoint
from .model.precision import find_device, weight_dtype
from .parameters import CONSTRAINTS
from .training import arguments, ewc
from .training.arguments import TrainingArguments
from .training.trainer import Trainer
from .warn import warn

CUT_TEXTS = r"\d+ of \d+ texts are too long"  # how the warning begins, for those who filter it


class BaseGLiClass(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Hyperparameters and the fit/predict flow of both estimators."""

    _parameter_constraints: dict = CONSTRAINTS

    def _set_hyperparameters(self, arguments):
        """What a subclass's `__init__` does: its arguments, given as ``locals()``, become attributes as they are."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = False
        return tags

    @classmethod
    def from_config(cls, config, training_args=None, rl=None, **hyperparameters):
        """Build an unfitted estimator from GLiClass's configuration objects.

        Parameters
        ----------
        config : GLiClassModelConfig
            The model. What it says holds, also where the estimators' own defaults differ; what it has worked out
            by itself (ids of tokens, sizes) is worked out again by `fit`, and the problem is inferred from y where
            it has its default.
        training_args : TrainingArguments or transformers.TrainingArguments, optional
            The training loop; see :meth:`TrainingArguments.from_transformers`. Default: the estimators' defaults.
        rl : RLTrainerConfig, optional
            Reinforcement learning; classifiers only.
        **hyperparameters
            Further hyperparameters; they win.

        Returns
        -------
        estimator

        Raises
        ------
        TypeError, ValueError
            Objects of another kind, or fields that have no counterpart.

        Examples
        --------
        >>> from sklearn_gliclass import GLiClassClassifier, GLiClassModelConfig, TrainingArguments
        >>> config = GLiClassModelConfig(encoder_model="microsoft/deberta-v3-small", scorer_type="mlp")
        >>> clf = GLiClassClassifier.from_config(config, TrainingArguments(max_epochs=2))
        >>> clf.scorer_type, clf.architecture_type, clf.max_epochs
        ('mlp', 'uni-encoder', 2)
        """
        if rl is not None:
            hyperparameters["rl"] = rl
        return cls(**{**hyperparameters_of(config, training_args), **hyperparameters})

    # -- fit -------------------------------------------------------------------------------------------------

    def _read_training_rows(self, X, sample_weight, more=False):
        """Texts, their weights, and the rows that have one: a row of weight 0 counts as absent.

        `more`: X goes on from an earlier one and must have the same columns (`partial_fit`).
        """
        reset = not (more and hasattr(self, "model_"))
        texts = read_texts(self, X, reset=reset, text_template=self.text_template)
        weight = _check_sample_weight(sample_weight, np.empty((len(texts), 0)), ensure_non_negative=True)
        rows = np.flatnonzero(weight)
        if len(rows) == 0:
            raise ValueError("All sample weights are 0: there is nothing to fit; give at least one positive weight.")
        return texts, weight, rows

    def _fit_model(self, texts, targets, label_texts, sample_weight, stratify, epochs=None):
        """Build the model unless it is kept, and train it; the global random state is untouched.

        `epochs`: that many more epochs with the optimiser as it stands (`partial_fit`).
        """
        rng = check_random_state(self.random_state)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        keep = self._keeps_model(epochs)
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices), kept_memory():
            torch.manual_seed(seed)
            if not keep:
                rows_per_label = len(texts) / len(label_texts)
                start = build(self, [*texts, *label_texts], targets.problem_type, rows_per_label=rows_per_label)
            self._check_model((self.model_ if keep else start.model).config)
            if not keep:
                self._adopt(start)
            self.label_names_ = list(label_texts)
            self._train(texts, targets, sample_weight, stratify, seed, epochs, keep)
        return self

    def _keeps_model(self, epochs) -> bool:
        """Whether training goes on from the model that is there; `epochs`: those of `partial_fit`, else None."""
        return hasattr(self, "model_") and (self.warm_start or epochs is not None)

    def _start(self, label_texts, problem_type) -> None:
        """Build the model and train nothing."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._adopt(build(self, list(label_texts), problem_type, zero_shot=True))

    def _adopt(self, start: Start) -> None:
        """Take a model over, on the device and in the type of the hyperparameters."""
        self.model_ = start.model.to(find_device(self.device), weight_dtype(self.dtype)).eval()
        self.tokenizer_, self.label_tokenizer_ = start.tokenizer, start.label_tokenizer
        self._derive()

    def _derive(self) -> None:
        """Set what follows from the model and its tokenizers."""
        self.config_ = self.model_.config
        self.max_length_ = resolve_max_length(self.max_length, self.config_.encoder_config, self.tokenizer_)
        self._n_features_out = self.config_.encoder_width
        self._pieces = PieceTokenizer(self.tokenizer_)
        same = self.label_tokenizer_ is None or self.label_tokenizer_ is self.tokenizer_
        self._label_pieces = self._pieces if same else PieceTokenizer(self.label_tokenizer_)

    def _layout(self, label_texts):
        return LAYOUTS[self.config_.architecture_type](
            self.config_, self._pieces, label_texts, self.max_length_, self._label_pieces
        )

    def _labels_per_prompt(self) -> int | None:
        """Regression reads all of its outputs at once."""
        if self.config_.problem_type == "regression":
            return None
        return self.config_.max_num_classes if self.max_num_classes is None else self.max_num_classes

    def _train(self, texts, targets, sample_weight, stratify, seed, epochs, goes_on) -> None:
        layout = self._layout(self.label_names_)
        rows, valid_rows = self._split(len(texts), stratify, seed)

        def dataset(chosen):
            part = texts if chosen is None else [texts[row] for row in chosen]
            array, weight = (a if chosen is None else a[chosen] for a in (targets.array, sample_weight))
            tokens = layout.tokenize(part)
            return TextDataset(layout, tokens, _in_dtype(array, self.dtype), _in_dtype(weight, self.dtype),
                               len(self.label_names_), self._labels_per_prompt(), self.shuffle_labels,
                               part)  # fmt: skip

        train = dataset(rows)
        # The first labels stand for any: which of them share a prompt with a text differs from epoch to epoch.
        self._warn_of_cut(
            int(layout.is_cut(train.tokens.lengths, train.all_labels[: train.max_labels]).sum()), len(train)
        )
        valid = None if valid_rows is None else dataset(valid_rows)
        freeze(self.model_, self.freeze_encoder)
        frozen = is_whole(self.freeze_encoder)
        if frozen and (epochs or self.max_epochs != 0 or self._reinforces()):
            engine = self._engine(states=True)
            train, valid = (part if part is None else engine.freeze(part) for part in (train, valid))
        if epochs is None or not hasattr(self, "net_"):
            told = TrainingArguments(**{name: getattr(self, name) for name in arguments.FIELDS})
            self.training_args_ = told.resolve(len(train), heads_only=frozen)
            self.net_ = self._make_net(seed, valid)
            self.net_.initialize()
        self.net_.module_.train()
        with self._elastic(goes_on):
            self.net_.partial_fit(train, epochs=epochs)
            if epochs is None:
                if not (self.ewc_lambda and goes_on):  # else earlier data hold the labels
                    self._settle(train)
                self._reinforce(train, valid, seed)
        self._remember(train, seed)
        self.model_.eval()
        if not frozen:
            for module in self.model_.model.frozen_modules():
                forget(module)
        self.history_ = self.net_.history
        self.n_iter_ = len(self.history_)

    def _check_model(self, config) -> None:
        """What the model that is to be trained can't do raises: nothing, but for the classifier."""

    def _settle(self, train: TextDataset) -> None:
        """What `fit` does after the supervised epochs, before reinforcement: nothing, but for the classifier."""

    def _reinforces(self) -> bool:
        """Whether `fit` trains on after the supervised epochs."""
        return False

    def _reinforce(self, train: TextDataset, valid: TextDataset | None, seed: int) -> None:
        """What `fit` does after the supervised epochs: nothing, but for the classifier."""

    def _elastic(self, goes_on: bool):
        """A context in which weights that earlier data depend on are held back, where `ewc_lambda` says so."""
        if not goes_on:
            self.__dict__.pop("ewc_", None)
        if not self.ewc_lambda or not goes_on:
            return nullcontext()
        if not hasattr(self, "ewc_"):
            warn(
                f"ewc_lambda={self.ewc_lambda!r} protects nothing in this call: what the earlier data depend on was "
                "not measured, because ewc_lambda was 0 then or the estimator was loaded from a folder. Set "
                "ewc_lambda before the first fit."
            )
            return nullcontext()
        return ewc.elastic(self.net_, self.ewc_, self.ewc_lambda)

    def _remember(self, train: TextDataset, seed: int) -> None:
        """Measure what the data just trained on depend on, for later calls of `partial_fit`."""
        if not self.ewc_lambda:
            self.__dict__.pop("ewc_", None)
            return
        fisher = ewc.fisher_information(self.net_, train, seed)
        self.ewc_ = ewc.consolidate(getattr(self, "ewc_", None), fisher, self.model_, len(train))

    def _split(self, n_rows: int, stratify, seed: int):
        """Rows to train and to validate on; (None, None) means all to train."""
        if not self.early_stopping:
            return None, None
        self._check_split(n_rows, stratify)
        rows, valid_rows = train_test_split(
            np.arange(n_rows), test_size=self.validation_fraction, stratify=stratify, random_state=seed
        )
        return np.sort(rows), np.sort(valid_rows)

    def _check_split(self, n_rows: int, stratify) -> None:
        """Rows to train on and rows to hold back: of each class, or where rows have no class, any."""
        counts = np.array([n_rows]) if stratify is None else np.bincount(stratify)
        n_groups, of_each = np.count_nonzero(counts), "" if stratify is None else " of each class"
        if (counts == 1).any():
            classes = f" of {[self.label_names_[i] for i in np.flatnonzero(counts == 1)]}" if of_each else ""
            raise ValueError(
                f"early_stopping=True needs 2 rows{of_each} or more, some to train on and some to hold back, got only "
                f"1 row{classes}; give more rows, or set early_stopping=False."
            )
        n_valid = math.ceil(self.validation_fraction * n_rows)
        if n_groups <= n_valid <= n_rows - n_groups:
            return
        share = math.ceil(1000 * n_groups / n_rows) / 1000
        raise ValueError(
            f"early_stopping=True with validation_fraction={self.validation_fraction!r} holds {n_valid} of {n_rows} "
            f"rows back and trains on {n_rows - n_valid}, and each side needs {n_groups} or more"
            f"{of_each and ', one' + of_each}; "
            f"{f'raise it to at least {share:g}' if n_valid < n_groups else f'lower it below {1 - share:g}'}, or set "
            "early_stopping=False."
        )

    def _make_net(self, seed: int, valid=None) -> Trainer:
        callbacks = list(self.callbacks or [])
        if self.early_stopping:
            stop = EarlyStopping(monitor="valid_loss", patience=self.n_iter_no_change, load_best=True, sink=_silent)
            callbacks.append(("early_stopping", stop))
        return Trainer(
            self.model_,
            self.training_args_,
            valid,
            self.dtype,
            seed,
            callbacks=callbacks,
            progress=bool(self.verbose),
            device=str(self.model_.device),
        )

    def _warn_of_cut(self, n_cut: int, n_texts: int) -> None:
        if n_cut:
            warn(
                f"{n_cut} of {n_texts} texts are too long for max_length={self.max_length_} tokens beside the labels "
                "and were cut at the end."
            )

    # -- predict ---------------------------------------------------------------------------------------------

    def _engine(self, states=False) -> InferenceEngine:
        """Runs the model over texts; with `memory`, or where `states` are asked for, encoders and heads apart."""
        location = find_location(self.memory)
        kind = functools.partial(StateEngine, location=location) if states or location else InferenceEngine
        return kind(
            self.model_,
            self._layout(self.label_names_),
            self._labels_per_prompt(),
            self.max_batch_tokens,
            self.dtype,
            progress=bool(self.verbose),
        )

    def _logits(self, X) -> np.ndarray:
        """Logits (n_samples, n_labels) for the X of a prediction."""
        check_is_fitted(self, ("model_", "label_names_"))
        texts = read_texts(self, X, reset=False, text_template=self.text_template)
        engine = self._engine()
        logits = engine.logits(texts)
        self._warn_of_cut(engine.n_cut, len(texts))
        offset = getattr(self, "logit_offset_", 0.0)  # of classifiers; a checkpoint of another program has none
        return logits - offset if offset else logits

    def transform(self, X):
        """Pooled text embeddings.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table.

        Returns
        -------
        ndarray of shape (n_samples, hidden size of the encoder), float32
            The text as the encoder sees it, pooled, before the projector.
        """
        check_is_fitted(self, ("model_", "label_names_"))
        texts = read_texts(self, X, reset=False, text_template=self.text_template)
        engine = self._engine()
        embeddings = engine.embeddings(texts).astype(np.float32, copy=False)
        self._warn_of_cut(engine.n_cut, len(texts))
        return embeddings

    # -- save and load ---------------------------------------------------------------------------------------

    def save_pretrained(self, folder) -> None:
        """Write the fitted estimator as a checkpoint folder, which GLiClass models load from too.

        Parameters
        ----------
        folder : str or Path
            It is made where it does not exist. Written are ``config.json``, ``model.safetensors``, the
            tokenizer, ``label_tokenizer/`` for the bi-encoders, and ``estimator.json`` with hyperparameters,
            classes and units; nothing is pickled.
        """
        check_is_fitted(self, ("model_", "label_names_"))
        persistence.save_estimator(self, folder)

    @classmethod
    def from_pretrained(cls, source, **hyperparameters):
        """Load a checkpoint, ready to predict.

        Parameters
        ----------
        source : str or Path
            A folder of :meth:`save_pretrained` or of another GLiClass program, or a name on the hub.
        **hyperparameters
            Hyperparameters to set; they win over the stored ones where the weights allow it.

        Returns
        -------
        estimator
            With ``pretrained=source``: a further `fit` starts from the loaded weights. A checkpoint of another
            program knows no classes: give them with ``fit(None, labels)``.

        Raises
        ------
        OSError
            There is no such checkpoint.
        ValueError
            It was saved by another kind of estimator, or a hyperparameter does not fit its weights.
        """
        folder = find_checkpoint(str(source), hyperparameters.get("cache_dir"))
        return persistence.read_unchanged(folder, lambda: cls._load(folder, str(source), hyperparameters))

    @classmethod
    def _load(cls, folder, source, hyperparameters):
        record = persistence.read_estimator(folder, cls)
        record = record or {"hyperparameters": {}, "fitted": {}, "missing": [], "legacy": {}}
        persistence.check_given_again(record, hyperparameters)
        estimator = cls(**{**record["hyperparameters"], **hyperparameters, "pretrained": source})
        estimator._validate_params()
        estimator._adopt(build(estimator, [], persistence.problem_type(folder)))
        for name, value in {**record["fitted"], **record["legacy"]}.items():
            setattr(estimator, name, value)
        return estimator

    @property
    def fitted_(self):
        """What prediction runs, in one object."""
        check_is_fitted(self, ("model_",))
        names = getattr(self, "label_names_", None)
        return FittedModel(self.model_, self.tokenizer_, self.label_tokenizer_, names, self.max_length_)

    def __getstate__(self):
        state = dict(super().__getstate__())
        if "model_" not in state:
            return state
        for name in ("model_", "tokenizer_", "label_tokenizer_", "label_names_", "max_length_", "config_", "net_",
                     "rl_net_", "_pieces", "_label_pieces"):  # fmt: skip
            state.pop(name, None)
        if "history_" in state:
            state["history_"] = [dict(row) for row in state["history_"]]
        return {**state, "fitted": persistence.pack_fitted(self.fitted_)}

    def __setstate__(self, state):
        state = dict(state)
        packed = state.pop("fitted", None)
        super().__setstate__(state)
        if packed is None:
            return
        fitted = persistence.unpack_fitted(packed, self.device)
        self.model_, self.tokenizer_, self.label_tokenizer_ = fitted.model, fitted.tokenizer, fitted.label_tokenizer
        if fitted.label_names is not None:
            self.label_names_ = fitted.label_names
        self._derive()
        if hasattr(self, "history_"):
            self.history_ = History(self.history_)
            self.net_ = self._make_net(seed=0)
            self.net_.initialize()
            self.net_.history = self.history_


def _silent(*args, **kwargs) -> None:
    """Where skorch's callbacks would print."""


def _in_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return array.astype(np.float64 if dtype == "float64" else np.float32)
