"""What a real server reports of a run: the nodes of an Argo workflow, built from a pipeline.

A test compares it, entry by entry, with what KFP 2.17 answered.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any

NEVER = "0001-01-01T00:00:00Z"  # what has not ended ends then
DRIVER, POD = timedelta(seconds=10), timedelta(seconds=30)


def node_id(workflow: str, path: str) -> str:
    """Argo's id of a node: a hash (FNV-1a) of where it stands."""
    return f"{workflow}-{reduce(lambda hashed, byte: (hashed ^ byte) * 16777619 % 2**32, path.encode(), 2166136261)}"


@dataclass
class Workflow:
    """A run of `pipeline`, told from its beginning until the first task that runs or fails, or its end.

    Without `attempts` it is one of KFP 2.16 or older. Tasks run one after another.
    """

    name: str
    pipeline: Mapping[str, Any]
    running: bool = False  # the first task that is not cached still runs
    pending: bool = False  # ... and its pod waits
    failing: str | None = None  # this task fails, and ends the run
    cached: Iterable[str] = ()
    untaken: Iterable[str] = ()  # conditions that do not hold
    items: int = 1  # of every loop
    attempts: bool = True
    pods: dict[str, str] = field(default_factory=dict)  # id of a node -> its task
    stopped: str | None = None
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)  # by path

    def details(self) -> list[dict[str, Any]]:
        """Return the `task_details` of the run, in no order."""
        self.node(self.name, self.workflow)
        for entry in self.entries.values():
            entry["child_tasks"] = [
                {"pod_name": node_id(self.name, path)} for path in entry.pop("followers") if path in self.entries
            ]
            if not entry["child_tasks"]:
                del entry["child_tasks"]
        return sorted(self.entries.values(), key=lambda entry: str(entry["task_id"]))

    def workflow(self, at: str) -> list[str]:
        self.node(f"{at}.root-driver", self.pod, [f"{at}.root"], seconds=DRIVER)
        self.node(f"{at}.root", lambda inner: self.group(inner, self.pipeline["root"]["dag"]["tasks"]))
        return [f"{at}.root-driver"]

    def group(self, at: str, tasks: Mapping[str, Any]) -> list[str]:
        # A task begins with its driver. A loop's driver is inside.
        first = {name: f"{at}.{name}{'' if 'parameterIterator' in tasks[name] else '-driver'}" for name in tasks}
        waiting = dict(tasks)
        while waiting:
            name = next(n for n in sorted(waiting) if not set(waiting[n].get("dependentTasks", ())) & set(waiting))
            followers = [first[other] for other in tasks if name in tasks[other].get("dependentTasks", ())]
            self.task(at, name, waiting.pop(name), followers)
        return [first[name] for name in tasks if not tasks[name].get("dependentTasks")]

    def task(self, at: str, name: str, task: Mapping[str, Any], followers: list[str]) -> None:
        path, component = f"{at}.{name}", self.pipeline["components"][task["componentRef"]["name"]]
        inner = component.get("dag", {}).get("tasks")
        if "parameterIterator" in task:
            return self.node(path, lambda at: self.loop(at, inner), followers)
        self.node(f"{path}-driver", self.pod, [path], seconds=DRIVER)
        if name in self.untaken and not self.stopped:
            return self.add(path, "SKIPPED", self.now, self.now, followers)
        self.node(path, lambda at: self.group(at, inner) if inner else self.executor(at, name), followers)

    def executor(self, at: str, name: str) -> list[str]:
        path = f"{at}.executor"
        if name in self.cached:
            self.add(path, "SKIPPED", self.now, self.now)
        else:
            self.pods[node_id(self.name, f"{path}(0)" if self.attempts else path)] = name
            last = "RUNNING" if self.running else "FAILED" if name == self.failing else None
            self.node(path, self.pod, seconds=POD, last=last)
        return [path]

    def loop(self, at: str, tasks: Mapping[str, Any]) -> list[str]:
        all_, start = f"{at}.iteration-iterations", self.now
        self.node(f"{at}.iteration-driver", self.pod, [all_], seconds=DRIVER)
        each = [f"{all_}({index}:{index})" for index in range(self.items)]
        for path in each:
            self.node(path, lambda inner: self.iteration(inner, tasks))
        self.add(all_, self.stopped or "SUCCEEDED", start, self.now, each)
        return [f"{at}.iteration-driver"]

    def iteration(self, at: str, tasks: Mapping[str, Any]) -> list[str]:
        item = f"{at}.iteration-item"
        self.node(f"{item}-driver", self.pod, [item], seconds=DRIVER)
        self.node(item, lambda inner: self.group(inner, tasks))
        return [f"{item}-driver"]

    def pod(self, at: str) -> list[str]:
        return []

    def node(
        self,
        path: str,
        inside: Callable[[str], list[str]],
        followers: Iterable[str] = (),
        seconds: timedelta = timedelta(0),
        last: str | None = None,
    ) -> None:
        """Let a node happen, with the attempt at it. `last`: the state in which it ends the story."""
        if self.stopped:
            if self.stopped == "FAILED":  # omitted: no state
                self.add(path, None, self.now, self.now, followers)
            return
        start = self.now
        first = inside(f"{path}(0)" if self.attempts else path)
        self.now, self.stopped = self.now + seconds, last or self.stopped
        state = self.stopped or "SUCCEEDED"
        inner = "PENDING" if last and self.pending else state
        if self.attempts:
            self.add(f"{path}(0)", inner, start, self.now, [*first, *followers])
            self.add(path, state, start, self.now, [f"{path}(0)"])
        else:
            self.add(path, inner, start, self.now, [*first, *followers])

    def add(self, path: str, state: str | None, start: datetime, end: datetime, followers: Iterable[str] = ()) -> None:
        entry = {
            "task_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name} {path}")),
            "display_name": path.rpartition(".")[2],
            "create_time": "2026-01-01T00:00:00Z",
            "start_time": f"{start:%Y-%m-%dT%H:%M:%SZ}",
            "end_time": NEVER if state in ("RUNNING", "PENDING") else f"{end:%Y-%m-%dT%H:%M:%SZ}",
            "followers": list(followers),
        }
        self.entries[path] = {**entry, "state": state} if state else entry
