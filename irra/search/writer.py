"""Writing an index folder batch by batch: pictures kept from a previous index, then new pictures, then captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from irra.search.folder import FolderGallery
from irra.search.format import (
    CAPTION_EMBEDDINGS,
    CAPTION_SCHEMA,
    CAPTIONS,
    DESCRIBED,
    EMBEDDINGS,
    ENTRIES,
    ENTRY_SCHEMA,
    EXACT,
    FORMAT_VERSION,
    HNSW,
    METADATA,
    NEIGHBOURS,
    THUMBNAILS,
    Info,
    write_info,
)
from irra.search.gallery import Gallery
from irra.search.hnsw import write_graph
from irra.search.knn import normalised
from irra.utils.errors import UserError, first_of
from irra.utils.npy import write_npy_header
from irra.utils.records import hash_files

EXACT_LIMIT = 100_000  # largest gallery searched exactly: about 13 ms per query at 512 dimensions
COPY_ROWS = 8192  # rows of a previous index copied at once
ROW_GROUP = 2**20  # rows of entries.parquet that pyarrow puts into one group

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A picture to be written: like Entry, plus what shows whether its file has changed, if there is a file."""

    path: str
    thumbnail: bytes
    pid: int | None = None
    file_bytes: int | None = None
    modified_ns: int | None = None
    sha256: str | None = None


class EmbeddingFile:
    """An .npy file of unit vectors that grows batch by batch."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.rows = 0
        self.dimension = 0
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")

    def append(self, vectors: NDArray[Any]) -> None:
        """Append vectors (B, D) of unit norm."""
        if self.rows == 0:
            self.dimension = vectors.shape[1]
            self._write_header()
        assert vectors.shape[1] == self.dimension
        self._file.write(np.ascontiguousarray(vectors, dtype=self._dtype).data)
        self.rows += len(vectors)

    def close(self) -> None:
        """Write the final number of rows into the header, which has room for it."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        write_npy_header(self._file, self._dtype, (self.rows, self.dimension))


class TableFile:
    """A Parquet file that grows table by table: the one that `pyarrow.parquet.write_table` makes of all at once.

    It holds a row group in memory.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def append(self, table: pa.Table) -> None:
        """Append a table of this schema."""
        self._waiting.append(table)
        self._rows += len(table)
        while self._rows >= ROW_GROUP:
            self._write(ROW_GROUP)

    def close(self) -> None:
        """Write the last rows."""
        if self._rows:
            self._write(self._rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        self._writer.write_table(waiting.slice(0, rows).combine_chunks())  # pages do not end where tables happen to
        self._waiting = [waiting.slice(rows)]
        self._rows -= rows


class EntryFile:
    """entries.parquet, row by row; ids and paths stay in memory, in Arrow's arrays, which are smaller than objects."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._file = TableFile(path, ENTRY_SCHEMA)
        self._columns: dict[str, list[Any]] = {name: [] for name in ENTRY_SCHEMA.names}
        self._named = ENTRY_SCHEMA.empty_table().select(["id", "path"])

    def append(self, entry: dict[str, Any]) -> None:
        """Append a row; what the schema does not name is left out."""
        for name, column in self._columns.items():
            column.append(entry[name])
        self.rows += 1
        if self.rows % COPY_ROWS == 0:
            self._pack()

    def ids(self) -> NDArray[np.int64]:
        """The id of each row so far."""
        self._pack()
        return np.array(self._named["id"].to_numpy(), dtype=np.int64)

    def paths(self) -> list[str]:
        """The path of each row so far."""
        self._pack()
        paths: list[str] = self._named["path"].to_pylist()
        return paths

    def close(self) -> None:
        """Write the last rows."""
        self._pack()
        self._file.close()

    def _pack(self) -> None:
        table = pa.table(self._columns, schema=ENTRY_SCHEMA)
        self._columns = {name: [] for name in self._columns}
        self._file.append(table)
        self._named = pa.concat_tables([self._named, table.select(["id", "path"])])


class FolderWriter:
    """Writes an index into an empty folder, holding one batch in memory; call `keep` first and `finish` last.

    A gallery of more than `exact_limit` pictures is searched approximately. With `columns`, every picture has metadata
    of that schema. The index records `forgotten`, and nothing of a previous index is kept that may hold such pictures.
    """

    def __init__(
        self,
        folder: Path,
        model_fingerprint: str,
        image_size: tuple[int, int],
        dtype: str,
        columns: pa.Schema | None = None,
        forgotten: dict[str, Any] | None = None,
        exact_limit: int = EXACT_LIMIT,
    ) -> None:
        self._folder, self._exact_limit = folder, exact_limit
        self._model_fingerprint, self._image_size, self._dtype = model_fingerprint, image_size, dtype
        self._entries = EntryFile(folder / ENTRIES)
        self._embeddings = EmbeddingFile(folder / EMBEDDINGS, dtype)
        self._thumbnails = (folder / THUMBNAILS).open("wb")
        self._schema = columns or pa.schema([])
        self._metadata = TableFile(folder / METADATA, self._schema) if len(self._schema) else None
        self._captions = self._described = 0
        self._next_id = 0
        self._forgotten = forgotten or {}
        self._previous_graph: Path | None = None

    def keep(self, previous: Gallery, rows: NDArray[np.int64], metadata: pa.Table | None = None) -> None:
        """Copy the pictures in the ascending `rows` of a previous index, with their ids but without captions.

        Their metadata are those given, one row a picture.
        """
        assert isinstance(previous, FolderGallery)
        assert not self._entries.rows, "keep must be called before add"
        assert previous.info.dtype == self._dtype
        self._next_id = previous.info.next_id
        if previous.info.kind == HNSW and previous.info.forgotten == self._forgotten:  # it also holds what is gone
            self._previous_graph = previous.folder / NEIGHBOURS
        for start in range(0, len(rows), COPY_ROWS):
            block = rows[start : start + COPY_ROWS]
            self._embeddings.append(previous.embeddings[block])
            for row, entry in zip(block.tolist(), previous.entries.take(block).to_pylist(), strict=True):
                self._append(entry, previous.entry(row).thumbnail)
        self._append_metadata(metadata, len(rows))

    def add(self, pictures: Sequence[Picture], embeddings: Floats, metadata: pa.Table | None = None) -> None:
        """Append pictures with their un-normalised embeddings (B, D) and their metadata."""
        assert len(pictures) == len(embeddings)
        self._embeddings.append(unit(embeddings))
        self._append_metadata(metadata, len(pictures))
        for picture in pictures:
            self._append({"id": self._next_id, **vars(picture)}, picture.thumbnail)
            self._next_id += 1

    def add_captions(self, texts: list[str], embeddings: Floats) -> None:
        """Write all captions with their un-normalised embeddings (M, D); may be called once."""
        assert not self._captions
        file = EmbeddingFile(self._folder / CAPTION_EMBEDDINGS, self._dtype)
        file.append(unit(embeddings))
        file.close()
        pq.write_table(pa.table({"text": texts}, schema=CAPTION_SCHEMA), self._folder / CAPTIONS)
        self._captions = len(texts)

    @property
    def paths(self) -> list[str]:
        """The paths of the pictures so far, in their order."""
        return self._entries.paths()

    def describe(self, means: Floats) -> None:
        """Write the mean (N, D) of the embeddings of each picture's captions, or zeros; may be called once, at last."""
        assert len(means) == self._entries.rows
        self._described = int(means.any(axis=1).sum())
        if self._described:
            file = EmbeddingFile(self._folder / DESCRIBED, self._dtype)
            file.append(unit(means))
            file.close()

    def keep_described(self, previous: FolderGallery, rows: NDArray[np.int64]) -> None:
        """Instead of `describe`, copy what `previous` has of the ascending `rows`, which are all of the pictures."""
        assert len(rows) == self._entries.rows
        means = previous.described
        self._described = 0 if means is None else int(np.asarray(means.any(axis=1))[rows].sum())
        if means is not None and self._described:
            file = EmbeddingFile(self._folder / DESCRIBED, self._dtype)
            for start in range(0, len(rows), COPY_ROWS):
                file.append(means[rows[start : start + COPY_ROWS]])
            file.close()

    def finish(self, source: str, skipped: list[dict[str, str]], footage: dict[str, str] | None = None) -> Info:
        """Complete the index, which records `source`, `skipped` and what was read of files of frames or video.

        Raises:
            UserError: There are no pictures.
        """
        size = self._entries.rows
        if size == 0:
            raise no_pictures(source, skipped)
        self._embeddings.close()
        self._thumbnails.close()
        if self._metadata is not None:
            self._metadata.close()
        self._entries.close()
        kind = EXACT if size <= self._exact_limit else HNSW
        if kind == HNSW:
            embeddings = np.load(self._folder / EMBEDDINGS, mmap_mode="r")
            write_graph(self._folder / NEIGHBOURS, embeddings, self._entries.ids(), self._previous_graph)
        info = Info(
            format_version=FORMAT_VERSION,
            model_fingerprint=self._model_fingerprint,
            source=source,
            image_size=list(self._image_size),
            size=size,
            dimension=self._embeddings.dimension,
            dtype=self._dtype,
            kind=kind,
            captions=self._captions,
            next_id=self._next_id,
            skipped=skipped,
            file_bytes={path.name: path.stat().st_size for path in sorted(self._folder.iterdir())},
            sha256=hash_files(self._folder),
            described=self._described,
            columns={field.name: str(field.type) for field in self._schema},
            footage=footage or {},
            forgotten=self._forgotten,
        )
        write_info(self._folder, info)
        return info

    def _append_metadata(self, metadata: pa.Table | None, count: int) -> None:
        if self._metadata is not None:
            assert metadata is not None
            assert len(metadata) == count
            self._metadata.append(metadata)

    def _append(self, entry: dict[str, Any], thumbnail: bytes) -> None:
        self._thumbnails.write(thumbnail)
        self._entries.append(entry | {"thumbnail_end": self._thumbnails.tell()})


def no_pictures(source: str, skipped: list[dict[str, str]]) -> UserError:
    """What to tell of a source without any usable picture."""
    reasons = first_of([f"{item['path']} ({item['reason']})" for item in skipped])
    return UserError(f"{source}: no usable picture to search; skipped: {reasons}")


def unit(embeddings: Floats) -> Floats:
    """Embeddings (B, D) at unit norm.

    Raises:
        UserError: They are not finite.
    """
    if not np.isfinite(embeddings).all():
        raise UserError("the model gives embeddings that are not finite; try index.precision: fp32")
    return normalised(embeddings)
