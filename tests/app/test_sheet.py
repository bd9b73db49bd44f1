from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from app.cli.sheet import draw_results, lasting, when
from components.figures import RetrievalRow, retrieval_sheet
from components.figures.canvas import MARGIN
from components.figures.scenes import CELL_WIDTH, SCENE_WIDTH, SceneQuery, Sighting, scene_sheet
from components.figures.style import WHITE
from components.figures.text import ELLIPSIS, load_face
from irra.footage.scenes import BOX_COLOUR
from irra.search.address import open_gallery, open_target
from irra.search.engine import SearchEngine
from irra.search.pictures import jpeg
from irra.search.target import Making
from irra.search.tracks import Span
from irra.search.writer import Picture
from tests.models import small_model
from tests.videos import stripes, write_video

QUERY = "a person in red"
FOOTAGE = {"video.mp4": "what was read of it"}
COLUMNS = pa.schema(
    {
        "file": pa.string(),
        "frame": pa.int64(),
        "seconds": pa.float64(),
        "time": pa.timestamp("us"),
        **{name: pa.int32() for name in ("x", "y", "width", "height")},
        "track": pa.string(),
    }
)
PEOPLE = [
    {"file": "video.mp4", "frame": n, "seconds": n / 25, "x": 20, "y": 10, "width": 16, "height": 20, "track": track}
    for n, track in enumerate(["video.mp4#1", "video.mp4#1", None])
]


def engine(folder: Path, people: Sequence[dict[str, Any]], columns: pa.Schema, footage: dict[str, str]) -> SearchEngine:
    """An index of pictures, and a video beside it."""
    write_video(folder / "video.mp4", range(0, 200, 40))
    making = Making(str(folder), "model", (64, 32))
    with open_target(folder / "index") as target, target.writer(making, columns) as writer:
        pictures = [Picture(f"{number}.jpg", jpeg(stripes(number, (32, 64)))) for number in range(len(people))]
        vectors = np.random.default_rng(0).standard_normal((len(people), 16)).astype(np.float32)
        table = pa.Table.from_pylist([{**dict.fromkeys(columns.names), **one} for one in people], schema=columns)
        writer.add(pictures, vectors, table)
        writer.finish(str(folder), [], footage)
    return SearchEngine(small_model(), open_gallery(folder / "index"))


def draw(path: Path, searched: SearchEngine) -> np.ndarray:
    draw_results(path, searched, [QUERY], searched.search([QUERY], 10, every_frame=True))
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB"))


def boxes(sheet: np.ndarray) -> int:
    """How many frames with a box there are in a sheet, by the upper edges of the boxes."""
    marked = (sheet == BOX_COLOUR).all(axis=2).any(axis=1)
    return int((np.diff(np.flatnonzero(marked)) > SCENE_WIDTH // 4).sum()) + bool(marked.any())


def test_people_of_footage_are_drawn_with_their_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = draw(tmp_path / "sheet.png", engine(tmp_path, PEOPLE, COLUMNS, FOOTAGE))
    assert boxes(sheet) == 2  # three results, in two rows
    assert "warning" not in capsys.readouterr().err


def test_footage_that_has_gone_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searched = engine(tmp_path, PEOPLE, COLUMNS, FOOTAGE)
    (tmp_path / "video.mp4").unlink()
    sheet = draw(tmp_path / "sheet.png", searched)
    assert boxes(sheet) == 0
    [warning] = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warning == (
        "warning: 3 of 3 frames are not drawn; the frame in video.mp4 cannot be shown: "
        f"{tmp_path / 'video.mp4'} was not found"
    )


def test_a_sheet_without_footage_stays_as_it_was(tmp_path: Path) -> None:
    own = dict.fromkeys(("file", "frame", "x", "y", "width", "height"), "of the user")
    searched = engine(tmp_path, [own] * 3, pa.schema(dict.fromkeys(own, pa.string())), {})
    draw(tmp_path / "sheet.png", searched)
    [hits] = searched.search([QUERY], 10)
    pictures = [(searched.gallery.pixels(hit.row, (64, 32)), hit.score, None) for hit in hits]
    retrieval_sheet(tmp_path / "plain.png", "Best of 3 pictures", [RetrievalRow(QUERY, None, pictures, None)])
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_long_names_and_moments_stay_in_their_cell(tmp_path: Path) -> None:
    scene = stripes(1, (SCENE_WIDTH, 90))
    sighting = Sighting("rank 1 " * 99, stripes(0, (32, 64)), scene, "folder/" * 99, ["seen " * 99])
    scene_sheet(tmp_path / "sheet.png", "Best " * 99, [SceneQuery(QUERY, [sighting] * 3)])
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))[150:]
    for beginning in (0, MARGIN + CELL_WIDTH, 2 * (MARGIN + CELL_WIDTH)):
        assert (pixels[:, beginning : beginning + MARGIN] == WHITE).all()


def test_a_long_path_keeps_its_end() -> None:
    face = load_face(14)
    cut = face.ending("building/" * 20 + "entrance.mp4", 200)
    assert cut.startswith(ELLIPSIS)
    assert cut.endswith("/entrance.mp4")
    assert 150 < face.font.getlength(cut) <= 200
    assert face.ending("entrance.mp4", 200) == "entrance.mp4"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({"time": datetime(2026, 11, 27, 18, 0, 2, 900), "seconds": 2.9}, "2026-11-27 18:00:02"),
        ({"time": None, "seconds": 3725.25, "frame": 9}, "1:02:05.2"),
        ({"seconds": 59.97}, "0:01:00.0"),
        ({"time": None, "seconds": None, "frame": 9}, "frame 9"),
    ],
)
def test_the_moment_is_the_best_that_is_known(known: dict[str, Any], text: str) -> None:
    assert when(known) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (Span(3, "time", datetime(2026, 11, 27, 18), datetime(2026, 11, 27, 19)), "18:00:00 to 19:00:00"),
        (
            Span(3, "time", datetime(2026, 11, 27, 23), datetime(2026, 11, 28, 1)),
            "2026-11-27 23:00:00 to 2026-11-28 01:00:00",
        ),
        (Span(3, "seconds", 1.5, 75.9), "0:00:01.5 to 0:01:15.9"),
        (Span(3, "frame", 4, 9), "frame 4 to frame 9"),
    ],
)
def test_a_track_lasts_from_its_first_to_its_last_moment(span: Span, text: str) -> None:
    assert lasting(span) == f"seen 3 times, {text}"
