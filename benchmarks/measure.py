"""Time and memory on a machine that others use too: what is compared takes turns."""

import ctypes
import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Turns:
    """The costs of every side, by name, one for each turn."""

    costs: dict[str, list[float]]

    def median(self, side: str) -> float:
        """The median cost of a side."""
        return statistics.median(self.costs[side])

    def ratio(self, side: str, other: str) -> float:
        """How many times as much `side` costs as `other`: the median of the ratios within each turn."""
        return statistics.median(a / b for a, b in zip(self.costs[side], self.costs[other], strict=True))


def alternate(sides: Mapping[str, Callable[[], float]], turns: int, seconds: float = math.inf) -> Turns:
    """Let all sides, which return their cost, take turns, so that what else runs on the machine slows all of them.

    Every second turn goes in reverse order. After the first, no turn starts once `seconds` have passed.
    """
    start = time.monotonic()
    costs: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns):
        if turn > 0 and time.monotonic() - start > seconds:
            break
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            costs[name].append(sides[name]())
    return Turns(costs)


def wall(work: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu(work: Callable[[], object]) -> float:
    """The CPU seconds that a call takes, in all threads of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP per second of a product of large square matrices: the best of several."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device).to(dtype).unbind()
    out = torch.empty_like(a)

    def multiply() -> None:
        torch.mm(a, b, out=out)
        synchronise(device)

    return 2 * size**3 / min(wall(multiply) for _ in range(10))


def reset_peak(device: torch.device) -> None:
    """Forget the peak of memory so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # memory that was freed but not yet returned would count
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes held since the last `reset_peak`: of the GPU's memory, or of this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def resident_memory() -> int:
    """The bytes that this process holds, including the mapped pages that it has touched."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
