"""A frame of a video or a folder, and the people in it."""

from dataclasses import dataclass
from datetime import datetime

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
        number: Its place among the frames of the video from 0, or among the pictures of its folder from 1.
        seconds: From the beginning of the video; None in a folder of pictures.
        time: When it was taken, if that is known.
        pixels: RGB (H, W, 3).
    """

    file: str
    number: int
    seconds: float | None
    time: datetime | None
    pixels: NDArray[np.uint8]
