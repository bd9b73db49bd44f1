"""Atomic writing: a file or a folder appears whole under its name, or the previous one stays. Hashes of files."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irra.utils.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or the largest file that it takes


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: renamed to `path` on success, removed on any exception.

    The temporary name ends in `.tmp`, so give the format to writers that would guess it from the suffix. Whatever a
    writer raises on a full disk becomes an OSError with its number and `path`; likewise in `replace_folder`.
    """
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _raise_if_full(error, path)
        raise
    _sync(path.parent)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`: it takes the place of `path` on success, and is removed otherwise.

    A link to a folder is followed. Raises NotADirectoryError when `path` is a file.
    """
    path = path.resolve()
    temporary, previous = path.with_name(path.name + ".tmp"), path.with_name(path.name + ".previous.tmp")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file, and a folder is to be written there")
    _recover(path, previous)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _sync_tree(temporary)
        _exchange(temporary, path, previous)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _raise_if_full(error, path)
        raise
    _sync(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def check_replaceable(path: Path, marker: str, what: str) -> None:
    """UserError unless the folder `path` is new, empty, or `what`, which holds a file called `marker`."""
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / marker).is_file()):
        raise UserError(f"{path}: exists and is not {what}; name another folder, or remove it first")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically; ValueError for NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _raise_if_full(error: BaseException, path: Path) -> None:
    """OSError naming `path` where `error` tells of a full disk, which each library says in its own way.

    safetensors has the number, as all of Rust, in the text of an error of its own, as in
    https://github.com/safetensors/safetensors/issues/842; numpy has an OSError without one, as in
    https://github.com/numpy/numpy/issues/17589.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(match[1])
    if number is None and isinstance(error, OSError) and re.search(r"requested and \d+ written", str(error)):
        number = errno.ENOSPC
    if number in FULL:
        raise OSError(number, os.strerror(number), str(path)) from error


def _exchange(temporary: Path, path: Path, previous: Path) -> None:
    """A filled folder cannot be renamed over, so the old one steps aside first, and comes back on failure."""
    if path.exists():
        os.replace(path, previous)
    try:
        os.replace(temporary, path)
    except BaseException:
        _recover(path, previous)
        raise


def _recover(path: Path, previous: Path) -> None:
    """Undo what a kill between the two renames of `_exchange` left behind."""
    if previous.exists() and not path.exists():
        os.replace(previous, path)
    shutil.rmtree(previous, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    """Ask the system to put a file's bytes, or a folder's names, on the disk: a rename may otherwise outrun them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
