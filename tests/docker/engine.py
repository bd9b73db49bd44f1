"""Fixtures for tests that need Docker: an engine, a base image, and the image of the project.

python -m pytest -m docker -rs

If an engine already runs, the tests use it. Otherwise they start one, which needs root, and stop it at the end. Its
images stay, so that only the first run downloads the dependencies.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.imports import ROOT

IMAGE = "irra-python-pipeline:test"
STAND_IN = "irra-python-base:bookworm"
START_SECONDS = 60
STOP_SECONDS = 60

# The first build takes many minutes. One group: otherwise every process of pytest-xdist would start an engine.
NEEDS_DOCKER = [pytest.mark.docker, pytest.mark.timeout(3600), pytest.mark.xdist_group("docker")]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make sure that an engine answers on the default socket."""
    with running_engine(tmp_path_factory.mktemp("docker") / "dockerd.log"):
        yield


@pytest.fixture(scope="session")
def base_image(engine: None) -> str:
    """Return $BASE_IMAGE, or else the Dockerfile's own base image, or a stand-in if that cannot be pulled."""
    if chosen := os.environ.get("BASE_IMAGE"):
        return chosen
    match = re.search(r"^ARG BASE_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert match
    own = match[1]
    if image_id(own) or subprocess.run(["docker", "pull", "--quiet", own], capture_output=True).returncode == 0:
        return own
    if not image_id(STAND_IN):
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            pytest.skip(f"no base image: {own} cannot be pulled, and a stand-in needs root and debootstrap")
        subprocess.run([Path(__file__).with_name("make_base_image.sh"), STAND_IN], check=True)
    return STAND_IN


@pytest.fixture(scope="session")
def image(base_image: str) -> str:
    """Build the image with the user's own command and return its tag."""
    return build(ROOT, IMAGE, base_image)


def build(folder: Path, tag: str, base: str) -> str:
    """Run `make image` in `folder`, and remove older, unused images of that tag."""
    subprocess.run(["make", "image", f"IMAGE={tag}", f"BASE_IMAGE={base}"], cwd=folder, check=True)
    docker("image", "prune", "--force", "--filter", "label=org.opencontainers.image.title=irra-pipeline")
    return tag


def docker(*arguments: str) -> str:
    """Run a docker command and return what it prints. If it fails, the AssertionError shows its messages."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def image_id(name: str) -> str:
    """Return the id of a local image, or "" if there is none."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@contextmanager
def running_engine(log: Path) -> Iterator[None]:
    """Use the running engine, or start one until the context ends. Skip the test if none can run."""
    if shutil.which("docker") is None:
        pytest.skip("no Docker engine: there is no docker command (on Debian: apt-get install docker.io)")
    if _answers():
        yield
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("no Docker engine answers, and starting one needs root and dockerd")
    with log.open("w") as file:
        process = subprocess.Popen(["dockerd"], stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_for(process, log)
        yield
    finally:
        process.terminate()  # it stops its containerd and unmounts its containers
        process.wait(STOP_SECONDS)


def _answers() -> bool:
    return subprocess.run(["docker", "version"], capture_output=True).returncode == 0


def _wait_for(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.skip("no Docker engine: dockerd does not start here: " + log.read_text()[-500:])
        time.sleep(0.2)
