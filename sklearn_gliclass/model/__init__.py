"""The torch model. Knows nothing of scikit-learn and skorch, and can be used alone."""

from .config import GLiClassModelConfig
from .modeling import ARCHITECTURES, GLiClassModel, GLiClassOutput

__all__ = ["ARCHITECTURES", "GLiClassModel", "GLiClassModelConfig", "GLiClassOutput"]
