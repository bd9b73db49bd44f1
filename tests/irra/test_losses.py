"""Losses against hand-computed values and slow loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from irra import losses


@pytest.fixture
def features() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image, text = torch.randn(6, 8, generator=generator), torch.randn(6, 8, generator=generator)
    return image, text, torch.tensor([5, 5, 7, 9, 9, 9])


def slow_kl(logits: Tensor, q: Tensor) -> float:
    """KL(p || q), one element at a time."""
    total = 0.0
    for row, target in zip(logits.double().tolist(), q.double().tolist(), strict=True):
        norm = sum(math.exp(value) for value in row)
        for value, goal in zip(row, target, strict=True):
            p = math.exp(value) / norm
            total += p * (math.log(p) - math.log(goal + 1e-8))
    return total / len(logits)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.tensor([[float(F.cosine_similarity(x, y, dim=0)) for y in b] for x in a])


def test_sdm_of_one_pair_is_zero() -> None:
    one = torch.ones(1, 4)
    assert losses.sdm(one, one, torch.tensor([0]), 50.0).item() == pytest.approx(0.0, abs=1e-6)


def test_sdm_by_hand_for_two_identities() -> None:
    # cosines are 1 on the diagonal and 0 beside it; p = softmax([1, 0]), q = [1, 0]
    eye = torch.eye(2)
    p = 1 / (1 + math.exp(-1))
    expected = 2 * (p * (math.log(p) - math.log(1 + 1e-8)) + (1 - p) * (math.log(1 - p) - math.log(1e-8)))
    assert losses.sdm(eye, eye, torch.tensor([0, 1]), 1.0).item() == pytest.approx(expected, rel=1e-5)


def test_sdm_equals_a_slow_loop(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, pids = features
    q = torch.zeros(6, 6)
    for i in range(6):
        for j in range(6):
            q[i, j] = float(pids[i] == pids[j]) / int((pids == pids[i]).sum())
    logits = 50.0 * cosine(text, image)
    expected = slow_kl(logits, q) + slow_kl(logits.T, q)
    assert losses.sdm(image, text, pids, 50.0).item() == pytest.approx(expected, rel=1e-4)


def test_soft_labels_weigh_another_image_of_the_person_less_and_normalise_rows(
    features: tuple[Tensor, Tensor, Tensor],
) -> None:
    image, text, pids = features
    image_ids = torch.tensor([0, 0, 1, 2, 2, 3])  # row sums differ, so that only the right axis gives row sums of 1
    q = torch.zeros(6, 6)
    for i in range(6):
        for j in range(6):
            q[i, j] = 1.0 if image_ids[i] == image_ids[j] else 0.3 if pids[i] == pids[j] else 0.0
        q[i] /= q[i].sum()
    logits = 50.0 * cosine(text, image)
    expected = slow_kl(logits, q) + slow_kl(logits.T, q)
    assert losses.sdm(image, text, pids, 50.0, image_ids).item() == pytest.approx(expected, rel=1e-4)


def test_itc_is_the_mean_of_both_cross_entropies(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, _ = features
    logits = 20.0 * cosine(image, text)
    expected = sum(-math.log(torch.softmax(m, dim=1)[i, i]) for m in (logits, logits.T) for i in range(6)) / 12
    assert losses.itc(image, text, 20.0).item() == pytest.approx(expected, rel=1e-4)


def test_id_loss_of_uniform_logits_is_log_classes() -> None:
    zeros = torch.zeros(4, 11003)
    assert losses.id_loss(zeros, zeros, torch.tensor([0, 1, 2, 3])).item() == pytest.approx(9.306, abs=1e-3)


def test_id_loss_is_the_mean_of_both_modalities() -> None:
    sure, unsure = torch.tensor([[100.0, 0.0]]), torch.zeros(1, 2)
    assert losses.id_loss(sure, unsure, torch.tensor([0])).item() == pytest.approx(math.log(2) / 2)


def test_mlm_ignores_label_zero() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 0, 6, 0])
    expected = F.cross_entropy(logits[[1, 3]], labels[[1, 3]])
    assert losses.mlm(logits, labels).item() == pytest.approx(expected.item())


def test_cmpm_equals_a_slow_loop(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, pids = features
    q = torch.zeros(6, 6)
    for i in range(6):
        for j in range(6):
            q[i, j] = float(pids[i] == pids[j]) / math.sqrt(int((pids == pids[i]).sum()))
    image_to_text = torch.stack([torch.stack([x @ (y / y.norm()) for y in text]) for x in image])
    text_to_image = torch.stack([torch.stack([y @ (x / x.norm()) for x in image]) for y in text])
    expected = slow_kl(image_to_text, q) + slow_kl(text_to_image, q)
    assert losses.cmpm(image, text, pids).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_sdm_and_itc_do_not_depend_on_the_norm_of_features(
    features: tuple[Tensor, Tensor, Tensor], scale: float
) -> None:
    image, text, pids = features
    assert losses.sdm(scale * image, text, pids, 50.0).item() == pytest.approx(
        losses.sdm(image, text, pids, 50.0).item(), rel=1e-3
    )
    assert losses.itc(image, scale * text, 50.0).item() == pytest.approx(losses.itc(image, text, 50.0).item(), rel=1e-3)
