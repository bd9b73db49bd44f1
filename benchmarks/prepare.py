"""Images per second and core of the prepare stage, on JPEG files of the sizes in CUHK-PEDES.

python -m benchmarks.prepare
"""

import json
import os
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.photographs import SIZES, write_pictures
from irra.config import PrepareConfig
from irra.data.preparation import prepare
from irra.utils.cores import available_cores

PICTURES = 512  # different pictures
IMAGES = 4096  # files; enough that starting the processes hardly counts
IMAGE_SIZE = [384, 128]
TARGET = 150.0  # images per second and core


def main() -> None:
    """Write the files, prepare them with one worker and with one per core, and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "people")
        kilobytes = _write_dataset(source)
        rows = [(workers, *_measure(source, Path(folder, "prepared"), workers)) for workers in _worker_counts()]
    sizes = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(SIZES))
    print(f"machine: {describe()}")
    print(f"input:   {IMAGES} JPEG files ({PICTURES} pictures), quality 90, {kilobytes:.0f} kB each;")
    print(f"         height x width {sizes}")
    print(f"output:  {IMAGE_SIZE[0]}x{IMAGE_SIZE[1]} uint8\n")
    print(f"{'workers':>8}{'seconds':>9}{'images/s':>10}{'per core':>10}{'per CPU second':>16}{'target':>8}")
    for workers, seconds, cpu_seconds in rows:
        rate, cpu_rate = IMAGES / seconds, IMAGES / cpu_seconds
        print(f"{workers:>8}{seconds:>9.2f}{rate:>10.0f}{rate / workers:>10.0f}{cpu_rate:>16.0f}{TARGET:>8.0f}")


def _worker_counts() -> list[int]:
    return sorted({1, available_cores()})


def _measure(source: Path, target: Path, workers: int) -> tuple[float, float]:
    """Return wall-clock seconds and CPU seconds; the latter are meaningful on a shared machine too."""
    config = PrepareConfig(
        dataset_name=source.name,
        root_dir=str(source.parent),
        image_size=IMAGE_SIZE,
        on_bad_image="error",
        val_share=0.0,
    )
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    prepare(config, source, target, workers=workers)
    return time.perf_counter() - start, sum(os.times()[:4]) - cpu_start


def _write_dataset(root: Path) -> float:
    """Write the dataset to `root` and return the mean size of its files in kB."""
    paths = write_pictures(root / "imgs", IMAGES, PICTURES)
    entries = [
        {"id": number, "file_path": path.name, "captions": ["A person."] * 2, "split": "train"}
        for number, path in enumerate(paths)
    ]
    (root / "annotations.json").write_text(json.dumps(entries))
    return sum(path.stat().st_size for path in paths) / IMAGES / 1000


if __name__ == "__main__":
    main()
