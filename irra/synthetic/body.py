"""Proportions, pose and joints of a body. Lengths are fractions of the body height; angles are in radians."""

import math
import random
from dataclasses import dataclass

from irra.synthetic.attributes import Person
from irra.synthetic.canvas import Vector
from irra.synthetic.solids import Ring

UPPER_ARM, FOREARM, THIGH, SHIN = 0.165, 0.145, 0.235, 0.225
HIP, SHOULDER, NECK = 0.505, 0.805, 0.845


@dataclass(frozen=True)
class Shape:
    """Half widths and half depth of the trunk, and the thickness of arms and legs relative to the average."""

    shoulder: float
    chest: float
    waist: float
    hip: float
    depth: float
    limb: float

    def trunk(self, ease: float, top: float, hem: float, flare: float = 0.0) -> list[Ring]:
        """Rings of a garment from the height `top` down to `hem`, at a distance of `ease` from the body."""
        profile = [
            Ring(NECK, 0.034, 0.036),
            Ring(0.834, 0.052, 0.046),
            Ring(0.815, self.shoulder * 0.76, self.depth * 0.8),
            Ring(0.79, self.shoulder * 0.97, self.depth * 0.95),
            Ring(0.76, self.shoulder, self.depth, 0.0, 0.004),
            Ring(0.72, self.chest, self.depth * 1.04, 0.0, 0.006),
            Ring(0.62, self.waist, self.depth * 0.9, 0.0, 0.004),
            Ring(0.54, self.hip, self.depth * 1.02, 0.0, -0.003),
            Ring(0.47, self.hip, self.depth),
        ]
        rings = [Ring(r.y, r.a + ease, r.b + ease, r.x, r.z) for r in profile if hem < r.y <= top]
        last = rings[-1]
        spread = flare * (last.y - hem)
        return [*rings, Ring(hem, last.a + spread, last.b + spread, 0.0, last.z)]


SHAPES = {
    "man": Shape(0.112, 0.098, 0.084, 0.084, 0.06, 1.0),
    "woman": Shape(0.098, 0.086, 0.07, 0.092, 0.056, 0.88),
}
GIRTH = {"slim": (0.88, 0.86, 0.84), "average": (1.0, 1.0, 1.0), "heavy": (1.1, 1.34, 1.2)}  # chest, waist, limbs


def shape_of(person: Person) -> Shape:
    """The shape of the body under the clothes."""
    base, (chest, waist, limb) = SHAPES[person.gender], GIRTH[person.build]
    return Shape(
        base.shoulder * (1 + chest) / 2,
        base.chest * chest,
        base.waist * waist,
        base.hip * (chest + waist) / 2,
        base.depth * waist,
        base.limb * limb,
    )


@dataclass(frozen=True)
class Arm:
    """Angles of one arm: swing forward, bend of the elbow, and lift to the side."""

    swing: float
    bend: float
    lift: float = 0.1


@dataclass(frozen=True)
class Pose:
    """A moment of a walk. Side +1 is the person's left, -1 the right."""

    phase: float
    stride: float
    head_turn: float
    arms: dict[int, Arm]


CARRYING = {  # the pose of an arm that carries something instead of swinging
    "phone": Arm(0.45, 1.75, 0.12),
    "umbrella": Arm(0.35, 1.9, 0.1),
    "suitcase": Arm(-0.35, 0.1, 0.2),
    "handbag": Arm(0.05, 0.15, 0.16),
    "plastic bag": Arm(0.05, 0.15, 0.16),
}
HAND_OF = {"phone": -1, "umbrella": -1, "suitcase": 1, "handbag": 1, "plastic bag": 1}


def draw_pose(person: Person, rng: random.Random) -> Pose:
    """A random moment of walking or standing, with arms that suit what the person carries."""
    walking = rng.random() < 0.75
    stride = rng.uniform(0.25, 0.42) if walking else rng.uniform(0.02, 0.1)
    phase = rng.uniform(0, 2 * math.pi)
    swing = stride * rng.uniform(0.8, 1.1)
    arms = {
        side: Arm(
            -side * swing * math.sin(phase) + rng.uniform(-0.06, 0.06), rng.uniform(0.15, 0.5), rng.uniform(0.08, 0.16)
        )
        for side in (1, -1)
    }
    for name in (person.bag.kind, person.held.kind):
        if name in CARRYING:
            arms[HAND_OF[name]] = CARRYING[name]
    return Pose(phase, stride, rng.uniform(-0.35, 0.35), arms)


@dataclass(frozen=True)
class Leg:
    """Joints of one leg, and the tip of the foot."""

    hip: Vector
    knee: Vector
    ankle: Vector
    heel: Vector
    toe: Vector


@dataclass(frozen=True)
class Skeleton:
    """Joints in the body's frame, in which the feet of an upright body touch y = 0."""

    ground: float  # height of the ground below the lower foot
    legs: dict[int, Leg]
    arms: dict[int, tuple[Vector, Vector, Vector, Vector]]  # shoulder, elbow, wrist, hand


def skeleton_of(shape: Shape, pose: Pose) -> Skeleton:
    """Joints by forward kinematics from the hips and the shoulders."""
    legs = {side: _leg(side, shape, pose) for side in (1, -1)}
    ground = min(min(leg.heel[1], leg.toe[1]) for leg in legs.values()) - 0.016
    return Skeleton(ground, legs, {side: _arm(side, shape, pose.arms[side]) for side in (1, -1)})


def _ahead(point: Vector, angle: float, length: float, out: float = 0.0) -> Vector:
    """The end of a bone that hangs from `point`, swung forward by `angle` and sideways by `out`."""
    return (
        point[0] + length * math.sin(out),
        point[1] - length * math.cos(angle) * math.cos(out),
        point[2] + length * math.sin(angle) * math.cos(out),
    )


def _leg(side: int, shape: Shape, pose: Pose) -> Leg:
    swing = pose.stride * side * math.sin(pose.phase)
    lifting = max(0.0, side * math.cos(pose.phase))
    bend = 0.06 + 2.0 * pose.stride * lifting
    hip = (side * shape.hip * 0.52, HIP, 0.0)
    knee = _ahead(hip, swing + bend * 0.35, THIGH, side * 0.01)
    ankle = _ahead(knee, swing - bend * 0.65, SHIN, side * 0.01)
    flat = math.pi / 2 + min((swing - bend * 0.65) * 0.7, 0.25)
    heel = _ahead((ankle[0], ankle[1] - 0.025, ankle[2]), flat, -0.018)
    return Leg(hip, knee, ankle, heel, _ahead(heel, flat, 0.115, side * 0.2))


def _arm(side: int, shape: Shape, arm: Arm) -> tuple[Vector, Vector, Vector, Vector]:
    shoulder = (side * (shape.shoulder - 0.014), SHOULDER - 0.034, 0.0)
    elbow = _ahead(shoulder, arm.swing, UPPER_ARM, side * arm.lift)
    wrist = _ahead(elbow, arm.swing + arm.bend, FOREARM, side * (arm.lift - 0.12))
    return shoulder, elbow, wrist, _ahead(wrist, arm.swing + arm.bend, 0.035, 0.0)
