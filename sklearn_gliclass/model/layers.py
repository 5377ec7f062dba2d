"""Layers between the encoders and the scorer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers.activations import ACT2FN

from .options import resolve

RELATIVE_CUTOFF = 1e-3  # relative to the largest singular value; smaller ones are ignored


def _activation(name: str) -> nn.Module:
    """Build an activation function by its name in transformers."""
    resolve(dict.fromkeys(ACT2FN), name, "projector_hidden_act")
    return ACT2FN[name]


class Projector(nn.Module):
    """MLP of a linear layer, an activation, dropout and a linear layer."""

    def __init__(self, n_inputs: int, hidden: int, n_outputs: int, activation: str, dropout: float = 0.0):
        super().__init__()
        self.linear_1 = nn.Linear(n_inputs, hidden)
        self.act = _activation(activation)
        self.dropout = nn.Dropout(dropout)
        self.linear_2 = nn.Linear(hidden, n_outputs)

    def forward(self, features: Tensor, without: Tensor | None = None) -> Tensor:
        """Project features; `without` is subtracted from the weights of the last layer."""
        hidden = self.dropout(self.act(self.linear_1(features)))
        return self.linear_2(hidden) if without is None else self.linear_2(hidden) - F.linear(hidden, without)

    @torch.no_grad()
    def init_identity(self) -> None:
        """Initialise the projector exactly as the identity.

        An activation f(x) = x s(x) with s(x) + s(-x) = 1 has f(x) - f(-x) = x, so that the weights [I; -I] before it
        and [I, -I] after it reproduce the input. GELU, SiLU and ReLU are of this form.
        """
        width = self.linear_1.in_features
        if self.linear_2.out_features != width or self.linear_1.out_features != 2 * width:
            raise ValueError(
                f"projector_init='identity' needs equal input and output widths and hidden_size={2 * width} (twice "
                f"the encoder's hidden size), got a projector {width} -> {self.linear_1.out_features} -> "
                f"{self.linear_2.out_features}; set hidden_size=None or projector_init='normal'."
            )
        probe = torch.linspace(-4.0, 4.0, 17)
        if not torch.allclose(self.act(probe) - self.act(-probe), probe, atol=1e-5):
            raise ValueError(
                "projector_init='identity' needs a projector_hidden_act with f(x) - f(-x) = x, such as 'gelu', "
                f"'silu' or 'relu', got {type(self.act).__name__}; choose one of them, or projector_init='normal'."
            )
        identity = torch.eye(width)
        self.linear_1.weight.copy_(torch.cat([identity, -identity]))
        self.linear_2.weight.copy_(torch.cat([identity, -identity], dim=1))
        self.linear_1.bias.zero_()
        self.linear_2.bias.zero_()

    def is_identity(self) -> bool:
        """Return whether the weights are those of :meth:`init_identity`."""
        first, last = self.linear_1.weight, self.linear_2.weight
        width = last.shape[0]
        if first.shape != (2 * width, width) or self.linear_1.bias.any() or self.linear_2.bias.any():
            return False
        identity = torch.eye(width, dtype=first.dtype, device=first.device)
        signed = torch.cat([identity, -identity])
        return torch.equal(first, signed) and torch.equal(last, signed.T)

    @torch.no_grad()
    def fit_outputs(self, features: Tensor, outputs: Tensor) -> Tensor:
        """Change the last layer minimally so that `features` (n, width in) are mapped to `outputs` (n, width out).

        The mapping is exact for at most as many rows as the hidden layer is wide, and a least-squares solution for more
        rows, or for rows that hardly differ. The result is the change of the weights, on the CPU.
        """
        missing = outputs.cpu().double() - self(features).cpu().double()
        hidden = self.act(self.linear_1(features)).cpu().double()
        change = torch.linalg.pinv(hidden, rtol=RELATIVE_CUTOFF) @ missing
        change = change.T.to(self.linear_2.weight)
        self.linear_2.weight += change
        return change.cpu()


class LstmSeq2SeqEncoder(nn.Module):
    """Bidirectional LSTM over the tokens of a text."""

    def __init__(self, width: int):
        super().__init__()
        if width % 2:
            raise ValueError(f"use_lstm=True needs an even hidden size, got {width}.")
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states and mask of the tokens in the mask, moved to the start of the sequence."""
        states, mask = move_to_start(states, mask.bool())
        lengths = mask.sum(dim=1).clamp_min(1).cpu()  # a sequence without tokens can't be packed
        packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=states.shape[1])
        return output, mask


def move_to_start(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the tokens in the mask to the start of the sequence, in their order; return them with their mask."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    order = (columns + mask.shape[1] * (~mask).int()).argsort(dim=1)  # distinct keys, as ONNX has no stable sort
    return states.gather(1, order.unsqueeze(-1).expand_as(states)), mask.gather(1, order)


class LayerwiseAttention(nn.Module):
    """Projected weighted sum over the encoder's layers, with weights from squeeze and excitation."""

    def __init__(self, num_layers: int, width: int):
        super().__init__()
        self.squeeze = nn.Linear(width, 1)
        self.W1 = nn.Linear(num_layers, num_layers // 2)
        self.W2 = nn.Linear(num_layers // 2, num_layers)
        self.output_projection = nn.Linear(width, width)

    def forward(self, layers: list[Tensor], mask: Tensor) -> Tensor:
        stacked = torch.stack(layers, dim=2)  # (B, L, K, D)
        squeezed = self.squeeze(stacked).squeeze(-1)  # (B, L, K)
        mask = mask.to(squeezed.dtype).unsqueeze(2)
        squeezed = (squeezed * mask).sum(1) / mask.sum(1)  # (B, K), padding left out
        return self.mix(self.layer_weights(squeezed), stacked)

    def layer_weights(self, squeezed: Tensor) -> Tensor:
        """Compute the weight of each layer (batch, layers) from its squeezed mean (batch, layers)."""
        return self.W2(F.relu(self.W1(squeezed))).sigmoid()

    def mix(self, weights: Tensor, stacked: Tensor) -> Tensor:
        """Compute the weighted sum (batch, length, hidden) over layers (batch, length, layers, hidden)."""
        return self.output_projection(torch.einsum("bk,blkd->bld", weights, stacked))
