"""Drawn footage for tests: people are coloured rectangles that walk over a grey ground."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (120, 160)  # of a frame
PERSON = (30, 60)  # width and height
COLOURS = ((200, 30, 30), (30, 30, 200), (30, 160, 30))
STEP = 6  # pixels that a person walks from one frame to the next

Place = tuple[int, int, int, int]


def places(number: int, people: int = 2) -> list[Place]:
    """Where the people are in a frame; the second walks against the first."""
    xs = (10 + STEP * number, 120 - STEP * number, 60)
    return [(xs[one], 10 + 20 * one, *PERSON) for one in range(people)]


def draw(boxes: Iterable[Place]) -> NDArray[np.uint8]:
    """A frame with a rectangle in each of the boxes."""
    frame = np.full((*SIZE, 3), 128, np.uint8)
    for colour, (x, y, width, height) in zip(COLOURS, boxes, strict=False):
        frame[y : y + height, max(x, 0) : x + width] = colour
    return frame


def write_frames(folder: Path, numbers: Iterable[int], people: int = 2) -> Path:
    """Frames `000001.png`, ... of one camera."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(draw(places(number, people))).save(folder / f"{number:06}.png")
    return folder


def mot_lines(numbers: Iterable[int], people: int = 2, identity: bool = False) -> str:
    """The boxes of these frames as MOT text."""
    return "".join(
        f"{number},{person + 1 if identity else -1},{x},{y},{width},{height},0.9,-1,-1,-1\n"
        for number in numbers
        for person, (x, y, width, height) in enumerate(places(number, people))
    )


def csv_lines(files: Iterable[tuple[str, int]], people: int = 2) -> str:
    """The boxes of frames, by file and number, as CSV."""
    return "frame,x,y,width,height,score\n" + "".join(
        f"{file},{x},{y},{width},{height},0.9\n"
        for file, number in files
        for x, y, width, height in places(number, people)
    )
