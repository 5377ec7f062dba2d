"""Private or recent names of transformers, in one module, with replacements for versions without them."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

try:  # these leave weights alone that have just been loaded
    from transformers import initialization as init
except ImportError:
    from torch.nn import init

__all__ = ["build_from_config", "init", "keep_names", "unexpected_patterns"]


def build_from_config(model_class: Any, config: Any, dtype: torch.dtype | None) -> PreTrainedModel:
    """Build a model of a class of transformers with random weights.

    Parameters
    ----------
    model_class : type
        A class of models.
    config : PretrainedConfig
        Configuration of the model.
    dtype : torch.dtype or None
        Floating point type of the weights; None for torch's default.
    """
    if hasattr(model_class, "_from_config"):
        return model_class._from_config(config, dtype=dtype)
    return model_class(config).to(dtype)


def unexpected_patterns(module: nn.Module) -> list[str]:
    """Return regular expressions of the names of weights that may be in a file, but not in the module."""
    return list(getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ())


def keep_names(model: Any) -> None:
    """Let a loaded model be saved under the present names of its weights.

    transformers 5.0 would save those of LayerNorm under their names in old checkpoints.
    """
    if hasattr(model, "_weight_conversions"):
        model._weight_conversions = None
