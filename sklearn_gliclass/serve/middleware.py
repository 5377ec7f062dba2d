"""ASGI middleware around the app: limits on the body, request ids, metrics and logs."""

import asyncio
import json
import logging
import time
import uuid

from .batch_queue import BatchQueue, QueueClosedError, QueueFullError
from .limits import Limits
from .metrics import Metrics

logger = logging.getLogger("sklearn_gliclass.serve")

# A body of up to this multiple of its limit is received and discarded before the answer: a client that still sends when
# the connection is closed may not see the answer.
_DISCARDED = 8


class RequestError(Exception):
    """Error that is answered with a status and a reason.

    Parameters
    ----------
    status : int
        HTTP status.
    detail : str
        Reason.
    **headers
        Further headers, with underscores for hyphens.
    """

    def __init__(self, status: int, detail: str, **headers):
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}


def overload_error(error: Exception) -> RequestError:
    """Return the answer for a full queue, or for a server that shuts down."""
    if isinstance(error, QueueFullError):
        return RequestError(503, str(error), retry_after=error.retry_after)
    return RequestError(503, "The server shuts down; send the request to another one.", retry_after=5)


class RequestMiddleware:
    """Middleware that reads the body of a request within the limits, counts and logs the request.

    Parameters
    ----------
    app : ASGI application
        The app.
    queue : BatchQueue
        While it is full, POST requests are answered with 503 before their body is parsed.
    limits : Limits
        Limits on the body.
    metrics : Metrics
        Metrics of the requests.
    paths : frozenset of str
        Paths of the routes; all others are counted together.
    """

    def __init__(self, app, queue: BatchQueue, limits: Limits, metrics: Metrics, paths: frozenset[str]):
        self.app, self.queue, self.limits, self.metrics, self.paths = app, queue, limits, metrics, paths

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, request_id, status = time.perf_counter(), uuid.uuid4().hex, 0

        async def send_with_id(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            try:
                receive = await self._read(scope, receive)
            except RequestError as error:
                await send_error(send_with_id, error)
            else:
                await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("error", extra={"request_id": request_id})
            if not status:
                await send_error(send_with_id, RequestError(500, f"Internal error; see the log, request {request_id}."))
        finally:
            self._record(scope, status or 499, time.perf_counter() - start, request_id)

    def _record(self, scope, status: int, seconds: float, request_id: str) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        self.metrics.observe_request(path, status, seconds)
        extra = {
            "request_id": request_id,
            "method": scope["method"][:20],
            "path": scope["path"][:200],
            "status": status,
            "milliseconds": round(1000 * seconds, 2),
            "client": (scope.get("client") or ("",))[0],
            **{name: scope["state"][name] for name in ("texts", "labels") if name in scope["state"]},
        }
        level = logging.DEBUG if path in ("/health", "/metrics") and status < 400 else logging.INFO
        logger.log(level, "request", extra=extra)

    async def _read(self, scope, receive):
        """Read the body, and return a `receive` that gives it to the app."""
        try:
            body = await asyncio.wait_for(self._body(scope, receive), self.limits.body_timeout)
        except asyncio.TimeoutError:  # the built-in one from Python 3.11 on
            detail = f"The body did not arrive within {self.limits.body_timeout:g} s; send it faster."
            raise RequestError(408, detail, connection="close") from None
        if scope["method"] == "POST":
            try:
                self.queue.check_room()
            except (QueueFullError, QueueClosedError) as error:
                raise overload_error(error) from None
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return waiting.pop() if waiting else await receive()

        return replay

    async def _body(self, scope, receive) -> bytes:
        limit, headers = self.limits.max_body_bytes, dict(scope["headers"])
        if b"content-length" in headers and b"transfer-encoding" in headers:  # request smuggling
            detail = "Content-Length and Transfer-Encoding exclude each other; send one of them."
            raise RequestError(400, detail, connection="close")
        declared = headers.get(b"content-length", b"0")[:20]
        if not declared.isdigit() or int(declared) > _DISCARDED * limit:
            raise self._too_large()
        body, size, more = bytearray(), 0, True  # no list of parts: a client may send each byte by itself
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has left
                raise RequestError(400, "The body is incomplete.", connection="close")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= limit:
                body += part
            elif size > _DISCARDED * limit:
                raise self._too_large()
        if size > limit:
            raise self._too_large()
        return bytes(body)

    def _too_large(self) -> RequestError:
        limit = self.limits.max_body_bytes
        detail = f"The body is larger than {limit} bytes; send fewer or shorter texts per request."
        return RequestError(413, detail, connection="close")


async def send_error(send, error: RequestError) -> None:
    """Answer with the status and the reason of an error, as JSON."""
    body = json.dumps({"detail": error.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
