"""A gallery in LanceDB on an S3 server, and with several processes that write, or are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irra.search.address import open_gallery, open_target
from irra.search.lance.gallery import open_database
from irra.search.lance.target import LanceTarget
from irra.utils.errors import TemporaryError, UserError
from tests.irra.test_gallery import clusters
from tests.irra.test_lance import COLUMNS, build, making, pictures, sightings
from tests.s3 import BUCKET, Refused, Server

pytest_plugins = ["tests.s3"]
pytestmark = pytest.mark.system

ADDRESS = f"lance:s3://{BUCKET}/deep/gallery"
# Adds ten pictures forty times, each in a batch of its own; may wait for a line in the middle.
WRITE = """
import sys
from irra.search.lance import writer as lance_writer
from irra.search.address import open_target
from tests.irra.test_gallery import clusters
from tests.irra.test_lance import COLUMNS, making, pictures, sightings
address, source, waits = sys.argv[1:]
lance_writer.FLUSH_ROWS = 10
with open_target(address) as target:
    previous = target.previous(making(source), False)
    with target.writer(making(source), COLUMNS) as writer:
        if previous is not None:
            known = previous.files(source)["row"].to_numpy()
            writer.keep(previous, known, sightings(len(known)))
        done = len(writer.paths)
        for start in range(done, 400, 10):
            part = slice(start, start + 10)
            writer.add(pictures(400, source)[part], clusters(400)[part], sightings(400)[part])
            if start == 200 and waits:
                print("half", flush=True)
                sys.stdin.readline()
        writer.finish(source, [])
"""


def start(address: str, source: str, waits: str = "") -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-c", WRITE, address, source, waits], subprocess.PIPE
    writer = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    if waits:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
    return writer


def test_a_gallery_in_a_bucket(s3: Server, tmp_path: Path) -> None:
    build(ADDRESS, clusters(40))
    build(tmp_path / "folder", clusters(40))
    with open_target(ADDRESS) as target:
        previous = target.previous(making(), False)
        assert previous is not None
        with target.writer(making(), COLUMNS) as writer:
            writer.keep(previous, np.arange(5, 40), sightings(40).slice(5))
            writer.add(pictures(3, "new"), clusters(3), sightings(3))
            writer.finish("a", [])
    gallery, folder = open_gallery(ADDRESS), open_gallery(tmp_path / "folder")
    assert (gallery.size, gallery.entry(40).path) == (38, "new00000.png")
    np.testing.assert_array_equal(previous.search(clusters(2), 9), folder.search(clusters(2), 9))


def test_a_forgotten_picture_leaves_the_bucket(s3: Server) -> None:
    build(ADDRESS, clusters(40))
    trace = pictures(40)[7].thumbnail
    assert any(trace in content(s3, name) for name in s3.names())
    target = LanceTarget(open_database(ADDRESS), in_memory=30)
    target.forget(open_gallery(ADDRESS), np.array([7]), {"salt": "00", "keys": ["1"]})
    target.close()
    assert not any(trace in content(s3, name) for name in s3.names())
    assert open_gallery(ADDRESS).size == 39


def content(s3: Server, name: str) -> bytes:
    body: bytes = s3.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
    return body


def test_what_s3_refuses(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no gallery there"):
        open_gallery(ADDRESS)
    with pytest.raises(UserError, match="no such bucket"):
        open_gallery("lance:s3://nowhere/gallery")
    s3.door = lambda method, name: Refused("403 Forbidden", "AccessDenied") if method in ("PUT", "POST") else None
    with pytest.raises(UserError, match="access denied"):
        build(ADDRESS, clusters(4))
    s3.door = lambda method, name: Refused("403 Forbidden", "InvalidAccessKeyId")
    with pytest.raises(UserError, match="access key is unknown there"):
        open_gallery(ADDRESS)
    s3.door = lambda method, name: None
    assert s3.names() == []
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TemporaryError, match=r"no answer from http://127\.0\.0\.1:9 .*check AWS_ENDPOINT_URL"):
        open_gallery(ADDRESS)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(UserError, match="an endpoint looks like http://host:9000"):
        open_gallery(ADDRESS)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError, match="no credentials for S3"):
        open_gallery(ADDRESS)


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_writers_of_different_sources_lose_nothing(s3: Server, tmp_path: Path, where: str) -> None:
    address = ADDRESS if where == "bucket" else f"lance:{tmp_path / 'gallery'}"
    build(address, clusters(10), source="first")
    writers = [start(address, name) for name in "abc"]
    results = [(*writer.communicate(), writer.returncode) for writer in writers]
    assert [code for *_, code in results] == [0, 0, 0], results
    gallery = open_gallery(address)
    assert gallery.size == 10 + 3 * 400
    rows = gallery.table(["path", "source"])
    assert len(set(rows["row"].to_pylist())) == len(set(rows["path"].to_pylist())) == gallery.size
    assert set(gallery.info.source.split(", ")) == {"first", "a", "b", "c"}


def test_of_two_writers_of_one_source_one_is_refused(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'gallery'}"
    first, second = start(address, "a", "waits"), start(address, "a")
    _, errors = second.communicate()
    assert second.returncode != 0
    assert f"process {first.pid} on " in errors
    assert " is writing a; wait until it has finished" in errors
    first.communicate("go on\n")
    assert first.returncode == 0
    assert open_gallery(address).size == 400


def test_a_killed_writer_leaves_what_it_has_added_and_another_goes_on(tmp_path: Path) -> None:
    address = f"lance:{tmp_path / 'gallery'}"
    writer = start(address, "a", "waits")
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    gallery = open_gallery(address)
    assert gallery.table(["path"])["path"].to_pylist() == [picture.path for picture in pictures(400, "a")][:210]
    again = start(address, "a")
    assert again.communicate()[1] == ""
    paths = open_gallery(address).table(["path"])["path"].to_pylist()
    assert paths == [picture.path for picture in pictures(400, "a")]
