"""The state of a training also in S3, so that another machine can go on with it."""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from components.s3.client import SHA256, RemoteFolder
from irra.checkpoint import STATE, StateFolder, TrainState
from irra.utils.locks import locked

FINISHED = "finished"  # names the Kubeflow run whose training ended with the state beside it


@contextmanager
def open_state(folder: Path, fingerprint: dict[str, Any], uri: str) -> Iterator[StateFolder]:
    """The state of a training in `folder` and, where a `uri` is given, there; the last upload is awaited at the end.

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
    """A state folder that is copied, after every save, to `<uri>/<hash of the fingerprint>/`.

    A background thread sends one copy at a time, and of those that wait only the newest. An upload that fails costs a
    warning; the next save tries again. But a state that cannot be looked for at the start is a UserError: to begin
    anew would be worse.

    A task of Kubeflow may still fail after its training, when its outputs are sent: its finished state stays in S3, so
    that its next try only publishes again. To other runs that state is none, and they replace it.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], uri: str) -> None:
        super().__init__(folder, fingerprint)
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        self._remote = RemoteFolder(f"{uri.rstrip('/')}/{digest[:16]}")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[None] = Future()
        self._sent = ""  # the best weights that are there already
        self._run = os.environ.get("KFP_RUN_ID", "")
        self._failing = False

    def save(self, state: TrainState, model: nn.Module, optimizer: Optimizer, scaler: dict[str, Any]) -> None:
        """Write the state here, and have it sent."""
        super().save(state, model, optimizer, scaler)
        paths = [self.best_weights(state.best_epoch)] if state.best_epoch else []
        stack = ExitStack()  # opened now, since an open file keeps its content when a later save replaces or removes it
        files = {path.name: stack.enter_context(path.open("rb")) for path in (*paths, self.folder / STATE)}
        position = {"epoch": str(state.epoch), "step": str(state.step), "best": str(state.best_epoch)}
        self._pending.cancel()  # of those that wait only the newest is sent
        self._in_background(
            lambda: self._send(files, position), "training goes on, and tries again after the next save"
        )
        self._pending.add_done_callback(lambda _: stack.close())

    def load(self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> TrainState | None:
        """Restore the state in S3 or the one here, whichever is further."""
        self._fetch_further()
        return super().load(model, optimizer, scaler)

    def clear(self) -> None:
        """Remove the state of a finished training here; in S3, mark it where a task may be tried again."""
        super().clear()
        if self._run:
            self._in_background(self._mark_finished, "the next run with these parameters publishes this training")
        else:
            self._pending.cancel()
            self._in_background(self._clear_remote, "the state of this finished training stays there")

    def close(self) -> None:
        """Wait for what is still to be sent."""
        self._pool.shutdown()

    def _in_background(self, work: Callable[[], None], otherwise: str) -> None:
        """Do `work` after all that waits; the first of several failures is printed."""

        def guarded() -> None:
            try:
                work()
                self._failing = False
            except Exception as error:  # nothing that goes wrong there may stop a training here
                if not self._failing:
                    print(f"warning: {error}; {otherwise}", file=sys.stderr, flush=True)
                self._failing = True

        self._pending = self._pool.submit(guarded)

    def _send(self, files: dict[str, BufferedReader], position: dict[str, str]) -> None:
        """The state goes last, so that the weights which it names are there; what it replaces is removed after it.

        Another run with the same parameters may have removed weights that were there.
        """
        there = self._remote.list()
        for name, file in files.items():
            if name != self._sent or name not in there:
                digest = hashlib.file_digest(file, SHA256).hexdigest()
                file.seek(0)
                self._remote.put(file, name, {SHA256: digest, **position})
        for name in there.keys() - files.keys():
            self._remote.delete(name)
        self._sent = next((name for name in files if name != STATE), "")

    def _mark_finished(self) -> None:
        self._remote.write(FINISHED, self._run.encode())

    def _clear_remote(self) -> None:
        """The state first: without it the rest is nothing, and it is nothing without the weights that it names."""
        for name in sorted(self._remote.list(), key=lambda name: name != STATE):
            self._remote.delete(name)

    def _fetch_further(self) -> None:
        """Copy the state from S3 here, behind the best weights that it names, unless the one here is as far."""
        names = self._remote.list()
        if STATE not in names or (FINISHED in names and self._remote.read(FINISHED) != self._run.encode()):
            return
        there = self._remote.metadata(STATE)
        if self._position() >= (int(there["epoch"]), int(there["step"])):
            return
        if best := int(there["best"]):
            weights = self.best_weights(best)
            self._remote.get(weights.name, weights)
            self._sent = weights.name
        self._remote.get(STATE, self.folder / STATE)

    def _position(self) -> tuple[float, float]:
        """Epoch and step of the state here; one of another training is not to be replaced, so it counts as furthest."""
        if not (self.folder / STATE).exists():
            return (0, 0)
        metadata = self.read_metadata()
        if metadata.fingerprint != self.fingerprint:
            return (math.inf, 0)
        return metadata.state.epoch, metadata.state.step
