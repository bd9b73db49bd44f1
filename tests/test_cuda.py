"""What CPU tests cannot cover: training, evaluation and indexing on a CUDA GPU, in every precision."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from components import evaluate, index
from components import train as train_stage
from irra.config import Params, TrainConfig
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.metrics import query_scores
from irra.objective import compute_losses
from irra.search.folder import FolderGallery
from irra.utils.device import autocast
from tests.trainers import CPU, Quiet, make_trainer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
]

CUDA = torch.device("cuda")
PRECISIONS = ("fp32", "bf16", "fp16")


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Make sure that products are computed in full float32, torch's default."""
    assert not torch.backends.cuda.matmul.allow_tf32
    yield
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    return train_config.model_copy(update={"device": "cuda", "lr": 1e-3, "log_period": 1})


def test_losses_and_gradients_equal_those_of_the_cpu(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    results = []
    for device in (CPU, CUDA):
        trainer = make_trainer(store, tokens, config, tmp_path / device.type, device)
        batch = next(trainer.data.batches(1, 0, device))
        values = compute_losses(trainer.model, batch, config.losses)
        values["total"].backward()
        gradients = {name: p.grad.cpu() for name, p in trainer.model.named_parameters() if p.grad is not None}
        results.append(({name: value.item() for name, value in values.items()}, gradients))
    (losses, gradients), (cuda_losses, cuda_gradients) = results
    assert cuda_losses == pytest.approx(losses, rel=1e-4)
    assert gradients.keys() == cuda_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(cuda_gradients[name], gradient, rtol=1e-2, atol=1e-4 * gradient.abs().max().item())


@pytest.mark.parametrize("img_aug", [True, False])
def test_batches_are_copied_and_augmented_without_waiting_for_the_gpu(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, img_aug: bool
) -> None:
    data = TrainingData(store, tokens, config.model_copy(update={"img_aug": img_aug}))
    batches, expected = data.batches(1, 0, CUDA), data.batches(1, 0, CPU)
    first = next(batches)  # makes the constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        rest = list(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for batch, other in zip([first, *rest], expected, strict=True):
        for name, value in other.items():
            torch.testing.assert_close(batch[name].cpu(), value)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_batch_can_be_overfitted(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, precision: str
) -> None:
    trainer = make_trainer(store, tokens, config.model_copy(update={"img_aug": False}), tmp_path, CUDA)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    batch = next(trainer.data.batches(1, 0, CUDA))
    history = []
    for _ in range(150):
        with autocast(CUDA, precision):
            values = compute_losses(trainer.model, batch, config.losses, mask_global_text=False)
        trainer.optimizer.zero_grad()
        scaler.scale(values["total"]).backward()
        scaler.step(trainer.optimizer)
        scaler.update()
        history.append({name: value.item() for name, value in values.items()})
    assert history[-1]["sdm"] < 0.1 * history[0]["sdm"]
    assert history[-1]["mlm"] < 0.1 * history[0]["mlm"]
    assert history[-1]["id"] < 0.6 * history[0]["id"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_learns_and_keeps_float32_weights(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, precision: str
) -> None:
    trainer = make_trainer(store, tokens, config.model_copy(update={"precision": precision}), tmp_path, CUDA)
    state = trainer.fit(Quiet())
    assert {(p.dtype, p.device.type) for p in trainer.model.parameters()} == {(torch.float32, "cuda")}
    assert state.history[-1]["loss/total"] < 0.9 * state.history[0]["loss/total"]


def test_training_with_float16_weights_learns_and_resumes(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"precision": "fp16-weights", "optimizer": "Adam", "eps": 1e-3})
    trainer = make_trainer(store, tokens, config, tmp_path, CUDA)
    state = trainer.fit(Quiet())
    assert {(p.dtype, p.device.type) for p in trainer.model.parameters()} == {
        (torch.float32, "cuda"),
        (torch.float16, "cuda"),
    }
    assert state.history[-1]["loss/total"] < state.history[0]["loss/total"]
    other = make_trainer(store, tokens, config, tmp_path, CUDA)
    for (name, weight), again in zip(trainer.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.equal(weight, again), name
        for key, value in trainer.optimizer.state[weight].items():
            found = other.optimizer.state[again][key]
            assert (found.dtype, found.device) == (value.dtype, value.device), name
            assert torch.equal(found, value), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_state_saved_on_the_gpu_resumes_there_and_on_a_cpu(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, precision: str
) -> None:
    config = config.model_copy(update={"precision": precision})
    trainer = make_trainer(store, tokens, config, tmp_path, CUDA)
    trainer.fit(Quiet())
    for device in (CUDA, CPU):
        other = make_trainer(store, tokens, config, tmp_path, device)
        assert other.state.epoch == config.num_epoch + 1
        if device == CUDA:
            assert other.scaler.state_dict() == trainer.scaler.state_dict()
        for (name, weight), mine in zip(trainer.model.named_parameters(), other.model.parameters(), strict=True):
            assert torch.equal(weight.cpu(), mine.cpu()), name
        batch = next(other.data.batches(1, 0, device))
        compute_losses(other.model, batch, config.losses)["total"].backward()
        other.optimizer.step()
        for (name, weight), mine in zip(trainer.model.named_parameters(), other.model.parameters(), strict=True):
            assert mine.isfinite().all(), name
            assert mine.grad is None or not torch.equal(weight.cpu(), mine.cpu()), name


def test_ranks_equal_those_of_the_cpu_even_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randint(0, 20, (50, 5000), generator=generator).float()
    queries, gallery = torch.arange(50) % 10, torch.arange(5000) % 10
    there, here = (query_scores(values, queries, gallery) for values in (similarity.to(CUDA), similarity))
    assert np.array_equal(there.first_rank, here.first_rank)
    assert np.array_equal(there.average_precision, here.average_precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_stages_run_on_the_gpu(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    on_gpu = {"device": "cuda", "precision": precision}
    model, report = tmp_path / "model", tmp_path / "report"
    outputs = train_stage.Outputs(model, tmp_path / "train", tmp_path / "checkpoints", model_run=tmp_path / "run.json")
    train_stage.run(train_stage.Inputs(store.root, tokens.root), outputs, config.model_copy(update=on_gpu))
    scored = evaluate.Outputs(report, tmp_path / "rankings.parquet")
    evaluate.run(
        evaluate.Inputs(store.root, tokens.root, model),
        scored,
        params.evaluate.model_copy(update={"top_k": 3, **on_gpu}),
    )
    metrics = json.loads((report / "metrics.json").read_text())
    chance = 25.0  # four people
    assert metrics["test"]["R1"] > chance
    indexed = index.Outputs(tmp_path / "index")
    index.run(index.Inputs(store.root, model), indexed, params.index.model_copy(update=on_gpu))
    assert FolderGallery.open(indexed.index).size == len(store.image_ids("test"))


def test_a_step_queues_its_work_without_waiting(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    trainer = make_trainer(store, tokens, config, tmp_path, CUDA)
    batches = trainer.rest_of_epoch()
    trainer.step(next(batches))  # the first one creates the optimizer's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
