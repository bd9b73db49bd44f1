"""Keeping a gallery in a LanceDB database: who writes it, what is left of earlier versions, and forgetting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace as with_changes
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from irra.search.forgetting import Forgotten, files_gone, without_forgotten
from irra.search.format import Info
from irra.search.gallery import Gallery, Rows
from irra.search.lance.database import VECTORS, Database, Table, load_lancedb
from irra.search.lance.gallery import IN_MEMORY, LanceGallery, find, metadata_of, of_source, open_database
from irra.search.lance.records import EVERYTHING, GALLERY, ID, PICTURES, SOURCES, VECTOR, Document, Index, Lease
from irra.search.lance.writer import LanceWriter, delete_rows, one_of
from irra.search.target import Making, Target, Writer
from irra.utils.errors import TemporaryError, UserError, first_of

KEPT = timedelta(days=1)  # how long earlier versions stay, for who has them open
NOT_KEPT = timedelta(0)
UNINDEXED = 0.1  # share of pictures outside the approximate index from which it is made anew
ROWS_PER_PART = 8192  # of the approximate index; all parts are searched


@contextmanager
def open_lance(address: str) -> Iterator[Target]:
    """Open the database at `address` for writing, whether there is one yet or not.

    Raises:
        UserError: There is something else, or S3 refuses.
    """
    target = LanceTarget(open_database(address))
    try:
        yield target
    finally:
        target.close()


class LanceTarget:
    """A database for a gallery of any number of sources by one model; see `Target`.

    A gallery of more than `in_memory` pictures gets an approximate index.
    """

    def __init__(self, database: Database, in_memory: int = IN_MEMORY) -> None:
        self.database, self._in_memory = database, in_memory
        self.index = Index.open(database)
        self._lease: Lease | None = None
        if self.index is None:
            _check_empty(database)
        elif (rows := self.index.read().gallery.get("purge")) is not None:  # a process was killed while it did this
            self.take(EVERYTHING)
            pictures = self.pictures()
            delete_rows(pictures, np.array(rows, np.int64))
            self._purge(pictures, ["true"])
            self.close()

    def close(self) -> None:
        """Let others write."""
        if self._lease is not None:
            self._lease.end()
            self._lease = None

    def take(self, source: str) -> Lease:
        """Be the only one to write a source, or everything.

        Raises:
            UserError: Another process writes it.
        """
        if self._lease is None:
            assert self.index is not None
            lease = Lease(self.index, source, self.database.address)
            lease.take()
            self._lease = lease
        return self._lease

    def pictures(self) -> Table:
        """The table of the gallery's pictures."""
        assert self.index is not None
        table = self.database.open(self.index.read().gallery["pictures"])
        assert table is not None
        return table

    def previous(self, making: Making, replace: bool) -> LanceGallery | None:
        """As in `Target`; its `info` tells what concerns this source alone."""
        if self.index is None:
            return None
        gallery = self.index.read().gallery
        is_other = (gallery["model_fingerprint"], gallery["dtype"]) != (making.model_fingerprint, making.dtype)
        if is_other and not replace:
            raise UserError(
                f"{self.database.address}: is by model {gallery['model_fingerprint'][:12]} in {gallery['dtype']}, not "
                f"by {making.model_fingerprint[:12]} in {making.dtype}; name another address, or give --replace to "
                "discard it with all of its sources"
            )
        self.take(EVERYTHING if is_other else making.source)
        return None if is_other else self.opened(making.source)

    def opened(self, source: str) -> LanceGallery:
        """The gallery, whose `info` tells what concerns a source alone."""
        gallery = find(self.database)
        assert gallery is not None
        size, own = gallery.count(of_source(source)), gallery.records.sources.get(source, {})
        gallery.info = with_changes(
            gallery.info,
            source=source,
            size=size,
            skipped=own.get("skipped", []),
            footage=own.get("footage", {}),
            described=own.get("described", 0),
        )
        return gallery

    @contextmanager
    def writer(self, making: Making, columns: pa.Schema) -> Iterator[Writer]:
        """As in `Target`, but pictures stay that were added before it failed, and need not be added again."""
        writer = LanceWriter(self, making, columns)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise

    def tidy(self, pictures: Table, columns: pa.Schema) -> None:
        """Join small files, index new vectors, and remove versions, tables and columns that nobody needs any more."""
        assert self._lease is not None
        assert self.index is not None
        with suppress(TemporaryError):  # others write; who is the last will do it
            if self._lease.is_alone():
                self._drop_unused(pictures, columns)
                self._drop_tables(KEPT)
            self._index_vectors(pictures)
            pictures.tidy(KEPT)
            self.index.table.tidy(KEPT)

    def forgotten(self, source: str) -> Forgotten:
        """As in `Target`."""
        record = {} if self.index is None else self.index.read().gallery["forgotten"]
        return Forgotten.of(record).of_source(source)

    def forget(self, gallery: Gallery, rows: Rows, forgotten: dict[str, Any]) -> Info:
        """As in `Target`: earlier versions are removed at once, and who has one open must open the gallery again."""
        assert self.index is not None
        self.take(EVERYTHING)
        present = find(self.database)
        if present is None or present.version != gallery.version:
            raise UserError(f"{gallery.address}: was changed meanwhile; nothing was forgotten; run this again")
        pictures = self.pictures()
        places = pictures.read([ID], one_of(rows), places=True)["_rowid"].to_numpy()
        fragments = sorted({int(place) >> 32 for place in places})
        parts = [f"_rowid >= {number << 32} AND _rowid < {(number + 1) << 32}" for number in fragments]
        if pictures.has_deleted():  # which may be of the same people, in any fragment
            parts = ["true"]
        gone = files_gone(gallery, rows)
        self.index.change(GALLERY, lambda document: document | {"forgotten": forgotten, "purge": rows.tolist()})
        self.index.change(SOURCES, lambda document: _without_forgotten(document, gone, Forgotten.of(forgotten)))
        delete_rows(pictures, rows)
        self._purge(pictures, parts)
        found = find(self.database)
        assert found is not None
        return found.info

    def _purge(self, pictures: Table, parts: list[str]) -> None:
        """Write the rows of these parts anew, and remove all that is not of the latest version."""
        assert self.index is not None
        if pictures.indexed(VECTORS) is not None:  # it may hold deleted rows of a fragment that stays
            pictures.drop_index()
        for part in parts:
            pictures.rewrite(part)
        pictures.tidy(NOT_KEPT, unverified=True)
        self._index_vectors(pictures)
        pictures.tidy(NOT_KEPT, unverified=True)
        self._drop_tables(NOT_KEPT)
        self.index.change(GALLERY, lambda document: {name: document[name] for name in document if name != "purge"})
        self.index.table.tidy(NOT_KEPT, unverified=True)

    def _index_vectors(self, pictures: Table) -> None:
        """Make an approximate index if there are many pictures, and none or too many outside of it."""
        size = pictures.renew().count()
        if size <= self._in_memory:
            return
        indexed = pictures.indexed(VECTORS)
        if indexed is None or size - indexed > UNINDEXED * size:
            parts = max(1, size // ROWS_PER_PART)
            config = load_lancedb().index.IvfRq(distance_type="dot", num_partitions=parts, sample_rate=64)
            pictures.create_index(VECTOR, config)

    def _drop_unused(self, pictures: Table, columns: pa.Schema) -> None:
        names = [name for name in metadata_of(pictures.renew().schema).names if name not in columns.names]
        unused = [name for name in names if not pictures.count(f"`{name}` IS NOT NULL")]
        if unused:
            pictures.drop_columns(unused)

    def _drop_tables(self, older_than: timedelta) -> None:
        """Remove tables of pictures that a killed process began, or that were replaced."""
        assert self.index is not None
        used = self.index.read().gallery["pictures"]
        for name in self.database.tables():
            table = self.database.open(name) if name.startswith(PICTURES) and name != used else None
            if table is not None and time.time() - table.changed_at() >= older_than.total_seconds():
                self.database.drop(name)


def _without_forgotten(sources: Document, gone: dict[str, set[str]], forgotten: Forgotten) -> Document:
    """What is recorded of each source, without forgotten files."""
    return {
        source: own
        | without_forgotten(
            own.get("skipped", []), own.get("footage", {}), gone.get(source, set()), forgotten.of_source(source)
        )
        for source, own in sources.items()
    }


def _check_empty(database: Database) -> None:
    """Check that there is nothing that is no gallery.

    Raises:
        UserError: There is.
    """
    folder, names = database.folder, database.tables()
    if folder is not None and (folder.is_file() or (folder.is_dir() and not names and any(folder.iterdir()))):
        raise UserError(f"{database.address}: exists and is not a gallery; name another folder, or remove it first")
    others = [name for name in names if not name.startswith(PICTURES)]
    if others:
        raise UserError(f"{database.address}: holds other tables ({first_of(others)}); name another address")
