"""What search needs of a gallery, wherever it is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from irra.search.format import Info
from irra.search.where import Condition
from irra.utils.errors import UserError

ALWAYS = ("path", "pid")  # what a condition can ask for in every gallery
PERSON = r"#(t=-?[0-9.]+&)?xywh=[0-9,]+$"  # ends the path of a person in a frame: which moment and box of the file

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """A picture of a gallery: its path in a source, its pid if known, and a JPEG at the model's image size."""

    path: str
    pid: int | None
    thumbnail: bytes
    source: str


class Gallery(Protocol):
    """Read access to the pictures of an index; safe to use from several threads at once.

    It shows the contents that it was opened with, whatever is written meanwhile. A picture is addressed by its `row`, a
    number that need not be below the size; equal scores are ordered by it.

    Attributes:
        address: The folder, or `lance:` and the address of a database.
        info: What `irra info` shows.
        version: Changes whenever the contents change.
        columns: What a condition can ask for: `path`, `pid` and the columns of the metadata.
    """

    address: str
    info: Info
    version: str
    columns: pa.Schema

    @property
    def size(self) -> int:
        """Number of pictures."""

    def __contains__(self, row: int) -> bool:
        """Whether there is a picture of this row."""

    def search(
        self, embeddings: Scores, top_k: int, caption_weight: float = 0.0, where: Condition | None = None
    ) -> tuple[Scores, Rows]:
        """Find the pictures nearest to embeddings (Q, D) of any norm, among those that satisfy a condition.

        With a `caption_weight` w, a score is (1 - w) x the cosine with the picture + w x that with the mean of its own
        captions' unit embeddings; a picture without captions is scored by its own cosine. All pictures are compared.

        Returns:
            Cosine similarities and rows, both (Q, K), best first, where K is the smaller of top_k and the number of
            pictures that satisfy the condition.

        Raises:
            UserError: No picture has captions of its own.
        """

    def entry(self, row: int) -> Entry:
        """The picture of a row."""

    def pixels(self, row: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The picture of a row, decoded and resized to `size`: (H, W, 3).

        Raises:
            UserError: Its thumbnail is damaged.
        """

    def metadata(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """These of `columns`, or all, of each of the rows, in their order."""

    def table(self, columns: Sequence[str], where: Condition | None = None) -> pa.Table:
        """`row` and these `columns` of all pictures that satisfy a condition, ascending by row."""

    def files(self, source: str) -> pa.Table:
        """`row`, `path`, `file_bytes`, `modified_ns` and `sha256` of all pictures of a source, ascending by row."""

    def nearest_captions(self, embeddings: Scores, top_k: int) -> tuple[Scores, Rows]:
        """Like `search`, but among the captions; results are (Q, 0) for a gallery without captions."""

    def caption(self, row: int) -> str:
        """The caption in `row` (from 0)."""


def check_model(gallery: Gallery, fingerprint: str) -> None:
    """Check that a gallery was made with the model whose weights have this SHA-256.

    Raises:
        UserError: It was made with another model.
    """
    made_with = gallery.info.model_fingerprint
    if fingerprint != made_with:
        raise UserError(
            f"{gallery.address} was made with model {made_with[:12]}, this one is {fingerprint[:12]}; "
            "make the index again with this model, or search with the other"
        )


def metadata_schema(gallery: Gallery | None) -> pa.Schema:
    """The columns of its metadata; none without a gallery."""
    fields = [] if gallery is None else [field for field in gallery.columns if field.name in gallery.info.columns]
    return pa.schema(fields)


def known_metadata(gallery: Gallery | None, rows: Rows) -> pa.Table:
    """The metadata of these ascending rows."""
    schema = metadata_schema(gallery)
    if gallery is None or not len(schema):
        return nothing_known(schema, len(rows))
    return _of_rows(gallery.table(schema.names), rows).drop_columns("row")


def nothing_known(schema: pa.Schema, count: int) -> pa.Table:
    """Metadata of so many pictures of which nothing is known."""
    return pa.table([pa.nulls(count, field.type) for field in schema], schema=schema)


def says_as_much(known: pa.Table, given: pa.Table) -> bool:
    """Whether what is known of pictures is what is given, in columns of any order.

    Columns that only pictures of other sources have are known too, without values.
    """
    same = all(name in known.column_names and known[name].equals(given[name]) for name in given.column_names)
    others = (known[name] for name in known.column_names if name not in given.column_names)
    return same and all(column.null_count == len(column) for column in others)


def paths_of(entries: pa.Table, rows: Rows) -> list[str]:
    """The paths of these ascending rows in a table with the columns `row` and `path`."""
    paths: list[str] = _of_rows(entries, rows)["path"].to_pylist()
    return paths


def _of_rows(table: pa.Table, rows: Rows) -> pa.Table:
    return table.filter(pc.is_in(table["row"], pa.array(rows, pa.int64())))
