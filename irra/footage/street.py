"""A drawn street with people who walk by: frames of known content, to try things with and to measure errors on."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from irra.footage.frames import Box
from irra.synthetic.attributes import Person, draw_people
from irra.synthetic.body import CARRYING, Arm, Pose, draw_pose, shape_of, skeleton_of
from irra.synthetic.canvas import Canvas, View
from irra.synthetic.figure import draw_person
from irra.synthetic.photograph import facing
from irra.synthetic.scene import CAMERAS, panorama
from irra.synthetic.subject import Subject, paints
from irra.synthetic.visibility import visible_slots

SIZE = (1280, 720)  # of a frame, in pixels
CAMERA = CAMERAS[0]
SPEED, STEPS = 0.8, 1.9  # body heights per second (1.4 m/s), steps per second
NEAR, FAR = 300, 48  # height of the nearest and the farthest people in pixels
ABOVE, WIDE = 1.3, 0.9  # room for umbrellas and bags round a body, in body heights
SEEN = 0.4  # least share of a person that must be in the frame and not hidden for a box
ANGLES = (-50, 50)  # degrees between the way and the picture's plane

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Walker:
    """Somebody who crosses the picture.

    Attributes:
        pid: Number of the person, from 1.
        person: What they look like.
        height: Of the body in pixels, the nearer the larger.
        right: Whether they walk to the right.
        turn: Radians between their way and the picture's plane; above 0, they show their face.
        enters: Seconds from the beginning until they come into the picture.
        seed: Of their shades and pose.
    """

    pid: int
    person: Person
    height: int
    right: bool
    turn: float
    enters: float
    seed: int

    @cached_property
    def pose(self) -> Pose:
        """Their pose, apart from the phase of the walk."""
        return draw_pose(self.person, random.Random(f"pose/{self.seed}"))

    def x(self, seconds: float) -> float:
        """Centre of their body in pixels from the left edge of the frame."""
        way = SPEED * self.height * math.cos(self.turn) * (seconds - self.enters) - WIDE * self.height / 2
        return way if self.right else SIZE[0] - way

    @property
    def leaves(self) -> float:
        """Seconds from the beginning until they are out of the picture."""
        return self.enters + (SIZE[0] + WIDE * self.height) / (SPEED * self.height * math.cos(self.turn))

    @property
    def feet(self) -> float:
        """Where they touch the ground, in pixels from the upper edge."""
        top = CAMERA.horizon * SIZE[1]
        return top + (SIZE[1] * 0.97 - top) * math.pow(self.height / NEAR, 0.8)


@dataclass(frozen=True)
class Seen:
    """A person in a frame: the box round what is visible, the attributes that it shows, and the side."""

    walker: Walker
    box: Box
    visible: frozenset[str]
    facing: str


def draw_walkers(seed: int, count: int, seconds: float) -> list[Walker]:
    """`count` different people who come within `seconds`, as many at each order of distance."""
    rng = random.Random(f"walkers/{seed}")
    walkers = []
    for pid, person in enumerate(draw_people(seed, count), 1):
        height = round(FAR * (NEAR / FAR) ** rng.random())
        turn = math.radians(rng.uniform(*ANGLES))
        walker = Walker(pid, person, height, rng.random() < 0.5, turn, 0.0, seed * 1_000_003 + pid)
        walkers.append(replace(walker, enters=rng.uniform(-0.6 * walker.leaves, 0.9 * seconds)))
    return walkers


def film(walkers: list[Walker], seconds: float, rate: float) -> Iterator[tuple[Pixels, list[Seen]]]:
    """Yield `rate` frames a second, uint8 (H, W, 3), and the people in each, those farthest away first."""
    scene = panorama(CAMERA).resize(SIZE, Image.Resampling.BICUBIC)
    empty = np.asarray(scene, dtype=np.float32)
    for number in range(round(seconds * rate)):
        now = number / rate
        present = [walker for walker in walkers if walker.enters <= now <= walker.leaves]
        pixels, seen = empty.copy(), []
        drawn = [_draw(pixels, walker, now) for walker in sorted(present, key=lambda walker: walker.height)]
        for place, one in enumerate(drawn):
            if one and (found := _visible(one, drawn[place + 1 :])):
                seen.append(found)
        yield _develop(pixels, number), seen


@dataclass(frozen=True)
class _Drawn:
    """A person in a frame: left and upper edge of what was painted, and how much of each pixel they cover (H, W)."""

    seen: Seen
    left: int
    top: int
    cover: Floats


def _draw(pixels: Floats, walker: Walker, seconds: float) -> _Drawn | None:
    """Paint a person into the frame; None if they are not in it."""
    canvas = Canvas(round(WIDE * walker.height), round(ABOVE * walker.height), CAMERA.light, random.Random(walker.seed))
    subject = _subject(canvas, walker, seconds)
    draw_person(subject)
    sizes = canvas.part_sizes()
    figure, cover = canvas.flatten()
    left, top = round(walker.x(seconds) - cover.shape[1] / 2), round(walker.feet - cover.shape[0])
    rows = slice(max(0, -top), min(len(cover), SIZE[1] - top))
    columns = slice(max(0, -left), min(cover.shape[1], SIZE[0] - left))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    figure, part = figure[rows, columns], cover[rows, columns]
    left, top = left + columns.start, top + rows.start
    area = pixels[top : top + len(part), left : left + part.shape[1]]
    area += figure - area * part
    inside = part[..., 0].sum() / cover[..., 0].sum()
    slots = visible_slots(sizes, [round(size * inside) for size in sizes], walker.height)
    seen = Seen(walker, Box(0, 0, 0, 0), slots, facing(subject.view))
    return _Drawn(seen, left, top, part[..., 0]) if inside >= SEEN else None


def _subject(canvas: Canvas, walker: Walker, seconds: float) -> Subject:
    phase = math.pi * STEPS * (seconds - walker.enters)
    stride, arms = max(walker.pose.stride, 0.3), walker.pose.arms
    swinging = {
        side: arm if arm in CARRYING.values() else Arm(-side * 0.9 * stride * math.sin(phase), arm.bend, arm.lift)
        for side, arm in arms.items()
    }
    pose = replace(walker.pose, phase=phase, stride=stride, arms=swinging)
    shape = shape_of(walker.person)
    skeleton = skeleton_of(shape, pose)
    yaw = (math.pi / 2 - walker.turn) * (1 if walker.right else -1)
    scale = canvas.size[1] / ABOVE
    feet = canvas.size[1] * 0.97 + scale * skeleton.ground * math.cos(CAMERA.pitch)
    view = View(yaw, CAMERA.pitch, scale, (canvas.size[0] / 2, feet))
    return Subject(canvas, view, walker.person, shape, pose, skeleton, paints(walker.person, walker.seed))


def _visible(one: _Drawn, nearer: list[_Drawn | None]) -> Seen | None:
    """The person with the box round what nobody hides; None if that is too little."""
    free = one.cover.copy()
    height, width = free.shape
    for other in nearer:
        if other is None:
            continue
        left, top = max(one.left, other.left), max(one.top, other.top)
        right = min(one.left + width, other.left + other.cover.shape[1])
        bottom = min(one.top + height, other.top + other.cover.shape[0])
        if left < right and top < bottom:
            hidden = other.cover[top - other.top : bottom - other.top, left - other.left : right - other.left]
            free[top - one.top : bottom - one.top, left - one.left : right - one.left] *= 1 - hidden
    if free.sum() < SEEN * one.cover.sum():
        return None
    rows, columns = np.flatnonzero((free > 0.5).any(axis=1)), np.flatnonzero((free > 0.5).any(axis=0))
    if not len(rows):
        return None
    box = Box(
        int(one.left + columns[0]),
        int(one.top + rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
        track=one.seen.walker.pid,
    )
    return replace(one.seen, box=box)


def _develop(pixels: Floats, number: int) -> Pixels:
    """Apply the camera's lens and sensor."""
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(CAMERA.blur))
    noise = np.random.default_rng(number).standard_normal(pixels.shape[:2], dtype=np.float32)[..., None]
    taken: Pixels = (np.asarray(image, np.float32) + CAMERA.noise * noise).clip(0, 255).astype(np.uint8)
    return taken
