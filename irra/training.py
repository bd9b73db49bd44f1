"""A whole training run: from a prepared store and its tokens to a model folder."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from irra.checkpoint import StateFolder, save_model
from irra.config import TrainConfig, check_image_size
from irra.data.loader import TrainingData
from irra.data.splits import check_store, needed_splits
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.distributed import ALONE, World
from irra.division import DroppedCaption
from irra.layout import WEIGHTS
from irra.metrics import METRIC_NAMES
from irra.model import ModelSpec, build_model
from irra.start import find_start, load_start
from irra.trainer import Trainer
from irra.utils.device import choose_device
from irra.utils.errors import UserError
from irra.utils.files import check_replaceable, hash_file, replace_file
from irra.utils.locks import locked

HISTORY, VALIDATION, DROPPED = "history.csv", "validation.csv", "dropped.csv"
MOST_DROPPED = 200

# None of these affects what is learnt (but for what text_dropout draws, by micro_batch), so training can resume with
# other values.
NOT_IN_FINGERPRINT = {
    *("device", "compile", "micro_batch", "recompute"),
    *("log_period", "checkpoint_minutes", "test_batch_size"),
}


class Silent:
    """A reporter that ignores everything."""

    def step(self, row: Mapping[str, float], step: int) -> None:
        """Ignore a window of training steps."""

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """Ignore the validation metrics of an epoch."""


class EpochLines(Silent):
    """A reporter that prints a line after each epoch."""

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """Print the validation metrics of an epoch."""
        print(f"epoch {epoch}: " + "  ".join(f"{name} {row[name]:.2f}" for name in METRIC_NAMES), flush=True)


def train(prepared: Path, tokens: Path, config: TrainConfig, model: Path) -> dict[str, float]:
    """Train on a prepared store and its tokens, and write the best model to the folder `model`.

    The state of an unfinished run is kept in the folder `<model>.checkpoints`; calling this again resumes from it.

    Returns:
        Validation metrics of the best model.

    Raises:
        UserError: `model` is in use for something else, another process is training there, or data, parameters, weights
            and saved state do not fit together.
    """
    check_replaceable(model, WEIGHTS, "a model folder")
    store, token_store = PreparedStore.open(prepared), TokenStore.open(tokens)
    weights = find_start(config.backbone, config.pretrained, config.init_from)
    states = StateFolder(model.with_name(f"{model.name}.checkpoints"), fingerprint(config, store, token_store, weights))
    with locked(states.folder):
        trainer = build_trainer(store, token_store, config, weights, states)
        trainer.fit(EpochLines())
        save_best(trainer, model)
        states.clear()
    return best_metrics(trainer)


def build_trainer(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    weights: Path | None,
    states: StateFolder,
    world: World = ALONE,
) -> Trainer:
    """Build the trainer, with the model and optimizer restored from `states` if there is a saved state.

    A new model starts from the file `weights` that `find_start` finds, or from random ones. The processes of `world`
    train together.

    Raises:
        UserError: Data, parameters, weights and saved state do not fit together.
    """
    with world.first_before_others():
        check_selection(store, config)
        data = TrainingData(store, tokens, config, world)
        tokens.verify()  # the store looks at each shard when it first reads it
        device = choose_device(config.device)
        torch.manual_seed(config.seed)
        model = build_model(model_spec(store, tokens, config), None if config.init_from else weights)
        if config.init_from and weights and not states.has_state():
            loaded = load_start(model, weights)
            if world.first:
                print(loaded, flush=True)
    return Trainer(model, data, config, device, states)


def check_selection(store: PreparedStore, config: TrainConfig) -> None:
    """Check that the split that selects the best epoch exists, and print a note if it is the test split.

    Raises:
        UserError: The data has no such split.
    """
    check_store(store, needed_splits(config))
    if config.select_on == "test":
        print("note: the best epoch is selected on the test split, as in the paper's code; its metrics are optimistic")


def model_spec(store: PreparedStore, tokens: TokenStore, config: TrainConfig) -> ModelSpec:
    """The sizes of the model that `config` describes, for this data.

    Raises:
        UserError: The backbone cannot take images of this size.
    """
    try:
        check_image_size(config.backbone, store.image_size)
    except ValueError as error:
        raise UserError(str(error)) from None
    used = tokens.vocabulary(store.caption_ids("train"))
    return ModelSpec.for_training(config, store.image_size, tokens.text_length, store.num_classes, used)


def fingerprint(config: TrainConfig, store: PreparedStore, tokens: TokenStore, weights: Path | None) -> dict[str, Any]:
    """What must be equal for training to be resumed; of the file `weights`, its content."""
    settings = {f"train.{key}": value for key, value in config.model_dump().items() if key not in NOT_IN_FINGERPRINT}
    inputs = {"data": store.fingerprint, "tokens": tokens.fingerprint}
    return settings | inputs | {"weights": hash_file(weights) if weights else None}


def best_metrics(trainer: Trainer) -> dict[str, float]:
    """Text-to-image metrics of the best epoch, on the split that selected it."""
    best = next(row for row in trainer.state.validation if row["epoch"] == trainer.state.best_epoch)
    return {name: best[name] for name in METRIC_NAMES}


def save_best(trainer: Trainer, folder: Path, curves: Mapping[str, str] | None = None) -> None:
    """Write the best weights as a model folder whose metadata records how and on which data they were trained.

    Args:
        trainer: A finished training.
        folder: The model folder.
        curves: SHA-256 of the tables of its curves, by name.

    Raises:
        UserError: The best weights are missing, or not those that were saved.
    """
    config, store, epoch = trainer.config, trainer.data.store, trainer.state.best_epoch
    trainer.folder.check_best(trainer.state)
    metadata = {
        "train": config.model_dump(),
        "dataset": store.dataset_name,
        "data_fingerprint": store.fingerprint,
        "curves": dict(curves or {}),
        "selected": {"best_epoch": epoch, config.select_on: {"t2i": best_metrics(trainer)}},
    }
    sha256 = trainer.state.best_sha256 or None
    save_model(folder, trainer.folder.best_weights(epoch), trainer.model.spec, metadata, sha256)


def write_curves(trainer: Trainer, folder: Path) -> dict[str, str]:
    """Write step history, validations and the captions that were dropped most often as CSV; returns their SHA-256.

    A cell is empty where a row lacks a value that others have.
    """
    curves = {HISTORY: trainer.state.history, VALIDATION: trainer.state.validation}
    columns = {name: list(dict.fromkeys(key for row in rows for key in row)) for name, rows in curves.items()}
    tables: dict[str, list[Sequence[Any]]] = {
        name: [columns[name], *([row.get(key) for key in columns[name]] for row in rows)]
        for name, rows in curves.items()
    }
    tables[DROPPED] = [DroppedCaption._fields, *trainer.division.most_dropped(MOST_DROPPED)]
    for name, lines in tables.items():
        with replace_file(folder / name) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    return {name: hash_file(folder / name) for name in tables}
