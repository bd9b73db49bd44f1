"""The objective: which losses, of which text, and the shortcut over chosen positions."""

from inspect import signature

import pytest
import torch
from torch import Tensor

from irra import losses
from irra.config import LOSSES, TrainConfig
from irra.config.train import COMPARING, WITH_TEMPERATURE
from irra.data.masking import place_chosen
from irra.model import IRRA
from irra.model.irra import Outputs
from irra.objective import compute_losses, objective
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


def placed(batch: dict[str, Tensor], width: int | None = None) -> dict[str, Tensor]:
    """Return the batch with the places of its masked words, as the loader adds them."""
    positions, slots = place_chosen((batch["mlm_labels"] != 0).numpy(), width)
    return batch | {"mlm_positions": torch.from_numpy(positions), "mlm_slots": torch.from_numpy(slots)}


@pytest.mark.parametrize("names", ["sdm", "itc", "cmpm", "id", "mlm", "sdm+mlm+id", "itc+id", "cmpm+mlm"])
def test_exactly_the_named_losses_and_their_sum_are_returned(model: IRRA, batch: dict[str, Tensor], names: str) -> None:
    values = compute_losses(model, batch, names.split("+"))
    assert set(values) == {*names.split("+"), "total"}
    parts = sum(values[name].item() for name in names.split("+"))
    assert values["total"].item() == pytest.approx(parts, rel=1e-5)


def test_the_configuration_knows_what_the_losses_look_at() -> None:
    looks_at = {name: set(signature(loss).parameters) for name, loss in losses.LOSSES.items()}
    assert {name for name, parameters in looks_at.items() if "image_features" in parameters} <= COMPARING
    assert {name for name, parameters in looks_at.items() if "logit_scale" in parameters} == WITH_TEMPERATURE


def test_logits_at_chosen_positions_equal_the_full_computation_with_gradients(
    model: IRRA, batch: dict[str, Tensor]
) -> None:
    weight = model.interaction.mlm_head.fc.weight
    outputs = model(placed(batch))
    chosen_loss = losses.mlm(outputs.token_logits, outputs.token_labels)
    chosen_gradients = torch.autograd.grad(chosen_loss, [weight, model.clip.token_embedding.weight])

    everywhere = torch.arange(16).expand(6, 16)
    text_tokens, image_tokens = model.text_tokens(batch["mlm_ids"]), model.image_tokens(batch["images"])
    full = model.interaction.mlm_head(model.interaction(text_tokens, image_tokens, everywhere))
    full_loss = losses.mlm(full.flatten(0, 1), batch["mlm_labels"].flatten())
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
    found, expected = small(placed(batch)), full(placed(batch))
    torch.testing.assert_close(found.token_logits, expected.token_logits[:, ids])
    assert [ids[i] for i in found.token_labels.tolist()] == expected.token_labels.tolist()


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
    accuracies = objective(model, batch, TrainConfig(loss_names="id+mlm")).named()
    assert accuracies["accuracy/id_image"].item() == pytest.approx(2 / 6)
    assert accuracies["accuracy/id_text"].item() == pytest.approx(2 / 6)


class Fixed(torch.nn.Module):
    """Gives the outputs that it was made with."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, batch: dict[str, Tensor]) -> Outputs:
        return self.outputs


def test_similarities_stay_float32_under_autocast(model: IRRA, batch: dict[str, Tensor]) -> None:
    fixed = Fixed(model(placed(batch)))
    exact = compute_losses(fixed, batch, ["sdm"])["sdm"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = compute_losses(fixed, batch, ["sdm"])["sdm"]
    assert torch.equal(exact, mixed)


def test_one_pass_of_the_text_encoder_serves_both_branches_as_two_do(model: IRRA, batch: dict[str, Tensor]) -> None:
    batch = placed(batch) | {"caption_ids": batch["mlm_ids"]}
    apart = model(batch)
    del batch["caption_ids"]
    shared = model(batch)
    torch.testing.assert_close(shared.text_features, apart.text_features)
    assert torch.equal(shared.token_logits, apart.token_logits)


def gradients(model: IRRA, batch: dict[str, Tensor], names: str) -> list[Tensor]:
    values = compute_losses(model, batch, names.split("+"), mask_global_text=False)
    return [*values.values(), *torch.autograd.grad(values["total"], list(model.parameters()))]


@pytest.mark.parametrize("names", ["sdm+mlm+id", "itc+id+mlm"])
@pytest.mark.parametrize("settings", [{"micro_batch": 4}, {"micro_batch": 1}, {"recompute": True}])
def test_less_memory_gives_equal_losses_and_gradients(
    batch: dict[str, Tensor], names: str, settings: dict[str, object]
) -> None:
    model = small_model().double()
    batch = placed(batch | {"images": batch["images"].double()}, width=5)
    expected = gradients(model, batch, names)
    for name, value in settings.items():
        setattr(model, name, value)
    for found, right in zip(gradients(model, batch, names), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_parts_of_a_batch_are_held_one_after_the_other(batch: dict[str, Tensor]) -> None:
    model, kept = small_model(), []
    batch = placed({name: value.repeat(4, *([1] * (value.ndim - 1))) for name, value in batch.items()})
    for model.micro_batch in (None, 4):
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x) or x, lambda x: x):
            model(batch)
        kept.append(sum(x.numel() for x in saved if not isinstance(x, torch.nn.Parameter)))
    assert kept[1] < 0.5 * kept[0]


def test_losses_of_no_samples_are_zero(model: IRRA) -> None:
    nothing = torch.empty(0, 12)
    assert losses.id_loss(nothing, nothing, torch.empty(0, dtype=torch.long)).item() == 0.0
    assert losses.mlm(nothing, torch.empty(0, dtype=torch.long)).item() == 0.0


def test_a_loss_is_handed_labels_parameters_and_outputs_by_their_names(
    model: IRRA, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asking(image_ids: Tensor, weight_decay: float, image_features: Tensor) -> Tensor:
        return image_ids.sum() + weight_decay + 0.0 * image_features.sum()

    monkeypatch.setitem(losses.LOSSES, "sdm", asking)
    assert compute_losses(model, batch, ["sdm"], weight_decay=0.5)["sdm"].item() == 14.5


def test_what_a_loss_asks_for_in_vain_is_named(
    model: IRRA, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.LOSSES, "sdm", lambda image_feature: image_feature.sum())
    with pytest.raises(AssertionError, match="the loss sdm asks for image_feature, "):
        compute_losses(model, batch, ["sdm"])


def test_every_loss_that_parameters_may_name_is_there() -> None:
    assert set(LOSSES) == set(losses.LOSSES)
