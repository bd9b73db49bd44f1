"""Folders to and from S3, over HTTP: whole or not at all, resumed after a kill, with one clear message per failure."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.s3.client import CHECKSUMS
from components.s3.transfer import MANIFEST, download, upload
from irra.utils.errors import TemporaryError, UserError
from tests.imports import ROOT
from tests.s3 import BUCKET, SECRET, CutAfter, Refused, Server, read_files, write_files

pytest_plugins = ["tests.s3"]
pytestmark = pytest.mark.xdist_group("storage")

URI = f"s3://{BUCKET}/raw/toy"
FILES = {"annotations.json": b"[]", **{f"imgs/cam {i % 2}/{i}.jpg": bytes([i]) * (100 + i) for i in range(6)}}
FILES["imgs/空.jpg"] = b"a name that is not ASCII"
HELD = "imgs/cam 1/5.jpg"
REST = {name: content for name, content in FILES.items() if name != HELD}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path / "source", FILES)
    return tmp_path / "source"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "components.s3.transfer", *arguments]


def failure(uri: str, folder: Path, kind: type[UserError] = UserError) -> str:
    with pytest.raises(UserError) as error:
        download(uri, folder)
    assert type(error.value) is kind
    assert SECRET not in str(error.value)
    return str(error.value)


def test_a_folder_comes_back_as_it_was_sent(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == FILES


@pytest.fixture
def no_wish_for_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHECKSUMS:
        monkeypatch.setenv(name, "")  # so that pytest removes what the code sets
        monkeypatch.delenv(name)


def test_servers_are_asked_for_no_checksums_that_only_some_know(
    s3: Server, folder: Path, tmp_path: Path, no_wish_for_checksums: None
) -> None:
    s3.fill({"other": b"by a client of boto3 with its defaults"})
    assert s3.checksums
    s3.checksums.clear()
    upload(folder, URI)
    download(URI, tmp_path / "copy")
    assert s3.checksums == []


def test_checksums_that_the_environment_asks_for_are_sent(
    s3: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CHECKSUMS:
        monkeypatch.setenv(name, "when_supported")
    upload(folder, URI)
    assert s3.checksums


def test_a_file_sent_in_parts_comes_back_whole(s3: Server, tmp_path: Path) -> None:
    content = {"big": os.urandom(9 << 20)}  # boto3 splits files from 8 MiB
    write_files(tmp_path / "source", content)
    upload(tmp_path / "source", URI)
    assert "-" in s3.client.head_object(Bucket=BUCKET, Key="raw/toy/big")["ETag"]
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == content


def test_what_other_tools_sent_is_taken_without_a_manifest(s3: Server, tmp_path: Path) -> None:
    s3.fill({"raw/toy/a/b.txt": b"text", "raw/toy/folder/": b"", "raw/toys/other": b"beside"})
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == {"a/b.txt": b"text"}


@pytest.mark.parametrize("with_manifest", [True, False])
def test_what_is_there_is_not_fetched_again_and_what_changed_is(
    s3: Server, folder: Path, tmp_path: Path, with_manifest: bool
) -> None:
    if with_manifest:
        upload(folder, URI)
    else:
        s3.fill({f"raw/toy/{name}": content for name, content in FILES.items()})
    download(URI, tmp_path / "copy")
    (tmp_path / "copy" / "imgs/cam 0/2.jpg").write_bytes(b"?" * 102)  # different content, equal size
    (tmp_path / "copy" / "imgs/cam 1/3.jpg").unlink()
    s3.requests.clear()
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == FILES
    fetched = [name for name in s3.asked("GET") if not name.endswith(MANIFEST)]
    assert fetched == ["raw/toy/imgs/cam 0/2.jpg", "raw/toy/imgs/cam 1/3.jpg"]


def test_an_upload_sends_only_what_is_not_there(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    (folder / "imgs/cam 0/2.jpg").write_bytes(b"?" * 102)
    (folder / "imgs/cam 0/4.jpg").unlink()
    s3.requests.clear()
    upload(folder, URI)
    assert set(s3.asked("PUT")) == {"raw/toy/imgs/cam 0/2.jpg", f"raw/toy/{MANIFEST}"}
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == read_files(folder)


def test_a_mirror_drops_what_is_no_longer_there(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    write_files(tmp_path / "copy", {"old.json": b"[]", "imgs/half.tmp": b"ha"})
    download(URI, tmp_path / "copy", mirror=True)
    assert read_files(tmp_path / "copy") == FILES


def kill_once(reached: Callable[[], bool], *arguments: str) -> None:
    """Start a command, and kill it when it has reached this point."""
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@contextmanager
def holding(s3: Server, method: str, held: str) -> Iterator[None]:
    """Leave such requests for this object unanswered, and refuse them in the end."""
    released = threading.Event()

    def hold(verb: str, name: str) -> Refused | None:
        if (verb, name) != (method, held):
            return None
        released.wait(60)
        return Refused("503 Slow Down", "SlowDown")

    s3.door = hold
    yield
    s3.door = lambda verb, name: None
    released.set()


def test_a_killed_download_goes_on_where_it_was(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    copy = tmp_path / "copy"

    def whole() -> dict[str, bytes]:
        return {name: content for name, content in read_files(copy).items() if not name.endswith(".tmp")}

    with holding(s3, "GET", f"raw/toy/{HELD}"):
        kill_once(lambda: whole().keys() == REST.keys(), "download", URI, str(copy))
    assert whole() == REST
    s3.requests.clear()
    download(URI, copy)
    assert read_files(copy) == FILES
    assert s3.asked("GET") == [f"raw/toy/{HELD}", f"raw/toy/{MANIFEST}"]


def test_a_killed_upload_is_refused_until_it_has_gone_on(s3: Server, folder: Path, tmp_path: Path) -> None:
    with holding(s3, "PUT", f"raw/toy/{HELD}"):
        kill_once(lambda: len(s3.names()) == len(REST) + 1, "upload", str(folder), URI)
    assert "its upload has not finished" in failure(URI, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    s3.requests.clear()
    upload(folder, URI)
    assert set(s3.asked("PUT")) == {f"raw/toy/{HELD}", f"raw/toy/{MANIFEST}"}
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == FILES


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_connection_that_breaks_is_taken_up_where_it_broke(s3: Server, tmp_path: Path, with_manifest: bool) -> None:
    content = {"film": os.urandom(3 << 20)}
    write_files(tmp_path / "source", content)
    upload(tmp_path / "source", URI) if with_manifest else s3.fill({"raw/toy/film": content["film"]})
    verdicts = [CutAfter(1_500_000), CutAfter(1_000_000)]
    s3.door = lambda method, name: verdicts.pop() if name.endswith("film") and method == "GET" and verdicts else None
    download(URI, tmp_path / "copy")
    assert read_files(tmp_path / "copy") == content
    assert not verdicts


def test_a_file_whose_manifest_tells_another_hash_is_refused(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    s3.fill({"raw/toy/imgs/cam 0/2.jpg": b"?" * 102})
    assert f"{URI}/imgs/cam 0/2.jpg: its sha256 is not" in failure(URI, tmp_path / "copy")
    assert not (tmp_path / "copy/imgs/cam 0/2.jpg").exists()


def test_files_that_are_missing_from_an_upload_are_named(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    s3.client.delete_object(Bucket=BUCKET, Key="raw/toy/imgs/cam 0/2.jpg")
    assert "imgs/cam 0/2.jpg of 8 files are missing or changed" in failure(URI, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("key", ["../evil", "imgs/../../../evil", "/etc/evil", "imgs//evil", "."])
def test_a_key_that_leads_out_of_the_folder_writes_nothing(s3: Server, tmp_path: Path, key: str) -> None:
    s3.fill({"raw/toy/good": b"", f"raw/toy/{key}": b"evil"})
    assert f"the key {key!r} leads out of the folder" in failure(URI, tmp_path / "copy" / "toy")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_both_file_and_folder_is_named(s3: Server, tmp_path: Path) -> None:
    s3.fill({"raw/toy/imgs": b"", "raw/toy/imgs/a.jpg": b""})
    assert "'imgs' is both an object and the folder of 'imgs/a.jpg'" in failure(URI, tmp_path / "copy")


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://b", "s3:/bucket/raw", "s3://bucket/raw/../x", "s3://bucket//raw", "raw"]
)
def test_what_is_no_address_is_named(uri: str, tmp_path: Path) -> None:
    assert f"{uri!r}: not an address in S3; write s3://bucket/folder" in failure(uri, tmp_path)


def test_an_empty_prefix_is_named(s3: Server, tmp_path: Path) -> None:
    assert failure(URI, tmp_path) == f"{URI}: nothing is there"


def test_a_missing_bucket_is_named(s3: Server, tmp_path: Path) -> None:
    assert failure("s3://elsewhere/raw", tmp_path) == "s3://elsewhere/raw: no such bucket"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", "access denied"),
        ("InvalidAccessKeyId", "the access key is unknown there"),
        ("SignatureDoesNotMatch", "the secret key does not belong to the access key"),
        ("ExpiredToken", "the credentials have expired"),
        ("TeapotError", "S3 answered TeapotError no"),
    ],
)
def test_a_refusal_of_s3_is_explained(s3: Server, tmp_path: Path, code: str, message: str) -> None:
    s3.door = lambda method, name: Refused("403 Forbidden", code)
    assert failure(URI, tmp_path).startswith(f"{URI}: {message}")


@pytest.mark.parametrize("status", ["503 Slow Down", "429 Too Many Requests", "500 Internal Server Error"])
def test_a_failure_of_s3_itself_may_pass(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3.door = lambda method, name: Refused(status, "SlowDown")
    assert failure(URI, tmp_path, TemporaryError).startswith(URI)


def test_a_refused_object_is_named(s3: Server, folder: Path, tmp_path: Path) -> None:
    upload(folder, URI)
    s3.door = lambda method, name: Refused("403 Forbidden", "AccessDenied") if name.endswith("5.jpg") else None
    assert failure(URI, tmp_path / "copy").startswith(f"{URI}/imgs/cam 1/5.jpg: access denied")
    with pytest.raises(UserError, match=r"imgs/cam 1/5\.jpg: access denied"):
        upload(folder, URI)


def test_missing_credentials_are_said(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in failure(URI, tmp_path)


def test_an_endpoint_that_is_not_there_is_named(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    message = failure(URI, tmp_path, TemporaryError)
    assert "http://127.0.0.1:1 cannot be reached" in message
    assert "Connection refused" in message


def test_an_endpoint_that_is_no_address_is_said(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio")
    assert "settings for S3: Invalid endpoint: minio" in failure(URI, tmp_path)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(
    s3: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(folder, URI)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    assert "GB, but the disk has 0.00 GB left" in failure(URI, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.fill({"raw/toy/a": b"text"})
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda digits: "0")
    (tmp_path / "copy" / "a.0.tmp").symlink_to("/dev/full")  # where the unfinished file would be
    with pytest.raises(OSError, match="No space left on device") as error:
        download(URI, tmp_path / "copy")
    assert error.value.filename == str(tmp_path / "copy" / "a")
    assert list((tmp_path / "copy").iterdir()) == []


def test_an_upload_of_nothing_is_refused(s3: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder, or it has no files to upload"):
        upload(tmp_path / "nowhere", URI)


def test_the_command_line_gives_messages_instead_of_tracebacks(s3: Server, tmp_path: Path) -> None:
    done = subprocess.run(command("download", URI, str(tmp_path)), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {URI}: nothing is there\n")
