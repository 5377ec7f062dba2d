"""Inference with separate passes of encoders and heads, on cached hidden states."""

import functools
import importlib.metadata
from collections.abc import Iterator

import numpy as np
import torch

from ..data.batching import to_device, token_budget_batches
from ..data.dataset import TextDataset
from ..inference import InferenceEngine
from ..model.fingerprint import fingerprint
from ..model.poolings import reads_all_tokens
from ..model.precision import weight_dtype
from ..model.traversal import set_evaluation_mode
from ..process_group import SINGLE, ProcessGroup
from .states import TEXT, HeldLabelsDataset, HiddenStates, StateDataset, state_inputs
from .store import Collection, compute_key, open_collection

MAX_LOWER_BYTES = 2**30  # of the hidden states of all tokens after the lower layers
BATCHES_AT_ONCE = 64  # number of batches whose hidden states prediction holds in memory
BATCHES_SHARED = 4  # number of batches after which a fit looks for what other processes have cached

# Poolings that are cached together if the encoder's pass has all they need: a search over them needs one pass.
CACHED_TOGETHER = ("avg", "max", "first")

# Options that the hidden states depend on, besides the weights and the token ids.
STATE_OPTIONS = (
    "architecture_type", "pooling_strategy", "class_token_pooling", "embed_class_token", "extract_text_features",
    "prompt_first", "encoder_layer_id", "squeeze_layers", "class_token_index", "text_token_index",
    "recurrent_read_text",
)  # fmt: skip
# Fields of an encoder's configuration that do not affect its output.
_ORIGIN = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")


class StateEngine(InferenceEngine):
    """Inference engine that runs the encoders once per text and the heads on the resulting hidden states.

    Parameters
    ----------
    *args, **kwargs
        As in :class:`InferenceEngine`.
    location : str, optional
        Folder of the cached hidden states. If None, they are not cached.
    """

    def __init__(self, *args, location=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.location = location
        self._fingerprints = {}  # an engine lives for one call, during which the weights are constant
        self.labels_separate = self.model.config.architecture_type == "bi-encoder"

    # -- prediction ------------------------------------------------------------------------------------------

    def embeddings(self, texts):
        """Return pooled text embeddings of shape (n_texts, hidden size of the encoder)."""
        width = self.model.config.encoder_width
        return self._run(texts, width, lambda states: states, self.model.model.embed_states, one_chunk=True)

    def _shared_inputs(self, chunk):
        return super()._shared_inputs(chunk) if self.labels_separate else {}  # else they are in the sequences

    def _label_states(self):
        return self.label_states().to(self.model.device) if self.labels_separate else super()._label_states()

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

    def _groups(self, tokens, chunk, rows, at_once=BATCHES_AT_ONCE) -> Iterator[tuple[np.ndarray, list[slice]]]:
        """Yield the batches of the plain engine, some at a time: their rows, and each batch as a slice of these."""
        order, batches = self._plan(tokens, chunk, rows)
        for first in range(0, len(batches), at_once):
            group = batches[first : first + at_once]
            start = group[0].start
            yield rows[order[start : group[-1].stop]], [slice(b.start - start, b.stop - start) for b in group]

    # -- training --------------------------------------------------------------------------------------------

    def freeze(self, dataset: TextDataset, group: ProcessGroup = SINGLE) -> StateDataset:
        """Encode a data set: hidden states in place of token ids; each process of a group encodes its share.

        Fits of other processes with the same cache, as in a search, share the work too: each fit encodes the texts in
        a random order, so that it soon finds what the others have encoded.
        """
        set_evaluation_mode(self.model)
        tokens = dataset.tokens
        contents = np.array([tokens[row].tobytes() for row in range(len(tokens))], object)
        _, first, index = np.unique(contents, return_index=True, return_inverse=True)
        prompts = []
        for chunk in self._chunks():
            at_once = 1 if group.size > 1 else BATCHES_AT_ONCE if self.location is None else BATCHES_SHARED
            parts = [part for part, _ in self._groups(tokens, chunk, first, at_once)]
            if group.size == 1:
                parts = [parts[number] for number in np.random.default_rng().permutation(len(parts))]
            encode = functools.partial(self._states, tokens, chunk=chunk, every_layer=self.model.config.layer_wise)
            states = group.map(encode, parts)
            place = np.empty(len(tokens), np.int64)
            place[np.concatenate(parts)] = np.arange(len(first))
            prompts.append(HiddenStates.concatenate(states).take(place[first]))
        if not self.labels_separate:
            return StateDataset(dataset, prompts, index)
        # A dot product with all labels is cheap and more accurate; other scorers compute each pair separately.
        samples_labels = self.model.config.scorer_type != "simple"
        return StateDataset(dataset, prompts, index, self.label_states(), samples_labels)

    def hold_labels(self, dataset: TextDataset, n_layers: int = 0) -> HeldLabelsDataset:
        """Encode the labels of a data set, and its texts up to layer `n_layers`, if the model and memory allow it."""
        set_evaluation_mode(self.model)
        labels = self.label_states()
        width, size = self.model.config.encoder_width, torch.finfo(weight_dtype(self.dtype)).bits // 8
        n_bytes = int(dataset.tokens.lengths.sum()) * width * size
        if not n_layers or not self.model.model.splits_layers or n_bytes > MAX_LOWER_BYTES:
            return HeldLabelsDataset(dataset, labels)
        return HeldLabelsDataset(dataset, labels, self._lower_states(dataset, n_layers), n_layers)

    @torch.no_grad()
    def _lower_states(self, dataset: TextDataset, n_layers: int) -> HiddenStates:
        def compute(input_ids, attention_mask):
            states = self.model.model.lower_states(input_ids, attention_mask, n_layers)
            return {TEXT: states.unsqueeze(2), "text_mask": attention_mask.bool()}

        order, parts = [], []
        for rows, states in super()._batches(compute, dataset.tokens, np.arange(self.n_labels), {}):
            order.append(rows)
            parts.append(HiddenStates.pack(states, weight_dtype(self.dtype)))
        return HiddenStates.concatenate(parts).take(np.argsort(np.concatenate(order)))

    # -- hidden states ---------------------------------------------------------------------------------------

    def label_states(self) -> torch.Tensor:
        """Return the labels' hidden states (labels, hidden), of the text encoder's width."""
        keys = [compute_key(sequence.tobytes()) for sequence in self.layout.label_sequences]
        return self._read_or_compute(self._collection(self._describe_labels), keys, self._encode_labels).arrays[TEXT]

    def _encode_labels(self, labels: np.ndarray) -> HiddenStates:
        return HiddenStates.pack({TEXT: self._pool_labels(labels)}, weight_dtype(self.dtype))

    def _states(self, tokens, rows: np.ndarray, chunk: np.ndarray, every_layer=False) -> HiddenStates:
        """Read or compute the hidden states of some texts under the prompt of a chunk of labels."""
        prompt_length = self.layout.prompt_length(chunk)
        # The key of a text is the hash of its token ids, truncated to the room beside the labels, and of its examples.
        pieces = (self.layout.pieces_of(tokens[row], prompt_length) for row in rows)
        keys = [compute_key(text.tobytes() + examples.tobytes()) for text, examples in pieces]

        def compute(missing):
            states = self._encode(tokens, rows[missing], chunk, every_layer)
            for pooling in self._other_poolings(every_layer):
                other = HiddenStates({TEXT: states.arrays.pop(pooling)})
                collection = self._collection(self._describe_texts, chunk, every_layer, pooling)
                if collection is not None:
                    collection.write([keys[row] for row in missing], other)
            return states

        return self._read_or_compute(self._collection(self._describe_texts, chunk, every_layer), keys, compute)

    @staticmethod
    @torch.inference_mode(False)  # training may use what prediction has cached
    @torch.no_grad()
    def _read_or_compute(collection: Collection | None, keys: list[bytes], compute) -> HiddenStates:
        found, states = (np.zeros(len(keys), bool), None) if collection is None else collection.read(keys)
        missing = np.flatnonzero(~found)
        if states is not None and len(missing) == 0:
            return states
        new = compute(missing)
        if collection is not None:
            collection.write([keys[row] for row in missing], new)
        if states is None:
            return new
        order = np.concatenate([np.flatnonzero(found), missing])
        return HiddenStates.concatenate([states, new]).take(np.argsort(order))

    def _encode(self, tokens, rows, chunk, every_layer) -> HiddenStates:
        shared = {} if self.labels_separate else super()._shared_inputs(chunk)
        lengths = self.layout.sequence_lengths(tokens, chunk)[rows]
        function = functools.partial(self.model.model.text_states, every_layer=every_layer)
        if poolings := self._other_poolings(every_layer):
            function = functools.partial(function, other_poolings=poolings)
        parts = []
        for batch in token_budget_batches(lengths, self.max_batch_tokens):
            for _, states in self._forward(function, tokens, rows[batch], chunk, shared):
                parts.append(HiddenStates.pack(states, weight_dtype(self.dtype)))
        return HiddenStates.concatenate(parts)

    def _other_poolings(self, every_layer: bool) -> list[str]:
        """Return the poolings whose results are cached beside those of the model."""
        own, head = self.model.config.pooling_strategy, self.model.model
        if self.location is None or every_layer or not self.labels_separate or head.heads_read_tokens:
            return []
        return [pooling for pooling in CACHED_TOGETHER if pooling != own] if reads_all_tokens(own) else []

    # -- keys ------------------------------------------------------------------------------------------------

    def _collection(self, describe, *args) -> Collection | None:
        return None if self.location is None else open_collection(self.location, describe(*args))

    def _describe_texts(self, chunk, every_layer: bool, pooling: str | None = None) -> dict:
        config, layout = self.model.config, self.layout
        labels = [] if self.labels_separate else [layout.prompt(chunk).tolist()]
        if hasattr(layout, "label_sequences") and not self.labels_separate:
            labels += [layout.label_sequences[i].tolist() for i in chunk]
        options = {name: getattr(config, name) for name in STATE_OPTIONS}
        if pooling is not None:
            options["pooling_strategy"] = pooling
        return {
            **self._describe(config.encoder_config, self.model.model.state_modules()),
            "options": options,
            "tokens": self.model.model.heads_read_tokens,
            "every_layer": every_layer,
            "labels": labels,
            "frame": [layout.prefix.tolist(), layout.suffix.tolist()],
        }

    def _describe_labels(self) -> dict:
        config = self.model.config
        return {
            **self._describe(config.label_model_config, self.model.model.label_modules()),
            "options": {"labels_separate": True, "pooling_strategy": config.pooling_strategy},
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
            "versions": _versions(),
        }


@functools.cache  # reading the metadata of a package takes 20 ms
def _versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("torch", "transformers")]
