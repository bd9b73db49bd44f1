"""What a training on several nodes gets from the cluster's settings: its task, its nodes and their TrainingRuntime."""

import json
from functools import cache
from typing import Any

import yaml

from components.kubeflow import section
from components.kubeflow_trainer import Nodes
from pipeline.cluster import Cluster
from pipeline.graph import ablation_pipeline, irra_pipeline
from pipeline.nodes import SERVICE_ACCOUNT, TEMPLATE, manifests, nodes_of, training_runtime
from tests.pipeline.packages import (
    IMAGE,
    LOSSES,
    SEEDS,
    cluster,
    compiled,
    containers,
    irra_package,
    several_nodes,
    tiny,
)

NAMESPACE = "kubeflow"


@cache
def package(num_nodes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return compiled(irra_pipeline(tiny(), IMAGE, several_nodes(num_nodes)))


def pod(settings: Cluster) -> dict[str, Any]:
    """The pod of a TrainingRuntime."""
    job = training_runtime(settings)["spec"]["template"]["spec"]["replicatedJobs"][0]
    return job["template"]["spec"]["template"]["spec"]


def changed(**changes: Any) -> Cluster:
    return Cluster.model_validate(cluster().model_dump() | changes)


def test_the_task_is_a_small_pod_that_outlives_its_nodes() -> None:
    spec, platform = package(2)
    small = cluster().default
    assert containers(spec)["train"]["resources"] == containers(spec)["gate"]["resources"]
    assert containers(spec)["train"]["resources"]["cpuLimit"] == float(small.cpu)
    train = platform["exec-train"]
    assert not {"tolerations", "nodeSelector", "emptyDirMounts"} & set(train)
    assert train["activeDeadlineSeconds"] == str(2 * 24 * 3600 + 3600)
    assert spec["root"]["dag"]["tasks"]["train"]["retryPolicy"]["maxRetryCount"] == 5


def test_the_task_keeps_the_environment_and_the_secrets_of_every_task() -> None:
    spec, platform = package(2)
    assert platform["exec-train"]["secretAsEnv"] == platform["exec-gate"]["secretAsEnv"]
    assert containers(spec)["train"]["env"] == containers(spec)["gate"]["env"]


def test_the_graph_is_the_same_as_with_one_node() -> None:
    def shape(num_nodes: int) -> tuple[dict[str, Any], Any]:
        spec, _ = irra_package() if num_nodes == 1 else package(num_nodes)
        tasks = spec["root"]["dag"]["tasks"]
        edges = {name: task.get("dependentTasks") for name, task in tasks.items()}
        return edges, spec["components"]["comp-train"]["outputDefinitions"]

    assert shape(2) == shape(1)


def test_trainings_of_an_ablation_take_the_nodes_too() -> None:
    spec, _ = compiled(ablation_pipeline(tiny(), IMAGE, several_nodes(2), LOSSES, SEEDS))
    (loop,) = [part for part in spec["components"].values() if "train" in part.get("dag", {}).get("tasks", {})]
    assert loop["dag"]["tasks"]["train"]["inputs"]["parameters"]["nodes"]["runtimeValue"]


def test_the_task_knows_its_nodes() -> None:
    given = package(2)[0]["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]["nodes"]["runtimeValue"]["constant"]
    assert section(Nodes, given) == nodes_of(several_nodes(2))


def test_a_node_has_a_process_for_each_accelerator() -> None:
    nodes = nodes_of(several_nodes(3, accelerator={"type": "nvidia.com/gpu", "count": 4}))
    assert (nodes.num_nodes, nodes.processes) == (3, 4)
    assert nodes.resources == {"cpu": "8", "memory": "24Gi", "nvidia.com/gpu": "4"}


def test_without_an_accelerator_a_node_has_one_process() -> None:
    assert nodes_of(several_nodes(2, accelerator=None)).processes == 1


def test_the_shipped_file_is_made_for_the_shipped_settings() -> None:
    """If this fails, take over what `python -m pipeline training-runtime` prints, also its name."""
    assert list(yaml.safe_load_all(TEMPLATE.read_text())) == manifests(cluster(), NAMESPACE)


def test_a_failure_restarts_all_pods_together() -> None:
    spec = training_runtime(several_nodes(2, retries=7))["spec"]["template"]["spec"]
    assert spec["failurePolicy"] == {"maxRestarts": 7}
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")


def test_settings_of_the_pods_reach_the_runtime() -> None:
    settings = several_nodes(2, node_selector={"gpu": "h100"}, shared_memory="32Gi").model_dump()
    settings |= {
        "volumes": [{"claim": "weights", "mount_path": "/data"}],
        "image_pull_policy": "Always",
        "image_pull_secrets": ["registry"],
        "service_account": "trainer",
    }
    found = pod(Cluster.model_validate(settings))
    (container,) = found["containers"]
    assert found["nodeSelector"] == {"gpu": "h100"}
    assert found["imagePullSecrets"] == [{"name": "registry"}]
    assert found["serviceAccountName"] == "trainer"
    assert [volume.get("persistentVolumeClaim") for volume in found["volumes"]] == [{"claimName": "weights"}, None]
    assert found["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/data", "/dev/shm"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in found["volumes"]]
    assert container["imagePullPolicy"] == "Always"


def test_the_pods_get_what_all_pods_get() -> None:
    affinity = [{"match_expressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}]
    affinity += [{"match_expressions": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 10}]
    settings = several_nodes(2, node_affinity=affinity).model_dump()
    settings |= {
        "labels": {"team": "search"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "security_context": {"run_as_user": 0, "run_as_non_root": False},
    }
    found = Cluster.model_validate(settings)
    template = training_runtime(found)["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert template["metadata"] == {"labels": settings["labels"], "annotations": settings["annotations"]}
    assert template["spec"]["containers"][0]["securityContext"] == {"runAsUser": 0, "runAsNonRoot": False}
    rule = {"key": "gpu", "operator": "In", "values": ["h100"]}
    assert template["spec"]["affinity"]["nodeAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [rule]}]},
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 10, "preference": {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}}
        ],
    }
    assert nodes_of(found).labels == {"team": "search"}


def test_settings_that_are_not_there_leave_nothing_of_the_shipped_ones() -> None:
    settings = several_nodes(2, tolerations=[], shared_memory=None).model_dump() | {"secrets": []}
    found = pod(Cluster.model_validate(settings))
    assert not {"tolerations", "volumes"} & set(found)
    assert not any(found["containers"][0][name] for name in ("env", "volumeMounts"))


def test_other_settings_of_the_pods_make_another_runtime() -> None:
    def name(settings: Cluster) -> str:
        return str(training_runtime(settings)["metadata"]["name"])

    assert name(several_nodes(2)) == name(several_nodes(3, cpu="4")) == name(cluster())
    assert name(several_nodes(2, shared_memory="1Gi")) != name(cluster())


def test_the_rights_go_to_the_account_of_the_tasks_in_their_namespace() -> None:
    def subject(settings: Cluster) -> tuple[str, str]:
        found = manifests(settings, "team")
        assert {manifest["metadata"]["namespace"] for manifest in found} == {"team"}
        return found[2]["subjects"][0]["name"], found[2]["subjects"][0]["namespace"]

    assert subject(cluster()) == (SERVICE_ACCOUNT, "team")
    assert subject(changed(service_account="trainer")) == ("trainer", "team")


def test_secrets_of_the_pods_are_references() -> None:
    text = json.dumps(manifests(cluster(), NAMESPACE))
    assert '"secretKeyRef": {"name": "irra-s3", "key": "AWS_SECRET_ACCESS_KEY", "optional": true}' in text
