"""`python -m pipeline`, called in this process."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.nodes import manifests
from tests.imports import ROOT
from tests.irra.test_splits import annotate
from tests.pipeline.kfp_api import KfpApi, kfp_api, recorded_log, recording
from tests.pipeline.packages import IMAGE, cluster, several_nodes
from tests.presets import preset_text

PRESETS = ROOT / "presets"
FAILED = recording("user_error")[0]["run_id"]
PARAMS = ["--params", str(PRESETS / "tiny.yaml")]
WEIGHTS = os.path.relpath(__file__)  # any file with a relative path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    return main()


@pytest.fixture(autouse=True)
def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TOKEN", "COOKIE", "UI_ENDPOINT"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)


def test_compile_writes_both_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "pipeline.yaml"
    assert run(monkeypatch, "compile", *PARAMS, "--image", IMAGE, "--output", str(path)) == 0
    spec, platform = yaml.safe_load_all(path.read_text())
    assert spec["pipelineInfo"]["name"] == "irra"
    assert "kubernetes" in platform["platforms"]


def test_a_changed_value_reaches_the_compiled_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipeline.yaml"
    run(monkeypatch, "compile", *PARAMS, "--image", IMAGE, "--output", str(path), "--set", "train.lr=3e-5")
    spec, _ = yaml.safe_load_all(path.read_text())
    assert spec["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"]["lr"] == 3e-5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.lrr=1", "train.lrr: unknown key; did you mean 'lr'?"),
        ("trian.lr=1", "trian.lr: unknown section; did you mean 'train'?"),
        ("train.lr", "train.lr: expected key=value, such as train.lr=1e-4"),
        ("train.batch_size=many", "train.batch_size: input should be a valid integer"),
    ],
)
def test_a_wrong_assignment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], assignment: str, message: str
) -> None:
    assert run(monkeypatch, "compile", *PARAMS, "--image", IMAGE, "--set", assignment) == 2
    assert message in capsys.readouterr().err


def own_data(root: Path) -> Path:
    """Annotate a dataset without test split, and return parameters that name it."""
    data = yaml.safe_load(preset_text("tiny"))
    data["prepare"] |= {"dataset_name": "mine", "root_dir": str(annotate(root, "train", "val")), "synthetic": None}
    (root / "params.yaml").write_text(yaml.safe_dump(data))
    return root / "params.yaml"


@pytest.mark.parametrize("command", [["run-local"], ["run-docker", "--image", IMAGE]], ids=lambda command: command[0])
def test_a_split_that_the_data_lack_is_named_before_the_first_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    assert run(monkeypatch, *command, "--params", str(own_data(tmp_path)), "--runs", str(tmp_path / "runs")) == 2
    assert "no test split for index.split: test;" in capsys.readouterr().err


def test_an_ablation_needs_only_the_split_that_selects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[object] = []
    monkeypatch.setattr("pipeline.local.run_in_subprocesses", lambda *given: ran.append(given))
    run(monkeypatch, "run-local", "--ablation", "--params", str(own_data(tmp_path)))
    assert ran


def test_submit_sends_the_pipeline_with_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--image", IMAGE, "--experiment", "people", "--checkpoints", "s3://bucket/states"]
    with kfp_api() as api:
        assert run(monkeypatch, "submit", *PARAMS, "--host", api.host, *options, "--set", "train.lr=3e-5") == 0
        (sent,) = api.runs
    assert sent.parameters["train"]["lr"] == 3e-5
    assert sent.parameters["train_checkpoints"] == "s3://bucket/states"
    assert {"prepare", "tokenize", "train", "evaluate", "index", "gate"} <= set(sent.tasks)


def test_a_run_says_what_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    with kfp_api() as api:
        run(monkeypatch, "submit", *PARAMS, "--host", api.host, "--image", IMAGE, "--set", "train.lr=3e-5")
        (sent,) = api.runs
    assert sent.body["display_name"].startswith("synthetic sdm+mlm+id seed 0 ")
    assert sent.body["description"].endswith(f"2 epochs, image {IMAGE}, train.lr=3e-5")


def test_retrain_takes_no_training_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with kfp_api() as api:
        run(monkeypatch, "submit", *PARAMS, "--host", api.host, "--image", IMAGE, "--retrain")
        (sent,) = api.runs
    tasks = sent.pipeline["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"prepare", "tokenize"}


def test_submit_sends_the_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--image", IMAGE, "--ablation", "--losses", "itc", "sdm", "--seeds", "5"]
    with kfp_api() as api:
        assert run(monkeypatch, "submit", *PARAMS, "--host", api.host, *options) == 0
        (sent,) = api.runs
    assert [own["loss_names"] for own in sent.parameters["trainings"]] == ["itc", "sdm"]


def settings_with_mlflow(path: Path) -> Path:
    settings = cluster().model_dump() | {"environment": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}}
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize("known", [True, False])
def test_submit_warns_if_tasks_get_no_mlflow_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, known: bool
) -> None:
    options = ["--cluster", str(settings_with_mlflow(tmp_path / "cluster.yaml"))] if known else []
    with kfp_api() as api:
        assert run(monkeypatch, "submit", *PARAMS, "--host", api.host, "--image", IMAGE, *options) == 0
    assert ("no MLFLOW_TRACKING_URI" in capsys.readouterr().err) is not known


def test_uncommitted_code_can_be_submitted_without_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with kfp_api() as api:
        options = ["--host", api.host, "--image", f"{IMAGE}-dirty", "--no-cache"]
        assert run(monkeypatch, "submit", *PARAMS, *options) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "irra-python-pipeline"], "has no tag"),
        (["--image", f"{IMAGE}-dirty"], "not committed"),
        (["--image", IMAGE, "--checkpoints", "states"], "--checkpoints: 'states': not an address in S3"),
        (["--image", IMAGE, "--checkpoints", "s3://"], "'s3://': not an address in S3"),
        (["--image", IMAGE, "--checkpoints", "s3://ck/states"], "'s3://ck/states': not an address in S3"),
        (["--image", IMAGE, "--params", "nowhere/cuhk.yaml"], "nowhere/cuhk.yaml: no such file; `make preset"),
        (["--image", IMAGE, "--params", f"{PRESETS}/cuhk-pedez.yaml"], f"did you mean {PRESETS}/cuhk-pedes.yaml?"),
        (["--image", IMAGE, "--params", f"{PRESETS}/cuhk-pedes.yaml"], "'data/raw' is a folder on this machine"),
        (
            ["--image", IMAGE, "--params", f"{PRESETS}/cuhk-pedes.yaml", "--set", "prepare.root_dir=s3:///raw"],
            "prepare.root_dir: 's3:///raw': not an address in S3",
        ),
        (["--image", IMAGE, "--set", f"train.pretrained={WEIGHTS}"], f"'{WEIGHTS}' is a file on this machine"),
        (["--image", IMAGE, "--set", "train.init_from=start.pth"], "'start.pth' is a file on this machine"),
        (["--image", IMAGE, "--cluster", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--image", IMAGE, "--ablation", "--losses", "sdn"], "unknown loss 'sdn'; did you mean 'sdm'?"),
    ],
)
def test_a_mistake_is_found_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with kfp_api() as api:
        assert run(monkeypatch, "submit", *PARAMS, "--host", api.host, *options) == 2
        assert not api.requests
    assert message in capsys.readouterr().err


def settings_with_nodes(path: Path) -> Path:
    path.write_text(yaml.safe_dump(several_nodes(2).model_dump()))
    return path


@pytest.mark.parametrize("command", ["compile", "submit"])
def test_several_nodes_need_a_folder_in_s3_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    options = ["--image", IMAGE, "--cluster", str(settings_with_nodes(tmp_path / "cluster.yaml"))]
    with kfp_api() as api:
        host = ["--host", api.host] if command == "submit" else ["--output", str(tmp_path / "pipeline.yaml")]
        assert run(monkeypatch, command, *PARAMS, *options, *host) == 2
        assert not api.requests
    assert "tasks.train.num_nodes is 2" in capsys.readouterr().err
    assert not (tmp_path / "pipeline.yaml").exists()


def test_submit_sends_a_training_on_several_nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ["--image", IMAGE, "--cluster", str(settings_with_nodes(tmp_path / "cluster.yaml"))]
    with kfp_api() as api:
        checkpoints = ["--checkpoints", "s3://bucket/states"]
        assert run(monkeypatch, "submit", *PARAMS, "--host", api.host, *options, *checkpoints) == 0
        (sent,) = api.runs
    parameters = sent.pipeline["root"]["dag"]["tasks"]["train"]["inputs"]["parameters"]
    assert parameters["nodes"]["runtimeValue"]["constant"]["num_nodes"] == 2


def test_what_a_namespace_needs_is_printed_for_kubectl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = settings_with_nodes(tmp_path / "cluster.yaml")
    assert run(monkeypatch, "training-runtime", "--cluster", str(settings), "--namespace", "team") == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == manifests(several_nodes(2), "team")


@pytest.mark.parametrize("root", ["s3://bucket/raw", "/data/raw"])
def test_data_that_a_cluster_can_see_is_submitted(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    options = ["--params", f"{PRESETS}/cuhk-pedes.yaml", "--set", f"prepare.root_dir={root}", "--image", IMAGE]
    with kfp_api() as api:
        assert run(monkeypatch, "submit", "--host", api.host, *options) == 0
        (sent,) = api.runs
    assert sent.parameters["prepare"]["root_dir"] == root


def test_an_image_without_a_tag_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "pipeline.yaml"
    assert run(monkeypatch, "compile", *PARAMS, "--image", "registry.example/irra", "--output", str(path)) == 2
    assert "has no tag" in capsys.readouterr().err
    assert not path.exists()


def test_submitting_without_a_host_says_how_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "submit", *PARAMS, "--host", "", "--image", IMAGE) == 2
    assert "give --host" in capsys.readouterr().err


def test_a_failed_run_that_was_waited_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.server.follow.POLL_SECONDS", 0.0)
    with kfp_api(states=("RUNNING", "FAILED"), failing_task="train", logs={"train": "error: no such file\n"}) as api:
        assert run(monkeypatch, "submit", *PARAMS, "--host", api.host, "--image", IMAGE, "--wait") == 2
    assert "error: task train failed: no such file\n" in capsys.readouterr().err


@pytest.fixture
def failed() -> Iterator[KfpApi]:
    """A server on which `FAILED` has failed in its first task."""
    with kfp_api(recorded={FAILED: recording("user_error")}) as api:
        api.logs["irra-8rs6d-2264538643"] = recorded_log("user_error")
        yield api


def test_status_shows_the_tasks_of_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: KfpApi
) -> None:
    address = f"{failed.host}/#/runs/details/{FAILED}"
    assert run(monkeypatch, "status", address, "--host", failed.host) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"irra 2026-11-28 23:54:25: FAILED, {address}",
        "prepare   FAILED after 0:00:58",
        "evaluate  not run",
        "gate      not run",
        "index     not run",
        "tokenize  not run",
        "train     not run",
    ]


def test_status_says_how_long_a_task_has_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with kfp_api(recorded={"run": recording("followed")[1:]}) as api:
        run(monkeypatch, "status", "run", "--host", api.host)
    assert re.search(r"^train +RUNNING, for .+$", capsys.readouterr().out, re.MULTILINE)


def test_status_can_wait_for_a_run_started_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: KfpApi
) -> None:
    assert run(monkeypatch, "status", FAILED, "--host", failed.host, "--wait") == 2
    shown = capsys.readouterr()
    assert "prepare FAILED after 0:00:58\n" in shown.out
    assert "error: task prepare failed: s3://datasets/nothing/CUHK-PEDES: nothing is there\n" in shown.err


def test_logs_prints_the_whole_log_of_a_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failed: KfpApi
) -> None:
    assert run(monkeypatch, "logs", FAILED, "prepare", "--host", failed.host) == 0
    assert capsys.readouterr().out == recorded_log("user_error")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (["train"], "train has no log: it had no pod"),
        (["trane"], "or has not begun; there are: prepare, evaluate, gate, index, tokenize, train"),
        (["train", "itc", "1"], "train itc 1 is no task of this run"),
    ],
)
def test_a_log_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failed: KfpApi,
    task: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, "logs", FAILED, *task, "--host", failed.host) == 2
    assert message in capsys.readouterr().err
