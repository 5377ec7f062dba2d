"""HTTP connections with time and size limits that uvicorn leaves open: slow heads, and clients that do not read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # without httptools, it is another class with the same attributes
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as AutoHTTPProtocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

_MAX_HEAD_BYTES = 320 * 1024  # 64 KB, and one read of the transport, which may hold the body too


class LimitedProtocol(AutoHTTPProtocol):
    """Protocol of uvicorn that closes connections whose client does not send or does not read.

    Attributes
    ----------
    timeout : float
        Maximum number of seconds from the connection, or from the first byte of a request, to the end of its headers,
        and maximum number of seconds for which a client reads nothing of an answer.
    """

    timeout = 10.0
    _head_timer = None
    _write_timer = None
    _head_bytes = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self._start_head_timer()

    def data_received(self, data):
        before = self.cycle
        if self._waits_for_head():
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self.transport.abort()
                return
            self._start_head_timer()
        super().data_received(data)
        if self.cycle is not before or not self._waits_for_head():
            self._stop_head_timer()

    def pause_writing(self):
        super().pause_writing()
        self._abort_later()

    def resume_writing(self):
        super().resume_writing()
        self._keep()

    def on_response_complete(self):
        super().on_response_complete()
        self._abort_if_closing()

    def timeout_keep_alive_handler(self):
        super().timeout_keep_alive_handler()
        self._abort_if_closing()

    def connection_lost(self, exc):
        self._stop_head_timer()
        super().connection_lost(exc)
        self._keep()

    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self):
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout, self.transport.abort)

    def _stop_head_timer(self):
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _abort_if_closing(self):
        if self.transport.is_closing():  # it stays open until the client has read what is left
            self._abort_later()

    def _abort_later(self):
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.timeout, self.transport.abort)

    def _keep(self):
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def limited_protocol(timeout: float) -> type:
    """Create a :class:`LimitedProtocol` with this timeout."""
    return type("LimitedProtocol", (LimitedProtocol,), {"timeout": timeout})
