"""scikit-learn estimators for GLiClass text models.

The public names are imported at first use, so that ``import sklearn_gliclass`` imports neither torch nor scikit-learn.
"""

import importlib
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import exceptions as exceptions
    from . import model as model
    from . import onnx as onnx
    from . import plotting as plotting
    from . import serve as serve
    from . import testing as testing
    from . import training as training
    from .classifier import GLiClassClassifier
    from .model import GLiClassModel, GLiClassModelConfig
    from .persistence import SKOPS_TRUSTED_TYPES
    from .plotting import TrainingHistoryDisplay
    from .regressor import GLiClassRegressor
    from .streaming import StreamingClassifier
    from .training import RLTrainer, RLTrainerConfig, Trainer, TrainingArguments

__all__ = [
    "SKOPS_TRUSTED_TYPES",
    "GLiClassClassifier",
    "GLiClassModel",
    "GLiClassModelConfig",
    "GLiClassRegressor",
    "RLTrainer",
    "RLTrainerConfig",
    "StreamingClassifier",
    "Trainer",
    "TrainingArguments",
    "TrainingHistoryDisplay",
    "__version__",
]

# Public name -> its module.
_MODULES = {
    "SKOPS_TRUSTED_TYPES": "persistence",
    "GLiClassClassifier": "classifier",
    "GLiClassModel": "model",
    "GLiClassModelConfig": "model",
    "GLiClassRegressor": "regressor",
    "RLTrainer": "training",
    "RLTrainerConfig": "training",
    "StreamingClassifier": "streaming",
    "Trainer": "training",
    "TrainingArguments": "training",
    "TrainingHistoryDisplay": "plotting",
}
_SUBMODULES = {"exceptions", "model", "onnx", "plotting", "serve", "testing", "training"}


if not TYPE_CHECKING:  # type checkers report unknown names, as they read the imports above

    def __getattr__(name):
        if name in _SUBMODULES:
            return importlib.import_module(f".{name}", __name__)
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value  # found without this function from now on
        return value


def __dir__():
    return sorted({*globals(), *__all__, *_SUBMODULES})
