"""Loading image files of any common format and colour mode as resized RGB pixels."""

import os
import stat
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from irra.utils.cores import worker_pool
from irra.utils.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF")
MAX_PIXELS = 50_000_000  # far above any person crop; a file of a few bytes may claim far more
MAX_SCANNED_PIXELS = 10 * MAX_PIXELS  # pixels times scans: a large progressive JPEG, or a small one of many scans
START_OF_SCAN = b"\xff\xda"
CHUNK_IMAGES = 16
IMAGES_PER_WORKER = 128  # fewer are decoded faster than another process starts
CHUNKS_PER_WORKER = 3  # in flight: enough to keep a worker busy, few enough to keep memory flat

Pixels = NDArray[np.uint8]


class BadImage(UserError):
    """An image file that cannot be used, with the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both arguments, so that the exception can be pickled
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def load_image(path: Path, size: tuple[int, int]) -> Pixels:
    """Load the first frame of an image, upright, in RGB (on white where transparent), resized to `size` = (H, W).

    Resizing is bilinear with Pillow's antialiasing, as `torchvision.transforms.Resize` does for PIL images.

    Returns:
        uint8 (H, W, 3).

    Raises:
        BadImage: The file is missing, damaged, too large or not an image.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(
            status.st_mode
        ):  # a pipe or a device would block, or never end
            raise BadImage(path, "not a regular file")
        if status.st_size == 0:
            raise BadImage(path, "an empty file")
        with Image.open(path, formats=FORMATS) as image:
            if problem := size_problem(image):
                raise BadImage(path, problem)
            ImageOps.exif_transpose(image, in_place=True)  # loads it, and copies it only if there is something to turn
            rgb = to_rgb(image)
    except (BadImage, MemoryError):
        raise
    except FileNotFoundError:
        raise BadImage(path, "no such file") from None
    except Image.DecompressionBombError:  # Pillow's own limit is far higher and raises while opening
        raise BadImage(path, f"more than the {MAX_PIXELS} pixels allowed") from None
    except UnidentifiedImageError:
        raise BadImage(path, f"not a {', '.join(FORMATS)} image") from None
    except Exception as error:  # on malformed data, Pillow's plugins raise nearly any exception
        raise BadImage(path, f"cannot be read: {error or type(error).__name__}") from None
    return np.array(rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def size_problem(image: Image.Image) -> str | None:
    """Why an opened image would take too much memory or time to decode; None if it would not."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        return f"{image.width} x {image.height} pixels, more than the {MAX_PIXELS} allowed"
    scans = _count_scans(image)
    if pixels * scans > MAX_SCANNED_PIXELS:
        return f"{image.width} x {image.height} pixels in {scans} scans, which takes too long to decode; save it anew"
    return None


def _count_scans(image: Image.Image) -> int:
    """How often a JPEG goes over its pixels: about ten times if it is progressive, but a short file may do it more."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return 1
    position = file.tell()
    file.seek(0)
    scans = file.read().count(START_OF_SCAN)  # in pixel data, these two bytes never follow each other
    file.seek(position)
    return int(scans)


def load_images(paths: Iterable[Path], size: tuple[int, int], workers: int) -> Generator[Pixels | BadImage, None, None]:
    """Yield, in the order of `paths`, the pixels of each image or the error of one that cannot be used.

    Closing the generator cancels pending work. A process pool is started only if there is enough work for two.

    Raises:
        UserError: A decoding process was killed.
    """
    paths = iter(paths)
    first = list(islice(paths, workers * IMAGES_PER_WORKER))
    paths = chain(first, paths)
    workers = min(workers, len(first) // IMAGES_PER_WORKER)
    if workers < 2:
        for path in paths:
            yield _load(path, size)
        return
    with _shared_slots(workers * CHUNKS_PER_WORKER, size) as slots, worker_pool(workers) as pool:
        pending: deque[tuple[_Slot, Future[list[BadImage | None]]]] = deque()
        for slot in cycle(slots):
            if len(pending) == len(slots):  # the oldest chunk is in this slot
                yield from _results(*pending.popleft())
            if not (chunk := list(islice(paths, CHUNK_IMAGES))):
                break
            pending.append((slot, pool.submit(_load_chunk, chunk, slot)))
        while pending:
            yield from _results(*pending.popleft())


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image in RGB, on white where it is transparent; 16-bit grey is scaled.

    Raises:
        ValueError: The pixels have 32 bits.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray(_high_bytes(image)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} (32 bits) have no known range; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # each copy of a large picture is 200 MB
        opaque = Image.new("RGB", rgba.size, "white")
        opaque.paste(rgba, mask=rgba)
        return opaque
    return image if image.mode == "RGB" else image.convert("RGB")


def _high_bytes(image: Image.Image) -> Pixels:
    """16-bit grey scaled to 8 bits; Pillow's own conversion clips at 255 instead."""
    return (np.asarray(image).astype(np.float32) / 257.0).round().astype(np.uint8)


@dataclass(frozen=True)
class _Slot:
    """Room for the pixels of a chunk in a file that is never on disk: through a pipe, they are copied five times.

    Unlike the files in /dev/shm, which is small in a container, it has no name that a kill would leave behind.
    """

    file: Path
    offset: int
    size: tuple[int, int]

    @property
    def image_bytes(self) -> int:
        return self.size[0] * self.size[1] * 3

    def read(self, count: int) -> Pixels:
        """The first `count` images, uint8 (count, H, W, 3)."""
        pixels = np.fromfile(self.file, np.uint8, count * self.image_bytes, offset=self.offset)
        return pixels.reshape(count, *self.size, 3)


@contextmanager
def _shared_slots(count: int, size: tuple[int, int]) -> Iterator[list[_Slot]]:
    """Yield `count` slots, as long as which this process and those that it started can read and write them."""
    slot_bytes = CHUNK_IMAGES * size[0] * size[1] * 3
    with _shared_file() as path:
        os.truncate(path, count * slot_bytes)
        yield [_Slot(path, number * slot_bytes, size) for number in range(count)]


@contextmanager
def _shared_file() -> Iterator[Path]:
    """Yield a file that other processes can open and that ends with this one: in memory, where the system has such."""
    if not hasattr(os, "memfd_create"):
        with NamedTemporaryFile() as named:
            yield Path(named.name)
        return
    file = os.memfd_create("pixels")
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{file}")
    finally:
        os.close(file)


def _load_chunk(paths: list[Path], slot: _Slot) -> list[BadImage | None]:
    """Load images into `slot`, each at its number; returns the error of each that cannot be used."""
    errors: list[BadImage | None] = []
    with slot.file.open("r+b", buffering=0) as file:
        for number, path in enumerate(paths):
            image = _load(path, slot.size)
            if isinstance(image, BadImage):
                errors.append(image)
            else:
                errors.append(None)
                os.pwrite(file.fileno(), image.data, slot.offset + number * slot.image_bytes)
    return errors


def _results(slot: _Slot, errors: Future[list[BadImage | None]]) -> Iterator[Pixels | BadImage]:
    loaded = errors.result()
    yield from (error or image for error, image in zip(loaded, slot.read(len(loaded)), strict=True))


def _load(path: Path, size: tuple[int, int]) -> Pixels | BadImage:
    try:
        return load_image(path, size)
    except BadImage as error:
        return error
