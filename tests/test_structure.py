"""The structure of the project: import directions, and a dvc.yaml that matches the code."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.layout import DATASET_RECORD, MODEL_RUN, OTHERS_RECORD, WEIGHTS_RECORD
from components.stages import ROWS, SECTIONS, STAGES, Stage
from irra.config import Params
from tests.imports import (
    CANNOT_CHANGE_AN_OUTPUT,
    PACKAGE_DATA,
    PACKAGES,
    ROOT,
    TAKEN_WHOLE,
    code_of,
    files_of,
    imported_names,
    is_harmless,
    source_of,
)

# of what parameters name, for DVC alone
RECORDS = {str(path) for path in (DATASET_RECORD, WEIGHTS_RECORD, OTHERS_RECORD)}
# states of a training, local and remote; copies of remote data; other test sets; where to log, which changes no result
UNTRACKED = {"checkpoints", "", "data/downloads", "data/also", str(MODEL_RUN)}
PURE = ("losses", "metrics", "data/masking")


IN_DVC = [stage for stage in ROWS if stage.in_dvc]
# DVC asks the others whether anything has changed; this one it runs each time.
each_stage_of_dvc = pytest.mark.parametrize(
    "stage", [stage for stage in IN_DVC if stage.name != "inputs"], ids=lambda stage: stage.name
)


def graph() -> dict[str, Any]:
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return stages


def dependencies(stage: Stage) -> tuple[set[str], set[str]]:
    """Return the dependencies of a stage in dvc.yaml: code, and data."""
    deps = set(graph()[stage.name].get("deps", []))
    code = {dep for dep in deps if dep.split("/")[0] in PACKAGES}
    return code, deps - code


def outputs(stage: Stage) -> set[str]:
    """Return the outputs of a stage in dvc.yaml."""
    node = graph()[stage.name]
    entries = [*node["outs"], *node.get("metrics", []), *node.get("plots", [])]
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}


def is_in(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_names(path)}


@pytest.mark.parametrize("path", sorted((ROOT / "irra").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_irra_imports_no_tool_of_the_pipeline(path: Path) -> None:
    assert not roots(path) & {"components", "app", "pipeline", "mlflow", "dvc", "kfp", "boto3", "matplotlib"}


@pytest.mark.parametrize("path", sorted((ROOT / "components").rglob("*.py")), ids=lambda path: path.name)
def test_components_do_not_import_the_pipeline(path: Path) -> None:
    assert not roots(path) & {"app", "pipeline", "kfp", "dvc"}


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_app_needs_no_cluster(path: Path) -> None:
    assert not roots(path) & {"pipeline", "kfp", "dvc", "boto3"}


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline").glob("*.py")), ids=lambda path: path.name)
def test_pipeline_leaves_the_work_to_the_stages(path: Path) -> None:
    assert not roots(path) & {"torch", "mlflow", "dvc", "boto3", "app"}


@pytest.mark.parametrize("name", PURE)
def test_pure_functions_import_nothing_from_the_project(name: str) -> None:
    assert not roots(ROOT / "irra" / f"{name}.py") & {"irra", "components"}


def test_the_import_direction_test_can_fail() -> None:
    assert "mlflow" in roots(ROOT / "components" / "tracking" / "tracker.py")


@each_stage_of_dvc
def test_a_stage_depends_on_all_code_that_can_change_what_it_writes(stage: Stage) -> None:
    listed, _ = dependencies(stage)
    assert {path for path in code_of(stage) if not is_in(path, listed)} == set()


@each_stage_of_dvc
def test_a_stage_depends_on_no_code_that_it_does_not_import(stage: Stage) -> None:
    listed, _ = dependencies(stage)
    assert {path for dep in listed - set(TAKEN_WHOLE) for path in files_of(dep)} <= code_of(stage)
    assert all(files_of(dep) & code_of(stage) for dep in listed)


@each_stage_of_dvc
def test_only_the_report_draws(stage: Stage) -> None:
    assert any("figures" in path for path in code_of(stage)) == (stage.name == "report")


@pytest.mark.parametrize("name", CANNOT_CHANGE_AN_OUTPUT)
def test_what_cannot_change_an_output_exists_and_is_imported_by_a_stage(name: str) -> None:
    assert source_of(name)
    code = {ROOT / path for stage in IN_DVC for path in code_of(stage) if path.endswith(".py")}
    imported = set().union(*map(imported_names, code))
    assert any(found == name or found.startswith(f"{name}.") for found in imported)
    assert not is_harmless(name.rpartition(".")[0])


def test_the_stage_graph_fits_on_two_screens() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 120


def test_every_data_file_of_the_package_belongs_to_a_module() -> None:
    data = {path for path in (ROOT / "irra").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == {path for pattern in PACKAGE_DATA.values() for path in ROOT.glob(pattern)}


def test_the_table_of_stages_is_complete() -> None:
    assert [stage.name for stage in IN_DVC] == list(graph())
    assert set(SECTIONS) == set(Params.model_fields)
    assert len(STAGES) == len(ROWS)


@pytest.mark.parametrize("stage", [stage for stage in ROWS if stage.section], ids=lambda stage: stage.name)
def test_a_stage_reads_and_writes_what_the_table_says(stage: Stage) -> None:
    module = import_module(stage.module)
    read = {str(field.default) for field in fields(module.Inputs)}
    assert sorted(read - UNTRACKED) == sorted(map(str, stage.reads))
    written = [str(field.default) for field in fields(module.Outputs)]
    assert sorted(path for path in written if path not in UNTRACKED) == sorted(map(str, stage.writes))


@each_stage_of_dvc
def test_dvc_tracks_what_a_stage_reads_and_writes(stage: Stage) -> None:
    _, data = dependencies(stage)
    for tracked, folders in ((data - RECORDS, {*map(str, stage.reads)}), (outputs(stage), {*map(str, stage.writes)})):
        assert all(is_in(path, folders) for path in tracked)
        assert all(any(is_in(path, {folder}) for path in tracked) for folder in folders)


@each_stage_of_dvc
def test_dvc_restores_what_a_stage_has_written_before(stage: Stage) -> None:
    """DVC keeps a stage out of its run cache if an output has no cache, unless that is a metric or a plot."""
    assert all(isinstance(out, str) for out in graph()[stage.name]["outs"])


@each_stage_of_dvc
def test_a_stage_depends_on_its_own_section_of_the_parameters(stage: Stage) -> None:
    assert graph()[stage.name]["params"] == [stage.section]
    assert graph()[stage.name]["cmd"] == f"python -m {stage.module}"


def test_edges_follow_the_stage_order() -> None:
    produced = {out: stage.name for stage in IN_DVC for out in outputs(stage)}
    edges = {stage.name: {produced[dep] for dep in dependencies(stage)[1]} for stage in IN_DVC}
    assert edges == {
        "inputs": set(),
        "prepare": {"inputs"},
        "tokenize": {"prepare"},
        "train": {"prepare", "tokenize", "inputs"},
        "evaluate": {"prepare", "tokenize", "train", "inputs"},
        "report": {"prepare", "train", "evaluate"},
        "index": {"prepare", "train"},
    }
