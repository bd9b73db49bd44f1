"""People in frames and video: finding the frames of boxes, cutting people out, following them, and the index."""

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from irra.footage.boxes import read_boxes
from irra.footage.build import FootageUpdate, index_footage
from irra.footage.cutting import Cutting
from irra.footage.finders import KnownBoxes
from irra.footage.frames import Box, Frame
from irra.footage.linking import MIN_OVERLAP, REACH, Linker, Place
from irra.footage.people import clip, cut_people, path_of
from irra.footage.plan import Reading
from irra.footage.sources import Footage, FrameFolder, Videos, load_frame, numbers
from irra.footage.video import parse_every
from irra.search.address import open_target
from irra.search.folder import FolderGallery
from irra.search.forgetting import Forgotten, named
from irra.search.metadata import Metadata
from irra.search.pictures import to_pixels
from irra.search.update import index_folder
from irra.utils.errors import UserError
from tests.footage import csv_lines, draw, mot_lines, places, write_frames, write_video
from tests.irra.test_index_folder import CountingEncoder
from tests.models import small_model

MODEL = "a" * 64
ALL = Cutting(margin=0.0, min_height=1)


@pytest.fixture(scope="module")
def encoder() -> CountingEncoder:
    return CountingEncoder(small_model())


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def update(frames: Path, boxes: str, encoder: CountingEncoder, cutting: Cutting = ALL, **options: Any) -> FootageUpdate:
    """Index `frames` with the text of boxes; `encoder.encoded` is set to the people that this encoded."""
    footage: Footage = Videos(frames, parse_every("1")) if frames.is_file() else FrameFolder(frames)
    finder = KnownBoxes(read_boxes(write(frames.parent / "boxes.txt", boxes)), footage)
    encoder.encoded = 0
    options = {"target": frames.parent / "index", "source": str(frames)} | options
    return index_footage(footage, finder, encoder, MODEL, cutting=cutting, **options)


def people_of(index: Path) -> dict[str, dict[str, Any]]:
    """Metadata by path."""
    gallery = FolderGallery.open(index)
    return {one["path"]: one for one in gallery.metadata(range(gallery.size))}


def vectors_of(index: Path) -> dict[str, NDArray[np.float16]]:
    gallery = FolderGallery.open(index)
    return {gallery.entry(row).path: gallery.embeddings[row] for row in range(gallery.size)}


def assert_equal(one: Path, other: Path) -> None:
    """Two indexes have the same people, with the same metadata and embeddings."""
    assert people_of(one) == people_of(other)
    vectors = vectors_of(other)
    for path, vector in vectors_of(one).items():
        np.testing.assert_allclose(vector, vectors[path], atol=2e-3)


# Frames of boxes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "b.jpg"], [1, 2]),
        (["000005.jpg", "000010.jpg"], [5, 10]),
        (["cam_7.jpg", "cam_8.png"], [7, 8]),
        (["cam1_7.jpg", "cam2_8.jpg"], [1, 2]),
        (["1.jpg", "01.jpg"], [1, 2]),
    ],
)
def test_frames_are_numbered_by_their_names_or_by_their_places(names: list[str], expected: list[int]) -> None:
    assert numbers(names) == expected


def touch(root: Path, *names: str) -> FrameFolder:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return FrameFolder(root)


def test_videos_of_all_folders_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.MP4", "a/c.mkv", ".hidden.mp4", ".trash/d.mp4", "notes.txt", os.fsdecode(b"caf\xe9.mp4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    footage = Videos(tmp_path, parse_every("1s"))
    assert [file.path for file in footage.files] == ["a/c.mkv", "b.MP4"]
    assert footage.skipped == [{"path": "caf\ufffd.mp4", "reason": "its name is not valid UTF-8"}]


def test_frames_of_a_camera_follow_each_other_by_number(tmp_path: Path) -> None:
    footage = touch(tmp_path, "b/f10.jpg", "b/f9.jpg", "a/2.jpg", "a/2²2.jpg", "c.jpg")
    assert [file.path for file in footage.files] == ["c.jpg", "a/2.jpg", "a/2²2.jpg", "b/f9.jpg", "b/f10.jpg"]
    assert footage.before("b/f10.jpg", 2) == ["b/f9.jpg"]
    assert (footage.position("b/f10.jpg"), footage.scene("b/f10.jpg")) == (1, "b")


@pytest.mark.parametrize(
    ("frame", "file"),
    [
        ("cam1/1.jpg", "cam1/1.jpg"),
        ("data/frames/cam2/1.jpg", "cam2/1.jpg"),
        ("only.jpg", "cam2/only.jpg"),
        ("only", "cam2/only.jpg"),
        ("cam1/only.jpg", None),
        ("1.jpg", UserError),
        ("1", UserError),
    ],
)
def test_boxes_find_the_frame_of_their_name(tmp_path: Path, frame: str, file: Any) -> None:
    footage = touch(tmp_path / "frames", "cam1/1.jpg", "cam2/1.jpg", "cam2/only.jpg")
    lines = f"frame,x,y,width,height\n{frame},1,2,3,4\ncam2/1.jpg,1,2,3,4\n"
    boxes = read_boxes(write(tmp_path / "boxes.csv", lines))
    if file is UserError:
        with pytest.raises(UserError, match=r"is not one picture, but|is in each of the folders"):
            KnownBoxes(boxes, footage)
    elif file == "cam2/1.jpg":
        with pytest.raises(UserError, match=f"{frame} and cam2/1.jpg would be one frame"):
            KnownBoxes(boxes, footage)
    else:
        known = KnownBoxes(boxes, footage)
        assert known.absent == ([] if file else [frame])
        if file:
            assert known([Frame(file, footage._numbers[file], None, None, draw([]))]) == [[Box(1, 2, 3, 4)]]


def test_boxes_of_other_frames_are_refused(tmp_path: Path) -> None:
    boxes = read_boxes(write(tmp_path / "boxes.csv", csv_lines([("x.jpg", 1)])))
    with pytest.raises(UserError, match=r"boxes.csv: none of its frames is in .*frames: it has x.jpg; there are a.jpg"):
        KnownBoxes(boxes, touch(tmp_path / "frames", "a.jpg"))


def test_a_frame_is_loaded_upright_at_its_own_size(tmp_path: Path) -> None:
    image = Image.fromarray(draw(places(1)))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "plain.png")
    assert load_frame(tmp_path / "turned.jpg").shape == (160, 120, 3)
    np.testing.assert_array_equal(load_frame(tmp_path / "plain.png"), draw(places(1)))


# Cutting


@pytest.mark.parametrize(
    ("box", "place"),
    [
        (Box(10.4, 20.6, 30, 40), (10, 21, 30, 40)),
        (Box(-5, 100, 30, 40), (0, 100, 25, 20)),
        (Box(150, -9.6, 30, 20), (150, 0, 10, 10)),
        (Box(5, 5, 0.2, 0.2), (5, 5, 1, 1)),
        (Box(159.9, 119.9, 5, 5), (159, 119, 1, 1)),
        (Box(-30, 0, 30, 40), (0, 0, 0, 0)),
        (Box(160, 0, 30, 40), (0, 0, 0, 0)),
        (Box(0, -1e300, 1, 1), (0, 0, 0, 0)),
        (Box(-1e300, 5, 2e300, 20), (0, 5, 160, 20)),
    ],
)
def test_a_box_is_clipped_to_whole_pixels_of_the_frame(box: Box, place: Place) -> None:
    assert clip(box, 160, 120) == place


def test_each_box_is_cut_out_once_or_counted() -> None:
    boxes = [
        Box(10, 20, 30, 60, 0.9),
        Box(10.2, 20.2, 30, 60, 0.8),
        Box(-9, 20, 30, 60),
        Box(500, 20, 30, 60),
        Box(10, 20, 30, 39),
        Box(10, 20, 31, 60, 0.1),
    ]
    frame = Frame("a.jpg", 1, None, None, draw(places(1)))
    people, counts = cut_people(frame, boxes, (64, 32), Cutting(0.0, 40, 0.5))
    assert [person.place for person in people] == [(10, 20, 30, 60), (0, 20, 21, 60)]
    assert +counts == {"double": 1, "outside": 1, "too_small": 1, "unsure": 1, "clipped": 1}


@pytest.mark.parametrize(
    ("margin", "corners"), [(0.0, (100, 40, 130, 100)), (0.1, (97, 34, 133, 106)), (2.0, (40, 0, 160, 120))]
)
def test_a_crop_has_its_margin_within_the_frame(margin: float, corners: tuple[int, int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    [person], _ = cut_people(Frame("a", 1, None, None, pixels), [Box(100, 40, 30, 60)], (64, 32), Cutting(margin, 1))
    expected = to_pixels(Image.fromarray(pixels).crop(corners), (64, 32))
    np.testing.assert_array_equal(person.pixels, expected)


@pytest.mark.parametrize(
    ("seconds", "path"),
    [(None, "a.jpg#xywh=1,2,3,4"), (12.4, "a.jpg#t=12.4&xywh=1,2,3,4"), (0.0, "a.jpg#t=0&xywh=1,2,3,4")],
)
def test_the_path_of_a_person_is_a_media_fragment(seconds: float | None, path: str) -> None:
    assert path_of(Frame("a.jpg", 1, seconds, None, draw([])), (1, 2, 3, 4)) == path


# Following


def slow_overlap(a: Place, b: Place) -> float:
    """Intersection over union by counting pixels."""
    one, other = ({(x, y) for x in range(p[0], p[0] + p[2]) for y in range(p[1], p[1] + p[3])} for p in (a, b))
    return len(one & other) / len(one | other)


def slow_tracks(frames: list[list[Place]]) -> list[list[int]]:
    """Numbers of the tracks: again and again, the best pair of a track and a box that are both free."""
    number, last, result = 1, {}, []
    for position, boxes in enumerate(frames):
        free, found = dict(last), {}
        while True:
            pairs = [
                (-slow_overlap(place, box), -seen, track, j)
                for track, (seen, place) in free.items()
                for j, box in enumerate(boxes)
                if j not in found and position - seen <= REACH and slow_overlap(place, box) >= MIN_OVERLAP
            ]
            if not pairs:
                break
            _, _, track, j = min(pairs)
            found[j] = track
            del free[track]
        for j, box in enumerate(boxes):
            if j not in found:
                found[j], number = number, number + 1
            last[found[j]] = (position, box)
        result.append([found[j] for j in range(len(boxes))])
    return result


def test_tracks_are_those_of_a_slow_reference() -> None:
    random = np.random.default_rng(3)
    frames: list[list[Place]] = []
    for _ in range(40):
        corners = random.integers(0, 12, (random.integers(0, 6), 2)).tolist()
        frames.append([(x, y, 5, 6) for x, y in corners])
    linker = Linker()
    tracks = [linker.link(position, boxes) for position, boxes in enumerate(frames)]
    assert tracks == slow_tracks(frames)
    assert any(set(one) & set(other) for one, other in pairwise(tracks))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([[(0, 0, 10, 10)], [(6, 0, 10, 10)], [(3, 0, 10, 10)]], [2]),
        ([[(0, 0, 10, 10), (6, 0, 10, 10)], [(3, 0, 10, 10)]], [1]),
    ],
)
def test_of_equal_overlaps_the_latest_counts_then_the_lowest_number(
    frames: list[list[Place]], expected: list[int]
) -> None:
    linker = Linker()
    assert [linker.link(position, boxes) for position, boxes in enumerate(frames)][-1] == expected


@pytest.mark.parametrize(("missed", "same"), [(REACH - 1, True), (REACH, False)])
def test_a_track_bridges_a_missed_frame_but_no_more(missed: int, same: bool) -> None:
    linker = Linker()
    linker.link(0, [(0, 0, 10, 10)])
    assert (linker.link(missed + 1, [(1, 0, 10, 10)]) == [1]) == same


# The index


def test_people_are_pictures_with_where_they_were_seen(tmp_path: Path, encoder: CountingEncoder) -> None:
    done = update(write_frames(tmp_path / "frames", range(1, 4)), mot_lines(range(1, 4)), encoder)
    assert (done.added, done.kept, done.removed, done.read, done.tracks, encoder.encoded) == (6, 0, 0, 3, 2, 6)
    assert {name: count for name, count in done.totals.items() if count} == {"frames": 3, "people": 6}
    x, y, width, height = places(2)[1]
    known = people_of(tmp_path / "index")
    assert known[f"000002.png#xywh={x},{y},{width},{height}"] == {
        "path": f"000002.png#xywh={x},{y},{width},{height}",
        "pid": None,
        "file": "000002.png",
        "frame": 2,
        "seconds": None,
        "time": None,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "confidence": pytest.approx(0.9),
        "track": ".#2",
    }
    crop = to_pixels(Image.fromarray(draw(places(2))).crop((x, y, x + width, y + height)), (64, 32))
    gallery = FolderGallery.open(tmp_path / "index")
    scores, rows = gallery.search(encoder.images(crop[None]), 1)
    assert gallery.entry(rows[0, 0]).path.startswith("00000")
    assert scores[0, 0] == pytest.approx(1, abs=1e-3)
    assert [one["track"] for one in known.values()] == [".#1", ".#2"] * 3


def test_tracks_of_the_file_are_taken_from_it(tmp_path: Path, encoder: CountingEncoder) -> None:
    lines = mot_lines(range(1, 3), identity=True).replace(",2,", ",77,")
    update(write_frames(tmp_path / "frames" / "cam", range(1, 3)), lines, encoder, target=tmp_path / "index")
    assert {one["track"] for one in people_of(tmp_path / "index").values()} == {".#1", ".#77"}


def test_an_unchanged_folder_costs_nothing(
    tmp_path: Path, encoder: CountingEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = write_frames(tmp_path / "frames", range(1, 4))
    (frames / "broken.png").write_bytes(b"no picture")
    (tmp_path / "frames" / "000003.png").write_bytes((tmp_path / "frames" / "000002.png").read_bytes())
    lines = csv_lines([("000001.png", 1), ("000002.png", 2)])  # nobody is in the third
    update(frames, lines, encoder)
    assert "index: 3 frames, 4 people, 100% of 4 files in" in capsys.readouterr().err
    written = (tmp_path / "index" / "info.json").stat().st_mtime_ns
    again = update(frames, lines, encoder)
    assert (again.added, again.kept, again.removed, again.read, again.tracks) == (0, 4, 0, 0, 2)
    assert [item["path"] for item in again.skipped] == ["broken.png"]
    assert (tmp_path / "index" / "info.json").stat().st_mtime_ns == written
    assert capsys.readouterr().err == ""


def test_frames_that_come_later_are_read_alone_and_continue_the_tracks(
    tmp_path: Path, encoder: CountingEncoder
) -> None:
    frames = tmp_path / "frames"
    update(write_frames(frames, range(1, 5)), mot_lines(range(1, 5)), encoder)
    done = update(write_frames(frames, range(5, 8)), mot_lines(range(1, 8)), encoder)
    assert (done.added, done.kept, done.read, encoder.encoded) == (6, 8, 3, 6)
    update(frames, mot_lines(range(1, 8)), encoder, target=tmp_path / "fresh")
    assert_equal(tmp_path / "index", tmp_path / "fresh")


def test_only_what_changed_is_read_again(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames, lines = write_frames(tmp_path / "frames", range(1, 7)), mot_lines(range(1, 7))
    update(frames, lines, encoder)
    (frames / "000001.png").unlink()
    os.utime(frames / "000002.png", ns=(1, 1))  # as a copy leaves it
    Image.fromarray(draw(places(9))).save(frames / "000003.png")
    done = update(frames, lines, encoder)
    assert (done.added, done.kept, done.removed, done.read) == (2, 8, 4, 1)
    moved = lines.replace("6,-1,46,", "6,-1,47,")
    assert moved != lines
    assert update(frames, moved, encoder).read == 1
    assert update(frames, moved, encoder, Cutting(0.1, 1)).read == 5


@pytest.mark.parametrize("kind", ["frames", "video"])
def test_it_goes_on_where_it_was_saved(tmp_path: Path, encoder: CountingEncoder, kind: str) -> None:
    path, lines = tmp_path / "it.mp4", mot_lines(range(1, 23), 3)
    frames = write_video(path, 22) if kind == "video" else write_frames(path, range(1, 23), 3)
    update(frames, lines, encoder, target=tmp_path / "once")
    reads = 0

    class Stopped(CountingEncoder):
        def images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            if self.encoded > 25:
                raise KeyboardInterrupt
            return super().images(pixels)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            update(frames, lines, Stopped(encoder.model), save_seconds=0.0, batch_size=5)
        saved = FolderGallery.open(tmp_path / "index").size
        assert reads < saved < 66
        reads = saved
    done = update(frames, lines, encoder)
    assert (done.kept, done.added, encoder.encoded) == (saved, 66 - saved, 66 - saved)
    assert_equal(tmp_path / "index", tmp_path / "once")


def test_nobody_in_the_frames_is_a_mistake_that_says_why(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames = write_frames(tmp_path / "frames", range(1, 3))
    with pytest.raises(UserError, match="nobody in 2 frames; boxes not taken: 4 too small"):
        update(frames, mot_lines(range(1, 3)), encoder, Cutting(0.0, 61))
    assert not (tmp_path / "index").exists()


def test_an_index_of_the_frames_themselves_is_replaced_on_demand_only(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames, index = write_frames(tmp_path / "frames", range(1, 3)), tmp_path / "index"
    index_folder(frames, encoder, MODEL, index)
    with pytest.raises(UserError, match="is an index of pictures; name another one"):
        update(frames, mot_lines(range(1, 3)), encoder)
    done = update(frames, mot_lines(range(1, 3)), encoder, replace=True)
    assert (done.added, done.kept, done.removed) == (4, 0, 2)
    with pytest.raises(UserError, match="is an index of people in frames; name another one"):
        index_folder(frames, encoder, MODEL, index)
    assert index_folder(frames, encoder, MODEL, index, replace=True).added == 2


# Metadata


def known_of(rows: Mapping[str, Mapping[str, Any]]) -> Metadata:
    return Metadata("own.csv", pa.array(list(rows), pa.string()), pa.Table.from_pylist(list(rows.values())))


def test_people_have_the_metadata_of_their_picture_or_else_of_their_frame(
    tmp_path: Path, encoder: CountingEncoder
) -> None:
    frames = write_frames(tmp_path / "frames", range(1, 4))
    first = f"000001.png#xywh={','.join(map(str, places(1)[0]))}"
    rows = {first: {"place": "door"}, "000001.png": {"place": "hall"}, "000002.png": {"place": "yard"}, "no.png": {}}
    done = update(frames, mot_lines(range(1, 4)), encoder, metadata=known_of(rows))
    assert [one["place"] for one in people_of(tmp_path / "index").values()] == [
        "door",
        "hall",
        "yard",
        "yard",
        None,
        None,
    ]
    assert done.matched is not None
    assert [path[:10] for path in done.matched.without_row] == ["000003.png"] * 2
    assert done.matched.without_picture == ["no.png"]
    kept = update(write_frames(frames, [4]), mot_lines(range(1, 5)), encoder)
    assert (kept.added, kept.matched) == (2, None)
    assert [one["place"] for one in people_of(tmp_path / "index").values()][:4] == ["door", "hall", "yard", "yard"]
    changed = update(frames, mot_lines(range(1, 5)), encoder, metadata=known_of({"000004.png": {"floor": 3}}))
    assert (changed.added, changed.kept, encoder.encoded) == (0, 8, 0)
    assert [one["floor"] for one in people_of(tmp_path / "index").values()] == [None] * 6 + [3] * 2


def test_people_who_are_read_again_do_not_lose_their_metadata(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames, known = write_frames(tmp_path / "frames", range(1, 3)), known_of({"000002.png": {"place": "hall"}})
    update(frames, mot_lines(range(1, 3)), encoder, metadata=known)
    lines = mot_lines(range(1, 3))
    with (
        pytest.warns(UserWarning, match="read again, with other boxes or options than before: 000001.png, 000002.png"),
        pytest.raises(UserError, match=r"must be read again, whose people would lose their metadata \(place\); give"),
    ):
        update(frames, lines, encoder, Cutting(0.2, 1))
    with pytest.warns(UserWarning, match="read again"):
        update(frames, lines, encoder, Cutting(0.2, 1), metadata=known)
    assert [one["place"] for one in people_of(tmp_path / "index").values()] == [None, None, "hall", "hall"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"000001.png": {"track": 3}}, "its column track would be one of those that people in frames have"),
        ({"x.png": {"place": "hall"}}, "none of its keys is a file of frames, or a person in one: keys are x.png"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(
    tmp_path: Path, encoder: CountingEncoder, rows: dict[str, Any], message: str
) -> None:
    frames = write_frames(tmp_path / "frames", range(1, 3))
    with pytest.raises(UserError, match=f"own.csv: {message}"):
        update(frames, mot_lines(range(1, 3)), encoder, metadata=known_of(rows))


def test_the_record_of_a_file_holds_what_was_read_of_it() -> None:
    reading = Reading(414, 1795976505718540469, "a" * 64, "b" * 16, frames=7, too_small=2, recent=[12, 25])
    assert reading.record() == f"414 1795976505718540469 {'a' * 64} {'b' * 16} frames=7 too_small=2 recent=12,25"
    assert Reading.parse(reading.record()) == reading
    assert Reading.parse(Reading(1, 2, "a", "b").record()) == Reading(1, 2, "a", "b")


def test_who_was_forgotten_stays_out(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames, index, lines = write_frames(tmp_path / "frames", range(1, 4)), tmp_path / "index", mot_lines(range(1, 4))
    update(frames, lines, encoder)
    with open_target(index) as place:
        gallery = FolderGallery.open(index)
        person = gallery.entry(0).path
        choice = named(gallery, [person, "000002.png"])
        place.forget(gallery, choice.rows, Forgotten().with_all(choice.paths).record())
    done = update(frames, lines, encoder, Cutting(0.1, 1))
    assert (done.added, done.forgotten, done.read) == (3, 1, 2)
    assert not {person, "000002.png"} & {name for path, one in people_of(index).items() for name in (path, one["file"])}


def test_a_forgotten_picture_is_not_read_as_a_frame(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames, index = write_frames(tmp_path / "frames", range(1, 4)), tmp_path / "index"
    index_folder(frames, encoder, MODEL, index)
    with open_target(index) as place:
        place.forget(FolderGallery.open(index), np.array([1]), Forgotten().with_(["000002.png"]).record())
    done = update(frames, mot_lines(range(1, 4)), encoder, replace=True)
    assert (done.added, done.read, list(done.info.footage)) == (4, 2, ["000001.png", "000003.png"])


def test_people_who_were_all_forgotten_are_counted(tmp_path: Path, encoder: CountingEncoder) -> None:
    frames, index, lines = write_frames(tmp_path / "frames", range(1, 3)), tmp_path / "index", mot_lines(range(1, 3))
    update(frames, lines, encoder)
    with open_target(index) as place:
        gallery = FolderGallery.open(index)
        paths = [gallery.entry(row).path for row in (0, 1)]
        place.forget(gallery, np.array([0, 1]), Forgotten().with_(paths).record())
    (frames / "000002.png").unlink()
    with pytest.raises(UserError, match="nobody in 1 frames; made to be forgotten: 2 people"):
        update(frames, mot_lines([1]), encoder)
