"""The objective: which losses, of which text, and the shortcut over chosen positions."""

import pytest
import torch
from torch import Tensor

from irra import losses
from irra.model import IRRA
from irra.objective import compute_losses, encode, mlm_logits, objective
from tests.irra.test_model import token_rows
from tests.models import small_model


@pytest.fixture
def model() -> IRRA:
    return small_model()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    ids = token_rows(6, 16, 12)
    labels = torch.zeros_like(ids)
    labels[:, 1:3] = ids[:, 1:3]
    masked = torch.where(labels > 0, 49405, ids)
    return {
        "images": torch.randn(6, 3, 64, 32),
        "caption_ids": ids[:, :12],
        "mlm_ids": masked,
        "mlm_labels": labels,
        "pids": torch.tensor([0, 0, 1, 2, 3, 3]),
        "image_ids": torch.tensor([0, 1, 2, 3, 4, 4]),
    }


@pytest.mark.parametrize("names", ["sdm", "itc", "cmpm", "id", "mlm", "sdm+mlm+id", "itc+id", "cmpm+mlm"])
def test_exactly_the_named_losses_and_their_sum_are_returned(model: IRRA, batch: dict[str, Tensor], names: str) -> None:
    values = compute_losses(model, batch, names.split("+"))
    assert set(values) == {*names.split("+"), "total"}
    parts = sum(values[name].item() for name in names.split("+"))
    assert values["total"].item() == pytest.approx(parts, rel=1e-5)


def test_logits_at_chosen_positions_equal_the_full_computation_with_gradients(
    model: IRRA, batch: dict[str, Tensor]
) -> None:
    weight = model.interaction.mlm_head.fc.weight
    features = encode(model, batch, True, True)
    chosen_loss = losses.mlm(*mlm_logits(model, features, batch["mlm_labels"]))
    chosen_gradients = torch.autograd.grad(chosen_loss, [weight, model.clip.token_embedding.weight])

    features = encode(model, batch, True, True)
    everywhere = torch.ones_like(batch["mlm_labels"], dtype=torch.bool)
    full = model.interaction.mlm_head(model.interaction(features.mlm_tokens, features.image_tokens, everywhere))
    full_loss = losses.mlm(full, batch["mlm_labels"].flatten())
    full_gradients = torch.autograd.grad(full_loss, [weight, model.clip.token_embedding.weight])

    torch.testing.assert_close(chosen_loss, full_loss)
    for chosen, expected in zip(chosen_gradients, full_gradients, strict=True):
        torch.testing.assert_close(chosen, expected)


def test_a_head_over_some_tokens_equals_the_full_one_without_the_others(batch: dict[str, Tensor]) -> None:
    labels = batch["mlm_labels"]
    ids = sorted({0, *labels.flatten().tolist(), 77, 4711})
    full, small = small_model(), small_model(mlm_ids=ids)
    weights = full.state_dict()
    for name in ("interaction.mlm_head.fc.weight", "interaction.mlm_head.fc.bias"):
        weights[name] = weights[name][ids]
    small.load_state_dict(weights)
    logits, classes = mlm_logits(small, encode(small, batch, True, True), labels)
    expected, tokens = mlm_logits(full, encode(full, batch, True, True), labels)
    torch.testing.assert_close(logits, expected[:, ids])
    assert [ids[i] for i in classes.tolist()] == tokens.tolist()


def test_mask_global_text_feeds_the_masked_caption_to_sdm(model: IRRA, batch: dict[str, Tensor]) -> None:
    image, pids = model.encode_image(batch["images"]), batch["pids"]
    masked = losses.sdm(image, model.encode_text(batch["mlm_ids"]), pids, model.logit_scale)
    clean = losses.sdm(image, model.encode_text(batch["caption_ids"]), pids, model.logit_scale)
    as_released = compute_losses(model, batch, ["sdm", "mlm"], mask_global_text=True)["sdm"]
    as_in_paper = compute_losses(model, batch, ["sdm", "mlm"], mask_global_text=False)["sdm"]
    torch.testing.assert_close(as_released, masked)
    torch.testing.assert_close(as_in_paper, clean)
    assert masked.item() != pytest.approx(clean.item())


def test_without_mlm_the_global_losses_see_the_clean_caption(model: IRRA, batch: dict[str, Tensor]) -> None:
    clean = model.encode_text(batch["caption_ids"])
    expected = losses.sdm(model.encode_image(batch["images"]), clean, batch["pids"], model.logit_scale)
    torch.testing.assert_close(compute_losses(model, batch, ["sdm"], mask_global_text=True)["sdm"], expected)


def test_weights_scale_id_and_mlm_alone(model: IRRA, batch: dict[str, Tensor]) -> None:
    one = compute_losses(model, batch, ["sdm", "mlm", "id"])
    scaled = compute_losses(model, batch, ["sdm", "mlm", "id"], id_loss_weight=2.0, mlm_loss_weight=0.5)
    assert scaled["sdm"].item() == pytest.approx(one["sdm"].item())
    assert scaled["id"].item() == pytest.approx(2.0 * one["id"].item())
    assert scaled["mlm"].item() == pytest.approx(0.5 * one["mlm"].item())


def test_soft_labels_change_sdm_where_a_person_has_two_images(model: IRRA, batch: dict[str, Tensor]) -> None:
    hard, soft = (compute_losses(model, batch, ["sdm"], soft_labels=value)["sdm"].item() for value in (False, True))
    assert hard != pytest.approx(soft)


def test_accuracies_count_right_predictions(model: IRRA, batch: dict[str, Tensor]) -> None:
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()[0] = 1.0  # always class 0, right for two of six
    features = encode(model, batch, True, True)
    accuracies = objective(model, features, batch, ["id", "mlm"], False, 1.0, 1.0).accuracies
    assert accuracies["id_image"].item() == pytest.approx(2 / 6)
    assert accuracies["id_text"].item() == pytest.approx(2 / 6)


def test_similarities_stay_float32_under_autocast(model: IRRA, batch: dict[str, Tensor]) -> None:
    features = encode(model, batch, False, True)
    exact = objective(model, features, batch, ["sdm"], False, 1.0, 1.0).losses["sdm"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = objective(model, features, batch, ["sdm"], False, 1.0, 1.0).losses["sdm"]
    assert torch.equal(exact, mixed)
