"""The torch model, which is independent of scikit-learn and skorch."""

from .config import GLiClassModelConfig

__all__ = ["ARCHITECTURES", "GLiClassModel", "GLiClassModelConfig", "GLiClassOutput"]


def __getattr__(name):
    # Imported at first use: transformers' models take as long to import as all other modules together.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import modeling

    return getattr(modeling, name)
