"""TrainingArguments: what the training loop is told."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from .optimizers import OPTIMIZERS, SCHEDULES

# The constraint of each field, which the estimators declare as their own too.
CONSTRAINTS = {
    "lr": [Interval(Real, 0, None, closed="left")],
    "others_lr": [Interval(Real, 0, None, closed="left"), None],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "others_weight_decay": [Interval(Real, 0, None, closed="left")],
    "optim": [StrOptions(set(OPTIMIZERS))],
    "max_epochs": [Interval(Integral, 0, None, closed="left"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "gradient_accumulation_steps": [Interval(Integral, 1, None, closed="left")],
    "lr_scheduler_type": [StrOptions(set(SCHEDULES))],
    "warmup_ratio": [Interval(Real, 0, 1, closed="both")],
    "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
    "cache_dir": "no_validation",
}

STEPS_PER_ROOT = 16  # optimiser steps per square root of the number of samples
MIN_EPOCHS = 3


@dataclass
class TrainingArguments(BaseEstimator):
    """What the training loop is told.

    Parameters
    ----------
    lr : float, default=1e-4
        Peak learning rate of the encoders.
    others_lr : float or None, default=5e-4
        Peak learning rate of everything else; None: `lr`.
    weight_decay : float, default=0.01
        Decay of the encoders' matrices; biases and norms have none.
    others_weight_decay : float, default=0.0
        Decay of the other matrices.
    optim : str, default="adamw_torch"
        Optimiser, by its name in transformers.
    max_epochs : int or None, default=None
        Passes over the data. None: as many as give 16 optimiser steps per square root of the number of samples
        (8 samples 45 steps, 100 samples 160, 1,000 samples 506), 3 at least.
    batch_size : int, default=16
        Samples in a forward pass.
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
    23
    """

    lr: float = 1e-4
    others_lr: float | None = 5e-4
    weight_decay: float = 0.01
    others_weight_decay: float = 0.0
    optim: str = "adamw_torch"
    max_epochs: int | None = None
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.1
    max_grad_norm: float | None = 1.0
    cache_dir: str | None = None

    def validate(self) -> None:
        """Raise ``InvalidParameterError`` (a ValueError and TypeError) for a value that is not allowed."""
        validate_parameter_constraints(CONSTRAINTS, self.get_params(deep=False), type(self).__name__)

    def steps_per_epoch(self, n_samples: int) -> int:
        """Optimiser steps in a pass over `n_samples`."""
        batches = -(-n_samples // self.batch_size)
        return -(-batches // self.gradient_accumulation_steps)

    def resolve_epochs(self, n_samples: int) -> int:
        """`max_epochs`, or the number that None stands for."""
        if self.max_epochs is not None:
            return self.max_epochs
        # Few samples need many passes, and many samples more steps in fewer passes.
        steps = STEPS_PER_ROOT * math.sqrt(n_samples)
        return max(MIN_EPOCHS, math.ceil(steps / self.steps_per_epoch(n_samples)))


FIELDS = tuple(field.name for field in dataclasses.fields(TrainingArguments))
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
