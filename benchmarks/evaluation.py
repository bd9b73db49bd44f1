"""Time and extra memory of ranking 20,000 queries against 20,000 images, compared with a slow reference.

python -m benchmarks.evaluation
"""

import resource
import time

import torch
import torch.nn.functional as F

from benchmarks.machine import describe
from irra.ranking import rank_gallery

ROWS, WIDTH, PEOPLE = 20_000, 512, 1000
CHECKED = 200  # queries also ranked by a full sort
TARGET = 1.0  # GB


def main() -> None:
    """Rank random features with some signal; print time, memory and the largest difference from the reference."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(PEOPLE, WIDTH, generator=generator)
    pids = torch.arange(ROWS) % PEOPLE
    queries, gallery = (centres[pids] + 4 * torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    before = _peak_gigabytes()
    start = time.perf_counter()
    ranking = rank_gallery(queries, gallery, pids, pids, top_k=10)
    seconds = time.perf_counter() - start
    extra = _peak_gigabytes() - before
    expected = _slow_average_precision(queries[:CHECKED], gallery, pids[:CHECKED], pids)
    difference = abs(torch.from_numpy(ranking.scores.average_precision[:CHECKED]) - expected).max().item()
    print(f"machine: {describe()}")
    print(f"evaluation of {ROWS} x {ROWS}: {seconds:.1f} s, {extra:.2f} GB of extra memory (target {TARGET:.0f} GB)")
    print(f"largest difference in average precision from a full sort, over {CHECKED} queries: {difference:.1e}")


def _slow_average_precision(
    queries: torch.Tensor, gallery: torch.Tensor, query_pids: torch.Tensor, gallery_pids: torch.Tensor
) -> torch.Tensor:
    values = []
    unit = F.normalize(gallery, dim=1)
    for query, pid in zip(F.normalize(queries, dim=1), query_pids, strict=True):
        right = gallery_pids[torch.argsort(unit @ query, descending=True, stable=True)] == pid
        ranks = right.nonzero()[:, 0].double() + 1
        values.append((torch.arange(1, len(ranks) + 1) / ranks).mean())
    return torch.stack(values)


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
