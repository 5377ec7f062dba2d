"""Hyperparameters of the training loop and of reinforcement learning."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from typing import cast

from sklearn.base import BaseEstimator, clone

from ..sklearn_internals import Interval, Options, StrOptions, validate_parameter_constraints
from .optimizers import OPTIMIZERS, SCHEDULES
from .transformers_arguments import read_transformers_arguments

# Constraints of the fields; the estimators declare them too.
CONSTRAINTS = {
    "lr": [Interval(Real, 0, None, closed="left")],
    "others_lr": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"}), None],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "others_weight_decay": [Interval(Real, 0, None, closed="left")],
    "optim": [StrOptions(set(OPTIMIZERS))],
    "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    "gradient_accumulation_steps": [Interval(Integral, 1, None, closed="left")],
    "lr_scheduler_type": [StrOptions(set(SCHEDULES))],
    "warmup_ratio": [Interval(Real, 0, 1, closed="both"), None],
    "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "cache_dir": [str, PathLike, None],
}

_off = Options(Real, {-1})
RL_CONSTRAINTS = {
    "others_lr": [Interval(Real, 0, None, closed="left"), None],
    "cliprange": [Interval(Real, 0, None, closed="neither")],
    "num_rl_iters": [Interval(Integral, 1, None, closed="left")],
    "gamma": [Interval(Real, 0, None, closed="left"), _off],
    "alpha": [Interval(Real, 0, 1, closed="both"), _off],
    "labels_smoothing": [Interval(Real, 0, 1, closed="left"), _off],
    "entropy_beta": [Interval(Real, 0, None, closed="left"), _off],
    "kl_beta": [Interval(Real, 0, None, closed="left"), _off],
    "get_actions": [StrOptions({"bernoulli", "threshold"})],
    "threshold": [Interval(Real, 0, 1, closed="both")],
}

WARMUP_RATIO = 0.1
BATCH_SIZE, MIN_BATCH_SIZE, MIN_BATCHES = 32, 16, 3  # 32, less for fewer than 3 batches of 32, but at least 16


@dataclass(frozen=True)
class Regime:
    """Values that None and "auto" resolve to in one kind of training.

    Attributes
    ----------
    others_lr : float
        Learning rate of the head parameters.
    steps_per_root : int
        Number of optimiser steps per square root of the number of batches.
    few_shot_epochs : int or None
        Number of epochs for 8 samples per label, in place of `steps_per_root`.
    few_shot_power : float
        Power of the number of samples per label with which the number of few-shot epochs changes.
    many_labels : float
        Number of labels above which further ones count no more for the number of few-shot epochs.
    min_epochs, max_epochs : int
        Bounds of the number of epochs.
    min_steps_to_warm_up : int
        Number of optimiser steps from which on there is a warm-up, of a tenth of them.
    batch_size : int or None
        Number of samples in a forward pass. If None, ``min(32, max(16, ceil(n_samples / 3)))``.
    """

    others_lr: float = 5e-4
    steps_per_root: int = 48
    few_shot_epochs: int | None = None
    few_shot_power: float = -0.5
    many_labels: float = math.inf
    min_epochs: int = 3
    max_epochs: float = math.inf
    min_steps_to_warm_up: int = 0
    batch_size: int | None = None

    def epochs(self, n_batches: float, steps_per_epoch: int, n_samples: int, n_labels: int) -> float:
        """Compute the number of epochs, before it is rounded and bounded."""
        if self.few_shot_epochs is None:
            return self.steps_per_root * math.sqrt(n_batches) / steps_per_epoch
        samples_per_label = n_samples / min(n_labels, self.many_labels)
        return self.few_shot_epochs * (samples_per_label / 8) ** self.few_shot_power

    def bound(self, epochs: float) -> int:
        """Round a number of epochs within the bounds."""
        return int(max(self.min_epochs, min(self.max_epochs, round(epochs))))


FULL = Regime()
# Heads on frozen encoders are trained for more and smaller steps: they overfit two classes less, and learn many better.
HEADS = Regime(others_lr=3e-4, steps_per_root=72)
# After a label probe the labels are right already, and the texts move towards them in a few steps. Very few have no
# warm-up: its first gradient would count twice in Adam's moments, and two classes would lose their balance. Many labels
# need fewer epochs: each of their steps moves the texts of all.
FROM_PROBE = Regime(others_lr=0.0, few_shot_epochs=8, many_labels=32, min_epochs=2, min_steps_to_warm_up=10)
# Multi-label fits have no average of weights, and more epochs have been more accurate.
MULTI_LABEL_FROM_PROBE = dataclasses.replace(FROM_PROBE, many_labels=math.inf)
# Values of a regression start from a ridge regression; the projectors are trained too, which classes do not need.
FROM_RIDGE = Regime(others_lr=2e-3, few_shot_epochs=36, min_epochs=2, min_steps_to_warm_up=10)
# Heads that start from a label probe are trained on request only, on large batches. Few samples leave nothing to learn
# after it; with hundreds per label, more epochs are more accurate.
HEADS_FROM_PROBE = Regime(
    others_lr=3e-4, few_shot_epochs=1, few_shot_power=0.5, min_epochs=1, max_epochs=8, min_steps_to_warm_up=10,
    batch_size=256,
)  # fmt: skip
PROBE_ONLY = Regime(others_lr=0.0, few_shot_epochs=0, min_epochs=0)


@dataclass
class TrainingArguments(BaseEstimator):
    """Hyperparameters of the training loop.

    The estimators have the same hyperparameters; :meth:`GLiClassClassifier.from_config` takes them as one object.

    Parameters
    ----------
    lr : float, default=1e-4
        Peak learning rate of the encoder parameters. Large encoders need lower rates.
    others_lr : float, "auto" or None, default="auto"
        Peak learning rate of the head parameters. If "auto", 5e-4, 3e-4 if the encoders are frozen, or 0 after a label
        probe. If None, `lr`. Raise it for scorers that start from random weights.
    weight_decay : float, default=0.01
        Weight decay of the encoder parameters. Biases and norms have none.
    others_weight_decay : float, default=0.0
        Weight decay of the head parameters. Biases and norms have none.
    optim : str, default="adamw_torch"
        Optimiser, by its name in ``transformers.TrainingArguments``. "adafactor" and "sgd" need less memory.
    max_epochs : int or None, default=None
        Number of passes over the training data. If None, ``max(3, round(48 * sqrt(n_batches) / steps_per_epoch))``
        with ``n_batches = max(1, n_samples / (batch_size * gradient_accumulation_steps))``, and 72 in place of 48 if
        the encoders are frozen: 48 optimiser steps for one batch, about 152 for ten, and 480 for a hundred. After a
        label probe, ``max(2, round(8 * sqrt(8 * min(n_labels, 32) / n_samples)))``, with all labels for multi-label y,
        and ``round(sqrt(n_samples / (8 * n_labels)))``, but 1 to 8, if the encoders are frozen.
    batch_size : int or None, default=None
        Number of samples in a forward pass. If None, ``min(32, max(16, ceil(n_samples / 3)))``, or 256 for heads that
        are trained on cached hidden states after a label probe. Lower it if memory runs out.
    gradient_accumulation_steps : int, default=1
        Number of forward passes per optimiser step. Raise it for batches that are larger than memory holds.
    lr_scheduler_type : str, default="linear"
        Learning rate schedule after the warm-up, by its name in ``transformers.SchedulerType``.
    warmup_ratio : float or None, default=None
        Fraction of the optimiser steps in which the learning rates rise from 0 to their peak, in [0, 1]. If None, 0.1,
        or 0 after a label probe with fewer than 10 steps. Raise it if the loss jumps in the first steps.
    max_grad_norm : float or None, default=1.0
        Norm to which gradients are clipped. If None, they are not. Lower it if the loss jumps.
    cache_dir : str or None, default=None
        Folder for models from the Hugging Face hub. If None, the Hugging Face cache.

    See Also
    --------
    RLTrainerConfig : The same for reinforcement learning, with the hyperparameters of PPO.
    Trainer : The training loop that reads them.

    Examples
    --------
    >>> TrainingArguments(max_epochs=5).resolve_epochs(1000)
    5
    >>> TrainingArguments(batch_size=16).resolve_epochs(n_samples=100)     # 7 steps per epoch
    17
    """

    lr: float = 1e-4
    others_lr: float | str | None = "auto"
    weight_decay: float = 0.01
    others_weight_decay: float = 0.0
    optim: str = "adamw_torch"
    max_epochs: int | None = None
    batch_size: int | None = None
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: str = "linear"
    warmup_ratio: float | None = None
    max_grad_norm: float | None = 1.0
    cache_dir: str | None = None

    _parameter_constraints = CONSTRAINTS

    @classmethod
    def from_transformers(cls, args) -> "TrainingArguments":
        """Convert a ``transformers.TrainingArguments``.

        Parameters
        ----------
        args : transformers.TrainingArguments
            Arguments of transformers, or of gliclass, whose class extends it. Where they have one learning rate and
            one weight decay for all parameters, encoder and head parameters get the same values.

        Returns
        -------
        TrainingArguments
            The same hyperparameters.

        Raises
        ------
        TypeError
            If `args` is an object of another type.
        ValueError
            If fields are set that have no counterpart here; the message names all of them. The output folder is
            ignored, and fields that disable logging, saving or evaluation are allowed.

        Examples
        --------
        >>> import transformers
        >>> args = transformers.TrainingArguments("folder", learning_rate=1e-3, num_train_epochs=2)
        >>> TrainingArguments.from_transformers(args).lr
        0.001
        """
        found = cls(**read_transformers_arguments(args))
        found.validate()
        return found

    def validate(self) -> None:
        """Check the values, and raise ``InvalidParameterError`` (a ValueError and TypeError) for one out of range."""
        validate_parameter_constraints(self._parameter_constraints, self.get_params(deep=False), type(self).__name__)

    def resolve_batch_size(self, n_samples: int, regime: Regime = FULL) -> int:
        """Return the resolved value of `batch_size`.

        Parameters
        ----------
        n_samples : int
            Number of training samples.
        regime : Regime, default=FULL
            Kind of training.

        Returns
        -------
        int
            `batch_size`, or the number that None resolves to.
        """
        if self.batch_size is not None:
            return self.batch_size
        if regime.batch_size is not None:
            return regime.batch_size
        # A few large batches are nearly the same in each epoch; batches that differ generalise better.
        return min(BATCH_SIZE, max(MIN_BATCH_SIZE, -(-n_samples // MIN_BATCHES)))

    def steps_per_epoch(self, n_samples: int, regime: Regime = FULL) -> int:
        """Compute the number of optimiser steps per epoch.

        Parameters
        ----------
        n_samples : int
            Number of training samples.
        regime : Regime, default=FULL
            Kind of training.

        Returns
        -------
        int
            Number of optimiser steps.
        """
        batches = -(-n_samples // self.resolve_batch_size(n_samples, regime))
        return -(-batches // self.gradient_accumulation_steps)

    def resolve_others_lr(self, regime: Regime = FULL) -> float:
        """Return the resolved value of `others_lr`.

        Parameters
        ----------
        regime : Regime, default=FULL
            Kind of training.

        Returns
        -------
        float
            `others_lr`, or the number that "auto" or None resolves to.
        """
        if isinstance(self.others_lr, str):  # "auto"
            return regime.others_lr
        return self.lr if self.others_lr is None else self.others_lr

    def resolve_warmup_ratio(self, n_steps: int | None = None, regime: Regime = FULL) -> float:
        """Return the resolved value of `warmup_ratio`.

        Parameters
        ----------
        n_steps : int, optional
            Number of optimiser steps. If None, many.
        regime : Regime, default=FULL
            Kind of training.

        Returns
        -------
        float
            `warmup_ratio`, or the number that None resolves to.
        """
        if self.warmup_ratio is not None:
            return self.warmup_ratio
        return WARMUP_RATIO if n_steps is None or n_steps >= regime.min_steps_to_warm_up else 0.0

    def resolve_epochs(
        self, n_samples: int, regime: Regime = FULL, factor: float = 1.0, n_labels: int | None = None
    ) -> int:
        """Return the resolved value of `max_epochs`.

        Parameters
        ----------
        n_samples : int
            Number of training samples.
        regime : Regime, default=FULL
            Kind of training.
        factor : float, default=1.0
            Factor of the number that None resolves to.
        n_labels : int, optional
            Number of labels that share the samples, which the number of epochs after a label probe depends on; 1 for a
            regression.

        Returns
        -------
        int
            `max_epochs`, or the number that None resolves to.
        """
        if self.max_epochs is not None:
            return self.max_epochs
        # Few samples need many passes, and many samples more steps in fewer passes; large batches need fewer steps.
        samples_per_step = self.resolve_batch_size(n_samples, regime) * self.gradient_accumulation_steps
        batches = max(1.0, n_samples / samples_per_step)
        epochs = regime.epochs(batches, self.steps_per_epoch(n_samples, regime), n_samples, n_labels or n_samples)
        return regime.bound(factor * epochs)

    def resolve(
        self, n_samples: int, regime: Regime = FULL, factor: float = 1.0, n_labels: int | None = None
    ) -> "TrainingArguments":
        """Return a copy with the resolved values of `max_epochs`, `batch_size`, `others_lr` and `warmup_ratio`.

        Parameters
        ----------
        n_samples : int
            Number of training samples.
        regime : Regime, default=FULL
            Kind of training.
        factor : float, default=1.0
            Factor of the number of epochs that ``max_epochs=None`` resolves to.
        n_labels : int, optional
            Number of labels.

        Returns
        -------
        TrainingArguments
            The copy.
        """
        epochs = self.resolve_epochs(n_samples, regime, factor, n_labels)
        return cast("TrainingArguments", clone(self)).set_params(
            max_epochs=epochs,
            batch_size=self.resolve_batch_size(n_samples, regime),
            others_lr=self.resolve_others_lr(regime),
            warmup_ratio=self.resolve_warmup_ratio(epochs * self.steps_per_epoch(n_samples, regime), regime),
        )


@dataclass
class RLTrainerConfig(TrainingArguments):
    """Hyperparameters of reinforcement learning by proximal policy optimisation (PPO).

    They are the fields of :class:`TrainingArguments`, whose values are independent of those of the supervised
    training, and the hyperparameters of PPO. A value of -1 disables an option.

    Parameters
    ----------
    lr, others_lr : float, default=5e-6, 5e-5
        Peak learning rates of the encoder and of the head parameters. They are lower than those of supervised training,
        because several updates on the same actions can undo what the model has learnt.
    weight_decay, others_weight_decay : float, default=0.01, 0.0
        Weight decay of the encoder and of the head parameters, as in :class:`TrainingArguments`.
    optim : str, default="adamw_torch"
        Optimiser, as in :class:`TrainingArguments`.
    max_epochs : int or None, default=None
        Number of passes over the training data, as in :class:`TrainingArguments`. A batch with all of its
        `num_rl_iters` updates counts as one optimiser step, also in the schedule.
    batch_size : int or None, default=None
        Number of samples in a forward pass, as in :class:`TrainingArguments`.
    gradient_accumulation_steps : int, default=1
        Number of forward passes per optimiser step, as in :class:`TrainingArguments`.
    lr_scheduler_type : str, default="linear"
        Learning rate schedule after the warm-up, as in :class:`TrainingArguments`.
    warmup_ratio : float, default=0.1
        Fraction of the optimiser steps in which the learning rates rise, as in :class:`TrainingArguments`.
    max_grad_norm : float or None, default=1.0
        Norm to which gradients are clipped, as in :class:`TrainingArguments`.
    cache_dir : str or None, default=None
        Folder for models from the Hugging Face hub, as in :class:`TrainingArguments`.
    cliprange : float, default=0.2
        Clipping range of the ratio between the new and the old probability of an action:
        ``[1 - cliprange, 1 + cliprange]``.
    num_rl_iters : int, default=3
        Number of updates on the actions that are sampled for a batch.
    gamma : float, default=-1
        Exponent of the focal weights ``(1 - p_t) ** gamma``, where p_t is the probability of the true answer at the
        time when the actions are sampled. A positive value reduces the weight of labels that are predicted well
        already.
    alpha : float, default=-1
        Weight of the true labels, in [0, 1]; the others have the weight ``1 - alpha``.
    labels_smoothing : float, default=-1
        Label smoothing of the actions: the fraction of each action that is spread evenly over all actions, in [0, 1).
    entropy_beta : float, default=-1
        Factor of an entropy bonus, which keeps the policy exploring for longer.
    kl_beta : float, default=-1
        Factor of the penalty on the Kullback-Leibler divergence from the reference model.
    get_actions : {"bernoulli", "threshold"}, default="bernoulli"
        How the actions are chosen. "bernoulli" samples them from the probabilities: each label on its own for
        multi-label y, one of the labels for single-label y. "threshold" chooses the labels whose probability is at
        least `threshold`, or the most probable label for single-label y.
    threshold : float, default=0.5
        Decision threshold of ``get_actions="threshold"`` for multi-label y, in [0, 1].

    See Also
    --------
    RLTrainer : The training loop that reads them.

    References
    ----------
    Schulman et al., "Proximal Policy Optimization Algorithms", 2017, https://arxiv.org/abs/1707.06347

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> GLiClassClassifier(rl=RLTrainerConfig(kl_beta=0.1)).get_params()["rl__kl_beta"]
    0.1
    """

    lr: float = 5e-6
    others_lr: float | None = 5e-5
    warmup_ratio: float = 0.1
    cliprange: float = 0.2
    num_rl_iters: int = 3
    gamma: float = -1
    alpha: float = -1
    labels_smoothing: float = -1
    entropy_beta: float = -1
    kl_beta: float = -1
    get_actions: str = "bernoulli"
    threshold: float = 0.5

    _parameter_constraints = {**CONSTRAINTS, **RL_CONSTRAINTS}


FIELDS = tuple(field.name for field in dataclasses.fields(TrainingArguments))
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
