"""What search in footage gets wrong: people in a drawn street, by their distance and by the colour of their clothes.

It needs the model that `make repro` trains with the default parameters, and takes a few minutes.
"""

import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from app.street import BOXES, PEOPLE, VIDEO, write_street
from benchmarks.measure import wall
from benchmarks.results import Row
from components.layout import MODEL
from irra.checkpoint import load_model, model_fingerprint
from irra.footage.boxes import read_boxes
from irra.footage.build import index_footage
from irra.footage.finders import KnownBoxes
from irra.footage.people import Cutting
from irra.footage.sources import Videos
from irra.footage.video import parse_every
from irra.search.encoder import Encoder
from irra.search.engine import Hit, SearchEngine

MINUTES, PEOPLE_COUNT, SEED = 10, 500, 11
BANDS = ((48, 70), (70, 110), (110, 170), (170, 301))  # height of a person in pixels
GARMENTS = ("jacket", "coat", "shirt", "t-shirt", "sweater", "hoodie")
FIRST = 5  # results for a colour
FEWEST = 2 * FIRST  # people who wear a colour, or it is not asked for

Key = tuple[int, int, int, int, int]  # frame and box


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Draw the street, index it, and look for everybody by their description and for each colour."""
    with tempfile.TemporaryDirectory() as folder:
        street = Path(folder, "street")
        write_street(street, MINUTES / 20 if small else MINUTES, PEOPLE_COUNT // 20 if small else PEOPLE_COUNT, SEED)
        seconds = wall(lambda: index_street(street, Path(folder, "index"), device))
        engine = SearchEngine.open(MODEL, Path(folder, "index"), device.type)
        people = read_table(street / PEOPLE)
        owners = {key_of(row): int(row["person"]) for row in read_table(street / BOXES)}
        yield Row("people in the gallery", engine.gallery.size, "pictures", "", {"indexed in (s)": seconds})
        yield from measure_distances(engine, people, owners)
        yield from measure_colours(engine, people, owners)


def index_street(street: Path, index: Path, device: torch.device) -> None:
    """Index a frame each second, with the boxes that are known."""
    footage = Videos(street / VIDEO, parse_every("1s"))
    finder = KnownBoxes(read_boxes(street / BOXES), footage)
    encoder = Encoder(load_model(MODEL).to(device))
    index_footage(footage, finder, encoder, model_fingerprint(MODEL), index, str(street), Cutting())


def measure_distances(
    engine: SearchEngine, people: Sequence[Mapping[str, str]], owners: Mapping[Key, int]
) -> Iterator[Row]:
    """How often a description does not find its person as the first, and not among the first five and ten."""
    rankings = engine.search([person["description"] for person in people], 30)
    places: dict[tuple[int, int], list[float]] = defaultdict(list)
    for person, hits in zip(people, rankings, strict=True):
        found = people_of(hits, owners)
        band = next(one for one in BANDS if one[0] <= int(person["height"]) < one[1])
        places[band].append(found.index(int(person["person"])) if int(person["person"]) in found else np.inf)
    for band in BANDS:
        missed = {
            f"not in the first {k} (%)": 100 * float(np.mean([at >= k for at in places[band]])) for k in (1, 5, 10)
        }
        yield Row(f"{band[0]} to {band[1] - 1} pixels high", len(places[band]), "descriptions", "", missed)


def measure_colours(
    engine: SearchEngine, people: Sequence[Mapping[str, str]], owners: Mapping[Key, int]
) -> Iterator[Row]:
    """How many of the first people found for a colour wear another one, over several garments."""
    worn = {int(person["person"]): person["upper"] for person in people}
    colours = sorted(set(worn.values()))
    for colour in (one for one in colours if list(worn.values()).count(one) >= FEWEST):
        queries = [f"a person in a {colour} {garment}" for garment in GARMENTS]
        found = [people_of(hits, owners)[:FIRST] for hits in engine.search(queries, 4 * FIRST)]
        wrong = [worn[person] != colour for some in found for person in some]
        count = list(worn.values()).count(colour)
        yield Row(f"asked for {colour}", 100 * float(np.mean(wrong)), "% wear another", "", {"wear it": count})


def people_of(hits: Sequence[Hit], owners: Mapping[Key, int]) -> list[int]:
    """The people in the pictures found, each once, best first."""
    keys = [key_of(hit.metadata) for hit in hits if hit.metadata is not None]
    return list(dict.fromkeys(owners[key] for key in keys))


def key_of(row: Mapping[str, str]) -> Key:
    """Frame and box of a person."""
    frame, x, y, width, height = (int(row[name]) for name in ("frame", "x", "y", "width", "height"))
    return frame, x, y, width, height


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
