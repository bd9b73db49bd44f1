"""Follow a run on a Kubeflow Pipelines server: a line for each change of our tasks, and at the end what went wrong."""

import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Any

from irra.utils.errors import UserError
from pipeline.server.client import Client, NoAnswer, NoRun, Submission
from pipeline.server.task_details import Task, describe, memory_limit, pods_are_pending, tasks_of

POLL_SECONDS = 5.0
LOST_POLLS = 60  # five minutes without an answer
START_SECONDS = 180.0  # a pod needs longer only if its image is large, or if it cannot start
SHOWN_FAILURES, SHOWN_LINES = 3, 20
ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
KILLED = 137  # the exit status after SIGKILL, with which the kernel ends what needs too much memory
LAUNCHER_LINE = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ \S+:\d+\] (.*)")
KFP_LINE = re.compile(r"\[KFP Executor [^]]* INFO\]: ")


def follow(client: Client, submission: Submission) -> Submission:
    """Print a line for every change of state until the run ends. The server may be away for a few minutes.

    If tasks have failed, the last lines of their logs are printed, and `failure` of what is returned says why.

    Raises:
        UserError: The run was deleted, or the server was away for too long, or refused to answer.
    """
    shown: dict[tuple[str, int | None], str] = {}
    starts = _Starts(client, submission.run_id)
    for run in _polls(client, submission):
        tasks = tasks_of(run)
        lines = [((task.name, task.iteration), f"{task.title} {describe(task)}") for task in tasks if task.state]
        lines.insert(len(lines) if run.state in ENDED else 0, (("", None), f"run {run.state or 'PENDING'}"))
        for key, line in lines:
            if shown.get(key) != line:
                _say(line)
                shown[key] = line
        if run.state in ENDED:
            failure = _failure(client, run, tasks) if run.state in ("FAILED", "CANCELED") else None
            return replace(submission, state=run.state, failure=failure)
        if pods_are_pending(run):
            starts.check(tasks)
    raise AssertionError("polls end with the run")


def _say(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", flush=True)


def _polls(client: Client, submission: Submission) -> Iterator[Any]:
    lost, seen = 0, False
    while True:
        try:
            yield client.get_run(submission.run_id)
            lost, seen = 0, True
        except NoRun as error:
            if not seen:
                raise
            raise UserError(f"{error} any more: it was deleted while it was followed") from error
        except UserError as error:
            lost += 1
            if lost > LOST_POLLS or not isinstance(error, NoAnswer):
                raise UserError(f"{error}; the run continues: {submission.address}") from error
            if lost == 1:
                _say(f"{error}; asking again")
        time.sleep(POLL_SECONDS)


@dataclass
class _Starts:
    """Watches for pods that do not start, and says so once for each."""

    client: Client
    run_id: str
    since: dict[str, float] = field(default_factory=dict)  # by node: when it was first seen
    known: set[str] = field(default_factory=set)  # nodes that have started, or of which we have spoken

    def check(self, tasks: list[Task]) -> None:
        """Speak of the tasks that have run for some minutes and have no log yet. Some pod is known to be pending."""
        for task in tasks:
            if task.state != "RUNNING" or task.node is None or task.node in self.known:
                continue
            if monotonic() - self.since.setdefault(task.node, monotonic()) < START_SECONDS:
                continue
            self.known.add(task.node)
            try:
                self.client.get_log(self.run_id, task.node)
            except UserError:
                _say(f"{task.title}: no log after {START_SECONDS / 60:.0f} minutes, so {self.advice(task.node)}")

    def advice(self, node: str) -> str:
        """Say what keeps a pod from starting, and how to look. Its name ends like that of its node."""
        namespace = self.client.get_user_namespace() or "kubeflow"
        look = f"kubectl -n {namespace} describe pod -l pipeline/runid={self.run_id}"
        causes = "its image cannot be pulled, or no node has the resources that it asks for"
        return f"its pod has not started: {causes}; look at the one that ends in {node.rpartition('-')[2]}: {look}"


def _failure(client: Client, run: Any, tasks: list[Task]) -> str:
    """Print the ends of the failed tasks' logs, and return one line that says why they failed."""
    failed = [task for task in tasks if task.state == "FAILED"]
    reasons = [f"task {task.title} failed: {_reason(client, run, task)}" for task in failed[:SHOWN_FAILURES]]
    if more := failed[SHOWN_FAILURES:]:
        reasons.append(f"{len(more)} more failed")
    return "; ".join(reasons) or (run.error and run.error.message) or f"the run is {run.state}"


def _reason(client: Client, run: Any, task: Task) -> str:
    if task.node is None:
        return "it had no pod"
    try:
        log = client.get_log(run.run_id, task.node)
    except UserError as error:
        return f"its log cannot be read ({error})"
    lines = own_lines(log)
    for line in lines[-SHOWN_LINES:]:
        print(f"  {task.title} | {line}")
    whole = f"python -m pipeline logs {run.run_id} {shlex.quote(task.title)} --host {client.host}"
    print(f"  all of it: {whole}", flush=True)
    return out_of_memory(run, task) if exit_status(log) == KILLED else last_words(log, lines)


def out_of_memory(run: Any, task: Task) -> str:
    """Say that the memory ran out, and what to do. The kernel kills without a word, so 137 is all there is."""
    limit = memory_limit(run, task.name)
    cure = f"raise tasks.{task.name}.memory in the cluster settings"
    if task.name == "train":
        cure += ", or let the training need less: train.micro_batch, train.recompute, train.precision"
    ran_out = (
        f"its memory ran out{f' (the limit is {limit})' if limit else ''}, unless it was killed for another reason"
    )
    return f"exit status {KILLED}: {ran_out}; {cure}"


def last_words(log: str, lines: list[str]) -> str:
    """Return why a task failed: what KFP's launcher says, or the task itself, in its message or its last line."""
    launcher = [match[2] for line in log.splitlines() if (match := LAUNCHER_LINE.match(line)) and match[1] == "F"]
    if launcher and exit_status(log) is None:  # the task was done, but its results could not be stored
        return launcher[-1]
    messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return [*launcher, "it left no message", *lines[-1:], *messages[-1:]][-1]


def own_lines(log: str) -> list[str]:
    """Return a pod's log without what KFP's launcher and executor add to it: their notes, and the inputs as JSON."""
    lines, inputs = [], False
    for line in log.splitlines():
        if KFP_LINE.match(line):
            inputs = line.endswith("Got executor_input:")
        elif inputs:
            inputs = line != "}"
        elif line.strip() and not LAUNCHER_LINE.match(line):
            lines.append(line)
    return lines


def exit_status(log: str) -> int | None:
    """Return the exit status of the task's process, if the launcher says that it ended with another than 0."""
    found = [match[1] for line in log.splitlines() if (match := re.search(r"^[EF]\d{4} .*exit status (\d+)$", line))]
    return int(found[-1]) if found else None
