"""A gallery in LanceDB: against the index folder of the same pictures, changes, several writers, and forgetting."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from irra.search.address import open_gallery, open_target
from irra.search.forgetting import Forgotten, named, satisfying
from irra.search.format import Info
from irra.search.gallery import Gallery
from irra.search.lance import gallery as lance
from irra.search.lance.gallery import open_database
from irra.search.lance.records import WRITERS, Index
from irra.search.lance.target import LanceTarget
from irra.search.lance.writer import LanceWriter, differing
from irra.search.metadata import Metadata
from irra.search.target import Making
from irra.search.update import index_folder
from irra.search.where import Condition, parse_condition
from irra.search.writer import Picture
from irra.utils.errors import UserError
from tests.irra.test_gallery import clusters
from tests.irra.test_index_folder import MODEL, CountingEncoder, draw
from tests.models import small_model

Floats = NDArray[np.float32]
COLUMNS = pa.schema({"camera": pa.int64(), "place": pa.string()})
CAMERA_3 = Condition("camera = 3", pc.field("camera") == 3, "`camera` = 3")
NOBODY = Condition("camera = 99", pc.field("camera") == 99, "`camera` = 99")


def making(source: str = "a", model: str = MODEL, dtype: str = "float16") -> Making:
    return Making(source, model, (64, 32), dtype)


def pictures(count: int, name: str = "") -> list[Picture]:
    return [Picture(f"{name}{i:05d}.png", f"jpeg {name} {i}".encode(), i % 7 if i % 3 else None) for i in range(count)]


def sightings(count: int) -> pa.Table:
    cameras, places = np.arange(count) % 5, ["hall's", None, "shop"]
    return pa.table({"camera": cameras, "place": [places[i % 3] for i in range(count)]}, schema=COLUMNS)


def build(
    target_address: str | Path, vectors: Floats, dtype: str = "float16", captions: Floats | None = None, **said: str
) -> Info:
    """Write pictures with these vectors, half of them in a second batch."""
    made, half = making(dtype=dtype, **said), len(vectors) // 2
    known, name = sightings(len(vectors)), said.get("source", "")
    with open_target(target_address) as target:
        previous = target.previous(made, False)
        with target.writer(made, COLUMNS) as writer:
            if previous is not None:
                writer.keep(previous, np.empty(0, np.int64), known.slice(0, 0))
            for part in (slice(0, half), slice(half, len(vectors))):
                size = len(vectors[part])
                writer.add(pictures(len(vectors), name)[part], vectors[part], known.slice(part.start, size))
            if captions is not None:
                writer.describe(captions)
            return writer.finish(made.source, [])


@contextmanager
def both(
    tmp_path: Path, vectors: Floats, dtype: str = "float16", captions: Floats | None = None
) -> Iterator[list[Gallery]]:
    """The same pictures in an index folder and in LanceDB."""
    build(tmp_path / "folder", vectors, dtype, captions)
    build(f"lance:{tmp_path / 'lance'}", vectors, dtype, captions)
    yield [open_gallery(tmp_path / "folder"), open_gallery(f"lance:{tmp_path / 'lance'}")]


def assert_equal_answers(one: Gallery, other: Gallery, queries: Floats, *arguments: object) -> None:
    for mine, theirs in zip(one.search(queries, *arguments), other.search(queries, *arguments), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Galleries of any size are searched as large ones."""
    monkeypatch.setattr(lance, "IN_MEMORY", 0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_answers_equal_those_of_an_index_folder(tmp_path: Path, dtype: str) -> None:
    different = clusters(12)
    vectors = different[np.random.default_rng(0).integers(0, 12, 300)]  # with many ties
    captions = np.where(np.arange(300)[:, None] % 4 == 0, 0, clusters(300, seed=3)).astype(np.float32)
    with both(tmp_path, vectors, dtype, captions) as (folder, other):
        queries = clusters(3, seed=1)
        for arguments in ((20,), (400,), (20, 0.0, CAMERA_3), (20, 0.4), (20, 0.4, CAMERA_3), (5, 0.0, NOBODY)):
            assert_equal_answers(folder, other, queries, *arguments)
        assert other.info.described == folder.info.described == 225


def test_a_large_gallery_answers_the_same_where_all_are_compared(tmp_path: Path, small: None) -> None:
    vectors, captions = clusters(300), clusters(300, seed=3)
    with both(tmp_path, vectors, captions=captions) as (folder, other):
        for arguments in ((10,), (300,), (10, 0.0, CAMERA_3), (10, 0.4), (10, 0.4, CAMERA_3), (5, 0.0, NOBODY)):
            assert_equal_answers(folder, other, clusters(3, seed=1), *arguments)


@pytest.mark.parametrize("in_memory", [0, 1000])
def test_threads_get_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(lance, "IN_MEMORY", in_memory)
    build(f"lance:{tmp_path / 'lance'}", clusters(100))
    gallery, queries = open_gallery(f"lance:{tmp_path / 'lance'}"), clusters(16, seed=1)

    def answer(query: Floats) -> tuple[list[int], list[dict[str, object]]]:
        rows = gallery.search(query[None], 5)[1][0].tolist()
        return rows, gallery.metadata(rows)

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(answer, queries))
    assert together == [answer(query) for query in queries]


def test_what_is_known_of_pictures_equals_that_of_an_index_folder(tmp_path: Path) -> None:
    with both(tmp_path, clusters(30)) as (folder, other):
        names = ["path", "pid", "camera", "place"]
        assert other.table(names, CAMERA_3).equals(folder.table(names, CAMERA_3))
        assert other.files("a").equals(folder.files("a"))
        assert other.metadata([7, 2]) == [one | {"source": "a"} for one in folder.metadata([7, 2])]
        assert other.entry(4) == folder.entry(4)
        assert (other.size, 29 in other, 30 in other, other.metadata([])) == (30, True, False, [])
        assert other.info.columns == folder.info.columns
        assert other.columns.names == ["path", "pid", "source", "camera", "place"]


@pytest.fixture(scope="module")
def encoder() -> CountingEncoder:
    return CountingEncoder(small_model())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.jpg", "b.png", "day/c.bmp"]):
        draw(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


def test_an_update_encodes_what_changed_and_equals_a_fresh_index(
    tmp_path: Path, photos: Path, encoder: CountingEncoder
) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    index_folder(photos, encoder, MODEL, address)
    reader = open_gallery(address)
    (photos / "a.jpg").unlink()
    draw(photos / "b.png", 20)
    draw(photos / "new.jpg", 21)
    encoder.encoded = 0
    done = index_folder(photos, encoder, MODEL, address)
    assert (done.added, done.kept, done.removed, done.info.size, encoder.encoded) == (2, 1, 2, 3, 2)
    again = index_folder(photos, encoder, MODEL, address)
    assert (again.added, again.kept, again.removed, again.info) == (0, 3, 0, done.info)
    index_folder(photos, encoder, MODEL, tmp_path / "fresh")
    changed, fresh = open_gallery(address), open_gallery(tmp_path / "fresh")
    assert changed.table(["path"]).to_pydict() == {"row": [2, 3, 4], "path": ["day/c.bmp", "b.png", "new.jpg"]}
    query = np.ones((1, 16), np.float32)
    answers = [
        [(gallery.entry(row), score) for score, row in zip(*(x[0] for x in gallery.search(query, 9)), strict=True)]
        for gallery in (changed, fresh)
    ]
    assert answers[0] == answers[1]
    assert reader.table(["path"])["path"].to_pylist() == ["a.jpg", "b.png", "day/c.bmp"]
    assert reader.entry(0).path == "a.jpg"
    assert changed.version != reader.version


def test_sources_live_side_by_side(tmp_path: Path) -> None:
    address, vectors = f"lance:{tmp_path / 'lance'}", clusters(40)
    build(address, vectors[:20], source="a")
    assert build(address, vectors[20:], source="b's").size == 20
    build(address, vectors[:5], source="a")  # of which the five are changed and the others gone
    gallery = open_gallery(address)
    assert (gallery.size, gallery.info.source, gallery.info.next_id) == (25, "a, b's", 45)
    assert gallery.files("b's")["row"].to_pylist() == list(range(20, 40))
    assert gallery.files("a")["row"].to_pylist() == list(range(40, 45))


def test_what_is_forgotten_of_one_source_stays_in_another(
    tmp_path: Path, photos: Path, encoder: CountingEncoder
) -> None:
    address, other = f"lance:{tmp_path / 'lance'}", tmp_path / "other"
    shutil.copytree(photos, other)
    for source in (photos, other):
        index_folder(source, encoder, MODEL, address)
    gallery = open_gallery(address)
    choice = satisfying(gallery, parse_condition(f"source = '{photos}' and path = 'a.jpg'", gallery.columns))
    with open_target(address) as target:
        target.forget(gallery, choice.rows, Forgotten().with_all(choice.paths).record())
    assert index_folder(photos, encoder, MODEL, address).forgotten == 1
    assert (index_folder(other, encoder, MODEL, address).forgotten, open_gallery(address).size) == (0, gallery.size - 1)
    assert set(named(open_gallery(address), ["a.jpg"]).paths) == {str(other)}


def test_metadata_of_kept_pictures_change_without_encoding(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(6))
    changed = pa.table({"camera": ["x", "y", None, "z", "3b", "x"]})
    with open_target(address) as target:
        previous = target.previous(making(), False)
        assert previous is not None
        with target.writer(making(), changed.schema) as writer:
            writer.keep(previous, np.arange(6), changed)
            info = writer.finish("a", [])
    gallery = open_gallery(address)
    assert gallery.table(["camera"])["camera"].to_pylist() == changed["camera"].to_pylist()
    assert gallery.info.columns == info.columns == {"camera": "string"}


def test_metadata_that_say_nothing_new_are_not_written(tmp_path: Path, photos: Path, encoder: CountingEncoder) -> None:
    address, paths = f"lance:{tmp_path / 'lance'}", pa.array(["a.jpg", "b.png", "day/c.bmp"])
    both = pa.table({"camera": [1, 2, None], "place": ["x", None, "y"]})
    index_folder(photos, encoder, MODEL, address, source="a", metadata=Metadata("", paths, both))
    other, seen = both.select(["place"]), both.select(["place", "camera"])
    for known in (other, seen):  # of which the gallery has a column more, or in another order
        name = " ".join(known.column_names)
        index_folder(photos, encoder, MODEL, address, source=name, metadata=Metadata("", paths, known))
        before = open_gallery(address).version
        index_folder(photos, encoder, MODEL, address, source=name, metadata=Metadata("", paths, known))
        assert open_gallery(address).version == before
    changed = differing(both, pa.table({"place": ["x", "z", "y"], "camera": [1, 2, 3]}), 3)
    assert changed.to_pylist() == [False, True, True]
    assert differing(both, other, 3).to_pylist() == differing(other, both, 3).to_pylist() == [True, True, False]


def test_captions_of_kept_pictures_are_dropped(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(6), captions=clusters(6))
    with open_target(address) as target:
        previous = target.previous(making(), False)
        assert previous is not None
        assert previous.info.described == 6
        with target.writer(making(), COLUMNS) as writer:
            writer.keep(previous, np.arange(6), sightings(6))
            writer.finish("a", [])
    with pytest.raises(UserError, match="no captions"):
        open_gallery(address).search(clusters(1), 3, 0.5)


def test_a_gallery_of_another_model_is_replaced_on_demand_only(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(6), source="other")
    before = open_gallery(address)
    for other in (making(model="b" * 64), making(dtype="float32")):
        with open_target(address) as target, pytest.raises(UserError, match=r"is by model aaaaaaaaaaaa .*--replace"):
            target.previous(other, False)
    with open_target(address) as target:
        other = making(model="b" * 64)
        assert target.previous(other, True) is None
        with target.writer(other, pa.schema([])) as writer:
            writer.add(pictures(2), clusters(2), pa.table({}))
            writer._flush()  # type: ignore[attr-defined]
            assert open_gallery(address).info.model_fingerprint == MODEL
            writer.finish("a", [])
    gallery = open_gallery(address)
    assert (gallery.size, gallery.info.source, gallery.info.model_fingerprint) == (2, "a", "b" * 64)
    assert (before.size, before.entry(3).path) == (6, "other00003.png")


def test_a_failed_replacement_leaves_the_gallery(tmp_path: Path) -> None:
    address, other = f"lance:{tmp_path / 'lance'}", making(model="b" * 64)
    build(address, clusters(6))
    with pytest.raises(ZeroDivisionError):
        replace_and_fail(address, other)
    assert open_gallery(address).size == 6
    assert len(list((tmp_path / "lance").iterdir())) == 2


def replace_and_fail(address: str, other: Making) -> None:
    with open_target(address) as target:
        target.previous(other, True)
        with target.writer(other, pa.schema([])) as writer:
            writer.add(pictures(2), clusters(2), pa.table({}))
            raise ZeroDivisionError


def test_nothing_is_left_where_no_picture_is_usable(tmp_path: Path) -> None:
    with open_target(f"lance:{tmp_path / 'lance'}") as target:
        writing = target.writer(making(), COLUMNS)
        with pytest.raises(UserError, match=r"no usable picture .* x\.jpg \(broken\)"), writing as writer:
            writer.finish("a", [{"path": "x.jpg", "reason": "broken"}])
    assert list(tmp_path.iterdir()) == []


def test_a_source_has_one_writer_until_that_is_dead(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(4), source="a")
    with open_target(address) as first, open_target(address) as second:
        first.previous(making("a"), False)
        second.previous(making("b"), False)
        for source, replace in (("a", False), ("c", True)):
            model = "b" * 64 if replace else MODEL
            with (
                open_target(address) as third,
                pytest.raises(UserError, match=f"process {os.getpid()} on .* is writing"),
            ):
                third.previous(making(source, model), replace)
    index = Index.open(open_database(address))
    assert index is not None
    dead = {"owner": "x", "host": os.uname().nodename, "process": 2**22 + 1, "until": 2**40}
    index.change(WRITERS, lambda document: document | {"leases": {"a": dead}})
    build(address, clusters(4), source="a")
    index.change(WRITERS, lambda document: document | {"leases": {"a": dead | {"host": "elsewhere", "until": 1}}})
    build(address, clusters(4), source="a")


def test_a_writer_that_lost_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(4))
    index = Index.open(open_database(address))
    assert index is not None
    with open_target(address) as target:
        target.previous(making(), False)
        writer = LanceWriter(target, making(), COLUMNS)  # type: ignore[arg-type]
        writer.add(pictures(2, "new"), clusters(2), sightings(2))
        index.change(WRITERS, lambda document: document | {"leases": {}})
        with pytest.raises(UserError, match="begin again"):
            writer.finish("a", [])
    assert open_gallery(address).size == 4


def test_a_picture_that_is_forgotten_leaves_no_bytes(tmp_path: Path) -> None:
    address, vectors = f"lance:{tmp_path / 'lance'}", clusters(60)
    vectors[7], captions = np.arange(1, 33), clusters(60, seed=3)
    secrets = [(one / np.linalg.norm(one)).astype(np.float16).tobytes() for one in (vectors[7], captions[7])]
    known = sightings(60).set_column(
        1, "place", pa.array(["behind the greenhouse" if i == 7 else "x" for i in range(60)])
    )
    with target_of(address, in_memory=50) as target, target.writer(making(), COLUMNS) as writer:
        writer.add(pictures(60, "somebody"), vectors, known)
        writer.describe(captions)
        skipped = [{"path": "somebody00007.png#xywh=1,2,3,4", "reason": "damaged"}, {"path": "b", "reason": "damaged"}]
        assert writer.finish("a", skipped).kind == "ivf"
    traces = [*secrets, b"jpeg somebody 7", b"somebody00007.png", b"behind the greenhouse"]
    assert all(found_in(tmp_path, trace) for trace in traces)
    indexes = set(tmp_path.rglob("_indices/*"))
    assert indexes
    old, forgotten = open_gallery(address), Forgotten(source="a").with_(["somebody00007.png"]).record()
    with target_of(address, in_memory=50) as target:
        info = target.forget(old, np.array([7]), forgotten)
    assert [trace for trace in traces if found_in(tmp_path, trace)] == []
    assert not indexes & set(tmp_path.rglob("_indices/*"))  # a quantised vector would not be found by its bytes
    assert found_in(tmp_path, b"jpeg somebody 8")
    gallery = open_gallery(address)
    assert (info, info.kind, info.size, info.forgotten) == (gallery.info, "ivf", 59, forgotten)
    assert 7 not in gallery.search(vectors[7:8], 59)[1]
    assert [item["path"] for item in gallery.info.skipped] == ["b"]
    with pytest.raises(UserError, match="changed by another process; open it again"):
        old.entry(8)


def test_an_earlier_picture_of_who_is_forgotten_leaves_too(tmp_path: Path) -> None:
    address, others = f"lance:{tmp_path / 'lance'}", np.delete(np.arange(40), 7)
    build(address, clusters(40))
    with open_target(address) as target:
        previous = target.previous(making(), False)
        assert previous is not None
        with target.writer(making(), COLUMNS) as writer:
            writer.keep(previous, others, sightings(40).take(others))
            writer.add([Picture("00007.png", b"another jpeg")], clusters(1), sightings(1))
            writer.finish("a", [])
    assert found_in(tmp_path, b"jpeg  7")
    with target_of(address, in_memory=10**6) as target:
        target.forget(open_gallery(address), np.array([40]), {"salt": "00", "keys": ["1"]})
    assert not any(found_in(tmp_path, trace) for trace in (b"jpeg  7", b"another jpeg", b"00007.png"))


def found_in(folder: Path, trace: bytes) -> bool:
    return any(trace in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@contextmanager
def target_of(address: str, in_memory: int) -> Iterator[LanceTarget]:
    target = LanceTarget(open_database(address), in_memory)
    yield target
    target.close()


@pytest.mark.parametrize("step", ["delete_rows", "LanceTarget._purge"])
def test_a_forgetting_that_was_killed_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(20))
    old = open_gallery(address)
    with target_of(address, 10**6) as target, monkeypatch.context() as killed:
        killed.setattr(f"irra.search.lance.target.{step}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            target.forget(old, np.array([3]), {"salt": "00", "keys": ["1"]})
    assert found_in(tmp_path, b"jpeg  3")
    with open_target(address):
        pass
    assert not found_in(tmp_path, b"jpeg  3")
    assert open_gallery(address).size == 19


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("lance:", "not the address of a gallery; write lance:FOLDER"),
        ("lance:gs://bucket/x", "not the address of a gallery"),
        ("lance:{}/nowhere", "no gallery there; make one with"),
        ("lance:{}/full", "no gallery there"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, address: str, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(UserError, match=message):
        open_gallery(address.format(tmp_path))
    assert not (tmp_path / "nowhere").exists()


def test_what_is_something_else_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    other = open_database(f"lance:{tmp_path / 'other'}")
    other.create("things", pa.schema({"x": pa.int64()}))
    for path, message in (
        (tmp_path, "exists and is not a gallery"),
        (tmp_path / "other", r"holds other tables \(things"),
    ):
        with pytest.raises(UserError, match=message), open_target(f"lance:{path}"):
            pass


def test_a_gallery_of_another_format_is_refused(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(4))
    index = Index.open(open_database(address))
    assert index is not None
    index.change("gallery", lambda document: document | {"format_version": 9})
    with pytest.raises(UserError, match="format version 9, this code reads 1"):
        open_gallery(address)


def test_a_column_s_type_is_the_same_for_all_sources(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'lance'}"
    build(address, clusters(4), source="b")
    with open_target(address) as target:
        target.previous(making("a"), False)
        writer = LanceWriter(target, making("a"), pa.schema({"camera": pa.string()}))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="'camera' is int64 for other sources, not string"):
            writer.add(pictures(1), clusters(1), pa.table({"camera": ["x"]}))
