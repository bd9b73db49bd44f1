"""Image augmentation of whole batches on the training device, with the distribution of IRRA's torchvision pipeline.

Resizing happens once, when the data is prepared. Here follow horizontal flip, zero padding and random crop,
normalisation, and random erasing. All random choices are drawn on the CPU, so that a seed gives the same ones on every
device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PADDING = 10
FLIP_PROBABILITY = 0.5
ERASE_PROBABILITY = 0.5
ERASE_AREA = (0.02, 0.4)
ERASE_RATIO = (0.3, 3.3)
ERASE_ATTEMPTS = 10


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


def draw_choices(batch: int, height: int, width: int, generator: torch.Generator) -> Choices:
    """Draw choices for `batch` images, as torchvision's RandomHorizontalFlip, RandomCrop and RandomErasing do."""
    flip = torch.rand(batch, generator=generator) < FLIP_PROBABILITY
    top = torch.randint(0, 2 * PADDING + 1, (batch,), generator=generator)
    left = torch.randint(0, 2 * PADDING + 1, (batch,), generator=generator)
    return Choices(flip, top, left, _draw_rectangles(batch, height, width, generator))


def _draw_rectangles(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw (B, 4) rectangles as torchvision does: up to ten tries each, of which the first that fits is taken.

    All ten tries are drawn at once.
    """
    shape = (batch, ERASE_ATTEMPTS)
    area = height * width * torch.empty(shape).uniform_(*ERASE_AREA, generator=generator)
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


def augment(pixels: Tensor, choices: Choices) -> Tensor:
    """Augment and normalise (B, H, W, 3) uint8 to (B, 3, H, W) float32, on the device of `pixels`."""
    device = pixels.device
    height, width = pixels.shape[1:3]
    rows = torch.arange(height, device=device) + choices.top.to(device)[:, None]
    columns = torch.arange(width, device=device) + choices.left.to(device)[:, None]
    # the flip precedes the crop, and the padding is symmetric, so mirroring columns of the padded image flips it
    columns = torch.where(choices.flip.to(device)[:, None], width + 2 * PADDING - 1 - columns, columns)
    padded = F.pad(pixels, (0, 0, PADDING, PADDING, PADDING, PADDING))
    batch = torch.arange(len(pixels), device=device)[:, None, None]
    images = normalise(padded[batch, rows[:, :, None], columns[:, None, :]])
    top, left, h, w = choices.erase.to(device)[:, :, None, None].unbind(1)
    y = torch.arange(height, device=device)[:, None]
    x = torch.arange(width, device=device)
    erased = (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
    fill = torch.tensor(CLIP_MEAN, device=device).view(1, 3, 1, 1)
    return torch.where(erased[:, None], fill, images)


def normalise(pixels: Tensor) -> Tensor:
    """Normalise (B, H, W, 3) uint8 to contiguous (B, 3, H, W) float32, with CLIP's mean and standard deviation."""
    mean = torch.tensor(CLIP_MEAN, device=pixels.device)
    std = torch.tensor(CLIP_STD, device=pixels.device)
    return ((pixels.float() / 255.0 - mean) / std).permute(0, 3, 1, 2).contiguous()
