"""The commands `status` and `logs`: what a run on a cluster is doing, whoever started it."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from irra.utils.errors import UserError
from pipeline.command_line import add_command, add_server, chosen_server
from pipeline.server.task_details import Task, describe, tasks_of

if TYPE_CHECKING:  # kfp takes a second, and `--help` should not
    from pipeline.server.client import Client


def add_commands(commands: Any) -> None:
    """Add the commands."""
    status = add_command(commands, "status", show_status, "show the tasks of a run on a Kubeflow cluster")
    logs = add_command(commands, "logs", show_log, "print the log of a task of a run on a Kubeflow cluster")
    for command in (status, logs):
        command.add_argument("run_id", metavar="RUN", help="the run's id, or its address in the browser")
        add_server(command)
    status.add_argument("--wait", action="store_true", help="follow the run, and fail if it fails")
    logs.add_argument(
        "task", metavar="TASK", nargs="+", help="its name; in an ablation with losses and seed, or a place such as 2/4"
    )


def show_status(options: argparse.Namespace) -> None:
    """Print a table of the tasks, or follow them."""
    from pipeline.server.follow import follow

    client, run_id = _client(options), options.run_id.rpartition("/")[2]
    run = client.get_run(run_id)
    submission = client.submission(run_id)
    print(f"{run.display_name}: {run.state or 'PENDING'}, {submission.address}", flush=True)
    if options.wait:
        submission = follow(client, submission)
        if submission.failure:
            raise UserError(submission.failure)
        return
    tasks = tasks_of(run)
    width = max((len(task.title) for task in tasks), default=0)
    for task in tasks:
        print(f"{task.title:{width}}  {_row(task)}")


def _row(task: Task) -> str:
    if not task.state:
        return "not run"
    if task.state == "RUNNING" and task.started:
        return f"{describe(task)}, for {timedelta(seconds=round((datetime.now(UTC) - task.started).total_seconds()))}"
    return describe(task)


def show_log(options: argparse.Namespace) -> None:
    """Print the whole log of a task's last pod."""
    client, run_id = _client(options), options.run_id.rpartition("/")[2]
    task = find_task(tasks_of(client.get_run(run_id)), " ".join(options.task))
    if task.node is None:
        raise UserError(
            f"{task.title} has no log: {'its results come from the cache' if task.cached else 'it had no pod'}"
        )
    print(client.get_log(run_id, task.node), end="")


def find_task(tasks: list[Task], wanted: str) -> Task:
    """Return the task that `wanted` names: "train"; in a loop "train (itc, seed 1)", "train itc 1", "train 2/4".

    Raises:
        UserError: There is none, or there are several.
    """
    words = [word for word in re.split(r"[\s(),]+", wanted) if word not in ("", "seed")]
    named = [task for task in tasks if words[:1] == [task.name] and set(words[1:]) <= set(task.words)]
    if len(named) == 1:
        return named[0]
    known = ", ".join(task.title for task in named or tasks) or "none yet"
    what = f"is {len(named)} tasks of this run" if named else "is no task of this run, or has not begun; there are"
    raise UserError(f"{wanted} {what}: {known}")


def _client(options: argparse.Namespace) -> "Client":
    from pipeline.server.client import Client

    return Client(chosen_server(options))
