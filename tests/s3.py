"""An S3 server for tests: moto's server behind a door that records every request, and can delay, refuse or break it.

A test module gets the fixtures with `pytest_plugins = ["tests.s3"]`. Test modules import this one before pytest could
rewrite its assertions (PYTEST_DONT_REWRITE); it has none.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUCKET = "bucket"
SECRET = "a-secret-of-the-tester"
NOWHERE = "/nonexistent"
CHECKSUM_HEADERS = ("HTTP_X_AMZ_TRAILER", "HTTP_X_AMZ_CHECKSUM_", "HTTP_X_AMZ_SDK_CHECKSUM_")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_CONFIG_FILE": NOWHERE,
    "AWS_SHARED_CREDENTIALS_FILE": NOWHERE,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Refused:
    """Answer with an S3 error."""

    status: str
    code: str


@dataclass(frozen=True)
class CutAfter:
    """Break the connection after this many bytes of the body."""

    bytes: int


Door = Callable[[str, str], Refused | CutAfter | None]


class Server:
    """A running S3 server with one bucket. `door` gets the method and object of every request first, and may wait."""

    def __init__(self) -> None:
        import boto3
        from botocore.config import Config
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        class Silent(MotoRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                pass

        self.requests: list[tuple[str, str]] = []
        self.checksums: list[str] = []  # headers of requests that servers other than AWS often do not know
        self.door: Door = lambda method, name: None
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Silent)
        self._server.log = lambda *args: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}
        config = Config(request_checksum_calculation="when_supported")  # boto3's default, whatever the environment says
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": SECRET}
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", config=config, **keys)
        self.client.create_bucket(Bucket=BUCKET)

    def asked(self, method: str) -> list[str]:
        """Return the sorted names of the objects requested with `method` since the last reset."""
        return sorted(name for verb, name in self.requests if verb == method and name)

    def fill(self, objects: dict[str, bytes]) -> None:
        """Write objects as other tools do: without metadata or a manifest."""
        for name, content in objects.items():
            self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def reset(self) -> None:
        """Empty the bucket, open the door and forget all requests."""
        self.door = lambda method, name: None
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=name)
        self.requests.clear()
        self.checksums.clear()

    def names(self) -> list[str]:
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{BUCKET}").strip("/")
        self.requests.append((method, name))
        self.checksums += [key for key in environ if key.startswith(CHECKSUM_HEADERS)]
        verdict = self.door(method, name)
        if isinstance(verdict, Refused):
            start_response(verdict.status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{verdict.code}</Code><Message>no</Message></Error>".encode()]
        body = self._application(environ, start_response)
        return _cut(body, verdict.bytes) if verdict else body


def _cut(body: Iterable[bytes], count: int) -> Iterator[bytes]:
    content = b"".join(body)
    yield content[:count]
    raise ConnectionAbortedError


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Empty the bucket, and give this process its address and keys."""
    s3_server.reset()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
