"""What has not been sent to MLflow yet, kept in files so that neither an outage nor a kill loses it.

Every process writes a file of its own for each run, and holds a lock on it: a file that can be locked belongs to
nobody any more. It has one record in JSON per line, and is removed when all of them were sent; sending one twice is
harmless, because MLflow ignores what it already has. A record has one key:

    {"run": {"id": ...}}                    the run; without an id, what a new one is made from
    {"metric": [name, value, time, step]}, {"param": [name, value]}, {"tag": [name, value]}
    {"dataset": [name, digest, source, context, type of the source, schema, profile]}
    {"file": [path, folder, sha256]}        an artifact; in `folder` of the run's artifacts
    {"folder": [path, folder, sha256]}      the contents of a folder
    {"model": [path, description, sha256]}  a model folder that becomes a logged model; see logged_models.Description
    {"status": name}                        how the run ends

After a tab, each line has a checksum of its record.
"""

import fcntl
import hashlib
import json
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from components.layout import project
from components.tracking import waiting
from components.tracking.logged_models import Description, send_model
from components.tracking.store import tracking_uri
from components.tracking.waiting import within
from irra.utils.errors import UserError, without_password
from irra.utils.files import check_regular_file, hash_file

Record = Mapping[str, Any]
MAX_BYTES = 256 << 20  # of one file: some three million values
LINES = 1000  # sent at a time: about one request
FILES = ("file", "folder", "model")
Place = str | Mapping[str, Any]  # the folder of an artifact, or the description of a model


def spool_folder() -> Path:
    """Return the folder for the store in use; what is meant for one server is never sent to another."""
    store = hashlib.sha256(without_password(tracking_uri()).encode()).hexdigest()[:12]
    return project() / "mlflow-spool" / store


class Spool:
    """The file of one run; it exists from the first record that is kept until all were sent.

    `start` is its first record.
    """

    def __init__(self, start: Record) -> None:
        self.start = start
        self._file: TextIO | None = None
        self.path = _new_path()

    def append(self, records: Iterable[Record]) -> None:
        """Keep `records`.

        Raises:
            OSError: The disk or the file is full.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            write_records(self._file, [self.start])
        if self.path.stat().st_size > MAX_BYTES:
            raise OSError(f"{self.path} has reached its limit of {MAX_BYTES >> 20} MiB")
        write_records(self._file, records)

    def read(self) -> list[Record]:
        """Return what is kept."""
        return read_records(self.path) if self._file else []

    def remove(self, unsent: Sequence[Record] = ()) -> None:
        """Remove the file, since all of it was sent but `unsent`, which first get a new file.

        Raises:
            OSError: The disk is full.
        """
        file, path = self._file, self.path
        if file is None:
            return
        self._file, self.path = None, _new_path()
        try:
            if unsent:
                self.append(unsent)
        finally:
            path.unlink(missing_ok=True)
            file.close()

    def release(self) -> None:
        """Leave the file to the process that will send it."""
        if self._file:
            self._file.close()


def _new_path() -> Path:
    return spool_folder() / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"  # sorted by age


def write_records(file: TextIO, records: Iterable[Record]) -> None:
    """Append records to an open file."""
    lines = [json.dumps(record) for record in records]
    file.write("".join(f"{line}\t{_checksum(line)}\n" for line in lines))
    file.flush()


def read_records(path: Path) -> list[Record]:
    """Read a file; a line that is damaged, or that a killed process or a full disk left unfinished, is skipped."""
    return [record for record in _read_lines(path) if record is not None]


def count_damaged(path: Path) -> int:
    """Return how many lines of a file `read_records` skips."""
    return _read_lines(path).count(None)


def _read_lines(path: Path) -> list[Record | None]:
    """Read each line of a file; None for a damaged one.

    Raises:
        UserError: There is something else than a file.
    """
    check_regular_file(path)
    return [_read_line(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


def _read_line(line: str) -> Record | None:
    text, _, checksum = line.partition("\t")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_whole = checksum in ("", _checksum(text))  # an earlier version wrote none
    return record if is_whole and isinstance(record, dict) and len(record) == 1 else None


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def waiting_files(run_id: str) -> list[Path]:
    """Return the files that hold records of a run."""
    return [path for path in sorted(spool_folder().glob("*.jsonl")) if run_of(read_records(path)) == run_id]


def run_of(records: Iterable[Record]) -> str | None:
    """Return the id of the run that `records` belong to; None if it must still be made."""
    ids = [record["run"].get("id") for record in records if "run" in record]
    return ids[-1] if ids else None


def send_entries(client: Any, run_id: str, records: list[Record]) -> None:
    """Send metrics, parameters, tags and datasets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    def of(kind: str, part: list[Record]) -> Iterator[Any]:
        return (record[kind] for record in part if kind in record)

    known = client.get_run(run_id).data.params if any(of("param", records)) else {}
    for start in range(0, len(records), LINES):
        part = records[start : start + LINES]
        metrics = [Metric(*metric) for metric in of("metric", part)]
        tags = [RunTag(*tag) for tag in of("tag", part)]
        # A run made while the server was away may turn out to exist, with other values.
        changed = [
            RunTag(f"changed.{name}", value) for name, value in of("param", part) if value != known.get(name, value)
        ]
        params = [Param(name, value) for name, value in of("param", part) if value == known.get(name, value)]
        client.log_batch(run_id, metrics, params, tags + changed)
        for name, digest, source, context, *more in of("dataset", part):
            kind, *schema_and_profile = more or ["prepared"]  # an earlier version wrote no more
            inputs = Dataset(name, digest, kind, source, *schema_and_profile)
            client.log_inputs(run_id, [DatasetInput(inputs, [InputTag("mlflow.data.context", context)])])


def file_record(kind: str, path: Path, place: Place) -> Record:
    """Describe an artifact that is to be sent later, with the hash of its content."""
    return {kind: [str(path.absolute()), place, content_hash(path)]}


def send_file(client: Any, run_id: str, record: Record) -> None:
    """Upload the artifact in a record.

    Raises:
        UserError: The file is gone or has another content.
    """
    ((kind, (name, place, digest)),) = record.items()
    path = Path(name)
    if path.exists() and content_hash(path) == digest:
        upload(client, run_id, kind, path, place)
    elif kind != "model" or not send_model(client, run_id, Description(**place), None):
        raise UserError(f"{path}: no longer what was to be uploaded")


def upload(client: Any, run_id: str, kind: str, path: Path, place: Place) -> None:
    """Upload a file, or a folder or its contents, within a time that depends on the size.

    Raises:
        TimeoutError: It took longer.
    """
    size = sum(file.stat().st_size for file in _files(path))
    seconds = waiting.UPLOAD_SECONDS + size / waiting.UPLOAD_BYTES_PER_SECOND
    within(seconds, lambda: _upload(client, run_id, kind, path, place))


def _upload(client: Any, run_id: str, kind: str, path: Path, place: Place) -> None:
    if not isinstance(place, str):
        send_model(client, run_id, Description(**place), path)
    elif kind == "folder":
        client.log_artifacts(run_id, str(path), place or None)
    else:
        client.log_artifact(run_id, str(path), place or None)


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents in a folder."""
    if path.is_file():
        return hash_file(path)
    lines = [f"{file.relative_to(path)} {hash_file(file)}\n" for file in _files(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
