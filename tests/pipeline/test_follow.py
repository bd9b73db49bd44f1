"""Following a run, on what a real server (KFP 2.17) answered, and on what the test server makes of it."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import pytest

from irra.utils.errors import UserError
from pipeline.server import follow as module
from pipeline.server.client import Client, Server, Submission
from pipeline.server.follow import follow, last_words, own_lines
from pipeline.server.task_details import Task, describe, tasks_of
from pipeline.status import find_task
from tests.pipeline.kfp_api import Answer, KfpApi, kfp_api, recorded_log, recording
from tests.pipeline.workflow import NEVER, Workflow, node_id

pytestmark = pytest.mark.xdist_group("submit")
MAIN = {  # the pipelines that were recorded: tasks, and what they wait for
    "prepare": [],
    "tokenize": ["prepare"],
    "train": ["prepare", "tokenize"],
    "evaluate": ["prepare", "tokenize", "train"],
    "index": ["prepare", "train"],
    "gate": ["evaluate"],
    "condition-1": ["evaluate", "gate", "index", "train"],
}
ABLATION = {"prepare": [], "tokenize": ["prepare"], "for-loop-1": ["prepare", "tokenize"], "compare": ["for-loop-1"]}
TRAINING = {"train": [], "evaluate": ["train"]}


def tasks(names: Mapping[str, list[str]]) -> dict[str, Any]:
    specs: dict[str, Any] = {
        name: {"componentRef": {"name": name}, "dependentTasks": earlier} for name, earlier in names.items()
    }
    if "for-loop-1" in specs:
        specs["for-loop-1"]["parameterIterator"] = {}
    return specs


def pipeline(names: Mapping[str, list[str]]) -> dict[str, Any]:
    components: dict[str, Any] = {name: {} for name in (*names, *TRAINING)}
    components["for-loop-1"] = {"dag": {"tasks": tasks(TRAINING)}}
    return {"root": {"dag": {"tasks": tasks(names)}}, "components": components}


def read(answer: Mapping[str, Any]) -> Any:
    return kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(answer)), "V2beta1Run")


def summary(answer: Mapping[str, Any]) -> list[str]:
    return [f"{task.title} {describe(task)}".strip() for task in tasks_of(read(answer))]


@pytest.fixture
def api() -> Iterator[KfpApi]:
    with kfp_api() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll without waiting, and ignore the environment of the user who runs the tests."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOST_POLLS", 3)
    for name in ("TOKEN", "COOKIE", "ENDPOINT", "UI_ENDPOINT"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)


def replay(api: KfpApi, name: str) -> tuple[Client, Submission]:
    """Let the server answer as it did when the run was recorded."""
    answers = recording(name)
    api.recorded[answers[0]["run_id"]] = answers
    client = Client(Server(api.host))
    return client, client.submission(answers[0]["run_id"])


def start(api: KfpApi, spec: Mapping[str, Any], trainings: list[Any] | None = None) -> tuple[Client, Submission]:
    """Start a pipeline of the test server."""
    client = Client(Server(api.host))
    names = {**spec["components"], "root": {}}
    executors = {
        f"exec-{name}": {"container": {"image": "a:1", "resources": {"resourceMemoryLimit": "24Gi"}}} for name in names
    }
    definitions = {"inputDefinitions": {"parameters": {"trainings": {"parameterType": "LIST"}}}} if trainings else {}
    body = kfp_server_api.V2beta1Run(
        experiment_id=client.experiment_id("irra"),
        display_name="r",
        pipeline_spec={
            **spec,
            "root": {**spec["root"], **definitions},
            "schemaVersion": "2.1.0",
            "pipelineInfo": {"name": "irra"},
            "deploymentSpec": {"executors": executors},
        },
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={"trainings": trainings} if trainings else {}),
    )
    return client, client.create_run(body)


def followed(
    capsys: pytest.CaptureFixture[str], client: Client, submission: Submission
) -> tuple[list[str], Submission]:
    """Follow a run, and return the printed lines without the time."""
    ended = follow(client, submission)
    lines = capsys.readouterr().out.splitlines()
    return [line if line.startswith("  ") else line.split(" ", 1)[1] for line in lines], ended


@pytest.mark.parametrize(
    ("name", "workflow"),
    [
        ("followed", Workflow("irra-87677", pipeline(MAIN), cached=["prepare", "tokenize"], untaken=["condition-1"])),
        ("user_error", Workflow("irra-8rs6d", pipeline(MAIN), failing="prepare")),
        ("out_of_memory", Workflow("irra-58gbr", pipeline(MAIN), failing="train", cached=["prepare", "tokenize"])),
        ("ablation", Workflow("irra-ablation-9s9nf", pipeline(ABLATION), items=4)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_test_server_reports_what_a_real_one_did(name: str, workflow: Workflow) -> None:
    def known(entry: Mapping[str, Any]) -> tuple[Any, ...]:
        pods = frozenset(child["pod_name"] for child in entry.get("child_tasks", []))
        return entry["display_name"], entry.get("state"), pods

    theirs = recording(name)[-1]["run_details"]["task_details"]
    assert Counter(map(known, workflow.details())) == Counter(known(e) for e in theirs if "display_name" in e)


def test_our_tasks_are_found_among_the_nodes_of_a_failed_run() -> None:
    later = ["evaluate", "gate", "index", "tokenize", "train"]
    assert summary(recording("user_error")[-1]) == ["prepare FAILED after 0:00:58", *later]


def test_a_cached_task_may_end_in_the_next_second() -> None:
    answer = recording("followed")[-1]
    for entry in answer["run_details"]["task_details"]:
        if entry.get("display_name") == "prepare":
            entry["end_time"] = entry["start_time"].replace("00:15:54", "00:15:55")
    assert summary(answer)[0] == "prepare SUCCEEDED, from the cache"


def test_a_loops_tasks_are_told_apart() -> None:
    assert summary(recording("ablation")[-1]) == [
        "prepare SUCCEEDED after 0:00:20",
        "tokenize SUCCEEDED after 0:00:20",
        "train (itc, seed 0) SUCCEEDED after 0:00:20",
        "train (itc, seed 1) SUCCEEDED after 0:00:30",
        "train (sdm, seed 0) SUCCEEDED after 0:00:40",
        "train (sdm, seed 1) SUCCEEDED after 0:00:41",
        "evaluate (itc, seed 0) SUCCEEDED after 0:00:41",
        "evaluate (itc, seed 1) SUCCEEDED after 0:00:41",
        "evaluate (sdm, seed 0) SUCCEEDED after 0:00:41",
        "evaluate (sdm, seed 1) SUCCEEDED after 0:00:41",
        "compare SUCCEEDED after 0:00:31",
    ]


def test_a_loops_task_has_its_own_pod() -> None:
    (task,) = [task for task in tasks_of(read(recording("ablation")[-1])) if task.title == "train (sdm, seed 1)"]
    loop = "irra-ablation-9s9nf(0).root(0).for-loop-1(0).iteration-iterations(3:3)(0)"
    assert task.node == node_id("irra-ablation-9s9nf", f"{loop}.iteration-item(0).train(0).executor(0)")


@pytest.mark.parametrize(
    ("trainings", "expected"),
    [
        (
            [{"loss_names": "itc", "seed": "3"}, {"loss_names": "sdm+id", "seed": "4"}],
            ["itc, seed 3", "sdm+id, seed 4"],
        ),
        (["{}", '{"loss_names": "sdm", "seed": 1}'], ["1/2", "sdm, seed 1"]),
        (["hello", None], ["1/2", "2/2"]),
        (None, ["1/2", "2/2"]),
    ],
)
def test_a_loop_of_another_version_is_told_apart_by_places(trainings: list[Any] | None, expected: list[str]) -> None:
    details = Workflow("irra-x7k2p", pipeline(ABLATION), items=2).details()
    answer = {"run_details": {"task_details": details}, "runtime_config": {"parameters": {"trainings": trainings}}}
    assert [task.title for task in tasks_of(read(answer)) if task.name == "train"] == [f"train ({e})" for e in expected]


@pytest.mark.parametrize("names", [MAIN, ABLATION], ids=["pipeline", "ablation"])
def test_an_older_server_is_understood_too(names: Mapping[str, list[str]]) -> None:
    def found(attempts: bool) -> list[str]:
        workflow = Workflow("irra-x7k2p", pipeline(names), cached=["prepare"], items=2, attempts=attempts)
        return summary({"run_details": {"task_details": workflow.details()}})

    assert found(attempts=False) == found(attempts=True)


def test_the_pod_of_an_older_server_is_the_executor() -> None:
    workflow = Workflow("irra-x7k2p", pipeline(MAIN), cached=["prepare"], attempts=False)
    found = {task.name: task.node for task in tasks_of(read({"run_details": {"task_details": workflow.details()}}))}
    assert {node: name for name, node in found.items() if name in ("train", "gate")}.items() <= workflow.pods.items()


def test_following_prints_every_change_of_our_tasks_once(api: KfpApi, capsys: pytest.CaptureFixture[str]) -> None:
    lines, ended = followed(capsys, *replay(api, "followed"))
    assert lines == [
        "run RUNNING",
        "prepare SUCCEEDED, from the cache",
        "tokenize SUCCEEDED, from the cache",
        "train RUNNING",
        "train SUCCEEDED after 0:00:43",
        "evaluate RUNNING",
        "index RUNNING",
        "evaluate SUCCEEDED after 0:00:34",
        "index SUCCEEDED after 0:00:33",
        "gate RUNNING",
        "gate SUCCEEDED after 0:00:21",
        "run SUCCEEDED",
    ]
    assert (ended.state, ended.failure) == ("SUCCEEDED", None)


def test_a_failed_task_ends_with_its_own_message(api: KfpApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.logs["irra-8rs6d-2264538643"] = recorded_log("user_error")
    lines, ended = followed(capsys, *replay(api, "user_error"))
    message = "s3://datasets/nothing/CUHK-PEDES: nothing is there"
    assert lines == [
        "prepare FAILED after 0:00:58",
        "run FAILED",
        f"  prepare | error: {message}",
        f"  all of it: python -m pipeline logs {ended.run_id} prepare --host {api.host}",
    ]
    assert ended.failure == f"task prepare failed: {message}"


def test_a_task_without_memory_says_so(api: KfpApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.logs["irra-58gbr-3056482347"] = recorded_log("out_of_memory")
    lines, ended = followed(capsys, *replay(api, "out_of_memory"))
    assert lines[-2] == "  train | Killed"
    assert ended.failure == (
        "task train failed: exit status 137: its memory ran out, unless it was killed for another reason; "
        "raise tasks.train.memory in the cluster settings, "
        "or let the training need less: train.micro_batch, train.recompute, train.precision"
    )


def test_the_limit_of_a_task_without_memory_is_named(api: KfpApi) -> None:
    api.states, api.failing_task, api.logs = ("FAILED",), "index", {"index": recorded_log("out_of_memory")}
    failure = follow(*start(api, pipeline(MAIN))).failure
    assert failure == (
        "task index failed: exit status 137: its memory ran out (the limit is 24Gi), "
        "unless it was killed for another reason; raise tasks.index.memory in the cluster settings"
    )


def test_the_log_of_the_last_attempt_is_shown(api: KfpApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.logs = {"irra-nlv2k-2143776946": "first\n", "irra-nlv2k-2613403183": "second\n"}
    lines, ended = followed(capsys, *replay(api, "pod_deleted_then_killed"))
    assert lines[-2] == "  train | second"
    assert ended.failure == "task train failed: second"


def test_a_second_attempt_is_told(api: KfpApi, capsys: pytest.CaptureFixture[str]) -> None:
    client, submission = replay(api, "pod_deleted_then_killed")
    (ended,) = api.recorded[submission.run_id]
    running = json.loads(json.dumps(ended).replace("FAILED", "RUNNING"))
    for entry in running["run_details"]["task_details"]:
        entry["end_time"] = NEVER
    api.recorded[submission.run_id] = [running, ended]
    assert "train RUNNING, attempt 2" in followed(capsys, client, submission)[0]


def test_a_failure_without_a_log_is_named_all_the_same(api: KfpApi) -> None:
    failure = follow(*replay(api, "user_error")).failure
    assert failure is not None
    assert failure.startswith("task prepare failed: its log cannot be read (")
    assert failure.endswith('pods "irra-8rs6d-2264538643" not found)')


def test_many_failures_are_counted(api: KfpApi) -> None:
    client, submission = replay(api, "ablation")
    (answer,) = api.recorded[submission.run_id]
    answer["state"] = "FAILED"
    for entry in answer["run_details"]["task_details"]:
        entry["state"] = "FAILED" if entry.get("display_name") == "evaluate" else "SUCCEEDED"
    failure = follow(client, submission).failure
    assert failure is not None
    assert failure.count("its log cannot be read") == 3
    assert failure.endswith("; 1 more failed")


def test_a_task_that_kfp_could_not_prepare_is_named(api: KfpApi) -> None:
    client, submission = replay(api, "user_error")
    (answer,) = api.recorded[submission.run_id]
    for entry in answer["run_details"]["task_details"]:
        if entry["display_name"].startswith(("prepare", "executor")):
            entry["state"] = "FAILED" if "driver" in entry["display_name"] else ""
            if not entry["state"]:
                del entry["state"]
    api.logs["irra-8rs6d-1381805198"] = "F1128 23:51:00.624270      15 main.go:59] KFP driver: no such parameter\n"
    assert follow(client, submission).failure == "task prepare-driver failed: KFP driver: no such parameter"


@pytest.mark.parametrize("state", ["CANCELED", "FAILED"])
def test_a_run_that_ends_otherwise_says_how(api: KfpApi, state: str) -> None:
    api.states = ("RUNNING", state)
    assert follow(*start(api, pipeline(MAIN))).failure == f"the run is {state}"


LAUNCHER = "F1128 23:51:00.624270      15 main.go:59] failed to execute component: "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"epoch 1\nerror: no data\n  see docs\n{LAUNCHER}exit status 2\n", "no data"),
        (f"Traceback\nKeyError: 'x'\n{LAUNCHER}exit status 1\n", "KeyError: 'x'"),
        (
            f"epoch 60\n{LAUNCHER}failed to upload: Invalid region\n",
            "failed to execute component: failed to upload: Invalid region",
        ),
        (f"{LAUNCHER}exit status 3\n", "it left no message"),
        ("", "it left no message"),
    ],
)
def test_the_last_words_are_the_tasks_own_unless_it_was_done(text: str, expected: str) -> None:
    assert last_words(text, own_lines(text)) == expected


def test_a_log_is_shown_without_the_launchers_notes() -> None:
    assert own_lines(recorded_log("out_of_memory")) == ["Killed"]


@pytest.mark.parametrize(("pending", "logs", "expected"), [(True, {}, 1), (True, {"prepare": ""}, 0), (False, {}, 0)])
def test_a_pod_that_does_not_start_is_told_once(
    api: KfpApi,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pending: bool,
    logs: dict[str, str],
    expected: int,
) -> None:
    client, submission = start(api, pipeline(MAIN))
    api.states, api.pending, api.logs = (*["RUNNING"] * 5, "SUCCEEDED"), pending, logs
    monkeypatch.setattr(
        "pipeline.server.follow.monotonic", iter(range(0, 100_000, 60)).__next__
    )  # a minute at every look
    lines, _ = followed(capsys, client, submission)
    told = [line for line in lines if "has not started" in line]
    assert len(told) == expected
    for line in told:
        assert line.startswith(
            "prepare: no log after 3 minutes, so its pod has not started: its image cannot be pulled"
        )
        assert line.endswith(f"kubectl -n kubeflow describe pod -l pipeline/runid={submission.run_id}")


def test_the_log_of_a_living_pod_is_found_by_its_name(api: KfpApi) -> None:
    client, submission = replay(api, "followed")
    api.logs = {"irra-87677-system-container-impl-3172340150": "epoch 1\n"}
    assert client.get_log(submission.run_id, "irra-87677-3172340150") == "epoch 1\n"


def test_a_server_that_is_away_for_a_moment_is_asked_again(api: KfpApi, capsys: pytest.CaptureFixture[str]) -> None:
    client, submission = replay(api, "followed")
    api.misbehave[f"GET /runs/{submission.run_id}"] = Answer(503)
    polls = module._polls(client, submission)

    def come_back(*_: object) -> None:
        api.misbehave.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", come_back)
        assert next(polls).run_id == submission.run_id
    assert "503 Service Unavailable; asking again" in capsys.readouterr().out


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_wait_that_ends_early_says_that_the_run_continues(api: KfpApi, status: int) -> None:
    client, submission = replay(api, "followed")
    api.misbehave[f"GET /runs/{submission.run_id}"] = Answer(status)
    with pytest.raises(UserError, match=f"{status} .*; the run continues: {api.host}"):
        follow(client, submission)


def test_a_run_that_is_deleted_while_it_is_followed_is_told(api: KfpApi, monkeypatch: pytest.MonkeyPatch) -> None:
    client, submission = replay(api, "followed")
    monkeypatch.setattr(time, "sleep", lambda _: api.recorded.clear())
    with pytest.raises(
        UserError, match=f"has no run {submission.run_id} any more: it was deleted while it was followed$"
    ):
        follow(client, submission)


def test_a_run_that_never_was_is_told(api: KfpApi) -> None:
    client = Client(Server(api.host))
    with pytest.raises(UserError, match=f"^{api.host} has no run 123$"):
        follow(client, client.submission("123"))


@cache
def ablation_tasks() -> list[Task]:
    return tasks_of(read(recording("ablation")[-1]))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("compare", "compare"),
        ("train (itc, seed 1)", "train (itc, seed 1)"),
        ("train sdm 0", "train (sdm, seed 0)"),
        ("train sdm seed 0", "train (sdm, seed 0)"),
        ("evaluate 2/4", "evaluate (itc, seed 1)"),
    ],
)
def test_a_task_can_be_named_in_several_ways(wanted: str, expected: str) -> None:
    assert find_task(ablation_tasks(), wanted).title == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("train itc", r"train itc is 2 tasks of this run: train \(itc, seed 0\), train \(itc, seed 1\)$"),
        ("gate", r"gate is no task of this run, or .*: prepare, tokenize, train \(itc, seed 0\), .*, compare$"),
        ("train 5/4", "train 5/4 is no task of this run, or has not begun; there are: prepare"),
        (" ", "is no task of this run, or has not begun; there are: prepare"),
    ],
)
def test_a_task_that_is_not_there_lists_those_that_are(wanted: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_task(ablation_tasks(), wanted)
