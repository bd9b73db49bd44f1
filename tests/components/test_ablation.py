import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.ablation import Result, by_losses, read_experiments, read_result, summary, table_row
from components.pictures.ablation import ablation_chart
from irra.metrics import METRIC_NAMES
from tests.imports import ROOT


def result(losses: str, seed: int, r1: float) -> Result:
    return Result(losses, seed, dict.fromkeys(METRIC_NAMES, r1))


def experiment(name: str, losses: str, seed: int, r1: float | None) -> dict[str, Any]:
    """As `dvc exp show --json` prints it; None: not run yet."""
    metrics = {} if r1 is None else {"data": {"test": {"t2i": dict.fromkeys(METRIC_NAMES, r1)}}}
    data = {
        "params": {"params.yaml": {"data": {"train": {"loss_names": losses, "seed": seed}}}},
        "metrics": {"reports/evaluate/metrics.json": metrics},
    }
    return {"name": name, "revs": [{"data": data}]}


def test_mean_and_spread_are_over_seeds() -> None:
    values = summary([result("itc", 0, 40.0), result("itc", 1, 44.0)])["R1"]
    assert values["mean"] == 42.0
    assert values["std"] == pytest.approx(8**0.5)  # sqrt(((40-42)^2 + (44-42)^2) / (2 - 1))


def test_one_seed_has_no_spread() -> None:
    assert table_row("itc", [result("itc", 0, 40.0)]) == ["itc", "1", *["40.0"] * len(METRIC_NAMES)]


def test_fewer_losses_come_first_and_seeds_in_order() -> None:
    groups = by_losses([result("sdm+id", 0, 1.0), result("sdm", 1, 2.0), result("itc", 0, 3.0), result("sdm", 0, 4.0)])
    assert {losses: [one.seed for one in group] for losses, group in groups.items()} == {
        "itc": [0],
        "sdm": [0, 1],
        "sdm+id": [0],
    }
    assert list(groups) == ["itc", "sdm", "sdm+id"]


def test_only_finished_experiments_of_the_ablation_count() -> None:
    shown = [
        {"experiments": [experiment("ablation-itc-0", "itc", 0, 50.0), experiment("ablation-sdm-0", "sdm", 0, None)]},
        {"experiments": [experiment("warm-tango", "sdm", 0, 30.0)]},
        {"experiments": None},
    ]
    assert [(one.loss_names, one.metrics["R1"]) for one in read_experiments(shown)] == [("itc", 50.0)]


def test_a_report_of_evaluate_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"train": {"loss_names": "sdm", "seed": 3}}))
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"t2i": {"R1": 12.5}}}))
    assert read_result(tmp_path) == Result("sdm", 3, {"R1": 12.5})


def test_the_chart_opens(tmp_path: Path) -> None:
    ablation_chart(tmp_path / "chart.png", "R1", {"itc": [50.0, 52.0], "sdm": [44.0]})
    Image.open(tmp_path / "chart.png").verify()


def test_without_experiments_the_command_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.ablation", "--report", str(tmp_path / "report")]
    done = subprocess.run(command, input="[]", cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: no finished experiment is named ablation-*; `make ablation` runs them\n"
    assert not (tmp_path / "report").exists()
