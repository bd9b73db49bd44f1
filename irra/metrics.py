"""Retrieval metrics in percent: Rank-K (CMC), mAP and mINP, computed from the ranks of the matches."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RANKS = (1, 5, 10)
METRIC_NAMES = ("R1", "R5", "R10", "mAP", "mINP")


@dataclass(frozen=True)
class QueryScores:
    """Per query: rank of its first match, average precision and inverse negative penalty; all (Q,), float64."""

    first_rank: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]

    def metrics(self) -> dict[str, float]:
        """Means over the queries, in percent, keyed R1 R5 R10 mAP mINP."""
        columns = self.columns()
        return {name: float(100.0 * columns[:, i].mean()) for i, name in enumerate(METRIC_NAMES)}

    def columns(self) -> NDArray[np.float64]:
        """(Q, 5) contributions of each query to the metrics, in the order of METRIC_NAMES."""
        hits = [self.first_rank <= rank for rank in RANKS]
        return np.stack([*hits, self.average_precision, self.inverse_negative_penalty], axis=1).astype(np.float64)

    def cmc(self, max_rank: int) -> list[float]:
        """Share of queries, in percent, whose first match is at rank K or better, for K = 1..max_rank."""
        return [float(100.0 * np.mean(self.first_rank <= rank)) for rank in range(1, max_rank + 1)]


def retrieval_metrics(similarity: Tensor, query_pids: Tensor, gallery_pids: Tensor) -> dict[str, float]:
    """R1, R5, R10, mAP and mINP in percent of a full similarity matrix (Q, G); higher is more similar.

    AP = mean of i / r_i and INP = m / r_m over a query's m matches at ranks r_1 < ... < r_m (Ye et al., TPAMI 2021).
    ValueError when a query has no match in the gallery.
    """
    return query_scores(similarity, query_pids, gallery_pids).metrics()


def query_scores(similarity: Tensor, query_pids: Tensor, gallery_pids: Tensor) -> QueryScores:
    """Scores of each query from its row of `similarity` (Q, G); ValueError when one has no match."""
    ranks = match_ranks(similarity, query_pids, gallery_pids)
    matches = torch.isfinite(ranks).sum(dim=1)
    if bool((matches == 0).any()):
        pid = int(query_pids[int((matches == 0).nonzero()[0])])
        raise ValueError(f"query identity {pid} has no picture in the gallery")
    order = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)
    precision = (order / ranks).sum(dim=1) / matches  # padding is at rank infinity and adds 0
    last = ranks.gather(1, (matches - 1)[:, None])[:, 0]
    return QueryScores(ranks[:, 0].numpy(), precision.numpy(), (matches / last).numpy())


def match_ranks(similarity: Tensor, query_pids: Tensor, gallery_pids: Tensor) -> Tensor:
    """(Q, M) ranks of each query's matches, ascending, padded with infinity to the largest number of matches.

    A match's rank is 1 + the number of gallery entries that come before it: those that score higher, and those that
    score the same but stand earlier in the gallery, so that ties rank as in a stable sort. ValueError for NaN, which
    no rank is right for.
    """
    columns, valid = _match_columns(query_pids.to(similarity.device), gallery_pids.to(similarity.device))
    scores = similarity.gather(1, columns)
    ordered = similarity.sort(dim=1).values
    if bool(ordered[:, -1].isnan().any()):  # NaN sorts behind all numbers
        raise ValueError("a similarity is not a number, so it has no rank")
    not_above = torch.searchsorted(ordered, scores, right=True)
    ranks = similarity.shape[1] + 1 - not_above
    tied = not_above - torch.searchsorted(ordered, scores) > 1
    for row, slot in tied.nonzero().tolist():  # rare
        ranks[row, slot] += (similarity[row, : columns[row, slot]] == scores[row, slot]).sum()
    # not before they are on the CPU: Apple's devices have no float64
    return ranks.cpu().double().masked_fill(~valid.cpu(), torch.inf).sort(dim=1).values


def _match_columns(query_pids: Tensor, gallery_pids: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, M) gallery columns of each query's matches, and which of them are no padding."""
    order = torch.argsort(gallery_pids, stable=True)
    in_order = gallery_pids[order]
    start = torch.searchsorted(in_order, query_pids.contiguous())
    count = torch.searchsorted(in_order, query_pids.contiguous(), right=True) - start
    slot = torch.arange(max(1, int(count.max())), device=query_pids.device)
    valid = slot < count[:, None]
    return order[(start[:, None] + slot).clamp(max=len(order) - 1)], valid


def bootstrap_intervals(
    scores: QueryScores, query_pids: NDArray[np.int64], samples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """95% intervals of the metrics, in percent, by resampling identities, whose queries are not independent."""
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
