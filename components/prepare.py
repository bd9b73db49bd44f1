"""Read a dataset, decode and resize its images once, and store them with their captions.

python -m components.prepare            # what `dvc repro prepare` runs
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.layout import PREPARED, outside
from components.s3.client import is_remote
from components.s3.transfer import download
from components.stage import main
from irra.config import PrepareConfig
from irra.data.preparation import prepare_dataset


@dataclass(frozen=True)
class Inputs:
    """None: the parameters root_dir (a local folder or one in S3) and dataset_name say where the raw dataset is."""


@dataclass(frozen=True)
class Outputs:
    """The prepared store, and copies of datasets in S3, which are kept for the next run."""

    prepared: Path = PREPARED
    downloads: Path = Path("data/downloads")


def run(inputs: Inputs, outputs: Outputs, config: PrepareConfig) -> dict[str, Any]:
    """Prepare the dataset and return its statistics."""
    return prepare_dataset(fetch(config, outputs.downloads), outputs.prepared)


def fetch(config: PrepareConfig, downloads: Path) -> PrepareConfig:
    """Download a dataset in S3 to `<downloads>/<bucket>/<folder>`; returns `config` with the local root_dir."""
    if not config.source:
        return config
    if not is_remote(config.root_dir):
        return config.model_copy(update={"root_dir": str(Path(outside(config.source)).parent)})
    root = downloads / config.root_dir.removeprefix("s3://")
    download(config.source, root / config.dataset_name, mirror=True)
    return config.model_copy(update={"root_dir": str(root)})


if __name__ == "__main__":
    raise SystemExit(main("prepare", run, Inputs, Outputs))
