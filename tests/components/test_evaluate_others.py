"""A model measured on other datasets: which entries it takes, what it keeps of them, and where the results stand."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components import evaluate
from components.inputs import Others, other, read, run
from components.layout import OTHERS_RECORD
from components.results import as_text, further_tables, read_results
from irra.checkpoint import load_model, save_model, save_weights
from irra.config import EvaluateConfig, Params, change, located
from irra.data import others as other_data
from irra.data.others import check_other, folders_of, prepare_other
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.evaluation import encode_split, text_to_image
from irra.utils.errors import UserError
from tests.conftest import write_store
from tests.models import small_model

pytestmark = pytest.mark.xdist_group("others")

SIZE, LENGTH = (64, 32), 16


def write_raw(folder: Path, *splits: str) -> Path:
    """A raw dataset: for each split, two people of two images with two captions each."""
    rng, entries = np.random.default_rng(0), []
    (folder / "imgs").mkdir(parents=True)
    for number in range(4 * len(splits)):
        Image.fromarray(rng.integers(0, 256, (70, 30, 3), dtype=np.uint8)).save(folder / "imgs" / f"{number}.png")
        captions = [f"a person in red, number {number}", "another one"]
        split = splits[number // 4]
        entries.append({"id": number // 2, "file_path": f"{number}.png", "captions": captions, "split": split})
    (folder / "annotations.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "RAW", "train", "test")


@pytest.fixture(scope="module")
def kept(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which RAW was prepared once."""
    folder = tmp_path_factory.mktemp("kept")
    prepare_other(raw, SIZE, LENGTH, folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("model"), small_model()
    facts = {"train": {"loss_names": "itc", "seed": 0}, "selected": {"best_epoch": 2}, "dataset": "TOYS"}
    save_weights(model, folder / "weights.safetensors")
    save_model(folder / "model", folder / "weights.safetensors", model.spec, facts)
    return folder / "model"


class Tracker:
    """What would go to MLflow."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int) -> int:
        self.metrics |= metrics
        return step

    def log_params(self, *_: object) -> None: ...

    log_folder = log_model = log_params


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Tracker:
    logged = Tracker()
    monkeypatch.setattr(evaluate, "open_run", lambda *_, **__: nullcontext(logged))
    return logged


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(**changes: Any) -> EvaluateConfig:
    return EvaluateConfig(precision="fp32", device="cpu", bootstrap_samples=100, **changes)


def outputs(folder: Path, kept: Path) -> evaluate.Outputs:
    return evaluate.Outputs(folder / "report", folder / "rankings.parquet", kept)


def test_a_raw_dataset_is_prepared_and_tokenized_with_the_sizes_of_the_model(raw: Path, kept: Path) -> None:
    found = folders_of(raw, SIZE, LENGTH, kept)
    store, tokens = PreparedStore.open(found.prepared), TokenStore.open(found.tokens)
    assert (store.dataset_name, store.image_size, tokens.text_length) == ("RAW", SIZE, LENGTH)
    assert tokens.data_fingerprint == store.fingerprint


def test_the_split_that_is_measured_is_prepared_alone(raw: Path, kept: Path, tmp_path: Path) -> None:
    assert PreparedStore.open(folders_of(raw, SIZE, LENGTH, kept).prepared).splits == ("test",)
    found = prepare_other(write_raw(tmp_path / "VAL", "train", "val"), SIZE, LENGTH, tmp_path)
    assert PreparedStore.open(found.prepared).splits == ("val",)


def test_what_was_prepared_is_used_again_until_a_file_changes(
    raw: Path, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, kept = Path(shutil.copytree(raw, tmp_path / "RAW")), Path(shutil.copytree(kept, tmp_path / "kept"))
    prepared, prepare_dataset = [], other_data.prepare_dataset

    def noted(*arguments: Any) -> dict[str, Any]:
        prepared.append(arguments)
        return prepare_dataset(*arguments)

    monkeypatch.setattr(other_data, "prepare_dataset", noted)
    prepare_other(raw, SIZE, LENGTH, kept)
    assert not prepared
    text = (raw / "annotations.json").read_text()
    (raw / "annotations.json").write_text(text.replace("red", "blue"))
    found = prepare_other(raw, SIZE, LENGTH, kept)
    assert len(prepared) == 1
    assert PreparedStore.open(found.prepared).captions[0] == "a person in blue, number 4"
    (found.prepared / "images.parquet").unlink()
    prepare_other(raw, SIZE, LENGTH, kept)
    assert len(prepared) == 2


def test_a_prepared_dataset_is_tokenized_alone(tmp_path: Path) -> None:
    store = write_store(tmp_path / "mine", {"train": 1, "test": 2})
    found = prepare_other(store.root, SIZE, 20, tmp_path / "kept")
    assert found.prepared == store.root
    assert TokenStore.open(found.tokens).text_length == 20


@pytest.mark.parametrize(
    ("splits", "size", "message"),
    [
        ({"train": 1, "test": 1}, (32, 32), r"mine holds images of 64x32, the model takes 32x32; name the raw dataset"),
        ({"train": 1}, SIZE, "has neither a val nor a test split"),
    ],
    ids=["size", "split"],
)
def test_a_prepared_dataset_that_cannot_be_measured_is_refused(
    tmp_path: Path, splits: dict[str, int], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_other(write_store(tmp_path / "mine", splits).root, size)


def test_a_raw_dataset_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has neither a val nor a test split"):
        check_other(write_raw(tmp_path / "mine", "train"), SIZE)
    with pytest.raises(UserError, match=r"^evaluate\.also: .*nowhere: no such folder; .* holds mine"):
        check_other(tmp_path / "nowhere", SIZE)
    with pytest.raises(UserError, match=r"^evaluate\.also: .*nowhere/mine: no such folder$"):
        check_other(tmp_path / "nowhere" / "mine", SIZE)
    with pytest.raises(UserError, match="rendered people"):
        check_other(tmp_path / "synthetic", SIZE)


def test_other_datasets_and_captions_at_test_time_stand_beside_the_other_results(
    work: Path,
    model: Path,
    raw: Path,
    kept: Path,
    store: PreparedStore,
    tokens: TokenStore,
    tracker: Tracker,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_store(work / "mine", {"train": 1, "val": 2})
    inputs, asked = evaluate.Inputs(store.root, tokens.root, model), [str(raw), str(work / "mine")]
    evaluate.run(inputs, outputs(work, kept), config())
    assert capsys.readouterr().out == ""
    before = json.loads((work / "report" / "results.json").read_text())
    assert set(before) == {"model", "metrics", "intervals", "sha256", "checksum"}  # as ever
    evaluate.run(inputs, outputs(work, kept), config(also=asked, sentences=2, gallery_captions=0.25))
    measured = read_results(work / "report")
    assert all(measured[name] == value for name, value in read_results_of(before).items())

    at = folders_of(raw, SIZE, LENGTH, kept)
    stores = PreparedStore.open(at.prepared), TokenStore.open(at.tokens)
    found = encode_split(load_model(model).eval(), *stores, "test", 64, "fp32")
    first, second = measured["also"]
    assert first["metrics"]["t2i"] == pytest.approx(text_to_image(found, 1).scores.metrics())
    assert (first["name"], first["split"], second["name"], second["split"]) == ("RAW", "test", "mine", "val")
    aided = measured["with_captions"]
    assert aided["says"] == "2 sentences a query, captions of the gallery weigh 0.25"
    assert (aided["sentences"], aided["gallery_captions"]) == (2, 0.25)
    assert first["with_captions"]["says"] == aided["says"]
    assert aided["metrics"]["test"]["t2i"] != measured["metrics"]["test"]["t2i"]

    with_captions, across = further_tables(measured)
    assert capsys.readouterr().out == f"{as_text(with_captions)}\n{as_text(across)}\n"
    assert with_captions.title == f"With captions at test time: {aided['says']}; text to image, %"
    assert [row[0] for row in with_captions.rows] == ["val, without", "test, without", "val, with", "test, with"]
    tested = ["toy", "RAW", "RAW, with captions", "toy in mine (val)", "toy in mine, with captions (val)"]
    assert [row[:2] for row in across.rows] == [["TOYS", name] for name in tested]
    assert across.rows[1][2:] == [f"{first['metrics']['t2i'][name]:.2f}" for name in across.header[2:]]

    logged = tracker.metrics
    assert logged["final/also/RAW/t2i/R1"] == first["metrics"]["t2i"]["R1"]
    assert logged["final/also/mine/val/t2i/mAP"] == second["metrics"]["t2i"]["mAP"]
    assert logged["final/with_captions/test/t2i/R1"] == aided["metrics"]["test"]["t2i"]["R1"]


def read_results_of(written: dict[str, Any]) -> dict[str, Any]:
    """The measures in a results.json, as `read_results` has them."""
    intervals = written["intervals"]
    pairs = {s: {w: {n: tuple(b) for n, b in v.items()} for w, v in ways.items()} for s, ways in intervals.items()}
    return {"metrics": written["metrics"], "intervals": pairs, "sha256": written["sha256"]}


def test_a_mistake_in_an_entry_comes_before_the_evaluation(
    work: Path, model: Path, store: PreparedStore, tokens: TokenStore
) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        evaluate.run(
            evaluate.Inputs(store.root, tokens.root, model), outputs(work, work), config(also=[f"{work}/nowhere"])
        )
    assert not (work / "report").exists()


def test_a_name_is_looked_up_beside_the_dataset(params: Params) -> None:
    changed = change(params, ["evaluate.also=[ICFG-PEDES, ./mine, s3://b/RSTPReid]", "prepare.root_dir=s3://b/raw/"])
    assert located(changed).also == ["s3://b/raw/ICFG-PEDES", "./mine", "s3://b/RSTPReid"]
    assert located(located_again := changed.model_copy(update={"evaluate": located(changed)})) == located_again.evaluate


@pytest.mark.parametrize(
    ("also", "message"),
    [("[a/X, b/X]", "2 datasets are called X"), ("[a/my+data]", "'my\\+data': metrics are named"), ("[..]", "'..'")],
)
def test_names_after_which_metrics_cannot_be_named_are_refused(params: Params, also: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(params, [f"evaluate.also={also}"])


def test_other_datasets_are_recorded_by_their_content(
    work: Path, params: Params, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(raw, work / "data/raw/RAW")
    asked = change(params, ["evaluate.also=[RAW]", "prepare.image_size=[64, 32]"])
    run(asked)
    (before,) = (read(OTHERS_RECORD, Others) or Others()).datasets
    assert (before.source, before.files) == ("data/raw/RAW", 9)
    (work / "data/raw/RAW/imgs/0.png").unlink()
    assert other("data/raw/RAW", asked).sha256 != before.sha256
    shutil.rmtree(work / "data/raw/RAW")  # as in a clone
    assert other("data/raw/RAW", asked) == before
    assert "data/raw/RAW is out of reach" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such folder"):
        other("data/raw/OTHER", asked)
