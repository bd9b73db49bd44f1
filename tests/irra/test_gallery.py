"""The index folder: search against a slow reference, changes against fresh builds, and what is refused."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from irra.search import format as index_format
from irra.search.folder import FolderGallery
from irra.search.gallery import check_model
from irra.search.hnsw import rows_of
from irra.search.knn import scan
from irra.search.pictures import jpeg
from irra.search.where import Condition
from irra.search.writer import FolderWriter, Picture
from irra.utils.errors import UserError
from irra.utils.files import replace_folder
from irra.utils.records import write_record

SIZE = (16, 8)
MODEL = "a" * 64
Floats = NDArray[np.float32]
NOTHING = np.empty((0, 32), np.float32)


def pictures(count: int, first: int = 0) -> list[Picture]:
    colours = np.random.default_rng(first).integers(0, 256, (count, 3), dtype=np.uint8)
    return [
        Picture(f"{first + i:05d}.png", jpeg(np.broadcast_to(colour, (*SIZE, 3)).copy()), i % 7 if i % 3 else None)
        for i, colour in enumerate(colours)
    ]


def write(
    folder: Path, embeddings: Floats, dtype: str = "float16", captions: Floats | None = None, exact_limit: int = 10**6
) -> FolderGallery:
    with replace_folder(folder) as target:
        writer = FolderWriter(target, MODEL, SIZE, dtype, exact_limit=exact_limit)
        for start in range(0, len(embeddings), 1000):
            batch = embeddings[start : start + 1000]
            writer.add(pictures(len(batch), start), batch)
        if captions is not None:
            writer.add_captions([f"caption {i}" for i in range(len(captions))], captions)
        writer.finish("test", [])
    return FolderGallery.open(folder)


def change(
    folder: Path, removed: list[int] | NDArray[np.int64], added: Floats = NOTHING, exact_limit: int = 10**6
) -> FolderGallery:
    previous = FolderGallery.open(folder)
    with replace_folder(folder) as target:
        writer = FolderWriter(target, MODEL, SIZE, previous.info.dtype, exact_limit=exact_limit)
        writer.keep(previous, np.setdiff1d(np.arange(previous.size), removed))
        if len(added):
            writer.add(pictures(len(added), 90_000), added)
        writer.finish("test", [])
    return FolderGallery.open(folder)


def slow_search(gallery: FolderGallery, queries: Floats, top_k: int) -> tuple[Floats, NDArray[np.int64]]:
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    scores = np.stack([(gallery.embeddings.astype(np.float32) * query).sum(axis=1) for query in unit])
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return np.take_along_axis(scores, rows, axis=1), rows


def clusters(count: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, 32))
    return (centres[rng.integers(0, 40, count)] + 0.5 * rng.standard_normal((count, 32))).astype(np.float32)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FolderGallery:
    """A gallery that is searched approximately, for its limit is low."""
    return write(tmp_path_factory.mktemp("large") / "index", clusters(4000), exact_limit=1000)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_exact_search_equals_a_full_sort(tmp_path: Path, dtype: str) -> None:
    gallery = write(tmp_path / "index", clusters(2000), dtype)
    queries = 3 * clusters(20, seed=1)
    scores, rows = gallery.search(queries, 10)
    expected_scores, expected_rows = slow_search(gallery, queries, 10)
    assert gallery.info.kind == "exact"
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_pictures_rank_by_row(tmp_path: Path, dtype: str) -> None:
    different = clusters(12)
    gallery = write(tmp_path / "index", different[np.random.default_rng(0).integers(0, 12, 2000)], dtype)
    _, rows = gallery.search(different[:3], 400)
    np.testing.assert_array_equal(rows, slow_search(gallery, different[:3], 400)[1])


def test_all_pictures_come_where_more_are_asked_for(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", clusters(30))
    scores, rows = gallery.search(clusters(2, seed=1), 100)
    assert scores.shape == (2, 30)
    assert sorted(rows[1].tolist()) == list(range(30))


def test_scores_are_cosines_whatever_the_norm_of_a_query(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", clusters(30), "float32")
    queries = np.stack([1e-3 * clusters(30)[4], 1e6 * clusters(30)[5], np.zeros(32, np.float32)])
    scores, rows = gallery.search(queries, 1)
    assert rows[:2, 0].tolist() == [4, 5]
    np.testing.assert_allclose(scores[:, 0], [1, 1, 0], atol=1e-6)


def test_approximate_search_finds_nearly_all_of_the_best_with_their_exact_scores(large: FolderGallery) -> None:
    queries = clusters(100, seed=1)
    scores, rows = large.search(queries, 10)
    expected_scores, expected_rows = slow_search(large, queries, 10)
    assert large.info.kind == "hnsw"
    found = [len(set(a) & set(b)) for a, b in zip(rows.tolist(), expected_rows.tolist(), strict=True)]
    assert sum(found) / expected_rows.size >= 0.99
    right = [i for i, count in enumerate(found) if count == 10]
    np.testing.assert_array_equal(rows[right], expected_rows[right])
    np.testing.assert_allclose(scores[right], expected_scores[right], rtol=1e-6)


def test_approximate_search_gives_as_many_as_asked_for(large: FolderGallery) -> None:
    queries = clusters(2, seed=1)
    _, rows = large.search(queries, 3000)
    np.testing.assert_array_equal(rows, slow_search(large, queries, 3000)[1])


def test_a_changed_gallery_equals_a_fresh_one(tmp_path: Path) -> None:
    embeddings, removed = clusters(1500), np.array([0, 7, 8, 600, 1199])
    write(tmp_path / "changed", embeddings[:1200], captions=clusters(5))
    changed = change(tmp_path / "changed", removed, embeddings[1200:])
    fresh = write(tmp_path / "fresh", np.delete(embeddings, removed, axis=0))
    queries = clusters(10, seed=1)
    for mine, theirs in zip(changed.search(queries, 20), fresh.search(queries, 20), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    paths = [changed.entry(row).path for row in (0, 5, 1194, 1195)]
    assert paths == ["00001.png", "00006.png", "01198.png", "90000.png"]
    assert changed.entry(0) == write(tmp_path / "first", embeddings[:2]).entry(1)
    assert changed.info.captions == 0


@pytest.mark.parametrize("removed", [300, 1500])  # the graph goes on, or is made anew
def test_a_removed_picture_is_never_found_again(tmp_path: Path, removed: int) -> None:
    embeddings, extra = clusters(4000), clusters(100, seed=2)
    write(tmp_path / "index", embeddings, exact_limit=1000)
    order = np.argsort(-embeddings @ embeddings[0])  # the nearest to a query go: a hole in the graph
    gallery = change(tmp_path / "index", order[:removed], extra, exact_limit=1000)
    assert gallery.info.kind == "hnsw"
    rest = np.concatenate([np.delete(embeddings, order[:removed], axis=0), extra])
    fresh = write(tmp_path / "fresh", rest)
    queries = np.concatenate([embeddings[order[:10]], extra[:10]])
    rows = gallery.search(queries, 10)[1].tolist()
    expected = fresh.search(queries, 10)[1].tolist()
    assert sum(len(set(a) & set(b)) for a, b in zip(rows, expected, strict=True)) >= 0.99 * 200


def test_ids_stay_and_are_never_given_again(tmp_path: Path) -> None:
    write(tmp_path / "index", clusters(10))
    change(tmp_path / "index", [0, 8, 9])
    assert change(tmp_path / "index", [1], clusters(2, seed=3)).ids.tolist() == [1, 3, 4, 5, 6, 7, 10, 11]


def test_rows_of_ids_that_are_gone_are_marked() -> None:
    found = np.array([[2, 9, -1, 5], [7, 3, 2, 8]])
    assert rows_of(found, np.array([2, 3, 7, 9])).tolist() == [[0, 3, -1, -1], [2, 1, 0, -1]]


def test_entries_hold_path_person_and_picture(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", clusters(5))
    entry = gallery.entry(4)
    assert (entry.path, entry.pid) == ("00004.png", 4)
    assert gallery.entry(3).pid is None
    with Image.open(BytesIO(entry.thumbnail)) as image:
        assert (image.height, image.width) == SIZE
    assert entry.thumbnail == pictures(5)[4].thumbnail


def test_captions_are_searched_as_pictures_are(tmp_path: Path) -> None:
    captions = clusters(300, seed=4)
    gallery = write(tmp_path / "index", clusters(5), captions=captions)
    expected = write(tmp_path / "other", captions).search(captions[7:9], 6)
    for mine, theirs in zip(gallery.nearest_captions(captions[7:9], 6), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert gallery.caption(int(expected[1][0, 0])) == "caption 7"


def test_a_gallery_without_captions_finds_none(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", clusters(5))
    assert gallery.info.captions == 0
    assert gallery.nearest_captions(clusters(2), 3)[1].shape == (2, 0)


def test_an_open_gallery_outlives_its_folder_s_replacement(tmp_path: Path) -> None:
    before = write(tmp_path / "index", clusters(50))
    expected = before.search(clusters(3), 5)[1], before.entry(49)
    write(tmp_path / "index", clusters(20, seed=5))
    np.testing.assert_array_equal(before.search(clusters(3), 5)[1], expected[0])
    assert before.entry(49) == expected[1]


def test_a_failed_change_leaves_the_index_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "index", clusters(50))
    with pytest.raises(UserError, match="not finite"):
        change(tmp_path / "index", [3], np.full((1, 32), np.nan, np.float32))
    assert FolderGallery.open(tmp_path / "index").size == 50
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_index_without_pictures_is_not_written(tmp_path: Path) -> None:
    write(tmp_path / "index", clusters(2))
    with pytest.raises(UserError, match="no usable picture"):
        change(tmp_path / "index", [0, 1])


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no index of pictures.*irra index"):
        FolderGallery.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["embeddings.npy", "entries.parquet", "thumbnails.bin", "captions.parquet", "caption_embeddings.npy"]
)
def test_a_truncated_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "index", clusters(5), captions=clusters(5))
    path = tmp_path / "index" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{name}: \d+ bytes where info.json says \d+; make the index again"):
        FolderGallery.open(tmp_path / "index")
    path.unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        FolderGallery.open(tmp_path / "index")


@pytest.mark.parametrize(
    "name",
    ["embeddings.npy", "entries.parquet", "captions.parquet", "caption_embeddings.npy", "neighbours.faiss"],
)
def test_a_file_of_the_right_length_and_wrong_contents_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "index", clusters(50), captions=clusters(5), exact_limit=20)
    path = tmp_path / "index" / name
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(UserError, match=rf"{name}: damaged"):
        FolderGallery.open(tmp_path / "index")


def test_a_damaged_thumbnail_is_named(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", clusters(5))
    gallery.check_thumbnails()
    assert gallery.pixels(4, SIZE).shape == (*SIZE, 3)
    path, info = tmp_path / "index" / "thumbnails.bin", tmp_path / "index" / "info.json"
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    with pytest.raises(UserError, match=r"thumbnails.bin: damaged \(its sha256"):
        FolderGallery.open(tmp_path / "index")
    write_record(info, json.loads(info.read_text()) | {"sha256": {}})  # as an earlier version wrote it
    damaged = FolderGallery.open(tmp_path / "index")
    with pytest.raises(UserError, match=r"thumbnails.bin: damaged; make the index again"):
        damaged.check_thumbnails()
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=r"thumbnails.bin: damaged \(at picture 4\); make the index again"):
        FolderGallery.open(tmp_path / "index").pixels(4, SIZE)


def test_a_table_of_something_else_is_named(tmp_path: Path) -> None:
    write(tmp_path / "index", clusters(5))
    path, info = tmp_path / "index" / "entries.parquet", tmp_path / "index" / "info.json"
    pq.write_table(pa.table({"name": ["a"] * 5}), path)
    metadata = json.loads(info.read_text())
    metadata["file_bytes"]["entries.parquet"] = path.stat().st_size
    write_record(info, metadata)
    with pytest.raises(UserError, match=r"entries.parquet: 5 rows of \['name'\], expected"):
        FolderGallery.open(tmp_path / "index")


@pytest.mark.parametrize(
    "change",
    [
        {"file_bytes": []},
        {"file_bytes": {}},
        {"file_bytes": {"../secret": 1}},
        {"size": "5"},
        {"size": None},
        {"image_size": [64]},
        {"skipped": 3},
        {"kind": "hnsw"},
        {"captions": 5},
    ],
    ids=str,
)
def test_facts_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path / "index", clusters(5))
    info = tmp_path / "index" / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | change))
    with pytest.raises(UserError, match=r"info.json: damaged.*; make the index again"):
        FolderGallery.open(tmp_path / "index")


@pytest.mark.parametrize("text", ["{}", "[]", "3", "null"])
def test_metadata_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path / "index", clusters(5))
    (tmp_path / "index" / "info.json").write_text(text)
    with pytest.raises(UserError, match=r"info.json: damaged"):
        FolderGallery.open(tmp_path / "index")


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "index", clusters(5))
    info = tmp_path / "index" / "info.json"
    write_record(info, json.loads(info.read_text()) | {"format_version": 99})
    with pytest.raises(UserError, match="format version 99, this code reads 1"):
        FolderGallery.open(tmp_path / "index")
    info.write_text("{")
    with pytest.raises(UserError, match=r"info.json: damaged"):
        FolderGallery.open(tmp_path / "index")


def test_another_model_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    gallery = write(tmp_path / "index", clusters(5))
    check_model(gallery, MODEL)
    with pytest.raises(UserError, match=f"{'a' * 12}.*{'b' * 12}"):
        check_model(gallery, "b" * 64)


@pytest.mark.parametrize("names", [["thesis.txt"], ["thesis.txt", "info.json"], ["thumbnails.bin"]])
def test_what_is_no_index_is_not_replaced(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("years of work")
    with pytest.raises(UserError, match="exists and is not an index"):
        index_format.check_target(tmp_path)


def write_described(folder: Path, embeddings: Floats, means: Floats, dtype: str = "float32") -> FolderGallery:
    with replace_folder(folder) as target:
        writer = FolderWriter(target, MODEL, SIZE, dtype)
        writer.add(pictures(len(embeddings)), embeddings)
        writer.describe(means)
        writer.finish("test", [])
    return FolderGallery.open(folder)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_scores_with_captions_are_those_of_a_loop(tmp_path: Path, dtype: str, weight: float) -> None:
    means, queries = clusters(30, seed=2), 3 * clusters(4, seed=1)
    means[[3, 4, 20]] = 0  # pictures without captions
    gallery = write_described(tmp_path / "index", clusters(30), means, dtype)
    assert gallery.info.described == 27
    scores, rows = gallery.search(queries, 50, weight)
    stored = [np.load(gallery.folder / name).astype(np.float32) for name in ("embeddings.npy", "described.npy")]
    for query, found, order in zip(queries / np.linalg.norm(queries, axis=1, keepdims=True), scores, rows, strict=True):
        shares = [weight if row not in (3, 4, 20) else 0.0 for row in range(30)]
        expected = [
            (1 - share) * float(picture @ query) + share * float(mean @ query)
            for share, picture, mean in zip(shares, *stored, strict=True)
        ]
        assert order.tolist() == sorted(range(30), key=lambda row: -expected[row])
        np.testing.assert_allclose(found, sorted(expected, reverse=True), atol=1e-6)


def test_a_weight_of_zero_is_the_search_of_an_index_without_captions(tmp_path: Path) -> None:
    described = write_described(tmp_path / "described", clusters(30), clusters(30, seed=2))
    plain = write(tmp_path / "plain", clusters(30), "float32")
    for found, expected in zip(described.search(clusters(3), 5), plain.search(clusters(3), 5), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_index_without_captions_says_nothing_of_them_and_has_none_to_weigh(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no captions to give a weight; index them again with --captions FILE"):
        write(tmp_path / "plain", clusters(3)).search(clusters(1), 1, 0.5)
    assert "described" not in json.loads((tmp_path / "plain" / "info.json").read_text())  # as in earlier versions
    nothing = write_described(tmp_path / "nothing", clusters(3), np.zeros((3, 32), np.float32))
    assert {path.name for path in nothing.folder.iterdir()} == {path.name for path in (tmp_path / "plain").iterdir()}


CAMERAS = pa.schema({"camera": pa.int64()})


def write_cameras(folder: Path, embeddings: Floats, exact_limit: int, dtype: str = "float16") -> FolderGallery:
    """A gallery whose pictures are of camera 0 to 99 in turn, but for every seventh, of which that is not known."""
    with replace_folder(folder) as target:
        writer = FolderWriter(target, MODEL, SIZE, dtype, CAMERAS, exact_limit=exact_limit)
        for start in range(0, len(embeddings), 1000):
            batch = embeddings[start : start + 1000]
            cameras = [None if row % 7 == 0 else row % 100 for row in range(start, start + len(batch))]
            writer.add(pictures(len(batch), start), batch, pa.table({"camera": cameras}, schema=CAMERAS))
        writer.finish("test", [])
    return FolderGallery.open(folder)


def below(camera: int) -> Condition:
    return Condition(f"camera < {camera}", pc.field("camera") < camera, f"camera < {camera}")


@pytest.fixture(scope="module", params=["exact", "hnsw", "float32"])
def cameras(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> FolderGallery:
    """Pictures from many cameras, some of them equal, in a gallery of each kind."""
    different = clusters(1500)
    embeddings = different[np.random.default_rng(0).integers(0, 1500, 2000)]
    exact_limit = 500 if request.param == "hnsw" else 10**6
    dtype = "float32" if request.param == "float32" else "float16"
    return write_cameras(tmp_path_factory.mktemp("cameras") / "index", embeddings, exact_limit, dtype)


def slow_search_among(
    gallery: FolderGallery, allowed: NDArray[np.int64], queries: Floats, top_k: int
) -> tuple[Floats, NDArray[np.int64]]:
    scores, rows = slow_search(gallery, queries, gallery.size)
    may = np.isin(rows, allowed)
    return scores[may].reshape(len(queries), -1)[:, :top_k], rows[may].reshape(len(queries), -1)[:, :top_k]


@pytest.mark.parametrize("scanned", [10**6, 0], ids=["compared", "proposed"])
@pytest.mark.parametrize("limit", [0, 1, 3, 30, 100], ids=lambda limit: f"{limit}%")
def test_a_condition_holds_before_the_best_are_taken(
    cameras: FolderGallery, monkeypatch: pytest.MonkeyPatch, scanned: int, limit: int
) -> None:
    monkeypatch.setattr("irra.search.knn.SCANNED", scanned)
    queries = clusters(4, seed=1)
    allowed = np.array([row for row in range(2000) if row % 7 and row % 100 < limit], np.int64)
    for top_k in (10, 150):
        scores, rows = cameras.search(queries, top_k, where=below(limit))
        expected_scores, expected = slow_search_among(cameras, allowed, queries, top_k)
        assert rows.shape == (4, min(top_k, len(allowed)))
        if cameras.info.kind == "hnsw" and scanned == 0:
            assert np.isin(rows, allowed).all()
            same = [np.intersect1d(*pair).size for pair in zip(rows, expected, strict=True)]
            assert sum(same) >= 0.98 * rows.size
        else:
            np.testing.assert_array_equal(rows, expected)
            np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)


def test_pictures_of_a_condition_are_listed_in_their_order(cameras: FolderGallery) -> None:
    table = cameras.table(["path", "camera"], below(2))
    assert table["row"].to_pylist() == [row for row in range(2000) if row % 7 and row % 100 < 2]
    assert table["path"].to_pylist()[0] == "00001.png"
    assert set(table["camera"].to_pylist()) == {0, 1}


def test_rows_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irra.search.knn.BLOCK", 64)
    embeddings, queries = clusters(1000), clusters(3, seed=1)
    allowed = np.arange(1, 1000, 3)
    expected = allowed[np.argsort(-queries @ embeddings[allowed].T, axis=1, kind="stable")[:, :70]]
    assert np.sort(scan(embeddings, allowed, queries, 70)).tolist() == np.sort(expected).tolist()
