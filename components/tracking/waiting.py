"""Time limits for calls of MLflow, some of which would otherwise never return."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

ANSWER_SECONDS = 20.0  # limit for a server's answer
TABLES_SECONDS = 120.0  # limit for a database, which creates its tables on first use
T = TypeVar("T")


def limit(uri: str) -> float:
    """Seconds to wait for the first answer of the store at `uri`."""
    return ANSWER_SECONDS if uri.startswith("http") else TABLES_SECONDS


def within(seconds: float, function: Callable[[], T]) -> T:
    """Call `function` in a daemon thread and return its result.

    Raises:
        TimeoutError: It did not return within `seconds`; it goes on in its thread.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
