"""Optimisers and schedules, by their names in transformers."""

import importlib
from functools import partial

import torch
from torch import nn
from transformers import Adafactor, get_scheduler
from transformers.trainer_utils import SchedulerType


def _adamw(groups, lr):
    # The fused implementation saves a third of the training time on a CPU.
    return torch.optim.AdamW(groups, lr=lr, fused=True)


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
    inside = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    others_lr = args.resolve_others_lr()
    groups = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        in_encoder = id(parameter) in inside
        decays = parameter.dim() >= 2
        lr = args.lr if in_encoder else others_lr
        decay = (args.weight_decay if in_encoder else args.others_weight_decay) if decays else 0.0
        group = groups.setdefault((in_encoder, decays), {"params": [], "lr": lr, "weight_decay": decay})
        group["params"].append(parameter)
        group["name"] = "encoder" if in_encoder else "others"
    return list(groups.values())


def build_optimizer(model: nn.Module, encoders: list[nn.Module], args) -> torch.optim.Optimizer:
    """Build the optimiser ``args.optim`` with the parameter groups of `args`."""
    # All groups have their own learning rates; the polynomial schedule divides by the default, which must not be 0.
    return OPTIMIZERS[args.optim](parameter_groups(model, encoders, args), lr=args.lr or 1.0)


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
