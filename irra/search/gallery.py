"""An index folder opened for searching: embeddings and thumbnails memory-mapped, entries in memory."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

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
    NEIGHBOURS,
    THUMBNAILS,
    Info,
    check_described,
    read_info,
)
from irra.search.hnsw import GraphCandidates
from irra.search.knn import Embeddings, ExactCandidates, Neighbours, search_described
from irra.search.pictures import to_pixels
from irra.utils.errors import UserError
from irra.utils.npy import map_npy
from irra.utils.records import QUICK, check_files

JPEG_BEGINNING, JPEG_END = (0xFF, 0xD8), (0xFF, 0xD9)

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """A picture of a gallery: its path, its pid if known, and a JPEG at the model's image size."""

    path: str
    pid: int | None
    thumbnail: bytes


class Gallery:
    """Read access to an index folder; safe to use from several threads at once.

    If the folder is replaced meanwhile, it keeps showing the contents that it was opened with.
    """

    def __init__(self, folder: Path, info: Info) -> None:
        self.folder = folder
        self.info = info
        self.model_fingerprint = info.model_fingerprint
        self.image_size = (info.image_size[0], info.image_size[1])
        self.size = info.size
        self.dimension = info.dimension
        self.kind = info.kind
        self.caption_count = info.captions
        self.entries = _read_table(folder / ENTRIES, info.size, ENTRY_SCHEMA)
        self.embeddings = _map_embeddings(folder / EMBEDDINGS, info.size, info)
        self.thumbnails = np.asarray(np.memmap(folder / THUMBNAILS, dtype=np.uint8, mode="r"))
        check_files(folder, info.sha256, AGAIN, largest=QUICK)
        graph = GraphCandidates(folder / NEIGHBOURS, self.ids) if info.kind == HNSW else None
        self._neighbours = Neighbours(self.embeddings, graph or ExactCandidates(self.embeddings))
        self._described = _map_embeddings(folder / DESCRIBED, info.size, info) if info.described else None
        self._captions: pa.Table | None = None
        if info.captions:
            self._captions = _read_table(folder / CAPTIONS, info.captions, CAPTION_SCHEMA)
            self.caption_embeddings = _map_embeddings(folder / CAPTION_EMBEDDINGS, info.captions, info)
            self._near_captions = Neighbours(self.caption_embeddings, ExactCandidates(self.caption_embeddings))

    @classmethod
    def open(cls, folder: Path) -> "Gallery":
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

    def check_model(self, fingerprint: str) -> None:
        """Check that the index was made with the model whose weights have this SHA-256.

        Raises:
            UserError: It was made with another model.
        """
        if fingerprint != self.model_fingerprint:
            raise UserError(
                f"{self.folder} was made with model {self.model_fingerprint[:12]}, this one is {fingerprint[:12]}; "
                "make the index again with this model, or search with the other"
            )

    def search(self, embeddings: Scores, top_k: int, caption_weight: float = 0.0) -> tuple[Scores, Rows]:
        """Find the pictures nearest to embeddings (Q, D) of any norm.

        With a `caption_weight` w, a score is (1 - w) x the cosine with the picture + w x that with the mean of its own
        captions' unit embeddings; a picture without captions is scored by its own cosine. All pictures are compared.

        Returns:
            Cosine similarities and rows, both (Q, min(top_k, size)), best first; equal scores are ordered by row.

        Raises:
            UserError: No picture has captions of its own.
        """
        if caption_weight == 0.0:
            return self._neighbours.search(embeddings, top_k)
        check_described(self.folder, self.info)
        assert self._described is not None
        return search_described(self.embeddings, self._described, caption_weight, embeddings, top_k)

    def entry(self, row: int) -> Entry:
        """The picture in `row` (from 0)."""
        start = self.entries["thumbnail_end"][row - 1].as_py() if row else 0
        end = self.entries["thumbnail_end"][row].as_py()
        return Entry(*self.path_and_pid(row), self.thumbnails[start:end].tobytes())

    def pixels(self, row: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The picture in `row`, decoded and resized to `size`: (H, W, 3).

        Raises:
            UserError: Its thumbnail is damaged.
        """
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

    def path_and_pid(self, row: int) -> tuple[str, int | None]:
        """The path of the picture in `row`, and its pid if known."""
        return self.entries["path"][row].as_py(), self.entries["pid"][row].as_py()

    def nearest_captions(self, embeddings: Scores, top_k: int) -> tuple[Scores, Rows]:
        """Like `search`, but among the captions; results are (Q, 0) for a gallery without captions."""
        if self._captions is None:
            return np.empty((len(embeddings), 0), np.float32), np.empty((len(embeddings), 0), np.int64)
        return self._near_captions.search(embeddings, top_k)

    def caption(self, row: int) -> str:
        """The caption in `row` (from 0)."""
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


def _read_table(path: Path, size: int, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read().combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    if len(table) != size or table.schema != schema:
        raise UserError(
            f"{path}: {len(table)} rows of {table.schema.names}, expected {size} of {schema.names}; {AGAIN}"
        )
    return table


def _map_embeddings(path: Path, size: int, info: Info) -> Embeddings:
    try:
        embeddings = map_npy(path, info.dtype, (size, info.dimension))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); {AGAIN}") from None
    return np.asarray(embeddings)  # a plain array over the map: slicing np.memmap itself is slower
