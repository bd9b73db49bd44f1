"""The Kubeflow components of the stages, called as kfp's executor calls them."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from irra.config import Params, TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from pipeline import tasks
from pipeline.graph import as_json
from tests.conftest import write_store


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


def test_a_training_whose_gallery_the_data_lack_is_refused(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "")  # the component sets it
    store = write_store(tmp_path / "prepared", {"train": 4, "val": 2})
    with pytest.raises(SystemExit):
        tasks.train.python_func(
            config=as_json(params.train),
            checkpoints="",
            kfp_run="run",
            prepared=dsl.Dataset(uri=str(store.root)),
            tokens=dsl.Dataset(uri=str(tmp_path / "tokens")),
            model=dsl.Model(uri=str(tmp_path / "model")),
            metrics=dsl.Metrics(uri=str(tmp_path / "metrics")),
            report=dsl.HTML(uri=str(tmp_path / "report")),
            index_config=as_json(params.index),
            registry_config=as_json(params.registry),
        )
    assert "no test split for index.split: test;" in capsys.readouterr().err


def test_metadata_of_a_model_without_an_mlflow_run_holds_no_null(model: dsl.Model) -> None:
    assert set(model.metadata) == {"model_fingerprint"}
