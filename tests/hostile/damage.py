"""Damage every file that the project writes, and ask the next reader: it must notice, or not be affected.

Each case is one damage of one file and one reader of it, in a forked process. It is clear if the reader gives the
answer that it gives for the undamaged file, or ends with one message that names the file; and if it leaves all other
files as they are.
"""

import importlib
import multiprocessing
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch

from irra.config import load_params
from tests.hostile.damages import Damage, damages
from tests.hostile.outcomes import Outcomes
from tests.hostile.readers import Reader, all_readers, make_project
from tests.hostile.sandbox import Sandbox, changes
from tests.hostile.trial import SECONDS, Ending, Trials, problem_of
from tests.imports import ROOT
from tests.s3 import Server

PARAMS = ROOT / "presets" / "tiny.yaml"
MAKING_SECONDS = 120.0


@dataclass(frozen=True)
class Case:
    """One damage of one file, and a reader of it."""

    reader: Reader
    file: Path
    damage: Damage


def run(folder: Path, outcomes: Outcomes, seed: int, deadline: float) -> None:
    """Do as many cases as there is time for, in an order that depends on the seed."""
    project, scratch = folder / "project", folder / "scratch"
    project.mkdir()
    scratch.mkdir()
    torch.set_num_threads(1)  # a fork has only one thread
    params, trials = load_params(PARAMS), Trials(project, scratch)
    with s3_server() as environment, patch.dict(os.environ, environment):
        made = trials.attempt(partial(make_project, params), MAKING_SECONDS)
        assert made.status == 0, made.message
        import_all(made.answer.split())
        sandbox = Sandbox(project, folder / "pristine")
        readers = all_readers(params, project)
        answers = {reader: intact_answer(reader, trials, sandbox) for reader in readers}
        for case in draw_cases(readers, sandbox.pristine, random.Random(seed)):
            if time.monotonic() > deadline - SECONDS:
                return
            problem = judge(case, answers[case.reader], trials, sandbox)
            outcomes.add(f"{case.reader.name}: {case.file.parts[0]}", f"{case.file.name} {case.damage.name}", problem)


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run an S3 server in a process of its own; yields the environment with its address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


def _serve(parent: Connection) -> None:
    parent.send(Server().environment)
    parent.recv()  # never: this process is ended


def import_all(names: Sequence[str]) -> None:
    """Import modules here, so that no trial has to."""
    for name in names:
        with suppress(ImportError):  # made by other modules, without a file
            importlib.import_module(name)


def intact_answer(reader: Reader, trials: Trials, sandbox: Sandbox) -> str:
    """What a reader answers for undamaged files."""
    ending = trials.attempt(reader.read)
    sandbox.restore()
    assert ending.status == 0, (reader.name, ending.message)
    return ending.answer


def draw_cases(readers: list[Reader], pristine: Path, rng: random.Random) -> list[Case]:
    """Every damage of every file for every reader of it, in any order."""
    cases = []
    for reader in readers:
        for file in files_of(reader, pristine):
            content = (pristine / file).read_bytes()
            drawn = [Case(reader, file, damage) for damage in damages(content, rng)]
            cases += rng.sample(drawn, round(reader.share * len(drawn)))
    rng.shuffle(cases)
    return cases


def files_of(reader: Reader, pristine: Path) -> list[Path]:
    """The files that a reader reads, relative to the project."""
    found = [path for part in reader.reads for path in sorted((pristine / part).rglob("*")) if path.is_file()]
    alone = [pristine / part for part in reader.reads if (pristine / part).is_file()]
    return [path.relative_to(pristine) for path in [*found, *alone]]


def judge(case: Case, expected: str, trials: Trials, sandbox: Sandbox) -> str | None:
    """Do a case and say what is wrong with how it ended; the sandbox is as before."""
    case.damage.apply(sandbox.folder / case.file)
    before = sandbox.state()
    ending = trials.attempt(case.reader.read)
    touched = changes(before, sandbox.state())
    sandbox.restore()
    return wrong_ending(case, ending, expected) or wrongly_touched(case.reader, ending, touched)


def wrong_ending(case: Case, ending: Ending, expected: str) -> str | None:
    """Say what is wrong with how the reader of a damaged file ended."""
    as_after_a_kill = case.reader.warns and case.damage.name.startswith("cut")
    if ending.status == 0 and (case.damage.forged or as_after_a_kill):
        return None
    warnings = [line for line in ending.message.splitlines() if line.startswith("warning: ")]
    if ending.status == 0 and case.reader.warns and any(case.file.stem in line for line in warnings):
        return None
    other = case.reader.known_as
    name = other if other is not None and other in ending.message else case.file.name
    return problem_of(ending, expected, [] if case.damage.forged else [name])


def wrongly_touched(reader: Reader, ending: Ending, touched: list[str]) -> str | None:
    """Say which files were changed that should not have been: any by a failure, others than its own by a success."""
    own = tuple(map(str, reader.writes)) if ending.status == 0 or reader.resumes else ()
    wrong = [path for path in touched if not (own and path.startswith(own)) or path.endswith(".tmp")]
    return f"exit status {ending.status}, but it changed {', '.join(wrong)}" if wrong else None
