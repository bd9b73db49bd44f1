"""A copy of the training state in S3, from which another machine can resume."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from components.s3.client import SHA256, RemoteFolder
from irra.checkpoint import STATE, StateFolder, TrainState
from irra.utils.locks import locked

FINISHED = "finished"  # an object that holds the id of the Kubeflow run whose training ended with this state

CLOSE_SECONDS = 60.0  # the longest that a training waits at its end for S3, apart from the time to upload a state
CLOSE_BYTES_PER_SECOND = 4 << 20


@contextmanager
def open_state(folder: Path, fingerprint: dict[str, Any], uri: str) -> Iterator[StateFolder]:
    """Open the training state in `folder`, with a copy at `uri` unless that is empty; waits for the last upload.

    Raises:
        UserError: Another process is training in `folder`.
    """
    with locked(folder):
        if not uri:
            yield StateFolder(folder, fingerprint)
            return
        state = RemoteStateFolder(folder, fingerprint, uri)
        try:
            yield state
        finally:
            state.close()


class RemoteStateFolder(StateFolder):
    """A state folder that is copied to `<uri>/<hash of the fingerprint>/` after every save.

    A background thread uploads one copy at a time; if several are waiting, only the newest is sent. A failed upload
    prints a warning, and the next save tries again. At the start, however, a failure to look for a state raises
    UserError, because silently starting from scratch would be worse.

    A Kubeflow task may still fail after its training, while its outputs are uploaded. Its finished state therefore
    stays in S3, so that a retry only publishes the model again. Other runs ignore a finished state and replace it.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], uri: str) -> None:
        super().__init__(folder, fingerprint)
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        self._remote = RemoteFolder(f"{uri.rstrip('/')}/{digest[:16]}")
        self._jobs: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="checkpoints", daemon=True)  # a pool could not be left behind
        self._thread.start()
        self._bytes = 0  # of the last state
        self._pending: Future[None] = Future()
        self._sent = ""  # name of the best weights that are already in S3
        self._run = os.environ.get("KFP_RUN_ID", "")
        self._failing = False

    def save(self, state: TrainState, model: nn.Module, optimizer: Optimizer, scaler: dict[str, Any]) -> None:
        """Write the state locally, and upload it in the background."""
        super().save(state, model, optimizer, scaler)
        paths = [self.best_weights(state.best_epoch)] if state.best_epoch else []
        stack = ExitStack()  # an open file keeps its content even if a later save replaces or removes it
        files = {path.name: stack.enter_context(path.open("rb")) for path in (*paths, self.folder / STATE)}
        self._bytes = sum(file.seek(0, os.SEEK_END) for file in files.values())
        position = {"epoch": str(state.epoch), "step": str(state.step), "best": str(state.best_epoch)}
        self._pending.cancel()  # only the newest waiting state is sent
        self._in_background(
            lambda: self._send(files, position), "training continues, and tries again after the next save"
        )
        self._pending.add_done_callback(lambda _: stack.close())

    def load(self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> TrainState | None:
        """Restore the state in S3 or the local one, whichever has made more progress."""
        self._fetch_further()
        return super().load(model, optimizer, scaler)

    def clear(self) -> None:
        """Remove the local state of a finished training, and the one in S3; a Kubeflow task only marks the latter."""
        super().clear()
        if self._run:
            self._in_background(
                self._mark_finished, "the next run with these parameters will publish this training again"
            )
        else:
            self._pending.cancel()
            self._in_background(self._clear_remote, "the state of this finished training stays in S3")

    def close(self) -> None:
        """Wait for pending uploads, but not for a server that hangs."""
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS + self._bytes / CLOSE_BYTES_PER_SECOND)
        if self._thread.is_alive():
            print(
                f"warning: {self._remote.uri}: S3 hangs; the last state may be missing or left over there",
                file=sys.stderr,
                flush=True,
            )

    def _work(self) -> None:
        """Do one job after the other until `close`."""
        while job := self._jobs.get():
            future, work = job
            if future.set_running_or_notify_cancel():
                work()
                future.set_result(None)

    def _in_background(self, work: Callable[[], None], consequence: str) -> None:
        """Queue `work`; of several failures in a row, only the first prints a warning, which ends in `consequence`."""

        def guarded() -> None:
            try:
                work()
                self._failing = False
            except Exception as error:  # no problem with S3 may stop the training
                if not self._failing:
                    print(f"warning: {error}; {consequence}", file=sys.stderr, flush=True)
                self._failing = True

        self._pending = Future()
        self._jobs.put((self._pending, guarded))

    def _send(self, files: dict[str, BufferedReader], position: dict[str, str]) -> None:
        """Upload the weights, then the state that refers to them, and then remove what the state has replaced.

        Weights uploaded earlier are sent again if another run with the same parameters has removed them.
        """
        existing = self._remote.list()
        for name, file in files.items():
            if name != self._sent or name not in existing:
                file.seek(0)
                digest = hashlib.file_digest(file, SHA256).hexdigest()
                file.seek(0)
                self._remote.put(file, name, {SHA256: digest, **position}, parts=1)
        for name in existing.keys() - files.keys():
            self._remote.delete(name)
        self._sent = next((name for name in files if name != STATE), "")

    def _mark_finished(self) -> None:
        self._remote.write(FINISHED, self._run.encode())

    def _clear_remote(self) -> None:
        """Remove the state first: it is unusable without its weights, while weights without a state are ignored."""
        for name in sorted(self._remote.list(), key=lambda name: name != STATE):
            self._remote.delete(name)

    def _fetch_further(self) -> None:
        """Copy the state from S3, after the best weights it refers to, unless the local state is at least as far."""
        names = self._remote.list()
        if STATE not in names or (FINISHED in names and self._remote.read(FINISHED) != self._run.encode()):
            return
        remote = self._remote.metadata(STATE)
        if self._position() >= (int(remote["epoch"]), int(remote["step"])):
            return
        if best := int(remote["best"]):
            weights = self.best_weights(best)
            self._remote.get(weights.name, weights)
            self._sent = weights.name
        self._remote.get(STATE, self.folder / STATE)

    def _position(self) -> tuple[float, float]:
        """Epoch and step of the local state.

        A state of another training counts as furthest, because it must not be replaced.
        """
        if not (self.folder / STATE).exists():
            return (0, 0)
        metadata = self.read_metadata()
        if metadata.fingerprint != self.fingerprint:
            return (math.inf, 0)
        return metadata.state.epoch, metadata.state.step
