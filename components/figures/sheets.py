"""Sheets of images with text: the people in a dataset, and the results of queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.figures.canvas import COLOURS, FRAME, GAP, MARGIN, MARK, WIDTH, Canvas, Pixels, fitted
from components.figures.style import INK, MUTED, RIGHT, RULE, save_png
from components.figures.text import Face, load_face

SHEET_IMAGE_WIDTH = 72
RESULT_WIDTH = 64
TOP_RESULTS = 10
RESULT_STEP = RESULT_WIDTH + 2 * FRAME + GAP // 2
SHEET_IMAGES = 4
TEXT_HEIGHT = 120  # minimum height for captions, if the images beside them are lower


@dataclass(frozen=True)
class SheetRow:
    """One identity: some of its images and their captions."""

    images: list[Pixels]
    title: str
    captions: list[str]


@dataclass(frozen=True)
class RetrievalRow:
    """One query: its text, the image it was written for, and its ranked results as (image, score, right).

    A free query was not written for an image: `truth`, `rank` and every `right` are None.
    """

    caption: str
    truth: Pixels | None
    results: Sequence[tuple[Pixels, float, bool | None]]
    rank: int | None  # of the first right result, from 1


def contact_sheet(path: Path, rows: list[SheetRow]) -> None:
    """Write a sheet of identities in two columns, each with up to four images and the captions beside them."""
    assert min((len(row.images) for row in rows), default=0) > 0, "a contact sheet needs identities with images"
    size = fitted(rows[0].images[0], SHEET_IMAGE_WIDTH)
    cell_height = load_face(16, bold=True).line_height + 6 + max(size[1], TEXT_HEIGHT) + MARGIN
    cell_width = (WIDTH - 3 * MARGIN) // 2
    canvas = Canvas(MARGIN + (len(rows) + 1) // 2 * cell_height)
    for index, row in enumerate(rows):
        corner = (MARGIN + index % 2 * (cell_width + MARGIN), MARGIN + index // 2 * cell_height)
        _identity(canvas, corner, cell_width, row, size)
    save_png(path, canvas.picture, COLOURS)


def _identity(canvas: Canvas, corner: tuple[int, int], width: int, row: SheetRow, size: tuple[int, int]) -> None:
    """Draw one cell of the contact sheet, `width` wide, with images of `size`; captions that do not fit are omitted."""
    (left, top), title, face = corner, load_face(16, bold=True), load_face(14)
    y = canvas.text((left, top), title.wrap(row.title, width, 1), title, INK) + 6
    for index, pixels in enumerate(row.images[:SHEET_IMAGES]):
        canvas.image((left + index * (size[0] + GAP), y), pixels, size)
    x = left + SHEET_IMAGES * (size[0] + GAP) + GAP
    end = y + max(size[1], TEXT_HEIGHT)
    max_lines = (end - y) // face.line_height
    for index, caption in enumerate(row.captions):
        lines = face.wrap(caption, left + width - x, max_lines)
        if index == 0 or y + len(lines) * face.line_height <= end:
            y = canvas.text((x, y), lines, face, INK) + GAP


def retrieval_sheet(path: Path, title: str, rows: list[RetrievalRow]) -> None:
    """Write queries with the image each was written for, and their top ten results, marked right or wrong.

    Free queries have no such image and no marks; they cannot share a sheet with other queries.
    """
    assert min((len(row.results) for row in rows), default=0) > 0, "a retrieval sheet needs queries with results"
    judged = rows[0].truth is not None
    assert all((row.truth is not None) == judged for row in rows), "free queries cannot share a sheet with others"
    size = fitted(rows[0].results[0][0], RESULT_WIDTH)
    heading, small = load_face(22, bold=True), load_face(13)
    top = MARGIN + heading.line_height + 12 + small.line_height + 12
    row_height = max(size[1], TEXT_HEIGHT) + 58
    canvas = Canvas(top + len(rows) * row_height + MARGIN // 2)
    canvas.text((MARGIN, MARGIN), heading.wrap(title, WIDTH - 2 * MARGIN, 1), heading, INK)
    _column_names(canvas, top - 12 - small.line_height, small, judged)
    for index, row in enumerate(rows):
        _query(canvas, top + index * row_height, row, size)
    save_png(path, canvas.picture, COLOURS)


def _result_x(index: int) -> int:
    """Left edge of result `index`, counted from 0; the columns end at the right margin."""
    return WIDTH - MARGIN - FRAME - RESULT_WIDTH - (TOP_RESULTS - 1 - index) * RESULT_STEP


def _truth_x() -> int:
    return _result_x(0) - RESULT_WIDTH - 28


def _column_names(canvas: Canvas, y: int, face: Face, judged: bool) -> None:
    canvas.text((MARGIN, y), ["query"], face, MUTED)
    if judged:
        canvas.text((_truth_x() + RESULT_WIDTH // 2, y), ["its image"], face, MUTED, "ma")
    for index in range(TOP_RESULTS):
        name = "rank 1" if index == 0 else str(index + 1)
        canvas.text((_result_x(index) + RESULT_WIDTH // 2, y), [name], face, MUTED, "ma")


def _query(canvas: Canvas, top: int, row: RetrievalRow, size: tuple[int, int]) -> None:
    """Draw one row of the retrieval sheet, from `top` downwards."""
    canvas.draw.line((MARGIN, top, WIDTH - MARGIN, top), fill=RULE, width=1)
    y = top + 16
    text, small = load_face(15), load_face(14)
    max_lines = (max(size[1], TEXT_HEIGHT) - 30) // text.line_height
    text_end = _result_x(0) if row.truth is None else _truth_x()
    lines = text.wrap(row.caption, text_end - MARGIN - 20, max_lines)
    below = canvas.text((MARGIN, y), lines, text, INK)
    if row.truth is not None:
        verdict = f"first right at rank {row.rank}"
        canvas.text((MARGIN, below + 8), [verdict], small, RIGHT if row.rank == 1 else MUTED)
        canvas.image((_truth_x(), y), row.truth, size)
    for index, (pixels, score, right) in enumerate(row.results[:TOP_RESULTS]):
        x = _result_x(index)
        canvas.image((x, y), pixels, size)
        below = y + size[1] + FRAME + 6
        if right is None:
            canvas.text((x + RESULT_WIDTH // 2, below), [f"{score:.3f}"], small, INK, "ma")
            continue
        canvas.frame((x, y), size, right)
        canvas.mark((x, below - 1), right)
        canvas.text((x + MARK + 6, below), [f"{score:.3f}"], small, INK)
