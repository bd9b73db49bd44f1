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


@dataclass(frozen=True)
class GalleryCaptions:
    """Captions of the gallery's images, by which queries that are made of such captions find them too.

    The score of an image is (1 - weight) x its cosine with the query + weight x the cosine of the query with the mean
    of the unit features of its captions. A query must not find itself: the captions that it is made of do not count
    among those of their image. An image for which no caption is left is scored by its own cosine alone.

    Attributes:
        weight: That of the captions, from 0 to 1.
        means: (G, D) mean of the unit features of each image's captions, of any norm; zeros where there is none.
        own_rows: (Q,) image of the captions that each query is made of.
        own_means: (Q, D) like `means`, of that image's captions which are not in the query.
    """

    weight: float
    means: Tensor
    own_rows: Tensor
    own_means: Tensor

    @classmethod
    def of(cls, weight: float, captions: Tensor, images: Tensor, gallery: int, queries: Tensor) -> "GalleryCaptions":
        """Those of captions with features (C, D), each of the image in `images` (C,) among the `gallery`.

        Args:
            weight: That of the captions.
            captions: Features of any norm.
            images: Row in the gallery of each caption's image.
            gallery: Number of its images.
            queries: (P, 2) pairs of a query and a caption that it is made of, whose images are the same for each query.
        """
        unit = F.normalize(captions, dim=1).cpu()  # where sums have one order
        images, (query, caption) = images.cpu(), queries.cpu().T
        own_rows = torch.empty(int(query.max()) + 1, dtype=torch.long)
        own_rows[query] = images[caption]
        sums = torch.zeros(gallery, unit.shape[1], dtype=unit.dtype).index_add_(0, images, unit)
        own = sums[own_rows].index_add_(0, query, unit[caption], alpha=-1)
        left = torch.bincount(images, minlength=gallery)[own_rows] - torch.bincount(query)
        own[left == 0] = 0.0  # exactly, whatever rounding has left
        return cls(weight, sums.to(captions.device), own_rows, own.to(captions.device))

    def add_to(self, cosines: Tensor, queries: Tensor, rows: slice) -> Tensor:
        """The scores of queries (q, D), which are these `rows` of all, from `cosines` (q, G), which is changed."""
        described = self.means.any(dim=1).cpu() * self.weight
        norms = self.means.norm(dim=1, keepdim=True).clamp_min(EPSILON)
        number, own = torch.arange(len(queries)), self.own_rows[rows]
        image, means = cosines[number, own], self.own_means[rows]
        text, share = F.cosine_similarity(queries, means).cpu(), means.any(dim=1).cpu() * self.weight
        cosines.mul_(1 - described).add_(_cosines(queries, self.means, norms).mul_(described))
        cosines[number, own] = (1 - share) * image + share * text
        return cosines


def query_parts(images: NDArray[np.int64], sentences: int) -> NDArray[np.int64]:
    """Make each of the captions a query of several: it, and others of its image in their order, where there are others.

    Args:
        images: (C,) image of each caption.
        sentences: How many captions a query is made of, at most.

    Returns:
        (P, 2) pairs of a query, whose number is that of its first caption, and a caption that it is made of.
    """
    order = np.argsort(images, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(images[order])) + 1)
    pairs = [
        (query, caption)
        for group in map(np.ndarray.tolist, groups)
        for query in group
        for caption in [query, *(other for other in group if other != query)][:sentences]
    ]
    return np.array(sorted(pairs, key=lambda pair: pair[0]), np.int64).reshape(-1, 2)


def mean_queries(captions: Tensor, parts: Tensor) -> Tensor:
    """(Q, D) means of the unit features of the captions (C, D) that each query is made of, as `query_parts` says."""
    query, caption = parts.cpu().T
    unit = F.normalize(captions, dim=1).cpu()
    sums = torch.zeros(int(query.max()) + 1, unit.shape[1], dtype=unit.dtype).index_add_(0, query, unit[caption])
    return F.normalize(sums, dim=1).to(captions.device)


def rank_gallery(
    query_features: Tensor,
    gallery_features: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    top_k: int,
    captions: GalleryCaptions | None = None,
) -> Ranking:
    """Rank all gallery rows (G, D) for each query (Q, D) by cosine similarity; ties keep the order of the gallery.

    With `captions`, by the score that they add to. Memory holds the similarities of one chunk, about 0.5 GB (with
    captions 1 GB), however large Q and G are.

    Raises:
        ValueError: A similarity is NaN, or a query has no match in the gallery.
    """
    rows = max(1, CHUNK_ELEMENTS // len(gallery_features))
    norms = gallery_features.norm(dim=1, keepdim=True).clamp_min(EPSILON)
    chunks = []
    for start in range(0, len(query_features), rows):
        span = slice(start, start + rows)
        similarity = _cosines(query_features[span], gallery_features, norms)
        if captions:
            similarity = captions.add_to(similarity, query_features[span], span)
        chunks.append(_rank_chunk(similarity, query_pids[span], gallery_pids, top_k))
        del similarity  # before the next is made
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
