"""One bad input: how it is made, who reads it, and what the message must name."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Put = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """An input of some kind: `put` makes it in the current folder, and `read` is what meets it.

    Attributes:
        kind, name: What it is.
        put: Makes it in the current folder.
        read: What reads it; returns an answer.
        names: What the message must name.
        valid: It must be accepted instead.
        either: It may also be accepted, whatever the answer.
    """

    kind: str
    name: str
    put: Put
    read: Callable[[], object]
    names: Sequence[str] = field(default_factory=list)
    valid: bool = False
    either: bool = False


def content(path: Path, data: str | bytes) -> Put:
    """Make a file."""

    def write() -> None:
        path.write_bytes(data.encode(errors="surrogatepass") if isinstance(data, str) else data)

    return write


def link_to(path: Path, name: str) -> Put:
    """Rename the file, and put a link to it in its place."""

    def move() -> None:
        path.rename(path.with_name(name))
        path.symlink_to(name)

    return move


def place(path: Path) -> dict[str, Put]:
    """What is no regular file, in the place of one."""

    def instead(make: Callable[[], object]) -> Put:
        def replace() -> None:
            path.unlink(missing_ok=True)
            make()

        return replace

    return {
        "missing": instead(lambda: None),
        "a folder": instead(path.mkdir),
        "a pipe": instead(lambda: os.mkfifo(path)),
        "a link to itself": instead(lambda: path.symlink_to(path.name)),
        "a link to nowhere": instead(lambda: path.symlink_to("nowhere")),
        "an endless device": instead(lambda: path.symlink_to("/dev/zero")),
    }
