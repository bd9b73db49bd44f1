"""Exceptions that a command line turns into a message and an exit status, and helpers for such messages."""

import re
from collections.abc import Sequence

SHOWN = 3
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
VALUE = re.compile(r"=[^&;#\s'\"<>)]*")  # of a name in the query of a URL


class UserError(ValueError):
    """A mistake in a file, key or value; the message names it and says what would be right.

    Command lines print it without a traceback and exit with status 2.
    """


class TemporaryError(UserError):
    """A failure that may pass by itself, such as a server that does not answer: another attempt is worth its time."""


class SharedError(UserError):
    """An error that all processes that work together raise; the message of the first of them is enough."""


class Interrupted(SystemExit):
    """Work stopped by a signal after its state was saved; the exit status is the shell's for that signal."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(128 + signum)
        self.message = message


def first_of(items: Sequence[str]) -> str:
    """The first few of `items`, for a message, and how many more there are."""
    more = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def without_password(text: str) -> str:
    """`text` without the credentials of any URL in it: user and password, and the values of its query."""
    return URL.sub(lambda match: _without_password(match[0]), text)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    # A password may hold any of "/?#@", against the standard: the last @ ends it, whatever a parser would say.
    address, mark, query = re.split(r"([?#]|$)", rest.rpartition("@")[2], maxsplit=1)
    return f"{scheme}://{address}{mark}{VALUE.sub('=***', query)}"


def root_cause(error: BaseException) -> BaseException:
    """The innermost exception of a chain: "Connection refused" rather than the layers around it."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error
