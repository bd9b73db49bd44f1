"""The approximate index of a large gallery: a graph of neighbours (HNSW, Malkov and Yashunin 2018) over 8-bit rows.

It was chosen by measurement (benchmarks/million.py). Among a million vectors of 512 dimensions, it finds 99.9% of the
best ten in about a third of the time that inverted lists need for the same recall, and it needs no training when
pictures are added.
"""

from pathlib import Path
from typing import Any

import numpy as np

from irra.search.format import AGAIN
from irra.search.knn import Embeddings, Floats, Rows, load_faiss, selector
from irra.utils.cores import available_cores
from irra.utils.errors import UserError
from irra.utils.progress import progress

LINKS = 32  # from a row to its neighbours; twice as many on the lowest level
EF_CONSTRUCTION = 160  # rows visited to find a new row's neighbours; with 64, one row in fifty is never found
EF_SEARCH = 512  # rows visited to answer a query
SELECTIVE = 0.1  # share of rows that satisfy a condition, below which more rows are visited to find enough that do
TRAINING_ROWS = 65_536  # that determine the range of each dimension's 8 bits
ADD_ROWS = 16_384  # added at once: 33 MB as float32 at 512 dimensions
MAX_STALE_SHARE = 0.2  # of removed pictures among the graph's rows, above which it is rebuilt


class GraphCandidates:
    """A graph file, memory-mapped. It stores ids instead of rows; `ids` (N,), ascending, are those in the gallery.

    Raises:
        UserError: The file is damaged.
    """

    def __init__(self, path: Path, ids: Rows) -> None:
        self._faiss = load_faiss()
        try:
            self._index = self._faiss.read_index(str(path), self._faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError:
            raise UserError(f"{path}: damaged; {AGAIN}") from None
        self._ids = ids

    def __call__(self, queries: Floats, count: int, allowed: Rows | None = None) -> Rows:
        """Rows of the best `count` entries of the graph; -1 for pictures that are no longer in the gallery."""
        visited, selected = EF_SEARCH, None
        if allowed is not None:
            visited = round(EF_SEARCH * max(1.0, SELECTIVE * len(self._ids) / len(allowed)))
            selected = selector(self._ids[allowed])
        parameters = self._faiss.SearchParametersHNSW(efSearch=max(count, visited), sel=selected)
        found = self._index.search(queries, count, params=parameters)[1]
        return rows_of(found, self._ids)


def write_graph(path: Path, embeddings: Embeddings, ids: Rows, previous: Path | None) -> None:
    """Write the graph of embeddings (N, D) with ascending ids (N,), extending a `previous` one if possible.

    With more than one thread, the graph differs slightly between runs.
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
    """Positions of the ids `found` in the ascending `ids`; -1 for those that are not in it."""
    rows = np.searchsorted(ids, found).clip(max=len(ids) - 1)
    return np.where(ids[rows] == found, rows, -1)


def _continued(previous: Path | None, ids: Rows) -> Any | None:
    """The previous graph, or None if too many of its rows are stale, which cost time and hide others."""
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
