"""GLiClassClassifier."""

from numbers import Real

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context, clone
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .base import BaseGLiClass
from .building import starts_from_own_weights
from .inputs import TextReader
from .model.lookup import OWN_LOGIT_OFFSET
from .model.scorers import DOT_PRODUCT_SCORERS
from .targets import (
    MULTI,
    PROBLEM_TYPES,
    SINGLE,
    class_sample_weight,
    decision_values,
    known_classes,
    label_texts,
    logits_to_log_probabilities,
    logits_to_probabilities,
    read_class_targets,
    read_thresholds,
    zero_shot_classes,
)
from .training import RLTrainer, RLTrainerConfig
from .training.centroids import LABEL_CENTROID_SHARE, can_draw, draw_labels


class GLiClassClassifier(ClassifierMixin, BaseGLiClass):
    """Text classifier that reads the names of the labels together with the text.

    One model serves full training sets, a few examples a class, and several kinds of y: single-label,
    multi-label (indicator matrix) and soft labels (rows of probabilities).

    Parameters
    ----------
    pretrained : str, optional
        GLiClass checkpoint to start from, a folder or a name on the Hugging Face hub: every `fit` begins with
        its weights. Its configuration holds; what is set here besides wins where the weights allow it, and
        raises where they don't.
    encoder_model : str, optional
        Encoder to start from, as it is: a folder, or a name on the Hugging Face hub. Default, without
        `encoder_config`: "sentence-transformers/all-MiniLM-L6-v2", which the extra ``minilm`` installs; classifiers
        start from what this package has trained it to, which knows which names fit a text: with names alone from
        there, before training from half way.
    encoder_config : dict, optional
        Build the encoder from scratch instead: a transformers configuration with its "model_type". A
        tokenizer is trained on the texts of `fit`; "vocab_size" bounds it.
    label_model_name, label_model_config : str, dict, optional
        The label encoder of the bi-encoders, in the same two ways. Default: the text
        encoder, see `tie_encoders`.
    class_token_index, text_token_index : int, default=-1
        Ids of the control tokens ``<<LABEL>>`` and ``<<SEP>>``; -1: what the tokenizer gives them. An encoder that
        does not know them reads the word "label" and its own separator in their places at first, or where it has
        none the mean of its tokens.
    ignore_index : int, default=-100
        In a multi-label y, the value that marks an unknown label, which takes no part in the loss.
    hidden_size : int, optional
        Width inside the projectors. Default: the encoder's hidden size, twice that with
        ``projector_init="identity"``.
    projector_hidden_act : str, default="gelu"
        Activation of the projectors (a transformers name).
    vocab_size : int, optional
        Rows of the encoder's token embeddings; only a value that agrees with the encoder is accepted.
    problem_type : str, optional
        "single_label_classification", "multi_label_classification" or "regression". Default: inferred from y;
        a y that does not fit raises.
    max_num_classes : int or None, default=None
        Most labels in one prompt. With more classes, a training prompt holds the sample's own and random
        others, and prediction scores the labels in chunks. None: 25; with 40 rows a class or more, 200 for
        single-label y in the plain bi-encoder with the scorer "simple", where a batch shares its labels; of a
        checkpoint its own. Regression reads all its outputs at once, and a value raises there.
    use_lstm : bool, default=False
        A bidirectional LSTM over the text's token states before pooling.
    initializer_range : float, default=0.03
        Standard deviation of the initial weights of the heads.
    scorer_type : {"simple", "weighted-dot", "mlp", "hopfield", "cross-attn"}, default="simple"
        How text and label become a logit: dot product, MLPs over combinations of both, a Hopfield retrieval,
        or attention of the label to the text's tokens (with ``pooling_strategy="pass"``).
    scorer_num_heads : int, default=16
        Attention heads of "cross-attn".
    scorer_mlp_hidden_size : int, optional
        Width of the scorer's MLP. Default: 256 in "mlp" and "hopfield", 1024 in "cross-attn".
    scorer_attn_dropout : float, default=0.1
        Attention dropout of "cross-attn".
    pooling_strategy : str, default="avg"
        How token states become one vector: "max", "first", "last", "avg", "sum", "rms", "abs_max", "abs_avg";
        "pass" keeps all for "cross-attn". The checkpoints' own default is "first"; sentence encoders such as
        MiniLM were trained with the mean.
    class_token_pooling : {"first", "average"}, default="first"
        A label's state in a prompt: that of its ``<<LABEL>>`` token, or the mean over its tokens.
    focal_loss_alpha, focal_loss_gamma : float, default=0.5, 2
        Multi-label: weight of the positives (negative: none) and focus on hard labels.
    focal_loss_reduction : {"mean", "sum", "none"}, optional
        Multi-label: "sum" adds the losses of the labels up, anything else averages them.
    logit_scale_init_value : float, optional
        Initial factor of the logits, which is trained. Default: 20 for classes by normalised features, whose
        scores are small; otherwise, and in the fused architecture, the checkpoints' own 2.6592.
    normalize_features : bool, default=True
        L2-normalise text and label before the scorer, as sentence encoders are used. The checkpoints' own
        default is False.
    extract_text_features : bool, default=False
        Pool the text's part of a sequence with a prompt only.
    contrastive_loss_coef : float, default=0
        Weight of a loss that pushes the labels apart.
    text_contrastive_loss_coef : float, default=1.0
        Weight of a loss that pulls the texts of one class together in a batch (supervised contrastive learning);
        single-label only.
    architecture_type : str, default="bi-encoder"
        "uni-encoder" (text and labels in one sequence), "bi-encoder" (apart), "bi-encoder-fused" (label
        embeddings in the text's sequence), "encoder-decoder" (labels in the decoder). The checkpoints' own
        default is "uni-encoder", which needs GLiClass pretraining to learn from few examples.
    prompt_first : bool, default=False
        The label prompt stands before the text.
    squeeze_layers : bool, default=False
        Read a learnt weighting of all encoder layers.
    layer_wise : bool, default=False
        Train the heads on every encoder layer.
    encoder_layer_id : int, default=-1
        Encoder layer to read; 0 is the embedding layer, -1 the last.
    embed_class_token : bool, default=True
        False: a label's state in a prompt leaves its ``<<LABEL>>`` token out.
    dropout : float, default=0.1
        Dropout of the heads.
    tie_encoders : bool or None, default=None
        Bi-encoders: one encoder reads texts and labels, which halves the weights to train. None: so, unless
        `label_model_name` or `label_model_config` asks for another label encoder.
    projector_init : {"identity", "normal"}, default="identity"
        How the projectors start: as the identity, so that the model begins with what the encoder knows about
        texts and labels that lie near each other, or at random, as in the checkpoints' own training. With
        "identity" the scorer "weighted-dot" starts as the dot product that "simple" is. The scorers "mlp",
        "hopfield" and "cross-attn" start at random either way: they end in an MLP that adds features up, and the
        products of text and label that a dot product consists of are not among these.
    lr : float, default=1e-4
        Peak learning rate of the encoders.
    others_lr : float, "auto" or None, default="auto"
        Peak learning rate of everything else. "auto": 5e-4, with ``freeze_encoder=True`` 3e-4; None: `lr`.
    weight_decay, others_weight_decay : float, default=0.01, 0.0
        Weight decay of the encoders' matrices and of the others; biases and norms have none.
    optim : str, default="adamw_torch"
        Optimiser, by its name in transformers.
    max_epochs : int, optional
        Passes over the data; 0 trains nothing. Default: as many as give 48 optimiser steps per square root of
        the number of batches (for one batch 48, for ten 152, for a hundred 480), 3 at least; with
        ``freeze_encoder=True`` half as many again.
    batch_size : int, optional
        Samples in a forward pass of the training. Default: 32, of fewer than 96 samples a third, and 16 at least.
    gradient_accumulation_steps : int, default=1
        Forward passes per optimiser step.
    lr_scheduler_type : str, default="linear"
        Schedule of the rates after the warm-up, by its name in transformers.
    warmup_ratio : float, default=0.1
        Share of the steps in which the rates rise.
    max_grad_norm : float, optional, default=1.0
        Gradients are scaled down to this norm; None: never.
    cache_dir : str, optional
        Where models from the hub are kept. Default: the Hugging Face cache.
    max_length : int, optional
        Most tokens of a sequence; longer texts are cut at the end, with a warning, labels never. Default: the
        encoder's limit; of a sentence encoder what it was trained for (256 for all-MiniLM-L6-v2).
    label_names : dict or list, optional
        What the model reads for each label: {label: text}, or texts in the order of the labels.
    text_template : str or callable, optional
        How a row of a table becomes a text: a format string with column names, or a function of a dict.
        Default: ``"column: value"`` for each cell that is not missing.
    shuffle_labels : bool, default=True
        Put the labels of a training prompt in random order.
    freeze_encoder : bool, "embeddings" or int, default=False
        True: the encoders stay as they are. They run once over the texts of `fit`, and the heads (projectors,
        scorer, LSTM, layer attention, logit scale) train on the stored states, in seconds. With the scorer
        "simple", and where texts and labels share a sequence or a decoder, all labels take part in each step;
        in prompts they then stand in their order, `max_num_classes` at a time. In the bi-encoders the label
        encoder's projector stays as it is too, for its output is kept with the states; so does the next one in
        "bi-encoder-fused", which stands before the encoder. "embeddings" freezes the encoders' embeddings alone,
        n these and the first n layers: what is left is trained as usual.
    memory : str, Path or joblib.Memory, optional
        Folder in which encoder states are kept, for `predict`, `transform` and, with ``freeze_encoder=True``,
        `fit`: a text is encoded once, whatever the number of folds, candidates and processes. An encoder that
        `fit` trains has new weights afterwards, so its states serve further predictions of that model alone.
        About 1.5 MB for 1,000 texts with all-MiniLM-L6-v2; with `use_lstm` or "cross-attn" as much for each
        token. Deleting the folder is always safe.
    early_stopping : bool, default=False
        Hold rows back, stop when their loss does not fall, and restore the best weights.
    validation_fraction : float, default=0.1
        Share of the rows that `early_stopping` holds back; where each row has one class, one of each or more.
    n_iter_no_change : int, default=3
        Epochs without a better validation loss after which `early_stopping` stops.
    warm_start : bool, default=False
        `fit` goes on from the fitted model instead of starting anew.
    callbacks : list, optional
        skorch callbacks. Scoring callbacks see class indices, or standardised values; an ``LRScheduler``
        takes the place of `lr_scheduler_type`.
    device : str, default="auto"
        Where to compute; "auto": a GPU if there is one.
    dtype : {"float32", "bfloat16", "float64"}, default="float32"
        Precision; "bfloat16" is mixed precision.
    max_batch_tokens : int, default=2048
        Most tokens, padding included, in a batch of the prediction.
    ewc_lambda : float, default=0.0
        Elastic weight consolidation in `partial_fit` and warm starts: how strongly weights that earlier data depend
        on hold on to their values; 0: not at all. Set it before the first `fit`, which measures what its data
        depend on (a backward pass for each of 256 rows). Useful values differ with the data: try powers of 10.
    rl : RLTrainerConfig, optional
        `fit` goes on with reinforcement learning after the supervised epochs (``max_epochs=0``: none), for
        ``rl.max_epochs``; what it maximises are the rewards. `partial_fit` stays supervised.
    reward_components : dict or list of (name, function) pairs, optional
        Rewards of `rl`, which are added up: a function of probabilities, labels given, true labels and the mask of
        known ones, tensors of shape (n, n_classes), returns rewards of shape (n, 1). Default: F1 of each text. See
        :class:`RLTrainer` and ``sklearn_gliclass.training.rewards``.
    value_model : torch.nn.Module, fitted regressor or callable, optional
        In `rl`, what reward is to be expected of a text; see :class:`RLTrainer`. Default: the batch's mean.
    reference_model : fitted GLiClassClassifier, (GLiClassModel, tokenizer) or callable, optional
        In `rl`, whose probabilities the model should stay near to, as ``rl.kl_beta`` says; see :class:`RLTrainer`.
    verbose : int, default=0
        1: progress bars while fits and long predictions run.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the data and dropout.
    class_weight : {"balanced"}, dict or None, default=None
        Weights of the classes in the loss. Multi-label: of each class's positives; "balanced" gives the
        positives and the negatives of each class the same total.
    label_centroid_share : float, optional
        Single-label: after the training each label's state moves so far, from 0 to 1, to the mean of its class's
        texts. `partial_fit`, and warm starts with `ewc_lambda`, move none. Default: 0.5 where labels are points
        beside the texts', in the architecture "bi-encoder" with the scorer "simple", and 0 elsewhere, where it can't
        be done.
    threshold : float or array-like of shape (n_classes,), default=0.5
        Multi-label: probability from which on a label is predicted; a text without any is "none of these".

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes; multi-label: names of the columns of y.
    label_names_ : list of str
        What the model reads for each class.
    model_ : GLiClassModel
        The torch model.
    config_ : GLiClassModelConfig
        Its configuration, with everything resolved: sizes, ids of the control tokens, `max_num_classes`,
        `logit_scale_init_value`, `tie_encoders`, `problem_type`.
    tokenizer_ : PreTrainedTokenizerFast
        The text's tokenizer.
    label_tokenizer_ : PreTrainedTokenizerFast or None
        The label encoder's tokenizer in the bi-encoders.
    net_ : Trainer
        The skorch net that trained the model.
    rl_net_ : RLTrainer
        The skorch net of `rl`; not stored by pickle.
    history_ : skorch.history.History
        Losses, durations and learning rates per epoch; those of `rl` come last, with rewards and more.
    n_iter_ : int
        Epochs trained.
    ewc_ : dict
        What `ewc_lambda` holds on to: "fisher" and "anchor" by name of weight, and "n_rows"; not saved in folders.
    training_args_ : TrainingArguments
        What the training loop was told, with everything resolved: `max_epochs`, `batch_size` and `others_lr` are the
        numbers that None stood for. `partial_fit` leaves it as the first training has set it.
    label_centroid_share_ : float
        `label_centroid_share`, or what None stood for.
    max_length_ : int
        Most tokens of a sequence: `max_length`, or what None stood for.
    logit_offset_ : float
        What is taken from each logit: not 0 in multi-label zero-shot work from the package's own weights alone, where
        it makes 0.5 the probability at which a label is as likely to hold as not.
    n_features_in_ : int
        Columns of the table in `fit`; only for tables.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names; only where all are strings.

    See Also
    --------
    GLiClassRegressor : The same for numbers.

    References
    ----------
    Stepanov et al., "GLiClass: Generalist Lightweight Model for Sequence Classification Tasks", 2025,
    https://arxiv.org/abs/2508.07662

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.testing import TINY     # a tiny encoder from scratch; leave out for MiniLM
    >>> texts = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"]
    >>> clf = GLiClassClassifier(**TINY, random_state=0)
    >>> clf.fit(texts, ["sports", "politics", "sports", "politics"]).predict(["a late goal"])
    array(['sports'], dtype='<U8')
    >>> clf.predict_proba(["a late goal"]).shape
    (1, 2)

    Without examples, on the weights that the extra ``minilm`` installs:

    >>> clf = GLiClassClassifier().fit(None, ["sports", "politics"])
    >>> clf.predict(["parliament votes on the budget today"])
    array(['politics'], dtype='<U8')
    """

    _parameter_constraints: dict = {
        **BaseGLiClass._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, "array-like", None],
        "label_centroid_share": [Interval(Real, 0, 1, closed="both"), None],
        "threshold": [Interval(Real, 0, 1, closed="both"), dict, "array-like"],
        "rl": [RLTrainerConfig, None],
        "reward_components": [dict, list, tuple, None],
        "value_model": [HasMethods("predict"), callable, None],
        "reference_model": [HasMethods("predict_proba"), callable, tuple, None],
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
        ignore_index=-100,
        hidden_size=None,
        projector_hidden_act="gelu",
        vocab_size=None,
        problem_type=None,
        max_num_classes=None,
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
        logit_scale_init_value=None,
        normalize_features=True,
        extract_text_features=False,
        contrastive_loss_coef=0,
        text_contrastive_loss_coef=1.0,
        architecture_type="bi-encoder",
        prompt_first=False,
        squeeze_layers=False,
        layer_wise=False,
        encoder_layer_id=-1,
        embed_class_token=True,
        dropout=0.1,
        tie_encoders=None,
        projector_init="identity",
        lr=1e-4,
        others_lr="auto",
        weight_decay=0.01,
        others_weight_decay=0.0,
        optim="adamw_torch",
        max_epochs=None,
        batch_size=None,
        gradient_accumulation_steps=1,
        lr_scheduler_type="linear",
        warmup_ratio=0.1,
        max_grad_norm=1.0,
        cache_dir=None,
        max_length=None,
        label_names=None,
        text_template=None,
        class_weight=None,
        label_centroid_share=None,
        threshold=0.5,
        shuffle_labels=True,
        freeze_encoder=False,
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
        rl=None,
        reward_components=None,
        value_model=None,
        reference_model=None,
        verbose=0,
        random_state=None,
    ):
        self._set_hyperparameters(locals())

    def __sklearn_clone__(self):
        # Models that give advice are used as they are: a clone of a fitted one would not be fitted.
        return (
            super().__sklearn_clone__().set_params(value_model=self.value_model, reference_model=self.reference_model)
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        # scikit-learn measures accuracy on clouds of numbers, which are no texts.
        tags.classifier_tags.poor_score = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train on texts and their classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts, or a table whose rows become texts.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            One class per sample; or 0 and 1 for each class (multi-label); or rows of probabilities. With
            ``X=None`` the classes themselves: nothing is trained, the model judges by their names
            (zero-shot). ``problem_type="multi_label_classification"`` makes these independent of each other.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples; 0 leaves a row out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Missing texts, fewer than two classes, two classes with one label text, a continuous y, or
            hyperparameters that exclude each other.
        """
        if X is None:
            return self._fit_zero_shot(y)
        return self._fit(X, y, sample_weight)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one more epoch; weights and optimiser are kept.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.
        classes : array-like of shape (n_classes,), optional
            All classes, in the first call; default: those of `y`.

        Returns
        -------
        self
        """
        fitted = getattr(self, "classes_", None)
        known = fitted if classes is None else known_classes(classes, fitted)
        return self._fit(X, y, sample_weight, known, epochs=1)

    def _fit(self, X, y, sample_weight, classes=None, epochs=None):
        self._check_rl()
        texts, weight, rows = self._read_training_rows(X, sample_weight, more=epochs is not None)
        if y is not None:
            check_consistent_length(texts, y)
        problem_type = self.problem_type
        if epochs is not None and hasattr(self, "model_"):
            problem_type = PROBLEM_TYPES[self._y_kind]  # of the first fit
        targets = read_class_targets(y, problem_type, self.ignore_index, classes)
        if classes is not None:
            targets = targets.reorder(self.classes_) if hasattr(self, "classes_") else targets.sort_classes()
        if len(rows) < len(texts):
            targets = targets.take(rows, keep_classes=classes is not None).check_classes()
            texts, weight = [texts[row] for row in rows], weight[rows]
        names = label_texts(self.label_names, targets.classes)
        self.classes_ = targets.classes
        self.logit_offset_ = 0.0
        self._y_kind = targets.kind
        weight = class_sample_weight(targets, self.class_weight, weight)
        stratify = targets.array if targets.kind == SINGLE else None
        return self._fit_model(texts, targets, names, weight, stratify, epochs)

    def _check_rl(self):
        """What only reinforcement learning reads raises without it."""
        if self.rl is not None:
            self.rl.validate()
            return
        for name in ("reward_components", "value_model", "reference_model"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is read by reinforcement learning alone, and rl is None; set rl=RLTrainerConfig(), or "
                    f"leave {name}=None."
                )

    def _check_model(self, config):
        """What moves labels raises where labels can't be moved."""
        share, can = self.label_centroid_share, can_draw(config)
        if share and not can:
            raise ValueError(
                f"label_centroid_share={share!r} has no effect here: labels can be moved where y is single-label, "
                'architecture_type="bi-encoder" and scorer_type="simple", and this model has '
                f"problem_type={config.problem_type!r}, architecture_type={config.architecture_type!r}, "
                f"scorer_type={config.scorer_type!r}. Leave label_centroid_share=None."
            )
        self.label_centroid_share_ = (LABEL_CENTROID_SHARE if can else 0.0) if share is None else float(share)

    def _settle(self, train):
        if self.label_centroid_share_ and len(self.net_.history):
            draw_labels(self.net_, train, self.label_centroid_share_)

    def _reinforces(self):
        return self.rl is not None

    def _reinforce(self, train, valid, seed):
        if not self._reinforces():
            return
        self.rl_net_ = RLTrainer(
            self.model_,
            clone(self.rl),
            valid,
            self.dtype,
            seed,
            reward_components=self.reward_components,
            value_model=self.value_model,
            reference_model=self.reference_model,
            callbacks=list(self.callbacks or []),
            progress=bool(self.verbose),
            device=str(self.model_.device),
        ).initialize()
        self.rl_net_.history = self.net_.history
        self.rl_net_.callbacks_ += [entry for entry in self.net_.callbacks_ if entry[0] == "ewc"]
        self.rl_net_.partial_fit(train)

    def _fit_zero_shot(self, labels):
        classes = zero_shot_classes(labels, type(self).__name__)
        self._check_knows_labels()
        self.classes_ = classes
        self._text_reader = TextReader(None, None, False, False)
        self._y_kind = MULTI if self.problem_type == PROBLEM_TYPES[MULTI] else SINGLE
        self.label_names_ = label_texts(self.label_names, self.classes_)
        calibrated = self._y_kind == MULTI and starts_from_own_weights(self, PROBLEM_TYPES[MULTI])
        self.logit_offset_ = OWN_LOGIT_OFFSET if calibrated else 0.0
        self._start(self.label_names_, PROBLEM_TYPES[self._y_kind])
        return self

    def _check_knows_labels(self):
        """Random heads judge at random: zero-shot needs weights, or the start that compares text and label."""
        similarity = (
            self.encoder_config is None
            and self.label_model_config is None
            and self.architecture_type == "bi-encoder"
            and self.projector_init == "identity"
            and self.scorer_type in DOT_PRODUCT_SCORERS
            and not self.use_lstm
            and not self.squeeze_layers
        )
        if self.pretrained is None and not similarity:
            raise ValueError(
                "fit(None, labels) trains nothing, and these hyperparameters start from random weights; set "
                "pretrained to a GLiClass checkpoint, or leave encoder_config, label_model_config, architecture_type, "
                "projector_init, use_lstm and squeeze_layers at their defaults and choose scorer_type from "
                f"{sorted(DOT_PRODUCT_SCORERS)}."
            )

    def decision_function(self, X):
        """Logits.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the second's logit minus the first's; above 0 means ``classes_[1]``.
        """
        return decision_values(self._logits(X), self._y_kind)

    def predict_proba(self, X):
        """Probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`. Rows sum to 1; multi-label: each class for itself.
        """
        return logits_to_probabilities(self._logits(X), self._y_kind)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities, of shape (n_samples, n_classes).

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return logits_to_log_probabilities(self._logits(X), self._y_kind)

    def predict(self, X):
        """The classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            The likeliest class; multi-label: an indicator matrix (n_samples, n_classes) of the classes whose
            probability reaches `threshold`.
        """
        check_is_fitted(self, ("model_", "label_names_"))
        if self._y_kind == MULTI:
            return (self.predict_proba(X) >= read_thresholds(self.threshold, self.classes_)).astype(np.int64)
        return self.classes_[self._logits(X).argmax(axis=1)]
