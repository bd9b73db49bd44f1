"""Losses against hand-computed values and slow loops."""

import math
from collections.abc import Callable

import numpy as np
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


def slow_tal(similarity: list[list[float]], pids: list[int], tau: float, margin: float) -> list[float]:
    """TAL of each row, one element at a time, with sums of exponentials in Python's numbers."""
    found = []
    for row, pid in zip(similarity, pids, strict=True):
        positives = [value for value, other in zip(row, pids, strict=True) if other == pid]
        negatives = [value for value, other in zip(row, pids, strict=True) if other != pid]
        weights = [math.exp(value / tau) for value in positives]
        positive = sum(w * value for w, value in zip(weights, positives, strict=True)) / sum(weights)
        negative = tau * math.log(sum(math.exp(value / tau) for value in negatives))
        found.append(max(0.0, margin - positive + negative))
    return found


def test_tal_equals_a_slow_loop(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, pids = features
    rows = cosine(text, image)
    both = (slow_tal(matrix.tolist(), pids.tolist(), 0.05, 0.1) for matrix in (rows, rows.T))
    expected = [text_first + image_first for text_first, image_first in zip(*both, strict=True)]
    assert losses.tal(image, text, pids, 0.05, 0.1).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_tal_does_not_overflow_where_exponentials_would() -> None:
    image, text, pids = torch.eye(3) + 0.5, torch.ones(3, 3), torch.tensor([0, 1, 2])
    exact = losses.tal(image.double(), text.double(), pids, 1e-4, 0.1)
    assert losses.tal(image, text, pids, 1e-4, 0.1).tolist() == pytest.approx(exact.tolist(), rel=1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_tal_of_one_identity_is_zero_and_so_is_its_gradient(size: int) -> None:
    image = torch.eye(size, 4, requires_grad=True)
    losses.tal(image, torch.ones(size, 4), torch.zeros(size, dtype=torch.long), 0.015, 0.1).sum().backward()
    assert image.grad is not None
    assert image.grad.tolist() == torch.zeros(size, 4).tolist()


def test_tal_pulls_at_constant_weights(features: tuple[Tensor, Tensor, Tensor]) -> None:
    """The gradient is that of the sum whose positives have the weights that they have now."""
    image, text, pids = features
    leaf = image.double().requires_grad_()
    similarity = F.normalize(text.double(), dim=1) @ F.normalize(leaf, dim=1).T
    matches = pids[:, None] == pids[None, :]
    total = torch.tensor(0.0, dtype=torch.float64)
    for matrix in (similarity, similarity.T):
        for row, mask in zip(matrix, matches, strict=True):
            weights = torch.tensor((row[mask] / 0.05).softmax(0).tolist())
            term = 0.1 - (weights * row[mask]).sum() + 0.05 * torch.logsumexp(row[~mask] / 0.05, 0)
            total = total + term.clamp(min=0)
    (expected,) = torch.autograd.grad(total, leaf)
    (found,) = torch.autograd.grad(losses.tal(leaf, text.double(), pids, 0.05, 0.1).sum(), leaf)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_nitc_equals_a_slow_loop(features: tuple[Tensor, Tensor, Tensor], alpha: float) -> None:
    image, text, pids = features
    logits, total = 5.0 * cosine(image, text), 0.0
    for matrix in (logits, logits.T):
        for row, pid in zip(matrix.double().tolist(), pids.tolist(), strict=True):
            norm, matches = sum(map(math.exp, row)), int((pids == pid).sum())
            for value, other in zip(row, pids.tolist(), strict=True):
                p = math.exp(value) / norm
                total -= ((1 - alpha) * (other == pid) / matches + alpha * p) * math.log(p) / 12
    assert losses.nitc(image, text, pids, 5.0, alpha).item() == pytest.approx(total, rel=1e-4)


def test_no_gradient_flows_through_the_soft_part_of_nitc(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, pids = features
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.nitc(leaf, text, pids, 5.0, 1.0), leaf)
    assert gradient.abs().max().item() == pytest.approx(0.0, abs=1e-6)  # a softmax that is its own target


def test_citc_equals_a_slow_loop(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, _ = features
    ii, tt, it = cosine(image, image).tolist(), cosine(text, text).tolist(), cosine(image, text).tolist()
    pairs = [(a, b) for a in range(6) for b in range(6)]
    total = sum((ii[a][b] - tt[a][b]) ** 2 + (it[a][b] - it[b][a]) ** 2 for a, b in pairs)
    assert losses.citc(image, text).item() == pytest.approx(total / 36 / 4, rel=1e-4)


def test_a_larger_epsilon_softens_what_sdm_asks_of_pairs_that_do_not_match(
    features: tuple[Tensor, Tensor, Tensor],
) -> None:
    image, text, pids = features
    p = (5.0 * cosine(text, image)).double()
    matching = (pids[:, None] == pids[None, :]).double()
    q = matching / matching.sum(1, keepdim=True)
    expected = sum(float((m.softmax(1) * (m.log_softmax(1) - torch.log(q + 1e-2))).sum(1).mean()) for m in (p, p.T))
    assert losses.sdm(image, text, pids, 5.0, epsilon=1e-2).item() == pytest.approx(expected, rel=1e-4)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


PIDS = torch.tensor([3, 0, 1, 3, 2, 1, 4, 0, 5, 1, 6, 5])
TBPS_PIDS = torch.tensor([0, 1, 0, 2, 3, 1, 0, 4])
# Value, and norms of the gradients of images and of texts, by the released codes of RDE (b3fd396) and TBPS-CLIP
# (ba090bc), run on a CPU in float32 on features drawn from these seeds.
RECORDED: dict[str, tuple[Callable[..., Tensor], tuple[float, float, float]]] = {
    "tal": (lambda i, t: losses.tal(i, t, PIDS, 0.015, 0.1).sum(), (7.92908621, 1.4157337, 1.5103953)),
    "trl": (lambda i, t: losses.trl(i, t, PIDS, 0.015, 0.1).sum(), (7.90584326, 1.4320766, 1.5255015)),
    "sdm": (lambda i, t: 12 * losses.sdm(i, t, PIDS, 50.0), (391.78775, 62.8712851, 51.227027)),
    "nitc": (lambda i, t: losses.nitc(i, t, TBPS_PIDS, 14.2857143, 0.25), (2.70177722, 0.7084882, 0.6887827)),
    "ritc": (lambda i, t: losses.sdm(i, t, TBPS_PIDS, 50.0, epsilon=0.01) / 2, (1.96561885, 1.2942578, 1.1170091)),
    "citc": (lambda i, t: losses.citc(i, t) / 10, (0.00497065205, 0.00143126217, 0.00142961906)),
}


@pytest.mark.parametrize("name", RECORDED)
def test_values_and_gradients_are_those_of_the_released_codes(name: str) -> None:
    loss, expected = RECORDED[name]
    if name in ("tal", "trl", "sdm"):
        image, text = normal(100, 12, 32), normal(101, 12, 32)
    else:
        image = normal(160, 8, 16)
        text = 0.5 * image + 0.87 * normal(161, 8, 16)
    image, text = image.requires_grad_(), text.requires_grad_()
    value = loss(image, text)
    norms = [gradient.norm().item() for gradient in torch.autograd.grad(value, (image, text))]
    assert [value.item(), *norms] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["tal", "trl", "nitc", "citc", "sdm"])
def test_gradients_are_finite_differences_in_float64(name: str) -> None:
    """Of six people with one pair each, since weights of several matches are held constant, as is N-ITC's soft part."""
    image, text, pids = normal(1, 6, 5).double(), normal(2, 6, 5).double(), torch.arange(6)
    calls: dict[str, Callable[..., Tensor]] = {
        "tal": lambda i, t: losses.tal(i, t, pids, 0.05, 0.3),
        "trl": lambda i, t: losses.trl(i, t, pids, 0.05, 0.3),
        "nitc": lambda i, t: losses.nitc(i, t, pids, 5.0, 0.0),
        "citc": losses.citc,
        "sdm": lambda i, t: losses.sdm(i, t, pids, 5.0, epsilon=1e-2),
    }
    assert torch.autograd.gradcheck(calls[name], (image.requires_grad_(), text.requires_grad_()))


def test_trl_equals_a_slow_loop(features: tuple[Tensor, Tensor, Tensor]) -> None:
    image, text, pids = features
    expected = torch.zeros(len(pids))
    for matrix in (cosine(text, image), cosine(text, image).T):
        for anchor, row in enumerate(matrix):
            same = pids == pids[anchor]
            positive = ((row[same] / 0.05).softmax(0) * row[same]).sum()
            hardest = max(0.0, *row[~same].tolist())
            expected[anchor] += max(0.0, 0.1 - positive.item() + hardest)
    assert losses.trl(image, text, pids, 0.05, 0.1).tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)
