"""Objects between the camera and the person.

They cover one side or the lower shins, never what shows the kind of a garment.
"""

import random
from collections.abc import Callable

from irra.synthetic.canvas import Canvas, Point
from irra.synthetic.subject import lighter

SHARE = 0.3  # of the pictures


def occlude(canvas: Canvas, part: int, rng: random.Random) -> None:
    """Cover a part of the person in some of the pictures."""
    if rng.random() < SHARE:
        rng.choice(OCCLUDERS)(canvas, part, rng)


def _bar(canvas: Canvas, part: int, left: float, right: float, colour: tuple[int, int, int]) -> None:
    height = canvas.size[1]
    canvas.polygon([(left, 0), (right, 0), (right, height), (left, height)], colour, part)
    third = (right - left) / 3
    canvas.tone([(left, 0), (left + third, 0), (left + third, height), (left, height)], 108)


def _pole(canvas: Canvas, part: int, rng: random.Random) -> None:
    width = canvas.size[0]
    wide = width * rng.uniform(0.06, 0.1)
    left = rng.choice((width * rng.uniform(0.02, 0.22), width * rng.uniform(0.7, 0.9)))
    _bar(canvas, part, left, left + wide, rng.choice(((92, 96, 98), (58, 74, 66), (120, 112, 100))))


def _railing(canvas: Canvas, part: int, rng: random.Random) -> None:
    width, height = canvas.size
    top, colour = height * rng.uniform(0.84, 0.9), rng.choice(((70, 74, 78), (150, 148, 142), (56, 70, 62)))
    for y in (top, height * 0.965):
        canvas.polygon([(0, y), (width, y), (width, y + 7), (0, y + 7)], colour, part)
    for x in range(rng.randrange(24), width, 26):
        canvas.polygon([(x, top), (x + 6, top), (x + 6, height), (x, height)], colour, part)


def _bonnet(canvas: Canvas, part: int, rng: random.Random) -> None:
    width, height = canvas.size
    top, colour = (
        height * rng.uniform(0.87, 0.92),
        rng.choice(((150, 34, 36), (54, 62, 78), (196, 196, 200), (34, 36, 40))),
    )
    high, low = rng.choice(((0.0, 0.05), (0.05, 0.0)))
    edge: list[Point] = [(0, top + high * height), (width * 0.5, top + 0.01 * height), (width, top + low * height)]
    canvas.polygon([*edge, (width, height), (0, height)], colour, part)
    canvas.polygon([*edge, *[(x, y + 8) for x, y in edge[::-1]]], lighter(colour, 0.35), part)


def _bush(canvas: Canvas, part: int, rng: random.Random) -> None:
    width, height = canvas.size
    for _ in range(60):
        x, y = rng.uniform(-0.05, 1.05) * width, height * rng.uniform(0.9, 1.0)
        colour = rng.choice(((52, 84, 40), (70, 104, 52), (40, 66, 36), (92, 120, 62)))
        canvas.circle((x, y), rng.uniform(6, 13), colour, part, rng.randint(104, 140))


def _bystander(canvas: Canvas, part: int, rng: random.Random) -> None:
    """Somebody seen from behind, closer to the camera and mostly outside the picture."""
    width, height = canvas.size
    top, reach, mirrored = height * rng.uniform(0.3, 0.5), width * rng.uniform(0.14, 0.22), rng.random() < 0.5
    colour = rng.choice(((44, 46, 52), (96, 98, 104), (74, 62, 54), (60, 74, 96)))

    def mirror(points: list[Point]) -> list[Point]:
        return [(width - x, y) if mirrored else (x, y) for x, y in points]

    head = mirror([(0.0, top - 0.55 * reach)])[0]
    canvas.circle(head, reach * 0.62, (44, 34, 30), part, 116)
    back = [(-9.0, top), (reach * 0.4, top + 4), (reach * 0.8, top + 0.4 * reach), (reach, top + 1.4 * reach)]
    canvas.polygon(mirror([*back, (reach, height), (-9.0, height)]), colour, part)
    canvas.tone(
        mirror([(reach * 0.75, top + reach), (reach, top + 2 * reach), (reach, height), (reach * 0.75, height)]), 100
    )


OCCLUDERS: tuple[Callable[[Canvas, int, random.Random], None], ...] = (_pole, _railing, _bonnet, _bush, _bystander)
