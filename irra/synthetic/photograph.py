"""Taking one picture of one person: pose, camera, occlusion, light, blur and noise, and what is visible in it."""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from irra.synthetic.attributes import Person
from irra.synthetic.body import draw_pose, shape_of, skeleton_of
from irra.synthetic.canvas import SUPERSAMPLING, Canvas, View
from irra.synthetic.figure import draw_person
from irra.synthetic.occlusion import occlude
from irra.synthetic.scene import Camera, background
from irra.synthetic.subject import PART, Subject, paints
from irra.synthetic.visibility import visible_slots

YAWS = ((0, 0.34), (180, 0.3), (90, 0.18), (-90, 0.18))  # degrees, weight


@dataclass(frozen=True)
class Photograph:
    """The picture, the names of the attributes that it shows, and the side it shows: "front", "back" or "side"."""

    image: Image.Image
    visible: frozenset[str]
    facing: str


def take(person: Person, variation: int, camera: Camera, rng: random.Random) -> Photograph:
    """Take a picture of `person`; `variation` fixes how the identity's colours deviate from the named ones."""
    height = rng.randint(192, 256)
    width = round(height / rng.uniform(2.6, 3.0))
    shape, pose = shape_of(person), draw_pose(person, rng)
    skeleton = skeleton_of(shape, pose)
    canvas = Canvas(width, height, camera.light, rng)
    tall = 1.25 if person.held.kind == "umbrella" else 1.03
    pitch = camera.pitch + rng.uniform(-0.03, 0.03)
    scale = canvas.size[1] * rng.uniform(0.87, 0.93) / tall / math.cos(pitch)
    yaw = rng.choices([y for y, _ in YAWS], [w for _, w in YAWS])[0] + rng.gauss(0, 22)
    feet = canvas.size[1] * rng.uniform(0.945, 0.965) + scale * skeleton.ground * math.cos(pitch)
    origin = (canvas.size[0] * rng.uniform(0.45, 0.55), feet)
    view = View(math.radians(yaw), pitch, scale, origin)
    subject = Subject(canvas, view, person, shape, pose, skeleton, paints(person, variation))
    draw_person(subject)
    whole = canvas.part_sizes()
    occlude(canvas, PART["occluder"], rng)
    seen = visible_slots(whole, canvas.part_sizes(), height)
    scene = background(camera, width, height, rng)
    _cast_shadow(scene, view, camera.light)
    return Photograph(_develop(canvas, scene, camera, rng), seen, facing(view))


def facing(view: View) -> str:
    """The side of a person that a camera sees: "front", "back" or "side"."""
    toward = math.cos(view.yaw)
    return "front" if toward > 0.5 else "back" if toward < -0.5 else "side"


def _cast_shadow(scene: Image.Image, view: View, light: float) -> None:
    """Darken the ground under the feet and on the side away from the light."""
    x, y, size = (value / SUPERSAMPLING for value in (*view.origin, view.scale))
    coarse = 4  # soft shapes need no more than every fourth pixel
    x, y, size = x / coarse, y / coarse, size / coarse
    mask = Image.new("L", (-(-scene.width // coarse), -(-scene.height // coarse)))
    draw = ImageDraw.Draw(mask)
    draw.ellipse((x - 0.13 * size, y - 0.03 * size, x + 0.13 * size, y + 0.03 * size), fill=120)
    draw.polygon(
        [
            (x - 0.06 * size, y),
            (x + 0.06 * size, y + 0.01 * size),
            (x - light * 0.5 * size, y - 0.12 * size),
            (x - light * 0.55 * size, y - 0.17 * size),
        ],
        fill=80,
    )
    soft = mask.filter(ImageFilter.BoxBlur(1)).resize(scene.size, Image.Resampling.BILINEAR)
    scene.paste((16, 16, 22), mask=soft)


def _develop(canvas: Canvas, scene: Image.Image, camera: Camera, rng: random.Random) -> Image.Image:
    """Put the person in front of the background, and apply the camera's lens and sensor."""
    figure, cover = canvas.flatten()
    pixels = np.asarray(scene, dtype=np.float32)
    pixels = pixels - pixels * cover + figure
    image = _quantise(pixels).filter(ImageFilter.BoxBlur(camera.blur * rng.uniform(0.5, 1.5)))
    if rng.random() < 0.2:
        image = image.filter(MOTION_BLUR)
    gain = camera.gain * rng.uniform(0.9, 1.1)
    cast = [channel * gain * rng.uniform(0.98, 1.02) for channel in camera.cast]
    table = np.outer(cast, np.arange(256)).clip(0, 255).round().astype(int)
    image = image.point(table.ravel().tolist())
    deviation = camera.noise * rng.uniform(0.5, 1.3)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape[:2], dtype=np.float32)
    return _quantise(np.asarray(image, dtype=np.float32) + np.repeat(noise * deviation, 3).reshape(pixels.shape))


def _quantise(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype(np.uint8))


MOTION_BLUR = ImageFilter.Kernel((3, 3), (0, 0, 0, 1, 2, 1, 0, 0, 0))
