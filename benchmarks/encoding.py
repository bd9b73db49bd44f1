"""Encoding a split: captions in their given order, against what `encode_split` does with them."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.data import preset, random_model, write_data
from benchmarks.measure import alternate, synchronise, wall
from benchmarks.results import Row
from irra.data.augment import normalise
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore, trimmed
from irra.evaluation import encode_split
from irra.model import IRRA
from irra.utils.device import autocast

GIVEN, CAPTIONS, IMAGES = "given order", "captions", "images"
# By preset: images, captions and rows of a batch.
SIZES = {"synthetic": (512, 4096, 256), "cuhk-pedes": (16, 192, 32)}
TIMES_ON_GPU = 8
TURNS, SECONDS = 3, 12


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Encode captions and images of both models."""
    times = 1 if device.type == "cpu" else TIMES_ON_GPU
    for name, sizes in SIZES.items():
        if not (small and name == "cuhk-pedes"):
            images, captions, batch = (times * size for size in sizes)
            yield from measure_model(name, images, captions, batch, device)


def measure_model(name: str, images: int, captions: int, batch: int, device: torch.device) -> Iterator[Row]:
    """Encode a split of many captions to one image, and one of many images with a caption each."""
    params = preset(name)
    backbone, (height, width) = params.train.backbone, params.prepare.image_size
    model = random_model(backbone, (height, width)).to(device)
    precision = "fp32" if device.type == "cpu" else "bf16"
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder), params, {"train": (1, 1), "val": (1, captions), "test": (images, 1)})

        def seconds(encode: Callable[..., object], split: str) -> float:
            def work() -> None:
                encode(model, *data, split, batch, precision)
                synchronise(device)

            return wall(work)

        sides = {
            GIVEN: lambda: seconds(encode_in_given_order, "val"),
            CAPTIONS: lambda: seconds(encode_split, "val"),
            IMAGES: lambda: seconds(encode_split, "test"),
        }
        seconds(encode_in_given_order, "test")  # warms up
        turns = alternate(sides, TURNS, SECONDS)
    of_caption = turns.median(CAPTIONS) / captions
    title = f"{backbone}, {precision}"
    yield Row(f"{title}: captions in given order", captions / turns.median(GIVEN), "a second")
    yield Row(f"{title}: captions by encode_split", 1 / of_caption, "a second")
    yield Row(f"{title}: captions against given order", turns.ratio(GIVEN, CAPTIONS), "times as fast", "> 1.4")
    yield Row(f"{title}: images by encode_split", images / (turns.median(IMAGES) - images * of_caption), "a second")


@torch.inference_mode()
def encode_in_given_order(
    model: IRRA, store: PreparedStore, tokens: TokenStore, split: str, batch: int, precision: str
) -> None:
    """Encode the images and captions of a split, each batch of captions as long as its longest."""
    device = next(model.parameters()).device
    images, captions = store.image_ids(split), store.caption_ids(split)
    with autocast(device, precision):
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(store.pixels(images[start : start + batch]))
            model.encode_image(normalise(pixels.to(device)))
        for start in range(0, len(captions), batch):
            ids = trimmed(tokens.caption_ids[captions[start : start + batch]])
            model.encode_text(torch.from_numpy(ids).to(device))
