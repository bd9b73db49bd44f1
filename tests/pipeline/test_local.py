"""When a local run counts as finished, and which local paths a container gets."""

import json
from pathlib import Path

import pytest
from kfp import dsl
from kfp.local import subprocess_task_handler

from components.stages import ROWS
from irra.config import Params, change
from irra.utils.errors import UserError
from pipeline.graph import ablation_arguments, ablation_pipeline, arguments, irra_pipeline
from pipeline.kfp_quirks import check_finished, quote_interpreter
from pipeline.local import on_this_machine, run_in_subprocesses
from tests.pipeline.packages import IMAGE, LOSSES, SEEDS, tiny

ELSEWHERE = ("outdated", "gate", "register", "compare")  # in other pipelines, or left with a verdict
ALWAYS = tuple(stage.name for stage in ROWS if stage.on_kubeflow and stage.name not in ELSEWHERE)


def leave(run: Path, *tasks: str, verdict: str = "") -> None:
    """Write what successful tasks leave; with a `verdict`, also the gate's result."""
    for task in tasks:
        (run / task).mkdir(parents=True)
        (run / task / "executor_output.json").write_text("{}")
    if verdict:
        leave(run, "gate")
        (run / "gate" / "executor_output.json").write_text(json.dumps({"parameterValues": {"Output": verdict}}))


def check(run: Path) -> None:
    check_finished(run, irra_pipeline(tiny(), IMAGE), arguments(tiny()))


def check_ablation(run: Path) -> None:
    values = ablation_arguments(tiny(), LOSSES, SEEDS)
    check_finished(run, ablation_pipeline(tiny(), IMAGE, None, LOSSES, SEEDS), values)


def iterations() -> list[str]:
    count = len(LOSSES) * len(SEEDS)
    return [f"for-loop-1-iteration-{index}/{task}" for index in range(count) for task in ("train", "evaluate")]


@pytest.mark.parametrize(("verdict", "more"), [("pass", ["register"]), ("fail", [])])
def test_a_finished_run_has_register_only_if_the_gate_says_pass(tmp_path: Path, verdict: str, more: list[str]) -> None:
    leave(tmp_path, *ALWAYS, *more, verdict=verdict)
    check(tmp_path)


@pytest.mark.parametrize(
    ("tasks", "verdict", "silent"),
    [
        (tuple(name for name in ALWAYS if name != "index"), "fail", "index"),  # no other task needs its output
        (ALWAYS, "pass", "register"),
        (ALWAYS, "", "gate"),
        (("prepare", "check"), "", "tokenize"),  # the tasks after it never began
    ],
)
def test_a_task_that_vanished_is_named(tmp_path: Path, tasks: tuple[str, ...], verdict: str, silent: str) -> None:
    leave(tmp_path, *tasks, verdict=verdict)
    with pytest.raises(UserError, match=f"^{silent}: ended without a result"):
        check(tmp_path)


def test_an_ablation_is_finished_with_all_its_iterations(tmp_path: Path) -> None:
    leave(tmp_path, "prepare", "tokenize", *iterations(), "compare")
    check_ablation(tmp_path)


@pytest.mark.parametrize("vanished", ["compare", "for-loop-1-iteration-3/evaluate"])
def test_a_task_of_an_ablation_that_vanished_is_named(tmp_path: Path, vanished: str) -> None:
    leave(tmp_path, *({"prepare", "tokenize", *iterations(), "compare"} - {vanished}))
    with pytest.raises(UserError, match=f"^{vanished}: ended without a result"):
        check_ablation(tmp_path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder for datasets in a new current folder."""
    project = tmp_path / "project"
    (project / "raw").mkdir(parents=True)
    monkeypatch.chdir(project)
    return project


def with_dataset(*assignments: str) -> Params:
    dataset = ["prepare.synthetic=null", "prepare.dataset_name=CUHK-PEDES", "prepare.root_dir=raw"]
    return change(tiny(), [*dataset, *assignments])


def test_containers_see_a_dataset_at_its_absolute_path(here: Path) -> None:
    (here / "raw" / "CUHK-PEDES").mkdir()
    params, mounts = on_this_machine(with_dataset())
    assert params.prepare.root_dir == str(here / "raw")
    assert mounts == [here / "raw"]


def test_containers_see_the_target_of_a_link(here: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (here / "raw" / "CUHK-PEDES").symlink_to(tmp_path / "disk")
    assert on_this_machine(with_dataset())[1] == [here / "raw", tmp_path / "disk"]


def test_containers_see_local_weights(here: Path) -> None:
    (here / "weights.pt").touch()
    params, mounts = on_this_machine(change(tiny(), ["train.pretrained=weights.pt"]))
    assert params.train.pretrained == str(here / "weights.pt")
    assert mounts == [here / "weights.pt"]


def test_containers_see_a_folder_to_start_from(here: Path) -> None:
    (here / "start").mkdir()
    params, mounts = on_this_machine(change(tiny(), ["train.init_from=start"]))
    assert params.train.init_from == str(here / "start")
    assert mounts == [here / "start"]


@pytest.mark.parametrize("root", ["s3://bucket/raw", "nowhere"])
def test_a_path_that_is_not_on_this_machine_stays_as_it_is(here: Path, root: str) -> None:
    params = with_dataset(f"prepare.root_dir={root}")
    assert on_this_machine(params) == (params, [])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def double(number: int) -> int:
    return 2 * number


@dsl.pipeline(name="small")
def small(number: int) -> None:
    double(number=number)


def test_every_run_has_its_own_folder(tmp_path: Path) -> None:
    folder = run_in_subprocesses(small, tmp_path, {"number": 3})
    assert json.loads((folder / "double" / "executor_output.json").read_text())["parameterValues"] == {"Output": 6}
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.parent.parent == tmp_path


def test_the_path_of_python_may_have_a_space() -> None:
    quote_interpreter()
    replace = subprocess_task_handler.replace_python_executable
    assert replace(["sh", "-c", "python3 -m x"], "/a b/python") == ["sh", "-c", "'/a b/python' -m x"]
