"""Conversion of ``transformers.TrainingArguments``."""

import dataclasses
from typing import Any, cast

# Fields with a counterpart; `others_lr`, `others_weight_decay` and `cache_dir` exist in gliclass's class only.
COUNTERPARTS = {
    "learning_rate": "lr",
    "others_lr": "others_lr",
    "weight_decay": "weight_decay",
    "others_weight_decay": "others_weight_decay",
    "optim": "optim",
    "num_train_epochs": "max_epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "lr_scheduler_type": "lr_scheduler_type",
    "warmup_steps": "warmup_ratio",
    "warmup_ratio": "warmup_ratio",
    "max_grad_norm": "max_grad_norm",
    "cache_dir": "cache_dir",
}

# Fields that are ignored, and fields of features that do not exist here, which may be disabled.
_IGNORED_FIELDS = {"output_dir", "dataloader_pin_memory"}
_DISABLED_FEATURES = {"save_strategy", "logging_strategy", "eval_strategy", "report_to", "push_to_hub", "do_train"}

_ALTERNATIVES = {
    "seed": "random_state of the estimator",
    "bf16": 'dtype="bfloat16" of the estimator',
    "use_cpu": 'device="cpu" of the estimator',
    "disable_tqdm": "verbose of the estimator",
    "use_ewc": "ewc_lambda of the estimator",
    "ewc_lambda": "ewc_lambda of the estimator",
    "label_smoothing_factor": "labels_smoothing of RLTrainerConfig, in reinforcement learning",
    "max_steps": "num_train_epochs",
    "load_best_model_at_end": "early_stopping of the estimator",
}


def read_transformers_arguments(args) -> dict:
    """Convert `args` to the fields of :class:`TrainingArguments`.

    Fields that are set and have no counterpart raise a ValueError that lists them.
    """
    from transformers import TrainingArguments as TransformersArguments  # slow to import, and needs accelerate

    if not isinstance(args, TransformersArguments):
        raise TypeError(
            f"from_transformers takes a transformers.TrainingArguments, got {type(args).__name__}; pass "
            "a sklearn_gliclass.TrainingArguments without conversion."
        )
    _check_counterparts(args)
    args = cast("Any", args)  # its strings are enums by now, and gliclass's class has further fields
    others_lr = getattr(args, "others_lr", None)
    return {
        "lr": float(args.learning_rate),
        "others_lr": others_lr,
        "weight_decay": float(args.weight_decay),
        # Without a learning rate of their own, head parameters have the weight decay of the encoder.
        "others_weight_decay": float(args.weight_decay if others_lr is None else args.others_weight_decay),
        "optim": args.optim.value,
        "max_epochs": int(args.num_train_epochs),
        "batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "lr_scheduler_type": args.lr_scheduler_type.value,
        "warmup_ratio": float(args.warmup_steps or getattr(args, "warmup_ratio", None) or 0.0),
        "max_grad_norm": args.max_grad_norm or None,  # 0 disables clipping in transformers
        "cache_dir": getattr(args, "cache_dir", None),
    }


def _check_counterparts(args) -> None:
    defaults = type(args)(output_dir=args.output_dir)
    left_out = []
    for name in (field.name for field in dataclasses.fields(args) if field.init):
        value = getattr(args, name)
        if value == getattr(defaults, name) or name in COUNTERPARTS or name in _IGNORED_FIELDS:
            continue
        if name in _DISABLED_FEATURES and (name == "do_train" or not value or getattr(value, "value", value) == "no"):
            continue
        left_out.append(f"{name}={value!r}" + (f" (set {_ALTERNATIVES[name]})" if name in _ALTERNATIVES else ""))
    if args.num_train_epochs != int(args.num_train_epochs):
        left_out.append(f"num_train_epochs={args.num_train_epochs!r} (give a whole number)")
    if args.warmup_steps >= 1:
        left_out.append(f"warmup_steps={args.warmup_steps!r} (give a fraction of all steps)")
    if left_out:
        raise ValueError(
            "These fields of transformers' TrainingArguments have no counterpart here: "
            f"{', '.join(left_out)}. Set them to their defaults."
        )
