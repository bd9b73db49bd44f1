"""Processes that share work: how many may run at once, and a pool of them."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from irra.utils.errors import UserError

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores() -> int:
    """Cores allowed by CPU affinity and by the container's CPU quota, both of which os.cpu_count ignores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such control group, or the quota is `max`
        return cores


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, none of which outlives this one; when the context ends, pending work is cancelled.

    Raises:
        UserError: One of the processes was killed.
    """
    # Spawned, not forked: the calling process may run threads, and a fork would copy their locks in whatever state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, most likely because memory ran out; a script of your own must call "
                'this under `if __name__ == "__main__":`, since each process imports it anew'
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave interrupts to the parent process, and exit when it dies rather than wait for it for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while os.getppid() == parent.pid:
        time.sleep(0.5)
    os._exit(1)
