"""Measure speed and memory on this machine: `make bench`.

python -m benchmarks                                     # all parts on the CPU: under 12 minutes on two cores
python -m benchmarks --only training,search
python -m benchmarks --device cuda                       # the parts for a GPU: under 6 minutes

Each part runs in its own process, so that memory is measured separately and a part that fails ends no other. Results
are printed as they come, then as one table, and written to benchmarks/results/<machine>.json.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime

from benchmarks.machine import commit, describe, has_gpu, name, versions
from benchmarks.results import FOLDER, Result, table, write

# The parts that run unless others are named, and the seconds after which one is stopped: on a busy machine, the last
# rows of some may be missing. `million` and `cameras` run only if named.
ON_CPU = {
    "training": 215,
    "input": 30,
    "prepare": 120,
    "tokenize": 35,
    "evaluation": 85,
    "encoding": 60,
    "search": 70,
    "start": 50,
    "web": 40,
}
ON_GPU = {"gpu": 240, "training": 60, "encoding": 40}
PARTS = tuple(dict.fromkeys([*ON_CPU, *ON_GPU, "million", "cameras"]))


def main() -> int:
    """Run the parts; returns the exit status."""
    arguments = parse_arguments()
    device, small = arguments.device, arguments.small
    machine = describe(device)
    print(f"machine: {machine}", flush=True)
    limits = arguments.only or (ON_CPU if device == "cpu" else ON_GPU)
    results = {part: run(part, device, small, limit) for part, limit in limits.items()}
    print(f"\n\n{table(results)}")
    if not small:
        path = FOLDER / f"{name(device)}.json"
        write(path, machine, versions(), results)
        print(f"\nwritten to {os.path.relpath(path)}")
    return int(any(result.error for result in results.values()))


def parse_arguments() -> argparse.Namespace:
    """The arguments; `only` are the named parts, without limits of time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument("--only", default="", help=f"parts, joined by commas: {', '.join(PARTS)}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="try the code with tiny sizes; writes no results")
    arguments = parser.parse_args()
    arguments.only = {part: None for part in arguments.only.split(",") if part}
    if unknown := arguments.only.keys() - set(PARTS):
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    if "gpu" in arguments.only and arguments.device == "cpu" and not arguments.small:
        parser.error("--only gpu: add --device cuda, or --small to try it on the CPU")
    if arguments.device == "cuda" and not has_gpu():
        parser.error("--device cuda: not available here")
    return arguments


def run(part: str, device: str, small: bool = False, limit: float | None = None) -> Result:
    """Run a part in a process of its own, printing its rows; after `limit` seconds it is stopped."""
    print(f"\n== {part}", flush=True)
    result = Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        load=round(os.getloadavg()[0], 1),
        commit=commit(),
        command=f"python -m benchmarks --only {part} --device {device}",
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as messages:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.part", part, device, *(["--small"] if small else [])],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=os.environ | {"TMPDIR": scratch},  # a part that is stopped cannot remove its files
            start_new_session=True,
        )
        timer = threading.Timer(limit or threading.TIMEOUT_MAX, _kill, [child])
        try:
            timer.start()
            assert child.stdout is not None
            for line in child.stdout:
                print(result.take(line.rstrip("\n")), flush=True)
            status = child.wait()
        finally:
            timer.cancel()
            _kill(child)
        result.seconds = round(time.monotonic() - start, 1)
        messages.seek(0)
        last = (messages.read().strip().splitlines() or [""])[-1]
    if status:
        stopped = limit is not None and result.seconds >= limit
        result.error = f"stopped after {limit} s" if stopped else f"exit status {status}: {last}"
        print(f"  error: {result.error}", flush=True)
    return result


def _kill(child: subprocess.Popen[str]) -> None:
    """End a process and all that it has started, if it still runs."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
