"""Ranking a gallery against queries in chunks, so that memory does not grow with queries x gallery."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from irra.metrics import QueryScores, gallery_order, query_scores

# Size of a float32 similarity block: 64 MB. malloc maps a block of this size on its own and returns it to the system
# when it is freed, while smaller ones fragment the heap.
CHUNK_ELEMENTS = 16_000_000


@dataclass(frozen=True)
class Ranking:
    """Scores of every query, and its `top_k` best gallery rows with their cosine similarities, both (Q, K)."""

    scores: QueryScores
    top: NDArray[np.int64]
    top_similarity: NDArray[np.float32]


def rank_gallery(
    query_features: Tensor, gallery_features: Tensor, query_pids: Tensor, gallery_pids: Tensor, top_k: int
) -> Ranking:
    """Rank all gallery rows (G, D) for each query (Q, D) by cosine similarity.

    Memory holds the similarities, order and matches of one chunk, about 0.6 GB, however large Q x G is.

    Raises:
        ValueError: A query has no match in the gallery.
    """
    queries, gallery = F.normalize(query_features, dim=1), F.normalize(gallery_features, dim=1)
    rows = max(1, CHUNK_ELEMENTS // len(gallery))
    chunks = [
        _rank_chunk(queries[start : start + rows] @ gallery.T, query_pids[start : start + rows], gallery_pids, top_k)
        for start in range(0, len(queries), rows)
    ]
    return Ranking(
        _concatenate([chunk.scores for chunk in chunks]),
        np.concatenate([chunk.top for chunk in chunks]),
        np.concatenate([chunk.top_similarity for chunk in chunks]),
    )


def _rank_chunk(similarity: Tensor, query_pids: Tensor, gallery_pids: Tensor, top_k: int) -> Ranking:
    order = gallery_order(similarity)
    top = order[:, :top_k].clone()  # a view would keep the whole order
    scores = query_scores(order, query_pids, gallery_pids)
    return Ranking(scores, top.cpu().numpy(), similarity.gather(1, top).cpu().numpy())


def _concatenate(parts: list[QueryScores]) -> QueryScores:
    return QueryScores(
        np.concatenate([part.first_rank for part in parts]),
        np.concatenate([part.average_precision for part in parts]),
        np.concatenate([part.inverse_negative_penalty for part in parts]),
    )
