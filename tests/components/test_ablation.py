"""Queueing of the ablation's experiments, with a `dvc` that only notes what it is asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import ROOT

DVC = """#!/bin/sh
case "$1 $2" in
"exp list") echo ablation-itc-0;;
"queue status")
    echo "Task     Name              Created    Status"
    echo "1234567  ablation-itc-1    02:03 AM   Queued"
    echo "2345678  ablation-sdm-id-0 02:02 AM   Failed";;
*) test -z "$FAIL" || exit 3; echo "$@" >> asked; echo queued;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc").write_text(DVC)
    (tmp_path / "dvc").chmod(0o755)
    return tmp_path


def queue(project: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{project}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "components.ablation", *options]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def asked(project: Path) -> list[str]:
    return (project / "asked").read_text().splitlines()


def test_what_is_done_or_waiting_is_not_queued_again(project: Path) -> None:
    done = queue(project, "--losses", "itc", "sdm+id", "--seeds", "0", "1")
    assert (done.returncode, done.stdout) == (0, "queued\nqueued\n"), done.stderr
    assert asked(project) == [
        f"exp run --queue --name ablation-sdm-id-{seed} -S train.loss_names=sdm+id -S train.seed={seed}"
        for seed in (0, 1)
    ]


def test_the_paper_s_study_is_the_default(project: Path) -> None:
    assert queue(project).returncode == 0
    assert len(asked(project)) == 5 * 3 - 2


def test_the_exit_status_is_that_of_a_dvc_that_fails(project: Path) -> None:
    done = queue(project, FAIL="yes")
    assert (done.returncode, done.stderr) == (3, "")
