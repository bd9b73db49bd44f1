"""Commands of the project in forks of one process that has imported everything.

A killed stage is a killed process, as anywhere; only its start takes a tenth of a second instead of ten.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree")  # events of `sys.audit`
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PRELOADED = "tests.hostile.preloaded"


@dataclass(frozen=True)
class Moment:
    """When a process is killed: before its `change`-th change of a file in its folder, or after some seconds."""

    change: int | None = None
    seconds: float = 0.0
    group: bool = False  # with all processes that it has started

    def __str__(self) -> str:
        when = f"after {self.seconds:.2f} s" if self.change is None else f"before change {self.change}"
        return f"{when}{' with its group' if self.group else ''}"


class Command:
    """`python -m MODULE ARGUMENTS` in `folder`, which leads a process group and writes what it prints to a file."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        moment: Moment | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        self._log = log
        log.write_bytes(b"")
        given = (module, arguments, folder, log, dict(environment or {}), moment)
        self.process = context.Process(target=_work, args=given)
        self._started = time.monotonic()
        self.process.start()
        if moment and moment.change is None:
            self.process.join(moment.seconds)
            self.kill(group=moment.group)

    def kill(self, *, group: bool = False) -> None:
        """Kill the process, if it still runs."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(int(self.process.pid or 0), signal.SIGKILL)

    def wait(self, seconds: float = 120.0) -> int:
        """The exit status; the process is killed if it takes longer."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill(group=True)
            self.process.join()
        self.seconds = time.monotonic() - self._started
        return int(self.process.exitcode or 0)

    @property
    def printed(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")


def changes(log: Path) -> list[str]:
    """The changes of files that a command made which was to be killed before a later one."""
    return log.with_suffix(".changes").read_text().splitlines()


def _work(
    module: str, arguments: tuple[str, ...], folder: Path, log: Path, environment: dict[str, str], moment: Moment | None
) -> None:
    os.setsid()
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_", "DVC_", "KFP_"))]:
        del os.environ[name]
    os.environ |= environment
    tempfile.tempdir = None  # chosen again, by TMPDIR
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [module, *arguments]
    multiprocessing.set_start_method("fork", force=True)  # what a command has that is started as usual
    if moment and moment.change is not None:
        sys.addaudithook(_killer(folder, log.with_suffix(".changes").open("w"), moment))
    sys.modules.pop(module, None)  # otherwise runpy warns that it was imported before
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _killer(folder: Path, record: Any, moment: Moment) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that counts and records the changes of files in `folder`, and kills before one of them."""
    root, process, count = f"{folder}{os.sep}", os.getpid(), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or not isinstance(arguments[0], (str, Path)) or os.getpid() != process:
            return
        path = os.path.abspath(os.path.join(_parent(event, arguments), arguments[0]))
        if not path.startswith(root) or (event == "open" and not arguments[2] & WRITING):
            return
        if count == moment.change:
            (os.killpg if moment.group else os.kill)(os.getpid(), signal.SIGKILL)
        count += 1
        record.write(f"{event} {path.removeprefix(root)}\n")
        record.flush()

    return hook


def _parent(event: str, arguments: tuple[Any, ...]) -> str:
    """The folder that a path is relative to: `shutil.rmtree` works with descriptors of folders."""
    descriptor = arguments[1] if event in ("os.remove", "os.rmdir") else -1
    return os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else ""
