"""Ranking 20,000 queries against 20,000 images, a sort of every row in its place, and a gallery of a million.

    python -m benchmarks.evaluation

Random features with some signal. The ranking and the sort take turns, since other programs may run beside them.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import describe
from irra.ranking import Ranking, rank_gallery

ROWS, WIDTH, TOP_K = 20_000, 512, 10
MATCHES = (4, 20)  # of a query
COMPARED, TURNS = 2000, 3  # queries that are also ranked by a full sort, and how often
LARGE, LARGE_QUERIES = 1_000_000, 400
TARGET_SECONDS, TARGET_MEMORY = 9.0, 0.7

Features = tuple[Tensor, Tensor, Tensor, Tensor]


def main() -> None:
    """Print time, memory and differences from a sort of every row."""
    print(f"machine: {describe()}", flush=True)
    for matches in MATCHES:
        features = random_features(ROWS, ROWS, matches)
        measure(features, f"{matches} matches (target {TARGET_SECONDS:.0f} s, {TARGET_MEMORY} GB)")
        compare_with_sort(features)
    measure(random_features(LARGE_QUERIES, LARGE, MATCHES[0]), f"{MATCHES[0]} matches")


def measure(features: Features, what: str) -> None:
    """Print time, throughput and extra memory of a ranking."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = peak_gigabytes()
    seconds = timed(lambda: rank_gallery(*features, TOP_K))
    extra = peak_gigabytes() - before
    queries, gallery = len(features[0]), len(features[1])
    million = queries * gallery / seconds / 1e6
    print(
        f"{queries:,} x {gallery:,}, {what}: {seconds:.1f} s, {million:.0f} million a second, {extra:.2f} GB",
        flush=True,
    )


def compare_with_sort(features: Features) -> None:
    """Print the median times of both for some of the queries, and the largest difference in average precision."""
    queries, gallery, query_pids, gallery_pids = features
    some = (queries[:COMPARED], gallery, query_pids[:COMPARED], gallery_pids)
    turns = [(timed(lambda: rank_gallery(*some, TOP_K)), timed(lambda: sort_every_row(*some))) for _ in range(TURNS)]
    ranked, sorted_ = (statistics.median(side) for side in zip(*turns, strict=True))
    print(
        f"    {COMPARED:,} queries: {ranked:.2f} s; sorted rows {sorted_:.2f} s, {sorted_ / ranked:.1f} times as long"
    )
    ranking = rank_gallery(*some, TOP_K)
    print(f"    largest difference in average precision: {difference(ranking, sort_every_row(*some)):.0e}", flush=True)


def sort_every_row(queries: Tensor, gallery: Tensor, query_pids: Tensor, gallery_pids: Tensor) -> Tensor:
    """Return the average precision of each query, all of which must have the same number of matches."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    right = gallery_pids[similarity.argsort(dim=1, descending=True, stable=True)] == query_pids[:, None]
    ranks = right.nonzero()[:, 1].view(len(queries), -1).double() + 1
    return (torch.arange(1, ranks.shape[1] + 1) / ranks).mean(dim=1)


def difference(ranking: Ranking, expected: Tensor) -> float:
    """Return the largest difference in average precision."""
    return float(np.abs(ranking.scores.average_precision - expected.numpy()).max())


def random_features(queries: int, gallery: int, matches: int) -> Features:
    """Return features of queries and gallery, and their identities, each of which the gallery has `matches` times."""
    generator = torch.Generator().manual_seed(0)
    people = gallery // matches
    centres = torch.randn(people, WIDTH, generator=generator)
    pids = [torch.arange(rows) % people for rows in (queries, gallery)]
    noisy = [torch.randn(len(rows), WIDTH, generator=generator).mul_(4) for rows in pids]
    for features, rows in zip(noisy, pids, strict=True):
        for start in range(0, len(rows), people):
            features[start : start + people] += centres[: len(rows) - start]
    return noisy[0], noisy[1], pids[0], pids[1]


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_gigabytes() -> float:
    """Return the peak of this process's memory since it was last cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6


if __name__ == "__main__":
    main()
