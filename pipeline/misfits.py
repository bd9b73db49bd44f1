"""Before a submission: which tasks could no node of the cluster hold, so that their pods would wait for ever.

    warn_of_misfits(load_cluster(Path("pipeline/cluster.yaml")))

Whoever submits may often not list nodes, or has no kubeconfig: then nothing is said.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from pipeline.cluster import TASKS, Cluster, MatchExpression, NodeAffinity, Resources, Toleration
from pipeline.command_line import warn

SECONDS = 3.0  # a kubeconfig whose cluster is gone shall not hold up a submission
KUBECONFIG = "~/.kube/config"
OPERATORS: dict[str, Callable[[str | None, Sequence[str]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
    "Gt": lambda value, values: value is not None and value.isdecimal() and int(value) > int(values[0]),
    "Lt": lambda value, values: value is not None and value.isdecimal() and int(value) < int(values[0]),
}


@dataclass(frozen=True)
class Taint:
    """What keeps pods from a node unless they tolerate it."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Node:
    """A node: what it has for pods (quantities of Kubernetes, such as `1930m` and `7Gi`), its labels and its taints."""

    name: str
    allocatable: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Taint] = ()


def misfits(cluster: Cluster, nodes: Sequence[Node], tasks: Sequence[str] = TASKS) -> list[str]:
    """Say which `tasks` no node could hold, even if it were empty, and what the node that comes closest lacks.

    Tasks with the same reason share a line. Without any nodes there is nothing to compare, and nothing to say.
    """
    if not nodes:
        return []
    lacking = {name: _least([_obstacles(cluster.resources_of(name), node) for node in nodes]) for name in tasks}
    reasons = dict.fromkeys(reason for reason in lacking.values() if reason)
    return [
        f"no node can hold {', '.join(name for name in tasks if lacking[name] == reason)}: {reason}"
        for reason in reasons
    ]


def _least(obstacles: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return the name of the node with the fewest obstacles, and these; empty if a node has none."""
    name, fewest = min(obstacles, key=lambda pair: len(pair[1]))
    return f"{name} has {', '.join(fewest)}" if fewest else ""


def _obstacles(resources: Resources, node: Node) -> tuple[str, list[str]]:
    """Return the node's name and what is in the way of a pod with `resources` on it."""
    wanted = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.accelerator:
        wanted[resources.accelerator.type] = str(resources.accelerator.count)
    too_small = [
        f"{_readable(node.allocatable[kind])} of {amount} {kind}" if kind in node.allocatable else f"no {kind}"
        for kind, amount in wanted.items()
        if parse_quantity(node.allocatable.get(kind, "0")) < parse_quantity(amount)
    ]
    unlike = [
        f"no label {key}={value}" for key, value in resources.node_selector.items() if node.labels.get(key) != value
    ]
    required = [term for term in resources.node_affinity if term.weight is None]
    refused = (
        ["not the labels of node_affinity"] if required and not any(_holds(term, node) for term in required) else []
    )
    tainted = [
        f"the taint {taint.key}:{taint.effect}"
        for taint in node.taints
        if taint.effect != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in resources.tolerations)
    ]
    return node.name, [*too_small, *unlike, *refused, *tainted]


def _readable(amount: str) -> str:
    """Return a quantity in Gi if it is an amount of memory, which nodes give in Ki."""
    size = parse_quantity(amount) / 2**30
    return f"{size:.1f}Gi" if size > 0.1 else amount


def _holds(term: NodeAffinity, node: Node) -> bool:
    def holds(rule: MatchExpression) -> bool:
        return OPERATORS[rule.operator](node.labels.get(rule.key), rule.values)

    return all(holds(rule) for rule in term.match_expressions)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in (None, taint.effect) or toleration.key not in (None, taint.key):
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.value


def warn_of_misfits(cluster: Cluster, tasks: Sequence[str] = TASKS) -> None:
    """Print a warning for `tasks` that no node could hold, if this machine may list the nodes of the cluster.

    The cluster is that of the current context of the kubeconfig or, in a pod, the pod's own. This takes `SECONDS` at
    most, and whatever goes wrong, no node is found and nothing is said.
    """
    found: list[tuple[str, list[Node]]] = []

    def ask() -> None:
        logging.getLogger().addFilter(_is_from_elsewhere)
        with suppress(Exception, SystemExit):
            found.append(_list_nodes())
        logging.getLogger().removeFilter(_is_from_elsewhere)

    # a thread, since a plugin of the kubeconfig may ask for a login, and a name server may be silent
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    for where, nodes in found:
        for line in misfits(cluster, nodes, tasks):
            warn(f"{where}: {line}; unless one is added, its pod stays Pending")


def _is_from_elsewhere(record: logging.LogRecord) -> bool:
    """Whether a record is not of kubernetes, which logs what is wrong with a plugin of the kubeconfig."""
    return "kubernetes" not in Path(record.pathname).parts


def _list_nodes() -> tuple[str, list[Node]]:
    """Return where the nodes are, and the nodes."""
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False
    files = os.environ.get("KUBECONFIG") or KUBECONFIG
    if any(Path(file).expanduser().is_file() for file in files.split(os.pathsep)):
        config.load_kube_config(files, client_configuration=configuration, persist_config=False)
        where = f"Kubernetes context {config.list_kube_config_contexts(files)[1]['name']}"
    else:
        config.load_incluster_config(configuration)
        where = "this cluster"
    nodes = client.CoreV1Api(client.ApiClient(configuration)).list_node(_request_timeout=SECONDS).items
    return where, [_as_node(node) for node in nodes]


def _as_node(node: Any) -> Node:
    taints = [Taint(taint.key, taint.value or "", taint.effect) for taint in node.spec.taints or []]
    return Node(node.metadata.name, node.status.allocatable or {}, node.metadata.labels or {}, taints)
