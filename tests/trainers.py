"""Small trainings for tests."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import torch

from irra.checkpoint import StateFolder, TrainState
from irra.config import TrainConfig
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.distributed import ALONE, World
from irra.trainer import Reporter, Trainer
from tests.models import small_model

CPU = torch.device("cpu")


class Quiet:
    """A reporter that only records the numbers of reported steps and epochs."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.epochs: list[int] = []

    def step(self, row: Mapping[str, float], step: int) -> None:
        self.steps.append(step)

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        self.epochs.append(epoch)


class Meets(Quiet):
    """A reporter whose process gets a signal at a step."""

    def __init__(self, on_step: int, signum: int = signal.SIGTERM) -> None:
        super().__init__()
        self._on_step, self._signum = on_step, signum

    def step(self, row: Mapping[str, float], step: int) -> None:
        super().step(row, step)
        if step == self._on_step:
            os.kill(os.getpid(), self._signum)


def make_trainer(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    folder: Path | StateFolder,
    device: torch.device = CPU,
    kind: type[Trainer] = Trainer,
    world: World = ALONE,
) -> Trainer:
    """Return a trainer of a small model, resumed from the state in `folder` if there is one."""
    states = StateFolder(folder, {"test": 1}) if isinstance(folder, Path) else folder
    return kind(small_model(config.seed), TrainingData(store, tokens, config, world), config, device, states)


def train(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, folder: Path, reporter: Reporter | None = None
) -> tuple[Trainer, TrainState]:
    """Train to the end, from the state in `folder` if there is one."""
    trainer = make_trainer(store, tokens, config, folder)
    return trainer, trainer.fit(reporter or Quiet())
