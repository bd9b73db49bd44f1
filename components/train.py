"""Train IRRA on prepared data, validate after every epoch and keep the best weights.

python -m components.train              # as `dvc repro train` does; start it again after a kill and it goes on
"""

import csv
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.figures import loss_curves, validation_curves
from components.figures.dataset import draw_dataset_sheet
from components.layout import MODEL, PREPARED, TOKENS
from components.s3.checkpoints import open_state
from components.stage import main
from components.tracking.run import Tracker, open_run
from components.tracking.store import MODEL_FINGERPRINT_TAG
from irra.backbones import read_config
from irra.checkpoint import Progress, StateFolder, model_fingerprint, save_model
from irra.config import TrainConfig, check_image_size
from irra.data.loader import TrainingData
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import encode_split, text_to_image
from irra.layout import WEIGHTS
from irra.metrics import METRIC_NAMES
from irra.model import IRRA, ModelSpec, build_model
from irra.model.clip import find_weights
from irra.trainer import build_trainer, fit
from irra.utils.errors import UserError
from irra.utils.files import check_replaceable, replace_file, write_json
from irra.utils.runtime import choose_device

# neither changes what is learnt, so a training may go on with other values
NOT_IN_FINGERPRINT = {"device", "log_period", "checkpoint_minutes", "test_batch_size"}


@dataclass(frozen=True)
class Inputs:
    """The prepared store and its tokens."""

    prepared: Path = PREPARED
    tokens: Path = TOKENS


@dataclass(frozen=True)
class Outputs:
    """The best model; curves and metrics; and the state of an unfinished training, removed when it ends.

    `checkpoints_uri` (s3://bucket/folder; empty: none) keeps that state where another machine can go on with it; there
    a task of Kubeflow leaves its last one.
    """

    model: Path = MODEL
    report: Path = Path("reports/train")
    checkpoints: Path = Path("checkpoints")
    checkpoints_uri: str = ""


def run(inputs: Inputs, outputs: Outputs, config: TrainConfig) -> dict[str, Any]:
    """Train a model; returns its validation metrics, fingerprint and MLflow run."""
    check_replaceable(outputs.model, WEIGHTS, "a model folder")
    store, tokens = PreparedStore.open(inputs.prepared), TokenStore.open(inputs.tokens)
    data = TrainingData(store, tokens, config)
    check_selection(store, config)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    spec = model_spec(store, tokens, config)
    model = build_model(spec, find_weights(config.backbone, config.pretrained))
    trainer = build_trainer(model, data, config, device, lambda model: validate(model, store, tokens, config))
    with open_state(outputs.checkpoints, fingerprint(config, store, tokens), outputs.checkpoints_uri) as state:
        at = state.load(trainer.model, trainer.optimizer, trainer.scaler) or Progress()
        with open_run("train", run_id=at.run_id, run_name=config.loss_names, system_metrics=True) as tracker:
            at.run_id = tracker.run_id
            describe(tracker, config, store, tokens, model, device)
            fit(trainer, state, at, Report(tracker, config.select_on))
            return publish(tracker, outputs, state, at, spec, config, store)


def check_selection(store: PreparedStore, config: TrainConfig) -> None:
    """Say so when the best epoch is chosen on the test split; refuse a val split that is not there."""
    if config.select_on not in store.splits:
        raise UserError(
            f"train.select_on: {store.dataset_name} has no {config.select_on} split; hold out training identities by "
            "prepare.val_share"
        )
    if config.select_on == "test":
        print("note: the best epoch is selected on the test split, as in the paper's code; its metrics are optimistic")


def model_spec(store: PreparedStore, tokens: TokenStore, config: TrainConfig) -> ModelSpec:
    """The sizes of the model that `config` asks for on this data; UserError where its backbone cannot take it."""
    try:
        check_image_size(config.backbone, store.image_size)
    except ValueError as error:
        raise UserError(str(error)) from None
    predicts_captions_alone = "mlm" in config.losses and config.mlm_vocabulary == "captions"
    return ModelSpec(
        architecture=read_config(config.backbone),
        image_size=store.image_size,
        stride_size=config.stride_size,
        text_length=tokens.text_length,
        temperature=config.temperature,
        num_classes=store.num_classes if "id" in config.losses else None,
        cmt_depth=config.cmt_depth if "mlm" in config.losses else None,
        mlm_ids=tokens.vocabulary(store.caption_ids("train")) if predicts_captions_alone else None,
    )


def validate(model: IRRA, store: PreparedStore, tokens: TokenStore, config: TrainConfig) -> dict[str, float]:
    """Text-to-image metrics on the split that selects the best epoch."""
    features = encode_split(model, store, tokens, config.select_on, config.test_batch_size, config.precision)
    return text_to_image(features, top_k=1).scores.metrics()


def fingerprint(config: TrainConfig, store: PreparedStore, tokens: TokenStore) -> dict[str, Any]:
    """What must be equal for a training to be resumed."""
    settings = {f"train.{key}": value for key, value in config.model_dump().items() if key not in NOT_IN_FINGERPRINT}
    return settings | {"data": store.fingerprint, "tokens": tokens.fingerprint}


def describe(
    tracker: Tracker,
    config: TrainConfig,
    store: PreparedStore,
    tokens: TokenStore,
    model: IRRA,
    device: torch.device,
) -> None:
    """Log what is about to be trained on what."""
    tracker.log_params({"prepare": store.settings, "tokenize": tokens.settings, "train": config.model_dump()})
    tracker.log_dataset(store.dataset_name, store.fingerprint, "train")
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder, "contact_sheet.png")
        draw_dataset_sheet(store, sheet)
        tracker.log_artifact(sheet, "prepare")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tracker.log_params({"model": {"parameters": parameters, "device": device_name(device)}})


def device_name(device: torch.device) -> str:
    """The accelerator's own name where it has one."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Report:
    """Sends what training reports to MLflow and a line per epoch to standard output."""

    def __init__(self, tracker: Tracker, split: str) -> None:
        self._tracker, self._split = tracker, split

    def step(self, row: Mapping[str, float], step: int) -> None:
        """A window of training steps."""
        self._tracker.log_metrics(row, step)

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """A validation on the split that selects the best epoch."""
        print(f"epoch {epoch}: " + "  ".join(f"{name} {row[name]:.2f}" for name in METRIC_NAMES), flush=True)
        self._tracker.log_metrics({f"{self._split}/t2i/{name}": value for name, value in row.items()}, epoch)


def publish(
    tracker: Tracker,
    outputs: Outputs,
    state: StateFolder,
    at: Progress,
    spec: ModelSpec,
    config: TrainConfig,
    store: PreparedStore,
) -> dict[str, Any]:
    """Write model, curves and metrics, log them, and drop the state that is no longer needed."""
    best = next(row for row in at.validation if row["epoch"] == at.best_epoch)
    metrics = {"best_epoch": at.best_epoch, config.select_on: {"t2i": {name: best[name] for name in METRIC_NAMES}}}
    facts = {"train": config.model_dump(), "dataset": store.dataset_name, "data_fingerprint": store.fingerprint}
    save_model(outputs.model, state.best_weights(at.best_epoch), spec, facts | {"selected": metrics})
    write_json(outputs.report / "metrics.json", metrics)
    write_report(outputs.report, at, config.select_on)
    weights = model_fingerprint(outputs.model)
    tracker.set_tags({MODEL_FINGERPRINT_TAG: weights})
    tracker.log_metrics({"best_epoch": at.best_epoch}, at.best_epoch)
    tracker.log_folder(outputs.report, "train")
    tracker.log_folder(outputs.model, "model")
    state.clear()
    selected = {f"{config.select_on}/t2i/{name}": best[name] for name in METRIC_NAMES}
    return {"metrics": metrics, "selected": selected, "model_fingerprint": weights, "run_id": tracker.run_id}


def write_report(folder: Path, at: Progress, split: str) -> None:
    """Curves as CSV, for DVC, and as pictures."""
    write_csv(folder / "losses.csv", at.losses)
    write_csv(folder / "validation.csv", at.validation)
    epochs = [row["epoch"] for row in at.losses]
    names = [name for name in at.losses[0] if name != "epoch"]
    loss_curves(folder / "losses.png", {name: (epochs, [row[name] for row in at.losses]) for name in names})
    metrics = {name: [row[name] for row in at.validation] for name in METRIC_NAMES}
    validated = [int(row["epoch"]) for row in at.validation]
    validation_curves(folder / "validation.png", validated, metrics, at.best_epoch, split)


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per row, columns as in the first."""
    with replace_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    raise SystemExit(main("train", run, Inputs, Outputs))
