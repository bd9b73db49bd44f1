"""A gallery of people in frames, with cameras, places and times, and names and values that are hard to quote."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from irra.checkpoint import model_fingerprint, save_model, save_weights
from irra.footage.people import PERSON_SCHEMA
from irra.footage.plan import Reading
from irra.model import IRRA
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from irra.search.pictures import jpeg
from irra.search.writer import FolderWriter, Picture
from tests.browser.toy import DRESSES, MARKUP
from tests.conftest import IMAGE_SIZE

FRAMES = 4
BEGIN = datetime(2026, 11, 27, 18, 0)
PLACES = ["gate 'A'", MARKUP, None]
OWN = {"camera": pa.int64(), "select": pa.string(), MARKUP: pa.string(), "note": pa.string()}
SCHEMA = pa.schema([*PERSON_SCHEMA, *pa.schema(OWN)])


def sightings_engine(folder: Path, model: IRRA) -> SearchEngine:
    """Open an engine for four frames with a person in each colour; all but the last are followed as tracks."""
    frames, index = folder / "frames", folder / "index"
    (frames / "cam1").mkdir(parents=True)
    index.mkdir()
    save_weights(model, folder / "weights")
    save_model(folder / "model", folder / "weights", model.spec, {})
    encoder = Encoder(model)
    writer = FolderWriter(index, model_fingerprint(folder / "model"), IMAGE_SIZE, "float32", SCHEMA)
    for number in range(1, FRAMES + 1):
        people = [person(rgb, number) for rgb in DRESSES.values()]
        Image.fromarray(np.concatenate(people, axis=1)).save(frames / file_of(number))
        known = [sighting(number, place) for place in range(len(people))]
        pictures = [
            Picture(f"{one['file']}#xywh={one['x']},0,{one['width']},{one['height']}", jpeg(pixels))
            for one, pixels in zip(known, people, strict=True)
        ]
        writer.add(pictures, encoder.images(np.stack(people)), pa.Table.from_pylist(known, schema=SCHEMA))
    writer.finish(str(frames), [], {"cam1": Reading(1, 2, "a", "b", frames=FRAMES).record()})
    return SearchEngine.open(folder / "model", index, "cpu")


def person(rgb: tuple[int, int, int], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-25, 26, (*IMAGE_SIZE, 3))
    return (np.array(rgb) + noise).clip(0, 255).astype(np.uint8)


def file_of(number: int) -> str:
    return f"cam1/{number:06}.png"


def sighting(number: int, place: int) -> dict[str, object]:
    height, width = IMAGE_SIZE
    return {
        "file": file_of(number),
        "frame": number,
        "seconds": None,
        "time": BEGIN + timedelta(seconds=20 * number),
        "x": width * place,
        "y": 0,
        "width": width,
        "height": height,
        "confidence": 0.5 + place / 100 + number / 1000,
        "track": None if place == len(DRESSES) - 1 else f"cam1#{place}",
        "camera": 1 + place % 4,
        "select": PLACES[place % 3],
        MARKUP: "yes" if place % 2 else "no",
        "note": f"person {place} in frame {number}: 100% 'sure'",
    }
