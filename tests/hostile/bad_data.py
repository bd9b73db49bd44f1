"""Datasets that people may have: annotations and pictures that are wrong, odd, or made to break their reader."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from irra.config import PrepareConfig
from irra.data.preparation import prepare_dataset
from irra.data.store import PreparedStore
from tests.hostile.case import Case, content, place

RAW = Path("raw/own")
ANNOTATIONS, PICTURE = RAW / "annotations.json", RAW / "imgs/3.jpg"
PREPARED = Path("prepared")
CONFIG = PrepareConfig(dataset_name="own", root_dir="raw", image_size=[96, 32])
HUGE = 10**12
GIF = b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;"


def write_dataset(folder: Path) -> None:
    """Write a small dataset of noise."""
    (folder / RAW / "imgs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (60, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / RAW / f"imgs/{number}.jpg")
    (folder / ANNOTATIONS).write_text(json.dumps(entries()))


def entries() -> list[dict[str, Any]]:
    """The annotations of the small dataset."""
    return [
        {"id": number // 2, "file_path": f"{number}.jpg", "captions": ["a man in red"], "split": split}
        for number, split in enumerate(["train", "train", "val", "val", "test", "test"])
    ]


def prepare() -> str:
    """Prepare the dataset; what came of it."""
    stats = prepare_dataset(CONFIG, PREPARED)
    return str(PreparedStore.open(PREPARED).fingerprint if stats else "")


def prepare_the_rest() -> str:
    """Prepare the dataset without pictures that cannot be used."""
    return str(prepare_dataset(CONFIG.model_copy(update={"on_bad_image": "skip"}), PREPARED)["skipped"])


VALUES: dict[str, tuple[Any, ...]] = {
    "id": (None, -1, 1.5, True, "7", [7], 2**31, HUGE, {}),
    "captions": (None, "a man", [], [7], [None], [""], [" \n"], ["&nbsp;"], ["\ud800"], ["\0\1"], [["a"]], {}),
    "split": (None, "training", "", 7, ["train"], "TRAIN", "train "),
    "file_path": (
        None,
        "",
        7,
        "../1.jpg",
        "a/../../1.jpg",
        "/etc/passwd",
        "\\etc\\a",
        "..\\1.jpg",
        "\ud800",
        ".",
        "./",
    ),
}
NOWHERE = ("a\0b.jpg", "x" * 5000, "no.jpg", "a/b/c.jpg", "a\nb.jpg", "C:\\a.jpg", "1.jpg/2.jpg", "~/.ssh/id_rsa")


def cases(rng: random.Random) -> Iterator[Case]:
    """Wrong annotations, and wrong pictures."""
    yield from _annotations(rng)
    for name, put in _pictures(rng).items():
        yield Case("a bad picture", name, put, prepare, [PICTURE.name])
        yield Case("a bad picture, to be skipped", name, put, prepare_the_rest, either=True)
    for name, put in place(PICTURE).items():
        yield Case("a bad picture", name, put, prepare, [PICTURE.name])
    data = _jpeg()
    for at in rng.sample(range(len(data)), 30):
        flipped = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        put = content(PICTURE, flipped)
        yield Case("a flipped byte in a picture", str(at), put, prepare, [PICTURE.name], either=True)


def _annotations(rng: random.Random) -> Iterator[Case]:
    def case(name: str, data: Any, *names: str, kind: str = "a wrong annotation", valid: bool = False) -> Case:
        text = data if isinstance(data, str | bytes) else json.dumps(data)
        return Case(kind, name, content(ANNOTATIONS, text), prepare, list(names), valid=valid)

    for key, values in VALUES.items():
        for value in values:
            number = rng.randrange(6)
            yield case(f"{key} {value!r}", _changed(number, key, value), ANNOTATIONS.name, f"entry {number}", key)
        number = rng.randrange(6)
        without = entries()
        del without[number][key]
        yield case(f"no {key}", without, ANNOTATIONS.name, f"entry {number}", key)
    for value in NOWHERE:
        yield case(f"a picture {value[:20]!r}", _changed(3, "file_path", value), "raw/own/imgs")
    for other in (None, 7, "a", [], [1], {}):
        number = rng.randrange(6)
        changed: list[Any] = entries()
        changed[number] = other
        yield case(f"an entry {other!r}", changed, ANNOTATIONS.name, f"entry {number}")
    yield case("the same picture twice", _changed(3, "file_path", "2.jpg"), ANNOTATIONS.name, "2.jpg")
    yield case("a person in two splits", _changed(3, "id", 0), ANNOTATIONS.name, "id 0")
    text = json.dumps(entries())
    for name, data in {
        "empty": "",
        "null": "null",
        "an object": "{}",
        "an empty list": "[]",
        "a text": '"text"',
        "not UTF-8": text.encode().replace(b"man", b"m\xffn"),
        "UTF-16": text.encode("utf-16"),
        "deep nesting": "[" * 100_000,
        "a long number": f"[{'9' * 10_000}]",
        "a web page": "<!DOCTYPE html><html></html>",
        "lines of JSON": "\n".join(json.dumps(entry) for entry in entries()),
        "binary": rng.randbytes(3000),
    }.items():
        yield case(name, data, ANNOTATIONS.name)
    for at in rng.sample(range(1, len(text)), 15):
        yield case(f"cut at {at}", text[:at], ANNOTATIONS.name)
    for name, put in place(ANNOTATIONS).items():
        yield Case("a wrong annotation", name, put, prepare, [ANNOTATIONS.name])
    yield case("a giant caption", _changed(3, "captions", ["a man " * 1_000_000]), valid=True, kind="odd but right")
    yield case("many captions", _changed(3, "captions", ["a man"] * 50_000), valid=True, kind="odd but right")
    yield case("other keys", [{**entry, "x": [1]} for entry in entries()], valid=True, kind="odd but right")
    yield case("emoji", _changed(3, "captions", ["👩🏽‍🦰 \u202e rtl"]), valid=True, kind="odd but right")
    yield case("a mark of UTF-8", b"\xef\xbb\xbf" + text.encode(), valid=True, kind="odd but right")


def _changed(number: int, key: str, value: Any) -> list[dict[str, Any]]:
    changed = entries()
    changed[number][key] = value
    return changed


def _pictures(rng: random.Random) -> dict[str, Callable[[], None]]:
    data = _jpeg()
    found = {
        "empty": b"",
        "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "binary": rng.randbytes(5000),
        "zeros": bytes(5000),
        "a PNG of 100,000 x 100,000": png(100_000, 100_000),
        "a PNG of 7,000 x 8,000": png(7000, 8000),
        "a PNG of no width": png(0, 10),
        "a GIF of 65,535 x 65,535": GIF,
        "a JPEG of 60,000 x 60,000": _resized(data, 60_000, 60_000),
        "a progressive JPEG of many scans": _of_many_scans(),
        "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>",
        "a PDF": b"%PDF-1.7\n" + rng.randbytes(500),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch executed) run\n",
        "an archive": b"PK\x03\x04" + rng.randbytes(500),
        "an array": b"\x93NUMPY\x01\x00" + rng.randbytes(500),
        **{f"cut at {at}": data[:at] for at in rng.sample(range(1, len(data) - 2), 25)},
    }
    return {name: content(PICTURE, picture) for name, picture in found.items()}


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((60, 120), 50).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def _resized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _of_many_scans() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((1500, 1500), 50).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 300 + data[-2:]
