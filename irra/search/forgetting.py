"""Making an index forget pictures: which they are, and what keeps them out of it afterwards."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irra.layout import INDEX_INFO
from irra.search.format import Info
from irra.search.gallery import PERSON, Gallery, Rows
from irra.search.where import Condition
from irra.utils.errors import UserError, first_of
from irra.utils.records import read_record

SALT_BYTES, KEY_DIGITS = 16, 32
FILE = "file"  # the column of people in frames or video that names it


@dataclass(frozen=True)
class Forgotten:
    """Paths that must not come into an index again, as salted hashes: a path can be compared, but none read.

    Attributes:
        salt: Of this index, so that equal paths in two indexes have different keys.
        keys: The first 32 hex digits of the SHA-256 of salt and path.
    """

    salt: str = ""
    keys: frozenset[str] = frozenset()

    @classmethod
    def from_info(cls, info: Info) -> "Forgotten":
        """Those of an index."""
        return cls.of(info.forgotten)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Forgotten":
        """Those in `Info.forgotten`.

        Raises:
            UserError: It is something else.
        """
        match record:
            case {"salt": str(salt), "keys": [*keys]} if salt and all(isinstance(key, str) for key in keys):
                return cls(salt, frozenset(keys))
            case {} if not record:
                return cls()
        raise UserError(f"{INDEX_INFO}: `forgotten` is damaged, which says what must stay out; restore it from a copy")

    def record(self) -> dict[str, Any]:
        """For `Info.forgotten`; empty if nothing was forgotten. The order of keys says nothing."""
        return {"salt": self.salt, "keys": sorted(self.keys)} if self.keys else {}

    def __len__(self) -> int:
        """How many paths were forgotten."""
        return len(self.keys)

    def __contains__(self, path: str) -> bool:
        """Whether a picture was forgotten, or the file in whose frames it is a box."""
        return bool(self.keys) and not self.keys.isdisjoint((self._key(path), self._key(re.sub(PERSON, "", path))))

    def with_(self, paths: Iterable[str]) -> "Forgotten":
        """These, and more."""
        more = Forgotten(self.salt or secrets.token_hex(SALT_BYTES), self.keys)
        return Forgotten(more.salt, more.keys.union(map(more._key, paths)))

    def _key(self, path: str) -> str:
        return hashlib.sha256((self.salt + path).encode(errors="surrogatepass")).hexdigest()[:KEY_DIGITS]


@dataclass(frozen=True)
class _Record:
    forgotten: dict[str, Any] = field(default_factory=dict)


def read_forgotten(folder: Path) -> Forgotten:
    """What an index folder must not take in again, also if it is damaged otherwise; nothing if there is no index.

    Raises:
        UserError: Its info.json is damaged, and spoke of forgotten pictures: made again, the index would have them.
    """
    path = folder / INDEX_INFO
    cure = "it says which pictures were forgotten: restore it from a copy, or remove the folder to index all of them"
    try:
        return Forgotten.of(read_record(path, _Record, "", cure).forgotten)
    except UserError:
        if path.is_file() and b'"forgotten"' in path.read_bytes():
            raise
        return Forgotten()


@dataclass(frozen=True)
class Choice:
    """Pictures to forget.

    Attributes:
        rows: In the gallery, ascending.
        paths: What must not come in again: their paths, and files of frames or video that were named as a whole.
    """

    rows: Rows
    paths: list[str]


def named(gallery: Gallery, keys: Sequence[str]) -> Choice:
    """The pictures with these paths, or of these files of frames or video; those forgotten before are passed over.

    Raises:
        UserError: There is nothing of such a name, and there was not.
    """
    columns = ["path", FILE] if gallery.info.footage else ["path"]
    table, wanted = gallery.table(columns), pa.array(keys, pa.string())
    found = [pc.is_in(table[name], wanted) for name in columns]
    hits = table.filter(found[0] if len(found) == 1 else pc.or_kleene(*found))
    known = {value for name in columns for value in hits[name].to_pylist()}
    forgotten = Forgotten.from_info(gallery.info)
    if unknown := [key for key in dict.fromkeys(keys) if key not in known and key not in forgotten]:
        raise UserError(f"{gallery.address}: no picture of it is {first_of(unknown)}; name them as results show them")
    people_of = set(hits[FILE].to_pylist()) if len(columns) > 1 else set()
    files = [key for key in keys if key in people_of]
    return Choice(_rows(hits), [*hits["path"].to_pylist(), *files])


def satisfying(gallery: Gallery, condition: Condition) -> Choice:
    """The pictures that satisfy a condition."""
    table = gallery.table(["path"], condition)
    return Choice(_rows(table), table["path"].to_pylist())


def check_some_stay(gallery: Gallery, choice: Choice) -> None:
    """Check that an index would still have pictures.

    Raises:
        UserError: It would have none.
    """
    if len(choice.rows) == gallery.size:
        raise UserError(
            f"{gallery.address}: these are all of its {gallery.size:,} pictures; delete the index itself instead"
        )


def without_forgotten(
    skipped: list[dict[str, str]], footage: dict[str, str], gone: set[str], forgotten: Forgotten
) -> dict[str, Any]:
    """`skipped` and `footage` of an index without what they say of forgotten pictures.

    A file of frames or video goes if it was forgotten, or all of its pictures were: then it is in `gone`.
    """
    return {
        "skipped": [item for item in skipped if item["path"] not in forgotten],
        "footage": {file: read for file, read in footage.items() if file not in gone and file not in forgotten},
    }


def files_gone(gallery: Gallery, rows: Rows) -> dict[str, set[str]]:
    """By source, the files of frames or video all of whose pictures are in these rows."""
    if FILE not in gallery.info.columns:
        return {}
    several = "source" in gallery.columns.names
    table = gallery.table([FILE, "source"] if several else [FILE])
    goes = pc.is_in(table["row"], pa.array(rows, pa.int64()))
    named = [set(_named_files(table.filter(part), gallery.info.source)) for part in (goes, pc.invert(goes))]
    gone: dict[str, set[str]] = {}
    for source, file in named[0] - named[1]:
        gone.setdefault(source, set()).add(file)
    return gone


def _named_files(table: pa.Table, source: str) -> list[tuple[str, str]]:
    sources = table["source"].to_pylist() if "source" in table.column_names else [source] * len(table)
    return list(zip(sources, table[FILE].to_pylist(), strict=True))


def _rows(table: pa.Table) -> Rows:
    return np.asarray(table["row"].to_numpy(), dtype=np.int64)
