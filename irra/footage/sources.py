"""Where frames come from: a folder of pictures, each of which is a frame, or videos."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from irra.data.images import FORMATS, BadImage, load_image
from irra.footage.boxes import FrameName
from irra.footage.frames import Frame, FrameSource
from irra.footage.video import SUFFIXES, Every, Video
from irra.search.pictures import PictureFile, find_pictures
from irra.utils.errors import UserError, first_of
from irra.utils.files import files_below

NUMBERED = re.compile(r"(.*?)(\d{1,18})")  # a name that ends in a number; longer ones are no int64
TURNED = 5  # EXIF orientations from this on exchange width and height


class Footage(Protocol):
    """Files of frames.

    Attributes:
        root: The folder that their paths are relative to.
        files: In the order in which they are read.
        skipped: Path and reason of files that cannot be used.
        settings: What decides which frames of a file are read.
    """

    root: Path
    files: list[PictureFile]
    skipped: list[dict[str, str]]
    settings: str

    def frames(self, file: str, after: int) -> FrameSource:
        """The frames of a file whose numbers are above `after`, which is -1 for all."""

    def scene(self, file: str) -> str:
        """What shows the same place as a file: itself, or the folder whose pictures are consecutive frames."""

    def position(self, file: str) -> int:
        """The place of the file's first frame in its scene, from 0."""

    def before(self, file: str, reach: int) -> Sequence[str]:
        """The files of so many frames, or fewer, of its scene that come right before it, in their order."""

    def find(self, name: FrameName, first: int) -> tuple[str, int] | None:
        """File and number of the frame of this name; None if there is none. Names count a video's frames from `first`.

        Raises:
            UserError: There may be several such frames.
        """


class FrameFolder:
    """A folder of pictures as `Footage`; the pictures of each of its subfolders are consecutive frames of a camera."""

    settings = ""

    def __init__(self, root: Path) -> None:
        found, self.skipped = find_pictures(root)
        if not found:
            raise UserError(f"{root}: no pictures in this folder or below it")
        self.root = root
        self.files = sorted(found, key=lambda file: (self.scene(file.path), _in_order(file.path)))
        grouped = groupby((file.path for file in self.files), self.scene)
        self._scenes = {scene: list(paths) for scene, paths in grouped}
        self._positions: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        for paths in self._scenes.values():
            self._positions |= {path: position for position, path in enumerate(paths)}
            self._numbers |= dict(zip(paths, numbers(paths), strict=True))
        self._by_number = {(self.scene(path), number): path for path, number in self._numbers.items()}
        self._by_name: dict[str, list[str]] = {}
        for path in self._numbers:
            for name in {path, PurePosixPath(path).name, PurePosixPath(path).stem}:
                self._by_name.setdefault(name, []).append(path)

    def frames(self, file: str, after: int) -> FrameSource:
        """As in `Footage`: one frame."""
        return _Picture(self.root, file, self._numbers[file], after)

    def scene(self, file: str) -> str:
        """As in `Footage`: its folder, which is "." for pictures beside all folders."""
        return str(PurePosixPath(file).parent)

    def position(self, file: str) -> int:
        """As in `Footage`."""
        return self._positions[file]

    def before(self, file: str, reach: int) -> Sequence[str]:
        """As in `Footage`."""
        position = self._positions[file]
        return self._scenes[self.scene(file)][max(position - reach, 0) : position]

    def find(self, name: FrameName, first: int) -> tuple[str, int] | None:
        """As in `Footage`; a name may have more or fewer folders before it than the picture's path."""
        if name.number is not None:
            path = self._by_number.get((self._folder(name), name.number))
            return None if path is None else (path, name.number)
        parts = PurePosixPath(name.file).parts
        endings = ["/".join(parts[start:]) for start in range(len(parts))]
        paths = [ending for ending in endings if ending in self._numbers][:1]
        paths = paths or self._by_name.get(name.file, [])
        if len(paths) > 1:
            raise UserError(f"{name.file} is not one picture, but {first_of(paths)}; name frames with their folder")
        return (paths[0], self._numbers[paths[0]]) if paths else None

    def _folder(self, name: FrameName) -> str:
        if name.file or len(self._scenes) == 1:
            return name.file or next(iter(self._scenes))
        raise UserError(
            f"frame {name.number} is in each of the folders {first_of(list(self._scenes))}; "
            "index one of them, or name frames by their files"
        )


class Videos:
    """A video, or all in a folder and its subfolders, as `Footage`.

    Args:
        path: Of the video or folder.
        every: How often a frame is taken.
        start: When the videos begin.

    Raises:
        UserError: There is no such file or folder, or no video in it; or the file is none.
    """

    def __init__(self, path: Path, every: Every, start: datetime | None = None) -> None:
        self.skipped: list[dict[str, str]] = []
        self.settings = f"every {every} from {start}"
        self._every, self._start = every, start
        self.root = path if path.is_dir() else path.parent
        if path.is_dir():
            found = {name: file for name, file in files_below(path).items() if name.lower().endswith(SUFFIXES)}
            visible = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
        else:
            Video(path, path.name, every)
            visible = [path.name]
        if not visible:
            raise UserError(f"{path}: no videos in this folder or below it")
        self.files = []
        for name in visible:
            if not _is_unicode(name):
                shown = os.fsencode(name).decode(errors="replace")
                self.skipped.append({"path": shown, "reason": "its name is not valid UTF-8"})
                continue
            status = (self.root / name).stat()
            self.files.append(PictureFile(name, status.st_size, status.st_mtime_ns))

    def frames(self, file: str, after: int) -> FrameSource:
        """As in `Footage`."""
        return Video(self.root / file, file, self._every, self._start, after)

    def scene(self, file: str) -> str:
        """As in `Footage`: the video itself."""
        return file

    def position(self, file: str) -> int:
        """As in `Footage`."""
        return 0

    def before(self, file: str, reach: int) -> Sequence[str]:
        """As in `Footage`: each video is a scene of its own."""
        return []

    def find(self, name: FrameName, first: int) -> tuple[str, int] | None:
        """As in `Footage`; whether a video has so many frames is not known before it is read."""
        if name.number is None:
            return None
        named = [file.path for file in self.files if name.file in ("", file.path, PurePosixPath(file.path).name)]
        if len(named) > 1:
            raise UserError(
                f"{name} may be in {first_of(named)}; index one of them, or name the video of each box (CSV: file)"
            )
        return (named[0], name.number - first) if named else None


class _Picture:
    """A picture as a `FrameSource` of one frame."""

    damaged = 0
    expected: int | None = 1

    def __init__(self, root: Path, file: str, number: int, after: int) -> None:
        self._root, self._file, self._number, self._after = root, file, number, after

    def __iter__(self) -> Iterator[Frame]:
        if self._number <= self._after:
            return
        try:
            pixels = load_frame(self._root / self._file)
        except BadImage as error:
            raise UserError(error.reason) from None
        yield Frame(self._file, self._number, None, None, pixels)


def load_frame(path: Path) -> NDArray[np.uint8]:
    """A picture at its own size, upright and in RGB (H, W, 3).

    Raises:
        BadImage: As in `irra.data.images.load_image`.
    """
    size = (1, 1)
    with suppress(Exception), Image.open(path, formats=FORMATS) as image:  # whatever it is, loading it will say
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= TURNED
        size = (image.width, image.height) if turned else (image.height, image.width)
    return load_image(path, size)


def numbers(paths: Sequence[str]) -> list[int]:
    """Numbers of the frames of a folder: those at the ends of their names, or from 1 if the names differ otherwise."""
    named = [NUMBERED.fullmatch(PurePosixPath(path).stem) for path in paths]
    found = [int(match[2]) for match in named if match]
    alike = len(found) == len(paths) == len(set(found)) and len({match[1] for match in named if match}) == 1
    return found if alike else list(range(1, len(paths) + 1))


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_order(path: str) -> tuple[tuple[tuple[bool, str | int], ...], str]:
    """A key that sorts numbers in names by their value: frame9 before frame10."""
    parts = re.split(r"(\d+)", path)
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts if part), path
