"""HTTP with a time limit: a connection whose request does not arrive is closed, so that such ones leave room."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 5.0  # until the head of a request is there
REQUEST_SECONDS = 30.0  # until its body is there as well


class TimedProtocol(H11Protocol):
    """A connection that is closed when a request takes too long to arrive; what the answer takes does not matter."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        self._timers: list[asyncio.TimerHandle] = []
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self._timers = [
            self.loop.call_later(HEADER_SECONDS, self._close_in, h11.IDLE),
            self.loop.call_later(REQUEST_SECONDS, self._close_in, h11.IDLE, h11.SEND_BODY),
        ]

    def _stop(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _close_in(self, *states: Any) -> None:
        """Close the connection if the client's part of it is in one of these states: it still has to send."""
        if self.conn.their_state in states:
            self.transport.abort()
