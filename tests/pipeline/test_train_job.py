"""A training on several nodes, through the real SDK, against a small Kubernetes API."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("kubeflow.trainer", reason="needs the extra kubeflow")

from components import kubeflow_trainer as module
from components.kubeflow_trainer import TrainJob, connect, train
from irra.utils.errors import Interrupted, TemporaryError, UserError
from pipeline.nodes import manifests, nodes_of
from tests.pipeline.kubernetes_api import CORE, NAMESPACE, TRAINER, KubernetesApi, Moment, Pod, kubernetes_api
from tests.pipeline.packages import IMAGE, cluster, several_nodes

pytestmark = pytest.mark.xdist_group("submit")

NAME = "irra-0123456789abcdef0123456789abcdef-012345"
PENDING, RUNNING = (Pod(0, "Pending"), Pod(1, "Pending")), (Pod(0, "Running", ("epoch 1",)), Pod(1, "Running"))
COMPLETE = Moment("Complete", (Pod(0, "Succeeded", ("epoch 1", "epoch 2")), Pod(1, "Succeeded")))
FAILED = Moment("Failed", (Pod(0, "Failed", ("epoch 1",)), Pod(1, "Failed", ("...", "error: S3 is away"))))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    """A cluster in which time passes whenever the client sleeps."""
    with kubernetes_api(manifests(cluster(), NAMESPACE)) as server:
        monkeypatch.setattr(time, "sleep", lambda seconds: server.advance())
        yield server


def a_job(**nodes: Any) -> TrainJob:
    return TrainJob(
        name=NAME,
        kfp_run="01234567-89ab-cdef-0123-456789abcdef",
        nodes=nodes_of(several_nodes(2)).model_copy(update=nodes),
        image=IMAGE,
        environment={"AWS_ENDPOINT_URL": "http://s3"},
        arguments=["--nproc-per-node", "1", "-m", "components.train_node"],
    )


def failure(api: KubernetesApi, kind: type[UserError] = UserError, **nodes: Any) -> str:
    """Train, and return the message of the error."""
    with pytest.raises(UserError) as error:
        train(api.client(), a_job(**nodes))
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_train_job_says_all_that_it_can_about_its_pods(api: KubernetesApi) -> None:
    api.moments = (COMPLETE,)
    train(api.client(), a_job())
    (body,) = api.bodies
    resources = {"cpu": "8", "memory": "24Gi", "nvidia.com/gpu": "1"}
    assert body["metadata"]["name"] == NAME
    assert body["metadata"]["labels"] == {"pipeline/runid": a_job().kfp_run}
    assert body["spec"] == {
        "runtimeRef": {"kind": "TrainingRuntime", "name": manifests(cluster(), NAMESPACE)[0]["metadata"]["name"]},
        "activeDeadlineSeconds": 2 * 24 * 3600,
        "trainer": {
            "image": IMAGE,
            "command": ["torchrun"],
            "args": a_job().arguments,
            "env": [{"name": "AWS_ENDPOINT_URL", "value": "http://s3"}],
            "numNodes": 2,
            "resourcesPerNode": {"limits": resources, "requests": resources},
        },
    }


def test_a_job_is_followed_to_its_end_and_removed(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.moments = (Moment(), Moment(pods=PENDING), Moment(pods=RUNNING), COMPLETE)
    train(api.client(), a_job())
    lines = [line.partition(" TrainJob ")[2] or line for line in capsys.readouterr().out.splitlines()]
    told = [f"{NAME}: created, with 2 nodes", f"{NAME}: Created", f"{NAME}: Running", "epoch 1"]
    assert lines == [*told, f"{NAME}: Complete", "epoch 2"]
    assert api.asked("POST") == [f"{TRAINER}/trainjobs"]
    assert api.asked("DELETE") == [f"{TRAINER}/trainjobs/{NAME}"]
    assert not api.jobs


def test_a_retry_follows_the_job_that_runs(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.jobs[NAME] = existing(api)
    api.moments = (Moment(pods=RUNNING), COMPLETE)
    train(api.client(), a_job())
    assert not api.bodies
    assert f"TrainJob {NAME}: exists already" in capsys.readouterr().out


def existing(api: KubernetesApi) -> dict[str, Any]:
    """A TrainJob that an earlier attempt left."""
    runtime = {"kind": "TrainingRuntime", "name": api.manifests[0]["metadata"]["name"]}
    metadata = {"name": NAME, "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"runtimeRef": runtime, "trainer": {"numNodes": 2}}}


def test_a_retry_replaces_a_failed_job_when_its_pods_are_gone(api: KubernetesApi) -> None:
    api.jobs[NAME] = existing(api)
    api.moments = (FAILED, Moment(pods=RUNNING), COMPLETE)
    train(api.client(), a_job())
    assert len(api.bodies) == 1
    assert len(api.asked("DELETE")) == 2
    first_delete, second_create = (api.requests.index(("DELETE", f"{TRAINER}/trainjobs/{NAME}")), last_post(api))
    assert ("GET", f"{CORE}/pods") in api.requests[first_delete:second_create]


def last_post(api: KubernetesApi) -> int:
    return max(index for index, (method, _) in enumerate(api.requests) if method == "POST")


def test_a_restart_prints_the_log_of_the_new_pod(api: KubernetesApi, capsys: pytest.CaptureFixture[str]) -> None:
    again = (Pod(0, "Running", ("resumed",), suffix="bbbbb"), Pod(1, "Running", suffix="bbbbb"))
    api.moments = (Moment(pods=RUNNING), Moment(), Moment(pods=again), Moment("Complete", again))
    train(api.client(), a_job())
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "TrainJob" not in line] == ["epoch 1", "resumed"]


def test_a_failed_job_is_named_after_what_its_nodes_said(
    api: KubernetesApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.moments = (Moment(pods=RUNNING), FAILED)
    assert (
        failure(api, TemporaryError)
        == f"TrainJob {NAME} failed, also after restarts; what its nodes said last is above"
    )
    assert capsys.readouterr().out.endswith("node-1: ...\nnode-1: error: S3 is away\n")
    assert not api.jobs


def test_a_job_that_never_ends_is_removed_when_its_time_is_up(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    api.moments = (Moment(pods=PENDING),)
    assert "has not ended within its timeout" in failure(api, TemporaryError, timeout=3600)
    assert not api.jobs


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_removes_the_job(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch, signum: int) -> None:
    api.moments = (Moment(pods=RUNNING),)

    def send(seconds: float) -> None:
        monkeypatch.setattr(time, "sleep", lambda seconds: api.advance())
        os.kill(os.getpid(), signum)

    monkeypatch.setattr(time, "sleep", send)
    with pytest.raises(Interrupted) as stop:
        train(api.client(), a_job())
    assert stop.value.code == 128 + signum
    assert not api.jobs


def test_an_api_that_is_away_for_a_moment_is_asked_again(api: KubernetesApi) -> None:
    api.moments = (Moment(pods=RUNNING), Moment(pods=RUNNING), COMPLETE)
    api.fail = {"POST trainjobs": [503], "GET trainjobs": [500, 401], "GET pods": [502], "DELETE trainjobs": [503]}
    train(api.client(), a_job())
    assert not any(api.fail.values())
    assert not api.jobs


def test_an_api_that_stays_away_ends_the_attempt(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", 0.0)
    api.fail = {"GET trainjobs": [500], "DELETE trainjobs": [500]}
    assert failure(api, TemporaryError) == f"TrainJob {NAME} is lost: the test asked for it"
    assert f"may still run: the test asked for it; kubectl delete trainjob {NAME}" in capsys.readouterr().err


def test_a_job_that_somebody_deleted_is_lost(api: KubernetesApi) -> None:
    api.created = lambda body: api.jobs.clear()
    assert failure(api) == f'TrainJob {NAME} is lost: trainjobs.trainer.kubeflow.org "{NAME}" not found'


def test_a_missing_runtime_is_named_with_its_cure(api: KubernetesApi) -> None:
    message = failure(api, runtime="irra-torch-99999999")
    assert "apply TrainingRuntime irra-torch-99999999 and its Role: python -m pipeline training-runtime" in message


def test_a_missing_right_is_named_with_its_cure(api: KubernetesApi) -> None:
    runtime, role, binding = api.manifests
    api.manifests = [runtime, {**role, "rules": role["rules"][1:]}, binding]
    message = failure(api)
    assert 'pipeline-runner cannot create resource "trainjobs"' in message
    assert "apply TrainingRuntime" in message


def test_without_a_cluster_there_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/nonexistent")
    with pytest.raises(UserError, match="needs a cluster"):
        connect()
