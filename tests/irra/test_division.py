"""CCD: which captions an epoch drops, that a training resumes with them exactly, and what is said of them."""

import copy
import csv
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from irra.checkpoint import StateFolder
from irra.config import TrainConfig
from irra.data.augment import normalise
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.division import Division, are_clean, divide, likely
from irra.losses import tal
from irra.objective import objective
from irra.trainer import NonFiniteLoss, Trainer
from irra.training import write_curves
from irra.utils.errors import Interrupted
from tests.models import small_model
from tests.trainers import CPU, Meets, Quiet, make_trainer, train


def recorded_losses() -> np.ndarray:
    """The losses (2, 400) for which values were recorded from RDE's released code."""
    rng = np.random.RandomState(140)
    noisy = rng.rand(400) < 0.3
    drawn = (rng.standard_normal(400) for _ in range(2))
    return np.stack([np.where(noisy, 1.2 + 0.28 * z, np.abs(0.35 + 0.22 * z)) for z in drawn]).astype(np.float32)


@pytest.mark.parametrize(
    ("fit", "first_20", "both", "neither"),
    [
        ("loose", ["10000101011100011101", "10010101011100111101"], 260, 115),
        ("tight", ["10000101011100011101", "00010101011100011101"], 252, 119),
    ],
)
def test_predictions_are_those_of_the_released_code(fit: str, first_20: list[str], both: int, neither: int) -> None:
    clean = np.stack([are_clean(losses, fit, seed=5) for losses in recorded_losses()])
    assert ["".join(map(str, row.astype(int)[:20])) for row in clean] == first_20
    assert (np.count_nonzero(clean.all(axis=0)), np.count_nonzero(~clean.any(axis=0))) == (both, neither)


def test_if_all_are_likely_clean_the_least_likely_hundredth_is_not() -> None:
    probability = 0.5 + 0.5 * np.random.RandomState(143).rand(400)
    probability[0] = 0.5000001
    assert np.flatnonzero(~likely(probability)).tolist() == [0, 7, 32, 113, 187]


def test_a_fair_coin_of_the_seed_decides_where_the_features_disagree() -> None:
    losses = recorded_losses()
    clean = np.stack([are_clean(each, "loose", 0) for each in losses])
    split = clean[0] != clean[1]
    draws = np.stack([divide(losses, "loose", (seed, 3)) for seed in range(12)])
    assert (draws[:, ~split] == clean[0, ~split]).all()
    assert 0.38 < draws[:, split].mean() < 0.62  # of 300 coins: four standard deviations
    assert (divide(losses, "loose", (7, 3)) == draws[7]).all()
    assert (divide(losses, "loose", (7, 4)) != draws[7]).any()


def test_one_kind_of_features_decides_alone() -> None:
    (losses, _) = recorded_losses()
    assert (divide(losses[None], "tight", (1, 1)) == are_clean(losses, "tight", 0)).all()


@pytest.mark.parametrize("count", [1, 50])
def test_equal_losses_are_all_clean(count: int) -> None:
    assert divide(np.full((2, count), 0.1, np.float32), "loose", (1, 1)).all()


# ---- the pass over the captions ----


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    changes = {"loss_names": "tal+mlm", "ccd": "plain", "ccd_start": 2, "lr": 1e-3, "log_period": 1, "tau": 0.05}
    return train_config.model_copy(update=changes)


@pytest.fixture
def data(store: PreparedStore, tokens: TokenStore, config: TrainConfig) -> TrainingData:
    return TrainingData(store, tokens, config)


def test_every_caption_is_measured_once_whatever_the_sampler(data: TrainingData) -> None:
    changes = {"sampler": "identity", "batch_size": 9, "num_instance": 3}
    data = replace(data, config=data.config.model_copy(update=changes))
    first, again, later = (np.concatenate(data.for_division().epoch(epoch)).tolist() for epoch in (1, 1, 2))
    assert sorted(first) == data.store.caption_ids("train").tolist()
    assert first == again != later
    assert first != np.concatenate(TrainingData.epoch(data, 1)).tolist()


def test_losses_are_those_of_plain_pairs_in_their_batches(data: TrainingData) -> None:
    model = small_model(token_selection=0.5)
    losses = Division(model, data, data.config, CPU, {}).measure(2)
    assert losses.shape == (2, 48)
    assert not model.training
    store, expected = data.store, np.empty_like(losses)
    for ids in data.for_division().epoch(2):
        pixels = torch.from_numpy(store.pixels(store.caption_image_ids[ids]))
        captions = torch.from_numpy(data.tokens.caption_ids[ids].astype(np.int64))
        pids = torch.from_numpy(store.image_labels[store.caption_image_ids[ids]])
        with torch.no_grad():
            images, texts = model.encode_image(normalise(pixels)), model.encode_text(captions)
        parts = zip(*(each.split(model.embedding_parts, dim=1) for each in (images, texts)), strict=True)
        rows = np.searchsorted(store.caption_ids("train"), ids)
        expected[:, rows] = torch.stack([tal(*pair, pids, 0.05, data.config.margin) for pair in parts]).numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)


def test_plain_and_augmented_differ_in_the_images_alone(data: TrainingData) -> None:
    augmented = replace(data, config=data.config.model_copy(update={"ccd": "augmented"}))
    plain, changed = (next(each.for_division().batches(1, 0, CPU)) for each in (data, augmented))
    assert not torch.equal(plain.pop("images"), changed.pop("images"))
    assert set(plain) == {"caption_ids", "pids", "image_ids"}
    assert all(torch.equal(plain[name], changed[name]) for name in plain)


# ---- in a training ----


class Watched(Trainer):
    """Keeps the labels of the batches that it trains on, by epoch."""

    def step(self, batch: dict[str, Tensor]) -> None:
        labels = self.__dict__.setdefault("labels", {})
        labels.setdefault(self.state.epoch, []).append(batch.get("clean"))
        super().step(batch)


def test_epochs_from_the_first_divided_one_on_drop_captions(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    trainer = make_trainer(store, tokens, config, tmp_path, kind=Watched)
    trainer.fit(Quiet())
    assert trainer.labels[1] == [None] * 6
    clean, ids = trainer.division.tensors["clean"], np.concatenate(trainer.data.epoch(3))
    assert torch.equal(torch.cat(trainer.labels[3]), clean[ids])
    dropped = [int((torch.cat(trainer.labels[epoch]) == 0).sum()) for epoch in (2, 3)]
    assert 0 < min(dropped) < max(dropped) < 48
    assert trainer.division.tensors["dropped"].sum() == sum(dropped)
    kept = [row.get("ccd/kept") for row in trainer.state.history]
    assert kept == [None] * 6 + [1 - dropped[0] / 48] * 6 + [1 - dropped[1] / 48] * 6


def test_dropped_pairs_cost_nothing_and_stay_negatives_of_others(data: TrainingData) -> None:
    clean = torch.ones(len(data.store.captions))
    clean[data.epoch(1)[0][:3]] = 0
    config, model = data.config.model_copy(update={"loss_names": "tal"}), small_model()
    (batch,) = (next(data.batches(1, 0, CPU, labels)) for labels in [clean])
    outputs = model({name: batch[name] for name in ("images", "caption_ids")})
    values = tal(outputs.image_features, outputs.text_features, batch["pids"], config.tau, config.margin)
    assert objective(model, batch, config).losses["tal"].item() == pytest.approx(values[3:].sum().item(), rel=1e-5)


def assert_same(trainer: Trainer, expected: Trainer) -> None:
    for one, other in (
        (trainer.model.state_dict(), expected.model.state_dict()),
        (trainer.state.tensors, expected.state.tensors),
    ):
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert trainer.state == expected.state


@pytest.fixture(scope="module")
def whole(
    store: PreparedStore, tokens: TokenStore, train_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Trainer:
    """A training that divides before each epoch and was never stopped."""
    changes = {"loss_names": "tal", "ccd": "augmented", "lr": 1e-3, "log_period": 1, "num_epoch": 2}
    config = train_config.model_copy(update=changes)
    return train(store, tokens, config, tmp_path_factory.mktemp("whole"))[0]


def test_stopped_within_an_epoch_it_goes_on_with_its_labels(whole: Trainer, tmp_path: Path) -> None:
    inputs = (whole.data.store, whole.data.tokens, whole.config, tmp_path)
    with pytest.raises(Interrupted):
        train(*inputs, Meets(9))
    assert_same(train(*inputs)[0], whole)


class StopsInDivision(Trainer):
    """Gets a SIGTERM before the division that follows the first epoch."""

    def divide(self, request) -> None:
        measure = self.division.measure
        if self.state.epoch == 2:
            self.division.measure = lambda epoch: (os.kill(os.getpid(), signal.SIGTERM), measure(epoch))[1]
        super().divide(request)


def test_stopped_while_dividing_it_goes_on_with_that(whole: Trainer, tmp_path: Path) -> None:
    inputs = (whole.data.store, whole.data.tokens, whole.config, tmp_path)
    with pytest.raises(Interrupted, match="143") as stopped:
        make_trainer(*inputs, kind=StopsInDivision).fit(Quiet())
    assert "stopped before epoch 2, dividing captions" in stopped.value.message
    reporter = Quiet()
    assert_same(train(*inputs, reporter)[0], whole)
    assert reporter.steps[0] == 7, "the steps of the first epoch are not repeated"


def test_labels_of_a_state_are_covered_by_its_checksum(whole: Trainer, tmp_path: Path) -> None:
    states = StateFolder(tmp_path, {})
    states.save(replace(whole.state, best_epoch=0), whole.model, whole.optimizer, {})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loaded = states.load(whole.model, whole.optimizer, scaler)
    assert loaded is not None
    assert torch.equal(loaded.tensors["clean"], whole.state.tensors["clean"])
    content = (tmp_path / "state.safetensors").read_bytes()
    dropped = whole.state.tensors["dropped"].numpy().tobytes()
    (tmp_path / "state.safetensors").write_bytes(content.replace(dropped, bytes([dropped[0] ^ 1]) + dropped[1:]))
    with pytest.raises(ValueError, match="its tensors are not those that were saved"):
        states.load(whole.model, whole.optimizer, scaler)


def test_a_loss_that_is_not_finite_is_not_divided(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    trainer = make_trainer(store, tokens, config.model_copy(update={"ccd_start": 1}), tmp_path)
    with torch.no_grad():
        trainer.model.clip.text_projection[0] = float("nan")
    with pytest.raises(NonFiniteLoss, match="epoch 1, dividing captions: the losses of 48 of 48 are not finite"):
        trainer.fit(Quiet())


# ---- what is said of it ----


@pytest.fixture
def divided(data: TrainingData) -> Division:
    """Captions divided for the epochs 2 and 3, of which two are known to be wrong: 5, always dropped, and 6."""
    store = copy.copy(data.store)
    store.wrong_captions = np.isin(np.arange(len(store.captions)), (5, 6, 75))
    division = Division(small_model(), replace(data, store=store), data.config, CPU, {})
    low = np.linspace(0.0, 0.1, 48, dtype=np.float32)
    for epoch, high in ((2, {1: 0.9, 5: 1.0}), (3, {5: 1.0, 7: 1.0})):
        losses = low.copy()
        losses[list(high)] = list(high.values())
        division.decide(epoch, losses[None])
    return division


def test_precision_and_recall_are_those_of_the_dropped_among_training_captions(divided: Division) -> None:
    assert divided.scores(3) == {"ccd/kept": 46 / 48, "ccd/precision": 0.5, "ccd/recall": 0.5}
    assert divided.scores(1) == {}


def test_where_nothing_is_known_to_be_wrong_only_the_share_is_given(data: TrainingData) -> None:
    division = Division(small_model(), data, data.config, CPU, {})
    division.decide(2, np.zeros((1, 48), np.float32))
    assert division.scores(2) == {"ccd/kept": 1.0}
    assert division.most_dropped(9) == []


def test_captions_are_listed_by_how_often_and_how_clearly_they_were_dropped(divided: Division) -> None:
    store = divided._data.store
    rows = divided.most_dropped(9)
    assert [(row.caption_id, row.dropped, row.divided, row.wrong) for row in rows] == [
        (5, 2, 2, 1),
        (7, 1, 2, 0),
        (1, 1, 2, 0),
    ]
    assert rows[0].caption == store.captions[5]
    assert rows[0].image == store.image_paths[store.caption_image_ids[5]]
    assert len(divided.most_dropped(2)) == 2


def test_the_tables_of_a_training_have_the_columns_of_all_rows(whole: Trainer, tmp_path: Path) -> None:
    trainer = copy.copy(whole)
    trainer.state = replace(whole.state, history=[{"epoch": 0.5, "a": 1.0}, {"epoch": 1.0, "ccd/kept": 0.5}])
    assert set(write_curves(trainer, tmp_path)) == {"history.csv", "validation.csv", "dropped.csv"}
    assert (tmp_path / "history.csv").read_text().split() == ["epoch,a,ccd/kept", "0.5,1.0,", "1.0,,0.5"]
    with (tmp_path / "dropped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["caption_id"]) for row in rows] == [row.caption_id for row in trainer.division.most_dropped(200)]
    assert {row["wrong"] for row in rows} == {""}
