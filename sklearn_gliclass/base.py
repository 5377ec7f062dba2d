"""What both estimators share: hyperparameters, their constraints, and the way from texts to a trained model."""

import copy
import inspect
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from skorch.callbacks import EarlyStopping

from .data.dataset import TextDataset
from .data.prompt import LAYOUTS
from .data.tokenizer import PieceTokenizer, load_tokenizer, train_tokenizer
from .inference import InferenceEngine
from .inputs import read_texts
from .model import GLiClassModel, GLiClassModelConfig
from .model.config import ARCHITECTURE_TYPES, BI_ENCODERS, CLASS_TOKEN_POOLINGS, PROJECTOR_INITS
from .model.loading import load_encoder, new_encoder, resolve_max_length
from .model.lookup import DEFAULT_ENCODER, find_checkpoint
from .model.losses import REDUCTIONS
from .model.poolings import NO_POOLING, POOLINGS
from .model.precision import DTYPES, find_device, weight_dtype
from .model.scorers import SCORERS
from .training import arguments
from .training.arguments import TrainingArguments
from .training.trainer import Trainer

# Hyperparameters that go into the model's configuration under their own names.
MODEL_PARAMETERS = (
    "class_token_index", "text_token_index", "ignore_index", "hidden_size", "projector_hidden_act", "vocab_size",
    "max_num_classes", "use_lstm", "initializer_range", "scorer_type", "scorer_num_heads", "scorer_mlp_hidden_size",
    "scorer_attn_dropout", "pooling_strategy", "class_token_pooling", "focal_loss_alpha", "focal_loss_gamma",
    "focal_loss_reduction", "logit_scale_init_value", "normalize_features", "extract_text_features",
    "contrastive_loss_coef", "architecture_type", "prompt_first", "squeeze_layers", "layer_wise", "encoder_layer_id",
    "embed_class_token", "dropout", "projector_init",
)  # fmt: skip

_fraction = Interval(Real, 0, 1, closed="left")
_positive = Interval(Integral, 1, None, closed="left")

MODEL_CONSTRAINTS = {
    "encoder_model": [str, None],
    "encoder_config": [dict, None],
    "label_model_name": [str, None],
    "label_model_config": [dict, None],
    "class_token_index": [Interval(Integral, -1, None, closed="left")],
    "text_token_index": [Interval(Integral, -1, None, closed="left")],
    "ignore_index": [Integral],
    "hidden_size": [_positive, None],
    "projector_hidden_act": [str],
    "vocab_size": [_positive, None],
    "problem_type": [
        StrOptions({"single_label_classification", "multi_label_classification", "regression"}),
        None,
    ],
    "max_num_classes": [Interval(Integral, 2, None, closed="left")],
    "use_lstm": ["boolean"],
    "initializer_range": [Interval(Real, 0, None, closed="left")],
    "scorer_type": [StrOptions(set(SCORERS))],
    "scorer_num_heads": [_positive],
    "scorer_mlp_hidden_size": [Interval(Integral, 2, None, closed="left"), None],
    "scorer_attn_dropout": [_fraction],
    "pooling_strategy": [StrOptions({*POOLINGS, NO_POOLING})],
    "class_token_pooling": [StrOptions(set(CLASS_TOKEN_POOLINGS))],
    "focal_loss_alpha": [Interval(Real, None, 1, closed="right")],
    "focal_loss_gamma": [Interval(Real, 0, None, closed="left")],
    "focal_loss_reduction": [StrOptions(set(REDUCTIONS)), None],
    "logit_scale_init_value": [Real],
    "normalize_features": ["boolean"],
    "extract_text_features": ["boolean"],
    "contrastive_loss_coef": [Interval(Real, 0, None, closed="left")],
    "architecture_type": [StrOptions(set(ARCHITECTURE_TYPES))],
    "prompt_first": ["boolean"],
    "squeeze_layers": ["boolean"],
    "layer_wise": ["boolean"],
    "encoder_layer_id": [Integral],
    "embed_class_token": ["boolean"],
    "dropout": [_fraction],
    "projector_init": [StrOptions(set(PROJECTOR_INITS))],
}

ESTIMATOR_CONSTRAINTS = {
    "max_length": [_positive, None],
    "label_names": [dict, "array-like", None],
    "text_template": [str, callable, None],
    "shuffle_labels": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [_positive],
    "warm_start": ["boolean"],
    "callbacks": [list, None],
    "device": [str],
    "dtype": [StrOptions(set(DTYPES))],
    "max_batch_tokens": [_positive],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}

# Options that only some architectures, scorers or problems read: set elsewhere, they raise.
_PROMPTED = ("uni-encoder", "bi-encoder-fused")
OPTION_READERS = {
    "prompt_first": (lambda c: c.architecture_type in _PROMPTED, "the text shares its sequence with the labels"),
    "extract_text_features": (lambda c: c.architecture_type in _PROMPTED, "the text shares its sequence with labels"),
    "class_token_pooling": (
        lambda c: c.architecture_type in ("uni-encoder", "encoder-decoder"),
        "label texts stand in a prompt",
    ),
    "embed_class_token": (
        lambda c: c.architecture_type in ("uni-encoder", "encoder-decoder"),
        "label texts stand in a prompt",
    ),
    "label_model_name": (lambda c: c.architecture_type in BI_ENCODERS, "there is a label encoder"),
    "label_model_config": (lambda c: c.architecture_type in BI_ENCODERS, "there is a label encoder"),
    "scorer_num_heads": (lambda c: c.scorer_type == "cross-attn", "scorer_type='cross-attn'"),
    "scorer_attn_dropout": (lambda c: c.scorer_type == "cross-attn", "scorer_type='cross-attn'"),
    "scorer_mlp_hidden_size": (
        lambda c: c.scorer_type in ("mlp", "hopfield", "cross-attn"),
        "scorer_type is 'mlp', 'hopfield' or 'cross-attn'",
    ),
    "focal_loss_alpha": (lambda c: c.problem_type == "multi_label_classification", "y is multi-label"),
    "focal_loss_gamma": (lambda c: c.problem_type == "multi_label_classification", "y is multi-label"),
    "focal_loss_reduction": (lambda c: c.problem_type == "multi_label_classification", "y is multi-label"),
}


class BaseGLiClass(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Hyperparameters and the fit/predict flow of both estimators."""

    _parameter_constraints: dict = {**MODEL_CONSTRAINTS, **arguments.CONSTRAINTS, **ESTIMATOR_CONSTRAINTS}

    def __init__(
        self,
        *,
        encoder_model=None,
        encoder_config=None,
        label_model_name=None,
        label_model_config=None,
        class_token_index=-1,
        text_token_index=-1,
        ignore_index=-100,
        hidden_size=None,
        projector_hidden_act="gelu",
        vocab_size=None,
        problem_type=None,
        max_num_classes=25,
        use_lstm=False,
        initializer_range=0.03,
        scorer_type="simple",
        scorer_num_heads=16,
        scorer_mlp_hidden_size=None,
        scorer_attn_dropout=0.1,
        pooling_strategy="avg",
        class_token_pooling="first",
        focal_loss_alpha=0.5,
        focal_loss_gamma=2,
        focal_loss_reduction=None,
        logit_scale_init_value=20.0,
        normalize_features=True,
        extract_text_features=False,
        contrastive_loss_coef=0,
        architecture_type="bi-encoder",
        prompt_first=False,
        squeeze_layers=False,
        layer_wise=False,
        encoder_layer_id=-1,
        embed_class_token=True,
        dropout=0.1,
        projector_init="identity",
        lr=5e-5,
        others_lr=5e-4,
        weight_decay=0.01,
        others_weight_decay=0.0,
        optim="adamw_torch",
        max_epochs=None,
        batch_size=16,
        gradient_accumulation_steps=1,
        lr_scheduler_type="linear",
        warmup_ratio=0.1,
        max_grad_norm=1.0,
        cache_dir=None,
        max_length=None,
        label_names=None,
        text_template=None,
        shuffle_labels=True,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=3,
        warm_start=False,
        callbacks=None,
        device="auto",
        dtype="float32",
        max_batch_tokens=2048,
        verbose=0,
        random_state=None,
    ):
        self.encoder_model = encoder_model
        self.encoder_config = encoder_config
        self.label_model_name = label_model_name
        self.label_model_config = label_model_config
        self.class_token_index = class_token_index
        self.text_token_index = text_token_index
        self.ignore_index = ignore_index
        self.hidden_size = hidden_size
        self.projector_hidden_act = projector_hidden_act
        self.vocab_size = vocab_size
        self.problem_type = problem_type
        self.max_num_classes = max_num_classes
        self.use_lstm = use_lstm
        self.initializer_range = initializer_range
        self.scorer_type = scorer_type
        self.scorer_num_heads = scorer_num_heads
        self.scorer_mlp_hidden_size = scorer_mlp_hidden_size
        self.scorer_attn_dropout = scorer_attn_dropout
        self.pooling_strategy = pooling_strategy
        self.class_token_pooling = class_token_pooling
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.focal_loss_reduction = focal_loss_reduction
        self.logit_scale_init_value = logit_scale_init_value
        self.normalize_features = normalize_features
        self.extract_text_features = extract_text_features
        self.contrastive_loss_coef = contrastive_loss_coef
        self.architecture_type = architecture_type
        self.prompt_first = prompt_first
        self.squeeze_layers = squeeze_layers
        self.layer_wise = layer_wise
        self.encoder_layer_id = encoder_layer_id
        self.embed_class_token = embed_class_token
        self.dropout = dropout
        self.projector_init = projector_init
        self.lr = lr
        self.others_lr = others_lr
        self.weight_decay = weight_decay
        self.others_weight_decay = others_weight_decay
        self.optim = optim
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.lr_scheduler_type = lr_scheduler_type
        self.warmup_ratio = warmup_ratio
        self.max_grad_norm = max_grad_norm
        self.cache_dir = cache_dir
        self.max_length = max_length
        self.label_names = label_names
        self.text_template = text_template
        self.shuffle_labels = shuffle_labels
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype
        self.max_batch_tokens = max_batch_tokens
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = False
        return tags

    # -- fit -------------------------------------------------------------------------------------------------

    def _read_training_rows(self, X, sample_weight):
        """Texts, their weights, and the rows that have one: a row of weight 0 counts as absent."""
        texts = read_texts(self, X, reset=True, text_template=self.text_template)
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
        keep = hasattr(self, "model_") and (self.warm_start or epochs is not None)
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            if not keep:
                self._build(texts, label_texts, targets.problem_type)
            self.label_names_ = list(label_texts)
            self._train(texts, targets, sample_weight, stratify, seed, epochs if keep else None)
        return self

    def _build(self, texts, label_texts, problem_type) -> None:
        """Set the tokenizers, the configuration and the untrained model."""
        encoder, self.tokenizer_ = self._text_encoder([*texts, *label_texts])
        label_encoder, self.label_tokenizer_ = self._label_encoder(encoder)
        config = self._model_config(encoder.config, label_encoder, problem_type)
        model = GLiClassModel(config, encoder, label_encoder)
        needed = max(config.class_token_index, config.text_token_index) + 1
        if config.architecture_type != "bi-encoder" and needed > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(needed)
        self._adopt(model)

    def _adopt(self, model: GLiClassModel) -> None:
        """Take a model over, on the device and in the type of the hyperparameters."""
        self.model_ = model.to(find_device(self.device), weight_dtype(self.dtype))
        self.config_ = model.config
        self.max_length_ = resolve_max_length(self.max_length, model.config.encoder_config, self.tokenizer_)
        self._make_pieces()
        self._n_features_out = model.config.encoder_width

    def _make_pieces(self) -> None:
        self._pieces = PieceTokenizer(self.tokenizer_)
        same = self.label_tokenizer_ is None or self.label_tokenizer_ is self.tokenizer_
        self._label_pieces = self._pieces if same else PieceTokenizer(self.label_tokenizer_)

    def _text_encoder(self, texts):
        """The encoder and its tokenizer: loaded, or new with a tokenizer trained on the texts."""
        whole = self.architecture_type == "encoder-decoder"
        if self.encoder_config is not None and self.encoder_model is None:
            return _encoder_from_scratch(self.encoder_config, texts, whole)
        folder = find_checkpoint(self.encoder_model or DEFAULT_ENCODER, self.cache_dir)
        encoder = load_encoder(folder, whole)
        if self.encoder_config is not None:
            raise ValueError(
                "encoder_model and encoder_config exclude each other: the first loads an encoder, the second builds "
                "one from scratch; set one to None."
            )
        return encoder, load_tokenizer(folder)

    def _label_encoder(self, encoder):
        """The bi-encoders' label encoder and tokenizer; without a name or config: a copy of the text encoder."""
        if self.architecture_type not in BI_ENCODERS:
            return None, None
        if self.label_model_name is not None and self.label_model_config is not None:
            raise ValueError("label_model_name and label_model_config exclude each other; set one to None.")
        if self.label_model_name is not None:
            folder = find_checkpoint(self.label_model_name, self.cache_dir)
            return load_encoder(folder), load_tokenizer(folder)
        if self.label_model_config is not None:
            return _new_with_tokenizer(self.label_model_config, self.tokenizer_), self.tokenizer_
        return copy.deepcopy(encoder), self.tokenizer_

    def _model_config(self, encoder_config, label_encoder, problem_type) -> GLiClassModelConfig:
        fields = {name: getattr(self, name) for name in MODEL_PARAMETERS}
        if self.projector_init == "identity" and self.hidden_size is None:
            fields["hidden_size"] = 2 * encoder_config.get_text_config().hidden_size
        pieces = PieceTokenizer(self.tokenizer_)
        for name, token in (("class_token_index", pieces.label_id), ("text_token_index", pieces.sep_id)):
            if fields[name] == -1:
                fields[name] = token
            elif fields[name] != token:
                raise ValueError(
                    f"{name}={fields[name]} is not the id that the tokenizer gives to its token, {token}; leave -1."
                )
        embeddings = encoder_config.get_text_config().vocab_size
        if fields["vocab_size"] not in (None, embeddings):
            raise ValueError(
                f"vocab_size={fields['vocab_size']} is not the encoder's, {embeddings}; leave None, or set vocab_size "
                "in encoder_config to bound a trained tokenizer."
            )
        config = GLiClassModelConfig(
            encoder_config=encoder_config,
            encoder_model=self.encoder_model or (DEFAULT_ENCODER if self.encoder_config is None else None),
            label_model_config=None if label_encoder is None else label_encoder.config,
            label_model_name=self.label_model_name,
            problem_type=problem_type,
            **fields,
        )
        self._check_options_are_read(config)
        return config

    def _check_options_are_read(self, config) -> None:
        """An option that this model has no use for raises, if it was set."""
        defaults = _defaults(type(self))
        for name, (is_read, where) in OPTION_READERS.items():
            value = getattr(self, name)
            if value != defaults[name] and not is_read(config):
                raise ValueError(
                    f"{name}={value!r} has no effect here: it is read where {where}, and this model has "
                    f"architecture_type={config.architecture_type!r}, scorer_type={config.scorer_type!r}, "
                    f"problem_type={config.problem_type!r}. Leave {name} at its default, {defaults[name]!r}."
                )

    def _layout(self, label_texts):
        return LAYOUTS[self.config_.architecture_type](
            self.config_, self._pieces, label_texts, self.max_length_, self._label_pieces
        )

    def _labels_per_prompt(self) -> int | None:
        """Regression reads all of its outputs at once."""
        return None if self.config_.problem_type == "regression" else self.max_num_classes

    def _train(self, texts, targets, sample_weight, stratify, seed, epochs) -> None:
        layout = self._layout(self.label_names_)
        rows, valid_rows = self._split(len(texts), stratify, seed)

        def dataset(chosen):
            part = texts if chosen is None else [texts[row] for row in chosen]
            array, weight = (a if chosen is None else a[chosen] for a in (targets.array, sample_weight))
            tokens = layout.tokenize(part)
            return TextDataset(layout, tokens, _in_dtype(array, self.dtype), _in_dtype(weight, self.dtype),
                               len(self.label_names_), self._labels_per_prompt(), self.shuffle_labels)  # fmt: skip

        train = dataset(rows)
        # The first labels stand for any: which of them share a prompt with a text differs from epoch to epoch.
        self._warn_of_cut(
            int(layout.is_cut(train.tokens.lengths, train.all_labels[: train.max_labels]).sum()), len(train)
        )
        valid = None if valid_rows is None else dataset(valid_rows)
        if epochs is None or not hasattr(self, "net_"):
            self.net_ = self._make_net(seed, valid)
            self.net_.initialize()
        self.net_.module_.train()
        self.net_.partial_fit(train, epochs=epochs)
        self.model_.eval()
        self.history_ = self.net_.history
        self.n_iter_ = len(self.history_)

    def _split(self, n_rows: int, stratify, seed: int):
        """Rows to train and to validate on; (None, None) means all to train."""
        if not self.early_stopping:
            return None, None
        rows, valid_rows = train_test_split(
            np.arange(n_rows), test_size=self.validation_fraction, stratify=stratify, random_state=seed
        )
        return np.sort(rows), np.sort(valid_rows)

    def _make_net(self, seed: int, valid=None) -> Trainer:
        callbacks = list(self.callbacks or [])
        if self.early_stopping:
            stop = EarlyStopping(monitor="valid_loss", patience=self.n_iter_no_change, load_best=True, sink=_silent)
            callbacks.append(("early_stopping", stop))
        self.training_args_ = TrainingArguments(**{name: getattr(self, name) for name in arguments.FIELDS})
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
            warnings.warn(
                f"{n_cut} of {n_texts} texts are too long for max_length={self.max_length_} tokens beside the labels "
                "and were cut at the end.",
                UserWarning,
                stacklevel=4,
            )

    # -- predict ---------------------------------------------------------------------------------------------

    def _engine(self) -> InferenceEngine:
        return InferenceEngine(
            self.model_,
            self._layout(self.label_names_),
            self._labels_per_prompt(),
            self.max_batch_tokens,
            self.dtype,
            progress=bool(self.verbose),
        )

    def _logits(self, X) -> np.ndarray:
        """Logits (n_samples, n_labels) for the X of a prediction."""
        check_is_fitted(self, "model_")
        texts = read_texts(self, X, reset=False, text_template=self.text_template)
        engine = self._engine()
        logits = engine.logits(texts)
        self._warn_of_cut(engine.n_cut, len(texts))
        return logits

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
        check_is_fitted(self, "model_")
        texts = read_texts(self, X, reset=False, text_template=self.text_template)
        engine = self._engine()
        embeddings = engine.embeddings(texts).astype(np.float32, copy=False)
        self._warn_of_cut(engine.n_cut, len(texts))
        return embeddings


def _silent(*args, **kwargs) -> None:
    """Where skorch's callbacks would print."""


def _defaults(estimator_class) -> dict:
    parameters = inspect.signature(estimator_class.__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "self"}


def _in_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return array.astype(np.float64 if dtype == "float64" else np.float32)


def _encoder_from_scratch(options: dict, texts, whole: bool):
    tokenizer = train_tokenizer(texts, options.get("vocab_size"))
    return _new_with_tokenizer(options, tokenizer, whole), tokenizer


def _new_with_tokenizer(options: dict, tokenizer, whole: bool = False):
    """An encoder with random weights and room for the tokenizer's vocabulary."""
    special = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = GLiClassModelConfig(encoder_config={**options, **special}).encoder_config
    return new_encoder(config, whole)
