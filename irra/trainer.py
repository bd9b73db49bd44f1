"""The training loop: epochs of steps, periodic validation, best weights kept, resumable at every step."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from irra.checkpoint import StateFolder, TrainState, save_weights
from irra.config import TrainConfig
from irra.data.loader import Batch, TrainingData
from irra.evaluation import encode_split, text_to_image
from irra.model import IRRA
from irra.objective import objective
from irra.optim import build_optimizer, learning_rates, temperature
from irra.utils.device import autocast
from irra.utils.errors import UserError
from irra.utils.files import hash_file
from irra.utils.progress import progress
from irra.utils.signals import stop_on_signals

SELECTION_METRIC = "R1"


class NonFiniteLoss(UserError):
    """A loss became infinite or NaN; the optimizer has not stepped on it."""


class Reporter(Protocol):
    """Receives the metrics of a training run as it proceeds."""

    def step(self, row: Mapping[str, float], step: int) -> None:
        """Take a row of mean losses, accuracies, learning rates and images per second at global `step`."""

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """Take the validation metrics after `epoch`."""


class Trainer:
    """Trains a model, resuming from the state in `folder` if there is one.

    `state` is the progress so far. It is saved to `folder`, next to the best weights, whenever training is interrupted.
    """

    def __init__(
        self, model: IRRA, data: TrainingData, config: TrainConfig, device: torch.device, folder: StateFolder
    ) -> None:
        self.model = model.to(device)
        self.data = data
        self.config = config
        self.device = device
        self.folder = folder
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.state = folder.load(self.model, self.optimizer, self.scaler) or TrainState()

    def fit(self, reporter: Reporter) -> TrainState:
        """Train to the last epoch.

        Raises:
            NonFiniteLoss: A loss is not finite; the message names epoch, step and loss. The optimizer has not stepped.
            Interrupted: SIGTERM or SIGINT arrived; the state has been saved.
        """
        state, config = self.state, self.config
        with stop_on_signals() as request:
            while state.epoch <= config.num_epoch:
                for batch in self.rest_of_epoch():
                    self.step(batch)
                    if state.step % config.log_period == 0 or state.step == self.steps:
                        self.report(reporter)
                    stopped = request.signum is not None and state.step < self.steps
                    if stopped or time.monotonic() - self.saved_at > 60.0 * config.checkpoint_minutes:
                        self.save()
                    if stopped:
                        request.stop(f"stopped in epoch {state.epoch} at step {state.step}; run it again to resume")
                if state.epoch % config.eval_period == 0 or state.epoch == config.num_epoch:
                    self.save()  # a validation takes long, and a signal does not wait for its end
                    with request.at_once(
                        f"stopped in the validation after epoch {state.epoch}; run it again to resume"
                    ):
                        metrics = self.validate()
                    self.keep_if_best(metrics)
                    reporter.epoch(metrics, state.epoch)
                state.epoch, state.step = state.epoch + 1, 0
                self.save()
                if request.signum is not None and state.epoch <= config.num_epoch:
                    request.stop(f"stopped after epoch {state.epoch - 1}; run it again to resume")
        return state

    def rest_of_epoch(self) -> Iterator[Batch]:
        """Set the learning rates of the current epoch, and yield its batches from the current step on."""
        state, config = self.state, self.config
        rates = learning_rates(config, state.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        self.schedule = {f"lr/{name}": rate for name, rate in rates.items()}
        self.schedule["temperature"] = temperature(config, state.epoch)
        self.model.logit_scale = 1.0 / self.schedule["temperature"]
        self.steps = len(self.data.epoch(state.epoch))
        self.averager = MetricAverager(self.device, state.window)
        self.saved_at = time.monotonic()
        if state.step < self.steps:  # otherwise it was stopped in the validation after the epoch
            batches = self.data.batches(state.epoch, state.step, self.device)
            title = f"epoch {state.epoch}/{config.num_epoch}"
            yield from progress(batches, title, self.steps - state.step, "steps")

    def step(self, batch: Batch) -> None:
        """Run forward and backward passes and, if every loss is finite, one optimizer step."""
        config = self.config
        self.model.train()
        with autocast(self.device, config.precision):
            result = objective(self.model, batch, config)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(result.losses["total"]).backward()  # type: ignore[no-untyped-call]
        self.check_finite(result.losses)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.state.step += 1
        self.averager.add(result.named(), len(batch["images"]))

    def check_finite(self, losses: Mapping[str, Tensor]) -> None:
        """Stop before the optimizer steps if a loss is not finite.

        Called after the backward pass has been queued, so that a GPU computes it while the CPU waits for the value.

        Raises:
            NonFiniteLoss: The message names epoch, step and losses.
        """
        if math.isfinite(losses["total"].item()):
            return
        bad = [name for name, value in losses.items() if not math.isfinite(value.item())]
        raise NonFiniteLoss(
            f"epoch {self.state.epoch}, step {self.state.step + 1}: {', '.join(bad)} is not finite; the last good "
            "state is kept. Lower train.lr, or use train.precision: fp32 or bf16, and delete "
            f"{self.folder.folder}: its state resumes with equal parameters only"
        )

    def report(self, reporter: Reporter) -> None:
        """Add a row to the history for the steps since the last one, and pass it to the reporter."""
        state = self.state
        row = {"epoch": state.epoch - 1 + state.step / self.steps, **self.averager.means(), **self.schedule}
        state.history.append(row)
        speed = {"images_per_second": self.averager.speed()}
        reporter.step(row | speed, (state.epoch - 1) * self.steps + state.step)
        self.averager.reset()

    def validate(self) -> dict[str, float]:
        """Text-to-image metrics on the split that selects the best epoch."""
        store, tokens, config = self.data.store, self.data.tokens, self.config
        self.model.eval()
        features = encode_split(self.model, store, tokens, config.select_on, config.test_batch_size, config.precision)
        return text_to_image(features, top_k=1).scores.metrics()

    def keep_if_best(self, metrics: dict[str, float]) -> None:
        """Record a validation, and save the weights if they are the best so far."""
        state = self.state
        best = max((row[SELECTION_METRIC] for row in state.validation), default=-1.0)
        state.validation.append({"epoch": state.epoch, **metrics})
        if metrics[SELECTION_METRIC] > best:
            state.best_epoch = state.epoch
            self.folder.folder.mkdir(parents=True, exist_ok=True)
            save_weights(self.model, self.folder.best_weights(state.epoch))
            state.best_sha256 = hash_file(self.folder.best_weights(state.epoch))

    def save(self) -> None:
        """Write everything that resuming needs."""
        self.state.window = self.averager.sums()
        self.folder.save(self.state, self.model, self.optimizer, self.scaler.state_dict())
        self.saved_at = time.monotonic()


class MetricAverager:
    """Running sums of named scalars on the device, so that they are transferred once per window, not once per step."""

    def __init__(self, device: torch.device, sums: dict[str, float]) -> None:
        self._sums: dict[str, Tensor] = {
            name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in sums.items()
        }
        self._images, self._start = 0, time.monotonic()

    def add(self, values: Mapping[str, Tensor], images: int) -> None:
        """Add the values of one step of `images` samples."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        one = torch.ones((), device=next(iter(values.values())).device)
        self._sums["steps"] = self._sums.get("steps", torch.zeros_like(one)) + one
        self._images += images

    def sums(self) -> dict[str, float]:
        """The sums as plain numbers, which a checkpoint stores exactly."""
        if not self._sums:
            return {}
        return dict(zip(self._sums, torch.stack(list(self._sums.values())).tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """Mean of every value over the steps of the window."""
        sums = self.sums()
        steps = sums.pop("steps")
        return {name: value / steps for name, value in sums.items()}

    def speed(self) -> float:
        """Images per second since the window started."""
        return self._images / max(time.monotonic() - self._start, 1e-9)

    def reset(self) -> None:
        """Start the next window."""
        self._sums.clear()
        self._images, self._start = 0, time.monotonic()
