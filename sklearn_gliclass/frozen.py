"""Encoder states of many texts: each computed once, or read from `memory`; and logits from them."""

import importlib.metadata
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from tqdm.auto import tqdm

from .data.batching import to_device, token_budget_batches
from .data.dataset import TextDataset
from .data.states import TEXT, StateDataset, States, state_inputs
from .inference import PROGRESS_FROM, InferenceEngine, _unique
from .memory import Collection, key_of, open_collection
from .model.fingerprint import fingerprint
from .model.precision import autocast, weight_dtype
from .model.states import embed_states, heads_read_tokens, text_states

BATCHES_AT_ONCE = 64  # whose states are held in memory in prediction
LABELS_AT_ONCE = 256

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
        self.labels_apart = self.model.config.architecture_type == "bi-encoder"

    # -- prediction ------------------------------------------------------------------------------------------

    def logits(self, texts):
        """Logits of shape (n_texts, n_labels)."""
        label_states = self.label_states() if self.labels_apart else None
        chunks = self._chunks()

        def score(states, rows, chunk):
            # The label encoder's states are all there; the others hold the labels of their own prompt.
            order = chunk if self.labels_apart else np.arange(len(chunk))
            inputs = state_inputs([states], rows, order, self.chunk_size, label_states)
            return self.model(**to_device(inputs, self.model.device, weight_dtype(self.dtype))).logits

        if self.labels_apart:
            return self._from_states(texts, [(chunks[0], chunks)], self.n_labels, score)
        return self._from_states(texts, [(chunk, [chunk]) for chunk in chunks], self.n_labels, score)

    def embeddings(self, texts):
        """Pooled text states of shape (n_texts, hidden size of the encoder)."""
        width = self.model.config.encoder_width

        def embed(states, rows, columns):
            inputs = to_device(states.batch(rows), self.model.device, weight_dtype(self.dtype))
            return embed_states(self.model.model, **{name: tensor.unsqueeze(1) for name, tensor in inputs.items()})

        return self._from_states(texts, [(self._chunks()[0], [np.arange(width)])], width, embed)

    @torch.no_grad()
    def _from_states(self, texts, plan, n_columns: int, function) -> np.ndarray:
        """`plan`: label prompts to read states under, and for each of them the sets of columns to compute."""
        self.model.eval()
        unique, inverse = _unique(texts)
        tokens = self.layout.tokenize(unique)
        # The batches of InferenceEngine: the same sums in the same order.
        order = np.array(sorted(range(len(unique)), key=lambda row: (tokens.lengths[row], unique[row])), np.int64)
        result = torch.empty(len(unique), n_columns, dtype=weight_dtype(self.dtype))
        cut = np.zeros(len(unique), bool)
        with self._bar(len(unique) * len(plan)) as bar:
            for prompt, column_sets in plan:
                cut |= self.layout.is_cut(tokens.lengths, prompt)
                for rows, batches in self._groups(tokens, order, prompt):
                    states = self._states(tokens, rows, prompt, False)
                    for batch, columns in itertools.product(batches, column_sets):
                        with autocast(self.model.device, self.dtype):
                            output = function(states, np.arange(len(rows))[batch], columns)
                        result[rows[batch], columns[0] : columns[-1] + 1] = output.to("cpu", result.dtype)
                    bar.update(len(rows))
        self.n_cut = int(cut[inverse].sum())
        return result.numpy()[inverse]

    def _bar(self, total: int):
        return tqdm(total=total, desc="predict", unit="text", disable=not self.progress or total < PROGRESS_FROM)

    def _groups(self, tokens, order, chunk) -> Iterator[tuple[np.ndarray, list[slice]]]:
        """Rows of some batches at a time, and where in them the batches are."""
        lengths = self.layout.sequence_lengths(tokens.lengths[order], chunk)
        batches = list(token_budget_batches(lengths, self.max_batch_tokens))
        for first in range(0, len(batches), BATCHES_AT_ONCE):
            group = batches[first : first + BATCHES_AT_ONCE]
            start = group[0].start
            rows = order[start : group[-1].stop]
            yield rows, [slice(batch.start - start, batch.stop - start) for batch in group]

    # -- training --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def freeze(self, dataset: TextDataset) -> StateDataset:
        """The data set with states in place of token ids."""
        self.model.eval()
        tokens = dataset.tokens
        place: dict[bytes, int] = {}
        index = np.array([place.setdefault(tokens[row].tobytes(), len(place)) for row in range(len(tokens))])
        first = np.unique(index, return_index=True)[1]  # of each distinct text
        order = np.array(sorted(first, key=lambda row: (tokens.lengths[row], tokens[row].tobytes())), np.int64)
        prompts = []
        for chunk in self._chunks()[:1] if self.labels_apart else self._chunks():
            groups = self._groups(tokens, order, chunk)
            every_layer = self.model.config.layer_wise
            prompts.append(States.concatenate([self._states(tokens, rows, chunk, every_layer) for rows, _ in groups]))
        rank = np.empty(len(order), np.int64)
        rank[index[order]] = np.arange(len(order))
        return StateDataset(dataset, prompts, rank[index], self.label_states() if self.labels_apart else None)

    # -- states ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def label_states(self) -> torch.Tensor:
        """States (labels, hidden) of the label encoder."""
        collection = self._collection(self._describe_labels)
        states = []
        for chunk in self._chunks():
            for first in range(0, len(chunk), LABELS_AT_ONCE):
                part = chunk[first : first + LABELS_AT_ONCE]
                keys = [key_of(self.layout.label_sequences[label].tobytes()) for label in part]

                def compute(missing, part=part):
                    return self._encode_labels(part[missing])

                states.append(self._read_or_compute(collection, keys, compute))
        return States.concatenate(states).arrays[TEXT]

    def _encode_labels(self, labels: np.ndarray) -> States:
        inputs = self._tensors(self.layout.label_batch(labels))
        with autocast(self.model.device, self.dtype):
            return States.pack({TEXT: self.model.model.label_states(**inputs).to(weight_dtype(self.dtype))})

    def _states(self, tokens, rows: np.ndarray, chunk: np.ndarray, every_layer: bool) -> States:
        """States of some texts beside the labels of a chunk."""
        collection = self._collection(self._describe_texts, chunk, every_layer)
        keys = self._keys(tokens, rows, chunk)

        def compute(missing):
            return self._encode(tokens, rows[missing], chunk, every_layer)

        return self._read_or_compute(collection, keys, compute)

    @staticmethod
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
        shared = {} if self.labels_apart else self._shared_inputs(chunk)
        lengths = self.layout.sequence_lengths(tokens.lengths[rows], chunk)

        def function(**inputs):
            return text_states(self.model.model, every_layer, **inputs)

        parts = []
        for batch in token_budget_batches(lengths, self.max_batch_tokens):
            for _, states in self._forward(function, tokens, rows[batch], chunk, shared):
                parts.append(States.pack({name: _plain(tensor, self.dtype) for name, tensor in states.items()}))
        return States.concatenate(parts)

    # -- keys ------------------------------------------------------------------------------------------------

    def _keys(self, tokens, rows, chunk) -> list[bytes]:
        """A text is known by the ids that are left of it beside the labels."""
        room = self.layout.text_room(self.layout.prompt_length(chunk))
        return [key_of(tokens[row][:room].tobytes()) for row in rows]

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
            "tokens": heads_read_tokens(config),
            "every_layer": every_layer,
            "labels": labels,
            "frame": [layout.pieces.prefix.tolist(), layout.pieces.suffix.tolist()],
        }

    def _describe_labels(self) -> dict:
        config = self.model.config
        return {
            **self._describe(config.label_model_config, [self.model.model.label_encoder]),
            "options": {"labels_apart": True, "pooling_strategy": config.pooling_strategy},
        }

    def _describe(self, encoder_config, modules) -> dict:
        encoder = {name: value for name, value in encoder_config.to_dict().items() if name not in _ORIGIN}
        return {
            "weights": [fingerprint(module) for module in modules],
            "encoder": encoder,
            "dtype": self.dtype,
            "device": self.model.device.type,
            "versions": [importlib.metadata.version(name) for name in ("torch", "transformers")],
        }


def _plain(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    return tensor.to(weight_dtype(dtype)) if tensor.is_floating_point() else tensor
