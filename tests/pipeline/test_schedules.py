"""Uploaded pipelines and schedules, through kfp's own client, against a test server as strict as the real one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from irra.utils.errors import UserError
from pipeline.__main__ import main
from pipeline.schedules import Schedule, create, six_fields
from pipeline.server.catalog import Version, find_version, submit_version, upload, version_name
from pipeline.server.client import Client, Server
from tests.imports import ROOT
from tests.pipeline.kfp_api import KfpApi, kfp_api
from tests.pipeline.packages import IMAGE

pytestmark = pytest.mark.xdist_group("submit")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def show(number: int) -> str:
    return str(number)


@dsl.pipeline(name="small", description="shows a number")
def small(number: int = 3) -> None:
    show(number=number)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "small.yaml"
    compiler.Compiler().compile(small, str(path))
    return path


@pytest.fixture(autouse=True)
def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TOKEN", "COOKIE", "UI_ENDPOINT"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")


@pytest.fixture
def api() -> Iterator[KfpApi]:
    with kfp_api() as server:
        yield server


@pytest.fixture
def client(api: KfpApi) -> Client:
    return Client(Server(api.host))


@pytest.fixture
def version(client: Client, package: Path) -> Version:
    return upload(client, package, "v1", "first")


def scheduled(client: Client, version: Version, name: str = "nightly", **when: str) -> str:
    schedule = Schedule(name, **(when or {"cron": "0 3 * * *"}))
    return create(client, version, schedule, experiment="irra", service_account="runner", description="every night")


# ---- versions ----


def test_the_first_upload_makes_the_pipeline(api: KfpApi, version: Version) -> None:
    (pipeline,) = api.catalog.pipelines
    assert (pipeline["display_name"], pipeline["description"]) == ("small", "shows a number")
    (found,) = api.catalog.versions
    assert (found["display_name"], found["description"]) == ("v1", "first")
    assert (version.pipeline_id, version.version_id) == (pipeline["pipeline_id"], found["pipeline_version_id"])
    assert version.is_new


def test_another_version_joins_the_same_pipeline(api: KfpApi, client: Client, package: Path, version: Version) -> None:
    second = upload(client, package, "v2", "second")
    assert (second.pipeline_id, second.is_new) == (version.pipeline_id, True)
    assert [found["display_name"] for found in api.catalog.versions] == ["v1", "v2"]


def test_the_same_version_again_is_the_one_that_is_there(
    api: KfpApi, client: Client, package: Path, version: Version
) -> None:
    again = upload(client, package, "v1", "first")
    assert (again.version_id, again.is_new) == (version.version_id, False)
    assert len(api.catalog.versions) == 1


def test_users_of_one_server_have_pipelines_of_their_own(package: Path) -> None:
    with kfp_api(multi_user=True) as api:
        for profile in ("ann", "bob"):
            upload(Client(Server(api.host, namespace=profile)), package, "v1", "")
        assert [pipeline["namespace"] for pipeline in api.catalog.pipelines] == ["ann", "bob"]


def test_a_version_is_named_by_commit_and_content(package: Path, tmp_path: Path) -> None:
    name = version_name(package, "localhost:5000/irra:0123456789ab")
    assert name.startswith("0123456789ab-")
    (other := tmp_path / "other.yaml").write_text(package.read_text().replace("defaultValue: 3", "defaultValue: 4"))
    assert version_name(other, "localhost:5000/irra:0123456789ab") != name
    other.write_text("# KFP lists dictionaries in another order each time\n" + package.read_text())
    assert version_name(other, "localhost:5000/irra:0123456789ab") == name
    assert version_name(package, f"irra@sha256:{'ab' * 32}").startswith("abababababab-")


def test_the_order_in_which_kfp_writes_a_package_does_not_matter(package: Path, tmp_path: Path) -> None:
    first, *others = yaml.safe_load_all(package.read_text())
    shuffled = dict(reversed(first.items()))
    (again := tmp_path / "again.yaml").write_text(
        "# Inputs\n" + yaml.safe_dump_all([shuffled, *others], sort_keys=False)
    )
    assert version_name(again, IMAGE) == version_name(package, IMAGE)


def test_a_run_of_a_version_refers_to_it(api: KfpApi, client: Client, version: Version) -> None:
    found = find_version(client, "small", "v1")
    submit_version(client, found, experiment="irra", run_name="mine", service_account="runner")
    (run,) = api.runs
    assert run.pipeline["pipelineInfo"]["name"] == "small"
    assert run.body["pipeline_version_reference"]["pipeline_version_id"] == version.version_id
    assert (run.body["display_name"], run.body["service_account"]) == ("mine", "runner")


def test_a_version_that_is_not_there_is_named_with_the_latest(client: Client, package: Path, version: Version) -> None:
    upload(client, package, "v2", "")
    with pytest.raises(UserError, match=r"has no version 'v3' of small; the latest are: v2, v1"):
        find_version(client, "small", "v3")
    with pytest.raises(UserError, match=r"has no pipeline 'large': upload it first"):
        find_version(client, "large", "v1")


# ---- schedules ----


def test_a_schedule_runs_a_version_one_run_at_a_time(api: KfpApi, client: Client, version: Version) -> None:
    scheduled(client, version)
    (found,) = api.catalog.recurring_runs
    assert found["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert found["pipeline_version_reference"]["pipeline_version_id"] == version.version_id
    assert (found["max_concurrency"], found["no_catchup"], found["mode"]) == ("1", True, "ENABLE")
    assert (found["service_account"], found["description"]) == ("runner", "every night")


def test_a_schedule_may_be_an_interval(api: KfpApi, client: Client, version: Version) -> None:
    scheduled(client, version, interval="6h")
    assert api.catalog.recurring_runs[0]["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}


def test_two_schedules_do_not_share_a_name(api: KfpApi, client: Client, version: Version) -> None:
    scheduled(client, version)
    with pytest.raises(UserError, match=r"has a schedule 'nightly' \(.*\): give another --name"):
        scheduled(client, version)
    assert len(api.catalog.recurring_runs) == 1


@pytest.mark.parametrize(
    ("cron", "six"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15  8-18 1,15 jan-MAR Mon-fri", "0 */15 8-18 1,15 jan-MAR Mon-fri"),
        ("59 23 31 12 0-6/2", "0 59 23 31 12 0-6/2"),
    ],
)
def test_five_fields_become_the_server_s_six(cron: str, six: str) -> None:
    assert six_fields(cron) == six


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 0 3 * * *", "has 6 fields; expected 5 (minute, hour, day of the month, month, day of the week)"),
        ("@daily", "has 1 fields"),
        ("60 3 * * *", "'60' is no minute; expected * or numbers from 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 3 0 * *", "'0' is no day of the month"),
        ("0 3 * 13 *", "'13' is no month"),
        ("0 3 * * 7", "'7' is no day of the week; expected * or numbers from 0 to 6, or sun to sat"),
        ("0 3 * * someday", "'someday' is no day of the week"),
        ("0 5-3 * * *", "'5-3' is no hour"),
        ("*/0 3 * * *", "'*/0' is no minute"),
        ("0, 3 * * *", "'0,' is no minute"),
        ("*-5 3 * * *", "'*-5' is no minute"),
    ],
)
def test_a_wrong_field_is_named(cron: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        six_fields(cron)
    assert message in str(caught.value)


@pytest.mark.parametrize("interval", ["6", "0h", "1.5h", "6h30m", "-1h"])
def test_a_wrong_interval_is_named(interval: str) -> None:
    with pytest.raises(UserError, match="such as 6h"):
        Schedule("nightly", interval=interval).trigger()


# ---- the command line ----


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    return main()


@pytest.fixture
def three(client: Client, version: Version) -> list[str]:
    """Ids of schedules, on two pages of the server's answer."""
    return [scheduled(client, version, name) for name in ("nightly", "weekly", "yearly")]


def test_schedules_are_listed(
    api: KfpApi, three: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.catalog.recurring_runs[1]["status"] = "DISABLED"
    assert run(monkeypatch, "schedules", "--host", api.host) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"nightly: 0 3 * * *, on, {three[0]}",
        f"weekly: 0 3 * * *, paused, {three[1]}",
        f"yearly: 0 3 * * *, on, {three[2]}",
    ]


def test_no_schedules_are_said(
    api: KfpApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "schedules", "list", "--host", api.host) == 0
    assert capsys.readouterr().out == "no schedules\n"


def test_a_schedule_is_paused_and_resumed_by_name_or_id(
    api: KfpApi, three: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "schedules", "pause", "yearly", "--host", api.host) == 0
    assert [found["status"] for found in api.catalog.recurring_runs] == ["ENABLED", "ENABLED", "DISABLED"]
    assert run(monkeypatch, "schedules", "resume", three[2], "--host", api.host) == 0
    assert [found["status"] for found in api.catalog.recurring_runs] == ["ENABLED"] * 3
    assert capsys.readouterr().out == f"yearly ({three[2]}): paused\nyearly ({three[2]}): resumed\n"


def test_a_schedule_is_deleted(api: KfpApi, three: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "schedules", "delete", "weekly", "--host", api.host) == 0
    assert [found["display_name"] for found in api.catalog.recurring_runs] == ["nightly", "yearly"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delete", "daily"], "has no schedule 'daily'; there are: nightly, weekly, yearly"),
        (["delete"], "schedules delete takes the name of a schedule"),
        (["list", "nightly"], "schedules list takes no name of a schedule"),
    ],
)
def test_a_wrong_schedule_is_named(
    api: KfpApi,
    three: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, "schedules", *arguments, "--host", api.host) == 2
    assert message in capsys.readouterr().err
    assert len(api.catalog.recurring_runs) == 3


def test_one_of_two_schedules_of_a_name_needs_its_id(
    api: KfpApi, three: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.catalog.recurring_runs[1]["display_name"] = "nightly"
    assert run(monkeypatch, "schedules", "delete", "nightly", "--host", api.host) == 2
    assert f"give the id of one: {three[0]}, {three[1]}" in capsys.readouterr().err


PARAMS = ["--params", str(ROOT / "presets" / "tiny.yaml"), "--image", IMAGE]


def test_a_version_is_uploaded_and_run(
    api: KfpApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = ["--host", api.host]
    assert run(monkeypatch, "upload", *PARAMS, *host, "--checkpoints", "s3://bucket/states") == 0
    (version,) = api.catalog.versions
    assert f"pipeline irra, version {version['display_name']}: uploaded\n" in capsys.readouterr().out
    assert run(monkeypatch, "submit", *host, "--version", version["display_name"]) == 0
    assert api.runs[0].body["display_name"].startswith(f"irra {version['display_name']} ")
    assert api.runs[0].body["description"] == version["description"] != ""
    parameters = api.runs[0].pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_checkpoints"]["defaultValue"] == "s3://bucket/states"
    assert parameters["train"]["defaultValue"]["num_epoch"] == 2


def test_a_schedule_uploads_what_it_runs(
    api: KfpApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "schedule", "0 3 * * *", *PARAMS, "--host", api.host, "--name", "nightly") == 0
    (version,), (schedule,) = api.catalog.versions, api.catalog.recurring_runs
    assert [pipeline["display_name"] for pipeline in api.catalog.pipelines] == ["irra-scheduled"]
    assert schedule["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert f"schedule nightly ({schedule['recurring_run_id']}): 0 3 * * *, in the server's" in capsys.readouterr().out


def test_only_the_times_of_a_cron_line_have_a_time_zone() -> None:
    assert Schedule("nightly", cron="0 3 * * *").times() == "0 3 * * *, in the server's time zone"
    assert Schedule("often", interval="6h").times() == "every 6h"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schedule", "0 3 * *", *PARAMS], "has 4 fields"),
        (["schedule", "--every", "soon", *PARAMS], "--every soon: expected"),
        (["submit"], "give --image, or the --version"),
        (["submit", "--version", "v1", "--no-cache", "--set", "train.lr=1"], "leave out --set, --no-cache"),
        (["submit", "--version", "v1", *PARAMS], "leave out --image, --params"),
    ],
)
def test_a_mistake_is_found_before_anything_is_sent(
    api: KfpApi,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert run(monkeypatch, *arguments, "--host", api.host) == 2
    assert message in capsys.readouterr().err
    assert not api.requests


def test_a_schedule_needs_a_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "schedule", *PARAMS)
    assert "one of the arguments CRON --every is required" in capsys.readouterr().err
