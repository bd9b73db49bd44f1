"""The training step against a plain one, as the released code takes it: see reference_step.py.

The product's side is `Trainer.step` itself, in float32 and in bf16. All sides train the same weights and take turns.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import compile_setting, endless, make_trainer, preset, write_data
from benchmarks.measure import alternate, matrix_rate, peak_memory, reset_peak, synchronise, wall
from benchmarks.reference_step import ReferenceStep, encode_images, reference_batches
from benchmarks.results import Row
from irra.trainer import Trainer

REFERENCE = "reference"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GPU_STEPS = 10  # of one turn on a GPU; on a CPU a turn is one step


@dataclass(frozen=True)
class Setting:
    """A model and a batch: the preset that names them, how many turns, and what is asked of the product."""

    name: str
    preset: str
    batch: int
    turns: int
    asked: dict[str, str] = field(default_factory=dict)


ASKED = {"fp32": "> 2", "bf16": "> 4", "memory": "< 0.5", "image": "> 1.3"}
ON_CPU = (
    Setting("irra-small 128x48", "synthetic", 32, 10),
    Setting("ViT-B/16 384x128", "cuhk-pedes", 8, 3, ASKED),
)
ON_GPU = (Setting("ViT-B/16 384x128", "cuhk-pedes", 64, 4),)
SMALL = (Setting("irra-tiny 96x32", "tiny", 8, 2),)
SECONDS = 60  # after which no turn of a setting starts


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Compare the steps for every model."""
    rates = dict.fromkeys(DTYPES, 0.0)
    for setting in SMALL if small else ON_CPU if device.type == "cpu" else ON_GPU:
        with tempfile.TemporaryDirectory() as folder:
            yield from compare(setting, Path(folder), device, rates)
    for name, rate in rates.items():
        yield Row(f"product of large matrices, {name}", rate / 1e12, "TFLOP/s")


def compare(setting: Setting, folder: Path, device: torch.device, rates: dict[str, float]) -> Iterator[Row]:
    """Rows of both sides' time, phases and memory, and of their ratios; `rates` of matrix products rise if need be."""
    params = preset(setting.preset)
    changes = {"batch_size": setting.batch, "device": device.type, **compile_setting("off")}
    configs = {name: params.train.model_copy(update=changes | {"precision": name}) for name in DTYPES}
    data = write_data(folder, params, {"train": (4 * setting.batch, 2)})
    trainers = {"fp32": make_trainer(data, configs["fp32"], device)}
    trainers["bf16"] = make_trainer(data, configs["bf16"], device, trainers["fp32"].model)
    reference = ReferenceStep(trainers["fp32"].model, configs["fp32"])

    batches = chain.from_iterable(reference_batches(trainers["fp32"].data, epoch, device) for epoch in count(1))
    sides = {REFERENCE: Side(reference, batches, reference.optimizer, device)}
    sides |= {name: Side(each.step, endless(each), each.optimizer, device) for name, each in trainers.items()}
    flop = {name: side.count_flop() for name, side in sides.items()}  # which warms them up, too
    for side in sides.values():
        side.kept_by_others = sum(state_bytes(other.optimizer) for other in sides.values() if other is not side)
    rise(rates, device)
    turns = alternate(sides, setting.turns, SECONDS)
    rise(rates, device)

    title = f"{setting.name}, batch {setting.batch}"
    for name, side in sides.items():
        seconds, precision = turns.median(name), "fp32" if name == REFERENCE else name
        share = {"matrix rate (%)": 100 * flop[name] / seconds / rates[precision]}
        what = "reference, fp32" if name == REFERENCE else f"product, {name}"
        yield Row(f"{title}: {what}", seconds, "s a step", details=side.details() | share)
    for name in DTYPES:
        ratio = turns.ratio(REFERENCE, name)
        yield Row(f"{title}: {name} against the reference", ratio, "times as fast", setting.asked.get(name, ""))
        memory = sides[name].memory() / sides[REFERENCE].memory()
        yield Row(f"{title}: memory in {name} against it", memory, "times as much", setting.asked.get("memory", ""))
    yield Row(f"{title}: a sample, forward and backward", flop["fp32"] / setting.batch / 1e9, "GFLOP")
    yield compare_image_passes(trainers["fp32"], title, setting.asked.get("image", ""))


def rise(rates: dict[str, float], device: torch.device) -> None:
    """Measure the FLOP per second of large matrix products again; other programs can only lower what is measured."""
    for name, dtype in DTYPES.items():
        rates[name] = max(rates[name], matrix_rate(device, dtype))


def compare_image_passes(trainer: Trainer, title: str, asked: str) -> Row:
    """The image encoder alone, forward and backward, in float32."""
    images = next(trainer.data.batches(1, 0, trainer.device))["images"]

    def run(encode: Callable[[Tensor], Tensor]) -> float:
        def work() -> None:
            encode(images).sum().backward()
            synchronise(trainer.device)

        trainer.model.zero_grad(set_to_none=True)
        return wall(work)

    sides = {
        REFERENCE: lambda: run(lambda images: encode_images(trainer.model, images)),
        "product": lambda: run(trainer.model.image_tokens),
    }
    turns = alternate(sides, 3, SECONDS / 3)
    ratio = turns.ratio(REFERENCE, "product")
    details = {f"{name} (s)": turns.median(name) for name in sides}
    return Row(f"{title}: image pass in fp32 against it", ratio, "times as fast", asked, details)


class Side:
    """One way of training: `step` trains on a batch with `optimizer`. Drawing the batches is not timed."""

    def __init__(
        self, step: Callable[[Any], object], batches: Iterator[Any], optimizer: Optimizer, device: torch.device
    ) -> None:
        self.step, self.batches, self.optimizer, self.device = step, batches, optimizer, device
        self.kept_by_others = 0  # bytes
        self._phases: list[dict[str, float]] = []
        self._peaks: list[int] = []

    def count_flop(self) -> int:
        """The floating-point operations of matrix products, convolutions and attention in a step."""
        with FlopCounterMode(display=False) as counter:
            self.step(next(self.batches))
        return counter.get_total_flops()

    def __call__(self) -> float:
        """Train, and return the seconds of a step."""
        reset_peak(self.device)
        with phases(self.optimizer, self.device) as seconds:
            total = self._time(1)
        self._peaks.append(peak_memory(self.device) - self.kept_by_others)
        self._phases.append({"forward (s)": total - sum(seconds.values()), **seconds})
        # a GPU waits between the phases of a step that is taken apart, so the step is timed without that
        return total if self.device.type == "cpu" else self._time(GPU_STEPS)

    def _time(self, steps: int) -> float:
        batches = list(islice(self.batches, steps))

        def work() -> None:
            for batch in batches:
                self.step(batch)
            synchronise(self.device)

        return wall(work) / steps

    def memory(self) -> float:
        """The peak of memory of a step in bytes."""
        return median(self._peaks)

    def details(self) -> dict[str, float]:
        """Seconds of the phases, and memory in GB."""
        names = self._phases[0]
        return {name: median(row[name] for row in self._phases) for name in names} | {"peak (GB)": self.memory() / 1e9}


@contextmanager
def phases(optimizer: Optimizer, device: torch.device) -> Iterator[dict[str, float]]:
    """Measure the seconds of backward passes and of `optimizer` in the code that runs inside, whatever it is."""
    seconds = {"backward (s)": 0.0, "optimizer (s)": 0.0}

    def add(phase: str, work: Callable[[], object]) -> None:
        synchronise(device)

        def finish() -> None:
            work()
            synchronise(device)

        seconds[phase] += wall(finish)

    backward, step = torch.autograd.backward, optimizer.step
    with (
        patch("torch.autograd.backward", lambda *args, **kw: add("backward (s)", lambda: backward(*args, **kw))),
        patch.object(optimizer, "step", lambda *args, **kw: add("optimizer (s)", lambda: step(*args, **kw))),
    ):
        yield seconds


def state_bytes(optimizer: Optimizer) -> int:
    """The bytes of an optimizer's moments."""
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
