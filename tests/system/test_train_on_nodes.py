"""The task `train` on several nodes, whose pods are processes of this machine: the real command, SDK and S3 client."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kubeflow.trainer", reason="needs the extra kubeflow")

from kfp import dsl

from components import kubeflow_trainer
from components.kubeflow import as_parameter
from irra.checkpoint import model_fingerprint
from irra.config import TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from pipeline import tasks, train_on_nodes
from pipeline.nodes import manifests, nodes_of
from tests.imports import ROOT
from tests.pipeline.kubernetes_api import NAMESPACE, KubernetesApi, Moment, Pod, kubernetes_api
from tests.pipeline.packages import IMAGE, several_nodes
from tests.s3 import BUCKET, Server

pytest_plugins = ["tests.s3"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

STATES = f"s3://{BUCKET}/states"
# Until components.train takes part in a process group, each process would train for itself.
NUM_NODES = pytest.mark.parametrize("num_nodes", [1, 2])


class Trainer:
    """What Kubeflow Trainer, JobSet and the nodes do with a TrainJob: run its command once for each node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods: list[subprocess.Popen[bytes]] = []
        self.interrupt_at = ""  # a line of node 0's log at which all pods get SIGTERM
        self.attempts = 0

    def start(self, body: dict[str, Any]) -> None:
        trainer, port = body["spec"]["trainer"], free_port()
        self.attempts += 1
        self.pods = [self.pod(node, trainer, port) for node in range(trainer["numNodes"])]

    def pod(self, node: int, trainer: dict[str, Any], port: int) -> subprocess.Popen[bytes]:
        """Start a pod with the variables of its TrainJob, of its secrets, and of the controller; nothing else."""
        disk = self.folder / f"{self.attempts}-{node}"
        disk.mkdir()
        kept = {name: os.environ[name] for name in os.environ if name in ("PATH", "HOME") or name.startswith("AWS_")}
        controller = {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": "auto",
            "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        image = {"PYTHONPATH": str(ROOT), "TMPDIR": str(disk), "OMP_NUM_THREADS": "1"}
        given = {variable["name"]: variable["value"] for variable in trainer["env"]}
        with (disk / "log").open("wb") as log:
            command = [*trainer["command"], *trainer["args"]]
            environment = kept | image | given | controller
            return subprocess.Popen(command, cwd=disk, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def observe(self) -> Moment:
        logs = [self.log(node) for node in range(len(self.pods))]
        if self.interrupt_at and self.interrupt_at in "\n".join(logs[0]):
            self.interrupt_at = ""
            for pod in self.pods:
                pod.send_signal(signal.SIGTERM)
        codes = [pod.poll() for pod in self.pods]
        phases = ["Running" if code is None else "Failed" if code else "Succeeded" for code in codes]
        ended = all(code is not None for code in codes)
        condition = ("Failed" if any(codes) else "Complete") if ended else ""
        return Moment(condition, tuple(Pod(node, phases[node], logs[node]) for node in range(len(logs))))

    def log(self, node: int) -> list[str]:
        return (self.folder / f"{self.attempts}-{node}" / "log").read_text(errors="replace").splitlines()

    def stop(self, name: str = "") -> bool:
        for pod in self.pods:
            pod.terminate()
            pod.wait(60)
        self.pods = []
        return True


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    (tmp_path / "nodes").mkdir()
    found = Trainer(tmp_path / "nodes")
    yield found
    found.stop()


@pytest.fixture
def api(trainer: Trainer, tmp_path: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    """A cluster, and a task's pod in it."""
    with kubernetes_api(manifests(several_nodes(2), NAMESPACE)) as server:
        server.observe, server.created, server.deleted = trainer.observe, trainer.start, trainer.stop
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", kubeconfig(tmp_path, server))
        monkeypatch.setattr(kubeflow_trainer, "POLL_SECONDS", 0.1)
        monkeypatch.chdir(tmp_path)  # for MLflow's files
        monkeypatch.setenv("IRRA_IMAGE", IMAGE)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield server


def kubeconfig(folder: Path, api: KubernetesApi) -> str:
    data = {
        "clusters": [{"name": "c", "cluster": {"server": api.host}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(data))
    return str(folder / "kubeconfig")


@pytest.fixture
def config(train_config: TrainConfig) -> TrainConfig:
    return train_config.model_copy(update={"num_epoch": 12})


def train(folder: Path, store: PreparedStore, tokens: TokenStore, config: TrainConfig, num_nodes: int) -> dsl.Model:
    """Call the component as kfp's executor does: on several nodes through a TrainJob, or in this process (0)."""
    model, metrics = dsl.Model(uri=str(folder / "model")), dsl.Metrics(uri=str(folder / "metrics"))
    given = {
        "config": as_parameter(config),
        "checkpoints": STATES,
        "prepared": dsl.Dataset(uri=str(store.root)),
        "tokens": dsl.Dataset(uri=str(tokens.root)),
        "model": model,
        "training_metrics": metrics,
        "training_report": dsl.HTML(uri=str(folder / "report")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_RUN_ID", "01234567-89ab-cdef-0123-456789abcdef" if num_nodes else "alone")
        if num_nodes:
            settings = several_nodes(num_nodes, accelerator=None, cpu="1")
            train_on_nodes.train.python_func(nodes=as_parameter(nodes_of(settings)), **given)
        else:
            tasks.train.python_func(**given)
    assert metrics.metadata
    assert "losses" in (folder / "report").read_text()
    return model


@NUM_NODES
def test_nodes_train_what_one_process_trains(
    api: KubernetesApi, store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, num_nodes: int
) -> None:
    single = train(tmp_path / "alone", store, tokens, config, 0)
    model = train(tmp_path / "nodes-model", store, tokens, config, num_nodes)
    assert len(api.bodies) == 1
    assert not api.jobs
    assert model.metadata["mlflow_run_id"] != single.metadata["mlflow_run_id"]
    assert model.metadata["model_fingerprint"] == model_fingerprint(Path(model.path))
    if num_nodes == 1:  # several sum in another order
        assert model.metadata["model_fingerprint"] == single.metadata["model_fingerprint"]


@NUM_NODES
def test_nodes_that_were_stopped_go_on_from_the_state_in_s3(
    api: KubernetesApi,
    trainer: Trainer,
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    num_nodes: int,
) -> None:
    trainer.interrupt_at = "epoch 3"
    with pytest.raises(SystemExit):
        train(tmp_path / "first", store, tokens, config, num_nodes)
    assert "failed, also after restarts" in capsys.readouterr().err
    assert not trainer.interrupt_at
    model = train(tmp_path / "second", store, tokens, config, num_nodes)
    said = capsys.readouterr().out
    assert trainer.attempts == 2
    assert "epoch 12" in said
    assert "epoch 1 " not in said
    assert json.loads((Path(model.path) / "config.json").read_text())
