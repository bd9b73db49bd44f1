"""Submit a compiled pipeline to a Kubeflow Pipelines server, and follow its run.

Everything that can be checked locally is checked before the first request. The last request creates the run.
"""

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp_server_api

from irra.utils.errors import UserError
from pipeline.kfp_quirks import disable_caching
from pipeline.package import read_package, typed_arguments
from pipeline.server import Client, NoAnswer, Server, Submission

POLL_SECONDS = 5.0
LOST_POLLS = 60  # five minutes without an answer
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
# The server also reports its own tasks: drivers, the pod inside a task, retries, and the graph.
INNER_TASK = re.compile(r"(.+-driver|executor|root)(\(.*\))?")


def submit(
    package: Path,
    server: Server,
    *,
    experiment: str,
    run_name: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    pipeline_root: str | None = None,
    service_account: str | None = None,
    enable_caching: bool = True,
    wait: bool = False,
) -> Submission:
    """Create a run of `package`, print its address, and with `wait` follow it to its end.

    `arguments` may be typed, or text from a command line. `enable_caching=False` runs every task again, also inside
    loops and branches; otherwise the settings of the compiled pipeline apply. If the run itself fails, `failure` of
    the returned `Submission` says why.

    Raises:
        UserError: The run could not be created or followed.
    """
    spec, platform = read_package(package)
    values = typed_arguments(package, spec, arguments or {})
    if pipeline_root is not None and "://" not in pipeline_root:
        raise UserError(f"pipeline root {pipeline_root!r} is not an address such as s3://bucket/folder")
    if not enable_caching:
        disable_caching(spec)
    client = Client(server)
    client.check_api()
    body = kfp_server_api.V2beta1Run(
        experiment_id=client.experiment_id(experiment),
        display_name=run_name or f"{spec['pipelineInfo']['name']} {datetime.now():%Y-%m-%d %H:%M:%S}",
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform} if platform else spec,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=values, pipeline_root=pipeline_root),
        service_account=service_account,
    )
    submission = client.create_run(body)
    print(f"run {submission.run_id}: {submission.address}", flush=True)
    return follow(client, submission) if wait else submission


def follow(client: Client, submission: Submission) -> Submission:
    """Print a line for every change of state until the run ends. The server may be away for a few minutes.

    Raises:
        UserError: The server was away for too long, or refused to answer.
    """
    shown: set[tuple[str, str, str]] = set()
    for run in _polls(client, submission):
        states = [(task.task_id, f"task {task.display_name}", task.state or "PENDING") for task in _tasks(run)]
        for line in [("", "run", run.state or "PENDING"), *states]:
            if line not in shown:
                print(f"{datetime.now():%H:%M:%S}", *line[1:], flush=True)
                shown.add(line)
        if run.state in ENDED:
            failure = _failure(run) if run.state in ("FAILED", "CANCELED") else None
            return Submission(submission.run_id, submission.address, run.state, failure)
    raise AssertionError("polls end with the run")


def _polls(client: Client, submission: Submission) -> Iterator[Any]:
    lost = 0
    while True:
        try:
            yield client.get_run(submission.run_id)
            lost = 0
        except UserError as error:
            lost += 1
            if lost > LOST_POLLS or not isinstance(error, NoAnswer):
                raise UserError(f"{error}; the run continues: {submission.address}") from error
            if lost == 1:
                print(f"{datetime.now():%H:%M:%S} {error}; asking again", flush=True)
        time.sleep(POLL_SECONDS)


def _tasks(run: Any) -> list[Any]:
    """Return the tasks that the user wrote. The workflow is recognized by its pods, `<workflow>-<number>`."""
    every = [task for task in (run.run_details and run.run_details.task_details) or [] if task.display_name]
    pods = {child.pod_name or "" for task in every for child in task.child_tasks or []}
    workflows = {pod.rpartition("-")[0] for pod in pods}
    names = {task.display_name for task in every} - workflows
    return [task for task in every if task.display_name in names and not INNER_TASK.fullmatch(task.display_name)]


def _failure(run: Any) -> str:
    """Name the failed tasks, with their messages, which most servers leave empty."""
    failed = [task for task in _tasks(run) if task.state == "FAILED"]
    lines = [f"task {task.display_name} failed" + (f": {task.error.message}" if task.error else "") for task in failed]
    return "; ".join(dict.fromkeys(lines)) or (run.error and run.error.message) or f"the run is {run.state}"
