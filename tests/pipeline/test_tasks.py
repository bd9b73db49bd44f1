"""The Kubeflow components of the stages, called as kfp's executor calls them."""

from pathlib import Path

import pytest
from kfp import dsl

from components.kubeflow import as_parameter
from irra.config import Params, TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from pipeline import tasks
from tests.conftest import write_store

pytestmark = pytest.mark.xdist_group("tasks")  # they share a training


@pytest.fixture(scope="module")
def model(
    store: PreparedStore,
    tokens: TokenStore,
    train_config: TrainConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> dsl.Model:
    """Train without an MLflow server, and return the model's artifact."""
    tmp_path = tmp_path_factory.mktemp("task")
    config = train_config.model_copy(update={"num_epoch": 1, "warmup_epochs": 0, "loss_names": "itc"})
    made = dsl.Model(uri=str(tmp_path / "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        patch.chdir(tmp_path)  # what could not be sent to MLflow is kept there
        tasks.train.python_func(
            config=as_parameter(config),
            checkpoints="",
            prepared=dsl.Dataset(uri=str(store.root)),
            tokens=dsl.Dataset(uri=str(tokens.root)),
            model=made,
            training_metrics=dsl.Metrics(uri=str(tmp_path / "metrics")),
            training_report=dsl.HTML(uri=str(tmp_path / "report")),
        )
    return made


def test_data_without_the_split_of_the_gallery_are_refused(
    params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "prepared", {"train": 4, "val": 2})
    with pytest.raises(SystemExit):
        tasks.check.python_func(
            train=as_parameter(params.train),
            index=as_parameter(params.index),
            registry=as_parameter(params.registry),
            prepared=dsl.Dataset(uri=str(store.root)),
        )
    assert "no test split for index.split: test;" in capsys.readouterr().err


def test_metadata_of_a_model_without_an_mlflow_run_holds_no_null(model: dsl.Model) -> None:
    assert "mlflow_run_id" not in model.metadata
    assert None not in model.metadata.values()


def test_what_was_trained_stands_beside_the_model(model: dsl.Model) -> None:
    facts = {name: model.metadata[name] for name in ("loss_names", "seed", "backbone", "best_epoch")}
    assert facts == {"loss_names": "itc", "seed": 0, "backbone": "irra-tiny", "best_epoch": 1}
    assert 0 <= model.metadata["val/t2i/R1"] <= 100
