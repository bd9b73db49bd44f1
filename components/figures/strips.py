"""Sheets of images with text as HTML, in which text keeps its size and images move to the next line in a narrow frame.

What `components.figures.sheets` draws as pictures.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from components.figures.canvas import Pixels, fitted
from components.figures.sheets import SHEET_IMAGES, TOP_RESULTS, RetrievalRow, SheetRow

STORED_WIDTH = 128  # pixels: twice as wide as shown, for fine screens
JPEG_QUALITY = 85


class Pair(NamedTuple):
    """An image beside its caption, with a remark below that."""

    pixels: Pixels
    caption: str
    remark: str


def pairs(title: str, about: str, rows: Sequence[Pair]) -> str:
    """Format captions, each beside its image; `about` says in a sentence which these are."""
    cells = []
    for row in rows:
        image = _figure(row.pixels, "the image of the caption", "")
        texts = f'<p>{html.escape(row.caption)}</p><p class="verdict">{html.escape(row.remark)}</p>'
        cells.append(f'<section class="pair">{image}<div>{texts}</div></section>')
    head = f"<h3>{html.escape(title)}</h3><p><small>{html.escape(about)}</small></p>"
    return f'{head}<div class="people">{"".join(cells)}</div>'


def people(rows: Sequence[SheetRow]) -> str:
    """Format identities, each with up to four images and their captions."""
    cells = []
    for row in rows:
        images = "".join(_figure(pixels, row.title, "") for pixels in row.images[:SHEET_IMAGES])
        captions = "".join(f"<p>{html.escape(caption)}</p>" for caption in dict.fromkeys(row.captions))
        cells.append(f'<section><h3>{html.escape(row.title)}</h3><div class="strip">{images}</div>{captions}</section>')
    return f'<div class="people">{"".join(cells)}</div>'


def queries(title: str, rows: Sequence[RetrievalRow]) -> str:
    """Format queries that were written for an image, each with that image and its top ten results."""
    return f"<h3>{html.escape(title)}</h3>" + "".join(map(_query, rows))


def _query(row: RetrievalRow) -> str:
    assert row.truth is not None, "the query was written for no image"
    images = [_figure(row.truth, "the image of the query", "its image")]
    for rank, (pixels, score, right) in enumerate(row.results[:TOP_RESULTS], 1):
        verdict, mark = ("right", "✓") if right else ("wrong", "✗")
        images.append(_figure(pixels, f"rank {rank}, {verdict}", f"{mark}\N{NO-BREAK SPACE}{score:.3f}", verdict))
    verdict = f'<p class="verdict{" right" if row.rank == 1 else ""}">first right at rank {row.rank}</p>'
    strip = f'<div class="strip">{"".join(images)}</div>'
    return f'<section class="query"><p>{html.escape(row.caption)}</p>{verdict}{strip}</section>'


def _figure(pixels: Pixels, name: str, caption: str, kind: str = "") -> str:
    image = f'<img alt="{html.escape(name)}" src="data:image/jpeg;base64,{_jpeg(pixels)}">'
    return f'<figure class="{kind}">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'


def _jpeg(pixels: Pixels) -> str:
    size = fitted(pixels, min(STORED_WIDTH, pixels.shape[1]))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode()
