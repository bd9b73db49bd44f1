"""Retrieval metrics in percent: Rank-K (CMC), mAP and mINP, computed from the ranks of the matches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # reports need these scores without torch, which takes a second to import
    from torch import Tensor

RANKS = (1, 5, 10)
METRIC_NAMES = ("R1", "R5", "R10", "mAP", "mINP")

# A query of more matches has its gallery sorted, which takes as long as counting for 65 matches among 3,000 gallery
# rows, and for 300 among 20,000.
SORTED_FROM = 64


@dataclass(frozen=True)
class QueryScores:
    """For each query: rank of the first match, average precision, inverse negative penalty; all (Q,) float64."""

    first_rank: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]

    def metrics(self) -> dict[str, float]:
        """Means over the queries, in percent, keyed R1, R5, R10, mAP and mINP."""
        columns = self.columns()
        return {name: float(100.0 * columns[:, i].mean()) for i, name in enumerate(METRIC_NAMES)}

    def columns(self) -> NDArray[np.float64]:
        """(Q, 5) contribution of each query to each metric, in the order of METRIC_NAMES."""
        hits = [self.first_rank <= rank for rank in RANKS]
        return np.stack([*hits, self.average_precision, self.inverse_negative_penalty], axis=1).astype(np.float64)

    def cmc(self, max_rank: int) -> list[float]:
        """Percentage of queries whose first match is at rank K or better, for K = 1..max_rank."""
        return [float(100.0 * np.mean(self.first_rank <= rank)) for rank in range(1, max_rank + 1)]


def retrieval_metrics(similarity: "Tensor", query_pids: "Tensor", gallery_pids: "Tensor") -> dict[str, float]:
    """R1, R5, R10, mAP and mINP, in percent, of a full similarity matrix (Q, G); higher is more similar.

    AP = mean of i / r_i and INP = m / r_m over a query's m matches at ranks r_1 < ... < r_m (Ye et al., TPAMI 2021).

    Raises:
        ValueError: A similarity is NaN, or a query has no match in the gallery.
    """
    return query_scores(similarity, query_pids, gallery_pids).metrics()


def query_scores(similarity: "Tensor", query_pids: "Tensor", gallery_pids: "Tensor") -> QueryScores:
    """Scores of each query, from its row of `similarity` (Q, G).

    Raises:
        ValueError: A similarity is NaN, or a query has no match in the gallery.
    """
    import torch

    ranks = match_ranks(similarity, query_pids, gallery_pids)
    matches = torch.isfinite(ranks).sum(dim=1)
    if bool((matches == 0).any()):
        pid = int(query_pids[int((matches == 0).nonzero()[0])])
        raise ValueError(f"query identity {pid} has no picture in the gallery")
    number = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)
    precision = (number / ranks).sum(dim=1) / matches  # padding has rank infinity and adds 0
    last = ranks.gather(1, (matches - 1)[:, None])[:, 0]
    return QueryScores(ranks[:, 0].numpy(), precision.numpy(), (matches / last).numpy())


def match_ranks(similarity: "Tensor", query_pids: "Tensor", gallery_pids: "Tensor") -> "Tensor":
    """(Q, M) ranks of each query's matches, ascending, padded with infinity to the largest number of matches.

    They are those of a stable sort of `similarity` (Q, G), most similar first: ties keep the order of the gallery.

    Raises:
        ValueError: A similarity is NaN and has no rank.
    """
    import torch

    if bool(similarity.amax(dim=1).isnan().any()):  # NaN is the largest value of a row that has one
        raise ValueError("a similarity is not a number, so it cannot be ranked")
    pids = gallery_pids.cpu().numpy()
    rows = zip(similarity.cpu().numpy(), query_pids.tolist(), strict=True)
    ranks = [np.sort(_ranks_of(np.flatnonzero(pids == pid), row)) for row, pid in rows]
    padded = np.full((len(ranks), max(map(len, ranks), default=0)), np.inf)
    for query, known in enumerate(ranks):
        padded[query, : len(known)] = known
    return torch.from_numpy(padded)


def _ranks_of(matches: NDArray[np.int64], row: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rank of each of the gallery rows `matches` among the similarities of `row` (G,)."""
    if len(matches) > SORTED_FROM:
        ranks = np.empty(len(row), np.int64)
        ranks[np.argsort(-row, kind="stable")] = np.arange(1, len(row) + 1)
        return ranks[matches]
    # before a match stand those earlier in the gallery that are as similar, and those later that are more similar
    before = [np.count_nonzero(row[:k] >= row[k]) + np.count_nonzero(row[k:] > row[k]) for k in matches.tolist()]
    return np.array(before, np.int64) + 1


def bootstrap_intervals(
    scores: QueryScores, query_pids: NDArray[np.int64], samples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95% intervals of the metrics, in percent.

    Identities are resampled rather than queries, since the queries of one identity are not independent.
    """
    columns = scores.columns()
    _, person = np.unique(query_pids, return_inverse=True)
    people = int(person.max()) + 1
    sums = np.zeros((people, columns.shape[1]))
    np.add.at(sums, person, columns)
    queries = np.bincount(person, minlength=people)
    weights = np.random.default_rng(seed).multinomial(people, np.full(people, 1.0 / people), size=samples)
    means = 100.0 * (weights @ sums) / (weights @ queries)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(METRIC_NAMES)}
