import io
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from components import compare as ablation
from components.compare import Result, by_losses, in_one_line, read_experiments, read_result, summary, table_row
from components.tracking.tracker import Tracker
from irra.metrics import METRIC_NAMES
from irra.utils.errors import UserError
from irra.utils.records import write_record
from tests.imports import ROOT


def result(losses: str, seed: int, r1: float) -> Result:
    return Result("toy", losses, seed, "test", dict.fromkeys(METRIC_NAMES, r1))


def experiment(name: str, losses: str, seed: int, r1: float, state: str = "success") -> dict[str, Any]:
    """An experiment as in `dvc exp show --json`, which shows the metrics of the commit if it failed."""
    metrics = {"data": {"test": dict.fromkeys(METRIC_NAMES, r1)}}
    train = {"loss_names": losses, "seed": seed}
    data = {
        "rev": "18282c1",
        "params": {"params.yaml": {"data": {"prepare": {"dataset_name": "toy"}, "train": train}}},
        "metrics": {} if state == "queued" else {"reports/evaluate/metrics.json": metrics},
    }
    error = {"msg": "Experiment run failed", "type": ""} if state == "failed" else None
    revision = {"rev": "18282c1", "name": name, "data": data, "error": error, "experiments": None}
    return {"name": name, "revs": [revision], "executor": {"state": state, "name": "dvc-task"}}


def unreadable(name: str) -> dict[str, Any]:
    revision = {"rev": "18282c1", "name": name, "data": None, "error": {"msg": "no such commit", "type": "SCMError"}}
    return {"name": name, "revs": [revision], "executor": None}


def test_mean_and_spread_are_over_seeds() -> None:
    values = summary([result("itc", 0, 40.0), result("itc", 1, 44.0)])["R1"]
    assert values["mean"] == 42.0
    assert values["std"] == pytest.approx(8**0.5)  # sqrt(((40-42)^2 + (44-42)^2) / (2 - 1))


def test_one_seed_has_no_spread() -> None:
    assert table_row("itc", [result("itc", 0, 40.0)]) == ["itc", "1", *["40.0"] * len(METRIC_NAMES)]


def test_a_mean_is_not_torn_from_its_spread() -> None:
    row = table_row("itc", [result("itc", 0, 40.0), result("itc", 1, 44.0)])
    assert row[2] == ("42.0", "± 2.8")
    assert in_one_line(row[2]) == "42.0\u00a0±\u00a02.8"


def test_fewer_losses_come_first_and_seeds_in_order() -> None:
    groups = by_losses([result("sdm+id", 0, 1.0), result("sdm", 1, 2.0), result("itc", 0, 3.0), result("sdm", 0, 4.0)])
    assert {losses: [one.seed for one in group] for losses, group in groups.items()} == {
        "itc": [0],
        "sdm": [0, 1],
        "sdm+id": [0],
    }
    assert list(groups) == ["itc", "sdm", "sdm+id"]


@pytest.mark.parametrize(
    "other",
    [
        experiment("ablation-sdm-0", "sdm", 0, 30.0, "failed"),
        experiment("ablation-sdm-0", "sdm", 0, 30.0, "running"),
        experiment("ablation-sdm-0", "sdm", 0, 30.0, "queued"),
        unreadable("ablation-sdm-0"),
    ],
    ids=["failed", "running", "queued", "unreadable"],
)
def test_an_experiment_without_a_result_is_named_and_does_not_count(other: dict[str, Any]) -> None:
    shown = [{"experiments": None}, {"experiments": [experiment("ablation-itc-0", "itc", 0, 50.0), other]}]
    results, missing = read_experiments(shown)
    assert [(one.loss_names, one.metrics["R1"]) for one in results] == [("itc", 50.0)]
    assert missing == ["ablation-sdm-0"]


def test_a_name_that_failed_before_it_succeeded_has_its_result() -> None:
    tries = [experiment("ablation-sdm-0", "sdm", 0, r1, state) for r1, state in ((50.0, "success"), (30.0, "failed"))]
    results, missing = read_experiments([{"experiments": tries}])
    assert [one.metrics["R1"] for one in results] == [50.0]
    assert missing == []


def test_experiments_of_other_names_are_left_aside() -> None:
    shown = [{"experiments": [experiment("warm-tango", "sdm", 0, 30.0), experiment("cold-waltz", "x", 0, 1, "failed")]}]
    assert read_experiments(shown) == ([], [])


@pytest.mark.parametrize(("splits", "compared"), [(("val", "test"), "test"), (("val",), "val")])
def test_a_report_of_evaluate_is_read(tmp_path: Path, splits: tuple[str, ...], compared: str) -> None:
    model = {"dataset": "toy", "train": {"loss_names": "sdm", "seed": 3}}
    metrics = {split: {"t2i": {split: 12.5}} for split in splits}
    write_record(tmp_path / "results.json", {"model": model, "metrics": metrics, "intervals": {}})
    assert read_result(tmp_path) == Result("toy", "sdm", 3, compared, {compared: 12.5})


def test_experiments_on_data_without_a_test_split_are_compared_on_val() -> None:
    shown = experiment("ablation-itc-0", "itc", 0, 50.0)
    shown["revs"][0]["data"]["metrics"]["reports/evaluate/metrics.json"] = {"data": {"val": {"R1": 40.0}}}
    ((one,), _) = read_experiments([{"experiments": [shown]}])
    assert (one.split, one.metrics) == ("val", {"R1": 40.0})


def test_without_experiments_the_command_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.compare", "--report", str(tmp_path / "report")]
    done = subprocess.run(command, input="[]", cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: no finished experiment is named ablation-*; run `make ablation`\n"
    assert not (tmp_path / "report").exists()


class Silent(Tracker):
    """A run that goes nowhere."""

    def __init__(self) -> None:
        pass

    def _append(self, *entries: Any) -> None:
        pass

    def _upload(self, kind: str, path: Path, folder: str) -> None:
        pass


def test_a_comparison_that_lacks_a_training_is_written_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = [experiment("ablation-itc-0", "itc", 0, 50.0), experiment("ablation-sdm-0", "sdm", 0, 30.0, "failed")]
    monkeypatch.setattr(sys, "argv", ["ablation", "--report", str(tmp_path)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps([{"experiments": shown}])))
    monkeypatch.setattr(ablation, "open_run", lambda *_, **__: nullcontext(Silent()))
    with pytest.raises(UserError, match="no result for ablation-sdm-0; `make ablation` trains them again"):
        ablation.main()
    assert "| itc | 1 | 50.0" in capsys.readouterr().out
