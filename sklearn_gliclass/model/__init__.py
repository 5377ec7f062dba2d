"""The torch model. Knows nothing of scikit-learn and skorch, and can be used alone."""

from .config import GLiClassModelConfig

__all__ = ["ARCHITECTURES", "GLiClassModel", "GLiClassModelConfig", "GLiClassOutput"]


def __getattr__(name):
    # At first use: transformers' models take as long to import as everything else together.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import modeling

    return getattr(modeling, name)
