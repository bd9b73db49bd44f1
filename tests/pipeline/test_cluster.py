"""The settings of a cluster: what is shipped, what is refused, and which tasks no node could hold."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from irra.utils.errors import UserError
from pipeline.cluster import TASKS, Cluster, load_cluster
from pipeline.graph import irra_pipeline
from pipeline.misfits import Node, Taint, misfits, warn_of_misfits
from tests.imports import ROOT
from tests.pipeline.kubernetes_api import KubernetesApi, kubernetes_api
from tests.pipeline.packages import IMAGE, cluster, compiled, containers, tiny

pytestmark = pytest.mark.xdist_group("submit")

LAPTOP = Node("kind-control-plane", {"cpu": "2", "memory": "8128112Ki"})
GPUS = {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "4"}
GPU_TAINT = Taint("nvidia.com/gpu", "present")
REQUIRED = {"match_expressions": [{"key": "gpu", "operator": "In", "values": ["a100", "h100"]}]}
PREFERRED = {"match_expressions": [{"key": "spot", "operator": "DoesNotExist"}], "weight": 10}


def small() -> Cluster:
    return load_cluster(ROOT / "pipeline" / "cluster-small.yaml")


def changed(train: dict[str, Any] | None = None, **changes: Any) -> Cluster:
    """The shipped settings with changes, and with changes to those of `train`."""
    settings = cluster().model_dump() | changes
    settings["tasks"]["train"] |= train or {}
    return Cluster.model_validate(settings)


def test_small_settings_fit_next_to_kubeflow_on_two_cpus_and_8_gb() -> None:
    """A new kind cluster with Kubeflow Pipelines has 1.7 CPUs and 3 GB of its own requests."""
    at_once = 2  # evaluate and index
    for container in containers(compiled(irra_pipeline(tiny(), IMAGE, small()))[0]).values():
        resources = container["resources"]
        assert at_once * resources["cpuRequest"] <= 0.3
        assert at_once * resources["memoryRequest"] <= 5e9
        assert resources["cpuLimit"] == 2.0
        assert "accelerator" not in resources


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"team": "a b"}}, "labels.team"),
        ({"annotations": {"sidecar.istio.io/inject": False}}, "annotations.sidecar.istio.io/inject"),
        ({"security_context": {}}, "security_context: set run_as_user, run_as_group or run_as_non_root"),
        ({"security_context": {"run_as_user": -1}}, "security_context.run_as_user"),
        ({"security_context": {"fs_group": 1}}, "security_context.fs_group: unknown key"),
        ({"parallelism": 0}, "parallelism"),
        ({"node_affinity": [{"match_expressions": []}]}, "match_expressions"),
        ({"node_affinity": [{**PREFERRED, "weight": 101}]}, "weight"),
        (
            {"node_affinity": [{"match_expressions": [{"key": "a", "operator": "In"}]}]},
            "In, NotIn, Gt and Lt take values",
        ),
        (
            {"node_affinity": [{"match_expressions": [{"key": "a", "operator": "Gt", "values": ["x"]}]}]},
            "operator Gt takes one whole number",
        ),
    ],
)
def test_wrong_settings_of_pods_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    settings = cluster().model_dump()
    (settings["default"] if "node_affinity" in changes else settings).update(changes)
    (path := tmp_path / "cluster.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError) as caught:
        load_cluster(path)
    assert message in str(caught.value)


def test_a_laptop_holds_the_small_settings() -> None:
    assert misfits(small(), [LAPTOP]) == []


def test_what_no_node_can_hold_is_said_with_what_the_closest_lacks() -> None:
    few = Node("pool-1", {"cpu": "4", "memory": "16393932Ki"})
    assert misfits(cluster(), [few, LAPTOP]) == [
        "no node can hold prepare: pool-1 has 4 of 8 cpu",
        "no node can hold train: pool-1 has 4 of 8 cpu, 15.6Gi of 24Gi memory, no nvidia.com/gpu",
        "no node can hold evaluate, champion: pool-1 has 15.6Gi of 16Gi memory, no nvidia.com/gpu",
        "no node can hold index: pool-1 has 4 of 8 cpu, 15.6Gi of 16Gi memory",
    ]


def test_tasks_with_the_same_reason_share_a_line() -> None:
    (line,) = misfits(small(), [Node("tiny", {"cpu": "2", "memory": "1Gi"})])
    assert line == f"no node can hold {', '.join(TASKS)}: tiny has 1.0Gi of 2Gi memory"


def test_a_cluster_of_which_nothing_is_known_fits() -> None:
    assert misfits(cluster(), []) == []


@pytest.mark.parametrize(
    ("train", "node", "lacking"),
    [
        ({}, {}, ""),
        ({}, {"taints": [GPU_TAINT]}, ""),
        ({"tolerations": []}, {"taints": [GPU_TAINT]}, "the taint nvidia.com/gpu:NoSchedule"),
        ({"tolerations": []}, {"taints": [Taint("spot", effect="PreferNoSchedule")]}, ""),
        ({"tolerations": [{"key": "nvidia.com/gpu", "value": "present"}]}, {"taints": [GPU_TAINT]}, ""),
        ({"tolerations": [{"key": "nvidia.com/gpu"}]}, {"taints": [GPU_TAINT]}, "the taint nvidia.com/gpu:NoSchedule"),
        ({"tolerations": [{"operator": "Exists"}]}, {"taints": [GPU_TAINT, Taint("a", "b", "NoExecute")]}, ""),
        ({}, {"taints": [GPU_TAINT, Taint("a", effect="NoExecute")]}, "the taint a:NoExecute"),
        ({"node_selector": {"gpu": "a100"}}, {"labels": {"gpu": "a100"}}, ""),
        ({"node_selector": {"gpu": "a100"}}, {"labels": {"gpu": "t4"}}, "no label gpu=a100"),
        ({"node_affinity": [REQUIRED]}, {"labels": {"gpu": "h100"}}, ""),
        ({"node_affinity": [REQUIRED]}, {}, "not the labels of node_affinity"),
        ({"node_affinity": [PREFERRED]}, {"labels": {"spot": "true"}}, ""),
        ({"accelerator": {"type": "nvidia.com/gpu", "count": 8}}, {}, "4 of 8 nvidia.com/gpu"),
    ],
)
def test_a_node_is_judged_as_the_scheduler_does(train: dict[str, Any], node: dict[str, Any], lacking: str) -> None:
    found = misfits(changed(train), [Node("gpu-1", GPUS, **node), Node("cpu-1", {"cpu": "16", "memory": "64Gi"})])
    lines = [line.partition(": ")[2] for line in found if " train" in line]
    assert lines == ([f"gpu-1 has {lacking}"] if lacking else [])


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        ("In", ["4", "8"], {"4"}),
        ("NotIn", ["4", "8"], {"16", "many", None}),
        ("Exists", [], {"4", "16", "many"}),
        ("DoesNotExist", [], {None}),
        ("Gt", ["4"], {"16"}),
        ("Lt", ["16"], {"4"}),
    ],
)
def test_affinity_means_what_it_means_to_the_scheduler(operator: str, values: list[str], matching: set[Any]) -> None:
    term = {"match_expressions": [{"key": "size", "operator": operator, "values": values}]}
    found = {
        size
        for size in ("4", "16", "many", None)
        if not misfits(changed({"node_affinity": [term]}), [Node("n", GPUS, {"size": size} if size else {})])
    }
    assert found == matching


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with kubernetes_api([{"kind": "Role", "rules": []}]) as server:
        server.nodes = [
            {
                "metadata": {"name": LAPTOP.name, "labels": {"zone": "a"}},
                "spec": {"taints": [{"key": "control-plane", "effect": "PreferNoSchedule"}]},
                "status": {"allocatable": LAPTOP.allocatable},
            }
        ]
        yield server


def use_kubeconfig(
    monkeypatch: pytest.MonkeyPatch, folder: Path, server: str, user: dict[str, Any] | None = None
) -> None:
    context = {"name": "kind", "context": {"cluster": "c", "user": "u"}}
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
        "contexts": [context],
        "current-context": "kind",
    }
    (folder / "config").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(folder / "config"), str(folder / "missing")]))


def test_misfits_are_warned_of_where_nodes_may_be_listed(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_kubeconfig(monkeypatch, tmp_path, api.host)
    warn_of_misfits(changed())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(
        "warning: Kubernetes context kind: no node can hold prepare: kind-control-plane has 2 of"
    )


def test_who_may_not_list_nodes_reads_nothing(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_kubeconfig(monkeypatch, tmp_path, api.host)
    api.may_list_nodes = False
    warn_of_misfits(changed())
    assert api.requests == [("GET", "/api/v1/nodes")]
    assert capsys.readouterr() == ("", "")


def test_a_kubeconfig_that_names_a_missing_plugin_is_not_complained_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin", "interactiveMode": "Never"}
    use_kubeconfig(monkeypatch, tmp_path, "http://127.0.0.1:1", {"exec": plugin})
    warn_of_misfits(changed())
    assert not caplog.records


@pytest.mark.parametrize("text", [None, "", "not: [a kubeconfig"])
def test_without_a_usable_kubeconfig_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(path := tmp_path / "config"))
    if text is not None:
        path.write_text(text)
    warn_of_misfits(changed())
    assert capsys.readouterr() == ("", "")


def test_a_cluster_that_never_answers_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.misfits.SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_kubeconfig(monkeypatch, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        warn_of_misfits(changed())
        assert time.monotonic() - start < 2.0
    assert capsys.readouterr() == ("", "")
