"""The recipe of a training: the values that "auto", None and `preset` resolve to."""

from __future__ import annotations

from dataclasses import dataclass

from ..abstention import Evidence
from ..model.freezing import is_fully_frozen
from ..model.poolings import NO_POOLING
from ..model.scorers import can_start_as_cosine
from .arguments import FROM_PROBE, FROM_RIDGE, FULL, HEADS, HEADS_FROM_PROBE, MULTI_LABEL_FROM_PROBE, PROBE_ONLY, Regime

PRESETS = {"fast": 0.4, "balanced": 1.0, "accurate": 2.0}  # name -> factor of the number of epochs
# Fine-tuning and training of heads after a label probe, or a ridge regression.
REGIMES = {
    "single_label_classification": (FROM_PROBE, HEADS_FROM_PROBE),
    "multi_label_classification": (MULTI_LABEL_FROM_PROBE, HEADS_FROM_PROBE),
    "regression": (FROM_RIDGE, HEADS),
}
FROZEN_AFTER_PROBE = {"fast": True, "balanced": "embeddings", "accurate": False}


@dataclass(frozen=True)
class Recipe:
    """Resolved choices of a training.

    Attributes
    ----------
    from_probe : bool
        Whether the training starts with a label probe.
    freeze_encoder : bool, "embeddings" or int
        Encoder parameters that are frozen.
    regime : Regime
        Learning rates and number of epochs.
    epoch_factor : float
        Factor of the number of epochs.
    """

    from_probe: bool
    freeze_encoder: bool | str | int
    regime: Regime
    epoch_factor: float


def choose_recipe(
    estimator, config, n_labels: int, epochs: int | None = None, has_own_labels: bool = False, continues: bool = False
) -> Recipe:
    """Resolve the hyperparameters of an estimator that depend on the model.

    Parameters
    ----------
    estimator : BaseGLiClass
        Estimator with the hyperparameters.
    config : GLiClassModelConfig
        Configuration of the model.
    n_labels : int
        Number of labels.
    epochs : int, optional
        Number of epochs of `partial_fit`.
    has_own_labels : bool, default=False
        Whether each text has labels of its own. A label probe would fix their embeddings, and new labels are to be read
        by what the training on all of them has taught.
    continues : bool, default=False
        Whether the training continues with a fitted model, whose scorer keeps its weights.

    Returns
    -------
    Recipe
    """
    probes = supports_probe if continues else starts_from_probe
    supported = probes(estimator, config, n_labels) and not has_own_labels
    how = estimator.freeze_encoder
    if how == "auto":
        how = FROZEN_AFTER_PROBE[estimator.preset] if supported else False
    from_probe = supported and epochs is None and estimator.max_epochs != 0
    frozen = is_fully_frozen(how)
    if from_probe:
        trains_heads = estimator.max_epochs is not None or estimator.others_lr != "auto"
        fine_tuning, heads = REGIMES[config.problem_type]
        regime = fine_tuning if not frozen else heads if trains_heads else PROBE_ONLY
    else:
        regime = HEADS if frozen else FULL
    return Recipe(from_probe, how, regime, PRESETS[estimator.preset])


def starts_from_probe(estimator, config, n_labels: int) -> bool:
    """Return whether a new model can start from a label probe, or from a ridge regression of values.

    Besides the models of :func:`supports_probe`, those whose new scorer can be initialised as the cosine of text and
    label.
    """
    if supports_probe(estimator, config, n_labels):
        return True
    is_new = estimator.pretrained is None and config.projector_init == "identity"
    if not is_new or config.problem_type == "regression":
        return False
    return _reads_separately(estimator, config) and can_start_as_cosine(config, n_labels)


def supports_probe(estimator, config, n_labels: int | None = None) -> bool:
    """Return whether the training can start from a label probe, or from a ridge regression of values.

    The logits must be scaled cosines, from encoders that are pretrained, whatever the number of labels.
    """
    return scores_cosines(config) and _reads_separately(estimator, config)


def _reads_separately(estimator, config) -> bool:
    """Return whether pretrained encoders pool texts and labels separately, and normalised heads score the result."""
    other_parts = config.use_lstm or config.squeeze_layers or config.layer_wise or config.contrastive_loss_coef
    if getattr(config, "use_calibrator", False):  # fitted to the logits of the model as it is
        return False
    pretrained = estimator.encoder_config is None and estimator.label_model_config is None
    separate = config.architecture_type == "bi-encoder" and config.normalize_features
    return separate and pretrained and not other_parts and config.pooling_strategy != NO_POOLING


def scores_cosines(config) -> bool:
    """Return whether the logits are scaled cosines of embeddings of texts and labels that are encoded separately."""
    return config.architecture_type == "bi-encoder" and config.scorer_type == "simple" and config.normalize_features


def evidence_of(config, **stored) -> Evidence:
    """Return the evidence of a model with a configuration; `stored` is what its training texts have determined."""
    return Evidence(scores_cosines(config), is_centred=config.scorer_type == "hopfield", **stored)
