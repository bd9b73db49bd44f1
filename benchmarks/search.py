"""Search: a sentence among 100,000 pictures, conditions, and indexing pictures."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from benchmarks.data import random_model
from benchmarks.measure import wall
from benchmarks.photographs import write_pictures
from benchmarks.results import Row
from benchmarks.vectors import (
    BLOCK,
    IMAGE_SIZE,
    TOP_K,
    draw_queries,
    lance_address,
    measure_searches,
    milliseconds,
    p95,
    write_gallery,
)
from irra.data.images import load_images
from irra.search.address import open_gallery, open_target
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from irra.search.folder import FolderGallery
from irra.search.target import FolderTarget
from irra.search.update import index_folder
from irra.search.writer import EXACT_LIMIT
from irra.utils.cores import available_cores

VIT, SMALL = "ViT-B-16-quickgelu", "irra-small"
GALLERY, SENTENCES, QUERIES = 100_000, 100, 50
PHOTOGRAPHS = {VIT: 16, SMALL: 512}  # number of files to index with each backbone
COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "yellow", "orange")


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Measure sentences, then conditions, then indexing."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = write_folder(Path(folder, "gallery"), BLOCK if small else GALLERY)
        yield measure_sentences(gallery)
        queries = [vector[None] for vector in draw_queries(QUERIES)]
        yield from measure_searches(gallery, f"exact among {gallery.size:,}", queries, gallery)
        if address := lance_address(Path(folder)):
            with open_target(address) as place:
                write_gallery(place, gallery.size)
            yield from measure_searches(open_gallery(address), f"LanceDB among {gallery.size:,}", queries, gallery)
        graph = write_folder(Path(folder, "graph"), BLOCK, exact_limit=0)
        yield from measure_searches(graph, f"{graph.info.kind} among {graph.size:,}", queries, graph)
        for backbone in (SMALL,) if small else PHOTOGRAPHS:
            yield measure_indexing(Path(folder, backbone), backbone, PHOTOGRAPHS[backbone])


def write_folder(folder: Path, size: int, exact_limit: int = EXACT_LIMIT) -> FolderGallery:
    """A gallery of random vectors that is searched exactly up to a limit."""
    write_gallery(FolderTarget(folder, exact_limit), size)
    return FolderGallery.open(folder)


def measure_sentences(gallery: FolderGallery) -> Row:
    """Milliseconds from a sentence to its top ten, in total and for text encoder and search alone."""
    engine = SearchEngine(random_model(VIT), gallery)
    queries = sentences(SENTENCES)
    embeddings = list(engine.encoder.texts([text for query in queries for text in query])[:, None])
    both = milliseconds(lambda query: engine.search(query, TOP_K), queries)
    details = {
        "95% (ms)": p95(both),
        "text encoder (ms)": median(milliseconds(engine.encoder.texts, queries)),
        "search (ms)": median(milliseconds(lambda vector: engine.gallery.search(vector, TOP_K), embeddings)),
    }
    return Row(f"a sentence among {gallery.size:,} pictures, ViT-B/16", median(both), "ms", "< 50", details)


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
