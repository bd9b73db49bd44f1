"""The contact sheet of a prepared dataset: a few identities of every split, with images and captions."""

import numpy as np

from components.figures.sheets import SHEET_IMAGES, SheetRow
from irra.data.store import PreparedStore

SHEET_IDENTITIES = 8


def sheet_rows(store: PreparedStore) -> list[SheetRow]:
    """Choose evenly spaced identities of every split, each with its first images and the first caption of each."""
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
