"""An MLflow server whose artifacts lie in S3: a model goes through it, from training to search."""

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient, pyfunc

from components import evaluate, index, register, train
from components.tracking.models import resolve_model
from components.tracking.owner import OWNER_TAG
from components.tracking.registry import CHAMPION
from irra.checkpoint import model_fingerprint
from irra.config import Params, RegistryConfig, TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from tests.components.test_tracking import Server, clean_environment  # noqa: F401
from tests.s3 import BUCKET
from tests.s3 import Server as S3

pytest_plugins = ["tests.s3"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
ARTIFACTS = f"s3://{BUCKET}/mlflow"


@pytest.fixture
def server(s3: S3, tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:  # noqa: F811
    """The server, and no S3 in the environment of its clients."""
    server = Server(tmp_path, ARTIFACTS)
    try:
        server.start()
        for name in s3.environment:
            monkeypatch.delenv(name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server
    finally:
        server.kill()
        mlflow.set_tracking_uri(None)


def test_a_model_goes_from_training_to_search(
    server: Server, s3: S3, store: PreparedStore, tokens: TokenStore, params: Params, train_config: TrainConfig
) -> None:
    inputs = register.Inputs(Path("model"), Path("index"), Path("report"))
    short = train_config.model_copy(update={"num_epoch": 2, "seed": 7})
    trained = train.run(train.Inputs(store.root, tokens.root), train.Outputs(inputs.model, Path("curves")), short)
    judged = params.evaluate.model_copy(update={"device": "cpu"})
    outputs = evaluate.Outputs(inputs.report, Path("rankings.parquet"))
    results = evaluate.run(evaluate.Inputs(store.root, tokens.root, inputs.model), outputs, judged)
    index.run(index.Inputs(store.root, inputs.model), index.Outputs(inputs.index), params.index)
    config = RegistryConfig(model_name="irra", metric="test/t2i/R1", threshold=0.0)
    done = register.run(inputs, register.Outputs(Path("registration.json")), config)
    assert done["verdict"] == "pass"

    run = MlflowClient().get_run(trained["run_id"])
    assert (run.info.run_name, run.info.status) == (f"{short.loss_names}, seed 7", "FINISHED")
    (model,) = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    assert (model.status, OWNER_TAG in model.tags) == ("READY", False)
    measured = {metric.key: metric.value for metric in model.metrics}
    assert measured["val/t2i/R1"] == trained["selected"]["val/t2i/R1"]
    assert measured["final/test/t2i/R1"] == results["metrics"]["test"]["t2i"]["R1"]
    assert MlflowClient().get_model_version_by_alias("irra", CHAMPION).source == f"models:/{model.model_id}"
    (data,) = run.inputs.dataset_inputs
    assert mlflow.data.get_source(data).load() == str(store.root)
    assert {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics} == {
        (data.dataset.name, data.dataset.digest)
    }

    stored = [name for name in s3.names() if model.model_id in name]
    assert any(name.endswith("artifacts/artifacts/model/weights.safetensors") for name in stored)
    for address in ("models:/irra@champion", f"runs:/{trained['run_id']}/model"):
        assert model_fingerprint(resolve_model(address)) == trained["model_fingerprint"]
    found = pyfunc.load_model("models:/irra@champion").predict(pd.DataFrame({"text": ["a person in red"]}))
    assert [hit["rank"] for hit in found.hits[0]] == list(range(1, 9))
    assert not os.environ.get("AWS_SECRET_ACCESS_KEY")
