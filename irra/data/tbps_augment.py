"""Image augmentation of whole batches, with the distribution of TBPS-CLIP's torchvision pipeline (AAAI 2024).

Each image, its pixels from 0 to 1, undergoes two of six transforms, one after the other; the same one may come twice.
Normalisation follows, so that what is erased or rotated into the picture is black. The released code normalises with
ImageNet's mean and standard deviation; here they stay CLIP's, with which the backbone was trained. All random choices
are drawn on the CPU, so that a seed gives the same ones on every device.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from irra.data.augment import draw_rectangles, inside

TRANSFORMS = 2  # of an image
JITTER = (0.9, 1.1)
ROTATION = 15.0
CROP_AREA, CROP_RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10
GREY_PROBABILITY = 0.1
FLIP_PROBABILITY = 0.5
ERASE_AREA = (0.1, 0.2)
LUMA = (0.2989, 0.587, 0.114)


class Kind(IntEnum):
    """A transform; `NOTHING` is drawn where a transform has a probability and is not applied."""

    JITTER, ROTATE, CROP, GREY, FLIP, ERASE, NOTHING = range(7)


class Adjust(IntEnum):
    """What a step of the colour jitter changes."""

    BRIGHTNESS, CONTRAST, SATURATION = range(3)


@dataclass(frozen=True)
class Transforms:
    """The random choices for a batch of B images.

    Attributes:
        kinds: (B, 2) int64, a `Kind` each.
        values: (B, 2, 6) float32, of which each kind uses the first ones. `JITTER`: three times `Adjust`, in their
            order, and their factors; `ROTATE`: degrees, counter-clockwise; `CROP` and `ERASE`: top, left, height and
            width of a rectangle.
    """

    kinds: Tensor
    values: Tensor

    def __getitem__(self, rows: NDArray[np.int64]) -> "Transforms":
        """The choices for some of the images."""
        return Transforms(self.kinds[rows], self.values[rows])


def draw_transforms(batch: int, height: int, width: int, generator: torch.Generator) -> Transforms:
    """Draw transforms for `batch` images, with parameters as torchvision's get_params draws them."""
    number = batch * TRANSFORMS
    kinds = torch.randint(0, Kind.NOTHING, (number,), generator=generator)
    drawn = {
        Kind.JITTER: _draw_jitter(number, generator),
        Kind.ROTATE: torch.empty(number, 1).uniform_(-ROTATION, ROTATION, generator=generator),
        Kind.CROP: _draw_crops(number, height, width, generator),
        Kind.ERASE: draw_rectangles(number, height, width, generator, ERASE_AREA).float(),
    }
    values = torch.zeros(number, 6)
    for kind, value in drawn.items():
        values[kinds == kind, : value.shape[1]] = value[kinds == kind]
    chance = torch.rand(number, generator=generator)
    left_out = (kinds == Kind.GREY) & (chance >= GREY_PROBABILITY) | (kinds == Kind.FLIP) & (chance >= FLIP_PROBABILITY)
    left_out |= (kinds == Kind.ERASE) & (values[:, 2] == 0)
    kinds[left_out] = Kind.NOTHING
    return Transforms(kinds.view(batch, TRANSFORMS), values.view(batch, TRANSFORMS, -1))


def _draw_jitter(number: int, generator: torch.Generator) -> Tensor:
    order = torch.rand(number, len(Adjust), generator=generator).argsort(dim=1)
    return torch.cat([order, torch.empty(number, len(Adjust)).uniform_(*JITTER, generator=generator)], dim=1)


def _draw_crops(number: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw (number, 4) rectangles to be cropped: the first of ten tries that fits, otherwise the whole image.

    The aspect ratio is relative to the image's. The recipe's images are square, where that is the same; taken as it is,
    no rectangle of 90% of the area would fit into an image of 384x128, and torchvision then crops its middle.
    """
    shape = (number, CROP_ATTEMPTS)
    area = torch.empty(shape).uniform_(*CROP_AREA, generator=generator)
    log_ratio = torch.empty(shape).uniform_(*map(math.log, CROP_RATIO), generator=generator)
    h = (height * (area / log_ratio.exp()).sqrt()).round().long()
    w = (width * (area * log_ratio.exp()).sqrt()).round().long()
    fits = (h <= height) & (w <= width)
    first, found = fits.long().argmax(dim=1, keepdim=True), fits.any(dim=1)
    h = torch.where(found, h.gather(1, first)[:, 0], height)
    w = torch.where(found, w.gather(1, first)[:, 0], width)
    top = (torch.rand(number, generator=generator, dtype=torch.float64) * (height - h + 1)).long()
    left = (torch.rand(number, generator=generator, dtype=torch.float64) * (width - w + 1)).long()
    return torch.stack([top, left, h, w], dim=1).float()


def transform(images: Tensor, kinds: Tensor, values: Tensor) -> Tensor:
    """Transform images (B, 3, H, W) from 0 to 1, on their device, in place where that is possible.

    Args:
        images: float32.
        kinds, values: The choices as in `Transforms`, on the CPU: they decide what runs, and no GPU is waited for.
    """
    for slot in range(TRANSFORMS):
        for kind, apply in APPLY.items():
            rows = (kinds[:, slot] == kind).nonzero()[:, 0]
            if len(rows) > 0:
                place, value = (part.to(images.device, non_blocking=True) for part in (rows, values[rows, slot]))
                images.index_copy_(0, place, apply(images[place], value))
    return images


def jitter(images: Tensor, values: Tensor) -> Tensor:
    """Change brightness, contrast and saturation in the order drawn: each moves towards black, mean grey or grey."""
    adjusts, factors = values[:, :3, None, None, None].unbind(1), values[:, 3:, None, None, None].unbind(1)
    for adjust, factor in zip(adjusts, factors, strict=True):
        luma = _luma(images)
        mean = luma.mean(dim=(1, 2, 3), keepdim=True) * (adjust == Adjust.CONTRAST)
        other = torch.where(adjust == Adjust.SATURATION, luma, mean)
        images = (factor * images + (1.0 - factor) * other).clamp(0.0, 1.0)
    return images


def rotate(images: Tensor, values: Tensor) -> Tensor:
    """Rotate about the centre, with the nearest pixel; corners become black."""
    angle = values[:, 0, None, None].deg2rad()
    y, x = _centred(images.shape[2], images.device)[:, None], _centred(images.shape[3], images.device)
    cos, sin = angle.cos(), angle.sin()
    return _sampled(images, x * cos - y * sin, x * sin + y * cos, "nearest", "zeros")


def crop_and_resize(images: Tensor, values: Tensor) -> Tensor:
    """Crop a rectangle and resize it to the whole image, with bilinear interpolation inside of the rectangle."""
    height, width = images.shape[2:]
    top, left, h, w = values[:, :4, None, None].unbind(1)
    y = _stretched(height, top, h, images.device)[:, :, None].expand(-1, -1, width)
    x = _stretched(width, left, w, images.device)[:, None, :].expand(-1, height, -1)
    return _sampled(images, x, y, "bilinear", "border")


def grey(images: Tensor, values: Tensor) -> Tensor:
    """Grey of the same luma, in three equal channels."""
    return _luma(images).expand_as(images)


def flip(images: Tensor, values: Tensor) -> Tensor:
    """Mirror left and right."""
    return images.flip(3)


def erase(images: Tensor, values: Tensor) -> Tensor:
    """Paint a rectangle black."""
    return images.masked_fill(inside(values[:, :4], *images.shape[2:]), 0.0)


APPLY = {
    Kind.JITTER: jitter,
    Kind.ROTATE: rotate,
    Kind.CROP: crop_and_resize,
    Kind.GREY: grey,
    Kind.FLIP: flip,
    Kind.ERASE: erase,
}


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    luma: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return luma[:, None]


def _centred(size: int, device: torch.device) -> Tensor:
    """(size,) distances of pixels from the middle, in pixels."""
    return torch.arange(size, device=device) - (size - 1) / 2


def _stretched(size: int, start: Tensor, length: Tensor, device: torch.device) -> Tensor:
    """(B, size) where each pixel of an image of `size` pixels comes from if its part at `start` is stretched to it."""
    start, length = start[:, 0], length[:, 0]
    place = (torch.arange(size, device=device) + 0.5) * length / size - 0.5
    return start + torch.minimum(place.clamp_min(0.0), length - 1.0) - (size - 1) / 2


def _sampled(images: Tensor, x: Tensor, y: Tensor, mode: str, padding: str) -> Tensor:
    """Pixels at `x` and `y` (B, H, W): distances from the middle, in pixels."""
    height, width = images.shape[2:]
    grid = torch.stack([x * (2.0 / width), y * (2.0 / height)], dim=-1)
    return F.grid_sample(images, grid, mode, padding, align_corners=False)
