"""The search page's HTTP service: what it answers, what it refuses, and that it keeps running."""

import asyncio
import base64
import contextlib
import io
import math
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from copy import copy
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from httpx2 import ASGITransport, AsyncClient
from PIL import Image
from starlette.testclient import TestClient

from app.web import protocol
from app.web.__main__ import listen, main
from app.web.app import HEADERS, STATIC, create_app
from app.web.filters import describe_column
from app.web.uploads import MAX_UPLOAD_BYTES
from irra.data.images import MAX_PIXELS
from irra.search.engine import SearchEngine
from irra.search.tracks import MOMENTS
from tests.browser import toy
from tests.browser.sightings import SCHEMA, sightings_engine
from tests.models import small_model

pytestmark = pytest.mark.xdist_group("web")

LOCAL = "http://localhost"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SearchEngine:
    folder = tmp_path_factory.mktemp("web")
    return toy.toy_engine(folder / "engine", small_model(), toy.write_people(folder / "prepared"))


@pytest.fixture(scope="module")
def client(engine: SearchEngine) -> Iterator[TestClient]:
    with TestClient(create_app(engine), base_url=LOCAL) as client:
        yield client


def upload(client: TestClient, data: bytes, name: str = "person.png") -> Any:
    return client.post("/api/captions", files={"picture": (name, data)})


def png(width: int = 20, height: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes that claim to be `width` x `height` pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(100)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_pages_divide_the_ranking(client: TestClient, engine: SearchEngine) -> None:
    pages = [client.get("/api/search", params={"q": "a  red\tperson", "top": 12, "page": n}).json() for n in (1, 2, 3)]
    (expected,) = engine.search(["a red person"], 100)
    assert [hit for page in pages for hit in page["hits"]] == [hit.document() for hit in expected]
    assert {(page["query"], page["total"]) for page in pages} == {("a red person", 32)}


def test_a_page_beyond_the_last_is_empty(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": "red", "page": 10**30})
    assert answer.status_code == 200
    assert answer.json()["hits"] == []


def test_the_gallery_offers_its_own_captions_as_examples(client: TestClient, engine: SearchEngine) -> None:
    answer = client.get("/api/gallery").json()
    assert (answer["size"], answer["captions"], answer["image_size"]) == (32, 9, [64, 32])
    captions = [engine.gallery.caption(row) for row in range(9)]
    assert set(answer["examples"]) <= set(captions)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/search", 400, "empty"),
        ("/api/search?q=%20%09%00", 400, "empty"),
        ("/api/search?q=" + "x" * 10_000, 400, "10000 characters"),
        ("/api/search?q=red&page=0", 422, "page"),
        ("/api/search?q=red&page=two", 422, "page"),
        ("/api/search?q=red&top=-1", 422, "top"),
        ("/api/search?q=red&top=101", 422, "top"),
        ("/api/explain?q=red", 422, "row"),
        ("/api/explain?q=red&row=32", 404, "no picture 32"),
        ("/api/explain?row=0", 400, "empty"),
        ("/api/thumbnails/32", 404, "no picture 32; the gallery has 32"),
        ("/api/thumbnails/-1", 404, "no picture -1"),
        (f"/api/thumbnails/{10**30}", 404, "no picture"),
        ("/api/thumbnails/1.5", 422, "row"),
        ("/api/thumbnails/%00", 422, "row"),
        ("/api/thumbnails/..%2f..%2finfo.json", 404, "Not Found"),
        ("/api/thumbnails/%2e%2e", 422, "row"),
        ("/static/%2e%2e/api.py", 404, "Not Found"),
        ("/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", 404, "Not Found"),
        ("/static//etc/passwd", 404, "Not Found"),
        ("/static/%00", 404, "Not Found"),
        ("/static/" + "x" * 5000, 404, "Not Found"),
        ("/docs", 404, "Not Found"),
        ("/openapi.json", 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(client: TestClient, path: str, status: int, message: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    "query",
    [
        "🧍‍♀️👗🔴",
        "穿红色外套的女人",
        "امرأة ترتدي معطفا أحمر",
        toy.MARKUP,
        "'; DROP TABLE people; --",
        "\u202e\ufeff red",
    ],
)
def test_any_language_and_any_characters_are_searched(client: TestClient, query: str) -> None:
    assert len(client.get("/api/search", params={"q": query}).json()["hits"]) == 24
    assert client.get("/api/explain", params={"q": query, "row": 0}).status_code == 200


def test_a_thumbnail_is_kept_for_good_under_its_own_address_only(client: TestClient, engine: SearchEngine) -> None:
    version = client.get("/api/gallery").json()["version"]
    answer = client.get(f"/api/thumbnails/3?v={version}")
    assert answer.content == engine.gallery.entry(3).thumbnail
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert client.get("/api/thumbnails/3?v=other").headers["cache-control"] == "no-cache"


def test_an_index_written_anew_has_another_version(tmp_path: Path) -> None:
    store = toy.write_people(tmp_path / "prepared")
    versions = []
    for name in ("first", "second"):
        app = create_app(toy.toy_engine(tmp_path / name, small_model(), store))
        versions.append(TestClient(app, base_url=LOCAL).get("/api/gallery").json()["version"])
    assert versions[0] != versions[1]


def test_a_picture_finds_captions(client: TestClient, engine: SearchEngine) -> None:
    expected = engine.captions_of(Image.open(io.BytesIO(png())), 10)
    assert upload(client, png()).json() == {"captions": [vars(hit) for hit in expected]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a picture"),
        (b"hello", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (png(200, 200)[:-100], "cannot be read"),
        (png_that_claims(MAX_PIXELS // 1000, 1001), "pixels"),
        (png_that_claims(60_000, 60_000), f"more than the {MAX_PIXELS} pixels"),
    ],
    ids=["empty", "text", "svg", "truncated", "large", "bomb"],
)
def test_a_file_that_is_no_usable_picture_is_refused(client: TestClient, data: bytes, message: str) -> None:
    answer = upload(client, data)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_body_is_refused_while_it_arrives(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        while sent < 10 * MAX_UPLOAD_BYTES:
            sent += 1_000_000
            yield bytes(1_000_000)

    answer = client.post(
        "/api/captions", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 413
    assert "10 MB" in answer.json()["error"]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"data": {"picture": "text"}},
        {"files": {"other": ("a.png", png())}},
        {"files": [("picture", ("a.png", png()))] * 2},
        {"content": b"--b", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        {"content": b"{}", "headers": {"Content-Type": "multipart/form-data"}},
    ],
    ids=["nothing", "text", "other field", "two", "cut", "no boundary"],
)
def test_a_form_without_one_picture_is_refused(client: TestClient, form: dict[str, Any]) -> None:
    answer = client.post("/api/captions", **form)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_an_explanation_covers_words_and_picture(client: TestClient) -> None:
    answer = client.get("/api/explain", params={"q": "a person in red", "row": 5}).json()
    assert [word["word"] for word in answer["words"]] == ["a", "person", "in", "red"]
    assert all(0.0 <= word["importance"] <= 1.0 for word in answer["words"])
    heat = np.frombuffer(base64.b64decode(answer["heat"]["values"]), np.uint8)
    assert (answer["heat"]["height"], answer["heat"]["width"], heat.size) == (64, 32, 64 * 32)


def test_rows_of_another_gallery_are_not_explained(client: TestClient) -> None:
    version = client.get("/api/search?q=red").json()["gallery"]
    assert version == client.get("/api/gallery").json()["version"]
    assert client.get("/api/explain", params={"q": "red", "row": 0, "v": version}).status_code == 200
    answer = client.get("/api/explain", params={"q": "red", "row": 0, "v": "other"})
    assert (answer.status_code, "search again" in answer.json()["error"]) == (409, True)


def test_a_damaged_picture_is_not_explained(tmp_path: Path) -> None:
    engine = toy.toy_engine(tmp_path / "engine", small_model(), toy.write_people(tmp_path / "prepared"))
    engine.gallery.thumbnails = np.zeros_like(engine.gallery.thumbnails)
    answer = TestClient(create_app(engine), base_url=LOCAL).get("/api/explain", params={"q": "red", "row": 0})
    assert answer.status_code == 400
    assert "thumbnails.bin: damaged" in answer.json()["error"]


def test_twenty_users_at_once_get_what_each_would_get_alone(client: TestClient, engine: SearchEngine) -> None:
    queries = [f"a person in {colour} {number}" for number in range(5) for colour in ("red", "blue", "pink", "white")]
    alone = [client.get("/api/search", params={"q": query}).json() for query in queries]

    async def together() -> list[Any]:
        transport = ASGITransport(create_app(engine))
        async with AsyncClient(transport=transport, base_url=LOCAL) as users:
            answers = await asyncio.gather(*(users.get("/api/search", params={"q": query}) for query in queries))
        return [answer.json() for answer in answers]

    assert asyncio.run(together()) == alone


def test_a_search_does_not_wait_for_uploads(
    client: TestClient, engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with one core, four uploads wait until a search has been answered."""
    begun, answered = threading.Event(), threading.Event()

    def captions_of(*arguments: object) -> list[object]:
        begun.set()
        assert answered.wait(20)
        return []

    monkeypatch.setattr("app.web.api.available_cores", lambda: 1)
    monkeypatch.setattr(engine, "captions_of", captions_of)

    async def together() -> list[int]:
        transport = ASGITransport(create_app(engine), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url=LOCAL) as users:
            uploads = [
                asyncio.create_task(users.post("/api/captions", files={"picture": ("a.png", png())})) for _ in range(4)
            ]
            assert await asyncio.to_thread(begun.wait, 20)
            await asyncio.sleep(0.5)  # time for the others to begin, if they could
            search = await users.get("/api/search", params={"q": "red"})
            answered.set()
            return [search.status_code, *[answer.status_code for answer in await asyncio.gather(*uploads)]]

    assert asyncio.run(together()) == [200] * 5


@pytest.mark.parametrize(
    "path", ["/", "/static/script.js", "/api/gallery", "/api/search", "/nowhere", "/api/thumbnails/0"]
)
def test_every_answer_carries_the_security_headers(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Origin": "http://elsewhere.example"})
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example", "10.0.0.1", ""])
def test_a_request_under_a_foreign_name_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 400


def test_the_given_host_is_served(engine: SearchEngine) -> None:
    client = TestClient(create_app(engine, ["box.example"]), base_url="http://box.example:7860")
    assert client.get("/").status_code == 200


def test_a_failure_of_ours_is_reported_as_one(engine: SearchEngine, tmp_path: Path) -> None:
    broken = SearchEngine(engine.model, engine.gallery)
    broken.encoder = None  # type: ignore[assignment]
    client = TestClient(create_app(broken), base_url=LOCAL, raise_server_exceptions=False)
    answer = client.get("/api/search?q=red")
    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says why"})
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_the_page_names_no_other_host_and_writes_no_markup(path: Path) -> None:
    text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|[\"'(]//|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)


def test_an_upload_that_is_broken_off_is_one_line(engine: SearchEngine, capsys: pytest.CaptureFixture[str]) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/captions",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")],
    }

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    asyncio.run(create_app(engine)(scope, receive, send))
    assert capsys.readouterr().err == "/api/captions: the upload was broken off\n"


def test_a_picture_that_takes_too_long_to_decode_is_refused(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    answer = upload(client, data[:last] + data[last:-2] * 40 + data[-2:])
    assert answer.status_code == 400
    assert "scans, which takes too long" in answer.json()["error"]


def test_the_server_may_hold_as_many_connections_as_the_system_permits() -> None:
    code = """
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from app.web.__main__ import allow_connections
setrlimit(RLIMIT_NOFILE, (64, getrlimit(RLIMIT_NOFILE)[1]))
allow_connections()
print(getrlimit(RLIMIT_NOFILE)[0] > 64)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


@pytest.fixture(scope="module")
def sightings(tmp_path_factory: pytest.TempPathFactory) -> SearchEngine:
    return sightings_engine(tmp_path_factory.mktemp("sightings") / "engine", small_model())


@pytest.fixture(scope="module")
def footage(sightings: SearchEngine) -> Iterator[TestClient]:
    """A client of a gallery with metadata, frames and tracks."""
    with TestClient(create_app(sightings), base_url=LOCAL) as client:
        yield client


def test_filters_are_described_by_values_or_a_range(footage: TestClient) -> None:
    filters = {one.pop("name"): one for one in footage.get("/api/gallery").json()["filters"]}
    assert list(filters) == SCHEMA.names
    assert filters["camera"] == {
        "sql": "camera",
        "type": "integer",
        "values": [{"value": str(camera), "count": 8} for camera in (1, 2, 3, 4)],
    }
    assert filters["select"] == {
        "sql": "select",
        "type": "text",
        "values": [{"value": toy.MARKUP, "count": 12}, {"value": "gate 'A'", "count": 12}, {"value": None, "count": 8}],
    }
    assert filters["time"]["range"] == ["2026-11-27T18:00:20", "2026-11-27T18:01:20"]
    assert filters["seconds"]["range"] is None
    assert filters["note"] == {"sql": "note", "type": "text"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([True, False, True, None]), {"type": "boolean", "values": [("false", 1), ("true", 2), (None, 1)]}),
        (pa.array(["a", "a", "", ""]), {"type": "text", "values": [("", 2), ("a", 2)]}),
        (pa.array([2**60, 2**60]), {"type": "integer", "values": [(str(2**60), 2)]}),
        (pa.array([3, 1, 2]), {"type": "integer", "range": [1, 3]}),
        (pa.array(["a", "b", "c"]), {"type": "text"}),
        (pa.array(["a" * 81] * 4), {"type": "text"}),
        (pa.array(list(range(31)) * 9), {"type": "integer", "range": [0, 30]}),
        (pa.array([None, None], pa.int64()), {"type": "integer", "range": None}),
        (pa.array([1.0, math.nan, math.inf, None]), {"type": "number", "range": [1.0, 1.0]}),
        (pa.array([date(2026, 11, 27)] * 4), {"type": "date", "range": ["2026-11-27", "2026-11-27"]}),
        (pa.array([[1], [2]]), {"type": "other"}),
    ],
    ids=str,
)
def test_a_column_is_described_by_what_it_holds(values: pa.Array, expected: dict[str, Any]) -> None:
    described = describe_column(pa.chunked_array([values]))
    if "values" in described:
        described["values"] = [(one["value"], one["count"]) for one in described["values"]]
    assert described == expected


def test_a_gallery_without_metadata_has_no_filters(client: TestClient) -> None:
    assert not {"filters", "tracks", "footage"} & client.get("/api/gallery").json().keys()
    assert not {"where", "every_frame", "found", "pictures"} & client.get("/api/search?q=red").json().keys()


@pytest.mark.parametrize("where", ["", "camera in (1, 2, 4)", "\"select\" = 'gate ''A''' or track is null"])
@pytest.mark.parametrize("every_frame", [True, False])
def test_pages_divide_the_results_of_a_condition(
    footage: TestClient, sightings: SearchEngine, where: str, every_frame: bool
) -> None:
    parameters = {"q": "a person", "top": 3, "where": where, "every_frame": every_frame}
    pages = [footage.get("/api/search", params=parameters | {"page": page}).json() for page in range(1, 13)]
    (expected,) = sightings.search(["a person"], 100, where=where or None, every_frame=every_frame)
    assert [hit for page in pages for hit in page["hits"]] == [hit.document() for hit in expected]
    assert {page["total"] for page in pages} == {page["found"] for page in pages} == {len(expected)}


def test_a_gallery_without_metadata_takes_conditions_on_paths_and_people(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": "red", "where": "pid in (0, 2) and path != '2_0.png'"}).json()
    assert (answer["total"], {hit["pid"] for hit in answer["hits"]}) == (7, {0, 2})


def test_a_column_called_track_without_moments_is_one_like_others(sightings: SearchEngine) -> None:
    gallery = copy(sightings.gallery)
    gallery.columns = pa.schema([field for field in gallery.columns if field.name not in MOMENTS])
    engine = SearchEngine(sightings.model, gallery)
    answer = TestClient(create_app(engine), base_url=LOCAL).get("/api/search?q=red").json()
    assert answer["total"] == len(engine.search(["red"], 100)[0]) == 32


def test_tracks_and_pictures_are_counted_under_a_condition(footage: TestClient) -> None:
    answer = footage.get("/api/search", params={"q": "red", "where": "camera = 4"}).json()
    # of 8 pictures, 4 are of one track, and 4 of none
    assert (answer["total"], answer["found"], answer["pictures"]) == (5, 5, 8)
    assert (answer["where"], answer["every_frame"]) == ("camera = 4", False)
    assert answer["hits"][0]["metadata"]["camera"] == 4


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/search?q=red&where=camra%3D3", 400, "camra"),
        ("/api/search?q=red&where=camera%20in%20(", 400, "camera in ("),
        ("/api/search?q=red&where=" + "x" * 4001, 422, "where"),
        ("/api/search?q=red&every_frame=perhaps", 422, "every_frame"),
        ("/api/frames/32", 404, "no picture 32"),
        ("/api/frames/x", 422, "row"),
    ],
)
def test_what_footage_cannot_answer_is_refused_in_words(
    footage: TestClient, path: str, status: int, message: str
) -> None:
    answer = footage.get(path)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_a_frame_is_shown_with_its_box(footage: TestClient) -> None:
    version = footage.get("/api/gallery").json()["version"]
    answer = footage.get(f"/api/frames/3?v={version}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert footage.get("/api/frames/3?v=other").headers["cache-control"] == "no-cache"
    with Image.open(io.BytesIO(answer.content)) as frame:
        assert frame.size == (8 * 32, 64)
        beside = np.asarray(frame)[32, 3 * 32 - 1]
    assert (
        beside[0] > 2 * toy.DRESSES["blue"][0]
    )  # there stands the person in blue, and the line of the box is before them


def test_a_frame_whose_file_is_gone_is_missed_in_words(footage: TestClient, sightings: SearchEngine) -> None:
    frame = Path(sightings.gallery.entry(0).source) / "cam1" / "000001.png"
    frame.rename(frame.with_name("away.png"))
    answer = footage.get("/api/frames/0")
    frame.with_name("away.png").rename(frame)
    assert answer.status_code == 404
    assert "cam1/000001.png" in answer.json()["error"]


def test_a_gallery_of_pictures_has_no_frames(client: TestClient) -> None:
    answer = client.get("/api/frames/0")
    assert (answer.status_code, "not found in a frame" in answer.json()["error"]) == (404, True)


@pytest.fixture
def served(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits for no request longer than a moment."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.4)
    config = uvicorn.Config(create_app(engine), http=protocol.TimedProtocol, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        b"POST /api/captions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b",
    ],
    ids=["nothing", "head", "body"],
)
def test_a_connection_whose_request_does_not_arrive_is_closed(served: int, part: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served), timeout=5) as connection:
        connection.sendall(part)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_connection_is_kept_for_requests_that_arrive(served: int) -> None:
    with socket.create_connection(("127.0.0.1", served), timeout=5) as connection:
        for _ in range(4):  # longer together than one request may take
            connection.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(5000).startswith(b"HTTP/1.1 200")
            time.sleep(0.15)


def test_small_answers_are_not_held_back() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio disables Nagle's algorithm only then


def test_a_taken_port_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["web", "--port", str(port)])
        assert main() == 2
    error = capsys.readouterr().err
    assert (
        error
        == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use; choose another --host or --port\n"
    )


@pytest.mark.parametrize("address", [["--port", "99999"], ["--port", "-1"], ["--host", "no.host.invalid"]])
def test_an_impossible_address_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["web", *address])
    assert main() == 2
    assert capsys.readouterr().err.startswith(("error: cannot listen on", "error: --port"))


def test_a_missing_index_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: SearchEngine, tmp_path: Path
) -> None:
    model = engine.gallery.folder.parent / "model"
    monkeypatch.setattr(sys, "argv", ["web", "--model", str(model), "--index", str(tmp_path), "--port", "0"])
    assert main() == 2
    assert f"{tmp_path}: no index" in capsys.readouterr().err
