"""The number of CPU cores that this process may use."""

import math
import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Cores allowed by CPU affinity and by the container's CPU quota, both of which os.cpu_count ignores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such control group, or the quota is `max`
        return cores
