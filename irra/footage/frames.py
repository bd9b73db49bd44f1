"""A frame of a video or a folder, and the people in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """Where a person is in a frame, in pixels from its upper left corner.

    Attributes:
        x, y: Upper left corner.
        width, height: Size.
        score: The detector's confidence, 0..1, if it has one.
        track: Number of the person in this file, if it is known.
    """

    x: float
    y: float
    width: float
    height: float
    score: float | None = None
    track: int | None = None


@dataclass(frozen=True)
class Frame:
    """A picture of a scene.

    Attributes:
        file: Path of the video or picture in its source, with slashes.
        number: Its place among the frames of the video from 0. In a folder of pictures, the number at the end of its
            name if all of them are called alike (`frame_0001.jpg`), or else its place among them from 1.
        seconds: From the beginning of the video; None in a folder of pictures.
        time: When it was taken, if that is known.
        pixels: RGB (H, W, 3).
    """

    file: str
    number: int
    seconds: float | None
    time: datetime | None
    pixels: NDArray[np.uint8]


class FrameSource(Protocol):
    """The frames of one file, in their order.

    Attributes:
        expected: Number of frames if all can be read; None if it is not known.
    """

    expected: int | None

    @property
    def damaged(self) -> int:
        """Number of stretches that could not be read, as far as the frames were taken."""

    def __iter__(self) -> Iterator[Frame]:
        """Read the frames.

        Raises:
            UserError: The file cannot be read.
        """


class Finder(Protocol):
    """Finds the people in frames.

    Attributes:
        tracked: Whether the boxes say who is the same person in other frames.
    """

    tracked: bool

    def __call__(self, frames: Sequence[Frame]) -> list[list[Box]]:
        """The boxes in each of the frames."""

    def settings(self, file: str) -> str:
        """What decides which boxes are found in a file: another text if they may be others."""
