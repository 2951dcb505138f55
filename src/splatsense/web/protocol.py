"""`PromptProtocol`: HTTP/1.1 that closes a connection on which no whole request head arrives in time.

uvicorn waits for ever for the first line and the headers of a request, so a client that sends a byte now and then keeps a
connection. Bodies are timed by `guard`.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0


class PromptProtocol(H11Protocol):
    """uvicorn's protocol with a limit of `HEAD_SECONDS` for the head of each request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio's own takes any transport
        """Expect a request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take data; the wait ends with a whole head, and begins with the first byte of the next one."""
        if self._deadline is None and not self._is_answering():
            self._expect()
        super().data_received(data)
        if self._is_answering():
            self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._stop_expecting()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop_expecting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if not self._is_answering():
            self.transport.close()
