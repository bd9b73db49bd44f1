"""Preparing a dataset: read annotations, hold out a val split, decode images on all cores, write the store."""

import hashlib
import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import Any

from irra.config import PrepareConfig
from irra.data.datasets import SPLITS, Record, warn_of_other_sizes
from irra.data.images import BadImage, load_images
from irra.data.layouts import image_folder, read_annotations
from irra.data.resume import NO_FILE, Notes, Sources, Stamps, stamp_files
from irra.data.store import StoreWriter
from irra.utils.cores import available_cores
from irra.utils.errors import UserError, first_of
from irra.utils.files import check_replaceable, replace_folder
from irra.utils.locks import locked
from irra.utils.progress import progress

CURE_FOR_MISSING = "complete the dataset, or set prepare.on_bad_image: skip"


def prepare_dataset(config: PrepareConfig, target: Path, splits: Collection[str] = SPLITS) -> dict[str, Any]:
    """Prepare the dataset that `config` names, rendering it first if it is synthetic; returns the store's stats.

    With `splits`, these alone.

    Raises:
        UserError: As in `prepare`.
    """
    with locked(target), open_dataset(config, target.with_name(target.name + ".raw.tmp")) as source:
        return prepare(config, source, target, splits=splits)


@contextmanager
def open_dataset(config: PrepareConfig, scratch: Path) -> Iterator[Path]:
    """Yield the folder of the raw dataset.

    A synthetic dataset is rendered into the folder `scratch`, which is removed afterwards.
    """
    if config.source:
        yield Path(config.source)
        return
    from irra.synthetic import write_dataset

    assert config.synthetic, "only a synthetic dataset has no source"
    with _scratch_folder(scratch) as folder:
        write_dataset(folder, config.synthetic)
        yield folder


def prepare(
    config: PrepareConfig,
    source: Path,
    target: Path,
    workers: int | None = None,
    splits: Collection[str] = SPLITS,
) -> dict[str, Any]:
    """Write the prepared form of the dataset in the folder `source` to the folder `target`.

    On any error, `target` stays as it was. The shards that are finished by then stay beside it, and the next call keeps
    them, up to the first that other settings, records or image files would make another.

    Args:
        config: Parameters.
        source: Folder of the raw dataset.
        target: Folder to write.
        workers: Processes that decode images, by default one per core that this process may use. The result does not
            depend on it.
        splits: Those to prepare.

    Returns:
        The stats of the store.

    Raises:
        UserError: `target` is in use for something else, or the annotations or images cannot be used.
    """
    check_replaceable(target, "stats.json", "a prepared dataset")
    records = hold_out_val(read_annotations(source, config.dataset_name), config.val_share)
    records = [record for record in records if record.split in splits]
    records.sort(key=lambda record: SPLITS.index(record.split))
    images = image_folder(source, records)
    stamps = stamp_files((images / record.path for record in records), rendered=config.synthetic is not None)
    if config.on_bad_image == "error":
        _check_present(images, [record.path for record in records], stamps)
    with replace_folder(target, resume=True) as folder:
        notes = Notes(folder.parent, Sources(config, records, stamps).sha256)
        with closing(StoreWriter(folder, config.dataset_name, _size(config), notes.add)) as writer:
            finished = notes.finished(folder)
            for shard in finished:
                writer.keep(shard, records[shard.start : shard.end])
            start = finished[-1].end if finished else 0
            _add_images(writer, records[start:], images, config, workers or available_cores())
            stats = writer.finish(config.model_dump(exclude={"root_dir"}))  # the location does not matter
            _check_splits(records, stats)
    if stats["skipped"]:
        lost = {item["path"] for item in stats["skipped"]}
        warn_of_other_sizes(config.dataset_name, [record for record in records if record.path not in lost])
        warnings.warn(f"{target}: {_list_skipped(stats['skipped'])}", stacklevel=2)
    return stats


def hold_out_val(records: list[Record], share: float) -> list[Record]:
    """A copy of `records` in which a `share` of the training identities forms the val split, if the data has none.

    The identities with the smallest hashes are held out, so the choice depends neither on order nor on a random state.
    If `share` is above 0, at least one identity is held out, and at least one stays.
    """
    pids = {record.pid for record in records if record.split == "train"}
    if share == 0 or len(pids) < 2 or any(record.split == "val" for record in records):
        return list(records)
    count = min(max(round(share * len(pids)), 1), len(pids) - 1)
    chosen = set(sorted(pids, key=lambda pid: hashlib.sha256(str(pid).encode()).digest())[:count])
    return [
        replace(record, split="val") if record.split == "train" and record.pid in chosen else record
        for record in records
    ]


def _size(config: PrepareConfig) -> tuple[int, int]:
    return config.image_size[0], config.image_size[1]


def _add_images(writer: StoreWriter, records: list[Record], folder: Path, config: PrepareConfig, workers: int) -> None:
    """Decode the images of `records` in `folder`, and append them to the store or skip them.

    Raises:
        UserError: An image cannot be used, and is not to be skipped.
    """
    paths = (folder / record.path for record in records)
    with closing(load_images(paths, _size(config), workers)) as images:
        for record, image in zip(records, progress(images, "prepare", len(records), "images"), strict=True):
            if not isinstance(image, BadImage):
                writer.add(record, image)
            elif config.on_bad_image == "skip":
                writer.skip(record, image.reason)
            else:
                raise UserError(f"{image}; repair it, or set prepare.on_bad_image: skip") from image


@contextmanager
def _scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield `folder`, newly created, and remove it afterwards; leftovers of a killed run are removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_present(images: Path, paths: list[str], stamps: Stamps) -> None:
    """Name missing images before decoding, which takes minutes, rather than in the middle of it.

    Raises:
        UserError: Images are missing.
    """
    missing = list(compress(paths, stamps[:, 0] == NO_FILE))
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(stamps)} images named in the annotations do not exist: "
            f"{first_of([str(images / path) for path in missing])}; "
            + (_found_elsewhere(images, PurePosixPath(missing[0])) or CURE_FOR_MISSING)
        )


def _found_elsewhere(images: Path, path: PurePosixPath) -> str | None:
    """Where an image that is missing in `images` lies instead, if the layout has a usual mistake, and the cure."""
    if (images / "imgs" / path).is_file():
        return f"it is in {images / 'imgs'}: move what is there to {images}"
    if path.parts[0] == "imgs" and (images.parent / path).is_file():
        return f"{images.parent / path} is there: annotations name paths inside imgs/, so remove the prefix imgs/"
    inner = PurePosixPath(*path.parts[1:])
    if inner.name and (images / inner).is_file():
        return f"{images / inner} is there: move what is in {images} to {images / path.parts[0]}"
    folder = (images / path).parent
    names = {other.name.lower(): other.name for other in folder.iterdir()} if folder.is_dir() else {}
    if other := names.get(path.name.lower()):
        return f"{folder} has {other}: rename the files, or write their names into the annotations as they are"
    return None


def _check_splits(records: list[Record], stats: dict[str, Any]) -> None:
    for split in SPLITS:
        if split not in stats["splits"] and any(record.split == split for record in records):
            raise UserError(f"no usable image is left in split {split!r}: {_list_skipped(stats['skipped'])}")


def _list_skipped(skipped: list[dict[str, str]]) -> str:
    return f"{len(skipped)} images skipped: " + first_of([f"{item['path']} ({item['reason']})" for item in skipped])
