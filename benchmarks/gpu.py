"""Training the published model on a GPU: throughput by batch size, precision and compiler, and where the time goes.

It times the training loop, `Trainer.step` on the batches of `Trainer.rest_of_epoch`, with all input.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import compile_setting, endless, make_trainer, preset, write_data
from benchmarks.measure import alternate, matrix_rate, peak_memory, reset_peak, synchronise, wall
from benchmarks.results import Row
from irra.config import Params
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.utils.device import DTYPES

# Batch size and precision, most wanted first; with and without the compiler.
GRID = ((64, "bf16"), (256, "bf16"), (128, "bf16"), (64, "fp16"), (64, "fp16-weights"))
ASKED = {(64, "bf16"): "> 2,400"}  # images a second
ASKED_SHARE = {(256, "bf16"): "> 45"}  # percent of the matrix rate
COMPILERS = ("off", "on")
SECONDS = 180  # after which no setting of the grid is started
WARM_UP, STEPS, PROFILED, TURNS = 4, 10, 10, 4  # steps, and turns of STEPS
SAMPLES, EPOCHS = 68_126, 60  # of CUHK-PEDES, and of the recipe
KERNELS = 10
ATTENTION = ("flash", "fmha", "attention", "sdpa")  # in names of kernels

Data = tuple[PreparedStore, TokenStore]


def measure(device: torch.device, small: bool, compilers: tuple[str, ...] = COMPILERS) -> Iterator[Row]:
    """Measure the grid, then profile its first setting; `small` tries it with a tiny model."""
    start = time.monotonic()
    params = preset("tiny" if small else "cuhk-pedes")
    turns, profiled = (1, 2) if small else (TURNS, PROFILED)
    grid = ((8, "bf16"),) if small else GRID
    rates = {precision: matrix_rate(device, DTYPES[precision]) for precision in {kind for _, kind in grid}}
    for precision, rate in rates.items():
        yield Row(f"product of large matrices, {precision}", rate / 1e12, "TFLOP/s")
    if not compile_setting("on"):
        compilers = ("off",)
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder), params, {"train": (4 * max(size for size, _ in grid), 4)})
        flop = flop_of_sample(data, params, device)
        yield Row("a sample, forward and backward", flop / 1e9, "GFLOP")
        for number, (batch, precision) in enumerate(grid):
            title = f"batch {batch}, {precision}"
            if time.monotonic() - start > SECONDS:
                yield Row(title, "not measured: no time left")
                continue
            runs: dict[str, Run] = {}
            for kind in compilers:
                try:
                    runs[kind] = Run(data, params, device, batch, precision, kind)
                except RuntimeError as error:  # no memory left, or it does not compile
                    yield Row(f"{title}, compile {kind}", f"failed: {str(error).partition(chr(10))[0]}")
            yield from measure_setting(runs, title, flop / rates[precision], (batch, precision), turns)
            if number == 0 and runs:
                yield from profile_runs(runs, title, profiled)
            runs.clear()
            torch.compiler.reset()  # else it would compile the next batch size for any
            if device.type == "cuda":
                torch.cuda.empty_cache()


class Run:
    """A training that has warmed up: what it trains, and the bytes that a step takes at most."""

    def __init__(
        self, data: Data, params: Params, device: torch.device, batch: int, precision: str, compiler: str
    ) -> None:
        changes = {"batch_size": batch, "precision": precision, "device": device.type}
        changes |= compile_setting(compiler)
        held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        self.trainer = make_trainer(data, params.train.model_copy(update=changes), device)
        self._batches = endless(self.trainer)
        self.batch, self.device = batch, device
        self.started = wall(lambda: self.train(WARM_UP))
        reset_peak(device)
        self.train(2)
        self.peak = peak_memory(device) - held

    def train(self, steps: int) -> None:
        """Train for some steps, and wait for the last."""
        for batch in islice(self._batches, steps):
            self.trainer.step(batch)
        synchronise(self.device)

    def seconds(self) -> float:
        """The seconds of a step."""
        return wall(lambda: self.train(STEPS)) / STEPS


def measure_setting(runs: dict[str, Run], title: str, ideal: float, key: tuple[int, str], turns: int) -> Iterator[Row]:
    """Throughput of each run, and what the compiler is worth; a sample takes `ideal` seconds at the matrix rate."""
    measured = alternate({kind: run.seconds for kind, run in runs.items()}, turns, SECONDS / 9)
    for kind, run in runs.items():
        rate = run.batch / measured.median(kind)
        details = {
            "a step (ms)": 1000 * measured.median(kind),
            "peak (GB)": run.peak / 1e9,
            f"first {WARM_UP} steps (s)": run.started,
            f"{EPOCHS} epochs of CUHK-PEDES (min)": EPOCHS * SAMPLES / rate / 60,
        }
        yield Row(f"{title}, compile {kind}", rate, "images/s", ASKED.get(key, ""), details)
        yield Row(f"{title}, compile {kind}: of the matrix rate", 100 * ideal * rate, "%", ASKED_SHARE.get(key, ""))
    if len(runs) > 1:
        yield Row(f"{title}: compiled", measured.ratio("off", "on"), "times as fast")


def profile_runs(runs: dict[str, Run], title: str, steps: int) -> Iterator[Row]:
    """The share of time in which the device does nothing and, of the last run, its kernels."""
    for kind, run in runs.items():
        idle, kernels = profile_run(run, steps)
        if not kernels:
            yield Row(f"{title}, compile {kind}: profile", "none: the profiler saw no kernels")
            return
        busy = {"kernels a step (ms)": kernels.total() / steps / 1000}
        yield Row(f"{title}, compile {kind}: idle while training", 100 * idle, "%", "< 3", busy)
    for kernel, microseconds in kernels.most_common(KERNELS):
        yield Row(f"kernel {kernel[:100]}", 100 * microseconds / kernels.total(), "% of the kernels' time")
    names = [kernel for kernel, _ in kernels.most_common() if any(word in kernel.lower() for word in ATTENTION)]
    yield Row("attention ran as", ", ".join(kernel[:100] for kernel in names[:4]) or "other kernels")


def profile_run(run: Run, steps: int) -> tuple[float, Counter[str]]:
    """The share of time in which nothing ran on the device, and the microseconds of each kernel, by name.

    On a CPU, which has no kernels, those of operators in their place.
    """
    on_gpu = run.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        run.train(steps)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [each for each in profiler.events() if each.device_type == kind and not each.is_user_annotation]
    kernels: Counter[str] = Counter()
    for each in events:
        kernels[each.name] += each.time_range.elapsed_us() if on_gpu else each.self_cpu_time_total
    return idle_share([(each.time_range.start, each.time_range.end) for each in events]), kernels


def idle_share(intervals: list[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end that lies in none of the intervals."""
    idle = 0.0
    first = covered = min((start for start, _ in intervals), default=0.0)
    for start, end in sorted(intervals):
        idle += max(0.0, start - covered)
        covered = max(covered, end)
    return idle / (covered - first) if intervals else 0.0


def flop_of_sample(data: Data, params: Params, device: torch.device) -> float:
    """The floating-point operations of matrix products, convolutions and attention in a step, per sample."""
    size = 8
    changes = {"batch_size": size, "precision": "fp32", "device": device.type, **compile_setting("off")}
    trainer = make_trainer(data, params.train.model_copy(update=changes), device)
    batch = next(endless(trainer))
    with FlopCounterMode(display=False) as counter:
        trainer.step(batch)
    return counter.get_total_flops() / size
