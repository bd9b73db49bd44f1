"""Writing pictures of one source to a gallery in a LanceDB database, batch by batch."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irra.search.format import Info
from irra.search.gallery import Gallery, Rows, Scores, known_metadata
from irra.search.lance.database import Table
from irra.search.lance.gallery import metadata_of, of_source
from irra.search.lance.records import (
    DESCRIBED,
    FILE,
    FORMAT_VERSION,
    GALLERY,
    ID,
    OWN,
    PICTURES,
    SOURCES,
    THUMBNAIL,
    VECTOR,
    Document,
    Index,
    Records,
)
from irra.search.target import Making
from irra.search.writer import Picture, no_pictures, unit
from irra.utils.errors import TemporaryError, UserError

if TYPE_CHECKING:
    from irra.search.lance.target import LanceTarget

FLUSH_ROWS = 4096  # pictures that appear together
FLUSH_BYTES = 64 << 20  # of their thumbnails, at most
CHANGE_ROWS = 65_536  # pictures whose columns are changed at once
DELETE_ROWS = 10_000  # pictures deleted at once
NOTHING_YET: Document = {"skipped": [], "footage": {}, "described": 0}


class LanceWriter:
    """Writes pictures of a source, holding one batch in memory; see `Writer`.

    New pictures are found as soon as a batch is written; changed ones take the place of the former in one step. What
    has gone, and other metadata of kept pictures, follow at the end. A gallery of another model is replaced at the end.
    """

    def __init__(self, target: "LanceTarget", making: Making, columns: pa.Schema) -> None:
        check_names(columns)
        self._target, self._making, self._columns = target, making, columns
        self._table: Table | None = None
        self._new: Document | None = None  # what is to be recorded of a gallery that is replaced
        self._ids: list[Rows] = []
        self._paths: list[str] = []
        self._changed = pa.array([], pa.string())  # paths that are in the gallery with other content
        self._corrections: pa.Table | None = None  # ids and other metadata of kept pictures
        self._waiting: list[pa.Table] = []
        self._described = 0

    @property
    def paths(self) -> list[str]:
        """As in `Writer`."""
        return self._paths

    def keep(self, previous: Gallery, rows: Rows, metadata: pa.Table) -> None:
        """As in `Writer`."""
        known = previous.files(self._making.source)
        is_kept = pc.is_in(known["row"], pa.array(rows, pa.int64()))
        self._ids.append(rows)
        self._paths += known.filter(is_kept)["path"].to_pylist()
        self._changed = known.filter(pc.invert(is_kept))["path"].combine_chunks()
        before = known_metadata(previous, rows)
        if before.num_columns or metadata.num_columns:
            listed = {ID: rows, **dict(zip(metadata.column_names, metadata.columns, strict=True))}
            self._corrections = pa.table(listed).filter(differing(before, metadata, len(rows)))

    def add(self, pictures: Sequence[Picture], embeddings: Scores, metadata: pa.Table) -> None:
        """As in `Writer`."""
        assert len(pictures) == len(embeddings)
        vectors = unit(embeddings).astype(self._making.dtype)
        table = self._pictures(vectors.shape[1])
        listed = {
            "path": [picture.path for picture in pictures],
            "pid": [picture.pid for picture in pictures],
            "source": [self._making.source] * len(pictures),
            THUMBNAIL: [picture.thumbnail for picture in pictures],
            VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            ID: [0] * len(pictures),
            **{column: [getattr(picture, name) for picture in pictures] for name, column in FILE.items()},
            **{name: metadata[name] for name in metadata.column_names},
        }
        self._waiting.append(conform(listed, table.schema, len(pictures)))
        self._paths += listed["path"]
        waiting = sum(len(rows) for rows in self._waiting)
        if waiting >= FLUSH_ROWS or sum(rows[THUMBNAIL].nbytes for rows in self._waiting) >= FLUSH_BYTES:
            self._flush()

    def describe(self, means: Scores) -> None:
        """As in `Writer`."""
        self._flush()
        assert len(means) == len(self._paths)
        is_described = np.asarray(means.any(axis=1))
        self._described = int(is_described.sum())
        if not self._described:
            return
        table = self._pictures(means.shape[1])
        kind = pa.list_(pa.from_numpy_dtype(np.dtype(self._making.dtype)), means.shape[1])
        if DESCRIBED not in table.renew().schema.names:
            table.add_columns([pa.field(DESCRIBED, kind)])
        ids = np.concatenate(self._ids)
        for start in range(0, len(ids), CHANGE_ROWS):
            block = slice(start, start + CHANGE_ROWS)
            vectors = unit(means[block]).astype(self._making.dtype)
            nulls = pa.array(~is_described[block])
            described = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind, mask=nulls)
            table.merge([ID], pa.table([ids[block], described], names=[ID, DESCRIBED]), insert=False)

    def finish(self, source: str, skipped: list[dict[str, str]], footage: dict[str, str] | None = None) -> Info:
        """As in `Writer`; the result tells what concerns this source alone."""
        assert source == self._making.source
        self._flush()
        if not self._paths:
            raise no_pictures(source, skipped)
        table = self._pictures(0)
        self._correct(table)
        if not self._described and DESCRIBED in table.schema.names:
            table.update(f"{of_source(source)} AND {DESCRIBED} IS NOT NULL", {DESCRIBED: None})
        present = table.renew().read([ID], of_source(source))[ID].to_numpy()
        delete_rows(table, np.setdiff1d(present, np.concatenate(self._ids)))
        self._record({"skipped": skipped, "footage": footage or {}, "described": self._described})
        self._target.tidy(table, self._columns)
        return self._target.opened(source).info

    def discard(self) -> None:
        """Remove what was to replace a gallery."""
        if self._new is not None:
            self._target.database.drop(self._new["pictures"])

    def _pictures(self, dimension: int) -> Table:
        """The table to write to, which is made for a new gallery or for another model."""
        if self._table is None:
            target, gallery = self._target, None if self._target.index is None else self._target.index.read().gallery
            model = (self._making.model_fingerprint, self._making.dtype)
            if gallery is not None and (gallery["model_fingerprint"], gallery["dtype"]) == model:
                assert target.index is not None
                target.index.change(SOURCES, lambda sources: {self._making.source: NOTHING_YET} | sources)
                self._table = target.pictures()
                self._add_columns(self._table)
            else:
                self._table = self._create(dimension)
        return self._table

    def _create(self, dimension: int) -> Table:
        making, target = self._making, self._target
        name = f"{PICTURES}{uuid.uuid4().hex[:8]}"
        table = target.database.create(name, picture_schema(dimension, making.dtype, self._columns))
        assert table is not None
        gallery = {
            "format_version": FORMAT_VERSION,
            "model_fingerprint": making.model_fingerprint,
            "image_size": list(making.image_size),
            "dimension": dimension,
            "dtype": making.dtype,
            "pictures": name,
            "forgotten": target.forgotten(making.source).record(),
        }
        if target.index is not None:
            self._new = gallery
            return table
        records = Records(gallery, {"next_id": 0, "leases": {}}, {making.source: NOTHING_YET})
        target.index = Index.create(target.database, records)
        if target.index is None:
            target.database.drop(name)
            raise TemporaryError(f"{target.database.address}: another process has just made it; begin again")
        target.take(making.source)
        return table

    def _add_columns(self, table: Table) -> None:
        """Add the columns of the metadata that there are not yet; one of another type is replaced if it is ours."""
        present = metadata_of(table.schema)
        for field in self._columns:
            if field.name not in present.names:
                table.add_columns([field])
            elif (old := present.field(field.name).type) != field.type:
                others = f"NOT ({of_source(self._making.source)}) AND `{field.name}` IS NOT NULL"
                if table.count(others):
                    raise UserError(
                        f"{self._target.database.address}: column {field.name!r} is {old} for other sources, not "
                        f"{field.type}; rename it, or write its values alike"
                    )
                table.drop_columns([field.name])
                table.add_columns([field])
        table.renew()

    def _flush(self) -> None:
        """Write the pictures that wait."""
        if not self._waiting:
            return
        table = self._pictures(0)
        rows = pa.concat_tables(self._waiting)
        first = self._target.take(self._making.source).claim(len(rows))
        ids = np.arange(first, first + len(rows))
        rows = rows.set_column(rows.schema.get_field_index(ID), ID, pa.array(ids))
        is_changed = pc.is_in(rows["path"], self._changed)
        changed, new = rows.filter(is_changed), rows.filter(pc.invert(is_changed))
        if len(changed):
            table.merge(["source", "path"], changed, insert=True)
        if len(new):
            table.add(new)
        self._ids.append(ids)
        self._waiting = []

    def _correct(self, table: Table) -> None:
        """Give kept pictures their present metadata."""
        rows = self._corrections
        if rows is None or not len(rows):
            return
        schema = pa.schema([pa.field(ID, pa.int64()), *metadata_of(table.renew().schema)])
        columns = conform({name: rows[name] for name in rows.column_names}, schema, len(rows))
        for start in range(0, len(columns), CHANGE_ROWS):
            table.merge([ID], columns.slice(start, CHANGE_ROWS), insert=False)

    def _record(self, source: Document) -> None:
        index, new = self._target.index, self._new
        assert index is not None
        index.change(SOURCES, lambda sources: (sources if new is None else {}) | {self._making.source: source})
        if new is not None:
            index.change(GALLERY, lambda _: new)
            self._new = None


def check_names(columns: pa.Schema) -> None:
    """Check that LanceDB can hold columns of these names.

    Raises:
        UserError: A name has a dot, or is one of ours.
    """
    for name in columns.names:
        if "." in name or "`" in name:
            raise UserError(f"column {name!r}: a gallery in LanceDB can have no dot or ` in a name; rename it")
        assert not name.startswith(OWN)


def picture_schema(dimension: int, dtype: str, columns: pa.Schema) -> pa.Schema:
    """The columns of a table of pictures."""
    names = {"path": pa.string(), "pid": pa.int64(), "source": pa.string()}
    vector = pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), dimension)
    own = {ID: pa.int64(), VECTOR: vector, THUMBNAIL: pa.binary()}
    file = dict(zip(FILE.values(), (pa.int64(), pa.int64(), pa.string()), strict=True))
    return pa.schema([*pa.schema(names), *columns, *pa.schema(own | file)])


def conform(columns: dict[str, Any], schema: pa.Schema, count: int) -> pa.Table:
    """A table of this schema, with nulls where there is no column."""
    return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in schema], schema=schema)


def differing(before: pa.Table, after: pa.Table, count: int) -> pa.Array:
    """Whether each of the `count` rows of two tables has other values; a column that one does not have has none."""
    different = np.zeros(count, bool)
    for name in dict.fromkeys([*before.column_names, *after.column_names]):
        old, new = (_column(table, name, count) for table in (before, after))
        if pa.types.is_null(old.type) or pa.types.is_null(new.type):
            different |= pc.or_(old.is_valid(), new.is_valid()).to_numpy(zero_copy_only=False)
            continue
        if old.type != new.type:
            return pa.array(np.ones(count, bool))
        unequal = pc.fill_null(pc.not_equal(old, new), False)
        different |= pc.or_(unequal, pc.xor(old.is_null(), new.is_null())).to_numpy(zero_copy_only=False)
    return pa.array(different)


def _column(table: pa.Table, name: str, count: int) -> pa.Array:
    return table[name].combine_chunks() if name in table.column_names else pa.nulls(count)


def delete_rows(table: Table, ids: Rows) -> None:
    """Delete the pictures of these ids."""
    for start in range(0, len(ids), DELETE_ROWS):
        table.delete(one_of(ids[start : start + DELETE_ROWS]))


def one_of(ids: Rows) -> str:
    """The condition that a picture has one of these ids."""
    return f"{ID} IN ({', '.join(map(str, ids.tolist()))})" if len(ids) else "false"
