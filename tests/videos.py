"""Small videos whose frames show their own numbers."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIZE = (64, 48)
MILLISECOND = Fraction(1, 1000)
BITS = 8


def write_video(
    path: Path,
    times: Sequence[int],
    codec: str = "libx264",
    key_every: int = 10,
    size: tuple[int, int] = SIZE,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
    **container: Any,
) -> Path:
    """Write a video with a frame at each of `times` (milliseconds), a key frame at every so many.

    `options` are those of the codec, `container` of `av.open`.
    """
    settings = {"g": str(key_every), "threads": "1", **(options or {})}
    with av.open(path, "w", **container) as output:
        stream: Any = output.add_stream(codec, rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.time_base = MILLISECOND
        if rotation:
            stream.set_display_rotation(rotation)
        output.start_encoding()
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(stripes(number, size), "rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def stripes(number: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A picture (H, W, 3) whose columns are the bits of a number, in orange and blue."""
    bit = np.arange(size[0]) * BITS // size[0]
    colours = np.where(((number >> bit) & 1)[:, None], (230, 120, 20), (20, 60, 160)).astype(np.uint8)
    return np.broadcast_to(colours, (size[1], size[0], 3)).copy()


def number_in(pixels: NDArray[np.uint8]) -> int:
    """The number that a picture shows."""
    centres = (2 * np.arange(BITS) + 1) * pixels.shape[1] // (2 * BITS)
    return int(((pixels[:, centres, 0].mean(axis=0) > 125) << np.arange(BITS)).sum())


def places(path: Path) -> list[tuple[int, int]]:
    """Where the packets of a video begin and end in the file."""
    with av.open(path) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size and packet.pos is not None]
    return [(packet.pos, packet.pos + packet.size) for packet in packets]


def damage(path: Path, first: int, last: int, spared: int = 0) -> None:
    """Overwrite the packets of a video from one number to another, except the first bytes of each."""
    data, random = bytearray(path.read_bytes()), np.random.default_rng(0)
    for beginning, end in places(path)[first : last + 1]:
        data[beginning + spared : end] = random.bytes(end - beginning - spared)
    path.write_bytes(data)
