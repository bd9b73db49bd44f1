"""Sheets of people that were found in frames and video: each with the frame, and where and when that was."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.figures.canvas import COLOURS, GAP, MARGIN, WIDTH, Canvas, Pixels, fitted
from components.figures.style import INK, MUTED, RULE, save_png
from components.figures.text import load_face
from irra.footage.scenes import BOX_COLOUR

COLUMNS = 2
CELL_WIDTH = (WIDTH - (COLUMNS + 1) * MARGIN) // COLUMNS
CROP_WIDTH = 96
SCENE_WIDTH = CELL_WIDTH - CROP_WIDTH - GAP
QUERY_LINES = 3
TITLE, TEXT = 15, 14  # pixels of the letters


@dataclass(frozen=True)
class Sighting:
    """A picture that was found: its rank and score, its frame if that is at hand, the file, and when it was."""

    title: str
    pixels: Pixels
    scene: Pixels | None
    file: str
    moment: str


@dataclass(frozen=True)
class SceneQuery:
    """A query and the sightings found for it."""

    text: str
    sightings: Sequence[Sighting]


def scene_sheet(path: Path, title: str, queries: Sequence[SceneQuery]) -> None:
    """Write every query with its sightings in two columns: the picture, beside it its frame, and below that its place.

    Frames are drawn as they are; they must not be wider than SCENE_WIDTH.
    """
    assert min((len(query.sightings) for query in queries), default=0) > 0, "a sheet needs queries with results"
    canvas = Canvas(_draw(Canvas(1), title, queries))  # drawn twice: the first time only to measure the height
    _draw(canvas, title, queries)
    save_png(path, canvas.picture, (*COLOURS, BOX_COLOUR))


def _draw(canvas: Canvas, title: str, queries: Sequence[SceneQuery]) -> int:
    """Draw the sheet, and return its height."""
    heading, face = load_face(22, bold=True), load_face(17, bold=True)
    y = canvas.text((MARGIN, MARGIN), heading.wrap(title, WIDTH - 2 * MARGIN, 1), heading, INK) + 12
    for query in queries:
        canvas.draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=RULE, width=1)
        lines = face.wrap(query.text, WIDTH - 2 * MARGIN, QUERY_LINES)
        y = canvas.text((MARGIN, y + 18), lines, face, INK) + 14
        for first in range(0, len(query.sightings), COLUMNS):
            ends = [
                _sighting(canvas, (MARGIN + column * (CELL_WIDTH + MARGIN), y), sighting)
                for column, sighting in enumerate(query.sightings[first : first + COLUMNS])
            ]
            y = max(ends) + MARGIN
    return y


def _sighting(canvas: Canvas, corner: tuple[int, int], sighting: Sighting) -> int:
    """Draw one cell of the sheet, and return the y below it."""
    (left, top), title, text = corner, load_face(TITLE, bold=True), load_face(TEXT)
    top = canvas.text((left, top), title.wrap(sighting.title, CELL_WIDTH, 1), title, INK) + 6
    size = fitted(sighting.pixels, CROP_WIDTH)
    canvas.image((left, top), sighting.pixels, size)
    x, y = left + CROP_WIDTH + GAP, top
    if sighting.scene is not None:
        height, width = sighting.scene.shape[:2]
        assert width <= SCENE_WIDTH, f"a frame is {width} pixels wide"
        canvas.image((x, y), sighting.scene, (width, height))
        y += height + GAP
    y = canvas.text((x, y), [text.ending(sighting.file, SCENE_WIDTH)], text, INK)
    y = canvas.text((x, y), text.wrap(sighting.moment, SCENE_WIDTH, 2), text, MUTED)
    return max(y, top + size[1])
