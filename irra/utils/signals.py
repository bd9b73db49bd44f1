"""Signals that ask long-running work to stop, which first finishes its step and saves its state."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from irra.utils.errors import Interrupted

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


class StopRequest:
    """The signal that asked this process to stop, if any did."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.is_last = False  # whether later signals are ignored for good, as the process ends for another reason
        self._message = ""

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Record the signal; the signature is that of a signal handler.

        Raises:
            KeyboardInterrupt: It is the second signal.
            Interrupted: It arrived within `at_once`.
        """
        if self.is_last:
            return
        if self.signum is not None:
            raise KeyboardInterrupt  # asked twice: stop without waiting for the step to end
        self.signum = signum
        if self._message:
            raise Interrupted(signum, self._message)

    def stop(self, message: str) -> NoReturn:
        """Stop the work.

        Raises:
            Interrupted: Always, with the exit status of the signal, or of SIGTERM if another process got one.
        """
        raise Interrupted(self.signum or signal.SIGTERM, message)

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Let a signal, even an earlier one, stop the work at once; for work before which everything was saved.

        Raises:
            Interrupted: A signal arrived.
        """
        if self.signum is not None:
            self.stop(message)
        self._message = message
        try:
            yield
        finally:
            self._message = ""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record SIGTERM and SIGINT instead of dying from them, so that training can save its state first."""
    request = StopRequest()
    previous = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if request.is_last else handler)


def stop_with_parent() -> None:
    """Get SIGTERM when the parent process dies, however it does, as if it had passed on its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
