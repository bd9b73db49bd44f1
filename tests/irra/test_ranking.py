"""Chunked ranking equals ranking the whole matrix at once."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from irra import ranking as retrieval
from irra.metrics import gallery_order, query_scores
from irra.ranking import rank_gallery


@pytest.mark.parametrize("elements", [1, 100, 10_000])
def test_chunks_of_any_size_give_the_same_ranking(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randn(n, 8, generator=generator) for n in (60, 35))
    gallery_pids, query_pids = torch.arange(35) % 7, torch.arange(60) % 7
    similarity = F.normalize(queries, dim=1) @ F.normalize(gallery, dim=1).T
    monkeypatch.setattr(retrieval, "CHUNK_ELEMENTS", elements)
    ranking = rank_gallery(queries, gallery, query_pids, gallery_pids, top_k=10)
    expected = query_scores(gallery_order(similarity), query_pids, gallery_pids)
    assert ranking.scores.metrics() == pytest.approx(expected.metrics(), abs=1e-9)
    assert ranking.top.tolist() == gallery_order(similarity)[:, :10].tolist()
    np.testing.assert_allclose(ranking.top_similarity, similarity.topk(10).values.numpy(), rtol=1e-6)


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


def test_the_order_of_one_chunk_alone_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[weakref.ref[Any]] = []

    def watched_order(similarity: torch.Tensor) -> torch.Tensor:
        assert [order for order in orders if order() is not None] == []
        memory = gallery_order(similarity).numpy().copy()
        orders.append(weakref.ref(memory))
        return torch.from_numpy(memory)

    monkeypatch.setattr(retrieval, "CHUNK_ELEMENTS", 40)
    monkeypatch.setattr(retrieval, "gallery_order", watched_order)
    features, pids = torch.eye(20), torch.arange(20)
    rank_gallery(features, features, pids, pids, top_k=10)
    assert len(orders) == 10
