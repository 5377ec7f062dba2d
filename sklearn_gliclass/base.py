"""Base class of both estimators: fit, predict, transform, save and load."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .annotations import Array, Texts
from .building import build, check_unchanged_model, construction_parameters
from .containers import as_container
from .fitted import FittedModel, engine_options
from .in_context import fitted_instructions
from .inputs import TextReader, learn_texts, read_texts
from .mixins import ConfigurationMixin, PersistenceMixin
from .model.allocation import keep_memory
from .model.isolation import process_lock, seed_torch
from .model.loading import resolve_max_length
from .model.precision import require_device
from .parameters import CONSTRAINTS
from .process_agreement import check_agreement
from .process_group import active_group, seed_dropout
from .samples import Samples
from .sklearn_internals import check_sample_weight, validate_parameter_constraints
from .snapshots import on_snapshot
from .training.adapters import build_adapters, merge_adapters
from .training.ewc import ElasticWeightConsolidation
from .training.recipe import choose_recipe
from .training.run import TrainingRun, prepare, train
from .training.stages import Consolidation
from .warn import warn, warn_truncation

if TYPE_CHECKING:
    from .model import GLiClassModel, GLiClassModelConfig

# Fitted attributes whose names don't end with an underscore.
PRIVATE_ATTRIBUTES = ("_text_reader", "_construction", "_one_dimensional", "_evidence")


class BaseGLiClass(
    PersistenceMixin, ConfigurationMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Base class of the estimators.

    A fit changes the estimator in one place only: at its end, :meth:`_commit` sets all fitted attributes together,
    `fitted_` (model, tokenizers, label names, maximum length) and those of the subclass.
    """

    _parameter_constraints: dict = CONSTRAINTS

    fitted_: FittedModel
    _text_reader: TextReader
    _construction: dict
    # Hyperparameters of the subclasses, and what they define for `fit`.
    text_template: str | None
    max_length: int | None
    device: str
    warm_start: bool
    ewc_lambda: float
    random_state: Any
    _expected_y: str
    _read: Callable[..., tuple[Samples, dict]]
    _stages: Callable[..., list]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = False
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "fitted_") and self.fitted_.label_names is not None

    # -- attributes of the fitted model -------------------------------------------------------

    @property
    def model_(self) -> "GLiClassModel":
        return self.fitted_.model

    @model_.setter
    def model_(self, model):  # adapted or compiled by the user
        self.__dict__ = {**self.__dict__, "fitted_": self.fitted_.with_model(model)}  # predictions may be running

    @property
    def config_(self) -> "GLiClassModelConfig":
        return self.fitted_.config

    @property
    def tokenizer_(self):
        return self.fitted_.tokenizer

    @property
    def label_tokenizer_(self):
        return self.fitted_.label_tokenizer

    @property
    def label_names_(self) -> list[str]:
        return self.fitted_.label_names

    @property
    def max_length_(self) -> int:
        return self.fitted_.max_length

    @property
    def _n_features_out(self):
        return self.fitted_.config.encoder_width

    # -- fit -------------------------------------------------------------------------------------------------

    def _fit(self, X, y, sample_weight=None, *, epochs=None, classes=None):
        """Read and check the data, build or reuse the model, train it for `epochs` (`partial_fit`), and commit."""
        # A training that continues waits for those of other threads, and begins with their results.
        lock = process_lock() if epochs is not None or self.warm_start else nullcontext()
        with lock, keep_memory():
            continues = hasattr(self, "fitted_") and (self.warm_start or epochs is not None)
            if epochs is not None:
                hyperparameters = self.get_params(deep=False)  # the decorator validates them in the first call only
                validate_parameter_constraints(self._parameter_constraints, hyperparameters, type(self).__name__)
            if continues:
                check_unchanged_model(
                    self, self._construction, keeps_optimizer=epochs is not None and hasattr(self, "net_")
                )
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            seed = active_group().from_main(seed)
            samples, attributes = self._read(X, y, sample_weight, continues=continues, epochs=epochs, classes=classes)
            check_agreement(active_group(), self, samples, continues)
            measured, last_stages = self._measure(samples, seed, continues=continues, epochs=epochs)
            fitted, run, ewc = self._train(samples, seed, last_stages, continues=continues, epochs=epochs)
            self._commit(fitted, {**attributes, **measured, **self._training_attributes(fitted, run, ewc)})
        return self

    def _read_rows(self, X, y, sample_weight, more: bool):
        """Return the texts, their reader, the sample weights, and the rows with a positive weight.

        With `more`, X must have the columns of the first fit (`partial_fit`).
        """
        reader = self._text_reader if more else None
        if reader is not None and reader.has_seen_data:
            texts = reader.read(X, self, self.text_template)
        else:
            texts, reader = learn_texts(X, self, self.text_template)
        if y is not None:
            check_consistent_length(texts, as_container(y, "y", self._expected_y))
        weight = check_sample_weight(sample_weight, np.empty((len(texts), 0)), ensure_non_negative=True)
        rows = np.flatnonzero(weight)
        if len(rows) == 0:
            raise ValueError(
                "All sample weights are 0, which leaves no sample to fit; give at least one positive weight."
            )
        return texts, weight, rows, reader

    def _measure(self, samples: Samples, seed: int, *, continues, epochs) -> tuple[dict, list]:
        """Run inner cross-validation, and return fitted attributes and last stages of the training that follow."""
        return {}, []

    def _train(self, samples: Samples, seed: int, last_stages=(), *, continues=False, epochs=None, is_hidden=False):
        """Train a new model, or continue with the fitted one; the estimator itself is not changed.

        Returns
        -------
        fitted : FittedModel
        run : TrainingRun
        ewc : ElasticWeightConsolidation or None
        """
        device = str(self.model_.device) if continues else require_device(self.device)
        with seed_torch(seed, device):
            if continues:
                length = resolve_max_length(self.max_length, self.config_.encoder_config, self.tokenizer_)
                net = getattr(self, "net_", None) if epochs is not None else None
                fitted, net = self.fitted_.copy_for_training(net)
                fitted = fitted.with_label_names(samples.label_names, length)
            else:
                net = None
                starts = {"texts": samples.texts, "zero_shot": samples.own_labels is not None}
                fitted = build(self, samples.label_names, samples.problem_type, **starts)
            recipe = choose_recipe(
                self, fitted.config, len(samples.label_names), epochs, samples.own_labels is not None, continues
            )
            stages = self._stages(fitted.config, recipe, continues=continues, epochs=epochs)
            ewc = None if is_hidden else self._elastic_weights(continues)
            trains = any(stage.trains for stage in stages)
            stages += [*last_stages, *([] if ewc is None else [Consolidation(ewc)])]
            adapters = build_adapters(self, fitted, recipe.freeze_encoder)
            with merge_adapters(adapters if trains else None, fitted.model) as attached:
                seed_dropout(seed)  # all processes have built the same model and adapters
                run = prepare(
                    self, fitted, samples, seed, recipe, net=net, trains=trains, is_hidden=is_hidden, adapters=attached
                )
                train(run, stages, ewc)
            fitted.adapters, fitted.label_fit = adapters, run.label_fit
        return fitted, run, ewc

    def _elastic_weights(self, continues: bool) -> ElasticWeightConsolidation | None:
        if not self.ewc_lambda:
            return None
        state = getattr(self, "ewc_", None) if continues else None
        if continues and state is None:
            warn(
                f"ewc_lambda={self.ewc_lambda!r} has no effect in this call: there is no Fisher information of the "
                "earlier data, because ewc_lambda was 0 then or the estimator was loaded from a folder. Set ewc_lambda "
                "before the first fit."
            )
        return ElasticWeightConsolidation(self.ewc_lambda, state)

    @staticmethod
    def _training_attributes(fitted: FittedModel, run: TrainingRun, ewc) -> dict:
        return {
            "net_": run.net,
            "history_": run.net.history,
            "n_iter_": len(run.net.history),
            "training_args_": run.net.args_,
            "freeze_encoder_": run.freeze_encoder,
            **({} if run.rl_net is None else {"rl_net_": run.rl_net}),
            **({} if ewc is None else {"ewc_": ewc.state}),
        }

    def _commit(self, fitted: FittedModel, attributes: dict) -> None:
        """Set all fitted attributes at once, in place of those of an earlier fit."""
        construction = construction_parameters(self)
        kept = {name: value for name, value in vars(self).items() if not is_fitted_attribute(name)}
        self.__dict__ = {**kept, "fitted_": fitted, "_construction": construction, **attributes}

    # -- predict ---------------------------------------------------------------------------------------------

    def _run(self, X, compute) -> np.ndarray:
        """Return ``compute(engine, texts)`` for the texts of X."""
        check_is_fitted(self)
        texts = read_texts(X, self)
        engine = self.fitted_.engine(**engine_options(self), instructions=fitted_instructions(self))
        values = compute(engine, texts)
        warn_truncation(engine.n_truncated, len(texts), self.max_length_)
        return values

    def _logits(self, X) -> np.ndarray:
        """Compute the logits (n_samples, n_labels) of X."""
        return self._run(X, lambda engine, texts: engine.logits(texts))

    def transform(self, X: Texts) -> Array:
        """Compute the embeddings of texts.

        Parameters
        ----------
        X : array-like of shape (n_samples,) or (n_samples, n_features)
            Texts or a table, as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, encoder_hidden_size)
            The pooled hidden states of the encoder, before the projector, in float32.
        """
        return self._run(X, lambda engine, texts: engine.embeddings(texts)).astype(np.float32, copy=False)


# Around scikit-learn's wrapper, which names the columns of the result.
BaseGLiClass.transform = on_snapshot(BaseGLiClass.transform)


def is_fitted_attribute(name: str) -> bool:
    """Return whether an attribute is set by `fit`."""
    return name in PRIVATE_ATTRIBUTES or (name.endswith("_") and not name.endswith("__"))
