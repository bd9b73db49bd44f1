"""Galleries of random vectors, with and without conditions: the time of a query and its recall.

Vectors are people clustered around 2,000 looks, four pictures each, in 512 dimensions whose spread falls off as in CLIP
embeddings. Queries lie near a person, shifted in one common direction, as captions are. Uniformly random directions
would have no near neighbours. Thumbnails are 4 kB of noise, metadata four columns.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.results import Row
from irra.search.address import LANCE
from irra.search.folder import FolderGallery
from irra.search.format import Info
from irra.search.gallery import Gallery
from irra.search.knn import ExactCandidates, Neighbours, normalised
from irra.search.target import Making, Target
from irra.search.where import Condition
from irra.search.writer import Picture

DIMENSION, LOOKS, PICTURES_EACH = 512, 2000, 4
FALL_OFF = 0.45  # exponent with which the spread falls from dimension to dimension
BLOCK = 20_000
IMAGE_SIZE = (384, 128)
BATCH, THUMBNAIL_BYTES = 1000, 4000  # pictures written at once, and each one's JPEG
CAMERAS = 100
COLUMNS = pa.schema(
    {"camera": pa.int64(), "place": pa.string(), "time": pa.timestamp("us"), "confidence": pa.float32()}
)
SHARES = (0.01, 0.1, 0.5)  # of the pictures that satisfy a condition
TOP_K = 10

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


def write_gallery(place: Target, size: int) -> Info:
    """Write an index of `size` random vectors."""
    noise = np.random.default_rng(3).bytes(10 * THUMBNAIL_BYTES)
    with place.writer(Making("drawn", "random weights", IMAGE_SIZE), COLUMNS) as writer:
        for block, vectors in zip(range(0, size, BLOCK), draw_gallery(size), strict=True):
            for start in range(0, BLOCK, BATCH):
                numbers = range(block + start, block + start + BATCH)
                writer.add([_picture(number, noise) for number in numbers], vectors[start:][:BATCH], _metadata(numbers))
        return writer.finish("drawn", [])


def lance_address(parent: Path) -> str | None:
    """Where to write a LanceDB gallery; None if LanceDB is not installed."""
    return f"{LANCE}{parent / 'lance'}" if find_spec("lancedb") else None


def _picture(number: int, noise: bytes) -> Picture:
    thumbnail = noise[7 * number % (len(noise) - THUMBNAIL_BYTES) :][:THUMBNAIL_BYTES]
    return Picture(f"day/{number:07d}.jpg", thumbnail, None, 30_000 + number, number, f"{number:064x}")


def _metadata(numbers: range) -> pa.Table:
    cameras = np.random.default_rng(numbers.start).integers(0, CAMERAS, len(numbers))
    times = [1_700_000_000_000_000 + 40_000 * number for number in numbers]
    values = [cameras, [f"hall {camera // 4}" for camera in cameras], times, np.full(len(numbers), 0.9, np.float32)]
    return pa.table(dict(zip(COLUMNS.names, values, strict=True)), schema=COLUMNS)


def from_cameras(share: float) -> Condition:
    """The condition that this share of the pictures satisfies, which are spread over the gallery."""
    count = round(share * CAMERAS)
    return Condition(f"camera < {count}", pc.field("camera") < count, f"camera < {count}")


def measure_searches(
    gallery: Gallery, what: str, queries: list[Floats], exact: FolderGallery, asked: str = ""
) -> Iterator[Row]:
    """The median time of a query and its recall against the exact search of a folder of the same pictures.

    Without a condition, then with one that a share of the pictures satisfies.
    """
    neighbours = Neighbours(exact.embeddings, ExactCandidates(exact.embeddings))
    for share in (None, *SHARES):
        where = None if share is None else from_cameras(share)
        allowed = None if where is None else exact.table([], where)["row"].to_numpy()
        search = partial(gallery.search, top_k=TOP_K, where=where)
        recalls = []
        for query in queries:
            expected = _paths(exact, neighbours.search(query, TOP_K, allowed)[1][0])
            recalls.append(len(expected & _paths(gallery, search(query)[1][0])) / TOP_K)
        times = milliseconds(search, queries)
        name = what if share is None else f"{what}, a condition on {share:.0%}"
        yield Row(
            name, median(times), "ms", asked, {"95% (ms)": p95(times), f"recall@{TOP_K}": float(np.mean(recalls))}
        )


def _paths(gallery: Gallery, rows: NDArray[np.int64]) -> set[str]:
    return {known["path"] for known in gallery.metadata(rows.tolist())}


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
