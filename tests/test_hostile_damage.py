"""The judgement of the campaigns "damage" and "inputs": whatever is not as promised is a problem."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from irra.utils.errors import UserError
from irra.utils.records import write_record
from tests.hostile import bad_data, bad_params, damage, inputs
from tests.hostile.case import Case
from tests.hostile.damages import Damage, damages
from tests.hostile.readers import Reader
from tests.hostile.sandbox import Sandbox, changes
from tests.hostile.trial import Ending, Trials, problem_of

NAMED = Ending(2, "", "encode: 3/3\nerror: a.json: damaged; make it again\n")


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    for name in ("project", "scratch"):
        (tmp_path / name).mkdir()
    (tmp_path / "project" / "a.json").write_text("17")
    return Trials(tmp_path / "project", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        (Ending(0, "right", ""), None),
        (Ending(0, "wrong", "warning: something\n"), "another answer without a word"),
        (Ending(None, "", ""), "did not end in time"),
        (Ending(-11, "", ""), "exit status -11"),
        (Ending(70, "", "Traceback (most recent call last):\n"), "exit status 70"),
        (Ending(2, "", "Traceback (most recent call last):\nerror: a.json\n"), "Traceback"),
        (Ending(2, "", "nothing helpful\n"), "0 messages"),
        (Ending(2, "", "error: a.json: one\nerror: a.json: two\n"), "2 messages"),
        (Ending(2, "", "error: a file is damaged\n"), "does not name a.json"),
        (NAMED, None),
    ],
)
def test_an_ending_is_a_problem_unless_it_is_the_answer_or_a_message(ending: Ending, problem: str | None) -> None:
    found = problem_of(ending, "right", ["a.json"])
    assert found is None if problem is None else problem in str(found)


def test_an_accepted_bad_input_is_a_problem() -> None:
    assert "it was accepted" in str(problem_of(Ending(0, "answer", ""), None, []))


def raise_user_error() -> None:
    raise UserError("a.json: damaged")


def read_a_pipe() -> None:
    os.mkfifo("pipe")
    Path("pipe").read_text()


@pytest.mark.parametrize(
    ("work", "status", "message"),
    [
        (lambda: "answer", 0, ""),
        (raise_user_error, 2, "error: a.json: damaged"),
        (lambda: 1 / 0, 70, "ZeroDivisionError"),
        (lambda: bytes(8 << 30), 70, "MemoryError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, ""),
        (read_a_pipe, None, ""),
        (lambda: time.sleep(60), None, ""),
    ],
)
def test_a_trial_tells_how_its_process_ended(trials: Trials, work: object, status: int | None, message: str) -> None:
    assert callable(work)
    ending = trials.attempt(work, seconds=0.5)
    assert ending.status == status
    assert message in ending.message
    assert ending.answer == ("answer" if status == 0 else "")


def case_of(work: object, name: str = "", **reader: object) -> damage.Case:
    assert callable(work)
    harmless = Damage(name, lambda path: path.write_text("18") and None)
    return damage.Case(Reader("reader", (), work, **reader), Path("a.json"), harmless)  # type: ignore[arg-type]


def half_write() -> None:
    Path("b.json.tmp").write_text("1")
    raise UserError("a.json: damaged")


def test_a_damage_is_judged_by_the_answer_and_by_the_other_files(trials: Trials, tmp_path: Path) -> None:
    (trials.cwd / "b.json").write_text("other")
    sandbox = Sandbox(trials.cwd, tmp_path / "pristine")

    def judged(work: object, **reader: object) -> str | None:
        return damage.judge(case_of(work, **reader), "17", trials, sandbox)

    assert judged(lambda: 17) is None
    assert judged(raise_user_error) is None
    assert "another answer" in str(judged(lambda: Path("a.json").read_text()))
    assert "changed b.json.tmp" in str(judged(half_write))
    assert "changed b.json" in str(judged(lambda: Path("b.json").unlink() or 17))
    assert judged(lambda: Path("b.json").write_text("17") and 17, writes=(Path("b.json"),)) is None
    assert {path.name: path.read_text() for path in trials.cwd.iterdir()} == {"a.json": "17", "b.json": "other"}


def test_a_sandbox_is_put_right_whatever_became_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a").write_text("a")
    (folder / "b").write_text("b")
    sandbox = Sandbox(folder, tmp_path / "pristine")
    for kind in damages(b'{"a": 1}', random.Random(0)):
        kind.apply(folder / "b")
        (folder / "in").rename(folder / "new")
        assert changes(sandbox._intact, sandbox.state())
        sandbox.restore()
        assert (folder / "in" / "a").read_text() == "a"
        assert (folder / "b").read_text() == "b"
        assert sorted(os.listdir(folder)) == ["b", "in"]


def test_every_edit_of_a_record_is_a_damage(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", {"a": {"b": 1}, "c": [2]})
    names = {kind.name: kind.forged for kind in damages((tmp_path / "a.json").read_bytes(), random.Random(0))}
    assert {"without a", "removed", "a pipe in its place", "replaced by null", "cut to 0 bytes"} <= names.keys()
    assert names["without a and without checksum"]
    assert not names["without a"]


def test_a_bad_input_is_judged_by_what_it_did() -> None:
    bad = Case("bad", "input", lambda: None, lambda: None, ["a.json"])
    right = Case("odd", "input", lambda: None, bad_data.prepare, valid=True)
    same = Case("odd", "input", lambda: None, bad_params.check_params, valid=True)
    assert inputs.problem_with(bad, NAMED, [], "") is None
    assert inputs.problem_with(bad, NAMED, ["executed"], "") == "code in it ran"
    assert "changed prepared/x" in str(inputs.problem_with(bad, NAMED, ["prepared/x"], ""))
    assert "accepted" in str(inputs.problem_with(bad, Ending(0, "x", ""), ["prepared/x"], ""))
    assert "refused" in str(inputs.problem_with(right, NAMED, [], ""))
    assert inputs.problem_with(right, Ending(0, "x", ""), ["prepared/x"], "") is None
    assert "another answer" in str(inputs.problem_with(same, Ending(0, "x", ""), [], "y"))
