"""scikit-learn estimators for GLiClass text models."""

from ._version import __version__
from .classifier import GLiClassClassifier
from .model import GLiClassModelConfig
from .persistence import SKOPS_TRUSTED_TYPES
from .plotting import TrainingHistoryDisplay
from .regressor import GLiClassRegressor
from .training import RLTrainer, RLTrainerConfig, Trainer, TrainingArguments

__all__ = [
    "SKOPS_TRUSTED_TYPES",
    "GLiClassClassifier",
    "GLiClassModel",
    "GLiClassModelConfig",
    "GLiClassRegressor",
    "RLTrainer",
    "RLTrainerConfig",
    "Trainer",
    "TrainingArguments",
    "TrainingHistoryDisplay",
    "__version__",
]


def __getattr__(name):
    if name != "GLiClassModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .model import GLiClassModel  # imported at first use, see there

    return GLiClassModel
