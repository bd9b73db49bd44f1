"""Stages and DVC killed at random moments, and started again: all must end as if nothing had happened.

Most stages are forked from one process (tests/hostile/forks.py), so that a kill and a restart take about a second; DVC
is started as a user starts it. Moments are seconds, or numbers of changes of files: half of them hit the writing.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, NamedTuple

import psutil
import yaml

from components.layout import DATASET_RECORD, MODEL_RUN
from irra.utils.files import hash_file
from tests.hostile.forks import Command, Moment, changes
from tests.hostile.outcomes import Outcomes
from tests.presets import preset_text
from tests.projects import Project, commit, new_project

# not compared, since ids and times differ; and neither is MODEL_RUN
STORE = ("mlflow.db", "mlartifacts", "temporary", ".git", ".dvc")
UNCOUNTED = Moment(change=1 << 40)
REFUSED = " is writing it; wait until it has finished, or end it first"
DVC_SECONDS = 100.0  # for the last `dvc repro` and its checks
Tree = Mapping[str, str]


@dataclass(frozen=True)
class Work:
    """A command, what it writes, and which of these belong together: without its first file, a group is missing."""

    name: str
    writes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def module(self) -> str:
        return f"components.{self.name}"


EVALUATED = ("reports/evaluate/results.json", "reports/evaluate/metrics.json", "reports/evaluate/cmc.csv")
WORKS = (
    Work("tracking.store", ("mlflow.db", "mlartifacts")),
    Work("prepare", ("data/prepared",), (("data/prepared",),)),
    Work("tokenize", ("data/tokens",), (("data/tokens",),)),
    Work("train", ("model", "reports/train"), (("model",),)),
    Work("evaluate", ("reports/evaluate", "data/rankings.parquet"), ((*EVALUATED, "data/rankings.parquet"),)),
    Work("report", ("reports/report",)),
    Work("index", ("data/index",), (("data/index",),)),
    Work("register", ("reports/register",)),
)


def run(folder: Path, outcomes: Outcomes, seed: int, deadline: float) -> None:
    """Kill DVC in one thread, and stages that are forked in this one."""
    bench = Bench(folder / "stages")
    with ThreadPoolExecutor(1) as pool:
        dvc = pool.submit(kill_dvc, folder / "dvc", random.Random(seed + 1), deadline)
        kill_stages(bench, outcomes, random.Random(seed), deadline)
        project, kills, problem = dvc.result()
    problem = problem or dvc_problem(project, bench.expected["index"])
    problem = problem or runs_problem(bench.runs["index"], read_runs(project.folder))
    for kill in kills[-1:] if problem else kills:
        outcomes.add(f"kill {kill.what} during dvc repro", ", then ".join(map(str, kills)), problem)


# ---- what is promised ----


def tree(folder: Path) -> dict[str, str]:
    """The hash of every file below `folder` by its relative name; a folder has the hash "/"."""
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        here = Path(parent).relative_to(folder)
        if here == Path():
            folders[:] = [name for name in folders if name not in STORE]
            files = [name for name in files if not name.startswith(STORE)]
        found |= {str(here / name): "/" for name in folders}
        found |= {str(here / name): hash_file(Path(parent, name)) for name in files if here / name != MODEL_RUN}
    return found


def difference(expected: Tree, found: Tree) -> str | None:
    """What is missing, left over or other than in an undisturbed run."""
    parts = {
        "missing": [name for name in expected if name not in found],
        "left over": [name for name in found if name not in expected],
        "other": [name for name in expected if name in found and expected[name] != found[name]],
    }
    return "; ".join(f"{what}: {', '.join(sorted(names)[:4])}" for what, names in parts.items() if names) or None


def torn(work: Work, before: Tree, after: Tree, found: Tree) -> str | None:
    """A file that is neither the old nor the new one, or files of two runs that look like those of one."""
    for name in part(found, work.writes):
        if not name.endswith(".tmp") and found[name] not in (before.get(name), after.get(name)):
            return f"{name} is neither the old nor the new one"
    for group in work.groups:
        now, old, new = (part(files, group) for files in (found, before, after))
        if now not in (old, new) and part(found, group[:1]):
            return f"{', '.join(group)} are of two runs"
    return None


def part(files: Tree, names: tuple[str, ...]) -> dict[str, str]:
    """The files that have one of the `names`, or are in a folder of this name."""
    return {file: files[file] for file in files if any(file == name or file.startswith(f"{name}/") for name in names)}


class Run(NamedTuple):
    """A run in MLflow's database."""

    status: str
    losses: frozenset[tuple[int, float]]  # the rows of `loss/total`: step and value


def read_runs(folder: Path) -> list[Run]:
    """All runs of the project in `folder`."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        runs = database.execute("SELECT run_uuid, status FROM runs").fetchall()
        rows = "SELECT step, value FROM metrics WHERE key = 'loss/total' AND run_uuid = ?"
        return [Run(status, frozenset(database.execute(rows, (name,)).fetchall())) for name, status in runs]


def runs_problem(expected: list[Run], found: list[Run]) -> str | None:
    """A run that nobody will end, a second training, or a curve that is not the one of an undisturbed run."""
    if any(run.status == "RUNNING" for run in found):
        return "an MLflow run was left RUNNING"
    whole = {(run.status, run.losses) for run in expected if run.losses}
    trained = {(run.status, run.losses) for run in found if run.losses}  # twice, if it was killed after its end
    if whole != trained:
        return f"MLflow has {describe(found)} instead of {describe(expected)}"
    return None


def describe(runs: list[Run]) -> str:
    """Status and length of the curve of every run."""
    return " and ".join(f"a run {run.status} with {len(run.losses)} rows" for run in runs) or "no run"


def champion_problem(folder: Path) -> str | None:
    """What is wrong with the registered model: there must be one version, it is whole, and it is the champion."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        versions = database.execute("SELECT version, status, source FROM model_versions").fetchall()
        aliases = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
        models = database.execute(
            "SELECT model_id, artifact_location FROM logged_models WHERE lifecycle_stage = 'active'"
        ).fetchall()
    if [status for _, status, _ in versions] != ["READY"]:
        return f"{len(versions)} versions: {versions}"
    ((version, _, source),) = versions
    if [(alias, str(number)) for alias, number in aliases] != [("champion", str(version))]:
        return f"the aliases are {aliases}"
    if [f"models:/{model}" for model, _ in models] != [source]:
        return f"{len(models)} logged models for one version"
    location = Path(models[0][1].removeprefix("file://"))
    return None if (location / "MLmodel").is_file() else f"the champion has no files in {location}"


def message_problem(printed: str) -> str | None:
    """A traceback among what was printed, or a line that warns of something other than the kill."""
    return "it printed a traceback" if "Traceback" in printed else None


# ---- the stages ----


@dataclass
class Bench:
    """A folder in which each stage can be put back to before it ran."""

    folder: Path
    expected: dict[str, Tree] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # changes of files
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def here(self) -> Path:
        return self.folder / "here"

    def start(self, work: Work, moment: Moment | None) -> Command:
        environment = {"TMPDIR": str(self.here / "temporary")}
        (self.here / "temporary").mkdir(exist_ok=True)
        log = self.folder / f"{work.name}.log"
        return Command(work.module, folder=self.here, log=log, environment=environment, moment=moment)

    def run_undisturbed(self) -> None:
        """Run all stages twice, with other data first, and keep what was there before and after each of them."""
        for seed, name in ((1, "old"), (0, "before")):
            shutil.rmtree(self.here, ignore_errors=True)
            self.here.mkdir(parents=True)
            (self.here / "params.yaml").write_text(params_text(seed))
            for work in WORKS:
                shutil.copytree(self.here, self.folder / name / work.name)
                command = self.start(work, UNCOUNTED)
                status = command.wait()
                assert status == 0, command.printed
                self.seconds[work.name], self.counts[work.name] = command.seconds, len(changes(command._log))
                self.expected[work.name] = tree(self.here)
                self.runs[work.name] = read_runs(self.here)
        shutil.copytree(self.here, self.folder / "old" / "after", dirs_exist_ok=True)

    def reset(self, work: Work, *, old: bool) -> Tree:
        """Put back what was there before `work` ran, with outputs of another run if `old`."""
        shutil.rmtree(self.here)
        shutil.copytree(self.folder / "before" / work.name, self.here)
        for name in work.writes if old else ():
            source, target = self.folder / "old" / "after" / name, self.here / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        return tree(self.here)


def params_text(seed: int) -> str:
    """The tiny preset, smaller still; `seed` is that of the data."""
    params = yaml.safe_load(preset_text("tiny"))
    params["prepare"]["synthetic"] |= {"train_ids": 6, "val_ids": 2, "test_ids": 2, "seed": seed}
    params["train"] |= {"batch_size": 4, "num_epoch": 3}
    text: str = yaml.safe_dump(params)
    return text


def kill_stages(bench: Bench, outcomes: Outcomes, rng: random.Random, deadline: float) -> None:
    """Kill one stage after the other, again and again; a case is one kill, or one more during the restart."""
    bench.run_undisturbed()
    longest = 3 * max(bench.seconds.values())
    while True:
        for work in WORKS:
            if time.monotonic() + longest > deadline:
                return
            moments = [choose_moment(bench, work, rng) for _ in range(rng.choice((1, 1, 2)))]
            problem, kills = try_kills(bench, work, moments, old=work.name != "tracking.store" and rng.random() < 0.5)
            for _ in kills[:1] if problem else kills:
                outcomes.add(f"kill {work.name}", ", then ".join(map(str, kills)), problem)


def choose_moment(bench: Bench, work: Work, rng: random.Random) -> Moment:
    """A number of changes that the command makes, or a time that it takes, each as often as the other."""
    group = rng.random() < 0.5
    if rng.random() < 0.5:
        return Moment(change=rng.randrange(max(bench.counts[work.name], 1)), group=group)
    return Moment(seconds=rng.uniform(0.1, bench.seconds[work.name]), group=group)


def try_kills(bench: Bench, work: Work, moments: list[Moment], *, old: bool) -> tuple[str | None, list[Moment]]:
    """Kill `work` at the `moments` and let it end; returns what was wrong, and the moments that came before its end."""
    before, kills = bench.reset(work, old=old), []
    for moment in moments:
        status = bench.start(work, moment).wait()
        if status == 0:
            break
        kills.append(moment)
        if status != -signal.SIGKILL:
            return f"exit status {status} instead of a kill", kills
        if problem := torn(work, before, bench.expected[work.name], tree(bench.here)):
            return problem, kills
    command = bench.start(work, None)
    if (status := command.wait()) != 0:
        return f"exit status {status} when started again: {command.printed[-1500:]}", kills
    problem = message_problem(command.printed) or outcome_problem(bench, work)
    return problem, kills


def outcome_problem(bench: Bench, work: Work) -> str | None:
    """Compare with an undisturbed run."""
    expected, found = bench.expected[work.name], tree(bench.here)
    if work.name == "register":  # its reason may be that there was a version already
        expected, found = (dict(files) | {"reports/register/registration.json": ""} for files in (expected, found))
    problem = difference(expected, found) or runs_problem(bench.runs[work.name], read_runs(bench.here))
    return problem or (champion_problem(bench.here) if work.name == "register" else None)


# ---- DVC ----


class Kill(NamedTuple):
    """A kill of DVC, of the stage that it runs, or of both, while `dvc repro` runs."""

    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} after {self.seconds:.1f} s"


def kill_dvc(folder: Path, rng: random.Random, deadline: float) -> tuple[Project, list[Kill], str | None]:
    """Kill again and again while `dvc repro` runs, starting it again at once, and let it end."""
    folder.mkdir(parents=True)
    project = new_project(folder)
    (folder / "params.yaml").write_text(params_text(0))
    commit(project)
    project.environment["TMPDIR"] = str(folder / "temporary")
    (folder / "temporary").mkdir()
    kills: list[Kill] = []
    problem, refused = None, False
    while problem is None:  # a refused one is repeated without a kill when the orphan has ended
        last = time.monotonic() + DVC_SECONDS > deadline
        kill = None if last or refused else Kill(rng.choice(("DVC", "DVC", "stage", "both")), rng.uniform(2, 12))
        with NamedTemporaryFile(
            "w+", dir=folder / "temporary"
        ) as log:  # its own: an orphan still writes to the last one
            process = start_dvc(project, log)
            if kill and kill_after(process, kill):
                kills.append(kill)
                continue
            if process.wait() == 0:
                break
            log.seek(0)
            problem, refused = refusal_problem(log.read()), True
        psutil.wait_procs(orphans(folder), timeout=60)
    return project, kills, problem


def start_dvc(project: Project, log: IO[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.folder,
        env=project.environment,
        stdout=log,  # a pipe would end with DVC, and with it the stage
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_after(process: "subprocess.Popen[bytes]", kill: Kill) -> bool:
    """Kill as described; returns whether something was killed, and waits for DVC to end."""
    try:
        process.wait(kill.seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    if kill.what == "both":
        os.killpg(process.pid, signal.SIGKILL)
    elif kill.what == "DVC":
        process.kill()
    else:
        stages = psutil.Process(process.pid).children(recursive=True)
        for stage in stages:
            with suppress(psutil.NoSuchProcess):
                stage.kill()
        if not stages:
            return False
    process.wait()
    return True


def orphans(folder: Path) -> list[psutil.Process]:
    """The processes of stages that run in `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and "components." in " ".join(process.cmdline()):
                found.append(process)
    return found


def refusal_problem(printed: str) -> str | None:
    """What DVC printed must say in one line that the orphan of a killed DVC still writes, and hold no traceback."""
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    if message_problem(printed) or len(errors) != 1 or not errors[0].endswith(REFUSED):
        return f"not a refusal that says why: {printed[-1500:]}"
    return None


def dvc_problem(project: Project, expected: Tree) -> str | None:
    """Compare what `dvc repro` left with an undisturbed run of the stages; nothing may be left to do."""
    names = ("data/prepared", "data/tokens", "data/index", "data/rankings.parquet", "model", "reports")
    found = tree(project.folder)
    records = part(found, (str(DATASET_RECORD.parent),))  # these, and .gitignore files, are for DVC alone
    written = {name: found[name] for name in part(found, names) if name not in records and ".gitignore" not in name}
    problem = difference(part(expected, names), written)
    left = [name for name in found if ".tmp" in name or (name.endswith("lock") and name != "dvc.lock")]
    problem = problem or (f"left over: {', '.join(left)}" if left else None)
    status = json.loads(project.run("dvc", "status", "--json"))
    del status["inputs"]  # which runs each time
    return problem or (f"dvc status: {status}" if status else None)
