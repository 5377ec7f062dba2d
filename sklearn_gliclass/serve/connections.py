"""HTTP connections with a time and size limit on the head of a request, which uvicorn leaves open."""

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_MAX_HEAD_BYTES = 320 * 1024  # 64 KB, and one read of the transport, which may hold the body too


def limited_protocol(head_timeout: float) -> type:
    """Create a protocol class for uvicorn that closes connections whose request does not arrive.

    Parameters
    ----------
    head_timeout : float
        Maximum number of seconds from the first byte of a request, or from the connection, to the end of its headers.
    """

    class LimitedProtocol(AutoHTTPProtocol):
        _head_timer = None
        _head_bytes = 0

        def connection_made(self, transport):
            super().connection_made(transport)
            self._start_timer()

        def data_received(self, data):
            before = self.cycle
            if self._waits_for_head():
                self._head_bytes += len(data)
                if self._head_bytes > _MAX_HEAD_BYTES:
                    self.transport.close()
                    return
                self._start_timer()
            super().data_received(data)
            if self.cycle is not before or not self._waits_for_head():
                self._stop_timer()

        def connection_lost(self, exc):
            self._stop_timer()
            super().connection_lost(exc)

        def _waits_for_head(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _start_timer(self):
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(head_timeout, self.transport.close)

        def _stop_timer(self):
            self._head_bytes = 0
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return LimitedProtocol
