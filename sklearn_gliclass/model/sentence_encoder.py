"""Settings of sentence encoders: pooling and prompt, from the files of sentence-transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .weights import read_json

# Pooling of sentence-transformers -> ours. Older files have one key for each, "pooling_mode_" and a longer name.
_POOLINGS = {"mean": "avg", "max": "max", "cls": "first", "lasttoken": "last"}
_LONG_NAMES = {
    "mean_tokens": "mean", "max_tokens": "max", "cls_token": "cls", "lasttoken": "lasttoken",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "weightedmean_tokens": "weightedmean",
}  # fmt: skip
_SUPPORTED_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceSettings:
    """Pooling of a sentence encoder, and the text that it expects before each input.

    Attributes
    ----------
    pooling_strategy : str
        Name of the pooling.
    prefix : str
        Its default prompt; empty for none.
    """

    pooling_strategy: str = "avg"
    prefix: str = ""


def read_sentence_settings(folder: Path) -> SentenceSettings:
    """Read pooling and default prompt of a folder; the mean and no prompt if it is no sentence encoder.

    Raises
    ------
    OSError
        If a file is damaged.
    ValueError
        If the encoder has a pooling or further layers that cannot be computed here.
    """
    if not (folder / "modules.json").is_file():
        return SentenceSettings()
    modules = read_json(folder / "modules.json", list)
    kinds = {str(module.get("type")).rpartition(".")[2]: module for module in modules}
    others = sorted(set(kinds).difference(_SUPPORTED_MODULES))
    if others:
        raise ValueError(
            f"The sentence encoder {str(folder)!r} has the module(s) {', '.join(others)} after its transformer, and "
            f"pooling_strategy='auto' reads {', '.join(_SUPPORTED_MODULES)} only; choose another encoder, or set "
            "pooling_strategy to train on its transformer without them."
        )
    prefix = _read_prefix(folder)
    if "Pooling" not in kinds:
        return SentenceSettings(prefix=prefix)
    pooling = read_json(folder / str(kinds["Pooling"].get("path")) / "config.json")
    if prefix and not pooling.get("include_prompt", True):
        raise ValueError(
            f"The sentence encoder {str(folder)!r} leaves its prompt {prefix!r} out of the pooling, which "
            "pooling_strategy='auto' cannot; set pooling_strategy, and prompt if the texts need one."
        )
    return SentenceSettings(_read_pooling(folder, pooling), prefix)


def _read_pooling(folder: Path, fields: dict) -> str:
    modes = fields.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in _LONG_NAMES.items() if fields.get(f"pooling_mode_{name}")]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ValueError(
            f"The sentence encoder {str(folder)!r} has the pooling {modes!r}, and pooling_strategy='auto' reads one of "
            f"{sorted(_POOLINGS)}; set pooling_strategy to another one, or choose another encoder."
        )
    return _POOLINGS[modes[0]]


def _read_prefix(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    fields = read_json(path) if path.is_file() else {}
    name, prompts = fields.get("default_prompt_name"), fields.get("prompts")
    prefix = prompts.get(name) if isinstance(prompts, dict) else None
    return prefix if isinstance(prefix, str) else ""
