"""The training loop: a skorch net around the torch model."""

import copy
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import skorch
import torch
from sklearn.base import clone
from sklearn.utils import ClassifierTags, RegressorTags
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.history import History
from torch import nn
from tqdm.auto import tqdm

from ..data.batching import tensors, to_device
from ..data.dataset import Epochs, TextDataset
from ..model.architecture import average_windows
from ..model.fingerprint import keep_hooks
from ..model.losses import problem_loss
from ..model.precision import autocast, weight_dtype
from ..process_group import SINGLE
from .arguments import TrainingArguments
from .optimizers import (
    RowwiseAdamW,
    add_unfrozen_parameters,
    build_optimizer,
    build_scheduler,
    clip_gradients,
    copy_optimizer,
)

if TYPE_CHECKING:
    from ..model import GLiClassModel

# A schedule needs to know its end; single epochs (`partial_fit`) have none.
AT_CONSTANT_RATES = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0}


class ProgressBar(Callback):
    """Progress bar over all optimiser steps of a fit; it is removed at the end, as a search has many fits."""

    bar_: Any  # tqdm, or None between fits

    def initialize(self):
        self.bar_ = None
        return self

    def on_epoch_begin(self, net, **kwargs):
        if self.bar_ is None:  # here the number of steps is known
            self.bar_ = tqdm(total=net.n_steps_, desc="fit", unit="step", leave=False, dynamic_ncols=True)

    def on_batch_end(self, net, batch: Any = None, training=False, **kwargs):
        if training and batch[0].last_of_step:
            self.bar_.update()

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        losses = {name: f"{row[name]:.4f}" for name in ("train_loss", "valid_loss") if name in row}
        self.bar_.set_postfix(epoch=len(net.history), **losses)

    def close(self):
        if self.bar_ is not None:
            self.bar_.close()
            self.bar_ = None


class RecordLearningRate(Callback):
    """Callback that records the learning rates at the end of each epoch in the history, as `lr` and `others_lr`."""

    def on_epoch_end(self, net, **kwargs):
        rates = {group["name"]: group["lr"] for group in net.optimizer_.param_groups}
        net.history.record("lr", rates.get("encoder", 0.0))
        net.history.record("others_lr", rates.get("others", 0.0))


class ShareLosses(Callback):
    """Callback that gives all processes the losses of the main one, so that early stopping stops all of them."""

    def on_epoch_end(self, net, **kwargs):
        row = net.history[-1]
        losses = {name: row[name] for name in row if name.startswith(("train_loss", "valid_loss"))}
        for name, value in net.group.from_main(losses).items():
            net.history.record(name, value)


class Trainer(skorch.NeuralNet):
    """Training loop of a :class:`~sklearn_gliclass.GLiClassModel`, as a skorch net.

    It adds separate learning rates of encoder and head parameters, warm-up and schedules, and accumulation and clipping
    of gradients to skorch's callbacks, history and parameters. The estimators create it; use it directly to train a
    model on a :class:`TextDataset` of your own.

    Parameters
    ----------
    module : GLiClassModel
        The model, which is trained in place.
    args : TrainingArguments, optional
        Hyperparameters of the training loop. If None, ``TrainingArguments()``.
    valid : TextDataset, optional
        Validation set. If None, there is no validation loss.
    dtype : {"float32", "bfloat16", "float64"}, default="float32"
        Floating point type. "bfloat16" is mixed precision with float32 weights.
    seed : int, default=0
        Seed of the order of the data. Dropout uses torch's generator, which has a seed of its own.
    callbacks : list, optional
        Callbacks of skorch. Scoring callbacks see class indices or standardised values. An ``LRScheduler`` replaces the
        schedule of `args`.
    progress : bool, default=False
        Whether to show a progress bar.
    device : str, default="cpu"
        Device of the training, by its name in torch.
    group : ProcessGroup, optional
        Processes that train the model together. If None, this process alone.
    **kwargs
        Further parameters of ``skorch.NeuralNet``.

    Attributes
    ----------
    module_ : GLiClassModel
        The trained model.
    history : skorch.history.History
        Losses, durations and learning rates of each epoch.

    See Also
    --------
    RLTrainer : Training loop of reinforcement learning.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.testing import TINY
    >>> clf = GLiClassClassifier(**TINY).fit(["good", "bad"], ["pos", "neg"])     # 5 epochs
    >>> len(clf.net_.history[:, "train_loss"])
    5
    """

    interrupted_ = False  # until the first epochs

    # Attributes of skorch, which has no types.
    module_: "GLiClassModel"
    optimizer_: Any  # some optimisers have methods of their own
    callbacks: Any
    callbacks_: list[tuple[str, Any]]
    history: Any

    def __init__(self, module, args=None, valid=None, dtype="float32", seed=0, *, callbacks=None, progress=False,
                 device="cpu", group=None, **kwargs):  # fmt: skip
        self.args = args
        self.group = group or SINGLE
        self.valid = valid
        self.dtype = dtype
        self.seed = seed
        self.progress = progress
        self.without_dropout = []  # modules that stay in evaluation mode
        # The optimiser is built from `args`, and skorch's table of losses is not printed.
        kwargs.setdefault("criterion", nn.Identity)
        kwargs.setdefault("train_split", None)
        kwargs.setdefault("callbacks__print_log", None)
        kwargs.setdefault("verbose", 0)
        super().__init__(module, callbacks=callbacks, device=device, **kwargs)

    @property
    def _default_callbacks(self):
        bar = [("progress_bar", ProgressBar())] if self.progress else []
        shared = [("share_losses", ShareLosses())] if self.group.size > 1 else []
        return [*super()._default_callbacks, *shared, ("record_lr", RecordLearningRate()), *bar]

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimiser with the parameter groups of `args`."""
        self.args_ = self.args or TrainingArguments()
        self.args_.validate()
        self.optimizer_ = build_optimizer(self.module_, self.module_.encoder_modules(), self.args_)

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train on a :class:`TextDataset` as `args` says, or for `epochs` epochs at constant learning rates."""
        args = self.args_
        if epochs is not None:
            args = cast("TrainingArguments", clone(args)).set_params(**AT_CONSTANT_RATES)
        epochs = args.resolve_epochs(len(X)) if epochs is None else epochs
        self.n_steps_ = epochs * args.steps_per_epoch(len(X))
        add_unfrozen_parameters(self.optimizer_, self.module_, self.module_.encoder_modules(), self.args_)
        # A scheduler of skorch among the callbacks replaces that of `args`.
        own = not any(isinstance(callback, LRScheduler) for _, callback in self.callbacks_)
        self.scheduler_ = build_scheduler(self.optimizer_, args, max(1, self.n_steps_)) if own else None
        self.n_labels_, self.shares_labels_ = X.n_labels, X.layout.shares_labels
        self.trained_ = []
        self._collect_trained()
        self.rng_ = np.random.RandomState(self.seed)
        self.interrupted_, self.step_ = False, 0
        embeddings = self._rowwise_embeddings()
        hooks = [part.register_forward_pre_hook(self.optimizer_.prepare_rows) for part in embeddings]
        try:
            for embedding in embeddings:
                embedding.sparse = True
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt as interrupt:
            # skorch's early stopping raises a KeyboardInterrupt too, and skorch ends the training at both.
            self.interrupted_ = not _is_early_stop(interrupt)
            raise
        finally:  # also after an error, which would leave an unfinished bar on the screen
            for embedding in embeddings:
                embedding.sparse = False
            for hook in hooks:
                hook.remove()
            self._switch_optimizer(False)
            for _, callback in self.callbacks_:
                if isinstance(callback, ProgressBar):
                    callback.close()

    def _collect_trained(self) -> None:
        """Add the parameters that are trained now; callbacks may have unfrozen some since the last epoch.

        Walking through all modules in each step would take noticeable time.
        """
        known = {id(parameter) for _, parameter in self.trained_}
        parameters = self.get_all_learnable_params()
        self.trained_ += [(name, p) for name, p in parameters if p.requires_grad and id(p) not in known]

    def copy_for_training(self, memo: dict) -> "Trainer":
        """Return a net that continues the training with a copy of the model.

        Parameters
        ----------
        memo : dict
            Copies by the id of their originals, as in ``copy.deepcopy``. Callbacks are not copied.

        Returns
        -------
        Trainer
            The net, with copies of model, optimiser and history.
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        keep_hooks(self.module_, memo)
        other.module = other.module_ = copy.deepcopy(self.module_, memo)
        other.optimizer_, other.history = copy_optimizer(self.optimizer_, memo), History(self.history)
        other.callbacks_ = list(self.callbacks_)
        return other

    def get_split_datasets(self, X, y=None, **fit_params):
        """Return the training data and the validation data."""
        return X, self.valid

    def get_dataset(self, X, y=None):
        """Return the data, which must be a :class:`TextDataset`."""
        if not isinstance(X, TextDataset):
            raise TypeError(
                f"Trainer takes a TextDataset, got {type(X).__name__}; fit a GLiClassClassifier or GLiClassRegressor "
                "to train on texts."
            )
        return X

    def get_iterator(self, dataset, training=False):
        """Return an iterator over batches of texts of similar lengths, in random order in training."""
        args, batch_size = self.args_, self.args_.resolve_batch_size(len(dataset))
        if training:
            return Epochs(dataset, batch_size, self.rng_, args.gradient_accumulation_steps, self.group)
        return Epochs(dataset, batch_size, group=self.group)

    def infer(self, x, **fit_params):
        """Run the model on a training batch."""
        return self._run(x.inputs, gather=self._gather(len(x)), **fit_params)

    def _run(self, inputs, **fit_params):
        with autocast(self.device, self.dtype):
            return self.module_(**self._on_device(inputs), **fit_params)

    def _gather(self, n_rows: int):
        """Return the function that gathers the outputs of the processes for a batch; None for one process."""
        return None if self.group.size == 1 else partial(self._join, n_rows)

    def _join(self, n_rows: int, logits, text, classes, class_mask):
        config, join = self.module_.config, partial(self.group.gather_rows, n_rows=n_rows)
        if config.text_contrastive_loss_coef and text.dim() == 2:
            text = join(text)
        if config.contrastive_loss_coef:
            classes = self.group.keep_on_main(classes) if self.shares_labels_ else join(classes)
        return join(logits), text, classes, class_mask[:1]  # all texts have the same number of labels

    def _on_device(self, inputs):
        return to_device(inputs, self.device, weight_dtype(self.dtype))

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the loss, which the model has computed."""
        return y_pred.loss

    def train_step(self, batch, **fit_params):
        """Compute the gradients of a batch, and take an optimiser step at the end of an accumulation group."""
        self._set_training(True)
        inputs, _ = batch
        output = self.infer(inputs, **fit_params)
        self._check_finite(output.loss, "the loss")
        # A loss that is a sum is accumulated as it is; a mean is weighted by its share of the step's total weight.
        share = 1.0 if self._sums_losses() else inputs.share
        (output.loss * share).backward()
        if inputs.last_of_step:
            self._optimizer_step(batch)
        return {"loss": output.loss.detach(), "y_pred": output.logits.detach()}

    def _check_finite(self, value: torch.Tensor, what: str) -> None:
        """Raise if the loss or gradient of a step is not finite: all weights would become NaN."""
        if not torch.isfinite(value):
            args = self.args_
            raise ValueError(
                f"Training diverged: {what} became {value.item()} in epoch {len(self.history)}, optimiser step "
                f"{self.step_ + 1}. Lower lr={args.lr!r} and others_lr={args.resolve_others_lr()!r}, or set a smaller "
                f"max_grad_norm (now {args.max_grad_norm!r})."
            )

    def logits(self, inputs, n_rows: int | None = None) -> torch.Tensor:
        """Compute logits with gradients.

        Parameters
        ----------
        inputs : dict of str to Tensor
            Inputs of the model.
        n_rows : int, optional
            Number of texts of all processes that share the batch. If None, this process has all of them.

        Returns
        -------
        Tensor of shape (n, labels)
            The logits.
        """
        gather = None if n_rows is None else self._gather(n_rows)
        return self._run(inputs, gather=gather).logits.to(weight_dtype(self.dtype))

    def disable_dropout(self) -> None:
        """Put the model in evaluation mode, except for LSTMs, whose gradients cuDNN computes in training mode only."""
        self.module_.eval()
        for part in self.module_.modules():
            if isinstance(part, nn.RNNBase):
                part.train()

    def _set_training(self, training=True):
        if self.module_.training != training:  # walking through all modules in each step takes noticeable time
            super()._set_training(training)
            for module in self.without_dropout:
                module.eval()
        self._switch_optimizer(training)

    def _switch_optimizer(self, training: bool) -> None:
        # Schedule-free optimisers have different weights for training and for prediction.
        switch = getattr(self.optimizer_, "train" if training else "eval", None)
        if switch is not None:
            switch()

    def _rowwise_embeddings(self) -> list[nn.Embedding]:
        """Return the token embeddings whose gradients are those of the rows in a batch only.

        Callbacks that read the gradients, and other processes, get dense ones.
        """
        methods = [callback.on_grad_computed for _, callback in self.callbacks_]
        reads = (getattr(method, "__func__", None) is not Callback.on_grad_computed for method in methods)
        if type(self.optimizer_) is not RowwiseAdamW or self.group.size > 1 or any(reads):
            return []
        encoders: dict[Any, None] = dict.fromkeys(self.module_.encoder_modules())
        found = [part.get_input_embeddings() for part in encoders]
        uses = Counter(id(part.weight) for part in self.module_.modules() if hasattr(part, "weight"))
        return [
            part
            for part in found
            if type(part) is nn.Embedding
            and part.weight.device.type == "cpu"
            and uses[id(part.weight)] == 1
            and not (part.sparse or part.scale_grad_by_freq or part.max_norm)
        ]

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Put the model in evaluation mode."""
        super().on_train_end(net, X=X, y=y, **kwargs)
        self._set_training(False)

    def _sums_losses(self) -> bool:
        config = self.module_.config
        return config.problem_type == "multi_label_classification" and config.focal_loss_reduction == "sum"

    def _optimizer_step(self, batch):
        self.group.sum_gradients(parameter for _, parameter in self.trained_)
        self.notify("on_grad_computed", named_parameters=self.trained_, batch=batch, training=True)
        self._take_step([parameter for _, parameter in self.trained_], self.optimizer_)
        if self.scheduler_ is not None:
            self.scheduler_.step()

    def _take_step(self, parameters, optimizer) -> None:
        """Clip the gradients, take an optimiser step, and reset the gradients."""
        gradients = []
        for parameter in parameters:
            if parameter.grad is not None:
                if parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.coalesce()
                gradients.append(parameter.grad)
        if self.args_.max_grad_norm is not None:
            self._check_finite(clip_gradients(gradients, self.args_.max_grad_norm), "the gradient")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.step_ += 1

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch over the batches; in validation, the labels are encoded once for all of them."""
        if training:
            self._collect_trained()
        elif iterator is not None:
            fit_params["shared"] = self._shared_inputs(iterator.dataset)
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        if training:  # callbacks may read or store the weights at the end of an epoch
            self._switch_optimizer(False)

    @torch.no_grad()
    def _shared_inputs(self, dataset: TextDataset) -> list[dict]:
        """Return the inputs that all batches of each chunk of labels share: the label embeddings of the bi-encoders."""
        self._set_training(False)
        at_once = {} if dataset.label_states is None else {"labels_at_once": dataset.max_labels}
        with autocast(self.device, self.dtype):
            chunks = [self._encode_labels(self._on_device(tensors(labels))) for labels in dataset.evaluation_labels()]
        return [{**labels, **at_once} for labels in chunks]

    def _encode_labels(self, labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not labels or "class_states" in labels:  # no label encoder, or its output
            return labels
        return self.module_.model.encode_shared_labels(**labels)

    @torch.no_grad()
    def embed(self, dataset: TextDataset, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the embeddings of texts and labels in a plain bi-encoder.

        Parameters
        ----------
        dataset : TextDataset
            The texts and labels.
        rows : ndarray of int
            Rows of the texts, in ascending order.

        Returns
        -------
        texts : Tensor of shape (rows, hidden)
            Projected texts, as the scorer takes them.
        labels : Tensor of shape (labels, hidden)
            Embeddings of all labels before their projection.
        """
        self._set_training(False)
        batch_size = self._evaluation_batch_size(dataset, len(rows))
        batches = list(dataset.evaluation_batches(batch_size, rows, self.group))
        is_identity = self.module_.model.text_projector.is_identity()
        parts = [(self._embed_texts(self._on_device(batch.chunks[0]), is_identity), len(batch)) for batch in batches]
        texts = torch.cat([self.group.gather_rows(*part) for part in parts])
        return _in_order(texts, batches), self.embed_labels(dataset)

    def _embed_texts(self, inputs: dict[str, torch.Tensor], is_identity: bool) -> torch.Tensor:
        """Compute the projected embeddings (texts, hidden) of a batch; those of windows are averaged."""
        architecture = self.module_.model
        index = inputs.get("window_index")
        inputs = {name: value for name, value in inputs.items() if name not in ("window_index", "takes_max")}
        with autocast(self.device, self.dtype):
            if "text_states" in inputs:
                texts = architecture.project_text(architecture.embed_states(**inputs), is_identity)
            else:
                texts = architecture.embed_text(**{"input_ids": None, **inputs})
                texts = architecture.project_text(texts, is_identity)
        return texts if index is None else average_windows(index, texts)

    def _evaluation_batch_size(self, dataset: TextDataset, n_rows: int) -> int:
        return max(dataset.min_evaluation_batch, self.args_.resolve_batch_size(n_rows))

    @torch.no_grad()
    def embed_labels(self, dataset: TextDataset) -> torch.Tensor:
        """Compute the embeddings of all labels before their projection, in a plain bi-encoder.

        Parameters
        ----------
        dataset : TextDataset
            Data set with the labels.

        Returns
        -------
        Tensor of shape (labels, hidden)
            The embeddings.
        """
        labels = dataset.label_states  # of a frozen encoder, or held
        if labels is None:
            labels = torch.cat([chunk["class_states"] for chunk in self._shared_inputs(dataset)])
        return labels.to(self.device, weight_dtype(self.dtype))

    @torch.no_grad()
    def _all_logits(self, batch, shared):
        """Compute the logits of all labels, chunk by chunk."""
        self._set_training(False)
        logits = [self._run(chunk, **common).logits for chunk, common in zip(batch.chunks, shared, strict=True)]
        logits = torch.cat(logits, dim=1).to(weight_dtype(self.dtype))
        return self.group.gather_rows(logits, len(batch))

    def validation_step(self, batch, shared, **fit_params):
        """Compute loss and logits of a batch over all labels, without gradients."""
        inputs, _ = batch
        logits = self._all_logits(inputs, shared)
        target = to_device(inputs.inputs, self.device, logits.dtype)
        loss = problem_loss(self.module_.config, logits, target["labels"], None, target["sample_weight"])
        return {"loss": loss, "y_pred": logits}

    # -- interface of skorch's scoring callbacks -------------------------------------------------------------

    def forward_iter(self, X, training=False, device="cpu"):
        """Yield the logits (n, labels) of a data set, in the order of its rows, as one tensor."""
        yield self.score_rows(self.get_dataset(X)).to(device)

    def score_rows(self, dataset: TextDataset, rows: np.ndarray | None = None) -> torch.Tensor:
        """Compute the logits of rows of a data set in evaluation mode.

        Parameters
        ----------
        dataset : TextDataset
            The texts and labels.
        rows : ndarray of int, optional
            Rows of the texts, in ascending order. If None, all.

        Returns
        -------
        Tensor of shape (rows, labels)
            The logits, in the order of the rows.
        """
        batch_size = self._evaluation_batch_size(dataset, len(dataset) if rows is None else len(rows))
        batches = list(dataset.evaluation_batches(batch_size, rows, self.group))
        shared = self._shared_inputs(dataset)
        return _in_order(torch.cat([self._all_logits(batch, shared) for batch in batches]), batches)

    def predict_proba(self, X):
        """Compute the probabilities (n, labels) of a data set, or the standardised values of a regression."""
        logits = torch.cat(list(self.forward_iter(X)))
        parts = [logits] if X.groups is None else X.groups.split(logits)
        return torch.cat([OUTPUTS[self.module_.config.problem_type](part) for part in parts], dim=1).cpu().numpy()

    def predict(self, X):
        """Predict class indices (n,), indicators (n, labels) or standardised values (n, outputs) of a data set.

        With several targets, the class indices are (n, targets).
        """
        values = self.predict_proba(X)
        if X.groups is not None:
            return np.stack([part.start + values[:, part].argmax(axis=1) for part in X.groups.slices], axis=1)
        problem_type = self.module_.config.problem_type
        if problem_type == "single_label_classification":
            return values.argmax(axis=1)
        return (values >= 0.5).astype(np.int64) if problem_type == "multi_label_classification" else values

    @property
    def classes_(self):
        """Class indices, which the targets of the data set hold."""
        return np.arange(self.n_labels_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if self.module_.config.problem_type != "regression":
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        return tags


def _is_early_stop(interrupt: KeyboardInterrupt) -> bool:
    """Return whether an early-stopping callback raised the interrupt, and not the user."""
    trace = interrupt.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and isinstance(trace.tb_frame.f_locals.get("self"), EarlyStopping)


def _in_order(results: torch.Tensor, batches) -> torch.Tensor:
    """Bring the concatenated results of batches into the order of the data set's rows."""
    return results[np.argsort(np.concatenate([batch.rows for batch in batches]))]


# problem_type -> conversion of logits to predictions
OUTPUTS: dict[str | None, Callable[[torch.Tensor], torch.Tensor]] = {
    "single_label_classification": lambda logits: logits.softmax(dim=1),
    "multi_label_classification": lambda logits: logits.sigmoid(),
    "regression": lambda logits: logits,
}
