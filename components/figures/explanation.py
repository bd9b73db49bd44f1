"""Why a picture was found: its heat map, and the query with shading on the words that mattered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.figures.canvas import COLOURS, GAP, MARGIN, WIDTH, Canvas, Pixels, fitted
from components.figures.style import INK, MUTED, RULE, Colour, save_png
from components.figures.text import ELLIPSIS, Face, load_face

Heat = npt.NDArray[np.float32]  # (H, W) in 0..1

TITLE = "Why these pictures were found"
CAVEAT = (
    "An aid to understanding, not a proof: it shows what this model's score reacts to most, which may differ from what "
    "a person would look at."
)
IMAGE_WIDTH = 96
CELL_WIDTH = (WIDTH - 3 * MARGIN) // 2
QUERY_LINES = 3
SCALE = (120, 12)  # width and height of the colour scale in a legend
PADDING = 3  # between a word and the edge of its shading
SHADE: Colour = (255, 176, 32)  # behind the most important word; dark text stays readable on it
STOPS = (0.0, 0.2, 0.5, 0.75, 1.0)
STOP_COLOURS = np.array([(60, 20, 110), (60, 20, 110), (190, 45, 90), (240, 110, 40), (255, 225, 90)], float)
MAX_COVER = 0.75  # highest opacity of the heat


@dataclass(frozen=True)
class ExplanationRow:
    """A picture that was found: its heat, and the query's words with their importance, both in 0..1."""

    title: str
    pixels: Pixels
    heat: Heat
    words: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class ExplainedQuery:
    """A query and the pictures found for it."""

    text: str
    rows: Sequence[ExplanationRow]


def explanation_sheet(path: Path, queries: Sequence[ExplainedQuery]) -> None:
    """Write a legend, then every query with the pictures found for it.

    Pictures are in two columns; each is shown plain, then under its heat map, then the query's shaded words.
    """
    assert min((len(query.rows) for query in queries), default=0) > 0, "no explanation to draw"
    size = fitted(queries[0].rows[0].pixels, IMAGE_WIDTH)
    canvas = Canvas(_draw(Canvas(1), queries, size))  # drawn twice: the first time only to measure the height
    _draw(canvas, queries, size)
    save_png(path, canvas.picture, (*COLOURS, SHADE))


def heat_map(pixels: Pixels, heat: Heat) -> Pixels:
    """Blend a picture with its heat: unchanged where nothing mattered, violet to red to yellow the more it did."""
    assert heat.shape == pixels.shape[:2], f"heat is {heat.shape}, the picture {pixels.shape[:2]}"
    colours = np.stack([np.interp(heat, STOPS, channel) for channel in STOP_COLOURS.T], axis=2)
    cover = np.minimum(MAX_COVER, 0.9 * heat)[..., None]
    covered: Pixels = (pixels + cover * (colours - pixels)).round().astype(np.uint8)
    return covered


def shade(importance: float) -> Colour:
    """The colour behind a word of `importance` in 0..1: from white to SHADE."""
    red, green, blue = (round(255 + importance * (channel - 255)) for channel in SHADE)
    return red, green, blue


def _draw(canvas: Canvas, queries: Sequence[ExplainedQuery], size: tuple[int, int]) -> int:
    """Draw the sheet with images of `size`, and return its height."""
    face = load_face(17, bold=True)
    cell_height = load_face(15).line_height + 6 + size[1] + MARGIN
    y = _heading(canvas)
    for query in queries:
        canvas.draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=RULE, width=1)
        lines = face.wrap(query.text, WIDTH - 2 * MARGIN, QUERY_LINES)
        y = canvas.text((MARGIN, y + 18), lines, face, INK) + 14
        for index, row in enumerate(query.rows):
            left, top = MARGIN + index % 2 * (CELL_WIDTH + MARGIN), y + index // 2 * cell_height
            _explanation(canvas, (left, top), row, size)
        y += (len(query.rows) + 1) // 2 * cell_height
    return y


def _heading(canvas: Canvas) -> int:
    """Draw title, caveat and legend, and return the y below them."""
    heading, face = load_face(22, bold=True), load_face(14)
    y = canvas.text((MARGIN, MARGIN), [TITLE], heading, INK) + 4
    y = canvas.text((MARGIN, y), face.wrap(CAVEAT, WIDTH - 2 * MARGIN, 2), face, MUTED) + 12
    steps = np.linspace(0.0, 1.0, SCALE[0], dtype=np.float32)
    grey = np.full((SCALE[1], SCALE[0], 3), 200, np.uint8)
    hot = heat_map(grey, np.tile(steps, (SCALE[1], 1)))
    shaded = np.tile(np.array([shade(step) for step in steps.tolist()], np.uint8), (SCALE[1], 1, 1))
    x = MARGIN
    for name, colours in (("parts of the picture:  less", hot), ("words of the query:  less", shaded)):
        for part in (name, colours, "more"):
            if isinstance(part, str):
                canvas.text((x, y), [part], face, MUTED)
                x += round(face.font.getlength(part)) + GAP
            else:
                canvas.image((x, y + 3), part, SCALE)
                x += SCALE[0] + GAP
        x += 2 * MARGIN
    return y + face.line_height + 18


def _explanation(canvas: Canvas, corner: tuple[int, int], row: ExplanationRow, size: tuple[int, int]) -> None:
    """Draw one cell of the sheet, with images of `size`."""
    (left, top), title = corner, load_face(15)
    y = canvas.text((left, top), title.wrap(row.title, CELL_WIDTH, 1), title, MUTED) + 6
    canvas.image((left, y), row.pixels, size)
    smooth = Image.fromarray(row.heat).resize(size, Image.Resampling.BILINEAR)
    large = Image.fromarray(row.pixels).resize(size, Image.Resampling.LANCZOS)
    canvas.image((left + size[0] + GAP, y), heat_map(np.asarray(large), np.asarray(smooth)), size)
    x = left + 2 * (size[0] + GAP) + GAP
    _words(canvas, (x, y, left + CELL_WIDTH, y + size[1]), row.words, load_face(15))


def _words(canvas: Canvas, box: tuple[int, int, int, int], words: Sequence[tuple[str, float]], face: Face) -> None:
    """Write shaded words into `box` (left, top, right, bottom); an ellipsis replaces words that do not fit."""
    line_height = face.line_height + 2 * PADDING
    for x, y, text, importance in placed_words(box, words, face):
        width = round(face.font.getlength(text)) + 2 * PADDING
        if importance > 0.0:
            canvas.draw.rounded_rectangle((x, y, x + width, y + line_height - 2), 3, fill=shade(importance))
        canvas.draw.text((x + PADDING, y + PADDING - 1), text, font=face.font, fill=INK)


def placed_words(
    box: tuple[int, int, int, int], words: Sequence[tuple[str, float]], face: Face
) -> list[tuple[int, int, str, float]]:
    """Lay the words out in `box`: x, y, text (words wider than the box are cut short) and importance of each."""
    left, y, right, bottom = box
    x, line_height = left, face.line_height + 2 * PADDING
    room = right - left - 2 * PADDING
    placed: list[tuple[int, int, str, float]] = []
    for word, importance in words:
        text = "".join(face.wrap(word, room, 1))
        width = round(face.font.getlength(text)) + 2 * PADDING
        if x > left and x + width > right:
            if y + 2 * line_height > bottom:
                return _with_ellipsis(placed, x, right, face)
            x, y = left, y + line_height
        placed.append((x, y, text, importance))
        x += width
    return placed


def _with_ellipsis(
    placed: list[tuple[int, int, str, float]], x: int, right: int, face: Face
) -> list[tuple[int, int, str, float]]:
    """Add an ellipsis at `x`, removing as many of the last words as needed to make it fit."""
    y, width = placed[-1][1], face.font.getlength(ELLIPSIS) + 2 * PADDING
    while x + width > right:
        x = placed.pop()[0]
    return [*placed, (x, y, ELLIPSIS, 0.0)]
