"""The project with the tiny preset after `dvc repro`: the reference for every runner."""

import shutil
from pathlib import Path

import pytest

from tests.docker.engine import base_image, engine, image
from tests.projects import Project, new_project

__all__ = ["base_image", "engine", "image"]  # fixtures


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = new_project(tmp_path_factory.mktemp("reproduced"))
    project.run("dvc", "repro")
    return project.folder


@pytest.fixture(scope="module")
def project(reproduced: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Copy the project for each module."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(reproduced, folder, symlinks=True, dirs_exist_ok=True)
    return Project(folder)
