"""Which process a run or a model in MLflow belongs to, and whether that process is certainly gone."""

import os
from pathlib import Path

OWNER_TAG = "irra.owner"
PROC = Path("/proc")


def this_process() -> str:
    """Return a name of this process that no other has, here or elsewhere; "" if the system has no /proc."""
    return _name(os.getpid())


def is_gone(owner: str) -> bool:
    """Whether `owner`, as given by `this_process`, has certainly ended; False for a process of another machine."""
    machine, _, pid = owner.rpartition("/")[0].rpartition("/")
    return machine != "" and machine == _machine() and pid.isdigit() and _name(int(pid)) != owner


def _name(pid: int) -> str:
    """Name a process by machine, number and start time, since numbers are used again."""
    try:
        started = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended, although its number is still taken.
    return f"{_machine()}/{pid}/{started[19]}" if _machine() and started[0] != "Z" else ""


def _machine() -> str:
    """Name this start of the machine and this container, in which process numbers are unique."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""
