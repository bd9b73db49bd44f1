"""A white sheet for images and text."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from components.figures.style import INK, MUTED, RIGHT, RULE, WHITE, WRONG, Colour
from components.figures.text import Face

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)

WIDTH = 1200
MARGIN = 28
GAP = 8
FRAME = 4
THIN_FRAME = 2  # around wrong results, so that the right ones stand out
MARK = 18
COLOURS = (WHITE, INK, MUTED, RULE, RIGHT, WRONG)


class Canvas:
    """A white sheet with pixel coordinates."""

    def __init__(self, height: int) -> None:
        self.picture = Image.new("RGB", (WIDTH, height), WHITE)
        self.draw = ImageDraw.Draw(self.picture)

    def text(self, at: tuple[int, int], lines: list[str], face: Face, colour: Colour, anchor: str = "la") -> int:
        """Write `lines` downwards from the point `at`, and return the y below them."""
        x, y = at
        for line in lines:
            self.draw.text((x, y), line, font=face.font, fill=colour, anchor=anchor)
            y += face.line_height
        return y

    def image(self, at: tuple[int, int], pixels: Pixels, size: tuple[int, int]) -> None:
        """Paste an image, resized to `size` (width, height), with its top left corner at `at`."""
        assert pixels.dtype == np.uint8, f"images are uint8, not {pixels.dtype}"
        assert pixels.shape[2:] == (3,), f"images are (H, W, 3), not {pixels.shape}"
        self.picture.paste(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), at)

    def frame(self, at: tuple[int, int], size: tuple[int, int], right: bool) -> None:
        """Draw a frame around the image of `size` at `at`, without covering it."""
        (x, y), width = at, FRAME if right else THIN_FRAME
        box = (x - width, y - width, x + size[0] + width - 1, y + size[1] + width - 1)
        self.draw.rectangle(box, outline=RIGHT if right else WRONG, width=width)

    def mark(self, at: tuple[int, int], right: bool) -> None:
        """Draw a check or a cross on a disc, MARK pixels wide, as lines, since a font may lack these characters."""
        scale = 8
        disc = Image.new("RGBA", (MARK * scale, MARK * scale))
        draw = ImageDraw.Draw(disc)
        draw.ellipse((0, 0, MARK * scale - 1, MARK * scale - 1), fill=RIGHT if right else WRONG)
        check = [[(0.27, 0.53), (0.44, 0.69), (0.74, 0.34)]]
        cross = [[(0.32, 0.32), (0.68, 0.68)], [(0.32, 0.68), (0.68, 0.32)]]
        for stroke in check if right else cross:
            points = [(x * MARK * scale, y * MARK * scale) for x, y in stroke]
            draw.line(points, fill=WHITE, width=round(0.13 * MARK * scale), joint="curve")
        disc = disc.resize((MARK, MARK), Image.Resampling.LANCZOS)
        self.picture.paste(disc, at, disc)


def fitted(pixels: Pixels, width: int) -> tuple[int, int]:
    """Size (width, height) of an image scaled to `width`."""
    return width, round(width * int(pixels.shape[0]) / int(pixels.shape[1]))
