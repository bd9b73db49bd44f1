"""Bags and things held in a hand."""

from irra.synthetic.body import HAND_OF
from irra.synthetic.canvas import Point, Vector
from irra.synthetic.solids import Ring
from irra.synthetic.subject import Subject, darker, lighter, mix

BACKPACK_OFF, HIP_OFF = 0.052, 0.045


def bag_centre(subject: Subject) -> Vector:
    """Position of the bag, which decides what it covers."""
    kind, shape, skeleton = subject.person.bag.kind, subject.shape, subject.skeleton
    x, y, z = skeleton.arms[1][3]
    return {
        "backpack": (0.0, 0.69, -(shape.depth + BACKPACK_OFF)),
        "shoulder bag": (-(shape.hip + HIP_OFF), 0.5, -0.01),
        "handbag": (x, y - 0.125, z),
        "plastic bag": (x, y - 0.12, z),
        "suitcase": (x + 0.01, skeleton.ground + 0.15, z - 0.07),
    }[kind]


def draw_bag(subject: Subject) -> None:
    """Draw the bag itself; `draw_straps` draws the straps on the trunk."""
    {
        "backpack": _backpack,
        "shoulder bag": _shoulder_bag,
        "handbag": _handbag,
        "plastic bag": _plastic_bag,
        "suitcase": _suitcase,
    }[subject.person.bag.kind](subject, bag_centre(subject))


def _backpack(subject: Subject, centre: Vector) -> None:
    colour = subject.paint["bag"]
    pack = subject.box(centre, (subject.shape.shoulder * 0.82, 0.13, 0.055), "bag")
    pack.fill(colour)
    pack.patch(0.69, 0.58, (140, 220), darker(colour, 0.18))
    pack.patch(0.69, 0.682, (140, 220), lighter(colour, 0.25))
    pack.patch(0.775, 0.767, (120, 240), darker(colour, 0.4))


def _shoulder_bag(subject: Subject, centre: Vector) -> None:
    colour = subject.paint["bag"]
    bag = subject.box(centre, (0.035, 0.058, 0.078), "bag")
    bag.fill(colour)
    bag.band(0.548, 0.505, darker(colour, 0.15))
    bag.patch(0.51, 0.496, (-100, -80), (206, 186, 120))


def _handbag(subject: Subject, centre: Vector) -> None:
    colour, (x, y, z) = subject.paint["bag"], centre
    for offset in (-0.03, 0.03):
        subject.wire(
            [(x, y + 0.05, z + offset), (x, y + 0.11, z + offset * 0.5), (x, y + 0.125, z)],
            darker(colour, 0.25),
            "bag",
            0.011,
        )
    bag = subject.box(centre, (0.034, 0.056, 0.082), "bag")
    bag.fill(colour)
    bag.band(y + 0.046, y + 0.03, darker(colour, 0.25))


def _plastic_bag(subject: Subject, centre: Vector) -> None:
    colour, (x, y, z) = subject.paint["bag"], centre
    profile = (
        (0.12, 0.008, 0.008),
        (0.07, 0.02, 0.03),
        (0.02, 0.04, 0.055),
        (-0.05, 0.05, 0.065),
        (-0.085, 0.04, 0.052),
    )
    bag = subject.lathe([Ring(y + dy, a, b, x, z) for dy, a, b in profile], "bag")
    bag.fill(colour)
    for azimuth in range(-150, 180, 50):
        start, end = bag.point(y + 0.08, azimuth), bag.point(y - 0.02, azimuth + 12)
        if start and end:
            subject.canvas.fold(start, end, 0.008 * subject.view.scale, 96)


def _suitcase(subject: Subject, centre: Vector) -> None:
    colour, (x, y, z) = subject.paint["bag"], centre
    hand = subject.skeleton.arms[1][3]
    for offset in (-0.025, 0.025):
        subject.wire([(hand[0], hand[1], hand[2]), (x + offset, y + 0.11, z)], (96, 98, 102), "trim", 0.009)
        subject.wire([(x + offset * 2, y - 0.12, z), (x + offset * 2, y - 0.145, z)], (24, 24, 26), "trim", 0.022)
    case = subject.box(centre, (0.085, 0.125, 0.05), "bag")
    case.fill(colour)
    for level in (0.07, 0.02, -0.03, -0.08):
        case.band(y + level, y + level - 0.01, darker(colour, 0.22))


def draw_straps(subject: Subject) -> None:
    """Draw the straps that lie on the trunk."""
    kind, colour = subject.person.bag.kind, darker(subject.paint["bag"], 0.2)
    if kind not in ("backpack", "shoulder bag"):
        return
    trunk = subject.lathe(subject.shape.trunk(0.024, 0.84, 0.47), "straps")
    if kind == "backpack":
        for azimuth in (-44, 44):
            trunk.patch(0.825, 0.63, _around(azimuth, 11), colour, low=_around(azimuth * 1.5, 11))
        return
    for start, sign in ((48, -1), (132, 1)):
        for step in range(8):
            azimuth = start + sign * step * 17
            trunk.patch(
                0.825 - 0.037 * step,
                0.825 - 0.037 * (step + 1),
                _around(azimuth, 7),
                colour,
                low=_around(azimuth + sign * 17, 7),
            )


def _around(azimuth: float, half: float) -> Point:
    return azimuth - half, azimuth + half


def draw_held(subject: Subject) -> None:
    """Draw a phone at the height of the ear, or an open umbrella."""
    kind = subject.person.held.kind
    x, y, z = subject.skeleton.arms[HAND_OF[kind]][3]
    if kind == "phone":
        subject.limb((x, y - 0.012, z + 0.012), (x, y + 0.036, z + 0.012), (0.015, 0.015), "held").fill((22, 22, 26))
        subject.limb((x, y, z + 0.022), (x, y + 0.026, z + 0.022), (0.009, 0.009), "held").fill((150, 190, 220))
        return
    colour = subject.paint["held"]
    subject.wire([(x, y - 0.03, z), (x * 0.6, 1.2, z * 0.6)], (70, 70, 74), "trim", 0.012)
    dome = ((1.235, 0.01), (1.225, 0.07), (1.19, 0.15), (1.135, 0.205), (1.085, 0.225))
    canopy = subject.lathe([Ring(top, r, r, x * 0.6, z * 0.6) for top, r in dome], "held")
    canopy.fill(colour)
    for azimuth in range(-180, 180, 45):
        start, end = canopy.point(1.225, azimuth), canopy.point(1.085, azimuth)
        if start and end:
            subject.canvas.line([start, end], mix(colour, (0, 0, 0), 0.3), canopy.part, 0.006 * subject.view.scale)
