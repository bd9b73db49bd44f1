"""Images per second and memory of the prepare stage on JPEG files of the sizes in CUHK-PEDES, and what a million cost.

make bench ONLY=prepare
"""

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.photographs import write_pictures
from benchmarks.results import Row
from irra.config import PrepareConfig
from irra.data.layouts import read_annotations
from irra.data.preparation import prepare
from irra.data.store import StoreWriter
from irra.utils.cores import available_cores

PICTURES = 128  # different pictures
FEW, MANY = 1024, 4096  # files; by the difference, neither the start of processes nor of the stage counts
IMAGE_SIZE = [384, 128]
IMAGE_BYTES = 384 * 128 * 3
ROUNDS, SECONDS = 3, 28.0  # of one core and more in turn; on a busy machine, the last one starts within so many seconds
FEW_ROWS, MANY_ROWS = 20_000, 60_000  # of manifests without files
CAPTION = (
    "The person {} wears a dark jacket over a grey shirt, blue jeans and white shoes, and carries a small brown bag."
)
MILLION = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What something took in a process of its own, and in those that it started."""

    seconds: float
    cpu_seconds: float
    peak_mb: float  # of the process itself and, times the number of cores, of the largest of the others


Round = dict[int, tuple[Cost, Cost]]  # by number of cores: of few images and of many


def measure(device: object, small: bool) -> Iterator[Row]:
    """Speed by cores, memory, and the arithmetic of a million images."""
    numbers = measured()
    counts = [int(name.removeprefix("ratio_")) for name in numbers if name.startswith("ratio_")]
    for cores in counts:
        rate, start, cpu_rate = (
            numbers[f"{name}_{cores}"] for name in ("images_per_second", "start_seconds", "images_per_cpu_second")
        )
        million = {"start (s)": start, "a million (min)": (start + MILLION / rate) / 60}
        yield Row(
            f"{MANY} JPEG files, cores: {cores}", rate, "images/s", details=million | {"per CPU second": cpu_rate}
        )
    for cores in counts[1:]:
        details = {"by CPU seconds": numbers[f"cpu_ratio_{cores}"]}
        yield Row(
            f"cores: {cores} over 1", numbers[f"ratio_{cores}"], "times as fast", f"> {0.85 * cores:.1f}", details
        )
    few, many = (numbers[f"pixels_mb_{images}"] for images in (FEW, MANY))
    yield Row(f"memory of all processes but records, {MANY} images", many, "MB", details={f"{FEW} images (MB)": few})
    time_each = {"ms an image": numbers["records_ms_per_image"]}
    yield Row("records, with two captions each", numbers["records_kb_per_image"], "kB an image", details=time_each)
    yield Row("pixels of a million images", MILLION * IMAGE_BYTES / 1e9, "GB")


def measured() -> dict[str, float]:
    """Prepare files on one core and on more in turn, with a worker for each; returns numbers by name."""
    counts = sorted({1, min(2, available_cores()), available_cores()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = (write_dataset(folder / str(images), images) for images in (FEW, MANY))
        rounds: list[Round] = []
        start = time.perf_counter()
        while not rounds or (len(rounds) < ROUNDS and time.perf_counter() - start < SECONDS):
            rounds.append({cores: (run(few, folder, cores), run(many, folder, cores)) for cores in counts})
        manifests = {
            rows: alone(1, write_manifests, folder / f"rows-{rows}", rows) for rows in (FEW, MANY, FEW_ROWS, MANY_ROWS)
        }
    numbers = memory(rounds[0][counts[-1]], manifests)
    for cores in counts:
        numbers |= speed(rounds, cores)
    return numbers


def speed(rounds: list[Round], cores: int) -> dict[str, float]:
    """Images per second, how many times those of one core, and the seconds before the first.

    A busy machine may give a session the same share whatever the number of its processes (Linux's autogroups), so there
    is also the ratio that follows from CPU seconds: that of cores which nobody else uses and which never wait.
    """
    seconds = [per_image(costs[cores], "seconds") for costs in rounds]
    cpu_ratios = [per_image(costs[1], "cpu_seconds") / per_image(costs[cores], "cpu_seconds") for costs in rounds]
    return {
        f"images_per_second_{cores}": 1 / median(seconds),
        f"images_per_cpu_second_{cores}": 1 / median(per_image(costs[cores], "cpu_seconds") for costs in rounds),
        f"ratio_{cores}": median(
            per_image(costs[1], "seconds") / per_image(costs[cores], "seconds") for costs in rounds
        ),
        f"cpu_ratio_{cores}": cores * median(cpu_ratios),
        f"start_seconds_{cores}": median(costs[cores][0].seconds for costs in rounds) - FEW * median(seconds),
    }


def per_image(costs: tuple[Cost, Cost], what: str) -> float:
    """Seconds of one more image."""
    few, many = (float(getattr(cost, what)) for cost in costs)
    return (many - few) / (MANY - FEW)


def memory(costs: tuple[Cost, Cost], manifests: dict[int, Cost]) -> dict[str, float]:
    """Memory beyond that for records, for few images and for many; memory and time that the records of one take."""
    few, many = manifests[FEW_ROWS], manifests[MANY_ROWS]
    return {
        f"pixels_mb_{FEW}": costs[0].peak_mb - manifests[FEW].peak_mb,
        f"pixels_mb_{MANY}": costs[1].peak_mb - manifests[MANY].peak_mb,
        "records_kb_per_image": (many.peak_mb - few.peak_mb) * 1000 / (MANY_ROWS - FEW_ROWS),
        "records_ms_per_image": (many.cpu_seconds - few.cpu_seconds) * 1000 / (MANY_ROWS - FEW_ROWS),
    }


def run(source: Path, folder: Path, cores: int) -> Cost:
    """What the stage costs with so many cores and workers."""
    return alone(cores, run_stage, source, folder / "out", cores)


def alone(cores: int, function: Callable[..., None], *arguments: Any) -> Cost:
    """What a call costs in a new process that may use only so many cores."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_cost, cores, function, *arguments).result()


def _cost(cores: int, function: Callable[..., None], *arguments: Any) -> Cost:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    function(*arguments)
    seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))  # getrusage counts the parent's, too
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Cost(seconds, cpu_seconds, (own + cores * others) / 1000)


def run_stage(source: Path, target: Path, workers: int) -> None:
    """Prepare the dataset in `source`."""
    config = PrepareConfig(
        dataset_name=source.name,
        root_dir=str(source.parent),
        image_size=IMAGE_SIZE,
        on_bad_image="error",
        val_share=0.0,
    )
    prepare(config, source, target, workers=workers)


def write_manifests(folder: Path, rows: int) -> None:
    """Do all that the stage does for records and captions, with images of one pixel and without files."""
    (folder / "imgs").mkdir(parents=True)
    write_annotations(folder, [f"camera/{number:07d}.jpg" for number in range(rows)])
    (folder / "out").mkdir()
    writer = StoreWriter(folder / "out", folder.name, (1, 1))
    for record in read_annotations(folder, folder.name):
        writer.add(record, np.zeros((1, 1, 3), np.uint8))
    writer.finish()


def write_dataset(root: Path, images: int) -> Path:
    """Write a dataset to `root`."""
    write_annotations(root, [path.name for path in write_pictures(root / "imgs", images, PICTURES)])
    return root


def write_annotations(root: Path, names: list[str]) -> None:
    """Write an entry with two captions for each image."""
    entries = [
        {"id": number, "file_path": name, "captions": [CAPTION.format(number)] * 2, "split": "train"}
        for number, name in enumerate(names)
    ]
    (root / "annotations.json").write_text(json.dumps(entries))
