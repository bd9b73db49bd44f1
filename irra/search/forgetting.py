"""Making an index forget pictures: which they are, and what keeps them out of it afterwards."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
        keys: The first 32 hex digits of the SHA-256 of salt, source and path.
        source: Whose paths are meant, in a gallery of several; "" in a gallery of one, which may get another name.
    """

    salt: str = ""
    keys: frozenset[str] = frozenset()
    source: str = ""

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
        more = replace(self, salt=self.salt or secrets.token_hex(SALT_BYTES))
        return replace(more, keys=more.keys.union(map(more._key, paths)))

    def with_all(self, paths: Mapping[str, Iterable[str]]) -> "Forgotten":
        """These, and more paths of several sources."""
        forgotten = self
        for source, some in paths.items():
            forgotten = forgotten.of_source(source).with_(some)
        return forgotten

    def of_source(self, source: str) -> "Forgotten":
        """These, to be asked for paths of a source."""
        return replace(self, source=source)

    def _key(self, path: str) -> str:
        text = f"{self.salt}{self.source}\0{path}" if self.source else self.salt + path
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:KEY_DIGITS]


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
        paths: What must not come in again, by source, or by "" in a gallery of one: their paths, and files of frames or
            video that were named as a whole.
    """

    rows: Rows
    paths: dict[str, list[str]]


def named(gallery: Gallery, keys: Sequence[str]) -> Choice:
    """The pictures with these paths, or of these files of frames or video; those forgotten before are passed over.

    Raises:
        UserError: There is nothing of such a name, and there was not.
    """
    columns = ["path", FILE] if gallery.info.footage else ["path"]
    table, wanted = gallery.table([*columns, *_source_column(gallery)]), pa.array(keys, pa.string())
    found = [pc.is_in(table[name], wanted) for name in columns]
    hits = table.filter(found[0] if len(found) == 1 else pc.or_kleene(*found))
    known = {value for name in columns for value in hits[name].to_pylist()}
    unknown = [key for key in dict.fromkeys(keys) if key not in known and not _was_forgotten(gallery, table, key)]
    if unknown:
        raise UserError(f"{gallery.address}: no picture of it is {first_of(unknown)}; name them as results show them")
    paths = _by_source(hits, "path")
    if len(columns) > 1:
        whole = hits.filter(pc.is_in(hits[FILE], wanted))
        paths = {source: [*some, *_by_source(whole, FILE).get(source, [])] for source, some in paths.items()}
    return Choice(_rows(hits), paths)


def satisfying(gallery: Gallery, condition: Condition) -> Choice:
    """The pictures that satisfy a condition."""
    table = gallery.table(["path", *_source_column(gallery)], condition)
    return Choice(_rows(table), _by_source(table, "path"))


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
    """By source, or by "" in a gallery of one, the files of frames or video all of whose pictures are in these rows."""
    if FILE not in gallery.info.columns:
        return {}
    table = gallery.table([FILE, *_source_column(gallery)])
    goes = pc.is_in(table["row"], pa.array(rows, pa.int64()))
    going, staying = (_by_source(table.filter(part), FILE) for part in (goes, pc.invert(goes)))
    return {source: set(files) - set(staying.get(source, [])) for source, files in going.items()}


def _source_column(gallery: Gallery) -> list[str]:
    return ["source"] if "source" in gallery.columns.names else []


def _by_source(table: pa.Table, column: str) -> dict[str, list[str]]:
    """The different values of a column, by source, or by "" where there is no such column."""
    sources = table["source"].to_pylist() if "source" in table.column_names else [""] * len(table)
    values: dict[str, dict[str, None]] = {}
    for source, value in zip(sources, table[column].to_pylist(), strict=True):
        values.setdefault(source, {})[value] = None
    return {source: list(some) for source, some in values.items()}


def _was_forgotten(gallery: Gallery, table: pa.Table, key: str) -> bool:
    forgotten = Forgotten.from_info(gallery.info)
    sources = pc.unique(table["source"]).to_pylist() if "source" in table.column_names else [""]
    return any(key in forgotten.of_source(source) for source in sources)


def _rows(table: pa.Table) -> Rows:
    return np.asarray(table["row"].to_numpy(), dtype=np.int64)
