"""Prediction with exported models: onnxruntime, tokenizers and NumPy, without torch, transformers and scikit-learn.

The folders are written by ``export_onnx`` of the estimators. The packages are installed by the extra ``onnx``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from . import json_values
from .abstention import KNOWN_THRESHOLD, Evidence, answer_unknown, check_unknown_label
from .annotations import ArrayOrList
from .data.batching import TEXTS_AT_ONCE, distinct_texts, label_chunks, plan_batches
from .data.label_groups import LabelGroups, predict_outputs
from .data.prompt import LAYOUTS, Layout
from .data.tokenizer import PieceTokenizer, TokenizedTexts
from .data.windows import LONG_TEXTS, TRUNCATE, read_windows
from .model.folders import read_unchanged
from .model.locks import ForkSafeLock
from .optional_dependencies import import_optional
from .text_checks import check_encodable, check_texts
from .warn import warn_truncation

__all__ = ["OnnxClassifier", "OnnxRegressor"]

SETTINGS_FILE = "onnx.json"
TOKENIZER_FILE, LABEL_TOKENIZER_FILE = "tokenizer.json", "label_tokenizer.json"
LABEL_EMBEDDINGS_FILE = "label_embeddings.npy"
FORMAT = 1
MULTI_LABEL = "multi_label_classification"
LABELS_AT_ONCE = 256  # labels per pass of the label encoder


@dataclass
class Settings:
    """Content of ``onnx.json``, except for the fitted attributes.

    Attributes
    ----------
    estimator : str
        "classifier" or "regressor".
    architecture_type, prompt_first, class_token_pooling, embed_class_token, extract_text_features
        Hyperparameters of the model.
    class_token_index, text_token_index : int
        Token ids of ``<<LABEL>>`` and ``<<SEP>>``.
    special_ids, label_special_ids : dict or None
        Token ids "pad" and "unk" of the tokenizers of texts and labels. None if they share one.
    label_names : list of str
        Label texts.
    max_length : int
        Maximum number of tokens of a sequence.
    labels_at_once : int or None
        Maximum number of labels in a prompt, or scored at a time. If None, all.
    max_batch_tokens : int
        Maximum number of tokens in a batch, padding included.
    quantized : bool
        Whether the encoders have weights of int8.
    versions : dict of str to str
        Versions of the packages that exported the model.
    long_texts : {"auto", "truncate", "mean", "max"}
        How texts are read that are too long for a sequence.
    window_overlap : int
        Minimum number of common tokens of neighbouring windows.
    graphs_sha256 : str
        Hash of all graphs and their weights.
    """

    estimator: str
    architecture_type: str
    prompt_first: bool
    class_token_pooling: str
    embed_class_token: bool
    extract_text_features: bool
    class_token_index: int
    text_token_index: int
    special_ids: dict
    label_special_ids: dict | None
    label_names: list
    max_length: int
    labels_at_once: int | None
    max_batch_tokens: int
    quantized: bool
    versions: dict
    long_texts: str = TRUNCATE  # folders of earlier versions have no windows
    window_overlap: int = 0
    graphs_sha256: str = ""  # folders of earlier versions have none


def write_settings(settings: Settings, fitted: dict, folder: Path) -> None:
    """Write ``onnx.json``.

    Parameters
    ----------
    settings : Settings
        The settings.
    fitted : dict
        Fitted attributes, of types that ``json_values`` can store.
    folder : Path
        Folder of the exported model.
    """
    record = {"format": FORMAT, **asdict(settings), "fitted": json_values.encode(fitted)}
    (folder / SETTINGS_FILE).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> tuple[Settings, dict]:
    """Read ``onnx.json``, and return the settings and the fitted attributes.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no exported model.
    ValueError
        If the file is damaged, or another version of the package wrote it.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        what = f"has no {SETTINGS_FILE}" if folder.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"The folder {str(folder)!r} {what}; give the folder that export_onnx of an estimator has written."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record.pop("format")
        if version == FORMAT:
            fitted = json_values.decode(record.pop("fitted"))
            settings = Settings(**record)
            _check_settings(settings)
            return settings, fitted
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); export the estimator again.") from error
    raise ValueError(
        f"{str(path)!r} has format {version!r}, and this version of sklearn_gliclass reads format {FORMAT}; export the "
        "estimator again with this version."
    )


def _check_settings(settings: Settings) -> None:
    for field in fields(settings):
        value, kinds = getattr(settings, field.name), field.type.split(" | ")
        if type(value).__name__ not in [kind.replace("None", "NoneType") for kind in kinds]:
            raise ValueError(f"{field.name} must be of type {field.type}, got {value!r}")
    if settings.long_texts not in LONG_TEXTS:
        raise ValueError(f"long_texts must be one of {list(LONG_TEXTS)}, got {settings.long_texts!r}")
    if settings.architecture_type not in LAYOUTS:
        raise ValueError(f"architecture_type must be one of {sorted(LAYOUTS)}, got {settings.architecture_type!r}")


# -- the model ---------------------------------------------------------------------------------------------------


class Sessions:
    """Sessions of onnxruntime for the graphs of a folder, created at first use. Pickle does not store them.

    Parameters
    ----------
    folder : Path
        Folder of the exported model.
    n_threads : int or None
        Number of threads of a session. If None, onnxruntime chooses.
    graphs_sha256 : str
        Hash of the graphs in the settings of the model. Graphs of a later export to the folder raise.
    """

    def __init__(self, folder: Path, n_threads: int | None, graphs_sha256: str = ""):
        self.folder = folder
        self.n_threads = n_threads
        self.graphs_sha256 = graphs_sha256
        self._sessions = {}
        self._lock = ForkSafeLock()

    def __getstate__(self):
        return {"folder": self.folder, "n_threads": self.n_threads, "graphs_sha256": self.graphs_sha256}

    def __setstate__(self, state):
        self.__init__(**state)

    def __getitem__(self, name: str):
        """Return the session of a graph."""
        with self._lock.hold():
            if name not in self._sessions:
                path = self.folder / f"{name}.onnx"
                self._sessions[name] = read_unchanged(self.folder, lambda: self._create(path))
            return self._sessions[name]

    def _create(self, path: Path):
        import onnxruntime

        if read_settings(self.folder)[0].graphs_sha256 != self.graphs_sha256:
            raise OSError(
                f"The folder {str(self.folder)!r} holds a later export, with other graphs than this model, which needs "
                f"{path.name} now; load the model again."
            )
        if not path.is_file():
            raise FileNotFoundError(f"The file {str(path)!r} is missing; export the estimator again.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        if self.n_threads is not None:
            options.intra_op_num_threads = self.n_threads
        try:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own exceptions have no common base class
            raise ValueError(f"{str(path)!r} is damaged ({error}); export the estimator again.") from error

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a graph, and return its outputs by name; inputs that it does not have are left out."""
        session = self[name]
        outputs = [output.name for output in session.get_outputs()]
        given = {tensor.name: inputs[tensor.name] for tensor in session.get_inputs()}
        return dict(zip(outputs, session.run(outputs, given), strict=True))


class BackendTokenizer:
    """The part of a tokenizer of transformers that :class:`PieceTokenizer` uses.

    Parameters
    ----------
    path : Path
        The file ``tokenizer.json``.
    special_ids : dict
        Token ids "pad" and "unk".
    """

    def __init__(self, path: Path, special_ids: dict):
        try:
            self.backend_tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare exceptions
            raise ValueError(f"{str(path)!r} cannot be read ({error}); export the estimator again.") from error
        self.pad_token_id = special_ids["pad"]
        self.unk_token_id = special_ids["unk"]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a token."""
        return self.backend_tokenizer.token_to_id(token)


class OnnxModel:
    """An exported model: token ids, batches and graphs of a list of labels.

    Parameters
    ----------
    folder : Path
        Folder of the exported model.
    settings : Settings
        Its settings.
    n_threads : int or None
        Number of threads of a session.

    Attributes
    ----------
    n_truncated : int
        Number of texts of the last call that were truncated.
    """

    def __init__(self, folder: Path, settings: Settings, n_threads: int | None = None):
        self.settings = settings
        self.sessions = Sessions(folder, n_threads, settings.graphs_sha256)
        self.pieces = PieceTokenizer(BackendTokenizer(folder / TOKENIZER_FILE, settings.special_ids))
        self.label_pieces = self.pieces
        if settings.label_special_ids is not None:
            tokenizer = BackendTokenizer(folder / LABEL_TOKENIZER_FILE, settings.label_special_ids)
            self.label_pieces = PieceTokenizer(tokenizer)
        self.layout = self.build_layout(settings.label_names)
        path = folder / LABEL_EMBEDDINGS_FILE
        self.label_embeddings = np.load(path, allow_pickle=False) if path.is_file() else None
        # Of the labels to which the model may be fitted; the exported graph embeds any others.
        self.exported_labels = self._embedded_labels()
        self.graph = "text" if self.layout.shares_labels else "model"
        # A later export to the folder does not change predictions. The graph "labels" would double the memory, and only
        # new labels need it.
        for name in [self.graph, "scorer"] if self.layout.shares_labels else [self.graph]:
            _ = self.sessions[name]

    def build_layout(self, label_names: Sequence[str]) -> Layout:
        """Build the layout of the sequences of some labels."""
        layout = LAYOUTS[self.settings.architecture_type]
        return layout(self.settings, self.pieces, label_names, self.settings.max_length, self.label_pieces)

    def with_label_names(self, label_names: Sequence[str]) -> OnnxModel:
        """Return a model with other labels, on the same sessions."""
        other = object.__new__(OnnxModel)
        other.__dict__ = {**self.__dict__, "layout": self.build_layout(label_names)}
        if self.label_embeddings is not None:
            texts, known = other.layout.label_texts, self.exported_labels | self._embedded_labels()
            new = [index for index, label in enumerate(texts) if label not in known]
            if new:
                known |= dict(zip((texts[i] for i in new), other.embed_labels(new), strict=True))
            other.label_embeddings = np.array([known[label] for label in texts])
        return other

    def _embedded_labels(self) -> dict[str, np.ndarray]:
        if self.label_embeddings is None:
            return {}
        return dict(zip(self.layout.label_texts, self.label_embeddings, strict=True))

    def embed_labels(self, labels: Sequence[int] | None = None) -> np.ndarray:
        """Compute the projected embeddings (labels, hidden) of all labels or some, for the bi-encoders."""
        chosen = np.arange(len(self.layout.label_texts)) if labels is None else np.array(labels, int)
        parts = np.split(chosen, range(LABELS_AT_ONCE, len(chosen), LABELS_AT_ONCE))
        inputs = (self.layout.label_inputs([part]) for part in parts)
        return np.concatenate([self.sessions.run("labels", batch)["classes"] for batch in inputs])

    @property
    def _chunks(self) -> list[np.ndarray]:
        """Labels that are scored together: those of a prompt, if there are prompts."""
        return label_chunks(len(self.layout.label_texts), self.settings.labels_at_once)

    def logits(self, texts: Sequence[str]) -> tuple[np.ndarray, int]:
        """Compute the logits (n_texts, n_labels), and return them with the number of truncated texts.

        Distinct texts are computed once, in the order of the inference engine of the estimators.
        """
        settings, n_labels = self.settings, len(self.layout.label_texts)
        n_at_once = settings.labels_at_once or n_labels
        unique, inverse = distinct_texts(texts)
        result = np.empty((len(unique), n_labels), np.float32)
        truncated = np.zeros(len(unique), bool)
        # The plain bi-encoder encodes a text once for all labels.
        prompts = [np.concatenate(self._chunks)] if self.layout.shares_labels else self._chunks
        for first in range(0, len(unique), TEXTS_AT_ONCE):
            block = slice(first, first + TEXTS_AT_ONCE)
            tokens = self.layout.tokenize(unique[block])
            windows = read_windows(self.layout, tokens, settings.long_texts, settings.window_overlap, n_at_once)
            for labels in prompts:
                columns = slice(labels[0], labels[-1] + 1)
                if windows is None:
                    truncated[block] |= self.layout.is_truncated(tokens, labels)
                    result[block, columns] = self._score_texts(tokens, labels)
                else:
                    values = self._score_texts(windows.tokens, labels)
                    result[block, columns] = windows.join(values, settings.long_texts)
        return result[inverse], int(truncated[inverse].sum())

    def _score_texts(self, tokens: TokenizedTexts, labels: np.ndarray) -> np.ndarray:
        """Compute the logits (texts, labels) of many texts, in batches."""
        logits = np.empty((len(tokens), len(labels)), np.float32)
        order, batches = plan_batches(self.layout.sequence_lengths(tokens, labels), self.settings.max_batch_tokens)
        for rows in (order[batch] for batch in batches):
            logits[rows] = self._score([tokens[row] for row in rows], labels)
        return logits

    def _score(self, texts: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Compute the logits (texts, labels) of a batch of token ids."""
        inputs = self.layout.text_batch(texts, [labels] * len(texts))
        if self.layout.shares_labels and self.label_embeddings is not None:
            text = self.sessions.run(self.graph, inputs)
            parts = [{**text, "classes": self.label_embeddings[chunk]} for chunk in self._chunks]
            return np.concatenate([self.sessions.run("scorer", part)["logits"] for part in parts], axis=1)
        in_sequence = "class_input_ids" not in inputs
        prompt = inputs["input_ids" if in_sequence else "class_input_ids"]
        mask = inputs["attention_mask" if in_sequence else "class_attention_mask"]
        inputs["label_weights"] = weigh_label_tokens(self.settings, prompt, mask, len(labels))
        inputs["text_mask"] = mask_text_tokens(self.settings, inputs["input_ids"], inputs["attention_mask"])
        if self.label_embeddings is not None:
            inputs["classes"] = self.label_embeddings[labels]
        return self.sessions.run(self.graph, inputs)["logits"]


def weigh_label_tokens(settings: Settings, ids: np.ndarray, mask: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the weight of each token in the embedding of each label, (batch, labels, length) in float32.

    The same as ``class_states`` of the torch model: the weight is 1 at the label token, or with the pooling "average",
    1 / n at each of the n tokens of the label.
    """
    is_class = ids == settings.class_token_index
    fused = settings.architecture_type == "bi-encoder-fused"
    if settings.class_token_pooling == "first" or fused:
        _, columns = is_class.nonzero()
        columns = columns.reshape(len(ids), n_labels)
        if not settings.embed_class_token and not fused:
            columns = np.minimum(columns + 1, ids.shape[1] - 1)
        return (columns[:, :, None] == np.arange(ids.shape[1])).astype(np.float32)
    outside = (ids == settings.text_token_index).cumsum(axis=1).astype(bool) | ~mask.astype(bool)
    if not settings.embed_class_token:
        outside |= is_class
    owner = np.where(outside, 0, is_class.cumsum(axis=1))  # k for the tokens of the k-th label
    spans = (owner[:, None, :] == np.arange(1, n_labels + 1)[:, None]).astype(np.float32)
    return spans / np.maximum(spans.sum(axis=2, keepdims=True), 1)


def mask_text_tokens(settings: Settings, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mask of the tokens that the text is pooled from, as ``mask_text`` of the torch model does."""
    if not settings.extract_text_features:
        return mask
    if settings.prompt_first:
        after = (ids == settings.text_token_index).cumsum(axis=1).astype(bool)
        return (mask.astype(bool) & after).astype(np.int64)
    control = (ids == settings.class_token_index) | (ids == settings.text_token_index)
    return (mask.astype(bool) & ~control.cumsum(axis=1).astype(bool)).astype(np.int64)


# -- X and labels ------------------------------------------------------------------------------------------------


def _read_texts(X, name: str) -> list[str]:
    """Return the texts of a 1-D X, after checks."""
    if isinstance(X, (str, bytes)):
        raise ValueError(f"X must be a sequence of texts, got a single {type(X).__name__}; put it in a list: [text].")
    if getattr(X, "ndim", 1) != 1 or hasattr(X, "columns") or isinstance(X, Mapping) or not hasattr(X, "__iter__"):
        raise _not_texts(X, name)
    values = X.tolist() if hasattr(X, "tolist") else list(X)
    if not values:
        raise ValueError(f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by {name}.")
    if any(isinstance(value, (list, tuple, np.ndarray)) for value in values):
        raise _not_texts(X, name)
    return check_texts(values)


def _not_texts(X, name: str) -> ValueError:
    shape = getattr(X, "shape", None)
    what = type(X).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
    return ValueError(
        f"X must be 1-D texts, got {what}: {name} reads no tables. Pass the column that holds the texts, or use the "
        "estimator that was exported."
    )


def _read_labels(labels) -> tuple[np.ndarray, list[str]]:
    """Return the classes and the label texts of a list of labels or of {class: text}."""
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__iter__") or getattr(labels, "ndim", 1) != 1:
        raise TypeError(f"labels must be a list of labels, or a dict {{label: text}}, got {labels!r}.")
    texts = list(labels.values()) if isinstance(labels, Mapping) else [str(label) for label in labels]
    classes = np.asarray(list(labels))
    if len(texts) < 2 or classes.ndim != 1 or len(set(classes.tolist())) < len(texts):
        raise ValueError(f"labels must be at least 2 different labels, got {list(labels)!r}.")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"The text of each label must be a str with at least one word, got {text!r}.")
    check_encodable(texts, "The label texts", unit="position")
    return classes, texts


# -- estimators --------------------------------------------------------------------------------------------------


class _OnnxEstimator:
    """Base class: reads the folder and computes logits."""

    _kind: str
    _fitted_names: set[str]

    def __init__(self, folder, n_threads=None):
        import_optional("onnxruntime", "onnx", type(self).__name__)
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f"{type(self).__name__} takes the name of a folder, a str or Path, got {folder!r}.")
        if n_threads is not None and (not isinstance(n_threads, int) or isinstance(n_threads, bool) or n_threads < 1):
            raise ValueError(f"n_threads must be an integer of at least 1, or None, got {n_threads!r}.")
        path = Path(folder).expanduser().resolve()
        self._model, fitted = read_unchanged(path, lambda: self._load(path, n_threads))
        self._set_fitted(fitted)

    def _load(self, folder: Path, n_threads) -> tuple[OnnxModel, dict]:
        settings, fitted = read_settings(folder)
        if settings.estimator != self._kind:
            other = "OnnxRegressor" if settings.estimator == "regressor" else "OnnxClassifier"
            raise ValueError(
                f"{str(folder)!r} holds a {settings.estimator}; load it with {other} instead of {type(self).__name__}."
            )
        missing = sorted(self._fitted_names.difference(fitted))
        if missing:
            raise ValueError(f"{str(folder / SETTINGS_FILE)!r} has no {missing}; export the estimator again.")
        return OnnxModel(folder, settings, n_threads), fitted

    def _set_fitted(self, fitted: dict) -> None:
        raise NotImplementedError

    @property
    def label_names_(self) -> list[str]:
        return list(self._model.layout.label_texts)

    @property
    def max_length_(self) -> int:
        return self._model.settings.max_length

    def _logits(self, X) -> np.ndarray:
        texts = _read_texts(X, type(self).__name__)
        logits, n_truncated = self._model.logits(texts)
        warn_truncation(n_truncated, len(texts), self.max_length_)
        return logits


class OnnxClassifier(_OnnxEstimator):
    """Classifier in ONNX, as written by :meth:`sklearn_gliclass.GLiClassClassifier.export_onnx`.

    It predicts with onnxruntime, tokenizers and NumPy, and imports neither torch nor transformers nor scikit-learn. Its
    probabilities are those of the exported classifier.

    Parameters
    ----------
    folder : str or Path
        Folder of the exported model.
    n_threads : int or None, default=None
        Number of threads of a prediction. If None, as many as there are cores.

        Set it if several processes share a machine.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of ndarray
        Class labels, in the order of the probabilities; with several targets, a list with those of each.
    target_names_ : list
        Names of several targets. Only with several targets.
    label_names_ : list of str
        Text that the model reads for each class.
    max_length_ : int
        Maximum number of tokens of a sequence. Longer texts are truncated, with a warning.
    threshold_ : ndarray of shape () or (n_classes,)
        Decision threshold of multi-label predictions.
    unknown_label_ : str, number or None
        Answer of `predict` where no class fits; None if there is none.
    unknown_threshold_ : float
        Threshold of `known_proba` for it.

    See Also
    --------
    sklearn_gliclass.GLiClassClassifier : The classifier that is exported.
    OnnxRegressor : Regressor in ONNX.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.onnx import OnnxClassifier
    >>> from sklearn_gliclass.testing import TINY     # a tiny encoder, trained from scratch
    >>> folder = tempfile.mkdtemp()
    >>> clf = GLiClassClassifier(**TINY, random_state=0).fit(["good", "bad", "fine", "poor"], ["up", "down"] * 2)
    >>> difference = clf.export_onnx(folder)
    >>> OnnxClassifier(folder).predict_proba(["good", "bad"]).shape
    (2, 2)
    """

    _kind = "classifier"
    _fitted_names = {"classes", "threshold", "problem_type"}

    def _set_fitted(self, fitted):
        self.classes_ = fitted["classes"]
        self.threshold_ = fitted["threshold"]
        self._problem_type = fitted["problem_type"]
        self._logit_scale = fitted.get("logit_scale", 1.0)  # folders of earlier versions have no evidence
        self._evidence = Evidence(**fitted.get("evidence", {"is_cosine": False}))
        self.unknown_label_ = fitted.get("unknown_label")
        self.unknown_threshold_ = fitted.get("unknown_threshold", KNOWN_THRESHOLD)
        self._groups = None
        if isinstance(self.classes_, list):
            self.target_names_ = fitted["target_names"]
            self._groups = LabelGroups([len(classes) for classes in self.classes_])
            self._temperatures = fitted["temperature"].astype(np.float32)[self._groups.target_of_label]

    def _logits(self, X) -> np.ndarray:
        logits = super()._logits(X)
        return logits if self._groups is None else logits / self._temperatures

    def _check_has_one_target(self, method: str) -> None:
        if self._groups is not None:
            raise ValueError(
                f"{method} needs one target, and the classifier has {self.target_names_!r}; use the classifier that "
                "was exported, or export one for each target."
            )

    def with_labels(self, labels) -> OnnxClassifier:
        """Return a classifier on the same model with other labels, which it classifies by their names.

        Parameters
        ----------
        labels : array-like of shape (n_classes,), or dict
            The new classes, or {class: text that the model reads}.

        Returns
        -------
        OnnxClassifier
            The classifier. With a `threshold_` for each class, classes of this classifier keep theirs and others have
            0.5.
        """
        self._check_has_one_target("with_labels")
        classes, texts = _read_labels(labels)
        if self.unknown_label_ is not None:
            check_unknown_label(self.unknown_label_, classes)
        other = object.__new__(type(self))
        other.__dict__ = {**self.__dict__, "classes_": classes, "_model": self._model.with_label_names(texts)}
        if self.threshold_.ndim:
            known = dict(zip(self.classes_.tolist(), self.threshold_.tolist(), strict=True))
            other.threshold_ = np.array([known.get(value, 0.5) for value in classes.tolist()])
        return other

    def predict_proba(self, X) -> ArrayOrList:
        """Compute the probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or list of ndarray
            Probabilities, with columns in the order of `classes_`: the softmax over the logits, whose rows sum to 1, or
            for multi-label classifiers the sigmoid of each logit. With several targets, a list with those of each.
        """
        logits = self._logits(X)
        if self._groups is not None:
            return [self._probabilities(part) for part in self._groups.split(logits)]
        return self._probabilities(logits)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return compute_sigmoid(logits) if self._problem_type == MULTI_LABEL else compute_softmax(logits)

    def predict(self, X) -> np.ndarray:
        """Predict the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.

        Returns
        -------
        ndarray of shape (n_samples,), (n_samples, n_classes) for multi-label classifiers, or (n_samples, n_targets)
            The most probable class of each text, or `unknown_label_` where no class fits. For multi-label classifiers,
            an indicator matrix of the classes whose probability is at least `threshold_`. With several targets, the
            most probable class of each.
        """
        logits = self._logits(X)
        if self._problem_type == MULTI_LABEL:
            return (self._probabilities(logits) >= self.threshold_).astype(np.int64)
        if self._groups is not None:
            return predict_outputs(self._groups.split(logits), self.classes_)
        predicted = self.classes_[logits.argmax(axis=1)]
        if self.unknown_label_ is None:
            return predicted
        return answer_unknown(predicted, self._known_proba(logits) >= self.unknown_threshold_, self.unknown_label_)

    def known_proba(self, X) -> np.ndarray:
        """Compute the probability that one of the classes fits.

        It equals that of :meth:`sklearn_gliclass.GLiClassClassifier.known_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.

        Returns
        -------
        ndarray of shape (n_samples,)
            Probabilities.
        """
        self._check_has_one_target("known_proba")
        return self._known_proba(self._logits(X))

    def _known_proba(self, logits: np.ndarray) -> np.ndarray:
        if self._problem_type == MULTI_LABEL:
            return self._probabilities(logits).max(axis=1)
        return self._evidence.known_proba(logits, self._logit_scale)


class OnnxRegressor(_OnnxEstimator):
    """Regressor in ONNX, as written by :meth:`sklearn_gliclass.GLiClassRegressor.export_onnx`.

    It predicts with onnxruntime, tokenizers and NumPy, and imports neither torch nor transformers nor scikit-learn.

    Parameters
    ----------
    folder : str or Path
        Folder of the exported model.
    n_threads : int or None, default=None
        Number of threads of a prediction. If None, as many as there are cores.

        Set it if several processes share a machine.

    Attributes
    ----------
    target_names_ : list of str
        Names of the outputs.
    label_names_ : list of str
        Text that the model reads for each output.
    max_length_ : int
        Maximum number of tokens of a sequence. Longer texts are truncated, with a warning.

    See Also
    --------
    sklearn_gliclass.GLiClassRegressor : The regressor that is exported.
    OnnxClassifier : Classifier in ONNX.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_gliclass import GLiClassRegressor
    >>> from sklearn_gliclass.onnx import OnnxRegressor
    >>> from sklearn_gliclass.testing import TINY     # a tiny encoder, trained from scratch
    >>> folder = tempfile.mkdtemp()
    >>> reg = GLiClassRegressor(**TINY, random_state=0).fit(["good", "bad", "fine", "poor"], [5.0, 1.0, 4.0, 2.0])
    >>> difference = reg.export_onnx(folder)
    >>> OnnxRegressor(folder).predict(["good", "bad"]).shape
    (2,)
    """

    _kind = "regressor"
    _fitted_names = {"target_names", "factor", "offset", "one_dimensional"}

    def _set_fitted(self, fitted):
        self.target_names_ = fitted["target_names"]
        self._factor, self._offset = fitted["factor"], fitted["offset"]
        self._one_dimensional = fitted["one_dimensional"]

    def predict(self, X) -> np.ndarray:
        """Predict the values.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_outputs) where y was 2-D
            Predicted values, in the units of y.
        """
        values = self._logits(X).astype(np.float64) * self._factor + self._offset
        return values[:, 0] if self._one_dimensional else values


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def compute_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Compute the sigmoid, without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
