"""Signals that ask a long work to stop, which first brings what it has to a good end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from irra.utils.errors import Interrupted


class StopRequest:
    """The signal that asked this process to stop, if any did."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._message = ""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Note the signal; the form is that of a signal handler."""
        if self.signum is not None:
            raise KeyboardInterrupt  # asked twice: stop without waiting for the step to end
        self.signum = signum
        if self._message:
            raise Interrupted(signum, self._message)

    def stop(self, message: str) -> NoReturn:
        """Raise Interrupted with the exit status of the signal."""
        assert self.signum is not None
        raise Interrupted(self.signum, message)

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Within, a signal (also an earlier one) stops the work wherever it is, since all that counts was saved."""
        if self.signum is not None:
            self.stop(message)
        self._message = message
        try:
            yield
        finally:
            self._message = ""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGINT instead of dying of them, so that training can save its state first."""
    request = StopRequest()
    previous = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
