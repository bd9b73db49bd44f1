"""MLflow's server and S3 fail while a training needs them: it must end as without, and nothing may get lost.

Each case is a small training in a folder of its own. Most of its time is spent on waiting, so several run at once.
"""

import random
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

import yaml

from components.tracking.logged_models import FILES
from tests.components.test_tracking import Server as MlflowServer
from tests.hostile.forks import Command, Moment
from tests.hostile.kills import Tree, difference, params_text, part, tree
from tests.hostile.outcomes import Outcomes
from tests.hostile.proxy import Outage, Proxy
from tests.s3 import BUCKET, CutAfter, Refused
from tests.s3 import Server as S3Server

AT_ONCE = 10
HELD_SECONDS = 100.0  # the longest that an outage may hold up a training
LONG, SHORT = 70.0, 35.0  # seconds of a case, to begin none that would end after the deadline
WRITTEN = ("model", "reports")
# Lines that a user may see: progress, and our messages.
LINE = re.compile(r"(epoch \d+|encode \w+|warning: .+|error: .+|MLflow at \S+ is back; .+|\d+ runs sent to .+|$)")
MESSAGES = 4  # at most this many warnings for one outage

OUTAGES = (
    Outage("hang", "log-batch"),
    Outage("hang"),
    Outage("slow", "log-batch"),
    Outage("refuse", "log-batch", 4.0),
    Outage("refuse", "log-batch"),
    Outage("refuse"),
    Outage("fail", "log-batch", 4.0),
    Outage("fail", "log-batch"),
    Outage("fail"),
    Outage("hang", "log-batch", 5.0),
    Outage("refuse", "mlflow-artifacts"),
    Outage("fail", "mlflow-artifacts"),
    Outage("slow", "", 12.0),
    Outage("hang", "mlflow-artifacts", 5.0),
)


# ---- what is promised ----


def lines_problem(printed: str) -> str | None:
    """A line that is neither progress nor one of our messages, such as that of a traceback; or too many messages."""
    for line in printed.splitlines():
        if not LINE.match(line):
            return f"it printed {line!r}"
    messages = [line for line in printed.splitlines() if line.startswith(("warning: ", "error: "))]
    return f"{len(messages)} messages: {messages}" if len(messages) > MESSAGES else None


@dataclass(frozen=True)
class Record:
    """What MLflow's database holds of a training: status, rows of the loss, and whether there is a model."""

    status: str
    rows: frozenset[tuple[int, float]]
    has_model: bool


def read_record(server: Path, experiment: str) -> Record:
    """Read the runs of an experiment, of which only one may hold anything."""
    with closing(sqlite3.connect(server / "mlflow.db")) as database:
        runs = "SELECT run_uuid, status FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
        found = database.execute(runs, (experiment,)).fetchall()
        losses = "SELECT step, value FROM metrics WHERE key = 'loss/total' AND run_uuid = ?"
        rows = {run: frozenset(database.execute(losses, (run,)).fetchall()) for run, _ in found}
        models = database.execute("SELECT model_id, source_run_id FROM logged_models WHERE status = 2").fetchall()
    if len(found) != 1:
        return Record(f"{len(found)} runs", frozenset(), False)
    ((run, status),) = found
    ready = [model for model, source in models if source == run]
    files = [(server / "served").glob(f"*/models/{model}/artifacts/{FILES}/weights.safetensors") for model in ready]
    has_model = any(any(found) for found in files)
    return Record(status, rows[run], has_model)


def early_end_problem(whole: Record, found: Record) -> str | None:
    """A run must not be FINISHED before all of it was sent."""
    if found.status == "FINISHED" and found != whole:
        return f"FINISHED with {len(found.rows)} of {len(whole.rows)} rows and model: {found.has_model}"
    return None


def record_problem(whole: Record, found: Record) -> str | None:
    """What MLflow lacks when all should have arrived."""
    if found == whole:
        return None
    lost, other = len(whole.rows - found.rows), len(found.rows - whole.rows)
    return f"{found.status}, {lost} rows lost, {other} other rows, model: {found.has_model}"


# ---- the trainings ----


@dataclass(frozen=True)
class Bench:
    """A folder with the inputs of a training, what an undisturbed one writes, and how long it takes."""

    folder: Path
    expected: Tree
    seconds: float

    def copy(self, name: str) -> Path:
        """A new folder with the inputs."""
        return Path(shutil.copytree(self.folder / "inputs", self.folder / name))

    def train(self, here: Path, environment: dict[str, str], *options: str, moment: Moment | None = None) -> Command:
        return Command(
            "components.train", *options, folder=here, log=here / "log", environment=environment, moment=moment
        )

    def training_problem(self, here: Path, command: Command) -> str | None:
        """What is wrong with a training that has ended; it must be as if there had been no outage."""
        status = command.wait(3 * HELD_SECONDS)
        if status != 0:
            return f"exit status {status}: {command.printed[-1500:]}"
        if command.seconds > self.seconds + HELD_SECONDS:
            return f"held up for {command.seconds - self.seconds:.0f} s"
        return difference(self.expected, part(tree(here), WRITTEN)) or lines_problem(command.printed)


def make_inputs(here: Path) -> None:
    """Make the inputs of a training, and an empty database of MLflow."""
    here.mkdir(parents=True)
    params = yaml.safe_load(params_text(0))
    params["train"] |= {"num_epoch": 15}  # some seconds: rows are sent every two
    (here / "params.yaml").write_text(yaml.safe_dump(params))
    for module in ("components.tracking.store", "components.prepare", "components.tokenize"):
        command = Command(module, folder=here, log=here / "log")
        assert command.wait() == 0, command.printed


def measure(folder: Path) -> Bench:
    """Train once without a disturbance, in a store of its own."""
    whole = Path(shutil.copytree(folder / "inputs", folder / "whole"))
    command = Command("components.train", folder=whole, log=folder / "log")
    assert command.wait() == 0, command.printed
    return Bench(folder, part(tree(whole), WRITTEN), command.seconds)


# ---- MLflow ----


def try_outage(bench: Bench, server: MlflowServer, whole: Record, outage: Outage, number: int) -> str | None:
    """Train during an outage; afterwards the next stage or the command must send what was kept."""
    here, name = bench.copy(f"mlflow-{number}"), f"case {number}"
    with Proxy(server.port, outage) as proxy:
        environment = {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_EXPERIMENT_NAME": name}
        command = bench.train(here, environment)
        if problem := bench.training_problem(here, command):
            return problem
        if not proxy.happened:
            return "the outage did not happen"
        if problem := early_end_problem(whole, read_record(server.folder, name)):
            return problem
        proxy.mend()
        module = ("components.tracking.sync", "components.evaluate")[number % 2]
        later = Command(module, folder=here, log=here / "later", environment=environment)
        if (status := later.wait()) != 0:
            return f"{module}: exit status {status}: {later.printed[-1500:]}"
    return lines_problem(later.printed) or record_problem(whole, read_record(server.folder, name))


def new_server(folder: Path, database: Path) -> MlflowServer:
    """A server with a copy of an empty database, not yet started."""
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    return MlflowServer(folder)


def try_death(bench: Bench, whole: Record, *, returns: bool) -> str | None:
    """Kill a server during a training, and start it again then or afterwards."""
    here, name = bench.copy(f"death-{returns}"), "death"
    server = new_server(here / "server", here / "mlflow.db")
    environment = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": name}
    try:
        server.start()
        command = bench.train(here, environment)
        while command.process.is_alive() and not read_record(server.folder, name).rows:
            time.sleep(0.05)
        died_in_time = command.process.is_alive()
        server.kill()
        if returns:
            server.start()
        problem = bench.training_problem(here, command)
        problem = problem or early_end_problem(whole, read_record(server.folder, name))
        server.start()
        later = Command("components.tracking.sync", folder=here, log=here / "later", environment=environment)
        if problem is None and (status := later.wait()) != 0:
            problem = f"components.tracking.sync: exit status {status}: {later.printed[-1500:]}"
        problem = problem or record_problem(whole, read_record(server.folder, name))
        return problem if died_in_time else problem or "the outage did not happen"
    finally:
        server.kill()


# ---- S3 ----


@dataclass
class Trouble:
    """What S3 does to the requests of some kinds for one case, from the `first`-th on."""

    kind: str  # hang, cut, 500 or 403
    methods: tuple[str, ...]
    first: int = 0
    count: int = 1 << 30
    seen: int = 0

    def __str__(self) -> str:
        which = "always" if self.count > 1000 else f"{self.count} times"
        return f"{self.kind} at {' and '.join(self.methods)} from number {self.first} on, {which}"


class Doors:
    """The door of the S3 server: every case has a folder of its own, and trouble of its own."""

    def __init__(self) -> None:
        self.troubles: dict[str, Trouble] = {}
        self._lock, self._over = Lock(), Event()

    def __call__(self, method: str, name: str) -> Refused | CutAfter | None:
        trouble = next((found for case, found in self.troubles.items() if name.startswith(f"{case}/")), None)
        if trouble is None or method not in trouble.methods:
            return None
        with self._lock:
            trouble.seen += 1
            on = trouble.first < trouble.seen <= trouble.first + trouble.count
        return self._refuse(trouble.kind) if on else None

    def _refuse(self, kind: str) -> Refused | CutAfter | None:
        match kind:
            case "hang":
                self._over.wait()
            case "cut":
                return CutAfter(0)
            case "500":
                return Refused("500 Internal Server Error", "InternalError")
            case "403":
                return Refused("403 Forbidden", "AccessDenied")
        return None

    def close(self) -> None:
        """Let go of requests that hang."""
        self._over.set()


PUSHES = (
    Trouble("hang", ("PUT",), 3),
    Trouble("500", ("PUT",), 3),
    Trouble("403", ("PUT",)),
    Trouble("cut", ("PUT",), 2, 6),
    Trouble("500", ("PUT", "GET", "DELETE"), 5, 12),
    Trouble("hang", ("DELETE",)),
)
PULLS = (
    Trouble("403", ("GET",)),
    Trouble("500", ("GET",)),
    Trouble("cut", ("GET",), 0, 2),
    Trouble("403", ("HEAD",)),
    Trouble("hang", ("GET",), 0, 4),
)


def try_push(bench: Bench, s3: S3Server, doors: Doors, trouble: Trouble, number: int) -> str | None:
    """Train while S3 refuses the copies of the training state."""
    case = f"push-{number}"
    here, doors.troubles[case] = bench.copy(case), trouble
    command = bench.train(here, s3.environment, "--checkpoints-uri", f"s3://{BUCKET}/{case}")
    problem = bench.training_problem(here, command)
    return problem or (None if trouble.seen > trouble.first else "the outage did not happen")


def try_pull(bench: Bench, s3: S3Server, doors: Doors, trouble: Trouble, number: int) -> str | None:
    """Resume elsewhere while S3 refuses to give the state: one message or a resumed training, in the end the latter."""
    case = f"pull-{number}"
    options = ("--checkpoints-uri", f"s3://{BUCKET}/{case}")
    first = bench.train(bench.copy(f"{case}-first"), s3.environment, *options)
    while not any(name.startswith(f"{case}/") and name.endswith("state.safetensors") for name in s3.names()):
        if not first.process.is_alive():
            return f"nothing was pushed: {first.printed[-1500:]}"
        time.sleep(0.05)
    first.kill(group=True)
    first.wait()
    here, doors.troubles[case] = bench.copy(case), trouble
    environment = {**s3.environment, "AWS_MAX_ATTEMPTS": "1"} if trouble.kind == "hang" else s3.environment
    refused = bench.train(here, environment, *options)
    status = refused.wait(HELD_SECONDS)
    if trouble.seen <= trouble.first:
        return "the outage did not happen"
    if status == 0:
        return resumed_problem(bench, here, refused)
    if status != 2 or not re.fullmatch(r"error: .+", refused.printed.strip()):
        return f"exit status {status}: {refused.printed[-1500:]}"
    del doors.troubles[case]
    return resumed_problem(bench, here, bench.train(here, s3.environment, *options))


def resumed_problem(bench: Bench, here: Path, command: Command) -> str | None:
    """What is wrong with a training that has ended and should have begun where another one was killed."""
    problem = bench.training_problem(here, command)
    return problem or ("it began from the start" if "epoch 1/" in command.printed else None)


# ---- the campaign ----


def run(folder: Path, outcomes: Outcomes, seed: int, deadline: float) -> None:
    """Start the servers, and try as many outages as there is time for, those that take longest first."""
    make_inputs(folder / "inputs")
    server = new_server(folder / "server", folder / "inputs" / "mlflow.db")
    s3, doors = S3Server(), Doors()
    s3.door = doors
    try:
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(server.start)  # takes ten seconds
            bench = measure(folder)
            starting.result()
        whole = undisturbed_record(bench, server)
        cases = [
            *((f"S3 push, {t.kind}", str(t), _push(bench, s3, doors, t, n)) for n, t in enumerate(PUSHES)),
            *((f"S3 pull, {t.kind}", str(t), _pull(bench, s3, doors, t, n)) for n, t in enumerate(PULLS)),
            *((f"MLflow, {o.kind}", str(o), _outage(bench, server, whole, o, n)) for n, o in enumerate(OUTAGES)),
            *(("MLflow, killed", f"returns during the training: {r}", _death(bench, whole, r)) for r in (True, False)),
        ]
        try_all(cases, outcomes, random.Random(seed), deadline)
    finally:
        doors.close()
        server.kill()
        s3.stop()


Case = tuple[str, str, Callable[[], str | None]]


def _push(bench: Bench, s3: S3Server, doors: Doors, trouble: Trouble, number: int) -> Callable[[], str | None]:
    return lambda: try_push(bench, s3, doors, trouble, number)


def _pull(bench: Bench, s3: S3Server, doors: Doors, trouble: Trouble, number: int) -> Callable[[], str | None]:
    return lambda: try_pull(bench, s3, doors, trouble, number)


def _outage(bench: Bench, server: MlflowServer, whole: Record, outage: Outage, number: int) -> Callable[[], str | None]:
    return lambda: try_outage(bench, server, whole, outage, number)


def _death(bench: Bench, whole: Record, returns: bool) -> Callable[[], str | None]:
    return lambda: try_death(bench, whole, returns=returns)


def undisturbed_record(bench: Bench, server: MlflowServer) -> Record:
    """What the server holds of a training without an outage."""
    here = bench.copy("undisturbed")
    command = bench.train(here, {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": "undisturbed"})
    problem = bench.training_problem(here, command)
    record = read_record(server.folder, "undisturbed")
    assert problem is None, problem
    assert (record.status, bool(record.rows), record.has_model) == ("FINISHED", True, True)
    return record


def _seconds(case: Case) -> float:
    return LONG if case[0].endswith(("hang", "slow", "killed")) else SHORT


def try_all(cases: list[Case], outcomes: Outcomes, rng: random.Random, deadline: float) -> None:
    """Try cases in a random order, several at once, none of them begun too late."""
    rng.shuffle(cases)
    cases.sort(key=_seconds, reverse=True)

    def attempt(case: Case) -> tuple[bool, str | None]:
        if time.monotonic() + _seconds(case) > deadline:
            return False, None
        return True, case[2]()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (kind, name, _), (tried, problem) in zip(cases, pool.map(attempt, cases), strict=True):
            if tried:
                outcomes.add(kind, name, problem)
