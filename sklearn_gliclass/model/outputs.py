"""Output of the model's forward pass."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput


@dataclass
class GLiClassOutput(ModelOutput):
    """Output of :class:`GLiClassModel`.

    Attributes
    ----------
    loss : Tensor or None
        Scalar loss; None if `labels` was not given.
    logits : Tensor of shape (batch, labels)
        Scores of the labels. Slots without a label hold the smallest number of the dtype.
    text_embeddings : Tensor of shape (batch, hidden), or (batch, length, hidden) without pooling
        The projected text.
    class_embeddings : Tensor of shape (batch or 1, labels, hidden)
        The projected labels. A first axis of 1 means that all texts of the batch share their labels.
    class_mask : Tensor of shape (batch or 1, labels)
        True for real labels.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_embeddings: Tensor | None = None
    class_embeddings: Tensor | None = None
    class_mask: Tensor | None = None
