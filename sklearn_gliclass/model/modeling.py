"""GLiClassModel: the torch model with the checkpoint format of transformers."""

import os

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .bi_encoder import BiEncoder, FusedBiEncoder
from .config import GLiClassModelConfig
from .encoder_decoder import EncoderDecoder
from .loading import isolated, load_weights, quiet_transformers
from .options import resolve
from .outputs import GLiClassOutput
from .uni_encoder import UniEncoder
from .weights import check_loaded, fill_shared, named_weights, skeleton


class GLiClassModel(PreTrainedModel):
    """A GLiClass model of any architecture.

    Parameters
    ----------
    config : GLiClassModelConfig
        What to build.
    encoder, label_encoder : torch.nn.Module, optional
        Encoders that are loaded already; without them they are built from the configuration, with random
        weights.

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
        self.post_init()
        # On the meta device (from_pretrained) there is nothing to start: the weights come from the file.
        if config.projector_init == "identity" and not self.model.logit_scale.is_meta:
            self.model.init_identity()

    def _init_weights(self, module):
        # Encoders are PreTrainedModels and start as they define it: this sees the heads only.
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
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
    def encoder(self) -> nn.Module:
        """The text encoder, or the whole encoder-decoder backbone."""
        return self.model.backbone

    def encoder_modules(self) -> list[nn.Module]:
        """The pretrained parts; everything else is a head."""
        return self.model.encoder_modules()

    def get_input_embeddings(self):
        """Token embeddings of the text encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value):
        """Replace the token embeddings of the text encoder."""
        self.encoder.set_input_embeddings(value)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info=False, **kwargs):
        """Load a checkpoint as transformers does; weights that are missing or do not fit raise.

        Parameters
        ----------
        pretrained_model_name_or_path : str or Path
            A folder, or a name on the Hugging Face hub.
        *model_args, output_loading_info, **kwargs
            See ``PreTrainedModel.from_pretrained``.

        Returns
        -------
        GLiClassModel
            Its weights are its own: later changes of the file do not reach them.

        Raises
        ------
        ValueError
            The checkpoint is not a GLiClass model, or its weights are not those that its configuration describes.
        """
        if isinstance(pretrained_model_name_or_path, str):
            pretrained_model_name_or_path = os.path.expanduser(pretrained_model_name_or_path)
        kwargs = {"trust_remote_code": False, "ignore_mismatched_sizes": True, **kwargs}
        with isolated():
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        if pretrained_model_name_or_path is not None:
            check_loaded(model, info, f"The checkpoint {str(pretrained_model_name_or_path)!r}")
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.data.clone()  # no longer a view of the mapped file
        return (model, info) if output_loading_info else model

    @classmethod
    def from_weights(cls, config, weights: dict[str, Tensor], source: str):
        """Build a model around weights that are in memory.

        Parameters
        ----------
        config : GLiClassModelConfig
            Its configuration.
        weights : dict of str to Tensor
            Under the names of the state dict; of tied weights one name is enough. They become the model's own.
        source : str
            Where they came from, for messages.

        Returns
        -------
        GLiClassModel
            In evaluation mode.
        """
        filled = fill_shared(weights, skeleton(cls, config).shared, source)
        return load_weights(cls, config, filled, source)

    def save_pretrained(self, save_directory, state_dict=None, **kwargs):
        """Write ``config.json`` and ``model.safetensors``; tied encoders stand there under both names.

        Parameters
        ----------
        save_directory : str or Path
            The folder.
        state_dict : dict of str to Tensor, optional
            Weights to write. Default: those of the model.
        **kwargs
            See ``PreTrainedModel.save_pretrained``.

        Raises
        ------
        ValueError
            The configuration does not build the weights that the model has, for example with an adapter in it.
        """
        if state_dict is None:
            state_dict = named_weights(self)
            if self.config.tie_encoders:
                label_encoder = "model.label_encoder."
                state_dict = {
                    name: tensor.clone() if name.startswith(label_encoder) else tensor
                    for name, tensor in state_dict.items()
                }
        with quiet_transformers():
            super().save_pretrained(os.path.expanduser(save_directory), state_dict=state_dict, **kwargs)

    @torch.no_grad()
    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        """Resize the text encoder's embeddings; with `mean_resizing` new rows are the mean of the old ones."""
        old = self.get_input_embeddings().weight
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
        """Score the labels of each text.

        Parameters
        ----------
        input_ids, attention_mask : LongTensor of shape (batch, length)
            The text; uni-encoder and fused: with its prompt.
        labels : Tensor, optional
            Targets: (batch,) positions of the true labels, or (batch, labels) indicators, probabilities or
            values; positions are those of the sample's own labels.
        sample_weight : Tensor of shape (batch,) or (batch, labels), optional
            Weights of the loss.
        class_ids : LongTensor of shape (batch,), optional
            The samples' classes, the same number for the same class, where ``labels`` are positions: the
            contrastive loss over the texts reads them.
        **inputs
            ``class_input_ids`` and ``class_attention_mask``: the labels, (labels, length) for a batch that
            shares them or (batch, labels, length) in the bi-encoders, and the label prompts (batch, length)
            in the encoder-decoder. ``labels_mask`` (batch, labels): true for real labels. ``class_index``
            (batch, labels): which of the shared labels are a sample's own, -1 for none. ``labels_at_once``:
            score at most so many labels together. In place of token ids: cached hidden states, ``text_states``,
            ``label_states`` and so on, see :meth:`Architecture.score_states`.

        Returns
        -------
        GLiClassOutput
        """
        inputs |= {"labels": labels, "sample_weight": sample_weight, "class_ids": class_ids}
        if "text_states" in inputs:
            return self.model.score_states(**inputs)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs)


ARCHITECTURES = {
    "uni-encoder": UniEncoder,
    "bi-encoder": BiEncoder,
    "bi-encoder-fused": FusedBiEncoder,
    "encoder-decoder": EncoderDecoder,
}
