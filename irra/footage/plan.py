"""Which files of frames must be read, and what was read of the others."""

import hashlib
import warnings
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irra.footage.cutting import Cutting
from irra.footage.frames import Finder
from irra.footage.people import PERSON_SCHEMA
from irra.footage.sources import Footage
from irra.search.forgetting import Forgotten
from irra.search.gallery import Gallery, Rows, known_metadata, paths_of
from irra.search.pictures import PictureFile
from irra.search.target import Making
from irra.search.update import are_people, unchanged
from irra.utils.errors import first_of

NOT_TAKEN = ("unsure", "outside", "too_small", "double")  # boxes
COUNTED = ("frames", "people", *NOT_TAKEN, "clipped", "damaged")


@dataclass
class Reading:
    """What was read of a file, as the index records it.

    Attributes:
        file_bytes, modified_ns, sha256: Of the file.
        settings: What decided which people were found in it.
        frames, people: Numbers of them.
        unsure, outside, too_small, double, clipped: Numbers of boxes, as in `cut_people`.
        damaged: Number of stretches that could not be read.
        recent: Numbers of the last frames, if the file was not read to its end.
    """

    file_bytes: int
    modified_ns: int
    sha256: str
    settings: str
    frames: int = 0
    people: int = 0
    unsure: int = 0
    outside: int = 0
    too_small: int = 0
    double: int = 0
    clipped: int = 0
    damaged: int = 0
    recent: list[int] = field(default_factory=list)

    def record(self) -> str:
        """As one line, without what is 0: of 100,000 frames, an index opens with it in a third of the time."""
        counts = [f"{name}={getattr(self, name)}" for name in COUNTED if getattr(self, name)]
        recent = [f"recent={','.join(map(str, self.recent))}"] if self.recent else []
        return " ".join([str(self.file_bytes), str(self.modified_ns), self.sha256, self.settings, *counts, *recent])

    @classmethod
    def parse(cls, record: str) -> "Reading":
        """Read what `record` has written."""
        file_bytes, modified_ns, sha256, settings, *others = record.split(" ")
        named = dict(other.split("=") for other in others)
        recent = [int(number) for number in named.pop("recent", "").split(",") if number]
        counts = {name: int(count) for name, count in named.items()}
        return cls(int(file_bytes), int(modified_ns), sha256, settings, **counts, recent=recent)


@dataclass
class Plan:
    """What stays and what must be read.

    Attributes:
        rows: Of the index, those of people who stay.
        paths: Of their pictures.
        known: Their metadata.
        readings: What was read of the files, by path; new readings are added.
        todo: Files to read, or to read on.
        removed: Number of people who do not stay.
    """

    rows: Rows
    paths: list[str]
    known: pa.Table
    readings: dict[str, Reading]
    todo: list[PictureFile]
    removed: int

    def records(self) -> dict[str, str]:
        """What the index records of the files."""
        return {path: reading.record() for path, reading in self.readings.items()}

    def totals(self) -> dict[str, int]:
        """Numbers of what all files hold."""
        return {name: sum(getattr(reading, name) for reading in self.readings.values()) for name in COUNTED}


def make_plan(
    previous: Gallery | None, making: Making, footage: Footage, finder: Finder, cutting: Cutting, forgotten: Forgotten
) -> Plan:
    """Compare files, but for those that were made to be forgotten, with what an index records of them.

    A file is read again if other settings were used, with a warning.
    """
    read = {} if previous is None else {path: Reading.parse(one) for path, one in previous.info.footage.items()}
    readings: dict[str, Reading] = {}
    todo = []
    files = [file for file in footage.files if file.path not in forgotten]
    for file in files:
        settings = settings_of(footage, finder, cutting, file.path)
        reading = read.get(file.path)
        if reading is None or reading.settings != settings or not unchanged(vars(reading), footage.root, file):
            todo.append(file)
            continue
        readings[file.path] = reading
        if reading.recent:
            todo.append(file)
    changed = [file.path for file in todo if file.path in read and file.path not in readings]
    if others := [path for path in changed if read[path].settings != settings_of(footage, finder, cutting, path)]:
        warnings.warn(f"read again, with other boxes or options than before: {first_of(others)}", stacklevel=2)
    if previous is None:
        return Plan(np.empty(0, np.int64), [], PERSON_SCHEMA.empty_table(), readings, todo, 0)
    entries = previous.files(making.source)
    if not are_people(entries):  # but pictures, which are replaced
        return Plan(np.empty(0, np.int64), [], PERSON_SCHEMA.empty_table(), {}, files, len(entries))
    known = known_metadata(previous, entries["row"].to_numpy())
    stays = pc.is_in(known["file"], pa.array(list(readings), pa.string()))
    for path, reading in readings.items():
        if reading.recent:  # a writer that was killed may have left people of later frames, which come again
            later = pc.and_(pc.equal(known["file"], path), pc.greater(known["frame"], reading.recent[-1]))
            stays = pc.and_not(stays, later)
    rows = entries["row"].filter(stays).to_numpy()
    return Plan(rows, paths_of(entries, rows), known.filter(stays), readings, todo, len(entries) - len(rows))


def settings_of(footage: Footage, finder: Finder, cutting: Cutting, file: str) -> str:
    """What decided which people are found in a file: another text if they may be others."""
    parts = (footage.settings, finder.settings(file), cutting)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
