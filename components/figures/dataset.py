"""The contact sheet of a prepared dataset: some identities of every split, with their images and captions."""

from pathlib import Path

import numpy as np

from components.figures import SheetRow, contact_sheet
from irra.data.store import PreparedStore

SHEET_IDENTITIES = 8
SHEET_IMAGES = 4


def draw_dataset_sheet(store: PreparedStore, path: Path) -> None:
    """Write the sheet as a PNG file."""
    contact_sheet(path, sheet_rows(store))


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
