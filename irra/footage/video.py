"""Reading the frames of a video: a frame every so often, with its number and its time.

The decoder is FFmpeg's, by PyAV, with only those containers that hold their own pictures: a playlist would have it open
other files, or addresses.
"""

import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain, dropwhile
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from irra.data.images import MAX_PIXELS
from irra.footage.frames import Frame
from irra.utils.cores import available_cores
from irra.utils.errors import UserError
from irra.utils.files import check_regular_file

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob"),
    *(".flv", ".wmv", ".asf", ".ogv", ".mxf", ".dv", ".dav", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg"),
)
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf,dv,dhav,ivf,nut,rm,gxf,wtv,obu,h264,hevc,m4v,mpegvideo,mjpeg"
UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)}
UNSTAMPED_RATE = Fraction(25)  # frames per second, where a file says nothing at all
REORDERED = 32  # a frame is decoded at most so many frames before it is shown; H.264 and H.265 allow 16
HEALED = 250  # frames without an error after which a damaged stretch is over, even without a key frame
MAX_FAILURES = 100  # to read on, one after the other

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Every:
    """How often a frame is taken: the first at or after each multiple of `step` seconds, or frames."""

    step: Fraction
    in_seconds: bool

    def __str__(self) -> str:
        return f"{float(self.step):g} s" if self.in_seconds else f"{self.step} frames"

    def interval(self, number: int, moment: Fraction) -> int:
        """Which of the steps a frame is in, from 0, by its number and its seconds."""
        return (moment if self.in_seconds else number) // self.step


def parse_every(text: str) -> Every:
    """Read how often a frame is taken: a time such as `1s`, `500ms` or `2min`, or a number of frames such as `25`.

    Raises:
        UserError: It is neither, or zero.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) *(ms|s|min|h|)", text.strip(), re.ASCII)
    if match is None or (not match[2] and "." in match[1]) or not (step := Fraction(match[1])):
        raise UserError(f"--every: {text!r} is neither a time (1s, 500ms, 2min) nor a number of frames (25)")
    return Every(step * UNITS.get(match[2], 1), bool(match[2]))


class Video:
    """Frames of a video file, one every so often, from the beginning to the end; may be iterated again.

    A frame's `number` is how many frames come before it in the file, whether they can be decoded or not. Its `seconds`
    are from the first frame, by the file's time stamps; by its frame rate, with a warning, if it has none. Frames are
    upright, and keep the pixels of the file, which need not be square.

    After a frame or a piece of the file that cannot be read, everything up to the next key frame is left out as one
    damaged stretch. Frames that have vanished from a file without breaking it count for nothing.

    Args:
        path: The video.
        file: What its frames call it.
        every: How often a frame is taken.
        start: When the video begins. Its time zone is dropped: times are those that the clock there showed.
        after: Number of a frame that was taken before; only frames after it are, and what is before the last key frame
            is not decoded again.

    Attributes:
        decoded: Number of frames decoded so far, taken or not.
        damaged: Number of damaged stretches so far; of those after `after`.
        expected: How many frames will be taken if all can be read; None if the file does not say how long it is.

    Raises:
        UserError: There is no such file, or it is no video; while iterating: none of its frames can be read.
    """

    def __init__(self, path: Path, file: str, every: Every, start: datetime | None = None, after: int = -1) -> None:
        self._path, self._file, self._every, self._after = path, file, every, after
        self._start = None if start is None else start.replace(tzinfo=None)
        self._decoding: _Decoding | None = None
        with _opened(path) as (container, stream):
            self.expected = _expected(container, stream, every)

    @property
    def decoded(self) -> int:
        """Number of frames decoded so far."""
        return 0 if self._decoding is None else self._decoding.decoded

    @property
    def damaged(self) -> int:
        """Number of damaged stretches so far."""
        return 0 if self._decoding is None else self._decoding.damaged

    def __iter__(self) -> Iterator[Frame]:
        """Decode the file."""
        key = _key_before(self._path, self._after)
        with _opened(self._path) as (container, stream):
            self._decoding = _Decoding(container, stream, key)
            yield from self._due(self._decoding)
        if key is not None and not self._decoding.found:  # the container cannot seek to it after all
            with _opened(self._path) as (container, stream):
                self._decoding = _Decoding(container, stream)
                yield from self._due(self._decoding)
        if self._decoding.usable == 0:
            raise UserError(f"{self._path}: a video without a frame that can be decoded")

    def _due(self, decoding: "_Decoding") -> Iterator[Frame]:
        before: int | None = None
        for number, moment, frame in decoding:
            interval = self._every.interval(number, moment)
            is_due, before = interval != before, interval
            if is_due and number > self._after:
                yield Frame(self._file, number, float(moment), self._time(moment), _upright(self._path, frame))

    def _time(self, moment: Fraction) -> datetime | None:
        return None if self._start is None else self._start + timedelta(microseconds=round(moment * 1_000_000))


def read_frame(path: Path, number: int, seconds: float) -> Pixels:
    """The pixels (H, W, 3) of a frame that `Video` has found, by its number and seconds.

    Raises:
        UserError: The file is not there, or has no such frame, or it is damaged.
    """
    with _opened(path) as (container, stream):
        stamp = round(Fraction(seconds) / _time_base(stream)) + (stream.start_time or 0)
        if not _is_unordered(container):
            _seek(container, stream, stamp)
            for _, _, frame in _Decoding(container, stream, within=True):
                if frame.pts is None or frame.pts > stamp:
                    break
                if frame.pts == stamp:
                    return _upright(path, frame)
    for found in Video(path, "", Every(Fraction(1), in_seconds=False), after=number - 1):
        if found.number == number:
            return found.pixels
        break
    raise UserError(f"{path}: has no frame {number}, or it is damaged")


@dataclass(frozen=True)
class _Key:
    """A key frame from which decoding can begin: its number, its time stamp, and that by which it is found."""

    number: int
    stamp: int
    decoded_at: int


class _Decoding:
    """The usable frames of a stream in the order in which they are shown, as (number, seconds, frame).

    Args:
        container, stream: The open file.
        key: The frame with which to begin, if that is not the first one.
        within: The container is somewhere within the file; numbers count from there.

    Attributes:
        decoded, usable: Number of frames so far, with and without damaged ones.
        damaged: Number of damaged stretches so far.
        found: Whether the container has led to `key`.
    """

    def __init__(
        self, container: "InputContainer", stream: "VideoStream", key: _Key | None = None, within: bool = False
    ) -> None:
        self.decoded = self.usable = self.damaged = 0
        self.found = key is None
        self._container, self._stream, self._key = container, stream, key
        self._is_broken, self._since_error = within, 0  # within the file, decoding begins like after damage
        self._next = 0 if key is None else key.number
        self._stamps: list[int] = []  # a heap: of the packets whose frames have not come
        self._unordered = _is_unordered(container)
        self._time_base, self._begin = _time_base(stream), stream.start_time or 0

    def __iter__(self) -> Iterator[tuple[int, Fraction, "VideoFrame"]]:
        """Decode the rest of the stream."""
        for packet in self._packets():
            for frame in self._frames(packet):
                if self._key is not None and (frame.pts is None or frame.pts < self._key.stamp):
                    continue  # it needs frames from before the key frame
                self.decoded += 1
                place = self._place(frame)
                if self._is_usable(frame) and place is not None:
                    self.usable += 1
                    yield *place, frame

    def _packets(self) -> Iterator["VideoPacket | None"]:
        """The packets from the key frame on, with None where something cannot be read, and for the end."""
        packets = _packets(self._container, self._stream)
        if (key := self._key) is not None:
            _seek(self._container, self._stream, key.decoded_at)
            packets = dropwhile(lambda packet: not _is_key(packet, key), packets)
            if (first := next(packets, None)) is None:
                return
            self.found = True
            packets = chain([first], packets)
        for packet in packets:
            if packet is None or packet.is_corrupt:
                self._note_damage()
            if packet is not None:
                self._expect(packet)
                yield packet
        yield None

    def _frames(self, packet: "VideoPacket | None") -> list["VideoFrame"]:
        from av.error import FFmpegError

        try:
            return self._stream.decode(packet)
        except FFmpegError:
            self._note_damage()
            return []

    def _note_damage(self) -> None:
        self.damaged += not self._is_broken
        self._is_broken, self._since_error = True, 0

    def _is_usable(self, frame: "VideoFrame") -> bool:
        if frame.is_corrupt:
            self._note_damage()
            return False
        self._since_error += 1
        if frame.key_frame or self._since_error > HEALED:
            self._is_broken = False
        return not self._is_broken

    def _expect(self, packet: "VideoPacket") -> None:
        stamp = packet.dts if self._unordered else packet.pts
        if stamp is not None and not packet.is_discard and (self._key is None or stamp >= self._key.stamp):
            heappush(self._stamps, stamp)

    def _place(self, frame: "VideoFrame") -> tuple[int, Fraction] | None:
        """The number and seconds of the frame that comes next; None for one that comes too late, as after damage."""
        stamp = self._stamps[0] if self._unordered and self._stamps else frame.pts
        if stamp is not None:
            while self._stamps and self._stamps[0] < stamp:
                heappop(self._stamps)  # of a frame that did not come
                self._next += 1
            if not self._stamps or self._stamps[0] != stamp:
                return None
            heappop(self._stamps)
        number, self._next = self._next, self._next + 1
        return number, self._moment(number, stamp)

    def _moment(self, number: int, stamp: int | None) -> Fraction:
        if stamp is not None:
            return (stamp - self._begin) * self._time_base
        rate = self._stream.average_rate or self._stream.guessed_rate
        if number == 0:
            said = f"its {float(rate):g} frames a second" if rate else f"{UNSTAMPED_RATE} frames a second, a guess"
            name = self._container.name.removeprefix("file:")
            warnings.warn(f"{name}: its frames have no time stamps; seconds are by {said}", stacklevel=2)
        return number / Fraction(rate or UNSTAMPED_RATE)


@contextmanager
def _opened(path: Path) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """Open a video and find its pictures.

    Raises:
        UserError: It cannot be opened, is no video, or its pictures are too large.
    """
    av = _import_av()
    _check_file(path)
    limits = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)}
    try:
        container = av.open(f"file:{path.absolute()}", options=limits, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(f"{path}: not a video that can be read, or too damaged ({_reason(error)})") from None
    with container:
        yield container, _video_stream(path, container)


def _video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path}: has no video in it")
    stream = streams[0]
    if stream.codec_context is None:
        raise UserError(f"{path}: its video has a codec that this FFmpeg does not know")
    if not stream.width or not stream.height:
        raise UserError(f"{path}: a video without a frame that can be decoded")
    if stream.width * stream.height > MAX_PIXELS:
        raise UserError(f"{path}: {stream.width} x {stream.height} pixels, more than the {MAX_PIXELS} allowed")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.codec_context.thread_count = available_cores()
    stream.thread_type = "AUTO"
    return stream


def _check_file(path: Path) -> None:
    check_regular_file(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder; give one video file")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: an empty file")


def _packets(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoPacket | None"]:
    """The packets of a stream, in the order of the file, with None where something cannot be read."""
    from av.error import FFmpegError

    failures = 0
    while failures < MAX_FAILURES:
        try:
            for packet in container.demux(stream):
                if packet.size:  # an empty one would tell the decoder that this is the end
                    failures = 0
                    yield packet
            return
        except FFmpegError:
            failures += 1
            yield None


def _key_before(path: Path, number: int) -> _Key | None:
    """The last key frame up to the frame of this number; None if it is the first, or the numbers are not certain."""
    stamps: list[int] = []
    keys: list[tuple[int, int, int]] = []
    if number < 0:
        return None
    with _opened(path) as (container, stream):
        if _is_unordered(container):
            return None
        for packet in _packets(container, stream):
            if packet is None or packet.pts is None or packet.is_corrupt:
                return None
            if packet.is_discard:
                continue
            if packet.is_keyframe:
                keys.append((len(stamps), packet.pts, packet.pts if packet.dts is None else packet.dts))
            stamps.append(packet.pts)
            if len(stamps) > number + REORDERED:
                break
    stamps.sort()
    placed = [(position, _Key(bisect_left(stamps, stamp), stamp, at)) for position, stamp, at in keys]
    usable = [key for position, key in placed if 0 <= key.number - position <= REORDERED and key.number <= number]
    return max(usable, key=lambda key: key.number, default=None)


def _seek(container: "InputContainer", stream: "VideoStream", stamp: int) -> None:
    """Go to the key frame before a time stamp; to anywhere, if the container cannot."""
    from av.error import FFmpegError

    with suppress(FFmpegError):
        container.seek(stamp, stream=stream)


def _is_key(packet: "VideoPacket | None", key: _Key) -> bool:
    return packet is not None and packet.is_keyframe and packet.pts == key.stamp


def _is_unordered(container: "InputContainer") -> bool:
    """Whether the container knows only when a packet is decoded; its frames are shown at these times, in order."""
    return container.format.name == "avi"


def _time_base(stream: "VideoStream") -> Fraction:
    return stream.time_base or Fraction(1, 1_000_000)


def _expected(container: "InputContainer", stream: "VideoStream", every: Every) -> int | None:
    seconds = None if container.duration is None else Fraction(container.duration, 1_000_000)
    if stream.duration is not None:
        seconds = stream.duration * _time_base(stream)
    rate = stream.average_rate
    frames = stream.frames or (None if seconds is None or rate is None else seconds * rate)
    total = seconds if every.in_seconds else frames
    return None if total is None else ceil(total / every.step)


def _upright(path: Path, frame: "VideoFrame") -> Pixels:
    """The pixels of a frame in RGB, turned as the file says."""
    if frame.width * frame.height > MAX_PIXELS:
        raise UserError(f"{path}: {frame.width} x {frame.height} pixels, more than the {MAX_PIXELS} allowed")
    pixels = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise UserError("reading video needs PyAV; install it with: pip install 'irra-pipeline[video]'") from None
    return av
