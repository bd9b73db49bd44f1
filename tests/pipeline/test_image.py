"""The real image: what is in it, which user runs in it, and what has to be rebuilt after a change of code."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import NEEDS_DOCKER, base_image, build, docker, engine, image
from tests.imports import ROOT

__all__ = ["base_image", "engine", "image"]  # fixtures

pytestmark = NEEDS_DOCKER

LEFTOVERS = r"""
find /tmp /var/tmp /home/irra /root/.cache /var/lib/apt/lists /var/cache/apt/archives -type f 2>/dev/null
find / -xdev \( -name .git -o -name .dvc -o -name .env -o -name .netrc -o -name .aws -o -name uv -type f \)
find /app /opt/venv -perm -o+w ! -type l
"""


def inside(image: str, *command: str, user: str | None = None, folder: str = "/app") -> str:
    """Run a command in a container of the image and return what it prints."""
    return docker("run", "--rm", *(["--user", user] if user else []), "--workdir", folder, image, *command)


def facts(image: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return config


def test_the_user_is_a_number_and_not_root(image: str) -> None:
    assert re.fullmatch(r"[1-9]\d*(:\d+)?", facts(image)["Config"]["User"])
    assert inside(image, "id", "-u") != "0"


def test_there_is_no_entrypoint_because_kubeflow_gives_the_command(image: str) -> None:
    assert not facts(image)["Config"]["Entrypoint"]


def test_the_image_says_from_which_commit_it_was_built(image: str) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert facts(image)["Config"]["Labels"]["org.opencontainers.image.revision"] == commit.stdout.strip()


def test_no_caches_histories_or_keys_are_inside_and_code_is_read_only(image: str) -> None:
    assert inside(image, "sh", "-c", LEFTOVERS, user="0") == ""


def test_the_work_folder_holds_only_the_packages_and_their_metadata(image: str) -> None:
    names = {"LICENSE", "README.md", "app", "components", "irra", "pyproject.toml", "requirements.txt"}
    assert set(inside(image, "ls", "-A", "/app").split()) == names


def test_no_credentials_are_in_the_environment_or_the_history(image: str) -> None:
    text = docker("history", "--no-trunc", image) + json.dumps(facts(image)["Config"])
    assert not re.search(r"//[^/\s\"]+@|(PASSWORD|SECRET|TOKEN|ACCESS_KEY)\w*=", text)


@pytest.mark.parametrize("user", [None, "4242:4242"], ids=["own user", "any user"])
def test_a_stage_starts_for_any_user(image: str, user: str | None) -> None:
    assert "python -m components.prepare" in inside(image, "python", "-m", "components.prepare", "--help", user=user)


@pytest.mark.parametrize("user", [None, "4242:4242"], ids=["own user", "any user"])
def test_libraries_find_a_home_and_a_name_for_any_user(image: str, user: str | None) -> None:
    code = "import getpass, matplotlib, tempfile; print(getpass.getuser(), matplotlib.get_cachedir())"
    assert inside(image, "python", "-c", code, user=user) == "irra /home/irra/.cache/matplotlib"


def test_the_executor_of_kubeflow_and_the_packages_import_from_any_folder(image: str) -> None:
    code = "import kfp.dsl.executor_main, irra, components, app; print(irra.__file__)"
    command = ["env", "_KFP_RUNTIME=true", "python3", "-c", code]  # as kfp starts a task
    assert inside(image, *command, folder="/tmp") == "/app/irra/__init__.py"


def test_all_dependencies_of_the_stages_are_installed(image: str) -> None:
    code = "import torch, open_clip, mlflow, boto3, matplotlib.pyplot, faiss, onnxruntime, fastapi, kubeflow.trainer"
    assert inside(image, "python", "-W", "error::ImportWarning", "-c", code) == ""


def test_the_command_of_the_image_starts(image: str) -> None:
    assert "Usage: irra" in docker("run", "--rm", image)


def test_bytecode_is_compiled_because_no_task_can_write_it(image: str) -> None:
    packages = "torch, irra, components, app"
    code = f"import {packages}, os; print(all(os.path.exists(package.__cached__) for package in ({packages})))"
    assert inside(image, "python", "-c", code) == "True"


def test_a_change_of_code_keeps_the_layer_of_the_dependencies(image: str, base_image: str, tmp_path: Path) -> None:
    for name in (
        "Makefile",
        "Dockerfile",
        ".dockerignore",
        "pyproject.toml",
        "requirements.txt",
        "README.md",
        "LICENSE",
    ):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("irra", "components", "app"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "irra" / "__init__.py").write_text("# edited\n")
    edited = build(tmp_path, "irra-python-pipeline:edited", base_image)
    try:
        before, after = facts(image)["RootFS"]["Layers"], facts(edited)["RootFS"]["Layers"]
    finally:
        docker("rmi", edited)
    assert before[:-4] == after[:-4]
    assert before[-4:] != after[-4:]  # irra, components, app, the installed command
