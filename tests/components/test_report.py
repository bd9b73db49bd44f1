"""The report stage over toy results: what it draws, which queries it picks, and where MLflow finds it."""

import base64
import csv
import io
import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from components import report
from components.layout import PICTURES
from components.report import (
    MOST_DROPPED,
    SELECTED_BY,
    Inputs,
    Outputs,
    Rankings,
    draw_evaluation,
    draw_training,
    list_dropped,
    one_per_person,
    pick_queries,
    run,
    write_chapter,
)
from components.results import read_results
from irra.config import ReportConfig
from irra.data.store import PreparedStore
from irra.metrics import METRIC_NAMES
from irra.trainer import SELECTION_METRIC
from irra.utils.errors import UserError
from irra.utils.records import write_record
from tests.conftest import write_store
from tests.imports import ROOT

CONFIG = ReportConfig(sheet_queries=2, seed=0)
VALUES = dict.fromkeys(METRIC_NAMES, 100.0)  # as wide as a number gets


def write_columns(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_dropped(path: Path, store: PreparedStore, captions: list[int]) -> None:
    """A table of these captions, of which the last is known to be wrong."""
    rows = [(number, "", store.captions[number], 2, 3, int(number == captions[-1])) for number in captions]
    header = ("caption_id", "image", "caption", "dropped", "divided", "wrong")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


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
    return write_results(tmp_path, store)


def write_results(folder: Path, store: PreparedStore) -> Inputs:
    """Write what the other stages would have written."""
    train, evaluate, rankings = folder / "train", folder / "evaluate", folder / "rankings.parquet"
    train.mkdir()
    evaluate.mkdir()
    losses = {"loss/total": 2.0, "lr/new": 1e-3}
    history = [{"epoch": 0.5, **losses, "ccd/kept": ""}, {"epoch": 1.0, **losses, "ccd/kept": 0.9}]
    write_columns(train / "history.csv", history)
    write_dropped(train / "dropped.csv", store, store.caption_ids("train").tolist())
    write_columns(train / "validation.csv", [{"epoch": 1, **VALUES}])
    write_columns(evaluate / "cmc.csv", [{"rank": 1, "test_t2i": 50.0, "test_i2t": 25.0}])
    model = {
        "fingerprint": "f" * 64,
        "train": {"loss_names": "sdm+id", "select_on": "val", "num_epoch": 3, "seed": 7, "backbone": "irra-tiny"},
        "selected": {"best_epoch": 1, "val": {"t2i": VALUES}},
        "dataset": store.dataset_name,
        "data_fingerprint": store.fingerprint,
    }
    bounds = {name: [100.0, 100.0] for name in METRIC_NAMES}
    measured, intervals = ({split: {"t2i": each} for split in ("val", "test")} for each in (VALUES, bounds))
    results = {"model": model, "metrics": measured, "intervals": intervals}
    write_record(evaluate / "results.json", results)
    write_rankings(rankings, store)
    return Inputs(store.root, train, evaluate, rankings)


@dataclass
class Drawn:
    """What the stage returned, and what it logged to MLflow: file names and their folder."""

    folder: Path
    pictures: list[str]
    logged: set[tuple[str, str]] = field(default_factory=set)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        self.logged.add((path.name, folder))


@pytest.fixture(scope="module")
def drawn(store: PreparedStore, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    result = Drawn(folder / "report", [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "open_run", lambda *_, **__: nullcontext(result))
        result.pictures += run(write_results(folder, store), Outputs(result.folder), CONFIG)["pictures"]
    return result


def test_every_picture_is_drawn_and_is_a_plot_of_the_stage(drawn: Drawn) -> None:
    assert sorted(drawn.pictures) == sorted(path.name for path in drawn.folder.glob("*.png"))
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    assert {f"{PICTURES}/{name}" for name in drawn.pictures} == {path for plot in stage["plots"] for path in plot}
    for name in drawn.pictures:
        Image.open(drawn.folder / name).verify()


def test_the_page_says_what_it_shows_and_needs_no_other_file(drawn: Drawn) -> None:
    page = (drawn.folder / "report.html").read_text()
    for chart in ("cmc", "validation", "losses"):
        assert f'<img alt="{chart}" src="data:image/png;base64,' in page
    for sheet in ("Best queries", "Worst queries", "Random queries", "test · person", MOST_DROPPED):
        assert f"<h3>{sheet}" in page
    assert "<h1>sdm+id on toy, 3 epochs, seed 7</h1>" in page
    assert "model <b>ffffffffffff</b>" in page
    assert "http" not in page


def test_pictures_are_logged_beside_what_their_stage_logged(drawn: Drawn) -> None:
    assert {("contact_sheet.png", "prepare"), ("losses.png", "train"), ("cmc.png", "evaluate")} <= drawn.logged
    assert ("report.html", "") in drawn.logged


def test_the_report_of_a_task_names_the_run(inputs: Inputs, tmp_path: Path) -> None:
    model = read_results(inputs.evaluate)["model"]
    write_chapter(tmp_path / "page", draw_training(inputs.train, inputs.prepared, model, tmp_path), "0a1b")
    page = (tmp_path / "page").read_text()
    assert "<h1>Training: sdm+id on toy, 3 epochs, seed 7</h1>" in page
    assert "MLflow run <b>0a1b</b>" in page


def test_captions_that_were_dropped_are_shown_beside_their_images(store: PreparedStore, tmp_path: Path) -> None:
    write_dropped(tmp_path / "dropped.csv", store, [9, 2, 5])
    (listed,) = list_dropped(tmp_path / "dropped.csv", store)
    assert "Shown: 3 of 3 in dropped.csv." in listed
    shown = re.findall(r'base64,(\S+?)">.*?<div><p>(.*?)</p><p class="verdict">(.*?)</p>', listed)
    remarks = ["although it is right", "although it is right", "and it is wrong"]
    assert [text for _, *text in shown] == [
        [store.captions[number], f"dropped in 2 of 3 epochs, {remark}"]
        for number, remark in zip((9, 2, 5), remarks, strict=True)
    ]
    for (encoded, *_), number in zip(shown, (9, 2, 5), strict=True):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))).astype(float)
        pixels = store.pixels(store.caption_image_ids[[number]])[0]
        assert np.abs(picture - pixels).mean() < 16  # noise that a JPEG loses; other people differ by 40 or more


@pytest.mark.parametrize("captions", [[], None], ids=["without CCD", "of an earlier version"])
def test_where_no_caption_was_dropped_none_are_listed(
    store: PreparedStore, tmp_path: Path, captions: list[int] | None
) -> None:
    if captions is not None:
        write_dropped(tmp_path / "dropped.csv", store, captions)
    assert list_dropped(tmp_path / "dropped.csv", store) == []


def test_a_damaged_table_of_dropped_captions_is_named(store: PreparedStore, tmp_path: Path) -> None:
    (tmp_path / "dropped.csv").write_text("caption_id,caption\none,two\n")
    with pytest.raises(UserError, match=r"dropped\.csv: damaged .*train the model again"):
        list_dropped(tmp_path / "dropped.csv", store)


def test_the_metric_marked_is_the_one_that_selects_the_epoch() -> None:
    assert SELECTED_BY == SELECTION_METRIC


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
