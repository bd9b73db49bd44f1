"""Read a dataset, decode and resize its images once, and store them with their captions.

python -m components.prepare            # as `dvc repro prepare` does
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.pictures import SheetRow, contact_sheet
from components.stage import main
from irra.config import PrepareConfig
from irra.data.preparation import prepare_dataset
from irra.data.store import PreparedStore
from irra.files import write_json

SHEET_IDENTITIES = 8
SHEET_IMAGES = 4


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
    contact_sheet(outputs.report / "contact_sheet.png", sheet_rows(store))
    write_json(outputs.report / "stats.json", {"splits": stats["splits"], "skipped": len(stats["skipped"])})
    return stats


def sheet_rows(store: PreparedStore) -> list[SheetRow]:
    """Evenly spread identities of every split in turn, each with its first images and their first captions."""
    first_caption = {int(image): row for row, image in reversed(list(enumerate(store.caption_image_ids)))}
    rows = []
    per_split = -(-SHEET_IDENTITIES // len(store.splits))
    for split in store.splits:
        images = store.image_ids(split)
        pids = np.unique(store.image_pids[images])
        for pid in pids[np.linspace(0, len(pids) - 1, min(per_split, len(pids))).astype(int)]:
            chosen = images[store.image_pids[images] == pid][:SHEET_IMAGES]
            captions = [store.captions[first_caption[int(image)]] for image in chosen]
            rows.append(SheetRow(list(store.pixels(chosen)), f"{split} · person {pid}", captions))
    return rows[:SHEET_IDENTITIES]


if __name__ == "__main__":
    raise SystemExit(main("prepare", run, Inputs, Outputs))
