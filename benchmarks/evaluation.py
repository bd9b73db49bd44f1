"""Ranking 20,000 queries against 20,000 images, a sort of every row in its place, and a gallery of a million.

Random features with some signal.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import alternate, peak_memory, reset_peak, wall
from benchmarks.results import Row
from irra.ranking import Ranking, rank_gallery

ROWS, WIDTH, TOP_K = 20_000, 512, 10
MATCHES = (4, 20)  # of a query
COMPARED, TURNS, SECONDS = 1000, 3, 10  # queries that are also ranked by a full sort, how often and how long
LARGE, LARGE_QUERIES = 1_000_000, 200
CPU = torch.device("cpu")

Features = tuple[Tensor, Tensor, Tensor, Tensor]


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Measure the ranking, which runs on the CPU, alone and against the sort."""
    scale = 100 if small else 1
    for matches in MATCHES:
        features = random_features(ROWS // scale, ROWS // scale, matches)
        yield rank(features, f"{matches} matches", "< 9")
        yield compare_with_sort(features, f"{matches} matches")
    yield rank(random_features(LARGE_QUERIES // scale, LARGE // scale, MATCHES[0]), f"{MATCHES[0]} matches", "")


def rank(features: Features, what: str, asked: str) -> Row:
    """Seconds, pairs a second and extra memory of a ranking."""
    reset_peak(CPU)
    before = peak_memory(CPU)
    seconds = wall(lambda: rank_gallery(*features, TOP_K))
    extra = peak_memory(CPU) - before
    queries, gallery = len(features[0]), len(features[1])
    details = {"million pairs a second": queries * gallery / seconds / 1e6, "extra memory (GB)": extra / 1e9}
    return Row(f"{queries:,} x {gallery:,}, {what}", seconds, "s", asked, details)


def compare_with_sort(features: Features, what: str) -> Row:
    """Both for some of the queries, and the largest difference in average precision."""
    queries, gallery, query_pids, gallery_pids = features
    some = (queries[:COMPARED], gallery, query_pids[:COMPARED], gallery_pids)
    expected = sort_every_row(*some)
    sides = {
        "ranked": lambda: wall(lambda: rank_gallery(*some, TOP_K)),
        "sorted": lambda: wall(lambda: sort_every_row(*some)),
    }
    turns = alternate(sides, TURNS, SECONDS)
    details = {f"{side} (s)": turns.median(side) for side in sides}
    details["difference in average precision"] = difference(rank_gallery(*some, TOP_K), expected)
    title = f"{len(some[0]):,} x {len(gallery):,}, {what}: sorting each row"
    return Row(title, turns.ratio("sorted", "ranked"), "times as long", details=details)


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
