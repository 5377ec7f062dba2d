"""Tiny models with random weights, and batches for them."""

import torch

from sklearn_gliclass.model import GLiClassModel, GLiClassModelConfig
from sklearn_gliclass.testing import TINY_ENCODERS

PAD, CLS, SEP = 0, 2, 3
VOCAB_SIZE = 40
LABEL_ID, TEXT_ID = 38, 39  # <<LABEL>> and <<SEP>>

# Architectures with their encoder families.
ARCHITECTURE_FAMILIES = [
    *[(architecture, family) for architecture in ("uni-encoder", "bi-encoder", "bi-encoder-fused")
      for family in ("bert", "deberta-v2", "modernbert", "t5")],
    ("encoder-decoder", "t5"),
    ("encoder-decoder", "bart"),
    ("encoder-decoder-cls", "t5"),
    ("encoder-decoder-cls", "bart"),
    ("decoder-kv", "qwen3"),
]  # fmt: skip


DEFAULT_FAMILIES = {"encoder-decoder": "t5", "encoder-decoder-cls": "t5", "decoder-kv": "qwen3"}


def tiny_encoder(family: str, **options) -> dict:
    return {**TINY_ENCODERS[family], "vocab_size": VOCAB_SIZE, "pad_token_id": PAD, **options}


def tiny_config(architecture: str, family: str | None = None, encoder_options=None, **options) -> GLiClassModelConfig:
    family = family or DEFAULT_FAMILIES.get(architecture, "bert")
    options = {"scorer_num_heads": 4, "class_token_index": LABEL_ID, "text_token_index": TEXT_ID, **options}
    if options.get("scorer_type") == "cross-attn":
        options.setdefault("pooling_strategy", "pass")
    return GLiClassModelConfig(
        encoder_config=tiny_encoder(family, **(encoder_options or {})), architecture_type=architecture, **options
    )


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int = 0, scale: float = 0.2) -> torch.nn.Module:
    """Randomise all weights, including biases and norms."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * scale
        # Norms stay near 1, so that the states keep their size.
        parameter.copy_(noise + 1.0 if parameter.dim() == 1 and bool((parameter == 1).all()) else noise)
    return model.eval()


def tiny_model(
    architecture: str, family: str | None = None, seed: int = 0, scale: float = 0.2, **options
) -> GLiClassModel:
    return randomize(GLiClassModel(tiny_config(architecture, family, **options)), seed, scale)


def random_ids(*shape: int, seed: int = 0) -> list:
    return torch.randint(4, LABEL_ID, shape, generator=torch.Generator().manual_seed(seed)).tolist()


def padded(sequences, length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    length = length or max(map(len, sequences), default=1)
    ids = torch.full((len(sequences), length), PAD)
    mask = torch.zeros(len(sequences), length, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, mask


def make_batch(architecture: str, texts, labels, prompt_first: bool = False) -> dict[str, torch.Tensor]:
    """The model's inputs for ids of texts and, per text, ids of each of its labels."""
    if architecture == "decoder-kv":
        prompts = [[TEXT_ID, *(token for label in own for token in (*label, LABEL_ID)), TEXT_ID] for own in labels]
        sequences = [text + prompt for text, prompt in zip(texts, prompts, strict=True)]
        return dict(zip(("input_ids", "attention_mask"), padded(sequences), strict=True))
    prompts = [[token for label in own for token in (LABEL_ID, *label)] + [TEXT_ID] for own in labels]
    if architecture == "bi-encoder-fused":
        prompts = [[LABEL_ID] * len(own) + [TEXT_ID] for own in labels]
    inner = texts
    if architecture in ("uni-encoder", "bi-encoder-fused"):
        inner = [prompt + text if prompt_first else text + prompt for text, prompt in zip(texts, prompts, strict=True)]
    batch = dict(zip(("input_ids", "attention_mask"), padded([[CLS, *ids, SEP] for ids in inner]), strict=True))
    if architecture.startswith("encoder-decoder"):
        ids, mask = padded([[CLS, *prompt, SEP] for prompt in prompts])
        batch |= {"class_input_ids": ids, "class_attention_mask": mask}
    elif architecture != "uni-encoder":
        n_labels = max(map(len, labels))
        flat = [[CLS, *label, SEP] for own in labels for label in [*own, *[[]] * (n_labels - len(own))]]
        ids, mask = (tensor.view(len(texts), n_labels, -1) for tensor in padded(flat))
        real = torch.tensor([[1] * len(own) + [0] * (n_labels - len(own)) for own in labels])
        batch |= {"class_input_ids": ids, "class_attention_mask": mask, "labels_mask": real}
    return batch
