"""What each of several processes does in tests/irra/test_distributed.py, and how they are started.

    python -m tests.distributed STORE TOKENS RESULTS

The first process leaves what was computed in the folder RESULTS, by the number of processes.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import Any

import torch

from irra.config import TrainConfig, load_params
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.distributed import ALONE, ProcessLost, World, joined
from irra.objective import objective
from irra.utils.errors import Interrupted
from tests.imports import ROOT
from tests.models import small_model
from tests.trainers import CPU, Meets, Quiet, make_trainer

LOSSES = ("sdm+mlm+id", "itc+id", "cmpm+mlm")
SAMPLERS = ("random", "identity")
STOPPED_AT = 9  # of 10 steps
TRAINING = {"batch_size": 10, "num_epoch": 2, "warmup_epochs": 1, "log_period": 1, "temperature": 0.05, "lr": 1e-3}


def training_config(**changes: Any) -> TrainConfig:
    """Two epochs of five steps, the last with 8 samples instead of 10."""
    train = load_params(ROOT / "presets" / "tiny.yaml").train
    return train.model_copy(update={"device": "cpu", "test_batch_size": 3, **TRAINING, **changes})


def half_config() -> TrainConfig:
    """An epoch with float16 weights, at a rate at which they differ little by the order of sums."""
    return training_config(precision="fp16-weights", num_epoch=1, warmup_epochs=0, optimizer="Adam", eps=1e-3, lr=1e-4)


def last_step(data: TrainingData, world: World) -> dict[str, Any]:
    """Return values and gradients of the last batch of an epoch, in float64."""
    steps = len(data.epoch(1))
    batch = next(replace(data, world=world).batches(1, steps - 1, CPU))
    batch["images"] = batch["images"].double()
    names = data.config.losses
    model = small_model(
        cmt_depth=1 if "mlm" in names else None,
        num_classes=12 if "id" in names else None,
        token_selection=data.config.token_selection,
        tse_norm=data.config.tse_norm,
    ).double()
    model.micro_batch = data.config.micro_batch
    if model.token_selection is not None:
        model.token_selection.share_statistics(world.total)
    parallel = world.parallel(model)  # which must live until the gradients have been exchanged
    result = objective(parallel, batch, data.config, world)
    result.losses["total"].backward()
    values = {name: world.mean(value.detach().clone()) for name, value in result.named().items()}
    return {"values": values, "gradients": {name: value.grad for name, value in model.named_parameters()}}


def all_steps(data: TrainingData, world: World) -> dict[str, Any]:
    """Return `last_step` for every set of losses, every sampler, and encoding in parts."""
    configs = {
        **{f"{sampler} {names}": {"sampler": sampler, "loss_names": names} for names in LOSSES for sampler in SAMPLERS},
        "clean captions": {"mask_global_text": False, "loss_names": LOSSES[0]},
        "parts": {"micro_batch": 2, "loss_names": LOSSES[0]},
        "selected tokens": {"loss_names": "tal+nitc+id", "token_selection": 0.3, "tse_norm": "batch", "micro_batch": 2},
    }
    return {
        name: last_step(replace(data, config=training_config(num_instance=2, **changes)), world)
        for name, changes in configs.items()
    }


def divided(store: PreparedStore, tokens: TokenStore, folder: Path, world: World) -> dict[str, Any]:
    """Return losses and labels of the captions before a training, and whether all processes have these labels."""
    trainer = make_trainer(store, tokens, training_config(loss_names="tal", ccd="augmented"), folder, world=world)
    losses = trainer.division.measure(1)
    trainer.division.decide(1, losses)
    labels = trainer.division.tensors["clean"]
    others = world.any([not torch.equal(labels, world.share(labels))])
    return {"losses": losses, "labels": labels, "alike": others == [False]}


def work(store: PreparedStore, tokens: TokenStore, results: Path, world: World) -> None:
    """Compute all steps, train to the end, and begin a training whose last process gets a signal."""
    config = training_config()
    found: dict[str, Any] = {"steps": all_steps(TrainingData(store, tokens, config), world)}
    whole = make_trainer(store, tokens, config, results / f"whole-{world.size}", world=world)
    found["divided"] = divided(store, tokens, results / "divided", world)
    found["state"], found["weights"] = whole.fit(Quiet()), whole.model.state_dict()
    if world.size == 2:
        halves = make_trainer(store, tokens, half_config(), results / "halves", world=world)
        found["halves"] = (halves.fit(Quiet()).history, halves.model.state_dict())
    if world.size == 3:  # goes on with what two processes left
        resumed = make_trainer(store, tokens, config, results / "resumed", world=world)
        resumed.fit(Quiet())
        found["resumed"] = resumed.model.state_dict()
    if world.first:
        torch.save(found, results / f"{world.size}.pt")
    last = world.rank == world.size - 1
    reporter = Meets(STOPPED_AT, {2: signal.SIGKILL, 3: signal.SIGTERM}[world.size]) if last else Quiet()
    try:
        make_trainer(store, tokens, config, results / f"cut-{world.size}", world=world).fit(reporter)
    except (ProcessLost, Interrupted) as error:
        if world.first:
            (results / f"{world.size}.txt").write_text(getattr(error, "message", str(error)))


def start(processes: int, *arguments: object) -> list[subprocess.Popen[bytes]]:
    """Start this module in processes that know each other, as `torchrun` does."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.distributed", *map(str, arguments)]
    return [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=ROOT)
        for rank in range(processes)
    ]


def alone(store: PreparedStore, tokens: TokenStore) -> dict[str, Any]:
    """Return what one process computes."""
    return all_steps(TrainingData(store, tokens, training_config()), ALONE)


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:]]
    with joined() as together:
        work(PreparedStore.open(folders[0]), TokenStore.open(folders[1]), folders[2], together)
