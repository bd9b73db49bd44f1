"""Train IRRA on prepared data, validate after every epoch and keep the best weights.

python -m components.train              # what `dvc repro train` runs; a killed training resumes when started again
torchrun --nproc-per-node 4 -m components.train     # on four GPUs, with the numbers of one
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components import check
from components.layout import CURVES, MODEL, MODEL_RUN, PREPARED, TOKENS, outside
from components.s3.checkpoints import open_state
from components.stage import main
from components.tracking.ablations import tags_of_training
from components.tracking.datasets import track_dataset
from components.tracking.notes import note_run, noted_run
from components.tracking.run import open_run
from components.tracking.store import MODEL_FINGERPRINT_TAG
from components.tracking.tracker import Tracker
from irra.checkpoint import StateFolder, model_fingerprint
from irra.config import Params, TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.distributed import joined
from irra.layout import WEIGHTS
from irra.start import find_start
from irra.trainer import Trainer
from irra.training import EpochLines, Silent, best_metrics, build_trainer, fingerprint, save_best, write_curves
from irra.utils.files import check_replaceable

RUN = "run.json"  # in the folder of the state: the MLflow run


@dataclass(frozen=True)
class Inputs:
    """The prepared store and its tokens."""

    prepared: Path = PREPARED
    tokens: Path = TOKENS


@dataclass(frozen=True)
class Outputs:
    """The best model, the tables of its curves, and the state of an unfinished training, removed when it ends.

    `model_run` notes which MLflow run made the model. `checkpoints_uri` (s3://bucket/folder; empty: none) keeps a copy
    of that state, from which another machine can resume. A Kubeflow task leaves its last state there.
    """

    model: Path = MODEL
    report: Path = CURVES
    checkpoints: Path = Path("checkpoints")
    checkpoints_uri: str = ""
    model_run: Path = MODEL_RUN


def run(inputs: Inputs, outputs: Outputs, config: TrainConfig) -> dict[str, Any]:
    """Train a model, or resume an unfinished training, in all processes that `torchrun` has started.

    Returns:
        The validation metrics of the best epoch, the model's fingerprint and the id of its MLflow run; nothing in
        processes other than the first.
    """
    with joined() as world:
        if world.first:
            check_replaceable(outputs.model, WEIGHTS, "a model folder")
        with world.first_before_others():
            store, tokens = PreparedStore.open(inputs.prepared), TokenStore.open(inputs.tokens)
            pretrained, init_from = (name and outside(name) for name in (config.pretrained, config.init_from))
            weights = find_start(config.backbone, pretrained, init_from)
        if not world.first:
            build_trainer(store, tokens, config, weights, StateFolder(outputs.checkpoints, {}), world).fit(Silent())
            return {}
        same = fingerprint(config, store, tokens, weights)
        with open_state(outputs.checkpoints, same, outputs.checkpoints_uri) as states:
            trainer = build_trainer(store, tokens, config, weights, states, world)
            run_id = trainer.state.run_id or noted_run(states.folder / RUN, states.fingerprint)
            name, tags = f"{config.loss_names}, seed {config.seed}", tags_of_training()
            with open_run("train", run_id=run_id, run_name=name, system_metrics=True, tags=tags) as tracker:
                trainer.state.run_id = tracker.run_id or run_id
                # at once, because the first state comes much later
                note_run(states.folder / RUN, states.fingerprint, trainer.state.run_id)
                describe(tracker, trainer)
                report = Report(tracker, config.select_on)
                trainer.fit(report)
                result = publish(tracker, outputs, trainer, report.times)
            forget(states)  # last: who is killed before publishes again, and does not train again
            return result


def check_splits(inputs: Inputs, params: Params) -> None:
    """Check the splits that all of the parameter file names, also where DVC tracks them for later stages only."""
    check.run(inputs.prepared, params.train, params.index, params.registry)


def describe(tracker: Tracker, trainer: Trainer) -> None:
    """Log the parameters, the model's size, the device and the dataset."""
    store, tokens, config = trainer.data.store, trainer.data.tokens, trainer.config
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    tracker.log_params({"prepare": store.settings, "tokenize": tokens.settings, "train": config.model_dump()})
    tracker.log_params({"model": {"parameters": parameters, "device": device_name(trainer.device)}})
    tracker.log_dataset(track_dataset(store), "train")


def device_name(device: torch.device) -> str:
    """The model name of a CUDA device; otherwise the type, such as `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Report(EpochLines):
    """Sends metrics to MLflow, and prints a line per epoch; `times` are those of the validations."""

    def __init__(self, tracker: Tracker, split: str) -> None:
        self._tracker, self._split = tracker, split
        self.times: dict[int, int] = {}

    def step(self, row: Mapping[str, float], step: int) -> None:
        """Log the means over a window of training steps."""
        self._tracker.log_metrics(row, step)

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """Log and print the validation on the split that selects the best epoch."""
        super().epoch(row, epoch)
        metrics = {f"{self._split}/t2i/{name}": value for name, value in row.items()}
        self.times[epoch] = self._tracker.log_metrics(metrics, epoch)


def publish(tracker: Tracker, outputs: Outputs, trainer: Trainer, times: Mapping[int, int]) -> dict[str, Any]:
    """Write the model and its curves, and log them; `times` are those of the validations that this process logged."""
    save_best(trainer, outputs.model, write_curves(trainer, outputs.report))
    weights, best, store = model_fingerprint(outputs.model), trainer.state.best_epoch, trainer.data.store
    note_run(outputs.model_run, weights, tracker.run_id)
    selected = {f"{trainer.config.select_on}/t2i/{name}": value for name, value in best_metrics(trainer).items()}
    tracker.set_tags({MODEL_FINGERPRINT_TAG: weights})
    now = tracker.log_metrics({"best_epoch": best}, best)
    tracker.log_folder(outputs.report, "train")
    data = (store.dataset_name, store.fingerprint)
    tracker.log_model(outputs.model, weights, best, data, selected, times.get(best, now))
    return {"selected": selected, "model_fingerprint": weights, "run_id": tracker.run_id}


def forget(states: StateFolder) -> None:
    """Remove the state of a training that has ended."""
    (states.folder / RUN).unlink(missing_ok=True)
    states.clear()


if __name__ == "__main__":
    raise SystemExit(main("train", run, Inputs, Outputs, check=check_splits, parallel=True))
