"""Encoder states of many texts: each computed once, or read from `memory`; and logits from them."""

import functools
import importlib.metadata
from collections.abc import Iterator

import numpy as np
import torch

from .data.batching import to_device, token_budget_batches
from .data.dataset import TextDataset
from .data.states import LABELS, TEXT, StateDataset, States, state_inputs
from .inference import InferenceEngine
from .memory import Collection, key_of, open_collection
from .model.fingerprint import fingerprint
from .model.precision import weight_dtype

BATCHES_AT_ONCE = 64  # whose states are held in memory in prediction

# The options that change what the encoders give or how it is read; the weights and the sequences count besides.
STATE_OPTIONS = (
    "architecture_type", "pooling_strategy", "class_token_pooling", "embed_class_token", "extract_text_features",
    "prompt_first", "encoder_layer_id", "squeeze_layers", "class_token_index", "text_token_index",
)  # fmt: skip
# Fields of an encoder's configuration that tell where it came from.
_ORIGIN = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


class StateEngine(InferenceEngine):
    """Runs encoders and heads apart, the encoders once for each text.

    Parameters
    ----------
    *args, **kwargs
        As in :class:`InferenceEngine`.
    location : str, optional
        Folder in which the states are kept; None: nowhere.
    """

    def __init__(self, *args, location=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.location = location
        self._fingerprints = {}  # an engine lives for one call, in which the weights stay as they are
        self.labels_apart = self.model.config.architecture_type == "bi-encoder"

    # -- prediction ------------------------------------------------------------------------------------------

    def embeddings(self, texts):
        """Pooled text states of shape (n_texts, hidden size of the encoder)."""
        width = self.model.config.encoder_width
        return self._run(texts, width, lambda states: states, self.model.model.embed_states, one_chunk=True)

    def _shared_inputs(self, chunk):
        return {LABELS: self.label_states()} if self.labels_apart else {}  # others have them beside their texts

    def _batches(self, function, tokens, chunk, shared):
        device, dtype = self.model.device, weight_dtype(self.dtype)
        labels = np.arange(len(chunk))
        for rows, batches in self._groups(tokens, chunk, np.arange(len(tokens))):
            states = self._states(tokens, rows, chunk)
            for batch in batches:
                inputs = state_inputs([states], np.arange(batch.start, batch.stop), labels, len(labels), **shared)
                with self.products:
                    output = function(**to_device(inputs, device, dtype))
                yield rows[batch], output

    def _groups(self, tokens, chunk, rows) -> Iterator[tuple[np.ndarray, list[slice]]]:
        """Some batches at a time, the same as those of the plain engine: their rows, and where in these each is."""
        order, batches = self._plan(tokens.lengths[rows], chunk)
        for first in range(0, len(batches), BATCHES_AT_ONCE):
            group = batches[first : first + BATCHES_AT_ONCE]
            start = group[0].start
            yield rows[order[start : group[-1].stop]], [slice(b.start - start, b.stop - start) for b in group]

    # -- training --------------------------------------------------------------------------------------------

    def freeze(self, dataset: TextDataset) -> StateDataset:
        """The data set with states in place of token ids."""
        self.model.eval()
        tokens = dataset.tokens
        contents = np.array([tokens[row].tobytes() for row in range(len(tokens))], object)
        _, first, index = np.unique(contents, return_index=True, return_inverse=True)
        prompts = []
        for chunk in self._chunks():
            rows = [group for group, _ in self._groups(tokens, chunk, first)]
            states = [self._states(tokens, group, chunk, self.model.config.layer_wise) for group in rows]
            place = np.empty(len(tokens), np.int64)
            place[np.concatenate(rows)] = np.arange(len(first))
            prompts.append(States.concatenate(states).take(place[first]))
        if not self.labels_apart:
            return StateDataset(dataset, prompts, index)
        # A dot product with all labels costs next to nothing, and is better; other scorers work on each pair.
        samples_labels = self.model.config.scorer_type != "simple"
        return StateDataset(dataset, prompts, index, self.label_states(), samples_labels)

    # -- states ----------------------------------------------------------------------------------------------

    def label_states(self) -> torch.Tensor:
        """Label states (labels, hidden), of the text encoder's width."""
        keys = [key_of(sequence.tobytes()) for sequence in self.layout.label_sequences]
        return self._read_or_compute(self._collection(self._describe_labels), keys, self._encode_labels).arrays[TEXT]

    def _encode_labels(self, labels: np.ndarray) -> States:
        return States.pack({TEXT: self._pool_labels(labels)}, weight_dtype(self.dtype))

    def _states(self, tokens, rows: np.ndarray, chunk: np.ndarray, every_layer=False) -> States:
        """States of some texts beside the labels of a chunk."""
        room = self.layout.text_room(self.layout.prompt_length(chunk))
        # A text is known by the ids that are left of it beside the labels.
        keys = [key_of(tokens[row][:room].tobytes()) for row in rows]

        def compute(missing):
            return self._encode(tokens, rows[missing], chunk, every_layer)

        return self._read_or_compute(self._collection(self._describe_texts, chunk, every_layer), keys, compute)

    @staticmethod
    @torch.inference_mode(False)  # states that prediction has computed may be trained on
    @torch.no_grad()
    def _read_or_compute(collection: Collection | None, keys: list[bytes], compute) -> States:
        found, states = (np.zeros(len(keys), bool), None) if collection is None else collection.read(keys)
        missing = np.flatnonzero(~found)
        if len(missing) == 0:
            return states
        new = compute(missing)
        if collection is not None:
            collection.write([keys[row] for row in missing], new)
        if states is None:
            return new
        order = np.concatenate([np.flatnonzero(found), missing])
        return States.concatenate([states, new]).take(np.argsort(order))

    def _encode(self, tokens, rows, chunk, every_layer) -> States:
        shared = super()._shared_inputs(chunk) if self.model.config.architecture_type == "bi-encoder-fused" else {}
        lengths = self.layout.sequence_lengths(tokens.lengths[rows], chunk)
        function = functools.partial(self.model.model.text_states, every_layer=every_layer)
        parts = []
        for batch in token_budget_batches(lengths, self.max_batch_tokens):
            for _, states in self._forward(function, tokens, rows[batch], chunk, shared):
                parts.append(States.pack(states, weight_dtype(self.dtype)))
        return States.concatenate(parts)

    # -- keys ------------------------------------------------------------------------------------------------

    def _collection(self, describe, *args) -> Collection | None:
        return None if self.location is None else open_collection(self.location, describe(*args))

    def _describe_texts(self, chunk, every_layer: bool) -> dict:
        config, layout = self.model.config, self.layout
        labels = [] if self.labels_apart else [layout.prompt(chunk).tolist()]
        if hasattr(layout, "label_sequences") and not self.labels_apart:
            labels += [layout.label_sequences[i].tolist() for i in chunk]
        return {
            **self._describe(config.encoder_config, self.model.model.state_modules()),
            "options": {name: getattr(config, name) for name in STATE_OPTIONS},
            "tokens": self.model.model.heads_read_tokens,
            "every_layer": every_layer,
            "labels": labels,
            "frame": [layout.pieces.prefix.tolist(), layout.pieces.suffix.tolist()],
        }

    def _describe_labels(self) -> dict:
        config = self.model.config
        return {
            **self._describe(config.label_model_config, self.model.model.label_modules()),
            "options": {"labels_apart": True, "pooling_strategy": config.pooling_strategy},
        }

    def _describe(self, encoder_config, modules) -> dict:
        encoder = {name: value for name, value in encoder_config.to_dict().items() if name not in _ORIGIN}
        for module in modules:
            if module not in self._fingerprints:
                self._fingerprints[module] = fingerprint(module)
        return {
            "weights": [self._fingerprints[module] for module in modules],
            "encoder": encoder,
            "dtype": self.dtype,
            "device": self.model.device.type,
            "versions": [importlib.metadata.version(name) for name in ("torch", "transformers")],
        }
