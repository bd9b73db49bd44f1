"""The nearest of a million vectors: recall, time, memory, and the alternatives. It takes a quarter of an hour."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import resident_memory, wall
from benchmarks.results import Row
from benchmarks.vectors import BLOCK, Floats, draw_queries, milliseconds, p95, write_gallery
from irra.search.folder import FolderGallery
from irra.search.knn import ExactCandidates, Neighbours, load_faiss

QUERIES, TOP_K = 500, 10
SCANNED, TRAINED_ON = (0.03, 0.1, 0.33), 40  # shares of the inverted lists; training vectors per list


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Compare the graph with exact search and with inverted lists."""
    size = 2 * BLOCK if small else 1_000_000
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "index")
        written = wall(lambda: write_gallery(folder, size))
        gallery = FolderGallery.open(folder)
        queries = [vector[None] for vector in draw_queries(QUERIES)]
        exact = Neighbours(gallery.embeddings, ExactCandidates(gallery.embeddings))
        expected = exact.search(np.concatenate(queries), TOP_K)[1]
        yield timed_search(gallery, queries, expected, f"{gallery.info.kind} among {size:,}", "< 10")
        yield timed_search(exact, queries[:50], expected[:50], f"exact among {size:,}")
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            resident = fresh.submit(memory_of_searching, folder).result()
        yield Row("memory of a fresh process that searches it", resident / 1e9, "GB")
        files = {f"{name} (GB)": count / 1e9 for name, count in gallery.info.file_bytes.items()}
        yield Row("written in", written, "s", details=files)
        yield from measure_inverted_lists(gallery, queries, expected)


def measure_inverted_lists(gallery: FolderGallery, queries: list[Floats], expected: NDArray[np.int64]) -> Iterator[Row]:
    """The alternative to the graph: inverted lists, of which the nearest are scanned."""
    lists = 4 * round(gallery.size**0.5)
    index = load_faiss().index_factory(gallery.info.dimension, f"IVF{lists},SQ8", load_faiss().METRIC_INNER_PRODUCT)
    index.train(gallery.embeddings[:: max(1, gallery.size // (TRAINED_ON * lists))].astype(np.float32))
    for start in range(0, gallery.size, BLOCK):
        index.add(gallery.embeddings[start : start + BLOCK].astype(np.float32))
    scanned = Neighbours(gallery.embeddings, lambda queries, count: index.search(queries, count)[1])
    for share in SCANNED:
        index.nprobe = round(share * lists)
        yield timed_search(scanned, queries, expected, f"inverted lists, {share:.0%} scanned")


def timed_search(
    searched: FolderGallery | Neighbours, queries: list[Floats], expected: NDArray[np.int64], what: str, asked: str = ""
) -> Row:
    """The median time of a query, and the recall against exact search."""
    found = [searched.search(vector, TOP_K)[1][0] for vector in queries]
    recall = np.mean([len(np.intersect1d(*pair)) / TOP_K for pair in zip(found, expected, strict=True)])
    times = milliseconds(lambda vector: searched.search(vector, TOP_K), queries)
    return Row(what, median(times), "ms", asked, {"95% (ms)": p95(times), f"recall@{TOP_K}": float(recall)})


def memory_of_searching(folder: Path) -> int:
    """The bytes that opening and searching an index adds to this process, including mapped pages."""
    load_faiss()
    before = resident_memory()
    gallery = FolderGallery.open(folder)
    for vector in draw_queries(QUERIES):
        gallery.search(vector[None], TOP_K)
    return resident_memory() - before
