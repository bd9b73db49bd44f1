"""The only adapter to S3 and compatible stores: objects under an address, verified, with one message per failure.

Endpoint, credentials and retries are set as usual with boto3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_MAX_ATTEMPTS and so on.
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

from irra.utils.errors import TemporaryError, UserError, root_cause, without_password
from irra.utils.files import hash_file, replace_file

THREADS = 16  # concurrent transfers
PARTS = 4  # concurrent parts of a large upload
ATTEMPTS = 5  # per request, unless AWS_MAX_ATTEMPTS is set; also per body whose connection breaks midway
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0  # without a byte
CHUNK_BYTES = 1 << 20
CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
SHA256 = "sha256"  # the metadata key of the hash on objects that we upload
DENIED, ABSENT = "access denied; the credentials in use do not allow this", "no such object"
ERROR_REASONS = {
    "AccessDenied": DENIED,
    "403": DENIED,  # the answer to a HEAD request is a bare status
    "404": ABSENT,
    "NoSuchKey": ABSENT,
    "NoSuchBucket": "no such bucket",
    "ExpiredToken": "the credentials have expired; get new ones",
    "InvalidAccessKeyId": "the access key is unknown there; check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY",
}


def is_remote(path: str) -> bool:
    """Whether `path` is an address in S3 and not a local folder."""
    return path.startswith("s3://")


@dataclass(frozen=True)
class Object:
    """An entry of a listing."""

    size: int  # bytes
    etag: str  # the content's MD5 if the object was sent in one part and is not encrypted with a managed key
    modified: int  # nanoseconds since 1970, a whole number of seconds

    def is_copied_to(self, path: Path, sha256: str | None) -> bool:
        """Whether `path` has the content of this object, judged by its hash or by the time that `get` sets on files."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if sha256:
            return hash_file(path) == sha256
        return self.modified == path.stat().st_mtime_ns or self.etag == hash_file(path, "md5")


class RemoteFolder:
    """The objects under an address `s3://bucket/folder`, by their names relative to it. Thread-safe.

    Every method raises UserError when S3 or the network fails; the message never contains a secret.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, self._prefix = parse_address(uri)
        self._client = _connect()

    def list(self) -> dict[str, Object]:
        """List all objects, except the empty ones that some tools create for folders."""
        with self._user_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            items = [item for page in pages for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
        return {
            item["Key"].removeprefix(self._prefix): Object(
                item["Size"], item["ETag"].strip('"'), _nanoseconds(item["LastModified"])
            )
            for item in items
        }

    def metadata(self, name: str) -> dict[str, str]:
        """Read the metadata that `put` attached to an object."""
        with self._user_errors(name):
            metadata: dict[str, str] = self._client.head_object(**self._at(name))["Metadata"]
        return metadata

    def read(self, name: str) -> bytes:
        """Read a small object."""
        with self._user_errors(name):
            content: bytes = self._client.get_object(**self._at(name))["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a small object."""
        with self._user_errors(name):
            self._client.put_object(**self._at(name), Body=content)

    def get(self, name: str, path: Path, sha256: str | None = None, *, tidy: bool = True) -> None:
        """Download an object to `path`, which appears only when it is complete and its hash is right.

        The hash is `sha256`; without one, it is the hash that S3 knows, if any. `tidy` is that of `replace_file`.

        Raises:
            UserError: The hash differs, or S3 failed.
            OSError: The file cannot be written, such as on a full disk; the error names the file.
        """
        with self._user_errors(name), _name_file_in_errors(path), replace_file(path, tidy=tidy) as temporary:
            with temporary.open("wb") as file:
                answer = self._receive(name, file)
            algorithm, digest = (SHA256, sha256) if sha256 else _known_hash(answer)
            if digest and hash_file(temporary, algorithm) != digest:
                raise UserError(
                    f"{self.uri}/{name}: its {algorithm} is not {digest}, as it was when uploaded; "
                    "it was damaged, or replaced by another tool. Upload it again"
                )
            modified = _nanoseconds(answer["LastModified"])
            os.utime(temporary, ns=(modified, modified))

    def put(self, file: BinaryIO, name: str, metadata: Mapping[str, str], parts: int = PARTS) -> None:
        """Upload an open file; the object appears, or replaces an earlier one, only when it is complete.

        The hash in its metadata is compared when it is read; with AWS_REQUEST_CHECKSUM_CALCULATION=when_supported, S3
        also verifies what arrives, if the server can. With a single part at a time, boto3 starts no threads, which
        would keep the process alive while S3 hangs.
        """
        from boto3.s3.transfer import TransferConfig

        with self._user_errors(name):
            self._client.upload_fileobj(
                file,
                self._bucket,
                self._prefix + name,
                ExtraArgs={"Metadata": dict(metadata)},
                Config=TransferConfig(max_concurrency=parts, use_threads=parts > 1),
            )

    def delete(self, name: str) -> None:
        """Remove an object if it exists."""
        with self._user_errors(name):
            self._client.delete_object(**self._at(name))

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _receive(self, name: str, file: BinaryIO) -> dict[str, Any]:
        """Write an object's body to `file`, resuming when the connection breaks; returns S3's response.

        boto3 retries requests, but not the reading of a body: https://github.com/boto/boto3/issues/4111
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
    def _user_errors(self, name: str = "") -> Iterator[None]:
        """Turn errors of boto3 into UserErrors that name the object."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            where = f"{self.uri}/{name}" if name else self.uri
            kind = TemporaryError if _may_pass(error) else UserError
            raise kind(f"{where}: {_reason(error, self._client.meta.endpoint_url)}") from None


def parse_address(uri: str, name: str = "") -> tuple[str, str]:
    """Split an address into bucket and prefix, which is empty or ends in a slash.

    Args:
        uri: Such as s3://bucket/folder.
        name: The option or key that the address belongs to, for the error message.

    Raises:
        UserError: `uri` is not an address in S3.
    """
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{2,254})((?:/[^/]+)*)/*", uri)
    if not match or {".", ".."} & set(match[2].split("/")):
        raise UserError(f"{name and f'{name}: '}{uri!r}: not an address in S3; write s3://bucket/folder")
    return match[1], f"{match[2][1:]}/" if match[2] else ""


def _connect() -> Any:
    """Create a client of boto3.

    Raises:
        UserError: The settings are not usable.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        retries = {
            "mode": os.environ.get("AWS_RETRY_MODE", "standard"),
            "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS)),
        }
        for name in CHECKSUMS:  # servers other than AWS often do not know checksums in trailers
            os.environ.setdefault(name, "when_required")
        config = Config(
            retries=retries,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=THREADS * PARTS,
        )
        # the default session keeps old credentials: https://github.com/boto/boto3/issues/1574
        return boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise UserError(
            f"settings for S3: {without_password(str(error))}; an endpoint looks like http://host:9000"
        ) from None


def _may_pass(error: Any) -> bool:
    """Whether S3 did not answer, was too busy, or failed by its own fault."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    if isinstance(error, ClientError):
        status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status == 429 or status >= 500
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError)


def _nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, in whole seconds, because only some of S3's responses have fractions."""
    return int(moment.timestamp()) * 10**9


def _known_hash(answer: Mapping[str, Any]) -> tuple[str, str | None]:
    """Algorithm and hash of an object's content in S3's response: our SHA-256, or an ETag that is an MD5, or None."""
    if SHA256 in answer["Metadata"]:
        return SHA256, answer["Metadata"][SHA256]
    etag = answer["ETag"].strip('"')
    managed_key = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
    return "md5", etag if re.fullmatch("[0-9a-f]{32}", etag) and not managed_key else None


def _reason(error: Exception, endpoint: str) -> str:
    from botocore import exceptions as botocore

    if isinstance(error, botocore.ClientError):
        answer = error.response["Error"]
        return ERROR_REASONS.get(answer["Code"]) or f"S3 answered {answer['Code']} {answer.get('Message', '')}"
    if isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        return "no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, (botocore.ConnectionError, botocore.HTTPClientError, botocore.IncompleteReadError)):
        reason = without_password(f"{endpoint} cannot be reached, or dropped the connection ({root_cause(error)})")
        return f"{reason}; check AWS_ENDPOINT_URL and the network"
    return without_password(str(error))


@contextmanager
def _name_file_in_errors(path: Path) -> Iterator[None]:
    """Add the file's name to errors of writing that lack it, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
