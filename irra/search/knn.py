"""Nearest neighbours by cosine similarity: FAISS proposes rows, whose exact scores are then computed and sorted."""

from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Embeddings = NDArray[np.float16] | NDArray[np.float32]
Rows = NDArray[np.int64]

SPARE = 16  # candidates beyond twice top_k, so that rounding in the index loses none
ROUNDING = 1e-5  # scores that differ by less may be in either order in the index
SCAN_SHARE = 10  # if candidates exceed a tenth of all rows, scoring all rows is as fast
SCANNED = 50_000  # so many rows that satisfy a condition are compared one by one, in 15 ms, rather than in the index
BLOCK = 8192  # rows whose scores are computed at once: 16 MB at 512 dimensions


class Candidates(Protocol):
    """An index of rows that finds nearly all of the best ones."""

    def __call__(self, queries: Floats, count: int, allowed: Rows | None = None) -> Rows:
        """About `count` rows for each unit vector of `queries` (Q, D), in any order; -1 where there are fewer.

        With `allowed`, only of these ascending rows.
        """


class Neighbours:
    """Searches the rows of `embeddings` (N, D), of unit norm, among those that `candidates` proposes.

    Scores are computed from the stored embeddings, whatever the index. Equal scores are ordered by row, as in a stable
    sort. Safe to use from several threads at once.
    """

    def __init__(self, embeddings: Embeddings, candidates: Candidates) -> None:
        self._embeddings = embeddings
        self._propose = candidates

    def search(self, queries: Floats, top_k: int, allowed: Rows | None = None) -> tuple[Floats, Rows]:
        """Scores and rows (Q, K) of the best, best first, for queries (Q, D) of any norm.

        With `allowed`, only these ascending rows are searched; K is the smaller of top_k and their number.
        """
        assert top_k >= 1
        assert queries.ndim == 2
        assert queries.shape[1] == self._embeddings.shape[1]
        size = len(self._embeddings) if allowed is None else len(allowed)
        top_k = min(top_k, size)
        queries = normalised(queries)
        scores, rows = np.empty((len(queries), top_k), np.float32), np.empty((len(queries), top_k), np.int64)
        if top_k == 0:
            return scores, rows
        count = _at_least(2 * top_k + SPARE, size)
        for number, candidates in enumerate(self._candidates(queries, count, allowed)):
            scores[number], rows[number] = self._best(queries[number], candidates, count, top_k, allowed)
        return scores, rows

    def _best(
        self, query: Floats, candidates: Rows, count: int, top_k: int, allowed: Rows | None
    ) -> tuple[Floats, Rows]:
        """The best of `candidates`, of which `count` were requested.

        More are requested if there are too few, or if rows as good as the last result may be missing.
        """
        size = len(self._embeddings) if allowed is None else len(allowed)
        rows = candidates[candidates >= 0]
        scores = score(self._embeddings, rows, query)
        order = np.lexsort((rows, -scores))
        last = scores[order[top_k - 1 :]]
        if count < size and (len(last) == 0 or last[-1] > last[0] - ROUNDING):
            count = _at_least(2 * count, size)
            found = self._candidates(query[None], count, allowed)[0]
            return self._best(query, found, count, top_k, allowed)
        return scores[order[:top_k]].clip(-1.0, 1.0), rows[order[:top_k]]

    def _candidates(self, queries: Floats, count: int, allowed: Rows | None) -> Rows:
        every = np.arange(len(self._embeddings)) if allowed is None else allowed
        if count == len(every):
            return np.broadcast_to(every, (len(queries), count))
        if allowed is None or len(allowed) > SCANNED:
            return self._propose(queries, count, allowed)
        return scan(self._embeddings, allowed, queries, count)


def _at_least(count: int, size: int) -> int:
    return count if count * SCAN_SHARE <= size else size


def scan(embeddings: Embeddings, allowed: Rows, queries: Floats, count: int) -> Rows:
    """The best `count` of the `allowed` rows for each of the queries (Q, D), in any order, up to rounding."""
    scores, rows = [], []
    for start in range(0, len(allowed), BLOCK):
        block = allowed[start : start + BLOCK]
        products, places = exact_index(embeddings[block]).search(queries, min(count, len(block)))
        scores.append(products)
        rows.append(block[places])
    best = np.argpartition(-np.concatenate(scores, axis=1), count - 1, axis=1)[:, :count]
    return np.take_along_axis(np.concatenate(rows, axis=1), best, axis=1)


def search_described(
    embeddings: Embeddings,
    means: Embeddings,
    weight: float,
    queries: Floats,
    top_k: int,
    allowed: Rows | None = None,
) -> tuple[Floats, Rows]:
    """Like `Neighbours.search`, by (1 - weight) x the score of a row + weight x that of the mean of its captions.

    All rows are compared. A row whose captions' mean in `means` (N, D) is zero counts with its own score alone.
    """
    rows = np.arange(len(embeddings)) if allowed is None else allowed
    share = (np.asarray(means.any(axis=1))[rows] * weight).astype(np.float32)
    found = []
    for query in normalised(queries):
        scores = (1 - share) * score(embeddings, rows, query) + share * score(means, rows, query)
        best = np.lexsort((rows, -scores))[:top_k]
        found.append((scores[best].clip(-1.0, 1.0), rows[best]))
    return np.stack([scores for scores, _ in found]), np.stack([best for _, best in found])


class ExactCandidates:
    """Compares a query with every row of a copy in memory, which is made on first use at the precision of the rows."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    def __call__(self, queries: Floats, count: int, allowed: Rows | None = None) -> Rows:
        """The best `count` rows, up to rounding."""
        parameters = load_faiss().SearchParameters(sel=None if allowed is None else selector(allowed))
        rows: Rows = self._index.search(queries, count, params=parameters)[1]
        return rows

    @cached_property
    def _index(self) -> Any:
        return exact_index(self._embeddings)


def exact_index(embeddings: Embeddings) -> Any:
    """A copy of embeddings (N, D) that FAISS compares with queries one by one, at the precision they have."""
    faiss, dimension = load_faiss(), embeddings.shape[1]
    if embeddings.dtype == np.float16:
        index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.add_sa_codes(embeddings.view(np.uint8))
    else:
        index = faiss.IndexFlatIP(dimension)
        index.add(embeddings)
    return index


def selector(ids: Rows) -> Any:
    """What restricts a search by FAISS to these ascending ids: a bit for each id, a hundred times as fast as a set."""
    bits = np.zeros(int(ids[-1]) + 1, np.bool_)
    bits[ids] = True
    return load_faiss().IDSelectorBitmap(np.packbits(bits, bitorder="little"))


def load_faiss() -> Any:
    """FAISS, imported on first use, and untyped because its type stubs are incomplete."""
    import faiss

    return faiss


def normalised(vectors: Floats) -> Floats:
    """Rows of unit norm; a row of zeros stays as it is."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit


def score(embeddings: Embeddings, rows: Rows, query: Floats) -> Floats:
    """Inner products (C,) of `rows` of `embeddings` with `query` (D,).

    They are summed row by row, since a matrix product may round equal rows differently, depending on their position.
    """
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    products = [(embeddings[block].astype(np.float32) * query).sum(axis=1) for block in blocks]
    return np.concatenate(products) if products else np.empty(0, np.float32)
