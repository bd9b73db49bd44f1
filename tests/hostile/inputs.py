"""Give bad parameters, annotations, pictures and models to what reads them: it must refuse them by name.

Each case is one input, read in a forked process. It is clear if the process ends with one message that names the file,
and the key or the entry where there is one, within bounded time and memory; if no code of the input ran; and if all
other files are as they were. An odd but valid input must work instead.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from irra.utils.files import partial_folder
from tests.hostile import bad_data, bad_models, bad_params
from tests.hostile.case import Case
from tests.hostile.outcomes import Outcomes
from tests.hostile.sandbox import Sandbox, changes
from tests.hostile.trial import SECONDS, Ending, Trials, problem_of
from tests.presets import preset_text

WRITTEN = ("prepared", "model")  # by an input that is accepted


def run(folder: Path, outcomes: Outcomes, seed: int, deadline: float) -> None:
    """Do as many cases as there is time for, in an order that depends on the seed."""
    project, scratch = folder / "project", folder / "scratch"
    scratch.mkdir()
    project.mkdir()
    torch.set_num_threads(1)  # a fork has only one thread
    bad_data.write_dataset(project)
    (project / "params.yaml").write_text(preset_text("tiny"))
    sandbox, trials = Sandbox(project, folder / "pristine"), Trials(project, scratch)
    answer = trials.attempt(bad_params.check_params)
    assert answer.status == 0, answer.message
    with inside(scratch):
        cases = draw_cases(random.Random(seed))
    for case in cases:
        if time.monotonic() > deadline - SECONDS:
            return
        outcomes.add(case.kind, case.name, judge(case, answer.answer, trials, sandbox))


def draw_cases(rng: random.Random) -> list[Case]:
    """All cases, in any order."""
    cases = [*bad_params.cases(rng), *bad_data.cases(rng), *bad_models.cases(rng)]
    rng.shuffle(cases)
    return cases


def judge(case: Case, answer: str, trials: Trials, sandbox: Sandbox) -> str | None:
    """Do a case and say what is wrong with how it ended; the sandbox is as before."""
    with inside(sandbox.folder):
        case.put()
    before = sandbox.state()
    ending = trials.attempt(case.read)
    touched = changes(before, sandbox.state())
    sandbox.restore()
    return problem_with(case, ending, touched, answer)


def problem_with(case: Case, ending: Ending, touched: list[str], answer: str) -> str | None:
    """Say what is wrong with how a case ended, after which the files `touched` had changed."""
    if "executed" in touched:
        return "code in it ran"
    # an error keeps what `prepare` has finished, for its next start
    allowed = WRITTEN if ending.status == 0 else str(partial_folder(Path("prepared")))
    wrong = [path for path in touched if not path.startswith(allowed)]
    if wrong:
        return f"exit status {ending.status}, but it changed {', '.join(wrong)}"
    if case.valid and ending.status != 0:
        return f"refused: {ending.message[-300:]!r}"
    if case.either or (case.valid and case.read is not bad_params.check_params):
        answer = ending.answer
    return problem_of(ending, answer if case.valid or case.either else None, case.names)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Change the current folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
