"""Searches per second and response times of the search page with 20 users at once.

It serves the model and the index that `dvc repro` made or, where there are none, random ones of the same size.
"""

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import torch

from benchmarks.data import write_index
from benchmarks.results import Row
from components.layout import INDEX, MODEL
from irra.layout import CONFIG, INDEX_INFO

USERS, SEARCHES, EXPLANATIONS, WARM_UP = 20, 50, 3, 3
PICTURES = 400  # as many as the default's test split has
COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "yellow", "orange")


@dataclass(frozen=True)
class Visit:
    """One request: how long it took, and whether it succeeded."""

    seconds: float
    good: bool


def measure(device: torch.device, small: bool) -> Iterator[Row]:
    """Measure one user, 20 users who search, 20 who ask for explanations, and one who searches meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        made = (MODEL / CONFIG).is_file() and (INDEX / INDEX_INFO).is_file()
        model, index = (MODEL, INDEX) if made else write_index(Path(folder), PICTURES)
        yield Row("model and index", "those of dvc repro" if made else "random")
        with serving(model, index) as port:
            searches = SEARCHES // 10 if small else SEARCHES
            visit(port, 0, "search", WARM_UP)
            yield together(port, "search", 1, searches)
            yield together(port, "search", USERS, searches)
            visit(port, 0, "explain", WARM_UP)
            yield together(port, "explain", 1, EXPLANATIONS)
            yield together(port, "explain", USERS, EXPLANATIONS)
            yield from during_explanations(port, searches)


@contextmanager
def serving(model: Path, index: Path) -> Iterator[int]:
    """Run a server in another process and yield its port."""
    command = [sys.executable, "-m", "app.web", "--model", str(model), "--index", str(index), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
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


def together(port: int, what: str, count: int, requests: int) -> Row:
    """Let `count` users do the same at once."""
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as users:
        visits = list(chain.from_iterable(users.map(lambda user: visit(port, user, what, requests), range(count))))
    return summary(f"{what}, users: {count}", visits, time.perf_counter() - start)


def during_explanations(port: int, requests: int) -> Iterator[Row]:
    """Let one user make cheap requests while all others ask for explanations."""
    with ThreadPoolExecutor(USERS) as users:
        explaining = [users.submit(visit, port, user, "explain", EXPLANATIONS) for user in range(1, USERS)]
        for what in ("search", "thumbnails/0"):
            start = time.perf_counter()
            visits = visit(port, 0, what, requests)
            running = sum(not work.done() for work in explaining)
            name = f"{what}, users: 1, others explaining: {USERS - 1}, at the end {running}"
            yield summary(name, visits, time.perf_counter() - start)
        others = [each for work in explaining for each in work.result()]
    if not all(each.good for each in others):
        raise RuntimeError("an explanation failed")


def summary(name: str, visits: list[Visit], seconds: float) -> Row:
    """Rate and response times; every request must have succeeded."""
    errors = sum(not each.good for each in visits)
    if errors:
        raise RuntimeError(f"{name}: {errors} of {len(visits)} requests failed")
    middle, high = 1000 * np.percentile([each.seconds for each in visits], [50, 95])
    return Row(name, len(visits) / seconds, "a second", details={"median (ms)": middle, "95% (ms)": high})
