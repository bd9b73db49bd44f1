"""The gate and the register stage against a real MLflow store in SQLite."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlflow
import pytest
from mlflow import MlflowClient

from components import champion, gate, register
from components.stage import main
from components.tracking import waiting
from components.tracking.registry import LOST_TAG, Candidate, Champion, Registry
from components.tracking.run import open_run
from components.tracking.store import MODEL_FINGERPRINT_TAG, tracking_uri
from irra.checkpoint import model_fingerprint, save_model, save_weights
from irra.config import Params, RegistryConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.search.build import index_split
from irra.search.encoder import Encoder
from irra.utils.errors import TemporaryError, UserError
from irra.utils.records import sealed, write_record
from tests.components.test_tracking import NOWHERE, clean_environment  # noqa: F401
from tests.imports import ROOT
from tests.models import small_model
from tests.presets import preset_text

pytestmark = pytest.mark.xdist_group("mlflow")
METRIC = "val/t2i/R1"
DATA = "d" * 64


@pytest.fixture
def project(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Path]:
    """A folder with a store that all tests of a process share; each uses its own names in it."""
    request.getfixturevalue("clean_environment")
    folder = tmp_path_factory.getbasetemp() / "a registry"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a model prepends its code
    mlflow.set_tracking_uri(tracking_uri())
    yield folder
    mlflow.set_tracking_uri(None)


@pytest.fixture
def irra(project: Path, store: PreparedStore) -> register.Inputs:
    """The inputs of a model registered as champion of `irra`, with R1 50."""
    return register_champion(project, store)


@cache
def register_champion(project: Path, store: PreparedStore) -> register.Inputs:
    inputs = make_inputs(project / "first", store, seed=0, r1=50.0)
    log_model(inputs.model, 50.0)
    register.run(inputs, outputs(project), config("irra"))
    return inputs


def log_model(folder: Path, r1: float) -> str:
    """Log a model as training does, and return the id of its run."""
    fingerprint = model_fingerprint(folder)
    with open_run("train") as tracker:
        tracker.set_tags({MODEL_FINGERPRINT_TAG: fingerprint})
        now = tracker.log_metrics({METRIC: r1}, 1)
        tracker.log_model(folder, fingerprint, 1, ("toy", DATA), {METRIC: r1}, now)
    return tracker.run_id or ""


def model_of(run_id: str) -> Any:
    """The only logged model of a run."""
    client = MlflowClient(tracking_uri())
    (output,) = client.get_run(run_id).outputs.model_outputs
    return client.get_logged_model(output.model_id)


def make_inputs(folder: Path, store: PreparedStore, seed: int, r1: float, data: str = DATA) -> register.Inputs:
    """Write a model, its index and a report that gives it `r1`."""
    inputs = register.Inputs(folder / "best model", folder / "index", folder / "report")
    model = small_model(seed).eval()
    weights = folder / "weights"
    save_weights(model, weights)
    metadata = {"dataset": "toy", "data_fingerprint": data, "selected": {"best_epoch": 1}}
    save_model(inputs.model, weights, model.spec, metadata)
    fingerprint = model_fingerprint(inputs.model)
    index_split(store, "test", Encoder(model), fingerprint, inputs.index, "float16", 8)
    write_report(inputs.report, {"fingerprint": fingerprint, **metadata}, {"val": {"t2i": {"R1": r1}}})
    return inputs


def write_report(folder: Path, metadata: dict[str, Any], metrics: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results = {"model": metadata, "metrics": metrics, "intervals": {}}
    write_record(folder / "results.json", results)


def config(model_name: str = "irra", threshold: float = 20.0) -> RegistryConfig:
    return RegistryConfig(model_name=model_name, metric=METRIC, threshold=threshold)


def outputs(folder: Path) -> register.Outputs:
    return register.Outputs(folder / "registration.json")


def candidate(r1: float, fingerprint: str = "new", data: str = DATA) -> Candidate:
    return Candidate(fingerprint, data, "toy", {METRIC: r1})


def add_champion(name: str, model: Candidate) -> str:
    """Make `model` the champion of `name`, without files, as another user might, and return its version."""
    client = MlflowClient(tracking_uri())
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = str(client.create_model_version(name, "s3://elsewhere/model", tags=model.as_tags()).version)
    client.set_registered_model_alias(name, "champion", version)
    return version


def versions(name: str) -> list[str]:
    return [str(found.version) for found in MlflowClient(tracking_uri()).search_model_versions(f"name = '{name}'")]


def champion_of(name: str) -> str | None:
    aliases = MlflowClient(tracking_uri()).get_registered_model(name).aliases
    return str(aliases["champion"]) if "champion" in aliases else None


# ---- the rule ----


@pytest.mark.parametrize(
    ("r1", "best", "passed", "reason"),
    [
        (20.0, None, True, "no champion yet"),
        (19.9, None, False, "19.9 is below registry.threshold 20"),
        (50.1, 50.0, True, "better than 50 of the champion of irra (version 3)"),
        (50.0, 50.0, False, "not better than 50"),
        (30.0, 50.0, False, "30 is not better than 50 of the champion of irra (version 3)"),
        (19.0, 10.0, False, "below registry.threshold"),
    ],
)
def test_a_model_passes_at_the_threshold_and_above_the_champion(
    r1: float, best: float | None, passed: bool, reason: str
) -> None:
    champion = None if best is None else Champion("3", candidate(best, "old"))
    decision = gate.decide(candidate(r1), champion, config())
    assert decision.passed == passed
    assert reason in decision.reason


def test_a_champion_of_other_data_is_not_compared_and_the_reason_says_what_to_do() -> None:
    decision = gate.decide(candidate(90.0), Champion("3", candidate(10.0, "old", data="e" * 64)), config())
    assert not decision.passed
    for part in (
        "other data (toy eeeeeeeeeeee instead of toy dddddddddddd)",
        "registry.model_name",
        "delete the alias",
    ):
        assert part in decision.reason


@pytest.mark.parametrize(
    ("again", "better"),
    [
        (candidate(40.0, "old"), False),
        (candidate(30.0, "old"), True),
        (candidate(30.0, "former"), None),  # of another champion
        (candidate(30.0, "old", data="f" * 64), None),  # on yet other data
        (None, None),
    ],
)
def test_a_champion_of_other_data_is_compared_once_it_was_evaluated_on_these(
    again: Candidate | None, better: bool | None
) -> None:
    champion = Champion("3", candidate(90.0, "old", data="e" * 64))
    decision = gate.decide(candidate(35.0), gate.on_same_data(champion, again, candidate(35.0)), config())
    assert decision.passed == (better is True)
    assert ("cannot be compared" in decision.reason) == (better is None)


def test_the_champion_is_evaluated_on_the_data_of_today(
    irra: register.Inputs, store: PreparedStore, tokens: TokenStore, params: Params, tmp_path: Path
) -> None:
    outputs = champion.Outputs(tmp_path / "champion")
    champion.run(champion.Inputs(store.root, tokens.root), outputs, params.evaluate, config())
    found = gate.read_evaluated_champion(outputs.report)
    assert found is not None
    assert found.model_fingerprint == model_fingerprint(irra.model)
    assert (found.data_fingerprint, set(found.metrics) >= {METRIC}) == (store.fingerprint, True)


def test_without_a_champion_there_is_no_evaluation_of_one(
    project: Path, store: PreparedStore, tokens: TokenStore, params: Params, tmp_path: Path
) -> None:
    outputs = champion.Outputs(tmp_path / "champion")
    done = champion.run(champion.Inputs(store.root, tokens.root), outputs, params.evaluate, config("irra-nobody-yet"))
    assert done == "irra-nobody-yet has no champion yet"
    assert gate.read_evaluated_champion(outputs.report) is None


def test_an_old_evaluation_of_the_champion_without_the_metric_stops_nobody(project: Path, tmp_path: Path) -> None:
    old = {"fingerprint": "e" * 64, "data_fingerprint": "e" * 64, "dataset": "without val"}
    write_report(tmp_path / "champion", old, {"test": {"t2i": {"R1": 90.0}}})
    write_report(tmp_path / "report", old | {"fingerprint": "f" * 64}, {"val": {"t2i": {"R1": 30.0}}})
    inputs = gate.Inputs(tmp_path / "report", tmp_path / "champion")
    assert gate.run(inputs, gate.Outputs(tmp_path / "decision.json"), config("irra-none"))["verdict"] == "pass"


def test_a_champion_registered_by_hand_is_not_compared() -> None:
    decision = gate.decide(candidate(90.0), Champion("3", Candidate.from_tags({})), config())
    assert not decision.passed
    assert "other data (unknown instead of" in decision.reason


def test_a_champion_measured_by_another_metric_is_not_compared() -> None:
    rival = Champion("3", Candidate("old", DATA, "toy", {"test/t2i/R1": 10.0}))
    decision = gate.decide(candidate(90.0), rival, config())
    assert not decision.passed
    assert "it has no val/t2i/R1" in decision.reason


def test_tags_say_the_same_as_the_model() -> None:
    model = Candidate("f", "d", "toy", {METRIC: 46.713003888186925, "test/i2t/mAP": 1e-3})
    assert Candidate.from_tags(model.as_tags()) == model


# ---- the report ----


def seal(results: str) -> str:
    """Return the results with a checksum, if they are an object."""
    try:
        return json.dumps(sealed(json.loads(results)))
    except (ValueError, AttributeError):
        return results


FACTS = '{"fingerprint": "f", "data_fingerprint": "d", "dataset": "toy"}'


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ('{"model": {}, "metrics": {}, "intervals": {}}', "not the results of `evaluate`"),
        (f'{{"model": {FACTS}, "metrics": {{"test": {{"t2i": {{"R1": 1}}}}}}, "intervals": {{}}}}', "no val"),
        (f'{{"model": {FACTS}, "metrics": {{"test": 1}}, "intervals": {{}}}}', r"damaged \(metrics.test: "),
        ("{}", r"damaged \(model: "),
        ("[1]", r"results.json: damaged"),
        ("{", "results.json: damaged"),
        (None, "results.json: missing"),
    ],
)
def test_results_that_do_not_tell_are_the_users_mistake(tmp_path: Path, results: str | None, message: str) -> None:
    if results is not None:
        (tmp_path / "results.json").write_text(seal(results))
    with pytest.raises(UserError, match=message):
        gate.read_candidate(tmp_path, METRIC)


def test_a_report_of_another_model_is_refused(irra: register.Inputs, tmp_path: Path) -> None:
    metadata = json.loads((irra.report / "results.json").read_text())["model"]
    write_report(tmp_path, metadata | {"fingerprint": "a" * 64}, {"val": {"t2i": {"R1": 99.0}}})
    with pytest.raises(UserError, match="is of model aaaaaaaaaaaa"):
        register.run(register.Inputs(irra.model, irra.index, tmp_path), outputs(tmp_path), config("irra-stale"))


def test_a_model_folder_without_weights_is_the_users_mistake(irra: register.Inputs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.safetensors: missing; train"):
        register.run(register.Inputs(tmp_path, irra.index, irra.report), outputs(tmp_path), config())


# ---- the gate as a stage ----


def test_the_gate_writes_and_prints_its_verdict(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = {"fingerprint": "f" * 64, "data_fingerprint": DATA, "dataset": "toy"}
    verdicts = []
    for r1 in (10.0, 30.0):
        write_report(tmp_path, metadata, {"val": {"t2i": {"R1": r1}}})
        result = gate.run(gate.Inputs(tmp_path), gate.Outputs(tmp_path / "decision.json"), config("irra-gate"))
        assert json.loads((tmp_path / "decision.json").read_text()) == result
        verdicts.append(result["verdict"])
    assert verdicts == ["fail", "pass"]
    assert capsys.readouterr().out.splitlines() == [
        "fail: val/t2i/R1 10 is below registry.threshold 20",
        "pass: val/t2i/R1 30 reaches 20, and irra-gate has no champion yet",
    ]


def test_the_runs_of_a_model_that_loses_name_the_champion(project: Path, tmp_path: Path) -> None:
    add_champion("irra-winner", candidate(40.0, "winner"))
    facts = {"data_fingerprint": DATA, "dataset": "toy"}
    found = []
    for r1, weights in ((10.0, "too bad"), (30.0, "loser"), (50.0, "better")):
        with open_run("train") as tracker:
            tracker.set_tags({MODEL_FINGERPRINT_TAG: weights})
        write_report(tmp_path, {"fingerprint": weights, **facts}, {"val": {"t2i": {"R1": r1}}})
        gate.run(gate.Inputs(tmp_path), gate.Outputs(tmp_path / "decision.json"), config("irra-winner"))
        found.append(MlflowClient(tracking_uri()).get_run(str(tracker.run_id)).data.tags.get(LOST_TAG))
    assert found == [None, "irra-winner 1", None]


def test_a_model_that_is_registered_already_does_not_pass_again(irra: register.Inputs, tmp_path: Path) -> None:
    result = register.run(irra, outputs(tmp_path), config(threshold=0.0))
    assert result["verdict"] == "fail"
    assert "is already version 1 of irra" in result["reason"]
    assert versions("irra") == ["1"]


# ---- registering ----


def test_the_first_model_becomes_the_champion_with_all_that_the_gate_needs(irra: register.Inputs) -> None:
    client = MlflowClient(tracking_uri())
    version = client.get_model_version_by_alias("irra", "champion")
    fingerprint = model_fingerprint(irra.model)
    assert Candidate.from_tags(version.tags) == candidate(50.0, fingerprint)
    assert client.get_run(version.run_id).data.tags[MODEL_FINGERPRINT_TAG] == fingerprint


def test_the_version_is_made_from_the_model_that_training_logged(irra: register.Inputs) -> None:
    version = MlflowClient(tracking_uri()).get_model_version_by_alias("irra", "champion")
    model = model_of(version.run_id)
    assert version.source == f"models:/{model.model_id}"
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics] == [(METRIC, 50.0, 1)]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "irra", "version": version.version}]
    folder = Path(unquote(model.artifact_location.removeprefix("file://")))
    assert sorted(path.name for path in (folder / "artifacts").iterdir()) == ["index", "model"]
    assert {"MLmodel", "artifacts", "code"} <= {path.name for path in folder.iterdir()}


def test_a_registration_that_fails_leaves_the_model_of_the_training(
    irra: register.Inputs, store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(tmp_path, store, seed=10, r1=45.0)
    run_id, before = log_model(inputs.model, 45.0), logged_models()
    monkeypatch.setattr(register, "upload", lambda *_: None)
    with failing("INSERT", "registered_model_aliases"), pytest.raises(UserError, match=r"champion failed.*on fire"):
        register.run(inputs, outputs(tmp_path), config("irra-burnt"))
    model = model_of(run_id)
    assert (model.status, logged_models(), versions("irra-burnt")) == ("READY", before, [])
    assert json.loads(model.tags["mlflow.modelVersions"]) == []


def test_a_model_can_have_versions_of_two_names(
    irra: register.Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = MlflowClient(tracking_uri()).get_model_version_by_alias("irra", "champion").run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setattr(register, "upload", lambda *_: None)
    register.run(irra, outputs(tmp_path), config("irra-again"))
    linked = json.loads(model_of(run_id).tags["mlflow.modelVersions"])
    assert [version["name"] for version in linked] == ["irra", "irra-again"]
    registry = Registry("irra-again")
    registry.remove(registry.complete_version("1", {}), None)  # later tests find the model as it was
    assert [version["name"] for version in json.loads(model_of(run_id).tags["mlflow.modelVersions"])] == ["irra"]


def test_a_better_model_takes_the_alias_and_is_logged_to_the_attached_run(
    project: Path, store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_champion("irra-better", candidate(40.0, "old"))
    with open_run("train") as tracker:
        pass
    assert tracker.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", tracker.run_id)
    inputs = make_inputs(tmp_path, store, seed=1, r1=45.0)
    result = register.run(inputs, outputs(tmp_path), config("irra-better"))
    assert (result["verdict"], result["version"], result["run_id"]) == ("pass", "2", tracker.run_id)
    assert json.loads((tmp_path / "registration.json").read_text()) == result
    assert (champion_of("irra-better"), sorted(versions("irra-better"))) == ("2", ["1", "2"])


def test_a_worse_model_is_not_registered_and_that_is_no_error(
    irra: register.Inputs,
    store: PreparedStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = make_inputs(tmp_path, store, seed=2, r1=25.0)
    (tmp_path / "params.yaml").write_text(preset_text("tiny"))
    paths = {"params": tmp_path / "params.yaml", "registration": tmp_path / "registration.json", **vars(inputs)}
    monkeypatch.setattr(
        sys, "argv", ["register", *(f"--{name.replace('_', '-')}={path}" for name, path in paths.items())]
    )
    capsys.readouterr()
    assert main("register", register.run, register.Inputs, register.Outputs, section="registry") == 0
    assert capsys.readouterr().out.startswith("not registered: val/t2i/R1 25 is not better than")
    assert (champion_of("irra"), versions("irra")) == ("1", ["1"])


def test_an_index_of_another_model_stops_before_anything_is_logged(
    irra: register.Inputs, store: PreparedStore, tmp_path: Path
) -> None:
    other = make_inputs(tmp_path, store, seed=3, r1=90.0)
    with pytest.raises(UserError, match="make the index again"):
        register.run(register.Inputs(other.model, irra.index, other.report), outputs(tmp_path), config("irra-index"))
    assert versions("irra-index") == []


def test_a_champion_that_came_during_the_upload_keeps_the_alias(
    project: Path, store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(tmp_path, store, seed=4, r1=45.0)
    monkeypatch.setattr(register, "upload", lambda *_: add_champion("irra-race", candidate(60.0, "faster")))
    result = register.run(inputs, outputs(tmp_path), config("irra-race"))
    assert result["verdict"] == "fail"
    assert "not better than 60" in result["reason"]
    assert (champion_of("irra-race"), versions("irra-race")) == ("1", ["1"])


@contextmanager
def failing(event: str, table: str) -> Iterator[None]:
    """Make the store refuse an event on one of its tables."""
    execute(f"CREATE TRIGGER failing_{table} BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'on fire'); END")
    try:
        yield
    finally:
        execute(f"DROP TRIGGER failing_{table}")


def execute(statement: str) -> None:
    with closing(sqlite3.connect(tracking_uri().removeprefix("sqlite:///"))) as connection:
        connection.execute(statement)
        connection.commit()


def logged_models() -> int:
    client = MlflowClient(tracking_uri())
    return len(client.search_logged_models([client.get_experiment_by_name("irra").experiment_id]))


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_an_alias_that_cannot_be_moved_leaves_everything_as_it_was(
    irra: register.Inputs, store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    name = f"irra-fire-{event}"
    if event == "UPDATE":
        add_champion(name, candidate(30.0, "old"))
    inputs = make_inputs(tmp_path, store, seed=5, r1=45.0)
    monkeypatch.setattr(register, "upload", lambda *_: None)
    before = logged_models()
    with failing(event, "registered_model_aliases"), pytest.raises(UserError, match=r"champion failed.*on fire"):
        register.run(inputs, outputs(tmp_path), config(name))
    assert (champion_of(name), versions(name)) == (("1", ["1"]) if event == "UPDATE" else (None, []))
    assert logged_models() == before
    assert not (tmp_path / "registration.json").exists()


def test_an_alias_that_moved_although_the_answer_was_lost_moves_back(
    project: Path, store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_champion("irra-lost", candidate(30.0, "old"))
    inputs = make_inputs(tmp_path, store, seed=7, r1=45.0)
    set_champion = Registry.set_champion

    def lose_first_answer(registry: Registry, version: str) -> None:
        set_champion(registry, version)
        monkeypatch.setattr(Registry, "set_champion", set_champion)
        raise UserError("no answer")

    monkeypatch.setattr(register, "upload", lambda *_: None)
    monkeypatch.setattr(Registry, "set_champion", lose_first_answer)
    with pytest.raises(UserError, match="no answer"):
        register.run(inputs, outputs(tmp_path), config("irra-lost"))
    assert (champion_of("irra-lost"), versions("irra-lost")) == ("1", ["1"])


def test_a_version_that_cannot_be_removed_is_named(
    project: Path,
    store: PreparedStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = make_inputs(tmp_path, store, seed=6, r1=45.0)
    monkeypatch.setattr(register, "upload", lambda *_: None)
    with (
        failing("INSERT", "registered_model_aliases"),
        failing("UPDATE", "model_versions"),
        pytest.raises(UserError, match="moving the champion"),
    ):
        register.run(inputs, outputs(tmp_path), config("irra-left"))
    assert "a version of irra-left may be left; delete it" in capsys.readouterr().err
    assert champion_of("irra-left") is None


# ---- a server that does not serve ----


def test_a_server_that_is_down_is_the_users_mistake(
    irra: register.Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE.replace("//", "//me:secret@"))
    with pytest.raises(TemporaryError, match=r"MLflow at http://127\.0\.0\.1:9: .*Connection refused") as caught:
        register.run(irra, outputs(tmp_path), config())
    assert "secret" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(
    irra: register.Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match=r"no answer within 0\.5 s"):
            gate.run(gate.Inputs(irra.report), gate.Outputs(tmp_path / "decision.json"), config())


# ---- a process that was killed ----


def register_and_die(inputs: register.Inputs, folder: Path, name: str, step: str) -> None:
    """Register a model in a process that is killed at `step`."""
    code = f"""
import os
from pathlib import Path
from components import register
from components.tracking.registry import Registry
from tests.components.test_registry import config
Registry.{step} = lambda *_: os._exit(9)
folder = Path({str(folder)!r})
register.run(register.Inputs(Path({str(inputs.model)!r}), Path({str(inputs.index)!r}), Path({str(inputs.report)!r})),
    register.Outputs(folder / "registration.json"), config({name!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr


def test_a_version_whose_process_was_killed_before_the_alias_becomes_the_champion(
    project: Path, store: PreparedStore, tmp_path: Path
) -> None:
    inputs = make_inputs(tmp_path, store, seed=8, r1=45.0)
    register_and_die(inputs, tmp_path, "irra-killed", "set_champion")
    before = champion_of("irra-killed")
    result = register.run(inputs, outputs(tmp_path), config("irra-killed"))
    assert (before, champion_of("irra-killed"), versions("irra-killed")) == (None, "1", ["1"])
    assert (result["verdict"], result["model_uri"]) == ("pass", "models:/irra-killed/1")


def test_a_model_whose_process_was_killed_before_its_version_is_replaced(
    project: Path, store: PreparedStore, tmp_path: Path
) -> None:
    inputs = make_inputs(tmp_path, store, seed=9, r1=45.0)
    before = logged_models()
    register_and_die(inputs, tmp_path, "irra-orphan", "upload")
    during = logged_models()
    register.run(inputs, outputs(tmp_path), config("irra-orphan"))
    assert (during, logged_models()) == (before + 1, before + 1)


def test_a_version_that_lost_against_a_better_champion_stays_without_the_alias(project: Path, tmp_path: Path) -> None:
    add_champion("irra-former", candidate(40.0, "former"))
    add_champion("irra-former", candidate(60.0, "better"))
    decision = gate.check_registry(Registry("irra-former"), candidate(40.0, "former"), config("irra-former"))
    assert (decision.passed, champion_of("irra-former")) == (False, "2")
