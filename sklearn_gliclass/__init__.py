"""scikit-learn estimators for GLiClass text models."""

from ._version import __version__
from .classifier import GLiClassClassifier
from .model import GLiClassModel, GLiClassModelConfig
from .regressor import GLiClassRegressor
from .training import Trainer, TrainingArguments

__all__ = [
    "GLiClassClassifier",
    "GLiClassModel",
    "GLiClassModelConfig",
    "GLiClassRegressor",
    "Trainer",
    "TrainingArguments",
    "__version__",
]
