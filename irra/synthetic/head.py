"""Head, hair, hats, glasses and scarf."""

import dataclasses
import math

from irra.synthetic.canvas import View
from irra.synthetic.solids import Lathe, Ring
from irra.synthetic.subject import PART, Subject, darker, lighter

PROFILE = (  # position between chin (0) and crown (1), half width, half depth, offset forward
    (1.0, 0.014, 0.017, -0.006),
    (0.96, 0.033, 0.04, -0.006),
    (0.84, 0.0455, 0.055, -0.006),
    (0.62, 0.0485, 0.06, -0.004),
    (0.4, 0.0475, 0.056, 0.0),
    (0.2, 0.041, 0.046, 0.006),
    (0.06, 0.029, 0.032, 0.014),
    (0.0, 0.016, 0.018, 0.018),
)
CHIN, HEIGHT = 0.866, 0.136


def _at(share: float) -> float:
    """Height of a position between chin (0) and crown (1)."""
    return CHIN + HEIGHT * share


def _rings(grow: float, low: float = 0.0, rise: float = 0.0, back: float = 0.0) -> list[Ring]:
    """Rings of the head down to the position `low`, at a distance of `grow` from the skin."""
    return [
        Ring(_at(t) + (grow if t == 1.0 else 0.0) + rise, a + grow, b + grow, 0.0, z - back)
        for t, a, b, z in PROFILE
        if t >= low
    ]


def turned(subject: Subject) -> Subject:
    """The subject as seen by the camera if the whole body were turned like the head."""
    view = subject.view
    return dataclasses.replace(
        subject, view=View(view.yaw + subject.pose.head_turn, view.pitch, view.scale, view.origin)
    )


def draw_neck(subject: Subject) -> None:
    """Draw the neck, before everything that covers it."""
    subject.lathe([Ring(0.9, 0.03, 0.034), Ring(0.8, 0.036, 0.04)], "skin").fill(
        darker(subject.paint["skin"], 0.12), 1.4
    )


def draw_head(subject: Subject) -> None:
    """Draw the face, and the hair that lies on the skull."""
    paint, person = subject.paint, subject.person
    skull = subject.lathe(_rings(0.0), "face")
    skull.fill(paint["skin"])
    hair = paint["hair"]
    if person.hair.kind == "bald":
        skull.band(_at(1.0), _at(0.66), paint["skin"], PART["scalp"])
    else:
        cap = subject.lathe(_rings(0.008, 0.62), "hair")
        cap.fill(hair)
        volume = subject.lathe(_rings(0.006, 0.06, back=0.003), "hair")
        volume.patch(_at(0.7), _at(0.12), (75, 285), hair)
        volume.patch(_at(0.7), _at(0.35), (60, 90), hair)
        volume.patch(_at(0.7), _at(0.35), (-90, -60), hair)
        skull.patch(_at(0.74), _at(0.3), (-58, 58), paint["skin"])
        volume.patch(_at(0.95), _at(0.85), (-40, 40), lighter(hair, 0.16))
    _face(subject, skull)


def _face(subject: Subject, skull: Lathe) -> None:
    paint, scale = subject.paint, subject.view.scale
    for azimuth in (-24, 24):
        if eye := skull.point(_at(0.5), azimuth):
            subject.canvas.circle(eye, 0.0052 * scale, (34, 28, 28), PART["face"])
        skull.patch(_at(0.6), _at(0.575), (azimuth - 12, azimuth + 12), darker(paint["hair"], 0.2))
    skull.patch(_at(0.5), _at(0.32), (-5, 5), darker(paint["skin"], 0.12))
    skull.patch(_at(0.2), _at(0.165), (-20, 20), (150, 70, 70))
    for azimuth in (-92, 92):
        if ear := skull.point(_at(0.42), azimuth * 0.97):
            subject.canvas.circle(ear, 0.011 * scale, darker(paint["skin"], 0.08), PART["face"])
    if subject.person.beard:
        beard = paint["hair"] if subject.person.hair.kind != "bald" else (60, 44, 36)
        skull.patch(_at(0.3), CHIN, (-75, 75), beard, PART["beard"])
        skull.patch(_at(0.2), _at(0.15), (-18, 18), (150, 84, 80))
    _eyewear(subject, skull)


def _eyewear(subject: Subject, skull: Lathe) -> None:
    dark = subject.person.eyewear == "sunglasses"
    if subject.person.eyewear == "none":
        return
    y = _at(0.5)
    for azimuth in (-26, 26):
        skull.patch(y + 0.013, y - 0.013, (azimuth - 21, azimuth + 21), (18, 18, 20), PART["eyewear"])
        if not dark:
            skull.patch(y + 0.007, y - 0.007, (azimuth - 13, azimuth + 13), (206, 222, 230), PART["eyewear"])
    for azimuth in (-70, 70):
        skull.patch(y + 0.006, y - 0.002, (azimuth - 24, azimuth + 24), (18, 18, 20), PART["eyewear"])


def draw_hair_behind(subject: Subject) -> None:
    """Draw the hair that hangs or stands away from the skull."""
    hair, scale = subject.paint["hair"], subject.view.scale
    kind = subject.person.hair.kind
    if kind in ("long", "bob"):
        end = 0.72 if kind == "long" else 0.835
        hanging = subject.lathe(
            [
                Ring(0.98, 0.04, 0.04, 0, -0.018),
                Ring(0.93, 0.06, 0.056, 0, -0.02),
                Ring(0.86, 0.064, 0.052, 0, -0.026),
                Ring((0.86 + end) / 2, 0.062, 0.042, 0, -0.034),
                Ring(end, 0.046, 0.026, 0, -0.046),
            ],
            "style",
        )
        hanging.fill(hair)
        _strands(subject, hanging, end)
    elif kind == "ponytail":
        tail = [(0.0, 0.955, -0.06), (0.0, 0.93, -0.088), (0.0, 0.86, -0.094), (0.0, 0.77, -0.086)]
        for start, stop, radii in zip(tail, tail[1:], ((0.014, 0.024), (0.024, 0.025), (0.025, 0.01)), strict=False):
            subject.limb(start, stop, radii, "style").fill(hair)
    elif kind == "bun":
        subject.canvas.circle(subject.view.project((0.0, 0.985, -0.05)), 0.032 * scale, hair, PART["style"], 116)
        subject.canvas.circle(
            subject.view.project((0.004, 0.991, -0.05)), 0.018 * scale, lighter(hair, 0.1), PART["style"]
        )
    elif kind == "curly":
        rng = subject.canvas.rng
        for step in range(26):
            angle, height = math.radians(60 + rng.uniform(0, 240)), rng.uniform(0.9, 1.0)
            reach = 0.056 * math.sin(math.acos(max(-1.0, min(1.0, (height - 0.93) / 0.09))))
            spot = subject.view.project((reach * math.sin(angle), height, reach * math.cos(angle) - 0.008))
            subject.canvas.circle(spot, 0.022 * scale, hair if step % 3 else lighter(hair, 0.1), PART["style"], 118)


def _strands(subject: Subject, hanging: Lathe, end: float) -> None:
    for azimuth in range(-160, 180, 32):
        start, stop = hanging.point(0.93, azimuth), hanging.point(end, azimuth)
        if start and stop:
            subject.canvas.fold(start, stop, 0.006 * subject.view.scale, 108)


def draw_hat(subject: Subject) -> None:
    """Draw a cap, beanie or straw hat, if one is worn."""
    kind, colour = subject.person.hat.kind, subject.paint["hat"]
    if kind == "none":
        return
    low = {"cap": 0.62, "beanie": 0.6, "straw hat": 0.7}[kind]
    crown = subject.lathe(_rings(0.013, low, rise=0.006), "hat")
    edge = _at(0.62 if kind != "straw hat" else 0.84)
    if kind == "straw hat":
        subject.lathe([Ring(edge + 0.012, 0.06, 0.065), Ring(edge - 0.012, 0.112, 0.118)], "hat", smooth=False).fill(
            colour
        )
    crown.fill(colour)
    if kind == "cap":
        brim = [Ring(edge + 0.014, 0.05, 0.03, 0.0, 0.05), Ring(edge + 0.002, 0.046, 0.034, 0.0, 0.074)]
        crown.patch(edge + 0.03, edge, (130, 230), darker(colour, 0.2))
        if math.cos(subject.view.yaw) > -0.4:
            subject.lathe(brim, "hat", smooth=False).fill(darker(colour, 0.2))
    elif kind == "beanie":
        crown.band(edge + 0.03, edge, lighter(colour, 0.16))
        subject.canvas.circle(
            subject.view.project((0.0, 1.022, -0.006)), 0.014 * subject.view.scale, lighter(colour, 0.16), PART["hat"]
        )
    else:
        crown.band(edge + 0.03, edge + 0.006, (70, 46, 34))


def draw_scarf(subject: Subject) -> None:
    """Draw a scarf around the neck with one end on the chest, if one is worn."""
    if not subject.person.scarf:
        return
    colour = subject.paint["scarf"]
    end = subject.lathe(subject.shape.trunk(0.03, 0.84, 0.64), "scarf")
    end.patch(0.83, 0.66, (12, 38), darker(colour, 0.12))
    end.patch(0.672, 0.66, (12, 38), lighter(colour, 0.3))
    loop = subject.lathe([Ring(0.878, 0.05, 0.052), Ring(0.85, 0.07, 0.07), Ring(0.815, 0.074, 0.072)], "scarf")
    loop.fill(colour)
    loop.band(0.85, 0.842, darker(colour, 0.2))
