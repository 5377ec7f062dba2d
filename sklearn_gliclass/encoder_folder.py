"""Saving of the text encoder in the format of sentence-transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .data.tokenizer import LABEL_TOKEN, SEP_TOKEN
from .fitted import FittedModel
from .model.folders import replace_folder
from .model.loading import silence_transformers
from .model.lookup import ADAPTER_CONFIG, DEFAULT_ENCODER
from .model.torch_internals import unwrap
from .model.weights import named_weights
from .persistence import LABEL_TOKENIZER_FOLDER, is_checkpoint_file

# Pooling -> its name in sentence-transformers.
_POOLINGS = {"avg": "mean_tokens", "max": "max_tokens", "first": "cls_token", "last": "lasttoken"}
_POOLING_FOLDER = "1_Pooling"
_LABEL_ADAPTER = "label_encoder"
_ADAPTER_FILES = {ADAPTER_CONFIG, "adapter_model.safetensors", _LABEL_ADAPTER}
_FILES = {_POOLING_FOLDER, "modules.json", "config_sentence_transformers.json"}


def save_encoder(fitted: FittedModel, folder, prompt: str | None = None) -> None:
    """Write encoder, tokenizer and pooling to a folder that sentence-transformers loads; the save is atomic.

    Raises
    ------
    ValueError
        If sentence-transformers cannot compute the embeddings of the model, or the folder holds an estimator.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"save_encoder takes the name of a folder, a str or Path, got {folder!r}.")
    _check_config(fitted.config)
    named_weights(fitted.model)  # raises for modules that are not part of the configuration, such as adapters
    target = Path(folder).expanduser().resolve()

    def check():
        if (target / "estimator.json").exists():
            raise ValueError(
                f"{str(target)!r} holds a saved estimator, which the encoder would replace; choose another folder."
            )

    subfolders = [_POOLING_FOLDER, LABEL_TOKENIZER_FOLDER]
    with replace_folder(target, _is_written, subfolders, check=check) as temporary:
        with silence_transformers():
            unwrap(fitted.model).encoder.save_pretrained(temporary)
        fitted.tokenizer.save_pretrained(temporary)
        _remove_control_tokens(temporary)
        _write_modules(temporary, fitted, prompt)


def _is_written(name: str) -> bool:
    return name in _FILES or is_checkpoint_file(name)


def save_adapter(estimator, folder) -> None:
    """Write the adapters of an estimator to a folder; see :meth:`PersistenceMixin.save_adapter`."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"save_adapter takes the name of a folder, a str or Path, got {folder!r}.")
    adapters = estimator.fitted_.adapters
    if adapters is None:
        raise ValueError(
            "The estimator has no adapter: it was fitted with lora_rank=None, or loaded from a folder of "
            "save_pretrained, in which adapters are merged. Fit it with lora_rank=8, or use save_pretrained."
        )
    if estimator.pretrained is not None or estimator.encoder_model is None:
        raise ValueError(
            f"An adapter belongs to an encoder that can be loaded again, and the estimator has encoder_model="
            f"{estimator.encoder_model!r} and pretrained={estimator.pretrained!r}; fit it with encoder_model=..., or "
            "use save_pretrained. The default encoder has weights of this package: name it with "
            f"encoder_model={DEFAULT_ENCODER!r}."
        )
    target = Path(folder).expanduser().resolve()

    def check():
        if (target / "config.json").exists():
            raise ValueError(f"{str(target)!r} holds a model, which the adapter would shadow; choose another folder.")

    bases = [estimator.encoder_model, estimator.label_model_name or estimator.encoder_model]
    with replace_folder(target, lambda name: name in _ADAPTER_FILES, check=check) as temporary:
        for number, base in enumerate(bases[: len(adapters.names)]):
            place = temporary / _LABEL_ADAPTER if number else temporary
            place.mkdir(exist_ok=True)
            adapters.save(place, number, base)


def _check_config(config) -> None:
    needed = {
        "architecture_type": "bi-encoder",
        "use_lstm": False,
        "squeeze_layers": False,
        "layer_wise": False,
        "encoder_layer_id": -1,
    }
    wrong = {name: getattr(config, name) for name, value in needed.items() if getattr(config, name) != value}
    if config.encoder_config.is_encoder_decoder:
        wrong["encoder"] = config.encoder_config.model_type
    if config.pooling_strategy not in _POOLINGS:
        wrong["pooling_strategy"] = config.pooling_strategy
    if wrong:
        raise ValueError(
            "sentence-transformers cannot compute the embeddings of a model with "
            f"{', '.join(f'{name}={value!r}' for name, value in wrong.items())}. save_encoder needs an encoder-only "
            f"model with architecture_type='bi-encoder', pooling_strategy from {sorted(_POOLINGS)}, use_lstm=False, "
            "squeeze_layers=False, layer_wise=False and encoder_layer_id=-1; otherwise use transform."
        )


def _remove_control_tokens(folder: Path) -> None:
    """Remove ``<<LABEL>>`` and ``<<SEP>>``, for which a bi-encoder's encoder may have no embeddings."""
    control = (LABEL_TOKEN, SEP_TOKEN)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in control]
    _write_json(path, content)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in ("additional_special_tokens", "extra_special_tokens"):
        if isinstance(content.get(name), list):
            content[name] = [token for token in content[name] if token not in control]
    decoder = content.get("added_tokens_decoder")
    if decoder:
        content["added_tokens_decoder"] = {
            index: token for index, token in decoder.items() if token["content"] not in control
        }
    _write_json(path, content)


def _write_modules(folder: Path, fitted: FittedModel, prompt: str | None) -> None:
    modules = [("0", "", "Transformer"), ("1", _POOLING_FOLDER, "Pooling")]
    _write_json(
        folder / "modules.json",
        [
            {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for name, path, kind in modules
        ],
    )
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": fitted.max_length, "do_lower_case": False})
    chosen = _POOLINGS[fitted.config.pooling_strategy]
    pooling = {f"pooling_mode_{name}": name == chosen for name in _POOLINGS.values()}
    (folder / _POOLING_FOLDER).mkdir()
    _write_json(
        folder / _POOLING_FOLDER / "config.json", {"word_embedding_dimension": fitted.config.encoder_width, **pooling}
    )
    prefix = fitted.config.text_prefix if prompt is None else f"{prompt} " if prompt else ""
    prompts = {"prompts": {"default": prefix}, "default_prompt_name": "default"} if prefix else {}
    _write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", **prompts})


def _write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
