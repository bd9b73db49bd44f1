"""The compiled pipelines: the same graph as in dvc.yaml, with all settings in place."""

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.kubeflow import section
from components.stages import SECTIONS, STAGES
from irra.config import PrepareConfig
from irra.utils.errors import UserError
from pipeline.cluster import TASKS, Cluster, load_cluster, seconds
from pipeline.graph import ablation_arguments, ablation_pipeline, irra_pipeline, tasks_in
from pipeline.kfp_quirks import disable_caching
from tests.imports import ROOT
from tests.pipeline.packages import (
    IMAGE,
    ablation_package,
    cluster,
    compiled,
    containers,
    irra_package,
    scheduled_package,
    tiny,
)

MAX_ARGUMENT, MAX_OBJECT = 128 << 10, 1 << 20  # bytes: of one argument of a process, of an object in Kubernetes
CHANGES: dict[str, Any] = {
    "volumes": [{"claim": "datasets", "mount_path": "/data"}],
    "environment": {"AWS_ENDPOINT_URL": "http://s3"},
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry"],
    "labels": {"kueue.x-k8s.io/queue-name": "team"},
    "annotations": {"sidecar.istio.io/inject": "false"},
    "security_context": {"run_as_user": 1000, "run_as_group": 0, "run_as_non_root": True},
}
TRAIN_CHANGES: dict[str, Any] = {
    "cpu_limit": "16",
    "node_selector": {"gpu": "a100"},
    "node_affinity": [
        {"match_expressions": [{"key": "gpu", "operator": "In", "values": ["a100", "h100"]}]},
        {"match_expressions": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 10},
    ],
}
SMALL = {"cpu": "2", "memory": "4Gi", "timeout": "2h", "retries": 0}


def dvc_edges() -> dict[str, set[str]]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    maker = {out if isinstance(out, str) else next(iter(out)): name for name in stages for out in stages[name]["outs"]}
    tasks = {name: stage for name, stage in stages.items() if STAGES[name].on_kubeflow}
    return {name: {maker[dep] for dep in tasks[name]["deps"] if maker.get(dep) in tasks} for name in tasks}


def edges(spec: dict[str, Any]) -> dict[str, set[str]]:
    return {name: set(task.get("dependentTasks", [])) for name, task in spec["root"]["dag"]["tasks"].items()}


def test_stages_and_edges_are_those_of_dvc() -> None:
    found = edges(irra_package()[0])
    assert {name: found[name] - {"check"} for name in dvc_edges()} == dvc_edges()


def test_a_model_is_registered_only_if_it_passes_the_gate() -> None:
    spec, _ = irra_package()
    (condition,) = [task for task in spec["root"]["dag"]["tasks"].values() if "triggerPolicy" in task]
    assert "== 'pass'" in condition["triggerPolicy"]["condition"]
    assert "gate" in condition["dependentTasks"]
    assert set(spec["components"][condition["componentRef"]["name"]]["dag"]["tasks"]) == {"register"}


def test_defaults_are_the_parameters_at_compile_time() -> None:
    definitions = irra_package()[0]["root"]["inputDefinitions"]["parameters"]
    params = tiny()
    for name in SECTIONS:
        sent = getattr(params, name)
        assert section(type(sent), definitions[name]["defaultValue"]) == sent


def test_all_is_cached_but_what_depends_on_the_champion() -> None:
    tasks = irra_package()[0]["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"prepare", "tokenize", "train", "evaluate", "index"}
    assert cached == {name for name in tasks if name in STAGES and STAGES[name].cached}


def test_training_sees_nothing_that_changes_from_run_to_run_or_concerns_later_tasks() -> None:
    """Otherwise, KFP's cache would not know a training again."""
    given = irra_package()[0]["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]
    assert given == {
        "config": {"componentInputParameter": "train"},
        "checkpoints": {"componentInputParameter": "train_checkpoints"},
    }


def test_every_pod_knows_its_run_by_its_label() -> None:
    for executor in irra_package()[1].values():
        assert executor["fieldPathAsEnv"] == [{"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}]


def test_training_waits_until_the_splits_are_checked() -> None:
    tasks = irra_package()[0]["root"]["dag"]["tasks"]
    assert "check" in tasks["train"]["dependentTasks"]
    assert "check" not in tasks["tokenize"]["dependentTasks"]


def caching(spec: dict[str, Any]) -> set[str]:
    """The names of the tasks that may come from the cache, at any depth."""
    graphs = [spec["root"], *spec["components"].values()]
    tasks = [item for graph in graphs for item in graph.get("dag", {}).get("tasks", {}).items()]
    return {name for name, task in tasks if task.get("cachingOptions", {}).get("enableCache") and name in STAGES}


@pytest.mark.parametrize("package", [irra_package, ablation_package, scheduled_package])
def test_a_new_training_takes_only_data_from_the_cache(package: Callable[[], tuple[Any, Any]]) -> None:
    spec = deepcopy(package()[0])
    before = caching(spec)
    disable_caching(spec, "train")
    assert caching(spec) == before & {"prepare", "tokenize"}


def test_a_schedule_reads_the_data_anew_and_ends_if_the_champion_is_up_to_date() -> None:
    spec, _ = scheduled_package()
    assert "prepare" not in caching(spec)
    tasks = spec["root"]["dag"]["tasks"]
    (condition,) = [task for task in tasks.values() if "triggerPolicy" in task]
    assert "== 'yes'" in condition["triggerPolicy"]["condition"]
    assert condition["dependentTasks"] == ["outdated", "prepare"]
    assert len(tasks) == 3


def test_a_schedule_trains_only_once_the_champion_could_be_evaluated_on_the_new_data() -> None:
    graphs = [
        component["dag"]["tasks"] for component in scheduled_package()[0]["components"].values() if "dag" in component
    ]
    (tasks,) = [tasks for tasks in graphs if "train" in tasks]
    assert {"check", "champion"} <= set(tasks["train"]["dependentTasks"])


def test_a_package_of_a_hundred_trainings_stays_within_the_limits_of_kubernetes() -> None:
    seeds = tuple(range(100))
    spec, platform = compiled(ablation_pipeline(tiny(), IMAGE, cluster(), ("sdm+mlm+id",), seeds))
    longest = max(len(json.dumps(value)) for value in ablation_arguments(tiny(), ("sdm+mlm+id",), seeds).values())
    assert longest < MAX_ARGUMENT / 4  # quoted and repeated among other arguments of a driver
    assert len(json.dumps([spec, platform])) < MAX_OBJECT / 4  # a workflow holds its templates, and the state of pods


def test_every_task_runs_in_the_image_and_says_so_to_mlflow() -> None:
    for container in containers(irra_package()[0]).values():
        assert container["image"] == IMAGE
        assert {"name": "IRRA_IMAGE", "value": IMAGE} in container["env"]


def test_only_tasks_that_compute_on_a_gpu_ask_for_one() -> None:
    asking = {
        name
        for name, container in containers(scheduled_package()[0]).items()
        if "accelerator" in container["resources"]
    }
    assert asking == {"train", "evaluate", "champion"}


def test_training_gets_shared_memory_and_a_toleration_for_the_gpu() -> None:
    train = irra_package()[1]["exec-train"]
    (mount,) = train["emptyDirMounts"]
    assert (mount["mountPath"], mount["medium"], mount["sizeLimit"]) == ("/dev/shm", "Memory", "8Gi")
    assert train["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_credentials_come_from_secrets_in_every_task() -> None:
    spec, platform = irra_package()
    for name in containers(spec):
        variables = {
            pair["envVar"] for secret in platform[f"exec-{name}"]["secretAsEnv"] for pair in secret["keyToEnv"]
        }
        assert {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"} <= variables


def test_tasks_are_retried_with_backoff_and_end_in_time() -> None:
    spec, platform = irra_package()
    train = spec["root"]["dag"]["tasks"]["train"]["retryPolicy"]
    assert (train["maxRetryCount"], train["backoffDuration"], train["backoffFactor"]) == (5, "60s", 2.0)
    assert platform["exec-train"]["activeDeadlineSeconds"] == str(2 * 24 * 3600)


def test_an_attempt_that_fails_at_its_timeout_leaves_time_for_all_retries() -> None:
    train = irra_package()[0]["root"]["dag"]["tasks"]["train"]["retryPolicy"]
    minutes = 6 * 2 * 24 * 60 + (1 + 2 + 4 + 8 + 16)  # six attempts of two days, and the waits between them
    assert train["backoffMaxDuration"] == f"{60 * minutes}s"


@cache
def changed_package() -> tuple[dict[str, Any], dict[str, Any]]:
    """The package with settings that the shipped ones leave out."""
    settings = cluster().model_dump() | CHANGES
    settings["tasks"]["train"] |= TRAIN_CHANGES
    return compiled(irra_pipeline(tiny(), IMAGE, Cluster.model_validate(settings)))


def test_labels_annotations_and_user_reach_every_pod() -> None:
    for pod in changed_package()[1].values():
        assert pod["podMetadata"] == {"labels": CHANGES["labels"], "annotations": CHANGES["annotations"]}
        assert pod["securityContext"] == {"runAsUser": "1000", "runAsGroup": "0", "runAsNonRoot": True}


def test_affinity_and_a_higher_limit_reach_their_task_alone() -> None:
    spec, platform = changed_package()
    with_affinity = {name: pod["nodeAffinity"] for name, pod in platform.items() if "nodeAffinity" in pod}
    required, preferred = TRAIN_CHANGES["node_affinity"]
    assert with_affinity == {
        "exec-train": [
            {"matchExpressions": required["match_expressions"]},
            {"matchExpressions": preferred["match_expressions"], "weight": 10},
        ]
    }
    limits = {name: container["resources"]["cpuLimit"] for name, container in containers(spec).items()}
    assert (limits["train"], limits["prepare"]) == (16.0, 8.0)


def test_trainings_of_an_ablation_start_a_few_at_a_time() -> None:
    tasks = ablation_package()[0]["root"]["dag"]["tasks"].values()
    (policy,) = [task["iteratorPolicy"] for task in tasks if "parameterIterator" in task]
    assert policy == {"parallelismLimit": cluster().parallelism}


def test_cluster_settings_reach_the_tasks() -> None:
    spec, platform = changed_package()
    train = platform["exec-train"]
    assert train["nodeSelector"]["labels"] == {"gpu": "a100"}
    for name, container in containers(spec).items():
        assert platform[f"exec-{name}"]["pvcMount"][0]["mountPath"] == "/data"
        assert platform[f"exec-{name}"]["imagePullPolicy"] == "Always"
        assert platform[f"exec-{name}"]["imagePullSecret"][0]["secretName"] == "registry"
        assert {"name": "AWS_ENDPOINT_URL", "value": "http://s3"} in container["env"]


def test_every_task_can_have_its_own_settings() -> None:
    packages = (irra_package(), ablation_package(), scheduled_package())
    assert {name for spec, _ in packages for name in containers(spec)} == set(TASKS)


def test_ablation_trains_every_loss_with_every_seed_on_the_same_data() -> None:
    parameters = ablation_package()[0]["root"]["inputDefinitions"]["parameters"]
    trainings = [tuple(training.values()) for training in parameters["trainings"]["defaultValue"]]
    assert trainings == [("itc", "0"), ("itc", "1"), ("sdm+id", "0"), ("sdm+id", "1")]
    assert section(PrepareConfig, parameters["prepare"]["defaultValue"]) == tiny().prepare


def test_ablation_compares_after_all_trainings() -> None:
    spec, _ = ablation_package()
    tasks = spec["root"]["dag"]["tasks"]
    ((name, loop),) = [(name, task) for name, task in tasks.items() if "parameterIterator" in task]
    assert name in tasks["compare"]["dependentTasks"]
    assert set(spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]) == {"train", "evaluate"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_pull_polcy": "Always"}, "did you mean 'image_pull_policy'?"),
        ({"tasks": {"trian": {}}}, "unknown task 'trian'"),
        ({"tasks": {"evaluate": {**SMALL, "memroy": "8Gi"}}}, "evaluate.memroy: unknown key; did you mean 'memory'?"),
        ({"volumes": [{"claim": "a", "mount_pth": "/a"}]}, "volumes.0.mount_pth: unknown key; did you mean"),
        ({"default": {"cpu": "two", "memory": "4Gi", "timeout": "2h", "retries": 0}}, "default.cpu"),
        ({"default": {"cpu": "2", "memory": "4Gi", "timeout": "2 hours", "retries": 0}}, "default.timeout"),
        ({"tasks": {"evaluate": {**SMALL, "num_nodes": 2}}}, "evaluate.num_nodes is 2, but only train runs on several"),
        ({"default": {**SMALL, "num_nodes": 2}}, "default.num_nodes is 2"),
        ({"backoff": {"duration": "1m", "factor": 1.5}}, "backoff.factor"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "abc"}}, "use `secrets`"),
        ({"environment": {"MLFLOW_TRACKING_URI": "http://me:word@mlflow:5000"}}, "use `secrets`"),
        ({"environment": {"MLFLOW_TRACKING_URI": "http://me:wo/rd@mlflow:5000"}}, "use `secrets`"),
        ({"environment": {"WANDB_API_KEY": "abc"}}, "use `secrets`"),
        ({"environment": {"DB_PWD": "abc"}}, "use `secrets`"),
        ({"environment": {"BASIC_AUTH": "abc"}}, "use `secrets`"),
        ({"environment": {"db_password": "abc"}}, "use `secrets`"),
    ],
)
def test_wrong_cluster_settings_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(cluster().model_dump() | changes))
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        load_cluster(path)
    assert str(path) in str(caught.value)


def test_a_pipeline_knows_its_tasks() -> None:
    tasks = ["prepare", "check", "tokenize", "train", "evaluate", "index", "gate", "register"]
    assert tasks_in(irra_pipeline(tiny(), IMAGE)) == tasks


def test_durations_are_seconds() -> None:
    assert [seconds(text) for text in ("90s", "2m", "3h", "1d")] == [90, 120, 10800, 86400]


def test_sections_are_dictionaries_which_the_page_shows_as_trees() -> None:
    definitions = irra_package()[0]["root"]["inputDefinitions"]["parameters"]
    assert {definitions[name]["parameterType"] for name in SECTIONS} == {"STRUCT"}


def test_no_two_tasks_have_an_output_of_the_same_name() -> None:
    components = irra_package()[0]["components"]
    made = [name for one in components.values() for name in one.get("outputDefinitions", {}).get("artifacts", {})]
    assert len(made) == len(set(made))
