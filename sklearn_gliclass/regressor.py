"""GLiClassRegressor."""

import warnings
from numbers import Real

import numpy as np
from sklearn.base import RegressorMixin, _fit_context, clone
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length

from .base import CUT_TEXTS, BaseGLiClass
from .targets import label_texts, read_regression_targets

# With fewer rows their halves say nothing of the shrinkage, and more are not needed to find it.
MIN_SHRINKAGE_ROWS, MAX_SHRINKAGE_ROWS = 20, 256
MIN_SHRINKAGE = 0.1  # keeps the order of the predictions, where none at all would be nearer to y


class GLiClassRegressor(RegressorMixin, BaseGLiClass):
    """Text regressor: each output is a label whose logit is the value.

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
    batch_size : int, default=16
        Samples in a forward pass of the training.
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
    shrinkage : float or "auto", default="auto"
        What the predictions' distance from the mean of y is multiplied by. A model that has learnt noisy values by
        heart spreads its predictions too wide: "auto" measures by how much. From 20 rows on, two models are first
        trained on half of the rows each (of 256 at most) and judge the other half, which takes about as long as a
        fit on the same rows; the slope of y on their predictions, between 0.1 and 1, is taken for each output. With
        fewer rows, in `partial_fit`, in warm starts and with ``max_epochs=0`` nothing is measured. 1: no shrinkage.
    verbose : int, default=0
        1: progress bars while fits and long predictions run.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the data and dropout.

    Attributes
    ----------
    label_names_ : list of str
        What the model reads for each output: `label_names`, else the columns of a DataFrame or the name of a
        Series, else "target".
    target_mean_, target_scale_ : ndarray of shape (n_outputs,)
        Mean and standard deviation of y; the model is trained on standardised values.
    shrinkage_ : ndarray of shape (n_outputs,)
        `shrinkage`, or what "auto" has measured.
    model_ : GLiClassModel
        The torch model.
    config_ : GLiClassModelConfig
        Its configuration, with everything resolved: sizes, ids of the control tokens, `logit_scale_init_value`,
        `tie_encoders`, `problem_type`.
    tokenizer_ : PreTrainedTokenizerFast
        The text's tokenizer.
    label_tokenizer_ : PreTrainedTokenizerFast or None
        The label encoder's tokenizer in the bi-encoders.
    net_ : Trainer
        The skorch net that trained the model.
    history_ : skorch.history.History
        Losses, durations and learning rates per epoch.
    n_iter_ : int
        Epochs trained.
    ewc_ : dict
        What `ewc_lambda` holds on to: "fisher" and "anchor" by name of weight, and "n_rows"; not saved in folders.
    training_args_ : TrainingArguments
        What the training loop was told, with everything resolved: `max_epochs`, `batch_size` and `others_lr` are the
        numbers that None stood for. `partial_fit` leaves it as the first training has set it.
    max_length_ : int
        Most tokens of a sequence: `max_length`, or what None stood for.
    n_features_in_ : int
        Columns of the table in `fit`; only for tables.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names; only where all are strings.

    See Also
    --------
    GLiClassClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassRegressor
    >>> from sklearn_gliclass.testing import TINY     # a tiny encoder from scratch; leave out for MiniLM
    >>> reg = GLiClassRegressor(**TINY, random_state=0).fit(["good", "bad", "so so"], [1.0, -1.0, 0.0])
    >>> reg.predict(["good", "bad"]).shape
    (2,)
    """

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
        shrinkage="auto",
        verbose=0,
        random_state=None,
    ):
        self._set_hyperparameters(locals())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # scikit-learn measures the score on clouds of numbers, which are no texts.
        tags.regressor_tags.poor_score = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train on texts and their values.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts, or a table whose rows become texts.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Values, in any unit.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples; 0 leaves a row out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Missing texts or values, or hyperparameters that exclude each other.
        """
        return self._fit(X, y, sample_weight)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one more epoch; weights, optimiser and the units of y are kept.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, epochs=1)

    def _fit(self, X, y, sample_weight, epochs=None):
        if self.problem_type not in (None, "regression"):
            raise ValueError(
                f"problem_type={self.problem_type!r} is not for GLiClassRegressor; use GLiClassClassifier, or leave "
                "problem_type=None."
            )
        texts, weight, rows = self._read_training_rows(X, sample_weight, more=epochs is not None)
        if y is not None:
            check_consistent_length(texts, y)
        earlier = {}
        if epochs is not None and hasattr(self, "target_mean_"):
            earlier = {"names": self._output_names, "one_dimensional": self._one_dimensional}
        targets = read_regression_targets(y, weight, **earlier)
        if epochs is not None and hasattr(self, "target_mean_"):
            targets = targets.rescale(self.target_mean_, self.target_scale_)
        if len(rows) < len(texts):
            targets, texts, weight = targets.take(rows), [texts[row] for row in rows], weight[rows]
        self.target_mean_, self.target_scale_ = targets.mean, targets.scale
        self._output_names = targets.names
        self._one_dimensional = targets.one_dimensional
        names = label_texts(self.label_names, targets.names)
        self.shrinkage_ = self._find_shrinkage(texts, targets, names, weight, epochs)
        return self._fit_model(texts, targets, names, weight, None, epochs)

    def _find_shrinkage(self, texts, targets, names, weight, epochs) -> np.ndarray:
        if self.shrinkage != "auto":
            return np.full(len(names), float(self.shrinkage))
        none = np.ones(len(names))
        if self._keeps_model(epochs):
            return getattr(self, "shrinkage_", none)
        if epochs is not None or self.max_epochs == 0 or len(texts) < MIN_SHRINKAGE_ROWS:
            return none
        return self._measure_shrinkage(texts, targets, names, weight)

    def _measure_shrinkage(self, texts, targets, names, weight) -> np.ndarray:
        """The slope of each output on what models have predicted that were trained without the row."""
        rows = check_random_state(self.random_state).permutation(len(texts))[:MAX_SHRINKAGE_ROWS]
        predicted = np.empty((len(rows), len(names)))
        with warnings.catch_warnings():  # the fit on all rows will tell of the texts that are cut
            warnings.filterwarnings("ignore", message=CUT_TEXTS)
            for train, test in KFold(2).split(rows):
                seen, unseen = rows[train], [texts[row] for row in rows[test]]
                half = clone(self).set_params(warm_start=False, ewc_lambda=0.0)
                half._fit_model([texts[row] for row in seen], targets.take(seen), names, weight[seen], None)
                predicted[test] = half._engine().logits(unseen)
        weighted = predicted * weight[rows, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = (weighted * targets.array[rows]).sum(axis=0) / (weighted * predicted).sum(axis=0)
        return np.clip(np.nan_to_num(slopes, nan=1.0), MIN_SHRINKAGE, 1.0)

    def predict(self, X):
        """The values.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_outputs) where y was 2-D
            In the units of y.
        """
        values = self._logits(X).astype(np.float64) * self.shrinkage_ * self.target_scale_ + self.target_mean_
        return values[:, 0] if self._one_dimensional else values
