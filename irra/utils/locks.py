"""One owner at a time for a file or folder that is being written."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from irra.utils.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a file system that has none: then nobody is kept out

_held: dict[tuple[Path, int], IO[str]] = {}  # by path and thread


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Be the only one to write `path`; locks of one thread on the same path may be nested.

    The lock is a file beside `path`. The kernel frees it when its owner dies, in whatever way.

    Args:
        path: The file or folder; if it is a link, what the link points to.
        wait: Wait for the present owner instead of raising.

    Raises:
        UserError: Another process or thread is writing it; the message says which process, and since when.
    """
    path = path.resolve()
    key = (path, threading.get_ident())
    if key in _held:
        yield
        return
    file = _acquire(path, wait)
    _held[key] = file
    try:
        yield
    finally:
        del _held[key]
        if _is_current(file, Path(file.name)):
            os.unlink(file.name)
        file.close()


def lock_file(path: Path) -> Path:
    """The file beside `path` that is locked; it is there while somebody writes `path`, or was killed meanwhile."""
    return path.with_name(f".{path.name}.lock")


def _acquire(path: Path, wait: bool) -> IO[str]:
    """Open and lock the file beside `path`, and write into it whose it is."""
    name = lock_file(path)
    name.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = name.open("a+", encoding="utf-8")
        try:
            _flock(file, path, wait)
            if _is_current(file, name):
                file.truncate(0)
                file.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its owner ended and deleted it after it was opened here


def _flock(file: IO[str], path: Path, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: {_owner(file)} is writing it; wait until it has finished, or end it first") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _owner(file: IO[str]) -> str:
    """Who holds the lock; it may not have written that yet."""
    file.seek(0)
    return file.read(200) or "another process"


def _is_current(file: IO[str], name: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), name.stat())
    return False


def _leave_to_parent() -> None:
    """Close the locks in a forked process: otherwise it would keep them when its parent dies."""
    for file in _held.values():
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
