"""The FastAPI app of a fitted estimator."""

import asyncio
import contextlib
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sklearn.base import is_regressor
from starlette.exceptions import HTTPException

from .._version import __version__
from .answers import class_names, classified, is_multi_label, predictions, probabilities
from .batch_queue import BatchQueue, QueueClosedError, QueueFullError
from .label_sets import LabelSetError, LabelSets
from .limits import Limits
from .metrics import Metrics
from .middleware import RequestError, RequestMiddleware, overload_error
from .schemas import (
    Health,
    LabelledPredictions,
    Labels,
    Predictions,
    Probabilities,
    Problem,
    read_inputs,
    request_models,
)

logger = logging.getLogger("sklearn_gliclass.serve")

_SHOWN_ERRORS = 3
_PROBLEMS = {
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "The request is not valid; the reason is in `detail`."},
    503: {"model": Problem, "description": "Overload: try again after the seconds of `Retry-After`."},
}


class Service:
    """Estimator, queue, label sets and metrics of an app.

    Parameters
    ----------
    estimator : GLiClassClassifier or GLiClassRegressor
        A fitted estimator.
    limits : Limits
        Limits of the server.
    """

    def __init__(self, estimator, limits: Limits):
        self.estimator, self.limits = estimator, limits
        self.label_sets = None if is_regressor(estimator) else LabelSets(estimator, limits.max_label_sets)
        self.queue = BatchQueue(
            self._compute,
            limits.max_batch,
            limits.max_wait,
            limits.max_queue,
            lambda *n: self.metrics.observe_batch(*n),
        )
        self.metrics = Metrics(self.queue, self.label_sets)

    def _observe(self, n_requests: int, n_texts: int, seconds: float) -> None:
        self.metrics.observe_batch(n_requests, n_texts, seconds)

    def _compute(self, key: tuple, inputs: list) -> list:
        """Compute a batch, in the thread of the queue."""
        kind, labels = key
        if kind == "predict" or self.label_sets is None:
            return predictions(self.estimator, inputs)
        compute = probabilities if kind == "predict_proba" else classified
        return compute(self.label_sets.get(labels), inputs)

    async def answer(self, request: Request, body, kind: str, labels: tuple | None = None) -> list:
        """Queue a request and return its results."""
        try:
            inputs = read_inputs(body, self.estimator, self.limits)
        except (TypeError, ValueError) as error:
            raise RequestError(422, str(error)) from error
        known = self.label_sets
        new_labels = 0 if labels is None or known is None or labels in known else len(labels)
        request.state.texts, request.state.labels = len(inputs), len(labels or ())
        try:
            future = self.queue.submit((kind, labels), inputs, len(inputs) + new_labels)
            return await self._wait(request, future)
        except (QueueFullError, QueueClosedError) as error:
            raise overload_error(error) from error
        except LabelSetError as error:
            raise RequestError(422, str(error)) from error

    async def _wait(self, request: Request, future: asyncio.Future) -> list:
        """Wait for the results; a request whose client has left is removed from the queue."""
        has_left = asyncio.ensure_future(_disconnection(request))
        try:
            await asyncio.wait(
                {future, has_left}, timeout=self.limits.request_timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            has_left.cancel()
            if not future.done():
                future.cancel()
        if future.cancelled():
            if has_left.done() and not has_left.cancelled():
                raise RequestError(499, "The client has closed the connection.")
            raise RequestError(
                503,
                f"The request waited longer than {self.limits.request_timeout:g} s; try again later.",
                retry_after=self.queue.retry_after,
            )
        return future.result()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def build_app(estimator, limits: Limits) -> FastAPI:
    """Build the app; see :func:`sklearn_gliclass.serve.create_app`."""
    service = Service(estimator, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        service.queue.start()
        logger.info("ready", extra={"estimator": type(estimator).__name__, "version": __version__})
        yield
        await service.queue.close()
        logger.info("stopped")

    app = FastAPI(
        title=f"sklearn_gliclass: {type(estimator).__name__}",
        version=__version__,
        description=_description(estimator, limits),
        lifespan=lifespan,
        redirect_slashes=False,  # the address of the redirection would be that of the request's Host header
    )
    _add_state_routes(app, service)
    _add_prediction_routes(app, service)
    app.exception_handler(RequestError)(_request_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    paths: frozenset[Any] = frozenset(getattr(route, "path", None) for route in app.routes) - {None}
    app.add_middleware(RequestMiddleware, queue=service.queue, limits=limits, metrics=service.metrics, paths=paths)
    return app


def _description(estimator, limits: Limits) -> str:
    what = "Regression" if is_regressor(estimator) else "Classification"
    return (
        f"{what} of texts. Requests that arrive together are computed together. At most {limits.max_texts} texts per "
        f"request, {limits.max_characters} characters per text and {limits.max_body_bytes} bytes per body. When the "
        "queue is full, the answer is 503, and `Retry-After` says when to try again."
    )


def _add_state_routes(app: FastAPI, service: Service) -> None:
    estimator, queue, metrics = service.estimator, service.queue, service.metrics

    @app.get("/health", response_model=Health, summary="State of the server", tags=["state"])
    async def health():
        is_alive = queue.is_alive
        content = {
            "status": "ok" if is_alive else "stopping",
            "estimator": type(estimator).__name__,
            "version": __version__,
            "queued": queue.queued_cost,
        }
        return JSONResponse(content, 200 if is_alive else 503)

    @app.get("/metrics", summary="Metrics for Prometheus", tags=["state"], response_class=Response)
    async def prometheus():
        return Response(metrics.render(), media_type=metrics.content_type)


def _add_prediction_routes(app: FastAPI, service: Service) -> None:
    estimator = service.estimator
    request_model, labelled_model = request_models(estimator, service.limits)
    options = {"responses": _PROBLEMS, "tags": ["prediction"]}

    @app.post("/predict", response_model=Predictions, summary="Predict texts", **options)
    async def predict(body: request_model, request: Request):  # pyright: ignore[reportInvalidTypeForm]
        return JSONResponse({"predictions": await service.answer(request, body, "predict")})

    if is_regressor(estimator):
        return

    @app.post("/predict_proba", response_model=Probabilities, summary="Probabilities of the classes", **options)
    async def predict_proba(body: request_model, request: Request):  # pyright: ignore[reportInvalidTypeForm]
        rows = await service.answer(request, body, "predict_proba")
        return JSONResponse({"labels": class_names(estimator), "probabilities": rows})

    @app.get("/labels", response_model=Labels, summary="Labels of the model", tags=["state"])
    async def labels():
        return JSONResponse({"labels": class_names(estimator), "multi_label": is_multi_label(estimator)})

    @app.post("/labels", response_model=LabelledPredictions, summary="Zero-shot among labels of the request", **options)
    async def classify(body: labelled_model, request: Request):  # pyright: ignore[reportInvalidTypeForm]
        chosen = tuple(body.labels)
        rows, found = zip(*await service.answer(request, body, "classify", chosen), strict=True)
        return JSONResponse({"labels": list(chosen), "probabilities": rows, "predictions": found})


# -- errors ---------------------------------------------------------------------------------------


async def _request_error(request: Request, error: RequestError) -> Response:
    return JSONResponse({"detail": error.detail}, error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = str(error.detail)
    if error.status_code == 400:  # FastAPI's only one: errors of the decoder
        detail = "The body cannot be read: it must be JSON in UTF-8, without deep nesting or compression."
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    """Answer with the places and reasons of the first errors, without the values, which may be large."""
    errors = error.errors()
    if not _is_json(request) and errors[0]["loc"] == ("body",):
        return JSONResponse({"detail": "Send the body as JSON, with the header content-type: application/json."}, 422)
    if errors[0]["type"] == "json_invalid":
        detail = f"The body is not valid JSON, at character {errors[0]['loc'][-1]}: {errors[0]['ctx']['error']}."
        return JSONResponse({"detail": detail}, 422)
    shown = [f"{_place(item['loc'])}: {item['msg']}" for item in errors[:_SHOWN_ERRORS]]
    more = f"; and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    detail = "; ".join(shown) + more + ". See /docs for the format."
    return JSONResponse({"detail": detail.encode("utf-8", "replace").decode()}, 422)


def _is_json(request: Request) -> bool:
    return "json" in request.headers.get("content-type", "").lower()


def _place(location: tuple) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{str(part)[:50]}" for part in location if part != "body"]
    return "".join(parts).removeprefix(".") or "body"
