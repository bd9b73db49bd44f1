"""The shape of the project: import direction, and a stage graph that knows its own code."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.imports import PACKAGE_DATA, ROOT, code_of, imported_names

STAGES = ("prepare", "tokenize", "train", "evaluate", "index")
UNTRACKED = {"checkpoints", "", "data/downloads"}  # states of a training, here and remote; copies of remote data
PURE = ("losses", "metrics", "data/masking")


def graph() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return stages


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)}


@pytest.mark.parametrize("path", sorted((ROOT / "irra").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_method_imports_no_tool_of_the_pipeline(path: Path) -> None:
    assert not roots(path) & {"components", "app", "pipeline", "mlflow", "dvc", "kfp", "boto3", "matplotlib"}


@pytest.mark.parametrize("path", sorted((ROOT / "components").rglob("*.py")), ids=lambda path: path.name)
def test_components_import_no_pipeline(path: Path) -> None:
    assert not roots(path) & {"app", "pipeline", "kfp", "dvc"}


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_people_touch_needs_no_cluster(path: Path) -> None:
    assert not roots(path) & {"pipeline", "kfp", "dvc", "boto3"}


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline").glob("*.py")), ids=lambda path: path.name)
def test_the_graph_leaves_the_work_to_the_stages(path: Path) -> None:
    assert not roots(path) & {"torch", "mlflow", "dvc", "boto3", "app"}


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_import_nothing_of_the_project(name: str) -> None:
    assert not roots(ROOT / "irra" / f"{name}.py") & {"irra", "components"}


def test_the_import_direction_test_can_fail() -> None:
    assert "mlflow" in roots(ROOT / "components" / "tracking" / "run.py")


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_of_a_stage_are_its_import_closure_and_the_data_read_by_it(stage: str) -> None:
    listed = {dep for dep in graph()[stage]["deps"] if dep.endswith((".py", ".json"))}
    assert listed == code_of(ROOT / "components" / f"{stage}.py")


def test_all_files_of_the_package_that_are_no_modules_are_known_to_be_read() -> None:
    data = {path for path in (ROOT / "irra").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == {path for pattern in PACKAGE_DATA.values() for path in ROOT.glob(pattern)}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_reads_and_writes_what_dvc_tracks(stage: str) -> None:
    module = import_module(f"components.{stage}")
    node = graph()[stage]
    inputs = {str(field.default) for field in fields(module.Inputs)}
    tracked = {dep for dep in node["deps"] if not dep.endswith((".py", ".json")) and "$" not in dep}
    assert inputs == tracked
    entries = [*node["outs"], *node.get("metrics", []), *node.get("plots", [])]
    paths = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    written = {str(field.default) for field in fields(module.Outputs)} - UNTRACKED
    assert all(any(path == out or path.startswith(f"{out}/") for out in written) for path in paths)
    assert all(any(path == out or path.startswith(f"{out}/") for path in paths) for out in written)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_its_own_section_of_the_parameters(stage: str) -> None:
    assert graph()[stage]["params"] == [stage]
    assert graph()[stage]["cmd"] == f"python -m components.{stage}"


def test_edges_follow_the_stage_order() -> None:
    produced: dict[str, str] = {}
    for stage, node in graph().items():
        produced |= dict.fromkeys((out for out in node["outs"] if isinstance(out, str)), stage)
    edges = {stage: {produced[dep] for dep in node["deps"] if dep in produced} for stage, node in graph().items()}
    assert edges == {
        "prepare": set(),
        "tokenize": {"prepare"},
        "train": {"prepare", "tokenize"},
        "evaluate": {"prepare", "tokenize", "train"},
        "index": {"prepare", "train"},
    }
