"""Freezing of encoder parameters."""

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from .traversal import collect_parameters


def is_fully_frozen(how) -> bool:
    """Return whether all encoder parameters are frozen: `how` is True, and not 1 for the first layer."""
    return isinstance(how, bool | np.bool_) and bool(how)


def count_layers(how) -> int:
    """Return the number of lower layers that are frozen; 0 if none are, or if all encoder parameters are."""
    return 0 if isinstance(how, bool | np.bool_ | str) else int(how)


def freeze(model, how) -> None:
    """Freeze parameters, and unfreeze those that an earlier call froze.

    Parameters
    ----------
    model : GLiClassModel
        Model whose parameters' ``requires_grad`` is set.
    how : bool, "embeddings" or int
        What to freeze. If True, the encoders, the label projector of the bi-encoders, and in the fused one the
        projector between the encoders. If "embeddings", the embedding layers of the encoders; if n, these and the first
        n layers.
    """
    for parameter in getattr(model, "frozen_parameters", []):
        parameter.requires_grad_(True)
    frozen = [parameter for parameter in _parameters(model, how) if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.frozen_parameters = frozen


def _parameters(model, how) -> list[nn.Parameter]:
    if is_fully_frozen(how):
        return collect_parameters(model.model.frozen_modules())
    if isinstance(how, bool | np.bool_):
        return []
    n_layers = 0 if how == "embeddings" else how
    return [parameter for encoder in model.encoder_modules() for parameter in _lowest(encoder, n_layers)]


def _lowest(encoder: PreTrainedModel, n_layers: int) -> list[nn.Parameter]:
    """Return the parameters of the embeddings and of the first layers."""
    lists = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)}
    layers = next(iter(lists.values()), [])  # those of a decoder come after them
    if n_layers > len(layers):
        raise ValueError(
            f"freeze_encoder={n_layers} asks for more layers than the {len(layers)} of this encoder; give a number "
            f"from 1 to {len(layers)}, or True for the whole encoder."
        )
    inside = tuple(f"{name}." for name in lists)
    embeddings = [
        parameter for name, parameter in encoder.named_parameters() if "embed" in name and not name.startswith(inside)
    ]
    tokens = list(encoder.get_input_embeddings().parameters())
    return [*tokens, *embeddings, *(parameter for layer in layers[:n_layers] for parameter in layer.parameters())]
