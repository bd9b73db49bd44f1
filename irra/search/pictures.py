"""Pictures from outside a prepared dataset: folders of files, uploads, thumbnails."""

import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from irra.data.images import size_problem, to_rgb
from irra.utils.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jfif", ".jpe", ".avif")
THUMBNAIL_QUALITY = 85

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PictureFile:
    """A file in a folder: its relative path, with slashes, and the size and time that show whether it has changed."""

    path: str
    file_bytes: int
    modified_ns: int


def find_pictures(folder: Path) -> tuple[list[PictureFile], list[dict[str, str]]]:
    """Find the files in `folder` and its subfolders whose names end like those of pictures.

    Hidden files and folders are ignored. Links to folders are followed, but each folder is visited once.

    Returns:
        The files, sorted by path, and the path and reason of everything that was skipped.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of pictures")
    found: list[PictureFile] = []
    skipped: list[dict[str, str]] = []
    others: Counter[str] = Counter()
    for path in _walk(folder, skipped):
        if not path.lower().endswith(SUFFIXES):
            others[os.path.splitext(path)[1].lower()] += 1
            continue
        try:
            path.encode()
            status = os.stat(folder / path)
        except UnicodeEncodeError:
            skipped.append(
                {"path": os.fsencode(path).decode(errors="replace"), "reason": "its name is not valid UTF-8"}
            )
        except OSError as error:
            skipped.append({"path": path, "reason": error.strerror or type(error).__name__})
        else:
            if not stat.S_ISREG(status.st_mode):
                skipped.append({"path": path, "reason": "not a regular file"})
                continue
            found.append(PictureFile(path, status.st_size, status.st_mtime_ns))
    if others:
        counts = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in others.most_common())
        warnings.warn(f"{folder}: not looked at, since their names are not those of pictures: {counts}", stacklevel=2)
    return sorted(found, key=lambda file: file.path), skipped


def _walk(folder: Path, skipped: list[dict[str, str]]) -> Iterator[str]:
    """Yield the relative paths of all files; folders that cannot be read are added to `skipped`."""

    def note(error: OSError) -> None:
        skipped.append({"path": os.path.relpath(error.filename, folder), "reason": error.strerror or "unreadable"})

    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=note):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:  # a link to a parent folder, or a second path to the same folder
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in files if not name.startswith("."))


def to_pixels(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Pixels uint8 (H, W, 3) of an opened image at `size` = (H, W), as `irra.data.images.load_image` loads a file.

    Raises:
        UserError: The image is too large or damaged.
    """
    if problem := size_problem(image):
        raise UserError(f"the picture has {problem}")
    try:
        rgb = to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # on malformed data, Pillow's plugins raise nearly any exception
        raise UserError(f"the picture cannot be read: {error or type(error).__name__}") from None
    return np.array(rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def jpeg(pixels: Pixels) -> bytes:
    """Pixels (H, W, 3) encoded as JPEG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()
