"""Waiting for MLflow, which by itself may never come back."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

ANSWER_SECONDS = 20.0  # the longest to wait for the answer of a server,
TABLES_SECONDS = 120.0  # and for a database, which at first use creates its tables
T = TypeVar("T")


def limit(uri: str) -> float:
    """Seconds to wait for the first answer of the store at `uri`."""
    return ANSWER_SECONDS if uri.startswith("http") else TABLES_SECONDS


def within(seconds: float, function: Callable[[], T]) -> T:
    """Return what `function` returns; TimeoutError after `seconds`, when it is left behind in a daemon thread."""
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
