"""The machine on which a number was measured."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Return the processor, the number of usable cores and the memory."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores, {gibibytes:.0f} GiB"
