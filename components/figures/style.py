"""What all pictures and tables share: names, the palette, and how a PNG is saved."""

from pathlib import Path

import numpy as np
from PIL import Image

from irra.utils.files import replace_file

Colour = tuple[int, int, int]

WAYS = {"t2i": "text → image", "i2t": "image → text"}  # of retrieval

WHITE: Colour = (255, 255, 255)
INK: Colour = (31, 36, 48)
MUTED: Colour = (105, 113, 128)
RULE: Colour = (224, 228, 234)
RIGHT: Colour = (20, 134, 92)
WRONG: Colour = (200, 58, 48)
# Told apart by colour-blind readers too; in charts every line is labelled besides.
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
    """`colour` as matplotlib reads it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def save_png(path: Path, picture: Image.Image, keep: tuple[Colour, ...]) -> None:
    """Save `picture` (RGB) with 256 colours, those of `keep` exact, and no metadata: equal pictures are equal bytes.

    A palette makes the file three times smaller; dithering would undo that and put grain on flat areas.
    """
    with replace_file(path) as temporary:
        _with_palette(picture, keep).save(temporary, format="PNG", optimize=True)


def _with_palette(picture: Image.Image, keep: tuple[Colour, ...]) -> Image.Image:
    # every few pixels are enough to choose colours by, and k-means on all of them takes twenty seconds
    sample = picture.resize(SAMPLE_SIZE, Image.Resampling.NEAREST)
    chosen = sample.quantize(256 - len(keep), Image.Quantize.MAXCOVERAGE, kmeans=3).getpalette() or []
    first_kept = len(chosen) // 3
    holder = Image.new("P", (1, 1))
    holder.putpalette(chosen + [channel for colour in keep for channel in colour])
    indexed = picture.quantize(palette=holder, dither=Image.Dither.NONE)
    # Pillow looks colours up by their six upper bits: near, but white must be white
    place_values = np.array((1 << 16, 1 << 8, 1), np.uint32)
    codes, indices = np.asarray(picture).astype(np.uint32) @ place_values, np.array(indexed)
    for index, colour in enumerate(keep, first_kept):
        indices[codes == np.dot(colour, place_values)] = index
    exact = Image.fromarray(indices)
    exact.putpalette(indexed.getpalette() or [])
    return exact
