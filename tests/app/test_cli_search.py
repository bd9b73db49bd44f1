"""irra index and irra search: output for people and for scripts, and what is refused."""

import csv
import json
import os
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli.search import print_hits
from components.figures import RetrievalRow, retrieval_sheet
from components.figures.style import RIGHT, WRONG
from irra.checkpoint import load_model, model_fingerprint
from irra.data.store import PreparedStore
from irra.search.encoder import Encoder
from irra.search.engine import SearchEngine
from irra.search.metadata import read_metadata
from irra.search.update import index_folder
from tests.cli import answer, irra, mistake, write_model, write_photos
from tests.s3 import BUCKET, Server

pytest_plugins = ["tests.s3"]
pytestmark = pytest.mark.xdist_group("cli")  # all in one process, which makes the index once

QUERY = "a person in red and blue"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def index(model: Path, store: PreparedStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    made = answer("index", "--images", write_photos(folder / "photos", store), "--model", model, "--out", folder / "it")
    assert made["pictures"] == 8
    return folder / "it"


@pytest.fixture(scope="module")
def search(index: Path, model: Path) -> tuple[object, ...]:
    """The beginning of a search command."""
    return "search", "--index", index, "--model", model


def test_a_search_answers_as_the_engine_does(search: tuple[object, ...], index: Path, model: Path) -> None:
    [result] = answer(*search, QUERY, "--top", 3)["results"]
    [expected] = SearchEngine.open(model, index).search([QUERY], 3)
    assert result == {"query": QUERY, "unread": "", "hits": [hit.document() for hit in expected]}


def test_what_the_model_does_not_read_is_said(search: tuple[object, ...]) -> None:
    done = irra(*search, "red " * 30 + "and a hat", "--json")
    assert "warning: the query is longer than the model can read; not read: red" in done.stderr
    [result] = json.loads(done.stdout)["results"]
    assert result["unread"].endswith("red and a hat")


def test_a_file_of_queries_is_answered_in_its_order(search: tuple[object, ...], tmp_path: Path) -> None:
    texts = ["a man in red", "穿红色外套的女人", "wearing 👖 and 👟"]
    (tmp_path / "queries.txt").write_text("\ufeff" + "\r\n".join(texts) + "\r\n", encoding="utf-8")
    results = answer(*search, "--queries", tmp_path / "queries.txt")["results"]
    assert [result["query"] for result in results] == texts
    [alone] = answer(*search, texts[1])["results"]
    assert [hit["path"] for hit in results[1]["hits"]] == [hit["path"] for hit in alone["hits"]]
    assert [hit["score"] for hit in results[1]["hits"]] == pytest.approx([hit["score"] for hit in alone["hits"]])


def test_many_queries_show_their_progress(search: tuple[object, ...]) -> None:
    done = irra(*search, "--queries", "-", "--json", stdin=f"{QUERY}\n" * 130)
    assert "search: 3/3 batches" in done.stderr
    assert [result["query"] for result in json.loads(done.stdout)["results"]] == [QUERY] * 130


def test_queries_come_from_standard_input_too(search: tuple[object, ...]) -> None:
    assert answer(*search, "--queries", "-", stdin=QUERY)["results"] == answer(*search, QUERY)["results"]


def test_more_than_the_gallery_gives_all_of_it(search: tuple[object, ...]) -> None:
    [result] = answer(*search, QUERY, "--top", 1000)["results"]
    assert [hit["rank"] for hit in result["hits"]] == list(range(1, 9))


@pytest.mark.parametrize(
    ("query", "message"),
    [("", "the query is empty"), (" \t\n", "the query is empty"), ("x" * 10_000, "has 10000 characters")],
    ids=["empty", "white space", "endless"],
)
def test_a_query_that_cannot_be_read_is_refused(search: tuple[object, ...], query: str, message: str) -> None:
    assert message in mistake(*search, query)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("a man\n\na woman\n", "standard input: line 2 is empty"),
        ("a man\n" + "x" * 3000, "standard input: line 2 has 3000 characters"),
        ("", "standard input: no query"),
        (b"a man \xff", "standard input: not UTF-8 text"),
    ],
    ids=["blank", "endless", "nothing", "binary"],
)
def test_a_bad_line_is_named(search: tuple[object, ...], queries: str | bytes, message: str) -> None:
    assert message in mistake(*search, "--queries", "-", stdin=queries)


def test_a_search_without_a_query_says_how_to_give_one(search: tuple[object, ...], tmp_path: Path) -> None:
    assert "give one query in quotes" in mistake(*search)
    assert "give one query in quotes" in mistake(*search, QUERY, "--queries", "queries.txt")
    assert "nowhere.txt: no such file" in mistake(*search, "--queries", tmp_path / "nowhere.txt")
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: not a regular file" in mistake(*search, "--queries", tmp_path / "pipe")
    assert "a folder" in mistake(*search, "--queries", tmp_path)


def test_no_pictures_at_all_cannot_be_asked_for(search: tuple[object, ...]) -> None:
    done = irra(*search, QUERY, "--top", 0)
    assert done.exit_code == 2
    assert "--top" in done.stderr


def test_an_index_that_cannot_be_searched_is_refused(index: Path, model: Path, tmp_path: Path) -> None:
    assert "nowhere: no index" in mistake("search", QUERY, "--index", tmp_path / "nowhere", "--model", model)
    assert "was made with model" in mistake("search", QUERY, "--index", index, "--model", write_model(tmp_path, 1))
    assert "not a model folder" in mistake("search", QUERY, "--index", index, "--model", tmp_path)


def test_a_sheet_shows_the_queries(search: tuple[object, ...], tmp_path: Path) -> None:
    answer(*search, "--queries", "-", "--sheet", tmp_path / "new" / "sheet.png", stdin=f"{QUERY}\na man in green")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width == 1200


def test_an_explained_sheet_shows_every_picture_large(search: tuple[object, ...], tmp_path: Path) -> None:
    for count in (1, 3):
        answer(*search, QUERY, "--top", count, "--explain", "--sheet", tmp_path / f"{count}.png")
    with Image.open(tmp_path / "1.png") as one, Image.open(tmp_path / "3.png") as three:
        assert one.height < three.height < 2 * one.height  # two columns


def test_an_explanation_needs_a_sheet(search: tuple[object, ...]) -> None:
    assert "--sheet" in mistake(*search, QUERY, "--explain")


def test_free_queries_are_not_judged(tmp_path: Path) -> None:
    picture = np.full((64, 32, 3), 128, np.uint8)
    retrieval_sheet(tmp_path / "sheet.png", "Best", [RetrievalRow(QUERY, None, [(picture, 0.5, None)] * 3, None)])
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
    assert (128, 128, 128) in colours
    assert not colours & {RIGHT, WRONG}


@pytest.mark.parametrize(
    ("name", "message"),
    [("sheet.jpg", "does not end in .png"), ("folder.png", "a folder"), ("file/a.png", "is a file")],
)
def test_a_sheet_that_cannot_be_written_is_refused_beforehand(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    assert message in mistake("search", QUERY, "--index", "nowhere", "--sheet", tmp_path / name)


def test_a_sheet_of_very_many_queries_is_refused() -> None:
    assert "there are 21" in mistake("search", "--queries", "-", "--sheet", "sheet.png", stdin="a man\n" * 21)


HITS = [
    {"rank": 1, "score": 0.51239, "row": 4, "path": "a\tb/[red]\x1b[31m.png", "pid": None},
    {"rank": 2, "score": -0.2, "row": 0, "path": "穿.png", "pid": 7},
]


class Terminal(StringIO):
    """A stream on which tables are ruled."""

    def isatty(self) -> bool:
        return True


def shown(stream: StringIO, *hits: dict) -> list[str]:
    print_hits({"results": [{"query": QUERY, "hits": list(hits)}]}, stream)
    return stream.getvalue().splitlines()


def test_hits_are_tab_separated_where_there_is_no_terminal() -> None:
    assert shown(StringIO(), *HITS) == [
        "rank\tscore\tperson\tpath",
        "1\t0.512\t\ta\\tb/[red]\\x1b[31m.png",
        "2\t-0.200\t7\t穿.png",
    ]


def test_people_have_no_column_where_none_is_known() -> None:
    assert shown(StringIO(), HITS[0])[0] == "rank\tscore\tpath"


def test_a_terminal_gets_a_table_with_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = shown(Terminal(), *HITS)
    assert any(line.split() == ["1", "0.512", r"a\tb/[red]\x1b[31m.png"] for line in lines)


def test_several_queries_stand_above_their_hits() -> None:
    stream = StringIO()
    print_hits({"results": [{"query": text, "hits": HITS[1:]} for text in ("a man", "a woman")]}, stream)
    assert [line for line in stream.getvalue().splitlines() if "\t" not in line] == ["a man", "", "a woman"]


def test_an_index_is_brought_up_to_date(model: Path, store: PreparedStore, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", store, 4)
    first = answer("index", "--images", photos, "--model", model, "--out", tmp_path / "index")
    assert (first["pictures"], first["added"]) == (4, 4)
    (photos / "0.png").rename(photos / "new.png")
    (photos / "broken.png").write_bytes(b"no picture")
    second = answer("index", "--images", photos, "--model", model, "--out", tmp_path / "index")
    assert (second["added"], second["kept"], second["removed"]) == (1, 3, 1)
    assert [skipped["path"] for skipped in second["skipped"]] == ["broken.png"]


def test_people_get_counts_and_the_first_files_left_out(model: Path, store: PreparedStore, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", store, 2)
    for number in range(12):
        (photos / f"broken{number:02}.png").write_bytes(b"no picture")
    done = irra("index", "--images", photos, "--model", model, "--out", tmp_path / "index")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(("pictures", "skipped   "))] == ["pictures  2", "skipped   12"]
    reason = "not a JPEG, PNG, BMP, TIFF, WEBP, GIF, AVIF image"
    assert [line for line in lines if line.startswith("skipped  b")] == [
        f"skipped  broken{number:02}.png: {reason}" for number in range(10)
    ]
    assert lines[-1] == "skipped  2 more; --json lists all of them"


@pytest.mark.parametrize("out", ["photos", "photos/index", "."])
def test_an_index_among_the_pictures_is_refused(store: PreparedStore, tmp_path: Path, out: str) -> None:
    photos = write_photos(tmp_path / "photos", store, 2)
    assert "overlap" in mistake("index", "--images", photos, "--out", tmp_path / out)
    assert len(list(photos.iterdir())) == 2


def test_info_about_an_index_is_for_people_too(index: Path) -> None:
    assert "pictures           8" in irra("info", index).stdout.splitlines()


def test_pictures_in_s3_are_indexed_as_those_in_a_folder(
    s3: Server, model: Path, store: PreparedStore, tmp_path: Path
) -> None:
    photos = write_photos(tmp_path / "photos", store, 3)
    s3.fill({f"photos/{path.name}": path.read_bytes() for path in photos.iterdir()})
    arguments = ("index", "--images", f"s3://{BUCKET}/photos", "--model", model, "--out", tmp_path / "index")
    assert answer(*arguments)["added"] == 3
    again = answer(*arguments)
    assert (again["added"], again["kept"]) == (0, 3)
    assert answer("info", tmp_path / "index")["source"] == f"s3://{BUCKET}/photos"


def test_a_folder_without_pictures_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    arguments = ("index", "--model", model, "--out", tmp_path / "index", "--images")
    assert "no pictures" in mistake(*arguments, tmp_path / "photos")
    assert "nowhere: no such folder" in mistake(*arguments, tmp_path / "nowhere")
    assert not (tmp_path / "index").exists()


def test_info_describes_an_index(index: Path, model: Path) -> None:
    document = answer("info", index)
    assert (document["kind"], document["pictures"], document["dimension"]) == ("index", 8, 16)
    assert document["model_fingerprint"] == model_fingerprint(model)


def write_captions(path: Path, *rows: tuple[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])
    return path


@pytest.fixture(scope="module")
def described(model: Path, store: PreparedStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The beginning of a search in an index where two of four pictures have captions; its folder is the last part."""
    folder = tmp_path_factory.mktemp("described")
    rows = [("1.png", "a man in red"), ("1.png", "red, and blue trousers"), ("3.png", QUERY), ("9.png", "elsewhere")]
    captions = write_captions(folder / "captions.csv", *rows)
    photos = write_photos(folder / "photos", store, 4)
    made = answer("index", "--images", photos, "--model", model, "--out", folder / "it", "--captions", captions)
    assert (made["pictures"], made["described"]) == (4, 2)
    return "search", "--model", model, "--index", folder / "it"


def test_captions_of_pictures_count_as_much_as_their_weight_says(described: tuple[object, ...], model: Path) -> None:
    [result] = answer(*described, QUERY, "--caption-weight", 0.75)["results"]
    assert result["with_captions"] == "captions of the pictures weigh 0.75"
    [plain] = answer(*described, QUERY)["results"]
    assert set(plain) == {"query", "unread", "hits"}
    encoder = SearchEngine.open(model, Path(str(described[-1])), "cpu").encoder
    texts = encoder.texts([QUERY, "a man in red", "red, and blue trousers"])
    query, first, second = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    mean = (first + second) / np.linalg.norm(first + second)
    scores = {hit["path"]: hit["score"] for hit in plain["hits"]}
    expected = scores | {"1.png": 0.25 * scores["1.png"] + 0.75 * query @ mean, "3.png": 0.25 * scores["3.png"] + 0.75}
    found = {hit["path"]: hit["score"] for hit in result["hits"]}
    assert found == pytest.approx(expected, abs=1e-3)  # embeddings are kept in 16 bits


def test_several_sentences_about_a_person_are_one_query(search: tuple[object, ...], index: Path, model: Path) -> None:
    arguments = (*search, QUERY, "--also-says", "a man in green", "--also-says", "a hat", "--top", 3)
    [result] = answer(*arguments)["results"]
    [expected] = SearchEngine.open(model, index).search([[QUERY, "a man in green", "a hat"]], 3)
    assert result["hits"] == [hit.document() for hit in expected]
    assert (result["query"], result["also_says"]) == (QUERY, ["a man in green", "a hat"])
    assert irra(*arguments).stdout.splitlines()[0] == f"{QUERY} (mean of 3 sentences)"


def test_options_about_captions_that_do_not_fit_are_refused(search: tuple[object, ...], tmp_path: Path) -> None:
    assert "--also-says: adds to one query" in mistake(*search, "--queries", "-", "--also-says", "a hat", stdin=QUERY)
    sheet = ("--explain", "--sheet", tmp_path / "sheet.png")
    assert "--explain: explains one sentence" in mistake(*search, QUERY, "--also-says", "a hat", *sheet)
    assert "--also-says is empty" in mistake(*search, QUERY, "--also-says", " ")
    assert "no captions to give a weight" in mistake(*search, QUERY, "--caption-weight", 0.5)
    assert irra(*search, QUERY, "--caption-weight", 1.5).exit_code == 2


def test_captions_of_pictures_are_not_lost_by_an_update(
    described: tuple[object, ...], model: Path, tmp_path: Path
) -> None:
    made = Path(str(described[-1]))
    folder = Path(shutil.copytree(made, tmp_path / "it"))
    arguments = ("index", "--images", made.parent / "photos", "--model", model, "--out", folder)
    assert "has captions of pictures; give --captions again, or --replace" in mistake(*arguments)
    changed = write_captions(folder.parent / "changed.csv", ("2.png", "a man in red"))
    again = answer(*arguments, "--captions", changed)
    assert (again["added"], again["kept"], again["described"]) == (0, 4, 1)
    assert ["described", "1"] in [line.split() for line in irra("info", folder).stdout.splitlines()]
    assert answer(*arguments, "--replace")["kept"] == 4
    assert "described" not in answer("info", folder)


def test_captions_of_a_dataset_are_those_of_its_pictures(model: Path, store: PreparedStore, tmp_path: Path) -> None:
    write_photos(tmp_path / "imgs", store, 2)
    entry = {"id": 1, "file_path": "1.png", "captions": ["a man", "a man in red"], "split": "test"}
    (tmp_path / "annotations.json").write_text(json.dumps([entry]))
    arguments = ("--images", tmp_path / "imgs", "--model", model, "--out", tmp_path / "index")
    assert answer("index", *arguments, "--captions", tmp_path)["described"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,caption\n5.png,a man\n", "none of the captions is of a picture there: they are of 5.png"),
        ("path,caption\n", "no caption in it"),
        ("path,caption\n1.png,\n", "line 2 is empty"),
        ("file,text\n1.png,a man\n", "no columns path and caption in its first line"),
        (b"path,caption\n1.png,\xff\n", "not a table in CSV"),
        (None, "captions.csv: no such file"),
    ],
    ids=["other pictures", "nothing", "blank", "columns", "binary", "missing"],
)
def test_captions_that_cannot_be_used_are_refused(
    model: Path, store: PreparedStore, tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    photos = write_photos(tmp_path / "photos", store, 1)
    if content is not None:
        (tmp_path / "captions.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    arguments = ("--images", photos, "--model", model, "--out", tmp_path / "index")
    assert message in mistake("index", *arguments, "--captions", tmp_path / "captions.csv")
    assert not (tmp_path / "index").exists()


SIGHTINGS = """key,camera,time,track,select,note
0.png,3,2026-11-27 18:00,a,1,
1.png,3,2026-11-27 18:01,a,1,
2.png,3,2026-11-27 18:02,a,0,
3.png,4,2026-11-27 18:03,,1,
4.png,5,,,1,
"""


@pytest.fixture(scope="module")
def cameras(model: Path, store: PreparedStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The beginning of a search in an index with metadata of five of its six pictures."""
    folder = tmp_path_factory.mktemp("cameras")
    (folder / "it.csv").write_text(SIGHTINGS)
    photos = write_photos(folder / "photos", store, 6)
    metadata = read_metadata(folder / "it.csv")
    index_folder(photos, Encoder(load_model(model)), model_fingerprint(model), folder / "it", metadata=metadata)
    return "search", "--model", model, "--index", folder / "it"


def test_only_pictures_that_satisfy_a_condition_are_found(cameras: tuple[object, ...]) -> None:
    condition = "camera in (4, 5) or (select = 0 and time >= '2026-11-27 18:02')"
    [result] = answer(*cameras, QUERY, "--top", 3, "--where", condition)["results"]
    assert result["where"] == condition
    assert {hit["path"]: hit["metadata"]["time"] for hit in result["hits"]} == {
        "2.png": "2026-11-27T18:02:00",
        "3.png": "2026-11-27T18:03:00",
        "4.png": None,
    }
    [everything] = answer(*cameras, QUERY, "--every-frame")["results"]
    assert "where" not in everything
    best = [hit["path"] for hit in everything["hits"] if hit["path"] in ("2.png", "3.png", "4.png")]
    assert [hit["path"] for hit in result["hits"]] == best


def test_a_condition_on_paths_needs_no_metadata(search: tuple[object, ...]) -> None:
    [result] = answer(*search, QUERY, "--where", "path in ('1.png', '5.png') and pid is null")["results"]
    assert {hit["path"] for hit in result["hits"]} == {"1.png", "5.png"}


def test_a_person_who_was_followed_is_one_result_unless_every_frame_is_asked_for(cameras: tuple[object, ...]) -> None:
    [result] = answer(*cameras, QUERY)["results"]
    spans = [hit["span"] for hit in result["hits"] if "span" in hit]
    first, last = "2026-11-27T18:00:00", "2026-11-27T18:02:00"
    assert spans == [{"pictures": 3, "column": "time", "first": first, "last": last}]
    assert len(result["hits"]) == 4
    [all_of_them] = answer(*cameras, QUERY, "--every-frame")["results"]
    assert len(all_of_them["hits"]) == 6


def test_the_table_has_the_metadata_and_its_title_the_condition(cameras: tuple[object, ...]) -> None:
    lines = irra(*cameras, QUERY, "--where", "camera < 5").stdout.splitlines()
    assert lines[:2] == [f"{QUERY} (where camera < 5)", "rank\tscore\tpath\tcamera\ttime\ttrack\tselect"]
    cells = [line.split("\t")[3:6] for line in lines[2:]]
    assert ["3", "2026-11-27T18:00:00 - 2026-11-27T18:02:00 (3 pictures)", "a"] in cells
    assert ["4", "2026-11-27T18:03:00", ""] in cells


def test_of_people_in_frames_the_table_has_what_their_paths_do_not_say() -> None:
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    known = {"file": "a.mp4", "frame": 9, "seconds": 0.5, "time": None, **box, "confidence": 0.75, "sure": True}
    span = {"pictures": 2, "column": "seconds", "first": 0.5, "last": 12.25}
    hits = [HITS[0] | {"path": "1", "metadata": known, "span": span}, HITS[0] | {"path": "2", "metadata": known}]
    assert shown(StringIO(), *hits) == [
        "rank\tscore\tpath\tseconds\tconfidence\tsure",
        "1\t0.512\t1\t0.5 - 12.25 (2 pictures)\t0.75\ttrue",
        "1\t0.512\t2\t0.5\t0.75\ttrue",
    ]


def test_nothing_found_is_an_answer(cameras: tuple[object, ...], tmp_path: Path) -> None:
    done = irra(*cameras, QUERY, "--where", "camera = 9", "--sheet", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.stderr
    assert f"no picture satisfies the condition: camera = 9; {tmp_path / 'sheet.png'} is not drawn" in done.stderr
    assert done.stdout.splitlines() == [f"{QUERY} (where camera = 9)", "rank\tscore\tpath"]


def test_a_bad_condition_is_refused_before_the_model_is_loaded(cameras: tuple[object, ...], index: Path) -> None:
    message = mistake("search", QUERY, "--model", "nowhere", *cameras[-2:], "--where", "camra = 3")
    assert "there is no column camra; columns: path (text), pid (int64), camera (int64), time (timestamp)" in message
    assert "there is no column camera" in mistake("search", QUERY, "--index", index, "--where", "camera = 3")
