"""The command line of the stages: parameters, paths, error messages and exit statuses."""

import argparse
import errno
import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from components.launch import launch, wanted_processes
from components.layout import PARAMS
from irra.config import ConfigSection, Params, load_params
from irra.utils.errors import Interrupted, TemporaryError, UserError
from irra.utils.signals import stop_with_parent

TERMINATION_LOG = Path("/dev/termination-log")  # Kubernetes shows what a container leaves there
MAX_LEFT_BYTES = 2000  # Kubernetes keeps 12 KiB for all containers of a pod, and of a longer message only the end
MAX_SHOWN_CHARACTERS = 60  # of a path that is too long
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def main(
    name: str,
    run: Callable[[Any, Any, Any], object],
    inputs: type[Any],
    outputs: type[Any],
    section: str | Callable[[Params], ConfigSection] | None = None,
    check: Callable[[Any, Params], None] | None = None,
    parallel: bool = False,
) -> int:
    """Run a stage from the command line.

    Args:
        name: The stage's module is `components.<name>`.
        run: The stage's function of inputs, outputs and config.
        inputs: A dataclass of paths and addresses; every field becomes an option with the field's default.
        outputs: Likewise.
        section: The stage's section of the parameter file, or a function that makes it of all; `name` by default.
        check: A function of inputs and all sections, called first, that refuses what later stages would fail on.
        parallel: Whether several processes may run the stage together.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m components.{name}", description=sys.modules[run.__module__].__doc__
    )
    parser.add_argument("--params", type=Path, default=PARAMS, help="parameter file (default: %(default)s)")
    for kind in (inputs, outputs):
        for field in fields(kind):
            assert field.default is not MISSING
            role = "input" if kind is inputs else "output"
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=field.type,
                default=field.default,
                help=f"{role} (default: {str(field.default) or 'none'})",
            )
    arguments = vars(parser.parse_args())
    prepare_process()
    os.environ.setdefault("DVC_STAGE", name)
    # Without DVC, a finished stage would run again: a training rather resumes. Without torchrun, nobody would end it.
    if "DVC_ROOT" in os.environ or "RANK" in os.environ:
        stop_with_parent()
    try:  # not `guarded`, which would add frames to every traceback
        if parallel and (processes := wanted_processes()) > 1:
            return launch(f"components.{name}", processes)
        params, given = load_params(arguments["params"]), _paths(inputs, arguments)
        if check and os.environ.get("RANK", "0") == "0":
            check(given, params)
        config = section(params) if callable(section) else getattr(params, section or name)
        run(given, _paths(outputs, arguments), config)
    except BaseException as error:
        return explain(error)
    return 0


def guarded(work: Callable[[], object]) -> int:
    """Run `work` and return the exit status; user errors, full disks and signals print a message, not a traceback."""
    prepare_process()
    try:
        work()
    except BaseException as error:
        return explain(error)
    return 0


def prepare_process() -> None:
    """Set what holds for a whole command: how warnings look, what is printed, and which way addresses are reached."""
    warnings.formatwarning = _warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the locale cannot show is no reason for a traceback
    # A proxy would look for servers on this machine, such as MLflow's, on its own.
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    if direct != "*":
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (direct, *LOOPBACK)))


def explain(error: BaseException) -> int:
    """Print the message of an expected `error`.

    Returns:
        The exit status.

    Raises:
        BaseException: `error` itself, if it is a bug or a signal that ends the process.
    """
    expected = _expected(error)
    if expected:
        message, status = expected
        print(message, file=sys.stderr)
        return status
    if isinstance(error, Interrupted):
        print(error.message, file=sys.stderr)
    raise error


def leave_message(error: BaseException, path: Path = TERMINATION_LOG) -> None:
    """Leave the message of an expected `error` where Kubernetes looks for it; elsewhere do nothing.

    It shows in `kubectl describe pod` and in the state of an Argo node, whose retry strategy may look at it: only the
    message of a mistake that every attempt would repeat begins with `error:`.
    """
    expected = _expected(error)
    if expected:
        lasting = isinstance(error, UserError) and not isinstance(error, TemporaryError)
        text = expected[0] if lasting else f"temporary {expected[0]}"
        with suppress(OSError), path.open("r+b") as file:  # never created
            file.write(text.encode()[:MAX_LEFT_BYTES])


def _expected(error: BaseException) -> tuple[str, int] | None:
    """Return the message and the exit status of an error that is no bug of ours; None for bugs and signals."""
    match error:
        case UserError():
            return f"error: {error}", 2
        case KeyboardInterrupt():
            return "interrupted", 130
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG | errno.EACCES | errno.EROFS):
            path = error.filename or "output"
            return f"error: {path}: {error.strerror}; {_what_remains()}", 1
        case OSError(errno=errno.ENAMETOOLONG):  # a sentence where a path belongs
            return f"error: {str(error.filename)[:MAX_SHOWN_CHARACTERS]}...: {error.strerror}", 2
        case OSError(errno=errno.ENOENT | errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.ENXIO | errno.EIO) if (
            error.filename is not None
        ):
            return f"error: {error.filename}: {error.strerror}", 2
    return None


def _what_remains() -> str:
    """What a failed write left: whole files only, but DVC removes a stage's outputs before it starts."""
    if "DVC_ROOT" in os.environ:
        return "nothing half-written was left; DVC had removed the previous output, `dvc checkout` may bring it back"
    return "nothing half-written was left; an output that was there before is as it was"


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning without its line of code: warnings are about the user's data."""
    return f"warning: {message}\n"


def _paths(kind: type[Any], arguments: dict[str, Any]) -> Any:
    return kind(**{field.name: arguments[field.name] for field in fields(kind)})
