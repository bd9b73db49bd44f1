"""Keeping an index up to date with a folder of pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from irra.data.images import BadImage, load_images
from irra.search.address import open_target
from irra.search.encoder import Encoder, Floats
from irra.search.format import Info
from irra.search.gallery import PERSON, Rows, known_metadata, metadata_schema, nothing_known, paths_of, says_as_much
from irra.search.knn import normalised
from irra.search.metadata import Matched, Metadata
from irra.search.pictures import PictureFile, find_pictures, jpeg
from irra.search.target import Making
from irra.search.writer import Picture
from irra.utils.cores import available_cores
from irra.utils.errors import UserError, first_of
from irra.utils.files import hash_file
from irra.utils.progress import progress


@dataclass(frozen=True)
class Update:
    """What updating an index did.

    Attributes:
        info: The index.
        added, kept, removed: Numbers of pictures.
        skipped: Path and reason of pictures that could not be used.
        matched: Which metadata are of no picture, if some were given.
        forgotten: Number of pictures that are there and were left out, since they were made to be forgotten.
    """

    info: Info
    added: int
    kept: int
    removed: int
    skipped: list[dict[str, str]]
    matched: Matched | None = None
    forgotten: int = 0


def index_folder(
    pictures: Path,
    encoder: Encoder,
    fingerprint: str,
    target: str | Path,
    dtype: str = "float16",
    batch_size: int = 64,
    source: str = "",
    replace: bool = False,
    captions: Mapping[str, Sequence[str]] | None = None,
    metadata: Metadata | None = None,
) -> Update:
    """Make the index `target` hold exactly the pictures in a folder and its subfolders.

    If `target` is already an index by the same model, pictures in it with the same path and content are not encoded
    again. Pictures that it was made to forget stay out, also if it is replaced. Captions are dropped, since they belong
    to a split, but for captions of pictures that are given.

    Args:
        pictures: Folder of pictures.
        encoder: The model.
        fingerprint: SHA-256 of the model's weights.
        target: Index folder to create or update, or the address of a LanceDB gallery.
        dtype: Type of the stored embeddings.
        batch_size: Pictures encoded at once.
        source: Name recorded for the folder of pictures, by default its absolute path.
        replace: Discard an existing index of another model or folder, or captions of its pictures.
        captions: Captions of pictures, by path in the folder.
        metadata: What is known of pictures, by path in the folder; by default, kept pictures keep theirs.

    Raises:
        UserError: There are no usable pictures, none of the captions or metadata is about one of them, another process
            is writing the index, or `target` is not an index or, unless `replace`, one of another model or folder, or
            has captions of pictures and would lose them.
    """
    with open_target(target) as place:
        found, skipped = find_pictures(pictures)
        if not found:
            raise UserError(f"{pictures}: no pictures in this folder or below it")
        source = source or str(pictures.resolve())
        forgotten = place.forgotten(source)
        files = [file for file in found if file.path not in forgotten]
        left_out = len(found) - len(files)
        if not files:
            raise UserError(f"{pictures}: all of its pictures were made to be forgotten; delete {target} to index them")
        skipped = [item for item in skipped if item["path"] not in forgotten]
        check_captions(pictures, files, captions)
        paths = [file.path for file in files]
        matched = None if metadata is None else metadata.match(paths)
        metadata = None if metadata is None else metadata.among(paths)
        size = encoder.model.spec.image_size
        making = Making(source, fingerprint, size, dtype)
        previous = place.previous(making, replace)
        had_captions = bool(previous and previous.info.described)
        if had_captions and captions is None and not replace:
            raise UserError(f"{target}: has captions of pictures; give --captions again, or --replace to drop them")
        entries = None if previous is None else previous.files(making.source)
        if entries is not None and are_people(entries) and not replace:
            raise UserError(f"{target}: is an index of people in frames; name another one, or give --replace")
        rows, new = _compare(entries, pictures, files)
        known = known_metadata(previous, rows)
        kept = known if metadata is None or entries is None else metadata.of(paths_of(entries, rows))
        batches = _decode(pictures, new, size, batch_size, skipped)
        first = next(batches, None)  # None if no new picture is usable: then there may be nothing to write
        stays = first is None and captions is None and not had_captions and says_as_much(known, kept)
        if previous and stays and _is_current(previous.info, making.source, len(rows), skipped):
            return Update(previous.info, 0, len(rows), 0, skipped, matched, left_out)
        columns = metadata.schema if metadata is not None else metadata_schema(previous)
        with place.writer(making, columns) as writer:
            if previous is not None:
                writer.keep(previous, rows, kept)
            for batch, pixels in chain([first] if first else [], batches):
                named = [picture.path for picture in batch]
                said = nothing_known(columns, len(named)) if metadata is None else metadata.of(named)
                writer.add(batch, encoder.images(pixels), said)
            if captions is not None and writer.paths:
                writer.describe(mean_captions(writer.paths, captions, encoder, batch_size))
            info = writer.finish(making.source, skipped)
        removed = 0 if entries is None else len(entries) - len(rows)
        added = len(writer.paths) - len(rows)
        return Update(info, added, len(rows), removed, skipped, matched, left_out)


def are_people(entries: pa.Table) -> bool:
    """Whether pictures are of people in frames; none are not."""
    return bool(pc.any(pc.match_substring_regex(entries["path"], PERSON)).as_py())


def check_captions(pictures: Path, files: list[PictureFile], captions: Mapping[str, Sequence[str]] | None) -> None:
    """Check that captions are about pictures that there are.

    Raises:
        UserError: None is.
    """
    if captions is not None and not any(file.path in captions for file in files):
        raise UserError(
            f"{pictures}: none of the captions is of a picture there: they are of {first_of(list(captions))}; "
            f"pictures are {first_of([file.path for file in files])}"
        )


def mean_captions(
    paths: Sequence[str], captions: Mapping[str, Sequence[str]], encoder: Encoder, batch_size: int
) -> Floats:
    """Means (N, D), of any norm, of the unit embeddings of the captions of pictures at `paths`; zeros without any."""
    pairs = [(row, text) for row, path in enumerate(paths) for text in captions.get(path, ())]
    means = np.zeros((len(paths), encoder.model.embedding_width), np.float32)
    embeddings = encoder.texts([text for _, text in pairs], batch_size, "index captions")
    np.add.at(means, np.array([row for row, _ in pairs], np.int64), normalised(embeddings))
    return means


def _is_current(info: Info, source: str, size: int, skipped: list[dict[str, str]]) -> bool:
    return (info.source, info.size, info.skipped) == (source, size, skipped)


def _compare(entries: pa.Table | None, root: Path, files: list[PictureFile]) -> tuple[Rows, list[PictureFile]]:
    """Rows of the index whose files are unchanged, ascending, and the files that must be encoded."""
    listed = [] if entries is None else entries.to_pylist()
    known = {entry["path"]: (entry["row"], entry) for entry in listed}
    rows, new = [], []
    for file in files:
        row, entry = known.get(file.path, (-1, {}))
        if entry and unchanged(entry, root, file):
            rows.append(row)
        else:
            new.append(file)
    return np.array(sorted(rows), dtype=np.int64), new


def unchanged(entry: Mapping[str, Any], root: Path, file: PictureFile) -> bool:
    """Whether a file is unchanged; if only its time differs, as after a copy, its content is compared."""
    if entry["file_bytes"] != file.file_bytes:
        return False
    return file.modified_ns == entry["modified_ns"] or _sha256(root / file.path) == str(entry["sha256"])


def _sha256(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None


def _decode(
    root: Path, files: list[PictureFile], size: tuple[int, int], batch_size: int, skipped: list[dict[str, str]]
) -> Iterator[tuple[list[Picture], NDArray[np.uint8]]]:
    """Yield batches of pictures and pixels (B, H, W, 3), decoded on all cores; unusable files go to `skipped`."""
    pictures: list[Picture] = []
    pixels: list[NDArray[np.uint8]] = []
    with closing(load_images([root / file.path for file in files], size, available_cores())) as images:
        for file, image in zip(files, progress(images, "index", len(files), "pictures"), strict=True):
            if isinstance(image, BadImage):
                skipped.append({"path": file.path, "reason": image.reason})
                continue
            sha256 = _sha256(root / file.path)
            pictures.append(Picture(file.path, jpeg(image), None, file.file_bytes, file.modified_ns, sha256))
            pixels.append(image)
            if len(pixels) == batch_size:
                yield pictures, np.stack(pixels)
                pictures, pixels = [], []
    if pixels:
        yield pictures, np.stack(pixels)
