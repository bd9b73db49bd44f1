"""Drawing a whole person: all parts from far to near."""

import math
from collections.abc import Callable
from functools import partial

from irra.synthetic.body import HAND_OF
from irra.synthetic.carried import bag_centre, draw_bag, draw_held, draw_straps
from irra.synthetic.head import draw_hair_behind, draw_hat, draw_head, draw_neck, draw_scarf, turned
from irra.synthetic.limbs import draw_arm, draw_hips, draw_leg
from irra.synthetic.subject import Subject
from irra.synthetic.wardrobe import draw_trunk

Layer = tuple[float, Callable[[], None]]  # depth towards the camera, and the drawing function


def draw_person(subject: Subject) -> None:
    """Draw the person with everything that they wear and carry."""
    for _, draw in sorted(_layers(subject), key=lambda layer: layer[0]):
        draw()


def _layers(subject: Subject) -> list[Layer]:
    """Layers with their depths: the trunk is at 0, legs are behind it, head and straps in front of it."""
    head, skeleton, depth = turned(subject), subject.skeleton, subject.view.depth
    away = -math.cos(head.view.yaw)  # 1: seen from behind
    layers: list[Layer] = [
        (-0.03, partial(draw_neck, subject)),
        (-0.01, partial(draw_hips, subject)),
        (0.0, partial(draw_trunk, subject)),
        (0.001, partial(draw_straps, subject)),
        (0.002, partial(draw_scarf, subject)),
        (0.003, partial(draw_head, head)),
        (0.004 if away > -0.35 else -0.04, partial(draw_hair_behind, head)),
        (0.005, partial(draw_hat, head)),
    ]
    for side, leg in skeleton.legs.items():
        layers.append((-0.3 + depth(leg.knee), partial(draw_leg, subject, side)))
        elbow = skeleton.arms[side][1]
        layers.append((depth(elbow) + 0.02, partial(draw_arm, subject, side)))
    if subject.person.bag:
        layers.append((depth(bag_centre(subject)) + 0.01, partial(draw_bag, subject)))
    if subject.person.held:
        layers.append((depth(skeleton.arms[HAND_OF[subject.person.held.kind]][3]) + 0.021, partial(draw_held, subject)))
    return layers
