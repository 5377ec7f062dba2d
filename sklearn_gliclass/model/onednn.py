"""Linear layers computed by oneDNN, where it is faster than torch's default library for float32.

torch multiplies float32 matrices on a CPU with MKL, which has AVX-512 kernels for Intel processors only. oneDNN, which
torch includes, has them for others too: on a Zen 5 it is 2.2 times as fast.
"""

import contextlib
import functools
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

from . import torch_internals

MIN_MULTIPLICATIONS = 4_000_000  # of a matrix product; in smaller ones, the copies take longer than they save


class OneDNNLinear(TorchFunctionMode):
    """Context in which oneDNN computes ``F.linear`` of large float32 matrices and its gradients."""

    # Minimum speed-up for its use, well above the differences between the libraries on Intel processors.
    MIN_SPEEDUP = 1.25

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is find_products:
            return OneDNNProducts
        if function in ACTIVATIONS and not kwargs and _fits(*args):
            return self.multiply(*args, activation=ACTIVATIONS[function])
        return function(*args, **(kwargs or {}))

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
        """Compute ``F.linear`` and an activation after it, one of the values of ``ACTIVATIONS``."""
        outputs = linear(inputs, weight, bias)
        return F.gelu(outputs) if activation == "gelu" else outputs


class OneDNNInference(OneDNNLinear):
    """The same without gradients, for weights that are constant while this object is in use.

    A weight that is used repeatedly is cached in oneDNN's memory layout, into which each product would convert it.
    """

    MIN_SPEEDUP = 1.0

    def __init__(self):
        super().__init__()
        self.weights = {}  # parameter -> itself, and from its second use on a copy in oneDNN's layout

    def multiply(self, inputs, weight, bias=None, activation="none"):
        return infer_linear(inputs, self._reorder(weight, inputs), bias, activation=activation)

    def _reorder(self, weight: Tensor, inputs: Tensor) -> Tensor:
        if not isinstance(weight, nn.Parameter):  # computed for this product
            return weight
        if weight not in self.weights:  # first use, which is the only one in a short call
            self.weights[weight] = weight
        elif self.weights[weight] is weight:
            rows = inputs.numel() // inputs.shape[-1]
            self.weights[weight] = torch_internals.reorder_linear_weight(weight.detach(), rows)
        return self.weights[weight]


def linear_gelu(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.gelu(F.linear(inputs, weight, bias))``, which :class:`OneDNNInference` does in one operation."""
    if has_torch_function((inputs, weight)):
        return handle_torch_function(linear_gelu, (inputs, weight), inputs, weight, bias)
    return F.gelu(F.linear(inputs, weight, bias))


ACTIVATIONS = {F.linear: "none", linear_gelu: "gelu"}  # oneDNN's names of the activations after the product


def infer_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """Compute ``F.linear`` with an activation by oneDNN, without gradients; `weight` may be in oneDNN's layout."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    algorithm = "none" if activation == "gelu" else ""  # the exact GELU, not the tanh approximation
    outputs = torch_internals.linear_pointwise(flat, weight, bias, activation, algorithm)
    return outputs.view(*inputs.shape[:-1], -1)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear`` by oneDNN."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    return _Linear.apply(flat, weight, bias).view(*inputs.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """Linear layer by oneDNN; torch's gradient would keep a copy of each input, a third more memory in training."""

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        return F.linear(inputs.to_mkldnn(), weight, bias).to_dense()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        gradient = gradient.to_mkldnn()
        of_inputs = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_inputs = torch_internals.linear_input_gradient(inputs.shape, gradient, weight).to_dense()
        if any(ctx.needs_input_grad[1:]):
            of_weight, of_bias = torch_internals.linear_weight_gradient(
                gradient, inputs.to_mkldnn(), weight, ctx.has_bias
            )
        return of_inputs, of_weight, of_bias if ctx.has_bias else None


class Products:
    """Matrix products of linear layers and of their gradients, for layers with a gradient of their own."""

    @staticmethod
    def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Compute ``F.linear``."""
        return F.linear(inputs, weight, bias)

    @staticmethod
    def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
        """Compute the gradient of the inputs (rows, inputs)."""
        return gradient @ weight

    @staticmethod
    def add_input_gradient(total: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """Add the gradient of the inputs to `total` in place."""
        total.addmm_(gradient, weight)

    @classmethod
    def weight_gradients(
        cls, gradient: Tensor, inputs: Tensor, weight: Tensor, needed: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute the gradients of weight and bias, None for those that are not `needed`."""
        of_weight, of_bias = needed
        return (gradient.T @ inputs if of_weight else None), (gradient.sum(dim=0) if of_bias else None)


class OneDNNProducts(Products):
    """The same by oneDNN, where the products are large enough."""

    @staticmethod
    def input_gradient(gradient, weight):
        if not _is_large(gradient, weight.shape[1]):
            return gradient @ weight
        shape = torch.Size((len(gradient), weight.shape[1]))
        return torch_internals.linear_input_gradient(shape, gradient.to_mkldnn(), weight).to_dense()

    @classmethod
    def add_input_gradient(cls, total, gradient, weight):
        total.add_(cls.input_gradient(gradient, weight))

    @classmethod
    def weight_gradients(cls, gradient, inputs, weight, needed):
        if not needed[0] or not _is_large(inputs, weight.shape[0]):
            return super().weight_gradients(gradient, inputs, weight, needed)
        parts = gradient.to_mkldnn(), inputs.to_mkldnn()
        of_weight, of_bias = torch_internals.linear_weight_gradient(*parts, weight, needed[1])
        return of_weight, of_bias if needed[1] else None


def find_products(inputs: Tensor) -> type[Products]:
    """Return the products of the library in use: :class:`OneDNNLinear` changes them."""
    if has_torch_function((inputs,)):
        return handle_torch_function(find_products, (inputs,), inputs)
    return Products


def _fits(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == "cpu"
        and inputs.layout == weight.layout == torch.strided
        and weight.is_contiguous()
        and _is_large(inputs, weight.shape[0])
    )


def _is_large(factor: Tensor, width: int) -> bool:
    """Return whether a product of float32 matrices, with results of this width, is large enough."""
    return factor.dtype == torch.float32 and factor.numel() * width >= MIN_MULTIPLICATIONS


def _clock() -> float:
    # On Windows, the time of a thread advances in steps of 16 milliseconds.
    return time.perf_counter() if sys.platform == "win32" else time.thread_time()


def is_onednn_faster(inference: bool = False) -> bool:
    """Return whether oneDNN is faster on this machine."""
    has_operators = torch_internals.HAS_INFERENCE_OPERATORS if inference else torch_internals.HAS_GRADIENT_OPERATORS
    if not torch.backends.mkldnn.is_available() or not has_operators:
        return False
    context = OneDNNInference if inference else OneDNNLinear
    return measure_speedup(context) > context.MIN_SPEEDUP


@functools.cache
def measure_speedup(context: type[OneDNNLinear]) -> float:
    """Measure the speed-up of the feed-forward part of a layer in `context`, once per process.

    GELU is included, as its fusion with the product is slower on some processors. The measurement takes about 0.1
    seconds, of the processor's time: on cores that other programs use too, the elapsed time says little.
    """
    seconds = {library: [] for library in (contextlib.nullcontext(), context())}
    with torch.inference_mode():
        states = torch.ones(128, 384)
        wide, narrow = (nn.Parameter(torch.ones(shape), requires_grad=False) for shape in ((1536, 384), (384, 1536)))
        for _ in range(8):
            for library, measured in seconds.items():
                with library:
                    start = _clock()
                    F.linear(linear_gelu(states, wide), narrow)
                    measured.append(_clock() - start)
    torch_only, onednn = map(min, seconds.values())
    return torch_only / onednn
