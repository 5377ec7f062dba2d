"""Linear layers by oneDNN, where it is faster than what torch takes for float32 by itself.

torch multiplies float32 matrices on a CPU with MKL, which keeps its AVX-512 kernels for Intel's processors. The
oneDNN that torch carries too has no such preference: on a Zen 5 it is 2.2 times as fast.
"""

import contextlib
import functools
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function

MIN_MULTIPLICATIONS = 4_000_000  # of a matrix product; in smaller ones the copies cost more than they save


class OneDNNLinear(TorchFunctionMode):
    """Inside this context ``F.linear`` of large float32 matrices runs in oneDNN; gradients do, too."""

    # From which gain on it is taken: far from what the libraries differ by where both know the processor.
    MIN_GAIN = 1.25

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in ACTIVATIONS and not kwargs and _fits(*args):
            return self.multiply(*args, activation=ACTIVATIONS[function])
        return function(*args, **(kwargs or {}))

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
        """``F.linear`` and an activation after it, one of the values of ``ACTIVATIONS``."""
        outputs = linear(inputs, weight, bias)
        return F.gelu(outputs) if activation == "gelu" else outputs


class OneDNNInference(OneDNNLinear):
    """The same without gradients, for weights that stay as they are while this object is in use.

    A weight that is used again is kept in oneDNN's own order too, which else each product makes anew.
    """

    MIN_GAIN = 1.0

    def __init__(self):
        super().__init__()
        self.weights = {}  # for each parameter what to multiply with: itself, from its second use on a sorted copy

    def multiply(self, inputs, weight, bias=None, activation="none"):
        return infer_linear(inputs, self._sorted(weight, inputs), bias, activation=activation)

    def _sorted(self, weight: Tensor, inputs: Tensor) -> Tensor:
        if not isinstance(weight, nn.Parameter):  # computed for this product
            return weight
        if weight not in self.weights:  # its first use, which in a short call is its last
            self.weights[weight] = weight
        elif self.weights[weight] is weight:
            rows = inputs.numel() // inputs.shape[-1]
            self.weights[weight] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        return self.weights[weight]


def linear_gelu(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.gelu(F.linear(inputs, weight, bias))``, which :class:`OneDNNInference` computes in one go."""
    if has_torch_function((inputs, weight)):
        return handle_torch_function(linear_gelu, (inputs, weight), inputs, weight, bias)
    return F.gelu(F.linear(inputs, weight, bias))


ACTIVATIONS = {F.linear: "none", linear_gelu: "gelu"}  # oneDNN's names for what follows the product


def infer_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``F.linear`` by oneDNN without gradients, with an activation; `weight` may be in oneDNN's own order."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    algorithm = "none" if activation == "gelu" else ""  # the exact GELU, not that by tanh
    outputs = torch.ops.mkldnn._linear_pointwise(flat, weight, bias, activation, [], algorithm)
    return outputs.view(*inputs.shape[:-1], -1)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` by oneDNN."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    return _Linear.apply(flat, weight, bias).view(*inputs.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    """torch's own gradient would keep a second copy of each input: a third more memory in training."""

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
            of_inputs = torch.ops.aten.mkldnn_linear_backward_input(inputs.shape, gradient, weight).to_dense()
        if any(ctx.needs_input_grad[1:]):
            of_weight, of_bias = torch.ops.aten.mkldnn_linear_backward_weights(
                gradient, inputs.to_mkldnn(), weight, ctx.has_bias
            )
        return of_inputs, of_weight, of_bias if ctx.has_bias else None


def _fits(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        inputs.dtype == weight.dtype == torch.float32
        and inputs.device.type == "cpu"
        and inputs.layout == weight.layout == torch.strided
        and weight.is_contiguous()
        and inputs.numel() * weight.shape[0] >= MIN_MULTIPLICATIONS
    )


def onednn_pays(inference: bool = False) -> bool:
    """Whether to multiply in oneDNN on this machine."""
    if not torch.backends.mkldnn.is_available():
        return False
    context = OneDNNInference if inference else OneDNNLinear
    return gain(context) > context.MIN_GAIN


@functools.cache
def gain(context: type[OneDNNLinear]) -> float:
    """How many times as fast the feed-forward part of a layer is in `context`: measured once per process.

    With GELU, which together with the product costs more than it saves on some processors. Takes about a tenth
    of a second.
    """
    seconds = {library: [] for library in (contextlib.nullcontext(), context())}
    with torch.inference_mode():
        states = torch.ones(128, 384)
        wide, narrow = (nn.Parameter(torch.ones(shape), requires_grad=False) for shape in ((1536, 384), (384, 1536)))
        for _ in range(8):
            for library, measured in seconds.items():
                with library:
                    start = time.perf_counter()
                    F.linear(linear_gelu(states, wide), narrow)
                    measured.append(time.perf_counter() - start)
    torch_only, onednn = map(min, seconds.values())
    return torch_only / onednn
