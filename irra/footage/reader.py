"""Reading frames, and finding and following the people in them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from irra.footage.cutting import Cutting
from irra.footage.frames import Finder, Frame
from irra.footage.linking import REACH, Linker, Place
from irra.footage.people import Person, cut_people, metadata_of, path_of
from irra.footage.plan import Plan, Reading, settings_of
from irra.footage.sources import Footage
from irra.search.forgetting import Forgotten
from irra.search.pictures import PictureFile, jpeg
from irra.search.writer import Picture
from irra.utils.errors import UserError
from irra.utils.files import hash_file

FRAMES = 8  # looked at at once; of 4K video, they take 200 MB


class Reader:
    """Reads files and finds the people in them.

    Attributes:
        plan: What is read, and was read so far.
        skipped: Path and reason of files that could not be used.
        read: Number of frames so far.
        left_out: Number of people so far who were made to be forgotten.
    """

    def __init__(
        self,
        footage: Footage,
        finder: Finder,
        cutting: Cutting,
        size: tuple[int, int],
        plan: Plan,
        forgotten: Forgotten,
    ) -> None:
        self.plan, self.skipped = plan, list(footage.skipped)
        self.read = self.left_out = self._people = 0
        self._forgotten = forgotten
        self._done = 0.0  # files, and the part of the last one
        self._footage, self._finder, self._cutting, self._size = footage, finder, cutting, size
        self._tracks = _Tracks(footage, plan)

    def found(self) -> Iterator[list["Found"]]:
        """Yield the people in a few frames at a time; what is recorded of the files agrees with what was yielded."""
        stream = self._stream()
        while some := list(islice(stream, FRAMES)):
            frames = [frame for frame, _, _ in some if frame is not None]
            boxes = iter(self._finder(frames) if frames else [])
            people = []
            for frame, file, reading in some:
                if frame is None:
                    reading.recent = []
                    self.plan.readings[file] = reading
                    continue
                cut, counts = cut_people(frame, next(boxes), self._size, self._cutting)
                tracks = self._numbers(frame, reading, cut)
                people += [Found.of(frame, one, track, reading) for one, track in zip(cut, tracks, strict=True)]
                self._note(frame, reading, len(cut), counts)
            remembered = [one for one in people if one.picture.path not in self._forgotten]
            self.left_out += len(people) - len(remembered)
            yield remembered

    def _stream(self) -> Iterator[tuple[Frame | None, str, Reading]]:
        """Frames with their file and what was read of it; None after the last frame of a file."""
        for done, file in enumerate(self.plan.todo):
            self._done = done
            try:
                reading = self.plan.readings.get(file.path) or self._begin(file)
                source = self._footage.frames(file.path, reading.recent[-1] if reading.recent else -1)
                damaged = reading.damaged
                for frame in source:
                    yield frame, file.path, reading
                    reading.damaged = damaged + source.damaged
                    self._done = done + (min(reading.frames / source.expected, 1.0) if source.expected else 0.0)
                reading.damaged = damaged + source.damaged
            except (UserError, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                reason = reason.removeprefix(f"{self._footage.root / file.path}: ")
                self.skipped.append({"path": file.path, "reason": reason})
            else:
                yield None, file.path, reading
        self._done = len(self.plan.todo)

    def said(self) -> str:
        """How far it is."""
        share = self._done / max(len(self.plan.todo), 1)
        return f"{self.read:,} frames, {self._people:,} people, {share:.0%} of {len(self.plan.todo):,} files"

    def _begin(self, file: PictureFile) -> Reading:
        settings = settings_of(self._footage, self._finder, self._cutting, file.path)
        sha256 = hash_file(self._footage.root / file.path)
        return Reading(file.file_bytes, file.modified_ns, sha256, settings)

    def _numbers(self, frame: Frame, reading: Reading, people: Sequence[Person]) -> list[str | None]:
        scene = self._footage.scene(frame.file)
        if self._finder.tracked:
            return [None if one.box.track is None else f"{scene}#{one.box.track}" for one in people]
        numbers = self._tracks.link(frame.file, reading, [one.place for one in people])
        return [f"{scene}#{number}" for number in numbers]

    def _note(self, frame: Frame, reading: Reading, people: int, counts: Counter[str]) -> None:
        self.plan.readings[frame.file] = reading
        reading.frames += 1
        reading.people += people
        reading.recent = [*reading.recent, frame.number][-REACH:]
        for name, count in counts.items():
            setattr(reading, name, getattr(reading, name) + count)
        self.read += 1
        self._people += people


class _Tracks:
    """Links people with those in the frames before, which may be in the index already."""

    def __init__(self, footage: Footage, plan: Plan) -> None:
        self._footage = footage
        self._linkers: dict[str, Linker] = {}
        self._next: Counter[str] = Counter()
        for track in pc.unique(plan.known["track"]).drop_null().to_pylist():
            scene, _, number = track.rpartition("#")
            self._next[scene] = max(self._next[scene], int(number))
        self._seen = _seen(plan.known, {name for file in plan.todo for name in self._names(file.path)})

    def link(self, file: str, reading: Reading, places: Sequence[Place]) -> list[int]:
        """Numbers of the tracks of the people in the next frame of a file."""
        scene = self._footage.scene(file)
        linker = self._linkers.setdefault(scene, Linker(self._next[scene] + 1))
        position = self._footage.position(file) + reading.frames
        for earlier, (path, number) in self._earlier(file, reading, position):
            if earlier > linker.position:
                seen = self._seen.get((path, number), [])
                linker.follow(earlier, [place for place, _ in seen], [track for _, track in seen])
        return linker.link(position, places)

    def _names(self, file: str) -> list[str]:
        return [file, *self._footage.before(file, REACH)]

    def _earlier(self, file: str, reading: Reading, position: int) -> list[tuple[int, tuple[str, int | None]]]:
        """Position, file and number of the frames before; without a number for files that are frames."""
        names: list[tuple[str, int | None]] = [(file, number) for number in reading.recent]
        names = names or [(path, None) for path in self._footage.before(file, REACH)]
        return list(zip(range(position - len(names), position), names, strict=True))


def _seen(known: pa.Table, files: set[str]) -> dict[tuple[str, int | None], list[tuple[Place, int]]]:
    """Places and tracks of the people in these files, by file and frame, and by file alone."""
    seen: dict[tuple[str, int | None], list[tuple[Place, int]]] = {}
    rows = known.filter(pc.is_in(known["file"], pa.array(sorted(files), pa.string())))
    for one in rows.select(["file", "frame", "x", "y", "width", "height", "track"]).to_pylist():
        if one["track"] is not None:
            person = (one["x"], one["y"], one["width"], one["height"]), int(one["track"].rpartition("#")[2])
            for number in (one["frame"], None):
                seen.setdefault((one["file"], number), []).append(person)
    return seen


@dataclass(frozen=True)
class Found:
    """A person with what is written of him."""

    picture: Picture
    pixels: NDArray[np.uint8]
    metadata: dict[str, object]

    @classmethod
    def of(cls, frame: Frame, person: Person, track: str | None, reading: Reading) -> "Found":
        """A person in a frame of a file of which that was read."""
        file = reading.file_bytes, reading.modified_ns, reading.sha256
        picture = Picture(path_of(frame, person.place), jpeg(person.pixels), None, *file)
        return cls(picture, person.pixels, metadata_of(frame, person, track))
