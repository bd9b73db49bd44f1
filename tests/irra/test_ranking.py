"""Chunked ranking equals ranking the whole matrix at once."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from irra import ranking as retrieval
from irra.metrics import QueryScores, query_scores
from irra.ranking import best_rows, rank_gallery


def slow_top(similarity: torch.Tensor, top_k: int) -> list[list[int]]:
    """The best columns of each row after sorting it in plain Python, ties in their order."""
    return [sorted(range(len(row)), key=lambda g: (-row[g], g))[:top_k] for row in similarity.tolist()]


@pytest.mark.parametrize("tile", [1, 8, 100])
@pytest.mark.parametrize("elements", [1, 35, 100, 10_000])
def test_chunks_and_tiles_of_any_size_give_the_same_ranking(
    elements: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(n, 8, generator=generator) for n in (60, 35))
    gallery_pids, query_pids = torch.arange(35) % 7, torch.arange(60) % 7
    similarity = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    monkeypatch.setattr(retrieval, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(retrieval, "TILE", tile)
    ranking = rank_gallery(queries, gallery, query_pids, gallery_pids, top_k=10)
    expected = query_scores(similarity, query_pids, gallery_pids)
    assert ranking.scores.metrics() == pytest.approx(expected.metrics(), abs=1e-9)
    assert ranking.top.tolist() == slow_top(similarity, 10)
    np.testing.assert_allclose(ranking.top_similarity, similarity.topk(10).values.numpy(), rtol=1e-6)


@pytest.mark.parametrize("top_k", [1, 7, 29, 30, 31])
@pytest.mark.parametrize("values", [1, 3, 1000], ids=["all equal", "many ties", "few ties"])
def test_the_best_rows_are_those_of_a_slow_sort(values: int, top_k: int) -> None:
    similarity = torch.randint(0, values, (50, 30), generator=torch.Generator().manual_seed(0)).float()
    assert best_rows(similarity, top_k).tolist() == slow_top(similarity, top_k)


def test_infinite_similarities_are_best_and_worst() -> None:
    similarity = torch.tensor([[-torch.inf, 0.0, torch.inf, -torch.inf, torch.inf]])
    assert best_rows(similarity, 4).tolist() == [[2, 4, 1, 0]]


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_features_of_any_norm_have_the_cosines_of_unit_vectors(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(4, 8, generator=generator), torch.randn(9, 8, generator=generator) * scale
    ranking = rank_gallery(queries, gallery, torch.zeros(4), torch.zeros(9), top_k=9)
    cosines = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    assert np.array_equal(ranking.top_similarity, cosines.sort(dim=1, descending=True).values.numpy())


def test_top_holds_gallery_rows_best_first() -> None:
    gallery = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    ranking = rank_gallery(torch.tensor([[0.1, 5.0]]), gallery, torch.tensor([0]), torch.tensor([0, 1, 0]), top_k=3)
    assert ranking.top.tolist() == [[1, 2, 0]]
    assert ranking.scores.first_rank.tolist() == [2.0]


def test_top_k_larger_than_the_gallery_gives_the_whole_gallery() -> None:
    ranking = rank_gallery(torch.ones(2, 3), torch.eye(3), torch.tensor([0, 0]), torch.tensor([0, 0, 0]), top_k=10)
    assert ranking.top.shape == (2, 3)


def test_ties_stand_in_the_top_as_in_the_ranks() -> None:
    gallery = torch.eye(2).repeat(40, 1)
    ranking = rank_gallery(torch.tensor([[0.0, 1.0]]), gallery, torch.tensor([7]), torch.arange(80), top_k=40)
    assert ranking.top.tolist() == [list(range(1, 80, 2))]
    assert ranking.top[0].tolist().index(7) + 1 == ranking.scores.first_rank[0]


def test_the_similarities_of_one_chunk_alone_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[weakref.ref[Any]] = []

    def watched_scores(similarity: torch.Tensor, *pids: torch.Tensor) -> QueryScores:
        assert [block for block in blocks if block() is not None] == []
        blocks.append(weakref.ref(similarity))
        return query_scores(similarity, *pids)

    monkeypatch.setattr(retrieval, "CHUNK_ELEMENTS", 40)
    monkeypatch.setattr(retrieval, "query_scores", watched_scores)
    features, pids = torch.eye(20), torch.arange(20)
    rank_gallery(features, features, pids, pids, top_k=10)
    assert len(blocks) == 10
