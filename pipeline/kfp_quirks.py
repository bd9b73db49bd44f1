"""Guards against what kfp does unasked or leaves undone, found in the sources of 2.17 and by running it.

Each says what would happen without it, and where it is reported, if a report was found.
"""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
from google.protobuf import json_format
from kfp import client as kfp_client

from irra.utils.errors import UserError
from pipeline.graph import Pipeline

RESULT = "executor_output.json"  # what every task that ends well leaves in its folder
CONDITION = re.compile(r"'pipelinechannel--(?P<task>[\w-]+)-Output'\] == '(?P<value>.*)'$")


def disable_caching(spec: Mapping[str, Any]) -> None:
    """In every graph of `spec`: kfp's own option `enable_caching` reaches the outermost one alone.

    The tasks of loops and branches would still be taken from the cache, as long as `_override_caching_options` in
    kfp/client/client.py looks at `root` only.
    """
    for component in (spec["root"], *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}  # without enableCache, which is how false is written


class QuietClient(kfp_client.Client):  # type: ignore[misc]
    """kfp's client without a warning, attempts or a file that nobody asked for; its private methods are overridden.

    The warning says, each time, that the client is not for KFP 1.
    """

    def __init__(self, namespace: str, **arguments: Any) -> None:
        self._namespace = namespace
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(**arguments)

    def _load_config(self, *arguments: Any) -> Any:
        """One attempt and no redirect: urllib3 would warn three times and then raise, or end on a login page.

        https://github.com/kubeflow/pipelines/issues/4846
        """
        config = super()._load_config(*arguments)
        config.retries = urllib3.Retry(0, raise_on_redirect=False)
        return config

    def _load_context_setting_or_default(self) -> None:
        """No namespace and no cookie from ~/.config/kfp/context.json, which another project may have written.

        https://github.com/kubeflow/pipelines/pull/3417 has brought that file; it is meant so.
        """
        self._context_setting = {"namespace": self._namespace}

    def set_user_namespace(self, namespace: str) -> None:
        """For this client only: kfp calls it with a pod's own namespace, and would write it to that file.

        https://github.com/kubeflow/pipelines/pull/4638
        """
        self._context_setting["namespace"] = namespace.strip()


def run_here(pipeline: Pipeline, root: Path, values: Mapping[str, Any]) -> Path:
    """Run `pipeline` with the runner of `local.init`; returns the folder of the run, the only one in `root`.

    Raises:
        UserError: a task failed, for which kfp has a RuntimeError, or it ended without a result.
    """
    try:
        pipeline(**values)
    except RuntimeError as error:  # kfp's word for a failed task, in colours
        message = re.sub(r"\x1b\[\d+m", "", str(error)).rstrip(".")
        raise UserError(f"{message}; its log is above") from None
    except ValueError as error:  # it may miss what a task without a result should have left
        folders = list(root.iterdir())
        for folder in folders:
            check_finished(folder, pipeline, values)
        if not folders:  # not even the first task has begun to write
            raise UserError(f"a task ended without a result ({error}); its log is above") from None
        raise
    (folder,) = root.iterdir()
    check_finished(folder, pipeline, values)
    return folder


def check_finished(run: Path, pipeline: Pipeline, values: Mapping[str, Any]) -> None:
    """UserError when a task of `pipeline` left nothing: DockerRunner takes a container that vanished for a success.

    https://github.com/kubeflow/pipelines/issues/13332
    """
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    silent = [str(task.relative_to(run)) for task in _silent(spec, spec["root"], run, run, values)]
    if silent:
        raise UserError(f"{', '.join(silent)}: ended without a result; its log is above")


def _silent(
    spec: Mapping[str, Any], component: Mapping[str, Any], run: Path, folder: Path, values: Mapping[str, Any]
) -> list[Path]:
    """The folders of tasks that should have run, since what they depend on has a result, and have none themselves.

    The tasks of a branch lie beside it, those of a loop in a folder for each of its iterations.
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
    """Where a task of a graph in `folder` leaves its results."""
    if iterator := task.get("parameterIterator"):
        items = values[iterator["items"]["inputParameter"].removeprefix("pipelinechannel--")]
        return [folder / f"{name}-iteration-{index}" for index in range(len(items))]
    return [folder if is_graph else folder / name]


def _is_chosen(task: Mapping[str, Any], run: Path) -> bool:
    """Whether the condition of a branch holds, which is that a task's output has some value."""
    condition = task.get("triggerPolicy", {}).get("condition")
    if condition is None:
        return True
    match = CONDITION.search(condition)
    assert match, condition
    result = run / match["task"] / RESULT
    return result.exists() and json.loads(result.read_text())["parameterValues"]["Output"] == match["value"]
