"""Classification of texts that grow: each call reads what is new and says what the whole text is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from .cache.labels import weight_versions
from .classifier import GLiClassClassifier
from .data.examples import NO_INSTRUCTIONS
from .data.prompt import DecoderLayout
from .data.windows import MAX, MEAN
from .fitted import FittedModel
from .inference import InferenceEngine
from .model.locks import ForkSafeLock
from .model.precision import weight_dtype
from .model.text_cache import EMPTY, CachedText, read_text
from .model.traversal import set_evaluation_mode
from .model.weights import unwrap
from .snapshots import take_snapshot

KEPT_ROOMS = 2  # longest text that is kept, in units of the tokens that a prediction reads


class StreamEngine(InferenceEngine):
    """Inference engine for one text, whose start is read already.

    Attributes
    ----------
    read : CachedText
        What is read of the text, by earlier calls and by this one.
    """

    layout: DecoderLayout
    read: CachedText = EMPTY

    @torch.inference_mode()
    def logits(self, texts):
        """Compute the logits, of shape (1, n_labels)."""
        set_evaluation_mode(self.model)
        tokens = self.layout.tokenize(list(texts))
        chunks = self._chunks()
        self.n_truncated = int(any(self.layout.is_truncated(tokens, chunk)[0] for chunk in chunks))
        with self.products:
            parts = [self._classify(tokens[0], chunk) for chunk in chunks]
        return torch.cat(parts, dim=1).to("cpu", weight_dtype(self.dtype)).numpy()

    def _classify(self, ids: np.ndarray, chunk: np.ndarray) -> torch.Tensor:
        """Compute the logits (1, labels) of the labels of a prompt."""
        head = self.model.model
        context = self.layout.context(ids, self.layout.prompt_length(chunk))
        text = read_text(head, self.read, context)
        if len(context) > len(self.read.ids) or not np.array_equal(context, self.read.ids[: len(context)]):
            self.read = text  # otherwise, it is a part of what is read already, truncated for a longer prompt
        prompt = torch.from_numpy(self.layout.prompt(chunk).astype(np.int64)).unsqueeze(0).to(self.model.device)
        return head.classify(prompt, text.extended(head), text.states, self.model.calibrator).logits


@dataclass
class StreamedModel(FittedModel):
    """Fitted model whose engine reads one text.

    Attributes
    ----------
    read : CachedText
        What is read of the text already.
    last_engine : StreamEngine
        Engine of the last prediction.
    """

    read: CachedText = EMPTY
    last_engine: StreamEngine = field(init=False, compare=False, repr=False)

    def engine(
        self, max_num_classes=None, max_batch_tokens=2048, dtype=None, instructions=NO_INSTRUCTIONS, **options
    ) -> StreamEngine:
        """Build the engine; the arguments are those of :meth:`FittedModel.engine`, and `memory` has no effect."""
        model = unwrap(self.model)
        dtype = dtype or ("float64" if model.dtype == torch.float64 else "float32")
        max_labels = self.labels_per_prompt(max_num_classes)
        layout = self.layout(instructions=instructions)
        self.last_engine = StreamEngine(model, layout, max_labels, max_batch_tokens, dtype)
        self.last_engine.read = self.read
        return self.last_engine


@dataclass(frozen=True)
class Session:
    """A text in progress.

    Attributes
    ----------
    text : str
        The text so far, without what is too long to be read.
    is_full : bool
        Whether the text is so long that further chunks are not read.
    read : CachedText
        What the decoder has read of it.
    """

    text: str = ""
    is_full: bool = False
    read: CachedText = EMPTY


class StreamingClassifier:
    """Classifier of texts that grow, such as transcripts and chats.

    Each call appends a chunk to a text and predicts as the classifier does for the whole text so far. The decoder reads
    only the new tokens and the labels: keys and values of the tokens before are kept.

    Parameters
    ----------
    classifier : GLiClassClassifier
        A fitted classifier with ``architecture_type="decoder-kv"``. Changes of its hyperparameters, weights and labels
        have an effect from the next call on.
    max_sessions : int, default=1000
        Maximum number of texts in progress.
    max_cache_bytes : int, default=1073741824
        Maximum memory of keys and values between two calls, in bytes. Those of the texts that were not used for the
        longest time are dropped, and computed again if the text goes on.

    Attributes
    ----------
    sessions : list
        The texts in progress, that of the last call last.

    See Also
    --------
    GLiClassClassifier : Classifier of whole texts.

    Notes
    -----
    The text so far is tokenised as a whole, so that chunks may end within a word. A text that is too long for
    `max_length` is truncated at the end, as in `predict`: further chunks change nothing and are not kept. Calls in
    several threads run one after the other.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier, StreamingClassifier
    >>> from sklearn_gliclass.testing import TINY, TINY_ENCODERS
    >>> decoder = {"encoder_config": TINY_ENCODERS["qwen3"], "architecture_type": "decoder-kv"}
    >>> clf = GLiClassClassifier(**{**TINY, **decoder}).fit(["a late goal", "a new law"], ["sports", "politics"])
    >>> stream = StreamingClassifier(clf)
    >>> for chunk in ["a la", "te go", "al"]:
    ...     label = stream.partial_predict("call 1", chunk)
    >>> label == clf.predict(["a late goal"])[0]
    True
    >>> stream.end("call 1")
    """

    def __init__(self, classifier: GLiClassClassifier, max_sessions: int = 1000, max_cache_bytes: int = 2**30):
        _read_classifier(classifier)
        for name, value in (("max_sessions", max_sessions), ("max_cache_bytes", max_cache_bytes)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")
        self.classifier = classifier
        self.max_sessions = max_sessions
        self.max_cache_bytes = max_cache_bytes
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()  # that of the last call last
        self._versions: tuple = ()
        self._lock = ForkSafeLock()

    @property
    def sessions(self) -> list:
        with self._lock.hold():
            return list(self._sessions)

    def partial_predict(self, session: Hashable, chunk: str) -> Any:
        """Append a chunk to a text and predict its class.

        Parameters
        ----------
        session : hashable
            Name of the text. A new name begins a new text.
        chunk : str
            What comes next in the text. It may be empty.

        Returns
        -------
        object, or ndarray of shape (n_classes,) or (n_targets,)
            The most probable class, for multi-label y the indicators of the classes, and for several targets the class
            of each: ``classifier.predict([text])[0]`` for the text so far.

        Raises
        ------
        TypeError
            If the chunk is not a str.
        ValueError
            If the session is new and there are `max_sessions` already.
        """
        return self._continue(session, chunk, "predict")

    def partial_predict_proba(self, session: Hashable, chunk: str) -> Any:
        """Append a chunk to a text and compute the probabilities of the classes.

        Parameters
        ----------
        session : hashable
            Name of the text. A new name begins a new text.
        chunk : str
            What comes next in the text. It may be empty.

        Returns
        -------
        ndarray of shape (n_classes,), or for several targets a list of them
            Probabilities in the order of `classes_`: ``classifier.predict_proba([text])[0]`` for the text so far.
        """
        return self._continue(session, chunk, "predict_proba")

    def text(self, session: Hashable) -> str:
        """Return a text as far as it is kept.

        Parameters
        ----------
        session : hashable
            Name of the text.

        Returns
        -------
        str
            The text, without what is too long to be read.

        Raises
        ------
        KeyError
            If there is no such session.
        """
        return self._find(session).text

    def end(self, session: Hashable) -> None:
        """End a text and release its memory.

        Parameters
        ----------
        session : hashable
            Name of the text.

        Raises
        ------
        KeyError
            If there is no such session.
        """
        with self._lock.hold():
            self._find(session)
            del self._sessions[session]

    def _find(self, session) -> Session:
        if session not in self._sessions:
            raise KeyError(f"There is no session {session!r}; the sessions are {self.sessions[:5]!r}.")
        return self._sessions[session]

    def _continue(self, session, chunk, method: str):
        if not isinstance(chunk, str):
            raise TypeError(f"chunk must be a str, the next part of the text, got {type(chunk).__name__}.")
        with self._lock.hold():
            classifier = _read_classifier(self.classifier)
            self._forget_other_weights(classifier.model_)
            if session not in self._sessions and len(self._sessions) >= self.max_sessions:
                raise ValueError(
                    f"There are {len(self._sessions)} sessions already, and max_sessions={self.max_sessions}; end some "
                    "with end(session), or raise max_sessions."
                )
            known = self._sessions.get(session, Session())
            current = known if known.is_full else replace(known, text=known.text + chunk)
            result, read = _predict(classifier, current, method)
            self._sessions[session] = _shorten(classifier.fitted_, replace(current, read=read))
            self._sessions.move_to_end(session)
            self._limit_memory()
            return result

    def _limit_memory(self) -> None:
        """Drop the keys and values of the sessions that were not used for the longest time."""
        total = sum(session.read.n_bytes for session in self._sessions.values())
        for name, session in self._sessions.items():
            if total <= self.max_cache_bytes:
                break
            total -= session.read.n_bytes
            self._sessions[name] = replace(session, read=EMPTY)

    def _forget_other_weights(self, model) -> None:
        """Drop all keys and values if the weights have changed."""
        versions = weight_versions([model])
        if versions != self._versions:
            self._sessions = OrderedDict((name, replace(s, read=EMPTY)) for name, s in self._sessions.items())
            self._versions = versions


def _predict(classifier: GLiClassClassifier, session: Session, method: str):
    """Return the prediction of a method of the classifier, and what was read of the text."""
    fitted = classifier.fitted_
    parts = {part.name: getattr(fitted, part.name) for part in fields(fitted) if part.init}
    streamed = StreamedModel(**parts, read=session.read)
    view = object.__new__(type(classifier))  # the classifier, with another engine
    vars(view).update(vars(classifier), fitted_=streamed)
    result = getattr(view, method)([session.text])
    row = [target[0] for target in result] if isinstance(result, list) else result[0]
    return row, streamed.last_engine.read


def _shorten(fitted: FittedModel, session: Session) -> Session:
    """Leave out what no prediction reads of a long text."""
    if session.is_full or len(session.text) <= KEPT_ROOMS * fitted.max_length:  # a token has at least one character
        return session
    spans = fitted.layout().pieces.spans(session.text)
    limit = KEPT_ROOMS * fitted.max_length
    return session if len(spans) <= limit else replace(session, text=session.text[: spans[limit][0]], is_full=True)


def _read_classifier(classifier) -> GLiClassClassifier:
    """Return a snapshot of a classifier, or raise if it cannot keep what it has read of a text."""
    if not isinstance(classifier, GLiClassClassifier):
        raise TypeError(f"classifier must be a GLiClassClassifier, got {type(classifier).__name__}.")
    classifier = take_snapshot(classifier)
    check_is_fitted(classifier)
    architecture = classifier.config_.architecture_type
    if architecture != "decoder-kv":
        raise ValueError(
            f"architecture_type={architecture!r} reads a text anew for each prediction; fit a classifier with "
            "architecture_type='decoder-kv', whose texts do not attend to what follows them."
        )
    if classifier.long_texts in (MEAN, MAX):
        raise ValueError(
            f"long_texts={classifier.long_texts!r} reads a long text in windows, which change as it grows; set "
            'long_texts="auto" or "truncate".'
        )
    return classifier
