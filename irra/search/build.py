"""Making an index: from a split of a prepared dataset, or from any folder of pictures."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irra.checkpoint import load_model, model_fingerprint
from irra.config import IndexConfig
from irra.data.images import BadImage, load_images
from irra.data.store import PreparedStore
from irra.layout import INDEX_INFO
from irra.search.encoder import Encoder
from irra.search.format import FILES, Info
from irra.search.gallery import Gallery
from irra.search.pictures import PictureFile, find_pictures, jpeg
from irra.search.writer import GalleryWriter, Picture
from irra.utils.cores import available_cores
from irra.utils.device import choose_device
from irra.utils.errors import UserError
from irra.utils.files import hash_file, replace_folder
from irra.utils.progress import progress

COMPARED = ("file_bytes", "modified_ns", "sha256")


@dataclass(frozen=True)
class Update:
    """What making an index of a folder did: pictures encoded, kept as they were, removed, and left out."""

    info: Info
    added: int
    kept: int
    removed: int
    skipped: list[dict[str, str]]


def index_dataset(prepared: Path, model: Path, config: IndexConfig, target: Path) -> Info:
    """Write an index of a split of a prepared dataset, encoded by the model in a folder, to the folder `target`."""
    encoder = Encoder(load_model(model).to(choose_device(config.device)), config.precision)
    store, fingerprint = PreparedStore.open(prepared), model_fingerprint(model)
    return index_split(store, config.split, encoder, fingerprint, target, config.dtype, config.test_batch_size)


def index_split(
    store: PreparedStore, split: str, encoder: Encoder, fingerprint: str, target: Path, dtype: str, batch_size: int
) -> Info:
    """Write an index of a split's images and captions to the folder `target`; equal captions are kept once.

    UserError when the model takes images of another size, or `target` is something else than an index.
    """
    check_target(target)
    size = encoder.model.spec.image_size
    if store.image_size != size:
        raise UserError(f"{store.root} holds images of {store.image_size}, the model takes {size}; prepare it again")
    image_ids = store.image_ids(split)
    texts = list(dict.fromkeys(store.captions[i] for i in store.caption_ids(split)))
    with replace_folder(target) as folder:
        writer = GalleryWriter(folder, fingerprint, size, dtype)
        starts = range(0, len(image_ids), batch_size)
        for start in progress(starts, f"index {split} images", len(starts), "batches"):
            ids = image_ids[start : start + batch_size]
            pixels = store.pixels(ids)
            pictures = [
                Picture(store.image_paths[i], jpeg(image), int(store.image_pids[i]))
                for i, image in zip(ids, pixels, strict=True)
            ]
            writer.add(pictures, encoder.images(pixels))
        if texts:
            starts = range(0, len(texts), batch_size)
            batches = progress(starts, f"index {split} captions", len(starts), "batches")
            writer.add_captions(texts, np.concatenate([encoder.texts(texts[s : s + batch_size]) for s in batches]))
        return writer.finish(store.dataset_name, [])


def index_folder(
    pictures: Path,
    encoder: Encoder,
    fingerprint: str,
    target: Path,
    dtype: str = "float16",
    batch_size: int = 64,
    source: str = "",
    replace: bool = False,
) -> Update:
    """Make the index `target` hold exactly the pictures below a folder; `source` is another name for it to be kept.

    Where `target` is an index of the same model, pictures that it holds already, by path and content, are not encoded
    again. Captions are not kept: they belong to a split. UserError when there is no picture, `target` is something else
    than an index or, unless `replace`, an index of another model or folder, or another process is writing it.
    """
    with _locked(target):
        check_target(target)
        files, skipped = find_pictures(pictures)
        if not files:
            raise UserError(f"{pictures}: no pictures in this folder or below it")
        source = source or str(pictures.resolve())
        previous = _previous(target, fingerprint, dtype, source, replace)
        rows, new = _compare(previous, pictures, files)
        size = encoder.model.spec.image_size
        batches = _decode(pictures, new, size, batch_size, skipped)
        first = next(batches, None)  # none where all that is new is broken: then nothing may have to be written
        if previous is not None and first is None and _says(previous.info, source, len(rows), skipped):
            return Update(previous.info, 0, len(rows), 0, skipped)
        with replace_folder(target) as folder:
            writer = GalleryWriter(folder, fingerprint, size, dtype)
            if previous is not None:
                writer.keep(previous, rows)
            for batch, pixels in chain([first] if first else [], batches):
                writer.add(batch, encoder.images(pixels))
            info = writer.finish(source, skipped)
        removed = 0 if previous is None else previous.size - len(rows)
        return Update(info, info.size - len(rows), len(rows), removed, skipped)


def check_target(target: Path) -> None:
    """UserError rather than replacing a folder that holds anything else than the files of an index."""
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (found and not {INDEX_INFO} <= found <= set(FILES)):
        raise UserError(f"{target}: exists and is no index of pictures; name another folder, or remove it first")


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep other processes from making the same index meanwhile; UserError where one is at it."""
    target = target.resolve()
    path = target.with_name(f".{target.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{target}: another irra index is writing it; wait for its end") from None
        if os.fstat(file.fileno()).st_nlink == 0:  # it ended between these two lines, and took its file along
            raise UserError(f"{target}: another irra index was writing it; try again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _says(info: Info, source: str, size: int, skipped: list[dict[str, str]]) -> bool:
    return (info.source, info.size, info.skipped) == (source, size, skipped)


def _previous(target: Path, fingerprint: str, dtype: str, source: str, replace: bool) -> Gallery | None:
    """The index that can be continued; a damaged one, or one of another model or type, is made from the start.

    UserError for a sound one of another model or source, unless `replace`.
    """
    try:
        gallery = Gallery.open(target)
        gallery.check_thumbnails()
    except UserError:
        return None
    there, new = (gallery.info.source, gallery.model_fingerprint), (source, fingerprint)
    if there != new and not replace:
        (old_source, old_model), (new_source, new_model) = there, new
        raise UserError(
            f"{target}: is an index of {old_source} by model {old_model[:12]}, not of {new_source} by model "
            f"{new_model[:12]}; name another folder, or give --replace to lose it"
        )
    return gallery if (gallery.model_fingerprint, gallery.info.dtype) == (fingerprint, dtype) else None


def _compare(
    previous: Gallery | None, root: Path, files: list[PictureFile]
) -> tuple[NDArray[np.int64], list[PictureFile]]:
    """Rows of the index whose files are as they were, ascending, and the files that have to be encoded."""
    entries = [] if previous is None else previous.entries.select(["path", *COMPARED]).to_pylist()
    known = {entry["path"]: (row, entry) for row, entry in enumerate(entries)}
    rows, new = [], []
    for file in files:
        row, entry = known.get(file.path, (-1, {}))
        if entry and _unchanged(entry, root, file):
            rows.append(row)
        else:
            new.append(file)
    return np.array(sorted(rows), dtype=np.int64), new


def _unchanged(entry: dict[str, Any], root: Path, file: PictureFile) -> bool:
    """A file whose time alone has changed, as after a copy or a download, is compared by content."""
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
    """Batches of pictures and pixels (B, H, W, 3), decoded on all cores; unusable files are noted in `skipped`."""
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
