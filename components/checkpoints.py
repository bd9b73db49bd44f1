"""The state of a training also in S3, so that another machine can go on with it."""

import hashlib
import json
import math
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

from components.s3 import SHA256, RemoteFolder
from irra.checkpoint import STATE, Progress, StateFolder


@contextmanager
def open_state(folder: Path, fingerprint: dict[str, Any], uri: str) -> Iterator[StateFolder]:
    """The state of a training in `folder` and, where a `uri` is given, there; the last upload is awaited at the end."""
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
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], uri: str) -> None:
        super().__init__(folder, fingerprint)
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        self._remote = RemoteFolder(f"{uri.rstrip('/')}/{digest[:16]}")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[None] = Future()
        self._sent = ""  # the best weights that are there already
        self._failing = False

    def save(self, progress: Progress, model: nn.Module, optimizer: Optimizer, scaler: dict[str, Any]) -> None:
        """Write the state here, and have it sent."""
        super().save(progress, model, optimizer, scaler)
        paths = [self.best_weights(progress.best_epoch)] if progress.best_epoch else []
        stack = ExitStack()  # opened now, since an open file keeps its content when a later save replaces or removes it
        files = {path.name: stack.enter_context(path.open("rb")) for path in (*paths, self.folder / STATE)}
        position = {"epoch": str(progress.epoch), "step": str(progress.step), "best": str(progress.best_epoch)}
        self._in_background(
            lambda: self._send(files, position), "training goes on, and tries again after the next save"
        )
        self._pending.add_done_callback(lambda _: stack.close())

    def load(self, model: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> Progress | None:
        """Restore the state in S3 or the one here, whichever is further."""
        self._fetch_further()
        return super().load(model, optimizer, scaler)

    def clear(self) -> None:
        """Remove the state of a finished training, here and in S3."""
        super().clear()
        self._in_background(self._clear_remote, "the state of this finished training stays there")

    def close(self) -> None:
        """Wait for what is still to be sent."""
        self._pool.shutdown()

    def _in_background(self, work: Callable[[], None], otherwise: str) -> None:
        """Do `work` after what is being done, instead of what waits; the first of several failures is printed."""

        def guarded() -> None:
            try:
                work()
                self._failing = False
            except Exception as error:  # nothing that goes wrong there may stop a training here
                if not self._failing:
                    print(f"warning: {error}; {otherwise}", file=sys.stderr, flush=True)
                self._failing = True

        self._pending.cancel()
        self._pending = self._pool.submit(guarded)

    def _send(self, files: dict[str, BufferedReader], position: dict[str, str]) -> None:
        """The state goes last, so that the weights which it names are there."""
        for name, file in files.items():
            if name != self._sent:
                digest = hashlib.file_digest(file, SHA256).hexdigest()
                file.seek(0)
                self._remote.put(file, name, {SHA256: digest, **position})
        for name in self._remote.list().keys() - files.keys():
            self._remote.delete(name)
        self._sent = next((name for name in files if name != STATE), "")

    def _clear_remote(self) -> None:
        for name in self._remote.list():
            self._remote.delete(name)

    def _fetch_further(self) -> None:
        """Copy the state from S3 here, behind the best weights that it names, unless the one here is as far."""
        if STATE not in self._remote.list():
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
        path = self.folder / STATE
        if not path.exists():
            return (0, 0)
        facts = self._read_facts(path)
        if facts["fingerprint"] != self.fingerprint:
            return (math.inf, 0)
        return facts["progress"]["epoch"], facts["progress"]["step"]
