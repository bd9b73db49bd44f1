"""Small trainings for tests."""

from collections.abc import Mapping
from pathlib import Path

import torch

from irra.checkpoint import Progress, StateFolder
from irra.config import TrainConfig
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import encode_split, text_to_image
from irra.model import IRRA
from irra.trainer import Reporter, Trainer, build_trainer, fit
from tests.models import small_model

CPU = torch.device("cpu")


class Quiet:
    """A reporter that keeps the numbers of the steps and epochs it hears of."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.epochs: list[int] = []

    def step(self, row: Mapping[str, float], step: int) -> None:
        self.steps.append(step)

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        self.epochs.append(epoch)


def make_trainer(store: PreparedStore, tokens: TokenStore, config: TrainConfig, device: torch.device = CPU) -> Trainer:
    def validate(model: IRRA) -> dict[str, float]:
        features = encode_split(model, store, tokens, "val", 8, config.precision)
        return text_to_image(features, top_k=1).scores.metrics()

    return build_trainer(small_model(config.seed), TrainingData(store, tokens, config), config, device, validate)


def train(trainer: Trainer, folder: Path, reporter: Reporter | None = None) -> Progress:
    """Train from the state in `folder`, if there is one, to the end."""
    state = StateFolder(folder, {"test": 1})
    at = state.load(trainer.model, trainer.optimizer, trainer.scaler) or Progress()
    fit(trainer, state, at, reporter or Quiet())
    return at
