import os
import sys
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from irra.footage import video as reading
from irra.footage.frames import Frame
from irra.footage.video import Every, Video, parse_every, read_frame
from irra.utils.errors import UserError
from tests.videos import damage, number_in, places, stripes, write_video

STEADY = range(0, 1600, 40)  # 25 frames a second
ALL = Every(Fraction(1), in_seconds=False)
KINDS = {  # suffix, codec, other settings
    "mp4": ("mp4", "libx264", {}),
    "open groups": ("mp4", "mpeg4", {"options": {"bf": "2"}}),
    "ts": ("ts", "libx264", {}),
    "mkv": ("mkv", "libx264", {"container_options": {"cluster_time_limit": "200"}}),
    "avi": ("avi", "mpeg4", {}),
    "h264": ("h264", "libx264", {}),
}
SEEKABLE = ("mp4", "open groups", "ts", "mkv")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        name: write_video(folder / f"{name}.{suffix}", STEADY, codec, **settings)
        for name, (suffix, codec, settings) in KINDS.items()
    }


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", STEADY)


def numbers(frames: list[Frame]) -> list[int]:
    return [frame.number for frame in frames]


def same(one: Frame, other: Frame) -> bool:
    return (one.number, one.seconds) == (other.number, other.seconds) and bool((one.pixels == other.pixels).all())


@pytest.fixture(scope="module")
def frames(videos: dict[str, Path]) -> Callable[[str], list[Frame]]:
    """All frames of one of the videos."""
    with warnings.catch_warnings(action="ignore"):
        read = {kind: list(Video(path, "a/b", ALL)) for kind, path in videos.items()}
    return lambda kind: read[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_have_their_numbers_and_times_in_every_container(
    frames: Callable[[str], list[Frame]], kind: str
) -> None:
    found = frames(kind)
    assert numbers(found) == [number_in(frame.pixels) for frame in found] == list(range(len(STEADY)))
    assert [frame.seconds for frame in found] == pytest.approx([time / 1000 for time in STEADY])
    assert {frame.file for frame in found} == {"a/b"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*no time stamps")
def test_a_video_is_resumed_with_the_same_frames(
    videos: dict[str, Path], frames: Callable[[str], list[Frame]], kind: str
) -> None:
    for after in (0, 20, 29, 39):
        rest = Video(videos[kind], "a/b", ALL, after=after)
        expected = [frame for frame in frames(kind) if frame.number > after]
        assert all(same(*pair) for pair in zip(rest, expected, strict=True))
        if kind in SEEKABLE:
            assert rest.decoded <= len(expected) + 12  # a group of ten, and two frames of disorder


def test_a_resumed_video_takes_the_next_frame_that_is_due(videos: dict[str, Path]) -> None:
    every, taken = parse_every("300ms"), [0, 8, 15, 23, 30, 38]
    for place, number in enumerate([-1, *taken]):
        assert numbers(list(Video(videos["mp4"], "video", every, after=number))) == taken[place:]


def test_frames_are_taken_by_their_time_stamps_where_the_rate_varies(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).choice([5, 40, 700, 2600], 40)).tolist()
    path = write_video(tmp_path / "video.mkv", [time - times[0] for time in times])
    seconds = [(time - times[0]) / 1000 for time in times]
    expected = [
        number
        for number in range(40)
        if number == 0 or any(seconds[number - 1] < k <= seconds[number] for k in range(99))
    ]
    taken = list(Video(path, "video", parse_every("1s")))
    assert numbers(taken) == [number_in(frame.pixels) for frame in taken] == expected
    assert [frame.seconds for frame in taken] == pytest.approx([seconds[number] for number in expected])


def test_a_frame_is_taken_every_so_many(mp4: Path) -> None:
    video = Video(mp4, "video", parse_every("15"))
    assert numbers(list(video)) == [0, 15, 30]
    assert video.expected == 3


def test_the_expected_number_of_frames_is_that_of_an_undamaged_video(videos: dict[str, Path]) -> None:
    for kind in SEEKABLE:
        video = Video(videos[kind], "video", parse_every("0.5s"))
        assert video.expected == len(list(video)) == 4


def test_a_stream_that_does_not_say_its_length_is_of_unknown_length(videos: dict[str, Path]) -> None:
    assert Video(videos["h264"], "video", ALL).expected is None


def test_a_video_may_be_read_again(mp4: Path) -> None:
    video = Video(mp4, "video", ALL)
    assert numbers(list(video)) == numbers(list(video)) == list(range(len(STEADY)))
    assert (video.decoded, video.damaged) == (len(STEADY), 0)


def test_times_count_from_the_start_by_the_clock_there(mp4: Path) -> None:
    start = datetime(2026, 11, 27, 18, 0, tzinfo=timezone(timedelta(hours=5)))
    frames = list(Video(mp4, "video", parse_every("1s"), start))
    assert [frame.time for frame in frames] == [datetime(2026, 11, 27, 18, 0), datetime(2026, 11, 27, 18, 0, 1)]


def test_times_are_unknown_without_a_start(mp4: Path) -> None:
    assert next(iter(Video(mp4, "video", ALL))).time is None


def test_frames_without_time_stamps_are_placed_by_the_rate_and_it_is_said(videos: dict[str, Path]) -> None:
    with pytest.warns(UserWarning, match=r"h264\.h264: its frames have no time stamps; seconds are by its 25 frames"):
        assert [frame.seconds for frame in Video(videos["h264"], "video", parse_every("1s"))] == [0.0, 1.0]


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_a_video_of_a_turned_camera_is_upright(tmp_path: Path, rotation: int, turns: int) -> None:
    plain = next(iter(Video(write_video(tmp_path / "plain.mp4", [0]), "video", ALL)))
    turned = next(iter(Video(write_video(tmp_path / "turned.mp4", [0], rotation=rotation), "video", ALL)))
    np.testing.assert_array_equal(turned.pixels, np.rot90(plain.pixels, turns))


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "gray"])
def test_pixels_are_rgb_of_8_bits_whatever_the_format_and_size(tmp_path: Path, pixel_format: str) -> None:
    path = write_video(tmp_path / "odd.mkv", [0], "ffv1", size=(161, 77), pixel_format=pixel_format)
    pixels = next(iter(Video(path, "video", ALL))).pixels
    assert (pixels.shape, pixels.dtype) == ((77, 161, 3), np.uint8)
    difference = np.abs(pixels.astype(int) - stripes(0, (161, 77))).max()
    assert difference < (8 if pixel_format != "gray" else 120)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_damaged_stretch_is_left_out_and_counted(tmp_path: Path, videos: dict[str, Path], kind: str) -> None:
    path = tmp_path / videos[kind].name
    path.write_bytes(videos[kind].read_bytes())
    damage(path, 13, 14, spared=12)  # the container stays whole
    video = Video(path, "video", ALL)
    frames = list(video)
    assert video.damaged == 1
    assert len(STEADY) - 12 < len(frames) < len(STEADY)
    assert numbers(frames) == [number_in(frame.pixels) for frame in frames]
    assert numbers(frames)[-10:] == list(range(30, 40))
    for after in (5, numbers(frames)[-3]):
        rest = list(Video(path, "video", ALL, after=after))
        assert numbers(rest) == [number for number in numbers(frames) if number > after]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*no time stamps")
def test_no_damage_ends_the_run(tmp_path: Path, videos: dict[str, Path], kind: str) -> None:
    path = tmp_path / videos[kind].name
    path.write_bytes(videos[kind].read_bytes())
    damage(path, 12, 17)
    frames = list(Video(path, "video", ALL))
    assert 0 < len(frames) < len(STEADY)
    assert number_in(frames[-1].pixels) == len(STEADY) - 1
    assert numbers(frames) == sorted(set(numbers(frames)))


def test_a_truncated_video_gives_what_is_left(tmp_path: Path, videos: dict[str, Path]) -> None:
    path = tmp_path / "cut.mkv"
    path.write_bytes(videos["mkv"].read_bytes()[: places(videos["mkv"])[20][0]])
    assert numbers(list(Video(path, "video", ALL))) == list(range(20))


def test_a_video_of_damage_alone_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", STEADY)
    damage(path, 0, len(STEADY) - 1)
    with pytest.raises(UserError, match=r"video\.mkv: .*(decoded|damaged)"):
        list(Video(path, "video", ALL))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*no time stamps")
def test_a_frame_is_found_again_by_its_number_and_seconds(
    videos: dict[str, Path], frames: Callable[[str], list[Frame]], kind: str
) -> None:
    for frame in frames(kind)[7::16]:
        assert frame.seconds is not None
        np.testing.assert_array_equal(read_frame(videos[kind], frame.number, frame.seconds), frame.pixels)


def test_a_frame_that_is_not_there_is_named(mp4: Path) -> None:
    with pytest.raises(UserError, match=r"video\.mp4: has no frame 40, or it is damaged"):
        read_frame(mp4, 40, 1.6)


def sound(path: Path) -> None:
    with av.open(path, "w") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())


def no_frames(path: Path) -> None:
    write_video(path, [], "mpeg4")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "an empty file"),
    "folder": (lambda path: path.mkdir(), "a folder; give one video file"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "text": (lambda path: path.write_text("a video, honestly\n" * 100), "not a video"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"), "not a video"),
    "list of files": (lambda path: path.write_text("ffconcat version 1.0\nfile other.mp4\n"), "not a video"),
    "sound": (sound, "has no video in it"),
    "no frames": (no_frames, "without a frame|no video"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_video_is_refused_with_one_message(tmp_path: Path, what: str) -> None:
    write_video(tmp_path / "other.mp4", [0])
    make, message = BAD[what]
    for path in (tmp_path / "video.mp4", tmp_path / "video.m3u8") if "list" in what else (tmp_path / "video.mp4",):
        make(path)
        with pytest.raises(UserError, match=rf"{path.name}: .*({message})") as caught:
            list(Video(path, "video", ALL))
        assert "\n" not in str(caught.value)


def test_pictures_that_are_too_large_are_refused(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(UserError, match="64 x 48 pixels, more than the 3071 allowed"):
        Video(mp4, "video", ALL)


def test_a_missing_library_is_named_with_the_extra(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"PyAV.*irra-pipeline\[video\]"):
        Video(mp4, "video", ALL)


@pytest.mark.parametrize(
    ("text", "step", "in_seconds"),
    [
        ("1s", Fraction(1), True),
        ("0.5s", Fraction(1, 2), True),
        (" 500 ms ", Fraction(1, 2), True),
        ("2min", Fraction(120), True),
        ("1h", Fraction(3600), True),
        ("25", Fraction(25), False),
    ],
)
def test_how_often_is_a_time_or_a_number_of_frames(text: str, step: Fraction, in_seconds: bool) -> None:
    assert parse_every(text) == Every(step, in_seconds)


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "2.5", "1m", "s", "1e3s", "nan", "١s", "1s 2s", "9" * 30])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--every: .* is neither a time \(1s, 500ms, 2min\) nor a number of frames"):
        parse_every(text)
