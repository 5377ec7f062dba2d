"""Scorers, which compute one logit per label from the embeddings of a text and its labels.

Every scorer is built from the configuration and the hidden size, and is called as
``scorer(text, classes, text_mask, class_mask)`` with ``text`` (batch, hidden) -- or (batch, length, hidden)
for `cross-attn` --, ``classes`` (batch or 1, labels, hidden) and both masks (batch or 1, ...); it returns
(batch, labels). A first axis of 1 in ``classes`` means that the batch shares its labels.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]  # public, but not in `__all__`

from .torch_internals import keep_above


def score_mlp(n_inputs: int, hidden: int, activation: type[nn.Module]) -> nn.Sequential:
    """Build the MLP that computes a logit, with two hidden layers of `hidden` and half as many units."""
    return nn.Sequential(
        nn.Linear(n_inputs, hidden),
        activation(),
        nn.Linear(hidden, hidden // 2),
        activation(),
        nn.Linear(hidden // 2, 1),
    )


def _live_units(layer: nn.Linear, following: Tensor) -> Tensor | slice:
    """Select the hidden units of a layer before a ReLU that have an effect, or weights with a gradient.

    Scorers that start as a cosine need few hidden units, and the others would take most of the time.

    Parameters
    ----------
    layer : Linear
        The layer.
    following : Tensor of shape (outputs, units)
        Weights of the layer that follows.
    """
    if is_tracing() or torch.compiler.is_compiling() or layer.weight.is_meta:  # without a look at the values
        return slice(None)
    live = following.any(dim=0)
    if torch.is_grad_enabled():
        live |= (layer.weight.abs().sum(dim=1) != 0) | (layer.bias > 0)  # a sum takes a quarter of the time of any()
    return slice(None) if live.all() else live


def _count_units(layer: nn.Linear, following: Tensor) -> int:
    """Count the hidden units of :func:`_live_units`."""
    live = _live_units(layer, following)
    return len(layer.weight) if isinstance(live, slice) else int(live.sum())


@torch.no_grad()
def _switch_off(layer: nn.Linear, n_used: int) -> None:
    """Switch off the hidden units before a ReLU after the first `n_used`: they have no effect and no gradient."""
    layer.weight[n_used:] = 0.0
    layer.bias[n_used:] = -1.0


def _dot(text: Tensor, classes: Tensor) -> Tensor:
    """Compute dot products (batch, labels) of texts (batch, hidden) and labels (batch or 1, labels, hidden)."""
    if classes.shape[0] == 1:
        return text @ classes[0].T
    return torch.einsum("bd,bcd->bc", text, classes)


class DotScorer(nn.Module):
    """Dot product of text and label."""

    reserves_axis = False

    def __init__(self, config, width: int):
        super().__init__()

    def init_cosine(self, classes: Tensor, scale: float) -> float:
        """Return the scale of the cosines that the scorer computes, which is 1."""
        return 1.0

    def init_dot_product(self) -> None:
        """Do nothing: it is a dot product."""

    def forward(self, text, classes, text_mask=None, class_mask=None):
        return _dot(text, classes)


class _PairLayers(torch.autograd.Function):
    """``relu(dropout([text, label, text factor * label factor] @ first.T + bias)) @ last``, for each text and label.

    Most of the time of a step with the scorer "weighted-dot" is spent here. The first layer acts on a concatenation, so
    that the products of text and label are computed separately, not for each pair. Its outputs (batch, labels, units)
    are by far the largest tensor of the model. They are changed in place and stored once: an output that is 0, by the
    activation or by dropout, has no gradient.
    """

    @staticmethod
    def forward(ctx, text, label, text_factor, label_factor, first, bias, last, share: float):
        of_text, of_label, of_product = first.chunk(3, dim=1)
        product = text_factor * label_factor  # (B, C, D)
        hidden = F.linear(product, of_product)
        hidden += F.linear(text, of_text, bias)
        hidden += F.linear(label, of_label)
        hidden.relu_()
        ctx.kept = 1.0
        if share:
            hidden, ctx.kept = _drop(hidden, share)
        last = last.to(hidden.dtype) / ctx.kept
        ctx.save_for_backward(text, label, text_factor, label_factor, first, last, product, hidden)
        return hidden @ last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        text, label, text_factor, label_factor, first, last, product, hidden = ctx.saved_tensors
        dtype = hidden.dtype
        of_text, of_label, of_product = first.to(dtype).chunk(3, dim=1)
        gradient = gradient.to(dtype)
        d_last = gradient.flatten() @ hidden.flatten(0, 1) / ctx.kept
        d_hidden = keep_above(gradient.unsqueeze(-1) * last, hidden, 0.0)
        d_of_text = d_hidden.sum(dim=1, keepdim=True)  # (B, 1, 4D)
        d_of_label = d_hidden.sum_to_size(len(label), *d_hidden.shape[1:])  # (B or 1, C, 4D)
        d_product = d_hidden @ of_product
        # The parts of the weight's gradient are written to their slices.
        d_first = torch.empty_like(first, dtype=dtype)
        parts = ((d_of_text, text), (d_of_label, label), (d_hidden, product))
        for part, (outputs, inputs) in zip(d_first.chunk(3, dim=1), parts, strict=True):
            torch.mm(outputs.flatten(0, 1).T, inputs.flatten(0, 1).to(dtype), out=part)
        return (
            d_of_text @ of_text,
            d_of_label @ of_label,
            (d_product * label_factor).sum(dim=1, keepdim=True),
            (d_product * text_factor).sum_to_size(label_factor.shape),
            d_first,
            d_of_text.flatten(0, 1).sum(dim=0),
            d_last,
            None,
        )


class _UnitLayers(torch.autograd.Function):
    """The same as :class:`_PairLayers` for labels that all texts share, as one product for each hidden unit.

    Where there are fewer hidden units than labels, texts for each unit (units, batch, hidden) are smaller than products
    for each pair (batch, labels, hidden).
    """

    @staticmethod
    def forward(ctx, text, label, text_factor, label_factor, first, bias, last, share: float):
        of_text, of_label, of_product = first.chunk(3, dim=1)
        n_units, n_texts, n_labels = len(first), len(text), label.shape[1]
        scaled = text_factor.squeeze(1) * of_product.to(text_factor.dtype).unsqueeze(1)  # (U, B, D)
        hidden = (scaled.flatten(0, 1) @ label_factor[0].T).view(n_units, n_texts, n_labels)
        hidden += F.linear(text.squeeze(1), of_text, bias).T.unsqueeze(2)
        hidden += F.linear(label[0], of_label).T.unsqueeze(1)
        hidden.relu_()
        ctx.kept = 1.0
        if share:
            hidden, ctx.kept = _drop(hidden, share)
        last = last.to(hidden.dtype) / ctx.kept
        ctx.save_for_backward(text, label, text_factor, label_factor, first, last, scaled, hidden)
        return (last @ hidden.flatten(1)).view(n_texts, n_labels)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        text, label, text_factor, label_factor, first, last, scaled, hidden = ctx.saved_tensors
        dtype = hidden.dtype
        of_text, of_label, of_product = first.to(dtype).chunk(3, dim=1)
        gradient = gradient.to(dtype)
        d_last = hidden.flatten(1) @ gradient.flatten() / ctx.kept
        d_hidden = keep_above(gradient * last[:, None, None], hidden, 0.0)
        d_of_text, d_of_label = d_hidden.sum(dim=2), d_hidden.sum(dim=1)  # (U, B), (U, C)
        d_hidden = d_hidden.flatten(0, 1)
        d_scaled = (d_hidden @ label_factor[0].to(dtype)).view_as(scaled)
        d_first = torch.empty_like(first, dtype=dtype)
        d_first_of_text, d_first_of_label, d_first_of_product = d_first.chunk(3, dim=1)
        torch.mm(d_of_text, text.squeeze(1).to(dtype), out=d_first_of_text)
        torch.mm(d_of_label, label[0].to(dtype), out=d_first_of_label)
        torch.sum(d_scaled * text_factor.squeeze(1), dim=1, out=d_first_of_product)
        return (
            (d_of_text.T @ of_text).unsqueeze(1),
            (d_of_label.T @ of_label).unsqueeze(0),
            (d_scaled * of_product.unsqueeze(1)).sum(dim=0).unsqueeze(1),
            (d_hidden.T @ scaled.flatten(0, 1)).unsqueeze(0),
            d_first,
            d_of_text.sum(dim=1),
            d_last,
            None,
        )


def _drop(values: Tensor, share: float) -> tuple[Tensor, float]:
    """Apply dropout with a probability in steps of 1 / 65,536; return the values and the fraction that is kept.

    torch's dropout generates at least 32 random bits per value, in one thread; 16 are sufficient.
    """
    n_dropped = min(round(share * 2**16), 2**16 - 1)
    random_bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
    lots, first_kept = random_bits.view(torch.int16)[: values.numel()].view_as(values), n_dropped - 2**15
    if values.dtype.itemsize >= 4:  # wide enough for the random number: one pass selects the values
        values = keep_above(values, lots.to(values.dtype), first_kept - 1)
    else:
        values = values.masked_fill_(lots < first_kept, 0.0)
    return values, 1.0 - n_dropped / 2**16


class WeightedDotScorer(nn.Module):
    """MLP over [text, label, text * label], each of them projected first."""

    # Pairs of hidden units that share the initial dot product. With few of them, dropout of a single unit has a large
    # effect; with many, an optimiser step is not small relative to their weights.
    max_pairs = 16
    reserves_axis = False

    def __init__(self, config, width: int):
        super().__init__()
        self.width = width
        self.proj_text = nn.Linear(width, 2 * width)
        self.proj_label = nn.Linear(width, 2 * width)
        self.out_mlp: Any = nn.Sequential(  # Any: torch types its layers as Module
            nn.Linear(3 * width, 4 * width), nn.Dropout(config.dropout), nn.ReLU(), nn.Linear(4 * width, 1)
        )

    def forward(self, text, classes, text_mask=None, class_mask=None):
        text_sum, text_factor = self.proj_text(text).unsqueeze(1).chunk(2, dim=-1)  # (B, 1, D) each
        label_sum, label_factor = self.proj_label(classes).chunk(2, dim=-1)  # (B or 1, C, D) each
        dropout, last = self.out_mlp[1], self.out_mlp[-1]
        share = dropout.p if self.training else 0.0
        first = self.out_mlp[0]
        live = _live_units(first, last.weight)
        units = first.weight[live], first.bias[live], last.weight[0, live]
        has_few = len(classes) == 1 and len(units[0]) < classes.shape[1] and text_factor.dtype.itemsize >= 4
        layers = _UnitLayers if has_few and not is_tracing() else _PairLayers  # which is faster in bfloat16
        return layers.apply(text_sum, label_sum, text_factor, label_factor, *units, share) + last.bias

    def count_values(self) -> int:
        """Return the number of values of a pair of a text and a label, for which its logit is computed alone."""
        return _count_units(self.out_mlp[0], self.out_mlp[-1].weight)

    @torch.no_grad()
    def init_cosine(self, classes: Tensor, scale: float) -> float:
        """Initialise the scorer as the dot product, without other hidden units; return its scale, 1."""
        self.init_dot_product()
        _switch_off(self.out_mlp[0], 2 * min(self.max_pairs, 2 * self.width))
        return 1.0

    @torch.no_grad()
    def init_dot_product(self) -> None:
        """Initialise the scorer exactly as the dot product of text and label, for any width.

        The factors are initialised as text and label. Two hidden units compute relu(w s) and relu(-w s) of the sum s of
        their products, and relu(x) - relu(-x) = x. The last layer adds n such pairs up, each with the weight
        w = 1 / sqrt(n). The other hidden units have random weights, and weight 0 in the last layer.
        """
        width, n_pairs = self.width, min(self.max_pairs, 2 * self.width)
        for projection in (self.proj_text, self.proj_label):
            projection.weight[width:] = torch.eye(width, device=projection.weight.device)
            projection.bias[width:] = 0.0
        first, last = self.out_mlp[0], self.out_mlp[-1]
        signs = first.bias.new_tensor([1.0, -1.0]).repeat(n_pairs) / n_pairs**0.5
        first.weight[: 2 * n_pairs] = 0.0
        first.weight[: 2 * n_pairs, 2 * width :] = signs.unsqueeze(1)
        first.bias[: 2 * n_pairs] = 0.0
        last.weight.zero_()
        last.weight[0, : 2 * n_pairs] = signs
        last.bias.zero_()


class MLPScorer(nn.Module):
    """MLP over [text, label]."""

    # Twice the range of the cosines, and some more: a gate that is shut stays shut in the first steps of a training.
    gate = 2.5
    reserves_axis = False

    def __init__(self, config, width: int):
        super().__init__()
        self.width = width
        self.mlp: Any = score_mlp(2 * width, config.scorer_mlp_hidden_size, nn.ReLU)  # as in WeightedDotScorer

    def forward(self, text, classes, text_mask=None, class_mask=None):
        first, bias, *following = _live_layers(self.mlp)
        of_text, of_label = first.split(self.width, dim=1)
        hidden = F.linear(text, of_text, bias).unsqueeze(1) + F.linear(classes, of_label)  # (B, C, H)
        return _score_hidden(hidden, *following)

    def count_values(self) -> int:
        """Return the number of values of a pair of a text and a label, for which its logit is computed alone."""
        return _count_units(self.mlp[0], self.mlp[2].weight)

    @torch.no_grad()
    def init_cosine(self, classes: Tensor, scale: float) -> float:
        """Initialise the scorer as the cosine of a text with each of some labels, for at most as many as hidden units.

        An MLP has no products of text and label. Each label has a hidden unit instead, ``relu(cosine + 1 - gate * (1 -
        is_own))``, which is 0 for all other labels: their dual vectors tell the labels apart.

        Parameters
        ----------
        classes : Tensor of shape (labels, hidden)
            Projected labels, of norm 1.
        scale : float
            Has no effect here; see :meth:`HopfieldScorer.init_cosine`.

        Returns
        -------
        float
            Scale of the cosines that the scorer computes, which is 1.
        """
        first, second, last = self.mlp[0], self.mlp[2], self.mlp[4]
        n_labels = len(classes)
        duals = torch.linalg.pinv(classes.cpu().double()).T  # (labels, hidden)
        first.weight[:n_labels] = torch.cat([classes, self.gate * duals.to(classes)], dim=1)
        first.bias[:n_labels] = 1.0 - self.gate
        _switch_off(first, n_labels)
        _sum_inputs(second, last, n_labels)
        last.bias.fill_(-1.0)
        return 1.0


def _live_layers(mlp: Iterable[Any]) -> tuple[Tensor, ...]:
    """Return weights and biases of the three layers of an MLP, without hidden units that have no effect."""
    first, _, second, _, last = mlp
    of_second = _live_units(second, last.weight)
    second_weight = second.weight[of_second]
    of_first = _live_units(first, second_weight)
    return (
        first.weight[of_first],
        first.bias[of_first],
        second_weight[:, of_first],
        second.bias[of_second],
        last.weight[:, of_second],
        last.bias,
    )


def _score_hidden(hidden: Tensor, second: Tensor, second_bias: Tensor, last: Tensor, last_bias: Tensor) -> Tensor:
    """Compute the logits (batch, labels) from outputs (batch, labels, units) of the first layer of an MLP."""
    return F.linear(F.linear(hidden.relu_(), second, second_bias).relu_(), last, last_bias).squeeze(-1)


def _sum_inputs(second: nn.Linear, last: nn.Linear, n_inputs: int) -> None:
    """Initialise the last two layers of an MLP as the sum of its first, positive hidden units.

    Several units of the second layer share it, as in :class:`WeightedDotScorer`, and the others are switched off.
    """
    n_shares = min(WeightedDotScorer.max_pairs, second.out_features)
    _switch_off(second, n_shares)
    second.weight[:n_shares] = 0.0
    second.weight[:n_shares, :n_inputs] = n_shares**-0.5
    second.bias[:n_shares] = 0.0
    last.weight.zero_()
    last.weight[0, :n_shares] = n_shares**-0.5
    last.bias.zero_()


class HopfieldScorer(nn.Module):
    """MLP over the sum of label and text that each label retrieves from a Hopfield network (Ramsauer et al. 2020)."""

    beta = 4.0
    reserves_axis = True
    n_knots, knots_per_octave = 29, 2  # down to a probability of 6e-5

    def __init__(self, config, width: int):
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.mlp: Any = score_mlp(width, config.scorer_mlp_hidden_size, nn.ReLU)  # as in WeightedDotScorer

    def forward(self, text, classes, text_mask=None, class_mask=None):
        attention = _dot(self.k_proj(text), self.q_proj(classes)) * self.beta  # (B, C)
        if class_mask is not None:
            attention = attention.masked_fill(~class_mask.bool(), torch.finfo(attention.dtype).min)
        attention = attention.softmax(dim=1).unsqueeze(-1)
        # The first layer acts on a sum, label + attention * value, whose parts are multiplied once, not for each pair.
        first, bias, *following = _live_layers(self.mlp)
        of_value = F.linear(self.v_proj(text), first).unsqueeze(1)  # (B, 1, H)
        return _score_hidden(F.linear(classes, first, bias) + attention * of_value, *following)

    @torch.no_grad()
    def init_cosine(self, classes: Tensor, scale: float) -> float:
        """Initialise the logits as the logarithms of the attention, which is a softmax over scaled cosines.

        The MLP is the piecewise linear interpolation of the logarithm between knots. It sees the attention alone: the
        value has one axis, on which texts have a positive component, whose logarithm is the same for all labels, and
        labels have none.

        Parameters
        ----------
        classes : Tensor of shape (labels, hidden)
            Projected labels, of norm 1, with the reserved axis 0; see :meth:`Architecture.reserve_axis`.
        scale : float
            Scale of the cosines in the softmax.

        Returns
        -------
        float
            The scale.
        """
        axis = RESERVED_AXIS
        width, n_knots = classes.shape[1], min(self.n_knots, self.mlp[0].out_features)
        similarity = torch.eye(width, dtype=classes.dtype, device=classes.device)
        similarity[axis, axis] = 0.0
        # Texts have norm 1 with their component on the axis, and the cosines are those without it.
        similarity *= (scale / self.beta / (1 - TEXT_COMPONENT**2) ** 0.5) ** 0.5
        self.q_proj.weight.copy_(similarity)
        self.k_proj.weight.copy_(similarity)
        first, second, last = self.mlp[0], self.mlp[2], self.mlp[4]
        knots = 2.0 ** -(torch.arange(n_knots + 1, dtype=torch.float64) / self.knots_per_octave)
        slopes = knots.log().diff() / knots.diff()  # between neighbouring knots
        changes = torch.cat([slopes[:1], slopes.diff()]) * knots[:-1]
        balance = float(knots[-1]) ** -0.5  # shares the small knots between value and first layer
        self.v_proj.weight.zero_()
        self.v_proj.weight[axis, axis] = balance / TEXT_COMPONENT
        first.weight[:n_knots] = 0.0
        first.weight[:n_knots, axis] = (-1 / (balance * knots[:-1])).to(classes)
        first.bias[:n_knots] = 1.0
        _switch_off(first, n_knots)
        _sum_inputs(second, last, n_knots)
        second.weight[:, :n_knots] *= changes.to(classes)
        last.weight.neg_()
        return scale


RESERVED_AXIS = 0
TEXT_COMPONENT = 0.1  # of a text of norm 1 on the reserved axis


class CrossAttentionScorer(nn.Module):
    """MLP over each label and its attention over the tokens of the text."""

    def __init__(self, config, width: int):
        super().__init__()
        if width % config.scorer_num_heads:
            raise ValueError(
                f"scorer_type='cross-attn' needs a hidden size divisible by scorer_num_heads, got {width} and "
                f"{config.scorer_num_heads}; set scorer_num_heads to a divisor of {width}."
            )
        self.num_heads = config.scorer_num_heads
        self.attn_dropout = config.scorer_attn_dropout
        self.q_norm = nn.LayerNorm(width)
        self.kv_norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.score_mlp = score_mlp(2 * width, config.scorer_mlp_hidden_size, nn.GELU)

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, D / heads)

    def forward(self, text, classes, text_mask=None, class_mask=None):
        classes = classes.expand(text.shape[0], -1, -1)
        context = F.scaled_dot_product_attention(
            self._heads(self.q(self.q_norm(classes))),
            self._heads(self.k(self.kv_norm(text))),
            self._heads(self.v(text)),
            attn_mask=None if text_mask is None else text_mask.bool()[:, None, None, :],
            dropout_p=self.attn_dropout if self.training else 0.0,
        )
        context = self.norm(self.out(context.transpose(1, 2).flatten(2)))  # (B, C, D)
        return self.score_mlp(torch.cat([context, classes], dim=-1)).squeeze(-1)


SCORERS = {
    "simple": DotScorer,
    "weighted-dot": WeightedDotScorer,
    "mlp": MLPScorer,
    "hopfield": HopfieldScorer,
    "cross-attn": CrossAttentionScorer,
}

# Scorers that can be initialised as a dot product. The others have an MLP without products of text and label.
DOT_PRODUCT_SCORERS = {name for name, scorer in SCORERS.items() if hasattr(scorer, "init_dot_product")}


def can_start_as_cosine(config, n_labels: int) -> bool:
    """Return whether the scorer can be initialised as the cosine of text and label with `init_cosine`.

    Parameters
    ----------
    config : GLiClassModelConfig
        Configuration of the model, in which None has no resolved value yet.
    n_labels : int
        Number of labels.
    """
    name = config.scorer_type
    n_hidden = config.scorer_mlp_hidden_size or MLP_HIDDEN_SIZES.get(name, 0)
    if name == "mlp":
        return n_labels <= min(n_hidden, config.encoder_width)
    if name == "hopfield":  # the softmax is over all labels, of which one is true
        at_once = config.max_num_classes or LARGE_MAX_NUM_CLASSES
        is_exclusive = config.problem_type == "single_label_classification"
        return is_exclusive and n_labels <= at_once and n_hidden >= HopfieldScorer.n_knots
    return name in DOT_PRODUCT_SCORERS


# Scorers that read the tokens of the text, without pooling.
TOKEN_SCORERS = {"cross-attn"}

LARGE_MAX_NUM_CLASSES = 200  # labels at a time, where they are cheap or a softmax is to see all of them

# Default width of the MLP in the scorers, and in that of the architecture decoder-kv.
MLP_HIDDEN_SIZES = {"mlp": 256, "hopfield": 256, "cross-attn": 1024}
DECODER_MLP_HIDDEN_SIZE = 1024
