"""The training loop on skorch."""

from .arguments import RLTrainerConfig, TrainingArguments
from .rl import RLTrainer
from .trainer import Trainer

__all__ = ["RLTrainer", "RLTrainerConfig", "Trainer", "TrainingArguments"]
