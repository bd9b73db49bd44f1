"""The nearest of a million vectors: recall, time, memory, and the alternatives. It takes half an hour."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import peak_memory, reset_peak, resident_memory
from benchmarks.results import Row
from benchmarks.vectors import (
    BLOCK,
    TOP_K,
    Floats,
    draw_queries,
    lance_address,
    measure_searches,
    milliseconds,
    p95,
    write_gallery,
)
from irra.search.address import is_lance, open_gallery, open_target
from irra.search.folder import FolderGallery
from irra.search.knn import ExactCandidates, Neighbours, load_faiss

QUERIES = 500
CPU = torch.device("cpu")
SCANNED, TRAINED_ON = (0.03, 0.1, 0.33), 40  # shares of the inverted lists; training vectors per list

T = TypeVar("T")


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Write and search a gallery, with conditions; compare the graph with exact search and with inverted lists."""
    size = 2 * BLOCK if small else 1_000_000
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "index")
        yield measure_writing(str(folder), size)
        gallery = FolderGallery.open(folder)
        queries = [vector[None] for vector in draw_queries(QUERIES)]
        yield from measure_searches(gallery, f"{gallery.info.kind} among {size:,}", queries, gallery)
        if address := lance_address(Path(parent)):
            yield measure_writing(address, size)
            yield from measure_searches(open_gallery(address), f"LanceDB among {size:,}", queries, gallery)
        exact = Neighbours(gallery.embeddings, ExactCandidates(gallery.embeddings))
        times = milliseconds(lambda vector: exact.search(vector, TOP_K), queries[:50])
        yield Row(f"exact among {size:,}", median(times), "ms", details={"95% (ms)": p95(times)})
        yield Row(
            "memory of a fresh process that searches it", in_fresh_process(memory_of_searching, folder) / 1e9, "GB"
        )
        expected = exact.search(np.concatenate(queries), TOP_K)[1]
        yield from measure_inverted_lists(gallery, queries, expected)


def measure_writing(address: str, size: int) -> Row:
    """Seconds for a thousand pictures and the most memory of a fresh process that writes them."""
    seconds, peak = in_fresh_process(write, address, size)
    files = {f"{name} (GB)": count / 1e9 for name, count in open_gallery(address).info.file_bytes.items()}
    details = {"in all (s)": seconds, "peak memory (GB)": peak / 1e9} | files
    where = "LanceDB" if is_lance(address) else "a folder"
    return Row(f"{size:,} written to {where}, a thousand", 1000 * seconds / size, "s", details=details)


def write(address: str, size: int) -> tuple[float, int]:
    """The seconds that writing takes, and the most bytes that this process held, including mapped pages."""
    reset_peak(CPU)
    start = time.perf_counter()
    with open_target(address) as place:
        write_gallery(place, size)
    return time.perf_counter() - start, peak_memory(CPU)


def in_fresh_process(work: Callable[..., T], *arguments: object) -> T:
    """What `work` returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(work, *arguments).result()


def measure_inverted_lists(gallery: FolderGallery, queries: list[Floats], expected: NDArray[np.int64]) -> Iterator[Row]:
    """The alternative to the graph: inverted lists, of which the nearest are scanned."""
    lists = 4 * round(gallery.size**0.5)
    index = load_faiss().index_factory(gallery.info.dimension, f"IVF{lists},SQ8", load_faiss().METRIC_INNER_PRODUCT)
    index.train(gallery.embeddings[:: max(1, gallery.size // (TRAINED_ON * lists))].astype(np.float32))
    for start in range(0, gallery.size, BLOCK):
        index.add(gallery.embeddings[start : start + BLOCK].astype(np.float32))
    scanned = Neighbours(gallery.embeddings, lambda queries, count, allowed=None: index.search(queries, count)[1])
    for share in SCANNED:
        index.nprobe = round(share * lists)
        found = [scanned.search(vector, TOP_K)[1][0] for vector in queries]
        recall = np.mean([len(np.intersect1d(*pair)) / TOP_K for pair in zip(found, expected, strict=True)])
        times = milliseconds(lambda vector: scanned.search(vector, TOP_K), queries)
        details = {"95% (ms)": p95(times), f"recall@{TOP_K}": float(recall)}
        yield Row(f"inverted lists, {share:.0%} scanned", median(times), "ms", details=details)


def memory_of_searching(folder: Path) -> int:
    """The bytes that opening and searching an index adds to this process, including mapped pages."""
    load_faiss()
    before = resident_memory()
    gallery = FolderGallery.open(folder)
    for vector in draw_queries(QUERIES):
        gallery.search(vector[None], TOP_K)
    return resident_memory() - before
