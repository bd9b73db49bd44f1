"""Training images from disk to the model: JPEG files through torchvision, against the prepared store.

The released loader decodes, resizes and augments each image every time. The product's side is `TrainingData.batches`,
with tokens and all. One thread each, so that CPU seconds are those of one core.
"""

import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from benchmarks.data import preset, write_data
from benchmarks.measure import alternate, cpu
from benchmarks.photographs import write_pictures
from benchmarks.results import Row
from irra.data.augment import CLIP_MEAN, CLIP_STD
from irra.data.loader import TrainingData

BATCH, TURNS, SECONDS = 64, 5, 20
PICTURES = 256
JPEG, STORE = "JPEG through torchvision", "prepared store"


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Compare both loaders on images of the published size."""
    torch.set_num_threads(1)
    params = preset("cuhk-pedes")
    config = params.train.model_copy(update={"batch_size": BATCH, "device": "cpu"})
    count = BATCH if small else PICTURES
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pictures(Path(folder, "jpeg"), count, count)
        data = TrainingData(*write_data(Path(folder), params, {"train": (count, 1)}), config)
        files = cycle(paths)
        transform = released_transforms(*params.prepare.image_size)
        epochs = iter(range(1, 1000))
        sides = {
            JPEG: lambda: cpu(lambda: load(islice(files, BATCH), transform)) / BATCH,
            STORE: lambda: cpu(lambda: take_all(data.batches(next(epochs), 0, torch.device("cpu")))) / count,
        }
        alternate(sides, 1)  # warms up
        turns = alternate(sides, 1 if small else TURNS, SECONDS)
    for side in sides:
        yield Row(f"{side}, augmented", 1 / turns.median(side), "images a CPU second")
    yield Row("prepared store against JPEG through torchvision", turns.ratio(JPEG, STORE), "times as many", "> 5")


def released_transforms(height: int, width: int) -> transforms.Compose:
    """The released loader's transforms of an image for training."""
    return transforms.Compose(
        [
            transforms.Resize((height, width)),
            transforms.RandomHorizontalFlip(0.5),
            transforms.Pad(10),
            transforms.RandomCrop((height, width)),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
            transforms.RandomErasing(scale=(0.02, 0.4), value=list(CLIP_MEAN)),
        ]
    )


def take_all(batches: Iterator[object]) -> None:
    """Take every batch, and keep none longer than training does."""
    for _ in batches:
        pass


def load(paths: Iterator[Path], transform: transforms.Compose) -> Tensor:
    """A batch (B, 3, H, W) of the images in these files."""
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
