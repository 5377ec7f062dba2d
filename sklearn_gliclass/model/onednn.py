"""Linear layers by oneDNN, where it is faster than what torch takes for float32 by itself.

torch multiplies float32 matrices on a CPU with MKL, which keeps its AVX-512 kernels for Intel's processors. The
oneDNN that torch carries too has no such preference: on a Zen 5 it is 2.2 times as fast.
"""

import functools
import time

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

MIN_MULTIPLICATIONS = 4_000_000  # of a matrix product; in smaller ones the copies cost more than they save
MIN_GAIN = 1.25  # times as fast: far from what the two differ by where both know the processor


class OneDNNLinear(TorchFunctionMode):
    """Inside this context ``F.linear`` of large float32 matrices runs in oneDNN; gradients do, too."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear and not kwargs and _fits(*args):
            return linear(*args)
        return function(*args, **(kwargs or {}))


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


@functools.cache
def onednn_pays() -> bool:
    """Whether oneDNN multiplies clearly faster on this machine: measured once per process, in milliseconds."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        inputs, weight = torch.ones(256, 384), torch.ones(384, 384)
        seconds = {function: [] for function in (F.linear, linear)}
        for _ in range(8):
            for function, measured in seconds.items():
                start = time.perf_counter()
                function(inputs, weight)
                measured.append(time.perf_counter() - start)
    return min(seconds[F.linear]) > MIN_GAIN * min(seconds[linear])
