"""transformers.TrainingArguments -> the fields of ours."""

import dataclasses

# Fields with a counterpart; `others_lr`, `others_weight_decay` and `cache_dir` are gliclass's.
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

# No files are written, nothing is reported and there is no loader: how is not read, and "no" is what happens anyway.
_NOT_READ = {"output_dir", "dataloader_pin_memory"}
_NEVER_DONE = {"save_strategy", "logging_strategy", "eval_strategy", "report_to", "push_to_hub", "do_train"}

_ELSEWHERE = {
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
    """The fields of :class:`TrainingArguments` that `args` stands for.

    A field that was set and has no counterpart raises a ValueError that lists all of them.
    """
    from transformers import TrainingArguments as TransformersArguments  # slow to import, and needs accelerate

    if not isinstance(args, TransformersArguments):
        raise TypeError(
            f"from_transformers takes a transformers.TrainingArguments, got {type(args).__name__}; our own "
            "TrainingArguments are used as they are."
        )
    _check_counterparts(args)
    others_lr = getattr(args, "others_lr", None)
    return {
        "lr": float(args.learning_rate),
        "others_lr": others_lr,
        "weight_decay": float(args.weight_decay),
        # Without a rate of their own, the others' matrices decay as all do.
        "others_weight_decay": float(args.weight_decay if others_lr is None else args.others_weight_decay),
        "optim": args.optim.value,
        "max_epochs": int(args.num_train_epochs),
        "batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "lr_scheduler_type": args.lr_scheduler_type.value,
        "warmup_ratio": float(args.warmup_steps or getattr(args, "warmup_ratio", None) or 0.0),
        "max_grad_norm": args.max_grad_norm or None,  # 0 switches clipping off there
        "cache_dir": getattr(args, "cache_dir", None),
    }


def _check_counterparts(args) -> None:
    defaults = type(args)(output_dir=args.output_dir)
    left_out = []
    for name in (field.name for field in dataclasses.fields(args) if field.init):
        value = getattr(args, name)
        if value == getattr(defaults, name) or name in COUNTERPARTS or name in _NOT_READ:
            continue
        if name in _NEVER_DONE and (name == "do_train" or not value or getattr(value, "value", value) == "no"):
            continue
        left_out.append(f"{name}={value!r}" + (f" (set {_ELSEWHERE[name]})" if name in _ELSEWHERE else ""))
    if args.num_train_epochs != int(args.num_train_epochs):
        left_out.append(f"num_train_epochs={args.num_train_epochs!r} (give a whole number)")
    if args.warmup_steps >= 1:
        left_out.append(f"warmup_steps={args.warmup_steps!r} (give a fraction of all steps)")
    if left_out:
        raise ValueError(
            "These fields of transformers' TrainingArguments have no counterpart here: "
            f"{', '.join(left_out)}. Leave them at their defaults."
        )
