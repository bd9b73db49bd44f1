"""Made-up JPEG files like those of CUHK-PEDES: smooth shapes with texture and noise."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((256, 96), (320, 120), (400, 150), (400, 150), (400, 150), (500, 190), (600, 225), (800, 300))  # of CUHK-PEDES


def write_pictures(folder: Path, count: int, different: int) -> list[Path]:
    """Write `count` files of quality 90 to the new `folder`, with `different` pictures repeated in turn."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if number < different:
            Image.fromarray(_picture(rng, *SIZES[number % len(SIZES)])).save(path, quality=90)
        else:
            shutil.copyfile(paths[number % different], path)
    return paths


def _picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Add random fields of ever finer grain and smaller amplitude, as in a photograph; uint8 (height, width, 3)."""
    total = np.full((height, width, 3), 128.0)
    for cells in (2, 4, 8, 16, 32, 64):
        field = rng.integers(0, 256, (cells * 3, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(smooth) - 128.0) / cells**0.7
    total += rng.normal(0.0, 3.0, total.shape)  # sensor noise
    return total.clip(0, 255).astype(np.uint8)
