"""Low-rank adapters (LoRA) of the encoders, through peft.

A linear layer with the weights W gets the trained delta ``alpha / rank * B @ A`` of a low rank, while W is frozen
(Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..model.freezing import count_layers, is_fully_frozen
from ..model.weights import describe_differences
from ..optional_dependencies import import_optional

if TYPE_CHECKING:
    from ..fitted import FittedModel

ALL_LINEAR = "all-linear"
ALPHA_PER_RANK = 2  # of the default of `lora_alpha`
_NAME = "default"  # of the adapter, in peft
_NAMES_SHOWN = 5


class Adapters:
    """LoRA layers of the encoders of a model: attached while it is trained, merged into its weights otherwise.

    Parameters
    ----------
    rank : int
        Rank of the deltas.
    alpha : float
        Numerator of their factor, ``alpha / rank``.
    names : list of list of str
        Names of the linear layers in each encoder.
    weights : dict of str to Tensor, optional
        Result of :meth:`weights` of adapters that are merged already. If None, the deltas are zero.
    """

    def __init__(self, rank: int, alpha: float, names: list[list[str]], weights: dict[str, Tensor] | None = None):
        self.rank, self.alpha, self.names = int(rank), float(alpha), names
        self._stored = weights or {}
        self._layers: dict[str, Any] = {}  # of peft; empty until they are attached for the first time
        self._frozen: list[nn.Parameter] = []
        self.is_attached = False

    def config(self, encoder: int = 0, base: str | None = None):
        """Return the configuration of peft for an encoder."""
        peft = import_optional("peft", "lora", f"lora_rank={self.rank}")
        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.names[encoder]),
            lora_dropout=0.0,
            base_model_name_or_path=base,
            task_type="FEATURE_EXTRACTION",
        )

    def attach(self, model) -> None:
        """Put the LoRA layers in place of the linear layers, and freeze all other parameters of the encoders."""
        self.build(model)
        encoders = _distinct_encoders(model)
        self._frozen = [p for encoder in encoders for p in encoder.parameters() if p.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        for place, layer in self._layers.items():
            layer.to(layer.get_base_layer().weight)
            _replace(encoders, place, layer)
        self._add_deltas(-1)
        self.is_attached = True

    def merge(self, model) -> None:
        """Add the deltas to the weights, and put the linear layers back."""
        self._add_deltas(1)
        self._detach(model)

    def _detach(self, model) -> None:
        encoders = _distinct_encoders(model)
        for place, layer in self._layers.items():
            _replace(encoders, place, layer.get_base_layer())
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen, self.is_attached = [], False

    @torch.no_grad()
    def _add_deltas(self, sign: int) -> None:
        for layer in self._layers.values():
            layer.get_base_layer().weight.add_(layer.get_delta_weight(_NAME), alpha=sign)

    def build(self, model) -> None:
        """Build the LoRA layers beside the model, unless they are built already."""
        if self._layers:
            return
        peft = import_optional("peft", "lora", f"lora_rank={self.rank}")
        encoders = _distinct_encoders(model)
        trainable = [p for encoder in encoders for p in encoder.parameters() if p.requires_grad]
        for number, encoder in enumerate(encoders):
            peft.inject_adapter_in_model(self.config(number), encoder, _NAME)
            del encoder.peft_config
            for name in self.names[number]:
                self._layers[f"{number}.{name}"] = encoder.get_submodule(name)
        for place, layer in self._layers.items():
            _replace(encoders, place, layer.get_base_layer())
            for part in ("lora_A", "lora_B") if self._stored else ():
                getattr(layer, part)[_NAME].weight.data.copy_(self._stored[f"{place}.{part}"])
        for parameter in trainable:
            parameter.requires_grad_(True)

    def weights(self) -> dict[str, Tensor]:
        """Return the matrices A and B on the CPU, by number of the encoder, name of the layer and name in peft."""
        if not self._layers:
            return self._stored
        return {
            f"{place}.{part}": getattr(layer, part)[_NAME].weight.detach().cpu().clone()
            for place, layer in self._layers.items()
            for part in ("lora_A", "lora_B")
        }

    def save(self, folder: Path, encoder: int, base: str) -> None:
        """Write the adapter of an encoder in the format of peft."""
        start = f"{encoder}."
        tensors = {
            f"base_model.model.{name.removeprefix(start)}.weight": tensor.contiguous()
            for name, tensor in self.weights().items()
            if name.startswith(start)
        }
        self.config(encoder, base).save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def build_adapters(estimator, fitted: FittedModel, freeze_encoder) -> Adapters | None:
    """Return the adapters that an estimator trains: those of the fitted model, or new ones; None without `lora_rank`.

    Parameters
    ----------
    estimator : BaseGLiClass
        Its hyperparameters `lora_rank`, `lora_alpha` and `lora_target` are read.
    fitted : FittedModel
        Model to train.
    freeze_encoder : bool, "embeddings" or int
        Resolved value of `freeze_encoder`.

    Raises
    ------
    ValueError
        If hyperparameters exclude each other, or `lora_target` names no linear layer.
    """
    rank = estimator.lora_rank
    if rank is None:
        for name in ("lora_alpha", "lora_target"):
            if getattr(estimator, name) is not None:
                raise ValueError(
                    f"{name}={getattr(estimator, name)!r} has no effect with lora_rank=None: there are no adapters. "
                    f"Set lora_rank, or leave {name}=None."
                )
        return None
    if is_fully_frozen(freeze_encoder):
        raise ValueError(
            f"lora_rank={rank} trains adapters of the encoder, which freeze_encoder={estimator.freeze_encoder!r} with "
            f"preset={estimator.preset!r} freezes; set freeze_encoder=False, or lora_rank=None."
        )
    if fitted.adapters is not None:
        return fitted.adapters
    import_optional("peft", "lora", f"lora_rank={rank}")
    encoders = _distinct_encoders(fitted.model)
    names = [find_linear_layers(encoder, estimator.lora_target, count_layers(freeze_encoder)) for encoder in encoders]
    alpha = ALPHA_PER_RANK * rank if estimator.lora_alpha is None else estimator.lora_alpha
    return Adapters(rank, alpha, names)


def find_linear_layers(encoder: nn.Module, target=None, n_frozen: int = 0) -> list[str]:
    """Return the names of the linear layers that adapters are added to.

    Parameters
    ----------
    encoder : nn.Module
        Encoder of transformers.
    target : str, list of str or None
        Regular expression of whole names, or ends of names. If None or "all-linear", all linear layers.
    n_frozen : int, default=0
        Number of lower layers that are left out.

    Raises
    ------
    ValueError
        If there is none.
    """
    lists = [f"{name}." for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)]
    inside = [
        name for name, module in encoder.named_modules() if type(module) is nn.Linear and name.startswith(tuple(lists))
    ]
    lower = tuple(f"{lists[0]}{number}." for number in range(n_frozen)) if lists else ()
    found = [name for name in inside if _matches(name, target) and not name.startswith(lower)]
    if not found:
        shown = ", ".join(sorted({name.rpartition(".")[2] for name in inside})[: 2 * _NAMES_SHOWN])
        raise ValueError(
            f"lora_target={target!r} names no linear layer of this encoder above its {n_frozen} frozen layers; choose "
            f"ends of names from {shown}, or lora_target=None for all linear layers."
        )
    return found


def _matches(name: str, target) -> bool:
    if target is None or target == ALL_LINEAR:
        return True
    if isinstance(target, str):
        return re.fullmatch(target, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in target)


@contextmanager
def merge_adapters(adapters: Adapters | None, model):
    """Yield adapters that are attached within the context, and merge them at its end; after an error they stay."""
    if adapters is not None:
        adapters.build(model)
    yield adapters
    if adapters is not None and adapters.is_attached:
        adapters.merge(model)


def _distinct_encoders(model) -> list[nn.Module]:
    """Return the encoders of a model, tied ones once."""
    return list(dict.fromkeys(model.encoder_modules()))


def _replace(encoders: list[nn.Module], place: str, layer: nn.Module) -> None:
    number, _, name = place.partition(".")
    parent, _, child = name.rpartition(".")
    setattr(encoders[int(number)].get_submodule(parent), child, layer)


# -- adapter folders ---------------------------------------------------------------------------------------------


def merge_adapter_folder(encoder: nn.Module, folder: Path) -> nn.Module:
    """Merge the adapter in a folder of peft into an encoder.

    Parameters
    ----------
    encoder : PreTrainedModel
        The encoder that the adapter was trained for.
    folder : Path
        Folder of ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises
    ------
    ValueError
        If the adapter does not match the encoder.
    """
    peft = import_optional("peft", "lora", f"The adapter in {str(folder)!r}")
    try:
        adapted = peft.PeftModel.from_pretrained(encoder, str(folder))
        found, needed = peft.utils.load_peft_weights(str(folder)), peft.get_peft_model_state_dict(adapted)
        if found.keys() != needed.keys():
            raise ValueError(describe_differences(needed.keys() - found.keys(), found.keys() - needed.keys(), []))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The adapter in {str(folder)!r} does not match its encoder ({error}); train it again, or correct "
            "base_model_name_or_path in adapter_config.json."
        ) from error
    return adapted.merge_and_unload().requires_grad_(True).eval()
