"""The two solids that everything is made of: a lathe of elliptic rings, and a tapering limb."""

import math
from itertools import pairwise
from typing import NamedTuple

from irra.synthetic.attributes import Rgb
from irra.synthetic.canvas import NEUTRAL, Canvas, Point, Vector, View


class Ring(NamedTuple):
    """A horizontal elliptic section of a solid: height, half width, half depth, and the centre's x and z."""

    y: float
    a: float
    b: float
    x: float = 0.0
    z: float = 0.0


class Row(NamedTuple):
    """A ring on the canvas: its height, centre, half width, and how far its near edge bends down."""

    y: float
    u: float
    v: float
    across: float
    toward: float


class Lathe:
    """A solid given by rings from top to bottom: torso, head, skirt, bag, hat."""

    def __init__(self, canvas: Canvas, view: View, rings: list[Ring], part: int, smooth: bool = True) -> None:
        self.canvas, self.view, self.part = canvas, view, part
        self.rows = [self._row(ring) for ring in (_smooth(rings) if smooth else rings)]
        self.top, self.bottom = rings[0].y, rings[-1].y

    def _row(self, ring: Ring) -> Row:
        u, v = self.view.project((ring.x, ring.y, ring.z))
        cos, sin, _, sin_pitch = self.view.axes
        across = math.hypot(ring.a * cos, ring.b * sin) * self.view.scale
        toward = math.hypot(ring.a * sin, ring.b * cos) * self.view.scale * sin_pitch
        return Row(ring.y, u, v, across, toward)

    def _at(self, y: float) -> Row:
        rows = self.rows
        for upper, lower in pairwise(rows):
            if lower[0] <= y <= upper[0]:
                t = (upper[0] - y) / ((upper[0] - lower[0]) or 1.0)
                _, u, v, across, toward = upper
                return Row(
                    y,
                    u + (lower[1] - u) * t,
                    v + (lower[2] - v) * t,
                    across + (lower[3] - across) * t,
                    toward + (lower[4] - toward) * t,
                )
        return rows[0] if y > rows[0][0] else rows[-1]

    def fill(self, colour: Rgb, contrast: float = 1.0) -> None:
        """Draw the whole solid, shaded to look round."""
        self.canvas.polygon(self._outline(1.0, 0.0), colour, self.part, NEUTRAL - round(34 * contrast))
        self.canvas.tone(self._outline(0.74, 0.2), NEUTRAL)
        self.canvas.tone(self._outline(0.34, 0.42), NEUTRAL + round(12 * contrast))

    def _outline(self, widen: float, shift: float) -> list[Point]:
        shift *= self.canvas.light
        left = [(u + w * (shift - widen), v) for _, u, v, w, _ in self.rows]
        right = [(u + w * (shift + widen), v) for _, u, v, w, _ in self.rows]
        _, u, v, w, toward = self.rows[-1]
        arc = [(u + w * (shift + widen * s), v + toward * c) for s, c in FRONT_ARC]
        _, u, v, w, toward = self.rows[0]
        back = [(u + w * (shift - widen * s), v - toward * c) for s, c in FRONT_ARC]
        return left + arc + right[::-1] + back

    def point(self, y: float, azimuth: float) -> Point | None:
        """Canvas position of a surface point; azimuth 0 is the front, degrees to the left; None if hidden."""
        angle = math.radians(azimuth) + self.view.yaw
        return self._on(y, math.degrees(angle)) if math.cos(angle) > 0 else None

    def patch(
        self, top: float, bottom: float, span: Point, colour: Rgb, part: int | None = None, low: Point | None = None
    ) -> None:
        """Colour the surface between two heights, from the azimuths `span` at the top to `low` at the bottom.

        By default, `low` equals `span`. The part that faces away from the camera is left out.
        """
        yaw = math.degrees(self.view.yaw)
        start, end = _visible(span, yaw)
        low_start, low_end = _visible(low, yaw) if low else (start, end)
        if start >= end and low_start >= low_end:
            return
        middle = (top + bottom) / 2
        points = self._arc(top, start, max(start, end))
        points.append(self._on(middle, (max(start, end) + max(low_start, low_end)) / 2))
        points += self._arc(bottom, low_start, max(low_start, low_end))[::-1]
        points.append(self._on(middle, (start + low_start) / 2))
        self.canvas.polygon(points, colour, self.part if part is None else part)

    def band(self, top: float, bottom: float, colour: Rgb, part: int | None = None) -> None:
        """Colour the whole visible surface between two heights."""
        yaw = math.degrees(self.view.yaw)
        self.patch(top, bottom, (-90.0 - yaw, 90.0 - yaw), colour, part)

    def _arc(self, y: float, start: float, end: float) -> list[Point]:
        row = self._at(y)
        steps = max(1, int((end - start) / 30))
        return [_on_row(row, start + (end - start) * i / steps) for i in range(steps + 1)]

    def _on(self, y: float, angle: float) -> Point:
        return _on_row(self._at(y), angle)


def _on_row(row: Row, angle: float) -> Point:
    _, u, v, across, toward = row
    turn = math.radians(angle)
    return u + across * math.sin(turn), v + toward * math.cos(turn)


FRONT_ARC = [(math.sin(math.radians(angle)), math.cos(math.radians(angle))) for angle in range(-60, 61, 30)]


def _visible(span: Point, yaw: float) -> Point:
    """The part of an azimuth interval facing the camera, in angles from the line of sight; empty if start >= end."""
    left, right = span
    middle = (left + right) / 2 + yaw
    turn = middle - (middle + 180) % 360 + 180
    return min(max(left + yaw - turn, -90.0), 90.0), max(min(right + yaw - turn, 90.0), -90.0)


def _smooth(rings: list[Ring]) -> list[Ring]:
    """Cut the corners of a profile once (Chaikin), keeping its ends."""
    result = [rings[0]]
    for one, two in pairwise(rings):
        result += [Ring(*(p + (q - p) * t for p, q in zip(one, two, strict=True))) for t in (0.25, 0.75)]
    return [*result, rings[-1]]


class Limb:
    """A tapering rounded segment between two body points: arm, leg, foot."""

    def __init__(self, canvas: Canvas, view: View, start: Vector, end: Vector, radii: Point, part: int) -> None:
        self.canvas, self.part = canvas, part
        self.start, self.end = view.project(start), view.project(end)
        self.radii = radii[0] * view.scale, radii[1] * view.scale
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        length = math.hypot(dx, dy) or 1.0
        self.normal = -dy / length, dx / length
        if self.normal[0] * canvas.light < 0:  # make it point to the light
            self.normal = -self.normal[0], -self.normal[1]

    def fill(self, colour: Rgb, hem: bool = False) -> None:
        """Draw the whole segment, shaded as a cylinder; with `hem`, its end is cut off instead of rounded."""
        self.canvas.circle(self.start, self.radii[0], colour, self.part, NEUTRAL - 8)
        if not hem:
            self.canvas.circle(self.end, self.radii[1], colour, self.part, NEUTRAL - 8)
        self.canvas.polygon(self._quad(0.0, 1.0, -1.0, 1.0), colour, self.part, NEUTRAL - 34)
        self.canvas.tone(self._quad(0.0, 1.0, -0.4, 0.9), NEUTRAL)
        self.canvas.tone(self._quad(0.0, 1.0, 0.2, 0.7), NEUTRAL + 10)

    def tone(self, start: float, end: float, shade: int, low: float = -1.0, high: float = 1.0) -> None:
        """Shade the surface between two fractions of the length (0..1) and of the width (-1..1)."""
        self.canvas.tone(self._quad(start, end, low, high), shade)

    def band(self, start: float, end: float, colour: Rgb, low: float = -1.0, high: float = 1.0) -> None:
        """Colour the surface between two fractions of the length (0..1) and of the width (-1..1)."""
        self.canvas.polygon(self._quad(start, end, low, high), colour, self.part)

    def at(self, along: float, across: float = 0.0) -> Point:
        """Canvas position at a fraction of the length (0..1) and of the radius (-1..1)."""
        radius = (self.radii[0] + (self.radii[1] - self.radii[0]) * along) * across
        return (
            self.start[0] + (self.end[0] - self.start[0]) * along + self.normal[0] * radius,
            self.start[1] + (self.end[1] - self.start[1]) * along + self.normal[1] * radius,
        )

    def _quad(self, start: float, end: float, low: float, high: float) -> list[Point]:
        return [self.at(start, low), self.at(end, low), self.at(end, high), self.at(start, high)]
