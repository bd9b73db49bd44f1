"""`make repro GPUS=2`: two processes of a stage on this machine, which end together and resume."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.launch import PROCESSES
from irra.checkpoint import STATE
from tests.projects import Project, new_project

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which everything is ready for a training."""
    project = new_project(tmp_path_factory.mktemp("processes"))
    project.set("train", num_epoch=15)
    project.run("dvc", "repro", "tokenize")
    return project


def start_training(project: Project) -> subprocess.Popen[str]:
    """Start two processes, and return their launcher after the first epoch."""
    training = subprocess.Popen(
        [sys.executable, "-m", "components.train"],
        cwd=project.folder,
        env=project.environment | {PROCESSES: "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert training.stdout is not None
    assert any(": R1 " in line for line in training.stdout)
    return training


def workers(launcher: subprocess.Popen[str]) -> dict[str, int]:
    """Return the process ids of a launcher's processes, by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    environments = {int(pid): Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in children}
    ranks = {pid: [x[5:] for x in environment if x.startswith("RANK=")] for pid, environment in environments.items()}
    return {rank: pid for pid, found in ranks.items() for rank in found}


def test_a_signal_to_the_launcher_stops_all_with_a_state(project: Project) -> None:
    training = start_training(project)
    training.send_signal(signal.SIGTERM)
    said, _ = training.communicate(timeout=60)
    assert training.returncode == 128 + signal.SIGTERM
    assert said.count("run it again to resume") == 1
    assert (project.folder / "checkpoints" / STATE).is_file()


def test_a_killed_process_ends_all_with_one_message_and_a_state(project: Project) -> None:
    training = start_training(project)
    processes = workers(training)
    os.kill(processes["1"], signal.SIGKILL)
    said, _ = training.communicate(timeout=60)
    assert training.returncode == 128 + signal.SIGKILL
    assert said.count("error: ") == 1
    assert "another of the processes that work together has ended; the state of epoch" in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())


def test_two_processes_finish_it_and_the_pipeline_is_then_up_to_date(project: Project) -> None:
    project.run("make", "repro", "GPUS=2")
    assert not (project.folder / "checkpoints" / STATE).exists()
    assert "up to date" in project.run("make", "repro")
