"""Training on several nodes: what its pods get from the cluster's settings, partly through a TrainingRuntime.

A TrainJob names image, resources and plain variables of its pods. Kubeflow Trainer refuses or ignores all else in it:
secrets, tolerations, volumes and so on have to stand in the TrainingRuntime, which is applied beforehand.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from components.kubeflow_trainer import Nodes
from pipeline.cluster import SHARED_MEMORY, Cluster, NodeAffinity, Resources, SecurityContext, seconds

TEMPLATE = Path(__file__).with_name("training-runtime.yaml")
SERVICE_ACCOUNT = "pipeline-runner"  # that of Kubeflow Pipelines
Manifest = dict[str, Any]


def nodes_of(cluster: Cluster) -> Nodes:
    """Return what the task `train` has to know about its nodes."""
    resources = cluster.resources_of("train")
    requested = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator:
        requested[resources.accelerator.type] = str(resources.accelerator.count)
    return Nodes(
        runtime=training_runtime(cluster)["metadata"]["name"],
        num_nodes=resources.num_nodes,
        processes=resources.accelerator.count if resources.accelerator else 1,
        resources=requested,
        environment=list(cluster.environment),
        labels=cluster.labels,
        timeout=seconds(resources.timeout),
    )


def manifests(cluster: Cluster, namespace: str) -> list[Manifest]:
    """Return what has to be applied to a namespace: the TrainingRuntime, and the rights to use it."""
    _, role, binding = _template()
    binding["subjects"][0] |= {"name": cluster.service_account or SERVICE_ACCOUNT, "namespace": namespace}
    found = [training_runtime(cluster), role, binding]
    for manifest in found:
        manifest["metadata"]["namespace"] = namespace
    return found


def training_runtime(cluster: Cluster) -> Manifest:
    """Return the TrainingRuntime for the settings of `train`; its name has their hash, so that settings coexist."""
    runtime, resources = _template()[0], cluster.resources_of("train")
    spec = runtime["spec"]
    jobs = spec["template"]["spec"]
    jobs["failurePolicy"]["maxRestarts"] = resources.retries
    job = jobs["replicatedJobs"][0]["template"]["spec"]["template"]
    if described := _without_empty({"labels": cluster.labels, "annotations": cluster.annotations}):
        job["metadata"] = described
    job["spec"] = _pod(job["spec"], cluster, resources)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    runtime["metadata"]["name"] = f"irra-torch-{digest[:8]}"
    return runtime


def _template() -> list[Manifest]:
    return list(yaml.safe_load_all(TEMPLATE.read_text(encoding="utf-8")))


def _pod(template: Manifest, cluster: Cluster, resources: Resources) -> Manifest:
    """Return the template's pod with the cluster's settings in place of the template's."""
    volumes: list[Manifest] = [
        {"name": f"volume-{index}", "persistentVolumeClaim": {"claimName": volume.claim}}
        for index, volume in enumerate(cluster.volumes)
    ]
    mounts = [
        {"name": f"volume-{index}", "mountPath": volume.mount_path} for index, volume in enumerate(cluster.volumes)
    ]
    if resources.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": resources.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
        mounts.append({"name": "shared-memory", "mountPath": SHARED_MEMORY})
    container = template["containers"][0] | {
        "imagePullPolicy": cluster.image_pull_policy,
        "env": sorted(_variables(cluster), key=itemgetter("name")),  # in any order of the settings the same hash
        "volumeMounts": mounts,
    }
    if cluster.security_context:
        container["securityContext"] = _user(cluster.security_context)
    settings = {
        "serviceAccountName": cluster.service_account,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
        "nodeSelector": resources.node_selector,
        "tolerations": [toleration.model_dump(exclude_none=True) for toleration in resources.tolerations],
        "affinity": _affinity(resources.node_affinity),
        "volumes": volumes,
        "containers": [container],
    }
    kept = {name: value for name, value in template.items() if name not in settings}
    return kept | _without_empty(settings)


def _affinity(terms: Sequence[NodeAffinity]) -> Manifest:
    """Return what Kubeflow Pipelines makes of the same terms for its own pods."""
    required = [_selector(term) for term in terms if term.weight is None]
    preferred = [{"weight": term.weight, "preference": _selector(term)} for term in terms if term.weight]
    rules: Manifest = {
        "requiredDuringSchedulingIgnoredDuringExecution": required and {"nodeSelectorTerms": required},
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    return {"nodeAffinity": _without_empty(rules)} if terms else {}


def _selector(term: NodeAffinity) -> Manifest:
    return {"matchExpressions": [_without_empty(rule.model_dump()) for rule in term.match_expressions]}


def _user(context: SecurityContext) -> Manifest:
    fields = {
        "runAsUser": context.run_as_user,
        "runAsGroup": context.run_as_group,
        "runAsNonRoot": context.run_as_non_root,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _without_empty(settings: Manifest) -> Manifest:
    return {name: value for name, value in settings.items() if value}


def _variables(cluster: Cluster) -> Iterator[Manifest]:
    for secret in cluster.secrets:
        for key, variable in secret.environment.items():
            reference = {"name": secret.name, "key": key, "optional": secret.optional}
            yield {"name": variable, "valueFrom": {"secretKeyRef": reference}}
