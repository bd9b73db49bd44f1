"""Building an index from a split of a prepared dataset, or from any folder of pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irra.checkpoint import load_model, model_fingerprint
from irra.config import IndexConfig
from irra.data.images import BadImage, load_images
from irra.data.splits import check_store
from irra.data.store import PreparedStore
from irra.layout import INDEX_INFO
from irra.search.encoder import Encoder, Floats
from irra.search.format import FILES, Info, verify_index
from irra.search.gallery import Gallery
from irra.search.knn import normalised
from irra.search.pictures import PictureFile, find_pictures, jpeg
from irra.search.writer import GalleryWriter, Picture
from irra.utils.cores import available_cores
from irra.utils.device import choose_device
from irra.utils.errors import UserError, first_of
from irra.utils.files import hash_file, replace_folder
from irra.utils.locks import locked
from irra.utils.progress import progress

COMPARED = ("file_bytes", "modified_ns", "sha256")


@dataclass(frozen=True)
class Update:
    """What updating an index did: the numbers of pictures encoded, kept and removed, and the pictures skipped."""

    info: Info
    added: int
    kept: int
    removed: int
    skipped: list[dict[str, str]]


def index_dataset(prepared: Path, model: Path, config: IndexConfig, target: Path) -> Info:
    """Write an index of a split of a prepared dataset to the folder `target`, encoded by the model in a folder.

    Raises:
        UserError: A folder is missing or damaged, or as in `index_split`.
    """
    store, fingerprint = PreparedStore.open(prepared), model_fingerprint(model)
    check_store(store, {"index.split": config.split})
    encoder = Encoder(load_model(model).to(choose_device(config.device)), config.precision)
    return index_split(store, config.split, encoder, fingerprint, target, config.dtype, config.test_batch_size)


def index_split(
    store: PreparedStore, split: str, encoder: Encoder, fingerprint: str, target: Path, dtype: str, batch_size: int
) -> Info:
    """Write an index of a split's images and captions to the folder `target`; equal captions are stored once.

    Raises:
        UserError: The model takes images of another size, the data has no such split, or `target` is not an index.
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
            writer.add_captions(texts, encoder.texts(texts, batch_size, f"index {split} captions"))
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
    captions: Mapping[str, Sequence[str]] | None = None,
) -> Update:
    """Make the index `target` hold exactly the pictures in a folder and its subfolders.

    If `target` is already an index by the same model, pictures in it with the same path and content are not encoded
    again. Captions are dropped, since they belong to a split, but for captions of pictures that are given.

    Args:
        pictures: Folder of pictures.
        encoder: The model.
        fingerprint: SHA-256 of the model's weights.
        target: Index folder to create or update.
        dtype: Type of the stored embeddings.
        batch_size: Pictures encoded at once.
        source: Name recorded for the folder of pictures, by default its absolute path.
        replace: Discard an existing index of another model or folder, or captions of its pictures.
        captions: Captions of pictures, by path in the folder.

    Raises:
        UserError: There are no usable pictures, none of the captions is about one of them, another process is writing
            the index, or `target` is not an index or, unless `replace`, one of another model or folder, or has captions
            of pictures and would lose them.
    """
    with locked(target):
        check_target(target)
        files, skipped = find_pictures(pictures)
        if not files:
            raise UserError(f"{pictures}: no pictures in this folder or below it")
        if captions is not None and not any(file.path in captions for file in files):
            raise UserError(
                f"{pictures}: none of the captions is of a picture there: they are of {first_of(list(captions))}; "
                f"pictures are {first_of([file.path for file in files])}"
            )
        source = source or str(pictures.resolve())
        previous = _previous(target, fingerprint, dtype, source, replace)
        had_captions = bool(previous and previous.info.described)
        if had_captions and captions is None and not replace:
            raise UserError(f"{target}: has captions of pictures; give --captions again, or --replace to drop them")
        rows, new = _compare(previous, pictures, files)
        size = encoder.model.spec.image_size
        batches = _decode(pictures, new, size, batch_size, skipped)
        first = next(batches, None)  # None if no new picture is usable: then there may be nothing to write
        stays = first is None and captions is None and not had_captions
        if previous and stays and _is_current(previous.info, source, len(rows), skipped):
            return Update(previous.info, 0, len(rows), 0, skipped)
        with replace_folder(target) as folder:
            writer = GalleryWriter(folder, fingerprint, size, dtype)
            if previous is not None:
                writer.keep(previous, rows)
            for batch, pixels in chain([first] if first else [], batches):
                writer.add(batch, encoder.images(pixels))
            if captions is not None and writer.paths:
                writer.describe(mean_captions(writer.paths, captions, encoder, batch_size))
            info = writer.finish(source, skipped)
        removed = 0 if previous is None else previous.size - len(rows)
        return Update(info, info.size - len(rows), len(rows), removed, skipped)


def mean_captions(
    paths: Sequence[str], captions: Mapping[str, Sequence[str]], encoder: Encoder, batch_size: int
) -> Floats:
    """Means (N, D), of any norm, of the unit embeddings of the captions of pictures at `paths`; zeros without any."""
    pairs = [(row, text) for row, path in enumerate(paths) for text in captions.get(path, ())]
    means = np.zeros((len(paths), encoder.model.embedding_width), np.float32)
    embeddings = encoder.texts([text for _, text in pairs], batch_size, "index captions")
    np.add.at(means, np.array([row for row, _ in pairs], np.int64), normalised(embeddings))
    return means


def check_target(target: Path) -> None:
    """Check that `target` is new, empty, or holds only the files of an index, so that it may be replaced.

    Raises:
        UserError: It holds something else.
    """
    found = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (found and not {INDEX_INFO} <= found <= set(FILES)):
        raise UserError(f"{target}: exists and is not an index of pictures; name another folder, or remove it first")


def _is_current(info: Info, source: str, size: int, skipped: list[dict[str, str]]) -> bool:
    return (info.source, info.size, info.skipped) == (source, size, skipped)


def _previous(target: Path, fingerprint: str, dtype: str, source: str, replace: bool) -> Gallery | None:
    """The existing index if it can be updated; None if it must be built from scratch.

    That is the case if it is missing or damaged, or its embeddings are of another model or type.

    Raises:
        UserError: It is intact but has another model or source, and `replace` is not set.
    """
    try:
        gallery = Gallery.open(target)
        verify_index(target)
        gallery.check_thumbnails()
    except UserError:
        return None
    old_source, old_model = gallery.info.source, gallery.model_fingerprint
    if (old_source, old_model) != (source, fingerprint) and not replace:
        raise UserError(
            f"{target}: is an index of {old_source} by model {old_model[:12]}, not of {source} by model "
            f"{fingerprint[:12]}; name another folder, or give --replace to discard it"
        )
    return gallery if (gallery.model_fingerprint, gallery.info.dtype) == (fingerprint, dtype) else None


def _compare(
    previous: Gallery | None, root: Path, files: list[PictureFile]
) -> tuple[NDArray[np.int64], list[PictureFile]]:
    """Rows of the index whose files are unchanged, ascending, and the files that must be encoded."""
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
