"""Scorers, which compute one logit per label from the embeddings of a text and its labels.

Every scorer is built from the configuration and the hidden size, and is called as
``scorer(text, classes, text_mask, class_mask)`` with ``text`` (batch, hidden) -- or (batch, length, hidden)
for `cross-attn` --, ``classes`` (batch or 1, labels, hidden) and both masks (batch or 1, ...); it returns
(batch, labels). A first axis of 1 in ``classes`` means that the batch shares its labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def _dot(text: Tensor, classes: Tensor) -> Tensor:
    """Compute dot products (batch, labels) of texts (batch, hidden) and labels (batch or 1, labels, hidden)."""
    if classes.shape[0] == 1:
        return text @ classes[0].T
    return torch.einsum("bd,bcd->bc", text, classes)


class DotScorer(nn.Module):
    """Dot product of text and label."""

    def __init__(self, config, width: int):
        super().__init__()

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
        """Initialise the scorer exactly as the dot product of text and label, for any width.

        The factors are initialised as text and label. Two hidden units compute relu(w s) and relu(-w s) of the sum s of
        their products, and relu(x) - relu(-x) = x. The last layer adds n such pairs up, each with the weight
        w = 1 / sqrt(n). The other hidden units have random weights, and weight 0 in the last layer.
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
    """MLP over [text, label]."""

    def __init__(self, config, width: int):
        super().__init__()
        self.width = width
        self.mlp = score_mlp(2 * width, config.scorer_mlp_hidden_size, nn.ReLU)

    def forward(self, text, classes, text_mask=None, class_mask=None):
        first = self.mlp[0]
        of_text, of_label = first.weight.split(self.width, dim=1)
        hidden = F.linear(text, of_text, first.bias).unsqueeze(1) + F.linear(classes, of_label)  # (B, C, H)
        return self.mlp[1:](hidden).squeeze(-1)


class HopfieldScorer(nn.Module):
    """MLP over the sum of label and text that each label retrieves from a Hopfield network (Ramsauer et al. 2020)."""

    beta = 4.0

    def __init__(self, config, width: int):
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.mlp = score_mlp(width, config.scorer_mlp_hidden_size, nn.ReLU)

    def forward(self, text, classes, text_mask=None, class_mask=None):
        attention = _dot(self.k_proj(text), self.q_proj(classes)) * self.beta  # (B, C)
        if class_mask is not None:
            attention = attention.masked_fill(~class_mask.bool(), torch.finfo(attention.dtype).min)
        attention = attention.softmax(dim=1).unsqueeze(-1)
        # The first layer acts on a sum, label + attention * value, whose parts are multiplied once, not for each pair.
        first = self.mlp[0]
        of_value = F.linear(self.v_proj(text), first.weight).unsqueeze(1)  # (B, 1, H)
        return self.mlp[1:](first(classes) + attention * of_value).squeeze(-1)


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

# Scorers that read the tokens of the text, without pooling.
TOKEN_SCORERS = {"cross-attn"}

# Default width of the MLP in the scorers, and in that of the architecture decoder-kv.
MLP_HIDDEN_SIZES = {"mlp": 256, "hopfield": 256, "cross-attn": 1024}
DECODER_MLP_HIDDEN_SIZE = 1024
