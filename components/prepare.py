"""Read a dataset, decode and resize its images once, and store them with their captions.

python -m components.prepare            # as `dvc repro prepare` does
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.dataset_sheet import draw_dataset_sheet
from components.stage import main
from irra.config import PrepareConfig
from irra.data.preparation import prepare_dataset
from irra.data.store import PreparedStore
from irra.files import write_json


@dataclass(frozen=True)
class Inputs:
    """The raw dataset is named by the parameters root_dir and dataset_name."""


@dataclass(frozen=True)
class Outputs:
    """The prepared store, and a folder for statistics and the contact sheet."""

    prepared: Path = Path("data/prepared")
    report: Path = Path("reports/prepare")


def run(inputs: Inputs, outputs: Outputs, config: PrepareConfig) -> dict[str, Any]:
    """Prepare the dataset; returns its statistics."""
    stats = prepare_dataset(config, outputs.prepared)
    store = PreparedStore.open(outputs.prepared)
    draw_dataset_sheet(store, outputs.report / "contact_sheet.png")
    write_json(outputs.report / "stats.json", {"splits": stats["splits"], "skipped": len(stats["skipped"])})
    return stats


if __name__ == "__main__":
    raise SystemExit(main("prepare", run, Inputs, Outputs))
