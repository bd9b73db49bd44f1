"""How long commands take to start: warm, and cold, after the system has forgotten the environment's code."""

import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from statistics import median

import torch

from benchmarks.data import write_index
from benchmarks.results import Row

STAGES = ("components.tokenize", "components.train")
IRRA = [sys.executable, "-m", "app.cli"]
QUERY = "a woman in a red coat with a white handbag"
PICTURES, WARM = 64, 3  # in the index; starts


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Time the help of two stages and of `irra`, and a search in a small index."""
    with tempfile.TemporaryDirectory() as folder:
        model, index = write_index(Path(folder), PICTURES)
        search = [*IRRA, "search", QUERY, "--model", str(model), "--index", str(index)]
        commands = {
            "irra --help": ([*IRRA, "--help"], "< 0.5"),
            f"irra search, {PICTURES} pictures": (search, "< 3, CPU < 2"),
            **{f"python -m {stage} --help": ([sys.executable, "-m", stage, "--help"], "") for stage in STAGES},
        }
        for what, (command, asked) in commands.items():
            forget_code(sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
            cold, _ = run(command)
            warm = [run(command) for _ in range(1 if small else WARM)]
            seconds, cpu_seconds = map(median, zip(*warm, strict=True))
            yield Row(what, seconds, "s", asked, {"CPU (s)": cpu_seconds, "cold (s)": cold})


def run(command: list[str]) -> tuple[float, float]:
    """Run a command, which must succeed; returns its seconds and CPU seconds."""
    start, used = time.perf_counter(), cpu_of_children()
    subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, cpu_of_children() - used


def cpu_of_children() -> float:
    """CPU seconds of all processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def forget_code(*folders: str) -> None:
    """Drop bytecode and libraries below these folders from the system's cache, except what a process holds."""
    for parent, _, names in chain.from_iterable(map(os.walk, folders)):
        for name in names:
            if name.endswith((".pyc", ".so")) or ".so." in name:
                file = os.open(os.path.join(parent, name), os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)
