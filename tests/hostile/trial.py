"""Trials: work in a forked process with limits of time and memory, and the judgement of how it ended."""

import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.stage import guarded

SECONDS = 20.0  # nothing that is asked here takes a tenth of it
MEMORY = 2 << 30  # bytes of address space beside what the process has at its start
CRASHED = 70  # the exit status of an exception that no command turns into a message
ERROR = "error: "
SHOWN = 300  # characters of what went wrong


@dataclass(frozen=True)
class Ending:
    """How a process ended: its exit status (None: it had to be killed), its answer and what it wrote to stderr."""

    status: int | None
    answer: str
    message: str


@dataclass(frozen=True)
class Trials:
    """Runs work in forked processes in the folder `cwd`; their outputs go to `scratch`.

    A fork has everything imported, so that a trial takes hundredths of a second instead of ten seconds.
    """

    cwd: Path
    scratch: Path

    def attempt(self, work: Callable[[], object], seconds: float = SECONDS) -> Ending:
        """Run `work` like a command, in a process of its own; what it returns is its answer, as text."""
        outputs = [self.scratch / name for name in ("answer", "stdout", "stderr")]
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _live(work, self.cwd, outputs)
        status = _wait(child, seconds)
        answer, printed, message = (path.read_text(encoding="utf-8", errors="replace") for path in outputs)
        return Ending(status, answer + printed, message)


def problem_of(ending: Ending, expected: str | None, names: Sequence[str]) -> str | None:
    """Say what is wrong with an ending; None if it gave the `expected` answer, or one message that has the `names`.

    Without an `expected` answer, only such a message is right.
    """
    if ending.status is None:
        return "it did not end in time"
    if ending.status == 0:
        if expected is None:
            return f"it was accepted: {ending.answer[:SHOWN]!r}"
        return None if ending.answer == expected else f"another answer without a word: {_difference(ending, expected)}"
    if ending.status not in (1, 2) or "Traceback" in ending.message:
        return f"exit status {ending.status}: {ending.message[-SHOWN:]!r}"
    _, *errors = f"\n{ending.message}".split(f"\n{ERROR}")
    if len(errors) != 1:
        return f"{len(errors)} messages: {ending.message[-SHOWN:]!r}"
    missing = [name for name in names if name not in errors[0]]
    return f"the message does not name {', '.join(missing)}: {errors[0][:SHOWN]!r}" if missing else None


def _difference(ending: Ending, expected: str) -> str:
    start = next(
        (at for at, pair in enumerate(zip(ending.answer, expected, strict=False)) if pair[0] != pair[1]),
        min(len(ending.answer), len(expected)),
    )
    start = max(0, start - 40)
    return f"{ending.answer[start : start + 100]!r} instead of {expected[start : start + 100]!r}"


def _live(work: Callable[[], object], cwd: Path, outputs: Sequence[Path]) -> None:
    """The life of the forked process, which never returns to what its parent was doing."""
    status = CRASHED
    try:
        os.setpgid(0, 0)  # so that its own children can be killed with it
        answer, stdout, stderr = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in outputs)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(cwd)
        _limit_memory()
        status = guarded(lambda: os.write(answer, str(work()).encode()))
    except SystemExit as exit:  # of a command line
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _wait(child: int, seconds: float) -> int | None:
    """The exit status of a forked process, or minus the signal that ended it; None if it had to be killed."""
    descriptor = os.pidfd_open(child)
    ended, _, _ = select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    with suppress(ProcessLookupError):  # what it started must not outlive it
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ended else None
