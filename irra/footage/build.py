"""Keeping an index up to date with the people in frames and video."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irra.footage.cutting import Cutting
from irra.footage.frames import Finder
from irra.footage.people import PERSON_SCHEMA
from irra.footage.plan import NOT_TAKEN, Plan, make_plan
from irra.footage.reader import Found, Reader
from irra.footage.sources import Footage
from irra.search.address import open_target
from irra.search.encoder import Encoder
from irra.search.format import Info
from irra.search.gallery import PERSON, Gallery, known_metadata, metadata_schema, paths_of, says_as_much
from irra.search.metadata import Matched, Metadata
from irra.search.target import Making, Target, Writer
from irra.search.update import are_people
from irra.utils.errors import UserError, first_of
from irra.utils.progress import progress_of

SAVE_SECONDS = 600.0  # of work that a kill may lose
SAVING_SHARE = 0.1  # of the time, at most, that goes into saving: a large index is saved less often


@dataclass(frozen=True)
class FootageUpdate:
    """What updating an index did.

    Attributes:
        info: The index.
        added, kept, removed: Numbers of people.
        read: Number of frames that were looked at; others had been before.
        tracks: Number of tracks in the index.
        totals: Numbers of what all files hold, by the names in `Reading`.
        skipped: Path and reason of files that could not be used.
        matched: Which metadata are of nobody, if some were given.
        forgotten: Number of people found who were left out, since they were made to be forgotten.
    """

    info: Info
    added: int
    kept: int
    removed: int
    read: int
    tracks: int
    totals: dict[str, int]
    skipped: list[dict[str, str]]
    matched: Matched | None = None
    forgotten: int = 0


def index_footage(
    footage: Footage,
    finder: Finder,
    encoder: Encoder,
    fingerprint: str,
    target: str | Path,
    source: str,
    cutting: Cutting,
    metadata: Metadata | None = None,
    replace: bool = False,
    dtype: str = "float16",
    batch_size: int = 64,
    save_seconds: float = SAVE_SECONDS,
) -> FootageUpdate:
    """Make the index `target` hold exactly the people in files of frames.

    Files that are unchanged since they were read, with the same settings, are not read again. What is done is saved
    every so often, and a later call goes on from there, within a video too.

    Args:
        footage: The files.
        finder: Finds the people.
        encoder: The model.
        fingerprint: SHA-256 of the model's weights.
        target: Index folder to create or update, or the address of a LanceDB gallery.
        source: Name recorded for the folder or file of the frames.
        cutting: Which people are taken, and how they are cut out.
        metadata: What is known of people, by the path of their picture, or else of their file; by default, people that
            are kept keep theirs.
        replace: Discard an existing index of another model or source, or of pictures; or metadata of people who must be
            read again.
        dtype: Type of the stored embeddings.
        batch_size: People encoded at once.
        save_seconds: Time between two savings.

    Raises:
        UserError: There is nobody in the frames, none of the metadata is about one of them or has a name that is taken,
            another process is writing the index, or `target` is not an index or, unless `replace`, one of something
            else, or has metadata of people who must be read again and would lose them.
    """
    columns = _check_metadata(footage, metadata)
    with open_target(target) as place:
        making = Making(source, fingerprint, encoder.model.spec.image_size, dtype)
        previous = place.previous(making, replace)
        _check_kind(target, previous, making, replace)
        forgotten = place.forgotten(source)
        plan = make_plan(previous, making, footage, finder, cutting, forgotten)
        if columns is None and not replace:
            _check_nothing_lost(target, previous, making, plan)
        if columns is None:
            columns = [one for one in metadata_schema(previous) if one.name not in PERSON_SCHEMA.names]
        schema = pa.schema([*PERSON_SCHEMA, *columns])
        known = _with_metadata(plan.known, schema, plan.paths, metadata)
        reader = Reader(footage, finder, cutting, making.image_size, plan, forgotten)
        found = reader.found()
        first = next(found, None)  # None if nothing can be read: then there may be nothing to write
        stays = first is None and says_as_much(plan.known, known)
        if previous and stays and _is_current(previous.info, source, plan, reader):
            return _result(previous.info, plan, known, plan.paths, footage, reader, metadata)
        if first is not None:
            found = progress_of(chain([first], found), "index", reader.said)
        work = _Work(place, making, schema, encoder, metadata, batch_size, save_seconds)
        info, known, paths = work.run(reader, found, previous, known)
        return _result(info, plan, known, paths, footage, reader, metadata)


def _check_metadata(footage: Footage, metadata: Metadata | None) -> list[pa.Field] | None:
    """The columns of the metadata; None if there are no metadata.

    Raises:
        UserError: None is about a file, or a column has the name of one that every person has.
    """
    if metadata is None:
        return None
    taken = [name for name in metadata.schema.names if name in PERSON_SCHEMA.names]
    if taken:
        raise UserError(
            f"{metadata.source}: its column {taken[0]} would be one of those that people in frames have "
            f"({', '.join(PERSON_SCHEMA.names)}); call it otherwise"
        )
    files = pa.array([file.path for file in footage.files])
    of_people = pc.replace_substring_regex(metadata.keys, PERSON, "")
    if not any(pc.any(pc.is_in(keys, files)).as_py() for keys in (metadata.keys, of_people)):
        raise UserError(
            f"{metadata.source}: none of its keys is a file of frames, or a person in one: keys are "
            f"{first_of(metadata.keys.to_pylist())}; files are {first_of(files.to_pylist())}"
        )
    return list(metadata.schema)


def _check_nothing_lost(target: str | Path, previous: Gallery | None, making: Making, plan: Plan) -> None:
    """Check that there are no metadata of people in files that must be read again.

    Raises:
        UserError: There are, and the people would be without.
    """
    names = [name for name in metadata_schema(previous).names if name not in PERSON_SCHEMA.names]
    if previous is None or not names:
        return
    known = known_metadata(previous, previous.files(making.source)["row"].to_numpy())
    again = pa.array([file.path for file in plan.todo if file.path not in plan.readings], pa.string())
    losing = known.filter(pc.is_in(known["file"], again))
    if lost := [name for name in names if losing[name].null_count < len(losing)]:
        raise UserError(
            f"{target}: {first_of(pc.unique(losing['file']).to_pylist())} must be read again, whose people would lose "
            f"their metadata ({first_of(lost)}); give --metadata again, or --replace to drop them"
        )


def _check_kind(target: str | Path, previous: Gallery | None, making: Making, replace: bool) -> None:
    """Check that what an index holds of this source are people in frames.

    Raises:
        UserError: They are pictures, and `replace` is not set.
    """
    entries = None if previous is None else previous.files(making.source)
    if entries is None or replace or not len(entries) or are_people(entries):
        return
    raise UserError(f"{target}: is an index of pictures; name another one for the people in them, or give --replace")


def _is_current(info: Info, source: str, plan: Plan, reader: Reader) -> bool:
    same = info.footage == plan.records() and info.skipped == reader.skipped
    return same and info.source == source and not plan.removed


def _with_metadata(known: pa.Table, schema: pa.Schema, paths: Sequence[str], metadata: Metadata | None) -> pa.Table:
    """What is known of people with what the user knows, by the path of each or else its file."""
    if metadata is None:
        names = known.column_names
        return pa.table(
            [known[one.name] if one.name in names else pa.nulls(len(known), one.type) for one in schema], schema=schema
        )
    rows = pc.coalesce(
        pc.index_in(pa.array(paths, pa.string()), metadata.keys), pc.index_in(known["file"], metadata.keys)
    )
    own = metadata.table.take(rows)
    return pa.table([*(known[name] for name in PERSON_SCHEMA.names), *own.columns], schema=schema)


def _check_found(source: str, writer: Writer, reader: Reader) -> None:
    """Check that there is somebody to search for.

    Raises:
        UserError: There is not.
    """
    if writer.paths:
        return
    totals = reader.plan.totals()
    lost = [f"{totals[name]:,} {name.replace('_', ' ')}" for name in NOT_TAKEN if totals[name]]
    skipped = [f"{item['path']} ({item['reason']})" for item in reader.skipped]
    raise UserError(
        f"{source}: "
        + (f"nobody in {totals['frames']:,} frames" if totals["frames"] else "no frame of it can be read")
        + (f"; boxes not taken: {', '.join(lost)}" if lost else "")
        + (f"; made to be forgotten: {reader.left_out:,} people" if reader.left_out else "")
        + (f"; skipped: {first_of(skipped)}" if skipped else "")
    )


def _result(
    info: Info,
    plan: Plan,
    known: pa.Table,
    paths: list[str],
    footage: Footage,
    reader: Reader,
    metadata: Metadata | None,
) -> FootageUpdate:
    return FootageUpdate(
        info=info,
        added=len(paths) - len(plan.rows),
        kept=len(plan.rows),
        removed=plan.removed,
        read=reader.read,
        tracks=pc.count_distinct(known["track"], "only_valid").as_py(),
        totals=plan.totals(),
        skipped=reader.skipped,
        matched=None if metadata is None else _match(metadata, paths, known, footage),
        forgotten=reader.left_out,
    )


def _match(metadata: Metadata, paths: list[str], known: pa.Table, footage: Footage) -> Matched:
    """Which people have no row of metadata, and which rows are of nobody and no file."""
    people = pa.array(paths, pa.string())
    files = known["file"].combine_chunks()
    without = pc.invert(pc.or_(pc.is_in(people, metadata.keys), pc.is_in(files, metadata.keys)))
    there = pa.concat_arrays([people, pa.array([file.path for file in footage.files], pa.string())])
    left = metadata.keys.filter(pc.invert(pc.is_in(metadata.keys, there)))
    return Matched(people.filter(without).to_pylist(), left.to_pylist())


@dataclass(frozen=True)
class _Work:
    """Writes the index, again and again until all is read."""

    place: Target
    making: Making
    schema: pa.Schema
    encoder: Encoder
    metadata: Metadata | None
    batch_size: int
    save_seconds: float

    def run(
        self, reader: Reader, found: Iterator[list[Found]], previous: Gallery | None, known: pa.Table
    ) -> tuple[Info, pa.Table, list[str]]:
        """Read to the end; returns the index, and the metadata and paths of its people."""
        pause, rows, whole = self.save_seconds, reader.plan.rows, False
        while not whole:
            with self.place.writer(self.making, self.schema) as writer:
                if previous is not None:
                    writer.keep(previous, rows, known)
                whole = self._write(writer, found, time.monotonic() + pause)
                started = time.monotonic()
                _check_found(self.making.source, writer, reader)
                info = writer.finish(self.making.source, reader.skipped, reader.plan.records())
            previous = self.place.previous(self.making, False)
            assert previous is not None
            entries = previous.files(self.making.source)
            rows = entries["row"].to_numpy()
            known = known_metadata(previous, rows)
            pause = max(self.save_seconds, (time.monotonic() - started) / SAVING_SHARE)
        return info, known, paths_of(entries, rows)

    def _write(self, writer: Writer, found: Iterator[list[Found]], until: float) -> bool:
        """Write people until it is time to save; returns whether there are no more."""
        waiting: list[Found] = []
        for people in found:
            waiting += people
            while len(waiting) >= self.batch_size:
                self._add(writer, waiting[: self.batch_size])
                waiting = waiting[self.batch_size :]
            if time.monotonic() >= until and (writer.paths or waiting):
                self._add(writer, waiting)
                return False
        self._add(writer, waiting)
        return True

    def _add(self, writer: Writer, people: list[Found]) -> None:
        if people:
            pictures = [one.picture for one in people]
            table = pa.Table.from_pylist([one.metadata for one in people], PERSON_SCHEMA)
            known = _with_metadata(table, self.schema, [one.path for one in pictures], self.metadata)
            writer.add(pictures, self.encoder.images(np.stack([one.pixels for one in people])), known)
