"""The approximate index of a large gallery: a graph of neighbours (HNSW, Malkov and Yashunin 2018) over 8-bit rows.

Chosen by measurement (benchmarks/search.py): over a million vectors of 512 dimensions it finds 99.9% of the best ten
in about a third of the time that inverted lists need for as many, and needs no training when pictures are added.
"""

from pathlib import Path
from typing import Any

import numpy as np

from irra.search.format import AGAIN
from irra.search.knn import Embeddings, Floats, Rows, load_faiss
from irra.utils.cores import available_cores
from irra.utils.errors import UserError
from irra.utils.progress import progress

LINKS = 32  # of a row to its neighbours, twice as many on the lowest level
EF_CONSTRUCTION = 160  # rows looked at to find a new row's neighbours: with 64, one of fifty is never found
EF_SEARCH = 512  # rows looked at to answer a query
TRAINING_ROWS = 65_536  # from which the range of every dimension's 8 bits is taken
ADD_ROWS = 16_384  # added at once: 33 MB as float32 at 512 dimensions
MAX_STALE_SHARE = 0.2  # of rows in the graph that have left the gallery, above which it is made anew


class GraphCandidates:
    """A graph in a file, memory-mapped. It knows rows by id; `ids` (N,) ascending are those still in the gallery."""

    def __init__(self, path: Path, ids: Rows) -> None:
        self._faiss = load_faiss()
        try:
            self._index = self._faiss.read_index(str(path), self._faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError:
            raise UserError(f"{path}: damaged; {AGAIN}") from None
        self._ids = ids

    def __call__(self, queries: Floats, count: int) -> Rows:
        """The best rows among `count` of the graph; -1 for those that have left the gallery."""
        parameters = self._faiss.SearchParametersHNSW(efSearch=max(count, EF_SEARCH))
        found = self._index.search(queries, count, params=parameters)[1]
        return rows_of(found, self._ids)


def write_graph(path: Path, embeddings: Embeddings, ids: Rows, previous: Path | None) -> None:
    """Write the graph of embeddings (N, D) with ascending ids (N,), continuing a previous one where that is possible.

    With more than one thread, the graph differs a little from one time to the next.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(min(faiss.omp_get_max_threads(), available_cores()))
    index = _continued(previous, ids) or _empty_graph(embeddings)
    known = faiss.vector_to_array(index.id_map)
    new = np.flatnonzero(~np.isin(ids, known))
    starts = range(0, len(new), ADD_ROWS)
    for start in progress(starts, "link neighbours", len(starts), "blocks"):
        rows = new[start : start + ADD_ROWS]
        index.add_with_ids(embeddings[rows].astype(np.float32), ids[rows])
    faiss.write_index(index, str(path))


def rows_of(found: Rows, ids: Rows) -> Rows:
    """Positions of the ids `found` in ascending `ids`, -1 for those that are not there."""
    rows = np.searchsorted(ids, found).clip(max=len(ids) - 1)
    return np.where(ids[rows] == found, rows, -1)


def _continued(previous: Path | None, ids: Rows) -> Any | None:
    """The previous graph, unless too many of its rows are gone: they cost time and hide others."""
    if previous is None:
        return None
    faiss = load_faiss()
    index = faiss.read_index(str(previous))
    known = faiss.vector_to_array(index.id_map)
    stale = len(known) - int(np.isin(known, ids).sum())
    return index if stale <= MAX_STALE_SHARE * len(ids) else None


def _empty_graph(embeddings: Embeddings) -> Any:
    faiss = load_faiss()
    index = faiss.index_factory(embeddings.shape[1], f"IDMap,HNSW{LINKS}_SQ8", faiss.METRIC_INNER_PRODUCT)
    faiss.ParameterSpace().set_index_parameter(index, "efConstruction", EF_CONSTRUCTION)
    index.train(embeddings[:: max(1, len(embeddings) // TRAINING_ROWS)].astype(np.float32))
    return index
