"""What writing an index needs of the place where it is kept, and that of a folder."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from irra.search.folder import FolderGallery
from irra.search.forgetting import Forgotten, files_gone, read_forgotten, without_forgotten
from irra.search.format import Info, check_target, verify_index
from irra.search.gallery import Gallery, Rows, Scores, known_metadata, metadata_schema
from irra.search.writer import EXACT_LIMIT, FolderWriter, Picture
from irra.utils.errors import UserError
from irra.utils.files import remove_leftovers, replace_folder
from irra.utils.locks import locked


@dataclass(frozen=True)
class Making:
    """What an index is made of.

    Attributes:
        source: Name of the folder or file of the pictures.
        model_fingerprint: SHA-256 of the model's weights.
        image_size: Height and width of the thumbnails in pixels.
        dtype: Of the embeddings.
    """

    source: str
    model_fingerprint: str
    image_size: tuple[int, int]
    dtype: str = "float16"


class Writer(Protocol):
    """Writes pictures of one source: first those that are kept, then new ones, then captions, then the end."""

    def keep(self, previous: Gallery, rows: Rows, metadata: pa.Table) -> None:
        """Keep only these ascending rows of the source, with these metadata and without captions of their own."""

    def add(self, pictures: Sequence[Picture], embeddings: Scores, metadata: pa.Table) -> None:
        """Append pictures with their un-normalised embeddings (B, D) and their metadata."""

    @property
    def paths(self) -> list[str]:
        """The paths of the pictures of the source so far, in their order."""

    def describe(self, means: Scores) -> None:
        """Write the mean (N, D) of the embeddings of each picture's captions, or zeros; may be called once, at last."""

    def finish(self, source: str, skipped: list[dict[str, str]], footage: dict[str, str] | None = None) -> Info:
        """Complete the index, which records `source`, `skipped` and what was read of files of frames or video.

        Raises:
            UserError: There are no pictures.
        """


class Target(Protocol):
    """A place for an index that nobody else writes."""

    def previous(self, making: Making, replace: bool) -> Gallery | None:
        """The existing index if it can be updated; None if it must be built from scratch.

        That is the case if it is missing or damaged, or its embeddings are of another model or type.

        Raises:
            UserError: It is intact but has another model or source, and `replace` is not set.
        """

    def forgotten(self, source: str) -> Forgotten:
        """What must not come in again of a source, also if the index must be built from scratch.

        Raises:
            UserError: The index is damaged, so that it cannot say.
        """

    def writer(self, making: Making, columns: pa.Schema) -> AbstractContextManager[Writer]:
        """A writer, at whose end the index holds what it has kept and added, and nothing else of the source.

        If it fails, an index folder stays as it was; a LanceDB gallery may hold some of what was added, and the next
        writer need not add that again. What was forgotten stays so.
        """

    def forget(self, gallery: Gallery, rows: Rows, forgotten: dict[str, Any]) -> Info:
        """Take the pictures in these ascending rows of the index, opened as `gallery`, out of all that is kept of it.

        That includes earlier versions, approximate structures, and what writers that were killed have left. Some
        pictures must stay. Captions of a split go as a whole, since nothing says of which pictures they are.
        `forgotten` is the new `Info.forgotten`. Without rows, only leftovers are removed.

        Raises:
            UserError: The index is damaged, or has changed since it was opened.
        """


@contextmanager
def open_folder(folder: Path) -> Iterator[Target]:
    """Lock an index folder, new or not, for writing.

    Raises:
        UserError: Another process is writing it, or it is something else.
    """
    with locked(folder):
        check_target(folder)
        yield FolderTarget(folder)


class FolderTarget:
    """An index folder; see `Target`."""

    def __init__(self, folder: Path, exact_limit: int = EXACT_LIMIT) -> None:
        self._folder, self._exact_limit = folder, exact_limit

    def previous(self, making: Making, replace: bool) -> FolderGallery | None:
        """As in `Target`."""
        try:
            gallery = FolderGallery.open(self._folder)
            verify_index(self._folder)
            gallery.check_thumbnails()
        except UserError:
            return None
        old_source, old_model = gallery.info.source, gallery.info.model_fingerprint
        if (old_source, old_model) != (making.source, making.model_fingerprint) and not replace:
            raise UserError(
                f"{self._folder}: is an index of {old_source} by model {old_model[:12]}, not of {making.source} by "
                f"model {making.model_fingerprint[:12]}; name another folder, or give --replace to discard it"
            )
        return gallery if (old_model, gallery.info.dtype) == (making.model_fingerprint, making.dtype) else None

    def forgotten(self, source: str) -> Forgotten:
        """As in `Target`."""
        return read_forgotten(self._folder)

    @contextmanager
    def writer(self, making: Making, columns: pa.Schema) -> Iterator[FolderWriter]:
        """As in `Target`."""
        with self._new(making, columns, self.forgotten(making.source).record()) as writer:
            yield writer

    def forget(self, gallery: Gallery, rows: Rows, forgotten: dict[str, Any]) -> Info:
        """As in `Target`."""
        assert isinstance(gallery, FolderGallery)
        verify_index(self._folder)  # or damage would be copied, and pass for what was meant
        info = gallery.info
        if len(rows):
            height, width = info.image_size
            making = Making(info.source, info.model_fingerprint, (height, width), info.dtype)
            stay = np.setdiff1d(np.arange(gallery.size), rows)
            with self._new(making, metadata_schema(gallery), forgotten) as writer:
                writer.keep(gallery, stay, known_metadata(gallery, stay))
                writer.keep_described(gallery, stay)
                gone = files_gone(gallery, rows).get("", set())
                left = without_forgotten(info.skipped, info.footage, gone, Forgotten.of(forgotten))
                info = writer.finish(info.source, **left)
        remove_leftovers(self._folder)
        return info

    @contextmanager
    def _new(self, making: Making, columns: pa.Schema, forgotten: dict[str, Any]) -> Iterator[FolderWriter]:
        with replace_folder(self._folder) as folder:
            yield FolderWriter(
                folder,
                making.model_fingerprint,
                making.image_size,
                making.dtype,
                columns,
                forgotten,
                self._exact_limit,
            )
