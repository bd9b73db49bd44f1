"""Our tasks, their states and their pods, out of the `task_details` of a run.

A server reports every node of Argo's workflow. Beside our tasks these are the parts that run one (`train-driver`,
`executor`), the groups they stand in (`root`, `condition-1`, `for-loop-1`, `iteration-item`), the workflow itself, and
since KFP 2.17 every attempt at any of them (`train(0)`). An entry names the nodes that follow it by their ids, but
neither itself nor the group it is in, so a loop's tasks all look alike. But Argo makes an id out of the node's place,
`irra-x7k2p(0).root(0).train(0).executor(0)`: we walk through the groups and ask which of the possible nodes exist.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

ATTEMPT = re.compile(r"\(\d+\)$")
ITERATION = re.compile(r"iteration-iterations\((\d+):\d+\)")
GROUP = re.compile(r"root|iteration-item|(condition|condition-branches|for-loop|exit-handler)-\d+")
LOOP = "trainings"  # the run's parameter with an item for each iteration


@dataclass(frozen=True)
class Task:
    """A task of ours; one in a loop for each iteration. `state` is KFP's, and empty if the task has not begun."""

    name: str
    iteration: int | None  # place in its loop, from 0
    state: str
    cached: bool
    started: datetime | None
    seconds: float | None  # it took, with all attempts
    attempts: int  # pods, one after another
    node: str | None  # id of the last pod's node
    words: tuple[str, ...] = ()  # what tells it from the others of its loop: losses, seed, place

    @property
    def title(self) -> str:
        """The name, and in a loop the losses and the seed, or the place if they are not known."""
        if not self.words:
            return self.name
        *known, place = self.words
        return f"{self.name} ({', seed '.join(known) or place})"


def tasks_of(run: Any) -> list[Task]:
    """Return the tasks of a `V2beta1Run` in the order in which they began; those that have not come last."""
    nodes = Nodes([entry for entry in (run.run_details and run.run_details.task_details) or [] if entry.display_name])
    words = _loop_words(run, 1 + max(nodes.iterations.values(), default=-1))
    newest = {
        (task.name, task.iteration): task if task.iteration is None else replace(task, words=words[task.iteration])
        for workflow in nodes.attempts(nodes.workflow) or [nodes.workflow]
        for task in _walk(nodes, workflow)
    }
    return sorted(newest.values(), key=lambda task: (not task.started, task.started or 0, task.iteration or 0))


def describe(task: Task) -> str:
    """Return a task's state, and with it what a reader asks next."""
    if task.cached:
        return f"{task.state}, from the cache"
    if task.seconds is not None:
        return f"{task.state} after {timedelta(seconds=round(task.seconds))}"
    return f"{task.state}, attempt {task.attempts}" if task.attempts > 1 else task.state


def pods_are_pending(run: Any) -> bool:
    """Whether a pod of the run has not started: it waits for a node, or for its image."""
    details = (run.run_details and run.run_details.task_details) or []
    pods = [entry for entry in details if ATTEMPT.sub("", entry.display_name or "") == "executor"]
    return any(pod.state == "PENDING" for pod in pods)


def memory_limit(run: Any, name: str) -> str | None:
    """Return the memory limit of a task, such as "24Gi", if the server gives the pipeline with the run."""
    spec = run.pipeline_spec or {}
    executors = spec.get("pipeline_spec", spec).get("deploymentSpec", {}).get("executors", {})
    resources = executors.get(f"exec-{name}", {}).get("container", {}).get("resources", {})
    limit: str | None = resources.get("resourceMemoryLimit")
    return limit


class Nodes:
    """The nodes of a workflow that the entries speak of, found by their paths."""

    def __init__(self, entries: list[Any]) -> None:
        self.before = {(entry.display_name, child.pod_name): entry for entry in entries for child in _children(entry)}
        self.ids = {child for _, child in self.before}
        displayed = {entry.display_name for entry in entries}
        self.workflow = next(iter(displayed & {id_.rpartition("-")[0] for id_ in self.ids}), "")
        self.iterations = {name: int(match[1]) for name in displayed if (match := ITERATION.fullmatch(name))}
        self.names = sorted({ATTEMPT.sub("", name) for name in displayed} - set(self.iterations))

    def id(self, path: str) -> str:
        """Return the id of the node at `path`: Argo takes the 32-bit FNV-1a hash of it."""
        hashed = 0x811C9DC5
        for byte in path.encode():
            hashed = (hashed ^ byte) * 0x01000193 & 0xFFFFFFFF
        return f"{self.workflow}-{hashed}"

    def exists(self, path: str) -> bool:
        """Whether some entry names the node as one that follows it."""
        return self.id(path) in self.ids

    def attempts(self, path: str) -> list[str]:
        """Return the paths of the attempts at a node. Up to KFP 2.16, only pods with retries have any."""
        found: list[str] = []
        while self.exists(attempt := f"{path}({len(found)})"):
            found.append(attempt)
        return found

    def entry(self, name: str, follower: str) -> Any:
        """Return the entry `name` that is followed by the node at `follower`, or None."""
        return self.before.get((name, self.id(follower)))


def _children(entry: Any) -> list[Any]:
    return [child for child in entry.child_tasks or [] if child.pod_name]


def _walk(nodes: Nodes, group: str, iteration: int | None = None) -> Iterator[Task]:
    """Yield the tasks in the group at the path `group`; where there are several attempts, the newest last."""
    iterations = nodes.iterations if nodes.exists(f"{group}.iteration-iterations") else {}
    for name in (*nodes.names, *iterations):
        path = f"{group}.{name}"
        if name in ("executor", "iteration-iterations") or not nodes.exists(path):
            continue
        if name in iterations or GROUP.fullmatch(name):
            for attempt in nodes.attempts(path) or [path]:
                yield from _walk(nodes, attempt, iterations.get(name, iteration))
        elif not name.endswith("-driver"):
            yield _task(nodes, name, path, iteration)
        elif (driver := _driver(nodes, name, path, iteration)).state == "FAILED":
            yield driver  # KFP could not even prepare the task


def _task(nodes: Nodes, name: str, path: str, iteration: int | None) -> Task:
    attempts = nodes.attempts(path)
    executor = f"{[path, *attempts][-1]}.executor"
    # Up to KFP 2.16 `executor` is itself the pod. Since then it is what the attempts, its pods, belong to.
    pods = nodes.attempts(executor) or ([executor] if not attempts and nodes.exists(executor) else [])
    return _described(nodes, nodes.entry(name, attempts[0] if attempts else executor), name, iteration, pods)


def _driver(nodes: Nodes, name: str, path: str, iteration: int | None) -> Task:
    attempts = nodes.attempts(path)
    return _described(nodes, nodes.entry(name, f"{path}(0)"), name, iteration, attempts)


def _described(nodes: Nodes, entry: Any, name: str, iteration: int | None, pods: list[str]) -> Task:
    state = (entry and entry.state) or ""
    started, ended = (_real(entry.start_time), _real(entry.end_time)) if state else (None, None)
    return Task(
        name,
        iteration,
        state,
        # A cached task has no pod. Where that cannot be seen: no pod ends in the second in which it began.
        cached=state == "SUCCEEDED" and (not pods or started == ended),
        started=started,
        seconds=(ended - started).total_seconds() if started and ended else None,
        attempts=len(pods),
        node=nodes.id(pods[-1]) if pods else None,
    )


def _real(time: datetime | None) -> datetime | None:
    """Return a time, but None for the years 1 and 1970, in which the server dates what has not happened."""
    return time if time and time.year > 1970 else None


def _loop_words(run: Any, seen: int) -> list[tuple[str, ...]]:
    """Return what tells each iteration of the ablation from the others. KFP counts them as the run's list does.

    So many as `seen` are in the details, which matters if the run does not carry the list.
    """
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    items = [*(parameters.get(LOOP) or []), *[None] * seen]
    items = items[: max(seen, len(items) - seen)]
    return [(*_losses_and_seed(item), f"{place}/{len(items)}") for place, item in enumerate(items, 1)]


def _losses_and_seed(item: Any) -> tuple[str, ...]:
    """Return losses and seed of a training, from a dictionary or its JSON; nothing if they are not there."""
    try:
        section = json.loads(item) if isinstance(item, str) else item
        return str(section["loss_names"]), str(int(section["seed"]))
    except (ValueError, TypeError, KeyError):  # submitted by another version: the place must do
        return ()
