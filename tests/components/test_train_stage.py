"""The train and evaluate stages on toy data: what they write, what they refuse, and that MLflow cannot stop them."""

import csv
import json
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from components import evaluate, train
from components.results import read_results
from components.tracking.notes import note_run, noted_run
from components.tracking.spool import read_records
from components.tracking.tracker import Tracker
from irra.checkpoint import STATE, StateFolder, TrainState, load_model, model_fingerprint, read_model_metadata
from irra.config import EvaluateConfig, Params, TokenizeConfig, TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore, write_tokens
from irra.evaluation import encode_split, text_to_image
from irra.metrics import METRIC_NAMES
from irra.optim import build_optimizer
from irra.training import EpochLines, build_trainer, fingerprint
from irra.utils.errors import UserError
from irra.utils.nested import flatten
from tests.conftest import write_store
from tests.imports import ROOT
from tests.irra.test_locks import HOLD, running
from tests.models import small_model
from tests.presets import preset_text

pytestmark = pytest.mark.xdist_group("train-stage")

UNREACHABLE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def config(params: Params) -> TrainConfig:
    changes = {"device": "cpu", "num_epoch": 2, "batch_size": 16, "warmup_epochs": 1, "log_period": 2, "lr": 3e-3}
    return params.train.model_copy(update=changes)


@pytest.fixture(scope="module")
def evaluate_config(params: Params) -> EvaluateConfig:
    return params.evaluate.model_copy(update={"device": "cpu", "top_k": 3})


def outputs_in(folder: Path) -> train.Outputs:
    paths = (folder / "model", folder / "report", folder / "checkpoints")
    return train.Outputs(*paths, model_run=folder / "model-run.json")


@pytest.fixture(scope="module")
def trained(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a model that was trained without an MLflow server."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
        patch.chdir(folder)  # what could not be sent to MLflow is kept there
        train.run(train.Inputs(store.root, tokens.root), outputs_in(folder), config)
    return folder


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)


def test_without_a_server_metrics_and_curves_are_on_disk(trained: Path) -> None:
    with (trained / "report" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["epoch"]) == 2.0
    with (trained / "report" / "validation.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2]
    dropped = (trained / "report" / "dropped.csv").read_text()
    assert dropped == "caption_id,image,caption,dropped,divided,wrong\n", "without CCD"


def test_without_a_server_the_model_is_kept_with_the_metrics_of_its_epoch(trained: Path, config: TrainConfig) -> None:
    (kept,) = (trained / "mlflow-spool").rglob("*.jsonl")
    records = read_records(kept)
    (about,) = [record["model"][1] for record in records if "model" in record]
    selected = read_model_metadata(trained / "model")["selected"]
    validated = [record["metric"] for record in records if record.get("metric", [""])[0] == "val/t2i/R1"]
    assert records[0]["run"]["name"] == f"{config.loss_names}, seed {config.seed}"
    assert (about["fingerprint"], about["epoch"]) == (model_fingerprint(trained / "model"), selected["best_epoch"])
    assert about["metrics"]["val/t2i/R1"] == selected["val"]["t2i"]["R1"]
    assert ["val/t2i/R1", about["metrics"]["val/t2i/R1"], about["time"], about["epoch"]] in validated


def test_the_model_is_the_best_epoch_s(trained: Path, store: PreparedStore, tokens: TokenStore) -> None:
    selected = read_model_metadata(trained / "model")["selected"]
    assert selected["best_epoch"] in (1, 2)
    features = encode_split(load_model(trained / "model").eval(), store, tokens, "val", 32, "fp32")
    assert text_to_image(features, 1).scores.metrics() == pytest.approx(selected["val"]["t2i"])


def test_the_state_of_a_finished_training_is_removed(trained: Path) -> None:
    assert not (trained / "checkpoints").exists()


def test_a_server_that_is_down_is_mentioned_once(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    tmp_path: Path,
    no_server: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    short = config.model_copy(update={"num_epoch": 1, "warmup_epochs": 0, "loss_names": "itc"})
    train.run(train.Inputs(store.root, tokens.root), outputs_in(tmp_path), short)
    assert capfd.readouterr().err.count("warning: MLflow") == 1


def test_selecting_on_test_says_so(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    tmp_path: Path,
    no_server: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = {"num_epoch": 1, "warmup_epochs": 0, "loss_names": "itc", "select_on": "test"}
    train.run(train.Inputs(store.root, tokens.root), outputs_in(tmp_path), config.model_copy(update=changes))
    assert "selected on the test split" in capsys.readouterr().out


def test_a_training_has_one_owner(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, no_server: None
) -> None:
    with (
        running(HOLD, tmp_path / "checkpoints") as process,
        pytest.raises(UserError, match=f"checkpoints: process {process.pid} since"),
    ):
        train.run(train.Inputs(store.root, tokens.root), outputs_in(tmp_path), config)


class Recorded(Tracker):
    """A run that only records its metrics."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> int:
        self.metrics.update(metrics)
        return 0


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_of_a_run_name_the_split_that_selects(split: str) -> None:
    tracker = Recorded()
    row = dict.fromkeys(METRIC_NAMES, 50.0)
    train.Report(tracker, split).epoch(row, 1)
    assert tracker.metrics == {f"{split}/t2i/{name}": 50.0 for name in METRIC_NAMES}


def test_data_without_val_is_refused_naming_the_parameter(
    config: TrainConfig, tokens: TokenStore, params: Params, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "prepared", {"train": 4, "test": 2})
    write_tokens(store, params.tokenize, tmp_path / "tokens")
    with pytest.raises(UserError, match=r"no val split for train\.select_on: val"):
        train.run(train.Inputs(store.root, tmp_path / "tokens"), outputs_in(tmp_path), config)


def test_a_split_that_only_a_later_stage_needs_is_missed_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "prepared", {"train": 4, "val": 2})
    (tmp_path / "params.yaml").write_text(preset_text("tiny"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "--prepared", "prepared"])
    with pytest.raises(SystemExit) as ended, pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("components.train", run_name="__main__")
    assert ended.value.code == 2
    assert "no test split for index.split: test;" in capsys.readouterr().err


def test_images_that_the_backbone_cannot_take_are_refused(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    other = config.model_copy(update={"backbone": "ViT-L-14-quickgelu", "stride_size": 14})
    with pytest.raises(UserError, match=r"image_size \[64, 32\] is not divisible by the patch size 14"):
        train.run(train.Inputs(store.root, tokens.root), outputs_in(tmp_path), other)


def test_a_folder_of_something_else_is_refused_before_training(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    outputs = outputs_in(tmp_path)
    outputs.model.mkdir()
    (outputs.model / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a model folder"):
        train.run(train.Inputs(store.root, tokens.root), outputs, config)
    assert not outputs.checkpoints.exists()


def test_a_training_from_other_weights_under_the_same_path_is_not_resumed(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path
) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"some")
    before = fingerprint(config, store, tokens, weights)
    weights.write_bytes(b"others")
    assert fingerprint(config, store, tokens, weights) != before


@pytest.mark.parametrize("changed", ["data", "tokens"])
def test_a_training_on_other_data_or_tokens_is_not_resumed(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    tokenize_config: TokenizeConfig,
    tmp_path: Path,
    changed: str,
) -> None:
    prepared = write_store(tmp_path / "prepared", {"train": 12, "val": 3, "test": 5}) if changed == "data" else store
    write_tokens(prepared, tokenize_config.model_copy(update={"seed": 1}), tmp_path / "tokens")
    model = small_model()
    optimizer, scaler = build_optimizer(model, config), torch.amp.GradScaler("cpu", enabled=False)
    outputs = outputs_in(tmp_path)
    before = fingerprint(config, store, tokens, None)
    StateFolder(outputs.checkpoints, before).save(TrainState(), model, optimizer, scaler.state_dict())
    after = fingerprint(config, prepared, TokenStore.open(tmp_path / "tokens"), None)
    with pytest.raises(UserError, match=rf"{changed}: \w+ there, \w+ here"):
        StateFolder(outputs.checkpoints, after).load(model, optimizer, scaler)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pretrained", "opnai", "neither a file nor weights of irra-tiny"),
        ("pretrained", "weights.pt", "weights.pt: not a PyTorch checkpoint of plain weights"),
        ("init_from", "weights.pt", "weights.pt: not a PyTorch checkpoint of plain weights"),
        ("init_from", "openai", "openai: no such file"),
    ],
)
def test_weights_that_cannot_be_had_are_named(
    store: PreparedStore,
    tokens: TokenStore,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match=rf"train\.{key}: .*{message}"):
        train.run(train.Inputs(store.root, tokens.root), outputs_in(tmp_path), config.model_copy(update={key: value}))


@pytest.fixture(scope="module")
def evaluated(
    trained: Path,
    store: PreparedStore,
    tokens: TokenStore,
    evaluate_config: EvaluateConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> evaluate.Outputs:
    folder = tmp_path_factory.mktemp("evaluated")
    outputs = evaluate.Outputs(folder / "report", folder / "rankings.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE)
        patch.chdir(folder)  # what could not be sent to MLflow is kept there
        evaluate.run(evaluate.Inputs(store.root, tokens.root, trained / "model"), outputs, evaluate_config)
    return outputs


def test_rankings_hold_the_best_images_of_every_test_caption(evaluated: evaluate.Outputs, store: PreparedStore) -> None:
    table = pq.read_table(evaluated.rankings).to_pydict()
    assert table["caption_id"] == store.caption_ids("test").tolist()
    for caption, images, first in zip(table["caption_id"], table["image_ids"], table["first_rank"], strict=True):
        right = store.image_pids[images] == store.image_pids[store.caption_image_ids[caption]]
        assert set(images) <= set(store.image_ids("test"))
        assert right.any() == (first <= 3)
        assert not right.any() or int(np.flatnonzero(right)[0]) + 1 == first


def test_metrics_agree_with_the_rankings(evaluated: evaluate.Outputs) -> None:
    metrics = json.loads((evaluated.report / "metrics.json").read_text())
    first = np.array(pq.read_table(evaluated.rankings)["first_rank"])
    assert metrics["test"]["R1"] == pytest.approx(100 * np.mean(first == 1))


def test_cmc_curves_start_at_r1(evaluated: evaluate.Outputs) -> None:
    metrics = json.loads((evaluated.report / "metrics.json").read_text())
    with (evaluated.report / "cmc.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["test_t2i"]) == pytest.approx(metrics["test"]["R1"])


def test_a_failed_evaluation_leaves_all_files_of_the_previous_one(
    trained: Path,
    evaluate_config: EvaluateConfig,
    store: PreparedStore,
    tokens: TokenStore,
    tmp_path: Path,
    no_server: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = evaluate.Inputs(store.root, tokens.root, trained / "model")
    report = tmp_path / "report"
    report.mkdir()
    for name in ("results.json", "metrics.json", "cmc.csv"):
        (report / name).write_text("old")

    def fail(path: Path, evaluation: object) -> None:
        raise OSError("midway")

    monkeypatch.setattr(evaluate, "write_rankings", fail)  # the last of the files
    with pytest.raises(OSError, match="midway"):
        evaluate.run(inputs, evaluate.Outputs(report, tmp_path / "rankings.parquet"), evaluate_config)
    assert {path.name: path.read_text() for path in report.iterdir()} == dict.fromkeys(
        ("results.json", "metrics.json", "cmc.csv"), "old"
    )


def test_best_weights_that_changed_are_not_published(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, no_server: None
) -> None:
    outputs = outputs_in(tmp_path)
    states = StateFolder(outputs.checkpoints, fingerprint(config, store, tokens, None))
    trainer = build_trainer(store, tokens, config, None, states)
    trainer.fit(EpochLines())
    best = states.best_weights(trainer.state.best_epoch)
    best.write_bytes(best.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=rf"{best.name}: damaged"):
        train.run(train.Inputs(store.root, tokens.root), outputs, config)
    assert not outputs.model.exists()
    assert best.exists()


def test_a_model_for_other_sizes_is_refused(
    trained: Path, evaluate_config: EvaluateConfig, params: Params, store: PreparedStore, tmp_path: Path
) -> None:
    write_tokens(store, params.tokenize.model_copy(update={"text_length": 20}), tmp_path / "tokens")
    with pytest.raises(UserError, match="train again, or prepare and tokenize"):
        evaluate.run(
            evaluate.Inputs(store.root, tmp_path / "tokens", trained / "model"),
            evaluate.Outputs(tmp_path / "report", tmp_path / "rankings.parquet"),
            evaluate_config,
        )


def test_data_with_nothing_to_evaluate_on_is_refused(
    trained: Path, evaluate_config: EvaluateConfig, params: Params, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "prepared", {"train": 4})
    write_tokens(store, params.tokenize, tmp_path / "tokens")
    inputs = evaluate.Inputs(store.root, tmp_path / "tokens", trained / "model")
    with pytest.raises(UserError, match="toy has neither a val nor a test split"):
        evaluate.run(inputs, evaluate.Outputs(tmp_path / "report", tmp_path / "rankings.parquet"), evaluate_config)


def test_five_frames_of_ours_lie_between_the_command_line_and_a_step_of_the_optimizer(
    store: PreparedStore, tokens: TokenStore, tmp_path: Path, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = yaml.safe_load(preset_text("tiny"))
    data["train"] |= {"device": "cpu", "num_epoch": 1, "loss_names": "itc"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(data))
    seen: list[list[str]] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.Optimizer, *arguments: object) -> object:
        ours = (str(ROOT / "irra"), str(ROOT / "components"))
        seen.append([frame.name for frame in traceback.extract_stack() if frame.filename.startswith(ours)])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    options = {"params": "params.yaml", "model": "model", "report": "report", "checkpoints": "checkpoints"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(tmp_path / value))]
    inputs = ["--prepared", str(store.root), "--tokens", str(tokens.root)]
    monkeypatch.setattr(sys, "argv", ["train", *arguments, *inputs])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("components.train", run_name="__main__")
    assert ended.value.code == 0
    assert seen[0] == ["<module>", "main", "run", "fit", "step"]


def test_results_hold_the_model_and_both_directions_with_intervals(evaluated: evaluate.Outputs, trained: Path) -> None:
    results = read_results(evaluated.report)
    assert results["model"]["fingerprint"] == model_fingerprint(trained / "model")
    assert results["model"]["train"]["loss_names"] == read_model_metadata(trained / "model")["train"]["loss_names"]
    metrics, intervals = flatten(results["metrics"], "/"), flatten(results["intervals"], "/")
    ways = {(split, way) for split in ("val", "test") for way in ("t2i", "i2t")}
    assert set(metrics) == {f"{split}/{way}/{name}" for split, way in ways for name in METRIC_NAMES}
    assert all(intervals[name][0] <= value <= intervals[name][1] for name, value in metrics.items())


def test_the_table_that_dvc_compares_is_a_row_of_text_to_image(evaluated: evaluate.Outputs) -> None:
    table = json.loads((evaluated.report / "metrics.json").read_text())
    metrics = read_results(evaluated.report)["metrics"]
    assert list(table) == ["test", "val"]
    assert table == {split: metrics[split]["t2i"] for split in table}


def test_a_training_killed_before_its_first_state_goes_on_in_its_run(tmp_path: Path) -> None:
    note_run(tmp_path / "run.json", {"lr": 1.0}, "abc")
    assert noted_run(tmp_path / "run.json", {"lr": 1.0}) == "abc"


def test_another_training_does_not_take_over_the_run_of_one_that_was_killed(tmp_path: Path) -> None:
    note_run(tmp_path / "run.json", {"lr": 1.0}, "abc")
    assert noted_run(tmp_path / "run.json", {"lr": 2.0}) is None


def test_a_damaged_note_of_the_run_costs_only_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1]")
    assert noted_run(tmp_path / "run.json", {}) is None


def test_the_run_is_noted_before_the_first_state(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train.Trainer, "fit", lambda *_: sys.exit(9))
    outputs = outputs_in(tmp_path)
    with pytest.raises(SystemExit):
        train.run(train.Inputs(store.root, tokens.root), outputs, config)
    ids = [json.loads((outputs.checkpoints / train.RUN).read_text())["run_id"]]
    with pytest.raises(SystemExit):
        train.run(train.Inputs(store.root, tokens.root), outputs, config)
    ids.append(json.loads((outputs.checkpoints / train.RUN).read_text())["run_id"])
    assert ids[0] == ids[1]


def test_the_state_outlives_the_run_so_that_a_kill_at_its_end_costs_no_second_training(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, found = outputs_in(tmp_path), []

    @contextmanager
    def run(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(run_id="abc")
        found.append(sorted(path.name for path in outputs.checkpoints.iterdir()))

    monkeypatch.setattr(train, "open_run", run)
    monkeypatch.setattr(train, "describe", lambda *_: None)
    monkeypatch.setattr(train, "publish", lambda *_: {})
    monkeypatch.setattr(train.Trainer, "fit", lambda *_: (outputs.checkpoints / STATE).touch())
    train.run(train.Inputs(store.root, tokens.root), outputs, config)
    assert (found, outputs.checkpoints.exists()) == ([["run.json", STATE]], False)
