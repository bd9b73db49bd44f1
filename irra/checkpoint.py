"""Weights on disk: the model folder that training produces, and the state that training resumes from."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
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
from irra.utils.files import check_regular_file, hash_file, replace_file, replace_folder
from irra.utils.records import CHECKSUM, check_files, parse_record, read_record, sealed, write_record

STATE = "state.safetensors"
BEST_WEIGHTS = "best-*.safetensors"
TRAIN_AGAIN = "train the model again, or restore its folder"


def save_model(
    folder: Path, weights: Path, spec: ModelSpec, metadata: dict[str, Any], sha256: str | None = None
) -> None:
    """Write a model folder: a copy of the weights file, and config.json with the model's sizes and `metadata`.

    Raises:
        UserError: The weights do not have the given `sha256`; `folder` stays as it was.
    """
    with replace_folder(folder) as target:
        shutil.copyfile(weights, target / WEIGHTS)
        copied = hash_file(target / WEIGHTS)
        if sha256 is not None and copied != sha256:
            raise UserError(f"{weights}: not the weights that were saved; delete {weights.parent} and train again")
        write_record(target / CONFIG, {"model": spec.as_dict(), **metadata, "weights_sha256": copied})


def load_model(folder: Path) -> IRRA:
    """Load the model in a model folder.

    Raises:
        UserError: A file is missing or damaged, or the weights do not fit the model; the message names them.
    """
    sizes = read_model_metadata(folder)["model"]
    try:
        model = build_model(ModelSpec.from_dict(sizes))
    except Exception as error:  # each architecture fails in its own way if its sizes cannot be
        raise UserError(f"{folder / CONFIG}: not the sizes of a model ({error}); {TRAIN_AGAIN}") from error
    model_fingerprint(folder)
    load_strictly(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return model


@dataclass
class ModelConfig:
    """The contents of config.json that all model folders have; an imported model has no more.

    `weights_sha256` is empty in folders of an earlier version.
    """

    model: ModelSpec
    dataset: str = ""
    data_fingerprint: str = ""
    train: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, str] = field(default_factory=dict)  # SHA-256 of their tables, by name
    selected: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""


def read_model_metadata(folder: Path) -> dict[str, Any]:
    """Read config.json of a model folder: sizes, training configuration, data and selected epoch.

    Raises:
        UserError: The file is missing or damaged.
    """
    path = folder / CONFIG
    missing = f"{path}: missing; {folder} is not a model folder written by the train stage"
    read_record(path, ModelConfig, missing, TRAIN_AGAIN)
    metadata = read_record(path, dict[str, Any], missing, TRAIN_AGAIN)
    return {name: value for name, value in metadata.items() if name != CHECKSUM}


def model_fingerprint(folder: Path) -> str:
    """SHA-256 of a model folder's weights file.

    Raises:
        UserError: The file is missing, or not the one that config.json names.
    """
    expected = read_model_metadata(folder).get("weights_sha256")
    try:
        found = hash_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS}: missing; {TRAIN_AGAIN}") from None
    if expected and found != expected:
        raise UserError(f"{folder / WEIGHTS}: damaged (its sha256 is not the one in {CONFIG}); {TRAIN_AGAIN}")
    return found


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights of `model` to one safetensors file, atomically."""
    with replace_file(path) as temporary:
        save_file(_contiguous(model.state_dict()), temporary)


@dataclass
class TrainState:
    """Training progress beside weights and optimizer: what resuming needs to go on as if it had never stopped."""

    epoch: int = 1
    step: int = 0  # the next step of the epoch, counted from 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per window: losses, accuracies, rates
    validation: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, float] = field(default_factory=dict)  # sums since the last row of `history`
    best_epoch: int = 0
    best_sha256: str = ""  # of the best weights; empty in states of an earlier version
    run_id: str | None = None
    tensors: dict[str, Any] = field(default_factory=dict, compare=False)  # Tensors by name, beside those of the weights


@dataclass
class StateMetadata:
    """What a state file says beside its tensors; `sha256` of all tensors, empty in states of an earlier version."""

    fingerprint: dict[str, Any]
    state: TrainState
    scaler: dict[str, Any]
    sha256: str = ""


class StateFolder:
    """A folder that holds the resumable state of one training run and its best weights so far."""

    def __init__(self, folder: Path, fingerprint: dict[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    def best_weights(self, epoch: int) -> Path:
        """Path of the weights kept when `epoch` is the best so far."""
        return self.folder / f"best-{epoch:04d}.safetensors"

    def has_state(self) -> bool:
        """Whether a state was saved, from which training resumes."""
        return os.path.lexists(self.folder / STATE)

    def save(self, state: TrainState, model: nn.Module, optimizer: Optimizer, scaler: dict[str, Any]) -> None:
        """Write the state atomically, then delete best weights that it no longer refers to."""
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
        tensors |= {f"state.{name}": value for name, value in state.tensors.items()}
        tensors = {name: value.cpu() for name, value in _contiguous(tensors).items()}
        metadata = StateMetadata(self.fingerprint, replace(state, tensors={}), scaler, _hash_tensors(tensors))
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_file(self.folder / STATE) as temporary:
            save_file(tensors, temporary, metadata={"irra": json.dumps(sealed(asdict(metadata)))})
        for path in self.folder.glob(BEST_WEIGHTS):
            if path != self.best_weights(state.best_epoch):
                path.unlink()

    def load(self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> TrainState | None:
        """Restore the saved state into model, optimizer and scaler.

        Returns:
            The saved progress, or None if nothing was saved.

        Raises:
            UserError: The state or its best weights are damaged, or it belongs to another configuration or other data.
        """
        for unfinished in self._unfinished():
            unfinished.unlink()
        path = self.folder / STATE
        if not self.has_state():
            return None
        metadata = self.read_metadata()
        self._check_fingerprint(metadata.fingerprint)
        self.check_best(metadata.state)
        tensors = read_tensors(path)
        if metadata.sha256 not in ("", _hash_tensors(tensors)):
            raise UserError(f"{path}: damaged (its tensors are not those that were saved); {self._start_over()}")
        weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        load_strictly(model, weights, path)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        scaler.load_state_dict(metadata.scaler)
        own = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
        return replace(metadata.state, tensors=own)

    def check_best(self, state: TrainState) -> None:
        """Check that the best weights are those that `state` names.

        Raises:
            UserError: They are missing or others.
        """
        if state.best_epoch:
            path = self.best_weights(state.best_epoch)
            check_files(
                self.folder, {path.name: state.best_sha256}, self._start_over(), None if state.best_sha256 else -1
            )

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
        """Temporary files left behind by saves that were killed: our own, and `.tmp...`, which safetensors writes."""
        return [path for name in (f"{STATE}*.tmp", f"{BEST_WEIGHTS}*.tmp", ".tmp*") for path in self.folder.glob(name)]

    def read_metadata(self) -> StateMetadata:
        """Read what the saved state says beside its tensors.

        Raises:
            UserError: The file is damaged, or was written by another version.
        """
        path = self.folder / STATE
        check_regular_file(path)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                content: str = file.metadata()["irra"]
        except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a training state of this version ({error}); {self._start_over()}") from None
        metadata = parse_record(content, StateMetadata, path, self._start_over())
        saved = json.loads(content)["state"]  # parsing made floats of the epochs in the history
        metadata.state = TrainState(**{name: saved[name] for name in asdict(metadata.state) if name in saved})
        return metadata

    def _start_over(self) -> str:
        return f"move {self.folder} away to start over"

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


def _hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names and values; the values must be contiguous and on the CPU."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in tensors.items()}
