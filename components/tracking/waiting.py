"""Time limits for calls of MLflow, some of which would otherwise never return."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

ANSWER_SECONDS = 20.0  # limit for a server's answer
TABLES_SECONDS = 120.0  # limit for a database, which creates its tables on first use
UPLOAD_SECONDS = 30.0  # limit for a small upload
UPLOAD_BYTES_PER_SECOND = 4 << 20  # a larger upload has this much more time
T = TypeVar("T")


def limit(uri: str) -> float:
    """Seconds to wait for an answer of the store at `uri`."""
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


class TimedClient:
    """An MlflowClient each of whose requests has a time limit of its own, so that a slow server is not a lost one.

    Uploads have none here: how long they may take depends on their size.
    """

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        """Return a method of the client, with the limit."""
        method = getattr(self._client, name)
        if name.endswith(("_artifact", "_artifacts")):
            return method
        return lambda *args, **options: within(limit(self._uri), lambda: method(*args, **options))
