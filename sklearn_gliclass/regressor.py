"""The regressor."""

from dataclasses import replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.model_selection import KFold

from .annotations import Array, Targets, Texts, Weights
from .base import BaseGLiClass
from .containers import EXPECTED_NUMBERS
from .docstrings import fill_docstring
from .fitted import engine_options
from .in_context import read_instructions
from .model.freezing import count_layers
from .process_group import active_group, data_parallel
from .samples import Samples
from .sklearn_internals import Interval, StrOptions, fit_context
from .snapshots import on_snapshot
from .targets import label_texts, read_regression_targets
from .training.ridge import MIN_SHRINKAGE
from .training.stages import FromRidge, Shrinkage, Supervised

if TYPE_CHECKING:
    from typing_extensions import Self

# With fewer rows, cross-validation does not estimate the shrinkage; with more, it is no more accurate.
MIN_SHRINKAGE_ROWS, MAX_SHRINKAGE_ROWS = 20, 256


@fill_docstring(batch_size="int or None, default=16", lr="float, default=2e-4")
class GLiClassRegressor(RegressorMixin, BaseGLiClass):
    """Text regressor that reads the names of the outputs together with the text.

    Each output is a label of the model, and the logit of a label is the standardised value of its output.

    Parameters
    ----------
    %(pretrained)s
    %(encoder_model)s
    %(encoder_config)s
    %(label_model_name, label_model_config)s
    %(class_token_index, text_token_index)s
    %(hidden_size)s
    %(projector_hidden_act)s
    %(vocab_size)s
    %(use_lstm)s
    %(initializer_range)s
    %(scorer_type)s
    %(scorer_num_heads)s
    %(scorer_mlp_hidden_size)s
    %(scorer_attn_dropout)s
    %(pooling_strategy)s
    %(class_token_pooling)s
    %(logit_scale_init_value)s
    %(normalize_features)s
    %(extract_text_features)s
    %(contrastive_loss_coef)s
    %(architecture_type)s
    %(prompt_first)s
    %(squeeze_layers)s
    %(layer_wise)s
    %(encoder_layer_id)s
    %(embed_class_token)s
    %(dropout)s
    %(tie_encoders)s
    %(projector_init)s
    %(use_segment_embeddings)s
    %(scorer_encoder_num_layers)s
    %(recurrent_steps)s
    %(recurrent_read_text)s
    %(lr)s
    %(others_lr)s
    %(weight_decay, others_weight_decay)s
    %(optim)s
    %(max_epochs)s
    %(batch_size)s
    %(gradient_accumulation_steps)s
    %(lr_scheduler_type)s
    %(warmup_ratio)s
    %(max_grad_norm)s
    %(cache_dir)s
    %(max_length)s
    %(long_texts)s
    %(window_overlap)s
    %(label_names)s
    %(text_template)s
    %(prompt)s
    %(shuffle_labels)s
    %(freeze_encoder)s
    %(lora_rank)s
    %(lora_alpha)s
    %(lora_target)s
    %(memory)s
    %(early_stopping)s
    %(validation_fraction)s
    %(n_iter_no_change)s
    %(warm_start)s
    %(callbacks)s
    %(device)s
    %(dtype)s
    %(max_batch_tokens)s
    %(ewc_lambda)s
    shrinkage : float or "auto", default="auto"
        Factor by which predictions are shrunk towards the mean of y, in (0, 1]; 1 does not shrink them. A model that
        overfits noisy values predicts too large a spread. If "auto", the slope of y on predictions for texts that were
        left out of the training, for each output, clipped to [0.1, 1].

        After a ridge regression (see `preset`), these are its leave-one-out predictions, which take no time. In other
        models with ``"auto"``, two more models are trained, each on one half of at most 256 rows, and predict the other
        half, which takes about as long as a fit on these rows. There, with fewer than 20 rows, with ``max_epochs=0``
        and in the first `partial_fit`, "auto" resolves to 1; warm starts and later calls of `partial_fit` keep the
        value.
    %(preset)s
    %(verbose)s
    %(random_state)s

    Attributes
    ----------
    label_names_ : list of str
        Text that the model reads for each output: its entry of `label_names`; without one, the column of a DataFrame
        or the name of a Series; without these, "target", or "target 0", "target 1" and so on for several outputs.
    target_mean_, target_scale_ : ndarray of shape (n_outputs,)
        Mean and standard deviation of y, by which it is standardised for the training.
    shrinkage_ : ndarray of shape (n_outputs,)
        Resolved value of `shrinkage` for each output.
    %(model_)s
    %(config_)s
    %(tokenizer_)s
    %(label_tokenizer_)s
    %(net_)s
    %(history_)s
    %(n_iter_)s
    %(ewc_)s
    %(freeze_encoder_)s
    %(training_args_)s
    %(max_length_)s
    %(n_features_in_)s
    %(feature_names_in_)s

    See Also
    --------
    GLiClassClassifier : Classifier with the same model.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassRegressor
    >>> from sklearn_gliclass.testing import TINY     # a tiny encoder, trained from scratch
    >>> reg = GLiClassRegressor(**TINY, random_state=0).fit(["good", "bad", "so so"], [1.0, -1.0, 0.0])
    >>> reg.predict(["good", "bad"]).shape
    (2,)
    """

    target_names_: list
    target_mean_: np.ndarray
    target_scale_: np.ndarray
    shrinkage_: np.ndarray
    _one_dimensional: bool
    _expected_y = EXPECTED_NUMBERS
    _parameter_constraints: dict = {
        **BaseGLiClass._parameter_constraints,
        "shrinkage": [Interval(Real, 0, 1, closed="right"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        pretrained=None,
        encoder_model=None,
        encoder_config=None,
        label_model_name=None,
        label_model_config=None,
        class_token_index=-1,
        text_token_index=-1,
        hidden_size=None,
        projector_hidden_act="gelu",
        vocab_size=None,
        use_lstm=False,
        initializer_range=0.03,
        scorer_type="simple",
        scorer_num_heads=16,
        scorer_mlp_hidden_size=None,
        scorer_attn_dropout=0.1,
        pooling_strategy="avg",
        class_token_pooling="first",
        logit_scale_init_value=None,
        normalize_features=True,
        extract_text_features=False,
        contrastive_loss_coef=0,
        architecture_type="bi-encoder",
        prompt_first=False,
        squeeze_layers=False,
        layer_wise=False,
        encoder_layer_id=-1,
        embed_class_token=True,
        dropout=None,
        tie_encoders=None,
        projector_init="identity",
        use_segment_embeddings=False,
        scorer_encoder_num_layers=2,
        recurrent_steps=1,
        recurrent_read_text=False,
        lr=2e-4,
        others_lr="auto",
        weight_decay=0.01,
        others_weight_decay=0.0,
        optim="adamw_torch",
        max_epochs=None,
        batch_size=16,
        gradient_accumulation_steps=1,
        lr_scheduler_type="linear",
        warmup_ratio=None,
        max_grad_norm=1.0,
        cache_dir=None,
        max_length=None,
        long_texts="auto",
        window_overlap=0,
        label_names=None,
        text_template=None,
        prompt=None,
        shuffle_labels=True,
        freeze_encoder="auto",
        lora_rank=None,
        lora_alpha=None,
        lora_target=None,
        memory=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=3,
        warm_start=False,
        callbacks=None,
        device="auto",
        dtype="float32",
        max_batch_tokens=2048,
        ewc_lambda=0.0,
        shrinkage="auto",
        preset="balanced",
        verbose=0,
        random_state=None,
    ):
        self.pretrained = pretrained
        self.encoder_model = encoder_model
        self.encoder_config = encoder_config
        self.label_model_name = label_model_name
        self.label_model_config = label_model_config
        self.class_token_index = class_token_index
        self.text_token_index = text_token_index
        self.hidden_size = hidden_size
        self.projector_hidden_act = projector_hidden_act
        self.vocab_size = vocab_size
        self.use_lstm = use_lstm
        self.initializer_range = initializer_range
        self.scorer_type = scorer_type
        self.scorer_num_heads = scorer_num_heads
        self.scorer_mlp_hidden_size = scorer_mlp_hidden_size
        self.scorer_attn_dropout = scorer_attn_dropout
        self.pooling_strategy = pooling_strategy
        self.class_token_pooling = class_token_pooling
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
        self.tie_encoders = tie_encoders
        self.projector_init = projector_init
        self.use_segment_embeddings = use_segment_embeddings
        self.scorer_encoder_num_layers = scorer_encoder_num_layers
        self.recurrent_steps = recurrent_steps
        self.recurrent_read_text = recurrent_read_text
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
        self.long_texts = long_texts
        self.window_overlap = window_overlap
        self.label_names = label_names
        self.text_template = text_template
        self.prompt = prompt
        self.shuffle_labels = shuffle_labels
        self.freeze_encoder = freeze_encoder
        self.lora_rank = lora_rank
        self.lora_alpha = lora_alpha
        self.lora_target = lora_target
        self.memory = memory
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype
        self.max_batch_tokens = max_batch_tokens
        self.ewc_lambda = ewc_lambda
        self.shrinkage = shrinkage
        self.preset = preset
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # scikit-learn's checks measure the score on random numeric features, which are not texts.
        tags.regressor_tags.poor_score = True
        return tags

    @data_parallel
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Texts, y: Targets, sample_weight: Weights = None) -> "Self":
        """Fit the regressor to texts and their values.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts, or a table whose rows become texts (see `text_template`).
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Finite numbers in any unit; they are standardised for the training.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples. A sample of weight 0 counts as absent.

        Returns
        -------
        GLiClassRegressor
            This regressor, fitted.

        Raises
        ------
        ValueError
            If texts or values are missing, or hyperparameters exclude each other.
        """
        return self._fit(X, y, sample_weight)

    @data_parallel
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Texts, y: Targets, sample_weight: Weights = None) -> "Self":
        """Train for one epoch on a batch of samples, from the current weights and with the same optimiser.

        The mean and standard deviation of the first `y` standardise those of later calls.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Finite numbers, as in :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples. A sample of weight 0 counts as absent.

        Returns
        -------
        GLiClassRegressor
            This regressor, fitted.
        """
        return self._fit(X, y, sample_weight, epochs=1)

    def _read(self, X, y, sample_weight, *, continues, epochs, classes):
        more = continues and epochs is not None
        texts, weight, rows, reader = self._read_rows(X, y, sample_weight, more)
        earlier = {"names": self.target_names_, "one_dimensional": self._one_dimensional} if continues else {}
        targets = read_regression_targets(y, weight, **earlier)
        if more:
            targets = targets.rescale(self.target_mean_, self.target_scale_)
        if len(rows) < len(texts):
            targets, texts, weight = targets.take(rows), [texts[row] for row in rows], weight[rows]
        names = label_texts(self.label_names, targets.names)
        attributes = {
            "target_names_": targets.names,
            "target_mean_": targets.mean,
            "target_scale_": targets.scale,
            "_one_dimensional": targets.one_dimensional,
            "_text_reader": reader,
            **reader.fitted_attributes,
        }
        instructions = read_instructions(self)
        return Samples(texts, targets.array, weight, names, targets.problem_type, instructions), attributes

    def _texts_of_saved(self, attributes: dict) -> list[str]:
        """Return the texts of `label_names` for the outputs of a saved regressor."""
        return label_texts(self.label_names, attributes["target_names_"])

    def _stages(self, config, recipe, *, continues, epochs):
        if recipe.from_probe:
            return [FromRidge(n_lower_layers=count_layers(recipe.freeze_encoder), scale=self.logit_scale_init_value)]
        return [Supervised(0 if epochs is None and self.max_epochs == 0 else epochs)]

    def _measure(self, samples, seed, *, continues, epochs):
        if self.shrinkage != "auto":
            return {}, []
        return {}, [Shrinkage(partial(self._resolve_shrinkage, samples, seed, continues, epochs))]

    def _training_attributes(self, fitted, run, ewc):
        n_outputs = len(fitted.label_names)
        given = run.shrinkage if self.shrinkage == "auto" else np.full(n_outputs, float(self.shrinkage))
        shrinkage = np.ones(n_outputs) if given is None else given
        return {**super()._training_attributes(fitted, run, ewc), "shrinkage_": shrinkage}

    def _resolve_shrinkage(self, samples, seed, continues, epochs) -> np.ndarray:
        if continues:
            return self.shrinkage_
        distinct = _merge_repeated(samples)
        if epochs is not None or self.max_epochs == 0 or len(distinct) < MIN_SHRINKAGE_ROWS:
            return np.ones(len(samples.label_names))
        return self._measure_shrinkage(distinct, seed)

    def _measure_shrinkage(self, samples, seed) -> np.ndarray:
        """Return the slope of each output on its cross-validated predictions."""
        samples = samples.take(np.random.RandomState(seed).permutation(len(samples))[:MAX_SHRINKAGE_ROWS])
        predicted = np.empty(samples.targets.shape)
        for train, test in KFold(2).split(predicted):
            fitted, _, _ = self._train(samples.take(train), seed, is_hidden=True)
            engine = fitted.engine(**engine_options(self), instructions=samples.instructions)
            predicted[test] = active_group().map_rows(engine.logits, samples.take(test).texts)
        weighted = predicted * samples.sample_weight[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = (weighted * samples.targets).sum(axis=0) / (weighted * predicted).sum(axis=0)
        return np.clip(np.nan_to_num(slopes, nan=1.0), MIN_SHRINKAGE, 1.0)

    @on_snapshot
    def predict(self, X: Texts) -> Array:
        """Predict the values.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_outputs) where y was 2-D
            Predicted values, in the units of y.
        """
        values = self._logits(X).astype(np.float64)  # standardised
        values = values * self.shrinkage_ * self.target_scale_ + self.target_mean_
        return values[:, 0] if self._one_dimensional else values


def _merge_repeated(samples: Samples) -> Samples:
    """Merge rows with equal text and values into one, with the sum of their weights, in the order of their content.

    A row of weight 2 and a duplicated row then give the same halves.
    """
    keys = [(text, *values) for text, values in zip(samples.texts, samples.targets.tolist(), strict=True)]
    distinct = sorted(set(keys))
    index = {key: number for number, key in enumerate(distinct)}
    place = np.array([index[key] for key in keys])
    weight = np.bincount(place, samples.sample_weight)
    texts, targets = [key[0] for key in distinct], np.array([key[1:] for key in distinct])
    return replace(samples, texts=texts, targets=targets, sample_weight=weight)
