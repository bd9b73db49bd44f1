"""Send what earlier runs could not send to MLflow, and end the runs of killed processes.

python -m components.tracking.sync      # what `make mlflow-sync` runs; every stage does the same at its start
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from components.stage import guarded
from components.tracking.ablations import ABLATION_TAG, TRAINING_TAG, nest
from components.tracking.logged_models import remove_orphans
from components.tracking.mlflow_quirks import prepare_mlflow
from components.tracking.owner import OWNER_TAG, is_gone
from components.tracking.spool import (
    FILES,
    Record,
    count_damaged,
    read_records,
    run_of,
    send_entries,
    send_file,
    spool_folder,
    waiting_files,
    write_records,
)
from components.tracking.store import (
    MODEL_FINGERPRINT_TAG,
    connect,
    existing_run,
    experiment_id,
    find_run,
    tracking_uri,
)
from irra.utils.errors import UserError, root_cause, without_password
from irra.utils.files import check_regular_file

NOT_SENT_TAG = "irra.not_sent"


def sync(client: Any) -> int:
    """Send everything that no living process keeps; returns the number of runs that got something."""
    return sum(_send_or_reject(client, path) for path in sorted(spool_folder().glob("*.jsonl")))


def end_orphans(client: Any, experiment: str) -> None:
    """End the runs of processes that are certainly gone as KILLED, except those that still have something to send.

    The models that such a process was making are removed.
    """
    remove_orphans(client, experiment)
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if is_gone(run.data.tags.get(OWNER_TAG, "")) and not waiting_files(run.info.run_id):
            client.set_terminated(run.info.run_id, "KILLED")


def finish(client: Any, run_id: str, status: str, sent: Path | None = None) -> bool:
    """End a run, unless a file other than `sent` still holds records of it; returns whether it was ended."""
    complete = not [path for path in waiting_files(run_id) if path != sent]
    if complete:
        client.set_terminated(run_id, status)
    return complete


def create_run(client: Any, start: Record) -> Any:
    """Make the run that a record describes, as part of its ablation if it belongs to one."""
    experiment, tags = experiment_id(client, tracking_uri()), dict(start["tags"])
    if ABLATION_TAG in tags:
        return nest(client, experiment, tags[ABLATION_TAG])
    run = client.create_run(experiment, start["start"], tags, start["name"])
    if TRAINING_TAG in tags:
        try:
            nest(client, experiment, tags[TRAINING_TAG])
        except Exception as error:
            print(f"warning: MLflow shows {start['name']} outside of its ablation ({error})", file=sys.stderr)
    return run


def find_or_create(client: Any, start: Record) -> str:
    """Return the id of the run for a stage that started without a server."""
    fingerprint = start["tags"].get(MODEL_FINGERPRINT_TAG)
    run = find_run(client, tracking_uri(), start.get("id"), fingerprint) or create_run(client, start)
    return str(run.info.run_id)


def _send_or_reject(client: Any, path: Path) -> bool:
    """Send one file; one that the server refuses for its content is set aside, so that it does not stop the others."""
    from mlflow.exceptions import MlflowException

    try:
        return _send_all(client, path)
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        rejected = path.rename(path.with_suffix(".rejected"))
        print(f"warning: MLflow refuses {rejected}: {str(error)[:300]}", file=sys.stderr)
        return False


def _send_all(client: Any, path: Path) -> bool:
    """Send one file and remove it; returns False if a living process keeps it."""
    with _own(path) as is_ours:
        if not is_ours:
            return False
        records, damaged = read_records(path), count_damaged(path)
        if not any("run" in record for record in records):
            print(f"warning: {path}: it does not say of which run it is; remove it", file=sys.stderr)
            return False
        lost = [f"{damaged} damaged lines of {path}"] if damaged else []
        for message in lost:
            print(f"warning: {message}; MLflow will not have them", file=sys.stderr)
        run_id = run_of(records) or _make_run(client, path, records)
        if existing_run(client, run_id):
            send_entries(client, run_id, records)
            lost += _send_files(client, run_id, [record for record in records if record.keys() & set(FILES)])
            _end(client, run_id, path, records, lost)
        path.unlink()
    return True


@contextmanager
def _own(path: Path) -> Iterator[bool]:
    """Lock a file; yields whether that worked, which it does if nobody else has it."""
    check_regular_file(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open(encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.fstat(file.fileno()).st_nlink > 0
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        yield is_ours


def _make_run(client: Any, path: Path, records: list[Record]) -> str:
    """Make the run of a training that started without a server, and note its id before anything is sent."""
    run_id = find_or_create(client, next(record["run"] for record in records if "run" in record))
    with path.open("a", encoding="utf-8") as file:
        write_records(file, [{"run": {"id": run_id}}])
    return run_id


def _send_files(client: Any, run_id: str, records: list[Record]) -> list[str]:
    """Upload artifacts; returns the messages of those that have changed since and cannot be sent any more."""
    lost = []
    for record in records:
        try:
            send_file(client, run_id, record)
        except UserError as error:
            lost.append(str(error))
            print(f"warning: {error}; MLflow will not have it", file=sys.stderr)
    return lost


def _end(client: Any, run_id: str, path: Path, records: list[Record], lost: list[str]) -> None:
    """End the run as its process wanted; it is not FINISHED if a part of it is lost."""
    statuses = [record["status"] for record in records if "status" in record]
    if lost:
        client.set_tag(run_id, NOT_SENT_TAG, "; ".join(lost)[:5000])
    if statuses:
        finish(client, run_id, "FAILED" if lost else statuses[-1], sent=path)


def run() -> None:
    """Synchronise with the store in use.

    Raises:
        UserError: The store does not answer, or fails.
    """
    prepare_mlflow()
    try:
        client = connect(tracking_uri())
        count = sync(client)
        end_orphans(client, experiment_id(client, tracking_uri()))
    except UserError:
        raise
    except Exception as error:
        reason = without_password(str(root_cause(error)))[:300]
        raise UserError(
            f"MLflow at {without_password(tracking_uri())}: sending failed ({reason}); "
            f"what is left stays in {spool_folder()}"
        ) from error
    print(f"{count} runs sent to {without_password(tracking_uri())}")


if __name__ == "__main__":
    raise SystemExit(guarded(run))
