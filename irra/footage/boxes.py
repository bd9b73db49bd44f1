"""Boxes of people from a file: COCO JSON, the text of the MOT challenge, or a table in CSV."""

import csv
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from irra.footage.frames import Box
from irra.utils.errors import UserError, first_of
from irra.utils.files import check_regular_file

PEOPLE = ("person", "pedestrian")  # names of a category, in any case
PEDESTRIAN = 1  # class in the ground truth of MOT16 and later
GROUND_TRUTH_FIELDS = (8, 9)  # frame, id, x, y, w, h, flag, class, visibility; tracks and detections have 7 or 10
BOX_COLUMNS = ("frame", "x", "y", "width", "height")
FORMATS = (
    "give COCO JSON (images and annotations), MOT text (frame,id,x,y,width,height,confidence), or CSV with the columns "
    + ", ".join(BOX_COLUMNS)
)
SNIFFED = 4096  # characters that tell the format


class FrameName(NamedTuple):
    """How a file of boxes calls a frame: by a file, by a number, or by the number in a file.

    Attributes:
        file: Name of a picture or video; "" if it is not said.
        number: None if the file is the frame.
    """

    file: str
    number: int | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, "" if self.number is None else f"frame {self.number}") if part)


@dataclass(frozen=True)
class Boxes:
    """Boxes of people by frame.

    Attributes:
        source: The file.
        first: What it calls the first frame of a video.
        frames: First and last row + 1 of the boxes of each frame.
        places: x, y, width and height of each (N, 4), in pixels.
        scores: Confidence of each (N,), NaN if unknown.
        tracks: Number of the person (N,), -1 if unknown.
        ignored: Number of boxes in the file that are of no person, or marked to be ignored.
    """

    source: Path
    first: int
    frames: dict[FrameName, tuple[int, int]]
    places: NDArray[np.float64]
    scores: NDArray[np.float64]
    tracks: NDArray[np.int64]
    ignored: int

    @property
    def tracked(self) -> bool:
        """Whether it says who is the same person in several frames."""
        return bool((self.tracks >= 0).any())

    def of(self, frame: FrameName) -> list[Box]:
        """The boxes of a frame, in the order of the file."""
        start, end = self.frames[frame]
        return [
            Box(x, y, width, height, None if math.isnan(score) else score, None if track < 0 else track)
            for (x, y, width, height), score, track in zip(
                self.places[start:end].tolist(),
                self.scores[start:end].tolist(),
                self.tracks[start:end].tolist(),
                strict=True,
            )
        ]

    def content(self, frame: FrameName) -> bytes:
        """What distinguishes the boxes of a frame from others."""
        start, end = self.frames[frame]
        return b"".join(values[start:end].tobytes() for values in (self.places, self.scores, self.tracks))


def read_boxes(path: Path) -> Boxes:
    """Read a file of boxes, whose format is told by its content.

    COCO JSON names frames by `images[].file_name`; of named categories, only people are taken, and of a plain list of
    detections, only one whose entries have names. MOT text numbers the frames from 1; in ground truth, only pedestrians
    that are not marked to be ignored are taken. CSV has a header: frame (a file's name, or a number as irra counts
    them), x, y, width and height in pixels, and optionally score, track, and file (the video of a frame's number).

    Raises:
        UserError: There is no such file, it is none of these, or has a box that cannot be; the message names its place.
    """
    check_regular_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            beginning = file.read(SNIFFED)
            file.seek(0)
            entries = _Entries(path)
            if beginning.lstrip()[:1] in ("{", "["):
                first = _read_coco(json.load(file), entries)
            else:
                first = _read_rows(csv.reader(file, strict=True), entries)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of boxes") from None
    except UserError:
        raise
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # ValueError: no JSON or UTF-8, endless numbers
        raise UserError(f"{path}: no file of boxes ({getattr(error, 'strerror', None) or error}); {FORMATS}") from None
    return entries.boxes(first)


class _Entries:
    """Boxes that are checked as they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ignored = 0
        self._codes: dict[FrameName, int] = {}
        self._frames, self._places, self._scores, self._tracks = array("q"), array("d"), array("d"), array("q")

    def add(self, where: str, frame: FrameName, place: Sequence[Any], score: Any = None, track: Any = None) -> None:
        """Add a box, whose entry the messages call `where`; score and track may be None or ""."""
        numbers = [self._number(where, *named) for named in zip(("x", "y", "width", "height"), place, strict=True)]
        if numbers[2] <= 0 or numbers[3] <= 0:
            raise UserError(f"{self.path}: {where}: a box of {place[2]} x {place[3]}; its size must be above 0")
        self._frames.append(self._codes.setdefault(frame, len(self._codes)))
        self._places.extend(numbers)
        self._scores.append(math.nan if score in (None, "") else self._number(where, "score", score))
        self._tracks.append(-1 if track in (None, "") else self._whole(where, "track", track))

    def _number(self, where: str, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise UserError(f"{self.path}: {where}: {name} is {value!r}, not a number") from None
        except OverflowError:  # a whole number in JSON
            number = math.inf
        if not math.isfinite(number):
            raise UserError(f"{self.path}: {where}: {name} is {value}; it must be finite")
        return number

    def _whole(self, where: str, name: str, value: Any) -> int:
        number = self._number(where, name, value)
        if not number.is_integer() or abs(number) >= 2**63:
            raise UserError(f"{self.path}: {where}: {name} is {value}; it must be a whole number")
        return int(number)

    def frame_number(self, where: str, value: Any, first: int) -> int:
        """The number of a frame, which counts from `first`."""
        number = self._whole(where, "frame", value)
        if number < first:
            raise UserError(f"{self.path}: {where}: frame {number}; frames are counted from {first}")
        return number

    def boxes(self, first: int) -> Boxes:
        """All of them, sorted by frame."""
        if not self._frames:
            ignored = f", only {self.ignored} that are of no person or to be ignored" if self.ignored else ""
            raise UserError(f"{self.path}: no boxes of people in it{ignored}")
        codes = np.array(self._frames)
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes)).tolist()
        starts = [0, *ends[:-1]]
        return Boxes(
            self.path,
            first,
            dict(zip(self._codes, zip(starts, ends, strict=True), strict=True)),
            np.array(self._places).reshape(-1, 4)[order],
            np.array(self._scores)[order],
            np.array(self._tracks)[order],
            self.ignored,
        )


def _read_coco(data: Any, entries: _Entries) -> int:
    if isinstance(data, dict):
        names = _image_names(data, entries.path)
        wanted = _people_categories(data, entries.path)
        key, found = "annotations", data.get("annotations")
    else:
        names, wanted, key, found = {}, None, "", data
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UserError(f"{entries.path}: no list of annotations in it; {FORMATS}")
    for number, one in enumerate(found):
        where = f"{key}[{number}]"
        if one.get("iscrowd") == 1 or (wanted is not None and one.get("category_id") not in wanted):
            entries.ignored += 1
            continue
        box = one.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise UserError(f"{entries.path}: {where}: bbox is {box!r}, not [x, y, width, height]")
        frame = FrameName(_image_name(one, names, f"{entries.path}: {where}"))
        entries.add(where, frame, box, one.get("score"), one.get("track_id"))
    return 0


def _image_names(data: dict[str, Any], path: Path) -> dict[Any, str]:
    images = data.get("images")
    if not isinstance(images, list) or not images:
        raise UserError(f"{path}: no images in it, whose file names say which frames the boxes are in; {FORMATS}")
    names = {}
    for number, image in enumerate(images):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not isinstance(image.get("id"), int | str):
            raise UserError(f"{path}: images[{number}]: no id and file_name in it")
        names[image["id"]] = name
    return names


def _image_name(entry: dict[str, Any], names: dict[Any, str], where: str) -> str:
    """The file name of a detection's frame: by its id, or its own; some tools write names as ids."""
    image = entry.get("image_id")
    name = entry.get("file_name") or (names.get(image) if names and isinstance(image, int | str) else image)
    if isinstance(name, str):
        return name
    if names:
        raise UserError(f"{where}: image_id is {image!r}, which is none of the images")
    raise UserError(f"{where}: image_id {image!r} says no file name; give the file with images and annotations instead")


def _people_categories(data: dict[str, Any], path: Path) -> list[Any] | None:
    """Ids of the categories that are people; None if there are no names, so that all boxes are taken for people."""
    listed = data.get("categories")
    categories = (
        [one for one in listed if isinstance(one, dict) and one.get("name")] if isinstance(listed, list) else []
    )
    if not categories:
        return None
    people = [one.get("id") for one in categories if str(one["name"]).lower() in PEOPLE]
    if not people:
        raise UserError(
            f"{path}: none of its categories is called person: {first_of([str(one['name']) for one in categories])}"
        )
    return people


def _read_rows(reader: Any, entries: _Entries) -> int:
    rows = ((f"line {reader.line_num}", row) for row in reader if any(field.strip() for field in row))
    where, head = next(rows, ("", []))
    if all(_is_number(field) for field in head) and len(head) >= 6:
        _read_mot(_chained((where, head), rows), entries)
        return 1
    columns = [name.strip().lower() for name in head]
    if missing := [name for name in BOX_COLUMNS if name not in columns]:
        raise UserError(f"{entries.path}: no file of boxes: no column {missing[0]} in its first line; {FORMATS}")
    for where, row in rows:
        if len(row) != len(columns):
            raise UserError(f"{entries.path}: {where}: {len(row)} fields where the first line has {len(columns)}")
        one = dict(zip(columns, (field.strip() for field in row), strict=True))
        frame, file = one["frame"], one.get("file", "")
        name = FrameName(frame) if not _is_number(frame) else FrameName(file, entries.frame_number(where, frame, 0))
        entries.add(where, name, [one[column] for column in BOX_COLUMNS[1:]], one.get("score"), one.get("track"))
    return 0


def _read_mot(rows: Iterable[tuple[str, list[str]]], entries: _Entries) -> None:
    """Rows of frame, id, x, y, width, height, confidence, ...; in ground truth, a flag takes the confidence's place."""
    for where, row in rows:
        if len(row) < 6 or not all(_is_number(field) for field in row):
            raise UserError(f"{entries.path}: {where}: not frame,id,x,y,width,height,confidence")
        frame, identity, *place = row[:6]
        confidence = row[6] if len(row) > 6 else ""
        truth = len(row) in GROUND_TRUTH_FIELDS
        if confidence and (float(confidence) == 0 or (truth and float(row[7]) != PEDESTRIAN)):
            entries.ignored += 1
            continue
        score = None if truth or confidence == "" or float(confidence) == -1 else confidence
        track = None if float(identity) < 0 else identity
        entries.add(where, FrameName("", entries.frame_number(where, frame, 1)), place, score, track)


def _chained(first: tuple[str, list[str]], rows: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    yield first
    yield from rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
