"""Cutting the people out of a frame."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from irra.footage.frames import Box, Frame
from irra.footage.linking import Place
from irra.search.pictures import to_pixels

# Metadata of a picture of a person: its file and frame as in `Frame`, its box in pixels of the frame, the detector's
# confidence, and the track `<file>#<number>`, where the file is the video or the folder of the frames.
PERSON_SCHEMA = pa.schema(
    {
        "file": pa.string(),
        "frame": pa.int64(),
        "seconds": pa.float64(),
        "time": pa.timestamp("us"),
        "x": pa.int32(),
        "y": pa.int32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "confidence": pa.float32(),
        "track": pa.string(),
    }
)


@dataclass(frozen=True)
class Cutting:
    """Which boxes are cut out, and how.

    Attributes:
        margin: Added on each side, as a share of the box's width and height.
        min_height: Height in pixels of the smallest box.
        min_score: Least confidence of a box, if it has one.
    """

    margin: float = 0.05
    min_height: int = 50
    min_score: float | None = None


@dataclass(frozen=True)
class Person:
    """A person in a frame.

    Attributes:
        box: As it was found.
        place: The part of it in the frame, in whole pixels.
        pixels: That with its margin, at the model's image size (H, W, 3).
    """

    box: Box
    place: Place
    pixels: NDArray[np.uint8]


def cut_people(
    frame: Frame, boxes: Sequence[Box], size: tuple[int, int], cutting: Cutting
) -> tuple[list[Person], Counter[str]]:
    """Cut the people out of a frame, each once.

    Returns:
        The people at `size` = (H, W), and the numbers of boxes that are not cut out, because they are `unsure`,
        `outside` the frame, `too_small` or `double`, and of those that are `clipped` at its edges.
    """
    people: dict[Place, Person] = {}
    counts: Counter[str] = Counter()
    for box in boxes:
        place = clip(box, frame.pixels.shape[1], frame.pixels.shape[0])
        if problem := _problem(box, place, cutting):
            counts[problem] += 1
        elif place in people:
            counts["double"] += 1
        else:
            counts["clipped"] += place[2:] != (round(box.x + box.width) - round(box.x), _height(box))
            people[place] = Person(box, place, _cut(frame.pixels, place, cutting.margin, size))
    return list(people.values()), counts


def clip(box: Box, width: int, height: int) -> Place:
    """The part of a box in a frame of this size, in whole pixels and at least one; without any if it is outside."""
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        return 0, 0, 0, 0
    left, upper = min(max(round(box.x), 0), width - 1), min(max(round(box.y), 0), height - 1)
    right, lower = min(round(box.x + box.width), width), min(round(box.y + box.height), height)
    return left, upper, max(right - left, 1), max(lower - upper, 1)


def path_of(frame: Frame, place: Place) -> str:
    """The path of a person's picture: a W3C media fragment, such as `cam1/000123.jpg#xywh=100,50,40,120`."""
    moment = "" if frame.seconds is None else f"t={f'{frame.seconds:.3f}'.rstrip('0').rstrip('.')}&"
    return f"{frame.file}#{moment}xywh={','.join(map(str, place))}"


def metadata_of(frame: Frame, person: Person, track: str | None) -> dict[str, object]:
    """A row of PERSON_SCHEMA."""
    x, y, width, height = person.place
    return {
        "file": frame.file,
        "frame": frame.number,
        "seconds": frame.seconds,
        "time": frame.time,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "confidence": person.box.score,
        "track": track,
    }


def _problem(box: Box, place: Place, cutting: Cutting) -> str | None:
    if cutting.min_score is not None and box.score is not None and box.score < cutting.min_score:
        return "unsure"
    if not place[2]:
        return "outside"
    return "too_small" if place[3] < cutting.min_height else None


def _height(box: Box) -> int:
    return round(box.y + box.height) - round(box.y)


def _cut(pixels: NDArray[np.uint8], place: Place, margin: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    x, y, width, height = place
    across, down = math.floor(margin * width), math.floor(margin * height)
    part = pixels[max(y - down, 0) : y + height + down, max(x - across, 0) : x + width + across]
    return to_pixels(Image.fromarray(part), size)
