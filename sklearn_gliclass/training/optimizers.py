"""Optimisers and schedules, by their names in transformers."""

import copy
import importlib
from functools import partial

import torch
from torch import nn
from torch.optim.adamw import adamw
from transformers import Adafactor, get_scheduler
from transformers.trainer_utils import SchedulerType

from ..model import torch_internals
from ..model.traversal import collect_parameters

CLIP_EPSILON = 1e-6  # as in torch


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW that also takes the sparse gradients of embeddings, with the results of dense ones.

    Rows without any gradient so far have zero moments, so that a step only multiplies them by the factor of the weight
    decay. These factors are collected, and applied before a row is read for the first time, or at :meth:`eval`. All
    other rows are updated in each step. :meth:`prepare_rows` must run before each forward pass of an embedding.
    """

    def __init__(self, groups, lr):
        # The fused implementation saves a third of the training time on a CPU.
        super().__init__(groups, lr=lr, fused=True)
        self._tables: dict[torch.Tensor, _Table] = {}

    @torch.no_grad()
    def step(self, closure=None):
        """Take an optimiser step; gradients are sparse ones, coalesced, or dense."""
        sparse = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    sparse.append((group, parameter, parameter.grad.coalesce()))
                    parameter.grad = None
                elif parameter in self._tables:  # the moments are dense again
                    self._tables.pop(parameter).write()
        loss = super().step(closure)
        for group, parameter, gradient in sparse:
            table = self._tables.get(parameter)
            if table is None or table.state is not self.state[parameter]:  # it may have been restored
                table = self._tables[parameter] = _Table(parameter, self.state[parameter])
            table.step(gradient, group)
            parameter.grad = gradient
        return loss

    def __setstate__(self, state):
        super().__setstate__(state)
        self.forget_rows()

    def forget_rows(self) -> None:
        """Read the moments anew, after weights and moments were replaced by others."""
        self._tables = {}

    @torch.no_grad()
    def prepare_rows(self, embedding: nn.Embedding, args: tuple) -> None:
        """Bring the rows that an embedding reads up to date: a forward pre-hook."""
        table = self._tables.get(embedding.weight)
        if table is not None:
            table.add(args[0].flatten())

    def train(self) -> None:
        """Have no effect, as the rows that a training reads are up to date."""

    def eval(self) -> None:
        """Bring all rows of the weights and moments up to date, for their use outside of training steps."""
        for table in self._tables.values():
            table.write()


class _Table:
    """Embeddings in training: moments of the rows that have been read, and the pending factor of the others."""

    def __init__(self, weight: torch.Tensor, state: dict):
        self.rows = torch.empty(0, dtype=torch.long)
        if state:
            self.rows = state["exp_avg_sq"].sum(dim=1).nonzero().squeeze(1)
        else:
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        self.weight, self.state, self.factor = weight, state, 1.0
        self.places = torch.full((len(weight),), -1)  # of each row among the moments
        self.places[self.rows] = torch.arange(len(self.rows))
        self.moments = [state[name][self.rows] for name in ("exp_avg", "exp_avg_sq")]

    def step(self, gradient: torch.Tensor, group: dict) -> None:
        """Take a step with a coalesced sparse gradient."""
        rows = gradient.indices()[0]
        self.add(rows)
        weights = self.weight.index_select(0, self.rows)
        gradients = torch.zeros_like(weights).index_copy_(0, self.places[rows], gradient.values())
        beta1, beta2 = group["betas"]
        means, squares = self.moments
        adamw(
            [weights], [gradients], [means], [squares], [], [self.state["step"]], fused=True,
            amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"],
            eps=group["eps"], maximize=False,
        )  # fmt: skip
        self.weight.index_copy_(0, self.rows, weights)
        self.factor *= 1 - group["lr"] * group["weight_decay"]

    def add(self, rows: torch.Tensor) -> None:
        """Add the rows that are new, and bring them up to date."""
        rows = rows[self.places[rows] < 0].unique()
        if len(rows) == 0:
            return
        self.weight.index_copy_(0, rows, self.weight.index_select(0, rows).mul_(self.factor))
        self.places[rows] = torch.arange(len(self.rows), len(self.rows) + len(rows))
        self.rows = torch.cat([self.rows, rows])
        self.moments = [torch.cat([moment, moment.new_zeros(len(rows), moment.shape[1])]) for moment in self.moments]

    @torch.no_grad()
    def write(self) -> None:
        """Write the moments, and multiply the rows without any by the pending factor."""
        for name, moment in zip(("exp_avg", "exp_avg_sq"), self.moments, strict=True):
            self.state[name].index_copy_(0, self.rows, moment)
        if self.factor != 1:
            factors = self.weight.new_ones(len(self.weight), 1).masked_fill_(self.places.unsqueeze(1) < 0, self.factor)
            self.weight.mul_(factors)
            self.factor = 1.0


def clip_gradients(gradients: list[torch.Tensor], max_norm: float) -> torch.Tensor:
    """Scale gradients in place if their joint norm exceeds `max_norm`, and return the norm before.

    Sparse gradients must be coalesced. ``torch.nn.utils.clip_grad_norm_`` takes dense ones only, and always multiplies.
    """
    values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
    if not values:
        return torch.tensor(0.0)
    norm = torch.linalg.vector_norm(torch.stack(torch_internals.norms(values)))
    if norm > max_norm:
        torch_internals.multiply_in_place(values, max_norm / (norm + CLIP_EPSILON))
    return norm


def _adamw(groups, lr):
    return RowwiseAdamW(groups, lr)


def _adafactor(groups, lr, **kwargs):
    return Adafactor(groups, lr=lr, scale_parameter=False, relative_step=False, **kwargs)


_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}
_LION = {"betas": (0.9, 0.999)}


def _bitsandbytes(name, bits, **kwargs):
    return "bitsandbytes", f"bitsandbytes.optim.{name}", {"optim_bits": bits, **kwargs}


# Optimisers of optional packages: name -> (package to install, class, options).
PACKAGED = {
    "adamw_torch_4bit": ("torchao", "torchao.optim.AdamW4bit", _ADAM),
    "adamw_torch_8bit": ("torchao", "torchao.optim.AdamW8bit", _ADAM),
    "adamw_8bit": _bitsandbytes("AdamW", 8, **_ADAM),
    "adamw_bnb_8bit": _bitsandbytes("AdamW", 8, **_ADAM),
    "paged_adamw_8bit": _bitsandbytes("AdamW", 8, is_paged=True, **_ADAM),
    "paged_adamw_32bit": _bitsandbytes("AdamW", 32, is_paged=True, **_ADAM),
    "ademamix": _bitsandbytes("AdEMAMix", 32),
    "ademamix_8bit": _bitsandbytes("AdEMAMix", 8),
    "paged_ademamix_8bit": _bitsandbytes("AdEMAMix", 8, is_paged=True),
    "paged_ademamix_32bit": _bitsandbytes("AdEMAMix", 32, is_paged=True),
    "lion_8bit": _bitsandbytes("Lion", 8, **_LION),
    "lion_32bit": _bitsandbytes("Lion", 32, **_LION),
    "paged_lion_8bit": _bitsandbytes("Lion", 8, is_paged=True, **_LION),
    "paged_lion_32bit": _bitsandbytes("Lion", 32, is_paged=True, **_LION),
    "rmsprop_bnb": _bitsandbytes("RMSprop", 32),
    "rmsprop_bnb_8bit": _bitsandbytes("RMSprop", 8),
    "rmsprop_bnb_32bit": _bitsandbytes("RMSprop", 32),
    "grokadamw": ("grokadamw", "grokadamw.GrokAdamW", {}),
    "stable_adamw": ("torch-optimi", "optimi.StableAdamW", _ADAM),
    "schedule_free_adamw": ("schedulefree", "schedulefree.AdamWScheduleFree", _ADAM),
    "schedule_free_radam": ("schedulefree", "schedulefree.RAdamScheduleFree", _ADAM),
    "schedule_free_sgd": ("schedulefree", "schedulefree.SGDScheduleFree", {}),
}


def _packaged(groups, lr, optim):
    """Build the optimiser of an optional package, or raise an error with the command that installs it."""
    package, path, kwargs = PACKAGED[optim]
    module, name = path.rsplit(".", 1)
    try:
        optimizer = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"optim={optim!r} needs a package that is not installed: pip install {package}; or choose from "
            f"{sorted(set(OPTIMIZERS) - set(PACKAGED))}."
        ) from error
    return optimizer(groups, lr=lr, **kwargs)


# name -> f(parameter groups, lr). Names of transformers are left out that need lists of layers (galore, apollo), a
# training loop of their own (lomo), other devices (xla, npu) or a discontinued package (anyprecision).
OPTIMIZERS = {
    "adamw_torch": _adamw,
    "adamw_torch_fused": _adamw,
    "adafactor": _adafactor,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    **{name: partial(_packaged, optim=name) for name in PACKAGED},
}

# "reduce_lr_on_plateau" and "greedy" need a score or loss, which is not known at each step.
SCHEDULES = tuple(kind.value for kind in SchedulerType if kind.value not in {"reduce_lr_on_plateau", "greedy"})

# Schedules with required arguments; these are the values of transformers' Trainer.
_SCHEDULE_KWARGS = {
    "cosine_with_min_lr": lambda steps, lr: {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": lambda steps, lr: {"min_lr_rate": 0.1},
    "warmup_stable_decay": lambda steps, lr: {"num_decay_steps": max(1, steps // 5)},
    "polynomial": lambda steps, lr: {"lr_end": min(1e-7, lr / 1000)},  # the default is too large for tiny rates
}


def parameter_groups(model: nn.Module, encoders: list[nn.Module], args) -> list[dict]:
    """Build the parameter groups of encoder and head parameters, with and without weight decay.

    Encoder parameters are recognised by membership in the encoder modules, not by name.
    """
    inside = {id(parameter) for parameter in collect_parameters(encoders)}
    others_lr = args.resolve_others_lr()
    groups = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        in_encoder = id(parameter) in inside
        decays = parameter.dim() >= 2
        lr = args.lr if in_encoder else others_lr
        decay = (args.weight_decay if in_encoder else args.others_weight_decay) if decays else 0.0
        # torch's schedules that continue, after a load for example, need the initial rate.
        rates = {"lr": lr, "initial_lr": lr, "weight_decay": decay}
        group = groups.setdefault((in_encoder, decays), {"params": [], **rates})
        group["params"].append(parameter)
        group["name"] = "encoder" if in_encoder else "others"
    return list(groups.values())


def build_optimizer(model: nn.Module, encoders: list[nn.Module], args) -> torch.optim.Optimizer:
    """Build the optimiser ``args.optim`` with the parameter groups of `args`."""
    # All groups have their own learning rates; the polynomial schedule divides by the default, which must not be 0.
    return OPTIMIZERS[args.optim](parameter_groups(model, encoders, args), lr=args.lr or 1.0)


def copy_optimizer(optimizer: torch.optim.Optimizer, memo: dict) -> torch.optim.Optimizer:
    """Copy an optimiser between steps, for copies of its parameters.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Optimiser of any class. ``copy.deepcopy`` would lose its attributes and hooks.
    memo : dict
        Copies of the parameters by the id of their originals, as in ``copy.deepcopy``.
    """
    other = object.__new__(type(optimizer))
    vars(other).update(vars(optimizer))
    vars(other).pop("step", None)  # a schedule has replaced the method by one of the original
    other.param_groups = copy.deepcopy(optimizer.param_groups, memo)
    other.state = copy.deepcopy(optimizer.state, memo)
    if isinstance(other, RowwiseAdamW):
        other.forget_rows()
    return other


def add_unfrozen_parameters(optimizer, model: nn.Module, encoders: list[nn.Module], args) -> None:
    """Add the parameters that were frozen when the optimiser was built and no longer are."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in parameter_groups(model, encoders, args):
        thawed = [parameter for parameter in group["params"] if id(parameter) not in known]
        if thawed:
            optimizer.add_param_group({**group, "params": thawed})


def build_scheduler(optimizer, args, n_steps: int):
    """Build the schedule ``args.lr_scheduler_type`` over `n_steps` optimiser steps."""
    kwargs = _SCHEDULE_KWARGS.get(args.lr_scheduler_type, lambda steps, lr: {})(n_steps, optimizer.defaults["lr"])
    return get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=round(args.resolve_warmup_ratio() * n_steps),
        num_training_steps=n_steps,
        scheduler_specific_kwargs=kwargs,
    )
