"""The training loop: it learns, it is deterministic, it resumes exactly, and it stops before harm is done."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from irra.checkpoint import StateFolder
from irra.config import TrainConfig
from irra.data.augment import normalise
from irra.data.loader import DROPOUT, TrainingData, seed_of
from irra.data.masking import END_ID
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import encode_split, image_to_text, text_to_image
from irra.objective import compute_losses
from irra.optim import learning_rates, temperature
from irra.trainer import NonFiniteLoss, Trainer
from irra.utils.errors import Interrupted, UserError
from tests.models import small_model
from tests.trainers import CPU, Meets, Quiet, make_trainer, train


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    return train_config.model_copy(update={"lr": 1e-3, "log_period": 1})


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_one_batch_is_overfitted(store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path) -> None:
    trainer = make_trainer(store, tokens, config.model_copy(update={"img_aug": False}), tmp_path)
    batch = next(trainer.data.batches(1, 0, CPU))
    first = compute_losses(trainer.model, batch, config.losses, mask_global_text=False)
    for _ in range(120):
        values = compute_losses(trainer.model, batch, config.losses, mask_global_text=False)
        trainer.optimizer.zero_grad()
        values["total"].backward()
        trainer.optimizer.step()
    assert values["sdm"].item() < 0.05 * first["sdm"].item()
    assert values["mlm"].item() < 0.05 * first["mlm"].item()
    assert values["id"].item() < 0.5 * first["id"].item()


def test_equal_seeds_give_equal_weights_and_history(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    (one, first), (other, second) = (train(store, tokens, config, tmp_path / name) for name in ("one", "other"))
    assert_equal(weights(one), weights(other))
    assert first == second


@pytest.mark.parametrize("stop_at", [2, 6, 7, 13])
def test_stopped_by_a_signal_and_started_again_equals_never_stopped(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, stop_at: int
) -> None:
    whole, expected = train(store, tokens, config, tmp_path / "whole")
    with pytest.raises(Interrupted) as stopped:
        train(store, tokens, config, tmp_path / "cut", Meets(stop_at))
    assert stopped.value.code == 128 + signal.SIGTERM
    resumed, state = train(store, tokens, config, tmp_path / "cut")
    assert_equal(weights(whole), weights(resumed))
    assert state == expected


VARIED = {
    **{"schedule_unit": "step", "temperature_start": 0.2, "freeze_patches": True, "decay_vectors": False},
    **{"text_dropout": 0.1, "txt_aug": "rde", "img_transforms": "tbps-clip", "loss_names": "itc"},
}


def test_a_training_that_varies_in_every_step_resumes_as_if_never_stopped(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update=VARIED)
    whole, expected = train(store, tokens, config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(store, tokens, config, tmp_path / "cut", Meets(8))
    resumed, state = train(store, tokens, config, tmp_path / "cut")
    assert_equal(weights(whole), weights(resumed))
    assert state == expected


def test_a_schedule_by_step_is_set_before_each_and_logged_for_the_last_of_a_window(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    changes = {"schedule_unit": "step", "temperature_start": 0.2, "log_period": 2, "loss_names": "itc"}
    config = config.model_copy(update=changes)

    seen = []

    class Observed(Trainer):
        def step(self, batch: dict[str, Tensor]) -> None:
            seen.append((self.optimizer.param_groups[0]["lr"], 1.0 / self.model.logit_scale))
            super().step(batch)

    state = make_trainer(store, tokens, config, tmp_path, kind=Observed).fit(Quiet())
    done = [step / 6 for step in range(18)]
    expected = [(learning_rates(config, x)["default"], temperature(config, x)) for x in done]
    assert seen == [pytest.approx(pair) for pair in expected]
    assert len(set(expected)) == 18
    logged = [(row["lr/default"], row["temperature"]) for row in state.history]
    assert logged == [pytest.approx(pair) for pair in expected[1::2]]


def test_frozen_patches_keep_their_weights(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    trainer = make_trainer(
        store, tokens, config.model_copy(update={"freeze_patches": True, "loss_names": "itc"}), tmp_path
    )
    before = weights(trainer)
    trainer.step(next(trainer.rest_of_epoch()))
    kept = {name for name, value in weights(trainer).items() if torch.equal(value, before[name])}
    assert {name for name in kept if name.startswith("clip.")} == {"clip.visual.conv1.weight"}


@pytest.fixture
def dropping(store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path) -> Trainer:
    return make_trainer(store, tokens, config.model_copy(update={"text_dropout": 0.3}), tmp_path)


def text_gradients(trainer: Trainer) -> list[Tensor]:
    """Text features with dropout of fixed random numbers, and their gradients."""
    batch = next(trainer.data.batches(1, 0, CPU))
    torch.manual_seed(3)
    features = trainer.model.train()({name: batch[name] for name in ("images", "caption_ids")}).text_features
    weights = list(trainer.model.clip.transformer.parameters())
    return [features, *torch.autograd.grad(features[:, ::2].square().sum(), weights)]


def test_dropout_is_the_same_where_blocks_are_computed_again(dropping: Trainer) -> None:
    expected = text_gradients(dropping)
    dropping.model.recompute = True
    for found, right in zip(text_gradients(dropping), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_dropout_is_the_same_in_both_passes_of_a_part(dropping: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    dropping.model.micro_batch = 3
    found = text_gradients(dropping)
    monkeypatch.setattr("irra.model.irra.checkpoint", lambda encode, part, use_reentrant: encode(part))
    for one, right in zip(found, text_gradients(dropping), strict=True):
        torch.testing.assert_close(one, right)


def test_dropout_is_drawn_anew_in_each_step_from_the_run_s_seed(dropping: Trainer) -> None:
    dropping.config = dropping.config.model_copy(update={"loss_names": "itc"})
    for step, batch in enumerate(dropping.rest_of_epoch()):
        dropping.step(batch)
        assert torch.initial_seed() == seed_of(dropping.config.seed, 1, step, DROPOUT, 0)


def test_dropout_is_in_the_text_encoder_alone_and_in_no_validation(dropping: Trainer, store: PreparedStore) -> None:
    images = normalise(torch.from_numpy(store.pixels(store.image_ids("val"))))
    ids = torch.from_numpy(dropping.data.tokens.caption_ids[:4].astype(np.int64))
    plain = small_model(dropping.config.seed)
    expected = plain.encode_image(images), plain.encode_text(ids)
    dropping.model.train()
    torch.testing.assert_close(dropping.model.encode_image(images), expected[0])
    assert not torch.allclose(dropping.model.encode_text(ids), expected[1], atol=1e-3)
    torch.testing.assert_close(dropping.model.eval().encode_text(ids), expected[1])


class StopsInValidation(Trainer):
    """Gets a SIGTERM in its first validation."""

    def validate(self) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the validation went on")


def test_stopped_in_a_validation_goes_on_with_it_and_equals_never_stopped(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    whole, expected = train(store, tokens, config, tmp_path / "whole")
    with pytest.raises(Interrupted, match="143") as stopped:
        make_trainer(store, tokens, config, tmp_path / "cut", kind=StopsInValidation).fit(Quiet())
    assert "stopped in the validation after epoch 1" in stopped.value.message
    reporter = Quiet()
    resumed, state = train(store, tokens, config, tmp_path / "cut", reporter)
    assert reporter.steps[0] == 7, "the steps of the first epoch are not repeated"
    assert reporter.epochs == [1, 2, 3]
    assert_equal(weights(whole), weights(resumed))
    assert state == expected


def test_windows_that_a_stop_cuts_keep_their_means(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"log_period": 4, "checkpoint_minutes": 1e-9})  # a state after every step
    _, expected = train(store, tokens, config, tmp_path / "whole")

    class Killed(Exception):
        pass

    class Dies(Quiet):
        def epoch(self, row: Mapping[str, float], epoch: int) -> None:
            raise Killed

    with pytest.raises(Killed):
        train(store, tokens, config, tmp_path / "cut", Dies())
    _, state = train(store, tokens, config, tmp_path / "cut")
    assert state.history == expected.history


def test_the_best_epoch_s_weights_are_kept(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    _, state = train(store, tokens, config, tmp_path)
    best = max(row["R1"] for row in state.validation)
    assert state.validation[state.best_epoch - 1]["R1"] == best
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{state.best_epoch:04d}.safetensors"]


def test_every_window_and_every_epoch_is_reported(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    reporter = Quiet()
    _, state = train(store, tokens, config.model_copy(update={"log_period": 4}), tmp_path, reporter)
    assert reporter.steps == [4, 6, 10, 12, 16, 18]  # six steps an epoch: every fourth, and the last
    assert reporter.epochs == [1, 2, 3]
    assert [row["epoch"] for row in state.history][-1] == 3.0
    assert {"loss/total", "loss/sdm", "accuracy/mlm", "lr/default"} <= set(state.history[0])


def test_learning_rates_follow_the_schedule(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    _, state = train(store, tokens, config, tmp_path)
    assert state.history[0]["lr/default"] == pytest.approx(config.lr * config.warmup_factor)
    assert state.history[-1]["lr/default"] == pytest.approx(config.lr * 0.5)  # cosine, halfway through two epochs


@pytest.mark.parametrize("name", ["id", "mlm"])
def test_non_finite_loss_stops_before_the_optimizer_moves(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, name: str
) -> None:
    trainer = make_trainer(store, tokens, config, tmp_path)
    with torch.no_grad():
        bias = {"id": trainer.model.classifier.bias, "mlm": trainer.model.interaction.mlm_head.fc.bias}[name]
        bias[3] = float("nan")
    before = weights(trainer)
    with pytest.raises(NonFiniteLoss, match=rf"epoch 1, step 1: {name}, total is not finite"):
        trainer.fit(Quiet())
    after = weights(trainer)
    assert all(torch.equal(before[key].nan_to_num(), after[key].nan_to_num()) for key in before)


class Spoilt(Trainer):
    """One of its losses is not finite in a step in the middle of a window."""

    def step(self, batch: dict[str, Tensor]) -> None:
        """Run a step, the third of which sees no picture."""
        if self.state.step == 2:
            self.before = weights(self)
            batch = batch | {"images": batch["images"] * torch.nan}
        super().step(batch)


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        ("fp32", "Adam"),
        ("fp32", "AdamW"),
        ("fp32", "SGD"),
        ("bf16", "Adam"),
        ("fp16", "Adam"),
        ("fp16", "SGD"),
        ("fp16-weights", "Adam"),
    ],
)
def test_nothing_moves_from_the_step_of_a_non_finite_loss_on(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, precision: str, optimizer: str
) -> None:
    config = config.model_copy(update={"log_period": 50, "precision": precision, "optimizer": optimizer, "eps": 1e-3})
    trainer = make_trainer(store, tokens, config, tmp_path, kind=Spoilt)
    with pytest.raises(NonFiniteLoss, match="epoch 1, step 3: sdm, mlm, id, total is not finite"):
        trainer.fit(Quiet())
    assert_equal(trainer.before, weights(trainer))
    assert not list(tmp_path.iterdir()), "no state of it is written"


class AsksForValues(TorchDispatchMode):
    """Records operations whose result depends on values of a tensor, for which a GPU's queue would have to empty."""

    def __init__(self) -> None:
        super().__init__()
        self.by: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        masks = func is aten.index.Tensor and any(x is not None and x.dtype == torch.bool for x in args[1])
        if masks or func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default):
            self.by.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"mask_global_text": False, "micro_batch": 3}])
def test_a_step_waits_for_no_value_of_the_device(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    trainer = make_trainer(store, tokens, config.model_copy(update=changes), tmp_path)
    batches = trainer.rest_of_epoch()
    with AsksForValues() as asked:
        trainer.step(next(batches))
    assert asked.by == []
    with AsksForValues() as asked:
        trainer.check_finite()
    assert asked.by != [], "the window's report does wait"


@pytest.mark.parametrize(
    "changes", [{"mask_global_text": False}, {"loss_names": "tal+id", "ccd": "plain"}], ids=["IRRA", "divided captions"]
)
def test_compiled_encoders_are_one_graph_that_no_later_epoch_compiles_again(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    counted = []

    class Counts(Quiet):
        def epoch(self, row: Mapping[str, float], epoch: int) -> None:
            counted.append(counters["stats"]["unique_graphs"])

    config = config.model_copy(update={"batch_size": 10, **changes})  # the last batch has 8 samples
    _, expected = train(store, tokens, config, tmp_path / "eager")
    trainer = make_trainer(store, tokens, config, tmp_path / "compiled")
    torch.compiler.reset()  # of what other tests compiled
    counters.clear()
    trainer.model.compile_encoders("eager")
    state = trainer.fit(Counts())
    assert counted == [2, 2, 2], "a graph for the first size, and one for any size"
    assert state.history == expected.history


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_with_float32_weights(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, precision: str
) -> None:
    trainer, state = train(store, tokens, config.model_copy(update={"precision": precision}), tmp_path)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert state.history[-1]["loss/total"] < state.history[0]["loss/total"]


@pytest.mark.parametrize("names", ["itc", "cmpm", "sdm+id"])
def test_any_combination_of_losses_trains(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, names: str
) -> None:
    _, state = train(store, tokens, config.model_copy(update={"loss_names": names}), tmp_path)
    assert state.history[-1]["loss/total"] < state.history[0]["loss/total"]


def test_a_learned_temperature_moves_is_logged_and_never_falls_below_a_hundredth(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    changes = {"loss_names": "nitc", "temperature": 0.005, "learn_temperature": True, "weight_decay": 100.0}
    changed = config.model_copy(update=changes)
    model = small_model(temperature=0.005, learn_temperature=True)  # which the first step raises
    trainer = Trainer(model, TrainingData(store, tokens, changed), changed, CPU, StateFolder(tmp_path, {}))
    state = trainer.fit(Quiet())
    logged = [row["temperature"] for row in state.history]
    assert len(set(logged)) > 1
    assert min(logged) >= 0.01 - 1e-6
    assert max(logged) < 0.02  # weight decay would have drawn it to 1


def test_evaluation_both_ways_covers_the_split(store: PreparedStore, tokens: TokenStore) -> None:
    features = encode_split(small_model().eval(), store, tokens, "test", 3, "fp32")
    assert (len(features.images), len(features.captions)) == (8, 16)
    assert text_to_image(features, top_k=5).top.shape == (16, 5)
    assert image_to_text(features, top_k=5).top.shape == (8, 5)


def test_evaluation_encodes_in_order_as_one_image_or_caption_at_a_time(
    store: PreparedStore, tokens: TokenStore
) -> None:
    ids = np.array(tokens.caption_ids)
    for number, row in enumerate(ids):
        end = 2 + 3 * number % 7
        row[end], row[end + 1 :] = END_ID, 0
    tokens, model = replace(tokens, caption_ids=ids), small_model().eval()
    features = encode_split(model, store, tokens, "test", 3, "fp32")
    assert features.caption_ids.tolist() == store.caption_ids("test").tolist()
    with torch.inference_mode():
        rows = torch.from_numpy(tokens.caption_ids[features.caption_ids].astype(np.int64))
        captions = torch.cat([model.encode_text(row[None]) for row in rows])
        pixels = torch.from_numpy(store.pixels(features.image_ids))
        images = torch.cat([model.encode_image(normalise(picture[None])) for picture in pixels])
    torch.testing.assert_close(features.captions, captions, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.images, images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("weight", "what"), [("visual.proj", "8 test images"), ("text_projection", "16 test captions")]
)
def test_features_that_are_not_finite_are_refused_naming_them(
    store: PreparedStore, tokens: TokenStore, weight: str, what: str
) -> None:
    model = small_model().eval()
    with torch.no_grad():
        model.clip.get_parameter(weight)[0] = float("nan")
    with pytest.raises(UserError, match=f"of the {what} are not finite"):
        encode_split(model, store, tokens, "test", 3, "fp32")
