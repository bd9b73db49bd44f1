"""Encode a split's pictures and captions with the best model, so that they can be searched.

python -m components.index              # what `dvc repro index` runs
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.layout import INDEX, MODEL, PREPARED
from components.stage import main
from irra.config import IndexConfig
from irra.search.build import index_dataset


@dataclass(frozen=True)
class Inputs:
    """The prepared store and the best model."""

    prepared: Path = PREPARED
    model: Path = MODEL


@dataclass(frozen=True)
class Outputs:
    """The index folder."""

    index: Path = INDEX


def run(inputs: Inputs, outputs: Outputs, config: IndexConfig) -> dict[str, Any]:
    """Index a split of a prepared store.

    Returns:
        Metadata of the index: model, split, sizes, kind of search and data type.
    """
    start = time.monotonic()
    info = index_dataset(inputs.prepared, inputs.model, config, outputs.index)
    seconds = time.monotonic() - start  # not returned: the metadata is the same in every run
    print(f"index: {info.size} images, {info.size / seconds:.0f} images/s", file=sys.stderr)
    return {
        "model_fingerprint": info.model_fingerprint,
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
