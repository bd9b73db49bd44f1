"""Every preset trains, at a tiny size: its losses, optimizer, schedule, augmentation and features fit together."""

from pathlib import Path
from typing import Any

import pytest

from irra.checkpoint import StateFolder, load_model
from irra.config import TrainConfig, load_params
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.training import Silent, build_trainer, save_best
from tests.presets import PRESETS

# What makes a training of a preset small; nothing that belongs to its method.
TINY: dict[str, Any] = {
    "backbone": "irra-tiny",
    "pretrained": None,
    "cmt_depth": 1,
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 24,
    "num_epoch": 1,
    "ccd_start": 1,
    "warmup_epochs": 0,
    "test_batch_size": 16,
    "log_period": 1,
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_trains_and_its_model_is_read_back(
    preset: Path, store: PreparedStore, tokens: TokenStore, tmp_path: Path
) -> None:
    config = TrainConfig(**load_params(preset).train.model_dump() | TINY)
    trainer = build_trainer(store, tokens, config, None, StateFolder(tmp_path / "state", {}))
    state = trainer.fit(Silent())
    save_best(trainer, tmp_path / "model")
    assert len(state.validation) == 1
    assert load_model(tmp_path / "model").spec == trainer.model.spec
