"""Image augmentation of whole batches, with the distribution of IRRA's torchvision pipeline.

Resizing happens once, when the data is prepared. Here follow horizontal flip, zero padding and random crop, of bytes on
the CPU; then normalisation and random erasing on the training device. All random choices are drawn on the CPU, so that
a seed gives the same ones on every device.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PADDING = 10
FLIP_PROBABILITY = 0.5
ERASE_PROBABILITY = 0.5
ERASE_AREA = (0.02, 0.4)
ERASE_RATIO = (0.3, 3.3)
ERASE_ATTEMPTS = 10


Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Choices:
    """The random choices for a batch of B images.

    Attributes:
        flip: (B,) bool.
        top, left: (B,) offsets of the crop in the padded image.
        erase: (B, 4) top, left, height and width of the erased rectangle; height 0 means none.
    """

    flip: Tensor
    top: Tensor
    left: Tensor
    erase: Tensor

    def __getitem__(self, rows: NDArray[np.int64]) -> "Choices":
        """The choices for some of the images."""
        return Choices(self.flip[rows], self.top[rows], self.left[rows], self.erase[rows])


def draw_choices(batch: int, height: int, width: int, generator: torch.Generator) -> Choices:
    """Draw choices for `batch` images, as torchvision's RandomHorizontalFlip, RandomCrop and RandomErasing do."""
    flip = torch.rand(batch, generator=generator) < FLIP_PROBABILITY
    top = torch.randint(0, 2 * PADDING + 1, (batch,), generator=generator)
    left = torch.randint(0, 2 * PADDING + 1, (batch,), generator=generator)
    return Choices(flip, top, left, draw_rectangles(batch, height, width, generator))


def draw_rectangles(
    batch: int, height: int, width: int, generator: torch.Generator, share: tuple[float, float] = ERASE_AREA
) -> Tensor:
    """Draw (B, 4) rectangles to erase as torchvision does: up to ten tries each, of which the first that fits is taken.

    All ten tries are drawn at once. `share` is the range of their area as a share of the image's.
    """
    shape = (batch, ERASE_ATTEMPTS)
    area = height * width * torch.empty(shape).uniform_(*share, generator=generator)
    log_ratio = torch.empty(shape).uniform_(math.log(ERASE_RATIO[0]), math.log(ERASE_RATIO[1]), generator=generator)
    h = (area * log_ratio.exp()).sqrt().round().long()
    w = (area / log_ratio.exp()).sqrt().round().long()
    fits = (h < height) & (w < width)
    first = fits.long().argmax(dim=1, keepdim=True)
    erased = (torch.rand(batch, generator=generator) < ERASE_PROBABILITY) & fits.any(dim=1)
    h, w = h.gather(1, first)[:, 0] * erased, w.gather(1, first)[:, 0] * erased
    top = (torch.rand(batch, generator=generator, dtype=torch.float64) * (height - h + 1)).long()
    left = (torch.rand(batch, generator=generator, dtype=torch.float64) * (width - w + 1)).long()
    return torch.stack([top, left, h, w], dim=1)


def crop(pixels: Pixels, choices: Choices) -> Pixels:
    """Flip, pad and crop images (B, H, W, 3) to planes (B, 3, H, W), which is mere copying of slices."""
    batch, height, width, _ = pixels.shape
    planes = np.empty((batch, 3, height, width), dtype=np.uint8)
    padded = np.zeros((3, height + 2 * PADDING, width + 2 * PADDING), dtype=np.uint8)
    inner = padded[:, PADDING:-PADDING, PADDING:-PADDING]
    drawn = (values.tolist() for values in (choices.flip, choices.top, choices.left))
    for image, target, flip, top, left in zip(pixels, planes, *drawn, strict=True):
        inner[...] = image.transpose(2, 0, 1)[:, :, :: -1 if flip else 1]
        target[...] = padded[:, top : top + height, left : left + width]
    return planes


def to_planes(pixels: Pixels) -> Pixels:
    """Images (B, H, W, 3) as contiguous planes (B, 3, H, W)."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


class Normaliser:
    """Normalises with CLIP's mean and standard deviation, and erases.

    It keeps these constants on `device`, so that no batch waits until they are copied there.
    """

    def __init__(self, device: torch.device) -> None:
        self._mean, self._std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (CLIP_MEAN, CLIP_STD))

    def __call__(self, planes: Tensor, erase: Tensor | None = None) -> Tensor:
        """Normalise uint8 planes (B, 3, H, W) to float32, and fill the rectangles `erase` (B, 4) with the mean colour.

        The colour is that of the released code, which does not normalise it.
        """
        return self.by_image(planes, erase) if planes.device.type == "cpu" else self.at_once(planes, erase)

    def by_image(self, planes: Tensor, erase: Tensor | None = None) -> Tensor:
        """On the CPU: one image at a time, so that it stays in the cache."""
        mean, std = self._mean.numpy(), self._std.numpy()
        images = np.empty(planes.shape, dtype=np.float32)  # in huge pages, unlike a tensor's memory
        for image, plane in zip(images, planes.numpy(), strict=True):
            image[...] = plane
            image /= 255.0
            image -= mean
            image /= std
        if erase is not None:
            for image, (top, left, height, width) in zip(images, erase.tolist(), strict=True):
                image[:, top : top + height, left : left + width] = mean
        return torch.from_numpy(images)

    def colours(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W) of pixels from 0 to 1, in place."""
        return images.sub_(self._mean).div_(self._std)

    def at_once(self, planes: Tensor, erase: Tensor | None = None) -> Tensor:
        """On other devices: the whole batch in a few kernels, none of which waits for the CPU."""
        images = self.colours(planes.float().div_(255.0))
        return images if erase is None else torch.where(inside(erase, *images.shape[2:]), self._mean, images)


def inside(rectangles: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, H, W) bool, true within each of the rectangles (B, 4)."""
    top, left, h, w = rectangles[:, :, None, None, None].unbind(1)
    y = torch.arange(height, device=rectangles.device)[:, None]
    x = torch.arange(width, device=rectangles.device)
    return (y >= top) & (y < top + h) & ((x >= left) & (x < left + w))


def normalise(pixels: Tensor) -> Tensor:
    """Normalise images (B, H, W, 3) uint8 to contiguous (B, 3, H, W) float32, on their device."""
    return Normaliser(pixels.device).at_once(pixels.permute(0, 3, 1, 2).contiguous())
