"""Encoder states: what the heads read of texts and labels. With frozen encoders they are the same in every epoch.

A text has one state, or with many labels one per label prompt, and in it one or all of the encoder's layers. Pooled
it is (batch, prompts, layers, hidden); where heads read its tokens (batch, prompts, length, layers, hidden) under
``text_mask`` (batch, prompts, length). Label states are (batch or 1, prompts, labels, layers or 1, hidden) under
``label_mask`` (1, prompts, labels).
"""

import torch
from torch import Tensor

from .poolings import NO_POOLING, POOLINGS


def heads_read_tokens(config) -> bool:
    """Whether a head stands between a text's tokens and their pooling."""
    return config.use_lstm or config.squeeze_layers or config.pooling_strategy == NO_POOLING


@torch.no_grad()
def text_states(architecture, every_layer: bool, input_ids, attention_mask, **inputs) -> dict[str, Tensor]:
    """What the heads read of a batch of sequences, one prompt each.

    Parameters
    ----------
    architecture : Architecture
        Its encoders are run.
    every_layer : bool
        All layers of the encoder: what ``layer_wise`` trains on.
    input_ids, attention_mask : LongTensor of shape (batch, length)
        The sequences.
    **inputs
        Further inputs of ``Architecture.encode``; the plain bi-encoder needs none.

    Returns
    -------
    dict of str to Tensor
        "text_states": (batch, layers, hidden), or (batch, length, layers, hidden) with "text_mask" (batch, length).
        "label_states", where the labels stand in the sequence: (batch, labels, layers or 1, hidden).
        "layer_means", for ``squeeze_layers``: the mean of each layer (batch, layers, hidden).
    """
    config = architecture.config
    layers, context = architecture.encode(input_ids, attention_mask, every_layer or config.squeeze_layers, **inputs)
    readings = [architecture.read(states, context) for states in layers]
    mask = readings[0].text_mask
    if heads_read_tokens(config):
        states = {"text_states": torch.stack([reading.text for reading in readings], dim=2), "text_mask": mask}
    else:
        pooling = POOLINGS[config.pooling_strategy]
        states = {"text_states": torch.stack([pooling(reading.text, mask) for reading in readings], dim=1)}
    if config.squeeze_layers:
        states["layer_means"] = torch.stack([POOLINGS["avg"](layer, attention_mask) for layer in layers], dim=1)
    labels = [reading.classes for reading in readings]
    if labels[0] is not None:
        one_for_all = all(layer is labels[0] for layer in labels)
        states["label_states"] = torch.stack(labels[:1] if one_for_all else labels, dim=2)
    return states


def score_states(
    architecture,
    text_states,
    label_states,
    label_mask,
    text_mask=None,
    layer_means=None,
    labels=None,
    sample_weight=None,
    class_ids=None,
    labels_at_once=None,
):
    """Logits (batch, labels of all prompts) and loss; the other arguments are those of the model's forward."""
    from .modeling import GLiClassOutput  # modeling imports this module

    batch, prompts = text_states.shape[:2]
    text, classes = text_states.flatten(0, 1), label_states.flatten(0, 1)
    text_mask = None if text_mask is None else text_mask.flatten(0, 1)
    prompt_mask = label_mask.expand(batch if prompts > 1 else 1, -1, -1).flatten(0, 1)
    class_mask = label_mask.flatten(1)
    n_labels = class_mask.shape[1] if prompts == 1 else int(class_mask.sum())  # the last prompt may have fewer
    class_mask = class_mask[:, :n_labels]
    if architecture.config.squeeze_layers:
        text, classes = _squeeze(architecture.layer_wise_attention, layer_means.flatten(0, 1), text, classes)
    losses = []
    for layer in range(text.shape[-2]):
        pooled, mask = text[..., layer, :], text_mask
        if mask is not None:
            pooled, mask = architecture.pool_text(pooled, mask)
        pooled = architecture.project_text(pooled)
        projected = architecture.project_class_states(classes[..., min(layer, classes.shape[-2] - 1), :])
        logits = architecture.score(pooled, projected, mask, prompt_mask, labels_at_once)
        logits = logits.unflatten(0, (batch, prompts)).flatten(1)[:, :n_labels]
        projected = projected.unflatten(0, (-1, prompts)).flatten(1, 2)[:, :n_labels]
        if prompts > 1:
            pooled = pooled.unflatten(0, (batch, prompts)).mean(dim=1)
        if labels is not None:
            losses.append(architecture.loss(logits, pooled, projected, class_mask, labels, sample_weight, class_ids))
    return GLiClassOutput(
        loss=torch.stack(losses).sum() if losses else None,
        logits=logits.masked_fill(~class_mask, torch.finfo(logits.dtype).min),
        text_embeddings=pooled,
        class_embeddings=projected,
        class_mask=class_mask,
    )


def embed_states(architecture, text_states, text_mask=None, layer_means=None, **unread) -> Tensor:
    """Pooled text states (batch, hidden) before the projection, beside the first prompt; see ``embed_text``."""
    text = text_states[:, 0]
    if architecture.config.squeeze_layers:
        text, _ = _squeeze(architecture.layer_wise_attention, layer_means[:, 0], text, text[:, :1, :1])
    text = text[..., -1, :]
    if text_mask is None:
        return text
    text, mask = architecture.pool_text(text, text_mask[:, 0])
    return POOLINGS["avg"](text, mask) if text.dim() == 3 else text


def _squeeze(attention, means: Tensor, text: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Mix the layers of texts (batch, length, layers, hidden), and of labels that have them too."""
    weights = attention.layer_weights(attention.squeeze(means).squeeze(-1))
    text = attention.mix(weights, text).unsqueeze(-2)
    return text, attention.mix(weights, classes).unsqueeze(-2) if classes.shape[-2] > 1 else classes
