"""Search: a sentence among 100,000 pictures, neighbours among a million vectors, and indexing pictures.

    python -m benchmarks.search

The vectors are random: people clustered around 2,000 looks, four pictures each, in 512 dimensions whose spread falls
off as in CLIP embeddings. Queries lie near a person, shifted in one common direction, as captions are. Uniformly random
directions would have no near neighbours.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.photographs import write_pictures
from irra.backbones import read_config
from irra.data.images import load_images
from irra.model import IRRA, ModelSpec, build_model
from irra.search.build import index_folder
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from irra.search.gallery import Gallery
from irra.search.knn import ExactCandidates, Neighbours, load_faiss, normalised
from irra.search.writer import GalleryWriter, Picture
from irra.utils.cores import available_cores

DIMENSION, LOOKS, PICTURES_EACH = 512, 2000, 4
FALL_OFF = 0.45  # exponent with which the spread falls from dimension to dimension
BLOCK = 20_000
IMAGE_SIZE = (384, 128)
SENTENCES, QUERIES, TOP_K = 200, 500, 10
SCANNED, TRAINED_ON = (0.03, 0.1, 0.33), 40  # shares of the inverted lists; training vectors per list
PHOTOGRAPHS = {"ViT-B-16-quickgelu": 256, "irra-small": 4096}  # number of files to index with each backbone
COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "yellow", "orange")

Floats = NDArray[np.float32]
T = TypeVar("T")


def main() -> None:
    """Run and print all three measurements."""
    print(f"machine: {describe()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measure_sentences(Path(folder, "small"), 100_000)
        measure_neighbours(Path(folder, "large"), 1_000_000)
        measure_indexing(Path(folder))


def measure_sentences(folder: Path, size: int) -> None:
    """Print the milliseconds from a sentence to its top ten, in total and for text encoder and search separately."""
    engine = SearchEngine(random_model("ViT-B-16-quickgelu"), write_gallery(folder, size))
    encode = [*timed(engine.encoder.texts, sentences())]
    embeddings = [engine.encoder.texts(text) for text in sentences()]
    search = [*timed(lambda vector: engine.gallery.search(vector, TOP_K), embeddings)]
    both = [*timed(lambda text: engine.search(text, TOP_K), sentences())]
    kind = engine.gallery.kind
    print(f"a sentence among {size:,} pictures (ViT-B/16, {kind}), top {TOP_K}: {percentiles(both)} (target 50 ms)")
    print(f"    text encoder {percentiles(encode)}; search {percentiles(search)}", flush=True)


def measure_neighbours(folder: Path, size: int) -> None:
    """Print recall and milliseconds of the approximate search, and memory and build time of its index."""
    start = time.perf_counter()
    gallery = write_gallery(folder, size)
    seconds = time.perf_counter() - start
    queries = [vector[None] for vector in draw_queries(QUERIES)]
    rows = [gallery.search(vector, TOP_K)[1][0] for vector in queries]
    search = [*timed(lambda vector: gallery.search(vector, TOP_K), queries)]
    exact = Neighbours(gallery.embeddings, ExactCandidates(gallery.embeddings))
    expected = exact.search(np.concatenate(queries), TOP_K)[1]
    gigabytes = {name: count / 1e9 for name, count in gallery.info.file_bytes.items()}
    print(f"neighbours among {size:,} ({gallery.kind}): {percentiles(search)} (target 10 ms)")
    print(f"    recall@{TOP_K} {recall(rows, expected):.4f} against exact search, over {QUERIES} queries (target 0.99)")
    print(f"    files: {', '.join(f'{name} {value:.2f} GB' for name, value in gigabytes.items() if value >= 0.01)}")
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        resident = fresh.submit(memory_of_searching, folder).result()
    print(f"    {resident:.2f} GB of memory in a fresh process that opens it and answers {QUERIES} queries")
    print(f"    written in {seconds:.0f} s")
    print(f"    exact search: {percentiles([*timed(lambda vector: exact.search(vector, TOP_K), queries[:50])])}")
    measure_inverted_lists(gallery, queries, expected)


def measure_inverted_lists(gallery: Gallery, queries: list[Floats], expected: NDArray[np.int64]) -> None:
    """Measure the alternative to the graph: inverted lists, of which the nearest are scanned."""
    lists = 4 * round(gallery.size**0.5)
    index = load_faiss().index_factory(gallery.dimension, f"IVF{lists},SQ8", load_faiss().METRIC_INNER_PRODUCT)
    index.train(gallery.embeddings[:: max(1, gallery.size // (TRAINED_ON * lists))].astype(np.float32))
    for start in range(0, gallery.size, BLOCK):
        index.add(gallery.embeddings[start : start + BLOCK].astype(np.float32))
    scanned = Neighbours(gallery.embeddings, lambda queries, count: index.search(queries, count)[1])
    for share in SCANNED:
        index.nprobe = round(share * lists)
        rows = [scanned.search(vector, TOP_K)[1][0] for vector in queries]
        search = percentiles([*timed(lambda vector: scanned.search(vector, TOP_K), queries)])
        print(
            f"    inverted lists, {share:.0%} scanned: recall@{TOP_K} {recall(rows, expected):.4f}, {search}",
            flush=True,
        )


def memory_of_searching(folder: Path) -> float:
    """Return the gigabytes that opening and searching an index adds to this process, including mapped pages."""
    load_faiss()
    before = resident_gigabytes()
    gallery = Gallery.open(folder)
    for vector in draw_queries(QUERIES):
        gallery.search(vector[None], TOP_K)
    return resident_gigabytes() - before


def recall(found: list[NDArray[np.int64]], expected: NDArray[np.int64]) -> float:
    """Return the share of the expected rows that were found."""
    return float(np.mean([len(np.intersect1d(*pair)) / TOP_K for pair in zip(found, expected, strict=True)]))


def measure_indexing(folder: Path) -> None:
    """Print the pictures per second of `irra index`, and the share of that time that decoding alone takes."""
    for backbone, count in PHOTOGRAPHS.items():
        pictures, target = folder / f"{backbone}-pictures", folder / f"{backbone}-index"
        paths = write_pictures(pictures, count, min(count, 512))
        encoder = Encoder(random_model(backbone))
        start = time.perf_counter()
        index_folder(pictures, encoder, "random weights", target)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        for _ in load_images(paths, IMAGE_SIZE, available_cores()):
            pass
        share = (time.perf_counter() - start) / seconds
        print(f"indexing with {backbone}: {count / seconds:.1f} images/s, {share:.0%} of it in decoding", flush=True)


def timed(work: Callable[[T], object], inputs: list[T]) -> Iterator[float]:
    """Milliseconds that `work` takes on each of `inputs`, after ten unmeasured ones."""
    for one in inputs[:10]:
        work(one)
    for one in inputs:
        start = time.perf_counter()
        work(one)
        yield 1000 * (time.perf_counter() - start)


def percentiles(milliseconds: list[float]) -> str:
    """The median and the 95th percentile, for print."""
    return f"p50 {statistics.median(milliseconds):.1f} ms, p95 {np.percentile(milliseconds, 95):.1f} ms"


def sentences() -> list[list[str]]:
    """Queries as long as the captions of CUHK-PEDES, 23 words."""
    return [
        [
            f"A woman with long black hair wears a {COLOURS[number % 10]} coat over {COLOURS[number // 10 % 10]} "
            f"trousers, and carries a large {COLOURS[number // 100]} handbag in her left hand."
        ]
        for number in range(SENTENCES)
    ]


def random_model(backbone: str) -> IRRA:
    """Return an untrained model at the published image size, without heads."""
    torch.manual_seed(0)
    spec = ModelSpec(
        architecture=read_config(backbone),
        image_size=IMAGE_SIZE,
        stride_size=16,
        text_length=77,
        temperature=0.02,
        num_classes=None,
        cmt_depth=None,
    )
    return build_model(spec).eval()


def write_gallery(folder: Path, size: int) -> Gallery:
    """Write an index of `size` random vectors with empty pictures."""
    folder.mkdir()
    writer = GalleryWriter(folder, "random weights", IMAGE_SIZE, "float16")
    for start, vectors in zip(range(0, size, BLOCK), draw_gallery(size), strict=True):
        writer.add([Picture(f"{number:07d}.jpg", b"-") for number in range(start, start + BLOCK)], vectors)
    writer.finish("drawn", [])
    return Gallery.open(folder)


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


def resident_gigabytes() -> float:
    """Return the current memory of this process, including the mapped pages that it has touched."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


if __name__ == "__main__":
    main()
