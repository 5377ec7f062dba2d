"""The stages of a training, each an object with a method `run`; `fit` hands a list of them to `run.train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sklearn.exceptions import ConvergenceWarning

from ..warn import warn
from .ewc import ElasticWeightConsolidation
from .prototypes import move_labels
from .rl import RLTrainer

if TYPE_CHECKING:
    from .run import TrainingRun


@dataclass
class Supervised:
    """Epochs over the examples.

    Parameters
    ----------
    epochs : int, optional
        That many more at constant rates (`partial_fit`). Default: what the training arguments say.
    """

    epochs: int | None = None

    @property
    def trains(self) -> bool:
        """Whether there is anything to do."""
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
                "rose, raise them if it stood still.",
                ConvergenceWarning,
            )


@dataclass
class Prototypes:
    """Move each label towards the mean of its class's texts, once examples have been trained on.

    Parameters
    ----------
    share : float
        Interpolation weight: 0 leaves the labels where they are, 1 puts them on the means.
    """

    share: float
    trains = False

    def run(self, run: TrainingRun) -> None:
        if self.share and len(run.net.history):
            move_labels(run.net, run.train, self.share)


@dataclass
class Reinforcement:
    """Epochs on rewards.

    Parameters
    ----------
    build_net : callable
        Called with keyword arguments of :class:`RLTrainer`; returns one.
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
    """Measure which weights the data depend on, for later trainings.

    Parameters
    ----------
    callback : ElasticWeightConsolidation
        Keeps the measurement.
    """

    callback: ElasticWeightConsolidation
    trains = False

    def run(self, run: TrainingRun) -> None:
        self.callback.consolidate(run.net, run.train, run.seed)
