"""The training loop: epochs of steps, validation after each, best weights kept, resumable at every step."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from irra.checkpoint import Progress, StateFolder, save_weights
from irra.config import TrainConfig
from irra.data.loader import Batch, TrainingData
from irra.model import IRRA
from irra.objective import Objective, encode, objective
from irra.optim import build_optimizer, learning_rates, temperature
from irra.utils.errors import Interrupted, UserError
from irra.utils.progress import progress as show
from irra.utils.runtime import StopRequest, autocast, stop_on_signals

SELECTION_METRIC = "R1"


class NonFiniteLoss(UserError):
    """A loss became infinite or not a number; the optimizer has not moved since."""


class Reporter(Protocol):
    """What wants to hear of training as it goes."""

    def step(self, row: Mapping[str, float], step: int) -> None:
        """A row of mean losses, accuracies, learning rates and images per second at global `step`."""

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """Validation metrics after `epoch`."""


@dataclass(frozen=True)
class Trainer:
    """The parts of a training: model and optimizer on their device, data, and how to validate."""

    model: IRRA
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    data: TrainingData
    config: TrainConfig
    device: torch.device
    validate: Callable[[IRRA], dict[str, float]]


def build_trainer(
    model: IRRA,
    data: TrainingData,
    config: TrainConfig,
    device: torch.device,
    validate: Callable[[IRRA], dict[str, float]],
) -> Trainer:
    """Move `model` to `device` and give it the optimizer and loss scaling of `config`."""
    model = model.to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    return Trainer(model, build_optimizer(model, config), scaler, data, config, device, validate)


def fit(trainer: Trainer, state: StateFolder, at: Progress, reporter: Reporter) -> None:
    """Train from `at` to the last epoch; `at` moves along and `state` holds it at every interruption.

    Raises:
        NonFiniteLoss: naming epoch, step and loss, before the optimizer moves.
        Interrupted: on SIGTERM or SIGINT, after the state was saved.
    """
    config = trainer.config
    with stop_on_signals() as request:
        while at.epoch <= config.num_epoch:
            train_epoch(trainer, state, at, reporter, request)
            if at.epoch % config.eval_period == 0 or at.epoch == config.num_epoch:
                save_state(trainer, state, at)  # a validation takes long, and nobody waits for its end
                validate_epoch(trainer, state, at, reporter, request)
            at.epoch, at.step = at.epoch + 1, 0
            save_state(trainer, state, at)
            if request.signum is not None and at.epoch <= config.num_epoch:
                raise Interrupted(request.signum, f"stopped after epoch {at.epoch - 1}; start again to go on")


def train_epoch(trainer: Trainer, state: StateFolder, at: Progress, reporter: Reporter, request: StopRequest) -> None:
    """The rest of epoch `at.epoch` from step `at.step`."""
    config = trainer.config
    steps = len(trainer.data.epoch(at.epoch))
    if at.step == steps:  # it was stopped in the validation that follows
        return
    rates = learning_rates(config, at.epoch)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rates[group["name"]]
    schedule = {f"lr/{name}": rate for name, rate in rates.items()} | {"temperature": temperature(config, at.epoch)}
    trainer.model.logit_scale = 1.0 / schedule["temperature"]
    window = Window(trainer.device, at.window)
    saved = time.monotonic()
    batches = trainer.data.batches(at.epoch, at.step, trainer.device)
    for batch in show(batches, f"epoch {at.epoch}/{config.num_epoch}", steps - at.step, "steps"):
        result = train_step(trainer, batch, at)
        at.step += 1
        window.add(result, len(batch["images"]))
        if at.step % config.log_period == 0 or at.step == steps:
            report_window(window, at, steps, schedule, reporter)
        stop = request.signum is not None and at.step < steps
        if stop or time.monotonic() - saved > 60.0 * config.checkpoint_minutes:
            at.window = window.sums()
            save_state(trainer, state, at)
            saved = time.monotonic()
        if stop:
            assert request.signum is not None
            raise Interrupted(request.signum, f"stopped in epoch {at.epoch} at step {at.step}; start again to go on")
    at.window = {}


def train_step(trainer: Trainer, batch: Batch, at: Progress) -> Objective:
    """Forward, backward, and, if every loss is finite, one move of the optimizer."""
    config = trainer.config
    trainer.model.train()
    with autocast(trainer.device, config.precision):
        features = encode(trainer.model, batch, "mlm" in config.losses, config.mask_global_text)
        result = objective(
            trainer.model,
            features,
            batch,
            config.losses,
            config.soft_labels,
            config.id_loss_weight,
            config.mlm_loss_weight,
        )
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.scaler.scale(result.losses["total"]).backward()  # type: ignore[no-untyped-call]
    # looked at only now, so that a GPU computes the backward pass while the CPU waits for the value
    if not math.isfinite(result.losses["total"].item()):
        bad = [name for name, value in result.losses.items() if not math.isfinite(value.item())]
        raise NonFiniteLoss(
            f"epoch {at.epoch}, step {at.step + 1}: {', '.join(bad)} is not finite; the last good state is kept. Lower "
            "train.lr, or use train.precision: fp32 or bf16; that state goes on with equal parameters alone, so delete "
            "the folder of --checkpoints (checkpoints) then"
        )
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    return result


def validate_epoch(
    trainer: Trainer, state: StateFolder, at: Progress, reporter: Reporter, request: StopRequest
) -> None:
    """Measure the model and keep its weights if they are the best so far."""
    trainer.model.eval()
    with request.at_once(f"stopped in the validation after epoch {at.epoch}; start again to go on with it"):
        metrics = trainer.validate(trainer.model)
    best = max((row[SELECTION_METRIC] for row in at.validation), default=-1.0)
    at.validation.append({"epoch": at.epoch, **metrics})
    if metrics[SELECTION_METRIC] > best:
        at.best_epoch = at.epoch
        state.folder.mkdir(parents=True, exist_ok=True)
        save_weights(trainer.model, state.best_weights(at.epoch))
    reporter.epoch(metrics, at.epoch)


def save_state(trainer: Trainer, state: StateFolder, at: Progress) -> None:
    """Write all that resuming needs."""
    state.save(at, trainer.model, trainer.optimizer, trainer.scaler.state_dict())


def report_window(window: "Window", at: Progress, steps: int, schedule: dict[str, float], reporter: Reporter) -> None:
    """Close a window: its means become a row of the history and go to the reporter."""
    means = window.means()
    row = {"epoch": at.epoch - 1 + at.step / steps, **means, **schedule}
    at.losses.append(row)
    reporter.step({**row, "images_per_second": window.speed()}, (at.epoch - 1) * steps + at.step)
    window.reset()


class Window:
    """Running sums of losses and accuracies on the device: one transfer a window instead of one a step."""

    def __init__(self, device: torch.device, sums: dict[str, float]) -> None:
        self._sums: dict[str, Tensor] = {
            name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in sums.items()
        }
        self._images, self._start = 0, time.monotonic()

    def add(self, result: Objective, images: int) -> None:
        """Count one step of `images` samples."""
        named = {f"loss/{name}": value for name, value in result.losses.items()}
        named |= {f"accuracy/{name}": value for name, value in result.accuracies.items()}
        for name, value in named.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        one = torch.ones((), device=next(iter(named.values())).device)
        self._sums["steps"] = self._sums.get("steps", torch.zeros_like(one)) + one
        self._images += images

    def sums(self) -> dict[str, float]:
        """The sums as numbers, in a form that a checkpoint keeps exactly."""
        if not self._sums:
            return {}
        return dict(zip(self._sums, torch.stack(list(self._sums.values())).tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """Mean of every value over the steps of the window."""
        sums = self.sums()
        steps = sums.pop("steps")
        return {name: value / steps for name, value in sums.items()}

    def speed(self) -> float:
        """Images per second since the window opened."""
        return self._images / max(time.monotonic() - self._start, 1e-9)

    def reset(self) -> None:
        """Open the next window."""
        self._sums.clear()
        self._images, self._start = 0, time.monotonic()
