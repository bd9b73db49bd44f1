"""irra forget: which pictures go, who is asked, what is refused; and what irra info says afterwards."""

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from irra.footage.plan import Reading
from irra.search.folder import FolderGallery
from irra.search.pictures import jpeg
from irra.search.writer import FolderWriter, Picture
from irra.utils.files import replace_folder
from tests.cli import answer, irra, mistake
from tests.irra.test_gallery import MODEL, SIZE, clusters

SCHEMA = pa.schema({"file": pa.string(), "track": pa.string(), "camera": pa.int64()})
NAMES = ["a.mp4#t=0&xywh=1,2,3,4", "a.mp4#t=1&xywh=1,2,3,4", "b.mp4#t=0&xywh=1,2,3,4", "b.mp4#t=5&xywh=1,2,3,4"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of people in two videos."""
    index = tmp_path_factory.mktemp("original") / "index"
    thumbnail = jpeg(np.zeros((*SIZE, 3), np.uint8))
    with replace_folder(index) as folder:
        writer = FolderWriter(folder, MODEL, SIZE, "float16", SCHEMA)
        known = {"file": [name[:5] for name in NAMES], "track": ["a.mp4#1", "a.mp4#1", "b.mp4#1", None]}
        known |= {"camera": [1, 2, 3, 4]}
        writer.add([Picture(name, thumbnail) for name in NAMES], clusters(4), pa.table(known, schema=SCHEMA))
        writer.add_captions(["a man"], clusters(1))
        read = {"a.mp4": Reading(1, 2, "a", "b", frames=20, damaged=1), "b.mp4": Reading(1, 2, "a", "b", frames=9)}
        writer.finish("videos", [], {file: one.record() for file, one in read.items()})
    return index


@pytest.fixture
def index(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "index"))


def paths(index: Path) -> list[str]:
    return FolderGallery.open(index).entries["path"].to_pylist()


def test_a_picture_is_forgotten_and_what_stays_elsewhere_is_said(index: Path) -> None:
    done = answer("forget", NAMES[2], "--index", index, "--yes")
    assert done == {
        "index": str(index),
        "forgotten": 1,
        "pictures": 3,
        "captions_dropped": 1,
        "not_touched": [
            "the pictures themselves in videos",
            "backups, DVC's cache, copies registered in MLflow",
        ],
    }
    assert paths(index) == [NAMES[0], NAMES[1], NAMES[3]]


def test_keys_come_from_a_file_too(index: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(f"{NAMES[0]}\r\n\n{NAMES[2]}\n")
    assert answer("forget", "--keys", tmp_path / "keys.txt", NAMES[1], "--index", index, "--yes")["forgotten"] == 3
    assert paths(index) == NAMES[3:]


def test_a_condition_chooses_pictures(index: Path) -> None:
    done = answer("forget", "--where", "camera in (1, 4) and track is not null", "--index", index, "--yes")
    assert (done["forgotten"], paths(index)) == (1, NAMES[1:])
    assert answer("forget", "--where", "camera = 1", "--index", index)["forgotten"] == 0


def test_several_conditions_hold_together(index: Path) -> None:
    conditions = ("--where", "camera = 4 or camera = 1", "--where", "track is not null")
    assert answer("forget", *conditions, "--index", index, "--yes")["forgotten"] == 1
    assert paths(index) == NAMES[1:]


def test_to_forget_again_is_no_mistake(index: Path) -> None:
    answer("forget", "a.mp4", "--index", index, "--yes")
    assert answer("forget", "a.mp4", "--index", index)["forgotten"] == 0
    assert paths(index) == NAMES[2:]


def test_info_counts_what_was_forgotten(index: Path) -> None:
    before = answer("info", index)
    assert before["columns"] == {"file": "string", "track": "string", "camera": "int64"}
    assert before["footage"] == {"files": 2, "frames": 29, "people": 4, "tracks": 2, "damaged": 1}
    assert "forgotten" not in before
    answer("forget", NAMES[2], NAMES[3], "--index", index, "--yes")
    after = irra("info", index).stdout
    assert "forgotten          2\n" in after
    assert "footage files      1\n" in after
    assert "columns camera     int64\n" in after
    assert "b.mp4" not in after


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("said", "left"), [("y", 3), ("n", 4), ("", 4)])
def test_a_terminal_is_asked(index: Path, monkeypatch: pytest.MonkeyPatch, said: str, left: int) -> None:
    from app.cli.console import command
    from app.cli.forget import forget

    monkeypatch.setattr("sys.stdin", Terminal(f"{said}\n"))
    with pytest.raises(Exception) as ended:  # noqa: PT011 - what typer ends a command with
        command(forget)(as_json=True, index=str(index), keys=[NAMES[0]])
    assert ended.value.exit_code == (0 if left == 3 else 2)
    assert len(paths(index)) == left


def test_without_a_terminal_it_must_have_been_answered(index: Path) -> None:
    assert "would forget 1 of 4 pictures in" in mistake("forget", NAMES[0], "--index", index)
    assert paths(index) == NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either the keys of the pictures to forget, or a condition with --where"),
        ((NAMES[0], "--where", "camera = 1"), "give either the keys of the pictures to forget, or a condition"),
        (("c.mp4", NAMES[0]), "no picture of it is c.mp4; name them as results show them"),
        (("a.mp4", "b.mp4"), "these are all of its 4 pictures; delete the index itself"),
        (("--keys", "nowhere.txt"), "nowhere.txt: no such file"),
        (("--keys", "."), "--keys: . is a folder; give a text file with one key a line"),
        (("--where", "colour = 'red'"), "colour"),
        (("--keys", "-"), "--keys: - has no key in it"),
    ],
)
def test_what_cannot_be_forgotten_is_refused(index: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in mistake("forget", *arguments, "--index", index, "--yes", stdin="\n")
    assert paths(index) == NAMES
    assert [path.name for path in index.parent.iterdir()] == ["index"]


def test_an_index_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no index of pictures" in mistake("forget", "a.jpg", "--index", tmp_path / "nowhere" / "index", "--yes")
    assert list(tmp_path.iterdir()) == []
