"""A search engine for people in coloured dresses that really finds them, trained in a few seconds."""

from pathlib import Path

import numpy as np
import torch

from irra import losses
from irra.checkpoint import model_fingerprint, save_model, save_weights
from irra.data.augment import normalise
from irra.data.datasets import Record
from irra.data.store import PreparedStore, StoreWriter
from irra.data.tokens import Tokenizer
from irra.model import IRRA
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from tests.conftest import COLOURS, IMAGE_SIZE
from tests.models import small_model

STEPS = 60
IMAGES_PER_PERSON = 4
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
DRESSES = COLOURS | {"black": (15, 15, 15), "white": (240, 240, 240), "pink": (250, 130, 190), "brown": (110, 65, 25)}


def write_people(folder: Path) -> PreparedStore:
    """Write four pictures of a person of each colour; the first has markup in its file name and caption."""
    folder.mkdir(parents=True)
    writer = StoreWriter(folder, "toy", IMAGE_SIZE)
    rng = np.random.default_rng(0)
    for pid, (colour, rgb) in enumerate(DRESSES.items()):
        for image in range(IMAGES_PER_PERSON):
            pixels = np.array(rgb) + rng.integers(-25, 26, (*IMAGE_SIZE, 3))
            first = pid == image == 0
            path = f"{MARKUP}.png" if first else f"{pid}_{image}.png"
            captions = (sentence(colour), f"{colour} {MARKUP}") if first else (sentence(colour),)
            writer.add(Record(pid, path, captions, "test"), pixels.clip(0, 255).astype(np.uint8))
    writer.finish()
    return PreparedStore.open(folder)


def sentence(colour: str) -> str:
    return f"a person in {colour}"


def train(store: PreparedStore) -> IRRA:
    """Memorise the people by contrastive learning, with one picture of each person per step."""
    model = small_model(num_classes=None, cmt_depth=None)
    images = normalise(torch.from_numpy(store.pixels(np.arange(len(store.image_paths)))))
    ids = Tokenizer().encode([sentence(colour) for colour in DRESSES], model.spec.text_length)
    captions = torch.from_numpy(ids.astype(np.int64))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        batch = images[step % IMAGES_PER_PERSON :: IMAGES_PER_PERSON]
        loss = losses.itc(model.encode_image(batch), model.encode_text(captions), model.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def toy_engine(folder: Path, model: IRRA, store: PreparedStore) -> SearchEngine:
    """Open an engine for `store` from files, as the server does."""
    folder.mkdir()
    save_weights(model, folder / "weights")
    save_model(folder / "model", folder / "weights", model.spec, {})
    fingerprint = model_fingerprint(folder / "model")
    index_split(store, "test", Encoder(model), fingerprint, folder / "index", "float32", 64)
    return SearchEngine.open(folder / "model", folder / "index", "cpu")
