"""What a trained model can tell about itself: where its labels lie, and which tokens of a text moved a logit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .data.batching import label_chunks, tensors, to_device
from .data.prompt import Layout
from .model.packed import without_packing

if TYPE_CHECKING:
    from .model import GLiClassModel

TEXTS_AT_ONCE = 16
TOKENS_AT_ONCE = 2048


def label_embeddings(model: GLiClassModel, layout: Layout, texts: Sequence[str] = ("",), max_num_classes=None):
    """The labels as the scorer sees them.

    Parameters
    ----------
    model : GLiClassModel
        On its device.
    layout : Layout
        Builds the sequences; its labels are embedded.
    texts : sequence of str, default=("",)
        Texts beside which the labels are read; in the bi-encoder, which reads labels alone, they make no
        difference.
    max_num_classes : int, optional
        Most labels in a prompt. Default: all.

    Returns
    -------
    ndarray of shape (n_labels, hidden size of the encoder)
        The projected label states, mean over the texts.
    """
    tokens = layout.tokenize(list(texts))
    means = []
    for chunk in label_chunks(len(layout.label_texts), max_num_classes):
        total = 0.0
        for first in range(0, len(tokens), TEXTS_AT_ONCE):
            rows = range(first, min(first + TEXTS_AT_ONCE, len(tokens)))
            inputs = layout.batch([tokens[row] for row in rows], [chunk] * len(rows))
            with torch.no_grad():
                classes = _run(model, inputs).class_embeddings.double()
            total = total + classes.mean(dim=0) * len(rows)  # (labels, hidden)
        means.append((total / len(tokens)).cpu().numpy())
    return np.concatenate(means)


@dataclass
class Attribution:
    """What the tokens of a text add to one logit.

    Attributes
    ----------
    spans : list of (int, int)
        The characters ``text[start:end]`` of each token.
    values : ndarray of shape (n_tokens,)
        What each token adds; they sum to ``logit - baseline``, up to the error of the integral.
    logit : float
        The logit of the text.
    baseline : float
        The logit where each token of the text is the mean token of the vocabulary.
    """

    spans: list
    values: np.ndarray
    logit: float
    baseline: float


def token_attributions(
    model: GLiClassModel, layout: Layout, text: str, label: int, max_num_classes=None, n_steps: int = 16
) -> Attribution:
    """Gradient times input of a label's logit, for the tokens of a text.

    The gradient is averaged over `n_steps` points between the mean token of the vocabulary and the token itself:
    integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365, equation 3), by the midpoint rule. The
    gradient at the text alone says little about transformers: they normalise their states, and at a text that
    they are sure of they are flat.

    Parameters
    ----------
    model : GLiClassModel
        On its device.
    layout : Layout
        Builds the sequences.
    text : str
        One text.
    label : int
        Which of the layout's labels.
    max_num_classes : int, optional
        Most labels in a prompt. Default: all.
    n_steps : int, default=16
        Points of the integral.

    Returns
    -------
    Attribution
        Tokens that were cut off have no value.
    """
    chunk = next(chunk for chunk in label_chunks(len(layout.label_texts), max_num_classes) if label in chunk)
    where, spans = layout.locate(text, chunk)
    tokens, column = layout.tokenize([text])[0], int(np.flatnonzero(chunk == label)[0])

    def run(steps):
        """Logits at points on the way, and the embeddings there."""
        inputs = layout.batch([tokens] * len(steps), [chunk] * len(steps))
        with _on_the_way(model, inputs["input_ids"], where, steps) as way:
            return _run(model, inputs).logits[:, column], way

    # cuDNN's LSTM has no backward pass outside of training; packed tokens can't be told from those of the labels.
    with torch.backends.cudnn.flags(enabled=False), torch.enable_grad(), without_packing():
        steps = (torch.arange(n_steps) + 0.5) / n_steps
        values = torch.zeros(len(spans), dtype=torch.float64)
        for part in steps.split(max(1, TOKENS_AT_ONCE // max(1, where.stop))):
            logits, way = run(part)
            (gradient,) = torch.autograd.grad(logits.sum(), way["point"])  # (steps, length, hidden)
            values += (gradient * way["whole"])[:, where].sum(dim=(0, 2)).double().cpu() / n_steps
        baseline, logit = run(torch.tensor([0.0, 1.0]))[0].tolist()
    return Attribution(spans, values.numpy(), logit, baseline)


@contextmanager
def _on_the_way(model: GLiClassModel, input_ids: np.ndarray, where: slice, steps: torch.Tensor):
    """Row i of the batch has its text's embeddings ``steps[i]`` of the way from the mean token to the token.

    Yields a dict that holds these embeddings as `point` and the whole way as `whole`, once the model ran.
    """
    way = {}

    def move(module, arguments, output):
        ids = arguments[0]
        if ids.shape != input_ids.shape or not np.array_equal(ids.cpu().numpy(), input_ids):
            return output  # labels in a shared encoder, or in a decoder that shares the embeddings
        mean = module.weight.mean(dim=0) * getattr(module, "embed_scale", 1.0)
        whole = torch.zeros_like(output)
        whole[:, where] = output.detach()[:, where] - mean.detach()
        back = (1.0 - steps).to(output).view(-1, 1, 1)
        way.update(whole=whole, point=(output.detach() - back * whole).requires_grad_())
        return way["point"]

    encoder = model.encoder
    weight = encoder.get_input_embeddings().weight
    # T5 and BART read tied copies of the module that they call their input embeddings.
    modules = [module for module in encoder.modules() if getattr(module, "weight", None) is weight]
    handles = [module.register_forward_hook(move) for module in modules]
    try:
        yield way
    finally:
        for handle in handles:
            handle.remove()


def _run(model: GLiClassModel, arrays):
    model.eval()
    return model(**to_device(tensors(arrays), model.device, model.dtype))
