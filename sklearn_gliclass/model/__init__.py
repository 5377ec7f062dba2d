"""The torch model, which is independent of scikit-learn and skorch."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import GLiClassModelConfig
    from .modeling import ARCHITECTURES, GLiClassModel, GLiClassOutput

__all__ = ["ARCHITECTURES", "GLiClassModel", "GLiClassModelConfig", "GLiClassOutput"]


def __getattr__(name):
    # Imported at first use: transformers' models take as long to import as all other modules together, and
    # sklearn_gliclass.onnx uses modules of this package without torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(".config" if name == "GLiClassModelConfig" else ".modeling", __name__)
    return getattr(module, name)
