"""Searches per second and response times of the search page with 20 users at once.

python -m benchmarks.web                               # the model and index that `dvc repro` made
python -m benchmarks.web /tmp/model /tmp/index
"""

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from benchmarks.machine import describe
from components.layout import INDEX, MODEL

USERS, SEARCHES, EXPLANATIONS, WARM_UP = 20, 50, 3, 3
COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "yellow", "orange")


@dataclass(frozen=True)
class Visit:
    """One request: how long it took, and whether it succeeded."""

    seconds: float
    good: bool


def main() -> None:
    """Measure one user, 20 users who search, 20 who ask for explanations, and one who searches meanwhile."""
    model, index = sys.argv[1:] or (str(MODEL), str(INDEX))
    if not Path(index, "info.json").is_file():
        raise SystemExit(f"{index}: no index; make one with `dvc repro index`, or name a model and an index")
    print(f"machine: {describe()}")
    with serving(model, index) as port:
        visit(port, 0, "search", WARM_UP)
        errors = measure(port, "search", 1, SEARCHES)
        errors += measure(port, "search", USERS, SEARCHES)
        visit(port, 0, "explain", WARM_UP)
        errors += measure(port, "explain", 1, EXPLANATIONS)
        errors += measure(port, "explain", USERS, EXPLANATIONS)
        errors += measure_during_explanations(port)
    raise SystemExit(f"{errors} requests failed" if errors else 0)


@contextmanager
def serving(model: str, index: str) -> Iterator[int]:
    """Run a server in another process and yield its port."""
    command = [sys.executable, "-m", "app.web", "--model", model, "--index", index, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        print(line, end="")
        yield int(line.split()[-3].rpartition(":")[2])
    finally:
        server.terminate()
        server.wait()


def visit(port: int, user: int, what: str, requests: int) -> list[Visit]:
    """Send the requests of one user over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    visits = []
    for number in range(requests):
        top, bottom = COLOURS[user % 10], COLOURS[(user + number) % 10]
        query = f"a person number {number} in a {top} shirt and {bottom} trousers"
        start = time.perf_counter()
        try:
            connection.request("GET", f"/api/{what}?{urlencode({'q': query, 'row': 0})}")
            answer = connection.getresponse()
            body, good = answer.read(), answer.status == 200
        except (OSError, http.client.HTTPException):
            body, good = b"", False
            connection.close()  # the next request opens it again
        visits.append(Visit(time.perf_counter() - start, good and len(body) > 0))
    return visits


def measure(port: int, what: str, count: int, requests: int) -> int:
    """Let `count` users do the same at once, print the results, and return the number of errors."""
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as users:
        visits = list(chain.from_iterable(users.map(lambda user: visit(port, user, what, requests), range(count))))
    return show(f"{what}, users: {count}", visits, time.perf_counter() - start)


def measure_during_explanations(port: int) -> int:
    """Measure cheap requests while all other users ask for explanations; return the number of errors."""
    with ThreadPoolExecutor(USERS) as users:
        explaining = [users.submit(visit, port, user, "explain", EXPLANATIONS) for user in range(1, USERS)]
        errors = 0
        for what in ("search", "thumbnails/0"):
            start = time.perf_counter()
            visits = visit(port, 0, what, SEARCHES)
            running = sum(not work.done() for work in explaining)
            name = f"{what}, users: 1, others explaining: {USERS - 1}, at the end still: {running}"
            errors += show(name, visits, time.perf_counter() - start)
        return errors + sum(not each.good for work in explaining for each in work.result())


def show(name: str, visits: list[Visit], seconds: float) -> int:
    """Print rate, response times and errors; return the number of errors."""
    middle, high = 1000 * np.percentile([each.seconds for each in visits], [50, 95])
    errors = sum(not each.good for each in visits)
    print(
        f"{name}, a second: {len(visits) / seconds:.0f}, median: {middle:.0f} ms, 95%: {high:.0f} ms, errors: {errors}",
        flush=True,
    )
    return errors


if __name__ == "__main__":
    main()
