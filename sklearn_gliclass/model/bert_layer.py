"""A layer of BERT on packed tokens, with its gradient as one function.

Autograd would run a hundred small operations for each layer and group of texts. Here, heads are moved by one gather,
attention runs on a few groups of texts, residual gradients are accumulated by the matrix products, and the masks of
dropout are compared with raw random bits.
"""

import struct
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import torch_internals
from .onednn import find_products


class Group(NamedTuple):
    """Texts whose attention is computed at once, padded to the longest of them.

    Attributes
    ----------
    n_texts, n_queries, length : int
        Number of texts, and of their query and key slots.
    bias : Tensor of shape (texts, 1, 1, length) or None
        Minus infinity for padding; None without any.
    """

    n_texts: int
    n_queries: int
    length: int
    bias: Tensor | None


class HeadLayout(NamedTuple):
    """Positions of heads in two orders of rows: token by token, and group by group as (text, head, slot).

    Attributes
    ----------
    n_heads : int
        Number of heads.
    queries, keys : LongTensor
        For each row in the order of the groups, its row in the order of the tokens; that of padding is any row.
    from_queries, from_keys : LongTensor
        For each row in the order of the tokens, its row in the order of the groups.
    empty_queries : LongTensor
        Rows of padding among the queries, in the order of the groups.
    groups : list of Group
        The groups.
    """

    n_heads: int
    queries: Tensor
    keys: Tensor
    from_queries: Tensor
    from_keys: Tensor
    empty_queries: Tensor
    groups: list[Group]


# Queries times keys whose attention takes as long as the overhead of a group, over all heads of a small encoder.
PAIRS_PER_GROUP = 600

# Number of tokens up to which the attention weights, which are kept for the gradient, take little memory.
MAX_LENGTH = 128


def plan_heads(lengths: Tensor, n_queries: Tensor, n_heads: int) -> HeadLayout:
    """Group texts, and compute the positions of their heads.

    A text joins the group of longer ones if its padding takes less time than a group of its own.

    Parameters
    ----------
    lengths : LongTensor of shape (texts,)
        Number of tokens of each text, ascending and positive.
    n_queries : LongTensor of shape (texts,)
        Number of queries of each text.
    n_heads : int
        Number of heads.
    """
    sizes, counts = (values.tolist() for values in lengths.unique(return_counts=True))
    stops, last, longest = [], len(lengths), None
    for size, count in zip(reversed(sizes), reversed(counts), strict=True):
        if longest is None or count * (longest**2 - size**2) > PAIRS_PER_GROUP:
            stops, longest = [last, *stops], size
        last -= count
    texts = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
    keys, from_keys, filled = _positions(lengths, texts, n_heads)
    queries, from_queries, filled_queries = _positions(n_queries, texts, n_heads)
    groups = [
        Group(len(rows), slots.shape[1], rows.shape[1], None if rows.all() else _bias(rows))
        for rows, slots in zip(filled, filled_queries, strict=True)
    ]
    empty = torch.cat([(~slots).unsqueeze(1).expand(-1, n_heads, -1).flatten() for slots in filled_queries])
    return HeadLayout(n_heads, queries, keys, from_queries, from_keys, empty.nonzero().squeeze(1), groups)


def _positions(lengths: Tensor, texts: list[slice], n_heads: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the rows in the order of the tokens, those in the order of the groups, and which slots are filled."""
    starts, heads = lengths.cumsum(0) - lengths, torch.arange(n_heads)
    rows, back, filled, first = [], [], [], 0
    for part in texts:
        of_group = lengths[part].unsqueeze(1)  # (texts, 1)
        slots = torch.arange(int(of_group.max()))
        filled.append(slots < of_group)  # (texts, slots)
        tokens = (starts[part].unsqueeze(1) + slots).masked_fill(~filled[-1], 0)
        rows.append((tokens.unsqueeze(1) * n_heads + heads.unsqueeze(1)).flatten())  # of (texts, heads, slots)
        order = torch.arange(first, first + len(rows[-1])).view(len(of_group), n_heads, len(slots))
        back.append(order.transpose(1, 2)[filled[-1]].flatten())  # of (tokens, heads)
        first += len(rows[-1])
    return torch.cat(rows), torch.cat(back), filled


def _bias(filled: Tensor) -> Tensor:
    return torch.zeros(filled.shape).masked_fill_(~filled, float("-inf")).view(len(filled), 1, 1, -1)


def fuses(layer: Any, states: Tensor, longest: int) -> bool:
    """Return whether :func:`run_layer` computes this layer: the usual parts, of one type, without hooks.

    Texts of up to `longest` tokens are not too long for it if attention has dropout, as torch keeps attention weights
    for the gradient too in this case.
    """
    attention, output = layer.attention.self, layer.attention.output
    linear = (
        attention.query, attention.key, attention.value, output.dense, layer.intermediate.dense, layer.output.dense
    )  # fmt: skip
    norms = output.LayerNorm, layer.output.LayerNorm
    return (
        torch_internals.HAS_FUSED_LAYER_OPERATORS
        and (longest <= MAX_LENGTH or _rate(attention.dropout) > 0)
        and states.dtype in _BITS
        and getattr(layer.intermediate.intermediate_act_fn, "act", None) is F.gelu
        and all(type(part) is nn.Linear and part.bias is not None for part in linear)
        and all(type(part) is nn.LayerNorm and part.elementwise_affine for part in norms)
        and all(part.weight.dtype == states.dtype for part in (*linear, *norms))
        and not torch.is_autocast_enabled(states.device.type)
        and not torch.compiler.is_compiling()
        and not any(map(torch_internals.has_hooks, (layer, *layer.modules())))
    )


def run_layer(layer: Any, states: Tensor, places: Tensor | None, layout: HeadLayout) -> Tensor:
    """Run a layer on hidden states (tokens, hidden); return those of the queries (queries, hidden).

    Parameters
    ----------
    layer : nn.Module
        Layer for which :func:`fuses` holds.
    states : Tensor of shape (tokens, hidden)
        Hidden states.
    places : LongTensor of shape (queries,) or None
        Positions of the queries among the tokens. If None, all tokens.
    layout : HeadLayout
        Positions of the heads.
    """
    attention, output = layer.attention.self, layer.attention.output
    rates = _rate(attention.dropout), _rate(output.dropout)
    parts = attention.query, attention.key, attention.value, output.dense, output.LayerNorm
    states = _SelfAttention.apply(places, layout, rates, output.LayerNorm.eps, states, *_weights(parts))
    parts = layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm
    return _FeedForward.apply(_rate(layer.output.dropout), layer.output.LayerNorm.eps, states, *_weights(parts))


def _rate(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0


def _weights(parts: tuple[nn.Linear | nn.LayerNorm, ...]) -> list[Tensor]:
    return [weight for part in parts for weight in (part.weight, part.bias)]


# -- dropout -------------------------------------------------------------------------------------------------------

# Floating point type -> (integer of its size, struct's formats of both, number of random bits below the sign). The
# highest bit of the exponent is cleared, so that all patterns are finite numbers, and ordered as integers are.
_BITS = {torch.float32: ("<I", "<f", 30), torch.float64: ("<Q", "<d", 62)}
_CLEAR = {torch.float32: ~0x4000_0000_4000_0000, torch.float64: ~0x4000_0000_0000_0000}


class Mask(NamedTuple):
    """Mask of dropout: random numbers, and the threshold that those of kept values exceed.

    Attributes
    ----------
    numbers : Tensor
        Finite floating point numbers with random bits, of the shape of the values.
    threshold : float
        Threshold.
    scale : float
        Factor of the kept values.
    """

    numbers: Tensor
    threshold: float
    scale: float

    def keep(self, values: Tensor) -> Tensor:
        """Return the values with dropped ones set to 0, before they are scaled."""
        return torch_internals.keep_above(values, self.numbers, self.threshold)


def sample_mask(like: Tensor, rate: float) -> Mask | None:
    """Sample a mask of dropout with torch's generator; None for the rate 0.

    Raw bits are compared as floating point numbers, in the pass that applies the mask: this takes a third of the time
    of Bernoulli numbers.
    """
    if rate == 0:
        return None
    if rate >= 1:  # nothing is kept
        return Mask(torch.zeros_like(like), 0.0, 0.0)
    words = torch.empty(-(-like.numel() * like.element_size() // 8), dtype=torch.int64)
    words.random_(-(2**63), None).bitwise_and_(_CLEAR[like.dtype])
    numbers = words.view(like.dtype)[: like.numel()].view(like.shape)
    return Mask(numbers, _threshold(rate, like.dtype), 1 / (1 - rate))


def _threshold(rate: float, dtype: torch.dtype) -> float:
    """Return the number that random numbers do not exceed with probability `rate`."""
    integer, real, n_bits = _BITS[dtype]
    share = 1 - 2 * rate  # of the negative numbers that are kept, or minus that of the positive ones that are not
    pattern = min(round(abs(share) * 2**n_bits), 2**n_bits - 1)
    magnitude = struct.unpack(real, struct.pack(integer, pattern))[0]
    return -magnitude if share > 0 else magnitude


def _apply(mask: Mask | None, gradient: Tensor) -> Tensor:
    """Return the gradient before dropout, of the gradient after it."""
    return gradient if mask is None else mask.keep(gradient).mul_(mask.scale)


def _add_dropped(residual: Tensor, values: Tensor, mask: Mask | None) -> Tensor:
    """Compute the residual plus the values after dropout."""
    if mask is None:
        return values.add_(residual)
    return torch.add(residual, mask.keep(values), alpha=mask.scale)


# -- the halves of a layer -----------------------------------------------------------------------------------------


class _SelfAttention(torch.autograd.Function):
    """Attention, its output layer, dropout, residual and norm."""

    @staticmethod
    def forward(ctx, places, layout, rates, epsilon, states, *weights):
        of_query, of_key, of_value, of_output, of_norm = pairwise = list(zip(weights[::2], weights[1::2], strict=True))
        products = find_products(states)
        inputs = states if places is None else states.index_select(0, places)  # (queries, hidden)
        size = inputs.shape[1] // layout.n_heads
        query, key, value = (
            # (rows in the order of the groups, head size)
            products.linear(part, *linear).view(-1, size).index_select(0, rows)
            for part, linear, rows in (
                (inputs, of_query, layout.queries), (states, of_key, layout.keys), (states, of_value, layout.keys)
            )
        )  # fmt: skip
        rows, probabilities, masks = _attend(query, key, value, layout, rates[0])
        context = rows.index_select(0, layout.from_queries).view(inputs.shape)
        attended = products.linear(context, *of_output)
        mask = sample_mask(attended, rates[1])
        sums = _add_dropped(inputs, attended, mask)
        normed, *moments = torch.native_layer_norm(sums, inputs.shape[1:], *of_norm, eps=epsilon)
        matrices = [weight for weight, _ in pairwise[:4]]
        ctx.save_for_backward(
            states, inputs, query, key, value, context, sums, *moments, *of_norm, *matrices, *probabilities
        )
        ctx.constants = products, places, layout, masks, mask
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        products, places, layout, masks, mask = ctx.constants
        states, inputs, query, key, value, context, *saved = ctx.saved_tensors
        matrices, probabilities = saved[5:9], saved[9:]
        needed = ctx.needs_input_grad[5:]
        # `total` is the gradient of the residual, to which the products add those of the layers beside it.
        total, *of_norm = _norm_backward(gradient, *saved[:5], needed=needed[8:10])
        attended = _apply(mask, total)
        of_output = products.weight_gradients(attended, context, matrices[3], needed[6:8])
        rows = products.input_gradient(attended, matrices[3]).view(-1, query.shape[1]).index_select(0, layout.queries)
        if len(layout.empty_queries):
            rows.index_fill_(0, layout.empty_queries, 0)
        query, key, value = _attend_backward(rows, query, key, value, layout, probabilities, masks)
        query = query.index_select(0, layout.from_queries).view(inputs.shape)
        key, value = (part.index_select(0, layout.from_keys).view(states.shape) for part in (key, value))
        of_query = products.weight_gradients(query, inputs, matrices[0], needed[:2])
        of_key, of_value = (
            products.weight_gradients(part, states, matrix, flags)
            for part, matrix, flags in ((key, matrices[1], needed[2:4]), (value, matrices[2], needed[4:6]))
        )
        of_states = None
        if ctx.needs_input_grad[4]:
            products.add_input_gradient(total, query, matrices[0])
            of_states = total if places is None else torch.zeros_like(states).index_add_(0, places, total)
            products.add_input_gradient(of_states, key, matrices[1])
            products.add_input_gradient(of_states, value, matrices[2])
        return None, None, None, None, of_states, *of_query, *of_key, *of_value, *of_output, *of_norm


class _FeedForward(torch.autograd.Function):
    """Wide layer, GELU, narrow layer, dropout, residual and norm."""

    @staticmethod
    def forward(ctx, rate, epsilon, states, wide_weight, wide_bias, weight, bias, *of_norm):
        products = find_products(states)
        wide = products.linear(states, wide_weight, wide_bias)
        active = F.gelu(wide)
        narrow = products.linear(active, weight, bias)
        mask = sample_mask(narrow, rate)
        sums = _add_dropped(states, narrow, mask)
        normed, *moments = torch.native_layer_norm(sums, states.shape[1:], *of_norm, eps=epsilon)
        ctx.save_for_backward(states, wide, active, wide_weight, weight, sums, *moments, *of_norm)
        ctx.constants = products, mask
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        products, mask = ctx.constants
        states, wide, active, wide_weight, weight, *saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        total, *of_norm = _norm_backward(gradient, *saved, needed=needed[4:])
        narrow = _apply(mask, total)
        of_narrow = products.weight_gradients(narrow, active, weight, needed[2:4])
        wide = torch.ops.aten.gelu_backward(products.input_gradient(narrow, weight), wide)
        of_wide = products.weight_gradients(wide, states, wide_weight, needed[:2])
        if ctx.needs_input_grad[2]:
            products.add_input_gradient(total, wide, wide_weight)
        return None, None, total if ctx.needs_input_grad[2] else None, *of_wide, *of_narrow, *of_norm


def _norm_backward(gradient, sums, mean, deviation, weight, bias, needed):
    """Compute the gradients of the input, the weight and the bias of a norm."""
    shape = sums.shape[1:]
    return torch.ops.aten.native_layer_norm_backward(
        gradient.contiguous(), sums, shape, mean, deviation, weight, bias, [True, *needed]
    )


# -- attention -----------------------------------------------------------------------------------------------------


def _attend(query: Tensor, key: Tensor, value: Tensor, layout: HeadLayout, rate: float):
    """Compute attention in each group, on rows of heads in the order of the groups.

    Returns
    -------
    context : Tensor
        Rows of the queries.
    probabilities : list of Tensor of shape (texts * heads, queries, length)
        Before dropout, for the gradient.
    masks : list of (Mask or None)
        Masks of dropout.
    """
    context, probabilities, masks = torch.empty_like(query), [], []
    for group, queries, keys, values, contexts in _parts(layout, query, key, value, context):
        scores = query.new_empty(len(queries), group.n_queries, group.length)
        _multiply(queries, query.shape[1] ** -0.5, keys.transpose(1, 2), scores)
        if group.bias is not None:
            scores.view(group.n_texts, layout.n_heads, group.n_queries, group.length).add_(group.bias)
        probabilities.append(torch.softmax(scores, dim=-1))
        masks.append(sample_mask(scores, rate))
        _multiply(*_dropped(probabilities[-1], masks[-1]), values, contexts)
    return context, probabilities, masks


def _attend_backward(gradient, query, key, value, layout, probabilities, masks):
    """Compute the gradients of the rows of queries, keys and values."""
    scale = query.shape[1] ** -0.5
    of_query, of_key, of_value = map(torch.empty_like, (query, key, value))
    parts = _parts(layout, query, key, value, gradient, of_query, of_key, of_value)
    for (_, queries, keys, values, rows, *of_parts), weights, mask in zip(parts, probabilities, masks, strict=True):
        dropped, factor = _dropped(weights, mask)
        _multiply(dropped.transpose(1, 2), factor, rows, of_parts[2])
        of_weights = _apply(mask, torch.bmm(rows, values.transpose(1, 2)))
        scores = torch_internals.softmax_gradient(of_weights, weights)
        _multiply(scores, scale, keys, of_parts[0])
        _multiply(scores.transpose(1, 2), scale, queries, of_parts[1])
    return of_query, of_key, of_value


def _parts(layout: HeadLayout, *rows: Tensor):
    """Yield each group with its part of the rows as (texts * heads, slots, head size): queries, keys, values, ...

    Further rows are those of queries, then gradients of queries, keys and values.
    """
    of_queries = (True, False, False, True, True, False, False)
    starts = [0] * len(rows)
    for group in layout.groups:
        parts = []
        for position, tensor in enumerate(rows):
            slots = group.n_queries if of_queries[position] else group.length
            n_rows = group.n_texts * layout.n_heads * slots
            parts.append(tensor.narrow(0, starts[position], n_rows).view(-1, slots, tensor.shape[1]))
            starts[position] += n_rows
        yield group, *parts


def _dropped(weights: Tensor, mask: Mask | None) -> tuple[Tensor, float]:
    """Return attention weights after dropout, and the factor by which their products are scaled."""
    return (weights, 1.0) if mask is None else (mask.keep(weights), mask.scale)


def _multiply(first: Tensor, factor: float, second: Tensor, out: Tensor) -> None:
    torch.baddbmm(out, first, second, beta=0, alpha=factor, out=out)
