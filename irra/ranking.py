"""Ranking a gallery against queries in chunks, so that memory does not grow with queries x gallery."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from irra.metrics import QueryScores, query_scores

CHUNK_ELEMENTS = 100_000_000  # of the similarities held at once: 0.4 GB
TILE = 4096  # gallery rows normalised at once: 8 MB at 512 dimensions, so that they are still in the cache when used
EPSILON = 1e-12  # the least norm, as in F.normalize


@dataclass(frozen=True)
class Ranking:
    """Scores of every query, and its `top_k` best gallery rows with their cosine similarities, both (Q, K)."""

    scores: QueryScores
    top: NDArray[np.int64]
    top_similarity: NDArray[np.float32]


def rank_gallery(
    query_features: Tensor, gallery_features: Tensor, query_pids: Tensor, gallery_pids: Tensor, top_k: int
) -> Ranking:
    """Rank all gallery rows (G, D) for each query (Q, D) by cosine similarity; ties keep the order of the gallery.

    Memory holds the similarities of one chunk, about 0.5 GB, however large Q and G are.

    Raises:
        ValueError: A similarity is NaN, or a query has no match in the gallery.
    """
    rows = max(1, CHUNK_ELEMENTS // len(gallery_features))
    norms = gallery_features.norm(dim=1, keepdim=True).clamp_min(EPSILON)
    chunks = [
        _rank_chunk(_cosines(chunk, gallery_features, norms), pids, gallery_pids, top_k)
        for chunk, pids in zip(torch.split(query_features, rows), torch.split(query_pids, rows), strict=True)
    ]
    return Ranking(
        _concatenate([chunk.scores for chunk in chunks]),
        np.concatenate([chunk.top for chunk in chunks]),
        np.concatenate([chunk.top_similarity for chunk in chunks]),
    )


def _cosines(queries: Tensor, gallery: Tensor, norms: Tensor) -> Tensor:
    """(Q, G) cosine similarities on the CPU, without a normalised copy of the whole gallery of these `norms` (G, 1)."""
    queries = F.normalize(queries, dim=1)
    cosines = torch.empty(len(queries), len(gallery), dtype=queries.dtype)
    for start in range(0, len(gallery), TILE):
        tile = slice(start, start + TILE)
        cosines[:, tile] = queries @ (gallery[tile] / norms[tile]).T
    return cosines


def _rank_chunk(similarity: Tensor, query_pids: Tensor, gallery_pids: Tensor, top_k: int) -> Ranking:
    scores = query_scores(similarity, query_pids, gallery_pids)
    top = best_rows(similarity, top_k)
    return Ranking(scores, top, np.take_along_axis(similarity.numpy(), top, axis=1))


def best_rows(similarity: Tensor, top_k: int) -> NDArray[np.int64]:
    """(Q, min(top_k, G)) best gallery rows by `similarity` (Q, G) without NaN, best first, ties in gallery order."""
    top_k = min(top_k, similarity.shape[1])
    least = similarity.topk(top_k).values[:, -1]  # which of its ties are among the best is for us to say
    best = np.empty((len(similarity), top_k), np.int64)
    for query, (row, threshold) in enumerate(zip(similarity.numpy(), least.numpy(), strict=True)):
        candidates = np.flatnonzero(row >= threshold)
        best[query] = candidates[np.argsort(-row[candidates], kind="stable")[:top_k]]
    return best


def _concatenate(parts: list[QueryScores]) -> QueryScores:
    return QueryScores(
        np.concatenate([part.first_rank for part in parts]),
        np.concatenate([part.average_precision for part in parts]),
        np.concatenate([part.inverse_negative_penalty for part in parts]),
    )
