"""Drawing arms with sleeves, legs in trousers or under skirts, and shoes."""

from irra.synthetic.attributes import Rgb
from irra.synthetic.body import HIP
from irra.synthetic.canvas import Vector
from irra.synthetic.solids import Limb, Ring
from irra.synthetic.subject import PART, Subject, darker, lighter
from irra.synthetic.wardrobe import FITS

SLEEVE_END = {"none": 0.0, "short": 0.75, "long": 2.0}  # in bones from the shoulder
LEG_CUTS = {  # distance from the thigh, radius at the ankle, end in bones from the hip
    "trousers": (0.008, 0.036, 1.97),
    "jeans": (0.004, 0.03, 1.95),
    "leggings": (0.0, 0.023, 1.9),
    "shorts": (0.015, 0.0, 0.85),
}
SKIRT_HEMS = {"skirt": (0.32, 0.2), "long skirt": (0.09, 0.12)}  # hem height, flare


def between(start: Vector, end: Vector, share: float) -> Vector:
    """The point at a fraction `share` of the way from `start` to `end`."""
    x, y, z = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return x, y, z


def draw_arm(subject: Subject, side: int) -> None:
    """Draw the hand, forearm, upper arm and sleeve of one side."""
    person, paint, girth = subject.person, subject.paint, subject.shape.limb
    shoulder, elbow, wrist, hand = subject.skeleton.arms[side]
    skin, layered = paint["skin"], person.upper.kind == "vest"
    subject.limb(wrist, hand, (0.017 * girth, 0.02 * girth), "arm").fill(skin)
    subject.limb(elbow, wrist, (0.024 * girth, 0.018 * girth), "arm").fill(skin)
    subject.limb(shoulder, elbow, (0.029 * girth, 0.024 * girth), "arm").fill(skin)
    end = 0.75 if layered else SLEEVE_END[person.sleeves]
    if not end:
        return
    colour, part = (paint["inner"], "inner") if layered else (paint["upper"], "sleeve")
    ease = FITS[person.upper.kind].ease * 0.6 + 0.003
    if end > 1:
        lower = subject.limb(elbow, between(elbow, wrist, 0.97), (0.026 * girth + ease, 0.021 * girth + ease), part)
        lower.fill(colour, hem=True)
        _decorate(subject, lower, colour)
        lower.band(0.9, 1.0, darker(colour, 0.2))
    upper = subject.limb(
        shoulder, between(shoulder, elbow, min(end, 1.0)), (0.031 * girth + ease, 0.026 * girth + ease), part
    )
    upper.fill(colour, hem=end < 1)
    _decorate(subject, upper, colour)
    subject.canvas.fold(upper.at(0.95, -0.8), upper.at(0.7, 0.3), 0.006 * subject.view.scale, 100)


def _decorate(subject: Subject, sleeve: Limb, colour: Rgb) -> None:
    pattern, second = subject.person.upper.pattern, subject.paint["second"]
    if subject.person.upper.kind == "down jacket":
        for step in range(4):
            sleeve.band(0.12 + 0.25 * step, 0.16 + 0.25 * step, darker(colour, 0.4))
    if pattern in ("striped", "checked"):
        wide = 0.13 if pattern == "striped" else 0.08
        for step in range(4):
            sleeve.band(0.08 + 0.26 * step, 0.08 + wide + 0.26 * step, second)
    if pattern == "checked":
        sleeve.band(0.0, 1.0, second, -0.2, 0.15)
    if pattern == "dotted":
        for step in range(4):
            spot = sleeve.at(0.15 + 0.24 * step, -0.4 if step % 2 else 0.3)
            subject.canvas.circle(spot, 0.0085 * subject.view.scale, second, PART["pattern"])


def draw_leg(subject: Subject, side: int) -> None:
    """Draw the shoe, shin and thigh of one side, with what is worn on them."""
    person, paint, girth = subject.person, subject.paint, subject.shape.limb
    leg = subject.skeleton.legs[side]
    cut = LEG_CUTS.get(person.lower.kind)
    draw_shoe(subject, side)
    if cut is None or person.lower.kind == "shorts":
        subject.limb(leg.knee, leg.ankle, (0.033 * girth, 0.021 * girth), "leg").fill(paint["skin"])
        subject.limb(leg.hip, leg.knee, (0.05 * girth, 0.034 * girth), "leg").fill(paint["skin"])
    if person.shoes.kind == "boots" and (cut is None or cut[2] < 1.94):
        shaft = subject.limb(between(leg.knee, leg.ankle, 0.45), leg.ankle, (0.035 * girth, 0.027 * girth), "shoes")
        shaft.fill(paint["shoes"])
    if cut is None:
        return
    ease, end_radius, end = cut
    if end > 1:
        below = subject.limb(
            leg.knee, between(leg.knee, leg.ankle, end - 1), (0.035 * girth + ease, end_radius), "lower"
        )
        below.fill(paint["lower"], hem=True)
    knee = between(leg.hip, leg.knee, min(end, 1.0))
    above = subject.limb(leg.hip, knee, (0.052 * girth + ease, 0.036 * girth + ease), "lower")
    above.fill(paint["lower"], hem=end < 1)
    if person.lower.kind == "jeans":
        above.tone(0.15, 1.0, 156, -0.3, 0.5)
        below.tone(0.0, 0.5, 150, -0.3, 0.5)
        below.band(0.94, 1.0, lighter(paint["lower"], 0.3))
    for _ in range(2):
        along = subject.canvas.rng.uniform(0.75, 1.0)
        subject.canvas.fold(above.at(along, -0.9), above.at(along - 0.12, 0.3), 0.006 * subject.view.scale, 102)


def draw_shoe(subject: Subject, side: int) -> None:
    """Draw one foot with its shoe."""
    kind, colour, skin = subject.person.shoes.kind, subject.paint["shoes"], subject.paint["skin"]
    leg = subject.skeleton.legs[side]
    heel, toe = leg.heel, leg.toe
    sole = (0.0, -0.007, 0.0)
    low_heel, low_toe = ((p[0], p[1] + sole[1], p[2]) for p in (heel, toe))
    tint = {"sneakers": (228, 228, 224), "sandals": (84, 62, 44)}.get(kind, darker(colour, 0.5))
    subject.limb(low_heel, low_toe, (0.02, 0.018), "shoes").fill(tint)
    if kind in ("sandals", "high heels"):
        foot = subject.limb(heel, toe, (0.02, 0.016), "leg")
        foot.fill(skin)
        foot.band(0.0, 0.28, colour)
        foot.band(0.5, 1.0 if kind == "high heels" else 0.78, colour)
        subject.canvas.circle(foot.start, foot.radii[0], colour, PART["shoes"])
        if kind == "high heels":
            subject.canvas.circle(foot.end, foot.radii[1], colour, PART["shoes"])
            subject.wire([heel, (heel[0], heel[1] - 0.022, heel[2] - 0.006)], colour, "shoes", 0.012)
        return
    top = between(leg.heel, leg.ankle, 1.3)
    subject.limb(top, between(heel, toe, 0.3), (0.024, 0.024), "shoes").fill(colour)
    foot = subject.limb(heel, toe, (0.023, 0.02), "shoes")
    foot.fill(colour)
    if kind == "sneakers":
        foot.band(0.35, 0.5, lighter(colour, 0.7) if sum(colour) < 500 else darker(colour, 0.25), -0.2, 1.0)


def draw_hips(subject: Subject) -> None:
    """Draw the seat of trousers, or a skirt."""
    kind, colour, shape = subject.person.lower.kind, subject.paint["lower"], subject.shape
    if kind in SKIRT_HEMS:
        hem, flare = SKIRT_HEMS[kind]
        rings = shape.trunk(0.008, top=0.63, hem=hem, flare=flare)
        last = rings[-1]
        reach = subject.pose.stride * (HIP - hem) * 0.75
        rings[-1] = Ring(last.y, last.a, max(last.b, 0.03 + reach), 0.0, last.z)
        skirt = subject.lathe(rings, "lower")
        skirt.fill(colour)
        for azimuth in range(-170, 180, 34):
            start, end = skirt.point(0.52, azimuth), skirt.point(hem, azimuth)
            if start and end:
                subject.canvas.fold(start, end, 0.009 * subject.view.scale, 100)
    elif kind != "none":
        subject.lathe(shape.trunk(0.006, top=0.63, hem=0.455), "lower").fill(colour)
