"""Record what the pipeline reads from outside: the raw dataset, weights from which training starts, other test sets.

python -m components.inputs             # what `dvc repro` runs first, each time

By these small records, which belong into git, DVC sees whether data or weights are others, although it tracks neither.
Where they are not, as in a clone that pulled the results, a record is taken to be true.
"""

import argparse
import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from components.layout import DATASET_RECORD, MODEL, OTHERS_RECORD, PARAMS, WEIGHTS_RECORD, outside, project
from components.s3.client import RemoteFolder, is_remote
from components.stage import guarded
from irra.config import Params, load_params, located
from irra.data.others import check_other
from irra.data.splits import check_annotations, needed_splits
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file, files_below, hash_file
from irra.utils.progress import progress
from irra.utils.records import read_record, write_record

T = TypeVar("T")
SEEN = Path("data/inputs-seen.json")  # of the project: what was hashed, and sizes and times by which it is recognised


@dataclass(frozen=True)
class Record:
    """What a parameter names: its value, the number of files there, and a SHA-256 of their names and contents.

    Rendered data, weights known by a tag, and no weights have no files and no hash.
    """

    source: str | None
    files: int = 0
    sha256: str | None = None


@dataclass(frozen=True)
class Others:
    """The records of the datasets that `evaluate.also` names."""

    datasets: list[Record] = field(default_factory=list)


def run(params: Params) -> None:
    """Check datasets and weights, and bring their records up to date; one that is still true is not written.

    Raises:
        UserError: A dataset is neither here nor recorded, its annotations cannot be used or lack a split that a key
            names, or the weights cannot be used.
    """
    source, train = params.prepare.source, params.train
    start = train.init_from or train.pretrained
    dataset = current(DATASET_RECORD, source)
    if source and not is_remote(source) and (dataset is None or Path(outside(source)).exists()):
        needed = needed_splits(params.train, params.index, params.registry)
        check_annotations(Path(outside(source)), params.prepare, needed)
    if dataset is None:
        raise UserError(f"{source}: out of reach, and {DATASET_RECORD} does not describe it; correct prepare.root_dir")
    weights = current(WEIGHTS_RECORD, start) or Record(start)  # what is no file is a tag
    if start and weights != read(WEIGHTS_RECORD):
        from irra.start import find_start  # takes seconds, and more to read a file

        if MODEL.resolve() in (Path(start).resolve(), *Path(start).resolve().parents):
            raise UserError(f"train.init_from: {start} is removed when a training starts; copy it, and name the copy")
        find_start(train.backbone, outside(start), train.init_from and outside(start))
    others = Others([other(source, params) for source in located(params).also])
    write(DATASET_RECORD, dataset)
    write(WEIGHTS_RECORD, weights)
    write(OTHERS_RECORD, others)


def other(source: str, params: Params) -> Record:
    """The record of a dataset that `evaluate.also` names, after a look whether it can be measured.

    Raises:
        UserError: It cannot, or it is neither here nor recorded.
    """
    known = {record.source: record for record in (read(OTHERS_RECORD, Others) or Others()).datasets}
    here = Path(outside(source))
    if not is_remote(source) and (source not in known or here.exists()):
        check_other(here, (params.prepare.image_size[0], params.prepare.image_size[1]))
    if record := describe(source):
        return record
    if source not in known:
        raise UserError(f"evaluate.also: {source}: out of reach, and {OTHERS_RECORD} does not describe it")
    print(f"note: {source} is out of reach, and taken to be as {OTHERS_RECORD} says", flush=True)
    return known[source]


def current(target: Path, source: str | None) -> Record | None:
    """The record of `source`: what is there now, or what `target` says of what is out of reach; None: unknown."""
    if source is None:
        return Record(None)
    if (described := describe(source)) or not is_recorded(target, source):
        return described
    print(f"note: {source} is out of reach, and taken to be as {target} says", flush=True)
    return read(target)


def write(target: Path, record: Record | Others | None) -> None:
    """Write `record` to `target`, unless that is what it says."""
    if record and record != read(target, type(record)):
        write_record(target, asdict(record))


def is_recorded(target: Path, source: str | None) -> bool:
    """Whether the record in `target` describes files at `source`."""
    record = read(target)
    return record is not None and record.source == source and record.sha256 is not None


def read(path: Path, kind: type[T] = Record) -> T | None:  # type: ignore[assignment]
    """The record in `path`; None if there is none, or a damaged one, which costs no more than running again."""
    try:
        return read_record(path, kind, "", "")
    except UserError:
        return None


def describe(source: str) -> Record | None:
    """The record of a folder, local or in S3, or of a file; None if it is not here, or S3 cannot be reached."""
    if is_remote(source):
        return describe_remote(source)
    place = Path(outside(source))
    check_regular_file(place)
    if not place.exists():
        return None
    files = files_below(place) if place.is_dir() else {place.name: place}
    return Record(source, len(files), hash_contents(place, files))


def describe_remote(uri: str) -> Record | None:
    """The record of a folder in S3, by the hashes that S3 keeps."""
    try:
        objects = RemoteFolder(uri).list()
    except UserError as error:
        print(f"note: {error}", flush=True)
        return None
    digest = hash_lines(f"{name} {objects[name].size} {objects[name].etag}" for name in sorted(objects))
    return Record(uri, len(objects), digest) if objects else None


@dataclass(frozen=True)
class Seen:
    """What was hashed, by place: `stamp` of sizes and times, and `sha256`."""

    places: dict[str, dict[str, str]] = field(default_factory=dict)


def hash_contents(place: Path, files: dict[str, Path]) -> str:
    """SHA-256 of the names and contents of `files`, which are read only if one has changed since the last time."""
    names = sorted(files)
    stats = [(name, files[name].stat()) for name in names]
    stamp = hash_lines(f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for name, s in stats)
    key, seen = str(place.resolve()), read_seen().places
    if seen.get(key, {}).get("stamp") != stamp:
        shown = progress(names, f"hash {place}", len(names), "files")
        digest = hash_lines(f"{name} {hash_file(files[name])}" for name in shown)
        seen = read_seen().places | {key: {"stamp": stamp, "sha256": digest}}
        write_record(project() / SEEN, asdict(Seen(seen)))
    return seen[key]["sha256"]


def read_seen() -> Seen:
    """What was hashed before; nothing if the file is missing or damaged."""
    try:
        return read_record(project() / SEEN, Seen, "", "")
    except UserError:
        return Seen()


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of `lines`; names that are not UTF-8 count by their bytes."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(os.fsencode(line) + b"\n")
    return digest.hexdigest()


def main() -> None:
    """Bring the records of the project in the current folder up to date."""
    argparse.ArgumentParser(prog="python -m components.inputs", description=__doc__.split("\n")[0]).parse_args()
    run(load_params(PARAMS))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
