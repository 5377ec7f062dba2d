"""Explanations of a trained model: label embeddings, and attribution of logits to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .data.batching import label_chunks, tensors, to_device
from .data.prompt import Layout
from .model.fingerprint import copy_with_fingerprint
from .model.packed import disable_packing
from .model.torch_internals import unwrap

if TYPE_CHECKING:
    from .model import GLiClassModel

TEXTS_AT_ONCE = 16
TOKENS_AT_ONCE = 2048


def compute_label_embeddings(model: GLiClassModel, layout: Layout, texts: Sequence[str] = ("",), max_num_classes=None):
    """Compute the label embeddings that the scorer takes.

    Parameters
    ----------
    model : GLiClassModel
        The model, on its device.
    layout : Layout
        Layout of the sequences, with the labels.
    texts : sequence of str, default=("",)
        Texts with which the labels are encoded. They have no effect in the bi-encoder, which encodes labels
        separately.
    max_num_classes : int, optional
        Maximum number of labels in a prompt. If None, all.

    Returns
    -------
    ndarray of shape (n_labels, encoder_hidden_size)
        Projected label embeddings, averaged over the texts.
    """
    tokens = layout.tokenize(list(texts))
    means = []
    for chunk in label_chunks(len(layout.label_texts), max_num_classes):
        total = torch.zeros((), dtype=torch.float64)
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
    """Attribution of one logit to the tokens of a text.

    Attributes
    ----------
    spans : list of (int, int)
        Characters ``text[start:end]`` of each token.
    values : ndarray of shape (n_tokens,)
        Attribution of each token; they sum to ``logit - baseline``, up to the error of the numerical integration.
    logit : float
        Logit of the text.
    baseline : float
        Logit of the baseline, where each token of the text is the mean token of the vocabulary.
    """

    spans: list
    values: np.ndarray
    logit: float
    baseline: float


def compute_token_attributions(
    model: GLiClassModel, layout: Layout, text: str, label: int, max_num_classes=None, n_steps: int = 16,
    label_embeddings: torch.Tensor | None = None,
) -> Attribution:  # fmt: skip
    """Compute integrated gradients of a label's logit with respect to the tokens of a text.

    The gradient is averaged over `n_steps` points between the baseline, the mean token embedding of the vocabulary, and
    the token embedding (Sundararajan et al. 2017, arXiv:1703.01365, equation 3), by the midpoint rule. The gradient at
    the text only is less informative: layer normalisation and saturated logits make it small.

    Parameters
    ----------
    model : GLiClassModel
        The model, on its device.
    layout : Layout
        Layout of the sequences, with the labels.
    text : str
        One text.
    label : int
        Index of the label.
    max_num_classes : int, optional
        Maximum number of labels in a prompt. If None, all.
    n_steps : int, default=16
        Number of points of the numerical integration.
    label_embeddings : Tensor of shape (n_labels, hidden), optional
        Projected embeddings of all labels, for the bi-encoder. If None, they are computed.

    Returns
    -------
    Attribution
        The attribution. Truncated tokens are not part of it.
    """
    # A copy on the same weights, as other threads may run or copy the model while it has hooks.
    model = copy_with_fingerprint(unwrap(model), shares_weights=True)
    chunk = next(chunk for chunk in label_chunks(len(layout.label_texts), max_num_classes) if label in chunk)
    where, spans = layout.locate(text, chunk)
    tokens, column = layout.tokenize([text])[0], int(np.flatnonzero(chunk == label)[0])
    embeddings = None if label_embeddings is None else label_embeddings[chunk].detach().cpu().numpy()

    def run(steps):
        """Compute the logits at some points of the path, and the embeddings there."""
        inputs = layout.text_batch([tokens] * len(steps), [chunk] * len(steps))
        labels = layout.label_inputs([chunk]) if embeddings is None else {"class_embeddings": embeddings}
        inputs.update(labels)
        with _interpolate_embeddings(model, inputs["input_ids"], where, steps) as way:
            return _run(model, inputs).logits[:, column], way

    # cuDNN's LSTM has no backward pass in evaluation mode; packed tokens of texts and labels cannot be distinguished.
    with torch.backends.cudnn.flags(enabled=False), torch.enable_grad(), disable_packing():
        steps = (torch.arange(n_steps) + 0.5) / n_steps
        values = torch.zeros(len(spans), dtype=torch.float64)
        for part in steps.split(max(1, TOKENS_AT_ONCE // max(1, where.stop))):
            logits, way = run(part)
            (gradient,) = torch.autograd.grad(logits.sum(), way["point"])  # (steps, length, hidden)
            values += (gradient * way["whole"])[:, where].sum(dim=(0, 2)).double().cpu() / n_steps
        baseline, logit = run(torch.tensor([0.0, 1.0]))[0].tolist()
    return Attribution(spans, values.numpy(), logit, baseline)


@contextmanager
def _interpolate_embeddings(model: GLiClassModel, input_ids: np.ndarray, where: slice, steps: torch.Tensor):
    """Interpolate the text's embeddings: row i of the batch is at ``steps[i]`` between baseline and tokens.

    Yields a dict that holds these embeddings as `point`, and tokens minus baseline as `whole`, once the model ran.
    """
    way = {}

    def move(module, arguments, output):
        ids = arguments[0]
        if ids.shape != input_ids.shape or not np.array_equal(ids.cpu().numpy(), input_ids):
            return output  # the labels' pass through a tied encoder, or through a decoder with the same embeddings
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
