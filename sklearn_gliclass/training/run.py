"""A training run: data sets and net for a model, and the stages of the training."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from skorch.callbacks import Checkpoint, EarlyStopping, PrintLog, TensorBoard, TrainEndCheckpoint
from skorch.callbacks import ProgressBar as SkorchProgressBar
from skorch.callbacks.logging import MlflowLogger, NeptuneLogger, SacredLogger, WandbLogger

from ..containers import plain
from ..data.dataset import TextDataset
from ..data.windows import read_windows
from ..fitted import engine_options, warn_unknown_labels
from ..label_fit import LabelFit
from ..model.fingerprint import forget, own_trained_weights
from ..model.freezing import freeze, is_fully_frozen
from ..model.traversal import collect_parameters
from ..process_group import SINGLE, ProcessGroup, active_group
from ..warn import is_called_by_user, warn, warn_truncation
from .arguments import FIELDS, TrainingArguments
from .calibration import count_held_out
from .ewc import ElasticWeightConsolidation
from .splitting import split_rows
from .trainer import Trainer

if TYPE_CHECKING:
    from ..abstention import Evidence
    from ..cache.engine import StateEngine
    from ..fitted import FittedModel
    from ..samples import Samples
    from .adapters import Adapters
    from .recipe import Recipe
    from .rl import RLTrainer

# Callbacks of skorch that write files, send results away or print.
WRITING_CALLBACKS = (
    Checkpoint, TrainEndCheckpoint, PrintLog, SkorchProgressBar, TensorBoard, MlflowLogger, NeptuneLogger,
    SacredLogger, WandbLogger,
)  # fmt: skip
MAX_WINDOWS = 8  # of a text in training


@dataclass
class TrainingRun:
    """State of a training run.

    Attributes
    ----------
    net : Trainer
        Net that trains the model in place.
    train, valid : TextDataset or None
        Training and validation data.
    held_out : TextDataset or None
        Rows that the temperature of the probabilities is fitted to; the validation data if there are any.
    seed : int
        Seed of the order of the data.
    is_hidden : bool
        Whether it is a fit inside another one, which does not warn, and whose interrupt ends both.
    engine : StateEngine or None
        Engine for cached hidden states of the model as it was before the training, if the training reads any.
    freeze_encoder : bool, "embeddings" or int
        Encoder parameters that are frozen.
    rl_net : RLTrainer or None
        Net of the reinforcement learning, after it has run.
    temperatures : ndarray of shape (n_targets,) or None
        Temperatures by which calibration has divided the logits of each target; None before any.
    shrinkage : ndarray of shape (outputs,) or None
        Factors of the predictions of a regressor that the training has estimated.
    evidence : Evidence or None
        Evidence of the training texts that their class fits, after it was measured.
    label_fit : LabelFit or None
        What the label projector was fitted to; None before any fit.
    embeddings : tuple of Tensor or None
        Projected embeddings of the training texts (n, hidden) and of the labels (labels, hidden), if a stage has
        computed them with the current weights.
    interrupted : bool
        Whether the user has pressed Ctrl-C, after which no stage trains any more.
    """

    net: Trainer
    train: TextDataset
    valid: TextDataset | None
    seed: int
    is_hidden: bool = False
    rl_net: RLTrainer | None = None
    interrupted: bool = False
    held_out: TextDataset | None = None
    engine: StateEngine | None = None
    freeze_encoder: bool | str | int = False
    temperatures: np.ndarray | None = None
    shrinkage: np.ndarray | None = None
    evidence: Evidence | None = None
    label_fit: LabelFit | None = None
    embeddings: tuple[torch.Tensor, torch.Tensor] | None = None

    @contextmanager
    def hold_labels(self, n_layers: int = 0):
        """Hold label embeddings and the output of the lower layers in the context.

        Head parameters are frozen if their learning rate is 0, and the encoders have no dropout.
        """
        train, valid, net = self.train, self.valid, self.net
        heads = [] if net.args_.resolve_others_lr() else _trainable_heads(net.module_)
        self.train, self.valid = self._hold(train, n_layers), None if valid is None else self._hold(valid, n_layers)
        net.valid, net.without_dropout = self.valid, net.module_.encoder_modules()
        for parameter in heads:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            self.train, self.valid, net.valid, net.without_dropout = train, valid, valid, []
            for parameter in heads:
                parameter.requires_grad_(True)

    def _hold(self, part: TextDataset, n_layers: int) -> TextDataset:
        if part.label_states is not None:  # of a frozen encoder
            return part
        return cast("StateEngine", self.engine).hold_labels(part, n_layers)

    def divide_logits(self, temperatures: np.ndarray) -> None:
        """Divide the logits of each target by a temperature.

        That of a single target becomes part of the model; predictions divide by those of several targets.
        """
        if self.train.groups is None:
            self.net.module_.divide_logits(float(temperatures[0]))
        self.temperatures = temperatures if self.temperatures is None else self.temperatures * temperatures

    def fit_labels(self, states: torch.Tensor, labels: torch.Tensor) -> None:
        """Fit the label projector so that it maps the label embeddings `states` to `labels`."""
        change = self.net.module_.model.classes_projector.fit_outputs(states, labels)
        known = self.label_fit or LabelFit((), torch.zeros_like(change))
        self.label_fit = known.extend(self.train.layout.label_texts, change)

    def read_new_labels(self) -> None:
        """Fit the label projector to labels that are new since its last fit, so that it reads them without that one."""
        labels = self.train.layout.label_texts
        if self.label_fit is not None and self.label_fit.is_new(labels).any():
            states, projector = self.label_states(), self.net.module_.model.classes_projector
            with torch.no_grad():
                projected = self.label_fit.project(projector, states, labels)
            self.fit_labels(states, projected)

    def label_states(self) -> torch.Tensor:
        """Return the label embeddings before their projection, with the current weights."""
        return self.net.embed_labels(self.train)


def _trainable_heads(model) -> list[torch.nn.Parameter]:
    inside = {id(parameter) for parameter in collect_parameters(model.encoder_modules())}
    parameters = collect_parameters([model])
    return [parameter for parameter in parameters if parameter.requires_grad and id(parameter) not in inside]


def prepare(
    estimator, fitted: FittedModel, samples: Samples, seed, recipe: Recipe, *, net=None, trains=True, is_hidden=False,
    adapters: Adapters | None = None,
):  # fmt: skip
    """Build the data sets and, unless one is given, the net.

    Parameters
    ----------
    estimator : BaseGLiClass
        Estimator with the hyperparameters.
    fitted : FittedModel
        Model to train.
    samples : Samples
        Training data, including the validation set.
    seed : int
        Seed of the split and of the order of the data.
    recipe : Recipe
        Resolved choices of the training.
    net : Trainer, optional
        Net whose optimiser is reused (`partial_fit`).
    trains : bool, default=True
        Whether any stage trains. If not, hidden states of frozen encoders are not computed.
    is_hidden : bool, default=False
        See :class:`TrainingRun`.
    adapters : Adapters, optional
        Low-rank adapters to attach.

    Returns
    -------
    TrainingRun
    """
    n_held_out = 0 if is_hidden else count_held_out(estimator, recipe, len(samples))
    train, valid, held_out = _datasets(estimator, fitted, samples, seed, n_held_out)
    group = active_group()
    group.copy_from_main(fitted.model.parameters())
    if not is_hidden:
        warn_unknown_labels(train.layout)
        _warn_truncated_rows(train)
    freeze(fitted.model, recipe.freeze_encoder)
    if adapters is not None:
        adapters.attach(fitted.model)
    own_trained_weights(fitted.model)
    frozen = is_fully_frozen(recipe.freeze_encoder) and trains
    engine = None
    if frozen or recipe.from_probe:
        options = engine_options(estimator)
        passes = fitted.engine(**options, separate_passes=True, instructions=samples.instructions)
        engine = cast("StateEngine", passes)
        if frozen:
            train, valid = engine.freeze(train, group), None if valid is None else engine.freeze(valid, group)
    if net is None:
        arguments = TrainingArguments(**{name: plain(getattr(estimator, name)) for name in FIELDS})
        n_labels = len(fitted.label_names) if samples.groups is None else samples.groups.largest
        n_labels = 1 if samples.problem_type == "regression" else n_labels
        arguments = arguments.resolve(len(train), recipe.regime, recipe.epoch_factor, n_labels)
        net = build_net(estimator, fitted.model, arguments, seed, group)
    elif net.callbacks != _callbacks(estimator, group):  # set since the last call
        net.callbacks = _callbacks(estimator, group)
        net.initialize_callbacks()
    _set_validation(estimator, net, valid)
    return TrainingRun(
        net, train, valid, seed, is_hidden, held_out=held_out, engine=engine, freeze_encoder=recipe.freeze_encoder,
        label_fit=fitted.label_fit,
    )  # fmt: skip


def build_net(estimator, model, args: TrainingArguments, seed: int, group: ProcessGroup = SINGLE) -> Trainer:
    """Build an initialised net for a model, which the processes of `group` train together."""
    return Trainer(
        model,
        args,
        dtype=estimator.dtype,
        seed=seed,
        callbacks=_callbacks(estimator, group),
        progress=bool(estimator.verbose) and group.is_main,
        device=str(model.device),
        group=group,
    ).initialize()


def _callbacks(estimator, group: ProcessGroup) -> list:
    """Return the callbacks of this process; those that write files or print run on the main process only."""
    kept = []
    for entry in estimator.callbacks or []:
        is_pair = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
        callback = entry[1] if is_pair else entry
        if callback is not None and not hasattr(callback, "on_train_begin"):
            raise TypeError(
                f"callbacks must be a list of callbacks of skorch, or of (name, callback) pairs, got {entry!r} among "
                "them; derive your own from skorch.callbacks.Callback."
            )
        if group.is_main or not isinstance(callback, WRITING_CALLBACKS):
            kept.append(entry)
    return kept


def _set_validation(estimator, net: Trainer, valid: TextDataset | None) -> None:
    """Set the validation set, and early stopping on it."""
    net.valid = valid
    net.callbacks_ = [entry for entry in net.callbacks_ if entry[0] != "early_stopping"]
    if valid is not None:
        patience = estimator.n_iter_no_change
        stop = EarlyStopping(monitor="valid_loss", patience=patience, load_best=True, sink=_discard)
        net.callbacks_.append(("early_stopping", stop.initialize()))


def train(run: TrainingRun, stages, ewc: ElasticWeightConsolidation | None = None) -> None:
    """Run the stages; the model is in evaluation mode afterwards.

    Raises
    ------
    ValueError
        If the loss, the gradient or weights become non-finite.
    KeyboardInterrupt
        At Ctrl-C before the end of the first epoch, in a hidden fit, or in a fit that a library called (a search, a
        cross-validation, several processes). In a fit that user code called, the completed epochs are kept, with a
        warning.
    """
    net, entry = run.net, ("ewc", ewc)
    first = len(net.history)
    net.module_.train()
    if ewc is not None:
        net.callbacks_.append(entry)
    try:
        if stages:
            run.read_new_labels()
        for stage in stages:
            stage.run(run)
            _copy_results(run)
            _handle_interrupt(run, first)
    finally:
        if ewc is not None:
            net.callbacks_.remove(entry)
        net.module_.eval()
    if len(net.history) > first:
        _check_weights(net)
    for module in net.module_.model.frozen_modules():
        if any(parameter.requires_grad for parameter in collect_parameters([module])):
            forget(module)  # its hidden states are no longer the cached ones


def _copy_results(run: TrainingRun) -> None:
    """Give all processes the results of the main one: machines of several types round differently."""
    group, config = run.net.group, run.net.module_.config
    if group.size > 1:
        group.copy_from_main(run.net.module_.parameters())
        config.logit_offset, run.temperatures = group.from_main((config.logit_offset, run.temperatures))


def _datasets(estimator, fitted: FittedModel, samples: Samples, seed: int, n_held_out: int):
    """Return the training set, the validation set or None, and the held-out rows for the temperature or None."""
    layout = fitted.layout(instructions=samples.instructions)
    _check_room_for_targets(fitted, samples, estimator)

    def dataset(part: Samples) -> TextDataset:
        targets, weight = (_in_dtype(array, estimator.dtype) for array in (part.targets, part.sample_weight))
        tokens, n_labels = layout.tokenize(part.texts), len(fitted.label_names)
        max_labels = fitted.labels_per_prompt(getattr(estimator, "max_num_classes", None))
        at_once = min(max_labels or n_labels, n_labels)
        overlap = plain(estimator.window_overlap)
        windows = read_windows(layout, tokens, estimator.long_texts, overlap, at_once, MAX_WINDOWS)
        return TextDataset(
            layout, tokens, targets, weight, n_labels, max_labels, estimator.shuffle_labels, part.texts, part.groups,
            part.own_labels, windows, estimator.long_texts,
        )  # fmt: skip

    if estimator.early_stopping:
        rows = split_rows(len(samples), estimator.validation_fraction, seed, samples.class_index, fitted.label_names)
        train, valid = (dataset(samples.take(side)) for side in rows)
        return train, valid, valid
    if n_held_out:
        order = np.random.RandomState(seed).permutation(len(samples))
        rows = np.sort(order[n_held_out:]), np.sort(order[:n_held_out])
        train, held_out = (dataset(samples.take(side)) for side in rows)
        return train, None, held_out
    return dataset(samples), None, None


def _check_room_for_targets(fitted: FittedModel, samples: Samples, estimator) -> None:
    """Raise if a training prompt has fewer labels than there are targets."""
    if samples.groups is None or fitted.layout().shares_labels:
        return
    max_labels = fitted.labels_per_prompt(estimator.max_num_classes)
    if max_labels is not None and max_labels < len(samples.groups):
        raise ValueError(
            f"max_num_classes={max_labels} is less than the number of targets, {len(samples.groups)}, and a training "
            "prompt holds the class of each target; raise it, or leave max_num_classes=None."
        )


def _in_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return array.astype(np.float64 if dtype == "float64" else np.float32)


def _warn_truncated_rows(train: TextDataset) -> None:
    if train.windows is not None:
        return
    # Estimated with the first labels, as the labels in a text's prompt differ between epochs.
    labels = train.all_labels[: train.max_labels]
    n_truncated = int(train.layout.is_truncated(train.tokens, labels).sum())
    warn_truncation(n_truncated, len(train), train.layout.max_length)


def _handle_interrupt(run: TrainingRun, first: int) -> None:
    nets = [net for net in (run.net, run.rl_net) if net is not None]
    if run.interrupted or not any(net.interrupted_ for net in nets):
        return
    history = run.net.history
    if len(history) and "train_loss" not in history[-1]:
        del history[-1:]  # the incomplete epoch
    n_epochs = len(history) - first
    if n_epochs == 0 or run.is_hidden or run.net.group.size > 1 or not is_called_by_user():
        raise KeyboardInterrupt
    run.interrupted = True
    warn(
        f"The fit was interrupted: the {n_epochs} epoch(s) trained so far are kept. Call partial_fit to continue the "
        "training, or fit to restart it."
    )


def _check_weights(net: Trainer) -> None:
    diverged = [name for name, parameter in net.trained_ if not _is_finite(parameter)]
    if diverged:
        args = net.args_
        raise ValueError(
            f"Training diverged: {len(diverged)} weights hold NaN or infinity after the last step, first "
            f"{diverged[0]!r}. Lower lr={args.lr!r} and others_lr={args.resolve_others_lr()!r}."
        )


@torch.no_grad()
def _is_finite(tensor: torch.Tensor) -> bool:
    # A sum is a tenth of the time of a look at each value, and finite values rarely have an infinite one.
    return math.isfinite(tensor.sum()) or bool(torch.isfinite(tensor).all())


def _discard(*args, **kwargs) -> None:
    """Discard the messages of skorch's callbacks."""
