"""Locks held by real processes."""

import multiprocessing
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from irra.utils.errors import UserError
from irra.utils.files import replace_folder
from irra.utils.locks import locked

HOLD = """
import sys
from pathlib import Path
from irra.utils.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
REPLACE = """
import sys
from pathlib import Path
from irra.utils.files import replace_folder
with replace_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from irra.utils.locks import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        print("held", flush=True)  # only the child: by now it has left the lock to its parent
        os.close(1)
        sys.stdin.read()
        os._exit(0)
    time.sleep(60)
"""


@contextmanager
def running(script: str, path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has the lock of `path`, and ends when its input does."""
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def take(path: Path) -> None:
    with locked(path):
        pass


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_second_owner_is_told_who_is_the_first_and_since_when(tmp_path: Path) -> None:
    with running(HOLD, tmp_path / "model") as process:
        owner = rf"model: process {process.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d is writing it; wait"
        with pytest.raises(UserError, match=owner):
            take(tmp_path / "model")


def test_a_killed_owner_frees_the_lock(tmp_path: Path) -> None:
    with running(HOLD, tmp_path / "model") as process:
        kill(process)
        take(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_process_forked_by_a_killed_owner_does_not_keep_the_lock(tmp_path: Path) -> None:
    with running(HOLD_AND_FORK, tmp_path / "model") as process:
        kill(process)
        take(tmp_path / "model")


def test_who_waits_gets_the_lock_when_the_owner_ends(tmp_path: Path) -> None:
    with running(HOLD, tmp_path / "model") as process:
        assert process.stdin is not None
        process.stdin.close()
        with locked(tmp_path / "model", wait=True):
            assert process.wait(10) == 0


def test_locks_of_one_thread_are_nested(tmp_path: Path) -> None:
    with locked(tmp_path / "model"):
        take(tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_link_and_what_it_points_to_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with running(HOLD, tmp_path / "link"), pytest.raises(UserError, match="disk: process"):
        take(tmp_path / "disk")


def test_another_writer_of_a_folder_leaves_the_first_one_s_work_alone(tmp_path: Path) -> None:
    with running(REPLACE, tmp_path / "index") as process:
        with pytest.raises(UserError, match="is writing it"), replace_folder(tmp_path / "index"):
            pass
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    assert (tmp_path / "index" / "half").read_text() == "half"


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "index.raw.tmp").mkdir()  # another's
    with running(REPLACE, tmp_path / "index") as process:
        kill(process)
    assert [re.sub("[0-9a-f]{8}", "", path.name) for path in tmp_path.glob("index.*")] != ["index.raw.tmp"]
    with replace_folder(tmp_path / "index"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "index.raw.tmp"]


def _count(folder: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    barrier.wait()
    for _ in range(100):
        with locked(folder / "count", wait=True):
            number = int((folder / "count").read_text())
            (folder / "count").write_text(str(number + 1))


def test_among_many_there_is_never_more_than_one_owner(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_count, args=(tmp_path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "400"
