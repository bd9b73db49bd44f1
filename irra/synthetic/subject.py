"""The context that drawing functions share: one person in one pose, seen by one camera, on one canvas."""

import random
from dataclasses import dataclass

from irra.synthetic.attributes import COLOURS, HAIRS, SKINS, Person, Rgb
from irra.synthetic.body import Pose, Shape, Skeleton
from irra.synthetic.canvas import Canvas, Point, Vector, View
from irra.synthetic.solids import Lathe, Limb, Ring

PARTS = (
    "occluder",
    "skin",
    "arm",
    "face",
    "scalp",
    "hair",
    "style",
    "beard",
    "eyewear",
    "hat",
    "scarf",
    "upper",
    "sleeve",
    "pattern",
    "inner",
    "lower",
    "leg",
    "shoes",
    "bag",
    "straps",
    "held",
    "trim",
)
PART = {name: number for number, name in enumerate(PARTS, 1)}


@dataclass(frozen=True)
class Subject:
    """A person in a pose in front of a camera, and the colours that they are painted with."""

    canvas: Canvas
    view: View
    person: Person
    shape: Shape
    pose: Pose
    skeleton: Skeleton
    paint: dict[str, Rgb]

    def lathe(self, rings: list[Ring], part: str, smooth: bool = True) -> Lathe:
        """Create a solid of rings, which the caller fills."""
        return Lathe(self.canvas, self.view, rings, PART[part], smooth)

    def limb(self, start: Vector, end: Vector, radii: Point, part: str) -> Limb:
        """Create a segment between two body points, which the caller fills."""
        return Limb(self.canvas, self.view, start, end, radii, PART[part])

    def box(self, centre: Vector, half: Vector, part: str) -> Lathe:
        """Create a box with rounded edges around `centre`; `half` is its half width, half height and half depth."""
        (x, y, z), (a, h, b) = centre, half
        profile = ((1.0, 0.55), (0.93, 0.9), (0.7, 1.0), (-0.75, 1.04), (-0.95, 0.95), (-1.0, 0.75))
        return self.lathe([Ring(y + t * h, a * k, b * k, x, z) for t, k in profile], part, smooth=False)

    def wire(self, points: list[Vector], colour: Rgb, part: str, width: float) -> None:
        """Draw a line through body points; `width` is in body heights."""
        self.canvas.line([self.view.project(p) for p in points], colour, PART[part], width * self.view.scale)


def paints(person: Person, variation: int) -> dict[str, Rgb]:
    """Colours of one identity by slot: the named ones with small deviations, the same in all its pictures."""
    rng = random.Random(f"paint/{variation}")
    named: dict[str, Rgb] = {
        "skin": SKINS[person.skin],
        "hair": HAIRS.get(person.hair.colour, SKINS[person.skin]),
        "logo": COLOURS.get(person.upper.second, (0, 0, 0)),
    }
    for slot in ("upper", "inner", "lower", "shoes", "bag", "hat", "scarf", "held"):
        named[slot] = COLOURS.get(getattr(person, slot).colour, (60, 60, 64))
    named["second"] = named["logo"]
    return {slot: _vary(colour, rng) for slot, colour in named.items()}


def _vary(colour: Rgb, rng: random.Random) -> Rgb:
    gain = rng.uniform(0.93, 1.05)
    red, green, blue = (max(0, min(255, round(c * gain + rng.uniform(-5, 5)))) for c in colour)
    return red, green, blue


def mix(one: Rgb, two: Rgb, share: float) -> Rgb:
    """Interpolate between `one` (share 0) and `two` (share 1)."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, two, strict=True))
    return red, green, blue


def darker(colour: Rgb, share: float = 0.3) -> Rgb:
    """The colour mixed with black."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Rgb, share: float = 0.3) -> Rgb:
    """The colour mixed with white."""
    return mix(colour, (255, 255, 255), share)
