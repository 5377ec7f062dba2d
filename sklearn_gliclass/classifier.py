"""The classifier."""

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, clone
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from .abstention import Evidence, answer_unknown, check_unknown_label, resolve_unknown_threshold
from .annotations import Array, ArrayOrList, Targets, Texts, Weights
from .base import BaseGLiClass, is_fitted_attribute
from .building import build
from .candidate_labels import read_candidates
from .class_values import by_class, class_keys, class_text, order_columns, read_thresholds
from .containers import EXPECTED_CLASSES, as_container, plain_strings
from .docstrings import fill_docstring
from .exceptions import LabelNamesWarning
from .fitted import FittedModel, engine_options, warn_unknown_labels
from .in_context import NEAREST, read_instructions, training_examples
from .inputs import UNSEEN
from .label_lists import label_indicator, read_label_lists
from .model.freezing import count_layers, is_fully_frozen
from .model.isolation import seed_torch
from .model.scorers import DOT_PRODUCT_SCORERS, TOKEN_SCORERS
from .multi_output import output_label_texts, zero_shot_outputs
from .multi_output_mixin import MultiOutputMixin
from .parameters import CLASSIFICATION_CONSTRAINTS
from .process_group import active_group, data_parallel
from .samples import Samples
from .sklearn_internals import HasMethods, Interval, Options, StrOptions, fit_context
from .snapshots import on_snapshot
from .targets import (
    MULTI,
    PROBLEM_TYPES,
    SINGLE,
    class_sample_weight,
    decision_values,
    integer_classes_warning,
    known_classes,
    label_texts,
    logits_to_log_probabilities,
    logits_to_probabilities,
    read_candidate_targets,
    read_class_targets,
    zero_shot_classes,
)
from .training import RLTrainer, RLTrainerConfig
from .training.calibration import fit_temperatures, split_halves
from .training.prototypes import LABEL_CENTROID_SHARE, supports_prototypes
from .training.recipe import evidence_of, supports_probe
from .training.stages import Calibration, EvidenceMeasurement, FromProbe, Prototypes, Reinforcement, Supervised
from .warn import warn

if TYPE_CHECKING:
    from typing_extensions import Self

# Fitted attributes of a training, which `with_labels` leaves out.
TRAINING_ATTRIBUTES = ("net_", "rl_net_", "history_", "n_iter_", "training_args_")


@fill_docstring()
class GLiClassClassifier(ClassifierMixin, MultiOutputMixin, BaseGLiClass):
    """Text classifier that reads the names of the labels together with the text.

    One model serves zero-shot, few-shot and fully supervised classification, with several kinds of y: single-label,
    multi-label (indicator matrix, lists of labels), soft labels (rows of probabilities) and several targets with
    classes of their own (multi-output).

    Parameters
    ----------
    %(pretrained)s
    %(encoder_model)s
    %(encoder_config)s
    %(label_model_name, label_model_config)s
    %(class_token_index, text_token_index)s
    ignore_index : int, default=-100
        Value in a multi-label y that marks an unknown label. Unknown labels take no part in the loss.
    %(hidden_size)s
    %(projector_hidden_act)s
    %(vocab_size)s
    problem_type : {"single_label_classification", "multi_label_classification"} or None, default=None
        Type of the classification problem. If None, it is inferred from y: one class per sample and rows of
        probabilities are single-label, a matrix of 0 and 1 and lists of labels are multi-label, and columns of classes
        are one single-label problem each. A y of another type raises a ValueError.

        Set "multi_label_classification" for multi-label zero-shot classification, where there is no y to infer it
        from, and "single_label_classification" for one-hot rows.
    max_num_classes : int or None, default=None
        Maximum number of labels in a prompt. With more classes, a training prompt holds the labels of the sample and
        random other ones, and prediction scores the labels in chunks. If None, the value of the checkpoint
        `pretrained`. Without a checkpoint, 200 for single-label y with ``architecture_type="bi-encoder"`` and
        ``scorer_type="simple"`` if ``n_samples / n_classes >= 40`` or the training starts with a label probe (see
        `preset`), 200 for the scorer "hopfield" after a label probe, and 25 otherwise.

        A smaller number saves memory; a larger one contrasts each text with more wrong labels per optimiser step. The
        resolved value is ``config_.max_num_classes``.
    %(use_lstm)s
    %(initializer_range)s
    %(scorer_type)s
    %(scorer_num_heads)s
    %(scorer_mlp_hidden_size)s
    %(scorer_attn_dropout)s
    %(pooling_strategy)s
    %(class_token_pooling)s
    focal_loss_alpha, focal_loss_gamma : float or None, default=None
        Parameters of the focal loss of multi-label y, ``-alpha_t * (1 - p_t) ** gamma * log(p_t)``. Positives have the
        weight ``alpha`` and negatives ``1 - alpha``; a negative alpha disables the weighting. A larger gamma
        concentrates the loss on labels that are predicted badly. If None, -1 and 0 (binary cross-entropy) after a label
        probe (see `preset`), and 0.5 and 2 otherwise.

        Raise alpha if labels are rare and recall matters.
    focal_loss_reduction : {"mean", "sum", "none"} or None, default=None
        Reduction of the focal loss over the labels of multi-label y. "sum" adds the losses up; all other values average
        them.
    %(logit_scale_init_value)s
    %(normalize_features)s
    %(extract_text_features)s
    %(contrastive_loss_coef)s
    text_contrastive_loss_coef : float or None, default=None
        Weight of a supervised contrastive loss, which pulls the texts of one class together within a batch. It needs
        a y with one class per sample; that of several targets is the mean of their losses. With 0 there is no such
        loss. If None, 0 after a label probe (see `preset`), and 1 otherwise.
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

        With several targets, ``{target: {class: text}}``, or a list with one such entry per target. Targets without an
        entry have the texts that `label_separator` gives.
    label_separator : str or None, default=None
        Text between the name of a target and a class in the label text that the model reads, if y has several targets:
        with ": ", "mood: angry". Another y raises a ValueError if it is set. If None, the model reads the class alone,
        and ``"target: class"`` for the classes of a target that are all numbers or share a text with another target.

        The default measures best with the package's weights: names of targets in front of classes cost 2 points of
        zero-shot accuracy on average. "." gives the flattened label names of GLiClass's hierarchical labels.
    %(text_template)s
    %(prompt)s
    examples : list of dict, (texts, y), "nearest", callable or None, default=None
        In-context examples that the model reads after each text: ``[{"text": ..., "labels": [...]}, ...]`` with
        classes as labels, or texts with a y of classes or lists of classes. If "nearest", the `n_examples` texts of
        `fit` that are nearest to each text, by the cosine of the embeddings of :meth:`transform` without examples. A
        callable takes a list of texts and returns a list of such dicts for each. If None, there are none. With several
        targets, the labels of an example are texts of `label_names_`.

        Where the tokens do not suffice, the texts of examples are shortened first, to 8 tokens at least, then the
        text; labels never are. Use it with checkpoints that were trained with examples, and in training for labels
        that are clear from examples only. It needs another architecture than "bi-encoder".
    n_examples : int, default=3
        Number of examples for each text with ``examples="nearest"``; any other value than the default raises without.
    class_weight : {"balanced"}, dict, list or None, default=None
        Weights of the classes in the loss: ``{class: weight}``, or "balanced" for
        ``n_samples / (n_classes * np.bincount(y))``, where the counts are weighted by `sample_weight`. If None, all
        weights are 1. With multi-label y, a weight applies to the positives of its class; "balanced" gives the
        positives and the negatives of each class the same total weight. With several targets, ``{target: {class:
        weight}}`` or a list with one dict per target; a weight applies to the loss of its target only.

        Set it if rare classes matter.
    label_centroid_share : float or None, default=None
        Interpolation weight between each label's embedding and its class prototype (centroid), in [0, 1]. The prototype
        is the mean of the embeddings of the class's texts; after the training each label embedding is moved towards it.
        If None, 0.5 for single-label y with ``architecture_type="bi-encoder"`` and ``scorer_type="simple"``, unless
        the training starts with a label probe (see `preset`), and 0 otherwise. Values above 0 raise a ValueError with
        multi-label y, other architectures and other scorers.

        `partial_fit`, and warm starts with `ewc_lambda`, do not interpolate. Raise it if the label names say little
        about the classes; 0 keeps the label embeddings of the training.
    threshold : float or array-like of shape (n_classes,), default=0.5
        Decision threshold for multi-label y, in [0, 1]: `predict` assigns each label whose probability is at least
        this value. A text may have no label. An array gives each class its own threshold, in the order of `classes_`.

        Choose it on held-out rows with :class:`~sklearn_gliclass.plotting.ThresholdCurveDisplay`.
    unknown_label : str, number or None, default=None
        What `predict` answers for single-label y where no class fits: where :meth:`known_proba` is below
        `unknown_threshold`. It must be of the type of the classes and not be one of them. If None, `predict` answers
        the most probable class. With multi-label y, where a text may have no label, it raises a ValueError.

        Set it if texts may belong to none of the classes, for example to "none of these".
    unknown_threshold : float or "auto", default="auto"
        Threshold of :meth:`known_proba` for `unknown_label`, in (0, 1). If "auto", 0.5, whose place on the scale of
        the logits is determined by the training texts.

        Raise it if a wrong class costs more than no answer.
    calibrate : {"auto", "cv"} or False, default="auto"
        How the probabilities of single-label y are calibrated, by a temperature that the logits are divided by. If
        "auto", the logit scale of a label probe is estimated by cross-validation. Fine-tuning from one holds out
        ``min(0.1 * n_samples, 500)`` rows for the temperature from 1,000 rows on, and has the logit scale
        ``8.4 + 2.4 * log(n_classes)`` below; other models are not calibrated. If "cv", a model that is trained on half
        of the rows predicts the others, and the temperature that fits them best is used, which takes half as long
        again. If False, the logits of the training are used, and without training the calibrator of a checkpoint is
        not.

        Choose "cv" where probabilities are thresholds of decisions or are compared between data sets.
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
    rl : RLTrainerConfig or None, default=None
        Hyperparameters of reinforcement learning. In `fit`, it follows the supervised epochs for ``rl.max_epochs``
        epochs and maximises `reward_components`. If None, there is no reinforcement learning. `partial_fit` is always
        supervised.

        Use it for objectives that are not differentiable, such as precision at a high recall. ``max_epochs=0`` skips
        the supervised epochs.
    reward_components : dict, list of (name, function) pairs or None, default=None
        Reward functions of `rl`, whose sum is maximised. Each takes four tensors of shape (n, n_classes) -- the
        probabilities, the actions, the true labels and a mask of known labels -- and returns rewards of shape (n, 1).
        If None, the F1 score of each text. See :class:`RLTrainer` and ``sklearn_gliclass.training.rewards``.
    value_model : torch.nn.Module, fitted regressor, callable or None, default=None
        Predictor of the expected reward of a text in `rl`, which is subtracted from its reward; see :class:`RLTrainer`.
        If None, the mean reward of the batch.

        Set it if rewards differ much from text to text.
    reference_model : fitted GLiClassClassifier, (GLiClassModel, tokenizer), callable or None, default=None
        Reference policy of `rl`: a Kullback-Leibler penalty with the factor ``rl.kl_beta`` keeps the trained model
        close to its probabilities; see :class:`RLTrainer`. If None, there is no penalty.

        Set it to keep a good model from drifting if there are few texts.
    %(preset)s
    %(verbose)s
    %(random_state)s

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of ndarray
        Class labels in sorted order. With multi-label and soft y, the names or numbers of its columns; after a
        zero-shot fit, the labels in their order. With several targets, a list with the classes of each.
    target_names_ : list
        Names of several targets, in the order of `classes_` and of the columns of predictions: those of the columns of
        y, or 0, 1, ... without names. Only with several targets.
    label_names_ : list of str
        Text that the model reads for each class: its entry of `label_names`, or ``str(class)`` without one. With
        several targets, the texts of all targets, one target after the other; see `label_separator`.
    %(model_)s
    %(config_)s
    %(tokenizer_)s
    %(label_tokenizer_)s
    %(net_)s
    rl_net_ : RLTrainer
        The skorch net of `rl`, which adds its epochs and rewards to `history_`. Pickle does not store it.
    %(history_)s
    %(n_iter_)s
    %(ewc_)s
    %(freeze_encoder_)s
    %(training_args_)s
    label_centroid_share_ : float
        Resolved value of `label_centroid_share`.
    temperature_ : float, or ndarray of shape (n_targets,)
        Temperature by which the logits of the training are divided. It is part of ``model_.model.logit_scale``, except
        with several targets, whose logits are divided by it in each prediction.
    %(max_length_)s
    examples_ : list of dict
        Texts of `fit` with their labels, "text" and "labels", which ``examples="nearest"`` chooses from. It exists with
        this setting only.
    logit_offset_ : float
        Logit offset (bias), which is subtracted from each logit. It is not 0 in multi-label classification, zero-shot
        with the default encoder or after a label probe (see `preset`), which choose it for decisions at the threshold
        0.5: the probe by the cross-validated micro-F1.
    %(n_features_in_)s
    %(feature_names_in_)s

    See Also
    --------
    GLiClassRegressor : Regressor with the same model.
    sklearn_gliclass.plotting.ThresholdCurveDisplay : Choose the thresholds of multi-label problems.
    sklearn_gliclass.plotting.LabelSimilarityDisplay : Show which labels are similar to the model.

    References
    ----------
    Stepanov et al., "GLiClass: Generalist Lightweight Model for Sequence Classification Tasks", 2025,
    https://arxiv.org/abs/2508.07662

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.testing import TINY     # a tiny encoder, trained from scratch
    >>> texts = ["the goal was late", "the vote is near", "a goal and a match", "a law and a vote"]
    >>> clf = GLiClassClassifier(**TINY, random_state=0)
    >>> clf.fit(texts, ["sports", "politics", "sports", "politics"]).predict(["a late goal"])
    array(['sports'], dtype='<U8')
    >>> clf.predict_proba(["a late goal"]).shape
    (1, 2)

    Zero-shot, with the weights that the extra ``minilm`` installs:

    >>> clf = GLiClassClassifier().fit(None, ["sports", "politics"])
    >>> clf.predict(["parliament votes on the budget today"])
    array(['politics'], dtype='<U8')

    Several targets, also with a DataFrame that has a column of classes for each:

    >>> clf = GLiClassClassifier().fit(None, {"mood": ["angry", "glad"], "topic": ["price", "delivery"]})
    >>> clf.predict(["I am furious that the parcel is late"])
    array([['angry', 'delivery']], dtype='<U8')
    """

    examples_: list[dict]
    _expected_y = EXPECTED_CLASSES
    _parameter_constraints: dict = {
        **BaseGLiClass._parameter_constraints,
        **CLASSIFICATION_CONSTRAINTS,
        "examples": [StrOptions({NEAREST}), list, tuple, callable, None],
        "n_examples": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, "array-like", None],
        "label_separator": [str, None],
        "label_centroid_share": [Interval(Real, 0, 1, closed="both"), None],
        "threshold": [Interval(Real, 0, 1, closed="both"), dict, "array-like"],
        "unknown_label": "no_validation",
        "unknown_threshold": [Interval(Real, 0, 1, closed="neither"), StrOptions({"auto"})],
        "calibrate": [StrOptions({"auto", "cv"}), Options(bool, {False})],
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
        focal_loss_alpha=None,
        focal_loss_gamma=None,
        focal_loss_reduction=None,
        logit_scale_init_value=None,
        normalize_features=True,
        extract_text_features=False,
        contrastive_loss_coef=0,
        text_contrastive_loss_coef=None,
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
        lr=1e-4,
        others_lr="auto",
        weight_decay=0.01,
        others_weight_decay=0.0,
        optim="adamw_torch",
        max_epochs=None,
        batch_size=None,
        gradient_accumulation_steps=1,
        lr_scheduler_type="linear",
        warmup_ratio=None,
        max_grad_norm=1.0,
        cache_dir=None,
        max_length=None,
        long_texts="auto",
        window_overlap=0,
        label_names=None,
        label_separator=None,
        text_template=None,
        prompt=None,
        examples=None,
        n_examples=3,
        class_weight=None,
        label_centroid_share=None,
        threshold=0.5,
        unknown_label=None,
        unknown_threshold="auto",
        calibrate="auto",
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
        rl=None,
        reward_components=None,
        value_model=None,
        reference_model=None,
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
        self.text_contrastive_loss_coef = text_contrastive_loss_coef
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
        self.label_separator = label_separator
        self.text_template = text_template
        self.prompt = prompt
        self.examples = examples
        self.n_examples = n_examples
        self.class_weight = class_weight
        self.label_centroid_share = label_centroid_share
        self.threshold = threshold
        self.unknown_label = unknown_label
        self.unknown_threshold = unknown_threshold
        self.calibrate = calibrate
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
        self.rl = rl
        self.reward_components = reward_components
        self.value_model = value_model
        self.reference_model = reference_model
        self.preset = preset
        self.verbose = verbose
        self.random_state = random_state

    def __sklearn_clone__(self):
        # The reference and value models are shared with the clone: a clone of a fitted model would be unfitted.
        return cast("Self", super().__sklearn_clone__()).set_params(
            value_model=self.value_model, reference_model=self.reference_model
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        # scikit-learn's checks measure the accuracy on random numeric features, which are not texts.
        tags.classifier_tags.poor_score = True
        return tags

    @data_parallel
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Texts | None, y: Targets, sample_weight: Weights = None) -> "Self":
        """Fit the classifier to texts and their classes, or prepare it for zero-shot classification.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features), or None
            Texts, or a table whose rows become texts (see `text_template`). If None, nothing is trained: `y` lists the
            classes, and the model classifies zero-shot, by the names of the classes.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_targets), or dict
            One class per sample (single-label), a matrix of 0 and 1 or a list of labels per sample (multi-label), or
            rows of probabilities (soft labels). The lists may be tuples or sets, and empty where no label holds; rows
            of numbers that are equally long are a matrix.

            The columns of a table or 2-D array are several targets if it holds strings or other classes that are not
            numbers, categories, or integers besides 0 and 1. Missing classes take no part in the loss of their target,
            and a row without any class raises.

            Dicts ``{label: value}`` give each sample candidate labels of its own, as in a mixture of tasks: 1 where the
            label holds, 0 where it does not, or a probability. Other labels take no part in its loss. Each label is a
            decision of its own unless ``problem_type="single_label_classification"``.

            With ``X=None``, the classes, of shape (n_classes,), or ``{class: description}``, whose descriptions the
            model reads in place of the names. They are mutually exclusive unless
            ``problem_type="multi_label_classification"``. ``{target: [class, ...]}`` and ``{target: {class:
            description}}`` are several targets.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples. A sample of weight 0 counts as absent.

        Returns
        -------
        GLiClassClassifier
            This classifier, fitted.

        Raises
        ------
        ValueError
            If texts are missing, y or one of its targets has fewer than two classes or is continuous, two classes have
            the same label text, or hyperparameters exclude each other.
        """
        if X is None:
            if sample_weight is not None:
                raise ValueError("fit(None, labels) trains on no samples: leave sample_weight=None.")
            return self._fit_zero_shot(y)
        return self._fit(X, y, sample_weight)

    @data_parallel
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Texts, y: Targets, classes: ArrayLike | None = None, sample_weight: Weights = None
    ) -> "Self":
        """Train for one epoch on a batch of samples, from the current weights and with the same optimiser.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_targets)
            Classes, or lists of labels, as in :meth:`fit`.
        classes : array-like of shape (n_classes,), or list or dict of them, optional
            All classes that will ever occur in `y`, for the first call; with several targets, a list with those of
            each, or ``{target: classes}``. If None, the classes of the first `y`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples. A sample of weight 0 counts as absent.

        Returns
        -------
        GLiClassClassifier
            This classifier, fitted.
        """
        return self._fit(X, y, sample_weight, epochs=1, classes=classes)

    @property
    def logit_offset_(self) -> float:
        return self.config_.logit_offset

    def _read(self, X, y, sample_weight, *, continues, epochs, classes):
        self._check_rl()
        more = continues and epochs is not None
        texts, weight, rows, reader = self._read_rows(X, y, sample_weight, more)
        fitted_classes = getattr(self, "classes_", None) if more else None
        candidates = read_candidates(y)
        outputs = self._find_outputs(y, continues) if candidates is None else None
        if candidates is not None:
            targets = self._read_candidates(candidates, classes, fitted_classes, continues)
        elif outputs is None:
            targets = self._read_one_target(y, classes, fitted_classes, continues)
        else:
            targets = self._read_outputs(outputs, classes, is_known=fitted_classes is not None)
        if len(rows) < len(texts):
            keep_classes = classes is not None or fitted_classes is not None
            targets = targets.take(rows, keep_classes).check_classes()
            texts, weight = [texts[row] for row in rows], weight[rows]
        describe: Callable = self._describe_one_target if outputs is None else self._describe_outputs
        weight, names, attributes = describe(targets, weight, continues)
        pool = self._training_examples(texts, targets, names, more)
        classes = targets.classes if outputs is None else names
        instructions = read_instructions(self, classes, names, pool.get("examples_"))
        samples = Samples(
            texts,
            targets.array,
            weight,
            names,
            targets.problem_type,
            instructions,
            targets.groups,
            targets.own_labels,
        )
        return samples, {**attributes, "_text_reader": reader, **pool, **reader.fitted_attributes}

    def _training_examples(self, texts, targets, names, more: bool) -> dict:
        """Return the fitted attribute `examples_`, which exists with ``examples="nearest"``."""
        if not (isinstance(self.examples, str) and self.examples == NEAREST):
            return {}
        earlier = getattr(self, "examples_", ()) if more else ()
        return {"examples_": training_examples(texts, targets.array, names, earlier)}

    def _read_one_target(self, y, classes, fitted_classes, continues):
        known = fitted_classes if classes is None else known_classes(classes, fitted_classes)
        problem_type = self.config_.problem_type if continues else self.problem_type
        targets = read_class_targets(y, problem_type, self.ignore_index, known, is_fitted=continues)
        if fitted_classes is not None:
            return targets.reorder(fitted_classes)
        return targets if known is None else targets.sort_classes()

    def _read_candidates(self, rows, classes, fitted_classes, continues):
        """Read texts with labels of their own."""
        self._check_allows_own_labels(continues)
        known = fitted_classes if classes is None else known_classes(classes, fitted_classes)
        problem_type = self.config_.problem_type if continues else self.problem_type
        return read_candidate_targets(rows, problem_type, self.ignore_index, known)

    def _check_allows_own_labels(self, continues) -> None:
        """Raise for hyperparameters that need the same labels in each row."""
        defaults = {"class_weight": None, "unknown_label": None, "rl": None, "examples": None}
        wrong = [name for name, value in defaults.items() if getattr(self, name) is not value]
        wrong += ["label_centroid_share"] if self.label_centroid_share else []
        wrong += ["calibrate"] if self.calibrate == "cv" else []
        wrong += ["freeze_encoder"] if is_fully_frozen(self.freeze_encoder) else []
        if wrong:
            name = wrong[0]
            raise ValueError(
                f"{name}={getattr(self, name)!r} needs the same labels in each row, and y is dicts with labels of "
                f"their own; leave {name} at its default, or give a list of labels per row."
            )
        if continues and self._has_several_targets:
            raise ValueError(
                f"The fitted model is for the targets {self.target_names_!r}, and y is dicts of labels: training "
                "cannot continue. Give a y as in the earlier fit, or set warm_start=False and call fit, which builds a "
                "new model."
            )
        if active_group().size > 1:
            raise ValueError(
                "y is dicts of labels, which processes of torchrun cannot share yet; train in one process, or give a "
                "list of labels per row."
            )

    def _describe_one_target(self, targets, weight, continues) -> tuple[np.ndarray, list[str], dict]:
        """Return the weights, the label texts and the fitted attributes of y."""
        if targets.own_labels is None:
            weight = class_sample_weight(targets, self.class_weight, weight)
        self._check_decisions(targets.problem_type, targets.classes)
        names = self._label_texts(targets.classes, continues)
        if not continues:
            self._warn_numeric_classes(targets.classes, self.label_names)
        return weight, names, {"classes_": targets.classes}

    def _label_texts(self, classes, continues: bool) -> list[str]:
        """Return the label texts: those of `label_names`, or of the fitted model whose training continues."""
        if self.label_names is not None or not (continues and hasattr(self, "classes_")):
            return label_texts(self.label_names, classes)
        fitted = dict(zip(class_keys(self.classes_), self.label_names_, strict=True))
        return label_texts({key: fitted.get(key, class_text(key)) for key in class_keys(classes)}, classes)

    def _texts_of_saved(self, attributes: dict) -> list[str]:
        """Return the texts of `label_names` for the classes of a saved classifier."""
        classes = attributes["classes_"]
        if isinstance(classes, list):
            by_target = dict(zip(attributes["target_names_"], classes, strict=True))
            return output_label_texts(by_target, self.label_names, self.label_separator)
        return label_texts(self.label_names, classes)

    def _check_decisions(self, problem_type, classes) -> None:
        """Raise for invalid thresholds, and for an invalid `unknown_label`, before the training."""
        if problem_type == PROBLEM_TYPES[MULTI]:
            read_thresholds(self.threshold, classes)
        if self.unknown_label is None:
            return
        if problem_type == PROBLEM_TYPES[MULTI]:
            raise ValueError(
                f"unknown_label={self.unknown_label!r} has no effect on multi-label y: a text of no class has no "
                "label, a row of zeros in predict and [] in predict_labels. Leave unknown_label=None."
            )
        check_unknown_label(self.unknown_label, classes)

    def _warn_numeric_classes(self, classes, label_names) -> None:
        """Warn of numeric classes, which have no meaning to an untrained model that reads label names."""
        is_trained_already = self.pretrained is not None and self.max_epochs == 0
        message = None if is_trained_already else integer_classes_warning(classes, label_names)
        if message is not None:
            warn(message, LabelNamesWarning)

    def _check_rl(self):
        """Raise if options of reinforcement learning are set and `rl` is None."""
        if self.rl is not None:
            self.rl.validate()
            return
        for name in ("reward_components", "value_model", "reference_model"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} has no effect with rl=None: only reinforcement learning uses it. Set "
                    f"rl=RLTrainerConfig(), or leave {name}=None."
                )

    def _stages(self, config, recipe, *, continues, epochs):
        """Build the stages: supervised epochs, then, in `fit`, class prototypes and reinforcement learning."""
        share = self._resolve_centroid_share(config)
        if epochs is not None:
            return [Supervised(epochs)]
        stages: list = (
            [self._probe_stage(config, recipe)]
            if recipe.from_probe
            else [Supervised(0 if self.max_epochs == 0 else None)]
        )
        if not (self.ewc_lambda and continues):  # elastic weight consolidation protects the labels of earlier data
            stages.append(Prototypes(share))
        if self.rl is not None:
            stages.append(Reinforcement(self._build_rl_net))
        return stages

    def _probe_stage(self, config, recipe) -> FromProbe:
        return FromProbe(
            n_lower_layers=count_layers(recipe.freeze_encoder),
            scale=self.logit_scale_init_value,
            multi_label=config.problem_type == PROBLEM_TYPES[MULTI],
            calibrates=self.calibrate is not False,
        )

    def _resolve_centroid_share(self, config, has_own_labels: bool = False) -> float:
        """Return the resolved `label_centroid_share`; a positive one raises where labels cannot be interpolated."""
        share, movable = self.label_centroid_share, supports_prototypes(config)
        if share and not movable:
            raise ValueError(
                f"label_centroid_share={share!r} has no effect here: class prototypes need single-label y, "
                'architecture_type="bi-encoder" and scorer_type="simple", and this model has '
                f"problem_type={config.problem_type!r}, architecture_type={config.architecture_type!r}, "
                f"scorer_type={config.scorer_type!r}. Leave label_centroid_share=None."
            )
        if share is None:
            applies = movable and not has_own_labels and not supports_probe(self, config)
            return LABEL_CENTROID_SHARE if applies else 0.0
        return float(share)

    def _measure(self, samples, seed, *, continues, epochs):
        """Estimate the temperature for ``calibrate="cv"``, with a model that is trained on half of the samples."""
        # Labels of their own are read by their names afterwards, as in zero-shot classification, with its boundary.
        has_own = samples.own_labels is not None
        if samples.problem_type == PROBLEM_TYPES[MULTI] or samples.groups is not None or has_own:
            last_stages = []
        else:
            last_stages = [EvidenceMeasurement(self._known_evidence() if continues and epochs is not None else None)]
        if self.calibrate != "cv" or epochs is not None or self.max_epochs == 0:
            return {}, last_stages
        self._check_calibration(samples, continues)
        train, test = (samples.take(rows) for rows in split_halves(samples))
        fitted, run, _ = self._train(train, seed, is_hidden=True)
        engine = fitted.engine(**engine_options(self), instructions=samples.instructions)
        logits = active_group().map_rows(engine.logits, test.texts)
        if samples.groups is not None and run.temperatures is not None:
            logits = logits / run.temperatures[samples.groups.target_of_label]
        return {}, [Calibration(np.nan_to_num(fit_temperatures(logits, test), nan=1.0)), *last_stages]

    def _check_calibration(self, samples, continues) -> None:
        if samples.problem_type != PROBLEM_TYPES[SINGLE]:
            raise ValueError(
                "calibrate='cv' estimates a temperature of single-label probabilities, and y is multi-label; leave "
                "calibrate='auto', and choose the thresholds with sklearn_gliclass.plotting.ThresholdCurveDisplay."
            )
        if continues:
            raise ValueError(
                "calibrate='cv' trains new models on half of the rows, which say nothing of the model that "
                "warm_start=True continues with; set calibrate='auto' or warm_start=False."
            )
        is_in_model = samples.groups is None  # the temperatures of several targets are not
        if is_in_model and self.scorer_type in TOKEN_SCORERS and not self.normalize_features:
            raise ValueError(
                "calibrate='cv' stores the temperature in the logit scale, which normalize_features=False does not "
                f"apply, or in a calibrator, which scorer_type={self.scorer_type!r} excludes; set "
                "normalize_features=True or calibrate='auto'."
            )

    def _training_attributes(self, fitted, run, ewc):
        share = self._resolve_centroid_share(fitted.config, run.train.own_labels is not None)
        own = {"label_centroid_share_": share, **self._describe_temperatures(run)}
        if run.evidence is not None:
            own["_evidence"] = run.evidence.stored
        return {**super()._training_attributes(fitted, run, ewc), **own}

    def _build_rl_net(self, **options) -> RLTrainer:
        return RLTrainer(
            args=clone(self.rl),
            reward_components=self.reward_components,
            value_model=self.value_model,
            reference_model=self.reference_model,
            **options,
        )

    def _fit_zero_shot(self, labels):
        if self.problem_type == "regression":
            raise ValueError(
                "problem_type='regression' has no classes; use GLiClassRegressor, or leave problem_type=None."
            )
        call = f"{type(self).__name__}.fit(None, labels)"
        outputs = zero_shot_outputs(labels, call)
        if outputs is not None:
            return self._fit_zero_shot_outputs(*outputs)
        self._check_no_label_separator()
        classes = zero_shot_classes(labels, call)
        self._check_knows_labels()
        is_described = isinstance(labels, Mapping)
        if is_described and self.label_names is not None:
            raise ValueError(
                "fit(None, labels) has descriptions in a dict, and label_names sets other texts for the labels; set "
                "label_names=None, or give the labels as a list."
            )
        given = labels if is_described else self.label_names
        names = label_texts(given, classes, call if is_described else "label_names")
        problem_type = PROBLEM_TYPES[MULTI if self.problem_type == PROBLEM_TYPES[MULTI] else SINGLE]
        self._check_decisions(problem_type, classes)
        instructions = read_instructions(self, classes, names)
        with seed_torch(0):
            fitted = build(self, names, problem_type, zero_shot=True)
        warn_unknown_labels(fitted.layout(instructions=instructions))
        self._warn_numeric_classes(classes, given)
        self._commit(fitted, {"classes_": classes, "_text_reader": UNSEEN})
        return self

    def _check_knows_labels(self):
        """Raise if the untrained heads are random: zero-shot needs a checkpoint, or heads that compare embeddings."""
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
                "fit(None, labels) trains nothing, and with these hyperparameters the heads have random weights; set "
                "pretrained to a GLiClass checkpoint, or leave encoder_config, label_model_config, architecture_type, "
                "projector_init, use_lstm and squeeze_layers at their defaults and choose scorer_type from "
                f"{sorted(DOT_PRODUCT_SCORERS)}."
            )

    @on_snapshot
    def with_labels(self, labels: Targets) -> "Self":
        """Return a fitted classifier on the same weights with other labels: old ones, new ones, or both.

        What the model has learnt is kept, also about the labels of the fit, and each new label is read by its name, as
        in zero-shot classification. Nothing is trained.

        Parameters
        ----------
        labels : array-like of shape (n_classes,), or dict
            The classes of the new classifier, in their order, or ``{class: description}``. In an array, a class of
            the fit keeps its text of `label_names_`, and the text of another class is its entry of `label_names`, or
            ``str(class)`` without one. For a classifier with several targets, ``{target: [class, ...]}`` or
            ``{target: {class: description}}``, with old or new targets; new ones have the geometric mean of the fitted
            temperatures.

        Returns
        -------
        GLiClassClassifier
            A fitted classifier with these classes and the hyperparameters of this one. Values of `label_names`,
            `threshold` and `class_weight` are matched with the new classes. Both classifiers share one `model_` in
            memory; `partial_fit` and warm starts of either copy it first, so that the other does not change.

        Raises
        ------
        ValueError
            If there are fewer than two labels, labels are repeated or have the same text, one of them is
            `unknown_label`, `threshold` has one value per class, but none for a new one, or several targets would
            become one or the other way round.

        Examples
        --------
        >>> from sklearn_gliclass import GLiClassClassifier
        >>> from sklearn_gliclass.testing import TINY
        >>> clf = GLiClassClassifier(**TINY).fit(["a late goal", "a new law"], ["sports", "politics"])
        >>> clf.with_labels(["sports", "politics", "weather"]).predict_proba(["a late goal"]).shape
        (1, 3)
        """
        check_is_fitted(self)
        outputs = zero_shot_outputs(labels, "with_labels(labels)")
        if self._has_several_targets or outputs is not None:
            return self._with_outputs(outputs)
        classes = zero_shot_classes(labels, "with_labels(labels)")
        keys = class_keys(classes)
        texts = label_texts(self._texts_with_labels(labels, keys), classes, "with_labels(labels)")
        names = dict(zip(keys, texts, strict=True))
        is_plain = all(text == class_text(key) for key, text in names.items())
        other = cast("Self", clone(self)).set_params(
            label_names=None if is_plain else names,
            threshold=self._thresholds_with_labels(keys),
            class_weight=self._class_weight_with_labels(keys),
        )
        other._check_decisions(self.config_.problem_type, classes)
        fitted_texts = zip(class_keys(self.classes_), self.label_names_, strict=True)
        renamed = {text: names[key] for key, text in fitted_texts if key in names}
        fitted, pool = self._read_with_labels(other, classes, texts, renamed)
        other._warn_numeric_classes(classes, other.label_names)
        return self._share_model(other, fitted, {"classes_": classes, **pool})

    def _read_with_labels(self, other, classes, texts: list[str], renamed: dict) -> tuple[FittedModel, dict]:
        """Return the fitted model with the labels of `with_labels`, after checks, and `examples_` if they exist.

        The examples are those all of whose labels are kept; `renamed` has their new label texts.
        """
        pool = {}
        if hasattr(self, "examples_"):
            rows = (row for row in self.examples_ if set(row["labels"]) <= set(renamed))
            new = [{"text": row["text"], "labels": [renamed[text] for text in row["labels"]]} for row in rows]
            pool = {"examples_": new}
        fitted = self.fitted_.with_label_names(texts)
        fitted.check_labels(self.max_num_classes, read_instructions(other, classes, texts, pool.get("examples_")))
        return fitted, pool

    def _share_model(self, other: "Self", fitted: FittedModel, attributes: dict) -> "Self":
        """Commit a fitted model with other labels, and the fitted attributes of these, to another classifier."""
        kept = {
            name: value
            for name, value in vars(self).items()
            if is_fitted_attribute(name) and name not in TRAINING_ATTRIBUTES
        }
        other._commit(fitted, {**kept, "fitted_": fitted, **attributes})
        return other

    def _texts_with_labels(self, labels, keys: list) -> Mapping:
        """Return the texts of the labels of `with_labels`."""
        if isinstance(labels, Mapping):
            return labels
        fitted = dict(zip(class_keys(self.classes_), self.label_names_, strict=True))
        is_keyed = hasattr(self.label_names, "items")  # a mapping or a Series
        given = by_class(self.label_names, self.classes_, "label_names", "text") if is_keyed else {}
        return {key: fitted.get(key, given.get(key, class_text(key))) for key in keys}

    def _thresholds_with_labels(self, keys: list):
        """Return the `threshold` for the labels of `with_labels`."""
        if np.ndim(self.threshold) == 0 and not isinstance(self.threshold, Mapping):
            return self.threshold
        known = by_class(self.threshold, self.classes_, "threshold", "number")
        missing = [key for key in keys if key not in known]
        if missing:
            raise ValueError(
                f"threshold has a number for each class, but none for the new label(s) {missing!r}; first set one "
                "number for all, set_params(threshold=0.5), or a dict that has these labels too."
            )
        return {key: known[key] for key in keys}

    def _class_weight_with_labels(self, keys: list):
        """Return the `class_weight` for the labels of `with_labels`; a class without a weight has the weight 1."""
        if self.class_weight is None or isinstance(self.class_weight, str):
            return self.class_weight
        known = by_class(self.class_weight, self.classes_, "class_weight", "weight")
        return {key: known[key] for key in keys if key in known} or None

    @property
    def _kind(self) -> str:
        """Return "multi-label" where each class is a decision of its own, else "single-label"."""
        return MULTI if self.config_.problem_type == PROBLEM_TYPES[MULTI] else SINGLE

    def _known_evidence(self) -> Evidence:
        """Return the evidence of the training texts, or after a zero-shot fit that of label names."""
        return evidence_of(self.config_, **getattr(self, "_evidence", {}))

    @on_snapshot
    def decision_function(self, X: Texts) -> ArrayOrList:
        """Compute the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two single-label classes, or list of ndarray
            Logits of the classes. For two single-label classes, the logit of ``classes_[1]`` minus that of
            ``classes_[0]``: values above 0 mean ``classes_[1]``. With several targets, a list with the logits of each.
        """
        return self._convert(self._logits(X), decision_values)

    @on_snapshot
    def predict_proba(self, X: Texts) -> ArrayOrList:
        """Compute the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or list of ndarray
            Probabilities, with columns in the order of `classes_`: the softmax over the logits, whose rows sum to 1, or
            for multi-label y the sigmoid of each logit. With several targets, a list with the probabilities of each.
        """
        return self._convert(self._logits(X), logits_to_probabilities)

    @on_snapshot
    def predict_log_proba(self, X: Texts) -> ArrayOrList:
        """Compute the logarithm of the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or list of ndarray
            Log-probabilities, with columns in the order of `classes_`; with several targets, a list with those of each.
        """
        return self._convert(self._logits(X), logits_to_log_probabilities)

    @on_snapshot
    def known_proba(self, X: Texts) -> Array:
        """Compute the probability that one of the classes fits, for texts that may belong to none of them.

        The evidence is the negative free energy of the logits, ``logsumexp(logits / temperature)``; the fit measures
        it on at most 512 training texts, with and without their own class. The probability is 0.5 between both means,
        at ``0.3 + 0.07 * log(n_classes)`` of the way. After a zero-shot fit the boundary is the same for all labels.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Probabilities, on the assumption that half of the texts belong to a class. For multi-label y, the
            probability of the most probable label.

        References
        ----------
        Liu et al., "Energy-based Out-of-distribution Detection", 2020, https://arxiv.org/abs/2010.03759

        Examples
        --------
        >>> from sklearn_gliclass import GLiClassClassifier
        >>> clf = GLiClassClassifier(unknown_label="none of these").fit(None, ["sports", "politics"])
        >>> texts = ["parliament votes on the budget", "how do I boil an egg"]
        >>> clf.known_proba(texts).round(1)
        array([1., 0.])
        >>> clf.predict(texts).tolist()
        ['politics', 'none of these']
        """
        check_is_fitted(self)
        if self._has_several_targets:
            raise ValueError(
                f"known_proba needs one target, and the classifier has {self.target_names_!r}: a text may belong to a "
                "class of one target and to none of another. Fit a classifier for the target in question."
            )
        return self._known_proba(self._logits(X))

    def _known_proba(self, logits) -> np.ndarray:
        if self._kind == MULTI:
            return logits_to_probabilities(logits, MULTI).max(axis=1)
        return self._known_evidence().known_proba(logits, self.model_.model.logit_factor)

    @on_snapshot
    def predict(self, X: Texts) -> Array:
        """Predict the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,), (n_samples, n_classes) for multi-label y, or (n_samples, n_targets)
            The most probable class of each text, or `unknown_label` where no class fits. For multi-label y, an
            indicator matrix of the classes whose probability is at least `threshold`. With several targets, the most
            probable class of each, in the order of `target_names_`; the dtype is object if their classes are of
            several types.
        """
        check_is_fitted(self)
        if self._has_several_targets:
            self._check_allows_several_targets()
        else:
            self._check_decisions(self.config_.problem_type, self.classes_)
        return self._decide(self._logits(X))

    def _decide(self, logits) -> np.ndarray:
        """Convert logits to predictions."""
        if self._kind == MULTI:
            thresholds = read_thresholds(self.threshold, self.classes_)
            return (logits_to_probabilities(logits, MULTI) >= thresholds).astype(np.int64)
        if self._has_several_targets:
            return self._predict_outputs(logits)
        predicted = self.classes_[logits.argmax(axis=1)]
        if self.unknown_label is None:
            return predicted
        threshold = resolve_unknown_threshold(self.unknown_threshold)
        return answer_unknown(predicted, self._known_proba(logits) >= threshold, self.unknown_label)

    @on_snapshot
    def predict_labels(self, X: Texts) -> list[list[Any]] | list[dict[str, Any]] | Array:
        """Predict the classes, as lists of labels where there may be several, or by target.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.

        Returns
        -------
        list of list, list of dict, or ndarray of shape (n_samples,)
            For multi-label y, the labels of each text, in the order of `classes_`; the list is empty where no
            probability is at least `threshold`. With several targets, ``{target: class}`` for each text. Otherwise the
            result of :meth:`predict`.
        """
        predicted = self.predict(X)
        if self._has_several_targets:
            return [dict(zip(self.target_names_, row, strict=True)) for row in class_keys(predicted)]
        if self._kind != MULTI:
            return predicted
        return [self.classes_[row].tolist() for row in predicted.astype(bool)]

    @on_snapshot
    def score(self, X: Texts, y: Targets, sample_weight: Weights = None) -> float:
        """Compute the accuracy.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in :meth:`fit`.
        y : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_targets)
            True classes, or for multi-label y an indicator matrix or lists of labels. The columns of a DataFrame are
            matched by name where they are the classes or targets. Missing classes of a target are not compared.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the samples.

        Returns
        -------
        float
            Fraction of texts whose class, or for multi-label y whose set of labels, is predicted exactly. With several
            targets, all classes of a text must be right, as for scikit-learn's ``MultiOutputClassifier``.
        """
        check_is_fitted(self)
        if self._has_several_targets:
            return self._score_outputs(X, y, sample_weight)
        y = as_container(y, "y", EXPECTED_CLASSES)
        rows = read_label_lists(y)
        if rows is None:
            return super().score(X, plain_strings(order_columns(y, self.classes_)), sample_weight)
        if self._kind != MULTI:
            raise ValueError(
                "y holds lists of labels, but the classifier was fitted on single-label y; give one class per sample."
            )
        predicted = np.pad(self.predict(X), ((0, 0), (0, 1)))  # no prediction has a label that is no class
        return accuracy_score(label_indicator(rows, self.classes_, others=True), predicted, sample_weight=sample_weight)
