"""Finding people in frames: boxes that are known, or those of a detector."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from irra.footage.boxes import Boxes, FrameName
from irra.footage.frames import Box, Frame
from irra.footage.sources import Footage
from irra.utils.errors import UserError, first_of

if TYPE_CHECKING:
    from irra.footage.detector import Detector


class KnownBoxes:
    """A `Finder` that looks up the boxes of a file.

    Attributes:
        absent: Frames of the file that are not there, as it calls them.

    Raises:
        UserError: None is there, or it is not clear which frames are meant.
    """

    def __init__(self, boxes: Boxes, footage: Footage) -> None:
        self.tracked = boxes.tracked
        self.absent: list[str] = []
        self._boxes = boxes
        self._names: dict[tuple[str, int], FrameName] = {}
        self._files: dict[str, list[FrameName]] = {}
        for name in boxes.frames:
            try:
                found = footage.find(name, boxes.first)
            except UserError as error:
                raise UserError(f"{boxes.source}: {error}") from None
            if found is None:
                self.absent.append(str(name))
                continue
            if (other := self._names.setdefault(found, name)) != name:
                raise UserError(f"{boxes.source}: {other} and {name} would be one frame, {found[0]}")
            self._files.setdefault(found[0], []).append(name)
        if not self._names:
            raise UserError(
                f"{boxes.source}: none of its frames is in {footage.root}: it has {first_of(self.absent)}; "
                f"there are {first_of([file.path for file in footage.files])}"
            )

    def __call__(self, frames: Sequence[Frame]) -> list[list[Box]]:
        """As in `Finder`."""
        names = [self._names.get((frame.file, frame.number)) for frame in frames]
        return [[] if name is None else self._boxes.of(name) for name in names]

    def settings(self, file: str) -> str:
        """As in `Finder`: boxes of other files may change meanwhile."""
        digest = hashlib.sha256(b"tracked" if self.tracked else b"")
        for name in sorted(self._files.get(file, []), key=lambda name: (name.file, name.number or 0)):
            digest.update(repr(name).encode() + self._boxes.content(name))
        return digest.hexdigest()


class Detected:
    """A `Finder` that looks at the frames."""

    tracked = False

    def __init__(self, detector: "Detector") -> None:
        self._detector = detector

    def __call__(self, frames: Sequence[Frame]) -> list[list[Box]]:
        """As in `Finder`."""
        return self._detector.detect([frame.pixels for frame in frames])

    def settings(self, file: str) -> str:
        """As in `Finder`."""
        return self._detector.description
