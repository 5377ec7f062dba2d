"""The torch model, with the checkpoint format of transformers."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from .bi_encoder import BiEncoder, FusedBiEncoder
from .calibrator import Calibrator
from .config import GLiClassModelConfig
from .decoder_kv import DecoderKV
from .encoder_decoder import EncoderDecoder, EncoderDecoderCls
from .isolation import seed_torch
from .loading import load_weights, silence_transformers
from .options import resolve
from .outputs import GLiClassOutput
from .transformers_internals import init, keep_names
from .uni_encoder import UniEncoder
from .weights import check_loaded, fill_shared, has_one_name_of_ties, named_weights, read_json, read_weights, skeleton

_LABEL_ENCODER = "model.label_encoder."


class GLiClassModel(PreTrainedModel):
    """GLiClass model: one or two encoders, with heads that score the labels of texts.

    It can be used without the estimators, like any model of transformers.

    Parameters
    ----------
    config : GLiClassModelConfig
        Configuration of the model.
    encoder, label_encoder : torch.nn.Module, optional
        Pretrained encoders. If None, they are built from the configuration, with random weights.

    See Also
    --------
    GLiClassModelConfig : The configuration.
    GLiClassClassifier : Classifier that builds and trains the model.

    Examples
    --------
    >>> from sklearn_gliclass.testing import TINY_BERT
    >>> config = GLiClassModelConfig(encoder_config=dict(TINY_BERT, vocab_size=12), vocab_size=12,
    ...                              class_token_index=10, text_token_index=11)
    >>> model = GLiClassModel(config).eval()
    >>> ids = torch.tensor([[1, 4, 5, 10, 6, 10, 7, 11, 2]])     # two labels, at the two tokens 10
    >>> model(ids, torch.ones_like(ids)).logits.shape
    torch.Size([1, 2])
    """

    config: GLiClassModelConfig
    config_class = GLiClassModelConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _keys_to_ignore_on_load_unexpected = [r"position_embeddings$"]

    def __init__(self, config, encoder: nn.Module | None = None, label_encoder: nn.Module | None = None):
        super().__init__(config)
        architecture = resolve(ARCHITECTURES, config.architecture_type, "architecture_type")
        self.model = architecture(config, encoder, label_encoder)
        self.calibrator = Calibrator(config) if config.use_calibrator else None
        if config.projector_init == "identity":
            self.model.skip_random_projectors()
        self.post_init()
        if next(self.parameters()).is_meta:  # from_pretrained: the weights are loaded afterwards
            return
        if config.projector_init == "identity":
            self.model.init_identity()
        if self.calibrator is not None:
            self.calibrator.init_identity()

    def _init_weights(self, module):
        # Called for the heads only: encoders are PreTrainedModels, which initialise their own weights.
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if "weight" in name:
                    init.normal_(parameter, mean=0.0, std=std)
                else:
                    init.zeros_(parameter)

    @property
    def encoder(self) -> PreTrainedModel:
        """Text encoder, or the whole backbone of an encoder-decoder."""
        return self.model.backbone

    def encoder_modules(self) -> list[nn.Module]:
        """Return the encoders; all other modules are heads.

        Returns
        -------
        list of torch.nn.Module
            The text encoder, and the label encoder if it is another module.
        """
        return self.model.encoder_modules()

    @torch.no_grad()
    def divide_logits(self, temperature: float) -> None:
        """Divide all logits by a temperature, which is stored in the logit scale if there is one.

        Otherwise, it is stored in the calibrator. A new one with a constant inverse temperature is added if needed.

        Parameters
        ----------
        temperature : float
            Positive temperature.
        """
        if self.calibrator is not None:
            self.calibrator.divide(temperature)
        elif self.model.scales_logits:
            self.model.logit_scale.div_(temperature)
        else:
            config, beta = self.config, 1.0 / temperature
            config.use_calibrator, config.calibrator_use_bias, config.calibrator_hidden_size = True, False, 1
            config.calibrator_beta_max = max(3.0, 2 * beta)
            self.calibrator = Calibrator(config).to(self.device, self.dtype)
            self.calibrator.init_constant(beta)

    def get_input_embeddings(self):
        """Return the token embeddings of the text encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value):
        """Replace the token embeddings of the text encoder."""
        self.encoder.set_input_embeddings(value)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info=False, **kwargs):
        """Load a checkpoint, as other models of transformers do; missing and mismatched weights raise an error.

        Parameters
        ----------
        pretrained_model_name_or_path : str or Path
            Folder, or name on the Hugging Face hub.
        *model_args
            See ``PreTrainedModel.from_pretrained``.
        output_loading_info : bool, default=False
            See ``PreTrainedModel.from_pretrained``.
        **kwargs
            See ``PreTrainedModel.from_pretrained``.

        Returns
        -------
        GLiClassModel
            The model. Its weights are copies, which later changes of the file do not affect.

        Raises
        ------
        ValueError
            If the checkpoint is not a GLiClass model, or its weights do not match its configuration.
        """
        if isinstance(pretrained_model_name_or_path, str):
            pretrained_model_name_or_path = os.path.expanduser(pretrained_model_name_or_path)
        kwargs = {"trust_remote_code": False, "ignore_mismatched_sizes": True, **kwargs}
        with seed_torch(0):
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        model, info = loaded
        if pretrained_model_name_or_path is not None:
            source = f"The checkpoint {str(pretrained_model_name_or_path)!r}"
            if has_one_name_of_ties(model, info) and os.path.isdir(pretrained_model_name_or_path):
                # Old versions of transformers look for each name of tied weights in the file.
                weights = read_weights(Path(pretrained_model_name_or_path))
                model = cls.from_weights(model.config, weights, source).to(model.dtype)
                info = {**info, "missing_keys": set()}
            check_loaded(model, info, source)
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.clone()  # no longer a view of the mapped file
        keep_names(model)
        return (model, info) if output_loading_info else model

    @classmethod
    def from_weights(cls, config, weights: dict[str, Tensor], source: str):
        """Build a model from a state dict.

        Parameters
        ----------
        config : GLiClassModelConfig
            Configuration of the model.
        weights : dict of str to Tensor
            State dict; tied weights may be in it under one of their names. The tensors are not copied.
        source : str
            Origin of the weights, for error messages.

        Returns
        -------
        GLiClassModel
            The model, in evaluation mode.
        """
        filled = fill_shared(weights, skeleton(cls, config).shared, source)
        return load_weights(cls, config, filled, source)

    def save_pretrained(self, save_directory, state_dict=None, for_gliclass=True, **kwargs):
        """Write ``config.json`` and ``model.safetensors``.

        Parameters
        ----------
        save_directory : str or Path
            Folder to write.
        state_dict : dict of str to Tensor, optional
            Weights to write. If None, those of the model.
        for_gliclass : bool, default=True
            Whether the package ``gliclass`` can load the folder too. It reads text encoder and label encoder under
            names of their own, so that tied encoders are written twice. If False, they are written once.
        **kwargs
            See ``PreTrainedModel.save_pretrained``.

        Raises
        ------
        ValueError
            If the weights do not match the configuration, for example because the model has an adapter.
        """
        folder = Path(save_directory).expanduser()
        is_tied = self.config.tie_encoders
        if state_dict is None:
            state_dict = named_weights(self)
            if is_tied:
                # The format holds no tensor under two names: copies, or one name.
                of_labels = [name for name in state_dict if name.startswith(_LABEL_ENCODER)]
                for name in of_labels:
                    tensor = state_dict.pop(name)
                    state_dict.update({name: tensor.clone()} if for_gliclass else {})
        with silence_transformers():
            super().save_pretrained(folder, state_dict=state_dict, **kwargs)
        if is_tied and not for_gliclass:
            _remove_label_encoder(folder / "config.json")

    @torch.no_grad()
    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        """Resize the token embeddings of the text encoder.

        Parameters
        ----------
        new_num_tokens : int, optional
            New number of token embeddings. If None, nothing is resized.
        pad_to_multiple_of : int, optional
            Pad the number of token embeddings to a multiple of this one.
        mean_resizing : bool, default=True
            Whether new embeddings are the mean of the old ones. If False, they are random.

        Returns
        -------
        torch.nn.Embedding
            The resized embeddings.
        """
        old: Any = self.get_input_embeddings().weight
        n_old, mean = old.shape[0], old.mean(dim=0)
        embeddings = self.encoder.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing=False)
        if mean_resizing and embeddings.num_embeddings > n_old:
            embeddings.weight[n_old:] = mean
        self.config.vocab_size = embeddings.num_embeddings
        self.config.encoder_config.get_text_config().vocab_size = embeddings.num_embeddings
        return embeddings

    def forward(
        self, input_ids=None, attention_mask=None, labels=None, sample_weight=None, class_ids=None, **inputs
    ) -> GLiClassOutput:
        """Compute the logits of the labels of each text, and the loss.

        Parameters
        ----------
        input_ids, attention_mask : LongTensor of shape (batch, length)
            Tokens of the texts, with the label prompt in the uni-encoder and the fused bi-encoder.
        labels : Tensor, optional
            Targets: positions of the true labels (batch,) among the labels of each text, or indicators, probabilities
            or values (batch, labels). With several targets, probabilities (batch, targets, labels), which are negative
            at the labels of other targets. If None, no loss is computed.
        sample_weight : Tensor of shape (batch,), (batch, labels) or (batch, targets), optional
            Weights of the texts, or of each of their labels or targets, in the loss.
        class_ids : LongTensor of shape (batch,) or (batch, targets), optional
            Class of each text for the contrastive loss over texts, with `labels` of shape (batch,) or
            (batch, targets, labels). Negative values are unknown classes.
        **inputs
            Further inputs, which depend on the architecture. ``class_input_ids`` and ``class_attention_mask`` are the
            tokens of the labels in the bi-encoders, (labels, length) if all texts share their labels, else
            (batch, labels, length); in the encoder-decoder they are the label prompts (batch, length).
            ``labels_mask`` (batch, labels) is true for real labels. ``class_index`` (batch, labels) selects the labels
            of each text among shared ones, with -1 for none. ``labels_at_once`` is the number of labels that are scored
            at a time. With ``window_index`` (batch,), the rows are windows of the texts with these numbers, in
            ascending order; the logits of a text are their mean, or with ``takes_max`` their maximum. ``gather`` is a
            function that replaces logits, embeddings of texts and labels, and the mask of the labels by those of all
            processes that share a batch, to which `labels`, `sample_weight` and `class_ids` then belong. Cached hidden
            states can replace token ids; see :meth:`Architecture.score_states`.

        Returns
        -------
        GLiClassOutput
            Loss, logits and embeddings.
        """
        inputs |= {"labels": labels, "sample_weight": sample_weight, "class_ids": class_ids}
        inputs["calibrator"] = self.calibrator
        if "text_states" in inputs:
            return self.model.score_states(**inputs)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs)


ARCHITECTURES = {
    "uni-encoder": UniEncoder,
    "bi-encoder": BiEncoder,
    "bi-encoder-fused": FusedBiEncoder,
    "encoder-decoder": EncoderDecoder,
    "encoder-decoder-cls": EncoderDecoderCls,
    "decoder-kv": DecoderKV,
}


def _remove_label_encoder(path: Path) -> None:
    """Remove a tied label encoder from ``config.json``: gliclass raises without it, and would use random weights."""
    fields = read_json(path)
    for name in ("label_model_config", "label_model_name"):
        fields.pop(name, None)
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


AutoModel.register(GLiClassModelConfig, GLiClassModel, exist_ok=True)
