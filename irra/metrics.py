"""Retrieval metrics in percent: Rank-K (CMC), mAP and mINP, computed from the ranks of the matches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # reports, which only need the names, need not wait for torch
    from torch import Tensor

RANKS = (1, 5, 10)
METRIC_NAMES = ("R1", "R5", "R10", "mAP", "mINP")


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
    return query_scores(gallery_order(similarity), query_pids, gallery_pids).metrics()


def gallery_order(similarity: "Tensor") -> "Tensor":
    """(Q, G) gallery rows for each query, most similar first; ties keep the order of the gallery.

    Raises:
        ValueError: A similarity is NaN and has no rank.
    """
    if bool(similarity.isnan().any()):
        raise ValueError("a similarity is not a number, so it cannot be ranked")
    return similarity.argsort(dim=1, descending=True, stable=True)


def query_scores(order: "Tensor", query_pids: "Tensor", gallery_pids: "Tensor") -> QueryScores:
    """Scores of each query, from its row of `order` (Q, G).

    Raises:
        ValueError: A query has no match in the gallery.
    """
    import torch

    ranks = match_ranks(order, query_pids, gallery_pids)
    matches = torch.isfinite(ranks).sum(dim=1)
    if bool((matches == 0).any()):
        pid = int(query_pids[int((matches == 0).nonzero()[0])])
        raise ValueError(f"query identity {pid} has no picture in the gallery")
    number = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)
    precision = (number / ranks).sum(dim=1) / matches  # padding has rank infinity and adds 0
    last = ranks.gather(1, (matches - 1)[:, None])[:, 0]
    return QueryScores(ranks[:, 0].numpy(), precision.numpy(), (matches / last).numpy())


def match_ranks(order: "Tensor", query_pids: "Tensor", gallery_pids: "Tensor") -> "Tensor":
    """(Q, M) ranks of each query's matches, ascending, padded with infinity to the largest number of matches."""
    import torch

    matches = gallery_pids.to(order.device)[order] == query_pids.to(order.device)[:, None]
    # on the CPU from here on: Apple's devices have no float64
    query, position = (x.cpu() for x in matches.nonzero(as_tuple=True))
    count = torch.bincount(query, minlength=len(order))
    slot = torch.arange(len(query)) - (count.cumsum(0) - count)[query]
    ranks = torch.full((len(order), max(1, int(count.max()))), torch.inf, dtype=torch.float64)
    ranks[query, slot] = position.double() + 1.0
    return ranks


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
