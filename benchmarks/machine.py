"""The machine and the versions with which a number was measured."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pyarrow", "faiss-cpu", "open_clip_torch")


def describe(device: str = "cpu") -> str:
    """The processor, the number of usable cores, the memory and, for `cuda`, the GPU."""
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    host = f"{_processor()}, {_cores()} cores, {gibibytes:.0f} GiB"
    return f"{_gpu()}; {host}" if device == "cuda" else host


def name(device: str) -> str:
    """A short name for files, such as `cpu-amd-epyc-2-cores` or `nvidia-h100`."""
    if device == "cuda":
        return _slug(re.sub(r"\d+ ?GB.*", "", _gpu()))
    return _slug(f"cpu {re.sub(r'@.*|CPU|Processor|[(](R|TM)[)]', ' ', _processor())} {_cores()} cores")


def has_gpu() -> bool:
    """Whether there is a GPU that torch can use."""
    import torch  # takes a second

    return torch.cuda.is_available()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter to speed."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def commit() -> str:
    """The commit of this code, with `-dirty` if files differ from it; empty outside git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()


def _processor() -> str:
    return next(_after("model name", Path("/proc/cpuinfo")), platform.processor() or "unknown")


def _after(key: str, path: Path) -> Iterator[str]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return (line.partition(":")[2].strip() for line in lines if line.startswith(key))


def _cores() -> int:
    from irra.utils.cores import available_cores

    return available_cores()


def _gpu() -> str:
    import torch  # takes a second

    return torch.cuda.get_device_name()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
