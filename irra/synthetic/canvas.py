"""Camera and drawing surface, where every pixel has a colour, a shade and the number of the part that it shows."""

import math
import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from irra.synthetic.attributes import Rgb

Point = tuple[float, float]
Vector = tuple[float, float, float]  # x to the person's left, y up from the ground, z forward; in body heights

SUPERSAMPLING = 2
NEUTRAL = 128  # in the shading layer; a pixel is colour * shade / NEUTRAL


@dataclass(frozen=True)
class View:
    """Orthographic camera: yaw 0 sees the front, yaw 90 degrees a person walking right; pitch tilts it down."""

    yaw: float
    pitch: float
    scale: float  # canvas pixels per body height
    origin: Point  # canvas position of the ground below the body

    @cached_property
    def axes(self) -> tuple[float, float, float, float]:
        """Cosine and sine of yaw, cosine and sine of pitch."""
        return math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch), math.sin(self.pitch)

    def project(self, point: Vector) -> Point:
        """Canvas position of a body point."""
        x, y, z = point
        cos_yaw, sin_yaw, cos_pitch, sin_pitch = self.axes
        up = y * cos_pitch - (z * cos_yaw - x * sin_yaw) * sin_pitch
        return self.origin[0] + self.scale * (x * cos_yaw + z * sin_yaw), self.origin[1] - self.scale * up

    def depth(self, point: Vector) -> float:
        """How much closer to the camera a point is than the body's axis."""
        return point[2] * self.axes[0] - point[0] * self.axes[1]


class Canvas:
    """Colour, shade and part number of every pixel; where the part number is 0, nothing was drawn."""

    def __init__(self, width: int, height: int, light: float, rng: random.Random) -> None:
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.light = light  # -1: from the left, +1: from the right
        self.rng = rng
        self.size = size
        self._paint = Image.new("RGBA", size)  # the alpha channel holds the part number
        self._shade = Image.new("L", size, NEUTRAL)
        self._on_paint, self._on_shade = ImageDraw.Draw(self._paint), ImageDraw.Draw(self._shade)

    def polygon(self, points: list[Point], colour: Rgb, part: int, shade: int = NEUTRAL) -> None:
        """Fill a polygon on every layer."""
        self._on_paint.polygon(points, fill=(*colour, part))
        self._on_shade.polygon(points, fill=shade)

    def line(self, points: list[Point], colour: Rgb, part: int, width: float) -> None:
        """Draw a line of `width` canvas pixels on every layer."""
        thick = max(1, round(width))
        self._on_paint.line(points, fill=(*colour, part), width=thick, joint="curve")
        self._on_shade.line(points, fill=NEUTRAL, width=thick, joint="curve")

    def circle(self, centre: Point, radius: float, colour: Rgb, part: int, shade: int = NEUTRAL) -> None:
        """Fill a circle on every layer."""
        box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
        self._on_paint.ellipse(box, fill=(*colour, part))
        self._on_shade.ellipse(box, fill=shade)

    def tone(self, points: list[Point], shade: int) -> None:
        """Shade a polygon without changing its colour."""
        self._on_shade.polygon(points, fill=shade)

    def fold(self, start: Point, end: Point, width: float, shade: int) -> None:
        """Shade a line without changing its colour."""
        self._on_shade.line((start, end), fill=shade, width=max(1, round(width)))

    def part_sizes(self) -> list[int]:
        """Number of visible output pixels of each of the 256 part numbers."""
        return [count // SUPERSAMPLING**2 for count in self._paint.getchannel("A").histogram()]

    def flatten(self) -> tuple[np.ndarray, np.ndarray]:
        """Shaded colour (0..255, premultiplied by coverage) and coverage (0..1), both float32 (H, W, 3)."""
        colour = np.asarray(self._paint.convert("RGB").reduce(SUPERSAMPLING), dtype=np.float32)
        shade = _planes(self._shade.reduce(SUPERSAMPLING).filter(ImageFilter.BoxBlur(1.2)))
        falloff = np.linspace(1.06, 0.92, len(colour), dtype=np.float32)  # lamps and sky are above
        shade *= (falloff / NEUTRAL)[:, None, None]
        shade *= colour
        mask = self._paint.getchannel("A").point(COVERED).reduce(SUPERSAMPLING)
        return shade, _planes(mask) * np.float32(1 / 255)


def _planes(image: Image.Image) -> np.ndarray:
    """A grey image as float32 (H, W, 3): arithmetic on equal shapes is several times faster than broadcasting."""
    return np.asarray(Image.merge("RGB", (image, image, image)), dtype=np.float32)


COVERED = [0] + [255] * 255
