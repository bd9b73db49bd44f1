"""The one adapter to S3, or to what speaks like it: objects under an address, verified, each failure one message.

Endpoint, credentials and retries are boto3's own settings: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_PROFILE, AWS_MAX_ATTEMPTS and so on.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from irra.utils.errors import UserError, root_cause, without_password
from irra.utils.files import hash_file, replace_file

THREADS = 16  # transfers at once,
PARTS = 4  # and parts of a large one
ATTEMPTS = 5  # of a request, unless AWS_MAX_ATTEMPTS is set; and of a body whose connection breaks midway
CONNECT_SECONDS = 10.0
CHUNK_BYTES = 1 << 20
SHA256 = "sha256"  # the metadata key under which an object of ours carries its hash
DENIED, ABSENT = "access denied; the credentials in use do not allow this", "no such object"
S3_SAYS = {
    "AccessDenied": DENIED,
    "403": DENIED,  # the answer to a HEAD request is a bare status
    "404": ABSENT,
    "NoSuchKey": ABSENT,
    "NoSuchBucket": "no such bucket",
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidAccessKeyId": "the access key is not known there; check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY",
}


def is_remote(path: str) -> bool:
    """Whether `path` is an address in S3 rather than a folder here."""
    return path.startswith("s3://")


@dataclass(frozen=True)
class Object:
    """What a listing says of an object."""

    size: int  # bytes
    etag: str  # the content's MD5, where the object was sent in one part and is not encrypted with a managed key
    modified: int  # nanoseconds since 1970, a whole number of seconds

    def is_copied_to(self, path: Path, sha256: str | None) -> bool:
        """Whether `path` has the content of this object: its hash, or the time that `get` gave the file, tells."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if sha256:
            return hash_file(path) == sha256
        return self.modified == path.stat().st_mtime_ns or self.etag == hash_file(path, "md5")


class RemoteFolder:
    """The objects under an address `s3://bucket/folder`, by their names inside it; threads may share it.

    All that S3 or the network refuses is raised as a UserError, in whose message there is never a secret.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = parse_address(uri)
        self._client = _connect()

    def list(self) -> dict[str, Object]:
        """All objects, except the empty ones with which some tools stand for folders."""
        with self._explained():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            items = [item for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
        return {
            item["Key"].removeprefix(self._prefix): Object(
                item["Size"], item["ETag"].strip('"'), _nanoseconds(item["LastModified"])
            )
            for item in items
        }

    def metadata(self, name: str) -> dict[str, str]:
        """What `put` noted on an object."""
        with self._explained(name):
            found: dict[str, str] = self._client.head_object(**self._at(name))["Metadata"]
        return found

    def read(self, name: str) -> bytes:
        """The content of a small object."""
        with self._explained(name):
            content: bytes = self._client.get_object(**self._at(name))["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a small object."""
        with self._explained(name):
            self._client.put_object(**self._at(name), Body=content)

    def get(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Copy an object to `path`, which appears when all of it is there and has the given or the known hash.

        UserError when the hash differs; OSError, with the name of the file, when the disk is full.
        """
        with self._explained(name), _naming(path), replace_file(path) as temporary:
            with temporary.open("wb") as file:
                answer = self._receive(name, file)
            algorithm, digest = (SHA256, sha256) if sha256 else _known_hash(answer)
            if digest and hash_file(temporary, algorithm) != digest:
                raise UserError(
                    f"{self.uri}/{name}: its {algorithm} is not the {digest} with which it was uploaded; "
                    "it was damaged, or replaced by another tool. Upload it again"
                )
            modified = _nanoseconds(answer["LastModified"])
            os.utime(temporary, ns=(modified, modified))

    def put(self, file: BinaryIO, name: str, metadata: Mapping[str, str]) -> None:
        """Copy an open file to an object that appears, or replaces an earlier one, when all of it has arrived.

        S3 compares what arrives with the checksum that comes along.
        """
        from boto3.s3.transfer import TransferConfig

        with self._explained(name):
            self._client.upload_fileobj(
                file,
                self._bucket,
                self._prefix + name,
                ExtraArgs={"Metadata": dict(metadata)},
                Config=TransferConfig(max_concurrency=PARTS),
            )

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._explained(name):
            self._client.delete_object(**self._at(name))

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _receive(self, name: str, file: BinaryIO) -> dict[str, Any]:
        """Write an object's body to `file`; where the connection breaks, go on from there. Returns S3's answer.

        boto3 tries requests again, but not the reading of a body: https://github.com/boto/boto3/issues/4111
        """
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        answer: dict[str, Any] = self._client.get_object(**self._at(name))
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
                break
            except (HTTPClientError, IncompleteReadError):
                if attempt == ATTEMPTS:
                    raise
            time.sleep(0.1 * 2**attempt)
            rest = {"Range": f"bytes={file.tell()}-", "IfMatch": answer["ETag"]}
            answer = self._client.get_object(**self._at(name), **rest)
        return answer

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            where = f"{self.uri}/{name}" if name else self.uri
            raise UserError(f"{where}: {_reason(error, self._client.meta.endpoint_url)}") from None


def parse_address(uri: str, name: str = "") -> tuple[str, str]:
    """Bucket and prefix of an address; the prefix is empty or ends in a slash.

    UserError for what is no address, in which `name` says which option or key it belongs to.
    """
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{2,254})((?:/[^/]+)*)/*", uri)
    if not match or {".", ".."} & set(match[2].split("/")):
        raise UserError(f"{name and f'{name}: '}{uri!r}: not an address in S3; write s3://bucket/folder")
    return match[1], f"{match[2][1:]}/" if match[2] else ""


def _connect() -> Any:
    """A client; UserError when the settings for it cannot be used."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        retries = {
            "mode": os.environ.get("AWS_RETRY_MODE", "standard"),
            "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS)),
        }
        config = Config(retries=retries, connect_timeout=CONNECT_SECONDS, max_pool_connections=THREADS * PARTS)
        # the default session keeps old credentials: https://github.com/boto/boto3/issues/1574
        return boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"settings for S3: {without_password(str(error))}; an endpoint is http://host:9000") from None


def _nanoseconds(time: datetime) -> int:
    """Since 1970, without the fraction of a second, which only some of S3's answers tell."""
    return int(time.timestamp()) * 10**9


def _known_hash(answer: Mapping[str, Any]) -> tuple[str, str | None]:
    """The algorithm and hash that S3's answer tells of an object's content: ours, or an ETag that is its MD5."""
    if SHA256 in answer["Metadata"]:
        return SHA256, answer["Metadata"][SHA256]
    etag = answer["ETag"].strip('"')
    managed_key = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
    return "md5", etag if re.fullmatch("[0-9a-f]{32}", etag) and not managed_key else None


def _reason(error: Exception, endpoint: str) -> str:
    from botocore import exceptions as botocore

    if isinstance(error, botocore.ClientError):
        answer = error.response["Error"]
        return S3_SAYS.get(answer["Code"]) or f"S3 answered {answer['Code']} {answer.get('Message', '')}"
    if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        return "no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, (botocore.ConnectionError, botocore.HTTPClientError, botocore.IncompleteReadError)):
        reason = without_password(f"{endpoint} cannot be reached, or broke off ({root_cause(error)})")
        return f"{reason}; check AWS_ENDPOINT_URL and the network"
    return without_password(str(error))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in an error of writing, such as a full disk's, which names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
