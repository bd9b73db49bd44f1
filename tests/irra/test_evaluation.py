"""Captions at test time, against slow loops over pairs; and that they change nothing where they are off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from irra import ranking as retrieval
from irra.config import EvaluateConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import SplitFeatures, encode_split, text_to_image, text_to_image_with_captions
from irra.metrics import query_scores
from irra.ranking import GalleryCaptions, mean_queries, query_parts
from tests.models import small_model

OWN = [0, 0, 0, 2, 1, 2, 3, 5, 5, 5, 5]  # the image of each caption; image 4 has none, images 1 and 3 have one


def features(own: list[int] = OWN, images: int = 6) -> SplitFeatures:
    """Random features of norms other than 1, and people with two images each."""
    generator, rows = torch.Generator().manual_seed(0), np.array(own)
    pids = np.arange(images) // 2
    return SplitFeatures(
        np.arange(images),
        np.arange(len(own)),
        pids,
        pids[rows],
        rows,
        3 * torch.randn(images, 8, generator=generator),
        5 * torch.randn(len(own), 8, generator=generator),
    )


def slow_parts(own: list[int], sentences: int) -> list[list[int]]:
    """The captions of each query: its own first, then the others of the image in their order."""
    parts = []
    for query, image in enumerate(own):
        chosen = [query]
        for caption, other in enumerate(own):
            if other == image and caption != query and len(chosen) < sentences:
                chosen.append(caption)
        parts.append(chosen)
    return parts


def slow_mean(vectors: list[Tensor]) -> Tensor | None:
    return F.normalize(torch.stack(vectors).mean(dim=0), dim=0) if vectors else None


def slow_scores(found: SplitFeatures, sentences: int, weight: float) -> Tensor:
    """(Q, G) scores, pair by pair."""
    captions, images = F.normalize(found.captions, dim=1), F.normalize(found.images, dim=1)
    own = found.own_rows.tolist()
    scores = torch.empty(len(captions), len(images))
    for query, parts in enumerate(slow_parts(own, sentences)):
        sentence = slow_mean([captions[part] for part in parts])
        assert sentence is not None
        for image in range(len(images)):
            cosine = sentence @ images[image]
            known = slow_mean([captions[c] for c, other in enumerate(own) if other == image and c not in parts])
            scores[query, image] = cosine if known is None else (1 - weight) * cosine + weight * sentence @ known
    return scores


@pytest.mark.parametrize("sentences", [1, 2, 3, 4, 9])
def test_a_query_is_its_caption_first_and_then_the_others_of_its_image(sentences: int) -> None:
    pairs = query_parts(np.array(OWN), sentences).tolist()
    assert pairs == [[query, part] for query, parts in enumerate(slow_parts(OWN, sentences)) for part in parts]


@pytest.mark.parametrize("sentences", [1, 2, 9])
def test_a_query_of_several_sentences_is_the_mean_of_their_unit_features(sentences: int) -> None:
    found, parts = features(), torch.from_numpy(query_parts(np.array(OWN), sentences))
    unit = F.normalize(found.captions, dim=1)
    expected = [slow_mean([unit[part] for part in chosen]) for chosen in slow_parts(OWN, sentences)]
    torch.testing.assert_close(mean_queries(found.captions, parts), torch.stack(expected))


@pytest.mark.parametrize("elements", [1, 13, 10_000], ids=["a query at once", "two", "all"])
@pytest.mark.parametrize(("sentences", "weight"), [(1, 0.3), (2, 0.0), (2, 0.3), (4, 0.7), (1, 1.0), (3, 1.0)])
def test_rankings_with_captions_are_those_of_a_loop_over_all_pairs(
    sentences: int, weight: float, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "CHUNK_ELEMENTS", elements)
    found, config = features(), EvaluateConfig(sentences=sentences, gallery_captions=weight, top_k=6)
    ranking, expected = text_to_image_with_captions(found, config), slow_scores(found, sentences, weight)
    pids = torch.from_numpy(found.caption_pids), torch.from_numpy(found.image_pids)
    assert ranking.scores.metrics() == pytest.approx(query_scores(expected, *pids).metrics())
    np.testing.assert_allclose(ranking.top_similarity, expected.sort(dim=1, descending=True).values, atol=1e-6)
    assert ranking.top.tolist() == expected.argsort(dim=1, descending=True).tolist()


def test_a_query_does_not_find_itself_among_the_captions_of_its_image() -> None:
    """Captions are orthogonal, so only a query that is compared with itself would have a similarity above 0."""
    own = np.array([0, 0, 1, 2])
    found = replace(features(own.tolist(), 3), captions=torch.eye(4, 8), images=-torch.eye(3, 8))
    ranking = text_to_image_with_captions(found, EvaluateConfig(gallery_captions=1.0, top_k=3))
    assert ranking.top_similarity.max() <= 0


def test_an_image_whose_only_caption_is_the_query_is_scored_by_itself() -> None:
    found = features([0, 1, 2, 3], 4)
    unit = F.normalize(found.captions, dim=1), F.normalize(found.images, dim=1)
    parts = torch.from_numpy(query_parts(found.own_rows, 1))
    captions = GalleryCaptions.of(0.9, found.captions, torch.arange(4), 4, parts)
    scores = captions.add_to(unit[0] @ unit[1].T, found.captions, slice(0, 4))
    torch.testing.assert_close(scores.diag(), (unit[0] * unit[1]).sum(dim=1))
    assert (scores - unit[0] @ unit[1].T).abs().fill_diagonal_(1.0).min() > 1e-3


def test_without_captions_every_ranking_is_as_before(store: PreparedStore, tokens: TokenStore) -> None:
    found = encode_split(small_model().eval(), store, tokens, "test", 3, "fp32")
    plain, off = text_to_image(found, 5), text_to_image_with_captions(found, EvaluateConfig(top_k=5))
    assert np.array_equal(plain.top_similarity, off.top_similarity)
    assert np.array_equal(plain.top, off.top)


def test_the_own_images_of_captions_are_rows_of_the_images(store: PreparedStore, tokens: TokenStore) -> None:
    found = encode_split(small_model().eval(), store, tokens, "test", 3, "fp32")
    own: NDArray[np.int64] = found.image_ids[found.own_rows]
    assert own.tolist() == store.caption_image_ids[found.caption_ids].tolist()
