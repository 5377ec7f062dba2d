"""The configuration of a GLiClass model, in the format of the published checkpoints."""

import copy

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PretrainedConfig

from .losses import PROBLEM_TYPES, REDUCTIONS
from .options import resolve
from .poolings import NO_POOLING, POOLINGS
from .scorers import MLP_HIDDEN_SIZES, SCORERS, TOKEN_SCORERS

ARCHITECTURE_TYPES = ("uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder")
BI_ENCODERS = ("bi-encoder", "bi-encoder-fused")
CLASS_TOKEN_POOLINGS = ("first", "average")
PROJECTOR_INITS = ("identity", "normal")

# Fields of newer checkpoints that change what the model computes and that this package does not build.
UNSUPPORTED_FIELDS = ("use_segment_embeddings", "use_calibrator", "multimodal")


def _encoder_config(config, default_type: str = "deberta-v2"):
    if config is None:
        return CONFIG_MAPPING[default_type]()
    if isinstance(config, dict):
        options = dict(config)
        model_type = options.pop("model_type", default_type)
        if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
            raise ValueError(
                f"Unknown model_type {model_type!r} in the encoder's configuration; name one that transformers "
                "knows, for example 'bert', 'deberta-v2', 'modernbert', 't5' or 'bart'."
            )
        try:
            return CONFIG_MAPPING[model_type](**options)
        except (AttributeError, LookupError, StrictDataclassError, TypeError, ValueError) as error:
            raise ValueError(
                f"The configuration of a {model_type!r} encoder is not valid: {error}. Correct this value, or leave it "
                "out for its default."
            ) from error
    if not isinstance(config, PretrainedConfig):
        raise TypeError(
            "An encoder's configuration must be a dict or a configuration of transformers, got "
            f"{type(config).__name__}."
        )
    return config


class GLiClassModelConfig(PretrainedConfig):
    """Configuration of a :class:`GLiClassModel`.

    The field names and defaults are those of the published checkpoints' ``config.json``.

    Parameters
    ----------
    encoder_config : dict or PretrainedConfig, optional
        The text encoder (for encoder-decoder: the whole backbone). Default: DeBERTa-v2.
    encoder_model : str, optional
        Name of the encoder; kept as `encoder_model_name`, the weights are not looked up here.
    label_model_config : dict or PretrainedConfig, optional
        The label encoder of the bi-encoders. Default there: the text encoder's.
    label_model_name : str, optional
        Name of the label encoder.
    class_token_index, text_token_index, example_token_index : int, default=-1
        Ids of ``<<LABEL>>``, ``<<SEP>>`` and ``<<EXAMPLE>>``; -1: the first ids after the vocabulary.
    ignore_index : int, default=-100
        Class targets with this value take no part in the loss.
    hidden_size : int, optional
        Width inside the projectors. Default: the encoder's hidden size.
    projector_hidden_act : str, default="gelu"
        Activation of the projectors (a transformers name).
    vocab_size : int, optional
        Rows of the token embeddings. Default: the encoder's.
    problem_type : str or None, default="single_label_classification"
        "single_label_classification", "multi_label_classification", "regression", or None: inferred from
        the targets.
    max_num_classes : int, default=25
        Most labels in one prompt.
    use_lstm : bool, default=False
        A bidirectional LSTM over the text's token states before pooling.
    initializer_range : float, default=0.03
        Standard deviation of the heads' initial weights.
    scorer_type : str, default="simple"
        A key of ``SCORERS``.
    scorer_num_heads : int, default=16
        Attention heads of the "cross-attn" scorer.
    scorer_mlp_hidden_size : int, optional
        Width of the MLP in the "mlp", "hopfield" (default 256) and "cross-attn" (default 1024) scorers.
    scorer_attn_dropout : float, default=0.1
        Attention dropout of the "cross-attn" scorer.
    pooling_strategy : str, default="first"
        A key of ``POOLINGS``; "pass" (no pooling) with "cross-attn".
    class_token_pooling : {"first", "average"}, default="first"
        A label's state: its ``<<LABEL>>`` token, or the mean over its tokens.
    focal_loss_alpha, focal_loss_gamma : float, default=0.5, 2
        Weight of the positives and focus on hard labels, multi-label only.
    focal_loss_reduction : {None, "none", "mean", "sum"}, default=None
        "sum" adds the label losses up; the others average them.
    logit_scale_init_value : float, default=2.6592
        Initial factor of the logits, where the architecture scales them.
    logit_offset : float, default=0.0
        Subtracted from each logit. Not a field of the published checkpoints.
    normalize_features : bool, default=False
        L2-normalise text and label before the scorer.
    extract_text_features : bool, default=False
        Pool the text's part of the sequence only.
    contrastive_loss_coef : float, default=0
        Weight of the contrastive loss over the labels.
    text_contrastive_loss_coef : float, default=0
        Weight of the contrastive loss over the texts of a batch, single-label only.
    architecture_type : str, default="uni-encoder"
        A key of ``ARCHITECTURES``.
    prompt_first : bool, default=False
        The label prompt stands before the text.
    squeeze_layers : bool, default=False
        A learnt weighting of all encoder layers instead of the last.
    layer_wise : bool, default=False
        Train the head on every layer, predict with the last.
    encoder_layer_id : int, default=-1
        The layer whose states are read; 0 is the embedding layer.
    embed_class_token : bool, default=True
        False: a label's state is read at the token after ``<<LABEL>>``.
    dropout : float, default=0.1
        Dropout of the projectors.
    tie_encoders : bool, default=False
        Bi-encoders: one encoder reads texts and labels.
    projector_init : {"identity", "normal"}, default="normal"
        How new projectors start; "identity" needs ``hidden_size = 2 * encoder hidden size``, and the scorer
        "weighted-dot" then starts as a dot product. Loaded weights are not touched by it.
    **kwargs
        Fields of ``PretrainedConfig`` and of newer checkpoints.

    Raises
    ------
    ValueError
        An unknown option, or a checkpoint of a kind that is not supported.

    Examples
    --------
    >>> config = GLiClassModelConfig(encoder_config={"model_type": "bert"}, scorer_type="mlp")
    >>> config.hidden_size, config.problem_type
    (768, 'single_label_classification')
    """

    model_type = "GLiClass"
    is_composition = True

    def __init__(
        self,
        encoder_config=None,
        encoder_model=None,
        label_model_config=None,
        label_model_name=None,
        class_token_index=-1,
        text_token_index=-1,
        example_token_index=-1,
        ignore_index=-100,
        hidden_size=None,
        projector_hidden_act="gelu",
        vocab_size=None,
        problem_type="single_label_classification",
        max_num_classes=25,
        use_lstm=False,
        initializer_range=0.03,
        scorer_type="simple",
        scorer_num_heads=16,
        scorer_mlp_hidden_size=None,
        scorer_attn_dropout=0.1,
        pooling_strategy="first",
        class_token_pooling="first",
        focal_loss_alpha=0.5,
        focal_loss_gamma=2,
        focal_loss_reduction=None,
        logit_scale_init_value=2.6592,
        logit_offset=0.0,
        normalize_features=False,
        extract_text_features=False,
        contrastive_loss_coef=0,
        text_contrastive_loss_coef=0,
        architecture_type="uni-encoder",
        prompt_first=False,
        squeeze_layers=False,
        layer_wise=False,
        encoder_layer_id=-1,
        embed_class_token=True,
        dropout=0.1,
        tie_encoders=False,
        projector_init="normal",
        **kwargs,
    ):
        self.encoder_config = _encoder_config(encoder_config)
        self.encoder_model_name = kwargs.pop("encoder_model_name", None) or encoder_model or ""
        self.label_model_name = label_model_name
        self.label_model_config = label_model_config
        text_config = self.encoder_config.get_text_config()
        if vocab_size not in (None, text_config.vocab_size):
            self.encoder_config = copy.deepcopy(self.encoder_config)  # the caller's stays as it is
            text_config = self.encoder_config.get_text_config()
            text_config.vocab_size = vocab_size
        if architecture_type in BI_ENCODERS:
            self.label_model_config = self._resolve_label_config(label_model_config, tie_encoders)
            self.label_model_name = label_model_name or self.encoder_model_name
        self.hidden_size = text_config.hidden_size if hidden_size is None else hidden_size
        self.vocab_size = text_config.vocab_size
        self.class_token_index = self.vocab_size if class_token_index == -1 else class_token_index
        self.text_token_index = self.vocab_size + 1 if text_token_index == -1 else text_token_index
        self.example_token_index = self.vocab_size + 2 if example_token_index == -1 else example_token_index

        self.ignore_index = ignore_index
        self.projector_hidden_act = projector_hidden_act
        self.max_num_classes = max_num_classes
        self.use_lstm = use_lstm
        self.initializer_range = initializer_range
        self.scorer_type = scorer_type
        self.scorer_num_heads = scorer_num_heads
        self.scorer_mlp_hidden_size = (
            MLP_HIDDEN_SIZES.get(scorer_type) if scorer_mlp_hidden_size is None else scorer_mlp_hidden_size
        )
        self.scorer_attn_dropout = scorer_attn_dropout
        self.pooling_strategy = pooling_strategy
        self.class_token_pooling = class_token_pooling
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.focal_loss_reduction = focal_loss_reduction
        self.logit_scale_init_value = logit_scale_init_value
        self.logit_offset = logit_offset
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
        if problem_type is not None:  # the base class would refuse an unknown one in its own words
            resolve(dict.fromkeys(PROBLEM_TYPES), problem_type, "problem_type")
        self.problem_type = problem_type
        self._check_options(kwargs)
        # The base class reads these for its own defaults (padding, tied embeddings).
        kwargs.setdefault("pad_token_id", text_config.pad_token_id)
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(problem_type=problem_type, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build the configuration that a ``config.json`` holds.

        gliclass writes a `scorer_mlp_hidden_size` that its "mlp" and "hopfield" scorers don't have: they are of
        the default width. Its files are those without `projector_init`.
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"This is an encoder (model_type={model_type!r}), not a GLiClass checkpoint: use "
                "GLiClassClassifier(encoder_model=...)."
            )
        if "projector_init" not in config_dict and config_dict.get("scorer_type") in ("mlp", "hopfield"):
            config_dict = {**config_dict, "scorer_mlp_hidden_size": None}
        return super().from_dict(config_dict, **kwargs)

    @property
    def encoder_width(self) -> int:
        """Hidden size of the text encoder: the width of every embedding that the model gives out."""
        return self.encoder_config.get_text_config().hidden_size

    def _resolve_label_config(self, config, tied: bool):
        """The label encoder's configuration: the text encoder's own, a copy of it, or another."""
        if tied:
            return self.encoder_config
        # A copy: the label encoder's vocabulary stays as it is when the text encoder's grows.
        return copy.deepcopy(self.encoder_config) if config is None else _encoder_config(config)

    def _check_options(self, newer_fields: dict) -> None:
        for name, choices in (
            ("architecture_type", ARCHITECTURE_TYPES),
            ("scorer_type", SCORERS),
            ("pooling_strategy", {**POOLINGS, NO_POOLING: None}),
            ("class_token_pooling", CLASS_TOKEN_POOLINGS),
            ("projector_init", PROJECTOR_INITS),
        ):
            resolve(dict.fromkeys(choices), getattr(self, name), name)
        if self.focal_loss_reduction is not None:
            resolve(REDUCTIONS, self.focal_loss_reduction, "focal_loss_reduction")
        for name in UNSUPPORTED_FIELDS:
            if newer_fields.get(name):
                raise ValueError(
                    f"This configuration has {name}={newer_fields[name]!r}, which sklearn_gliclass does not build."
                )
        self.check_combinations()

    def check_combinations(self) -> None:
        """Raise for options that exclude each other; for a configuration whose fields were set later."""
        self._check_pooling_fits_scorer()
        self._check_one_way_to_read_layers()
        self._check_layer_exists()

    def _check_pooling_fits_scorer(self) -> None:
        reads_tokens = self.scorer_type in TOKEN_SCORERS
        if reads_tokens and self.pooling_strategy != NO_POOLING:
            raise ValueError(
                f"scorer_type={self.scorer_type!r} reads the states of all tokens and takes no pooling, got "
                f"pooling_strategy={self.pooling_strategy!r}; set pooling_strategy={NO_POOLING!r}."
            )
        if not reads_tokens and self.pooling_strategy == NO_POOLING:
            raise ValueError(
                f"pooling_strategy={NO_POOLING!r} keeps all tokens, and scorer_type={self.scorer_type!r} needs one "
                f"vector; choose a pooling from {sorted(POOLINGS)}, or scorer_type='cross-attn'."
            )
        if reads_tokens and self.architecture_type in BI_ENCODERS:
            raise ValueError(
                f"scorer_type={self.scorer_type!r} takes no pooling, but architecture_type="
                f"{self.architecture_type!r} must pool its labels; choose another scorer, or 'uni-encoder' or "
                "'encoder-decoder'."
            )

    def _check_one_way_to_read_layers(self) -> None:
        chosen = [
            f"{name}={value!r}"
            for name, value, default in (
                ("squeeze_layers", self.squeeze_layers, False),
                ("layer_wise", self.layer_wise, False),
                ("encoder_layer_id", self.encoder_layer_id, -1),
            )
            if value != default
        ]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} exclude each other: each says which layers are read; set one.")

    def _check_layer_exists(self) -> None:
        # The embedding layer's output is layer 0.
        n_layers = self.encoder_config.get_text_config().num_hidden_layers
        if not -n_layers - 1 <= self.encoder_layer_id <= n_layers:
            raise ValueError(
                f"encoder_layer_id={self.encoder_layer_id} is no layer of this encoder: it has 0 (the embeddings) to "
                f"{n_layers}, or -1 for the last, -2 for the one before."
            )
