"""Small data shared by the tests: a prepared store of coloured rectangles with captions that name the colours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from irra.config import Params, TokenizeConfig, TrainConfig, load_params
from irra.data.datasets import Record
from irra.data.store import PreparedStore, StoreWriter
from irra.data.tokens import TokenStore, write_tokens

ROOT = Path(__file__).parent.parent
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (220, 210, 40)}
PLACES = ("street", "park", "shop", "hall")
IMAGE_SIZE = (64, 32)

torch.set_num_threads(1)  # pytest-xdist runs one process per core


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest chain of tests first; meanwhile the other process runs all the rest.

    pytest-xdist keeps this order only with `--no-loadscope-reorder`, which the Makefile passes.
    """
    items.sort(key=lambda item: "test_pipeline" not in item.nodeid)


@pytest.fixture(scope="session")
def params() -> Params:
    return load_params(ROOT / "presets" / "tiny.yaml")


@pytest.fixture(scope="session")
def train_config(params: Params) -> TrainConfig:
    """Three epochs of six steps on the toy data; the first epoch is a warm-up."""
    changes = {"batch_size": 8, "num_epoch": 3, "warmup_epochs": 1, "log_period": 2, "temperature": 0.05}
    return params.train.model_copy(update={"device": "cpu", **changes})


def write_store(folder: Path, identities: dict[str, int] | None = None) -> PreparedStore:
    """Write two images with two captions each for every identity, whose colours fill the top and the bottom half."""
    folder.mkdir(parents=True)
    writer = StoreWriter(folder, "toy", IMAGE_SIZE)
    rng = np.random.default_rng(0)
    pairs = [(top, bottom) for top in COLOURS for bottom in COLOURS]
    pid = 10
    for split, count in (identities or {"train": 12, "val": 3, "test": 4}).items():
        for _ in range(count):
            top, bottom = pairs[pid % len(pairs)]
            for image in range(2):
                pixels = np.empty((*IMAGE_SIZE, 3), np.int64)
                pixels[: IMAGE_SIZE[0] // 2] = COLOURS[top]
                pixels[IMAGE_SIZE[0] // 2 :] = COLOURS[bottom]
                pixels += rng.integers(-25, 26, pixels.shape)
                captions = (f"a person in {top} and {bottom}", f"{top} above {bottom} in a {PLACES[pid % 4]}")
                writer.add(Record(pid, f"{pid}_{image}.png", captions, split), pixels.clip(0, 255).astype(np.uint8))
            pid += 1
    writer.finish()
    return PreparedStore.open(folder)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    return write_store(tmp_path_factory.mktemp("store") / "prepared")


@pytest.fixture(scope="session")
def tokenize_config(params: Params) -> TokenizeConfig:
    return params.tokenize.model_copy(update={"mask_draws": 2, "text_length": 16, "mask_probability": 0.15})


@pytest.fixture(scope="session")
def tokens(
    store: PreparedStore, tokenize_config: TokenizeConfig, tmp_path_factory: pytest.TempPathFactory
) -> TokenStore:
    folder = tmp_path_factory.mktemp("tokens") / "tokens"
    write_tokens(store, tokenize_config, folder)
    return TokenStore.open(folder)
