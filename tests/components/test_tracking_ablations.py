"""The trainings of an ablation are below one run in MLflow, whichever starts first."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from mlflow import MlflowClient

from components.compare import Result, compare
from components.tracking import ablations, sync
from components.tracking.ablations import (
    ABLATION_TAG,
    NAME,
    PARENT_TAG,
    TRAINING_TAG,
    nest,
    tags_of_comparison,
    tags_of_training,
)
from components.tracking.run import open_run
from components.tracking.store import connect, experiment_id, tracking_uri
from irra.metrics import METRIC_NAMES
from tests.components.test_registry import project  # noqa: F401
from tests.components.test_tracking import clean_environment, get_run, make_run, warnings  # noqa: F401
from tests.components.test_tracking_models import folder  # noqa: F401

pytestmark = pytest.mark.xdist_group("mlflow")


def trained() -> Any:
    """Open and close the run of a training as `components.train` does, and return it."""
    with open_run("train", run_name="sdm, seed 1", tags=tags_of_training()) as tracker:
        pass
    return get_run(tracker.run_id)


def parents() -> list[Any]:
    client = MlflowClient(tracking_uri())
    return list(client.search_runs([experiment_id(client, tracking_uri())], f"tags.`{ABLATION_TAG}` = 'abc'"))


@pytest.fixture
def ablation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """Set what DVC sets for an experiment of an ablation."""
    monkeypatch.setenv("DVC_EXP_NAME", "ablation-sdm-1")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc")
    return folder


def test_the_comparison_is_the_parent_of_the_trainings(
    ablation: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [trained(), trained()]
    (parent,) = parents()
    assert (parent.info.run_name, parent.info.status) == (NAME, "FINISHED")
    assert [run.data.tags[PARENT_TAG] for run in runs] == [parent.info.run_id] * 2
    monkeypatch.setenv("IRRA_ABLATION", "abc")
    compare([Result("toy", "sdm", 1, "test", dict.fromkeys(METRIC_NAMES, 40.0))], ablation / "report")
    (compared,) = parents()
    assert (compared.info.run_id, compared.data.metrics["sdm/R1"]) == (parent.info.run_id, 40.0)
    assert (compared.info.status, PARENT_TAG in compared.data.tags) == ("FINISHED", False)


@pytest.mark.parametrize(
    ("variables", "training", "comparison"),
    [
        ({"DVC_EXP_NAME": "ablation-sdm-1", "DVC_EXP_BASELINE_REV": "abc"}, "abc", None),
        ({"DVC_EXP_NAME": "warm-tango", "DVC_EXP_BASELINE_REV": "abc"}, None, None),
        ({"KFP_RUN_ID": "k1"}, None, "k1"),
        ({"KFP_RUN_ID": "k1", "IRRA_ABLATION": "k1"}, "k1", "k1"),
        ({}, None, None),
    ],
    ids=["DVC's ablation", "another experiment", "one training on Kubeflow", "Kubeflow's ablation", "one training"],
)
def test_what_belongs_to_an_ablation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clean_environment: None,  # noqa: F811
    variables: dict[str, str],
    training: str | None,
    comparison: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)  # not in a repository, whose commit would name DVC's ablation
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (tags_of_training().get(TRAINING_TAG), tags_of_comparison().get(ABLATION_TAG)) == (training, comparison)


def test_an_attached_run_keeps_its_own_parent(
    ablation: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = make_run(tags={PARENT_TAG: "the plugin's"})
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    tags = trained().data.tags
    assert (tags[PARENT_TAG], TRAINING_TAG in tags, parents()) == ("the plugin's", False, [])


def test_trainings_that_start_at_the_same_time_get_one_parent(ablation: Path) -> None:
    client, count = connect(tracking_uri()), 3
    experiment_of_all, together = experiment_id(client, tracking_uri()), Barrier(count)

    def start(_: int) -> str:
        run = client.create_run(experiment_of_all, tags=tags_of_training())
        together.wait()
        nest(client, experiment_of_all, "abc")
        return str(run.info.run_id)

    with ThreadPoolExecutor(count) as threads:
        runs = list(threads.map(start, range(count)))
    (parent,) = parents()
    assert [get_run(run).data.tags[PARENT_TAG] for run in runs] == [parent.info.run_id] * count


def test_of_two_parents_one_remains_with_all_trainings(ablation: Path) -> None:
    run, client = trained(), MlflowClient(tracking_uri())
    ablations._make_parent(client, run.info.experiment_id, "abc")
    later = trained()
    (parent,) = parents()
    assert [get_run(one.info.run_id).data.tags[PARENT_TAG] for one in (run, later)] == [parent.info.run_id] * 2


def test_a_training_that_cannot_be_nested_goes_on(
    ablation: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(sync, "nest", fail)
    assert trained().info.status == "FINISHED"
    assert warnings(capfd) == ["warning: MLflow shows sdm, seed 1 outside of its ablation (no answer)"]
