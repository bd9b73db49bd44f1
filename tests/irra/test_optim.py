"""Parameter groups and schedules, to the published number."""

import math

import pytest
import torch

from irra.config import TrainConfig, load_params
from irra.optim import build_optimizer, group_of, learning_rates, parameter_groups, temperature
from tests.conftest import ROOT
from tests.models import small_model


@pytest.fixture(scope="module")
def published() -> TrainConfig:
    return load_params(ROOT / "presets" / "cuhk-pedes.yaml").train


def test_temperature_falls_geometrically_and_is_constant_without_a_start(published: TrainConfig) -> None:
    falling = published.model_copy(update={"temperature": 0.05, "temperature_start": 0.2, "num_epoch": 3})
    assert [temperature(falling, done) for done in (0, 1, 2)] == pytest.approx([0.2, 0.1, 0.05])
    assert temperature(published, 0) == temperature(published, 59) == 0.02


def test_temperature_between_epochs_lies_between_theirs_and_the_last_epoch_keeps_its_own(
    published: TrainConfig,
) -> None:
    falling = published.model_copy(update={"temperature": 0.05, "temperature_start": 0.2, "num_epoch": 3})
    assert temperature(falling, 0.5) == pytest.approx(math.sqrt(0.2 * 0.1))
    assert temperature(falling, 2.75) == 0.05


def test_groups_have_the_published_rates_and_decays(published: TrainConfig) -> None:
    groups = {
        group["name"]: (group["lr"], group["weight_decay"]) for group in parameter_groups(small_model(), published)
    }
    assert groups == {
        "default": (1e-5, 4e-5),
        "new": (pytest.approx(5e-5), 4e-5),
        "bias": (2e-5, 0.0),
        "new_bias": (pytest.approx(5e-5), 0.0),
    }


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("clip.visual.conv1.weight", "default"),
        ("clip.visual.ln_pre.bias", "bias"),
        ("clip.transformer.resblocks.0.attn.in_proj_bias", "bias"),
        ("interaction.cross_attn.in_proj_weight", "new"),
        ("interaction.cross_attn.in_proj_bias", "bias"),
        ("interaction.cross_modal_transformer.resblocks.0.ln_1.weight", "new"),
        ("interaction.cross_modal_transformer.resblocks.0.mlp.c_fc.bias", "bias"),
        ("interaction.ln_pre_t.weight", "default"),
        ("interaction.ln_post.weight", "default"),
        ("interaction.mlm_head.ln.weight", "new"),
        ("interaction.mlm_head.fc.bias", "new_bias"),
        ("classifier.weight", "new"),
        ("classifier.bias", "new_bias"),
    ],
)
def test_later_rules_win(name: str, group: str) -> None:
    assert group_of(name, small_model().part_of_parameters()[name]) == group


def test_a_new_module_must_say_how_it_is_trained() -> None:
    model = small_model()
    model.local_head = torch.nn.Linear(4, 4)
    with pytest.raises(AssertionError, match=r"local_head\.weight, local_head\.bias"):
        model.part_of_parameters()


def test_every_parameter_is_in_exactly_one_group(published: TrainConfig) -> None:
    model = small_model()
    grouped = [id(p) for group in parameter_groups(model, published) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_a_model_without_heads_has_no_empty_groups(published: TrainConfig) -> None:
    groups = parameter_groups(small_model(num_classes=None, cmt_depth=None), published)
    assert {group["name"] for group in groups} == {"default", "bias"}


@pytest.mark.parametrize(
    ("epoch", "rate"), [(1, 1.0e-6), (2, 2.8e-6), (3, 4.6e-6), (4, 6.4e-6), (5, 8.2e-6), (6, 10.0e-6), (60, 8.15e-9)]
)
def test_published_schedule(published: TrainConfig, epoch: int, rate: float) -> None:
    assert learning_rates(published, epoch - 1)["default"] == pytest.approx(rate, rel=1e-3)
    assert learning_rates(published, epoch - 1)["new"] == pytest.approx(5 * rate, rel=1e-3)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("step", [1.0, 1.0, 0.1, 0.01]),
        ("exp", [1.0, 0.9 ** (9 / 54), 0.9 ** (30 / 54), 0.9 ** (53 / 54)]),
        ("linear", [1.0, 1 - 9 / 54, 1 - 30 / 54, 1 - 53 / 54]),
        ("poly", [0.9, 0.9 ** (1 - 9 / 54), 0.9 ** (1 - 30 / 54), 0.9 ** (1 - 53 / 54)]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * done / 54)) for done in (0, 9, 30, 53)]),
    ],
)
def test_every_mode_after_warm_up(published: TrainConfig, mode: str, expected: list[float]) -> None:
    config = published.model_copy(update={"lrscheduler": mode, "warmup_epochs": 6, "milestones": [20, 50]})
    rates = [learning_rates(config, done)["default"] / config.lr for done in (6, 15, 36, 59)]
    assert rates == pytest.approx(expected)


def test_constant_warm_up_keeps_its_factor(published: TrainConfig) -> None:
    config = published.model_copy(update={"warmup_method": "constant"})
    assert [learning_rates(config, done)["default"] for done in (0, 4)] == pytest.approx([1e-6, 1e-6])
    assert learning_rates(config, 5)["default"] == pytest.approx(1e-5)


TBPS_CLIP = {
    **{"lr": 1e-4, "warmup_factor": 0.01, "warmup_epochs": 1, "num_epoch": 5, "target_lr": 5e-6},
    **{"weight_decay": 0.02, "decay_vectors": False, "bias_lr_factor": 1.0, "optimizer": "AdamW", "alpha": 0.9},
    **{"beta": 0.98, "eps": 1e-8, "schedule_unit": "step"},
}


@pytest.mark.parametrize(
    ("step", "rate"),  # as the released code has them, with 212 steps an epoch
    [(0, 1e-6), (212, 1e-4), (213, 9.9999674e-5), (500, 7.54326296e-5), (635, 5.26759732e-5), (1059, 5.00032597e-6)],
)
def test_tbps_clip_s_schedule_by_step(published: TrainConfig, step: int, rate: float) -> None:
    config = published.model_copy(update=TBPS_CLIP)
    assert learning_rates(config, step / 212)["default"] == pytest.approx(rate, rel=1e-7)


def test_a_warm_up_by_step_is_a_straight_line_that_ends_one_step_after_tbps_clip_s(published: TrainConfig) -> None:
    config = published.model_copy(update=TBPS_CLIP)
    ours = [learning_rates(config, step / 212)["default"] for step in range(213)]
    assert ours == pytest.approx([1e-6 + 99e-6 * step / 212 for step in range(213)])
    released = [1e-6 + 99e-6 * step / 211 for step in range(212)]
    assert max(abs(a - b) for a, b in zip(ours, released, strict=False)) < 5e-7


def test_whole_epochs_have_the_same_rates_as_numbers_of_either_kind(published: TrainConfig) -> None:
    for mode in ("cosine", "step", "exp", "poly", "linear"):
        config = published.model_copy(update={"lrscheduler": mode, "target_lr": 1e-7})
        assert all(learning_rates(config, done) == learning_rates(config, float(done)) for done in range(60))


def test_all_groups_end_at_the_same_target(published: TrainConfig) -> None:
    config = published.model_copy(update={"target_lr": 3e-6, "warmup_epochs": 0})
    assert list(learning_rates(config, 60).values()) == pytest.approx([3e-6] * 4)


def test_weight_decay_spares_what_tbps_clip_s_code_spares(published: TrainConfig) -> None:
    model = small_model()
    groups = parameter_groups(model, published.model_copy(update=TBPS_CLIP))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        spared = p.ndim < 2 or any(part in name for part in ("bias", "ln", "bn"))
        assert decay[id(p)] == (0.0 if spared else 0.02), name
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates["vector"] == rates["default"]
    assert rates["new_vector"] == rates["new"] == 5 * rates["default"]


def test_every_group_has_a_rate(published: TrainConfig) -> None:
    for config in (published, published.model_copy(update=TBPS_CLIP)):
        assert {group["name"] for group in parameter_groups(small_model(), config)} == set(learning_rates(config, 0))


def test_frozen_parameters_are_not_optimised(published: TrainConfig) -> None:
    model = small_model()
    model.clip.visual.conv1.weight.requires_grad_(False)
    grouped = {id(p) for group in parameter_groups(model, published) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters()} - {id(model.clip.visual.conv1.weight)}


@pytest.mark.parametrize(("name", "kind"), [("Adam", "Adam"), ("AdamW", "AdamW"), ("SGD", "SGD")])
def test_optimizers_by_name(published: TrainConfig, name: str, kind: str) -> None:
    optimizer = build_optimizer(small_model(), published.model_copy(update={"optimizer": name}))
    assert type(optimizer).__name__ == kind
    assert len(optimizer.param_groups) == 4


def test_one_group_per_pair_steps_as_one_group_per_tensor(published: TrainConfig) -> None:
    grouped, single = small_model(), small_model()
    ours = build_optimizer(grouped, published)
    rules = {group["name"]: group for group in parameter_groups(single, published)}
    parts = single.part_of_parameters()

    def rule(name: str) -> dict[str, float]:
        return {key: rules[group_of(name, parts[name])][key] for key in ("lr", "weight_decay")}

    theirs = torch.optim.Adam(
        [{"params": [p], **rule(name)} for name, p in single.named_parameters()],
        betas=(0.9, 0.999),
        eps=1e-3,
    )
    for optimizer, model in ((ours, grouped), (theirs, single)):
        for _ in range(2):
            optimizer.zero_grad()
            sum(p.square().sum() for p in model.parameters()).backward()
            optimizer.step()
    for (name, a), b in zip(grouped.named_parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
