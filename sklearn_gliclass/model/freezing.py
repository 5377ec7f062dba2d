"""Which weights stay as they are in training."""

import numpy as np
from torch import nn


def is_whole(how) -> bool:
    """Whether the encoders are frozen as a whole: True, and not 1 for the first layer."""
    return isinstance(how, bool | np.bool_) and bool(how)


def freeze(model, how) -> None:
    """Take weights out of the training, and put back in what an earlier call took out.

    Parameters
    ----------
    model : GLiClassModel
        Its parameters' ``requires_grad`` is set.
    how : bool, "embeddings" or int
        True: the encoders, in the bi-encoders the label encoder's projector, and in the fused one the projector
        between it and the text encoder. "embeddings": the encoders' embeddings. n: these and the first n layers.
    """
    for parameter in getattr(model, "frozen_parameters", []):
        parameter.requires_grad_(True)
    frozen = [parameter for parameter in _parameters(model, how) if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    model.frozen_parameters = frozen


def _parameters(model, how) -> list[nn.Parameter]:
    if is_whole(how):
        return [parameter for module in model.model.frozen_modules() for parameter in module.parameters()]
    if isinstance(how, bool | np.bool_):
        return []
    n_layers = 0 if how == "embeddings" else how
    return [parameter for encoder in model.encoder_modules() for parameter in _lowest(encoder, n_layers)]


def _lowest(encoder: nn.Module, n_layers: int) -> list[nn.Parameter]:
    """The parameters of the embeddings and of the first layers."""
    lists = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)}
    layers = next(iter(lists.values()), [])  # those of a decoder come later
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
