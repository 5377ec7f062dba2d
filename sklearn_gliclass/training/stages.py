"""Stages of a training, objects with a method `run`; `fit` passes a list of them to `run.train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sklearn.exceptions import ConvergenceWarning

from ..warn import warn
from .ewc import ElasticWeightConsolidation
from .prototypes import interpolate_labels
from .rl import RLTrainer

if TYPE_CHECKING:
    from .run import TrainingRun


@dataclass
class Supervised:
    """Supervised epochs.

    Parameters
    ----------
    epochs : int, optional
        Number of epochs at constant learning rates (`partial_fit`). If None, `max_epochs` with the schedule.
    """

    epochs: int | None = None

    @property
    def trains(self) -> bool:
        """Whether the stage trains for at least one epoch."""
        return self.epochs != 0

    def run(self, run: TrainingRun) -> None:
        first = len(run.net.history)
        run.net.partial_fit(run.train, epochs=self.epochs)
        losses = [row["train_loss"] for row in run.net.history[first:] if "train_loss" in row]
        if not run.is_hidden and len(losses) > 2 and min(losses[1:]) >= losses[0]:
            args = run.net.args_
            warn(
                f"The training loss did not fall: {losses[0]:.4g} in the first of {len(losses)} epochs, "
                f"{losses[-1]:.4g} in the last. Lower lr={args.lr!r} and others_lr={args.resolve_others_lr()!r} if it "
                "rose, and raise them if it did not change.",
                ConvergenceWarning,
            )


@dataclass
class Prototypes:
    """Interpolation of each label embedding with its class prototype, after supervised training.

    Parameters
    ----------
    share : float
        Interpolation weight, in [0, 1]: with 0 the labels are not changed, with 1 they are the prototypes.
    """

    share: float
    trains = False

    def run(self, run: TrainingRun) -> None:
        if self.share and len(run.net.history):
            interpolate_labels(run.net, run.train, self.share)


@dataclass
class Reinforcement:
    """Epochs of reinforcement learning.

    Parameters
    ----------
    build_net : callable
        Function that takes keyword arguments of :class:`RLTrainer` and returns one.
    """

    build_net: Callable[..., RLTrainer]
    trains = True

    def run(self, run: TrainingRun) -> None:
        if run.interrupted:
            return
        net = self.build_net(
            module=run.net.module_, valid=run.valid, dtype=run.net.dtype, seed=run.seed, device=run.net.device
        ).initialize()
        net.history = run.net.history
        net.callbacks_ += [entry for entry in run.net.callbacks_ if entry[0] == "ewc"]
        run.rl_net = net
        net.partial_fit(run.train)


@dataclass
class Consolidation:
    """Estimation of the Fisher information of the data, for later trainings.

    Parameters
    ----------
    callback : ElasticWeightConsolidation
        Callback that stores the information.
    """

    callback: ElasticWeightConsolidation
    trains = False

    def run(self, run: TrainingRun) -> None:
        self.callback.consolidate(run.net, run.train, run.seed)
