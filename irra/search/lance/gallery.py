"""A gallery in a LanceDB database, on a disk or in a bucket, opened for searching."""

import hashlib
import json
import threading
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from irra.search.address import LANCE
from irra.search.format import AGAIN, EXACT, Info, check_described
from irra.search.gallery import ALWAYS, Entry, Rows, Scores
from irra.search.knn import (
    SCAN_SHARE,
    Embeddings,
    ExactCandidates,
    Neighbours,
    normalised,
    score,
    search_described,
)
from irra.search.lance.database import VECTORS, Database, Table, text_sql
from irra.search.lance.records import DESCRIBED, FILE, FORMAT_VERSION, ID, OWN, THUMBNAIL, VECTOR, Index, Records
from irra.search.pictures import to_pixels
from irra.search.where import Condition
from irra.utils.errors import UserError

IN_MEMORY = 100_000  # pictures of a gallery whose vectors are read into memory and compared one by one
FEW = 10_000  # pictures that satisfy a condition are compared one by one: about 50 ms
IVF = "ivf"  # kind of search
PARTS = 1 << 20  # of the approximate index are searched, which is all: one bit a dimension is read at memory's speed
CANDIDATES = 500  # whose exact scores are compared, beyond those that an exact index would propose


class LanceGallery:
    """A `Gallery` in a LanceDB database, where the row of a picture is its id.

    Up to IN_MEMORY pictures, their vectors are read once and searched as those of an index folder.
    """

    def __init__(self, address: str, database: Database, records: Records, pictures: Table) -> None:
        self.address, self._database, self._pictures, self.records = address, database, pictures, records
        schema = pictures.schema
        self._known = [*ALWAYS, "source", *(name for name in metadata_of(schema).names)]
        self.columns = pa.schema([schema.field(name) for name in self._known])
        self.size = pictures.count()
        self.info = _info(records, self.size, metadata_of(schema), pictures.indexed(VECTORS) is not None)
        contents = json.dumps([records.gallery, records.sources, pictures.version], sort_keys=True)
        self.version = hashlib.sha256(contents.encode()).hexdigest()[:16]
        self._loading = threading.Lock()

    @classmethod
    def open(cls, address: str) -> "LanceGallery":
        """Open the database at `address`, which begins with `lance:`.

        Raises:
            UserError: There is no gallery, it is of another format version, or S3 does not answer or refuses.
        """
        gallery = find(open_database(address))
        if gallery is None:
            raise UserError(f"{address}: no gallery there; make one with `irra index --out {address}`")
        return gallery

    def __contains__(self, row: int) -> bool:
        """Whether there is a picture of this row."""
        ids, _ = self._places
        at = int(np.searchsorted(ids, row))
        return at < len(ids) and int(ids[at]) == row

    def search(
        self, embeddings: Scores, top_k: int, caption_weight: float = 0.0, where: Condition | None = None
    ) -> tuple[Scores, Rows]:
        """As in `Gallery`."""
        if caption_weight:
            check_described(self.address, self.info)
        if self.size <= IN_MEMORY:
            return self._search_memory(embeddings, top_k, caption_weight, where)
        sql = None if where is None else where.sql
        count = self.size if sql is None else self._pictures.count(sql)
        top_k = min(top_k, count)
        queries = normalised(embeddings)
        if caption_weight or (sql is not None and count <= FEW) or SCAN_SHARE * (2 * top_k + CANDIDATES) > count:
            return self._scan(queries, top_k, caption_weight, sql)
        return self._search_index(queries, top_k, sql)

    def entry(self, row: int) -> Entry:
        """As in `Gallery`."""
        (found,) = self._take([*ALWAYS, "source", THUMBNAIL], [row]).to_pylist()
        return Entry(found["path"], found["pid"], found[THUMBNAIL], found["source"])

    def pixels(self, row: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """As in `Gallery`."""
        try:
            with Image.open(BytesIO(self.entry(row).thumbnail)) as picture:
                return to_pixels(picture, size)
        except (UnidentifiedImageError, UserError):
            raise UserError(f"{self.address}: the thumbnail of picture {row} is damaged; {AGAIN}") from None

    def metadata(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """As in `Gallery`."""
        found: list[dict[str, Any]] = self._take(list(columns or self._known), rows).to_pylist()
        return found

    def table(self, columns: Sequence[str], where: Condition | None = None) -> pa.Table:
        """As in `Gallery`."""
        return self._ascending(columns, None if where is None else where.sql)

    def files(self, source: str) -> pa.Table:
        """As in `Gallery`."""
        table = self._ascending(["path", *FILE.values()], of_source(source))
        return table.rename_columns(["row", "path", *FILE])

    def nearest_captions(self, embeddings: Scores, top_k: int) -> tuple[Scores, Rows]:
        """As in `Gallery`; there are none."""
        return np.empty((len(embeddings), 0), np.float32), np.empty((len(embeddings), 0), np.int64)

    def caption(self, row: int) -> str:
        """As in `Gallery`; there are none."""
        raise IndexError(row)

    def count(self, where: str) -> int:
        """Number of pictures that satisfy a condition in SQL."""
        return self._pictures.count(where)

    @cached_property
    def _places(self) -> tuple[Rows, Rows]:
        """All ids, ascending, and where LanceDB keeps their rows."""
        table = self._pictures.read([ID], places=True)
        ids, places = (table[name].to_numpy() for name in (ID, "_rowid"))
        order = np.argsort(ids)
        return ids[order], places[order].astype(np.int64)

    def _take(self, columns: Sequence[str], rows: Sequence[int]) -> pa.Table:
        """These columns of the pictures of `rows`, in their order."""
        if not len(rows):
            return pa.schema([self._pictures.schema.field(name) for name in columns]).empty_table()
        ids, places = self._places
        table = self._pictures.take([ID, *columns], places[np.searchsorted(ids, np.asarray(rows, np.int64))].tolist())
        return table.take(pc.index_in(pa.array(rows, pa.int64()), table[ID])).select(columns)

    def _ascending(self, columns: Sequence[str], where: str | None) -> pa.Table:
        table = self._pictures.read([ID, *columns], where)
        if pc.any(pc.less(table[ID][1:], table[ID][:-1])).as_py():
            table = table.sort_by(ID)
        return table.rename_columns(["row", *columns])

    def _search_memory(
        self, embeddings: Scores, top_k: int, caption_weight: float, where: Condition | None
    ) -> tuple[Scores, Rows]:
        allowed = None
        if where is not None:
            allowed = np.searchsorted(self._places[0], self.table([], where)["row"].to_numpy())
        with self._loading:
            neighbours = self._neighbours
            described = self._described if caption_weight else None
        if described is None:
            scores, positions = neighbours.search(embeddings, top_k, allowed)
        else:
            vectors = self._vectors
            scores, positions = search_described(vectors, described, caption_weight, embeddings, top_k, allowed)
        return scores, self._places[0][positions]

    @cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._vectors, ExactCandidates(self._vectors))

    @cached_property
    def _vectors(self) -> Embeddings:
        return self._load(VECTOR)

    @cached_property
    def _described(self) -> Embeddings:
        return self._load(DESCRIBED)

    def _load(self, column: str) -> Embeddings:
        """A column of vectors (N, D), ascending by id, zeros for null."""
        ids, _ = self._places
        loaded = np.zeros((len(ids), self.info.dimension), self.info.dtype)
        for batch in self._pictures.scan([ID, column]):
            loaded[np.searchsorted(ids, batch[ID].to_numpy())] = vectors_of(batch[column])
        return loaded

    def _search_index(self, queries: Scores, top_k: int, sql: str | None) -> tuple[Scores, Rows]:
        """Let LanceDB propose candidates, whose exact scores are then compared."""
        found = []
        for query in queries:
            near = self._pictures.nearest(VECTOR, query, 2 * top_k + CANDIDATES, [ID, VECTOR], sql, PARTS)
            if len(near) < top_k:
                scores, rows = self._scan(query[None], top_k, 0.0, sql)
                found.append((scores[0], rows[0]))
                continue
            scores = score_all(vectors_of(near[VECTOR].combine_chunks()), query)
            found.append(_best(scores, near[ID].to_numpy(), top_k))
        return _stack(found, top_k)

    def _scan(self, queries: Scores, top_k: int, weight: float, sql: str | None) -> tuple[Scores, Rows]:
        """Compare all pictures that satisfy a condition, block by block."""
        found = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(queries)
        for batch in self._pictures.scan([ID, VECTOR, *([DESCRIBED] if weight else [])], sql):
            ids, vectors = batch[ID].to_numpy(), vectors_of(batch[VECTOR])
            means = vectors_of(batch[DESCRIBED]) if weight else None
            for number, query in enumerate(queries):
                scores = score_all(vectors, query)
                if means is not None:
                    share = (means.any(axis=1) * weight).astype(np.float32)
                    scores = (1 - share) * scores + share * score_all(means, query)
                best, rows = found[number]
                found[number] = _best(np.concatenate([best, scores]), np.concatenate([rows, ids]), top_k)
        return _stack(found, top_k)


def open_database(address: str) -> Database:
    """The database at an address that begins with `lance:`.

    Raises:
        UserError: It is no such address, LanceDB is not installed, or S3 does not answer.
    """
    return Database(address, address.removeprefix(LANCE))


def find(database: Database) -> LanceGallery | None:
    """The gallery in a database, if there is one."""
    index = Index.open(database)
    while index is not None:
        records = index.read()
        pictures = database.open(records.gallery["pictures"])
        if pictures is not None:
            return LanceGallery(database.address, database, records, pictures.pin())
        if index.read().gallery == records.gallery:  # otherwise it was replaced meanwhile
            raise UserError(f"{database.address}: its table {records.gallery['pictures']} is missing; {AGAIN}")
    return None


def of_source(source: str) -> str:
    """The condition that a picture is of a source."""
    return f"source = {text_sql(source)}"


def vectors_of(column: pa.Array) -> Embeddings:
    """A column of vectors as an array (N, D), zeros for null."""
    dimension = column.type.list_size
    flat = column.values.slice(column.offset * dimension, len(column) * dimension).to_numpy(zero_copy_only=False)
    vectors: Embeddings = flat.reshape(len(column), dimension)
    if column.null_count:
        vectors = np.where(pc.is_valid(column).to_numpy(zero_copy_only=False)[:, None], vectors, 0)
    return vectors


def score_all(vectors: Embeddings, query: Scores) -> Scores:
    """Inner products (N,) of vectors (N, D) with `query` (D,), as everywhere."""
    return score(vectors, np.arange(len(vectors)), query)


def _best(scores: Scores, rows: Rows, top_k: int) -> tuple[Scores, Rows]:
    order = np.lexsort((rows, -scores))[:top_k]
    return scores[order], rows[order]


def _stack(found: list[tuple[Scores, Rows]], top_k: int) -> tuple[Scores, Rows]:
    scores = np.array([scores for scores, _ in found], np.float32).reshape(len(found), top_k)
    return scores.clip(-1.0, 1.0), np.array([rows for _, rows in found], np.int64).reshape(len(found), top_k)


def metadata_of(schema: pa.Schema) -> pa.Schema:
    """The columns of the metadata in a table of pictures."""
    fields = [field for field in schema if not field.name.startswith(OWN) and field.name not in (*ALWAYS, "source")]
    return pa.schema(fields)


def _info(records: Records, size: int, metadata: pa.Schema, is_indexed: bool) -> Info:
    gallery, sources = records.gallery, records.sources
    several = len(sources) > 1
    return Info(
        format_version=FORMAT_VERSION,
        model_fingerprint=gallery["model_fingerprint"],
        source=", ".join(sources),
        image_size=gallery["image_size"],
        size=size,
        dimension=gallery["dimension"],
        dtype=gallery["dtype"],
        kind=IVF if is_indexed else EXACT,
        captions=0,
        next_id=records.writers["next_id"],
        skipped=[file for source in sources.values() for file in source["skipped"]],
        file_bytes={},
        described=sum(source["described"] for source in sources.values()),
        columns={field.name: str(field.type) for field in metadata},
        footage={
            f"{name}/{path}" if several else path: read
            for name, source in sources.items()
            for path, read in source["footage"].items()
        },
        forgotten=gallery["forgotten"],
    )
