"""An index folder opened for searching: embeddings and thumbnails memory-mapped, entries in memory."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from irra.search.format import (
    AGAIN,
    CAPTION_EMBEDDINGS,
    CAPTION_SCHEMA,
    CAPTIONS,
    DESCRIBED,
    EMBEDDINGS,
    ENTRIES,
    ENTRY_SCHEMA,
    HNSW,
    METADATA,
    NEIGHBOURS,
    THUMBNAILS,
    Info,
    check_described,
    read_info,
)
from irra.search.gallery import Entry, Rows, Scores
from irra.search.hnsw import GraphCandidates
from irra.search.knn import Embeddings, ExactCandidates, Neighbours, search_described
from irra.search.pictures import to_pixels
from irra.search.where import Condition
from irra.utils.errors import UserError
from irra.utils.npy import map_npy
from irra.utils.records import QUICK, check_files

JPEG_BEGINNING, JPEG_END = (0xFF, 0xD8), (0xFF, 0xD9)


class FolderGallery:
    """A `Gallery` in an index folder, where the row of a picture is its place in the files.

    If the folder is replaced meanwhile, it keeps showing the contents that it was opened with.
    """

    def __init__(self, folder: Path, info: Info) -> None:
        self.address, self.folder, self.info = str(folder), folder, info
        modified = folder.stat().st_mtime_ns
        contents = f"{info.model_fingerprint} {info.size} {modified}"
        self.version = hashlib.sha256(contents.encode()).hexdigest()[:16]
        self.entries = _read_table(folder / ENTRIES, info.size, ENTRY_SCHEMA)
        self.embeddings = _map_embeddings(folder / EMBEDDINGS, info.size, info)
        self.thumbnails = np.asarray(np.memmap(folder / THUMBNAILS, dtype=np.uint8, mode="r"))
        check_files(folder, info.sha256, AGAIN, largest=QUICK)
        graph = GraphCandidates(folder / NEIGHBOURS, self.ids) if info.kind == HNSW else None
        self._neighbours = Neighbours(self.embeddings, graph or ExactCandidates(self.embeddings))
        self.described = _map_embeddings(folder / DESCRIBED, info.size, info) if info.described else None
        self._metadata = _read_metadata(folder / METADATA, info) if info.columns else None
        self.columns = self._known.schema.remove(0)
        self._captions: pa.Table | None = None
        if info.captions:
            self._captions = _read_table(folder / CAPTIONS, info.captions, CAPTION_SCHEMA)
            self.caption_embeddings = _map_embeddings(folder / CAPTION_EMBEDDINGS, info.captions, info)
            self._near_captions = Neighbours(self.caption_embeddings, ExactCandidates(self.caption_embeddings))

    @classmethod
    def open(cls, folder: Path) -> "FolderGallery":
        """Open an index folder.

        Raises:
            UserError: It is missing, truncated, damaged or of another format version.
        """
        while True:
            before = _identity(folder)
            try:
                gallery = cls(folder, read_info(folder))
            except UserError:
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return gallery
            # The folder was replaced meanwhile, so its files are of two indexes or were missing for a moment; try again

    @property
    def ids(self) -> Rows:
        """The id (N,) of the picture in each row, ascending; unlike rows, ids stay when other pictures are removed."""
        return np.frombuffer(self.entries["id"].chunk(0).buffers()[1], dtype=np.int64)

    @property
    def size(self) -> int:
        """Number of pictures."""
        return self.info.size

    def __contains__(self, row: int) -> bool:
        """Whether there is a picture of this row."""
        return 0 <= row < self.size

    def search(
        self, embeddings: Scores, top_k: int, caption_weight: float = 0.0, where: Condition | None = None
    ) -> tuple[Scores, Rows]:
        """As in `Gallery`."""
        allowed = None if where is None else self._satisfying(where)
        if caption_weight == 0.0:
            return self._neighbours.search(embeddings, top_k, allowed)
        check_described(self.folder, self.info)
        assert self.described is not None
        return search_described(self.embeddings, self.described, caption_weight, embeddings, top_k, allowed)

    def metadata(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """As in `Gallery`."""
        known = {name: self._known[name] for name in columns or self.columns.names}
        return [{name: column[row].as_py() for name, column in known.items()} for row in rows]

    def table(self, columns: Sequence[str], where: Condition | None = None) -> pa.Table:
        """As in `Gallery`."""
        table = self._known.select(["row", *columns])
        return table if where is None else table.take(pa.array(self._satisfying(where)))

    def _satisfying(self, where: Condition) -> Rows:
        """The ascending rows that satisfy a condition; nobody copies what the rest of them hold, as a filter would."""
        from pyarrow.dataset import dataset  # most searches have no condition

        column = dataset(self._known).to_table(columns={"satisfies": where.expression})["satisfies"]
        return np.flatnonzero(column.fill_null(False).to_numpy()).astype(np.int64)

    def files(self, source: str) -> pa.Table:
        """As in `Gallery`; all pictures are of one source, which `--replace` may give another name."""
        table = self.entries.select(["path", "file_bytes", "modified_ns", "sha256"])
        return table.add_column(0, "row", _numbers(self.size))

    @cached_property
    def _known(self) -> pa.Table:
        """What is known of each picture: `row`, `path`, `pid` and its metadata."""
        table = self.entries.select(["path", "pid"]).add_column(0, "row", _numbers(self.size))
        for name in self.info.columns:
            assert self._metadata is not None
            table = table.append_column(self._metadata.schema.field(name), self._metadata[name])
        return table

    def entry(self, row: int) -> Entry:
        """As in `Gallery`."""
        start = self.entries["thumbnail_end"][row - 1].as_py() if row else 0
        end = self.entries["thumbnail_end"][row].as_py()
        path, pid = self.entries["path"][row].as_py(), self.entries["pid"][row].as_py()
        return Entry(path, pid, self.thumbnails[start:end].tobytes(), self.info.source)

    def pixels(self, row: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """As in `Gallery`."""
        try:
            with Image.open(BytesIO(self.entry(row).thumbnail)) as picture:
                return to_pixels(picture, size)
        except (UnidentifiedImageError, UserError):
            raise UserError(f"{self.folder / THUMBNAILS}: damaged (at picture {row}); {AGAIN}") from None

    def check_thumbnails(self) -> None:
        """Check by their first and last bytes that all thumbnails are complete JPEGs.

        Raises:
            UserError: One of them is not.
        """
        ends = self.entries["thumbnail_end"].to_numpy()
        starts = np.concatenate([[0], ends[:-1]])
        whole = ends[-1] == len(self.thumbnails) and (ends - starts >= 4).all()
        for offsets, marker in ((starts, JPEG_BEGINNING), (ends - 2, JPEG_END)):
            whole = whole and (self.thumbnails[offsets[:, None] + [0, 1]] == marker).all()
        if not whole:
            raise UserError(f"{self.folder / THUMBNAILS}: damaged; {AGAIN}")

    def nearest_captions(self, embeddings: Scores, top_k: int) -> tuple[Scores, Rows]:
        """As in `Gallery`."""
        if self._captions is None:
            return np.empty((len(embeddings), 0), np.float32), np.empty((len(embeddings), 0), np.int64)
        return self._near_captions.search(embeddings, top_k)

    def caption(self, row: int) -> str:
        """As in `Gallery`."""
        assert self._captions is not None
        text: str = self._captions["text"][row].as_py()
        return text


def _identity(folder: Path) -> tuple[int, int] | None:
    """What distinguishes a folder from another one that later takes its name; None if there is no folder."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _numbers(count: int) -> pa.Array:
    """The numbers from 0; `pyarrow.array`, as `to_pylist`, would import pandas, which takes a third of a second."""
    return pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(np.arange(count))])


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read().combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None


def _read_table(path: Path, size: int, schema: pa.Schema) -> pa.Table:
    table = _read_parquet(path)
    if len(table) != size or table.schema != schema:
        raise UserError(
            f"{path}: {len(table)} rows of {table.schema.names}, expected {size} of {schema.names}; {AGAIN}"
        )
    return table


def _read_metadata(path: Path, info: Info) -> pa.Table:
    table = _read_parquet(path)
    found = {field.name: str(field.type) for field in table.schema}
    if len(table) != info.size or found != info.columns:
        raise UserError(f"{path}: {len(table)} rows of {found}, expected {info.size} of {info.columns}; {AGAIN}")
    return table


def _map_embeddings(path: Path, size: int, info: Info) -> Embeddings:
    try:
        embeddings = map_npy(path, info.dtype, (size, info.dimension))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    return np.asarray(embeddings)  # a plain array over the map: slicing np.memmap itself is slower
