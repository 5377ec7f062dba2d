"""Stages of a training, objects with a method `run`; `fit` passes a list of them to `run.train`."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning

from ..abstention import Evidence, measure_evidence
from ..model.freezing import is_fully_frozen
from ..model.scorers import RESERVED_AXIS
from ..samples import class_indices, split_targets
from ..warn import warn
from .calibration import fit_temperatures
from .ewc import ElasticWeightConsolidation
from .probe import (
    TRAINING_SCALE,
    LabelProbe,
    distinct_rows,
    fine_tuned_scale,
    fine_tuned_share,
    fit_label_probe,
    halfway,
)
from .prototypes import interpolate_labels
from .recipe import evidence_of
from .ridge import MIN_SHRINKAGE, ROWS_FOR_HALF_OF_VALUES, fit_ridge
from .rl import RLTrainer

if TYPE_CHECKING:
    from ..cache.states import StateDataset
    from .run import TrainingRun

MAX_EVIDENCE_ROWS, MIN_EVIDENCE_ROWS, MAX_EVIDENCE_PAIRS = 512, 128, 2**14  # pairs of a row and a label
ROWS_AT_ONCE = 128
MAX_HELD_OUT_ROWS = 256  # in the training of heads after a label probe
SHARES = (0.0, 0.03, 0.1, 0.3, 1.0)  # of the trained weights in their average with those of the probe


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
class FromProbe(Supervised):
    """Fit of a label probe, then supervised epochs in which the texts move towards its label embeddings.

    The label embeddings are those of the probe throughout: they are not encoded anew in each step, and after the
    training the label projector maps the label names, as the trained encoder reads them, to the same embeddings. For
    single-label y, the trained weights are averaged with those before, which overfits less (Wortsman et al. 2022,
    "Robust Fine-Tuning of Zero-Shot Models", https://arxiv.org/abs/2109.01903).

    Parameters
    ----------
    n_lower_layers : int, default=0
        Number of frozen layers whose output is computed once.
    scale : float, optional
        Logit scale of the training. If None, 10 for single-label y, and that of the probe for multi-label y and for
        heads that are trained on cached hidden states.
    multi_label : bool, default=False
        Whether each label is a decision of its own, with the margin of the probe as the logit offset.
    calibrates : bool, default=True
        Whether the logit scale is set to that of calibrated probabilities after the training.
    """

    n_lower_layers: int = 0
    scale: float | None = None
    multi_label: bool = False
    calibrates: bool = True

    def run(self, run: TrainingRun) -> None:
        head, epochs = run.net.module_.model, run.net.args_.max_epochs
        texts_move = epochs and not is_fully_frozen(run.freeze_encoder)
        with run.hold_labels(self.n_lower_layers):
            states = run.label_states()
            if head.scorer.reserves_axis:
                head.reserve_axis(states)
            names = _project(head, states)
            texts, _ = run.net.embed(run.train, np.arange(len(run.train)))
            probes = self._fit_probes(run, _drop_axis(texts) if head.scorer.reserves_axis else texts, names)
            labels, probe = torch.cat([probe.labels for probe in probes]), probes[0]
            run.fit_labels(states, halfway(labels, names) if texts_move else labels)
            trains_heads = epochs and not texts_move  # from the optimum of the probe, at its scale
            scale = self.scale or (probe.scale if self.multi_label or trains_heads else TRAINING_SCALE)
            factor = head.scorer.init_cosine(_project(head, states), scale)
            _set_scale(head, scale / factor, probe.likely_margin)
            run.temperatures = np.ones(len(probes))
            if texts_move:
                parts = split_targets(run.train, run.train.n_labels)
                n_rows = sum(part.sample_weight.sum() for part in parts) / len(parts)
                # Multi-label fits do not gain from an average.
                with _averaged(run.net.module_, 1.0 if self.multi_label else fine_tuned_share(n_rows)):
                    super().run(run)
            elif trains_heads:
                self._train_heads(run)
            labels = _project(head, states)
        run.embeddings = None if epochs else (texts, labels)
        if texts_move:
            run.fit_labels(run.label_states(), labels)
        if self.multi_label:
            _set_scale(head, scale, probe.margin)
        elif self.calibrates:
            scales = self._calibrated_scales(run, scale) if texts_move else np.array([probe.scale for probe in probes])
            run.divide_logits(scale / scales)

    def _train_heads(self, run: TrainingRun) -> None:
        """Train the heads on cached hidden states, from the optimum of the probe."""
        whole, held_out = cast("StateDataset", run.train), run.valid
        if held_out is None:
            order = np.random.RandomState(run.seed).permutation(len(whole))
            n_held_out = min(MAX_HELD_OUT_ROWS, max(1, len(whole) // 5))
            run.train, held_out = whole.take(np.sort(order[n_held_out:])), whole.take(np.sort(order[:n_held_out]))
        parameters = [parameter for parameter in run.net.module_.parameters() if parameter.requires_grad]
        before = [parameter.detach().clone() for parameter in parameters]
        run.net.partial_fit(run.train)  # weights of a loss that rises do not count, and need no warning
        run.train = whole
        _interpolate(run, parameters, before, held_out)

    def _fit_probes(self, run: TrainingRun, texts: torch.Tensor, names: torch.Tensor) -> list[LabelProbe]:
        """Fit a probe for each target, on the same embeddings."""
        ignore_index = run.net.module_.config.ignore_index
        parts = split_targets(run.train, run.train.n_labels)
        data = [distinct_rows(run.train.token_lists, texts, part, self.multi_label, ignore_index) for part in parts]
        return [fit_label_probe(rows, names[part.labels]) for rows, part in zip(data, parts, strict=True)]

    def _calibrated_scales(self, run: TrainingRun, scale: float) -> np.ndarray:
        """Return the logit scale of calibrated probabilities for each target."""
        usual = np.array([fine_tuned_scale(part.n_labels) for part in split_targets(run.train, run.train.n_labels)])
        held_out = run.held_out
        if held_out is None:
            return usual
        (logits,) = run.net.forward_iter(held_out)
        scales = scale / fit_temperatures(logits.double().numpy(), held_out)
        return np.where(np.isnan(scales), usual, scales)


@dataclass
class FromRidge(Supervised):
    """Ridge regression on the embeddings of the texts, then supervised epochs that start from it.

    As in :class:`FromProbe`, the labels are not encoded anew in each step, and the trained weights are averaged with
    those before.

    Parameters
    ----------
    n_lower_layers : int, default=0
        Number of frozen layers whose output is computed once.
    scale : float, optional
        Logit scale. If None, that of the ridge regression.
    """

    n_lower_layers: int = 0
    scale: float | None = None

    def run(self, run: TrainingRun) -> None:
        head = run.net.module_.model
        with run.hold_labels(self.n_lower_layers):
            states = run.label_states()
            texts, _ = run.net.embed(run.train, np.arange(len(run.train)))
            (outputs,) = split_targets(run.train, run.train.n_labels)
            data = distinct_rows(run.train.token_lists, texts, outputs, multi_label=False)
            probe = fit_ridge(data)
            scale = self.scale or probe.scale
            head.classes_projector.fit_outputs(states, probe.labels)
            _set_scale(head, scale)
            if run.net.args_.max_epochs:
                with _averaged(run.net.module_, fine_tuned_share(float(data.weights.sum()), ROWS_FOR_HALF_OF_VALUES)):
                    super().run(run)
            labels = _project(head, states)
        head.classes_projector.fit_outputs(run.label_states(), labels)
        run.shrinkage = np.clip(probe.shrinkage * probe.scale / scale, MIN_SHRINKAGE, 1.0)


@torch.no_grad()
def _project(head, label_states: torch.Tensor) -> torch.Tensor:
    return head.classes_projector(label_states)


def _drop_axis(texts: torch.Tensor) -> torch.Tensor:
    """Return the directions of embeddings without their reserved axis."""
    texts = texts.clone()
    texts[:, RESERVED_AXIS] = 0.0
    return F.normalize(texts, dim=1)


@contextmanager
def _averaged(model: torch.nn.Module, share: float):
    """Average the weights that are trained in the context, which count with `share`, with those before."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad and share < 1]
    before = [parameter.detach().clone() for parameter in trained]
    yield
    with torch.no_grad():
        for parameter, weight in zip(trained, before, strict=True):
            parameter.lerp_(weight, 1 - share)


@torch.no_grad()
def _interpolate(run: TrainingRun, parameters, before, held_out) -> None:
    """Move the weights as far towards the trained ones as the loss of held-out rows falls.

    A few optimiser steps from the optimum of a label probe are too long at most learning rates. The probe has seen the
    held-out rows, so that only steps that generalise lower their loss.
    """
    after = [parameter.detach().clone() for parameter in parameters]
    best, lowest = 0.0, math.inf
    for share in SHARES:
        for parameter, start, end in zip(parameters, before, after, strict=True):
            parameter.copy_(torch.lerp(start, end, share))
        loss = _evaluate(run, held_out)
        if not loss < lowest:  # NaN too
            break
        best, lowest = share, loss
    for parameter, start, end in zip(parameters, before, after, strict=True):
        parameter.copy_(torch.lerp(start, end, best))


def _evaluate(run: TrainingRun, dataset) -> float:
    """Compute the mean loss of a data set with all labels, the same in all processes."""
    net, losses, weights = run.net, [], []
    shared = net._shared_inputs(dataset)
    for batch in dataset.evaluation_batches(ROWS_AT_ONCE, group=net.group):
        losses.append(float(net.validation_step((batch, None), shared)["loss"]))
        weights.append(float(batch.inputs["sample_weight"].sum()))
    return net.group.from_main(float(np.dot(losses, weights)))


@torch.no_grad()
def _set_scale(head, scale: float, margin: float = 0.0) -> None:
    head.logit_scale.fill_(scale)
    head.config.logit_offset = scale * margin


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
        if self.share and len(run.net.history) and run.train.own_labels is None:
            run.fit_labels(*interpolate_labels(run.net, run.train, self.share))


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
            module=run.net.module_, valid=run.valid, dtype=run.net.dtype, seed=run.seed, device=run.net.device,
            callbacks=list(run.net.callbacks), progress=run.net.progress, group=run.net.group,
        ).initialize()  # fmt: skip
        net.history = run.net.history
        net.callbacks_ += [entry for entry in run.net.callbacks_ if entry[0] == "ewc"]
        run.embeddings = None
        run.rl_net = net
        net.partial_fit(run.train)


@dataclass
class Calibration:
    """Division of the logits by a temperature for each target.

    Parameters
    ----------
    temperatures : ndarray of shape (n_targets,)
        Temperatures of the logits of the training before.
    """

    temperatures: np.ndarray
    trains = False

    def run(self, run: TrainingRun) -> None:
        run.divide_logits(self.temperatures)


@dataclass
class EvidenceMeasurement:
    """Measurement of the evidence that the class of a text fits, for `known_proba`, on training rows.

    Held-out rows would need another boundary, as their evidence is lower.

    Parameters
    ----------
    earlier : Evidence, optional
        Evidence of earlier training texts, which counts by their weight.
    """

    earlier: Evidence | None = None
    trains = False

    def run(self, run: TrainingRun) -> None:
        net, dataset = run.net, run.train
        n_rows = max(MIN_EVIDENCE_ROWS, min(MAX_EVIDENCE_ROWS, MAX_EVIDENCE_PAIRS // dataset.n_labels))
        rows = np.linspace(0, len(dataset) - 1, min(len(dataset), n_rows)).round().astype(int)
        logits = net.score_rows(dataset, rows) if run.embeddings is None else self._score(run, *run.embeddings, rows)
        logits = logits.cpu().numpy()
        scale = net.module_.model.logit_factor
        classes, weight = class_indices(dataset.targets[rows]), dataset.sample_weight[rows]
        if weight.any():
            measured = measure_evidence(logits, scale, classes, weight, evidence_of(net.module_.config))
            run.evidence = measured.merge(self.earlier)

    @torch.no_grad()
    def _score(self, run: TrainingRun, texts: torch.Tensor, labels: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        mask = torch.ones(1, len(labels), dtype=torch.bool, device=labels.device)
        parts = texts[torch.from_numpy(rows)].split(ROWS_AT_ONCE)
        return torch.cat([run.net.module_.model.score(part, labels.unsqueeze(0), None, mask) for part in parts])


@dataclass
class Shrinkage:
    """Estimation of the factors by which the predictions of a regressor are shrunk, unless a ridge regression has.

    Parameters
    ----------
    estimate : callable
        Function without arguments that returns the factors (outputs,).
    """

    estimate: Callable[[], np.ndarray]
    trains = False

    def run(self, run: TrainingRun) -> None:
        if run.shrinkage is None and not run.interrupted:
            run.shrinkage = self.estimate()


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
