"""Retrieval metrics against hand-computed values and a slow ranking."""

import numpy as np
import pytest
import torch

from irra import metrics as measures
from irra.metrics import METRIC_NAMES, bootstrap_intervals, match_ranks, query_scores, retrieval_metrics

INF = float("inf")


def slow_ranks(row: list[float], pid: int, gallery_pids: list[int]) -> list[int]:
    """Ranks of the matches after sorting the whole row in plain Python, ties in gallery order."""
    order = sorted(range(len(row)), key=lambda g: (-row[g], g))
    return [rank for rank, g in enumerate(order, 1) if gallery_pids[g] == pid]


def slow_metrics(similarity: list[list[float]], query_pids: list[int], gallery_pids: list[int]) -> dict[str, float]:
    """Walk down the ranking of every query."""
    totals = dict.fromkeys(METRIC_NAMES, 0.0)
    for row, pid in zip(similarity, query_pids, strict=True):
        ranks = slow_ranks(row, pid, gallery_pids)
        for k in (1, 5, 10):
            totals[f"R{k}"] += ranks[0] <= k
        totals["mAP"] += sum(i / rank for i, rank in enumerate(ranks, 1)) / len(ranks)
        totals["mINP"] += len(ranks) / ranks[-1]
    return {name: 100.0 * value / len(similarity) for name, value in totals.items()}


def test_hand_computed_example() -> None:
    # the matches of the only query are at ranks 1, 3 and 4
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]])
    metrics = retrieval_metrics(similarity, torch.tensor([1]), torch.tensor([1, 2, 1, 1, 2]))
    assert metrics["R1"] == 100.0
    assert metrics["mAP"] == pytest.approx(100 * (1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert metrics["mINP"] == pytest.approx(100 * 3 / 4)


def test_rank_k_counts_the_first_match_only() -> None:
    similarity = torch.arange(12.0, 0.0, -1.0)[None]
    pids = torch.tensor([0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0])
    metrics = retrieval_metrics(similarity, torch.tensor([1]), pids)
    assert [metrics["R1"], metrics["R5"], metrics["R10"]] == [0.0, 0.0, 100.0]


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_a_slow_ranking_with_ties_and_uneven_matches(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randint(0, 6, (40, 30), generator=generator).float() / 4  # many ties
    gallery = torch.cat([torch.arange(8), torch.randint(0, 8, (22,), generator=generator)])
    queries = torch.randint(0, 8, (40,), generator=generator)
    expected = slow_metrics(similarity.tolist(), queries.tolist(), gallery.tolist())
    assert retrieval_metrics(similarity, queries, gallery) == pytest.approx(expected)


def test_tied_matches_get_different_ranks() -> None:
    ranks = match_ranks(torch.ones(1, 4), torch.tensor([1]), torch.tensor([0, 1, 0, 1]))
    assert ranks.tolist() == [[2.0, 4.0]]


ROWS = {
    "distinct": lambda generator: torch.randn(40, 30, generator=generator),
    "many ties": lambda generator: torch.randint(0, 4, (40, 30), generator=generator).float(),
    "all equal": lambda generator: torch.full((40, 30), 0.3),
    "signed zeros": lambda generator: torch.tensor([0.0, -0.0]).repeat(40, 15),
    "infinities": lambda generator: torch.tensor([INF, 0.0, -INF])[torch.randint(0, 3, (40, 30), generator=generator)],
    "double precision": lambda generator: 1.0 + 1e-12 * torch.rand(40, 30, generator=generator, dtype=torch.float64),
}


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "sorted"])
@pytest.mark.parametrize("people", [1, 3, 30, 100], ids=["all match", "many matches", "few matches", "often no match"])
@pytest.mark.parametrize("kind", ROWS)
def test_ranks_equal_those_of_a_slow_sort(
    kind: str, people: int, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "SORTED_FROM", INF if counted else 0)
    generator = torch.Generator().manual_seed(people)
    similarity = ROWS[kind](generator)
    gallery, queries = (torch.randint(0, people, (n,), generator=generator) for n in (30, 40))
    ranks = match_ranks(similarity, queries, gallery).tolist()
    expected = map(lambda row, pid: slow_ranks(row, pid, gallery.tolist()), similarity.tolist(), queries.tolist())
    assert [[rank for rank in row if rank < INF] for row in ranks] == list(expected)


def test_query_without_a_match_is_named() -> None:
    with pytest.raises(ValueError, match="identity 7 has no picture"):
        retrieval_metrics(torch.zeros(2, 3), torch.tensor([1, 7]), torch.tensor([1, 1, 2]))


def test_a_similarity_that_is_not_a_number_gets_no_rank() -> None:
    similarity = torch.tensor([[0.1, 0.2], [INF, float("nan")]])
    with pytest.raises(ValueError, match="not a number"):
        retrieval_metrics(similarity, torch.tensor([1, 2]), torch.tensor([1, 2]))


def test_cmc_starts_at_r1_and_never_falls() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity, pids = torch.randn(50, 20, generator=generator), torch.arange(20)
    scores = query_scores(similarity, pids[torch.randint(0, 20, (50,), generator=generator)], pids)
    curve = scores.cmc(20)
    assert curve[0] == pytest.approx(scores.metrics()["R1"])
    assert curve == sorted(curve)
    assert curve[-1] == 100.0


def test_bootstrap_interval_of_independent_queries_is_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    people = 2000
    similarity = torch.from_numpy(np.where(rng.random((people, 1)) < 0.5, [1.0, 0.0], [0.0, 1.0]))
    pids = np.arange(people) + 1
    scores = query_scores(similarity[:, :2], torch.ones(people), torch.tensor([1, 0]))
    low, high = bootstrap_intervals(scores, pids, 2000, seed=0)["R1"]
    mean = scores.metrics()["R1"]
    half = 1.96 * 100 * 0.5 / people**0.5
    assert low == pytest.approx(mean - half, abs=0.3)
    assert high == pytest.approx(mean + half, abs=0.3)


def test_bootstrap_resamples_identities_not_queries() -> None:
    # ten people with 100 equal queries each: the interval is as wide as that of ten queries
    hits = np.repeat(np.arange(10) % 2 == 0, 100)
    similarity = torch.from_numpy(np.where(hits[:, None], [1.0, 0.0], [0.0, 1.0]))
    scores = query_scores(similarity, torch.ones(1000), torch.tensor([1, 0]))
    low, high = bootstrap_intervals(scores, np.repeat(np.arange(10), 100), 2000, seed=0)["R1"]
    assert high - low > 40
