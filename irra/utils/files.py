"""Atomic writing of files and folders, where a failed write leaves the previous content in place; file hashes."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from irra.utils.errors import UserError
from irra.utils.locks import locked

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, user's quota used up, file too large for the file system
UNIQUE_DIGITS = 8  # of a temporary name

_claims: set[Path] = set()  # the temporary files of this process; another one at the same place would have no lock


@contextmanager
def replace_file(path: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it is renamed to `path` on success and removed on any exception.

    The temporary name ends in `.tmp`, so pass the format explicitly to writers that would guess it from the suffix.

    Args:
        path: The file.
        tidy: Remove what writers of `path` that were killed left beside it, for which its folder is listed. Who writes
            many files calls `remove_abandoned` once instead.

    Raises:
        OSError: The disk is full. Whatever the writer raised in that case becomes an OSError with errno and `path`.
    """
    with replace_files(path, tidy=tidy) as (temporary,):
        yield temporary


@contextmanager
def replace_files(*paths: Path, tidy: bool = True) -> Iterator[list[Path]]:
    """Like `replace_file` for files that belong together: none is renamed before all of them have been written.

    The first is missing while the others are renamed: after a kill, nobody takes files of two writers for those of one.
    Temporary files of an outer call are written in place.

    Raises:
        OSError: The disk is full, as in `replace_file`, with the first of the paths.
    """
    if _claims.issuperset(paths):
        yield list(paths)
        return
    temporaries = [_temporary(path) for path in paths]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            remove_abandoned(path.parent, path.name)
    with ExitStack() as claims:
        try:
            for temporary in temporaries:
                claims.enter_context(_claimed(temporary))
            yield temporaries
            for temporary in temporaries:
                sync_path(temporary)
            if len(paths) > 1:
                paths[0].unlink(missing_ok=True)
            for temporary, path in reversed(list(zip(temporaries, paths, strict=True))):
                os.replace(temporary, path)
        except BaseException as error:
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)
            _raise_if_full(error, paths[0])
            raise
    for folder in {path.parent for path in paths}:
        sync_path(folder)


@contextmanager
def replace_folder(path: Path, *, resume: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder next to `path`; it replaces `path` on success and is removed otherwise.

    If `path` is a link to a folder, the folder that it points to is replaced. The folder is locked until then.

    Args:
        path: The folder.
        resume: Yield `<path>.partial.tmp/new`, which stays if its writer fails or is killed: the next one finds it as
            it was left. A writer notes beside it what is finished; if it fails without a note, nothing stays.

    Raises:
        UserError: Another process is writing the folder.
        NotADirectoryError: `path` is a file.
        OSError: The disk is full, as in `replace_file`.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; a folder cannot be written in its place")
    with locked(path):
        previous = _previous(path)
        _recover(path, previous)
        for unfinished in leftovers(path):
            shutil.rmtree(unfinished, ignore_errors=True)
        outer = partial_folder(path) if resume else _temporary(path)
        temporary = outer / "new" if resume else outer
        temporary.mkdir(parents=True, exist_ok=resume)
        try:
            yield temporary
            _sync_tree(temporary)
            _exchange(temporary, path, previous)
        except BaseException as error:
            if not resume or len(list(outer.glob("*"))) < 2:
                shutil.rmtree(outer, ignore_errors=True)
            _raise_if_full(error, path)
            raise
        sync_path(path.parent)
        for old in (previous, outer):
            shutil.rmtree(old, ignore_errors=True)


def partial_folder(path: Path) -> Path:
    """Where `replace_folder` keeps what is finished of the folder `path`, to go on from."""
    return path.with_name(f"{path.name}.partial.tmp")


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files in `folder`, of its file `name` or of all, whose writers have died."""
    ending = re.compile(rf"(.+)\.[0-9a-f]{{{UNIQUE_DIGITS}}}\.tmp")
    found: list[str] = []
    with suppress(PermissionError), os.scandir(folder) as entries:  # who may write to a folder may not list it
        temporaries = (entry for entry in entries if entry.name.endswith(".tmp") and entry.is_file())
        found += [e.path for e in temporaries if (m := ending.fullmatch(e.name)) and name in (None, m[1])]
    for abandoned in found:
        with suppress(OSError), open(abandoned, "rb") as file:  # its writer lives, or it is gone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(abandoned)


def leftovers(path: Path) -> list[Path]:
    """What writers of the folder `path` that were killed left beside it; ask only while holding the lock."""
    names = glob.escape(path.name) + "." + "[0-9a-f]" * UNIQUE_DIGITS + ".tmp"
    return [*path.parent.glob(names), *path.parent.glob(glob.escape(path.name) + ".tmp")]  # the latter: before locks


def remove_leftovers(path: Path) -> None:
    """Remove all that writers of the folder `path` have left beside it, also what one could go on from.

    Raises:
        UserError: Another process is writing the folder, or something cannot be removed.
    """
    path = path.resolve()
    with locked(path):
        for left in (_previous(path), partial_folder(path), *leftovers(path)):
            try:
                shutil.rmtree(left)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UserError(f"{left}: left over, and cannot be removed ({error.strerror}); remove it") from None


def files_below(folder: Path) -> dict[str, Path]:
    """All regular files below `folder`, by relative path with slashes; links are followed, each folder once."""
    found: dict[str, Path] = {}
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        paths = (Path(parent, name) for name in names)
        found |= {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return found


def check_regular_file(path: Path) -> None:
    """Refuse what would block a reader or never end; a missing file and a folder are left to the caller.

    Raises:
        UserError: There is a pipe, a socket or a device at `path`, or links that lead back to themselves.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno != errno.ELOOP:
            return
        raise UserError(f"{path}: not a regular file, but a link that leads back to itself") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: not a regular file, but a pipe, a socket or a device")


def check_replaceable(path: Path, marker: str, what: str) -> None:
    """Check that the folder `path` may be replaced: it is new, empty, or `what`.

    `what` is recognised by a file called `marker` in it.

    Raises:
        UserError: It is something else.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / marker).is_file()):
        raise UserError(f"{path}: exists and is not {what}; name another folder, or remove it first")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, atomically.

    Raises:
        ValueError: `data` has NaN or infinities, which JSON does not allow.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file's contents.

    Raises:
        UserError: It is no regular file, as in `check_regular_file`.
    """
    check_regular_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _previous(path: Path) -> Path:
    """Where the folder `path` is while another takes its place."""
    return path.with_name(f"{path.name}.previous.tmp")


def _temporary(path: Path) -> Path:
    """A name beside `path` that no other writer has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(UNIQUE_DIGITS // 2)}.tmp")


@contextmanager
def _claimed(temporary: Path) -> Iterator[None]:
    """Make the file `temporary`, and keep a lock on it that the kernel frees when its writer dies."""
    with temporary.open("ab") as file:
        with suppress(OSError):  # a file system without locks: then nothing is ever removed
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _claims.add(temporary)
        try:
            yield
        finally:
            _claims.discard(temporary)


def _raise_if_full(error: BaseException, path: Path) -> None:
    """Raise an OSError that names `path` if `error` means a full disk, which each library reports in its own way.

    safetensors, like other Rust code, puts the errno into the text of its own exception
    (https://github.com/safetensors/safetensors/issues/842); numpy raises an OSError without errno
    (https://github.com/numpy/numpy/issues/17589).
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(match[1])
    if number is None and isinstance(error, OSError) and re.search(r"requested and \d+ written", str(error)):
        number = errno.ENOSPC
    if number in FULL:
        raise OSError(number, os.strerror(number), str(path)) from error


def _exchange(temporary: Path, path: Path, previous: Path) -> None:
    """Move `temporary` to `path`.

    A rename cannot replace a non-empty folder, so the old one is moved to `previous` first, and back on failure.
    """
    if path.exists():
        os.replace(path, previous)
    try:
        os.replace(temporary, path)
    except BaseException:
        _recover(path, previous)
        raise


def _recover(path: Path, previous: Path) -> None:
    """Restore `path` if the process was killed between the two renames of `_exchange`, and delete leftovers."""
    if previous.exists() and not path.exists():
        os.replace(previous, path)
    shutil.rmtree(previous, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_path(Path(parent, name))
        sync_path(Path(parent))


def sync_path(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk, so that a rename cannot get there before them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
