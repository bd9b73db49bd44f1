"""Searches per second and waiting times of the search page with 20 users at once.

python -m benchmarks.web                               # the model and index that `dvc repro` made
python -m benchmarks.web /tmp/model /tmp/index
"""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlencode

import numpy as np

from benchmarks.machine import describe

USERS, SEARCHES, EXPLANATIONS, WARM_UP = 20, 50, 3, 3
COLOURS = ("red", "green", "blue", "black", "white", "grey", "pink", "brown", "yellow", "orange")


def main() -> None:
    """One user, then 20 at once who search, then 20 at once who ask why; every answer must be a good one."""
    model, index = sys.argv[1:] or ("model", "data/index")
    print(f"machine: {describe()}")
    with serving(model, index) as port:
        visit(port, 0, "search", WARM_UP)
        measure(port, "search", 1, SEARCHES)
        measure(port, "search", USERS, SEARCHES)
        visit(port, 0, "explain", WARM_UP)
        measure(port, "explain", 1, EXPLANATIONS)
        measure(port, "explain", USERS, EXPLANATIONS)


@contextmanager
def serving(model: str, index: str) -> Iterator[int]:
    """The port of a server in another process."""
    command = [sys.executable, "-m", "components.web", "--model", model, "--index", index, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        print(line, end="")
        yield int(line.split()[-3].rpartition(":")[2])
    finally:
        server.terminate()
        server.wait()


def visit(port: int, user: int, what: str, requests: int) -> list[float]:
    """Seconds of each request of one user, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    seconds = []
    for number in range(requests):
        top, bottom = COLOURS[user % 10], COLOURS[(user + number) % 10]
        query = f"a person number {number} in a {top} shirt and {bottom} trousers"
        start = time.perf_counter()
        connection.request("GET", f"/api/{what}?{urlencode({'q': query, 'row': 0})}")
        answer = connection.getresponse()
        body = json.load(answer)
        seconds.append(time.perf_counter() - start)
        assert answer.status == 200, body
    return seconds


def measure(port: int, what: str, count: int, requests: int) -> None:
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as users:
        seconds = np.concatenate(list(users.map(lambda user: visit(port, user, what, requests), range(count))))
    total = time.perf_counter() - start
    middle, high = 1000 * np.percentile(seconds, [50, 95])
    rate = len(seconds) / total
    print(
        f"{what}, users: {count}, a second: {rate:.0f}, median: {middle:.0f} ms, 95%: {high:.0f} ms, errors: 0",
        flush=True,
    )


if __name__ == "__main__":
    main()
