"""The configuration of a GLiClass model, in the format of the published checkpoints."""

import copy
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from .losses import PROBLEM_TYPES, REDUCTIONS
from .options import resolve
from .poolings import NO_POOLING, POOLINGS
from .scorers import DECODER_MLP_HIDDEN_SIZE, MLP_HIDDEN_SIZES, SCORERS, TOKEN_SCORERS

MODEL_TYPE = "GLiClass"
ARCHITECTURE_TYPES = (
    "uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder", "encoder-decoder-cls", "decoder-kv"
)  # fmt: skip
BI_ENCODERS = ("bi-encoder", "bi-encoder-fused")
ENCODER_DECODERS = ("encoder-decoder", "encoder-decoder-cls")
CLASS_TOKEN_POOLINGS = ("first", "average")
PROJECTOR_INITS = ("identity", "normal")

# Fields of checkpoints that are not supported, and why.
UNSUPPORTED_FIELDS = {
    "multimodal": "images and audio are not read here, only texts",
    "scorer_full_sequence": "gliclass 0.1.21 stores this field and does not read it, so that its meaning is unknown",
    "use_embedding_projection": "it belongs to EmbeddingGemma, which reads texts in both directions",
}
# Names of the number of decoder layers, in the families of T5 and BART.
_DECODER_LAYERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers")
CONFIDENCE_MODES = ("relative", "absolute")
MAX_LABELS_ALLOCS = ("dynamic", "fixed")  # or a number


def _encoder_config(config, default_type: str = "deberta-v2"):
    if config is None:
        return CONFIG_MAPPING[default_type]()
    if isinstance(config, dict):
        options = dict(config)
        model_type = options.pop("model_type", default_type)
        if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING or model_type == MODEL_TYPE:
            raise ValueError(
                f"Unknown model_type {model_type!r} in the encoder's configuration; name one that transformers "
                "knows, for example 'bert', 'deberta-v2', 'modernbert', 't5' or 'bart'."
            )
        try:
            return CONFIG_MAPPING[model_type](**options)
        except (AttributeError, LookupError, StrictDataclassError, TypeError, ValueError) as error:
            raise ValueError(
                f"The configuration of a {model_type!r} encoder is not valid: {error}. Correct this value, or remove "
                "it for its default."
            ) from error
    if not isinstance(config, PretrainedConfig):
        raise TypeError(
            "An encoder's configuration must be a dict or a configuration of transformers, got "
            f"{type(config).__name__}."
        )
    return config


class GLiClassModelConfig(PretrainedConfig):
    """Configuration of a :class:`GLiClassModel`.

    The field names and defaults are those of the ``config.json`` of published checkpoints. The defaults of the
    estimators differ.

    Parameters
    ----------
    encoder_config : dict or PretrainedConfig, optional
        Configuration of the text encoder, or of the whole backbone of an encoder-decoder. If None, DeBERTa-v2.
    encoder_model : str, optional
        Name of the text encoder, stored as `encoder_model_name`. No weights are loaded by this name.
    label_model_config : dict or PretrainedConfig, optional
        Configuration of the label encoder of the bi-encoders. If None, that of the text encoder.
    label_model_name : str, optional
        Name of the label encoder.
    class_token_index, text_token_index, example_token_index : int, default=-1
        Token ids of ``<<LABEL>>``, ``<<SEP>>`` and ``<<EXAMPLE>>``. If -1, the first ids after the vocabulary.
    ignore_index : int, default=-100
        Target that marks an unknown label. Unknown labels take no part in the loss.
    hidden_size : int, optional
        Width of the projectors' hidden layer. If None, the hidden size of the encoder.
    projector_hidden_act : str, default="gelu"
        Activation function of the projectors, by its name in transformers.
    vocab_size : int, optional
        Number of token embeddings. If None, that of the encoder.
    problem_type : str or None, default="single_label_classification"
        Type of the problem: "single_label_classification", "multi_label_classification" or "regression". If None, it
        is inferred from the targets.
    max_num_classes : int, default=25
        Maximum number of labels in a prompt.
    use_lstm : bool, default=False
        Whether a bidirectional LSTM runs over the text's token embeddings before they are pooled.
    initializer_range : float, default=0.03
        Standard deviation of the initial weights of the heads.
    scorer_type : {"simple", "weighted-dot", "mlp", "hopfield", "cross-attn"}, default="simple"
        How the logit of a text and a label is computed; see :class:`GLiClassClassifier`.
    scorer_num_heads : int, default=16
        Number of attention heads of the scorer "cross-attn".
    scorer_mlp_hidden_size : int, optional
        Width of the first hidden layer of the MLP in the scorers "mlp", "hopfield" and "cross-attn". If None, 256 for
        "mlp" and "hopfield", and 1024 for "cross-attn" and in the architecture "decoder-kv", which has a scorer of its
        own.
    scorer_attn_dropout : float, default=0.1
        Dropout probability of the attention weights in the scorer "cross-attn".
    pooling_strategy : str, default="first"
        How the token embeddings of a text become one vector: "max", "first", "last", "avg", "sum", "rms", "abs_max"
        or "abs_avg". "pass" keeps them all, for the scorer "cross-attn".
    class_token_pooling : {"first", "average"}, default="first"
        How a label in a prompt becomes one vector: the embedding of its ``<<LABEL>>`` token, or the mean over its
        tokens.
    focal_loss_alpha, focal_loss_gamma : float, default=0.5, 2
        Weight of the positives and exponent of the focal loss of multi-label targets.
    focal_loss_reduction : {None, "none", "mean", "sum"}, default=None
        Reduction of the focal loss over the labels. "sum" adds the losses up; all other values average them.
    logit_scale_init_value : float, default=2.6592
        Initial value of the factor of the logits, in architectures that scale them.
    logit_offset : float, default=0.0
        Logit offset (bias), which is subtracted from each logit. Published checkpoints do not have this field.
    weights_edition : int, optional
        Edition of this package's own weights that the training started from; None for other weights. It is a record
        and changes nothing.
    normalize_features : bool, default=False
        Whether the embeddings of text and label are L2-normalised before the scorer.
    extract_text_features : bool, default=False
        Whether only the tokens of the text are pooled where text and labels share a sequence.
    contrastive_loss_coef : float, default=0
        Weight of a contrastive loss that pushes the label embeddings of a prompt apart.
    text_contrastive_loss_coef : float, default=0
        Weight of a supervised contrastive loss over the texts of a batch, for single-label targets.
    architecture_type : {"uni-encoder", "bi-encoder", "bi-encoder-fused", "encoder-decoder"}, default="uni-encoder"
        How texts and labels are encoded; see :class:`GLiClassClassifier`.
    prompt_first : bool, default=False
        Whether the labels precede the text where both share a sequence.
    squeeze_layers : bool, default=False
        Whether the heads read a learnt weighted sum over all layers of the encoder instead of its last layer.
    layer_wise : bool, default=False
        Whether the training loss is the sum of the losses on each layer of the encoder. Prediction reads the last
        layer.
    encoder_layer_id : int, default=-1
        Index of the encoder layer that the heads read; 0 is the embedding layer, -1 the last.
    embed_class_token : bool, default=True
        Whether the embedding of a label in a prompt includes its ``<<LABEL>>`` token. If False, it starts at the token
        after it.
    dropout : float, default=0.1
        Dropout probability of the heads.
    tie_encoders : bool, default=False
        Whether one encoder with tied weights reads texts and labels in the bi-encoders.
    projector_init : {"identity", "normal"}, default="normal"
        How the projectors of a new model are initialised. "identity" needs ``hidden_size = 2 * encoder_hidden_size``,
        and the scorer "weighted-dot" then starts as a dot product. It has no effect on loaded weights.
    text_prefix, label_prefix : str, default=""
        Text before each text, and before each label, in the bi-encoder: the default prompts of sentence encoders.
        Published checkpoints do not have these fields.
    use_segment_embeddings : bool, default=False
        Whether learnt embeddings of three segments are added to the token embeddings of the uni-encoder: before the
        first ``<<SEP>>``, from it on, and from the first ``<<EXAMPLE>>`` on.
    max_labels_alloc : {"dynamic", "fixed"} or int, default="dynamic"
        Number of label slots that gliclass computes: those that the batch needs, `max_num_classes`, or this number.
        Here no empty slot is computed, so that all values give the same logits.
    scorer_encoder_num_layers : int, default=2
        Number of layers of the scorer's encoder in "decoder-kv".
    recurrent_steps : int, default=1
        Number of steps of the scorer in "decoder-kv". From the second on, its encoder runs on a gated mixture of its
        output and its input. A training step takes a random number of steps from `recurrent_min_steps` on.
    recurrent_min_steps : int, default=1
        Smallest number of steps in the training.
    recurrent_inference : bool, default=True
        Whether prediction takes more than one step.
    recurrent_inference_max_steps : int, optional
        Largest number of steps of a prediction. If None, `recurrent_steps`.
    recurrent_halt_threshold : float or None, default=0.01
        Change of the probabilities of a text below which its prediction stops. If None or 0, it never does.
    recurrent_improvement_coef, recurrent_improvement_margin : float, default=0.1, 0.05
        Weight of a hinge loss on steps whose loss is not by this fraction below that of the step before, from the third
        step on.
    recurrent_bptt_steps : int, optional
        Number of steps that gradients flow back. If None, all.
    recurrent_read_text : bool, default=False
        Whether the steps from the second on attend to the text.
    recurrent_confidence_coef : float, default=0.0
        Weight of a loss on the entropy of the probabilities from the second step on.
    recurrent_confidence_mode : {"relative", "absolute"}, default="relative"
        Whether that loss is the entropy above that of the step before, or all of it.
    recurrent_confidence_margin : float, default=0.0
        With the mode "relative", fraction by which the entropy should be below that of the step before.
    use_calibrator : bool, default=False
        Whether a calibrator scales and shifts the logits: an MLP of the embeddings and logits, which is not trained
        here.
    calibrator_hidden_size : int, default=256
        Width of the calibrator.
    calibrator_beta_max : float, default=3.0
        Largest factor of the logits.
    calibrator_dropout : float, default=0.1
        Dropout probability of the calibrator in its training.
    calibrator_use_bias : bool, default=False
        Whether it shifts the logits too.
    **kwargs
        Fields of ``PretrainedConfig`` and of newer checkpoints.

    Raises
    ------
    ValueError
        If an option is unknown, or the checkpoint is of a type that is not supported.

    See Also
    --------
    GLiClassModel : The model.
    GLiClassClassifier.from_config : Build an estimator from a configuration.

    Examples
    --------
    >>> config = GLiClassModelConfig(encoder_config={"model_type": "bert"}, scorer_type="mlp")
    >>> config.hidden_size, config.problem_type
    (768, 'single_label_classification')
    """

    model_type = MODEL_TYPE
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
        problem_type: Any = "single_label_classification",
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
        weights_edition=None,
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
        text_prefix="",
        label_prefix="",
        use_segment_embeddings=False,
        max_labels_alloc="dynamic",
        scorer_encoder_num_layers=2,
        recurrent_steps=1,
        recurrent_min_steps=1,
        recurrent_inference=True,
        recurrent_inference_max_steps=None,
        recurrent_halt_threshold=0.01,
        recurrent_improvement_coef=0.1,
        recurrent_improvement_margin=0.05,
        recurrent_bptt_steps=None,
        recurrent_read_text=False,
        recurrent_confidence_coef=0.0,
        recurrent_confidence_mode="relative",
        recurrent_confidence_margin=0.0,
        use_calibrator=False,
        calibrator_hidden_size=256,
        calibrator_beta_max=3.0,
        calibrator_dropout=0.1,
        calibrator_use_bias=False,
        **kwargs,
    ):
        self.encoder_config = _encoder_config(encoder_config)
        self.encoder_model_name = kwargs.pop("encoder_model_name", None) or encoder_model or ""
        self.label_model_name = label_model_name
        self.label_model_config = label_model_config
        if architecture_type == "decoder-kv":
            self.encoder_config = self.encoder_config.get_text_config()  # without the encoders of images and audio
        text_config = self.encoder_config.get_text_config()
        if vocab_size not in (None, text_config.vocab_size):
            self.encoder_config = copy.deepcopy(self.encoder_config)  # the caller's is not changed
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
        self.scorer_mlp_hidden_size = scorer_mlp_hidden_size
        if scorer_mlp_hidden_size is None:
            own = architecture_type == "decoder-kv"
            self.scorer_mlp_hidden_size = DECODER_MLP_HIDDEN_SIZE if own else MLP_HIDDEN_SIZES.get(scorer_type)
        self.scorer_attn_dropout = scorer_attn_dropout
        self.pooling_strategy = pooling_strategy
        self.class_token_pooling = class_token_pooling
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.focal_loss_reduction = focal_loss_reduction
        self.logit_scale_init_value = logit_scale_init_value
        self.logit_offset = logit_offset
        self.weights_edition = weights_edition
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
        self.text_prefix = text_prefix
        self.label_prefix = label_prefix
        self.use_segment_embeddings = use_segment_embeddings
        self.max_labels_alloc = max_labels_alloc
        self.scorer_encoder_num_layers = scorer_encoder_num_layers
        self.recurrent_steps = recurrent_steps
        self.recurrent_min_steps = recurrent_min_steps
        self.recurrent_inference = recurrent_inference
        self.recurrent_inference_max_steps = recurrent_inference_max_steps
        self.recurrent_halt_threshold = recurrent_halt_threshold
        self.recurrent_improvement_coef = recurrent_improvement_coef
        self.recurrent_improvement_margin = recurrent_improvement_margin
        self.recurrent_bptt_steps = recurrent_bptt_steps
        self.recurrent_read_text = recurrent_read_text
        self.recurrent_confidence_coef = recurrent_confidence_coef
        self.recurrent_confidence_mode = recurrent_confidence_mode
        self.recurrent_confidence_margin = recurrent_confidence_margin
        self.use_calibrator = use_calibrator
        self.calibrator_hidden_size = calibrator_hidden_size
        self.calibrator_beta_max = calibrator_beta_max
        self.calibrator_dropout = calibrator_dropout
        self.calibrator_use_bias = calibrator_use_bias
        if architecture_type == "decoder-kv":
            self._name_separator(kwargs)
        if problem_type is not None:  # the error message of the base class does not list the choices
            resolve(dict.fromkeys(PROBLEM_TYPES), problem_type, "problem_type")
        self.problem_type = problem_type
        self._check_options(kwargs)
        # The base class reads these for its own defaults (padding, tied embeddings).
        kwargs.setdefault("pad_token_id", text_config.pad_token_id)
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(problem_type=problem_type, **kwargs)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build the configuration from the content of a ``config.json``.

        gliclass writes a `scorer_mlp_hidden_size` that its scorers "mlp" and "hopfield" ignore, as they always have the
        default width. Files without `projector_init` are taken to be written by gliclass.

        Parameters
        ----------
        config_dict : dict
            Content of the file.
        **kwargs
            Fields that override those of the file.

        Returns
        -------
        GLiClassModelConfig
            The configuration.

        Raises
        ------
        ValueError
            If the file is the configuration of an encoder.
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"This is an encoder (model_type={model_type!r}), not a GLiClass checkpoint: use "
                "GLiClassClassifier(encoder_model=...)."
            )
        ignores_width = config_dict.get("scorer_type") in ("mlp", "hopfield")
        if "projector_init" not in config_dict and ignores_width and config_dict["architecture_type"] != "decoder-kv":
            config_dict = {**config_dict, "scorer_mlp_hidden_size": None}
        return super().from_dict(config_dict, **kwargs)

    @property
    def encoder_width(self) -> int:
        """Hidden size of the text encoder, which is the width of all embeddings that the model returns."""
        return self.encoder_config.get_text_config().hidden_size

    def _name_separator(self, newer_fields: dict) -> None:
        """Set the id of ``<<SEP>>`` under the name that gliclass reads in "decoder-kv"."""
        stored = newer_fields.pop("sep_token_index", None)
        self.text_token_index = self.text_token_index if stored is None else stored
        self.sep_token_index = self.text_token_index

    @property
    def n_layers(self) -> int:
        """Number of layers of the module that reads the texts."""
        text_config = self.encoder_config.get_text_config()
        if self.architecture_type == "encoder-decoder-cls":
            return next(
                getattr(text_config, name) for name in _DECODER_LAYERS if getattr(text_config, name, None) is not None
            )
        return text_config.num_hidden_layers

    def _resolve_label_config(self, config, tied: bool):
        """Return the label encoder's configuration: that of the text encoder, a copy of it, or another one."""
        if tied:
            return self.encoder_config
        # A copy: the vocabulary of the text encoder may grow, and that of the label encoder does not.
        return copy.deepcopy(self.encoder_config) if config is None else _encoder_config(config)

    def _check_options(self, newer_fields: dict) -> None:
        for name, choices in (
            ("architecture_type", ARCHITECTURE_TYPES),
            ("scorer_type", SCORERS),
            ("pooling_strategy", {**POOLINGS, NO_POOLING: None}),
            ("class_token_pooling", CLASS_TOKEN_POOLINGS),
            ("projector_init", PROJECTOR_INITS),
            ("recurrent_confidence_mode", CONFIDENCE_MODES),
        ):
            resolve(dict.fromkeys(choices), getattr(self, name), name)
        if self.focal_loss_reduction is not None:
            resolve(REDUCTIONS, self.focal_loss_reduction, "focal_loss_reduction")
        if type(self.max_labels_alloc) is not int:
            resolve(dict.fromkeys(MAX_LABELS_ALLOCS), self.max_labels_alloc, "max_labels_alloc")
        for name, reason in UNSUPPORTED_FIELDS.items():
            if newer_fields.get(name):
                raise ValueError(
                    f"This configuration has {name}={newer_fields[name]!r}, which sklearn_gliclass does not support: "
                    f"{reason}. Choose another checkpoint."
                )
        self.check_combinations()

    def check_combinations(self) -> None:
        """Raise for options that exclude each other, also after changes of fields."""
        self._check_pooling_fits_scorer()
        self._check_one_way_to_read_layers()
        self._check_layer_exists()
        self._check_heads_of_decoder()
        if self.use_segment_embeddings and self.architecture_type != "uni-encoder":
            raise ValueError(
                "use_segment_embeddings=True needs architecture_type='uni-encoder', where text and labels share a "
                f"sequence, got {self.architecture_type!r}; set use_segment_embeddings=False."
            )

    def _check_pooling_fits_scorer(self) -> None:
        reads_tokens = self.scorer_type in TOKEN_SCORERS
        last_token_is_text = self.architecture_type == "encoder-decoder-cls" and not reads_tokens
        if last_token_is_text or self.architecture_type == "decoder-kv":
            return  # the pooling has no effect
        if reads_tokens and self.pooling_strategy != NO_POOLING:
            raise ValueError(
                f"scorer_type={self.scorer_type!r} needs the embeddings of all tokens, without pooling, got "
                f"pooling_strategy={self.pooling_strategy!r}; set pooling_strategy={NO_POOLING!r}."
            )
        if not reads_tokens and self.pooling_strategy == NO_POOLING:
            raise ValueError(
                f"pooling_strategy={NO_POOLING!r} keeps all tokens, but scorer_type={self.scorer_type!r} needs one "
                f"vector per text; choose a pooling from {sorted(POOLINGS)}, or scorer_type='cross-attn'."
            )
        if reads_tokens and self.architecture_type not in ("uni-encoder", "encoder-decoder"):
            pooled = "its labels" if self.architecture_type in BI_ENCODERS else "its texts"
            raise ValueError(
                f"scorer_type={self.scorer_type!r} excludes pooling, but architecture_type="
                f"{self.architecture_type!r} pools {pooled}; choose another scorer, or "
                "architecture_type='uni-encoder' or 'encoder-decoder'."
            )

    def _check_heads_of_decoder(self) -> None:
        """Raise for options of other heads than those of "decoder-kv", and for its options elsewhere."""
        if self.use_calibrator and self.pooling_strategy == NO_POOLING and self.scorer_type in TOKEN_SCORERS:
            raise ValueError(
                f"use_calibrator=True needs one vector per text, and scorer_type={self.scorer_type!r} has none; set "
                "use_calibrator=False."
            )
        is_decoder = self.architecture_type == "decoder-kv"
        if is_decoder and self.hidden_size != self.encoder_width:
            raise ValueError(
                f"architecture_type='decoder-kv' has no projector of another width, so that hidden_size must be the "
                f"decoder's {self.encoder_width}, got {self.hidden_size}; set hidden_size=None."
            )
        without_effect = (
            {"use_lstm": False, "squeeze_layers": False, "layer_wise": False, "encoder_layer_id": -1}
            if is_decoder
            else {"recurrent_steps": 1, "recurrent_read_text": False}
        )
        chosen = [
            f"{name}={getattr(self, name)!r}" for name, off in without_effect.items() if getattr(self, name) != off
        ]
        if chosen:
            raise ValueError(
                f"{', '.join(chosen)} cannot be used with architecture_type={self.architecture_type!r}, which has "
                f"other heads; set {', '.join(f'{name}={off!r}' for name, off in without_effect.items())}."
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
            raise ValueError(
                f"{' and '.join(chosen)} exclude each other, because each selects the layers that are read; set one of "
                "them."
            )

    def _check_layer_exists(self) -> None:
        # The embedding layer's output is layer 0.
        n_layers = self.n_layers
        if not -n_layers - 1 <= self.encoder_layer_id <= n_layers:
            raise ValueError(
                f"encoder_layer_id={self.encoder_layer_id} is not a layer of this encoder, which has the layers 0 (the "
                f"embeddings) to {n_layers}; -1 is the last one, -2 the one before."
            )


AutoConfig.register(MODEL_TYPE, GLiClassModelConfig, exist_ok=True)
