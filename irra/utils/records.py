"""The project's own JSON files, read into typed objects, and the hashes in them of the files beside them.

Each file has a checksum of its own content, so that no damage of a name or a number passes for a result.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from irra.utils.errors import UserError
from irra.utils.files import check_regular_file, hash_file, write_json

CHECKSUM = "checksum"  # the key of it; files of an earlier version have none
QUICK = 64 << 20  # bytes of a file that is hashed whenever its folder is opened: 40 ms

T = TypeVar("T")


def write_record(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` and its checksum to a JSON file, atomically."""
    write_json(path, sealed(data))


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` and its checksum, which does not depend on the order of keys or on white space."""
    content = {name: value for name, value in data.items() if name != CHECKSUM}
    text = json.dumps(content, sort_keys=True)
    return {**content, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def read_record(path: Path, kind: type[T], missing: str, cure: str, *, sealed_only: bool = False) -> T:
    """Read a JSON file into a `kind`, by default a dataclass, with the types of its fields; others are ignored.

    Args:
        path: The file.
        kind: What it should hold.
        missing: What to say and do if there is no such file.
        cure: What to do if it is damaged.
        sealed_only: Refuse a file without a checksum, which an earlier version or another program has written.

    Raises:
        UserError: The file is missing, or not such a record.
    """
    check_regular_file(path)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(missing) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {cure}") from None
    return parse_record(content, kind, path, cure, sealed_only=sealed_only)


def parse_record(content: bytes | str, kind: type[T], path: Path | str, cure: str, *, sealed_only: bool = False) -> T:
    """Like `read_record`, for the JSON text `content` in the file `path`."""
    try:
        record = TypeAdapter(kind).validate_json(content, strict=True)
        data = json.loads(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: damaged ({f'{key}: ' if key else ''}{problem['msg']}); {cure}") from None
    except (ValueError, RecursionError) as error:  # of what pydantic does not look at
        raise UserError(f"{path}: damaged ({error}); {cure}") from None
    checksum = data.get(CHECKSUM, "") if isinstance(data, dict) else ""
    if checksum == "" and not sealed_only:
        return record
    if checksum != sealed(data)[CHECKSUM]:
        raise UserError(f"{path}: damaged (its {CHECKSUM} is not that of its content); {cure}")
    return record


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder`, by name."""
    return {path.name: hash_file(path) for path in sorted(folder.iterdir())}


def check_files(folder: Path, hashes: Mapping[str, str], cure: str, largest: int | None = None) -> None:
    """Check files of `folder` against their SHA-256.

    Args:
        folder: The folder.
        hashes: SHA-256 by name.
        cure: What to do if a file is another.
        largest: Leave out files of more bytes than this.

    Raises:
        UserError: A file is missing or has another hash.
    """
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing; {cure}")
        if (largest is None or path.stat().st_size <= largest) and hash_file(path) != expected:
            raise UserError(f"{path}: damaged (its sha256 is not the one with which it was written); {cure}")
