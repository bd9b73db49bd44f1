"""MLflow runs: stages log through `open_run`, and a failing server never stops them."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.tracking import waiting
from components.tracking.mlflow_quirks import prepare_mlflow
from components.tracking.store import (
    MODEL_FINGERPRINT_TAG,
    connect,
    experiment_id,
    find_run,
    origin_tags,
    tracking_uri,
)
from components.tracking.waiting import within
from irra.utils.errors import UserError, root_cause, without_password
from irra.utils.nested import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DATA_FINGERPRINT_TAG = "irra.data_fingerprint"
PARAM_CHARACTERS = 6000  # MLflow's limits
DIGEST_CHARACTERS = 36

CLOSE_SECONDS = 30.0  # the longest that a stage waits at its end for what is left to send
FLUSH_SECONDS = 2.0  # interval between two sendings of buffered entries
PATIENCE_SECONDS = 60.0  # how long sending is retried, so that nothing is lost when a server restarts


class Tracker:
    """One run in MLflow; once MLflow has failed, it does nothing.

    Entries are buffered and sent by a background thread; only artifacts are sent while the caller waits. The first
    lasting failure prints one warning; from then on every call returns at once. MLflow never makes a call raise.
    """

    def __init__(self, client: "MlflowClient | None" = None, run: "Run | None" = None) -> None:
        self.run_id: str | None = run.info.run_id if run else None  # None if there was no server at the start
        self._client: Any = client
        self._params: dict[str, str] = dict(run.data.params) if run else {}
        self._pending: list[Any] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._lost = run is None
        self._artifacts_lost = False
        self._monitor: Any = None
        self._sender = threading.Thread(target=self._send_until_closed, name="mlflow-sender", daemon=True)
        if run:
            self._sender.start()

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log `{"train": {"lr": 1e-5}}` as `train.lr`.

        MLflow does not let a run's parameter change: a different value from a later stage goes to the tag
        `changed.train.lr`.
        """
        if self._lost:
            return
        from mlflow.entities import Param, RunTag

        for name, given in flatten(params, ".").items():
            value = (given if isinstance(given, str) else json.dumps(given, default=str))[:PARAM_CHARACTERS]
            known = self._params.setdefault(name, value)
            self._append(Param(name, value) if known == value else RunTag(f"changed.{name}", value))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue `metrics` with the current time; takes microseconds."""
        if self._lost:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._append(*(Metric(name, float(value), now, step) for name, value in metrics.items()))

    def log_dataset(self, name: str, fingerprint: str, context: str) -> None:
        """Log the dataset `name` as an input of the run; `context` says what it is used for, such as "train"."""
        if self._lost:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"fingerprint": fingerprint})
        dataset = Dataset(name, fingerprint[:DIGEST_CHARACTERS], "prepared", source)
        self._append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
        self.set_tags({DATA_FINGERPRINT_TAG: fingerprint})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set `tags`, replacing earlier values."""
        if self._lost:
            return
        from mlflow.entities import RunTag

        self._append(*(RunTag(name, str(value)) for name, value in tags.items()))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file, or a folder under its own name, into `folder` of the run's artifacts."""
        self._upload(path, lambda: self._client.log_artifact(self.run_id, str(path), folder or None))

    def log_folder(self, path: Path, folder: str) -> None:
        """Copy the contents of the folder `path` into `folder` of the run's artifacts."""
        self._upload(path, lambda: self._client.log_artifacts(self.run_id, str(path), folder))

    def _upload(self, path: Path, upload: Callable[[], None]) -> None:
        assert path.exists(), path
        if self._lost or self._artifacts_lost:
            return
        try:
            self._check_server()  # notices a dead server sooner than a long upload would
            upload()
        except Exception as error:
            self._upload_failed(f"uploading {path}", error)

    def _upload_failed(self, action: str, error: Exception) -> None:
        """Give up on artifacts only, if the server still answers: their store can fail independently."""
        try:
            self._check_server()
        except Exception:
            self._give_up(action, error)
        else:
            self._artifacts_lost = True
            _warn(action, error, "Metrics are still sent; files are kept on disk only.")

    def _check_server(self) -> None:
        within(waiting.ANSWER_SECONDS, lambda: self._client.get_run(self.run_id))

    def _append(self, *entries: Any) -> None:
        with self._lock:
            self._pending.extend(entries)

    def _send_until_closed(self) -> None:
        last_success = time.monotonic()
        closing = False
        while not (closing or self._lost):
            closing = self._closing.wait(FLUSH_SECONDS)
            try:
                self._send_pending()
                last_success = time.monotonic()
            except Exception as error:
                if closing or time.monotonic() - last_success > PATIENCE_SECONDS:
                    self._give_up("sending metrics", error)

    def _send_pending(self) -> None:
        with self._lock:
            entries, self._pending = self._pending, []
        try:
            self._send(entries)
        except Exception:
            with self._lock:  # sending all of it again is safe: MLflow ignores what it already has
                self._pending = entries + self._pending
            raise

    def _send(self, entries: list[Any]) -> None:
        from mlflow.entities import DatasetInput, Metric, Param, RunTag

        def of(kind: type) -> list[Any]:
            return [entry for entry in entries if isinstance(entry, kind)]

        self._client.log_batch(self.run_id, of(Metric), of(Param), of(RunTag))  # splits the entries into requests
        if datasets := of(DatasetInput):
            self._client.log_inputs(self.run_id, datasets)

    def _start_system_metrics(self, uri: str) -> None:
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
            self._give_up("starting system metrics", error)

    def _close(self, status: str) -> None:
        """Send what is left and end the run; after a failure, make only one short attempt to end it."""
        if self.run_id is None:
            return
        try:
            within(CLOSE_SECONDS / 10 if self._lost else CLOSE_SECONDS, lambda: self._finish(status))
        except Exception as error:
            self._give_up("closing the run", error)

    def _finish(self, status: str) -> None:
        self._closing.set()
        if self._monitor:
            self._monitor.finish()
        self._sender.join()
        self._client.set_terminated(self.run_id, status)

    def _give_up(self, action: str, error: Exception) -> None:
        with self._lock:
            first, self._lost = not self._lost, True
            self._pending.clear()
        if first:
            _warn(action, error)


@contextmanager
def open_run(
    stage: str,
    *,
    run_id: str | None = None,
    model_fingerprint: str | None = None,
    run_name: str | None = None,
    system_metrics: bool = False,
) -> Iterator[Tracker]:
    """Open the MLflow run of `stage` and end it FINISHED, FAILED (an exception) or KILLED (an interrupt, an exit).

    It is the run in MLFLOW_RUN_ID, or else `run_id`, which an interrupted stage has saved, or else the latest run
    tagged with `model_fingerprint`, or else a new one.

    Raises:
        UserError: MLFLOW_TRACKING_URI, MLFLOW_RUN_ID or MLFLOW_EXPERIMENT_NAME is not usable.
    """
    prepare_mlflow()
    uri = tracking_uri()
    try:
        tracker = within(waiting.limit(uri), lambda: _connect(uri, stage, run_id, model_fingerprint, run_name))
    except UserError:
        raise
    except Exception as error:
        _warn("opening a run", error)
        tracker = Tracker()
    status = "FAILED"
    try:
        if system_metrics:
            tracker._start_system_metrics(uri)
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker._close(status)


def _connect(uri: str, stage: str, run_id: str | None, model_fingerprint: str | None, run_name: str | None) -> Tracker:
    client = connect(uri)
    tags = origin_tags(stage)
    run = find_run(client, uri, run_id, model_fingerprint)
    if run is None:
        if model_fingerprint:
            tags[MODEL_FINGERPRINT_TAG] = model_fingerprint
        return Tracker(client, client.create_run(experiment_id(client, uri), tags=tags, run_name=run_name))
    client.update_run(run.info.run_id, status="RUNNING")
    tracker = Tracker(client, run)
    # Tags set by the stage that created the run are kept.
    tracker.set_tags({name: value for name, value in tags.items() if name not in run.data.tags})
    return tracker


def _warn(
    action: str, error: BaseException, consequence: str = "The stage continues without it; metrics are kept on disk."
) -> None:
    root = root_cause(error)
    error = root if isinstance(root, OSError) else error
    reason = without_password(" ".join(str(error).split()))[:300] or type(error).__name__
    print(
        f"warning: MLflow at {without_password(tracking_uri())}: {action} failed ({reason}). {consequence}",
        file=sys.stderr,
    )
