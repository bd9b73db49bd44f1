"""Search: a sentence among 100,000 pictures, and indexing pictures."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from benchmarks.data import random_model
from benchmarks.measure import wall
from benchmarks.photographs import write_pictures
from benchmarks.results import Row
from benchmarks.vectors import BLOCK, IMAGE_SIZE, milliseconds, p95, write_gallery
from irra.data.images import load_images
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from irra.search.update import index_folder
from irra.utils.cores import available_cores

VIT, SMALL = "ViT-B-16-quickgelu", "irra-small"
GALLERY, SENTENCES, TOP_K = 100_000, 100, 10
PHOTOGRAPHS = {VIT: 16, SMALL: 512}  # number of files to index with each backbone
COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "yellow", "orange")


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Measure sentences, then indexing."""
    with tempfile.TemporaryDirectory() as folder:
        yield measure_sentences(Path(folder, "gallery"), BLOCK if small else GALLERY)
        for backbone in (SMALL,) if small else PHOTOGRAPHS:
            yield measure_indexing(Path(folder, backbone), backbone, PHOTOGRAPHS[backbone])


def measure_sentences(folder: Path, size: int) -> Row:
    """Milliseconds from a sentence to its top ten, in total and for text encoder and search alone."""
    engine = SearchEngine(random_model(VIT), write_gallery(folder, size))
    queries = sentences(SENTENCES)
    embeddings = list(engine.encoder.texts([text for query in queries for text in query])[:, None])
    both = milliseconds(lambda query: engine.search(query, TOP_K), queries)
    details = {
        "95% (ms)": p95(both),
        "text encoder (ms)": median(milliseconds(engine.encoder.texts, queries)),
        "search (ms)": median(milliseconds(lambda vector: engine.gallery.search(vector, TOP_K), embeddings)),
    }
    return Row(f"a sentence among {size:,} pictures, ViT-B/16", median(both), "ms", "< 50", details)


def measure_indexing(folder: Path, backbone: str, count: int) -> Row:
    """Pictures per second of `irra index`, and the share of that time that decoding alone takes."""
    paths = write_pictures(folder / "pictures", count, min(count, 128))
    encoder = Encoder(random_model(backbone))
    seconds = wall(lambda: index_folder(folder / "pictures", encoder, "random weights", folder / "index"))
    decoding = wall(lambda: list(load_images(paths, IMAGE_SIZE, available_cores())))
    return Row(
        f"index with {backbone}", count / seconds, "images/s", details={"decoding (%)": 100 * decoding / seconds}
    )


def sentences(count: int) -> list[list[str]]:
    """Queries as long as the captions of CUHK-PEDES, 23 words."""
    return [
        [
            f"A woman with long black hair wears a {COLOURS[number % 10]} coat over {COLOURS[number // 10 % 10]} "
            f"trousers, and carries a large {COLOURS[number // 100 % 10]} handbag in her left hand."
        ]
        for number in range(count)
    ]
