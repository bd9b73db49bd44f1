"""Weights on disk: the model folder that training produces, and the state that training resumes from."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from irra.layout import CONFIG, WEIGHTS
from irra.model import IRRA, ModelSpec, build_model
from irra.model.official import import_official as import_official
from irra.model.weights import load_strictly, read_tensors
from irra.utils.errors import UserError
from irra.utils.files import hash_file, replace_file, replace_folder, write_json

STATE = "state.safetensors"
BEST_WEIGHTS = "best-*.safetensors"


def save_model(folder: Path, weights: Path, spec: ModelSpec, metadata: dict[str, Any]) -> None:
    """Write a model folder: a copy of the weights file, and config.json with the model's sizes and `metadata`."""
    with replace_folder(folder) as target:
        shutil.copyfile(weights, target / WEIGHTS)
        write_json(target / CONFIG, {"model": spec.as_dict(), **metadata})


def load_model(folder: Path) -> IRRA:
    """Load the model in a model folder.

    Raises:
        UserError: A file is missing or damaged, or the weights do not fit the model; the message names them.
    """
    spec = ModelSpec.from_dict(read_model_metadata(folder)["model"])
    model = build_model(spec)
    load_strictly(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return model


def read_model_metadata(folder: Path) -> dict[str, Any]:
    """Read config.json of a model folder: sizes, training configuration, data and selected epoch.

    Raises:
        UserError: The file is missing or not valid JSON.
    """
    try:
        metadata: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise UserError(
            f"{folder / CONFIG}: missing; {folder} is not a model folder written by the train stage"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{folder / CONFIG}: not valid JSON ({error})") from None
    return metadata


def model_fingerprint(folder: Path) -> str:
    """SHA-256 of a model folder's weights file."""
    return hash_file(folder / WEIGHTS)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights of `model` to one safetensors file, atomically."""
    with replace_file(path) as temporary:
        save_file(_contiguous(model.state_dict()), temporary)


@dataclass
class TrainState:
    """Training progress apart from the tensors: what resuming needs to continue as if it had never stopped."""

    epoch: int = 1
    step: int = 0  # the next step of the epoch, counted from 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per window: losses, accuracies, rates
    validation: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)  # sums since the last row of `history`
    best_epoch: int = 0
    run_id: str | None = None


class StateFolder:
    """A folder that holds the resumable state of one training run and its best weights so far."""

    def __init__(self, folder: Path, fingerprint: dict[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    def best_weights(self, epoch: int) -> Path:
        """Path of the weights kept when `epoch` is the best so far."""
        return self.folder / f"best-{epoch:04d}.safetensors"

    def save(self, state: TrainState, model: nn.Module, optimizer: Optimizer, scaler: dict[str, Any]) -> None:
        """Write the state atomically, then delete best weights that it no longer refers to."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
        metadata = {"fingerprint": self.fingerprint, "state": asdict(state), "scaler": scaler}
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_file(self.folder / STATE) as temporary:
            save_file(_contiguous(tensors), temporary, metadata={"irra": json.dumps(metadata)})
        for path in self.folder.glob(BEST_WEIGHTS):
            if path != self.best_weights(state.best_epoch):
                path.unlink()

    def load(self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> TrainState | None:
        """Restore the saved state into model, optimizer and scaler.

        Returns:
            The saved progress, or None if nothing was saved.

        Raises:
            UserError: The state is damaged, or belongs to another configuration or other data.
        """
        for unfinished in self._unfinished():
            unfinished.unlink()
        path = self.folder / STATE
        if not path.exists():
            return None
        metadata = self.read_metadata()
        self._check_fingerprint(metadata["fingerprint"])
        tensors = read_tensors(path)
        weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        load_strictly(model, weights, path)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        scaler.load_state_dict(metadata["scaler"])
        return TrainState(**metadata["state"])

    def clear(self) -> None:
        """Delete the state of a finished training, and the folder if it is then empty.

        The state goes first: leftover weights are harmless, but a state must find the weights that it refers to.
        """
        (self.folder / STATE).unlink(missing_ok=True)
        for path in [*self.folder.glob(BEST_WEIGHTS), *self._unfinished()]:
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _unfinished(self) -> list[Path]:
        """Temporary files left behind by saves that were killed."""
        return [path for name in (STATE, BEST_WEIGHTS) for path in self.folder.glob(f"{name}*.tmp")]

    def read_metadata(self) -> dict[str, Any]:
        """Read `fingerprint`, `state` and `scaler` of the saved state.

        Raises:
            UserError: The file is damaged, or was written by another version.
        """
        path = self.folder / STATE
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata: dict[str, Any] = json.loads(file.metadata()["irra"])
                return {name: metadata[name] for name in ("fingerprint", "state", "scaler")}
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(
                f"{path}: not a training state of this version ({error}); move {self.folder} away to start over"
            ) from None

    def _check_fingerprint(self, saved: dict[str, Any]) -> None:
        keys = sorted(saved.keys() | self.fingerprint.keys())
        changed = [
            f"{key}: {saved.get(key)} there, {self.fingerprint.get(key)} here"
            for key in keys
            if saved.get(key) != self.fingerprint.get(key)
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds an unfinished training of another configuration or other data "
                f"({'; '.join(changed)}). Restore those values to resume it, or delete {self.folder} to start over"
            )


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in tensors.items()}
