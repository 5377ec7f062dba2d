"""Scorers: a text and its labels -> one logit per label.

Every scorer is built from the config and the width of the states, and is called as
``scorer(text, classes, text_mask, class_mask)`` with ``text`` (batch, hidden) -- or (batch, length, hidden)
for `cross-attn` --, ``classes`` (batch or 1, labels, hidden) and both masks (batch or 1, ...); it returns
(batch, labels). A first axis of 1 in ``classes`` means that the batch shares its labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _score_mlp(n_inputs: int, hidden: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_inputs, hidden),
        activation(),
        nn.Linear(hidden, hidden // 2),
        activation(),
        nn.Linear(hidden // 2, 1),
    )


def _dot(text: Tensor, classes: Tensor) -> Tensor:
    """Dot products (batch, labels) of texts (batch, hidden) and labels (batch or 1, labels, hidden)."""
    if classes.shape[0] == 1:
        return text @ classes[0].T
    return torch.einsum("bd,bcd->bc", text, classes)


class DotScorer(nn.Module):
    """Dot product of text and label."""

    def __init__(self, config, width: int):
        super().__init__()

    def init_dot_product(self) -> None:
        """It is one."""

    def forward(self, text, classes, text_mask=None, class_mask=None):
        return _dot(text, classes)


class _PairLayers(torch.autograd.Function):
    """``relu(dropout([text, label, text factor * label factor] @ first.T + bias)) @ last``, for each text and label.

    Most of a step with the scorer "weighted-dot" is in here. The first layer acts on a concatenation: each part is
    multiplied by itself, once and not once per pair. Its outputs (batch, labels, units) are by far the largest
    numbers of the model; they are worked on in place, and kept once: where one of them is 0, be it by the activation
    or by dropout, no gradient goes through it.
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
        d_hidden = torch.ops.aten.threshold_backward(gradient.unsqueeze(-1) * last, hidden, 0.0)
        d_of_text = d_hidden.sum(dim=1, keepdim=True)  # (B, 1, 4D)
        d_of_label = d_hidden.sum_to_size(len(label), *d_hidden.shape[1:])  # (B or 1, C, 4D)
        d_product = d_hidden @ of_product
        # Each part of the weight's gradient is written where it belongs.
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


def _drop(values: Tensor, share: float) -> tuple[Tensor, float]:
    """Values of which a share, in steps of 1 / 65,536, is set to 0; and the share that is kept.

    torch's dropout draws 32 random bits or more for each value, in one thread; 16 do.
    """
    n_dropped = min(round(share * 2**16), 2**16 - 1)
    drawn = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
    lots, first_kept = drawn.view(torch.int16)[: values.numel()].view_as(values), n_dropped - 2**15
    if values.dtype.itemsize >= 4:  # which holds a lot as it is: one pass does, values where the lot is larger, else 0
        values = torch.ops.aten.threshold_backward(values, lots.to(values.dtype), first_kept - 1)
    else:
        values = values.masked_fill_(lots < first_kept, 0.0)
    return values, 1.0 - n_dropped / 2**16


class WeightedDotScorer(nn.Module):
    """An MLP over [text, label, text * label], with a projection of each first."""

    # Pairs of hidden units that share a dot product at the start: dropout takes single ones out, and with many of
    # them a step of the optimiser is no longer small beside their weights.
    max_pairs = 16

    def __init__(self, config, width: int):
        super().__init__()
        self.width = width
        self.proj_text = nn.Linear(width, 2 * width)
        self.proj_label = nn.Linear(width, 2 * width)
        self.out_mlp = nn.Sequential(
            nn.Linear(3 * width, 4 * width), nn.Dropout(config.dropout), nn.ReLU(), nn.Linear(4 * width, 1)
        )

    def forward(self, text, classes, text_mask=None, class_mask=None):
        text_sum, text_factor = self.proj_text(text).unsqueeze(1).chunk(2, dim=-1)  # (B, 1, D) each
        label_sum, label_factor = self.proj_label(classes).chunk(2, dim=-1)  # (B or 1, C, D) each
        first, dropout, _, last = self.out_mlp
        share = dropout.p if self.training else 0.0
        pair_layers = _PairLayers.apply(
            text_sum, label_sum, text_factor, label_factor, first.weight, first.bias, last.weight[0], share
        )
        return pair_layers + last.bias

    @torch.no_grad()
    def init_dot_product(self) -> None:
        """Start as the dot product of text and label, exactly, whatever the width.

        The factors start as text and label themselves. Two hidden units read the sum s of their products as
        relu(w s) and relu(-w s), and relu(x) - relu(-x) = x. The last layer adds n such pairs up, each with the
        weight w = 1 / sqrt(n). The other hidden units keep their random weights, and count nothing until the last
        layer has learnt to use them.
        """
        width, n_pairs = self.width, min(self.max_pairs, 2 * self.width)
        for projection in (self.proj_text, self.proj_label):
            projection.weight[width:] = torch.eye(width)
            projection.bias[width:] = 0.0
        first, last = self.out_mlp[0], self.out_mlp[-1]
        signs = torch.tensor([1.0, -1.0]).repeat(n_pairs) / n_pairs**0.5
        first.weight[: 2 * n_pairs] = 0.0
        first.weight[: 2 * n_pairs, 2 * width :] = signs.unsqueeze(1)
        first.bias[: 2 * n_pairs] = 0.0
        last.weight.zero_()
        last.weight[0, : 2 * n_pairs] = signs
        last.bias.zero_()


class MLPScorer(nn.Module):
    """An MLP over [text, label]."""

    def __init__(self, config, width: int):
        super().__init__()
        self.width = width
        self.mlp = _score_mlp(2 * width, config.scorer_mlp_hidden_size, nn.ReLU)

    def forward(self, text, classes, text_mask=None, class_mask=None):
        first = self.mlp[0]
        of_text, of_label = first.weight.split(self.width, dim=1)
        hidden = F.linear(text, of_text, first.bias).unsqueeze(1) + F.linear(classes, of_label)  # (B, C, H)
        return self.mlp[1:](hidden).squeeze(-1)


class HopfieldScorer(nn.Module):
    """The text, retrieved by each label from a Hopfield memory (Ramsauer et al. 2020), added and scored by an MLP."""

    beta = 4.0

    def __init__(self, config, width: int):
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.mlp = _score_mlp(width, config.scorer_mlp_hidden_size, nn.ReLU)

    def forward(self, text, classes, text_mask=None, class_mask=None):
        attention = _dot(self.k_proj(text), self.q_proj(classes)) * self.beta  # (B, C)
        if class_mask is not None:
            attention = attention.masked_fill(~class_mask.bool(), torch.finfo(attention.dtype).min)
        attention = attention.softmax(dim=1).unsqueeze(-1)
        # The first layer acts on a sum, label + attention * value: each part is multiplied once, not once per pair.
        first = self.mlp[0]
        of_value = F.linear(self.v_proj(text), first.weight).unsqueeze(1)  # (B, 1, H)
        return self.mlp[1:](first(classes) + attention * of_value).squeeze(-1)


class CrossAttentionScorer(nn.Module):
    """Each label attends to the text's tokens; an MLP reads the result beside the label."""

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
        self.score_mlp = _score_mlp(2 * width, config.scorer_mlp_hidden_size, nn.GELU)

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

# Scorers that can start as a dot product. The others end in an MLP that is given no products of text and label.
DOT_PRODUCT_SCORERS = {name for name, scorer in SCORERS.items() if hasattr(scorer, "init_dot_product")}

# Scorers that read the text's tokens and take no pooling.
TOKEN_SCORERS = {"cross-attn"}

# Scorers with an MLP: how wide it is unless the config says otherwise.
MLP_HIDDEN_SIZES = {"mlp": 256, "hopfield": 256, "cross-attn": 1024}
