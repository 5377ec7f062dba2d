"""Mixins of both estimators: construction from configuration objects, checkpoint folders and pickling."""

import dataclasses
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

from sklearn.utils.validation import check_is_fitted
from skorch.history import History

from . import persistence
from .building import build
from .configuration import read_hyperparameters
from .encoder_folder import save_adapter, save_encoder
from .hub_upload import upload_estimator
from .inputs import UNSEEN, TextReader
from .model.isolation import seed_torch
from .model.lookup import find_checkpoint
from .snapshots import on_snapshot
from .training import RLTrainerConfig
from .training.run import build_net

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator as _Estimator
    from typing_extensions import Self

    from .fitted import FittedModel
    from .model import GLiClassModel, GLiClassModelConfig
    from .training import TrainingArguments
else:
    _Estimator = object  # the mixins belong to estimators, which have the base class


class ConfigurationMixin:
    """Construction of estimators from GLiClass's configuration objects."""

    @classmethod
    def from_config(
        cls, config: "GLiClassModelConfig", training_args: Any = None, rl: RLTrainerConfig | None = None,
        **hyperparameters: Any,
    ) -> "Self":  # fmt: skip
        """Build an unfitted estimator from GLiClass's configuration objects.

        Parameters
        ----------
        config : GLiClassModelConfig
            Configuration of the model. Its fields take precedence over the defaults of the estimator. Token ids and
            sizes that the configuration has derived are derived again by `fit`, and a `problem_type` at its default
            is inferred from y.
        training_args : TrainingArguments or transformers.TrainingArguments, optional
            Hyperparameters of the training loop; see :meth:`TrainingArguments.from_transformers`. If None, the
            defaults of the estimator.
        rl : RLTrainerConfig, optional
            Hyperparameters of reinforcement learning, for classifiers.
        **hyperparameters
            Further hyperparameters, which override those of the objects.

        Returns
        -------
        estimator : GLiClassClassifier or GLiClassRegressor
            An unfitted estimator of this class.

        Raises
        ------
        TypeError
            If an argument is an object of another type.
        ValueError
            If a field that is set has no counterpart among the hyperparameters.

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
        return cls(**{**read_hyperparameters(cls, config, training_args), **hyperparameters})


class PersistenceMixin(_Estimator):
    """Saving to and loading from checkpoint folders, and the state that pickle, joblib, deepcopy and skops store."""

    fitted_: "FittedModel"
    model_: "GLiClassModel"
    training_args_: "TrainingArguments"
    prompt: str | None
    _commit: Callable[["FittedModel", dict], None]
    _texts_of_saved: Callable[[dict], list[str]]

    @on_snapshot
    def save_pretrained(
        self, folder: str | PathLike[str], *, metrics: dict[str, float] | None = None, for_gliclass: bool = True
    ) -> None:
        """Save the fitted estimator to a checkpoint folder.

        The folder holds ``config.json``, ``model.safetensors``, the tokenizer, ``label_tokenizer/`` for the
        bi-encoders, ``estimator.json`` with the hyperparameters and fitted attributes, and ``README.md``, a model card.
        Nothing is pickled. The save is atomic: after a crash, the folder is either the old checkpoint or the new one. A
        ``README.md`` that is your own is kept.

        Parameters
        ----------
        folder : str or Path
            Folder to write; it is created if it does not exist.
        metrics : dict of str to float, optional
            Results of an evaluation for the model card, for example ``{"accuracy": 0.93}``.
        for_gliclass : bool, default=True
            Whether the package ``gliclass`` can load the folder too. It reads text encoder and label encoder under
            names of their own, so that tied encoders are written twice. If False, they are written once: the folder has
            half the size with the default hyperparameters, and ``gliclass`` raises a ValueError.

        See Also
        --------
        from_pretrained : Load the estimator again.
        push_to_hub : Upload the folder to the Hugging Face hub.
        """
        check_is_fitted(self)
        persistence.save_estimator(self, folder, metrics, for_gliclass)

    @on_snapshot
    def push_to_hub(
        self,
        repo_id: str,
        *,
        metrics: dict[str, float] | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        for_gliclass: bool = True,
    ) -> str:
        """Upload the fitted estimator to the Hugging Face hub, in one commit.

        The files are those of :meth:`save_pretrained`. Weights of an earlier upload are replaced; a model card in the
        repository that is your own is kept.

        Parameters
        ----------
        repo_id : str
            Name of the repository, for example "me/my-classifier"; it is created if it does not exist.
        metrics : dict of str to float, optional
            Results of an evaluation for the model card.
        private : bool, optional
            Whether a new repository is private. If None, the default of the account or organisation.
        token : str, optional
            Access token. If None, that of ``hf auth login`` or of the environment variable ``HF_TOKEN``.
        revision : str, optional
            Branch of the commit. If None, "main".
        create_pr : bool, default=False
            Whether to open a pull request instead of a commit to the branch.
        commit_message : str, optional
            Message of the commit. If None, one with the name of the class.
        for_gliclass : bool, default=True
            Whether the package ``gliclass`` can load the repository too; see :meth:`save_pretrained`.

        Returns
        -------
        str
            Address of the commit, or of the pull request.

        See Also
        --------
        from_pretrained : Load the estimator by the name of the repository.
        """
        check_is_fitted(self)
        options = {"revision": revision, "create_pr": create_pr, "commit_message": commit_message}
        return upload_estimator(self, repo_id, metrics, private, token, for_gliclass, **options)

    @on_snapshot
    def save_encoder(self, folder: str | PathLike[str]) -> None:
        """Save the text encoder to a folder that sentence-transformers loads.

        ``SentenceTransformer(folder).encode(texts)`` gives the embeddings of :meth:`transform`; a `prompt` becomes its
        default prompt.

        Parameters
        ----------
        folder : str or Path
            Folder to write; it is created if it does not exist.

        Raises
        ------
        ValueError
            If the embeddings of the architecture or pooling have no counterpart in sentence-transformers.
        """
        check_is_fitted(self)
        save_encoder(self.fitted_, folder, self.prompt)

    @on_snapshot
    def save_adapter(self, folder: str | PathLike[str]) -> None:
        """Save the low-rank adapter of the text encoder to a folder, in the format of peft.

        The folder holds a few MB. ``encoder_model=folder`` loads the encoder with the adapter, and so does
        ``peft.PeftModel.from_pretrained``. The heads are not part of it; :meth:`save_pretrained` saves the estimator.
        The adapter of a label encoder of its own is in the subfolder ``label_encoder``, for `label_model_name`.

        Parameters
        ----------
        folder : str or Path
            Folder to write; it is created if it does not exist.

        Raises
        ------
        ValueError
            If there is no adapter, because of ``lora_rank=None`` or because the estimator was loaded from a folder of
            :meth:`save_pretrained`; or if `encoder_model` does not name the encoder that it belongs to.
        """
        check_is_fitted(self)
        save_adapter(self, folder)

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], **hyperparameters: Any) -> "Self":
        """Load a fitted estimator from a checkpoint.

        Parameters
        ----------
        source : str or Path
            Folder of :meth:`save_pretrained` or of another GLiClass library, or a name on the Hugging Face hub.
        **hyperparameters
            Hyperparameters that override the stored ones, where the weights allow it.

        Returns
        -------
        estimator : GLiClassClassifier or GLiClassRegressor
            The estimator, with ``pretrained=source``: a further `fit` starts from the loaded weights. A checkpoint
            of another library has no classes; set them with ``fit(None, labels)``.

        Raises
        ------
        OSError
            If there is no such checkpoint.
        ValueError
            If another type of estimator saved it, a hyperparameter does not match its weights, or a hyperparameter
            that predictions depend on could not be saved and is not given.

        See Also
        --------
        save_pretrained : Save a fitted estimator.
        """
        if "pretrained" in hyperparameters:
            raise TypeError(
                f"from_pretrained({str(source)!r}, pretrained=...) names two checkpoints; pass only the "
                "first argument, which is the one to load."
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
            names = estimator._texts_of_saved(attributes)
        with seed_torch(0):
            fitted = build(estimator, names, persistence.problem_type(folder))
        if names is not None:
            fitted.layout()  # raises if the labels do not fit the model
        estimator._commit(fitted, attributes)
        return estimator

    @staticmethod
    def _check_problem_type(folder, record, given) -> None:
        """Raise if `problem_type` differs from that of a checkpoint with classes."""
        fitted = persistence.problem_type(folder)
        if record["fitted"] and given not in (None, fitted):
            raise ValueError(
                f"problem_type={given!r} does not match {str(folder)!r}, which was fitted with "
                f"problem_type={fitted!r}; do not set it, and call fit for another type of y."
            )

    @on_snapshot
    def export_onnx(self, folder: str | PathLike[str], quantize: bool = False) -> float:
        """Export the fitted estimator to ONNX, for predictions without torch and scikit-learn.

        :class:`~sklearn_gliclass.onnx.OnnxClassifier` and :class:`~sklearn_gliclass.onnx.OnnxRegressor` read the
        folder. It holds the graphs, their weights, ``tokenizer.json``, and ``onnx.json`` with the classes and all that
        a prediction needs. The export is atomic, as in :meth:`save_pretrained`, and needs the extra ``onnx``.

        Parameters
        ----------
        folder : str or Path
            Folder to write; it is created if it does not exist.
        quantize : bool, default=False
            Whether to store the weights of the encoders in int8, by onnxruntime's dynamic quantisation. The folder has
            a quarter of the size, and predictions differ: compare them on held-out texts.

        Returns
        -------
        float
            Largest difference between the exported model and the estimator on sample texts, in probability, or in
            standardised values for a regressor.

        Raises
        ------
        ImportError
            If a package of the extra ``onnx`` is not installed.
        ValueError
            If the estimator was fitted on a table, or the exported model without quantisation differs by more than
            1e-4. Nothing is written then.

        See Also
        --------
        save_pretrained : Save the estimator to load it again with torch.
        """
        check_is_fitted(self)
        from .onnx_export import export_estimator  # needs packages of the extra "onnx"

        return export_estimator(self, folder, quantize)

    def __sizeof__(self):
        # joblib's backend of dask sends a large argument to each worker once, and a small one with each task.
        weights = self.fitted_.model.parameters() if "fitted_" in vars(self) else ()
        return super().__sizeof__() + sum(weight.nbytes for weight in weights)

    def __getstate__(self):
        state = dict(super().__getstate__())
        if "fitted_" in state:
            state["fitted_"] = persistence.pack_fitted(state["fitted_"])
            state["_text_reader"] = dataclasses.asdict(state["_text_reader"])
            # Nets hold optimisers and open handles, which cannot be pickled.
            state.pop("net_", None)
            state.pop("rl_net_", None)
            if "history_" in state:
                state["history_"] = [dict(row) for row in state["history_"]]
        return persistence.sign_state(state)

    def __setstate__(self, state):
        with persistence.checked_state(state, type(self).__name__) as content:
            # Hyperparameters that are newer than the stored estimator have their defaults.
            self._restore({**type(self)().get_params(deep=False), **content})

    def _restore(self, state):
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
