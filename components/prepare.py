"""Read a dataset, decode and resize its images once, and store them with their captions.

python -m components.prepare            # as `dvc repro prepare` does
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.layout import PREPARED
from components.s3.client import is_remote
from components.s3.transfer import download
from components.stage import main
from irra.config import PrepareConfig
from irra.data.preparation import prepare_dataset


@dataclass(frozen=True)
class Inputs:
    """The raw dataset is named by the parameters root_dir, here or in S3, and dataset_name."""


@dataclass(frozen=True)
class Outputs:
    """The prepared store; and copies from S3, kept for the next time."""

    prepared: Path = PREPARED
    downloads: Path = Path("data/downloads")


def run(inputs: Inputs, outputs: Outputs, config: PrepareConfig) -> dict[str, Any]:
    """Prepare the dataset; returns its statistics."""
    return prepare_dataset(fetch(config, outputs.downloads), outputs.prepared)


def fetch(config: PrepareConfig, downloads: Path) -> PrepareConfig:
    """`config` with a root_dir on this machine: where that is an address in S3, `<downloads>/<bucket>/<folder>`."""
    if not config.source or not is_remote(config.root_dir):
        return config
    root = downloads / config.root_dir.removeprefix("s3://")
    download(config.source, root / config.dataset_name, mirror=True)
    return config.model_copy(update={"root_dir": str(root)})


if __name__ == "__main__":
    raise SystemExit(main("prepare", run, Inputs, Outputs))
