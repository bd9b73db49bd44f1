"""Workarounds for what kfp does unasked or fails to do, found by reading and running version 2.17.

Each says what would happen without it, and links to a report if there is one.
"""

import json
import re
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from google.protobuf import json_format
from kfp import client as kfp_client
from kfp.local import subprocess_task_handler

from irra.utils.errors import UserError
from pipeline.graph import Pipeline

RESULT = "executor_output.json"  # every successful task leaves it in its folder
CONDITION = re.compile(r"'pipelinechannel--(?P<task>[\w-]+)-Output'\] == '(?P<value>.*)'$")


def disable_caching(spec: Mapping[str, Any]) -> None:
    """Disable caching in every graph of `spec`, also inside loops and branches.

    kfp's own option `enable_caching` reaches only the outermost graph, because `_override_caching_options` in
    kfp/client/client.py looks only at `root`. Tasks in loops and branches would still come from the cache.
    """
    for component in (spec["root"], *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}  # no enableCache means false


def separate_cache(spec: Mapping[str, Any], root: str) -> None:
    """Give tasks whose results go to the pipeline root `root` a cache of their own.

    KFP's key of a cached result holds the image, the command, its arguments and the inputs, but not where the result
    is. One from another root would be taken, and the next task could not read it. So the root becomes an argument,
    which kfp's executor passes over.
    """
    for executor in spec["deploymentSpec"]["executors"].values():
        if container := executor.get("container"):
            container["args"] = [*container.get("args", []), "--pipeline_root", root]


class QuietClient(kfp_client.Client):  # type: ignore[misc]
    """kfp's client without its warning, its retries and its context file; it overrides private methods.

    The warning says, every time, that the client does not support KFP 1.
    """

    def __init__(self, namespace: str, **arguments: Any) -> None:
        self._namespace = namespace
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(**arguments)

    def _load_config(self, *arguments: Any) -> Any:
        """Try once and follow no redirect; otherwise urllib3 warns three times and raises, or ends at a login page.

        https://github.com/kubeflow/pipelines/issues/4846
        """
        config = super()._load_config(*arguments)
        config.retries = urllib3.Retry(0, raise_on_redirect=False)
        return config

    def _load_context_setting_or_default(self) -> None:
        """Read no namespace or cookie from ~/.config/kfp/context.json, which another project may have written.

        kfp reads it by design: https://github.com/kubeflow/pipelines/pull/3417
        """
        self._context_setting = {"namespace": self._namespace}

    def set_user_namespace(self, namespace: str) -> None:
        """Set the namespace for this client only. In a pod, kfp calls this and would write the file above.

        https://github.com/kubeflow/pipelines/pull/4638
        """
        self._context_setting["namespace"] = namespace.strip()


def quote_interpreter() -> None:
    """Quote the path of this Python, which kfp's subprocess runner writes into a shell command as it is.

    A folder with a space in its name would end the command there: "not found".
    """
    original = subprocess_task_handler.replace_python_executable
    replace = getattr(original, "func", original)  # the original, also where this has run before

    def quoted(full_command: list[str], new_executable: str) -> list[str]:
        replaced: list[str] = replace(full_command, shlex.quote(new_executable))
        return replaced

    quoted.func = replace  # type: ignore[attr-defined]
    subprocess_task_handler.replace_python_executable = quoted


def run_here(pipeline: Pipeline, root: Path, values: Mapping[str, Any]) -> Path:
    """Run `pipeline` with the runner set by `local.init`. Return the folder of the run, the only one in `root`.

    Raises:
        UserError: A task failed (kfp raises RuntimeError) or ended without a result.
    """
    try:
        pipeline(**values)
    except RuntimeError as error:  # kfp's error for a failed task, in colour
        message = re.sub(r"\x1b\[\d+m", "", str(error)).rstrip(".")
        raise UserError(f"{message}; its log is above") from None
    except ValueError as error:  # perhaps a task left no result for the next one
        folders = list(root.iterdir())
        for folder in folders:
            check_finished(folder, pipeline, values)
        if not folders:  # not even the first task has written anything
            raise UserError(f"a task ended without a result ({error}); its log is above") from None
        raise
    (folder,) = root.iterdir()
    check_finished(folder, pipeline, values)
    return folder


def check_finished(run: Path, pipeline: Pipeline, values: Mapping[str, Any]) -> None:
    """Check that every task of `pipeline` left a result.

    DockerRunner counts a container that vanished as a success: https://github.com/kubeflow/pipelines/issues/13332

    Raises:
        UserError: A task left no result.
    """
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    silent = [str(task.relative_to(run)) for task in _silent(spec, spec["root"], run, run, values)]
    if silent:
        raise UserError(f"{', '.join(silent)}: ended without a result; its log is above")


def _silent(
    spec: Mapping[str, Any], component: Mapping[str, Any], run: Path, folder: Path, values: Mapping[str, Any]
) -> list[Path]:
    """Return the folders of tasks without a result that should have run, because all they depend on has one.

    The tasks of a branch have their folders next to it. Each iteration of a loop has a folder for its tasks.
    """
    if "dag" not in component:
        return [] if (folder / RESULT).exists() else [folder]
    silent: dict[str, list[Path]] = {}
    tasks = component["dag"]["tasks"]
    for name, task in tasks.items():
        inner = spec["components"][task["componentRef"]["name"]]
        folders = [path for path in _folders(name, task, "dag" in inner, folder, values) if _is_chosen(task, run)]
        silent[name] = [path for place in folders for path in _silent(spec, inner, run, place, values)]
    begun = [name for name, task in tasks.items() if not any(silent[other] for other in task.get("dependentTasks", ()))]
    return [path for name in begun for path in silent[name]]


def _folders(name: str, task: Mapping[str, Any], is_graph: bool, folder: Path, values: Mapping[str, Any]) -> list[Path]:
    """Return the folders in which a task of a graph in `folder` leaves its results."""
    if iterator := task.get("parameterIterator"):
        items = values[iterator["items"]["inputParameter"].removeprefix("pipelinechannel--")]
        return [folder / f"{name}-iteration-{index}" for index in range(len(items))]
    return [folder if is_graph else folder / name]


def _is_chosen(task: Mapping[str, Any], run: Path) -> bool:
    """Whether the condition of a branch holds: a task's output equals some value."""
    condition = task.get("triggerPolicy", {}).get("condition")
    if condition is None:
        return True
    match = CONDITION.search(condition)
    assert match, condition
    result = run / match["task"] / RESULT
    return (
        result.exists()
        and json.loads(result.read_text(encoding="utf-8"))["parameterValues"]["Output"] == match["value"]
    )
