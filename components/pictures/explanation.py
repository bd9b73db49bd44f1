"""Why a picture was found: its heat map beside it, and the query with the words shaded that mattered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.pictures.canvas import COLOURS, GAP, MARGIN, WIDTH, Canvas, Pixels, fitted
from components.pictures.style import INK, Colour, save_png
from components.pictures.text import Face, load_face

Heat = npt.NDArray[np.float32]  # (H, W) in 0..1

IMAGE_WIDTH = 96
CELL_WIDTH = (WIDTH - 3 * MARGIN) // 2
PADDING = 3  # of a word's shade
SHADE: Colour = (255, 176, 32)  # of the most important word; dark text stays readable on it
STOPS = (0.0, 0.2, 0.5, 0.75, 1.0)
STOP_COLOURS = np.array([(60, 20, 110), (60, 20, 110), (190, 45, 90), (240, 110, 40), (255, 225, 90)], float)
STRONGEST = 0.75  # how much of the picture the heat may cover


@dataclass(frozen=True)
class ExplanationRow:
    """A picture that was found: its heat, and the query's words, both with their importance in 0..1."""

    title: str
    pixels: Pixels
    heat: Heat
    words: Sequence[tuple[str, float]]


def explanation_sheet(path: Path, rows: Sequence[ExplanationRow]) -> None:
    """Write found pictures in two columns, each plain, under its heat map, and beside the query's shaded words."""
    assert rows, "no explanation to draw"
    size = fitted(rows[0].pixels, IMAGE_WIDTH)
    cell_height = load_face(16, bold=True).line_height + 6 + size[1] + MARGIN
    canvas = Canvas(MARGIN + (len(rows) + 1) // 2 * cell_height)
    for index, row in enumerate(rows):
        corner = (MARGIN + index % 2 * (CELL_WIDTH + MARGIN), MARGIN + index // 2 * cell_height)
        _explanation(canvas, corner, row, size)
    save_png(path, canvas.picture, COLOURS)


def heat_map(pixels: Pixels, heat: Heat) -> Pixels:
    """The picture under its heat: as it is where nothing mattered, from violet over red to yellow where it did."""
    assert heat.shape == pixels.shape[:2], f"heat is {heat.shape}, the picture {pixels.shape[:2]}"
    colours = np.stack([np.interp(heat, STOPS, channel) for channel in STOP_COLOURS.T], axis=2)
    cover = np.minimum(STRONGEST, 0.9 * heat)[..., None]
    covered: Pixels = (pixels + cover * (colours - pixels)).round().astype(np.uint8)
    return covered


def shade(importance: float) -> Colour:
    """The colour behind a word of `importance` in 0..1: from white to SHADE."""
    red, green, blue = (round(255 + importance * (channel - 255)) for channel in SHADE)
    return red, green, blue


def _explanation(canvas: Canvas, corner: tuple[int, int], row: ExplanationRow, size: tuple[int, int]) -> None:
    """One cell of the sheet, with images of `size`."""
    (left, top), title = corner, load_face(16, bold=True)
    y = canvas.text((left, top), title.wrap(row.title, CELL_WIDTH, 1), title, INK) + 6
    canvas.image((left, y), row.pixels, size)
    smooth = Image.fromarray(row.heat).resize(size, Image.Resampling.BILINEAR)
    large = Image.fromarray(row.pixels).resize(size, Image.Resampling.LANCZOS)
    canvas.image((left + size[0] + GAP, y), heat_map(np.asarray(large), np.asarray(smooth)), size)
    x = left + 2 * (size[0] + GAP) + GAP
    _words(canvas, (x, y, left + CELL_WIDTH, y + size[1]), row.words, load_face(15))


def _words(canvas: Canvas, box: tuple[int, int, int, int], words: Sequence[tuple[str, float]], face: Face) -> None:
    """Write shaded words into `box` (left, top, right, bottom); those that do not fit are left out."""
    left, y, right, bottom = box
    x, line_height = left, face.line_height + 2 * PADDING
    for word, importance in words:
        text = "".join(face.wrap(word, right - left - 2 * PADDING, 1))
        width = round(face.font.getlength(text)) + 2 * PADDING
        if x > left and x + width > right:
            x, y = left, y + line_height
        if y + line_height > bottom:
            return
        if importance > 0.0:
            canvas.draw.rounded_rectangle((x, y, x + width, y + line_height - 2), 3, fill=shade(importance))
        canvas.draw.text((x + PADDING, y + PADDING - 1), text, font=face.font, fill=INK)
        x += width
