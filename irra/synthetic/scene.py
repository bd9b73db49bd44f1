"""Cameras, each at its own place, whose panorama is drawn once and cut into backgrounds."""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from irra.synthetic.attributes import Rgb
from irra.synthetic.subject import darker, lighter, mix

WIDTH, HEIGHT = 640, 320
CLOTHES: tuple[Rgb, ...] = ((50, 52, 60), (120, 120, 124), (88, 60, 50), (60, 76, 110), (176, 170, 160), (110, 50, 52))


@dataclass(frozen=True)
class Camera:
    """A fixed camera: its place, its pitch down (radians), and the properties of its pictures."""

    folder: str
    place: str
    pitch: float
    horizon: float  # height of the edge between wall and floor, as a fraction of the panorama from the top
    gain: float
    cast: tuple[float, float, float]
    blur: float  # pixels, standard deviation
    noise: float  # grey levels, standard deviation
    light: float  # -1: from the left, +1: from the right


CAMERAS = (
    Camera("cam_1", "street", 0.14, 0.5, 1.02, (1.0, 1.0, 1.0), 0.35, 3.0, 1.0),
    Camera("cam_2", "wall", 0.08, 0.72, 0.94, (1.04, 1.0, 0.94), 0.25, 2.0, -1.0),
    Camera("cam_3", "grass", 0.2, 0.26, 1.06, (1.0, 1.02, 0.97), 0.45, 2.5, 1.0),
    Camera("cam_4", "hall", 0.26, 0.3, 0.92, (0.97, 1.0, 1.03), 0.3, 4.0, -1.0),
    Camera("cam_5", "shops", 0.1, 0.66, 0.98, (1.02, 1.0, 0.98), 0.5, 3.5, 1.0),
    Camera("cam_6", "plaza", 0.3, 0.16, 0.92, (0.96, 0.99, 1.05), 0.4, 3.5, -1.0),
)


def background(camera: Camera, width: int, height: int, rng: random.Random) -> Image.Image:
    """A random piece of the camera's panorama, sometimes with passers-by."""
    whole = panorama(camera)
    zoom = rng.uniform(0.95, 1.25)
    box_height = min(HEIGHT, round(height * zoom))
    box_width = round(width * zoom)
    left, top = rng.randrange(WIDTH - box_width), rng.randrange(HEIGHT - box_height + 1)
    piece = whole.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + box_width, top + box_height))
    if rng.random() < 0.3:
        _passers_by(piece, rng)
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.3 else piece


def _passers_by(piece: Image.Image, rng: random.Random) -> None:
    width, height = piece.size
    layer, mask = piece.copy(), Image.new("L", piece.size)
    for _ in range(rng.randint(1, 3)):
        size, x = height * rng.uniform(0.35, 0.6), rng.uniform(0, width)
        feet = height * rng.uniform(0.55, 0.8)
        skin, top, legs = (150, 116, 96), rng.choice(CLOTHES), rng.choice(CLOTHES)
        for draw, fills in ((ImageDraw.Draw(layer), (legs, top, skin)), (ImageDraw.Draw(mask), (210, 210, 210))):
            draw.polygon(
                [
                    (x - size * 0.07, feet - size * 0.5),
                    (x + size * 0.07, feet - size * 0.5),
                    (x + size * 0.05, feet),
                    (x - size * 0.06, feet),
                ],
                fill=fills[0],
            )
            draw.rounded_rectangle(
                (x - size * 0.13, feet - size * 0.86, x + size * 0.13, feet - size * 0.44), size * 0.06, fill=fills[1]
            )
            draw.ellipse((x - size * 0.055, feet - size, x + size * 0.055, feet - size * 0.85), fill=fills[2])
    soft = ImageFilter.BoxBlur(2)
    piece.paste(layer.filter(soft), mask=mask.filter(soft))


@functools.lru_cache(maxsize=len(CAMERAS))
def panorama(camera: Camera) -> Image.Image:
    """The whole place of a camera, without people."""
    rng = random.Random(camera.folder)
    image = Image.new("RGB", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(image)
    PLACES[camera.place](draw, round(HEIGHT * camera.horizon), rng)
    grain = np.random.default_rng(7).normal(0, 1, (HEIGHT, WIDTH, 1))
    coarse = Image.fromarray(np.random.default_rng(8).integers(0, 255, (20, 40), dtype=np.uint8))
    clouds = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float64)[..., None]
    pixels = np.asarray(image, dtype=np.float64) * (0.88 + 0.24 * clouds / 255) + grain * 4
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.7))


def _gradient(draw: ImageDraw.ImageDraw, top: int, bottom: int, one: Rgb, two: Rgb) -> None:
    for y in range(top, bottom):
        draw.line((0, y, WIDTH, y), fill=mix(one, two, (y - top) / max(1, bottom - top)))


def _tiles(draw: ImageDraw.ImageDraw, horizon: int, colour: Rgb, rows: int, spread: float) -> None:
    """Floor joints in perspective below the horizon."""
    for row in range(rows):
        y = horizon + (HEIGHT - horizon) * (row / rows) ** 1.5
        draw.line((0, y, WIDTH, y), fill=colour)
    for column in range(-30, 60):
        x = WIDTH / 2 + (column - 15) * 26
        draw.line((x, horizon, WIDTH / 2 + (x - WIDTH / 2) * spread, HEIGHT), fill=colour)


def _street(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _gradient(draw, 0, horizon, (150, 148, 144), (128, 124, 120))
    x = 0
    while x < WIDTH:
        wide, shade = (
            rng.randint(60, 120),
            rng.choice(((156, 138, 120), (122, 124, 130), (170, 164, 150), (136, 96, 82))),
        )
        draw.rectangle((x, 0, x + wide, horizon), fill=shade)
        for wx in range(x + 8, x + wide - 14, 24):
            for wy in range(6, horizon - 24, 38):
                draw.rectangle(
                    (wx, wy, wx + 13, wy + 24), fill=rng.choice(((70, 80, 92), (96, 108, 120), (54, 60, 70)))
                )
                draw.line((wx, wy + 25, wx + 13, wy + 25), fill=lighter(shade))
        x += wide
    _gradient(draw, horizon, HEIGHT, (112, 112, 114), (146, 146, 146))
    for x in range(-20, WIDTH, 130):
        body = rng.choice(((160, 40, 40), (60, 70, 90), (200, 200, 204), (40, 42, 48)))
        draw.rounded_rectangle((x, horizon - 20, x + 92, horizon + 14), 8, fill=body)
        draw.polygon(
            [(x + 16, horizon - 20), (x + 28, horizon - 38), (x + 66, horizon - 38), (x + 80, horizon - 20)],
            fill=(70, 82, 94),
        )
        for wheel in (18, 72):
            draw.ellipse((x + wheel - 9, horizon + 4, x + wheel + 9, horizon + 22), fill=(24, 24, 26))
    draw.polygon(
        [(0, horizon + 34), (WIDTH, horizon + 34), (WIDTH, horizon + 42), (0, horizon + 42)], fill=(176, 174, 170)
    )
    _tiles(draw, horizon + 42, (128, 128, 128), 6, 2.2)


def _wall(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _gradient(draw, 0, horizon, (150, 104, 84), (132, 88, 72))
    for row, y in enumerate(range(0, horizon, 9)):
        draw.line((0, y, WIDTH, y), fill=(168, 140, 122))
        for x in range(-10 + 10 * (row % 2), WIDTH, 20):
            draw.line((x, y, x, y + 9), fill=(164, 134, 116))
            if rng.random() < 0.2:
                draw.rectangle((x + 1, y + 1, x + 19, y + 8), fill=(120, 78, 66))
    for x in range(60, WIDTH, 190):
        draw.rectangle((x, 40, x + 56, horizon), fill=(66, 74, 70))
        draw.rectangle((x + 6, 50, x + 50, horizon - 70), fill=(104, 122, 130))
    draw.rectangle((0, horizon - 8, WIDTH, horizon), fill=(104, 100, 96))
    _gradient(draw, horizon, HEIGHT, (134, 130, 126), (164, 160, 154))
    _tiles(draw, horizon, (144, 140, 136), 4, 1.8)


def _grass(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _gradient(draw, 0, horizon, (176, 196, 206), (158, 172, 164))
    for _ in range(150):
        x, y, r = rng.uniform(0, WIDTH), horizon - rng.uniform(0, 50), rng.uniform(8, 22)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=mix((48, 82, 44), (104, 126, 70), rng.random()))
    _gradient(draw, horizon, HEIGHT, (110, 134, 76), (92, 124, 58))
    for _ in range(5000):
        x, y = rng.uniform(0, WIDTH), horizon + (HEIGHT - horizon) * rng.random()
        tall = 1 + 5 * (y - horizon) / (HEIGHT - horizon)
        draw.line((x, y, x + rng.uniform(-1, 1), y - tall), fill=mix((70, 100, 44), (136, 158, 90), rng.random()))
    middle = horizon + (HEIGHT - horizon) // 2
    draw.polygon([(0, middle - 10), (WIDTH, middle + 10), (WIDTH, middle + 62), (0, middle + 40)], fill=(178, 168, 148))


def _hall(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _gradient(draw, 0, horizon, (196, 194, 186), (206, 202, 192))
    for x in range(20, WIDTH, 110):
        draw.rectangle((x, 0, x + 18, horizon + 8), fill=(172, 168, 160))
        draw.rectangle(
            (x + 36, 14, x + 90, horizon - 22), fill=rng.choice(((90, 120, 150), (170, 120, 70), (110, 140, 110)))
        )
    _gradient(draw, horizon, HEIGHT, (186, 184, 176), (166, 162, 152))
    _tiles(draw, horizon, (142, 138, 130), 9, 2.6)
    for x in range(40, WIDTH, 110):
        draw.line((x, horizon + 14, x + (x - WIDTH / 2) * 0.5, HEIGHT), fill=(206, 204, 198), width=6)


def _shops(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _gradient(draw, 0, horizon, (90, 84, 82), (70, 66, 66))
    for x in range(0, WIDTH, 128):
        sign = rng.choice(((150, 50, 46), (46, 86, 126), (60, 110, 70), (186, 146, 50)))
        draw.rectangle((x + 2, 26, x + 126, 56), fill=sign)
        for letter in range(8):
            draw.rectangle((x + 18 + letter * 12, 34, x + 24 + letter * 12, 48), fill=lighter(sign, 0.6))
        draw.rectangle((x + 6, 62, x + 84, horizon - 14), fill=(128, 138, 140))
        for _ in range(16):
            gx, gy = x + rng.randint(8, 74), rng.randint(70, horizon - 40)
            draw.rectangle(
                (gx, gy, gx + 9, gy + rng.randint(10, 22)), fill=mix((80, 70, 70), (220, 200, 160), rng.random())
            )
        draw.rectangle((x + 92, 62, x + 120, horizon), fill=(58, 48, 44))
        draw.rectangle((x + 96, 70, x + 116, horizon - 30), fill=(110, 120, 124))
    _gradient(draw, horizon, HEIGHT, (150, 142, 132), (176, 168, 158))
    _tiles(draw, horizon, (132, 124, 116), 6, 2.0)


def _plaza(draw: ImageDraw.ImageDraw, horizon: int, rng: random.Random) -> None:
    _gradient(draw, 0, horizon, (120, 124, 128), (132, 134, 136))
    _gradient(draw, horizon, HEIGHT, (140, 140, 142), (122, 122, 126))
    _tiles(draw, horizon, (108, 108, 112), 14, 1.7)
    for _ in range(26):
        x, y = rng.uniform(0, WIDTH), rng.uniform(horizon, HEIGHT)
        draw.ellipse(
            (x, y, x + rng.uniform(6, 26), y + rng.uniform(2, 7)),
            fill=mix((96, 96, 100), (152, 152, 154), rng.random()),
        )
    for x in range(30, WIDTH, 150):
        draw.rectangle((x, horizon + 6, x + 60, horizon + 16), fill=(104, 84, 66))
        draw.rectangle((x + 4, horizon + 16, x + 10, horizon + 32), fill=darker((104, 84, 66)))
        draw.rectangle((x + 50, horizon + 16, x + 56, horizon + 32), fill=darker((104, 84, 66)))


PLACES: dict[str, Callable[[ImageDraw.ImageDraw, int, random.Random], None]] = {
    "street": _street,
    "wall": _wall,
    "grass": _grass,
    "hall": _hall,
    "shops": _shops,
    "plaza": _plaza,
}
