"""What a task and the pods that train for it leave for each other in S3."""

import sys
import threading
from pathlib import Path

import pytest

from components import train_job
from components.kubeflow_trainer import Nodes
from components.s3.exchange import Exchange
from components.train import Inputs, Outputs
from components.train_node import Process, fetch
from irra.config import TrainConfig
from irra.utils.errors import UserError
from tests.s3 import BUCKET, Server, read_files, write_files

pytest_plugins = ["tests.s3"]
pytestmark = pytest.mark.xdist_group("storage")

STATES = f"s3://{BUCKET}/states"
URI = f"{STATES}/irra-1"
DATA = {"prepared/stats.json": b"{}", "prepared/shards/0.npy": b"pixels", "tokens/ids.npy": b"ids"}
MODEL = {"model/model.safetensors": b"weights", "report/history.csv": b"1"}
RESULT = {"model_fingerprint": "abc", "run_id": None, "selected": {"val/t2i/R1": 12.5}}
NODES = Nodes(runtime="r", num_nodes=2, processes=1, resources={}, environment=["AWS_ENDPOINT_URL"], timeout=60)


def test_data_arrive_and_are_sent_once(s3: Server, tmp_path: Path) -> None:
    write_files(tmp_path / "task", DATA)
    exchange = Exchange(URI)
    exchange.send_data(tmp_path / "task" / "prepared", tmp_path / "task" / "tokens")
    s3.requests.clear()
    exchange.send_data(tmp_path / "task" / "prepared", tmp_path / "task" / "tokens")
    assert {name.rpartition("/")[2] for name in s3.asked("PUT")} == {"irra-manifest.json"}
    exchange.fetch_data(tmp_path / "node" / "prepared", tmp_path / "node" / "tokens")
    assert read_files(tmp_path / "node") == DATA


def test_a_model_whose_upload_was_killed_does_not_count(s3: Server) -> None:
    s3.fill({f"states/irra-1/{name}": content for name, content in MODEL.items()})
    assert not Exchange(URI).has_model()


def test_one_process_of_a_node_downloads_while_the_others_wait(s3: Server, tmp_path: Path) -> None:
    s3.fill({f"states/irra-1/{name}": content for name, content in DATA.items()})
    exchange = Exchange(URI)
    waiting = threading.Thread(target=fetch, args=(exchange, tmp_path, Process(1, 1, 0)), daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    fetch(exchange, tmp_path, Process(0, 0, 0))
    waiting.join(10)
    assert not waiting.is_alive()
    assert s3.asked("GET").count("states/irra-1/tokens/ids.npy") == 1


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubeflow and `running_stage` set in the pod of a task."""
    for name, value in {"KFP_RUN_ID": "0123-ab", "IRRA_IMAGE": "irra:1", "MLFLOW_RUN_ID": "run"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("task")
def test_a_retry_of_a_training_that_is_over_only_fetches_its_model(
    s3: Server, train_config: TrainConfig, tmp_path: Path
) -> None:
    name = train_job.describe(STATES, train_config, NODES).name
    s3.fill({f"states/{name}/{path}": content for path, content in DATA.items()})
    write_files(tmp_path / "node", MODEL)
    Exchange(f"{STATES}/{name}").send_model(tmp_path / "node" / "model", tmp_path / "node" / "report", RESULT)
    outputs = Outputs(tmp_path / "task" / "model", tmp_path / "task" / "report", checkpoints_uri=STATES)
    nowhere = Inputs(tmp_path / "nowhere", tmp_path / "nowhere")
    assert train_job.run(nowhere, outputs, train_config, NODES) == RESULT
    assert read_files(tmp_path / "task") == MODEL
    assert not any("/prepared/" in path or "/tokens/" in path for path in s3.names())


def test_a_training_on_several_nodes_needs_s3(train_config: TrainConfig) -> None:
    with pytest.raises(UserError, match="train_checkpoints: is empty"):
        train_job.run(Inputs(), Outputs(), train_config, NODES)


@pytest.mark.usefixtures("task")
def test_pods_get_the_tasks_variables_that_are_set(s3: Server, train_config: TrainConfig) -> None:
    job = train_job.describe(STATES, train_config, NODES)
    given = {"KFP_RUN_ID": "0123-ab", "IRRA_IMAGE": "irra:1", "MLFLOW_RUN_ID": "run", "AWS_ENDPOINT_URL": s3.url}
    assert job.environment == given


def test_each_training_of_a_run_has_a_name_that_kubernetes_allows() -> None:
    names = {train_job.job_name("01234567-89AB-cdef-0123-456789abcdef", text) for text in ("a", "b")}
    assert len(names) == 2
    assert all(name.startswith("irra-0123456789abcdef0123456789abcdef-") and len(name) == 44 for name in names)


def test_without_the_package_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubeflow.trainer", None)
    with pytest.raises(UserError, match=r"needs the package kubeflow: pip install 'irra-pipeline\[kubeflow\]'"):
        train_job.connect()
