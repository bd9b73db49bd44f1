"""The tokenize stage on as many captions as CUHK-PEDES trains with, with 60 masking draws."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.data import preset, write_store
from benchmarks.measure import wall
from benchmarks.results import Row
from irra.data.tokens import write_tokens

IMAGES, CAPTIONS_EACH = 34_063, 2


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Tokenize made-up captions."""
    config = preset("cuhk-pedes").tokenize
    with tempfile.TemporaryDirectory() as folder:
        splits = {"train": (IMAGES // (100 if small else 1), CAPTIONS_EACH)}
        store = write_store(Path(folder, "prepared"), (16, 16), splits)
        seconds = wall(lambda: write_tokens(store, config, Path(folder, "tokens")))
    what = f"{len(store.captions):,} captions, {config.mask_draws} masking draws"
    yield Row(what, seconds, "s", "< 60")
