"""irra index on frames and video: what it answers, and what it refuses before it loads a model."""

from io import StringIO
from pathlib import Path

import pytest

from app.cli.index import print_update
from irra.search.folder import FolderGallery
from tests.cli import answer, irra, mistake, write_model
from tests.footage import csv_lines, mot_lines, places, write_frames, write_video

NOWHERE = Path("no-model")  # what is refused before it is looked for


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "frames", range(1, 4))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_frames_with_boxes_become_people(frames: Path, model: Path, tmp_path: Path) -> None:
    (frames / "broken.png").write_bytes(b"no picture")
    lines = csv_lines([("000001.png", 1), ("000002.png", 2), ("other.png", 3)]) + "000001.png,500,1,30,60,0.9\n"
    boxes = write(tmp_path / "boxes.csv", lines)
    said = answer("index", "--frames", frames, "--boxes", boxes, "--out", tmp_path / "index", "--model", model)
    assert said == {
        "index": str(tmp_path / "index"),
        "people": 4,
        "added": 4,
        "kept": 0,
        "removed": 0,
        "tracks": 2,
        "read": 3,
        "frames": 3,
        "unsure": 0,
        "outside": 1,
        "too_small": 0,
        "double": 0,
        "clipped": 0,
        "damaged": 0,
        "absent": ["other.png"],
        "skipped": said["skipped"],
    }
    assert [item["path"] for item in said["skipped"]] == ["broken.png"]
    done = irra("index", "--frames", frames, "--boxes", boxes, "--out", tmp_path / "index", "--model", model)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert {"kept 4", "read 0", "outside 1", "absent 1", "skipped 1"} <= set(lines)
    assert "absent boxes of a frame that is not there: other.png" in lines
    assert not any(line.startswith("too small") for line in lines)


def test_a_frame_of_a_video_is_taken_every_so_often(model: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "entrance.mp4", 20)
    boxes = write(tmp_path / "boxes.txt", mot_lines(range(1, 21)).replace(",30,60,", ",30,50,"))
    options = ("--boxes", boxes, "--every", "0.5s", "--start", "2026-11-27T18:00:00", "--margin", 0, "--model", model)
    said = answer("index", "--video", video, *options, "--out", tmp_path / "index")
    assert (said["people"], said["frames"], said["damaged"]) == (8, 4, 0)
    gallery = FolderGallery.open(tmp_path / "index")
    x, y, *_ = places(6)[0]
    assert gallery.entry(2).path == f"entrance.mp4#t=0.5&xywh={x},{y},30,50"
    known = gallery.metadata([2])[0]
    assert (known["file"], known["frame"], known["seconds"]) == ("entrance.mp4", 5, 0.5)
    assert known["time"].isoformat() == "2026-11-27T18:00:00.500000"
    assert gallery.info.source == str(video)
    folder = answer("index", "--video", tmp_path, *options, "--out", tmp_path.parent / "index")
    assert folder["people"] == 8


def test_videos_that_are_none_are_skipped_or_else_a_mistake(model: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write(videos / "text.mp4", "no video")
    boxes = write(tmp_path / "boxes.txt", mot_lines([1]))
    options = ("--boxes", boxes, "--out", tmp_path / "index", "--model", model)
    said = mistake("index", "--video", videos, *options)
    assert f"{videos}: no frame of it can be read; skipped: text.mp4 (not a video that can be read" in said
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give exactly one of --images, --frames and --video"),
        (("--images", "frames", "--frames", "frames"), "give exactly one of --images, --frames and --video"),
        (("--frames", "frames"), "give exactly one of --boxes and --detect"),
        (("--frames", "frames", "--boxes", "boxes", "--detect"), "give exactly one of --boxes and --detect"),
        (("--images", "frames", "--boxes", "boxes"), "--boxes: is for --frames and --video"),
        (("--images", "frames", "--min-height", 3), "--min-height: is for --frames and --video"),
        (("--frames", "frames", "--boxes", "boxes", "--every", "1s"), "--every: is for --video"),
        (("--frames", "frames", "--boxes", "boxes", "--captions", "x.csv"), "--captions: is for --images"),
        (("--frames", "frames", "--boxes", "boxes", "--detector", "x"), "--detector: is for --detect"),
        (("--frames", "frames", "--boxes", "boxes", "--margin", 2), "--margin: 2.0 is not in 0..1"),
        (("--frames", "frames", "--boxes", "boxes", "--min-height", 0), "--min-height: 0; a box has at least 1 pixel"),
        (("--frames", "frames", "--boxes", "boxes", "--min-score", "nan"), "--min-score: nan is not a number"),
        (("--frames", "nowhere", "--boxes", "boxes"), "--frames: nowhere: no such folder"),
        (("--frames", "frames", "--boxes", "nowhere"), "nowhere: no such file of boxes"),
        (("--frames", "frames", "--boxes", "frames/000001.png"), "000001.png: no file of boxes"),
        (("--frames", "frames", "--boxes", "other"), "none of its frames is in frames: it has frame 9"),
        (("--frames", "empty", "--boxes", "boxes"), "empty: no pictures in this folder"),
        (("--video", "nowhere", "--boxes", "boxes"), "--video: nowhere: no such file or folder"),
        (("--video", "frames", "--boxes", "boxes"), "frames: no videos in this folder"),
        (("--video", "boxes", "--boxes", "boxes"), "boxes: not a video that can be read"),
        (("--video", "boxes", "--boxes", "boxes", "--every", "0s"), "--every: '0s' is neither"),
        (("--video", "boxes", "--boxes", "boxes", "--start", "noon"), "--start: 'noon' is no time such as"),
        (
            ("--video", "boxes", "--boxes", "boxes", "--start", "2026-11-27T18:00Z"),
            "18:00Z' has an offset; give the time",
        ),
    ],
)
def test_mistakes_are_said_before_a_model_is_loaded(
    frames: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(frames.parent)
    write(Path("boxes"), mot_lines([1]))
    write(Path("other"), mot_lines([9]))
    Path("empty").mkdir()
    assert message in mistake("index", *options, "--out", "index", "--model", NOWHERE)


@pytest.mark.parametrize("kind", ["", "lance:"])
def test_an_index_may_not_lie_among_the_frames(frames: Path, tmp_path: Path, kind: str) -> None:
    boxes = write(tmp_path / "boxes.txt", mot_lines([1]))
    said = mistake(
        "index", "--frames", frames, "--boxes", boxes, "--out", f"{kind}{frames / 'index'}", "--model", NOWHERE
    )
    assert f"--frames {frames} overlap" in said


def test_what_metadata_do_not_match_is_counted_and_the_first_named() -> None:
    stream = StringIO()
    missing = [f"{number}.jpg" for number in range(12)]
    print_update({"pictures": 20, "without_row": missing, "without_picture": ["x.jpg"], "skipped": []}, stream)
    lines = stream.getvalue().splitlines()
    assert [" ".join(line.split()) for line in lines[:4]] == [
        "pictures 20",
        "without row 12",
        "without picture 1",
        "skipped 0",
    ]
    assert lines[4] == "without row  without a row in --metadata: 0.jpg"
    assert lines[14] == "without row  2 more; --json lists all of them"
    assert lines[15] == "without picture  row in --metadata without a picture: x.jpg"
