"""The only adapter to LanceDB: tables in a folder or under an address in S3, with one message per failure.

S3 is set as usual: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION and so on.
"""

import os
import random
import re
import socket
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from irra.utils.errors import TemporaryError, UserError, without_password

S3 = "s3://"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
ANSWER_SECONDS = 10  # in which an endpoint must answer a first request
REQUEST = {"connect_timeout": "10s", "timeout": "60s", "client_max_retries": "3", "client_retry_timeout": "60"}
ATTEMPTS = 20  # of a change with which another writer's interferes
BATCH_ROWS = 8192  # rows read at once
VECTORS = "vectors"  # name of the index of the vectors
CHANGED = "was changed by another process; open it again"
REASONS = {  # what LanceDB says, and what that means
    "NoSuchBucket": "no such bucket",
    "AccessDenied": "access denied; the credentials in use do not allow this",
    "InvalidAccessKeyId": "the access key is unknown there; check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; get new ones",
    "CredentialsNotLoaded": "no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "403": "access denied; the credentials in use do not allow this",
    "no longer exists": CHANGED,
    "Not found": CHANGED,
    "No space left": "no space left on the device",
    "Permission denied": "permission denied",
}
PASSING = ("Connect", "Timeout", "TimedOut", "SlowDown", "status: 5", "commit conflict", "error sending request")

T = TypeVar("T")


class Database:
    """The tables in a folder or under an address in S3; nothing is created before the first table.

    Raises:
        UserError: The address is not one of these, LanceDB is not installed, or S3 does not answer; so do all methods.
    """

    def __init__(self, address: str, uri: str) -> None:
        self.address, self._uri = address, uri
        if not re.fullmatch(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{2,254}(/[^/]+)*/?" if "://" in uri else r"[^\0]+", uri):
            raise UserError(
                f"{address!r}: not the address of a gallery; write lance:FOLDER or lance:s3://BUCKET/PREFIX"
            )
        self.folder = None if uri.startswith(S3) else Path(uri).expanduser()

    def tables(self) -> list[str]:
        """Names of the tables."""
        if self.folder is not None and not self.folder.is_dir():
            return []
        with self._errors():
            names, token = [], None
            while True:
                page = self._connection.list_tables(page_token=token)
                names += page.tables
                token = page.page_token
                if not token:
                    return names

    def open(self, name: str) -> "Table | None":
        """The latest version of a table, if there is one of this name."""
        if self.folder is not None and not (self.folder / f"{name}.lance").is_dir():
            return None
        with self._errors():
            try:
                return Table(self, self._connection.open_table(name))
            except ValueError as error:
                if "was not found" in str(error):
                    return None
                raise

    def create(self, name: str, schema: pa.Schema, content: pa.Table | None = None) -> "Table | None":
        """Create a table; None if there is one of this name."""
        with self._errors():
            try:
                return Table(self, self._connection.create_table(name, content, schema=schema))
            except ValueError as error:
                if "already exists" in str(error):
                    return None
                raise

    def drop(self, name: str) -> None:
        """Remove a table with all of its files, and the folder if nothing else is there."""
        with self._errors():
            self._connection.drop_table(name, ignore_missing=True)
        if self.folder is not None:
            with suppress(OSError):
                self.folder.rmdir()

    @cached_property
    def _connection(self) -> Any:
        lancedb = load_lancedb()
        if self.folder is not None:
            return lancedb.connect(str(self.folder))
        endpoint = _first(ENDPOINTS)
        if endpoint:
            _check_endpoint(self.address, endpoint)
        region = _first(REGIONS) or ("us-east-1" if endpoint else "")
        options = {"aws_endpoint": endpoint, "region": region, "allow_http": str(endpoint.startswith("http:")).lower()}
        return lancedb.connect(
            self._uri, storage_options=REQUEST | {key: text for key, text in options.items() if text}
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of LanceDB into UserErrors that name the gallery."""
        try:
            yield
        except UserError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            raise self.error(error) from None

    def error(self, error: Exception) -> UserError:
        """What an error of LanceDB means."""
        text = str(error)
        if any(sign in text for sign in PASSING):
            if "commit conflict" in text:
                return TemporaryError(f"{self.address}: too many processes write it at once; try again later")
            where = without_password(_first(ENDPOINTS) or "S3")
            return TemporaryError(f"{self.address}: no answer from {where}; check AWS_ENDPOINT_URL and the network")
        for sign, reason in REASONS.items():
            if sign in text:
                return UserError(f"{self.address}: {reason}")
        return UserError(f"{self.address}: {without_password(_brief(text))}")


class Table:
    """A table at one version, which changes made through it renew. Reading is safe from several threads at once."""

    def __init__(self, database: Database, inner: Any) -> None:
        self._database, self._inner = database, inner

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        with self._errors():
            return self._inner.schema

    @property
    def version(self) -> int:
        """Number of the version."""
        with self._errors():
            return int(self._inner.version)

    def pin(self) -> "Table":
        """Stay at the present version, whatever is changed."""
        with self._errors():
            self._inner.checkout(self._inner.version)
        return self

    def renew(self) -> "Table":
        """Go to the latest version."""
        with self._errors():
            self._inner.checkout_latest()
        return self

    def count(self, where: str | None = None) -> int:
        """Number of rows that satisfy a condition."""
        with self._errors():
            return int(self._inner.count_rows(where))

    def scan(self, columns: Sequence[str], where: str | None = None, places: bool = False) -> Iterator[pa.RecordBatch]:
        """These columns of all rows that satisfy a condition, in any order; with `places`, also `_rowid`."""
        with self._errors():
            query = self._inner.search().select(list(columns)).with_row_id(places)
            yield from (query if where is None else query.where(where)).to_batches(BATCH_ROWS)

    def read(self, columns: Sequence[str], where: str | None = None, places: bool = False) -> pa.Table:
        """As `scan`, all at once."""
        with self._errors():
            query = self._inner.search().select(list(columns)).with_row_id(places)
            return (query if where is None else query.where(where)).to_arrow()

    def take(self, columns: Sequence[str], places: Sequence[int]) -> pa.Table:
        """These columns of the rows at `places`, in any order."""
        with self._errors():
            return self._inner.take_row_ids(list(places)).select(list(columns)).to_arrow()

    def nearest(
        self,
        column: str,
        query: NDArray[np.float32],
        count: int,
        columns: Sequence[str],
        where: str | None,
        probes: int,
    ) -> pa.Table:
        """These columns of about the `count` rows nearest to `query` (D,), in any order."""
        with self._errors():
            search = self._inner.search(query, vector_column_name=column).distance_type("dot").nprobes(probes)
            search = search.select([*columns, "_distance"]).limit(count)
            return (search if where is None else search.where(where)).to_arrow()

    def indexed(self, name: str) -> int | None:
        """Number of rows in an index; None if there is no such index."""
        with self._errors():
            found = self._inner.index_stats(name)
            return None if found is None else int(found.num_indexed_rows)

    def has_deleted(self) -> bool:
        """Whether files hold rows that were deleted."""
        with self._errors():
            return int(self._inner.list_versions()[-1]["metadata"].get("total_deletion_file_rows", "0")) > 0

    def changed_at(self) -> float:
        """Seconds since 1970 of the latest version."""
        with self._errors():
            return float(self._inner.list_versions()[-1]["timestamp"].timestamp())

    def add(self, rows: pa.Table) -> None:
        """Append rows."""
        self._change(lambda: self._inner.add(rows))

    def merge(self, on: Sequence[str], rows: pa.Table, insert: bool) -> None:
        """Replace the columns of `rows` in the rows of the same `on`; with `insert`, append the others."""

        def work() -> None:
            merge = self._inner.merge_insert(list(on)).when_matched_update_all()
            # vectors that are null are wanted here
            (merge.when_not_matched_insert_all() if insert else merge).execute(rows, on_bad_vectors="null")

        self._change(work)

    def update(self, where: str, values: Mapping[str, Any]) -> int:
        """Set columns of the rows that satisfy a condition; returns their number."""
        return int(self._change(lambda: self._inner.update(where=where, values=dict(values))).rows_updated)

    def rewrite(self, where: str) -> None:
        """Write rows that satisfy a condition anew, unchanged, so that no file holds them beside deleted ones."""
        self._change(lambda: self._inner.update(where=where, values_sql={"path": "path"}))

    def delete(self, where: str) -> None:
        """Delete the rows that satisfy a condition."""
        self._change(lambda: self._inner.delete(where))

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Add columns of nulls."""
        self._change(lambda: self._inner.add_columns(pa.schema(fields)))

    def drop_columns(self, names: Sequence[str]) -> None:
        """Remove columns."""
        self._change(lambda: self._inner.drop_columns(list(names)))

    def create_index(self, column: str, config: Any) -> None:
        """Index the vectors in a column."""
        self._change(lambda: self._inner.create_index(column, config=config, name=VECTORS, replace=True))

    def drop_index(self) -> None:
        """Remove the index of the vectors."""
        self._change(lambda: self._inner.drop_index(VECTORS))

    def tidy(self, older_than: timedelta, unverified: bool = False) -> None:
        """Join small files, index new rows, remove versions older than this; with `unverified`, also any leftovers."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="optimize", category=UserWarning)
            self._change(lambda: self._inner.optimize(cleanup_older_than=older_than, delete_unverified=unverified))

    def _change(self, work: Callable[[], T]) -> T:
        """Do `work` on the latest version, again if another writer's change interferes."""
        with self._errors():
            for attempt in range(ATTEMPTS):
                self._inner.checkout_latest()
                try:
                    return work()
                except (RuntimeError, OSError) as error:
                    if "commit conflict" not in str(error) or attempt == ATTEMPTS - 1:
                        raise
                time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 6)))
        raise AssertionError

    def _errors(self) -> Any:
        return self._database._errors()


def load_lancedb() -> Any:
    """LanceDB, imported on first use, and untyped because its type stubs are incomplete.

    Raises:
        UserError: It is not installed.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of what is tried again here
    try:
        import lancedb
    except ImportError:
        raise UserError("a gallery in LanceDB needs lancedb: pip install 'irra-pipeline[lance]'") from None
    return lancedb


def text_sql(text: str) -> str:
    """A string as a literal in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _check_endpoint(address: str, endpoint: str) -> None:
    """Ask the server once: LanceDB would wait for minutes for one that does not answer."""
    if not re.fullmatch(r"https?://[^/\s]+/?.*", endpoint):
        raise UserError(f"settings for S3: {without_password(endpoint)!r}: an endpoint looks like http://host:9000")
    try:
        urllib.request.urlopen(endpoint, timeout=ANSWER_SECONDS).close()
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError | ConnectionError | socket.gaierror | HTTPException | ValueError):
            raise TemporaryError(
                f"{address}: no answer from {without_password(endpoint)} ({_brief(str(reason))}); "
                "check AWS_ENDPOINT_URL and the network"
            ) from None


def _first(names: Sequence[str]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _brief(text: str) -> str:
    """The message of a LanceDB error without where in its source it arose."""
    return re.split(r", /\S+\.rs:\d+|\n", text.removeprefix("lance error: "))[0][:300]
