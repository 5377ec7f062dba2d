"""Calibrator: an inverse temperature and an offset for each logit, from the embeddings and logits of a text."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_LOGIT_FEATURES = 6
LABELS_AT_ONCE = 256
MAX_SHARE = 1 - 1e-4  # of the largest inverse temperature that a constant one may be


class Calibrator(nn.Module):
    """MLP that calibrates logits: ``beta * logit + bias``, with ``beta`` in (0, calibrator_beta_max).

    It is fitted after the model, with other texts, and its weights do not take part in the training of the model.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        width, hidden = config.encoder_width, config.calibrator_hidden_size
        self.text_norm = nn.LayerNorm(width)
        self.label_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(4 * width + N_LOGIT_FEATURES, hidden),
            nn.GELU(),
            nn.Dropout(config.calibrator_dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(config.calibrator_dropout),
            nn.Linear(hidden, 2 if config.calibrator_use_bias else 1),
        )
        self.requires_grad_(False)

    def train(self, mode: bool = True):
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, logits: Tensor, text: Tensor, classes: Tensor, class_mask: Tensor) -> Tensor:
        """Return the calibrated logits (batch, labels).

        Parameters
        ----------
        logits : Tensor of shape (batch, labels)
            Logits of the labels of one prompt.
        text : Tensor of shape (batch, hidden)
            Projected texts.
        classes : Tensor of shape (batch or 1, labels, hidden)
            Projected labels.
        class_mask : BoolTensor of shape (batch or 1, labels)
            True for real labels.
        """
        dtype = self.text_norm.weight.dtype
        mask = class_mask.expand_as(logits)
        statistics = _logit_features(logits.float(), mask).to(dtype)
        text = self.text_norm(text.to(dtype)).unsqueeze(1)
        classes = self.label_norm(classes.to(dtype))
        parts = zip(classes.split(LABELS_AT_ONCE, dim=1), statistics.split(LABELS_AT_ONCE, dim=1), strict=True)
        output = torch.cat([self._output(text, some, of_some) for some, of_some in parts], dim=1).float()
        calibrated = self.config.calibrator_beta_max * output[..., 0].sigmoid() * logits.float()
        if self.config.calibrator_use_bias:
            calibrated = calibrated + output[..., 1]
        return calibrated.to(logits.dtype)

    def _output(self, text: Tensor, classes: Tensor, statistics: Tensor) -> Tensor:
        text, classes = torch.broadcast_tensors(text, classes)  # (batch, labels, hidden)
        return self.mlp(torch.cat([text, classes, text * classes, (text - classes).abs(), statistics], dim=-1))

    @torch.no_grad()
    def init_constant(self, beta: float) -> None:
        """Initialise all inverse temperatures as `beta`, and the offsets as 0."""
        share = beta / self.config.calibrator_beta_max
        if not 0 < share <= MAX_SHARE:
            raise ValueError(
                f"calibrator_beta_max={self.config.calibrator_beta_max} must be above the inverse temperature "
                f"{beta:.4g}; raise it."
            )
        last = cast(nn.Linear, self.mlp[-1])
        last.weight.zero_()
        last.bias.zero_()
        last.bias[0] = math.log(share / (1 - share))

    def init_identity(self) -> None:
        """Initialise the calibrator so that it does not change logits."""
        self.init_constant(1.0)

    @torch.no_grad()
    def divide(self, temperature: float) -> None:
        """Divide all calibrated logits by a temperature."""
        self.config.calibrator_beta_max /= temperature
        if self.config.calibrator_use_bias:
            last = cast(nn.Linear, self.mlp[-1])
            last.weight[1] /= temperature
            last.bias[1] /= temperature


def _logit_features(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the features (batch, labels, 6) of logits (batch, labels), with empty slots left out.

    They are the logit, its absolute value, its difference from the largest and the mean one, the mean entropy of the
    text's probabilities and the logarithm of its number of labels.
    """
    counts = mask.sum(dim=1, keepdim=True).clamp_min(1).to(logits.dtype)
    largest = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).amax(dim=1, keepdim=True)
    real = logits.masked_fill(~mask, 0.0)
    entropy = F.binary_cross_entropy_with_logits(real, real.sigmoid(), reduction="none").masked_fill(~mask, 0.0)
    features = [
        real,
        real.abs(),
        real - largest,
        real - real.sum(dim=1, keepdim=True) / counts,
        (entropy.sum(dim=1, keepdim=True) / counts).expand_as(real),
        counts.log().expand_as(real),
    ]
    return torch.stack(features, dim=-1).masked_fill(~mask.unsqueeze(-1), 0.0)
