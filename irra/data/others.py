"""Other datasets on which a model is measured: prepared and tokenized with its sizes, in folders that are kept."""

import hashlib
import os
import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from irra.config import PrepareConfig, TokenizeConfig
from irra.config.prepare import SYNTHETIC
from irra.data.layouts import read_annotations
from irra.data.preparation import prepare_dataset
from irra.data.store import PreparedStore
from irra.data.tokens import tokenize_dataset
from irra.utils.errors import UserError
from irra.utils.files import files_below
from irra.utils.locks import locked
from irra.utils.records import read_record, write_record

STATS, SOURCE = "stats.json", "source.json"


@dataclass(frozen=True)
class Source:
    """What a store was prepared from, in the file SOURCE beside it.

    Attributes:
        stamp: SHA-256 of the names, sizes and times of the raw dataset's files.
        fingerprint: That of the store.
    """

    stamp: str
    fingerprint: str


@dataclass(frozen=True)
class Folders:
    """A prepared store, and the tokens of its captions."""

    prepared: Path
    tokens: Path


def check_other(folder: Path, image_size: tuple[int, int]) -> None:
    """Check that a dataset, raw or prepared, can be measured by a model for images of this size.

    Raises:
        UserError: It is missing or damaged, its annotations cannot be used, it has nothing to evaluate on, or it is
            prepared in another size.
    """
    if not is_prepared(folder):
        _measured_split(folder, _annotated_splits(folder, image_size))
        return
    store = PreparedStore.open(folder)
    _measured_split(folder, store.splits)
    if store.image_size != image_size:
        (height, width), (high, wide) = store.image_size, image_size
        raise UserError(
            f"evaluate.also: {folder} holds images of {height}x{width}, the model takes {high}x{wide}; "
            "name the raw dataset, which is then prepared in this size"
        )


def folders_of(folder: Path, image_size: tuple[int, int], text_length: int, kept: Path) -> Folders:
    """Where `prepare_other` puts a dataset with these sizes, below the folder `kept`."""
    place = _place(folder, image_size, kept)
    return Folders(folder if is_prepared(folder) else place / "prepared", place / f"tokens-{text_length}")


def prepare_other(folder: Path, image_size: tuple[int, int], text_length: int, kept: Path) -> Folders:
    """Tokenize a dataset, and prepare it before if it is raw, unless that was done and no file has changed since.

    Of a raw one, the split that is measured is prepared alone: test, or val if there is no test split.

    Raises:
        UserError: As in `check_other`, or an image cannot be used.
    """
    check_other(folder, image_size)
    place, found = _place(folder, image_size, kept), folders_of(folder, image_size, text_length, kept)
    with locked(place, wait=True):  # another experiment may need it as well
        if not is_prepared(folder):
            _prepare(folder, image_size, place / SOURCE, found.prepared)
        tokenize_dataset(found.prepared, TokenizeConfig(text_length=text_length, mask_draws=0), found.tokens)
    return found


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared dataset, and not a raw one."""
    return (folder / STATS).is_file()


def _place(folder: Path, image_size: tuple[int, int], kept: Path) -> Path:
    return kept / f"{folder.name}-{image_size[0]}x{image_size[1]}"


def _prepare(folder: Path, image_size: tuple[int, int], note: Path, target: Path) -> None:
    stamp = _stamp(folder)
    try:
        source = read_record(note, Source, "", "", sealed_only=True)
        if source == Source(stamp, PreparedStore.open(target).fingerprint):
            return
    except UserError:  # there is none yet, or it is damaged
        pass
    split = _measured_split(folder, _annotated_splits(folder, image_size))
    stats = prepare_dataset(_config(folder, image_size), target, [split])
    write_record(note, asdict(Source(stamp, stats["fingerprint"])))


def _config(folder: Path, image_size: tuple[int, int]) -> PrepareConfig:
    if folder.name == SYNTHETIC:
        raise UserError(
            f"evaluate.also: {folder}: not a prepared dataset, which rendered people have to be: prepare them in a "
            "project of their own, and name the folder data/prepared of that"
        )
    return PrepareConfig(dataset_name=folder.name, root_dir=str(folder.parent), image_size=list(image_size))


def _annotated_splits(folder: Path, image_size: tuple[int, int]) -> set[str]:
    if not folder.parent.is_dir():
        raise UserError(f"evaluate.also: {folder}: no such folder")
    name = _config(folder, image_size).dataset_name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever prepares it warns of the same
        try:
            return {record.split for record in read_annotations(folder, name)}
        except UserError as error:
            raise UserError(f"evaluate.also: {error}") from None


def _measured_split(folder: Path, splits: Collection[str]) -> str:
    split = next((split for split in ("test", "val") if split in splits), None)
    if split is None:
        raise UserError(f"evaluate.also: {folder} has neither a val nor a test split to evaluate on")
    return split


def _stamp(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files_below(folder).items()):
        status = path.stat()
        digest.update(os.fsencode(f"{name} {status.st_size} {status.st_mtime_ns}\n"))
    return digest.hexdigest()
