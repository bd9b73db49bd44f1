"""The training loop: epochs of steps, periodic validation, best weights kept, resumable at every step."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from irra.checkpoint import StateFolder, TrainState, save_weights
from irra.config import TrainConfig
from irra.data.loader import DROPOUT, Batch, TrainingData, seed_of
from irra.distributed import ProcessLost, noticing_lost_processes
from irra.division import Division
from irra.evaluation import encode_split, text_to_image
from irra.model import IRRA
from irra.objective import objective, varying
from irra.optim import build_optimizer, learning_rates, temperature
from irra.utils.device import autocast, half_weights, matrix_products
from irra.utils.errors import SharedError
from irra.utils.files import hash_file
from irra.utils.progress import progress
from irra.utils.signals import StopRequest, stop_on_signals

SELECTION_METRIC = "R1"
STEPS_WORTH_COMPILING = 2000  # of a whole training


class NonFiniteLoss(SharedError):
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
    Of the processes that share the batches of `data`, the first alone reads and writes `folder`.
    """

    def __init__(
        self, model: IRRA, data: TrainingData, config: TrainConfig, device: torch.device, folder: StateFolder
    ) -> None:
        self.model = model.to(device)
        if config.precision == "fp16-weights":
            half_weights(self.model)
        self.data = data
        self.world = data.world
        self.config = config
        self.device = device
        self.folder = folder
        self.model.clip.visual.conv1.weight.requires_grad_(not config.freeze_patches)
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.state = self.load()
        self.model.micro_batch, self.model.recompute = config.micro_batch, config.recompute
        if self.model.token_selection is not None:
            self.model.token_selection.share_statistics(self.world.total)
        blocks: list[Any] = list(self.model.clip.transformer.resblocks)
        for block in blocks:
            block.attn.dropout = config.text_dropout
        if self.is_compiled():
            self.model.compile_encoders()
        self.parallel = self.world.parallel(self.model)
        self.guard = FiniteGuard(device)
        self.division = Division(self.model, data, config, device, self.state.tensors)
        self.averager = MetricAverager(device, self.state.window)

    def load(self) -> TrainState:
        """Restore the progress, the weights and the optimizer of all processes from the state that the first one has.

        Raises:
            UserError: The state is damaged, or it belongs to another configuration or other data.
        """
        found = self.folder.load(self.model, self.optimizer, self.scaler) if self.world.first else None
        state, scaler = self.world.share((found, self.scaler.state_dict()))
        if state is None:
            return TrainState()
        self.scaler.load_state_dict(scaler)
        self.world.share_optimizer(self.optimizer)  # the weights are shared when the model is made parallel
        return state

    def is_compiled(self) -> bool:
        """Whether the encoders are compiled, which takes minutes on a GPU."""
        if self.config.compile == "auto":
            steps = len(self.data.epoch(1)) * self.config.num_epoch
            return self.device.type == "cuda" and steps >= STEPS_WORTH_COMPILING
        return self.config.compile == "on"

    def fit(self, reporter: Reporter) -> TrainState:
        """Train to the last epoch.

        Raises:
            NonFiniteLoss: A loss is not finite; the message names epoch, step and loss. The optimizer has not stepped.
            Interrupted: SIGTERM or SIGINT arrived; the state has been saved.
            ProcessLost: Another of the processes has ended; the state has been saved.
        """
        with stop_on_signals() as request:
            try:
                with noticing_lost_processes():
                    while self.state.epoch <= self.config.num_epoch:
                        self.divide(request)
                        for batch in self.rest_of_epoch():
                            self.step(batch)
                            self.after_step(reporter, request)
                        self.validate_epoch(reporter, request)
            except ProcessLost as error:
                request.is_last = True  # torchrun is about to send one to those that are left
                self.save()
                raise ProcessLost(f"{error}; the state of {self.position()} is kept: run it again to resume") from None
        return self.state

    def divide(self, request: StopRequest) -> None:
        """Divide the captions before an epoch that drops some, unless the state that was resumed has done so.

        Raises:
            NonFiniteLoss: A loss of a caption is not finite.
            Interrupted: A signal arrived; the state after the epoch before has been saved.
        """
        epoch = self.state.epoch
        if self.division.is_due(epoch):
            with request.at_once(f"stopped before epoch {epoch}, dividing captions; run it again to resume"):
                losses = self.division.measure(epoch)
                if bad := np.count_nonzero(~np.isfinite(losses).all(axis=0)):
                    raise NonFiniteLoss(
                        f"epoch {epoch}, dividing captions: the losses of {bad} of {losses.shape[1]} are not finite. "
                        f"Lower train.lr, or use train.precision: fp32 or bf16, and delete {self.folder.folder}"
                    )
                self.division.decide(epoch, losses)

    def after_step(self, reporter: Reporter, request: StopRequest) -> None:
        """Report and save when it is time to.

        Raises:
            Interrupted: A signal arrived in any of the processes; the state has been saved.
        """
        state = self.state
        if state.step % self.config.log_period == 0 or state.step == self.steps:
            self.report(reporter)
        stopped, due = self.world.any([request.signum is not None, self.state_is_due()])
        stopped = stopped and state.step < self.steps
        if stopped or due:
            self.save()
        if stopped:
            request.stop(f"stopped in {self.position()}; run it again to resume")

    def validate_epoch(self, reporter: Reporter, request: StopRequest) -> None:
        """Validate if the epoch is one of those after which that is done, and go on to the next epoch.

        Raises:
            Interrupted: A signal arrived; the state has been saved.
        """
        state, config = self.state, self.config
        if state.epoch % config.eval_period == 0 or state.epoch == config.num_epoch:
            self.save()  # a validation takes long, and a signal does not wait for its end
            with request.at_once(f"stopped in the validation after epoch {state.epoch}; run it again to resume"):
                metrics = self.validate()
            self.keep_if_best(metrics)
            reporter.epoch(metrics, state.epoch)
        state.epoch, state.step = state.epoch + 1, 0
        self.save()
        (stopped,) = self.world.any([request.signum is not None])
        if stopped and state.epoch <= config.num_epoch:
            request.stop(f"stopped after epoch {state.epoch - 1}; run it again to resume")

    def position(self) -> str:
        """Where the training stands, in words."""
        return f"epoch {self.state.epoch} at step {self.state.step}"

    def progress(self) -> float:
        """How many epochs are done, the current one in part."""
        return self.state.epoch - 1 + self.state.step / self.steps

    def state_is_due(self) -> bool:
        """Whether the last state was saved as long ago as the parameters allow."""
        return time.monotonic() - self.saved_at > 60.0 * self.config.checkpoint_minutes

    def set_schedule(self, done: float) -> None:
        """Set learning rates and temperature as they are after `done` epochs."""
        rates = learning_rates(self.config, done)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        self.schedule = {f"lr/{name}": rate for name, rate in rates.items()}
        self.schedule["temperature"] = temperature(self.config, done)
        self.model.logit_scale = 1.0 / self.schedule["temperature"]

    def rest_of_epoch(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch from the current step on, each time with the schedule set for it."""
        state, config = self.state, self.config
        self.set_schedule(state.epoch - 1)
        self.steps = len(self.data.epoch(state.epoch))
        self.averager = MetricAverager(self.device, state.window)
        self.saved_at = time.monotonic()
        if state.step < self.steps:  # otherwise it was stopped in the validation after the epoch
            batches = self.data.batches(state.epoch, state.step, self.device, self.division.clean(state.epoch))
            title = f"epoch {state.epoch}/{config.num_epoch}"
            for batch in progress(batches, title, self.steps - state.step, "steps"):
                if config.schedule_unit == "step":
                    self.set_schedule(self.progress())
                yield batch

    def step(self, batch: Batch) -> None:
        """Run forward and backward passes and one optimizer step, which does nothing once a loss was not finite.

        Nothing here waits for the device, whose work is queued ahead of it, unless the optimizer is not a fused one.
        """
        config = self.config
        self.model.train()
        if config.text_dropout > 0.0:
            torch.manual_seed(seed_of(config.seed, self.state.epoch, self.state.step, DROPOUT, self.world.rank))
        with matrix_products(config.precision):
            with autocast(self.device, config.precision):
                result = objective(self.parallel, batch, config, self.world, varying(config, self.progress()))
            names, values = zip(*result.named().items(), strict=True)
            means = self.world.mean(torch.stack([value.detach() for value in values]))
            self.guard.look(self.state.step + 1, means[: len(result.losses)])
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(self.guard.poison(result.losses["total"])).backward()  # type: ignore[no-untyped-call]
        if not self.guard.hold(self.optimizer):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.model.limit_temperature()
        self.state.step += 1
        self.averager.add(names, means, len(batch["pids"]))

    def check_finite(self) -> None:
        """Stop if a loss was not finite in a step since the last call; the optimizer has not moved from there on.

        Raises:
            NonFiniteLoss: The message names epoch, step and losses.
        """
        if bad := self.guard.read():
            step, numbers = bad
            names = [*self.config.losses, "total"]
            which = ", ".join(names[i] for i in numbers)
            raise NonFiniteLoss(
                f"epoch {self.state.epoch}, step {step}: {which} is not finite; the last good state "
                "is kept. Lower train.lr, or use train.precision: fp32 or bf16, and delete "
                f"{self.folder.folder}: its state resumes with equal parameters only"
            )

    def report(self, reporter: Reporter) -> None:
        """Add a row to the history for the steps since the last one, and pass it to the reporter.

        Raises:
            NonFiniteLoss: A loss was not finite in one of them.
        """
        self.check_finite()
        state = self.state
        scores = self.division.scores(state.epoch)
        row = {"epoch": self.progress(), **self.averager.means(), **self.schedule, **scores}
        state.history.append(row)
        speed = {"images_per_second": self.averager.speed()}
        reporter.step(row | speed, (state.epoch - 1) * self.steps + state.step)
        self.averager.reset()

    def validate(self) -> dict[str, float]:
        """Text-to-image metrics on the split that selects the best epoch."""
        store, tokens, config = self.data.store, self.data.tokens, self.config
        self.model.eval()
        features = encode_split(
            self.model, store, tokens, config.select_on, config.test_batch_size, config.precision, self.world
        )
        return self.world.share(text_to_image(features, top_k=1).scores.metrics() if self.world.first else {})

    def keep_if_best(self, metrics: dict[str, float]) -> None:
        """Record a validation, and save the weights if they are the best so far."""
        state = self.state
        best = max((row[SELECTION_METRIC] for row in state.validation), default=-1.0)
        state.validation.append({"epoch": state.epoch, **metrics})
        if metrics[SELECTION_METRIC] > best:
            state.best_epoch = state.epoch
            if not self.world.first:
                return
            self.folder.folder.mkdir(parents=True, exist_ok=True)
            save_weights(self.model, self.folder.best_weights(state.epoch))
            state.best_sha256 = hash_file(self.folder.best_weights(state.epoch))

    def save(self) -> None:
        """Write everything that resuming needs, in the first process; all have the same.

        Raises:
            NonFiniteLoss: A loss was not finite; the state on disk is an earlier one.
        """
        self.check_finite()
        self.saved_at = time.monotonic()
        if self.world.first:
            self.state.window = self.averager.sums()
            self.folder.save(self.state, self.model, self.optimizer, self.scaler.state_dict())


class FiniteGuard:
    """Notices on the device that a loss is not finite, and keeps the optimizer from moving from that step on."""

    def __init__(self, device: torch.device) -> None:
        self._found = torch.zeros((), device=device)  # 1 from the first bad step on; as fused optimizers want it
        self._recent: list[tuple[int, Tensor]] = []  # steps and their losses since the last reading

    def look(self, step: int, losses: Tensor) -> None:
        """Take the losses of a step before its backward pass."""
        self._recent.append((step, losses))
        self._found = torch.maximum(self._found, (~losses.isfinite()).any())

    def poison(self, loss: Tensor) -> Tensor:
        """The loss unchanged, or infinite from the first bad step on, so that a gradient scaler skips the steps."""
        return loss / (1.0 - self._found)

    def hold(self, optimizer: Optimizer) -> bool:
        """Whether to leave the optimizer's next step out, as from the first bad step on.

        A fused optimizer is told to move nothing instead; for another one, this waits for the device.
        """
        if not optimizer.defaults["fused"]:
            return bool(self._found)
        optimizer.found_inf = self._found  # type: ignore[attr-defined]
        return False

    def read(self) -> tuple[int, list[int]] | None:
        """The first bad step since the last reading, and which of its losses are bad; waits for the device."""
        if not self._recent:
            return None
        steps, losses = zip(*self._recent, strict=True)
        self._recent = []
        bad = ~torch.stack(losses).isfinite().cpu()
        rows = bad.any(dim=1).nonzero()[:, 0].tolist()
        return (steps[rows[0]], bad[rows[0]].nonzero()[:, 0].tolist()) if rows else None


class MetricAverager:
    """Running sums of named scalars on the device, so that they are transferred once per window, not once per step."""

    def __init__(self, device: torch.device, sums: dict[str, float]) -> None:
        self._names = [name for name in sums if name != "steps"]
        self._sums = torch.tensor([sums[name] for name in self._names], device=device) if sums else None
        self._steps = sums.get("steps", 0.0)
        self._images, self._start = 0, time.monotonic()

    def add(self, names: Sequence[str], values: Tensor, images: int) -> None:
        """Add the values of one step of `images` samples."""
        self._names = list(names)
        self._sums = values if self._sums is None else self._sums + values
        self._steps += 1.0
        self._images += images

    def sums(self) -> dict[str, float]:
        """The sums as plain numbers, which a checkpoint stores exactly."""
        if self._sums is None:
            return {}
        return dict(zip(self._names, self._sums.tolist(), strict=True)) | {"steps": self._steps}

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
        self._sums, self._steps = None, 0.0
        self._images, self._start = 0, time.monotonic()
