"""The Kubeflow components of the stages, called as kfp's executor calls them."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from irra.config import TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from pipeline import tasks


@pytest.fixture
def model(
    store: PreparedStore,
    tokens: TokenStore,
    train_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dsl.Model:
    """Train without an MLflow server, and return the model's artifact."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("KFP_RUN_ID", "")  # the component sets it
    config = train_config.model_copy(update={"num_epoch": 1, "warmup_epochs": 0, "loss_names": "itc"})
    made = dsl.Model(uri=str(tmp_path / "model"))
    tasks.train.python_func(
        config=json.dumps(config.model_dump()),
        checkpoints="",
        kfp_run="run",
        prepared=dsl.Dataset(uri=str(store.root)),
        tokens=dsl.Dataset(uri=str(tokens.root)),
        model=made,
        metrics=dsl.Metrics(uri=str(tmp_path / "metrics")),
        report=dsl.HTML(uri=str(tmp_path / "report")),
    )
    return made


def test_metadata_of_a_model_without_an_mlflow_run_holds_no_null(model: dsl.Model) -> None:
    assert set(model.metadata) == {"model_fingerprint"}
