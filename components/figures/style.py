"""Names, colours and PNG output shared by all pictures and tables."""

from pathlib import Path

import numpy as np
from PIL import Image

from irra.utils.files import replace_file

Colour = tuple[int, int, int]

DIRECTIONS = {"t2i": "text → image", "i2t": "image → text"}  # of retrieval

WHITE: Colour = (255, 255, 255)
INK: Colour = (31, 36, 48)
MUTED: Colour = (105, 113, 128)
RULE: Colour = (224, 228, 234)
RIGHT: Colour = (20, 134, 92)
WRONG: Colour = (200, 58, 48)
# Colour-blind readers can tell these apart; in charts, every line has a label too.
SERIES: tuple[Colour, ...] = (
    (31, 95, 168),
    (217, 106, 20),
    (20, 134, 92),
    (140, 78, 160),
    (184, 134, 11),
    (90, 98, 112),
)
SAMPLE_SIZE = (200, 200)


def hex_colour(colour: Colour) -> str:
    """Format `colour` for matplotlib."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def save_png(path: Path, picture: Image.Image, keep: tuple[Colour, ...]) -> None:
    """Save `picture` (RGB) with 256 colours and without metadata, so that equal pictures give equal bytes.

    The colours in `keep` are exact. A palette makes the file three times smaller; dithering would undo that and make
    flat areas grainy.
    """
    with replace_file(path) as temporary:
        _with_palette(picture, keep).save(temporary, format="PNG", optimize=True)


def _with_palette(picture: Image.Image, keep: tuple[Colour, ...]) -> Image.Image:
    # a sample of the pixels is enough to choose colours; k-means on all of them takes twenty seconds
    sample = picture.resize(SAMPLE_SIZE, Image.Resampling.NEAREST)
    chosen = sample.quantize(256 - len(keep), Image.Quantize.MAXCOVERAGE, kmeans=3).getpalette() or []
    first_kept = len(chosen) // 3
    holder = Image.new("P", (1, 1))
    holder.putpalette(chosen + [channel for colour in keep for channel in colour])
    indexed = picture.quantize(palette=holder, dither=Image.Dither.NONE)
    # Pillow looks colours up by their upper six bits, which is only approximate; `keep` must be exact
    place_values = np.array((1 << 16, 1 << 8, 1), np.uint32)
    codes, indices = np.asarray(picture).astype(np.uint32) @ place_values, np.array(indexed)
    for index, colour in enumerate(keep, first_kept):
        indices[codes == np.dot(colour, place_values)] = index
    exact = Image.fromarray(indices)
    exact.putpalette(indexed.getpalette() or [])
    return exact
