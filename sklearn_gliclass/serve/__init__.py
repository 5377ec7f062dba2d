"""HTTP server of a fitted estimator, on FastAPI: ``create_app`` and ``python -m sklearn_gliclass.serve FOLDER``.

FastAPI, uvicorn and prometheus_client are imported at the first use; the extra ``serve`` installs them.
"""

from sklearn.utils.validation import check_is_fitted

from ..base import BaseGLiClass
from ..optional_dependencies import import_optional
from .limits import Limits

__all__ = ["create_app"]


def create_app(
    estimator,
    *,
    max_batch=64,
    max_wait=0.002,
    max_queue=2048,
    request_timeout=30.0,
    max_body_bytes=2**20,
    body_timeout=10.0,
    max_texts=256,
    max_characters=20_000,
    max_labels=100,
    max_label_characters=200,
    max_label_sets=32,
):
    """Create an ASGI app that serves a fitted estimator.

    ``POST /predict`` predicts texts, ``POST /predict_proba`` gives probabilities, ``POST /labels`` classifies zero-shot
    among the labels of the request, ``GET /labels`` lists the labels of the model. Regressors have ``/predict`` only.
    ``GET /health`` says whether the server accepts requests, ``GET /metrics`` gives metrics for Prometheus, and
    ``/docs`` describes all of them. Concurrent requests are computed together, in one thread.

    Parameters
    ----------
    estimator : GLiClassClassifier or GLiClassRegressor
        A fitted estimator.
    max_batch : int, default=64
        Number of texts from which on a batch is full. Each label of a new label set counts as a text.
    max_wait : float, default=0.002
        Maximum number of seconds that a request waits for others, while no batch is computed.
    max_queue : int, default=2048
        Maximum number of texts in the queue. When it is full, requests are answered with 503 and ``Retry-After``.
    request_timeout : float, default=30.0
        Maximum number of seconds from the end of a request's body to its answer; a later one is answered with 503.
    max_body_bytes : int, default=1048576
        Maximum size of a body; a larger one is answered with 413.
    body_timeout : float, default=10.0
        Maximum number of seconds in which a body must arrive; a slower one is answered with 408.
    max_texts : int, default=256
        Maximum number of texts or rows in a request; more are answered with 422.
    max_characters : int, default=20000
        Maximum number of characters of a text; longer ones are answered with 422.
    max_labels : int, default=100
        Maximum number of labels in a request.
    max_label_characters : int, default=200
        Maximum number of characters of a label.
    max_label_sets : int, default=32
        Number of label sets whose embeddings are kept in memory; the least recently used one is dropped.

    Returns
    -------
    fastapi.FastAPI
        The app, for uvicorn and other ASGI servers.

    Raises
    ------
    ImportError
        If the extra ``serve`` is not installed.
    TypeError
        If `estimator` is not an estimator of this package.
    ValueError
        If a limit is not valid.

    Examples
    --------
    >>> from sklearn_gliclass import GLiClassClassifier
    >>> from sklearn_gliclass.serve import create_app
    >>> clf = GLiClassClassifier().fit(None, ["sports", "politics"])
    >>> app = create_app(clf, max_texts=100)  # doctest: +SKIP
    """
    if not isinstance(estimator, BaseGLiClass):
        raise TypeError(
            f"create_app serves a GLiClassClassifier or GLiClassRegressor, got {type(estimator).__name__}; of a "
            "pipeline or search, pass the fitted estimator inside it."
        )
    check_is_fitted(estimator)
    limits = Limits(
        max_batch, max_wait, max_queue, request_timeout, max_body_bytes, body_timeout, max_texts, max_characters,
        max_labels, max_label_characters, max_label_sets,
    )  # fmt: skip
    for library in ("fastapi", "prometheus_client"):
        import_optional(library, "serve", "sklearn_gliclass.serve")
    from .app import build_app

    return build_app(estimator, limits)
