"""What can happen to a file: kinds of damage, each a name and a function that does it to a path."""

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irra.utils.records import CHECKSUM


@dataclass(frozen=True)
class Damage:
    """A kind of damage, and what does it to a path.

    It is `forged` if the result may be what somebody else has written, with other values: then it need not be noticed.
    """

    name: str
    apply: Callable[[Path], None]
    forged: bool = False


HEADER = 64  # bytes, in which formats say what they are
OTHER_CONTENT = {
    "null": b"null",
    "an empty list": b"[]",
    "an empty object": b"{}",
    "a number": b"17",
    "a text": b'"text"',
    "NaN": b"NaN",
    "a long number": b"9" * 5000,
    "deep nesting": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "zeros": bytes(4096),
    "a line break": b"\n",
}
OTHER_VALUES: tuple[Any, ...] = (None, -1, 10**30, "text", [], {}, True, [[[[]]]])


def damages(content: bytes, rng: random.Random) -> Iterator[Damage]:
    """All that may happen to a file with this `content`; the places are drawn."""
    size = len(content)
    for end in {0, 1, size // 2, size - 1, rng.randrange(size)}:
        yield Damage(f"cut to {end} bytes", _replaced(content[:end]))
    header, anywhere = [rng.randrange(min(HEADER, size)) for _ in range(3)], [rng.randrange(size) for _ in range(5)]
    for at in [*header, *anywhere, size - 1]:
        yield Damage(f"byte {at} flipped", _replaced(_flipped(content, at, 1 << rng.randrange(8))))
    digits = [at for at, byte in enumerate(content) if chr(byte) in "0123456789"] if is_text(content) else []
    for at in rng.sample(digits, min(4, len(digits))):
        yield Damage(f"another digit at byte {at}", _replaced(_flipped(content, at, 1)))
    yield Damage("longer", _replaced(content + content[-100:]))
    for name, other in OTHER_CONTENT.items():
        yield Damage(f"replaced by {name}", _replaced(other))
    for name, edited, forged in edits(content, rng):
        yield Damage(name, _replaced(edited), forged)
    yield Damage("removed", _remove)
    yield Damage("a folder in its place", _become(lambda path: path.mkdir()))
    yield Damage("a pipe in its place", _become(lambda path: os.mkfifo(path)))
    yield Damage("a link to itself in its place", _become(lambda path: path.symlink_to(path.name)))
    yield Damage("a device in its place", _become(lambda path: path.symlink_to("/dev/zero")))


def edits(content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes, bool]]:
    """Other valid JSON: keys of the objects in `content`, at any depth, are dropped or get another value.

    Without the checksum, that is what another program, or an earlier version, may have written.
    """
    try:
        whole = json.loads(content)
    except ValueError:
        return
    places = list(_places(whole, ()))
    tops = [place for place in places if len(place) == 1]
    for place in dict.fromkeys([*tops, *rng.sample(places, min(5, len(places)))]):
        name, other = ".".join(map(str, place)), rng.choice(OTHER_VALUES)
        dropped, changed = _edited(whole, place, drop=True), _edited(whole, place, other)
        for edit, edited in (("without", dropped), (f"{other!r} as", changed)):
            yield f"{edit} {name}", json.dumps(edited).encode(), False
            if isinstance(edited, dict) and edited.pop(CHECKSUM, None):
                yield f"{edit} {name} and without checksum", json.dumps(edited).encode(), True


def is_text(content: bytes) -> bool:
    """Whether a file is text, in which a digit may become another one."""
    return all(byte in b"\t\r\n" or 32 <= byte < 127 or byte > 160 for byte in content[:200])


def _places(value: Any, above: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from _places(inner, (*above, key))


def _edited(whole: Any, place: tuple[str | int, ...], value: Any = None, drop: bool = False) -> Any:
    copy = json.loads(json.dumps(whole))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if drop:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copy


def _flipped(content: bytes, at: int, bits: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def _replaced(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _remove(path: Path) -> None:
    path.unlink()


def _become(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace
