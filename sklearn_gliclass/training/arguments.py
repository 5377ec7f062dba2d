"""TrainingArguments: what the training loop is told."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike

from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import Interval, Options, StrOptions, validate_parameter_constraints

from .optimizers import OPTIMIZERS, SCHEDULES
from .transformers_arguments import read_transformers_arguments

# The constraint of each field, which the estimators declare as their own too.
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
    "warmup_ratio": [Interval(Real, 0, 1, closed="both")],
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

STEPS_PER_ROOT = 48  # optimiser steps per square root of the number of batches
OTHERS_LR = 5e-4
# Heads alone learn longer in smaller steps: on two classes less by heart, on many of them more.
FROZEN_STEPS_PER_ROOT, FROZEN_OTHERS_LR = 72, 3e-4
MIN_EPOCHS = 3
BATCH_SIZE, MIN_BATCH_SIZE, MIN_BATCHES = 32, 16, 3  # the first, but so many batches where these are not too small


@dataclass
class TrainingArguments(BaseEstimator):
    """What the training loop is told.

    Parameters
    ----------
    lr : float, default=1e-4
        Peak learning rate of the encoders.
    others_lr : float, "auto" or None, default="auto"
        Peak learning rate of everything else. "auto": 5e-4, where the heads alone are trained 3e-4; None: `lr`.
    weight_decay : float, default=0.01
        Decay of the encoders' matrices; biases and norms have none.
    others_weight_decay : float, default=0.0
        Decay of the other matrices.
    optim : str, default="adamw_torch"
        Optimiser, by its name in transformers.
    max_epochs : int or None, default=None
        Passes over the data. None: as many as give 48 optimiser steps per square root of the number of batches
        (for one batch 48, for ten 152, for a hundred 480), 3 at least; half as many again where the heads alone
        are trained.
    batch_size : int or None, default=None
        Samples in a forward pass. None: 32, of fewer than 96 samples a third, and 16 at least.
    gradient_accumulation_steps : int, default=1
        Forward passes per optimiser step.
    lr_scheduler_type : str, default="linear"
        Schedule after the warm-up, by its name in transformers.
    warmup_ratio : float, default=0.1
        Share of the steps in which the rates rise.
    max_grad_norm : float or None, default=1.0
        Gradients are scaled down to this norm; None: never.
    cache_dir : str or None, default=None
        Where models from the hub are kept; None: the Hugging Face cache.

    Examples
    --------
    >>> TrainingArguments(max_epochs=5).resolve_epochs(1000)
    5
    >>> TrainingArguments(batch_size=16).resolve_epochs(n_samples=100)     # 7 steps an epoch
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
    warmup_ratio: float = 0.1
    max_grad_norm: float | None = 1.0
    cache_dir: str | None = None

    _parameter_constraints = CONSTRAINTS

    @classmethod
    def from_transformers(cls, args) -> "TrainingArguments":
        """Read a ``transformers.TrainingArguments``.

        Parameters
        ----------
        args : transformers.TrainingArguments
            Or gliclass's, which extends it. One rate and one decay for all weights become both of ours.

        Returns
        -------
        TrainingArguments

        Raises
        ------
        TypeError
            `args` is something else.
        ValueError
            Fields that were set and have no counterpart here, all of them by name. Accepted are the folder for
            files that are never written and the answer "no" to what is never done (logging, saving, evaluating).

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
        """Raise ``InvalidParameterError`` (a ValueError and TypeError) for a value that is not allowed."""
        validate_parameter_constraints(self._parameter_constraints, self.get_params(deep=False), type(self).__name__)

    def resolve_batch_size(self, n_samples: int) -> int:
        """`batch_size`, or the number that None stands for."""
        if self.batch_size is not None:
            return self.batch_size
        # A few large batches are nearly the same in each epoch: steps that differ learn what new texts share too.
        return min(BATCH_SIZE, max(MIN_BATCH_SIZE, -(-n_samples // MIN_BATCHES)))

    def steps_per_epoch(self, n_samples: int) -> int:
        """Optimiser steps in a pass over `n_samples`."""
        batches = -(-n_samples // self.resolve_batch_size(n_samples))
        return -(-batches // self.gradient_accumulation_steps)

    def resolve_others_lr(self, heads_only: bool = False) -> float:
        """`others_lr`, or the number that "auto" or None stands for."""
        if self.others_lr == "auto":
            return FROZEN_OTHERS_LR if heads_only else OTHERS_LR
        return self.lr if self.others_lr is None else self.others_lr

    def resolve_epochs(self, n_samples: int, heads_only: bool = False) -> int:
        """`max_epochs`, or the number that None stands for."""
        if self.max_epochs is not None:
            return self.max_epochs
        # Few samples need many passes, and many samples more steps in fewer passes; large batches need fewer steps.
        samples_per_step = self.resolve_batch_size(n_samples) * self.gradient_accumulation_steps
        batches = max(1.0, n_samples / samples_per_step)
        steps = (FROZEN_STEPS_PER_ROOT if heads_only else STEPS_PER_ROOT) * math.sqrt(batches)
        return max(MIN_EPOCHS, round(steps / self.steps_per_epoch(n_samples)))

    def resolve(self, n_samples: int, heads_only: bool = False) -> "TrainingArguments":
        """A copy with what was left open in `max_epochs`, `batch_size` and `others_lr`.

        Parameters
        ----------
        n_samples : int
            Samples to train on.
        heads_only : bool, default=False
            Whether the encoders are frozen as a whole.
        """
        return clone(self).set_params(
            max_epochs=self.resolve_epochs(n_samples, heads_only),
            batch_size=self.resolve_batch_size(n_samples),
            others_lr=self.resolve_others_lr(heads_only),
        )


@dataclass
class RLTrainerConfig(TrainingArguments):
    """What reinforcement learning is told: the fields of :class:`TrainingArguments` and those of PPO.

    A value of -1 switches an option off: it then contributes exactly nothing.

    Parameters
    ----------
    lr, others_lr : float, default=5e-6, 5e-5
        Peak learning rates of encoders and others. With the rates of supervised training, several updates on one
        sample of labels can undo what was learnt.
    weight_decay, others_weight_decay, optim, max_epochs, batch_size : see TrainingArguments
        Those of the supervised training are not taken over. `max_epochs` and the schedule count a batch, with all
        of its `num_rl_iters` updates, as one step.
    gradient_accumulation_steps, lr_scheduler_type, warmup_ratio, max_grad_norm, cache_dir : see TrainingArguments
        As above.
    cliprange : float, default=0.2
        How far the ratio of new to old probability counts: up to 1 - cliprange and 1 + cliprange.
    num_rl_iters : int, default=3
        Updates on the actions sampled for a batch.
    gamma : float, default=-1
        Focal weights ``(1 - p_t)^gamma``, with p_t the probability of the true answer when the actions were
        sampled: labels that the model knows already count less.
    alpha : float, default=-1
        Weight of the labels that are true; 1 - alpha is that of the others.
    labels_smoothing : float, default=-1
        Share of each action that is spread evenly over all actions.
    entropy_beta : float, default=-1
        Factor of the entropy, which is rewarded: predictions stay undecided for longer.
    kl_beta : float, default=-1
        Factor of the Kullback-Leibler divergence from the reference model, which is punished.
    get_actions : {"bernoulli", "threshold"}, default="bernoulli"
        "bernoulli": sampled from the probabilities, each label for itself, or where one label holds one of them.
        "threshold": the labels whose probability reaches `threshold`, or where one label holds the likeliest.
    threshold : float, default=0.5
        See `get_actions`.

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
