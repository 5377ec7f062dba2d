"""The training loop on skorch."""

from .arguments import TrainingArguments
from .trainer import Trainer

__all__ = ["Trainer", "TrainingArguments"]
