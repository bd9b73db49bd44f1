"""Training states in S3: a killed training resumes elsewhere, and a failing S3 does not stop a training."""

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from components.s3 import checkpoints
from components.s3.checkpoints import open_state
from irra.checkpoint import StateFolder, TrainState
from irra.config import TrainConfig
from irra.data.store import PreparedStore
from irra.data.tokens import TokenStore
from irra.utils.errors import UserError
from tests.irra.test_trainer import Quiet, assert_equal, make_trainer, weights
from tests.s3 import BUCKET, Refused, Server

pytest_plugins = ["tests.s3"]
pytestmark = pytest.mark.xdist_group("storage")

URI = f"s3://{BUCKET}/checkpoints"
FINGERPRINT = {"train.lr": 1e-3, "data": "abc"}
SCALER = torch.amp.GradScaler("cpu", enabled=False)


class Counter:
    """The smallest training: its only weight is the number of its last epoch."""

    def __init__(self, state: StateFolder) -> None:
        self.state = state
        self.model = nn.Linear(1, 1, bias=False)
        self.optimizer: Optimizer = SGD(self.model.parameters())

    def save(self, epoch: int, best_epoch: int = 0) -> None:
        self.model.weight.data.fill_(epoch)
        if best_epoch:
            self.state.folder.mkdir(parents=True, exist_ok=True)
            self.state.best_weights(best_epoch).write_text(f"weights of epoch {best_epoch}")
        self.state.save(TrainState(epoch=epoch, best_epoch=best_epoch), self.model, self.optimizer, {})

    def load(self) -> TrainState | None:
        return self.state.load(self.model, self.optimizer, SCALER)


def remote_names(s3: Server) -> list[str]:
    """The stored objects, without the folder named after the fingerprint."""
    return [name.split("/", 2)[2] for name in s3.names()]


def train(
    store: PreparedStore, tokens: TokenStore, config: TrainConfig, folder: Path, reporter: Quiet, uri: str = URI
) -> tuple[dict[str, torch.Tensor], TrainState, bytes]:
    """Train to the end, and return last weights, progress and best weights."""
    with open_state(folder, FINGERPRINT, uri) as states:
        trainer = make_trainer(store, tokens, config, states)
        state = trainer.fit(reporter)
        return weights(trainer), state, states.best_weights(state.best_epoch).read_bytes()


class Hangs(Quiet):
    """Train to the middle of the second epoch, and stop."""

    def step(self, row: Mapping[str, float], step: int) -> None:
        if step == 9:
            time.sleep(60)


def test_a_training_killed_on_one_machine_ends_on_another_as_if_never_killed(
    s3: Server, store: PreparedStore, tokens: TokenStore, train_config: TrainConfig, tmp_path: Path
) -> None:
    config = train_config.model_copy(update={"lr": 1e-3, "log_period": 1})
    # forked, because a new process would spend ten seconds on imports; no other thread here could hold a lock
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(store, tokens, config, tmp_path / "here", Hangs()), daemon=True
    )
    process.start()
    deadline = time.monotonic() + 60
    while "state.safetensors" not in remote_names(s3):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    reporter = Quiet()
    resumed, at, best = train(store, tokens, config, tmp_path / "elsewhere", reporter)
    assert reporter.steps[0] == 7, "the first epoch is not repeated"
    expected, expected_at, expected_best = train(store, tokens, config, tmp_path / "whole", Quiet(), uri="")
    assert_equal(resumed, expected)
    assert (at, best) == (expected_at, expected_best)


def test_best_weights_come_along_and_those_of_earlier_epochs_go(s3: Server, tmp_path: Path) -> None:
    with open_state(tmp_path / "here", FINGERPRINT, URI) as state:
        for epoch, best in ((2, 1), (3, 2), (4, 2)):
            Counter(state).save(epoch, best)
    assert remote_names(s3) == ["best-0002.safetensors", "state.safetensors"]
    assert len([name for name in s3.asked("PUT") if name.endswith("best-0002.safetensors")]) <= 1
    with open_state(tmp_path / "elsewhere", FINGERPRINT, URI) as state:
        other = Counter(state)
        at = other.load()
    assert at == TrainState(epoch=4, best_epoch=2)
    assert other.model.weight.item() == 4
    assert state.best_weights(2).read_text() == "weights of epoch 2"


@pytest.mark.parametrize(("here", "there"), [(3, 2), (2, 3)])
def test_the_state_that_is_further_is_taken(s3: Server, tmp_path: Path, here: int, there: int) -> None:
    Counter(StateFolder(tmp_path / "here", FINGERPRINT)).save(here)
    with open_state(tmp_path / "there", FINGERPRINT, URI) as state:
        Counter(state).save(there)
    with open_state(tmp_path / "here", FINGERPRINT, URI) as state:
        assert Counter(state).load() == TrainState(epoch=3)


def test_a_state_of_another_training_is_neither_taken_nor_replaced(s3: Server, tmp_path: Path) -> None:
    with open_state(tmp_path / "there", FINGERPRINT, URI) as state:
        Counter(state).save(2)
    with open_state(tmp_path / "new", FINGERPRINT | {"train.lr": 1.0}, URI) as state:
        assert Counter(state).load() is None
    Counter(StateFolder(tmp_path / "here", FINGERPRINT | {"train.lr": 1.0})).save(1)
    with (
        open_state(tmp_path / "here", FINGERPRINT, URI) as state,
        pytest.raises(UserError, match=r"unfinished training of another configuration .*train\.lr: 1\.0 there"),
    ):
        Counter(state).load()


def test_a_server_that_hangs_does_not_hold_a_finished_training(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoints, "CLOSE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with open_state(tmp_path, FINGERPRINT, URI) as state:
            Counter(state).save(2, 1)
            state.clear()
        assert time.monotonic() - started < 3
    assert "S3 hangs" in capsys.readouterr().err


def finish(folder: Path) -> None:
    """Run a training to its end at epoch 2."""
    with open_state(folder, FINGERPRINT, URI) as state:
        Counter(state).save(2, 1)
        state._pending.result()  # sent, before the end would make it superfluous
        state.clear()


def found_in(folder: Path) -> TrainState | None:
    with open_state(folder, FINGERPRINT, URI) as state:
        return Counter(state).load()


@pytest.mark.parametrize(
    ("run", "expected"), [("one", TrainState(epoch=2, best_epoch=1)), ("another", None), ("", None)]
)
def test_only_the_kubeflow_run_that_finished_a_training_finds_it_finished(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, expected: TrainState | None
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "one")
    finish(tmp_path / "here")
    monkeypatch.setenv("KFP_RUN_ID", run)
    assert found_in(tmp_path / "elsewhere") == expected


def test_the_last_state_is_sent_before_the_training_is_marked(
    s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "one")
    s3.door = lambda method, name: time.sleep(0.2)  # so that the state is still waiting when the training ends
    with open_state(tmp_path / "here", FINGERPRINT, URI) as state:
        for epoch in (2, 3):
            Counter(state).save(epoch)
        state.clear()
    assert found_in(tmp_path / "elsewhere") == TrainState(epoch=3)


def test_another_run_replaces_a_finished_training(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "one")
    finish(tmp_path / "here")
    monkeypatch.setenv("KFP_RUN_ID", "another")
    with open_state(tmp_path / "there", FINGERPRINT, URI) as state:
        Counter(state).save(1)
    assert remote_names(s3) == ["state.safetensors"]


def test_weights_that_an_equal_training_removed_are_sent_again(s3: Server, tmp_path: Path) -> None:
    with open_state(tmp_path / "one", FINGERPRINT, URI) as one, open_state(tmp_path / "two", FINGERPRINT, URI) as two:
        for state, epoch, best in ((one, 2, 1), (two, 3, 2), (one, 4, 1)):
            Counter(state).save(epoch, best)
            state._pending.result()
    assert found_in(tmp_path / "elsewhere") == TrainState(epoch=4, best_epoch=1)


def test_a_removal_that_breaks_off_leaves_no_state_without_its_weights(s3: Server, tmp_path: Path) -> None:
    removals = iter([None])
    refusal = Refused("403 Forbidden", "AccessDenied")
    s3.door = lambda method, name: next(removals, refusal) if method == "DELETE" else None
    finish(tmp_path / "here")
    assert remote_names(s3) == ["best-0001.safetensors"]


def test_nothing_is_left_of_a_finished_training(s3: Server, tmp_path: Path) -> None:
    with open_state(tmp_path / "here", FINGERPRINT, URI) as state:
        Counter(state).save(2, 1)
        state._pending.result()  # sent, before the end would make it superfluous
        state.clear()
    assert s3.names() == []
    assert not (tmp_path / "here").exists()


def test_an_upload_that_fails_is_mentioned_once_and_made_good_by_the_next(
    s3: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = threading.Semaphore(0)

    def refuse(method: str, name: str) -> Refused | None:
        if method != "PUT":
            return None
        refused.release()
        return Refused("403 Forbidden", "AccessDenied")

    s3.door = refuse
    with open_state(tmp_path / "here", FINGERPRINT, URI) as state:
        training = Counter(state)
        for epoch in (2, 3):
            training.save(epoch)
            assert refused.acquire(timeout=60)
        s3.door = lambda method, name: None
        training.save(4)
    assert capfd.readouterr().err.count("warning: ") == 1
    with open_state(tmp_path / "elsewhere", FINGERPRINT, URI) as state:
        assert Counter(state).load() == TrainState(epoch=4)


def test_a_slow_upload_holds_nothing_up_and_only_the_newest_state_follows(s3: Server, tmp_path: Path) -> None:
    released, begun = threading.Event(), threading.Event()

    def hold(method: str, name: str) -> None:
        if method == "PUT":
            begun.set()
            released.wait(60)

    s3.door = hold
    with open_state(tmp_path / "here", FINGERPRINT, URI) as state:
        training = Counter(state)
        training.save(2)
        assert begun.wait(60)
        for epoch in (3, 4, 5):
            training.save(epoch)
        assert len(s3.asked("PUT")) == 1
        released.set()
    assert len(s3.asked("PUT")) == 2
    with open_state(tmp_path / "elsewhere", FINGERPRINT, URI) as state:
        assert Counter(state).load() == TrainState(epoch=5)


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/checkpoints", "checkpoints"])
def test_a_place_that_cannot_be_looked_at_stops_the_start(s3: Server, tmp_path: Path, uri: str) -> None:
    with pytest.raises(UserError, match=r"no such bucket|not an address in S3"), open_state(tmp_path, {}, uri) as state:
        Counter(state).load()
