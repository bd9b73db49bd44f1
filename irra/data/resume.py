"""Going on with a store whose writer was stopped: notes of its finished shards, and of what they were made from."""

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from irra.config import PrepareConfig
from irra.data.datasets import Record
from irra.data.store import FORMAT_VERSION, SHARD_IMAGES, Shard, shard_path
from irra.utils.errors import UserError
from irra.utils.files import hash_file
from irra.utils.progress import progress
from irra.utils.records import read_record, write_record

NO_FILE = -1

Stamps = NDArray[np.int64]


@dataclass(frozen=True)
class Sources:
    """All that decides what is in a shard: settings, and the records with stamps (n, 2) of their image files."""

    config: PrepareConfig
    records: Sequence[Record]
    stamps: Stamps

    def sha256(self, shard: Shard) -> str:
        """SHA-256 of what a shard was made from."""
        span = slice(shard.start, shard.end)
        may_skip = shard.skipped and self.config.on_bad_image
        settings = [FORMAT_VERSION, SHARD_IMAGES, PIL.__version__, self.config.image_size, may_skip]
        pairs = zip(self.records[span], self.stamps[span].tolist(), strict=True)
        files = [[record.split, record.path, *stamp] for record, stamp in pairs]
        return hashlib.sha256(json.dumps([settings, files]).encode()).hexdigest()


def stamp_files(paths: Iterable[Path], *, rendered: bool = False) -> Stamps:
    """Stamps by which a changed file is recognised, int64 (n, 2): its size and time, or NO_FILE twice.

    Files that are `rendered` anew each time have a checksum of their content in place of the time.
    """
    stamps = (_stamp(path, rendered) for path in paths)
    return np.fromiter(chain.from_iterable(stamps), np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Note:
    """A finished shard, and the SHA-256 of its sources."""

    shard: Shard
    sources: str


class Notes:
    """Notes of finished shards: one file in `folder` for each."""

    def __init__(self, folder: Path, sources_of: Callable[[Shard], str]) -> None:
        self._folder = folder
        self._sources_of = sources_of

    def add(self, shard: Shard) -> None:
        """Note that a shard is on disk."""
        write_record(self._path(shard.number), asdict(Note(shard, self._sources_of(shard))))

    def finished(self, store: Path) -> list[Shard]:
        """The shards in the folder `store`, from the first on, that would be written again as they are.

        Notes and files of all others are removed.
        """
        total = len(list(self._folder.glob("*.json")))
        shards = list(progress(self._read(store), "check finished shards", total, "shards")) if total else []
        kept = {store}
        for shard in shards:
            kept |= {self._path(shard.number), shard_path(store, shard.number)}
        for path in {*self._folder.iterdir(), *store.iterdir()} - kept:
            path.unlink()
        return shards

    def _read(self, store: Path) -> Iterator[Shard]:
        number, end = 0, 0
        while (note := self._note(number)) and (note.shard.number, note.shard.start) == (number, end):
            path = shard_path(store, number)
            if note.sources != self._sources_of(note.shard):
                return
            if not path.is_file() or hash_file(path) != note.shard.sha256:
                return
            yield note.shard
            number, end = number + 1, note.shard.end

    def _note(self, number: int) -> Note | None:
        try:
            return read_record(self._path(number), Note, "", "", sealed_only=True)
        except UserError:  # there is none, or it is damaged
            return None

    def _path(self, number: int) -> Path:
        return self._folder / f"shard-{number:05d}.json"


def _stamp(path: Path, rendered: bool) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # it cannot even be a name
        return NO_FILE, NO_FILE
    if not stat.S_ISREG(status.st_mode):
        return NO_FILE, NO_FILE
    return status.st_size, zlib.crc32(path.read_bytes()) if rendered else status.st_mtime_ns
