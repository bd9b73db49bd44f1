"""One run in MLflow: entries are buffered, kept on disk, and sent when the server answers."""

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking import waiting
from components.tracking.logged_models import DIGEST_CHARACTERS, Description
from components.tracking.spool import Place, Record, Spool, file_record, send_entries, send_file, upload
from components.tracking.store import DATA_FINGERPRINT_TAG, connect, tracking_uri
from components.tracking.sync import NOT_SENT_TAG, find_or_create, finish
from components.tracking.waiting import within
from irra.utils.errors import root_cause, without_password
from irra.utils.nested import flatten

if TYPE_CHECKING:
    from mlflow.entities import Run

    from components.tracking.datasets import TrackedDataset

PARAM_CHARACTERS = 6000  # MLflow's limit

CLOSE_SECONDS = 30.0  # the longest that a stage waits at its end for what is left to send
FLUSH_SECONDS = 2.0  # interval between two sendings of buffered entries
PATIENCE_SECONDS = 60.0  # how long sending is retried, so that nothing is lost when a server restarts


class Tracker:
    """One run in MLflow.

    Entries are buffered and sent by a background thread; only artifacts are sent while the caller waits. Until then
    they are kept in a file too: what an outage or a kill keeps from being sent is sent when the server is back, at the
    latest at the start of a later stage. One warning says that the server is lost, and one that it is back. MLflow
    never makes a call raise.
    """

    def __init__(self, client: Any, run: "Run | None", start: Record) -> None:
        self.run_id: str | None = run.info.run_id if run else None  # None as long as there was no server
        self._client: Any = client
        self._start = start
        self._params: dict[str, str] = dict(run.data.params) if run else {}
        self._pending: list[Record] = []
        self._spool = Spool({"run": {"id": self.run_id, **start}})
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._lost = run is None
        self._spool_failed = False
        self._unsent = False  # whether the spool holds entries that are not pending any more
        self._in_memory_only = False  # whether the spool lacks some of those that are pending
        self._files: list[Record] = []  # artifacts that are still to be sent
        self._files_failed = False
        self._given_up = False  # closing took too long: what is left belongs to a later process
        self._monitor: Any = None
        self._sender = threading.Thread(target=self._send_until_closed, name="mlflow-sender", daemon=True)
        self._sender.start()

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log `{"train": {"lr": 1e-5}}` as `train.lr`.

        MLflow does not let a run's parameter change: a different value from a later stage goes to the tag
        `changed.train.lr`.
        """
        for name, value in as_params(params).items():
            known = self._params.setdefault(name, value)
            self._append({"param": [name, value]} if known == value else {"tag": [f"changed.{name}", value]})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> int:
        """Queue `metrics` with the current time in milliseconds, and return it; takes a tenth of one."""
        now = int(time.time() * 1000)
        self._append(*({"metric": [name, float(value), now, step]} for name, value in metrics.items()))
        return now

    def log_dataset(self, data: "TrackedDataset", context: str) -> None:
        """Log a dataset as an input of the run; `context` says what it is used for, such as "train"."""
        facts = [data.source_type, data.schema, data.profile]
        self._append({"dataset": [data.name, data.fingerprint[:DIGEST_CHARACTERS], data.source, context, *facts]})
        self.set_tags({DATA_FINGERPRINT_TAG: data.fingerprint})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set `tags`, replacing earlier values."""
        self._append(*({"tag": [name, str(value)]} for name, value in tags.items()))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or a folder under its own name, into `folder` of the run's artifacts."""
        self._upload("file", path, folder)

    def log_folder(self, path: Path, folder: str) -> None:
        """Copy the contents of the folder `path` into `folder` of the run's artifacts."""
        self._upload("folder", path, folder)

    def log_model(
        self, path: Path, fingerprint: str, epoch: int, data: tuple[str, str], metrics: Mapping[str, float], at: int
    ) -> None:
        """Make a model folder a logged model of the run, if it is none yet, and give it metrics.

        Args:
            path: The model folder, which is uploaded if MLflow has not got it.
            fingerprint: Of its weights.
            epoch: After which it was saved.
            data: Name and fingerprint of the dataset on which the metrics were measured.
            metrics: Their values at `epoch`, which the run has got too.
            at: The time that `log_metrics` returned for them.
        """
        self._upload("model", path, asdict(Description(fingerprint, epoch, *data, metrics, at, self._params)))

    def _upload(self, kind: str, path: Path, place: Place) -> None:
        assert path.exists(), path
        if not (self._lost or self._files_failed):
            try:
                if kind != "model":  # which begins with such a question
                    self._check_server()  # notices a dead server sooner than a long upload would
                upload(self._client, str(self.run_id), kind, path, place)
                return
            except Exception as error:
                self._upload_failed(f"uploading {path}", error)
        self._keep_file(kind, path, place)

    def _keep_file(self, kind: str, path: Path, place: Place) -> None:
        """Note an artifact, to send it later if it still has the same content."""
        with self._lock:
            record = file_record(kind, path, place)
            self._files.append(record)
            self._keep([record])

    def _upload_failed(self, action: str, error: Exception) -> None:
        """Give up on artifacts only, if the server still answers: their store can fail independently."""
        try:
            self._check_server()
        except Exception:
            self._lose(action, error)
        else:
            self._files_failed = True
            warn(action, error, "Metrics are still sent; files are sent later if they still exist.")

    def _check_server(self) -> None:
        self._client.get_run(self.run_id)

    def _append(self, *entries: Record) -> None:
        with self._lock:
            self._pending.extend(entries)
            try:
                self._spool.append(entries)
            except OSError:  # no loss as long as sending works
                self._in_memory_only = True

    def _send_until_closed(self) -> None:
        last_success = time.monotonic()
        while not self._closing.wait(FLUSH_SECONDS):
            try:
                self._flush()
                last_success = time.monotonic()
            except Exception as error:
                if time.monotonic() - last_success > PATIENCE_SECONDS:
                    self._lose("sending metrics", error)

    def _flush(self) -> None:
        """Send everything that is kept or pending; whatever could not be sent is kept."""
        count = len(self._pending)
        try:
            self._reach()
            entries = self._spool.read() if self._unsent else []
            send_entries(self._client, str(self.run_id), entries + self._pending[:count])
        except Exception:
            self._take(count, keep=True)
            raise
        self._take(count, keep=False)

    def _reach(self) -> None:
        """Check that a lost server is back, and make the run if there was none at the start."""
        if not self._lost:
            return
        if self._client is None:
            self._client = connect(tracking_uri())
        if self.run_id is None:
            self.run_id = find_or_create(self._client, self._start)
            with self._lock:
                self._spool.start = {"run": {"id": self.run_id}}
                self._keep([self._spool.start])
        self._check_server()

    def _take(self, count: int, *, keep: bool) -> None:
        """Remove the first `count` pending entries, which were sent or are to be kept."""
        with self._lock:
            if self._given_up:
                return
            if keep:
                self._keep_pending(count)
                self._unsent = True
            del self._pending[:count]
            if not keep:
                self._sent()

    def _keep_pending(self, count: int) -> None:
        """Make sure that the spool holds the first `count` pending entries."""
        if self._in_memory_only:
            self._keep(self._pending[:count])

    def _sent(self) -> None:
        self._unsent = False
        if not self._files:
            try:
                self._spool.remove(self._pending)
            except OSError:
                self._in_memory_only = True
        if self._lost:
            self._lost = False
            print(f"MLflow at {without_password(tracking_uri())} is back; what was kept was sent", file=sys.stderr)

    def _keep(self, records: list[Record]) -> None:
        """Write records to the spool; if that fails too, such as on a full disk, they are lost, which is said once."""
        try:
            self._spool.append(records)
        except OSError as error:
            if not self._spool_failed:
                warn("keeping what could not be sent", error, "Reports on disk are complete; this run will not be.")
            self._spool_failed = True

    def start_system_metrics(self, uri: str) -> None:
        """Start MLflow's own monitor, whose thread ends by itself if the server does not answer."""
        if self._lost:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        try:
            self._monitor = within(
                waiting.ANSWER_SECONDS, lambda: SystemMetricsMonitor(self.run_id, tracking_uri=uri, resume_logging=True)
            )
            self._monitor.start()
        except Exception as error:
            self._lose("starting system metrics", error)

    def close(self, status: str) -> None:
        """Send what is left and end the run within one time limit; leave to a later process what was not sent."""
        try:
            within(CLOSE_SECONDS / 5 if self._lost else CLOSE_SECONDS, lambda: self._finish(status))
        except Exception as error:
            self._lose("closing the run", error)
            with self._lock:
                self._given_up = True
                self._keep_pending(len(self._pending))
                self._keep([{"status": status}])
        self._spool.release()

    def _finish(self, status: str) -> None:
        self._closing.set()
        if self._monitor and not self._lost:
            self._monitor.finish()
        self._sender.join()
        self._flush()
        for record in list(self._files):
            send_file(self._client, str(self.run_id), record)
            self._files.remove(record)
        if self._spool_failed:
            self._client.set_tag(self.run_id, NOT_SENT_TAG, "metrics")
        complete = finish(self._client, str(self.run_id), "FAILED" if self._spool_failed else status, self._spool.path)
        with self._lock:
            if complete:
                self._spool.remove()
            else:  # an earlier stage of this run has something left to send, and the run ends after that
                self._keep([{"status": status}])

    def _lose(self, action: str, error: Exception) -> None:
        """Say once that the server is lost, until it is back."""
        with self._lock:
            first, self._lost = not self._lost and not self._files_failed, True
        if first:
            warn(action, error)


def as_params(params: Mapping[str, object]) -> dict[str, str]:
    """Convert nested parameters to MLflow's: `{"train": {"lr": 1e-5}}` to `{"train.lr": "1e-05"}`."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in flatten(params, ".").items()
    }
    return {name: text[:PARAM_CHARACTERS] for name, text in texts.items()}


def warn(
    action: str,
    error: BaseException,
    consequence: str = "The stage continues; metrics are kept on disk and sent later.",
) -> None:
    """Print that an `action` failed, why, and what follows from it."""
    root = root_cause(error)
    error = root if isinstance(root, OSError) else error
    reason = without_password(" ".join(str(error).split()))[:300] or type(error).__name__
    print(
        f"warning: MLflow at {without_password(tracking_uri())}: {action} failed ({reason}). {consequence}",
        file=sys.stderr,
    )
