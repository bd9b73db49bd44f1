"""What a gallery in LanceDB records beside its pictures, and who may write it.

A table `index` has three rows, each a document in JSON that is changed only by who has read its present revision:

gallery  format version, the model's fingerprint, sizes, the name of the table of pictures, what was forgotten
writers  the next id, and the sources that are being written, by whom and until when
sources  for each source: skipped files, footage, number of pictures with captions

A table `pictures-...` has a row for each picture, with columns `path`, `pid`, `source`, those of its metadata, and

irra_id           int64, the row of the picture in answers: ascending in the order of adding, never reused
irra_vector       float16 or float32 (D), unit norm
irra_thumbnail    a JPEG at the model's image size
irra_file_bytes, irra_modified_ns, irra_sha256   of its file
irra_described    like irra_vector: the mean of the unit embeddings of its own captions, or null; only if there are some
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from irra.search.lance.database import Database, Table
from irra.utils.errors import UserError

FORMAT_VERSION = 1
INDEX, PICTURES = "index", "pictures-"  # tables
GALLERY, WRITERS, SOURCES = "gallery", "writers", "sources"  # rows of the index
OWN = "irra_"
ID, VECTOR, THUMBNAIL, DESCRIBED = "irra_id", "irra_vector", "irra_thumbnail", "irra_described"
FILE = {"file_bytes": "irra_file_bytes", "modified_ns": "irra_modified_ns", "sha256": "irra_sha256"}
EVERYTHING = ""  # in place of a source
LEASE_SECONDS = 120  # after which somebody else may write the source of a writer that gives no sign of life
RENEW_SECONDS = 30
SCHEMA = pa.schema({"name": pa.string(), "revision": pa.int64(), "content": pa.string()})

Document = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """The documents of a gallery at one moment."""

    gallery: Document
    writers: Document
    sources: Document


class Index:
    """The table `index` of a gallery."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database, self._table = database, table

    @classmethod
    def open(cls, database: Database) -> "Index | None":
        """That of the gallery in a database; None if there is no gallery."""
        table = database.open(INDEX)
        return None if table is None else cls(database, table)

    @classmethod
    def create(cls, database: Database, records: Records) -> "Index | None":
        """Begin a gallery; None if there is one already."""
        names = [GALLERY, WRITERS, SOURCES]
        content = [json.dumps(document) for document in (records.gallery, records.writers, records.sources)]
        table = database.create(INDEX, SCHEMA, pa.table([names, [0] * 3, content], schema=SCHEMA))
        return None if table is None else cls(database, table)

    def read(self) -> Records:
        """The present documents.

        Raises:
            UserError: They are not those of a gallery, or of another format version.
        """
        address = self._database.address
        if self._table.renew().schema != SCHEMA:
            raise UserError(f"{address}: its table {INDEX!r} is not that of a gallery; name another address")
        rows = {row["name"]: json.loads(row["content"]) for row in self._table.read(SCHEMA.names).to_pylist()}
        version = rows.get(GALLERY, {}).get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{address}: format version {version}, this code reads {FORMAT_VERSION}; "
                "make the gallery again at another address"
            )
        return Records(rows[GALLERY], rows[WRITERS], rows[SOURCES])

    def change(self, name: str, edit: Callable[[Document], Document]) -> Document:
        """Replace a document by what `edit` makes of it, which may be called again if somebody else changes it."""
        while True:
            self._table.renew()
            (row,) = self._table.read(["revision", "content"], f"name = '{name}'").to_pylist()
            changed = edit(json.loads(row["content"]))
            values = {"revision": row["revision"] + 1, "content": json.dumps(changed)}
            if self._table.update(f"name = '{name}' AND revision = {row['revision']}", values) == 1:
                return changed

    @property
    def table(self) -> Table:
        """The table itself."""
        return self._table


class Lease:
    """The right to write a source, or everything, which is renewed in the background until it is given back."""

    def __init__(self, index: Index, source: str, address: str) -> None:
        self._index, self._source, self._address = index, source, address
        self._owner = uuid.uuid4().hex
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> None:
        """Take it.

        Raises:
            UserError: Another process is writing.
        """
        self._index.change(WRITERS, self._enter)
        self._thread.start()

    def claim(self, count: int) -> int:
        """The first of so many ids in a row that nobody else gets.

        Raises:
            UserError: The lease has ended, because this process was stopped for too long.
        """

        def edit(writers: Document) -> Document:
            if writers["leases"].get(self._source, {}).get("owner") != self._owner:
                raise UserError(f"{self._address}: another process writes it since this one was stopped; begin again")
            writers["leases"][self._source] |= {"until": time.time() + LEASE_SECONDS}
            return writers | {"next_id": writers["next_id"] + count}

        return int(self._index.change(WRITERS, edit)["next_id"]) - count

    def is_alone(self) -> bool:
        """Whether nobody else is writing."""
        leases = _alive(self._index.read().writers)
        return all(lease["owner"] == self._owner for lease in leases.values())

    def end(self) -> None:
        """Give it back."""
        self._ended.set()
        self._thread.join()

        def edit(writers: Document) -> Document:
            leases = {name: lease for name, lease in writers["leases"].items() if lease["owner"] != self._owner}
            return writers | {"leases": leases}

        with suppress(UserError):  # it ends by itself
            self._index.change(WRITERS, edit)

    def entry(self) -> Document:
        """What the document of the writers says of it."""
        until = time.time() + LEASE_SECONDS
        return {"owner": self._owner, "host": socket.gethostname(), "process": os.getpid(), "until": until}

    def _enter(self, writers: Document) -> Document:
        leases = _alive(writers)
        for source, lease in leases.items():
            if EVERYTHING in (source, self._source) or source == self._source:
                raise UserError(
                    f"{self._address}: process {lease['process']} on {lease['host']} is writing "
                    f"{source or 'all of it'}; wait until it has finished, or end it first"
                )
        return writers | {"leases": leases | {self._source: self.entry()}}

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with suppress(UserError):  # a later try may succeed; otherwise `claim` finds out
                self.claim(0)


def _alive(writers: Document) -> Document:
    """The leases that hold: a process that has died on this machine has none."""
    return {
        source: lease
        for source, lease in writers["leases"].items()
        if lease["until"] > time.time() and not (lease["host"] == socket.gethostname() and _is_dead(lease["process"]))
    }


def _is_dead(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
