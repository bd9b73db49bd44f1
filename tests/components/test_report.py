"""The report stage over toy results: what it draws, which queries it picks, and where MLflow finds it."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from components import report
from components.layout import PICTURES
from components.report import Inputs, Outputs, Rankings, draw_evaluation, one_per_person, pick_queries, run
from irra.config import ReportConfig
from irra.data.store import PreparedStore
from irra.metrics import METRIC_NAMES
from irra.utils.errors import UserError
from irra.utils.records import write_record
from tests.conftest import write_store
from tests.imports import ROOT

CONFIG = ReportConfig(sheet_queries=2, seed=0)
VALUES = dict.fromkeys(METRIC_NAMES, 50.0)


def write_columns(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_rankings(path: Path, store: PreparedStore) -> None:
    """Rankings in which every query finds the first three test pictures."""
    captions, images = store.caption_ids("test"), store.image_ids("test")[:3]
    queries = len(captions)
    columns = {
        "caption_id": captions,
        "first_rank": np.arange(1, queries + 1),
        "average_precision": np.linspace(1.0, 0.0, queries),
        "image_ids": [images] * queries,
        "similarities": [np.array([0.5, 0.25, 0.125], np.float32)] * queries,
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def inputs(store: PreparedStore, tmp_path: Path) -> Inputs:
    """Write what the other stages would have written."""
    train, evaluate, rankings = tmp_path / "train", tmp_path / "evaluate", tmp_path / "rankings.parquet"
    train.mkdir()
    evaluate.mkdir()
    write_columns(train / "history.csv", [{"epoch": 0.5, "loss/total": 2.0, "lr/new": 1e-3}])
    write_columns(train / "validation.csv", [{"epoch": 1, **VALUES}])
    write_columns(evaluate / "cmc.csv", [{"rank": 1, "test_t2i": 50.0, "test_i2t": 25.0}])
    model = {
        "fingerprint": "f" * 64,
        "train": {"loss_names": "sdm+id", "select_on": "val"},
        "selected": {"best_epoch": 1, "val": {"t2i": VALUES}},
        "dataset": store.dataset_name,
        "data_fingerprint": store.fingerprint,
    }
    bounds = {name: [40.0, 60.0] for name in METRIC_NAMES}
    results = {"model": model, "metrics": {"test": {"t2i": VALUES}}, "intervals": {"test": {"t2i": bounds}}}
    write_record(evaluate / "results.json", results)
    write_rankings(rankings, store)
    return Inputs(store.root, train, evaluate, rankings)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Collect what is logged to MLflow: file names and their folder."""
    files: list[tuple[str, str]] = []

    class Recorded:
        def log_artifact(self, path: Path, folder: str = "") -> None:
            files.append((path.name, folder))

        def __enter__(self) -> "Recorded":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(report, "open_run", lambda *_, **__: Recorded())
    return files


def test_every_picture_is_drawn_and_is_in_the_page(
    inputs: Inputs, tmp_path: Path, logged: list[tuple[str, str]]
) -> None:
    pictures = run(inputs, Outputs(tmp_path / "report"), CONFIG)["pictures"]
    assert sorted(pictures) == sorted(path.name for path in (tmp_path / "report").glob("*.png"))
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    assert {f"{PICTURES}/{name}" for name in pictures} == {path for plot in stage["plots"] for path in plot}
    page = (tmp_path / "report" / "report.html").read_text()
    for name in pictures:
        Image.open(tmp_path / "report" / name).verify()
        assert f'<img alt="{Path(name).stem.replace("_", " ")}" src="data:image/png;base64,' in page
    assert "<h1>sdm+id on toy</h1>" in page
    assert "50.00 (40.0–60.0)" in page
    assert "http" not in page


def test_pictures_are_logged_beside_what_their_stage_logged(
    inputs: Inputs, tmp_path: Path, logged: list[tuple[str, str]]
) -> None:
    run(inputs, Outputs(tmp_path / "report"), CONFIG)
    assert {("contact_sheet.png", "prepare"), ("losses.png", "train"), ("cmc.png", "evaluate")} <= set(logged)
    assert ("report.html", "") in logged


def test_queries_are_the_best_the_worst_and_random_ones_of_different_people() -> None:
    precision, first = np.array([0.5, 1.0, 1.0, 0.5, 0.1]), np.array([2, 1, 1, 1, 9])
    similarities = np.array([[0.9], [0.7], [0.8], [0.6], [0.5]])
    rankings = Rankings(np.arange(5), first, precision, np.zeros((5, 1), np.int64), similarities)
    picked = pick_queries(np.array([4, 5, 6, 7, 4]), rankings, ReportConfig(sheet_queries=3, seed=0))
    assert picked["best"].tolist() == [2, 1, 3]  # equal precision: first rank, then similarity
    assert picked["worst"].tolist() == [4, 3, 1]  # 0 describes the same person as 4
    order = np.random.default_rng(0).permutation(5)
    assert picked["random"].tolist() == one_per_person(np.array([4, 5, 6, 7, 4]), order)[:3].tolist()


def test_sheets_show_each_person_once() -> None:
    pids = np.array([4, 4, 7, 7, 9])
    assert one_per_person(pids, np.array([1, 0, 4, 2, 3])).tolist() == [1, 4, 2]


@pytest.mark.parametrize("name", ["train/validation.csv", "evaluate/cmc.csv", "rankings.parquet"])
def test_a_missing_input_is_named_with_its_cure(inputs: Inputs, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing; .*dvc repro report"):
        run(inputs, Outputs(tmp_path / "report"), CONFIG)


def test_results_of_other_data_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", {"train": 4, "test": 2})
    with pytest.raises(UserError, match="was made with other data"):
        draw_evaluation(inputs.evaluate, inputs.rankings, other.root, CONFIG, tmp_path / "report")
