import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from irra.footage.scenes import BOX_COLOUR, has_scene, read_scene
from irra.footage.video import Video, parse_every
from irra.utils.errors import UserError
from tests.videos import stripes, write_video

BOX = {"x": 20, "y": 12, "width": 16, "height": 20}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "cam1").mkdir(parents=True)
    write_video(folder / "cam1" / "video.mp4", range(0, 400, 40))
    Image.fromarray(stripes(5)).save(folder / "cam1" / "0005.png")
    Image.fromarray(stripes(6)).save(tmp_path / "outside.png")
    return folder


def known(file: str, **other: Any) -> dict[str, Any]:
    return {"file": file, "frame": 7, "seconds": None, **BOX, **other}


def inside(scene: Image.Image) -> np.ndarray:
    return np.asarray(scene)[BOX["y"] : BOX["y"] + BOX["height"], BOX["x"] : BOX["x"] + BOX["width"]]


def test_a_scene_of_a_video_is_its_frame(source: Path) -> None:
    frame = next(f for f in Video(source / "cam1" / "video.mp4", "", parse_every("1")) if f.number == 7)
    scene = read_scene(str(source), known("cam1/video.mp4", seconds=frame.seconds))
    np.testing.assert_array_equal(inside(scene), inside(Image.fromarray(frame.pixels)))


def test_a_video_may_be_the_source_itself(source: Path) -> None:
    metadata = known("video.mp4", seconds=0.28)
    alone = read_scene(str(source / "cam1" / "video.mp4"), metadata)
    assert alone.tobytes() == read_scene(str(source), {**metadata, "file": "cam1/video.mp4"}).tobytes()


def test_the_person_has_a_box_around_and_stays_uncovered(source: Path) -> None:
    scene = read_scene(str(source), known("cam1/0005.png"))
    np.testing.assert_array_equal(inside(scene), inside(Image.fromarray(stripes(5))))
    rows, columns = np.nonzero((np.asarray(scene) == BOX_COLOUR).all(axis=2))
    assert (columns.min(), columns.max()) == (BOX["x"] - 2, BOX["x"] + BOX["width"] + 1)
    assert (rows.min(), rows.max()) == (BOX["y"] - 2, BOX["y"] + BOX["height"] + 1)


def test_a_large_frame_is_made_smaller_with_its_box(source: Path) -> None:
    Image.fromarray(stripes(5, (640, 480))).save(source / "large.png")
    large = {name: 10 * value for name, value in BOX.items()}
    scene = read_scene(str(source), {**known("large.png"), **large}, longest=64)
    assert scene.size == (64, 48)
    assert scene.getpixel((BOX["x"] - 1, BOX["y"] + 5)) == BOX_COLOUR
    assert scene.getpixel((BOX["x"] + 5, BOX["y"] + BOX["height"])) == BOX_COLOUR


def test_a_small_frame_is_not_made_larger(source: Path) -> None:
    assert read_scene(str(source), known("cam1/0005.png")).size == (64, 48)


def test_a_picture_of_a_turned_camera_is_upright(source: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(stripes(5)).save(source / "turned.jpg", exif=turned)
    assert read_scene(str(source), known("turned.jpg")).size == (48, 64)


def test_a_box_that_leaves_the_frame_is_drawn_as_far_as_it_goes(source: Path) -> None:
    scene = read_scene(str(source), known("cam1/0005.png", x=50, width=500))
    assert scene.getpixel((49, 20)) == BOX_COLOUR


@pytest.mark.parametrize("file", ["../outside.png", "{folder}/outside.png", "link.png", "cam1/../../outside.png"])
def test_nothing_outside_the_source_is_shown(source: Path, file: str) -> None:
    (source / "link.png").symlink_to(source.parent / "outside.png")
    name = file.format(folder=source.parent)
    with pytest.raises(UserError, match="cannot be shown: it does not lie in its source"):
        read_scene(str(source), known(name))


@pytest.mark.parametrize("file", ["gone.png", "cam1", "a\0b", "x" * 500, "loop"])
def test_a_file_that_is_not_there_is_named(source: Path, file: str) -> None:
    (source / "loop").symlink_to(source / "loop")
    with pytest.raises(UserError, match=r"was not found|has no such file|leads back to itself"):
        read_scene(str(source), known(file))


def test_a_pipe_is_not_waited_for(source: Path) -> None:
    os.mkfifo(source / "pipe.png")
    with pytest.raises(UserError, match="not a regular file"):
        read_scene(str(source), known("pipe.png"))


def test_a_source_that_has_gone_is_named(source: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be shown: its source .*elsewhere was not found"):
        read_scene(str(source / "elsewhere"), known("cam1/0005.png"))


def test_a_source_in_a_bucket_is_named_without_its_password() -> None:
    with pytest.raises(UserError, match=r"its source s3://bucket/videos is not on this machine") as caught:
        read_scene("s3://key:secret@bucket/videos", known("video.mp4"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_a_damaged_picture_is_named(source: Path, data: bytes) -> None:
    (source / "bad.png").write_bytes(data)
    with pytest.raises(UserError, match=r"bad\.png: not a JPEG"):
        read_scene(str(source), known("bad.png"))


def test_only_people_found_in_frames_have_a_scene() -> None:
    footage = {"video.mp4": "what was read of it"}
    assert has_scene(footage, known("video.mp4"))
    assert not has_scene(footage, None)
    assert not has_scene(footage, {"camera": 3})
    assert not has_scene(footage, known("video.mp4", x=None))
    assert not has_scene({}, known("video.mp4"))  # columns of a user's own
