"""MLflow runs: stages log through `open_run`, and a failing server never stops them."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from components.tracking.mlflow_quirks import prepare_mlflow
from components.tracking.owner import OWNER_TAG, this_process
from components.tracking.spool import Record
from components.tracking.store import (
    MODEL_FINGERPRINT_TAG,
    connect,
    experiment_id,
    find_run,
    origin_tags,
    tracking_uri,
)
from components.tracking.sync import create_run, end_orphans, sync
from components.tracking.tracker import Tracker, warn
from irra.utils.errors import UserError


@contextmanager
def open_run(
    stage: str,
    *,
    run_id: str | None = None,
    model_fingerprint: str | None = None,
    run_name: str | None = None,
    system_metrics: bool = False,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Tracker]:
    """Open the MLflow run of `stage` and end it FINISHED, FAILED (an exception) or KILLED (an interrupt, an exit).

    It is the run in MLFLOW_RUN_ID, or else `run_id`, which an interrupted stage has saved, or else the latest run
    tagged with `model_fingerprint`, or else a new one, which gets `tags`. What earlier runs could not send is sent
    first.

    Raises:
        UserError: MLFLOW_TRACKING_URI, MLFLOW_RUN_ID or MLFLOW_EXPERIMENT_NAME is not usable.
    """
    prepare_mlflow()
    uri = tracking_uri()
    own = {**origin_tags(stage), OWNER_TAG: this_process()}
    if model_fingerprint:
        own[MODEL_FINGERPRINT_TAG] = model_fingerprint
    if tags and not os.environ.get("MLFLOW_RUN_ID"):
        own |= tags
    start = {"start": int(time.time() * 1000), "tags": own, "name": run_name}
    try:
        tracker = _connect(uri, run_id, model_fingerprint, start)
    except UserError:
        raise
    except Exception as error:
        warn("opening a run", error)
        given = os.environ.get("MLFLOW_RUN_ID") or run_id
        tracker = Tracker(None, None, {**start, "id": given})
    status = "FAILED"
    try:
        if system_metrics:
            tracker.start_system_metrics(uri)
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker.close(status)


def _connect(uri: str, run_id: str | None, model_fingerprint: str | None, start: Record) -> Tracker:
    client = connect(uri)
    if not os.environ.get("MLFLOW_RUN_ID"):
        _tidy(client, uri)
    run = find_run(client, uri, run_id, model_fingerprint) or create_run(client, start)
    if run.info.status != "RUNNING":
        client.update_run(run.info.run_id, status="RUNNING")
    tracker = Tracker(client, run, start)
    # Tags set by the stage that created the run are kept.
    known = {name: value for name, value in run.data.tags.items() if name != OWNER_TAG}
    tracker.set_tags({name: value for name, value in start["tags"].items() if name not in known})
    return tracker


def _tidy(client: Any, uri: str) -> None:
    """Send what earlier runs have left, and end those whose process was killed."""
    experiment = experiment_id(client, uri)  # outside, because a server that fails at this cannot open the run either
    try:
        sync(client)
        end_orphans(client, experiment)
    except UserError:
        raise
    except Exception as error:
        warn("sending what earlier runs have left", error, "It is tried again later.")
