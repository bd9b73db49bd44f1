"""Details on a garment of the trunk: printed or woven patterns, collars, fastenings, seams and pockets."""

from collections.abc import Callable

from irra.synthetic.attributes import Rgb, luminance
from irra.synthetic.solids import Lathe, Ring
from irra.synthetic.subject import PART, Subject, darker, lighter, mix

WHITE = (236, 236, 232)


def _plain(subject: Subject, trunk: Lathe, hem: float) -> None:
    """Nothing to add."""


def _stripes(subject: Subject, trunk: Lathe, hem: float) -> None:
    y = 0.79
    while y > hem + 0.02:
        trunk.band(y, y - 0.02, subject.paint["second"], PART["pattern"])
        y -= 0.046


def _checks(subject: Subject, trunk: Lathe, hem: float) -> None:
    base, second = subject.paint["upper"], subject.paint["second"]
    y = 0.8
    while y > hem + 0.01:
        trunk.band(y, y - 0.012, mix(base, second, 0.75), PART["pattern"])
        y -= 0.038
    for azimuth in range(-180, 180, 30):
        trunk.patch(0.81, hem, (azimuth, azimuth + 10), mix(base, second, 0.85), PART["pattern"])


def _dots(subject: Subject, trunk: Lathe, hem: float) -> None:
    radius, row, y = 0.0085 * subject.view.scale, 0, 0.785
    while y > hem + 0.015:
        for azimuth in range(-180 + 14 * (row % 2), 180, 28):
            if spot := trunk.point(y, azimuth):
                subject.canvas.circle(spot, radius, subject.paint["second"], PART["pattern"])
        y, row = y - 0.034, row + 1


def _logo(subject: Subject, trunk: Lathe, hem: float) -> None:
    trunk.patch(0.76, 0.675, (-30, 30), subject.paint["second"], PART["pattern"])
    trunk.patch(0.73, 0.705, (-14, 14), subject.paint["upper"], PART["pattern"])


PATTERNS: dict[str, Callable[[Subject, Lathe, float], None]] = {
    "plain": _plain,
    "striped": _stripes,
    "checked": _checks,
    "dotted": _dots,
    "logo": _logo,
}


def _neckline(subject: Subject, trunk: Lathe) -> None:
    trunk.band(0.836, 0.822, darker(subject.paint["upper"], 0.2))


def _low_neckline(subject: Subject, trunk: Lathe) -> None:
    trunk.patch(0.84, 0.775, (-50, 50), subject.paint["skin"], PART["skin"], low=(-12, 12))
    trunk.patch(0.836, 0.82, (120, 240), subject.paint["skin"], PART["skin"])


def _collar(subject: Subject, trunk: Lathe) -> None:
    colour = _edge(subject.paint["upper"])
    trunk.band(0.84, 0.824, colour)
    trunk.patch(0.836, 0.79, (-46, -8), colour, low=(-60, -22))
    trunk.patch(0.836, 0.79, (8, 46), colour, low=(22, 60))
    trunk.patch(0.836, 0.812, (-8, 8), subject.paint["skin"], PART["skin"])


def _high_collar(subject: Subject, trunk: Lathe) -> None:
    collar = subject.lathe([Ring(0.868, 0.048, 0.048), Ring(0.83, 0.058, 0.056)], "upper", smooth=False)
    collar.fill(darker(subject.paint["upper"], 0.08))


def _buttons(subject: Subject, trunk: Lathe) -> None:
    edge = _edge(subject.paint["upper"])
    trunk.patch(0.8, 0.47, (-4, 4), edge)
    for step in range(6):
        if spot := trunk.point(0.78 - 0.055 * step, 0):
            subject.canvas.circle(spot, 0.005 * subject.view.scale, darker(edge, 0.45), PART["upper"])


def _zip(subject: Subject, trunk: Lathe) -> None:
    if not subject.person.inner:
        trunk.patch(0.83, trunk.bottom, (-5, 5), darker(subject.paint["upper"], 0.45))
        trunk.patch(0.83, trunk.bottom, (-1.5, 1.5), (190, 190, 190))


def _pockets(subject: Subject, trunk: Lathe) -> None:
    for azimuth in (-52, 52):
        trunk.patch(0.555, 0.545, (azimuth - 17, azimuth + 17), darker(subject.paint["upper"], 0.35))
        trunk.patch(0.545, 0.535, (azimuth - 17, azimuth + 17), darker(subject.paint["upper"], 0.12))


def _lapels(subject: Subject, trunk: Lathe) -> None:
    edge = _edge(subject.paint["upper"])
    if not subject.person.inner:
        trunk.patch(0.836, 0.76, (-16, 16), WHITE, PART["trim"])
        trunk.patch(0.76, trunk.bottom, (-2, 2), edge)
    inside = 27 if subject.person.inner else 4
    trunk.patch(0.836, 0.66, (-60, -38), edge, low=(-22 - inside, -inside))
    trunk.patch(0.836, 0.66, (38, 60), edge, low=(inside, inside + 22))
    trunk.band(0.838, 0.824, edge)


def _belt(subject: Subject, trunk: Lathe) -> None:
    if not subject.person.inner:
        trunk.band(0.625, 0.6, darker(subject.paint["upper"], 0.35))


def _waist(subject: Subject, trunk: Lathe) -> None:
    trunk.band(0.63, 0.612, darker(subject.paint["upper"], 0.3))


def _cords(subject: Subject, trunk: Lathe) -> None:
    trunk.band(0.838, 0.815, darker(subject.paint["upper"], 0.25))
    for azimuth in (-14, 14):
        trunk.patch(0.82, 0.74, (azimuth - 3, azimuth + 3), lighter(subject.paint["upper"], 0.6))


def _pouch(subject: Subject, trunk: Lathe) -> None:
    trunk.patch(0.585, 0.5, (-46, 46), darker(subject.paint["upper"], 0.16))
    trunk.patch(0.577, 0.505, (-40, 40), subject.paint["upper"])


def _hood(subject: Subject, trunk: Lathe) -> None:
    if subject.view.axes[0] > 0.5:  # it hangs down the back, out of sight
        return
    off = -subject.shape.depth
    rings = [
        Ring(0.856, 0.05, 0.03, 0.0, off * 0.5),
        Ring(0.8, 0.068, 0.03, 0.0, off),
        Ring(0.745, 0.03, 0.018, 0.0, off),
    ]
    hood = subject.lathe(rings, "upper")
    hood.fill(darker(subject.paint["upper"], 0.1), 1.3)
    hood.patch(0.85, 0.81, (150, 210), darker(subject.paint["upper"], 0.35))


def _yoke(subject: Subject, trunk: Lathe) -> None:
    trunk.patch(0.757, 0.749, (100, 260), darker(subject.paint["upper"], 0.28))


def _vent(subject: Subject, trunk: Lathe) -> None:
    trunk.patch(0.81, trunk.bottom, (178, 182), darker(subject.paint["upper"], 0.22))
    trunk.patch(trunk.bottom + 0.09, trunk.bottom, (176, 184), darker(subject.paint["upper"], 0.45))


def _ribbing(subject: Subject, trunk: Lathe) -> None:
    trunk.band(trunk.bottom + 0.022, trunk.bottom, darker(subject.paint["upper"], 0.2))


def _quilting(subject: Subject, trunk: Lathe) -> None:
    y = 0.79
    while y > trunk.bottom + 0.02:
        trunk.band(y, y - 0.008, darker(subject.paint["upper"], 0.4))
        trunk.band(y - 0.014, y - 0.024, lighter(subject.paint["upper"], 0.1))
        y -= 0.05


DETAILS: dict[str, Callable[[Subject, Lathe], None]] = {
    "neckline": _neckline,
    "low neckline": _low_neckline,
    "collar": _collar,
    "high collar": _high_collar,
    "buttons": _buttons,
    "zip": _zip,
    "pockets": _pockets,
    "lapels": _lapels,
    "belt": _belt,
    "waist": _waist,
    "cords": _cords,
    "pouch": _pouch,
    "ribbing": _ribbing,
    "quilting": _quilting,
    "hood": _hood,
    "yoke": _yoke,
    "vent": _vent,
}


def _edge(colour: Rgb) -> Rgb:
    return darker(colour, 0.25) if luminance(colour) > 70 else lighter(colour, 0.16)
