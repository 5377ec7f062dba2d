"""What both estimators can be made from and turned into: configuration objects, checkpoint folders, pickles."""

import dataclasses

from sklearn.utils.validation import check_is_fitted
from skorch.history import History

from . import persistence
from .building import build
from .configuration import hyperparameters_of
from .inputs import UNSEEN, TextReader
from .model.isolation import seeded
from .model.lookup import find_checkpoint
from .targets import label_texts
from .training.run import build_net


class ConfigurationMixin:
    """Construction from GLiClass's configuration objects."""

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
        return cls(**{**hyperparameters_of(cls, config, training_args), **hyperparameters})


class PersistenceMixin:
    """Checkpoint folders, and the plain state that pickle, joblib, deepcopy and skops store."""

    def save_pretrained(self, folder) -> None:
        """Write the fitted estimator as a checkpoint folder, which GLiClass models load from too.

        The folder is written beside its place and swapped in: after a crash there is the old checkpoint or the new
        one.

        Parameters
        ----------
        folder : str or Path
            It is made where it does not exist. Written are ``config.json``, ``model.safetensors``, the
            tokenizer, ``label_tokenizer/`` for the bi-encoders, and ``estimator.json`` with hyperparameters,
            classes and units; nothing is pickled.
        """
        check_is_fitted(self)
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
            It was saved by another kind of estimator, a hyperparameter does not fit its weights, or one that
            predictions need could not be saved and is not given.
        """
        if "pretrained" in hyperparameters:
            raise TypeError(
                f"from_pretrained({str(source)!r}, pretrained=...) names two checkpoints; the first argument is the "
                "one that is loaded."
            )
        folder = find_checkpoint(str(source), hyperparameters.get("cache_dir"))
        return persistence.read_unchanged(folder, lambda: cls._load(folder, source, hyperparameters))

    @classmethod
    def _load(cls, folder, source, hyperparameters):
        record = persistence.read_estimator(folder, cls) or {"hyperparameters": {}, "fitted": {}, "missing": []}
        persistence.check_given_again(record, hyperparameters)
        estimator = cls(**{**record["hyperparameters"], **hyperparameters, "pretrained": str(source)})
        estimator._validate_params()
        cls._check_problem_type(folder, record, hyperparameters.get("problem_type"))
        attributes = {**record["fitted"], "_text_reader": _text_reader(record["fitted"])}
        names = attributes.pop("label_names_", None)
        if "label_names" in hyperparameters and names is not None:
            names = label_texts(estimator.label_names, estimator._label_keys(attributes))
        with seeded(0):
            fitted = build(estimator, names, persistence.problem_type(folder))
        if names is not None:
            fitted.layout()  # raises where the labels do not fit
        estimator._commit(fitted, attributes)
        return estimator

    @staticmethod
    def _check_problem_type(folder, record, given) -> None:
        """A checkpoint with classes was trained for one kind of y; others learn it from ``fit(None, labels)``."""
        fitted = persistence.problem_type(folder)
        if record["fitted"] and given not in (None, fitted):
            raise ValueError(
                f"problem_type={given!r} does not fit {str(folder)!r}, which was fitted with problem_type={fitted!r}; "
                "leave it out, and call fit for another kind of y."
            )

    def __getstate__(self):
        state = dict(super().__getstate__())
        if "fitted_" in state:
            state["fitted_"] = persistence.pack_fitted(state["fitted_"])
            state["_text_reader"] = dataclasses.asdict(state["_text_reader"])
            # Nets hold optimisers and open handles; they are made anew.
            state.pop("net_", None)
            state.pop("rl_net_", None)
            if "history_" in state:
                state["history_"] = [dict(row) for row in state["history_"]]
        return state

    def __setstate__(self, state):
        if "fitted_" in state:
            fitted = persistence.unpack_fitted(state["fitted_"], state["device"])
            state = {**state, "fitted_": fitted, "_text_reader": TextReader(**state["_text_reader"])}
        super().__setstate__(state)
        if "history_" in state:
            self.history_ = History(state["history_"])
            self.net_ = build_net(self, self.model_, self.training_args_, seed=0)
            self.net_.history = self.history_


def _text_reader(fitted: dict) -> TextReader:
    return TextReader(**fitted["_text_reader"]) if "_text_reader" in fitted else UNSEEN
