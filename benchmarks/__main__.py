"""Measure speed and memory on this machine: `make bench`.

python -m benchmarks                                     # all parts on the CPU: under 12 minutes on two cores
python -m benchmarks --only training,search
python -m benchmarks --device cuda                       # the parts for a GPU: under 6 minutes

Each part runs in its own process, so that memory is measured separately and a part that fails ends no other. Results
are printed as they come, then as one table, and written to benchmarks/results/<machine>.json.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from threading import Timer

from benchmarks.machine import commit, describe, name, versions
from benchmarks.results import FOLDER, Result, Row, parse, table, write

# The parts that run unless others are named, and the seconds after which one is stopped: on a busy machine, the last
# rows of some may be missing. `million` runs only if named.
ON_CPU = {
    "training": 210,
    "input": 40,
    "prepare": 90,
    "tokenize": 50,
    "evaluation": 90,
    "encoding": 60,
    "search": 70,
    "start": 50,
    "web": 50,
}
ON_GPU = {"gpu": 240, "training": 60, "encoding": 40}
OTHERS = ("million",)


def main() -> int:
    """Run the parts; returns the exit status."""
    known = (*ON_CPU, *ON_GPU, *OTHERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument("--only", default="", help=f"parts, joined by commas: {', '.join(dict.fromkeys(known))}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--small", action="store_true", help="try the code with tiny sizes; writes no results")
    arguments = parser.parse_args()
    chosen: dict[str, float | None] = {part: None for part in arguments.only.split(",") if part}
    if unknown := chosen.keys() - set(known):
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}; choose from {', '.join(dict.fromkeys(known))}")
    machine = describe(arguments.device)
    print(f"machine: {machine}", flush=True)
    parts = chosen or (ON_CPU if arguments.device == "cpu" else ON_GPU)
    results = {part: run(part, arguments.device, arguments.small, limit) for part, limit in parts.items()}
    print(f"\n\n{table(results)}")
    if not arguments.small:
        path = FOLDER / f"{name(arguments.device)}.json"
        write(path, machine, results)
        print(f"\nwritten to {os.path.relpath(path)}")
    return int(any(result.error for result in results.values()))


def run(part: str, device: str, small: bool = False, limit: float | None = None) -> Result:
    """Run a part in a process of its own, printing its rows; after `limit` seconds it is stopped."""
    print(f"\n== {part}", flush=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.part", part, device, *(["--small"] if small else [])]
    rows: list[Row] = []
    notes: list[str] = []
    with tempfile.TemporaryFile("w+") as messages:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True, start_new_session=True)
        timer = Timer(limit, _kill, [child]) if limit else None
        try:
            if timer is not None:
                timer.start()
            assert child.stdout is not None
            for line in child.stdout:
                row = parse(line)
                if row is None:
                    notes.append(line.rstrip("\n"))
                else:
                    rows.append(row)
                print(line.rstrip("\n") if row is None else row.line(), flush=True)
            status = child.wait()
        finally:
            if timer is not None:
                timer.cancel()
            _kill(child)
        seconds = time.monotonic() - start
        messages.seek(0)
        last = (messages.read().strip().splitlines() or [""])[-1]
    error = ""
    if status:
        error = f"stopped after {seconds:.0f} s" if limit and seconds >= limit else f"exit status {status}: {last}"
        print(f"  error: {error}", flush=True)
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *command[1:]]),
        "commit": commit(),
        "versions": versions(),
    }
    return Result(rows, notes, round(seconds, 1), error, about)


def _kill(child: subprocess.Popen[str]) -> None:
    """End a process and all that it has started, if it still runs."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
