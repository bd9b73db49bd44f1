"""Drawing garments of the trunk: cut, opening and folds."""

from dataclasses import dataclass

from irra.synthetic.details import DETAILS, PATTERNS
from irra.synthetic.solids import Lathe, Ring
from irra.synthetic.subject import PART, Subject, darker


@dataclass(frozen=True)
class Fit:
    """Cut of an upper garment: distance from the body, hem height, widening below the hip, and its details."""

    ease: float
    hem: float
    flare: float = 0.0
    details: tuple[str, ...] = ()


FITS = {
    "t-shirt": Fit(0.008, 0.475, details=("neckline",)),
    "tank top": Fit(0.003, 0.48, details=("low neckline",)),
    "shirt": Fit(0.009, 0.46, details=("collar", "buttons", "yoke")),
    "sweater": Fit(0.014, 0.47, details=("neckline", "ribbing")),
    "hoodie": Fit(0.02, 0.465, details=("cords", "pouch", "ribbing", "hood")),
    "jacket": Fit(0.017, 0.462, details=("collar", "zip", "pockets", "yoke")),
    "down jacket": Fit(0.03, 0.455, details=("quilting", "high collar", "zip")),
    "blazer": Fit(0.013, 0.445, 0.06, ("lapels", "pockets", "vent")),
    "coat": Fit(0.02, 0.27, 0.12, ("lapels", "belt", "pockets", "vent")),
    "vest": Fit(0.016, 0.465, details=("zip", "pockets")),
    "dress": Fit(0.005, 0.31, 0.26, ("low neckline", "waist")),
}


def draw_trunk(subject: Subject) -> None:
    """Draw the upper garment without its sleeves."""
    person, paint = subject.person, subject.paint
    fit = FITS[person.upper.kind]
    rings = subject.shape.trunk(fit.ease, top=0.836, hem=fit.hem, flare=fit.flare)
    last = rings[-1]
    if fit.hem < 0.4:  # a long garment widens with the stride
        rings[-1] = Ring(last.y, last.a, last.b + 0.09 * subject.pose.stride / 0.4, 0.0, last.z)
    trunk = subject.lathe(rings, "upper")
    trunk.fill(paint["upper"])
    _folds(subject, trunk, fit.hem)
    PATTERNS[person.upper.pattern](subject, trunk, fit.hem)
    if person.inner:
        _opening(subject, trunk)
    for detail in fit.details:
        DETAILS[detail](subject, trunk)


def _opening(subject: Subject, trunk: Lathe) -> None:
    """Draw the t-shirt under an open garment: a widening strip, or a V above a closed vest."""
    colour, edge = subject.paint["inner"], darker(subject.paint["upper"], 0.4)
    bottom, high, low = (0.62, 34, 3) if subject.person.upper.kind == "vest" else (max(trunk.bottom, 0.465), 19, 33)
    trunk.patch(0.838, bottom, (-high, high), colour, PART["inner"], low=(-low, low))
    trunk.patch(0.838, 0.825, (-high, high), darker(colour, 0.2), PART["inner"])
    if trunk.bottom < bottom:  # an open coat shows the lower garment
        trunk.patch(bottom, trunk.bottom, (-low, low), darker(subject.paint["lower"], 0.15), PART["lower"])
        trunk.patch(bottom, trunk.bottom, (low, low + 6), edge)
        trunk.patch(bottom, trunk.bottom, (-low - 6, -low), edge)
    trunk.patch(0.838, bottom, (high, high + 6), edge, low=(low, low + 6))
    trunk.patch(0.838, bottom, (-high - 6, -high), edge, low=(-low - 6, -low))


def _folds(subject: Subject, trunk: Lathe, hem: float) -> None:
    rng, scale = subject.canvas.rng, subject.view.scale
    for _ in range(5):
        start = trunk.point(rng.uniform(0.56, 0.74), rng.uniform(-180, 180))
        if start:
            end = start[0] + rng.uniform(-0.04, 0.04) * scale, start[1] + rng.uniform(0.02, 0.07) * scale
            subject.canvas.fold(start, end, 0.007 * scale, rng.choice((104, 142)))
    for azimuth in range(-160, 180, 40) if hem < 0.4 else ():
        waist, low = trunk.point(0.5, azimuth), trunk.point(hem, azimuth * 1.05)
        if waist and low:
            subject.canvas.fold(waist, low, 0.008 * scale, 108)
