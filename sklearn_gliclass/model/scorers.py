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


class DotScorer(nn.Module):
    """Dot product of text and label."""

    def __init__(self, config, width: int):
        super().__init__()

    def init_dot_product(self) -> None:
        """It is one."""

    def forward(self, text, classes, text_mask=None, class_mask=None):
        if classes.shape[0] == 1:
            return text @ classes[0].T
        return torch.einsum("bd,bcd->bc", text, classes)


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
        first = self.out_mlp[0]
        # The first layer acts on a concatenation: each part is multiplied once, not once per pair.
        of_text, of_label, of_product = first.weight.split(self.width, dim=1)
        hidden = F.linear(text_sum, of_text, first.bias) + F.linear(label_sum, of_label)
        hidden = hidden + F.linear(text_factor * label_factor, of_product)  # (B, C, 4D)
        return self.out_mlp[1:](hidden).squeeze(-1)

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
        memory = text.unsqueeze(1)  # (B, 1, D)
        attention = (self.q_proj(classes) * self.k_proj(memory)).sum(-1, keepdim=True) * self.beta  # (B, C, 1)
        if class_mask is not None:
            attention = attention.masked_fill(~class_mask.bool().unsqueeze(-1), torch.finfo(attention.dtype).min)
        retrieved = attention.softmax(dim=1) * self.v_proj(memory)  # (B, C, D)
        return self.mlp(classes + retrieved).squeeze(-1)


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
