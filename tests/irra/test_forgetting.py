"""Forgetting: nothing of a picture is left in any file, the others are as they were, and it never comes in again."""

import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from irra.search.address import open_target
from irra.search.encoder import Encoder
from irra.search.folder import FolderGallery
from irra.search.forgetting import Choice, Forgotten, check_some_stay, named, satisfying
from irra.search.format import Info
from irra.search.gallery import Rows
from irra.search.hnsw import write_graph
from irra.search.knn import load_faiss
from irra.search.target import FolderTarget
from irra.search.update import index_folder
from irra.search.where import Condition
from irra.search.writer import FolderWriter, Picture
from irra.utils.errors import UserError
from irra.utils.files import partial_folder, replace_folder
from tests.irra.test_gallery import MODEL, SIZE, clusters
from tests.models import small_model

COUNT, GONE = 300, [3, 120]
COLUMNS = pa.schema({"camera": pa.int64(), "note": pa.string()})


@cache
def unique(kind: str, number: int) -> str:
    """Text of which no compression shortens the middle."""
    return urlsafe_b64encode(sha256(f"{kind} {number}".encode()).digest()).decode()


def middle(text: str) -> bytes:
    return text[4:36].encode()


@cache
def picture(number: int) -> Picture:
    noise = np.random.default_rng(number).bytes(200)
    return Picture(unique("path", number), b"\xff\xd8" + noise + b"\xff\xd9", file_bytes=number, modified_ns=number)


def notes(numbers: range) -> pa.Table:
    said = {"camera": [number % 4 for number in numbers], "note": [unique("note", number) for number in numbers]}
    return pa.table(said, schema=COLUMNS)


def write(folder: Path, exact_limit: int) -> FolderGallery:
    with replace_folder(folder) as target:
        writer = FolderWriter(target, MODEL, SIZE, "float16", COLUMNS, exact_limit=exact_limit)
        writer.add([picture(number) for number in range(COUNT)], clusters(COUNT), notes(range(COUNT)))
        means = clusters(COUNT, seed=5)
        means[[4, 120]] = 0  # pictures without captions
        writer.describe(means)
        writer.add_captions([unique("said", number) for number in range(9)], clusters(9, seed=6))
        writer.finish("photos", [{"path": unique("path", 1000), "reason": "an empty file"}])
    return FolderGallery.open(folder)


def forget(gallery: FolderGallery, choice: Choice, exact_limit: int = 10**6) -> FolderGallery:
    record = Forgotten.from_info(gallery.info).with_all(choice.paths).record()
    FolderTarget(gallery.folder, exact_limit).forget(gallery, choice.rows, record)
    return FolderGallery.open(gallery.folder)


def rows_of(*numbers: int) -> Rows:
    return np.array(numbers, np.int64)


def codes(folder: Path) -> tuple[Rows, np.ndarray]:
    """Ids and 8-bit vectors in a graph."""
    faiss = load_faiss()
    index = faiss.read_index(str(folder / "neighbours.faiss"))
    storage = faiss.downcast_index(faiss.downcast_index(index.index).storage)
    return faiss.vector_to_array(index.id_map), faiss.vector_to_array(storage.codes).reshape(index.ntotal, -1)


def found_in(parent: Path, needle: bytes) -> list[str]:
    return [
        str(path.relative_to(parent)) for path in parent.rglob("*") if path.is_file() and needle in path.read_bytes()
    ]


@pytest.mark.parametrize("exact_limit", [10**6, 50], ids=["exact", "hnsw"])
def test_no_byte_of_a_picture_is_left(tmp_path: Path, exact_limit: int) -> None:
    before = write(tmp_path / "index", exact_limit)
    assert before.described is not None
    needles = {}
    for row in GONE:
        needles |= {
            f"path {row}": middle(picture(row).path),
            f"thumbnail {row}": picture(row).thumbnail,
            f"note {row}": middle(unique("note", row)),
            f"embedding {row}": before.embeddings[row].tobytes(),
        }
    needles |= {"captions 3": before.described[3].tobytes(), "caption": middle(unique("said", 0))}
    if before.info.kind == "hnsw":
        needles |= {f"codes {row}": codes(before.folder)[1][row].tobytes() for row in GONE}
    assert [name for name, needle in needles.items() if not found_in(tmp_path, needle)] == []
    forget(before, named(before, [picture(row).path for row in GONE]), exact_limit)
    assert {name: found for name, needle in needles.items() if (found := found_in(tmp_path, needle))} == {}
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_graph_is_that_of_the_others_alone(tmp_path: Path) -> None:
    before = write(tmp_path / "index", 50)
    forget(before, named(before, [picture(row).path for row in GONE]), 50)
    others = np.setdiff1d(np.arange(COUNT), GONE)
    (tmp_path / "fresh").mkdir()
    write_graph(tmp_path / "fresh" / "neighbours.faiss", before.embeddings[others], others, None)
    for mine, theirs in zip(codes(tmp_path / "index"), codes(tmp_path / "fresh"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_others_stay_as_they_were(tmp_path: Path) -> None:
    before = write(tmp_path / "index", 10**6)
    after = forget(before, named(before, [picture(row).path for row in GONE]))
    others = np.setdiff1d(np.arange(COUNT), GONE)
    assert after.ids.tolist() == others.tolist()
    assert before.described is not None
    assert after.described is not None
    assert after.embeddings.tobytes() == before.embeddings[others].tobytes()
    assert after.described.tobytes() == before.described[others].tobytes()
    assert after.info.described == before.info.described - 1
    assert after.metadata(range(after.size)) == before.metadata(others.tolist())
    assert [after.entry(row) for row in (0, 200)] == [before.entry(row) for row in (0, 202)]
    assert after.info.captions == 0
    assert after.info.skipped == before.info.skipped
    assert after.info.next_id == COUNT


def test_pictures_are_chosen_by_a_condition(tmp_path: Path) -> None:
    before = write(tmp_path / "index", 10**6)
    choice = satisfying(before, Condition("camera = 3", pc.field("camera") == 3, ""))
    assert choice.rows.tolist() == list(range(3, COUNT, 4))
    after = forget(before, choice)
    assert set(after.table(["camera"])["camera"].to_pylist()) == {0, 1, 2}
    assert len(Forgotten.from_info(after.info)) == COUNT // 4


def test_a_key_that_is_unknown_is_named(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", 10**6)
    with pytest.raises(UserError, match=r"no picture of it is a\.jpg, b\.jpg; name them as"):
        named(gallery, [picture(3).path, "a.jpg", "b.jpg"])


def test_a_key_forgotten_before_is_passed_over(tmp_path: Path) -> None:
    first, second = picture(3).path, picture(5).path
    gallery = write(tmp_path / "index", 10**6)
    gallery = forget(gallery, named(gallery, [first]))
    again = named(gallery, [first, second])
    assert again.paths == {"": [second]}
    assert len(Forgotten.from_info(forget(gallery, again).info)) == 2


def test_an_index_cannot_forget_all_it_has(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", 10**6)
    with pytest.raises(UserError, match="these are all of its 300 pictures; delete the index itself"):
        check_some_stay(gallery, Choice(np.arange(COUNT), []))


@pytest.mark.parametrize("rows", [[3], []], ids=["some", "none"])
def test_what_killed_writers_left_goes_too(tmp_path: Path, rows: list[int]) -> None:
    gallery = write(tmp_path / "index", 10**6)
    for left in ("index.previous.tmp", "index.0123abcd.tmp", partial_folder(tmp_path / "index").name + "/new"):
        (tmp_path / left).mkdir(parents=True)
        (tmp_path / left / "embeddings.npy").write_bytes(b"-")
    forget(gallery, Choice(rows_of(*rows), {"": [picture(row).path for row in rows]}))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_damaged_index_is_not_copied(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", 10**6)
    path = tmp_path / "index" / "thumbnails.bin"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=r"thumbnails\.bin: damaged"):
        forget(gallery, named(gallery, [picture(3).path]))


def footage(folder: Path) -> FolderGallery:
    paths = [f"a.mp4#t={row}&xywh=1,2,3,4" if row < 2 else f"b.mp4#t={row}" for row in range(COUNT)]
    with replace_folder(folder) as target:
        writer = FolderWriter(target, MODEL, SIZE, "float16", pa.schema({"file": pa.string()}))
        files = pa.table({"file": [path.partition("#")[0] for path in paths]})
        writer.add([replace(picture(row), path=path) for row, path in enumerate(paths)], clusters(COUNT), files)
        read = dict.fromkeys(("a.mp4", "b.mp4", "c.mp4"), "what was read of it")
        writer.finish("video", [{"path": "a.mp4", "reason": "damaged"}], read)
    return FolderGallery.open(folder)


def test_a_file_is_forgotten_with_all_people_in_it(tmp_path: Path) -> None:
    gallery = footage(tmp_path / "index")
    choice = named(gallery, ["a.mp4"])
    assert choice.rows.tolist() == [0, 1]
    after = forget(gallery, choice)
    assert list(after.info.footage) == ["b.mp4", "c.mp4"]
    assert after.info.skipped == []
    assert found_in(tmp_path, b"a.mp4") == []
    forgotten = Forgotten.from_info(after.info)
    assert "a.mp4" in forgotten
    assert "a.mp4#t=99&xywh=5,5,5,5" in forgotten  # whatever a detector finds in it
    assert "a.mp4#xywh=5,5,5,5" in forgotten
    assert "a.mp4#t=99.jpg" not in forgotten  # a picture that happens to be called so
    assert "b.mp4" not in forgotten


def test_of_a_file_nothing_is_said_whose_people_were_forgotten_one_by_one(tmp_path: Path) -> None:
    gallery = footage(tmp_path / "index")
    gallery = forget(gallery, named(gallery, ["a.mp4#t=0&xywh=1,2,3,4"]))
    assert list(gallery.info.footage) == ["a.mp4", "b.mp4", "c.mp4"]
    gallery = forget(gallery, named(gallery, ["a.mp4#t=1&xywh=1,2,3,4"]))
    assert list(gallery.info.footage) == ["b.mp4", "c.mp4"]
    assert "a.mp4" not in Forgotten.from_info(gallery.info)  # other people may be found in it


def test_forgotten_paths_are_known_by_salted_hashes_alone() -> None:
    one, other = Forgotten().with_(["a.jpg", "b.jpg"]), Forgotten().with_(["a.jpg"])
    assert ["a.jpg" in one, "c.jpg" in one, "A.jpg" in one, "a.jpg" in Forgotten()] == [True, False, False, False]
    assert one.keys.isdisjoint(other.keys)
    assert "a.jpg" not in json.dumps(one.record())
    assert Forgotten.of(one.record()) == one
    assert one.with_(["a.jpg"]) == one
    assert Forgotten().record() == {}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(small_model())


@pytest.fixture
def indexed(tmp_path: Path, encoder: Encoder) -> Path:
    """A folder of four pictures, and an index beside it that has forgotten b.png."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate("abcd"):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    index_folder(tmp_path / "photos", encoder, MODEL, tmp_path / "index")
    gallery = FolderGallery.open(tmp_path / "index")
    forget(gallery, named(gallery, ["b.png"]))
    return tmp_path


def update(parent: Path, encoder: Encoder, model: str = MODEL) -> Info:
    done = index_folder(parent / "photos", encoder, model, parent / "index", replace=True)
    assert done.forgotten == 1
    paths = [entry["path"] for entry in FolderGallery.open(parent / "index").entries.to_pylist()]
    assert paths == ["a.png", "c.png", "d.png"]
    return done.info


def test_a_forgotten_picture_stays_out(indexed: Path, encoder: Encoder) -> None:
    assert update(indexed, encoder).next_id == 4  # nothing is written
    (indexed / "photos" / "a.png").touch()
    (indexed / "photos" / "b.png").write_bytes(b"damaged")
    assert update(indexed, encoder).skipped == []
    assert len(Forgotten.from_info(update(indexed, encoder, "b" * 64))) == 1
    path = indexed / "index" / "embeddings.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert len(Forgotten.from_info(update(indexed, encoder))) == 1


@pytest.mark.parametrize("damage", ["checksum", "cut"])
def test_an_index_that_cannot_say_what_was_forgotten_is_not_made_again(
    indexed: Path, encoder: Encoder, damage: str
) -> None:
    path = indexed / "index" / "info.json"
    text = path.read_text()
    damaged = text.replace('"salt": "', '"salt": "0') if damage == "checksum" else text[:-9]
    path.write_text(damaged)
    with pytest.raises(UserError, match=r"info.json: damaged.*which pictures were forgotten: restore it"):
        index_folder(indexed / "photos", encoder, MODEL, indexed / "index")
    assert path.read_text() == damaged


def test_a_folder_of_forgotten_pictures_alone_is_refused(indexed: Path, encoder: Encoder) -> None:
    for name in "acd":
        (indexed / "photos" / f"{name}.png").unlink()
    with pytest.raises(UserError, match="all of its pictures were made to be forgotten"):
        index_folder(indexed / "photos", encoder, MODEL, indexed / "index")


def test_an_index_that_has_forgotten_nothing_says_nothing_of_it(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", 10**6)
    with open_target(gallery.folder) as target:
        assert not target.forgotten("photos").record()
    assert "forgotten" not in json.loads((gallery.folder / "info.json").read_text())


def test_entries_are_the_file_that_one_table_makes(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "index") as target:
        writer = FolderWriter(target, MODEL, SIZE, "float16")
        for start in range(0, 9000, 1000):
            batch = [replace(picture(0), path=f"{number}.jpg") for number in range(start, start + 1000)]
            writer.add(batch, np.ones((1000, 2), np.float32))
        writer.finish("photos", [])
    path = tmp_path / "index" / "entries.parquet"
    pq.write_table(pq.read_table(path).combine_chunks(), tmp_path / "whole.parquet")
    assert path.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
