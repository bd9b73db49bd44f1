"""Encode a split's pictures and captions with the best model, ready to be searched.

python -m components.index              # as `dvc repro index` does
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.layout import INDEX, MODEL, PREPARED
from components.stage import main
from irra.checkpoint import load_model, model_fingerprint
from irra.config import IndexConfig
from irra.data.store import PreparedStore
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.utils.device import choose_device


@dataclass(frozen=True)
class Inputs:
    """The prepared store and the best model."""

    prepared: Path = PREPARED
    model: Path = MODEL


@dataclass(frozen=True)
class Outputs:
    """The index of the gallery."""

    index: Path = INDEX


def run(inputs: Inputs, outputs: Outputs, config: IndexConfig) -> dict[str, Any]:
    """Index a split of a prepared store; returns facts about the index."""
    store, model = PreparedStore.open(inputs.prepared), load_model(inputs.model)
    encoder = Encoder(model.to(choose_device(config.device)), config.precision)
    fingerprint = model_fingerprint(inputs.model)
    start = time.monotonic()
    info = index_split(store, config.split, encoder, fingerprint, outputs.index, config.dtype, config.test_batch_size)
    seconds = time.monotonic() - start  # not among the facts, which are the same each time
    print(f"index: {info.size} images, {info.size / seconds:.0f} images/s", file=sys.stderr)
    return {
        "model_fingerprint": fingerprint,
        "split": config.split,
        "images": info.size,
        "captions": info.captions,
        "dimension": info.dimension,
        "kind": info.kind,
        "dtype": info.dtype,
        "bytes": sum(info.file_bytes.values()),
    }


if __name__ == "__main__":
    raise SystemExit(main("index", run, Inputs, Outputs))
