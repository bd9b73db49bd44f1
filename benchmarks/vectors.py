"""Galleries of random vectors, and the time of a query.

Vectors are people clustered around 2,000 looks, four pictures each, in 512 dimensions whose spread falls off as in CLIP
embeddings. Queries lie near a person, shifted in one common direction, as captions are. Uniformly random directions
would have no near neighbours.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from irra.search.folder import FolderGallery
from irra.search.knn import normalised
from irra.search.writer import FolderWriter, Picture

DIMENSION, LOOKS, PICTURES_EACH = 512, 2000, 4
FALL_OFF = 0.45  # exponent with which the spread falls from dimension to dimension
BLOCK = 20_000
IMAGE_SIZE = (384, 128)

Floats = NDArray[np.float32]
T = TypeVar("T")


def milliseconds(work: Callable[[T], object], inputs: Sequence[T], seconds: float = 5.0) -> list[float]:
    """The milliseconds that `work` takes on each of `inputs`, or on the first ten and more until `seconds` are over."""
    work(inputs[0])  # warms up
    times: list[float] = []
    for one in inputs:
        start = time.perf_counter()
        work(one)
        times.append(1000 * (time.perf_counter() - start))
        if len(times) >= 10 and sum(times) > 1000 * seconds:
            break
    return times


def p95(times: Sequence[float]) -> float:
    """The 95th percentile."""
    return float(np.percentile(times, 95))


def write_gallery(folder: Path, size: int) -> FolderGallery:
    """Write an index of `size` random vectors with empty pictures."""
    folder.mkdir()
    writer = FolderWriter(folder, "random weights", IMAGE_SIZE, "float16")
    for start, vectors in zip(range(0, size, BLOCK), draw_gallery(size), strict=True):
        writer.add([Picture(f"{number:07d}.jpg", b"-") for number in range(start, start + BLOCK)], vectors)
    writer.finish("drawn", [])
    return FolderGallery.open(folder)


def draw_gallery(size: int) -> Iterator[Floats]:
    """Yield blocks of unit vectors (BLOCK, D), four for each person."""
    for rng in np.random.default_rng(0).spawn(size // BLOCK):
        yield normalised(np.repeat(draw_people(rng), PICTURES_EACH, axis=0) + 0.8 * noise(rng, BLOCK))


def draw_queries(count: int) -> Floats:
    """Return unit vectors (count, D) near people of the gallery's first block, all shifted the same way."""
    (block,) = np.random.default_rng(0).spawn(1)
    rng = np.random.default_rng(1)
    people = rng.choice(draw_people(block), count, replace=False)
    return normalised(people + noise(rng, count) + 0.5 * noise(rng, 1))


def draw_people(rng: np.random.Generator) -> Floats:
    """Return the centres (BLOCK / PICTURES_EACH, D) of people, around looks that all blocks share."""
    looks = noise(np.random.default_rng(2), LOOKS)
    count = BLOCK // PICTURES_EACH
    people: Floats = looks[rng.integers(0, LOOKS, count)] + noise(rng, count)
    return people


def noise(rng: np.random.Generator, count: int) -> Floats:
    """Return normal vectors (count, D) whose variance falls with the dimension and is 1 on average."""
    spread = np.arange(1, DIMENSION + 1, dtype=np.float32) ** -FALL_OFF
    spread /= np.sqrt((spread**2).mean())
    drawn: Floats = rng.standard_normal((count, DIMENSION), dtype=np.float32) * spread
    return drawn
