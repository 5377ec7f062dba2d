"""Private operators and attributes of torch, in one module, with replacements for versions without them."""

# pyright: reportPrivateImportUsage=false

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

_COMPILED = "_orig_mod"


def _has(namespace: object, *names: str) -> bool:
    return all(hasattr(namespace, name) for name in names)


# Operators of oneDNN: without gradients, and for gradients.
HAS_INFERENCE_OPERATORS = _has(torch.ops.mkldnn, "_reorder_linear_weight", "_linear_pointwise")
HAS_GRADIENT_OPERATORS = _has(torch.ops.aten, "mkldnn_linear_backward_input", "mkldnn_linear_backward_weights")
HAS_FUSED_LAYER_OPERATORS = _has(
    torch.ops.aten, "native_layer_norm_backward", "gelu_backward", "_softmax_backward_data"
)
HAS_OPERATORS_ON_LISTS = _has(torch, "_foreach_norm", "_foreach_mul_")
HAS_THRESHOLD_OPERATOR = _has(torch.ops.aten, "threshold_backward")


def reorder_linear_weight(weight: Tensor, n_rows: int) -> Tensor:
    """Copy a weight into oneDNN's memory layout for products with `n_rows` rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, n_rows)


def linear_pointwise(inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: str, algorithm: str) -> Tensor:
    """Compute ``F.linear`` with an activation by oneDNN, without gradients."""
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, activation, [], algorithm)


def linear_input_gradient(shape: torch.Size, gradient: Tensor, weight: Tensor) -> Tensor:
    """Compute the gradient of the inputs of a linear layer by oneDNN."""
    return torch.ops.aten.mkldnn_linear_backward_input(shape, gradient, weight)


def linear_weight_gradient(gradient: Tensor, inputs: Tensor, weight: Tensor, has_bias: bool) -> tuple[Tensor, Tensor]:
    """Compute the gradients of weight and bias of a linear layer by oneDNN."""
    return torch.ops.aten.mkldnn_linear_backward_weights(gradient, inputs, weight, has_bias)


def softmax_gradient(gradient: Tensor, probabilities: Tensor) -> Tensor:
    """Compute the gradient of the inputs of a softmax over the last dimension."""
    return torch._softmax_backward_data(gradient, probabilities, -1, probabilities.dtype)


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """Compute the Euclidean norm of each tensor, in one call where torch has the operator."""
    if HAS_OPERATORS_ON_LISTS:
        return list(torch._foreach_norm(tensors))
    return [torch.linalg.vector_norm(tensor) for tensor in tensors]


def multiply_in_place(tensors: list[Tensor], factor: Tensor) -> None:
    """Multiply each tensor by a number, in one call where torch has the operator."""
    if HAS_OPERATORS_ON_LISTS:
        torch._foreach_mul_(tensors, factor)
        return
    for tensor in tensors:
        tensor.mul_(factor)


def keep_above(values: Tensor, by: Tensor, threshold: float) -> Tensor:
    """Return `values` where `by` is above the threshold, else 0; in one pass, where torch has the operator."""
    if HAS_THRESHOLD_OPERATOR:
        return torch.ops.aten.threshold_backward(values, by, threshold)
    return torch.where(by > threshold, values, 0.0)


def change_counter(tensor: Tensor) -> object:
    """Return a value that differs after each in-place operation; without a counter, it differs at each call."""
    return tensor._version if hasattr(tensor, "_version") else object()


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_hooks(module: nn.Module) -> bool:
    """Return whether functions are registered that a call of the module runs."""
    return any(getattr(module, name, None) for name in _HOOKS)


def unwrap(model: Model) -> Model:
    """Return the module that ``torch.compile`` has wrapped, or the model itself."""
    return getattr(model, _COMPILED, model)


def place(model: Model, device, dtype: torch.dtype) -> Model:
    """Move a model to a device and a floating point type in place, and put it in evaluation mode.

    The ``to`` of transformers has no types, and does the same for models without quantisation.
    """
    nn.Module.to(model, device, dtype)
    model.eval()
    return model


def remove_compiled_prefix(name: str) -> str:
    """Return the name of a weight without the parts that ``torch.compile`` adds."""
    return name.replace(f"{_COMPILED}.", "")
