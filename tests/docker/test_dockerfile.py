"""What can be checked of the image without building it."""

import re
import subprocess
import tomllib
from pathlib import Path

from tests.imports import ROOT, imported_names

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def value(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match, pattern
    return match[1]


def copied() -> set[str]:
    lines = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {name for line in lines for name in line.split()}


def own_packages(*files: Path) -> set[str]:
    roots = {name.split(".")[0] for file in files for name in imported_names(file)}
    return {name for name in roots if (ROOT / name / "__init__.py").is_file()}


def test_the_makefile_and_the_dockerfile_agree() -> None:
    own = value(r"^BASE_IMAGE [:?]= (\S+)", (ROOT / "Makefile").read_text())
    assert own == value(r"^ARG BASE_IMAGE=(\S+)", DOCKERFILE)


def test_the_labels_agree_with_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for label, key in (("title", "name"), ("version", "version"), ("licenses", "license")):
        assert value(rf'image\.{label}="(.+?)"', DOCKERFILE) == project[key]


def test_docker_gets_exactly_what_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied()


def test_every_package_that_runs_in_the_image_is_copied_with_what_it_imports() -> None:
    inside = {name for name in copied() if (ROOT / name).is_dir()}
    imported = own_packages(
        ROOT / "pipeline" / "tasks.py",
        ROOT / "pipeline" / "train_on_nodes.py",
        *(path for name in inside for path in ROOT.glob(f"{name}/**/*.py")),
    )
    assert imported <= inside == {"irra", "components", "app"}


def test_an_image_is_tagged_with_its_commit() -> None:
    command = ["make", "--dry-run", "image", "REGISTRY=registry.example/"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(rf"--tag registry\.example/irra-python-pipeline:{commit.stdout[:12]}(-dirty)? ", made.stdout)


def test_only_files_in_the_image_make_its_tag_dirty() -> None:
    (line,) = re.findall("^IN_IMAGE := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = {name for name in line.split() if (ROOT / name).is_file() and name not in ("Dockerfile", ".dockerignore")}
    folders = {name for name in line.split() if (ROOT / name).is_dir()}
    copies = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert files | folders == {name for names in copies for name in names.split()}
